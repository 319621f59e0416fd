"""Reads CSV and TSV. A row that is broken costs only itself, not the rest of the file."""

from __future__ import annotations

import csv
import io
import re
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import IO, NamedTuple

from .columns import ColumnsRead, Wanted
from .encodings import as_utf_8
from .formats import table_format
from .locations import open_source
from .names import plain
from .read_as import ReadAs
from .rows import CHUNK, EXCERPT, MAX_LINE, BadRow, EmptySource, Rows, SourceError

csv.field_size_limit(MAX_LINE)

DELIMITERS = ",;\t|"  # in many countries spreadsheets write semicolons
_SEP = re.compile(r'"?sep=(.)"?\s*', re.IGNORECASE)  # a first line that tells Excel the delimiter
_END_OF_FILE = "\x1a"  # what DOS and old databases write as the last character
_QUOTED = re.compile(r'"[^"]*"')


def column_names(source: str, wanted: Wanted) -> list[str]:
    with open_cells(source, wanted.read_as) as table:
        if not table.names or (wanted.read_as.names and next(table.rows, None) is None):
            raise EmptySource(source)
        return table.names


def read_rows(source: str, wanted: Wanted) -> Iterator[Rows | BadRow | ColumnsRead]:
    """The rows of a CSV or TSV file in order, their cells as text. Cells that a line lacks are empty."""
    with open_cells(source, wanted.read_as) as table:
        if not table.names:
            return
        matched = wanted.match(source, table.names)
        yield matched
        places = {field: table.names.index(column) for field, column in matched.columns.items()}
        rows: list[list[str]] = []
        numbers: list[int] = []
        for number, row in table.rows:
            if isinstance(row, BadRow):
                yield row
                continue
            rows.append(row)
            numbers.append(number)
            if len(rows) == CHUNK:
                yield Rows(source, numbers, {field: [row[i] for row in rows] for field, i in places.items()})
                rows, numbers = [], []
        if rows:
            yield Rows(source, numbers, {field: [row[i] for row in rows] for field, i in places.items()})


class Cells(NamedTuple):
    """A CSV or TSV file: the names of its columns as they are written, and its rows."""

    names: list[str]  # empty if the file is empty
    rows: Iterator[tuple[int, list[str] | BadRow]]  # (line, a cell for each column, or why there are none)
    row_number: Callable[[], int]  # of the row that came last, as a spreadsheet program counts it


@contextmanager
def open_cells(
    source: str, read_as: ReadAs, *, header_has: str = "", title_lines: int = 0
) -> Iterator[Cells]:
    """The cells of a CSV or TSV file. Every command reads CSV by this function. Raises SourceError.

    With `header_has`, up to `title_lines` lines above the header are left out: the header is the first line
    with this name in it, or else the first line.
    """
    with open_source(source) as raw:
        lines = _Lines(as_utf_8(raw, read_as.encoding))
        names, delimiter = _header(source, lines, read_as, header_has, title_lines)
        yield Cells(names, _rows(source, lines, delimiter, len(names)), lambda: lines.row)


class _TooLong(Exception):
    """A line of text is longer than MAX_LINE."""


class _Lines:
    """The lines of a text for `csv.reader`; lines of a broken row can be given back and read again.

    Bytes that are not UTF-8 become lone surrogates. So they spoil one cell and not the file.
    """

    def __init__(self, raw: IO[bytes]):
        self._text = io.TextIOWrapper(raw, encoding="utf-8-sig", errors="surrogateescape", newline="")
        self._given_back: deque[str] = deque()
        self.of_row: list[str] = []  # the lines of the current row
        self.number = 0  # of lines read
        self.row = 0  # the number of the current row: lines within cells do not count
        self.reread_until = 0  # the number of the last line that was ever given back
        self.ended = False

    def __iter__(self) -> _Lines:
        return self

    def __next__(self) -> str:
        line = self._given_back.popleft() if self._given_back else self._text.readline(MAX_LINE)
        if not line:
            self.ended = True
            raise StopIteration
        self.number += 1
        self.of_row.append(line)
        if len(line) == MAX_LINE and line[-1] not in "\r\n":
            while (rest := self._text.readline(MAX_LINE)) and rest[-1] not in "\r\n":
                pass
            raise _TooLong
        return line

    def give_back_last(self) -> None:
        """The last line that was read will be read again."""
        if self.of_row:
            self._given_back.appendleft(self.of_row.pop())
            self.number -= 1
            self.ended = False

    def give_back_all_but(self, n: int) -> None:
        """Keeps the first `n` lines of the current row as read; the others will be read again."""
        self.reread_until, self.number = self.number, self.number - len(self.of_row) + n
        self._given_back.extendleft(reversed(self.of_row[n:]))
        self.ended = False
        del self.of_row[n:]


