"""Reads filled sheets: CSV as the HTML sheet downloads it, or as a spreadsheet program saved it.

A spreadsheet program may have changed the order, the delimiter, the encoding, dates and decimal points.
People add columns and leave answers out. All of that is accepted.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from pathlib import Path

from ..common.errors import PincaptionError
from ..sources.cells import RowError
from ..sources.csv_reader import open_cells
from ..sources.dates import moment
from ..sources.encodings import UTF_8, encoding_of
from ..sources.formats import format_of
from ..sources.locations import errors_name
from ..sources.read_as import ReadAs
from ..sources.rows import BadRow, SourceError
from .questions import CANNOT_JUDGE, QUESTIONS, restored

MAX_BYTES = 100_000_000  # of a sheet
MAX_COMMENT = 10_000  # characters
TITLE_ROWS = 10  # people may have added so many rows above the header
ALL_QUESTIONS = {question.name: question for questions in QUESTIONS.values() for question in questions}
CAPTION_COLUMNS = ("caption", "first_caption", "second_caption")
_READ = {"item_id", "sample", "number", "comment", "seconds", "answered_at", *ALL_QUESTIONS, *CAPTION_COLUMNS}
_AS_CSV = ReadAs("csv")


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
        row = dict(zip(columns, cells, strict=True))
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
    source = str(path)
    try:
        with errors_name(source):
            if path.stat().st_size > MAX_BYTES:
                raise SheetError(f"{path} has more than {MAX_BYTES:,} bytes, so it cannot be a sheet")
            if not _is_text(source):
                raise SheetError(f"{path} is a workbook: save it as CSV and give that file")
            read_as = ReadAs("csv", _encoding(path))
            with open_cells(source, read_as, header_has="item_id", title_lines=TITLE_ROWS) as table:
                rows = []
                for _, cells in table.rows:
                    if isinstance(cells, BadRow):
                        raise SheetError(f"{path}, row {table.row_number()}: {cells.reason}")
                    rows.append((table.row_number(), cells))
    except SourceError as error:
        raise SheetError(str(error)) from None
    columns = [name.strip().lower() for name in table.names]
    if twice := next((name for name in columns if name in _READ and columns.count(name) > 1), None):
        raise SheetError(f"{path} has the column {twice!r} twice: delete the one that was added")
    return columns, rows


def _is_text(source: str) -> bool:
    try:
        return format_of(source, _AS_CSV) == "csv"
    except SourceError:  # a workbook that captioner reads nowhere, or an archive
        return False


def _encoding(path: Path) -> str | None:
    """cp1252 for a file that is not UTF-8: Excel in Western countries saves CSV like this."""
    data = path.read_bytes()
    if encoding_of(data[:1000]) not in UTF_8:
        return None
    try:
        data.decode()
    except UnicodeDecodeError:
        return "cp1252"
    return None
