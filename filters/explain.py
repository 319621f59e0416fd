"""Why a pin has its board titles and engaged queries: everything that was considered, with its numbers.

The SQL that ranks all pins runs here over the rows of one.
"""

from __future__ import annotations

from collections import defaultdict
from datetime import date
from typing import Any, NamedTuple, TypedDict, cast

from ..store import Connection, StoreError
from ..store.aggregates import last_run
from ..store.pins import has_pin
from .boards import BEYOND_TOP, FEW_BOARDS, BoardOptions, prepare_titles
from .duck import make, one
from .evidence import Evidence, open_evidence
from .queries import (
    AFTER,
    BEFORE,
    FEW_ENGAGEMENTS,
    FEW_USERS,
    NO_WEIGHT,
    TOO_FEW_TO_SHARE,
    QueryOptions,
    whole_weights,
)
from .query_window import Window, count_queries, prepare_counting

ALL = 2**31 - 1  # more than any pin has


class ExplainedTitle(TypedDict):
    """A board title that was considered for a pin."""

    title: str | None  # None where it is not kept at all, for instance because of personal data
    boards: int  # that hold the pin
    boards_with_title: int | None  # all boards of this title
    words: dict[str, int | None]  # word -> boards whose title has it
    idf: float | None
    score: float | None
    rank: int | None
    reason: str | None  # why it was dropped; None for what is kept


class ExplainedQuery(TypedDict):
    """A query that was considered for a pin."""

    query: str | None
    engagements: int
    actions: dict[str, int]  # action -> count
    users: int
    top_user: str | None  # the known user with the most engagements, those included that a bound leaves out
    top_user_engagements: int
    top_user_share: float  # of all engagements that have a weight
    first_date: str | None
    last_date: str | None
    score: float | None
    rank: int | None
    reason: str | None  # why it was dropped; None for what is kept


class ExplainedBoards(TypedDict):
    """All titles of a pin, and the options of the last aggregation."""

    options: dict[str, Any]
    outdated: bool  # sources were read since
    unknown_boards: int
    titles: list[ExplainedTitle]


class ExplainedQueries(TypedDict):
    """All queries of a pin, and the options of the last aggregation."""

    options: dict[str, Any]
    outdated: bool  # sources were read since
    queries: list[ExplainedQuery]


class Explanation(TypedDict):
    """What is known of a pin. `boards` and `queries` are None where nothing has been aggregated yet."""

    pin_id: str
    in_store: bool
    boards: ExplainedBoards | None
    queries: ExplainedQueries | None


def explain(conn: Connection, pin_id: str) -> Explanation:
    """All board titles and queries of a pin, kept or dropped, with the options of the last aggregations.

    Raises StoreError if nothing has been aggregated yet, or nothing is known of the pin.
    """
    if not last_run(conn, "boards") and not last_run(conn, "queries"):
        raise StoreError(
            "nothing has been aggregated yet:"
            " run `captioner aggregate boards` or `captioner aggregate queries` first"
        )
    boards, queries = _explain_boards(conn, pin_id), _explain_queries(conn, pin_id)
    in_store = has_pin(conn, pin_id)
    is_known = in_store or (boards and (boards["titles"] or boards["unknown_boards"]))
    if not is_known and not (queries and queries["queries"]):
        raise StoreError(f"no pin {pin_id!r}: neither in the store nor in what was aggregated")
    return {"pin_id": pin_id, "in_store": in_store, "boards": boards, "queries": queries}


def _explain_boards(conn: Connection, pin_id: str) -> ExplainedBoards | None:
    if not (last := last_run(conn, "boards")):
        return None
    stored, state = last
    with open_evidence(conn, "boards", read_only=True) as evidence:
        unknown, titles = _titles(evidence, stored, _code(evidence, pin_id))
        outdated = state != evidence.state()
    return {
        "options": {name: value for name, value in stored.items() if name != "generic_own"},
        "outdated": outdated,
        "unknown_boards": unknown,
        "titles": titles,
    }


