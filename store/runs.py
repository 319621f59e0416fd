"""What was run on a store: one row per command, with arguments, counts and versions."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from ..common.redact import redact_credentials
from .connection import now, transaction


def start_run(
    conn: sqlite3.Connection,
    command: str,
    arguments: dict[str, Any],
    *,
    device: str | None = None,
    batch_size: int | None = None,
) -> int:
    """Writes the row of a command that begins and returns its run_id."""
    names = ("pincaption", "torch", "transformers", "pillow", "pyarrow", "sqlite-utils")
    versions = {name: found for name in names if (found := version_of(name))}
    with transaction(conn):
        row = conn.execute(
            "INSERT INTO runs (command, arguments, started_at, device, batch_size, versions) VALUES (?, ?, ?, ?, ?, ?) RETURNING run_id",
            [command, _as_text(arguments), now(), device, batch_size, json.dumps(versions)],
        ).fetchone()
    return int(row[0])


def _as_text(arguments: dict[str, Any]) -> str:
    text = json.dumps(arguments, ensure_ascii=False, default=str)
    return redact_credentials(text.encode(errors="replace").decode())  # a file's name may be no UTF-8


def finish_run(
    conn: sqlite3.Connection, run_id: int, counts: Mapping[str, Any], *, batch_size: int | None = None
) -> None:
    """Adds the end of a command: `counts` as JSON and the batch size it came to."""
    with transaction(conn):
        conn.execute(
            "UPDATE runs SET finished_at = ?, counts = ?, batch_size = coalesce(?, batch_size) WHERE run_id = ?",
            [now(), json.dumps(counts), batch_size, run_id],
        )


def last_arguments(conn: sqlite3.Connection, command: str) -> dict[str, Any] | None:
    """The arguments of the newest run of `command` on this store, or None."""
    row = conn.execute(
        "SELECT arguments FROM runs WHERE command = ? ORDER BY run_id DESC LIMIT 1", [command]
    ).fetchone()
    return json.loads(row[0]) if row else None


def version_of(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def captions_of_runs(conn: sqlite3.Connection, run_ids: list[int]) -> int:
    """How many captions were written last by one of these runs, whatever their status."""
    marks = ", ".join("?" * len(run_ids))
    row = conn.execute(f"SELECT count(*) FROM captions WHERE run_id IN ({marks})", run_ids).fetchone()
    return int(row[0])
