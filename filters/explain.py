"""Why a pin has the titles and queries that it has: everything that was considered for it, with the numbers
behind each decision.

The same SQL as for all pins runs over the rows of this one.
"""

from __future__ import annotations

import sqlite3
from collections import defaultdict
from datetime import date
from typing import Any

from ..store.aggregates import last_run
from ..store.connection import StoreError
from .boards import BEYOND_TOP, FEW_BOARDS, BoardOptions, generic_titles, prepare_titles
from .duck import make
from .evidence import Evidence, open_evidence
from .queries import AFTER, BEFORE, FEW_ENGAGEMENTS, FEW_USERS, NO_WEIGHT, whole_weights
from .window import Window, count_rows, prepare

ALL = 2**31 - 1


def explain(conn: sqlite3.Connection, pin_id: str) -> dict[str, Any]:
    """All titles and queries of a pin, kept or dropped, by the options of the last aggregations.

    {"pin_id", "in_store", "boards": None or {"options", "outdated", "unknown_boards", "titles": [{"title",
    "boards", "boards_with_title", "words": {word: boards}, "idf", "score", "rank", "reason"}]}, "queries":
    None or {"options", "outdated", "queries": [{"query", "engagements", "actions", "users", "first_date",
    "last_date", "score", "rank", "reason"}]}}. `reason` is None for what is kept; `outdated` says that rows
    were read since. Raises StoreError.
    """
    last = {name: last_run(conn, name) for name in ("boards", "queries")}
    if not any(last.values()):
        raise StoreError(
            "nothing has been aggregated yet: run `captioner aggregate boards` or `captioner aggregate queries` first"
        )
    in_store = conn.execute("SELECT 1 FROM pins WHERE pin_id = ?", [pin_id]).fetchone() is not None
    found: dict[str, Any] = {"pin_id": pin_id, "in_store": in_store, "boards": None, "queries": None}
    for name, part in (("boards", _titles), ("queries", _queries)):
        if then := last[name]:
            options, state = then
            with open_evidence(conn, name) as evidence:
                evidence.check_files()
                code = evidence.db.execute(
                    f"SELECT code FROM {evidence.codes('pins')} WHERE text = $1", [pin_id]
                ).fetchall()
                found[name] = {
                    "options": {key: value for key, value in options.items() if key != "generic_own"},
                    "outdated": state != evidence.state(),
                } | part(evidence, options, code[0][0] if code else -1)
    if not in_store and not any(
        found[name] and any(value for key, value in found[name].items() if key not in ("options", "outdated"))
        for name in ("boards", "queries")
    ):
        raise StoreError(f"no pin {pin_id!r}: neither in the store nor in what was aggregated")
    return found


def _titles(evidence: Evidence, options: dict[str, Any], pin: int) -> dict[str, Any]:
    db = evidence.db
    chosen = BoardOptions(
        **{name: value for name, value in options.items() if name not in ("generic_own", "generic_digest")}
    )
    own = options["generic_own"]
    prepare_titles(evidence, chosen, generic_titles() if own is None else frozenset(own))
    db.execute(
        f"CREATE OR REPLACE TEMP TABLE saves AS SELECT DISTINCT pin, board FROM {evidence.view('saves')} WHERE pin = {pin}"
    )
    make(db, "board_counts")
    make(db, "board_ranks", {"top": ALL, "min_boards": 1})
    ranks = {
        title: (idf, score)
        for title, idf, score in db.execute(
            "SELECT title, idf, score FROM board_ranks JOIN title_weights USING (place)"
        ).fetchall()
    }
    order = {
        title: i
        for i, title in enumerate(
            title
            for (title,) in db.execute(
                "SELECT title FROM board_ranks JOIN title_weights USING (place) ORDER BY rank"
            ).fetchall()
        )
    }
    words = _prevalence(db)
    considered = db.execute(
        """SELECT c.title, coalesce(c.reason, t.reason) AS reason, count(*) AS boards, any_value(t.boards) AS all_boards
        FROM saves s JOIN current_boards c USING (board) LEFT JOIN titles t ON t.title = c.title GROUP BY 1, 2"""
    ).fetchall()
    unknown = db.execute("SELECT count(*) FROM saves ANTI JOIN current_boards USING (board)").fetchall()[0][0]
    found, rank = [], 0
    for title, reason, boards, all_boards in sorted(
        considered, key=lambda row: (order.get(row[0], ALL), row[1] or "", row[0] or "")
    ):
        idf, score = ranks.get(title, (None, None))
        reason = reason or (FEW_BOARDS if boards < chosen.min_boards else None)
        rank += reason is None
        reason = reason or (BEYOND_TOP if rank > chosen.top else None)
        found.append(
            {
                "title": title,
                "boards": boards,
                "boards_with_title": all_boards,
                "words": {word: words.get(word) for word in dict.fromkeys((title or "").split())},
            }
            | {"idf": _short(idf), "score": _short(score), "rank": None if reason else rank, "reason": reason}
        )
    return {"unknown_boards": unknown, "titles": found}


