"""Board titles: under which titles people filed a pin, best first.

The formulas are in sql/, explained in docs/aggregate.md.
"""

from __future__ import annotations

import hashlib
import math
import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

from ..common.terminal import OnStep
from ..sources.locations import absolute
from ..store.aggregates import done_before, pins_not_in_store, remember
from ..store.connection import StoreError, transaction
from ..store.ranks import sorted_ranks, write_ranks
from ..store.runs import finish_run, start_run
from .duck import make, one
from .evidence import Evidence, open_evidence
from .text import normalise

SHARES_COUNT_FROM = 1000  # boards: with fewer, a share says nothing about a title
FEW_BOARDS, BEYOND_TOP = "on fewer boards than --min-boards", "beyond --top"


@dataclass(frozen=True)
class BoardOptions:
    """What decides which titles are kept; the defaults are those of the paper where it states one (top 10)."""

    top: int = 10
    min_boards: int = 1
    max_board_share: float = 0.02
    min_chars: int = 2
    max_chars: int = 60
    max_words: int = 10
    # a text file, a title a line; None: generic_titles.txt beside this file
    generic_titles: str | Path | None = None

    def stated(self, generic: frozenset[str]) -> dict[str, Any]:
        """As JSON has it, with a digest of the titles that say nothing."""
        path = self.generic_titles and absolute(self.generic_titles)
        own = sorted(generic) if path else None  # kept, as the file may be another tomorrow
        return asdict(self) | {
            "generic_titles": path,
            "generic_own": own,
            "generic_digest": hashlib.sha256("\n".join(sorted(generic)).encode()).hexdigest()[:16],
        }


def aggregate_boards(
    conn: sqlite3.Connection,
    *,
    boards: Sequence[str] = (),
    saves: Sequence[str] = (),
    options: BoardOptions = BoardOptions(),
    columns: Mapping[str, str] | None = None,
    memory_limit: str | None = None,
    rebuild: bool = False,
    on_step: OnStep = lambda what, done, total: None,
) -> dict[str, Any]:
    """Takes in what is new in tables of boards and saves, and writes `board_titles` as one run over
    everything read so far would.

    Returns {"rows_read", "pins", "rows_written", "unknown_boards", "dropped": {reason: n}, "titles",
    "pins_not_in_store", "sources", "unchanged", "rejected"}: `pins` were ranked anew, `dropped` counts boards
    by why their title was, and titles of pins. Raises SourceError, StoreError.
    """
    generic = generic_titles(options.generic_titles)
    stated = options.stated(generic)
    arguments = {
        "boards": list(boards),
        "saves": list(saves),
        "map": dict(columns or {}),
        "rebuild": rebuild,
    } | stated
    with open_evidence(conn, "boards", memory_limit) as evidence:
        if not rebuild:
            evidence.check_files()
        run_id = start_run(conn, "aggregate boards", arguments)
        read = evidence.read(
            {"boards": boards, "saves": saves},
            columns or {},
            run_id,
            rebuild=rebuild,
            on_source=lambda done, of: on_step("reading", done, of),
        )
        state = evidence.state()
        if not any(state):
            raise StoreError("no boards and no saves have been read yet: name them with --boards and --saves")
        counts = done_before(conn, "boards", stated, state)
        if counts:
            counts |= {"pins": 0, "rows_written": 0}
        else:
            on_step("ranking", 0, None)
            counts = rank_boards(evidence, options, generic)
            ranks = "SELECT r.pin, p.text AS pin_id, rank, w.title AS titles, r.boards, score AS scores FROM board_ranks r JOIN title_weights w USING (place)"
            ranks += f" JOIN {evidence.codes('pins')} p ON p.code = r.pin"
            rows, pins = (
                sorted_ranks(evidence.db, "board_titles", ranks, ("text", "number", "score")),
                counts["rows_written"],
            )
            on_step("writing", 0, pins)
            with transaction(conn):
                conn.execute("DELETE FROM board_titles")
                write_ranks(conn, "board_titles", rows, lambda done: on_step("writing", done, pins))
                remember(conn, "boards", stated, state, counts, run_id)
    counts = (
        read
        | counts
        | {"rows_read": read["rows_read"], "pins_not_in_store": pins_not_in_store(conn, "board_titles")}
    )
    finish_run(conn, run_id, counts)
    return counts


