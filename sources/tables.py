"""Reads tables as people have them: Parquet, CSV, TSV, JSON Lines and Excel, text also packed.

`read_tables` streams them in bounded memory, a few thousand rows at a time, column by column. A row that
cannot be read becomes a `BadRow` with its line and the reason. Only a source that cannot be used at all
raises SourceError.

A new format is one more module with the functions of `Reader`, and a line in READERS.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Protocol

from . import csv_reader, excel_reader, json_reader, parquet_reader
from .columns import ColumnsRead, Wanted
from .folders import differing
from .formats import format_of
from .locations import errors_name, find_sources
from .read_as import ReadAs
from .report import Report
from .rows import BadRow, Rows, SourceError


class Reader(Protocol):
    """What a module that reads one format of tables has."""

    def column_names(self, source: str, wanted: Wanted) -> list[str] | None:
        """The columns by header or schema; None for an empty file, and for a format without a header."""

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


def check_columns(sources: Iterable[str], wanted: Wanted) -> None:
    """Opens every table and reads its header alone. Raises SourceError where `read_tables` would."""
    for source in tables_of(sources, wanted.read_as):
        if source == "-":
            continue
        with errors_name(source):
            names = _reader_of(source, wanted).column_names(source, wanted)
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
    """The rows of all `sources` in order, with the values of `fields`: see `read_wanted`."""
    for rows in read_wanted(sources, Wanted(fields, columns, required)):
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
    unseen, any_row = dict(wanted.columns or {}), False
    for source in tables_of(sources, wanted.read_as):
        with errors_name(source):
            of_folders = wanted.of_folders(source)
            for rows in _reader_of(source, wanted).read_rows(source, wanted):
                if isinstance(rows, Rows):
                    any_row = True
                    if of_folders:
                        _add_folders(rows, of_folders, wanted, report)
                    unseen = {field: column for field, column in unseen.items() if field not in rows.columns}
                yield rows
    if any_row:
        for field, column in unseen.items():
            raise SourceError(
                f"no row has {column!r} (--map {field}={column}): the rows were read without it"
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
