"""The results of the aggregations into the store: from one row per pin and rank to one row of JSON arrays per
pin.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import pyarrow as pa

ROWS_AT_ONCE = 200_000
TABLES = {
    "board_titles": ("titles", "boards", "scores"),
    "engaged_queries": ("queries", "engagements", "scores", "first_dates", "last_dates"),
}
# How each column of a rank is written in JSON. Normalised texts hold nothing that JSON would want escaped.
_JSON = {
    "text": """'"' || {0} || '"'""",
    "number": "{0}",
    "score": "format('{{:.6g}}', {0})",
    "day": """'"' || {0} || '"'""",
}


def sorted_ranks(
    db: Any, table: str, ranks: str, kinds: Iterable[str]
) -> Iterator[Iterable[tuple[str, ...]]]:
    """Rows for `table`, many at a time, of `ranks`: SQL for rows (pin, pin_id, rank, a column for each
    array). They are sorted before this returns.

    `kinds` says of each array's values how they are written: "text", "number", "score" or "day".
    """
    # What stands between two values goes before each but a pin's first: an array is then a slice of Arrow's
    # buffer of the whole column.
    columns = [
        f"CASE WHEN rank = 1 THEN '' ELSE ',' END || {_JSON[kind].format(name)} AS {name}"
        for name, kind in zip(TABLES[table], kinds, strict=True)
    ]
    columns = ["rank::BIGINT AS rank", "CASE WHEN rank = 1 THEN pin_id ELSE '' END AS pin_id", *columns]
    return _by_pin(
        db.sql(f"SELECT {', '.join(columns)} FROM ({ranks}) ORDER BY pin, rank").to_arrow_reader(ROWS_AT_ONCE)
    )


def write_ranks(
    conn: sqlite3.Connection,
    table: str,
    rows: Iterable[Iterable[tuple[str, ...]]],
    on_pins: Callable[[int], None],
) -> None:
    """Writes what `sorted_ranks` gives, within the caller's transaction; rows that are there as they are are
    not touched.
    """
    names = TABLES[table]
    upsert = f"""INSERT INTO {table} (pin_id, {", ".join(names)}) VALUES (?{", '[' || ? || ']'" * len(names)})
        ON CONFLICT (pin_id) DO UPDATE SET {", ".join(f"{name} = excluded.{name}" for name in names)}
        WHERE {" OR ".join(f"{table}.{name} <> excluded.{name}" for name in names)}"""
    done = 0
    for some in rows:
        pins = list(some)
        conn.executemany(upsert, pins)
        done += len(pins)
        on_pins(done)


def _by_pin(reader: Iterable[pa.RecordBatch]) -> Iterator[Iterable[tuple[str, ...]]]:
    rest = None
    for batch in reader:
        if rest is not None and rest.num_rows:
            batch = pa.concat_batches([rest, batch])
        rank = batch.column("rank")
        firsts = np.flatnonzero(
            np.frombuffer(rank.buffers()[1], dtype=np.int64)[rank.offset :][: len(rank)] == 1
        )
        if len(firsts) > 1:
            yield _arrays(batch, firsts)
        rest = batch.slice(firsts[-1]) if len(firsts) else batch
    if rest is not None and rest.num_rows:
        yield _arrays(rest, np.array([0, rest.num_rows]))


def _arrays(batch: pa.RecordBatch, firsts: Any) -> Iterable[tuple[str, ...]]:
    """(pin_id, array, ...) of each pin but the last, whose rows may go on in the next batch; `firsts` are the
    rows of rank 1.
    """
    return zip(*(_joined(column, firsts).to_pylist() for column in batch.columns[1:]), strict=True)


def _joined(column: pa.StringArray, firsts: Any) -> pa.StringArray:
    """The texts of rows firsts[i] to firsts[i + 1], run together: the same bytes with fewer offsets."""
    _, offsets, data = column.buffers()
    starts = np.frombuffer(offsets, dtype=np.int32)[column.offset :][: len(column) + 1][firsts]
    return pa.StringArray.from_buffers(len(firsts) - 1, pa.py_buffer(np.ascontiguousarray(starts)), data)
