"""Agreement of any ratings, whatever tool people rated with: a long table item, rater, question, value."""

from __future__ import annotations

import math
import re
import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..sources.cells import RowError, identifier
from ..sources.rows import BadRow, SourceError, is_missing
from ..sources.tables import read_tables
from .agreement import MEASURES, agreement, bootstrap
from .results import TableQuestion

FIELDS = ("item", "rater", "question", "value")
QUESTION = "rating"  # the question of a table without a column of that name
MAX_VALUES = 1000  # different numbers; no scale that people answer on has more
LARGEST = 1e9  # of a value
_MISSING = {"", "na", "n/a", "nan", "null", "none", ".", "*"}  # what tools write if there is no answer

Answers = dict[tuple[str, str], float]  # the value of each (item, rater) for one question


@dataclass(frozen=True)
class TableScore:
    """A long table of ratings: its answers and the figures of each question, by question."""

    name: str  # of the file
    answers: dict[str, Answers]
    questions: dict[str, TableQuestion]


def read_ratings(path: str | Path) -> dict[str, Answers]:
    """The answers of a table, by question. Questions keep the order in which they first appear.

    Raises SourceError for a row that cannot be used, with the line named.
    """
    ratings: dict[str, Answers] = {}
    for rows in read_tables([str(path)], FIELDS, None, ("item", "rater", "value")):
        if isinstance(rows, BadRow):
            raise SourceError(f"{rows.source}, line {rows.line}: {rows.reason}")
        items, raters, values = (rows.columns[name] for name in ("item", "rater", "value"))
        questions = rows.columns.get("question", [QUESTION] * len(rows.lines))
        for line, item, rater, question, value in zip(
            rows.lines, items, raters, questions, values, strict=True
        ):
            if all(is_missing(cell) for cell in (item, rater, value)):
                continue  # spreadsheet programs leave empty rows at the end
            place = f"{rows.source}, line {line}"
            key = _name(item, "item", place), _name(rater, "rater", place)
            name = _name(question, "question", place)
            if (number := _number(value, place)) is None:
                continue
            answers = ratings.setdefault(name, {})
            if key in answers:
                raise SourceError(
                    f"{place}: rater {key[1]} has answered {name} for item {key[0]} before: one answer each"
                )
            answers[key] = number
    if not ratings:
        raise SourceError(
            f"{path} holds no ratings: it takes a row for each, with the columns {', '.join(FIELDS)}"
        )
    for question, answers in ratings.items():
        if (different := len(set(answers.values()))) > MAX_VALUES:
            raise SourceError(
                f"{path}: the answers to {question} have {different:,} different values: "
                f"agreement is for scales of at most {MAX_VALUES}"
            )
    return ratings


def describe(answers: Answers) -> TableQuestion:
    """The mean and the agreement of one question. The scale is made of the values that were given."""
    raters: dict[str, list[float]] = {}
    for (_, rater), value in answers.items():
        raters.setdefault(rater, []).append(value)
    counts, values = _counts(answers)
    return {
        "items": len(counts),
        "ratings": len(answers),
        "mean": statistics.fmean(answers.values()),
        **agreement(counts, values),
        "by_rater": {
            rater: {"ratings": len(own), "mean": statistics.fmean(own)}
            for rater, own in sorted(raters.items())
        },
    }


def intervals(answers: Answers) -> dict[str, list[float] | None]:
    """95% intervals of the five measures, by bootstrap over items."""
    bootstrapped = bootstrap(*_counts(answers))
    return {name: list(interval) if (interval := bootstrapped[name]) else None for name in MEASURES}


def distribution(answers: Answers) -> dict[float, int]:
    """How often each value was given, in ascending order of the values."""
    values, counts = np.unique(list(answers.values()), return_counts=True)
    return dict(zip(values.tolist(), counts.tolist(), strict=True))


def _counts(answers: Answers) -> tuple[np.ndarray, np.ndarray]:
    """([items, values], values): how many raters gave each item each value."""
    values, value_of = np.unique(list(answers.values()), return_inverse=True)
    items: dict[str, int] = {}
    item_of = np.array([items.setdefault(item, len(items)) for item, _ in answers])
    counts = np.zeros((len(items), len(values)))
    np.add.at(counts, (item_of, value_of.ravel()), 1)
    return counts, values


def _name(cell: Any, field: str, place: str) -> str:
    try:
        return identifier(cell, field).strip()
    except RowError as error:
        raise SourceError(f"{place}: {error}") from None


def _number(cell: Any, place: str) -> float | None:
    if is_missing(cell) or (isinstance(cell, str) and cell.strip().lower() in _MISSING):
        return None
    text = str(cell).strip()
    try:
        # "1,000" is refused: it may mean one or a thousand.
        ambiguous = isinstance(cell, bool) or re.fullmatch(r"-?\d+,\d{3}", text)
        number = math.nan if ambiguous else float(text.replace(",", "."))
    except ValueError:
        number = math.nan
    if not abs(number) <= LARGEST:
        raise SourceError(
            f"{place}: the value {text[:40]!r} is no number: agreement takes numbers of an ordinal scale"
        )
    return number
