"""Engaged queries: after which queries people did something with a pin, best first.

The formulas are in sql/, explained in docs/aggregate.md.
"""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

from ..common.terminal import OnStep
from ..store.aggregates import done_before, last_run, pins_not_in_store, remember
from ..store.connection import StoreError, transaction
from ..store.ranks import sorted_ranks, write_ranks
from ..store.runs import finish_run, start_run
from .duck import make, one
from .evidence import Evidence, open_evidence
from .window import Core, Window, count_rows, find_touched, last_core, make_core, prepare

WEIGHTS = {"save": 1.0, "long_click": 1.0, "click": 0.25}  # by action; what is not named weighs nothing
MAX_DECIMALS = 6  # of a weight: sums of weights are kept exact as whole numbers
BEFORE, AFTER, NO_WEIGHT = "before the window", "after the as-of date", "action of no weight"
FEW_ENGAGEMENTS, FEW_USERS, BEYOND_TOP = (
    "fewer engagements than --min-engagements",
    "fewer users than --min-users",
    "beyond --top",
)


@dataclass(frozen=True)
class QueryOptions:
    """What decides which queries are kept; the defaults are those of the paper where it states one (top 20,
    two years).
    """

    as_of: date | None = None  # None: the newest day in the log that is not in the future
    window_days: int = 730
    top: int = 20
    weights: Mapping[str, float] = field(default_factory=lambda: dict(WEIGHTS))
    min_engagements: int = 1
    min_users: int = 1

    def stated(self) -> dict[str, Any]:
        """As JSON has it."""
        names = ("window_days", "top", "min_engagements", "min_users")
        return {"as_of": self.as_of and str(self.as_of), "weights": dict(self.weights)} | {
            name: getattr(self, name) for name in names
        }


def aggregate_queries(
    conn: sqlite3.Connection,
    *,
    log: Sequence[str] = (),
    options: QueryOptions | None = None,
    columns: Mapping[str, str] | None = None,
    memory_limit: str | None = None,
    rebuild: bool = False,
    on_step: OnStep = lambda what, done, total: None,
) -> dict[str, Any]:
    """Takes in what is new in a query log, and writes `engaged_queries` as one run over everything read so
    far would.

    Returns {"rows_read", "pins", "rows_written", "unknown_boards": 0, "dropped": {reason: n}, "queries",
    "as_of", "unweighted_actions", "pins_not_in_store", "sources", "unchanged", "rejected"}: `pins` were
    ranked anew, `dropped` counts rows, and queries of pins. Raises SourceError, StoreError, ValueError.
    """
    options = options or QueryOptions()
    weights, scale = whole_weights(options.weights)
    with open_evidence(conn, "queries", memory_limit) as evidence:
        if not rebuild:
            evidence.check_files()
        run_id = start_run(
            conn,
            "aggregate queries",
            {"log": list(log), "map": dict(columns or {}), "rebuild": rebuild} | options.stated(),
        )
        read = evidence.read(
            {"log": log},
            columns or {},
            run_id,
            rebuild=rebuild,
            on_source=lambda done, of: on_step("reading", done, of),
        )
        state = evidence.state()
        if not any(state):
            raise StoreError("no query log has been read yet: name it with --log")
        as_of = options.as_of or newest_day(evidence)
        stated = options.stated() | {"as_of": str(as_of)}
        counts = done_before(conn, "queries", stated, state)
        if counts:
            counts |= {"pins": 0, "rows_written": 0}
        else:
            on_step("ranking", 0, None)
            window = Window.up_to(as_of, options.window_days)
            ranking = {"top": options.top, "min_engagements": options.min_engagements, "scale": scale}
            prepare(evidence, weights)
            core = _count(evidence, options, window, ranking, last_run(conn, "queries"), run_id)
            of_pins = rank_queries(evidence, options, window, ranking)
            counts = _counts(evidence, window, weights, of_pins if core else {})
            ranks = "SELECT r.pin, p.text AS pin_id, rank, r.text AS queries, r.engagements, score AS scores, first_day AS first_dates, last_day AS last_dates"
            ranks += f" FROM query_ranks r JOIN {evidence.codes('pins')} p ON p.code = r.pin"
            gone: list[tuple[str]] = []
            if not core:
                without = f"SELECT p.text FROM touched ANTI JOIN query_ranks USING (pin) JOIN {evidence.codes('pins')} p ON p.code = pin"
                gone = evidence.db.execute(without).fetchall()
            rows, pins = (
                sorted_ranks(
                    evidence.db, "engaged_queries", ranks, ("text", "number", "score", "day", "day")
                ),
                counts["rows_written"],
            )
            on_step("writing", 0, pins)
            with transaction(conn):
                if core:
                    conn.execute("DELETE FROM engaged_queries")
                    core.keep(evidence)
                conn.executemany("DELETE FROM engaged_queries WHERE pin_id = ?", gone)
                write_ranks(conn, "engaged_queries", rows, lambda done: on_step("writing", done, pins))
                remember(conn, "queries", stated, state, counts, run_id)
            evidence.drop_leftovers()
    counts = (
        read
        | counts
        | {"rows_read": read["rows_read"], "pins_not_in_store": pins_not_in_store(conn, "engaged_queries")}
    )
    finish_run(conn, run_id, counts)
    return counts