def _explain_queries(conn: Connection, pin_id: str) -> ExplainedQueries | None:
    if not (last := last_run(conn, "queries")):
        return None
    stored, state = last
    with open_evidence(conn, "queries", read_only=True) as evidence:
        queries = _queries(evidence, stored, _code(evidence, pin_id))
        return {"options": stored, "outdated": state != evidence.state(), "queries": queries}


def _code(evidence: Evidence, pin_id: str) -> int:
    """The number of a pin in the codebook; -1 for a pin without evidence."""
    evidence.check_files()
    select = f"SELECT code FROM {evidence.codes('pins')} WHERE text = $1"
    rows = evidence.db.execute(select, [pin_id]).fetchall()
    return rows[0][0] if rows else -1


def _titles(evidence: Evidence, stored: dict[str, Any], pin: int) -> tuple[int, list[ExplainedTitle]]:
    """How many boards of the pin are not known, and its titles."""
    db = evidence.db
    options, generic = BoardOptions.from_json(stored)
    prepare_titles(evidence, options, generic)
    db.execute(f"""CREATE OR REPLACE TEMP TABLE saves AS
        SELECT DISTINCT pin, board FROM {evidence.view("saves")} WHERE pin = {pin}""")
    make(db, "board_counts")
    make(db, "board_ranks", {"top": ALL, "min_boards": 1})
    ranked = {
        title: (place, idf, score)
        for place, title, idf, score in db.execute(
            "SELECT rank, title, idf, score FROM board_ranks JOIN title_weights USING (place)"
        ).fetchall()
    }
    words = _boards_by_word(db)
    considered = db.execute("""
        SELECT c.title, coalesce(c.reason, t.reason) AS reason, count(*) AS boards,
            any_value(t.boards) AS all_boards
        FROM saves s
        JOIN current_boards c USING (board)
        LEFT JOIN titles t ON t.title = c.title
        GROUP BY 1, 2""").fetchall()
    considered.sort(key=lambda row: (ranked.get(row[0], (ALL,))[0], row[1] or "", row[0] or ""))
    titles: list[ExplainedTitle] = []
    kept = 0
    for title, reason, boards, all_boards in considered:
        _, idf, score = ranked.get(title, (ALL, None, None))
        reason = reason or (FEW_BOARDS if boards < options.min_boards else None)
        kept += reason is None
        reason = reason or (BEYOND_TOP if kept > options.top else None)
        titles.append(
            {
                "title": title,
                "boards": boards,
                "boards_with_title": all_boards,
                "words": {word: words.get(word) for word in (title or "").split()},
                "idf": _six_digits(idf),
                "score": _six_digits(score),
                "rank": None if reason else kept,
                "reason": reason,
            }
        )
    unknown, *_ = one(db, "SELECT count(*) FROM saves ANTI JOIN current_boards USING (board)")
    return unknown, titles


def _boards_by_word(db: Any) -> dict[str, int]:
    """Word -> boards whose title has it, for the words of the pin's titles."""
    rows = db.execute("""
        WITH word_of_pin AS (
            SELECT DISTINCT unnest(string_split(title, ' ')) AS word
            FROM current_boards
            JOIN saves USING (board)
            WHERE title IS NOT NULL
        ),
        word AS (
            SELECT DISTINCT title, boards, unnest(string_split(title, ' ')) AS word
            FROM titles
            WHERE reason IS NULL
        )
        SELECT word, sum(boards)::BIGINT FROM word SEMI JOIN word_of_pin USING (word) GROUP BY 1""")
    return dict(rows.fetchall())


_WITHOUT_SCORE = "SELECT text FROM counted c JOIN queries q ON q.code = c.query WHERE points = 0"
_TOP_USERS = """
    SELECT q.text, coalesce(user_id, '') AS person, sum(count)::BIGINT AS n,
        n / sum(sum(count)) OVER (PARTITION BY q.text) AS share
    FROM log l JOIN weights USING (action) JOIN queries q ON q.code = l.query
    WHERE day > $after AND day <= $as_of
    GROUP BY q.text, person
    QUALIFY row_number() OVER (PARTITION BY q.text ORDER BY person = '', n DESC, person) = 1"""


