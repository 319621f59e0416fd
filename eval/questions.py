"""What people are asked: the words of the questions, their answers, and how a sheet of answers looks as a
table.
"""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass

CANNOT_JUDGE = "cannot judge"


@dataclass(frozen=True)
class Question:
    """A question; `answers` go from the best to the worst, with a hint each."""

    name: str
    text: str
    answers: dict[str, str]

    @functools.cached_property
    def values(self) -> dict[str, int]:
        """Each answer as a number of an ordinal scale, the worst 0."""
        return {answer: len(self.answers) - 1 - i for i, answer in enumerate(self.answers)}


RELEVANCE = Question(
    "relevance",
    "Is the caption relevant to the picture?",
    {
        "relevant": "it says what is to be seen",
        "partly": "some of it is right, some is wrong",
        "not": "it is about something else",
    },
)
QUALITY = Question(
    "quality",
    "Is it well written and specific?",
    {
        "good": "clear, and it says what kind of thing",
        "acceptable": "understandable, but clumsy or vague",
        "poor": "garbled, repetitive or empty",
    },
)
BETTER = Question(
    "better",
    "Which caption is better?",
    {"first": "the upper one", "no difference": "both are as good, or as bad", "second": "the lower one"},
)
QUESTIONS = {"captions": (RELEVANCE, QUALITY), "comparison": (BETTER,)}  # by the kind of sample
COLUMNS = {  # of a sheet as a table
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
# A cell that begins like this is a formula to spreadsheet programs; after a semicolon too, where that is what
# they split at. sheet.js has the same.
FORMULA = "(^|[;\\t\\r\\n])([ \\u00a0'\"]*[=+\\-@\\uff1d\\uff0b\\uff0d\\uff20])"
_DEFUSED = re.compile(FORMULA.replace(")([", ")'([", 1))


def defused(text: str) -> str:
    """Text that no spreadsheet program takes for a formula; `restored` gives back the text as it was."""
    return re.sub(FORMULA, r"\1'\2", text)


def restored(text: str) -> str:
    """What was typed, of a cell that `defused` wrote (or that needed no defusing)."""
    return _DEFUSED.sub(r"\1\2", text)
