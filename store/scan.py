"""Reads whole tables of SQLite as Arrow tables, fast, in the order in which the rows are stored.

SQLite returns each column of 20,000 rows as one text with NUL between the cells. A Python object for every
cell would take longer than all the rest.
"""

from __future__ import annotations

import sqlite3
import struct
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

ROWS_AT_ONCE = 20_000


def scan(
    conn: sqlite3.Connection,
    table: str,
    columns: Mapping[str, str],
    where: str = "1",
    parameters: Sequence[Any] = (),
    *,
    blobs: Sequence[str] = (),
) -> Iterator[pa.Table]:
    """Arrow tables of at most 20,000 rows of a table for which `where` holds, with its `parameters`.

    `columns` is {name: SQL}; each becomes a column of text, those named in `blobs` become bytes. A thread
    reads ahead.
    """
    first, last = conn.execute(
        f"SELECT coalesce(min(rowid), 1), coalesce(max(rowid), 0) FROM {table}"
    ).fetchone()
    joined = ", ".join(
        f"CAST(group_concat(coalesce({sql}, CAST(x'ff' AS TEXT)), char(0)) AS BLOB)"
        for sql in columns.values()
    )
    rest = f"FROM {table} WHERE rowid BETWEEN ? AND ? AND {where}"

    def read(start: int, n: int = ROWS_AT_ONCE) -> list[list[Any]]:
        """[[number of rows, cells of the first column, ...], ...] of the rowids from `start` on."""
        cursor = conn.cursor()
        cursor.row_factory = None
        values = [start, start + n - 1, *parameters]
        if not blobs:
            try:
                row = cursor.execute(f"SELECT count(*), {joined} {rest}", values).fetchone()
            except sqlite3.DataError:
                # The joined text is longer than SQLite allows (1,000,000,000 bytes): read fewer rows at once.
                return (
                    [*read(start, n // 2), *read(start + n // 2, n - n // 2)]
                    if n > 1
                    else [cell_by_cell(cursor, values)]
                )
            if all((cell or b"").count(b"\0") + 1 == row[0] for cell in row[1:]) or not row[0]:
                return [list(row)]
        return [cell_by_cell(cursor, values)]  # a cell has a NUL of its own

    def cell_by_cell(cursor: sqlite3.Cursor, values: Sequence[Any]) -> list[Any]:
        rows = cursor.execute(f"SELECT {', '.join(columns.values())} {rest}", values).fetchall()
        return [len(rows), *zip(*rows, strict=True)]

    def tables(parts: list[list[Any]]) -> Iterator[pa.Table]:
        for n, *cells in parts:
            if n:
                yield pa.table(
                    {
                        name: pa.array(column, pa.binary()) if name in blobs else _texts(column)
                        for name, column in zip(columns, cells, strict=True)
                    }
                )

    with ThreadPoolExecutor(1) as thread:
        waiting = deque[Any]()
        for start in range(first, last + 1, ROWS_AT_ONCE):
            waiting.append(thread.submit(read, start))
            if len(waiting) > 2:
                yield from tables(waiting.popleft().result())
        while waiting:
            yield from tables(waiting.popleft().result())


def _texts(column: Any) -> pa.Array:
    """A column of text from the cells of SQLite, which come joined as bytes or one by one.

    In joined cells the byte 255, which is never part of UTF-8, stands for null.
    """
    if not isinstance(column, bytes):
        return pa.array(column, pa.string())
    whole = pa.Array.from_buffers(
        pa.large_binary(), 1, [None, pa.py_buffer(struct.pack("<qq", 0, len(column))), pa.py_buffer(column)]
    )
    cells = pc.split_pattern(whole, pattern=b"\0").flatten()
    cells = pc.if_else(pc.equal(cells, b"\xff"), None, cells)
    try:
        return cells.cast(pa.string())
    except pa.ArrowInvalid:  # not UTF-8: another program has written to the store
        return pa.array([cell and cell.decode(errors="replace") for cell in cells.to_pylist()], pa.string())
