"""Reads CSV and TSV. A row that is broken costs only itself, not the rest of the file."""

from __future__ import annotations

import csv
import io
from collections import deque
from collections.abc import Iterator
from typing import IO

from .columns import Wanted
from .locations import open_source, table_format
from .rows import CHUNK, EXCERPT, MAX_LINE, BadRow, Rows, SourceError

csv.field_size_limit(MAX_LINE)

# The first two bytes of UTF-16, as `surrogateescape` decodes them.
_UTF_16 = ("\udcff\udcfe", "\udcfe\udcff")


def column_names(source: str) -> list[str] | None:
    with open_source(source) as raw:
        return _header(source, _Lines(raw))[0] or None


def read_rows(source: str, wanted: Wanted) -> Iterator[Rows | BadRow]:
    """The rows of a CSV or TSV file in order, their cells as text. Cells that a line lacks are empty."""
    with open_source(source) as raw:
        lines = _Lines(raw)
        names, delimiter = _header(source, lines)
        if not names:
            return
        places = {field: names.index(column) for field, column in wanted.match(source, names).items()}
        rows: list[list[str]] = []
        numbers: list[int] = []
        for number, row in _rows(source, lines, delimiter, len(names)):
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

    def give_back_all_but(self, n: int) -> None:
        """Keeps the first `n` lines of the current row as read; the others will be read again."""
        self.reread_until, self.number = self.number, self.number - len(self.of_row) + n
        self._given_back.extendleft(reversed(self.of_row[n:]))
        self.ended = False
        del self.of_row[n:]


def _header(source: str, lines: _Lines) -> tuple[list[str], str]:
    """The names of the columns and the delimiter; no names if the file is empty."""
    try:
        first = ""
        while not first.strip() and not lines.ended:
            lines.of_row.clear()
            first = next(lines, "")
    except _TooLong:
        raise SourceError(
            f"{source} has a first line of more than {MAX_LINE:,} characters: is it a CSV file?"
        ) from None
    if first.startswith(_UTF_16):
        raise SourceError(f"{source} is in UTF-16: save it as CSV in UTF-8")
    # In many countries spreadsheets write semicolons.
    delimiter = "\t" if table_format(source) == "tsv" else max(",;\t", key=first.count)
    lines.give_back_all_but(0)
    try:
        names = [name.strip() for name in next(csv.reader(lines, delimiter=delimiter), [])]
    except (csv.Error, _TooLong):
        lines.ended = True
    if first.strip() and lines.ended:
        raise SourceError(f"{source} has a header in which a quote is never closed")
    return names, delimiter


def _rows(source: str, lines: _Lines, delimiter: str, width: int) -> Iterator[tuple[int, list[str] | BadRow]]:
    """(line, cells or BadRow) of each row; cells are filled up to `width`, the number of columns.

    A quote that is never closed costs its own line, not the rest of the file.
    """
    reader = csv.reader(lines, delimiter=delimiter)
    while True:
        lines.of_row.clear()
        number = lines.number + 1
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
        elif not cells:
            continue
        elif len(cells) > width:
            reason = "more cells than the header has columns"
        elif len(cells) < width and number <= lines.reread_until:
            # This line may be the rest of a cell whose quote was not closed, and not a row of its own.
            reason = "too few cells, after a quote that is never closed"
        if reason:
            yield number, BadRow(source, number, reason, "".join(lines.of_row)[:EXCERPT])
        else:
            yield number, cells + [""] * (width - len(cells))
