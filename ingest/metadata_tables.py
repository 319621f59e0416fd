"""Tables that say what is in the pictures of a folder: metadata.jsonl, .csv or .parquet of an imagefolder."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterator
from typing import Any

from ..sources.cells import RowError, text_of
from ..sources.columns import ColumnsRead, Wanted
from ..sources.read_as import ReadAs
from ..sources.rows import BadRow, SourceError
from ..sources.tables import read_wanted
from .texts_beside import NAMES, Fields, TextsRead, fields_of, unread_keys

TABLES = frozenset(["metadata.jsonl", "metadata.csv", "metadata.parquet"])
# Folders such as locale=de/ say nothing about pictures, with or without a table.
_WANTED = Wanted(
    ("file_name", *(name for others in NAMES.values() for name in others)),
    None,
    ("file_name",),
    ReadAs(folders=False),
)
TWICE = "file_name is there twice: the last row counts"
MAX_TABLE_ROWS = 2_000_000  # of all tables; they are kept in memory until their picture comes


class MetadataTables:
    """The rows of an imagefolder's tables of metadata, kept until the picture comes that they are about.

    `source` is the folder of the ingest, under which rows that are of no use are kept.
    """

    def __init__(self, source: str, read: TextsRead) -> None:
        self._source, self._read = source, read
        self._rows: dict[str, tuple[str, int, str]] = {}  # path -> (table, line, fields as JSON)

    def add(self, table: str) -> Iterator[BadRow]:
        """Reads a table; its rows name pictures by their path from the table's folder."""
        shown = os.path.relpath(table, os.path.dirname(self._source))
        folder, origin = os.path.dirname(table), os.path.basename(table)
        try:
            if not stat.S_ISREG(os.stat(table).st_mode):
                raise SourceError("not a regular file")
            for rows in read_wanted([table], _WANTED):
                if isinstance(rows, ColumnsRead):
                    self._read.ignore(rows.ignored)
                    continue
                if isinstance(rows, BadRow):
                    yield BadRow(self._source, rows.line, rows.reason, f"{shown}: {rows.content}")
                    continue
                for i, line in enumerate(rows.lines):
                    values = {name: cells[i] for name, cells in rows.columns.items()}
                    for reason in self._add_row(shown, folder, origin, line, values):
                        content = json.dumps(values, ensure_ascii=False, default=lambda v: type(v).__name__)
                        yield BadRow(self._source, line, reason, f"{shown}: {content}")
                    if len(self._rows) > MAX_TABLE_ROWS:
                        raise SourceError(f"it has more than {MAX_TABLE_ROWS:,} rows")
        except (SourceError, OSError) as error:
            yield BadRow(self._source, None, "a table of metadata cannot be read", f"{shown}: {error}")

    def _add_row(
        self, shown: str, folder: str, origin: str, line: int, values: dict[str, Any]
    ) -> Iterator[str]:
        """Keeps a row, and yields what is wrong with it."""
        try:
            name = text_of("file_name", values.get("file_name"))
        except RowError as error:
            yield str(error)
            return
        if name is None or not name.strip():
            yield "no file_name"
            return
        fields, reasons = fields_of(values, origin)
        # The path is only looked up among the pictures that are found; nothing is opened by it.
        path = os.path.normpath(os.path.join(folder, name.strip()))
        if "\\" in name and not os.path.exists(path):  # as Windows writes paths
            path = os.path.normpath(os.path.join(folder, name.strip().replace("\\", "/")))
        if path in self._rows:
            yield TWICE
        self._rows[path] = shown, line, json.dumps(fields, ensure_ascii=False)
        self._read.ignore(unread_keys(values))
        yield from reasons

    def take(self, path: str) -> Fields:
        """The fields of the picture at `path`, once."""
        found = self._rows.pop(path, None) if self._rows else None
        return (
            {name: (value, origin) for name, (value, origin) in json.loads(found[2]).items()} if found else {}
        )

    def left(self) -> Iterator[BadRow]:
        """Rows that name none of the pictures that were found."""
        for path, (shown, line, _) in self._rows.items():
            yield BadRow(self._source, line, "file_name names no picture of the folder", f"{shown}: {path}")
        self._rows = {}
