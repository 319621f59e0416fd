"""Reads tables as people have them: Parquet, CSV, TSV, JSON Lines and Excel, text also packed.

`read_tables` streams them in bounded memory, a few thousand rows at a time, column by column. A row that
cannot be read becomes a `BadRow` with its line and the reason. Only a source that cannot be used at all
raises SourceError.

A new format is one more module with the functions of `Reader`, and a line in READERS.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from shlex import quote
from typing import Protocol

from . import csv_reader, excel_reader, json_reader, parquet_reader
from .columns import ColumnsRead, Wanted
from .folders import differing
from .formats import format_of
from .locations import errors_name, find_sources, look_for
from .read_as import ReadAs
from .report import Report
from .rows import BadRow, EmptySource, Rows, SourceError


class Reader(Protocol):
    """What a module that reads one format of tables has."""

    def column_names(self, source: str, wanted: Wanted) -> list[str] | None:
        """The columns by header or schema; None for a format without a header. Raises EmptySource."""

    def read_rows(self, source: str, wanted: Wanted) -> Iterator[Rows | BadRow | ColumnsRead]:
        """The table's rows in order, and once what its columns are.

        Raises SourceError if the table lacks columns or cannot be read.
        """


READERS: Mapping[str, Reader] = {
    "parquet": parquet_reader,
    "csv": csv_reader,
    "tsv": csv_reader,
    "jsonl": json_reader,
    "ndjson": json_reader,
    "json": json_reader,
    "xlsx": excel_reader,
}


def check_columns(sources: Iterable[str], wanted: Wanted, only: Collection[str] | None = None) -> None:
    """Opens every table and reads its header alone. Raises SourceError where `read_tables` would.

    A file with nothing in it is an error, too. One of several in a folder or behind a glob is none, because
    Spark writes such parts. With `only`, the other files are not opened.
    """
    found = look_for(sources, any_name=wanted.read_as.format is not None)
    empty: list[EmptySource] = []
    for source in found.files:
        if source == "-" or (only is not None and source not in only):
            continue
        with errors_name(source):
            try:
                names = _reader_of(source, wanted).column_names(source, wanted)
            except EmptySource as error:
                empty.append(error)
                if source in found.named or len(empty) == len(found.files):
                    raise empty[0] from None
                continue
            if names is not None:
                wanted.match(source, names)


def tables_of(sources: Iterable[str], read_as: ReadAs) -> list[str]:
    """The files behind `sources`; with --format also those whose names do not say that they are tables."""
    return find_sources(sources, any_name=read_as.format is not None)


def read_tables(
    sources: Iterable[str],
    fields: Sequence[str],
    columns: Mapping[str, str] | None,
    required: Sequence[str],
) -> Iterator[Rows | BadRow]:
    """The rows of all `sources` in order, with the values of `fields`: see `check_columns`, `read_wanted`."""
    wanted = Wanted(fields, columns, required)
    sources = list(sources)
    check_columns(sources, wanted)
    for rows in read_wanted(sources, wanted):
        if not isinstance(rows, ColumnsRead):
            yield rows


def read_wanted(
    sources: Iterable[str], wanted: Wanted, report: Report | None = None
) -> Iterator[Rows | BadRow | ColumnsRead]:
    """The rows of all `sources` in order, and for each source once what its columns were read as.

    A field that the file lacks and a folder above it names (`date=2026-05-31/`) has the folder's value in
    every row. Where the file has the field as well, its own values count, and `report` says if they differ.

    Raises SourceError for a missing file, for a table without the column of a required field, and for a
    mapped column that is missing. JSON has no header: there a mapped column is missing if no row of any
    source has it, and the error comes after the last row.
    """
    unseen, seen = dict(wanted.columns or {}), set[str]()
    found = look_for(sources, any_name=wanted.read_as.format is not None)
    if report:
        report.skip(found)
    for source in found.files:
        is_empty = True
        with errors_name(source):
            of_folders = wanted.of_folders(source)
            for rows in _reader_of(source, wanted).read_rows(source, wanted):
                if not isinstance(rows, ColumnsRead) or rows.names:
                    is_empty = False
                if isinstance(rows, Rows):
                    if of_folders:
                        _add_folders(rows, of_folders, wanted, report)
                    seen.update(rows.columns)
                    unseen = {field: column for field, column in unseen.items() if field not in rows.columns}
                yield rows
        if is_empty and source == "-":
            raise EmptySource(source)
        if is_empty and report:
            report.empty(source)
    # Without a required field all rows are rejected, and the command says why.
    missing = {
        name for group in wanted.required for name in group.split("|") if not seen & {*group.split("|")}
    }
    for field, column in unseen.items():
        if seen and field not in missing:
            of = found.files[0] if len(found.files) == 1 else f"the {len(found.files):,} sources"
            raise SourceError(
                f"no row of {'standard input' if of == '-' else of} has {column!r}"
                f" (--map {field}={quote(column)}): the rows were read without it"
            )


def _add_folders(
    rows: Rows, of_folders: Mapping[str, str | None], wanted: Wanted, report: Report | None
) -> None:
    """Adds the fields that only the folders of a file name; of others, says where the file disagrees."""
    added = wanted.not_in_file(of_folders, rows.columns)
    if report:
        for field in of_folders.keys() & rows.columns.keys():
            values = dict.fromkeys(value for value in rows.columns[field] if value.__hash__ is not None)
            if others := differing(values, of_folders[field]):
                report.remark(folder_disagrees(rows.source, field, of_folders[field], others))
    for field, value in added.items():
        rows.columns[field] = [value] * len(rows.lines)


def folder_disagrees(source: str, field: str, of_folder: str | None, others: Sequence[str]) -> str:
    """That the values of a file are others than its folder says."""
    return (
        f"{source}: {field} is {', '.join(other[:40] or 'empty' for other in others)} in the file and "
        f"{of_folder or 'empty'} by the folder's name; the file counts"
    )


def _reader_of(source: str, wanted: Wanted) -> Reader:
    return READERS[format_of(source, wanted.read_as)]
