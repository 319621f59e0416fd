"""What errors of DuckDB mean, in a sentence for people."""

from __future__ import annotations

import duckdb


def is_interrupt(error: Exception) -> bool:
    """Whether Ctrl-C interrupted a query. Arrow hands such an error on as one of its own, with its text."""
    return isinstance(error, duckdb.InterruptException) or "Query interrupted" in str(error)


def explain_duckdb_error(error: Exception) -> str | None:
    """What happened and what to do, for the errors that a user can do something about; None for others."""
    if isinstance(error, duckdb.OutOfMemoryException):
        return (
            "the memory that --memory-limit allows is too little for this: allow more, for instance "
            "--memory-limit 1GB; what was committed is kept"
        )
    return None
