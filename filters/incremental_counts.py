"""Counts of the query log that are kept, so that one day more does not count two years again.

One day more or less touches most of the popular pins, and those have most of the log. So a ranking of all
pins leaves three files behind:

- the *core*: counts over all days of the window but its oldest, which soon leave the window;
- the *edge*: the rows of all other days;
- the *best*: the queries of each pin that would be kept if the core were everything.

As long as the core lies within the window, the core, the edge and what was read since make up the log. Only
pins with changed rows are ranked again, and only some of their queries are counted: an extra row never lowers
a query. A query that is not among the best, and has no rows outside of the core, is outranked by as many
queries as are kept.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any

from .catalog import Partial
from .duck import escaped, make, one, read_parquet
from .evidence import Evidence
from .query_window import Window, count_queries

EDGE_DAYS = 32  # for so many days the window can move on before everything is counted anew
_NAMES = ("queries core", "queries edge", "queries best")  # in the table partials
_COUNTS = "pin, query, points, engagements, first_day, last_day"


@dataclass(frozen=True)
class Core:
    """The files that a ranking of all pins has left: core, edge and best."""

    window: Window  # the days whose counts are in the core
    evidence_ids: frozenset[int]  # the contents of sources whose rows are in core and edge
    files: tuple[str, ...]
    rows: tuple[int, ...]  # of each file

    def fits(self, evidence: Evidence, *windows: Window) -> bool:
        """Whether the core lies within each of the windows, and all its sources still count."""
        within = all(self.window.after >= w.after and self.window.as_of <= w.as_of for w in windows)
        return within and self.evidence_ids <= evidence.ids("log")

    def count_all(self, evidence: Evidence, window: Window) -> None:
        """Makes the table counted, for all pins."""
        self._count(evidence, window, self.rest(evidence), f"SELECT {_COUNTS} FROM {self._core(evidence)}")

    def count_touched(self, evidence: Evidence, window: Window) -> None:
        """Makes the table counted for the pins in the table touched.

        Queries that cannot be among those kept are left out.
        """
        rest = f"SELECT * FROM ({self.rest(evidence)}) SEMI JOIN touched USING (pin)"
        evidence.db.execute(f"""CREATE OR REPLACE TEMP TABLE candidates AS
            SELECT pin, query FROM {self._best(evidence)} SEMI JOIN touched USING (pin)
            UNION SELECT pin, query FROM ({rest})""")
        counts = f"SELECT {_COUNTS} FROM {self._core(evidence)} SEMI JOIN candidates USING (pin, query)"
        self._count(evidence, window, rest, counts)

    def _count(self, evidence: Evidence, window: Window, rows: str, counts: str) -> None:
        """Makes the table counted of rows that are not in the core, and of counts of the core."""
        count_queries(evidence, window, rows, into="counted_rows")
        evidence.db.execute(
            f"CREATE OR REPLACE TEMP VIEW parts AS {counts} UNION ALL SELECT {_COUNTS} FROM counted_rows"
        )
        make(evidence.db, "query_sums", name="counted")

    def rest(self, evidence: Evidence) -> str:
        """SQL for the rows that are not in the core: source, pin, query, action, day, count."""
        columns = "source, pin, query, action, day, count"
        new = evidence.view("log", without=self.evidence_ids)
        return f"SELECT {columns} FROM {self._edge(evidence)} UNION ALL SELECT {columns} FROM {new}"

    def _core(self, evidence: Evidence) -> str:
        return read_parquet([evidence.path(self.files[0])])

    def _edge(self, evidence: Evidence) -> str:
        return read_parquet([evidence.path(self.files[1])])

    def _best(self, evidence: Evidence) -> str:
        return read_parquet([evidence.path(self.files[2])])

    def keep(self, evidence: Evidence) -> None:
        """Puts this core in the place of the one before, within the caller's transaction."""
        about = json.dumps(
            {
                "after": str(self.window.after),
                "as_of": str(self.window.as_of),
                "evidence": sorted(self.evidence_ids),
            }
        )
        evidence.catalog.replace_partials(
            [
                Partial(file, name, rows, about)
                for file, name, rows in zip(self.files, _NAMES, self.rows, strict=True)
            ]
        )


def last_core(evidence: Evidence) -> Core | None:
    """The core that the last ranking of all pins left."""
    partials = evidence.catalog.partials(_NAMES)
    if not partials:
        return None
    about = json.loads(partials[0].about)
    window = Window(date.fromisoformat(about["after"]), date.fromisoformat(about["as_of"]))
    files, rows = tuple(p.file for p in partials), tuple(p.rows for p in partials)
    return Core(window, frozenset(about["evidence"]), files, rows)


def make_core(evidence: Evidence, window: Window, run_id: int, ranking: Mapping[str, Any]) -> Core:
    """Writes the files of a core for a window; they are listed once `Core.keep` was called.

    `ranking` has the parameters of sql/query_ranks.sql.
    """
    edge_days = min(EDGE_DAYS, (window.as_of - window.after).days // 8)
    inner = Window(window.after + timedelta(edge_days), window.as_of)
    count_queries(evidence, inner, evidence.view("log"))
    make(evidence.db, "query_ranks", ranking)
    edge = f"""SELECT 0 AS source, pin, query, action, day, count
        FROM {evidence.view("log")} SEMI JOIN weights USING (action)
        WHERE query IS NOT NULL AND (day <= DATE '{inner.after}' OR day > DATE '{inner.as_of}')"""
    selects = (f"SELECT {_COUNTS} FROM counted", edge, "SELECT pin, query FROM query_ranks")
    files = tuple(f"queries-{run_id:06}-{name}.parquet" for name in ("core", "edge", "best"))
    rows = []
    for file, select in zip(files, selects, strict=True):
        n, *_ = one(evidence.db, f"COPY ({select}) TO '{escaped(evidence.path(file))}' (FORMAT parquet)")
        rows.append(int(n))
    return Core(inner, frozenset(evidence.ids("log")), files, tuple(rows))


def find_touched(
    evidence: Evidence, rows: str, before: Window, now: Window, known_ids: Collection[int]
) -> None:
    """Makes the table touched (pin): the pins whose queries may have changed.

    These have rows of contents that are not among `known_ids`, or of days that came into the window or left
    it. `rows` is SQL for the rows to look at.
    """
    days = " OR ".join(
        f"(day > DATE '{min(ends)}' AND day <= DATE '{max(ends)}')"
        for ends in ((before.after, now.after), (before.as_of, now.as_of))
    )
    new_ids = ", ".join(str(id_) for id_ in sorted(evidence.ids("log") - set(known_ids))) or "-1"
    evidence.db.execute(f"""CREATE OR REPLACE TEMP TABLE touched AS
        SELECT DISTINCT pin FROM ({rows}) SEMI JOIN weights USING (action)
        WHERE source IN ({new_ids}) OR {days}""")
