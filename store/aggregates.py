"""The table `aggregates`: what the current result of each aggregation was made of."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from .connection import Connection
from .ranks import RankTable


def last_run(conn: Connection, name: str) -> tuple[dict[str, Any], list[list[int]]] | None:
    """Options and state behind the result of the aggregation `name` ("boards" or "queries").

    The state says which contents of sources counted; see `Evidence.state`.
    """
    row = conn.execute("SELECT options, state FROM aggregates WHERE name = ?", [name]).fetchone()
    return (json.loads(row["options"]), json.loads(row["state"])) if row else None


def counts_if_unchanged(
    conn: Connection, name: str, options: Mapping[str, Any], state: list[list[int]]
) -> dict[str, Any] | None:
    """The counts of the last run of an aggregation, if it had the same options and state; else None."""
    row = conn.execute("SELECT counts FROM aggregates WHERE name = ?", [name]).fetchone()
    return dict(json.loads(row["counts"])) if row and last_run(conn, name) == (options, state) else None


def remember(
    conn: Connection,
    name: str,
    options: Mapping[str, Any],
    state: list[list[int]],
    counts: Mapping[str, Any],
    run_id: int,
) -> None:
    """Notes what the result was made of, within the transaction that writes the result."""
    conn.execute(
        "INSERT OR REPLACE INTO aggregates VALUES (?, ?, ?, ?, ?)",
        [name, json.dumps(options), json.dumps(state), json.dumps(counts), run_id],
    )


def pins_not_in_store(conn: Connection, table: RankTable) -> int:
    """How many pins have evidence in `table` but are not in the store (yet)."""
    unknown = "NOT EXISTS (SELECT 1 FROM pins p WHERE p.pin_id = e.pin_id)"
    return int(conn.execute(f"SELECT count(*) FROM {table} e WHERE {unknown}").fetchone()[0])
