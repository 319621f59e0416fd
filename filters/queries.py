"""Engaged queries: after which queries people did something with a pin, best first.

The formulas are in sql/ and explained in docs/aggregate.md.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any, TypedDict, cast

from ..common.errors import OptionError
from ..common.terminal import OnStep, no_step
from ..sources.report import ReadReport
from ..store import Connection, StoreError, transaction
from ..store.aggregates import counts_if_unchanged, last_run, pins_not_in_store, remember
from ..store.ranks import PinRow, sorted_ranks, write_ranks
from ..store.runs import finish_run, start_run
from .duck import make, one
from .evidence import Evidence, open_evidence
from .files import AS_NAMED, Files
from .incremental_counts import Core, find_touched, last_core, make_core
from .query_window import UserCap, Window, action_key, count_queries, prepare_counting

WEIGHTS = {"save": 1.0, "long_click": 1.0, "click": 0.25}  # by action; the others weigh nothing
MAX_DECIMALS = 6  # of a weight: sums of weights are kept exact, as whole numbers
BEFORE, AFTER, NO_WEIGHT = "before the window", "after the as-of date", "action of no weight"
FEW_ENGAGEMENTS, FEW_USERS, TOO_FEW_TO_SHARE, BEYOND_TOP = (
    "fewer engagements than --min-engagements",
    "fewer users than --min-users",
    "too few users for --max-share-per-user",
    "beyond --top",
)


@dataclass(frozen=True)
class QueryOptions:
    """What decides which queries are kept.

    The defaults of `top` and `window_days` are those of the OmniSearchSage paper.
    """

    as_of: date | None = (
        None  # the last day that counts; None: the newest in the log that is not in the future
    )
    window_days: int = 730  # days up to `as_of` that count
    top: int = 20  # queries kept for a pin
    weights: Mapping[str, float] = field(default_factory=lambda: dict(WEIGHTS))  # action -> weight
    min_engagements: int = 1  # of a query with a pin
    min_users: int = 1  # known people behind a query of a pin
    max_per_user: int | None = None  # engagements of one user that count for a query of a pin
    max_share_per_user: float | None = None  # of the score of a query of a pin that one user may make

    @property
    def cap(self) -> UserCap | None:
        """What one user can do at most, or None if that is not bounded."""
        if self.max_per_user is None and self.max_share_per_user is None:
            return None
        return UserCap(self.max_per_user or UserCap.engagements, self.max_share_per_user or UserCap.share)

    @property
    def by_users(self) -> bool:
        """Whether it matters which user a row is of."""
        return self.min_users > 1 or self.cap is not None

    def with_weights(self, weights: Mapping[str, float]) -> QueryOptions:
        """These options with some other weights. An action keeps its spelling."""
        spelled = {action_key(action): action for action in self.weights}
        changed = {spelled.get(action_key(action), action): weight for action, weight in weights.items()}
        return replace(self, weights={**self.weights, **changed})

    def as_json(self) -> dict[str, Any]:
        """As the store keeps the options."""
        return asdict(self) | {"as_of": self.as_of and str(self.as_of), "weights": dict(self.weights)}

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> QueryOptions:
        """The options that `as_json` stored."""
        options = {name: stored[name] for name in cls.__dataclass_fields__.keys() & stored.keys()}
        as_of = options.get("as_of")
        return cls(**options | {"as_of": as_of and date.fromisoformat(as_of)})


class QueryRanking(TypedDict):
    """What ranking came to."""

    pins: int  # that were ranked
    rows_written: int  # of those, pins that have queries
    unknown_boards: int  # always 0: there are no boards here
    dropped: dict[str, int]  # reason -> rows of the log, or queries of pins
    queries: int  # queries of the pins that were ranked
    as_of: str  # the last day that counted
    unweighted_actions: dict[str, int]  # action -> rows, of the 20 most frequent actions of no weight


class QueriesResult(QueryRanking):
    """What `aggregate_queries` did. `pins` and `rows_written` are 0 if nothing has changed."""

    options: dict[str, Any]  # that were used, as `QueryOptions.as_json` gives them
    rows_read: int
    rejected: int  # rows, see the table rejected_rows
    reasons: dict[str, int]  # reason -> rejected rows, most frequent first
    left_empty: dict[str, int]  # reason -> cells that made no sense and were left empty
    columns: ReadReport  # what was read as what, and what was ignored
    sources: int  # contents that were read
    unchanged: int  # sources that had been read before
    pins_not_in_store: int  # that have queries


def aggregate_queries(
    conn: Connection,
    *,
    log: Sequence[str] = (),
    options: QueryOptions | None = None,
    columns: Mapping[str, str] | None = None,
    files: Files = AS_NAMED,
    memory_limit: str | None = None,
    rebuild: bool = False,
    on_step: OnStep = no_step,
) -> QueriesResult:
    """Takes in what is new in a query log, and writes the table `engaged_queries`.

    The result is that of one run over everything read so far. `log` is paths, globs, folders, or `-` for
    standard input; it may be empty, if other options are to rank anew. `columns` maps fields to columns.
    `memory_limit` is for DuckDB, such as "500MB". `rebuild` first forgets everything that was read. Raises
    SourceError, StoreError, and OptionError for a weight that cannot be.
    """
    options = options or QueryOptions()
    weights, scale = whole_weights(options.weights)
    arguments = {"log": list(log), "map": dict(columns or {}), "rebuild": rebuild}
    arguments |= files.as_json()
    with open_evidence(conn, "queries", memory_limit) as evidence:
        if not rebuild:
            evidence.check_files()
        run_id = start_run(conn, "aggregate queries", arguments | options.as_json())
        read = evidence.read(
            {"log": log},
            columns or {},
            run_id,
            files=files,
            rebuild=rebuild,
            on_source=lambda done, total: on_step("reading", done, total),
        )
        state = evidence.state()
        if not any(state):
            if evidence.failure:
                raise evidence.failure
            raise StoreError("no query log has been read yet: name it with --log")
        as_of = options.as_of or newest_day(evidence)
        stored_options = options.as_json() | {"as_of": str(as_of)}
        if counts := counts_if_unchanged(conn, "queries", stored_options, state):
            ranking = cast(QueryRanking, counts | {"pins": 0, "rows_written": 0})
        else:
            on_step("ranking", 0, None)
            window = Window.up_to(as_of, options.window_days)
            parameters = ranking_parameters(options, scale)
            prepare_counting(evidence, weights)
            core = _count(evidence, options, window, parameters, last_run(conn, "queries"), run_id)
            dropped = rank_queries(evidence, options, window, parameters)
            # How many queries of pins were dropped is known only if all pins were ranked.
            ranking = _ranking(evidence, window, weights, dropped if core else {})
            removed = [] if core else _without_queries(evidence)
            rows, pins = ranked_queries(evidence), ranking["rows_written"]
            on_step("writing", 0, pins)
            with transaction(conn):
                if core:
                    core.keep(evidence)
                write_ranks(
                    conn,
                    "engaged_queries",
                    rows,
                    replace=core is not None,
                    removed=removed,
                    on_pins=lambda done: on_step("writing", done, pins),
                )
                remember(conn, "queries", stored_options, state, ranking, run_id)
            evidence.drop_leftovers()
    result: QueriesResult = {
        **read,
        **ranking,
        "options": stored_options,
        "pins_not_in_store": pins_not_in_store(conn, "engaged_queries"),
    }
    finish_run(conn, run_id, dict(result))
    if evidence.failure:
        raise evidence.failure
    return result


def last_query_options(conn: Connection) -> QueryOptions:
    """The options with which engaged queries were last ranked, or the defaults."""
    last = last_run(conn, "queries")
    return QueryOptions.from_json(last[0]) if last else QueryOptions()


def remembered_options(conn: Connection) -> QueryOptions:
    """The defaults, but with the weights, the window and the bounds for one user of the last ranking."""
    last = last_query_options(conn)
    return QueryOptions(
        weights=last.weights,
        window_days=last.window_days,
        max_per_user=last.max_per_user,
        max_share_per_user=last.max_share_per_user,
    )


def whole_weights(weights: Mapping[str, float]) -> tuple[dict[str, int], int]:
    """The weights above 0 as whole numbers, and the number that stands for a weight of 1.

    For instance ({"save": 100, "click": 25}, 100). Raises OptionError.
    """
    exact = {action: Decimal(str(weight)) for action, weight in weights.items()}
    for action, weight in exact.items():
        in_range = weight.is_finite() and 0 <= weight <= 10**6
        if not in_range or -int(weight.as_tuple().exponent) > MAX_DECIMALS:
            raise OptionError(
                f"the weight of {action} is {weight}:"
                f" it must be between 0 and a million, with at most {MAX_DECIMALS} decimals"
            )
    decimals = [max(0, -int(weight.normalize().as_tuple().exponent)) for weight in exact.values()]
    scale = 10 ** max(decimals, default=0)
    return {action: int(weight * scale) for action, weight in exact.items() if weight > 0}, scale


def ranking_parameters(options: QueryOptions, scale: int) -> dict[str, int]:
    """The parameters of sql/query_ranks.sql."""
    return {"top": options.top, "min_engagements": options.min_engagements, "scale": scale}


def newest_day(evidence: Evidence) -> date:
    """The newest day (UTC) of a readable row of the log that is not in the future; today if there is none."""
    today = datetime.now(UTC).date()
    days = (day for counts in evidence.catalog.counts() for day in counts.get("readable", ()))
    return date.fromisoformat(max((day for day in days if day <= str(today)), default=str(today)))


def _count(
    evidence: Evidence,
    options: QueryOptions,
    window: Window,
    parameters: Mapping[str, int],
    last: tuple[dict[str, Any], list[list[int]]] | None,
    run_id: int,
) -> Core | None:
    """Makes the table counted (pin, query, points, engagements, first_day, last_day).

    If what the last run left can be used, only pins that may have changed since are counted; they are named
    in the table touched. Otherwise all pins are counted, and a new core is returned.
    """
    core = last_core(evidence)
    if last and core and (before := _window_before(evidence, options, window, core, last)):
        known_ids = {evidence_id for ids in last[1] for evidence_id in ids}
        find_touched(evidence, core.rest(evidence), before, window, known_ids)
        if options.by_users:
            touched = f"SELECT * FROM {evidence.view('log')} SEMI JOIN touched USING (pin)"
            count_queries(evidence, window, touched, cap=options.cap)
        else:
            core.count_touched(evidence, window)
        return None
    core = make_core(evidence, window, run_id, parameters)
    if options.by_users:
        count_queries(evidence, window, evidence.view("log"), cap=options.cap)
    else:
        core.count_all(evidence, window)
    return core


def _window_before(
    evidence: Evidence,
    options: QueryOptions,
    window: Window,
    core: Core,
    last: tuple[dict[str, Any], list[list[int]]],
) -> Window | None:
    """The window of the last run, or None if everything has to be counted anew."""
    stored_options, state = last
    known_ids = {evidence_id for ids in state for evidence_id in ids}
    before = Window.up_to(date.fromisoformat(stored_options["as_of"]), stored_options["window_days"])
    decisive = options.as_json()
    del decisive["as_of"], decisive["window_days"]
    same_options = decisive.items() <= stored_options.items()
    all_count_still = known_ids <= evidence.ids("log")
    return before if same_options and all_count_still and core.fits(evidence, window, before) else None


def rank_queries(
    evidence: Evidence, options: QueryOptions, window: Window, parameters: Mapping[str, int]
) -> dict[str, int]:
    """Makes the table query_ranks of the table counted. Returns reason -> dropped queries of pins."""
    db = evidence.db
    all_queries, few_users = one(db, "SELECT count(*) FROM counted")[0], 0
    too_few, *_ = one(db, "SELECT count(*) FROM counted WHERE points = 0")
    if too_few:
        db.execute("DELETE FROM counted WHERE points = 0")
        all_queries -= too_few
    if options.min_users > 1:
        make(db, "query_users", window.parameters())  # of the view log, which has the rows that were counted
        db.execute(
            """DELETE FROM counted c WHERE NOT EXISTS (
                SELECT 1 FROM query_users u WHERE u.pin = c.pin AND u.query = c.query AND u.users >= $1)""",
            [options.min_users],
        )
        few_users = all_queries - one(db, "SELECT count(*) FROM counted")[0]
    make(db, "query_ranks", parameters)
    few, *_ = one(db, "SELECT count(*) FROM counted WHERE engagements < $1", [options.min_engagements])
    kept, *_ = one(db, "SELECT count(*) FROM query_ranks")
    return {
        TOO_FEW_TO_SHARE: too_few,
        FEW_USERS: few_users,
        FEW_ENGAGEMENTS: few,
        BEYOND_TOP: all_queries - few_users - few - kept,
    }


def ranked_queries(evidence: Evidence) -> Iterator[Iterable[PinRow]]:
    """Rows for the table `engaged_queries`, from query_ranks."""
    ranks = f"""SELECT r.pin, p.text AS pin_id, rank, r.text AS queries, r.engagements, score AS scores,
            first_day AS first_dates, last_day AS last_dates
        FROM query_ranks r
        JOIN {evidence.codes("pins")} p ON p.code = r.pin"""
    return sorted_ranks(evidence.db, "engaged_queries", ranks)


def _without_queries(evidence: Evidence) -> list[str]:
    """The pins in the table touched that have no queries any more."""
    rows = evidence.db.execute(f"""SELECT p.text FROM touched ANTI JOIN query_ranks USING (pin)
        JOIN {evidence.codes("pins")} p ON p.code = pin""")
    return [pin_id for (pin_id,) in rows.fetchall()]


def _ranking(
    evidence: Evidence, window: Window, weights: Mapping[str, int], dropped_queries: Mapping[str, int]
) -> QueryRanking:
    """What the ranking came to. Rows that were dropped are those of all that was ever read."""
    pins, queries, rows = one(
        evidence.db,
        """SELECT (SELECT count(DISTINCT pin) FROM counted), count(*), count(*) FILTER (rank = 1)
        FROM query_ranks""",
    )
    dropped, unweighted = Counter[str](), Counter[str]()
    weighted = {action_key(action) for action in weights}
    for counts in evidence.catalog.counts():
        dropped.update(counts.get("dropped", {}))
        for day, n in counts.get("kept", {}).items():
            if day <= str(window.after):
                dropped[BEFORE] += n
            elif day > str(window.as_of):
                dropped[AFTER] += n
        actions = counts.get("actions", {}).items()
        unweighted.update({action: n for action, n in actions if action_key(action) not in weighted})
    dropped.update(dropped_queries)
    dropped[NO_WEIGHT] = unweighted.total()
    return {
        "pins": pins,
        "rows_written": rows,
        "unknown_boards": 0,
        "dropped": {reason: n for reason, n in dropped.most_common() if n},
        "queries": queries,
        "as_of": str(window.as_of),
        "unweighted_actions": dict(unweighted.most_common(20)),
    }
