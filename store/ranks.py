"""The tables `board_titles` and `engaged_queries`: one row of JSON arrays per pin, in the order of the ranks.

The aggregations rank in DuckDB, where a row is a pin and a rank. Here those rows become the arrays.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Literal

import numpy as np
import pyarrow as pa

from .connection import Connection

ROWS_AT_ONCE = 200_000
RankTable = Literal["board_titles", "engaged_queries"]
# table -> {column: the type of its arrays' values}
TABLES: dict[RankTable, dict[str, str]] = {
    "board_titles": {"titles": "text", "boards": "number", "scores": "score"},
    "engaged_queries": {
        "queries": "text",
        "engagements": "number",
        "scores": "score",
        "first_dates": "day",
        "last_dates": "day",
    },
}
# How DuckDB writes a value in JSON. Normalised texts hold no character that JSON would escape.
_JSON = {
    "text": """'"' || {0} || '"'""",
    "number": "{0}",
    "score": "format('{{:.6g}}', {0})",
    "day": """'"' || {0} || '"'""",
}
PinRow = tuple[str, ...]  # pin_id, and each array as JSON without its brackets


def sorted_ranks(db: Any, table: RankTable, ranks: str) -> Iterator[Iterable[PinRow]]:
    """Rows for `table`, many at a time, from DuckDB. Everything is sorted before this returns.

    `ranks` is SQL for one row per pin and rank: pin, pin_id, rank, and a column named like each of the
    table's arrays.
    """
    # The comma between two values goes before each value but the first. So the array of a pin is a slice of
    # the buffer in which Arrow keeps the whole column.
    columns = [
        f"CASE WHEN rank = 1 THEN '' ELSE ',' END || {_JSON[type_].format(name)} AS {name}"
        for name, type_ in TABLES[table].items()
    ]
    columns = ["rank::BIGINT AS rank", "CASE WHEN rank = 1 THEN pin_id ELSE '' END AS pin_id", *columns]
    rows = db.sql(f"SELECT {', '.join(columns)} FROM ({ranks}) ORDER BY pin, rank")
    return _by_pin(rows.to_arrow_reader(ROWS_AT_ONCE))


def write_ranks(
    conn: Connection,
    table: RankTable,
    rows: Iterable[Iterable[PinRow]],
    *,
    replace: bool = False,
    removed: Iterable[str] = (),
    on_pins: Callable[[int], None] = lambda done: None,
) -> None:
    """Writes the rows of `sorted_ranks`, within the caller's transaction.

    `replace` deletes all other pins of the table, `removed` are ids of pins to delete. A row that would not
    change is not touched. `on_pins` gets the number of pins written so far.
    """
    if replace:
        conn.execute(f"DELETE FROM {table}")
    conn.executemany(f"DELETE FROM {table} WHERE pin_id = ?", [(pin_id,) for pin_id in removed])
    names = list(TABLES[table])
    upsert = f"""INSERT INTO {table} (pin_id, {", ".join(names)}) VALUES (?{", '[' || ? || ']'" * len(names)})
        ON CONFLICT (pin_id) DO UPDATE SET {", ".join(f"{name} = excluded.{name}" for name in names)}
        WHERE {" OR ".join(f"{table}.{name} <> excluded.{name}" for name in names)}"""
    done = 0
    for some in rows:
        pins = list(some)
        conn.executemany(upsert, pins)
        done += len(pins)
        on_pins(done)


@contextmanager
def temporary_ranks(conn: Connection) -> Iterator[None]:
    """Within it, both tables are empty for this connection, and what it writes to them is lost afterwards.

    The real tables are untouched: temporary tables of the same names hide them.
    """
    _drop_temporary(conn)
    for table, columns in TABLES.items():
        arrays = ", ".join(f"{name} TEXT NOT NULL" for name in columns)
        conn.execute(f"CREATE TEMP TABLE {table} (pin_id TEXT PRIMARY KEY NOT NULL, {arrays})")
    try:
        yield
    finally:
        _drop_temporary(conn)


def _drop_temporary(conn: Connection) -> None:
    for table in TABLES:
        conn.execute(f"DROP TABLE IF EXISTS temp.{table}")


def _by_pin(reader: Iterable[pa.RecordBatch]) -> Iterator[Iterable[PinRow]]:
    """Turns one row per pin and rank into one row per pin."""
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


def _arrays(batch: pa.RecordBatch, firsts: Any) -> Iterable[PinRow]:
    """The rows of all pins but the last, which may go on in the next batch.

    `firsts` are the places of the rows of rank 1.
    """
    return zip(*(_concatenated(column, firsts).to_pylist() for column in batch.columns[1:]), strict=True)


def _concatenated(column: pa.StringArray, firsts: Any) -> pa.StringArray:
    """The texts of the rows from firsts[i] to firsts[i + 1] as one text: the same bytes, fewer offsets."""
    _, offsets, data = column.buffers()
    starts = np.frombuffer(offsets, dtype=np.int32)[column.offset :][: len(column) + 1][firsts]
    return pa.StringArray.from_buffers(len(firsts) - 1, pa.py_buffer(np.ascontiguousarray(starts)), data)
