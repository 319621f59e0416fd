"""Vectors that others made of pins (PinSage, ItemSage, CLIP, ...), kept as float16, to be exported beside the
texts.
"""

from __future__ import annotations

import json
import re
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from ..sources.cells import RowError, identifier, source_name
from ..sources.rows import BadRow, Rows, Unreadable, is_missing
from ..sources.tables import check_columns, find_sources, read_tables
from ..store.columns import COLUMNS, OMNISEARCHSAGE
from ..store.connection import StoreError, transaction
from ..store.rejected import keep_rejected
from ..store.runs import finish_run, start_run

FIELDS = ("pin_id", "vector")
MAX_DIM = 65_536
RESERVED = {*COLUMNS, *OMNISEARCHSAGE.values()}  # readers such as DuckDB do not tell columns apart by case
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,62}")


def ingest_embeddings(
    conn: sqlite3.Connection,
    sources: Iterable[str],
    name: str,
    *,
    columns: Mapping[str, str] | None = None,
    on_rows: Callable[[int], None] = lambda n: None,
) -> dict[str, Any]:
    """Reads tables pin_id, vector (a list of numbers) into `embeddings` under `name`; a vector that is there
    already is replaced.

    All vectors of a name have one dimension: the store's, or else that of most of the first rows. Other
    sizes, NaN and numbers beyond float16 (65,504) are rejected rows. Returns {"rows_read", "vectors", "dim",
    "rejected", "reasons", "pins_not_in_store"}. Raises StoreError for a name that is none, SourceError.
    """
    sources, columns = list(sources), dict(columns or {})
    if not _NAME.fullmatch(name) or name.lower() in RESERVED:
        raise StoreError(
            f"{name!r} cannot be the name of an embedding: take letters, digits and _, and no column of the features, for instance pinsage"
        )
    check_columns(sources, FIELDS, columns, FIELDS)
    run_id = start_run(conn, "ingest embeddings", {"sources": sources, "name": name, "map": columns})
    dim: int | None = None
    with transaction(conn):
        conn.executemany(
            "DELETE FROM rejected_rows WHERE source = ?",
            [(source_name(source),) for source in find_sources(sources)],
        )
    taken, reasons = 0, Counter[str]()
    found: tuple[int | None, list[tuple[str, bytes]], list[BadRow]]
    for rows in read_tables(sources, FIELDS, columns, FIELDS):
        with transaction(conn):  # nobody else gives the name its dimension meanwhile
            row = conn.execute("SELECT dim FROM embeddings WHERE name = ? LIMIT 1", [name]).fetchone()
            found = (
                (row and row[0], [], [rows])
                if isinstance(rows, BadRow)
                else _vectors(rows, row and int(row[0]))
            )
            dim, ready, bad = found
            conn.executemany(
                "INSERT INTO embeddings (pin_id, name, dim, vector) VALUES (?, ?, ?, ?) ON CONFLICT (pin_id, name) DO UPDATE SET dim = excluded.dim, vector = excluded.vector",
                [(pin_id, name, dim, vector) for pin_id, vector in ready],
            )
            keep_rejected(conn, bad, run_id)
        taken += len(ready)
        reasons.update(row.reason for row in bad)
        on_rows(len(ready) + len(bad))
    unknown = conn.execute(
        "SELECT count(*) FROM embeddings e WHERE name = ? AND NOT EXISTS (SELECT 1 FROM pins p WHERE p.pin_id = e.pin_id)",
        [name],
    ).fetchone()[0]
    counts = {
        "rows_read": taken + reasons.total(),
        "vectors": taken,
        "dim": dim,
        "rejected": reasons.total(),
        "reasons": dict(reasons.most_common()),
        "pins_not_in_store": unknown,
    }
    finish_run(conn, run_id, counts)
    return counts


def dimensions(conn: sqlite3.Connection) -> dict[str, int]:
    """The embeddings of the store: {name: numbers in a vector}, by name."""
    return dict(map(tuple, conn.execute("SELECT name, max(dim) FROM embeddings GROUP BY name ORDER BY name")))


def _vectors(rows: Rows, dim: int | None) -> tuple[int | None, list[tuple[str, bytes]], list[BadRow]]:
    """The dimension, (pin_id, float16 bytes) of the good rows, and the bad ones."""
    vectors = [_numbers(cell) for cell in rows.columns.get("vector", [None] * len(rows.lines))]
    if dim is None:
        sizes = Counter(
            len(vector) for vector in vectors if not isinstance(vector, str) and 0 < len(vector) <= MAX_DIM
        )
        dim = sizes.most_common(1)[0][0] if sizes else None
    ready, bad = [], []
    for line, pin_id, vector in zip(
        rows.lines, rows.columns.get("pin_id", [None] * len(rows.lines)), vectors, strict=True
    ):
        try:
            name = identifier(pin_id)
            if isinstance(vector, str):
                raise RowError(vector)
            if len(vector) != dim:
                raise RowError(
                    f"the vector has another size than the {dim} numbers of the others"
                    if dim
                    else f"the vector has no numbers, or more than {MAX_DIM:,}"
                )
            with np.errstate(over="ignore"):
                half = vector.astype("<f2")
            if not np.isfinite(half).all():
                raise RowError("the vector has a number that is NaN, infinite or beyond float16")
            ready.append((name, half.tobytes()))
        except RowError as error:
            bad.append(
                BadRow(
                    rows.source,
                    line,
                    str(error),
                    json.dumps({"pin_id": str(pin_id)[:200]}, ensure_ascii=False),
                )
            )
    return dim, ready, bad


def _numbers(cell: Any) -> np.ndarray | str:
    """A vector, or why it is none. CSV has them as JSON arrays or as numbers with blanks between."""
    if isinstance(cell, np.ndarray):
        return cell
    if isinstance(cell, Unreadable):
        return cell.reason
    if is_missing(cell):
        return "no vector"
    try:
        if isinstance(cell, str):
            cell = (
                json.loads(cell)
                if cell.lstrip().startswith("[")
                else [float(number) for number in cell.replace(",", " ").split()]
            )
        if not isinstance(cell, (list, tuple)) or any(
            isinstance(number, (str, bool, list, dict)) for number in cell
        ):
            raise TypeError
        return np.array([np.nan if number is None else number for number in cell], dtype=float)
    except (ValueError, TypeError, OverflowError, RecursionError):
        return "the vector is no list of numbers"
