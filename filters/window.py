"""The query log within a window, counted without adding it all up anew, and the pins whose queries a run can
have changed.

A day more or less touches few rows but the most popular pins, and those have most of the log. So a ranking of
everything leaves behind
- the *core*: the counts of all days but the oldest, which soon leave the window;
- the *edge*: the rows of those other days;
- the *best*: the queries that would be kept if there were the core alone. While the core lies within the
window, core, edge and what was read since are the log. And as more rows never harm a query, one that is not
among the best and has no other rows stays behind as many as are kept: it need not be looked at.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any

from .duck import escaped, make, one, read_parquet
from .evidence import Evidence

EDGE_DAYS = 32  # for so many days the window can move on until everything is counted anew
_NAMES = ("queries core", "queries edge", "queries best")  # in the table partials
_COUNTS = "pin, query, points, engagements, first_day, last_day"


@dataclass(frozen=True)
class Window:
    """The days that count: `after` excluded, `as_of` included."""

    after: date
    as_of: date

    @classmethod
    def up_to(cls, as_of: date, days: int) -> Window:
        """The `days` days up to and with `as_of`."""
        return cls(as_of - min(timedelta(days), as_of - date.min), as_of)

    def parameters(self) -> dict[str, date]:
        """Named as the SQL has them."""
        return {"after": self.after, "as_of": self.as_of}


@dataclass(frozen=True)
class Core:
    """Counts over the days of a window but its oldest, and beside them the rows of all other days, of some
    sources.
    """

    window: Window
    evidence: frozenset[int]
    files: tuple[str, ...]  # of core, edge and best
    rows: tuple[int, ...] = ()

    def fits(self, evidence: Evidence, *windows: Window) -> bool:
        """Whether its days lie within the windows and its sources all count still."""
        return (
            all(self.window.after >= w.after and self.window.as_of <= w.as_of for w in windows)
            and self.evidence <= evidence.live("log").keys()
        )

    def count_all(self, evidence: Evidence, window: Window) -> None:
        """Makes the table counted for all pins."""
        self._count(evidence, window, self.rest(evidence), f"SELECT {_COUNTS} FROM {self._file(evidence, 0)}")

    def count_touched(self, evidence: Evidence, window: Window) -> None:
        """Makes the table counted for the pins in the table touched, without queries that cannot be among
        those kept.
        """
        rest = f"SELECT * FROM ({self.rest(evidence)}) SEMI JOIN touched USING (pin)"
        evidence.db.execute(f"""CREATE OR REPLACE TEMP TABLE candidates AS
            SELECT pin, query FROM {self._file(evidence, 2)} SEMI JOIN touched USING (pin) UNION SELECT pin, query FROM ({rest})""")
        self._count(
            evidence,
            window,
            rest,
            f"SELECT {_COUNTS} FROM {self._file(evidence, 0)} SEMI JOIN candidates USING (pin, query)",
        )

    def _count(self, evidence: Evidence, window: Window, rows: str, counts: str) -> None:
        count_rows(evidence, window, rows)
        evidence.db.execute(
            f"CREATE OR REPLACE TEMP VIEW parts AS {counts} UNION ALL SELECT {_COUNTS} FROM counted_rows"
        )
        make(evidence.db, "query_sums", name="counted")

    def rest(self, evidence: Evidence) -> str:
        """SQL for the rows that are not in the core: source, pin, query, action, day, count."""
        columns = "source, pin, query, action, day, count"
        return f"SELECT {columns} FROM {self._file(evidence, 1)} UNION ALL SELECT {columns} FROM {evidence.view('log', leave=self.evidence)}"

    def _file(self, evidence: Evidence, which: int) -> str:
        return read_parquet([str(evidence.folder / self.files[which])])

    def keep(self, evidence: Evidence) -> None:
        """Puts it in the place of the one before; within the caller's transaction."""
        about = json.dumps(
            {
                "after": str(self.window.after),
                "as_of": str(self.window.as_of),
                "evidence": sorted(self.evidence),
            }
        )
        evidence.conn.executemany("DELETE FROM partials WHERE name = ?", [(name,) for name in _NAMES])
        evidence.conn.executemany(
            "INSERT INTO partials VALUES (?, ?, ?, ?)",
            [(*row, about) for row in zip(self.files, _NAMES, self.rows, strict=True)],
        )


