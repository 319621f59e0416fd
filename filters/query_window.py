"""The window of days of the query log that count, and the counting of the rows within it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, timedelta

from .duck import make
from .evidence import Evidence


@dataclass(frozen=True)
class Window:
    """The days that count: `after` excluded, `as_of` included."""

    after: date
    as_of: date

    @classmethod
    def up_to(cls, as_of: date, days: int) -> Window:
        """The `days` days that end with `as_of`."""
        return cls(as_of - min(timedelta(days), as_of - date.min), as_of)

    def parameters(self) -> dict[str, date]:
        """The parameters of the SQL texts that count within a window."""
        return {"after": self.after, "as_of": self.as_of}


def prepare_counting(evidence: Evidence, weights: Mapping[str, int]) -> None:
    """Makes the view queries (code, text) and the table weights (action, weight)."""
    db = evidence.db
    db.execute(f"CREATE OR REPLACE TEMP VIEW queries AS SELECT code, text FROM {evidence.codes('queries')}")
    db.execute("CREATE OR REPLACE TEMP TABLE weights (action VARCHAR, weight DOUBLE)")
    db.execute("INSERT INTO weights SELECT unnest($1), unnest($2)", [list(weights), list(weights.values())])


def count_queries(evidence: Evidence, window: Window, rows: str, into: str = "counted") -> None:
    """Counts rows of the log (`rows` is SQL) per pin and query, into the table `into`.

    The rows stay as the view log.
    """
    evidence.db.execute(f"CREATE OR REPLACE TEMP VIEW log AS SELECT * FROM ({rows})")
    make(evidence.db, "query_counts", window.parameters(), name=into)
