"""Reads filled sheets: CSV as the HTML sheet downloads it or as a spreadsheet program saved it, and exports.

A spreadsheet program may have changed the order, the delimiter, the encoding, dates and decimal points.
People add columns and leave answers out. All of that is accepted.
"""

from __future__ import annotations

import codecs
import math
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from ..common.errors import PincaptionError
from ..sources.cells import RowError
from ..sources.csv_reader import open_cells
from ..sources.dates import moment
from ..sources.encodings import UTF_8, encoding_of
from ..sources.formats import format_of
from ..sources.locations import errors_name, open_source
from ..sources.read_as import ReadAs
from ..sources.rows import BadRow, SourceError
from .label_studio_export import Annotations, annotations_of_json, annotations_of_table, is_export
from .questions import CANNOT_JUDGE, PICTURE, QUESTIONS, restored

MAX_BYTES = 1_000_000_000  # of a file; an export of Label Studio has the pictures in it
MAX_COMMENT = 10_000  # characters
TITLE_ROWS = 10  # people may have added so many rows above the header
ALL_QUESTIONS = {question.name: question for questions in QUESTIONS.values() for question in questions}
CAPTION_COLUMNS = ("caption", "first_caption", "second_caption")
_READ = {"item_id", "sample", "number", "comment", "seconds", "answered_at", *ALL_QUESTIONS, *CAPTION_COLUMNS}
_WRITTEN = {*_READ, "rater"}  # the columns of the sheets that we write
_AS_CSV = ReadAs("csv")


class SheetError(PincaptionError):
    """A sheet that cannot be read or written. The message names the file and, if there is one, the row."""


@dataclass(frozen=True, slots=True)
class Answer:
    """One row of a filled sheet, or one annotation of an export of Label Studio."""

    source: str
    place: str  # the source and the row; rows count like a spreadsheet program does: the header is row 1
    sample_id: str
    item_id: str
    values: dict[str, str]  # the answer to each question that was answered
    comment: str | None
    seconds: float | None
    answered_at: str | None
    number: str = ""
    captions: tuple[str, ...] = ()  # as they are in the sheet now
    rater: str | None = None  # None: the one whom the sheet was written for
    begun_at: str | None = None  # when the annotation was begun; `answered_at` is when it was changed last
    is_cut: bool = False  # the comment was longer than MAX_COMMENT

    @property
    def is_empty(self) -> bool:
        """Whether the rater has neither answered nor commented."""
        return not self.values and not self.comment


@dataclass(frozen=True)
class AnswerFile:
    """The answers of a file, and notes on what it holds beside them.

    `columns` are those of a sheet; None for an export.
    """

    source: str
    answers: list[Answer]
    notes: list[str]
    columns: tuple[str, ...] | None = None

    def check_columns(self, questions: Iterable[str]) -> None:
        """Raises SheetError if a sheet has no column for one of these questions: it may have been renamed."""
        if self.columns is None:
            return
        if missing := [name for name in questions if name not in self.columns]:
            raise SheetError(
                f"{self.source} has no column {' and no column '.join(missing)}, which its sample asks for: "
                f"was it renamed? Its columns: {_listed(self.columns)}"
            )


def read_answer_file(path: str | Path) -> AnswerFile:
    """The answers of a sheet, or of an export of Label Studio: its first bytes and its columns tell which.

    Raises SheetError.
    """
    source = str(path)
    with _sheet_errors(source):
        if re.match(r"<!doctype html|<html", head := _head(source), re.IGNORECASE):
            raise SheetError(
                f"{source} is the page and not the answers: open it in a browser, download the answers "
                "(key d) and give that CSV"
            )
        if _is_json(head):
            return _of_export(source, annotations_of_json(source))
        columns, rows = _cells(Path(path))
        if is_export(columns):
            return _of_export(source, annotations_of_table(source, columns, rows))
        answers = _of_sheet(source, columns, rows)
    notes = [*_unread(source, columns, rows), *_cut(source, answers)]
    return AnswerFile(source, answers, notes, tuple(columns))


def _of_sheet(path: str, columns: list[str], rows: list[tuple[int, list[str]]]) -> list[Answer]:
    if "item_id" not in columns:
        raise SheetError(
            f"{path} has no column item_id, so it is not a sheet; its columns: {_listed(columns)}"
        )
    answers = []
    row_of: dict[str, int] = {}
    for number, cells in rows:
        if not any(cell.strip() for cell in cells):
            continue
        row = dict(zip(columns, cells, strict=True))
        answer = _answer(row, path, f"{path}, row {number}")
        if answer.item_id in row_of:
            raise SheetError(
                f"{answer.place} has the same item_id as row {row_of[answer.item_id]} "
                f"({excerpt(answer.item_id)}): was it copied?"
            )
        row_of[answer.item_id] = number
        answers.append(answer)
    return answers


def _of_export(source: str, annotations: Annotations) -> AnswerFile:
    answers = [
        replace(_answer(row, source, place), rater=row["rater"], begun_at=_moment(row["begun_at"]))
        for place, row in annotations.rows
    ]
    if not answers:
        what = "; ".join(["an export of Label Studio without any submitted annotation", *annotations.notes])
        raise SheetError(f"{source} is {what}")
    if all(answer.is_empty for answer in answers):
        raise SheetError(
            f"{source} has {len(answers):,} annotations, and none of them answers "
            f"{', '.join(ALL_QUESTIONS)}: was the project's labelling configuration replaced?"
        )
    notes = [f"{source}: {note}" for note in annotations.notes]
    return AnswerFile(source, answers, [*notes, *_cut(source, answers)])


