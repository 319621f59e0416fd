"""Reads tables as people have them: Parquet, CSV, TSV and JSON Lines, all but Parquet also packed by gzip.

`read_tables` streams them in bounded memory, a few thousand rows at a time, column by column. A row that
cannot be read becomes a `BadRow` with its line and the reason. Only a source that cannot be used at all
raises SourceError.

A new format is one more module with the functions of `Reader`, and a line in READERS.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Protocol

from . import csv_reader, json_reader, parquet_reader
from .columns import Wanted
from .locations import errors_name, find_sources, table_format
from .rows import BadRow, Rows, SourceError


class Reader(Protocol):
    """What a module that reads one format of tables has."""

    def column_names(self, source: str) -> list[str] | None:
        """The columns by header or schema; None for an empty file, and for a format without a header."""

    def read_rows(self, source: str, wanted: Wanted) -> Iterator[Rows | BadRow]:
        """The table's rows in order. Raises SourceError if the table lacks columns or cannot be read."""


READERS: Mapping[str, Reader] = {
    "parquet": parquet_reader,
    "csv": csv_reader,
    "tsv": csv_reader,
    "jsonl": json_reader,
    "ndjson": json_reader,
    "json": json_reader,
}


def check_columns(
    sources: Iterable[str],
    fields: Sequence[str],
    columns: Mapping[str, str] | None,
    required: Sequence[str],
) -> None:
    """Opens every table and reads its header alone. Raises SourceError where `read_tables` would."""
    wanted = Wanted(fields, columns, required)
    for source in find_sources(sources):
        with errors_name(source):
            names = _reader_of(source).column_names(source)
            if names is not None:
                wanted.match(source, names)


def read_tables(
    sources: Iterable[str],
    fields: Sequence[str],
    columns: Mapping[str, str] | None,
    required: Sequence[str],
) -> Iterator[Rows | BadRow]:
    """The rows of all `sources` in order, with the values of `fields`.

    A field is read from the column that `columns` names for it, else from the column of the same name.
    `columns` is None for a command without --map, whose errors then do not recommend it. `required` are the
    fields that a table must have; "date|timestamp" stands for one of the two.

    Raises SourceError for a missing file, for a table without the column of a required field, and for a
    mapped column that is missing. JSON has no header: there a mapped column is missing if no row of any
    source has it, and the error comes after the last row.
    """
    wanted = Wanted(fields, columns, required)
    unseen, any_row = dict(columns or {}), False
    for source in find_sources(sources):
        with errors_name(source):
            for rows in _reader_of(source).read_rows(source, wanted):
                if isinstance(rows, Rows):
                    any_row = True
                    unseen = {field: column for field, column in unseen.items() if field not in rows.columns}
                yield rows
    if any_row:
        for field, column in unseen.items():
            raise SourceError(
                f"no row has {column!r} (--map {field}={column}): the rows were read without it"
            )


def _reader_of(source: str) -> Reader:
    return json_reader if source == "-" else READERS[table_format(source)]
