"""The table `rejected_rows`: rows of a source that could not be used, and cells that were left empty.

The reason of a cell that was left empty begins with `left empty: `; its row was used all the same.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable
from typing import Any

from ..common.personal import redact_personal_data
from ..common.redact import redact_credentials
from ..sources.locations import source_name
from ..sources.rows import BadRow
from .connection import Connection

KEPT = 300  # characters of a row's content
LEFT_EMPTY = "left empty: "  # how the reason of a cell that was left empty begins
MOST_EMPTIED = 10_000  # cells of one reason and command that are kept; more are only counted
_LOOKED_AT = 2000  # characters that are redacted, of which the first KEPT are kept
# Fields whose cells are no words of a person: a number there is no telephone number unless it looks like one.
_NUMBERS = {"pin_id", "board_id", "created_at", "saved_at", "date", "timestamp", "count"}
_PLAIN_NUMBER = re.compile(
    r"-?(?!0\d)\d+(?:\.\d*)?(?:[eE][+-]?\d+)?|\d{4}-\d\d-\d\d[\dT:.Z+ -]*|0x[0-9a-f]*", re.ASCII
)


def keep_rejected(conn: Connection, rows: Iterable[BadRow], run_id: int) -> None:
    """Adds rows to `rejected_rows`, personal data redacted. Belongs into a transaction of the caller."""
    conn.executemany(
        "INSERT INTO rejected_rows (source, line, reason, content, run_id) VALUES (?, ?, ?, ?, ?)",
        [
            (source_name(row.source), row.line, row.reason, _excerpt(row.reason, row.content), run_id)
            for row in rows
        ],
    )


class EmptiedCells:
    """Counts the cells that a command left empty, and keeps the first of each reason in `rejected_rows`."""

    def __init__(self, conn: Connection, run_id: int) -> None:
        self._conn, self._run_id = conn, run_id
        self.counts = Counter[str]()

    def keep(self, cells: Iterable[BadRow]) -> None:
        """Takes in cells, each as the row that it is in. Belongs into a transaction of the caller."""
        kept = []
        for cell in cells:
            self.counts[cell.reason] += 1
            if self.counts[cell.reason] <= MOST_EMPTIED:
                kept.append(BadRow(cell.source, cell.line, f"{LEFT_EMPTY}{cell.reason}", cell.content))
        keep_rejected(self._conn, kept, self._run_id)


def forget_rejected(conn: Connection, sources: Iterable[str]) -> None:
    """Deletes what is kept of earlier reads of `sources`. Belongs into a transaction of the caller."""
    conn.executemany(
        "DELETE FROM rejected_rows WHERE source = ?", [(source_name(source),) for source in sources]
    )


def _excerpt(reason: str, content: str) -> str:
    """The start of a row, without e-mail addresses, links and telephone numbers.

    Where the row's cells are known, those that the reason names come first.
    """
    try:
        row = json.loads(content)
    except (ValueError, RecursionError):
        row = None
    if not isinstance(row, dict):
        return redact_personal_data(content[:_LOOKED_AT].encode(errors="replace").decode())[:KEPT]
    named = set(re.findall(r"\w+", reason))
    cells = {name: _redacted(name, row[name]) for name in sorted(row, key=lambda name: name not in named)}
    return json.dumps(cells, ensure_ascii=False).encode(errors="replace").decode()[:KEPT]


def _redacted(field: str, value: Any) -> Any:
    if value is None or isinstance(value, bool):
        return value
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    if (field in _NUMBERS and _PLAIN_NUMBER.fullmatch(text)) or (field == "vector" and text[:1] in "[({"):
        return value
    text = text[:_LOOKED_AT]
    if field == "image" and ("://" in text or "@" not in text):
        return redact_credentials(text)
    redacted = redact_personal_data(text)
    return value if redacted == text else redacted