def _listed(columns: Iterable[str]) -> str:
    return excerpt(", ".join(filter(None, columns)), 200) or "none"


def _unread(source: str, columns: list[str], rows: list[tuple[int, list[str]]]) -> list[str]:
    """A note on the columns that hold something and are not read, if there are any."""
    unread = [
        name or f"number {i + 1}, which has no name"
        for i, name in enumerate(columns)
        if name not in _WRITTEN and any(cells[i].strip() for _, cells in rows)
    ]
    if not unread:
        return []
    return [f"{source}: not read: the {'columns' if len(unread) > 1 else 'column'} {_listed(unread)}"]


def _cut(source: str, answers: Iterable[Answer]) -> list[str]:
    """A note on the comments that were cut, if there are any."""
    cut = [answer.place.removeprefix(f"{source}, ") for answer in answers if answer.is_cut]
    if not cut:
        return []
    first = f"the one of {cut[0]}" if len(cut) == 1 else f"{len(cut):,} of them, the first in {cut[0]}"
    return [f"{source}: a comment is kept up to {MAX_COMMENT:,} characters; cut was {first}"]


@dataclass(frozen=True)
class SheetContent:
    """What a CSV file is: the sample if it is a sheet, and whether it holds answers that must not be lost."""

    sample_id: str | None
    has_answers: bool


def inspect_sheet(path: str | Path) -> SheetContent:
    """Finds out whether a CSV file is a sheet. A sheet that cannot be read counts as one with answers."""
    try:
        columns, cells = _cells(Path(path))
        if not {"item_id", "sample"} <= set(columns):
            return SheetContent(None, False)
        rows = _of_sheet(str(path), columns, cells)
    except SheetError:
        return SheetContent(None, True)
    sample_id = next((row.sample_id for row in rows if row.sample_id), None)
    return SheetContent(sample_id, not all(row.is_empty for row in rows))


def excerpt(cell: str, width: int = 40) -> str:
    """The beginning of a cell, to be shown in a message."""
    text = cell.strip()
    return text if len(text) <= width else text[:width] + "…"


def _answer(row: dict[str, str], source: str, place: str) -> Answer:
    item_id = row["item_id"].strip().lower()
    if not item_id:
        raise SheetError(f"{place} has no item_id: it was deleted, or the row does not belong there")
    values = {}
    for question in ALL_QUESTIONS:
        if value := _value(row.get(question, ""), question, place):
            values[question] = value
    comment = restored(row.get("comment", "")).strip()
    return Answer(
        source=source,
        place=place,
        sample_id=row.get("sample", "").strip().lower(),
        item_id=item_id,
        values=values,
        comment=comment[:MAX_COMMENT] or None,
        seconds=_seconds(row.get("seconds", "")),
        answered_at=_moment(row.get("answered_at", "")),
        number=row.get("number", "").strip(),
        captions=tuple(row.get(name, "") for name in CAPTION_COLUMNS),
        is_cut=len(comment) > MAX_COMMENT,
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
    with _sheet_errors(source):
        if not _is_text(source):
            raise SheetError(f"{path} is a workbook: save it as CSV and give that file")
        read_as = ReadAs("csv", _encoding(source))
        with open_cells(source, read_as, header_has="item_id", title_lines=TITLE_ROWS) as table:
            columns = [name.strip().lower() for name in table.names]
            # An export has a column of pictures: many megabytes that nobody needs here.
            wanted = [i for i, name in enumerate(columns) if name != PICTURE]
            rows = []
            for _, cells in table.rows:
                if isinstance(cells, BadRow):
                    raise SheetError(f"{path}, row {table.row_number()}: {cells.reason}")
                rows.append((table.row_number(), [cells[i] for i in wanted]))
    columns = [columns[i] for i in wanted]
    if twice := next((name for name in columns if name in _READ and columns.count(name) > 1), None):
        raise SheetError(f"{path} has the column {twice!r} twice: delete the one that was added")
    return columns, rows


@contextmanager
def _sheet_errors(source: str) -> Iterator[None]:
    """Turns errors of the disk and of the readers into SheetErrors. Refuses files that are far too large."""
    try:
        with errors_name(source):
            if Path(source).stat().st_size > MAX_BYTES:
                raise SheetError(f"{source} has more than {MAX_BYTES:,} bytes: score it in parts")
            yield
    except SourceError as error:
        raise SheetError(str(error)) from None


def _head(source: str) -> str:
    """The beginning of a file."""
    with open_source(source) as raw:
        head = raw.peek(1000)[:1000]
    return head.decode(encoding_of(head), errors="replace").lstrip("\ufeff \t\r\n")


def _is_json(head: str) -> bool:
    return bool(re.match(r"\[\s*[{\]]|\{\s*[\"}]", head))  # a title above a sheet may begin with a bracket


def _is_text(source: str) -> bool:
    try:
        return format_of(source, _AS_CSV) == "csv"
    except SourceError:  # a workbook that captioner reads nowhere, or an archive
        return False


def _encoding(source: str) -> str | None:
    """cp1252 for a file that is not UTF-8: Excel in Western countries saves CSV like this."""
    decode = codecs.getincrementaldecoder("utf-8")().decode
    with open_source(source) as raw:
        if encoding_of(raw.peek(1000)[:1000]) not in UTF_8:
            return None
        try:
            while data := raw.read(1 << 20):
                decode(data)
            decode(b"", final=True)
        except UnicodeDecodeError:
            return "cp1252"
    return None
