"""What the last run of each aggregation was made of (table `aggregates`)."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping
from typing import Any


def done_before(
    conn: sqlite3.Connection, name: str, options: Mapping[str, Any], state: Any
) -> dict[str, Any] | None:
    """The counts of the last run of an aggregation, if it had the same options and contents."""
    row = conn.execute("SELECT counts FROM aggregates WHERE name = ?", [name]).fetchone()
    return dict(json.loads(row["counts"])) if row and last_run(conn, name) == (options, state) else None


def last_run(conn: sqlite3.Connection, name: str) -> tuple[dict[str, Any], list[list[int]]] | None:
    """Options and state that the result of an aggregation stands for."""
    row = conn.execute("SELECT options, state FROM aggregates WHERE name = ?", [name]).fetchone()
    return (json.loads(row["options"]), json.loads(row["state"])) if row else None


def remember(
    conn: sqlite3.Connection,
    name: str,
    options: Mapping[str, Any],
    state: Any,
    counts: Mapping[str, Any],
    run_id: int,
) -> None:
    """Notes what the result was made of; within the transaction that writes it."""
    conn.execute(
        "INSERT OR REPLACE INTO aggregates VALUES (?, ?, ?, ?, ?)",
        [name, json.dumps(options), json.dumps(state), json.dumps(counts), run_id],
    )


def pins_not_in_store(conn: sqlite3.Connection, table: str) -> int:
    """How many pins of a table of evidence are not in the store (yet)."""
    return int(
        conn.execute(
            f"SELECT count(*) FROM {table} e WHERE NOT EXISTS (SELECT 1 FROM pins p WHERE p.pin_id = e.pin_id)"
        ).fetchone()[0]
    )