def rank_boards(
    evidence: Evidence,
    options: BoardOptions,
    generic: frozenset[str],
    *,
    boards: str | None = None,
    saves: str | None = None,
) -> dict[str, Any]:
    """Makes the table board_ranks and all it is made of; `boards` and `saves` name tables of the rows that
    count, if not all do. Returns the counts.
    """
    db = evidence.db
    prepare_titles(evidence, options, generic, boards)
    db.execute(f"CREATE OR REPLACE TEMP VIEW saves AS SELECT * FROM {saves or evidence.view('saves')}")
    make(db, "board_counts")
    make(db, "board_ranks", {"top": options.top, "min_boards": options.min_boards})
    unknown, *_ = one(
        db,
        "SELECT count(*) FROM (SELECT DISTINCT pin, board FROM saves ANTI JOIN current_boards USING (board))",
    )
    of_boards = "SELECT reason, sum(boards) FROM (SELECT reason, boards FROM titles UNION ALL SELECT reason, 1 FROM current_boards) WHERE reason IS NOT NULL GROUP BY 1"
    dropped = {reason: int(n) for reason, n in db.execute(of_boards).fetchall()}
    pins, few, enough = one(
        db,
        "SELECT count(DISTINCT pin), count(*) FILTER (boards < $1), count(*) FILTER (boards >= $1) FROM board_counts",
        [options.min_boards],
    )
    titles, rows = one(db, "SELECT count(*), count(*) FILTER (rank = 1) FROM board_ranks")
    dropped |= {reason: n for reason, n in ((FEW_BOARDS, few), (BEYOND_TOP, enough - titles)) if n}
    dropped = dict(sorted(dropped.items(), key=lambda item: -item[1]))
    return {
        "pins": pins,
        "rows_written": rows,
        "unknown_boards": unknown,
        "dropped": dropped,
        "titles": titles,
    }


def prepare_titles(
    evidence: Evidence, options: BoardOptions, generic: frozenset[str], boards: str | None = None
) -> None:
    """The tables current_boards, titles, title_weights and title_of (board, place): everything that depends
    on boards alone.
    """
    db = evidence.db
    db.execute(f"CREATE OR REPLACE TEMP VIEW board_rows AS SELECT * FROM {boards or evidence.view('boards')}")
    make(db, "current_boards")
    db.execute("CREATE OR REPLACE TEMP TABLE generic (title VARCHAR)")
    db.execute("INSERT INTO generic SELECT unnest($1)", [sorted(generic)])
    known, *_ = one(db, "SELECT count(*) FROM current_boards")
    most = math.floor(Fraction(str(options.max_board_share)) * known) if known >= SHARES_COUNT_FROM else known
    limits = {name: getattr(options, name) for name in ("min_chars", "max_chars", "max_words")}
    make(db, "titles", limits | {"most_boards": most})
    make(db, "title_weights")
    db.execute(
        "CREATE OR REPLACE TEMP TABLE title_of AS SELECT b.board, w.place FROM current_boards b JOIN title_weights w USING (title)"
    )


def generic_titles(path: str | Path | None = None) -> frozenset[str]:
    """Titles that say nothing, normalised, from a file with one a line; `#` begins a comment.

    Raises StoreError.
    """
    path = Path(path or Path(__file__).with_name("generic_titles.txt"))
    try:
        lines = path.expanduser().read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise StoreError(
            f"{path} cannot be read as a list of titles: {getattr(error, 'strerror', None) or 'it is not UTF-8'}"
        ) from None
    return frozenset(title for line in lines if not line.startswith("#") and (title := normalise(line)))