class _Counts(NamedTuple):
    """What was counted for a query within the window."""

    engagements: int
    score: float
    first_day: date
    last_day: date
    rank: int


def _queries(evidence: Evidence, stored: dict[str, Any], pin: int) -> list[ExplainedQuery]:
    db = evidence.db
    options = QueryOptions.from_json(stored)
    weights, scale = whole_weights(options.weights)
    window = Window.up_to(cast(date, options.as_of), options.window_days)
    rows = f"(SELECT * FROM {evidence.view('log')} WHERE pin = {pin})"
    prepare_counting(evidence, weights)
    count_queries(evidence, window, rows, cap=options.cap)
    without_score = {text for (text,) in db.execute(_WITHOUT_SCORE).fetchall()}
    db.execute("DELETE FROM counted WHERE points = 0")
    make(db, "query_users", window.parameters())
    make(db, "query_ranks", {"top": ALL, "min_engagements": 1, "scale": scale})
    select = "SELECT text, engagements, score, first_day, last_day, rank FROM query_ranks"
    counted = {text: _Counts(*row) for text, *row in db.execute(select).fetchall()}
    select = "SELECT q.text, users FROM query_users u JOIN queries q ON q.code = u.query"
    users: dict[str | None, int] = dict(db.execute(select).fetchall())
    top_users = {
        text: (user, n, round(share, 4))
        for text, user, n, share in db.execute(_TOP_USERS, window.parameters()).fetchall()
        if user
    }
    actions, reasons = _rows_of_pin(evidence, rows, window)

    def order(key: tuple[str | None, str | None]) -> tuple[int, str, str]:
        text, reason = key
        return (counted[text].rank if text in counted else ALL, text or "", reason or "")

    queries: list[ExplainedQuery] = []
    kept = 0
    for text, dropped in sorted(reasons, key=order):
        counts = counted.get(text)
        reason: str | None
        if counts:
            reason = None
            if counts.engagements < options.min_engagements:
                reason = FEW_ENGAGEMENTS
            elif options.min_users > 1 and users.get(text, 0) < options.min_users:
                reason = FEW_USERS
            kept += reason is None
            reason = reason or (BEYOND_TOP if kept > options.top else None)
        elif text in without_score and not dropped:
            reason = TOO_FEW_TO_SHARE
        else:
            reason = reasons[text, dropped]
        top_user, top_user_engagements, top_user_share = top_users.get(text, (None, 0, 0.0))
        queries.append(
            {
                "query": text,
                "engagements": counts.engagements if counts else 0,
                "actions": actions[text, dropped],
                "users": users.get(text, 0),
                "top_user": top_user,
                "top_user_engagements": top_user_engagements,
                "top_user_share": top_user_share,
                "first_date": str(counts.first_day) if counts else None,
                "last_date": str(counts.last_day) if counts else None,
                "score": _six_digits(counts.score) if counts else None,
                "rank": None if reason else kept,
                "reason": reason,
            }
        )
    return queries


def _rows_of_pin(
    evidence: Evidence, rows: str, window: Window
) -> tuple[dict[Any, dict[str, int]], dict[Any, str]]:
    """Counts by action, and why no row counts; both by (query, reason why its text was dropped)."""
    actions: dict[Any, dict[str, int]] = defaultdict(dict)
    reasons: dict[Any, str] = {}
    rows_by_time = evidence.db.execute(
        f"""SELECT q.text, l.reason, l.action,
            CASE WHEN l.day <= $after THEN '{BEFORE}' WHEN l.day > $as_of THEN '{AFTER}' ELSE '' END
                AS outside,
            sum(l.count)::BIGINT
        FROM {rows} l
        LEFT JOIN queries q ON q.code = l.query
        GROUP BY ALL
        ORDER BY ALL""",
        window.parameters(),
    )
    for text, dropped, action, outside, n in rows_by_time.fetchall():
        key = (text, dropped)
        if not outside:
            actions[key][action] = n
        reasons[key] = dropped or (NO_WEIGHT if not outside else reasons.get(key, outside))
    return actions, reasons


def _six_digits(number: float | None) -> float | None:
    """A number as scores are stored."""
    return None if number is None else float(f"{number:.6g}")