def last_core(evidence: Evidence) -> Core | None:
    """The core that the last ranking of everything left."""
    rows = [
        row
        for name in _NAMES
        for row in evidence.conn.execute("SELECT file, rows, about FROM partials WHERE name = ?", [name])
    ]
    if not rows:
        return None
    about = json.loads(rows[0]["about"])
    window = Window(date.fromisoformat(about["after"]), date.fromisoformat(about["as_of"]))
    return Core(
        window,
        frozenset(about["evidence"]),
        tuple(row["file"] for row in rows),
        tuple(row["rows"] for row in rows),
    )


def make_core(evidence: Evidence, window: Window, run_id: int, ranking: Mapping[str, Any]) -> Core:
    """Counts the core of a window, into files that count once they are kept; `ranking` are the parameters of
    query_ranks.
    """
    inner = Window(
        window.after + timedelta(min(EDGE_DAYS, (window.as_of - window.after).days // 8)), window.as_of
    )
    files = tuple(f"queries-{run_id:06}-{name}.parquet" for name in ("core", "edge", "best"))
    count_rows(evidence, inner, evidence.view("log"), name="counted")
    make(evidence.db, "query_ranks", ranking)
    edge = f"""SELECT 0 AS source, pin, query, action, day, count FROM {evidence.view("log")} SEMI JOIN weights USING (action)
        WHERE query IS NOT NULL AND (day <= DATE '{inner.after}' OR day > DATE '{inner.as_of}')"""
    sizes = [
        int(one(evidence.db, f"COPY ({text}) TO '{escaped(evidence.folder / file)}' (FORMAT parquet)")[0])
        for file, text in zip(
            files, (f"SELECT {_COUNTS} FROM counted", edge, "SELECT pin, query FROM query_ranks"), strict=True
        )
    ]
    return Core(inner, frozenset(evidence.live("log")), files, tuple(sizes))


def count_rows(evidence: Evidence, window: Window, rows: str, name: str = "counted_rows") -> None:
    """Counts rows of the log into the table `name`."""
    evidence.db.execute(f"CREATE OR REPLACE TEMP VIEW log AS SELECT * FROM ({rows})")
    make(evidence.db, "query_counts", window.parameters(), name=name)


def prepare(evidence: Evidence, weights: Mapping[str, int]) -> None:
    """The view queries and the table weights."""
    db = evidence.db
    db.execute(f"CREATE OR REPLACE TEMP VIEW queries AS SELECT code, text FROM {evidence.codes('queries')}")
    db.execute("CREATE OR REPLACE TEMP TABLE weights (action VARCHAR, weight DOUBLE)")
    db.execute("INSERT INTO weights SELECT unnest($1), unnest($2)", [list(weights), list(weights.values())])


def find_touched(evidence: Evidence, rows: str, before: Window, after: Window, known: set[int]) -> None:
    """Makes the table touched (pin): pins with rows of sources that are not `known`, or of days that came
    into the window or left it.
    """
    days = " OR ".join(
        f"(day > DATE '{min(ends)}' AND day <= DATE '{max(ends)}')"
        for ends in ((before.after, after.after), (before.as_of, after.as_of))
    )
    new = sorted(set(evidence.live("log")) - known)
    evidence.db.execute(f"""CREATE OR REPLACE TEMP TABLE touched AS
        SELECT DISTINCT pin FROM ({rows}) SEMI JOIN weights USING (action) WHERE source IN ({", ".join(map(str, new)) or "-1"}) OR {days}""")
