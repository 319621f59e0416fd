"""Board titles: under which titles people filed a pin, best first.

The formulas are in sql/ and explained in docs/aggregate.md.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, TypedDict, cast

from ..common.terminal import OnStep, no_step
from ..sources.locations import absolute
from ..sources.report import ReadReport
from ..store import Connection, StoreError, transaction
from ..store.aggregates import counts_if_unchanged, pins_not_in_store, remember
from ..store.ranks import PinRow, sorted_ranks, write_ranks
from ..store.runs import finish_run, start_run
from .duck import make, one
from .evidence import Evidence, open_evidence
from .files import AS_NAMED, Files
from .text import normalise

SHARES_COUNT_FROM = 1000  # boards: with fewer, the share of boards says nothing about a title
FEW_BOARDS, BEYOND_TOP = "on fewer boards than --min-boards", "beyond --top"


@dataclass(frozen=True)
class BoardOptions:
    """What decides which titles are kept. The default of `top` is that of the OmniSearchSage paper."""

    top: int = 10  # titles kept for a pin
    min_boards: int = 1  # boards of a title that must hold the pin
    max_board_share: float = 0.02  # a title on a larger share of boards is dropped
    min_chars: int = 2  # of a normalised title
    max_chars: int = 60
    max_words: int = 10
    # a text file with titles that say nothing, one a line; None: generic_titles.txt beside this module
    generic_titles: str | Path | None = None

    def as_json(self, generic: frozenset[str]) -> dict[str, Any]:
        """As the store keeps the options.

        Titles from a file of one's own are kept with them, as the file may have changed by tomorrow.
        """
        path = self.generic_titles and absolute(self.generic_titles)
        return asdict(self) | {
            "generic_titles": path,
            "generic_own": sorted(generic) if path else None,
            "generic_digest": hashlib.sha256("\n".join(sorted(generic)).encode()).hexdigest()[:16],
        }

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> tuple[BoardOptions, frozenset[str]]:
        """The options and the titles that say nothing, as `as_json` stored them."""
        names = cls.__dataclass_fields__.keys() & stored.keys()
        own = stored.get("generic_own")
        generic = frozenset(own) if own is not None else generic_titles()
        return cls(**{name: stored[name] for name in names}), generic


class BoardRanking(TypedDict):
    """What ranking came to."""

    pins: int  # that were ranked
    rows_written: int  # pins that have titles
    unknown_boards: int  # distinct pairs of a pin and a board that is not known
    dropped: dict[str, int]  # reason -> boards whose title was dropped, or titles of pins
    titles: int  # titles of all pins


class BoardsResult(BoardRanking):
    """What `aggregate_boards` did. `pins` and `rows_written` are 0 if nothing has changed."""

    rows_read: int
    rejected: int  # rows, see the table rejected_rows
    reasons: dict[str, int]  # reason -> rejected rows, most frequent first
    left_empty: dict[str, int]  # reason -> cells that made no sense and were left empty
    columns: ReadReport  # what was read as what, and what was ignored
    sources: int  # contents that were read
    unchanged: int  # sources that had been read before
    pins_not_in_store: int  # that have titles


def aggregate_boards(
    conn: Connection,
    *,
    boards: Sequence[str] = (),
    saves: Sequence[str] = (),
    options: BoardOptions = BoardOptions(),
    columns: Mapping[str, str] | None = None,
    files: Files = AS_NAMED,
    memory_limit: str | None = None,
    rebuild: bool = False,
    on_step: OnStep = no_step,
) -> BoardsResult:
    """Takes in what is new in tables of boards and saves, and writes the table `board_titles`.

    The result is that of one run over everything read so far. `boards` and `saves` are paths, globs, folders,
    or `-` for standard input; both may be empty, if other options are to rank anew. `columns` maps fields to
    columns (`pin_id` or `saves.pin_id`), and `files` says how the files are written. `memory_limit` is for
    DuckDB, such as "500MB". `rebuild` first forgets everything that was read. Raises SourceError, also (once
    everything is written) for a source all of whose rows were rejected, and StoreError.
    """
    generic = generic_titles(options.generic_titles)
    stored_options = options.as_json(generic)
    arguments = {"boards": list(boards), "saves": list(saves), "map": dict(columns or {}), "rebuild": rebuild}
    arguments |= files.as_json()
    with open_evidence(conn, "boards", memory_limit) as evidence:
        if not rebuild:
            evidence.check_files()
        run_id = start_run(conn, "aggregate boards", arguments | stored_options)
        read = evidence.read(
            {"boards": boards, "saves": saves},
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
            raise StoreError("no boards and no saves have been read yet: name them with --boards and --saves")
        if counts := counts_if_unchanged(conn, "boards", stored_options, state):
            ranking = cast(BoardRanking, counts | {"pins": 0, "rows_written": 0})
        else:
            on_step("ranking", 0, None)
            ranking = rank_boards(evidence, options, generic)
            rows, pins = ranked_titles(evidence), ranking["rows_written"]
            on_step("writing", 0, pins)
            with transaction(conn):
                write_ranks(
                    conn,
                    "board_titles",
                    rows,
                    replace=True,
                    on_pins=lambda done: on_step("writing", done, pins),
                )
                remember(conn, "boards", stored_options, state, ranking, run_id)
    result: BoardsResult = {
        **read,
        **ranking,
        "pins_not_in_store": pins_not_in_store(conn, "board_titles"),
    }
    finish_run(conn, run_id, dict(result))
    if evidence.failure:
        raise evidence.failure
    return result


def rank_boards(
    evidence: Evidence,
    options: BoardOptions,
    generic: frozenset[str],
    *,
    boards: str | None = None,
    saves: str | None = None,
) -> BoardRanking:
    """Makes the table board_ranks (pin, rank, place, boards, score) and all that it is made of.

    `boards` and `saves` name tables with the rows that count, if not all of them do.
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
    pins, few, enough = one(
        db,
        """SELECT count(DISTINCT pin), count(*) FILTER (boards < $1), count(*) FILTER (boards >= $1)
        FROM board_counts""",
        [options.min_boards],
    )
    titles, rows = one(db, "SELECT count(*), count(*) FILTER (rank = 1) FROM board_ranks")
    dropped = _dropped_boards(db)
    dropped |= {reason: n for reason, n in ((FEW_BOARDS, few), (BEYOND_TOP, enough - titles)) if n}
    return {
        "pins": pins,
        "rows_written": rows,
        "unknown_boards": unknown,
        "dropped": dict(sorted(dropped.items(), key=lambda item: -item[1])),
        "titles": titles,
    }


