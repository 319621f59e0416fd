"""What people are asked: the questions, their answers, and the columns of a sheet as a table."""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass
from typing import Literal

Kind = Literal["captions", "comparison"]  # of a sample: captions judged one by one, or two compared
CANNOT_JUDGE = "cannot judge"
PICTURE = "picture"  # the name of the picture in the tasks of Label Studio


@dataclass(frozen=True)
class Question:
    """A question.

    `answers` maps each answer to a hint that explains it, from the best answer to the worst.
    """

    name: str
    text: str
    answers: dict[str, str]

    @functools.cached_property
    def values(self) -> dict[str, int]:
        """Each answer as a number on an ordinal scale; the worst answer is 0."""
        return {answer: len(self.answers) - 1 - i for i, answer in enumerate(self.answers)}


RELEVANCE = Question(
    "relevance",
    "Is the caption relevant to the picture?",
    {
        "relevant": "it says what you can see",
        "partly": "some of it is right, some is wrong",
        "not": "it is about something else",
    },
)
QUALITY = Question(
    "quality",
    "Is it well written and specific?",
    {
        "good": "clear, and it says exactly what the thing is",
        "acceptable": "understandable, but clumsy or vague",
        "poor": "garbled, repetitive or empty",
    },
)
BETTER = Question(
    "better",
    "Which caption is better?",
    {
        "first": "the upper one",
        "no difference": "both are equally good, or equally bad",
        "second": "the lower one",
    },
)
QUESTIONS: dict[Kind, tuple[Question, ...]] = {"captions": (RELEVANCE, QUALITY), "comparison": (BETTER,)}
COLUMNS: dict[Kind, tuple[str, ...]] = {  # of a sheet as a table
    "captions": (
        "sample",
        "rater",
        "number",
        "item_id",
        "caption",
        "relevance",
        "quality",
        "comment",
        "seconds",
        "answered_at",
    ),
    "comparison": (
        "sample",
        "rater",
        "number",
        "item_id",
        "first_caption",
        "second_caption",
        "better",
        "comment",
        "seconds",
        "answered_at",
    ),
}
# Spreadsheet programs take a cell that begins like this for a formula. They may also split a cell at a
# semicolon, so the text after one counts as a beginning, too. sheet.js gets the same pattern.
FORMULA = "(^|[;\\t\\r\\n])([ \\u00a0'\"]*[=+\\-@\\uff1d\\uff0b\\uff0d\\uff20])"
_DEFUSED = re.compile(FORMULA.replace(")([", ")'([", 1))


def defused(text: str) -> str:
    """`text` so that no spreadsheet program takes it for a formula. `restored` undoes this."""
    return re.sub(FORMULA, r"\1'\2", text)


def restored(text: str) -> str:
    """The original text of a cell that `defused` wrote. A cell that needed no defusing stays as it is."""
    return _DEFUSED.sub(r"\1\2", text)
