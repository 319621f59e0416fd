"""Board titles and engaged queries as they were known on an earlier day.

Everything is counted anew from what `aggregate` has read, so that nothing of a later day can reach a feature.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date
from typing import Literal

from ..common.terminal import plural
from ..store import Connection, StoreError
from ..store.aggregates import last_run
from ..store.pins import count_created_after
from ..store.ranks import temporary_ranks, write_ranks
from .boards import BoardOptions, rank_boards, ranked_titles
from .duck import one
from .evidence import Evidence, open_evidence
from .queries import (
    QueryOptions,
    last_query_options,
    rank_queries,
    ranked_queries,
    ranking_parameters,
    whole_weights,
)
from .query_window import Window, count_queries, prepare_counting

Undated = Literal["refuse", "include", "drop"]


@dataclass(frozen=True)
class Known:
    """What was known on `day`: the tables board_titles and engaged_queries, as `conn` sees them."""

    conn: Connection
    day: date
    # "pins_made_later": pins that were created after the day, which count as unknown. "saves_without_date":
    # saves without one, whether they were included or dropped; it is missing if there are no board titles.
    left_out: dict[str, int] = field(default_factory=dict)


@contextmanager
def known_on(
    conn: Connection, day: date, *, undated: Undated = "refuse", memory_limit: str | None = None
) -> Iterator[Known]:
    """Within it, `conn` sees board titles and engaged queries as they were known at the end of `day`.

    They are ranked with the options of the last aggregation. They stand in temporary tables under the names
    of the real ones, for this connection only. Call it within a transaction and `hold_evidence`: everything
    is then of one moment, whoever ingests or aggregates meanwhile.

    `undated` says what becomes of saves without a date: they are refused, included as if they had been known,
    or dropped. A board without a date counts from its first save on; with "include", it was always known.
    Raises StoreError.
    """
    with temporary_ranks(conn):
        known = Known(conn, day)
        if last := last_run(conn, "boards"):
            options, generic = BoardOptions.from_json(last[0])
            with open_evidence(conn, "boards", memory_limit, read_only=True) as evidence:
                evidence.check_files()
                known.left_out["saves_without_date"] = _keep_known(evidence, day, undated)
                rank_boards(evidence, options, generic, boards="known_boards", saves="known_saves")
                write_ranks(conn, "board_titles", ranked_titles(evidence))
        if last_run(conn, "queries"):
            with open_evidence(conn, "queries", memory_limit, read_only=True) as evidence:
                evidence.check_files()
                rank_queries_on(evidence, last_query_options(conn), day)
                write_ranks(conn, "engaged_queries", ranked_queries(evidence))
        known.left_out["pins_made_later"] = count_created_after(conn, str(day))
        yield known


def _keep_known(evidence: Evidence, day: date, undated: Undated) -> int:
    """Makes the tables known_saves and known_boards. Returns how many saves have no date.

    Raises StoreError.
    """
    db, saves, boards = evidence.db, evidence.view("saves"), evidence.view("boards")
    without, all_saves = one(db, f"SELECT count(*) FILTER (day IS NULL), count(*) FROM {saves}")
    if without and undated == "refuse":
        raise StoreError(
            f"no saved_at for {without:,} of {plural(all_saves, 'save')}, so it is not known what existed on"
            f" {day}: --undated drop leaves such saves out, --undated include takes them all as known (what"
            " came later then reaches the features)"
        )
    known_save = known_board = f"day <= DATE '{day}'"
    if undated == "include":
        known_save += " OR day IS NULL"
        known_board += " OR day IS NULL"
    else:
        known_board += " OR (day IS NULL AND board IN (SELECT board FROM known_saves))"
    db.execute(f"CREATE OR REPLACE TEMP TABLE known_saves AS SELECT * FROM {saves} WHERE {known_save}")
    db.execute(f"CREATE OR REPLACE TEMP TABLE known_boards AS SELECT * FROM {boards} WHERE {known_board}")
    return int(without)


def rank_queries_on(evidence: Evidence, options: QueryOptions, day: date) -> None:
    """Makes the table query_ranks as it was on `day`, and the view queries and the table weights."""
    weights, scale = whole_weights(options.weights)
    window = Window.up_to(day, options.window_days)
    prepare_counting(evidence, weights)
    count_queries(evidence, window, evidence.view("log"), cap=options.cap)
    rank_queries(evidence, options, window, ranking_parameters(options, scale))
