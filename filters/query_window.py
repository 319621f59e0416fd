"""The window of days of the query log that count, and the counting of the rows within it."""

from __future__ import annotations

import re
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


@dataclass(frozen=True)
class UserCap:
    """What one user can do for a pin and a query at most."""

    engagements: int = 2**31 - 1
    share: float = 1.0  # of the points of the pair, those of the user included

    def parameters(self) -> dict[str, int]:
        """The parameters of sql/query_counts_by_user.sql."""
        return {"max_per_user": self.engagements, "max_share": round(self.share * 1_000_000)}


def action_key(name: str) -> str:
    """What two spellings of an action have in common: "Long-Click", "long click" and "long_click" are one."""
    return re.sub(r"[\s_-]+", "", name).casefold()


def prepare_counting(evidence: Evidence, weights: Mapping[str, int]) -> None:
    """Makes the view queries (code, text) and the table weights (action, weight).

    The table has every spelling of an action that the log has.
    """
    db = evidence.db
    by_key = {action_key(action): weight for action, weight in weights.items()}
    spelled = {action for counts in evidence.catalog.counts() for action in counts.get("actions", ())}
    weights = {action: by_key[key] for action in sorted(spelled) if (key := action_key(action)) in by_key}
    db.execute(f"CREATE OR REPLACE TEMP VIEW queries AS SELECT code, text FROM {evidence.codes('queries')}")
    db.execute("CREATE OR REPLACE TEMP TABLE weights (action VARCHAR, weight DOUBLE)")
    db.execute("INSERT INTO weights SELECT unnest($1), unnest($2)", [list(weights), list(weights.values())])


def count_queries(
    evidence: Evidence, window: Window, rows: str, into: str = "counted", cap: UserCap | None = None
) -> None:
    """Counts rows of the log (`rows` is SQL) per pin and query, into the table `into`.

    The rows stay as the view log.
    """
    evidence.db.execute(f"CREATE OR REPLACE TEMP VIEW log AS SELECT * FROM ({rows})")
    if cap:
        make(evidence.db, "query_counts_by_user", window.parameters() | cap.parameters(), name=into)
    else:
        make(evidence.db, "query_counts", window.parameters(), name=into)
