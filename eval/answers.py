"""Reads filled sheets: CSV as the HTML sheet downloads it, or as a spreadsheet program saved it.

A spreadsheet program may have changed the order, the delimiter, the encoding, dates and decimal points.
People add columns and leave answers out. All of that is accepted.
"""

from __future__ import annotations

import csv
import io
import math
import re
from dataclasses import dataclass
from pathlib import Path

from ..common.errors import PincaptionError
from ..sources.cells import RowError
from ..sources.dates import moment
from .questions import CANNOT_JUDGE, QUESTIONS, restored

MAX_BYTES = 100_000_000  # of a sheet
MAX_COMMENT = 10_000  # characters
TITLE_ROWS = 10  # people may have added so many rows above the header
ALL_QUESTIONS = {question.name: question for questions in QUESTIONS.values() for question in questions}
CAPTION_COLUMNS = ("caption", "first_caption", "second_caption")


class SheetError(PincaptionError):
    """A sheet that cannot be read or written. The message names the file and, if there is one, the row."""


@dataclass(frozen=True, slots=True)
class Answer:
    """One row of a filled sheet. `row` counts like a spreadsheet program does: the header is row 1."""

    source: str
    row: int
    sample_id: str
    item_id: str
    values: dict[str, str]  # the answer to each question that was answered
    comment: str | None
    seconds: float | None
    answered_at: str | None
    number: str = ""
    captions: tuple[str, ...] = ()  # as they are in the sheet now

    @property
    def place(self) -> str:
        return f"{self.source}, row {self.row}"

    @property
    def is_empty(self) -> bool:
        """Whether the rater has neither answered nor commented."""
        return not self.values and not self.comment


def read_sheet(path: str | Path) -> list[Answer]:
    """All rows of a sheet, also those without answers. Raises SheetError."""
    columns, rows = _cells(Path(path))
    if "item_id" not in columns:
        names = excerpt(", ".join(filter(None, columns)), 200) or "none"
        raise SheetError(f"{path} has no column item_id, so it is not a sheet; its columns: {names}")
    answers = []
    row_of: dict[str, int] = {}
    for number, cells in rows:
        if not any(cell.strip() for cell in cells):
            continue
        # Reversed, so that of two columns with the same name the first one counts.
        row = dict(zip(reversed(columns), reversed(cells), strict=True))
        answer = _answer(row, str(path), number)
        if answer.item_id in row_of:
            raise SheetError(
                f"{answer.place} has the same item_id as row {row_of[answer.item_id]} "
                f"({excerpt(answer.item_id)}): was it copied?"
            )
        row_of[answer.item_id] = number
        answers.append(answer)
    return answers


@dataclass(frozen=True)
class SheetContent:
    """What a CSV file is: the sample if it is a sheet, and whether it holds answers that must not be lost."""

    sample_id: str | None
    has_answers: bool


def inspect_sheet(path: str | Path) -> SheetContent:
    """Finds out whether a CSV file is a sheet. A sheet that cannot be read counts as one with answers."""
    try:
        columns, _ = _cells(Path(path))
        if not {"item_id", "sample"} <= set(columns):
            return SheetContent(None, False)
        rows = read_sheet(path)
    except SheetError:
        return SheetContent(None, True)
    sample_id = next((row.sample_id for row in rows if row.sample_id), None)
    return SheetContent(sample_id, not all(row.is_empty for row in rows))


def excerpt(cell: str, width: int = 40) -> str:
    """The beginning of a cell, to be shown in a message."""
    text = cell.strip()
    return text if len(text) <= width else text[:width] + "…"


def _answer(row: dict[str, str], source: str, number: int) -> Answer:
    place = f"{source}, row {number}"
    item_id = row["item_id"].strip().lower()
    if not item_id:
        raise SheetError(f"{place} has no item_id: it was deleted, or the row does not belong there")
    values = {}
    for question in ALL_QUESTIONS:
        if value := _value(row.get(question, ""), question, place):
            values[question] = value
    return Answer(
        source=source,
        row=number,
        sample_id=row.get("sample", "").strip().lower(),
        item_id=item_id,
        values=values,
        comment=restored(row.get("comment", "")).strip()[:MAX_COMMENT] or None,
        seconds=_seconds(row.get("seconds", "")),
        answered_at=_moment(row.get("answered_at", "")),
        number=row.get("number", "").strip(),
        captions=tuple(row.get(name, "") for name in CAPTION_COLUMNS),
    )


def _value(cell: str, question: str, place: str) -> str | None:
    """The answer in a cell, whatever its case and spacing; None for an empty cell. Raises SheetError."""
    answers = ALL_QUESTIONS[question].answers
    if not cell or cell in answers:
        return cell or None
    value = re.sub(r"[\s_-]+", " ", cell).strip(" .'\"").lower().replace("’", "'")
    value = value.replace("can't", "cannot").replace("can not", "cannot")
    if not value or value in (*answers, CANNOT_JUDGE):
        return value or None
    raise SheetError(
        f"{place}: {question} is {excerpt(cell)!r}; it takes {', '.join(answers)} or {CANNOT_JUDGE}"
    )


def _seconds(cell: str) -> float | None:
    try:
        seconds = float(cell.strip().replace(",", "."))
    except ValueError:
        return None
    return seconds if math.isfinite(seconds) and 0 <= seconds < 1e6 else None


def _moment(cell: str) -> str | None:
    """A time as ISO 8601 text; None if a spreadsheet program rewrote it in its own way."""
    try:
        return moment(cell.strip() or None)
    except RowError:
        return None


def _cells(path: Path) -> tuple[list[str], list[tuple[int, list[str]]]]:
    """The names of the columns in lower case, and for each row its number and one cell per column."""
    text = _decoded(_bytes(path))
    # A first line like "sep=;" tells Excel the delimiter. Some programs write it.
    separator = re.match(r'"?sep=(.)"?\r?\n', text, re.IGNORECASE)
    text = text[separator.end() :] if separator else text
    header = next((line for line in text.splitlines()[:TITLE_ROWS] if "item_id" in line.lower()), "")
    delimiter = separator[1] if separator else max(",;\t|", key=header.count)
    try:
        rows = list(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter))
    except csv.Error as error:
        raise SheetError(f"{path} is not a CSV file: {error}") from None
    names = [[cell.strip().lower() for cell in row] for row in rows]
    start = next((i for i, row in enumerate(names[:TITLE_ROWS]) if "item_id" in row), 0)
    columns = names[start] if start < len(names) else []
    width = len(columns)
    return columns, [
        (number, (row + [""] * width)[:width]) for number, row in enumerate(rows[start + 1 :], start + 2)
    ]


def _bytes(path: Path) -> bytes:
    try:
        if path.stat().st_size > MAX_BYTES:
            raise SheetError(f"{path} has more than {MAX_BYTES:,} bytes, so it cannot be a sheet")
        data = path.read_bytes()
    except OSError as error:
        raise SheetError(f"{path} cannot be read: {error.strerror}") from None
    if data.startswith((b"PK\x03\x04", b"\xd0\xcf\x11\xe0")):  # .xlsx and .ods; .xls
        raise SheetError(f"{path} is a workbook: save it as CSV and give that file")
    return data


def _decoded(data: bytes) -> str:
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return data.decode("utf-16", errors="replace")
    if data[1:200:2].count(0) > len(data[1:200:2]) // 2:
        return data.decode("utf-16-le", errors="replace")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return data.decode("cp1252", errors="replace")  # Excel in Western countries saves CSV like this
