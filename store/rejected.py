"""The table `rejected_rows`: rows of a source that could not be used, each with its reason."""

from __future__ import annotations

import re
from collections.abc import Iterable

from ..sources.locations import source_name
from ..sources.rows import BadRow
from .connection import Connection

KEPT = 300  # characters of a row's content
_LOOKED_AT = 2000  # characters that are redacted, of which the first KEPT are kept
_TELEPHONE = re.compile(r"(?:\+?\d[\s()./-]{0,3}){9,}")
_ADDRESS_MARKS = ("@", "://", "www.")


def keep_rejected(conn: Connection, rows: Iterable[BadRow], run_id: int) -> None:
    """Adds rows to `rejected_rows`, personal data redacted. Belongs into a transaction of the caller."""
    conn.executemany(
        "INSERT INTO rejected_rows (source, line, reason, content, run_id) VALUES (?, ?, ?, ?, ?)",
        [(source_name(row.source), row.line, row.reason, _excerpt(row.content), run_id) for row in rows],
    )


def forget_rejected(conn: Connection, sources: Iterable[str]) -> None:
    """Deletes what is kept of earlier reads of `sources`. Belongs into a transaction of the caller."""
    conn.executemany(
        "DELETE FROM rejected_rows WHERE source = ?", [(source_name(source),) for source in sources]
    )


def _excerpt(content: str) -> str:
    """The start of a row, without words that look like an e-mail address, a link or a telephone number."""
    content = _TELEPHONE.sub("[redacted]", content[:_LOOKED_AT].encode(errors="replace").decode())
    return re.sub(r"\S+", lambda match: _redacted(match[0]), content)[:KEPT]


def _redacted(word: str) -> str:
    return "[redacted]" if any(mark in word.lower() for mark in _ADDRESS_MARKS) else word