def whole_weights(weights: Mapping[str, float]) -> tuple[dict[str, int], int]:
    """Weights of the actions that count as whole numbers, and what one stands for: ({"save": 100, "click":
    25}, 100). Raises ValueError.
    """
    exact = {action: Decimal(str(weight)) for action, weight in weights.items()}
    for action, weight in exact.items():
        if (
            not weight.is_finite()
            or weight < 0
            or -int(weight.as_tuple().exponent) > MAX_DECIMALS
            or weight > 10**6
        ):
            raise ValueError(
                f"the weight of {action} is {weight}: it must be between 0 and a million, with at most {MAX_DECIMALS} decimals"
            )
    scale = 10 ** max(
        (max(0, -int(weight.normalize().as_tuple().exponent)) for weight in exact.values()), default=0
    )
    return {action: int(weight * scale) for action, weight in exact.items() if weight > 0}, scale


def newest_day(evidence: Evidence) -> date:
    """The newest day of any readable row of the log that is not in the future (UTC); today if there is none."""
    today = datetime.now(UTC).date()
    days = (day for counts in evidence.counts() for day in counts.get("readable", ()))
    return date.fromisoformat(max((day for day in days if day <= str(today)), default=str(today)))


def _count(
    evidence: Evidence,
    options: QueryOptions,
    window: Window,
    ranking: Mapping[str, Any],
    last: tuple[Any, Any] | None,
    run_id: int,
) -> Core | None:
    """Makes the table counted: for pins that may have changed since the last run, named in the table touched;
    or for all, and then returns a new core.
    """
    core = last_core(evidence)
    by_users = options.min_users > 1
    if last and core:
        stated, state = last
        known = {evidence_id for ids in state for evidence_id in ids}
        before = Window.up_to(date.fromisoformat(stated["as_of"]), stated["window_days"])
        same = {
            name: value for name, value in options.stated().items() if name not in ("as_of", "window_days")
        }
        if (
            same.items() <= stated.items()
            and known <= evidence.live("log").keys()
            and core.fits(evidence, window, before)
        ):
            find_touched(evidence, core.rest(evidence), before, window, known)
            if by_users:
                count_rows(
                    evidence,
                    window,
                    f"SELECT * FROM {evidence.view('log')} SEMI JOIN touched USING (pin)",
                    name="counted",
                )
            else:
                core.count_touched(evidence, window)
            return None
    core = make_core(evidence, window, run_id, ranking)
    if by_users:
        count_rows(evidence, window, evidence.view("log"), name="counted")
    else:
        core.count_all(evidence, window)
    return core


def rank_queries(
    evidence: Evidence, options: QueryOptions, window: Window, ranking: Mapping[str, Any]
) -> dict[str, int]:
    """Makes the table query_ranks; returns how many queries of pins were dropped, by reason."""
    db = evidence.db
    pairs, few_users = one(db, "SELECT count(*) FROM counted")[0], 0
    if options.min_users > 1:  # the view log still has the rows that were counted
        make(db, "query_users", window.parameters())
        db.execute(
            "DELETE FROM counted c WHERE NOT EXISTS (SELECT 1 FROM query_users u WHERE u.pin = c.pin AND u.query = c.query AND u.users >= $1)",
            [options.min_users],
        )
        few_users = pairs - one(db, "SELECT count(*) FROM counted")[0]
    make(db, "query_ranks", ranking)
    few, *_ = one(db, "SELECT count(*) FROM counted WHERE engagements < $1", [options.min_engagements])
    kept, *_ = one(db, "SELECT count(*) FROM query_ranks")
    return {FEW_USERS: few_users, FEW_ENGAGEMENTS: few, BEYOND_TOP: pairs - few_users - few - kept}


def _counts(
    evidence: Evidence, window: Window, weights: Mapping[str, int], of_pins: Mapping[str, int]
) -> dict[str, Any]:
    """What the ranking came to; rows that were dropped are those of all that was read."""
    pins, queries, rows = one(
        evidence.db,
        "SELECT (SELECT count(DISTINCT pin) FROM counted), count(*), count(*) FILTER (rank = 1) FROM query_ranks",
    )
    dropped, unweighted = Counter[str](), Counter[str]()
    for counts in evidence.counts():
        dropped.update(counts.get("dropped", {}))
        for day, n in counts.get("kept", {}).items():
            dropped[BEFORE if day <= str(window.after) else AFTER if day > str(window.as_of) else ""] += n
        unweighted.update(
            {action: n for action, n in counts.get("actions", {}).items() if action not in weights}
        )
    dropped.update(of_pins)
    dropped[NO_WEIGHT] = unweighted.total()
    del dropped[""]
    return {
        "pins": pins, "rows_written": rows, "unknown_boards": 0, "dropped": {reason: n for reason, n in dropped.most_common() if n}, "queries": queries, "as_of": str(window.as_of),
        "unweighted_actions": dict(unweighted.most_common(20)),
    }  # fmt: skip
