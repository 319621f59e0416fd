"""What people did after a day, as pairs that a trainer learns from: query and pin, query and query."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from typing import Any, Literal

import pyarrow as pa

from ..filters.as_of import Known, rank_queries_on
from ..filters.duck import one
from ..filters.evidence import Evidence, open_evidence
from ..filters.queries import last_query_options, newest_day, whole_weights
from ..store.pins import existing_pins

# Queries of a pin that are paired with one another. Without a bound, a popular pin alone has millions of
# pairs.
QUERIES_PER_PIN = 20
PAIRS = pa.schema(
    [
        ("query", pa.string()),
        ("pin_id", pa.string()),
        ("kind", pa.string()),
        ("action", pa.string()),
        ("weight", pa.float32()),
        ("date", pa.string()),
        ("split", pa.string()),
        ("in_features", pa.bool_()),
    ]
)
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
PairTable = Literal["pairs", "query_pairs"]
# table -> its columns, and those that tell its rows apart
_TABLES: dict[PairTable, tuple[pa.Schema, str]] = {
    "pairs": (PAIRS, "query, pin_id, action, date"),
    "query_pairs": (QUERY_PAIRS, "query, other_query, split"),
}


@dataclass(frozen=True)
class PairRows:
    """The rows of one split of a table of pairs. `read` gives them as Arrow tables, in shuffled order."""

    rows: int
    schema: pa.Schema
    read: Callable[[], Iterator[pa.Table]]


@dataclass(frozen=True)
class Engagements:
    """What people did after a day: {split: rows} of each table, without splits that have no rows."""

    tables: dict[PairTable, dict[str, PairRows]]
    dropped: dict[str, int]  # reason -> rows of the log, added up by day, that are in no pair


@contextmanager
def engagements_after(
    known: Known, *, test_from: date | None = None, seed: int = 0, memory_limit: str | None = None
) -> Iterator[Engagements]:
    """What people did after `known.day`, in an order that the seed decides. Read it within the context.

    A row of `pairs` is a query, a pin that existed on the day, an action that has a weight, and a day later
    than `known.day`. `in_features` says whether the query is among the engaged queries of the pin.
    A row of `query_pairs` is two queries that led to the same pins within one split. The split is "test" from
    the day `test_from` on, and "train" before.
    """
    options = last_query_options(known.conn)
    _, scale = whole_weights(options.weights)
    with open_evidence(known.conn, "queries", memory_limit, read_only=True) as evidence:
        evidence.check_files()
        rank_queries_on(evidence, options, known.day)
        _load_pins(evidence, known)
        _sum_by_day(evidence, known.day, test_from)
        outside, *_ = one(evidence.db, "SELECT count(*) FROM engagements ANTI JOIN pins USING (pin)")
        _make_pairs(evidence.db, scale)
        _make_query_pairs(evidence.db, scale)
        tables = {name: _splits(evidence.db, name, seed) for name in _TABLES}
        yield Engagements(tables, {"pin not in the features": outside} if outside else {})


def _load_pins(evidence: Evidence, known: Known) -> None:
    """Makes the table pins (pin, pin_id, kind): the pins that existed on the day and have evidence."""
    db = evidence.db
    db.execute("CREATE OR REPLACE TEMP TABLE all_pins (pin_id VARCHAR, kind VARCHAR)")
    for rows in existing_pins(known.conn, str(known.day)):
        some = pa.table({"pin_id": [row[0] for row in rows], "kind": [row[1] for row in rows]})
        db.from_arrow(some).insert_into("all_pins")
    db.execute(f"""CREATE OR REPLACE TEMP TABLE pins AS
        SELECT c.code AS pin, p.pin_id, p.kind
        FROM all_pins p JOIN {evidence.codes("pins")} c ON c.text = p.pin_id""")


def _sum_by_day(evidence: Evidence, day: date, test_from: date | None) -> None:
    """Makes the table engagements: what was done after the day, per pin, query, action and day."""
    split = "'train'"
    if test_from:
        split = f"CASE WHEN day >= DATE '{test_from}' THEN 'test' ELSE 'train' END"
    evidence.db.execute(f"""CREATE OR REPLACE TEMP TABLE engagements AS
        SELECT l.pin, l.query, l.action, l.day, sum(l.count * w.weight)::BIGINT AS points, {split} AS split
        FROM {evidence.view("log")} l
        JOIN weights w USING (action)
        WHERE l.query IS NOT NULL AND l.day > DATE '{day}' AND l.day <= DATE '{newest_day(evidence)}'
        GROUP BY ALL""")


def _make_pairs(db: Any, scale: int) -> None:
    """Makes the table pairs, of the columns of PAIRS."""
    db.execute(f"""CREATE OR REPLACE TEMP TABLE pairs AS
        SELECT q.text AS query, p.pin_id, p.kind, e.action, (e.points / {scale})::FLOAT AS weight,
            e.day::VARCHAR AS date, e.split, r.pin IS NOT NULL AS in_features
        FROM engagements e
        JOIN pins p USING (pin)
        JOIN queries q ON q.code = e.query
        LEFT JOIN query_ranks r ON r.pin = e.pin AND r.query = e.query""")


def _make_query_pairs(db: Any, scale: int) -> None:
    """Makes the table query_pairs, of the columns of QUERY_PAIRS."""
    db.execute(f"""CREATE OR REPLACE TEMP TABLE query_pairs AS
        WITH summed AS (
            SELECT e.pin, e.query, e.split, sum(e.points) AS points, min(e.day) AS day
            FROM engagements e
            SEMI JOIN pins USING (pin)
            GROUP BY ALL
        ),
        ranked AS (
            SELECT s.*, q.text,
                row_number() OVER (PARTITION BY pin, split ORDER BY points DESC, q.text) AS rank
            FROM summed s
            JOIN queries q ON q.code = s.query
        ),
        best AS (
            SELECT * FROM ranked WHERE rank <= {QUERIES_PER_PIN}
        )
        SELECT a.text AS query, b.text AS other_query,
            (sum(least(a.points, b.points)) / {scale})::FLOAT AS weight, count(*)::INTEGER AS pins,
            min(greatest(a.day, b.day))::VARCHAR AS date, a.split
        FROM best a
        JOIN best b ON a.pin = b.pin AND a.split = b.split AND a.text < b.text
        GROUP BY 1, 2, a.split""")


def _splits(db: Any, table: PairTable, seed: int) -> dict[str, PairRows]:
    """The rows of each split of a table that has any."""
    schema, key = _TABLES[table]
    shuffled = f"md5_number_lower(concat_ws(chr(0), '{seed}', {key})), {key}"
    splits = {}
    for split in ("train", "test"):
        rows, *_ = one(db, f"SELECT count(*) FROM {table} WHERE split = '{split}'")
        if rows:
            columns = ", ".join(schema.names)
            select = f"SELECT {columns} FROM {table} WHERE split = '{split}' ORDER BY {shuffled}"
            splits[split] = PairRows(rows, schema, functools.partial(_read, db, select))
    return splits


def _read(db: Any, select: str) -> Iterator[pa.Table]:
    for batch in db.sql(select).to_arrow_reader(100_000):
        yield pa.Table.from_batches([batch])
