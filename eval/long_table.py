"""Agreement of any ratings: a long table item, rater, question, value, of whatever tool people rated with."""

from __future__ import annotations

import math
import re
import statistics
from pathlib import Path
from typing import Any

import numpy as np

from ..sources.cells import RowError, identifier
from ..sources.rows import BadRow, SourceError, is_missing
from ..sources.tables import read_tables
from .agreement import MEASURES, agreement, bootstrap

FIELDS = ("item", "rater", "question", "value")
QUESTION = "rating"  # the one question of a table that names none
MAX_VALUES = 1000  # different numbers; more is no scale that people answer on
LARGEST = 1e9  # of a value
_MISSING = {"", "na", "n/a", "nan", "null", "none", ".", "*"}  # how tools write that there is no answer


def read_ratings(path: str | Path) -> dict[str, dict[tuple[str, str], float]]:
    """{question: {(item, rater): value}}, questions in the order in which they come.

    Raises SourceError, with the line named, for a row that cannot be used.
    """
    found: dict[str, dict[tuple[str, str], float]] = {}
    for rows in read_tables([str(path)], FIELDS, None, ("item", "rater", "value")):
        if isinstance(rows, BadRow):
            raise SourceError(f"{rows.source}, line {rows.line}: {rows.reason}")
        questions = rows.columns.get("question", [QUESTION] * len(rows.lines))
        for line, item, rater, question, value in zip(
            rows.lines,
            rows.columns["item"],
            rows.columns["rater"],
            questions,
            rows.columns["value"],
            strict=True,
        ):
            if all(is_missing(cell) for cell in (item, rater, value)):
                continue  # an empty row, as spreadsheet programs leave them at the end
            place = f"{rows.source}, line {line}"
            names = [
                _name(cell, field, place)
                for field, cell in (("item", item), ("rater", rater), ("question", question))
            ]
            if (number := _number(value, place)) is None:
                continue
            answers = found.setdefault(names[2], {})
            if (names[0], names[1]) in answers:
                raise SourceError(
                    f"{place}: rater {names[1]} has answered {names[2]} for item {names[0]} before: one answer each"
                )
            answers[names[0], names[1]] = number
    if not found:
        raise SourceError(
            f"{path} holds no ratings: it takes a row for each, with the columns {', '.join(FIELDS)}"
        )
    for question, answers in found.items():
        if (values := len(set(answers.values()))) > MAX_VALUES:
            raise SourceError(
                f"{path}: the answers to {question} have {values:,} different values: agreement is for scales of at most {MAX_VALUES}"
            )
    return found


def describe(answers: dict[tuple[str, str], float]) -> dict[str, Any]:
    """{"items", "ratings", "mean", the five measures, "by_rater": {rater: {"ratings", "mean"}}} of one
    question. The values seen are the scale.
    """
    raters: dict[str, list[float]] = {}
    for (_, rater), value in answers.items():
        raters.setdefault(rater, []).append(value)
    counts, values = _counts(answers)
    return {
        "items": len(counts), "ratings": len(answers), "mean": statistics.fmean(answers.values()), **agreement(counts, values),
        "by_rater": {rater: {"ratings": len(some), "mean": statistics.fmean(some)} for rater, some in sorted(raters.items())},
    }  # fmt: skip


def intervals(answers: dict[tuple[str, str], float]) -> dict[str, list[float] | None]:
    """95% intervals of the five measures, by item bootstrap."""
    found = bootstrap(*_counts(answers))
    return {name: list(interval) if (interval := found[name]) else None for name in MEASURES}


def distribution(answers: dict[tuple[str, str], float]) -> dict[float, int]:
    """How often each value was given, in ascending order."""
    values, counts = np.unique(list(answers.values()), return_counts=True)
    return dict(zip(values.tolist(), counts.tolist(), strict=True))


def _counts(answers: dict[tuple[str, str], float]) -> tuple[np.ndarray, np.ndarray]:
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
        # 1,000 may be one or a thousand
        number = (
            math.nan
            if isinstance(cell, bool) or re.fullmatch(r"-?\d+,\d{3}", text)
            else float(text.replace(",", "."))
        )
    except ValueError:
        number = math.nan
    if not abs(number) <= LARGEST:
        raise SourceError(
            f"{place}: the value {text[:40]!r} is no number: agreement takes numbers of an ordinal scale"
        )
    return number