def _prevalence(db: Any) -> dict[str, int]:
    """On how many boards the words of this pin's titles are."""
    rows = db.execute(
        """WITH mine AS (SELECT DISTINCT unnest(string_split(title, ' ')) AS word FROM current_boards JOIN saves USING (board) WHERE title IS NOT NULL),
        word AS (SELECT DISTINCT title, boards, unnest(string_split(title, ' ')) AS word FROM titles WHERE reason IS NULL)
        SELECT word, sum(boards)::BIGINT FROM word SEMI JOIN mine USING (word) GROUP BY 1"""
    ).fetchall()
    return dict(rows)


def _queries(evidence: Evidence, options: dict[str, Any], pin: int) -> dict[str, Any]:
    db = evidence.db
    weights, scale = whole_weights(options["weights"])
    as_of = date.fromisoformat(options["as_of"])
    window = Window.up_to(as_of, options["window_days"])
    rows = f"(SELECT * FROM {evidence.view('log')} WHERE pin = {pin})"
    prepare(evidence, weights)
    count_rows(evidence, window, rows, name="counted")
    make(db, "query_users", window.parameters())
    make(db, "query_ranks", {"top": ALL, "min_engagements": 1, "scale": scale})
    counted = {
        text: row
        for text, *row in db.execute(
            "SELECT text, engagements, score, first_day, last_day, rank FROM query_ranks"
        ).fetchall()
    }
    users = dict(
        db.execute("SELECT q.text, users FROM query_users u JOIN queries q ON q.code = u.query").fetchall()
    )
    actions: dict[Any, dict[str, int]] = defaultdict(dict)
    why: dict[Any, str] = {}
    for text, reason, action, place, n in db.execute(
        f"""SELECT q.text, l.reason, l.action, CASE WHEN l.day <= $after THEN '{BEFORE}' WHEN l.day > $as_of THEN '{AFTER}' ELSE '' END, sum(l.count)::BIGINT
        FROM {rows} l LEFT JOIN queries q ON q.code = l.query GROUP BY ALL ORDER BY ALL""",
        window.parameters(),
    ).fetchall():
        key = (text, reason)
        if not place:
            actions[key][action] = n
        why[key] = reason or (NO_WEIGHT if not place else why.get(key, place))
    found, rank = [], 0
    for text, reason in sorted(
        why, key=lambda key: (counted[key[0]][-1] if key[0] in counted else ALL, key[0] or "", key[1] or "")
    ):
        engagements, score, first, last, _ = counted.get(text, (0, None, None, None, ALL))
        if text in counted:
            few_users = (
                FEW_USERS if options["min_users"] > 1 and users.get(text, 0) < options["min_users"] else None
            )
            reason = FEW_ENGAGEMENTS if engagements < options["min_engagements"] else few_users
            rank += reason is None
            reason = reason or (BEYOND_TOP if rank > options["top"] else None)
        else:
            reason = why[text, reason]
        found.append(
            {
                "query": text,
                "engagements": engagements,
                "actions": actions[text, None if text else reason],
                "users": users.get(text, 0),
            }
            | {
                "first_date": first and str(first),
                "last_date": last and str(last),
                "score": _short(score),
                "rank": None if reason else rank,
                "reason": reason,
            }
        )
    return {"queries": found}


def _short(number: float | None) -> float | None:
    return None if number is None else float(f"{number:.6g}")
