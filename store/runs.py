"""The table `runs`: one row per command that was run, with its arguments, counts and versions."""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from ..common.redact import redact_credentials
from .connection import Connection, now, transaction

PACKAGES = ("pincaption", "torch", "transformers", "pillow", "pyarrow", "sqlite-utils")


def start_run(
    conn: Connection,
    command: str,
    arguments: dict[str, Any],
    *,
    device: str | None = None,
    batch_size: int | None = None,
) -> int:
    """Writes the row of a command that begins and returns its run_id; credentials are redacted."""
    versions = {package: number for package in PACKAGES if (number := version_of(package))}
    with transaction(conn):
        row = conn.execute(
            """
            INSERT INTO runs (command, arguments, started_at, device, batch_size, versions)
            VALUES (?, ?, ?, ?, ?, ?) RETURNING run_id""",
            [command, _as_json(arguments), now(), device, batch_size, json.dumps(versions)],
        ).fetchone()
    return int(row[0])


def _as_json(arguments: dict[str, Any]) -> str:
    text = json.dumps(arguments, ensure_ascii=False, default=str)
    # The name of a file may have bytes that are not UTF-8.
    return redact_credentials(text.encode(errors="replace").decode())


def finish_run(
    conn: Connection, run_id: int, counts: Mapping[str, Any], *, batch_size: int | None = None
) -> None:
    """Adds to the row of a run that it ended, with its `counts` and the last batch size."""
    with transaction(conn):
        conn.execute(
            """
            UPDATE runs SET finished_at = ?, counts = ?, batch_size = coalesce(?, batch_size)
            WHERE run_id = ?""",
            [now(), json.dumps(counts), batch_size, run_id],
        )


def last_arguments(conn: Connection, command: str) -> dict[str, Any] | None:
    """The arguments of the newest run of `command` on this store, or None."""
    row = conn.execute(
        "SELECT arguments FROM runs WHERE command = ? ORDER BY run_id DESC LIMIT 1", [command]
    ).fetchone()
    return json.loads(row[0]) if row else None


def captions_of_runs(conn: Connection, run_ids: list[int]) -> int:
    """How many rows of `captions` were last written by one of these runs, whatever their status."""
    marks = ", ".join("?" * len(run_ids))
    row = conn.execute(f"SELECT count(*) FROM captions WHERE run_id IN ({marks})", run_ids).fetchone()
    return int(row[0])


def version_of(package: str) -> str | None:
    """The version of an installed package, or None."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None