def _dropped_boards(db: Any) -> dict[str, int]:
    """Reason -> boards whose title was dropped."""
    rows = db.execute("""
        SELECT reason, sum(boards)
        FROM (SELECT reason, boards FROM titles UNION ALL SELECT reason, 1 FROM current_boards)
        WHERE reason IS NOT NULL
        GROUP BY 1""")
    return {reason: int(n) for reason, n in rows.fetchall()}


def ranked_titles(evidence: Evidence) -> Iterator[Iterable[PinRow]]:
    """Rows for the table `board_titles`, from board_ranks."""
    ranks = f"""SELECT r.pin, p.text AS pin_id, rank, w.title AS titles, r.boards, score AS scores
        FROM board_ranks r
        JOIN title_weights w USING (place)
        JOIN {evidence.codes("pins")} p ON p.code = r.pin"""
    return sorted_ranks(evidence.db, "board_titles", ranks)


def prepare_titles(
    evidence: Evidence, options: BoardOptions, generic: frozenset[str], boards: str | None = None
) -> None:
    """Makes the tables that depend on boards alone.

    These are current_boards, titles, title_weights and title_of (board, place). `boards` names a table with
    the rows that count, if not all of them do.
    """
    db = evidence.db
    db.execute(f"CREATE OR REPLACE TEMP VIEW board_rows AS SELECT * FROM {boards or evidence.view('boards')}")
    make(db, "current_boards")
    db.execute("CREATE OR REPLACE TEMP TABLE generic (title VARCHAR)")
    db.execute("INSERT INTO generic SELECT unnest($1)", [sorted(generic)])
    known, *_ = one(db, "SELECT count(*) FROM current_boards")
    most = known
    if known >= SHARES_COUNT_FROM:
        most = math.floor(Fraction(str(options.max_board_share)) * known)  # exact: 0.02 of 1,000 is 20
    limits = {name: getattr(options, name) for name in ("min_chars", "max_chars", "max_words")}
    make(db, "titles", limits | {"most_boards": most})
    make(db, "title_weights")
    db.execute("""CREATE OR REPLACE TEMP TABLE title_of AS
        SELECT b.board, w.place FROM current_boards b JOIN title_weights w USING (title)""")


def generic_titles(path: str | Path | None = None) -> frozenset[str]:
    """Titles that say nothing, normalised, from a file with one a line; `#` begins a comment.

    Raises StoreError for a file that cannot be read.
    """
    path = Path(path or Path(__file__).with_name("generic_titles.txt"))
    try:
        lines = path.expanduser().read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8"
        raise StoreError(f"{path} cannot be read as a list of titles: {reason}") from None
    return frozenset(title for line in lines if not line.startswith("#") and (title := normalise(line)))
