"""Board titles and engaged queries as they were known on an earlier day, and what people did after it:
features and targets of a trainer.

Everything is counted anew from the partials, so that nothing of a later day can reach a feature. The results
stand in tables of the connection's own (SQLite's temp), under the names of the real ones: who reads those by
this connection reads what was known then.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date
from typing import Any, Literal

import pyarrow as pa

from ..store.aggregates import last_run
from ..store.connection import StoreError
from ..store.ranks import TABLES, sorted_ranks, write_ranks
from .boards import BoardOptions, generic_titles, rank_boards
from .duck import one
from .evidence import Evidence, open_evidence
from .queries import QueryOptions, newest_day, rank_queries, whole_weights
from .window import Window, count_rows, prepare

QUERIES_PER_PIN = 20  # whose pairs among one another are given: without a bound a popular pin has millions
PAIRS = pa.schema([("query", pa.string()), ("pin_id", pa.string()), ("kind", pa.string()), ("action", pa.string()), ("weight", pa.float32()), ("date", pa.string()), ("split", pa.string()),
                   ("in_features", pa.bool_())])  # fmt: skip
QUERY_PAIRS = pa.schema(
    [
        ("query", pa.string()),
        ("other_query", pa.string()),
        ("weight", pa.float32()),
        ("pins", pa.int32()),
        ("date", pa.string()),
        ("split", pa.string()),
    ]
)

Undated = Literal["refuse", "include", "drop"]


@dataclass
class Known:
    """What was known on `day`; the counts go into the manifest."""

    conn: sqlite3.Connection
    day: date
    counts: dict[str, Any] = field(default_factory=dict)


@contextmanager
def known_on(
    conn: sqlite3.Connection, day: date, *, undated: Undated = "refuse", memory_limit: str | None = None
) -> Iterator[Known]:
    """Titles and queries as they were on `day` (included), ranked with the options of the last aggregation;
    pins that were made later are left out.

    Within the caller's transaction and `hold_evidence`: all is then of one moment, whoever ingests or
    aggregates meanwhile.

    `undated`: saves without a date are refused, taken as known, or dropped. Boards without one count from
    their first save on; with "include" from ever. Raises StoreError.
    """
    for table, columns in TABLES.items():
        conn.execute(f"DROP TABLE IF EXISTS temp.{table}")
        conn.execute(
            f"CREATE TEMP TABLE {table} (pin_id TEXT PRIMARY KEY NOT NULL, {', '.join(f'{name} TEXT NOT NULL' for name in columns)})"
        )
    try:
        known = Known(conn, day)
        if last_run(conn, "boards"):
            _titles(known, undated, memory_limit)
        if last_run(conn, "queries"):
            _queries(known, memory_limit)
        known.counts["pins_made_later"] = conn.execute(
            "SELECT count(*) FROM pins WHERE deleted_at IS NULL AND substr(created_at, 1, 10) > ?", [str(day)]
        ).fetchone()[0]
        yield known
    finally:
        for table in TABLES:
            conn.execute(f"DROP TABLE IF EXISTS temp.{table}")


def _titles(known: Known, undated: Undated, memory_limit: str | None) -> None:
    stated, _ = last_run(known.conn, "boards") or ({}, [])
    options = BoardOptions(
        **{
            name: stated[name]
            for name in BoardOptions.__dataclass_fields__
            if name in stated and name != "generic_titles"
        }
    )
    generic = frozenset(stated["generic_own"]) if stated.get("generic_own") else generic_titles()
    with open_evidence(known.conn, "boards", memory_limit) as evidence:
        evidence.check_files()
        saves, boards = evidence.view("saves"), evidence.view("boards")
        without, all_saves = one(evidence.db, f"SELECT count(*) FILTER (day IS NULL), count(*) FROM {saves}")
        if without and undated == "refuse":
            raise StoreError(
                f"{without:,} of {all_saves:,} saves have no saved_at, so it is not known which there were on {known.day}:"
                " --undated drop leaves them out, --undated include takes them all as known (what is later then reaches the features)"
            )
        any_day = " OR day IS NULL" if undated == "include" else ""
        evidence.db.execute(
            f"CREATE OR REPLACE TEMP TABLE saves_then AS SELECT * FROM {saves} WHERE day <= DATE '{known.day}'{any_day}"
        )
        of_saves = any_day or " OR (day IS NULL AND board IN (SELECT board FROM saves_then))"
        evidence.db.execute(
            f"CREATE OR REPLACE TEMP TABLE boards_then AS SELECT * FROM {boards} WHERE day <= DATE '{known.day}'{of_saves}"
        )
        rank_boards(evidence, options, generic, boards="boards_then", saves="saves_then")
        ranks = "SELECT r.pin, p.text AS pin_id, rank, w.title AS titles, r.boards, score AS scores FROM board_ranks r JOIN title_weights w USING (place)"
        _write(
            known,
            evidence,
            "board_titles",
            f"{ranks} JOIN {evidence.codes('pins')} p ON p.code = r.pin",
            ("text", "number", "score"),
        )
        known.counts["saves_without_date"] = without


def _queries(known: Known, memory_limit: str | None) -> None:
    options = last_options(known.conn)
    with open_evidence(known.conn, "queries", memory_limit) as evidence:
        evidence.check_files()
        _rank_then(evidence, options, known.day)
        ranks = "SELECT r.pin, p.text AS pin_id, rank, r.text AS queries, r.engagements, score AS scores, first_day AS first_dates, last_day AS last_dates"
        ranks += f" FROM query_ranks r JOIN {evidence.codes('pins')} p ON p.code = r.pin"
        _write(known, evidence, "engaged_queries", ranks, ("text", "number", "score", "day", "day"))


def last_options(conn: sqlite3.Connection) -> QueryOptions:
    """The options with which engaged queries were last ranked, or the defaults."""
    stated, _ = last_run(conn, "queries") or ({}, [])
    return QueryOptions(
        **{
            name: stated[name]
            for name in QueryOptions.__dataclass_fields__
            if name in stated and name != "as_of"
        }
    )


def _rank_then(evidence: Evidence, options: QueryOptions, day: date) -> None:
    """Makes query_ranks as it was on `day`."""
    weights, scale = whole_weights(options.weights)
    window = Window.up_to(day, options.window_days)
    prepare(evidence, weights)
    count_rows(evidence, window, evidence.view("log"), name="counted")
    rank_queries(
        evidence,
        options,
        window,
        {"top": options.top, "min_engagements": options.min_engagements, "scale": scale},
    )


def _write(known: Known, evidence: Evidence, table: str, ranks: str, kinds: tuple[str, ...]) -> None:
    rows = sorted_ranks(evidence.db, table, ranks, kinds)
    # into the temporary table alone: nobody else waits
    write_ranks(known.conn, table, rows, lambda done: None)


@contextmanager
def engagements_after(
    known: Known, *, test_from: date | None, seed: int, memory_limit: str | None = None
) -> Iterator[dict[str, Any]]:
    """What people did after the day: {"pairs": {split: (rows, Arrow reader)}, "query_pairs": the same,
    "dropped": {reason: rows}}, in an order that the seed decides.

    A pair is a query, a pin that there was on the day, an action that has a weight, and a day; `in_features`
    says whether the query stands among the pin's engaged queries. A pair of queries led to the same pins,
    within one split. The readers hold as long as the context.
    """
    options = last_options(known.conn)
    with open_evidence(known.conn, "queries", memory_limit) as evidence:
        evidence.check_files()
        db = evidence.db
        _rank_then(evidence, options, known.day)
        db.execute("CREATE OR REPLACE TEMP TABLE pins (pin_id VARCHAR, kind VARCHAR)")
        cursor = known.conn.execute(
            "SELECT pin_id, kind FROM pins WHERE deleted_at IS NULL AND (created_at IS NULL OR substr(created_at, 1, 10) <= ?)",
            [str(known.day)],
        )
        while rows := cursor.fetchmany(100_000):
            some = pa.table({"pin_id": [row[0] for row in rows], "kind": [row[1] for row in rows]})
            db.from_arrow(some).insert_into("pins")
        split = (
            f"CASE WHEN day >= DATE '{test_from}' THEN 'test' ELSE 'train' END" if test_from else "'train'"
        )
        _, scale = whole_weights(options.weights)
        db.execute(f"""CREATE OR REPLACE TEMP TABLE acts AS
            SELECT l.pin, l.query, l.action, l.day, sum(l.count * w.weight)::BIGINT AS points, {split} AS split
            FROM {evidence.view("log")} l JOIN weights w USING (action)
            WHERE l.query IS NOT NULL AND l.day > DATE '{known.day}' AND l.day <= DATE '{newest_day(evidence)}' GROUP BY ALL""")
        db.execute(
            f"""CREATE OR REPLACE TEMP TABLE then_pins AS SELECT c.code AS pin, p.pin_id, p.kind FROM pins p JOIN {evidence.codes("pins")} c ON c.text = p.pin_id"""
        )
        # sums by day, as the pairs are
        outside, *_ = one(db, "SELECT count(*) FROM acts ANTI JOIN then_pins USING (pin)")
        db.execute(f"""CREATE OR REPLACE TEMP TABLE pairs AS
            SELECT q.text AS query, p.pin_id, p.kind, a.action, (a.points / {scale})::FLOAT AS weight, a.day::VARCHAR AS date, a.split, r.pin IS NOT NULL AS in_features
            FROM acts a JOIN then_pins p USING (pin) JOIN queries q ON q.code = a.query LEFT JOIN query_ranks r ON r.pin = a.pin AND r.query = a.query""")
        db.execute(f"""CREATE OR REPLACE TEMP TABLE query_pairs AS
            WITH summed AS (SELECT a.pin, a.query, a.split, sum(a.points) AS points, min(a.day) AS day FROM acts a SEMI JOIN then_pins USING (pin) GROUP BY ALL),
            named AS (SELECT s.*, q.text, row_number() OVER (PARTITION BY pin, split ORDER BY points DESC, q.text) AS rank FROM summed s JOIN queries q ON q.code = s.query),
            best AS (SELECT * FROM named WHERE rank <= {QUERIES_PER_PIN})
            SELECT a.text AS query, b.text AS other_query, (sum(least(a.points, b.points)) / {scale})::FLOAT AS weight, count(*)::INTEGER AS pins, min(greatest(a.day, b.day))::VARCHAR AS date, a.split
            FROM best a JOIN best b ON a.pin = b.pin AND a.split = b.split AND a.text < b.text GROUP BY 1, 2, a.split""")
        found: dict[str, Any] = {"dropped": {"pin not in the features": outside} if outside else {}}
        for name, schema, key in (
            ("pairs", PAIRS, "query, pin_id, action, date"),
            ("query_pairs", QUERY_PAIRS, "query, other_query, split"),
        ):
            found[name] = {}
            for of in ("train", "test"):
                n, *_ = one(db, f"SELECT count(*) FROM {name} WHERE split = '{of}'")
                if n:
                    shuffled = f"SELECT {', '.join(schema.names)} FROM {name} WHERE split = '{of}' ORDER BY md5_number_lower(concat_ws(chr(0), '{seed}', {key})), {key}"
                    found[name][of] = (
                        n,
                        schema,
                        lambda sql=shuffled: map(_table, db.sql(sql).to_arrow_reader(100_000)),
                    )
        yield found


def _table(batch: pa.RecordBatch) -> pa.Table:
    return pa.Table.from_batches([batch])
