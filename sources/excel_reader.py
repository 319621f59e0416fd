"""Reads the first sheet of an Excel file (.xlsx), with openpyxl."""

from __future__ import annotations

import itertools
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from .columns import ColumnsRead, Wanted
from .names import listed
from .rows import CHUNK, EXCERPT, BadRow, EmptySource, Rows, SourceError

MAX_UNPACKED = 2 << 30  # bytes of the parts of a file: a zip archive of a few kB can hold terabytes
MAX_TEXTS = 256 << 20  # bytes of the table of texts, which openpyxl keeps in memory
_TEXTS = "xl/sharedStrings.xml"


def column_names(source: str, wanted: Wanted) -> list[str]:
    with _rows_of(source, wanted) as (_, rows):
        names: list[str] = next(rows)[1]
        return names


def read_rows(source: str, wanted: Wanted) -> Iterator[Rows | BadRow | ColumnsRead]:
    """The rows of the first sheet that is not hidden and has any, their cells as openpyxl reads them.

    The first row that is not empty has the names of the columns; empty rows are skipped. Of formulas, the
    results that Excel saved are read.
    """
    with _rows_of(source, wanted) as (remarks, rows):
        _, names = next(rows)
        matched = wanted.match(source, names)
        yield ColumnsRead(source, matched.columns, matched.folders, matched.ignored, names, remarks)
        places = {field: names.index(column) for field, column in matched.columns.items()}
        chunk: list[list[Any]] = []
        numbers: list[int] = []
        for number, cells in rows:
            if any(cell is not None for cell in cells[len(names) :]):
                content = ", ".join(str(cell) for cell in cells if cell is not None)[:EXCERPT]
                yield BadRow(source, number, "more cells than the header has columns", content)
                continue
            chunk.append(cells + [None] * (len(names) - len(cells)))
            numbers.append(number)
            if len(chunk) == CHUNK:
                yield Rows(source, numbers, {field: [row[i] for row in chunk] for field, i in places.items()})
                chunk, numbers = [], []
        if chunk:
            yield Rows(source, numbers, {field: [row[i] for row in chunk] for field, i in places.items()})


@contextmanager
def _rows_of(source: str, wanted: Wanted) -> Iterator[tuple[list[str], Iterator[tuple[int, Any]]]]:
    """(remarks, (number, cells) of each row that is not empty; the first are the names as text)."""
    if source == "-":
        raise SourceError("Excel files cannot be read from standard input: name a file")
    if wanted.read_as.names:
        raise SourceError(f"{source} is an Excel file: --columns is for CSV and TSV without a header")
    if wanted.read_as.encoding:
        raise SourceError(f"{source} is an Excel file, whose text is Unicode: --encoding is for CSV and JSON")
    try:
        import openpyxl
    except ImportError:
        raise SourceError(
            f"{source} is an Excel file: save it as CSV UTF-8, or `pip install 'pincaption[excel]'`"
        ) from None
    _check_size(source)
    workbook = None
    try:
        with open(source, "rb") as file:
            workbook = openpyxl.load_workbook(file, read_only=True, data_only=True, keep_links=False)
            sheets = workbook.worksheets
            visible = [sheet for sheet in sheets if sheet.sheet_state == "visible"]
            if not visible:
                raise SourceError(f"{source} has no sheet with cells: save the one you mean as CSV UTF-8")
            empty = []
            for shown in visible:
                shown.reset_dimensions()  # what the file says of its size may be wrong, or empty rows
                rows = _filled(shown)
                if header := next(rows, None):
                    break
                empty.append(shown)
            else:
                raise EmptySource(source)
            others = [
                f"{sheet.title!r}{' (empty)' if sheet in empty else ''}"
                for sheet in sheets
                if sheet is not shown
            ]
            remarks = [f"only the sheet {shown.title!r} was read, not {listed(others, 5)}"] if others else []
            yield remarks, itertools.chain([header], rows)
    except (SourceError, GeneratorExit):
        raise
    except (OSError, MemoryError, KeyboardInterrupt):
        raise
    except Exception as error:  # openpyxl raises what its parsers raise: KeyError, ParseError, ValueError ...
        if type(error).__module__.startswith(("sqlite3", "pincaption")):
            raise
        raise SourceError(
            f"{source} is a damaged Excel file ({type(error).__name__}): save it as CSV UTF-8"
        ) from error
    finally:
        if workbook is not None:
            workbook.close()


def _filled(sheet: Any) -> Iterator[tuple[int, Any]]:
    header = False
    for number, row in enumerate(sheet.iter_rows(values_only=True), 1):
        cells = list(row)
        while cells and cells[-1] in (None, ""):
            cells.pop()
        if not cells:
            continue
        if header:
            yield number, cells
        else:
            header = True
            yield number, ["" if cell is None else str(cell) for cell in cells]


def _check_size(source: str) -> None:
    """Raises SourceError for an archive that would become too large."""
    with zipfile.ZipFile(source) as archive:
        sizes = {info.filename: info.file_size for info in archive.infolist()}
    if sum(sizes.values()) > MAX_UNPACKED or sizes.get(_TEXTS, 0) > MAX_TEXTS:
        raise SourceError(
            f"{source} has more than {MAX_UNPACKED >> 20:,} MB of sheets or {MAX_TEXTS >> 20} MB of texts:"
            " save it as CSV UTF-8"
        )
