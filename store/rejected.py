"""Rows that were rejected are kept in `rejected_rows`, with their reason."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable

from ..sources.cells import _excerpt, source_name
from ..sources.rows import BadRow


def keep_rejected(conn: sqlite3.Connection, rows: Iterable[BadRow], run_id: int) -> None:
    """Writes rows that are none to `rejected_rows`, personal data redacted; within the caller's transaction."""
    conn.executemany(
        "INSERT INTO rejected_rows (source, line, reason, content, run_id) VALUES (?, ?, ?, ?, ?)",
        [(source_name(row.source), row.line, row.reason, _excerpt(row.content), run_id) for row in rows],
    )