def _header(
    source: str, lines: _Lines, read_as: ReadAs, header_has: str = "", title_lines: int = 0
) -> tuple[list[str], str]:
    """The names of the columns and the delimiter; no names if the file is empty."""
    try:
        first = _first_line(lines)
        if separator := _SEP.fullmatch(first):
            first = _first_line(lines)
        above: list[str] = []
        while header_has and header_has not in first.lower() and len(above) < title_lines and not lines.ended:
            above.append(first)
            first = next(lines, "")
    except _TooLong:
        raise SourceError(
            f"{source} has a first line of more than {MAX_LINE:,} characters: is it a CSV file?"
        ) from None
    if header_has and header_has not in first.lower() and above:
        delimiter = separator[1] if separator else _delimiter(source, above[0], read_as)
        return next(csv.reader([above[0]], delimiter=delimiter), []), delimiter
    delimiter = separator[1] if separator else _delimiter(source, first, read_as)
    lines.give_back_last()
    lines.row = lines.number - bool(separator) + (not read_as.names)
    if read_as.names:
        _check_no_header(source, first, delimiter, read_as)
        return list(read_as.names), delimiter
    names: list[str] = []
    try:
        names = next(csv.reader(lines, delimiter=delimiter), [])
    except (csv.Error, _TooLong):
        lines.ended = True
    if first.strip() and lines.ended:
        raise SourceError(f"{source} has a header in which a quote is never closed")
    return names, delimiter


def _first_line(lines: _Lines) -> str:
    """The next line that is not blank, "" at the end of the file."""
    line = ""
    while not line.strip() and not lines.ended:
        lines.of_row.clear()
        line = next(lines, "")
    return line


def _delimiter(source: str, first: str, read_as: ReadAs) -> str:
    """The delimiter that the first line shows; those within quotes do not count."""
    if (read_as.format or table_format(source)) == "tsv":
        return "\t"
    first = _QUOTED.sub("", first)
    if read_as.names:  # the line is a row, whose texts may hold commas
        wanted = len(read_as.names) - 1
        if fitting := [d for d in DELIMITERS if first.count(d) == wanted and wanted]:
            return fitting[0]
    return max(DELIMITERS, key=first.count)


def _check_no_header(source: str, first: str, delimiter: str, read_as: ReadAs) -> None:
    """Raises SourceError if the first line is a header and no row."""
    cells = next(csv.reader([first], delimiter=delimiter), [])
    known = {plain(name) for name in read_as.names}
    if sum(plain(cell) in known for cell in cells) * 2 > len(read_as.names):
        raise SourceError(f"{source} has a header: leave --columns out, and use --map for other names")


def _rows(source: str, lines: _Lines, delimiter: str, width: int) -> Iterator[tuple[int, list[str] | BadRow]]:
    """(line, cells or BadRow) of each row; cells are filled up to `width`, the number of columns.

    A quote that is never closed costs its own line, not the rest of the file.
    """
    reader = csv.reader(lines, delimiter=delimiter)
    while True:
        lines.of_row.clear()
        number = lines.number + 1
        lines.row += 1
        try:
            cells = next(reader)
            reason = "a quote is never closed" if lines.ended else ""
        except StopIteration:
            return
        except csv.Error:
            reason = "a cell is too long, or a quote is never closed"
        except _TooLong:
            yield number, BadRow(source, number, "the line is too long", lines.of_row[0][:EXCERPT])
            continue
        if reason:
            lines.give_back_all_but(1)
        elif not cells or cells == [_END_OF_FILE]:
            continue
        elif any(cells[width:]):
            reason = "more cells than the header has columns"
        elif len(cells) < width and number <= lines.reread_until:
            # This line may be the rest of a cell whose quote was not closed, and not a row of its own.
            reason = "too few cells, after a quote that is never closed"
        if reason:
            yield number, BadRow(source, number, reason, "".join(lines.of_row)[:EXCERPT])
        else:
            yield number, cells[:width] + [""] * (width - len(cells))
