"""What errors of SQLite mean, in a sentence for people."""

from __future__ import annotations

import sqlite3

_SENTENCES = {
    sqlite3.SQLITE_BUSY: (
        "the store is locked by another process that is writing to it: try again when it is done"
    ),
    sqlite3.SQLITE_READONLY: "the store cannot be written: the file and its folder must be writable to you",
    sqlite3.SQLITE_FULL: (
        "the disk is full: what was committed is kept, make room and run the same command again"
    ),
}
_SENTENCES[sqlite3.SQLITE_LOCKED] = _SENTENCES[sqlite3.SQLITE_BUSY]


def explain_sqlite_error(error: Exception) -> str | None:
    """What happened and what to do, for the errors that a user can do something about; None for others."""
    if not isinstance(error, sqlite3.OperationalError):
        return None
    code = getattr(error, "sqlite_errorcode", 0)  # errors that Python itself raises have none
    return _SENTENCES.get(code & 0xFF)  # the low byte is the kind of error, the others are details
