"""Whole tables out of SQLite as Arrow, column by column, as fast as SQLite can read them in the order in
which they stand.

SQLite hands out each column of some ten thousand rows as one text, NUL between the cells: a Python object for
every cell would cost more than everything else, and so would looking up every pin in every table.
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
    """Tables of `columns` {name: SQL} of the rows for which `where` holds, as text, `blobs` as bytes.

    SQLite reads ahead in a thread of its own.
    """
    first, last = conn.execute(
        f"SELECT coalesce(min(rowid), 1), coalesce(max(rowid), 0) FROM {table}"
    ).fetchone()
    together = ", ".join(
        f"CAST(group_concat(coalesce({sql}, CAST(x'ff' AS TEXT)), char(0)) AS BLOB)"
        for sql in columns.values()
    )
    rest = f"FROM {table} WHERE rowid BETWEEN ? AND ? AND {where}"

    def read(start: int, n: int = ROWS_AT_ONCE) -> list[list[Any]]:
        cursor = conn.cursor()
        cursor.row_factory = None
        values = [start, start + n - 1, *parameters]
        if not blobs:
            try:
                row = cursor.execute(f"SELECT count(*), {together} {rest}", values).fetchone()
            except sqlite3.DataError:
                # together they are longer than a text of SQLite may be (1,000,000,000 bytes)
                return (
                    [*read(start, n // 2), *read(start + n // 2, n - n // 2)]
                    if n > 1
                    else [singly(cursor, values)]
                )
            if all((cell or b"").count(b"\0") + 1 == row[0] for cell in row[1:]) or not row[0]:
                return [list(row)]
        return [singly(cursor, values)]  # some text holds NUL itself

    def singly(cursor: sqlite3.Cursor, values: Sequence[Any]) -> list[Any]:
        rows = cursor.execute(f"SELECT {', '.join(columns.values())} {rest}", values).fetchall()
        return [len(rows), *zip(*rows, strict=True)]

    def made(found: list[Any]) -> pa.Table:
        return pa.table(
            {
                name: pa.array(cells, pa.binary()) if name in blobs else _texts(cells)
                for name, cells in zip(columns, found[1:], strict=True)
            }
        )

    with ThreadPoolExecutor(1) as thread:
        waiting = deque[Any]()
        for start in range(first, last + 1, ROWS_AT_ONCE):
            waiting.append(thread.submit(read, start))
            if len(waiting) > 2:
                yield from (made(found) for found in waiting.popleft().result() if found[0])
        while waiting:
            yield from (made(found) for found in waiting.popleft().result() if found[0])


def _texts(column: Any) -> pa.Array:
    """A column as SQLite handed it out, together or singly.

    A cell that is the byte 255 alone, which no text holds, stands for null.
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
    except pa.ArrowInvalid:  # no UTF-8: somebody else has written to the store
        return pa.array([cell and cell.decode(errors="replace") for cell in cells.to_pylist()], pa.string())
