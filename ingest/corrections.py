"""Captions that people write themselves: one of them, or a table of corrections. All are set, or none.

A text is checked as titles and other texts of strangers are. It is not judged as a model's caption is: what a
person says of a picture in one word is a caption.
"""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from typing import Any, NotRequired, TypedDict

from ..common.errors import PincaptionError
from ..common.personal import holds_personal_data
from ..common.terminal import OnStep, no_step
from ..sources.cells import RowError, convert_column, identifier, is_placeholder, row_as_json, text_of
from ..sources.columns import ColumnsRead, Wanted
from ..sources.read_as import AS_NAMED, ReadAs
from ..sources.report import Reading, ReadReport
from ..sources.rows import BadRow, Rows, SourceError
from ..sources.tables import check_columns, read_wanted, tables_of
from ..store import Connection
from ..store.connection import transaction
from ..store.people import Corrections, not_captioned_by_people, remove_captions
from ..store.pins import has_pin, known_among
from ..store.rejected import forget_rejected, keep_rejected
from ..store.runs import finish_run, start_run
from .placeholders import says_nothing

FIELDS = ("pin_id", "text", "caption")
MAX_CHARS = 1000  # of a caption, as of a model's
_KEPT = 10_000  # rejected rows of a table that are kept; more are only counted
# Characters that reorder the text around them (Unicode Standard Annex 9, sections 2.1 to 2.4).
_REORDERING = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
_REASONS_SHOWN = 3


class CorrectionCounts(TypedDict):
    """What `captioner captions set --json` prints."""

    rows_read: int
    set: int  # pins whose caption is a person's now
    new: int  # of these: no person had written their caption before
    changed: int  # a person had written another one
    unchanged: int  # a person had written this one
    columns: NotRequired[ReadReport]  # of a table: what was read as what, and what was ignored


class RemovalCounts(TypedDict):
    """What `captioner captions unset --json` prints."""

    unset: int  # pins whose caption is no longer a person's
    captioned: int  # of these: their caption is a model's again
    without: int  # of these: no model has written one


def caption_of_person(value: Any) -> str:
    """A text of a person as it is stored: in one line, with single blanks. Raises RowError."""
    text = text_of("text", value)
    if text is None or is_placeholder(text):
        raise RowError("no text")
    text = " ".join(text.split())
    if any(unicodedata.category(c) == "Cc" or c in _REORDERING for c in text):
        raise RowError("the text has a control character: write it without")
    if len(text) > MAX_CHARS:
        raise RowError(f"the text is longer than {MAX_CHARS:,} characters")
    if holds_personal_data(text):
        raise RowError("the text has an e-mail address, a link or a telephone number: write it without")
    if says_nothing(text):
        raise RowError("the text says nothing: it has no words or is a placeholder")
    return text


def set_caption(conn: Connection, pin_id: str, text: str) -> CorrectionCounts:
    """Makes `text` the caption of a pin, whatever models write.

    Raises PincaptionError if the store has no such pin, or if the text is refused. Nothing is written then.
    """
    pin_id = _known_id(conn, pin_id)
    try:
        text = caption_of_person(text)
    except RowError as error:
        raise PincaptionError(f"nothing was set for pin {pin_id!r}: {error}") from None
    with closing(Corrections(conn)) as corrections:
        corrections.add([(pin_id, text)])
        return _write(conn, corrections, {"pin_id": pin_id}, 1)


def set_captions(
    conn: Connection,
    sources: Iterable[str],
    *,
    columns: Mapping[str, str] | None = None,
    read_as: ReadAs = AS_NAMED,
    on_step: OnStep = no_step,
) -> CorrectionCounts:
    """Makes the texts of tables (pin_id, and text or caption) the captions of their pins, all or none.

    `columns` maps fields to columns of other names, and `read_as` says how files are written. If a row
    cannot be used, nothing is set: the row is kept in `rejected_rows`, and the SourceError counts the
    reasons. Raises SourceError as well for tables that cannot be read.
    """
    sources, columns = list(sources), dict(columns or {})
    reading = Reading(Wanted(FIELDS, columns, ("pin_id", "text|caption"), read_as))
    check_columns(sources, reading.wanted)
    arguments = {"sources": sources, "map": columns} | read_as.as_json()
    reasons, kept, n = Counter[str](), list[BadRow](), 0
    with closing(Corrections(conn)) as corrections:
        on_step("reading", 0, None)
        for rows in read_wanted(sources, reading.wanted, reading.report):
            if isinstance(rows, ColumnsRead):
                reading.columns(rows)
                continue
            rejected = [rows] if isinstance(rows, BadRow) else _take(conn, corrections, rows)
            read = 1 if isinstance(rows, BadRow) else len(rows.lines)
            n += read
            reading.rows(rows.source, read - len(rejected), (row.reason for row in rejected))
            reasons.update(row.reason for row in rejected)
            kept += rejected[: _KEPT - len(kept)]
            on_step("reading", n, None)
        files = tables_of(sources, read_as)
        if not reasons and not n:
            raise SourceError(f"{sources[0]} has no rows: nothing was set")
        if not reasons:
            counts = _write(conn, corrections, arguments, n, files)
            counts["columns"] = reading.report.as_json()
            return counts
    run_id = start_run(conn, "captions set", arguments)
    with transaction(conn):
        forget_rejected(conn, files)
        keep_rejected(conn, kept, run_id)
    finish_run(conn, run_id, {"rows_read": n, "set": 0, "rejected": reasons.total()})
    failure = reading.failure() if reasons.total() == n else None
    raise failure or SourceError(_nothing_set(n, reasons))


def unset_captions(conn: Connection, pin_ids: Sequence[str]) -> RemovalCounts:
    """Takes back the captions that people wrote of some pins, so that a model's counts again; all or none.

    Raises PincaptionError if there is no such pin, or if no person wrote its caption.
    """
    pin_ids = list(dict.fromkeys(_known_id(conn, pin_id) for pin_id in pin_ids))
    with transaction(conn):
        if missing := not_captioned_by_people(conn, pin_ids):
            more = f" and {len(missing) - 1:,} more" if len(missing) > 1 else ""
            raise PincaptionError(
                f"no person wrote the caption of pin {missing[0]!r}{more}: nothing was taken back"
            )
        captioned = remove_captions(conn, pin_ids)
    counts = RemovalCounts(unset=len(pin_ids), captioned=captioned, without=len(pin_ids) - captioned)
    finish_run(conn, start_run(conn, "captions unset", {"pins": len(pin_ids), "first": pin_ids[0]}), counts)
    return counts


def _known_id(conn: Connection, value: str) -> str:
    """The id of a pin that is there and not deleted. Raises PincaptionError."""
    try:
        pin_id = identifier(value)
    except RowError as error:
        raise PincaptionError(f"{value!r} cannot be the id of a pin: {error}") from None
    if known_among(conn, [pin_id]):
        return pin_id
    if has_pin(conn, pin_id):
        raise PincaptionError(f"pin {pin_id!r} is marked as deleted: ingest its source again first")
    raise PincaptionError(
        f"the store has no pin {pin_id!r}: its id is as in the table that it came from, or the path of its "
        "picture below the folder"
    )


def _take(conn: Connection, corrections: Corrections, rows: Rows) -> list[BadRow]:
    """Adds the rows that can be used to the corrections, and returns the others."""
    n, reasons = len(rows.lines), dict[int, str]()
    missing = [None] * n
    pin_ids = convert_column(identifier, rows.columns.get("pin_id", missing), reasons)
    known = known_among(conn, [pin_id for pin_id in pin_ids if pin_id is not None])
    for i, pin_id in enumerate(pin_ids):
        if pin_id is not None and pin_id not in known:
            reasons[i] = "the store has no such pin or it is marked as deleted"
    cells = zip(rows.columns.get("text", missing), rows.columns.get("caption", missing), strict=True)
    texts = convert_column(_one_text, list(cells), reasons)
    good = [i for i in range(n) if i not in reasons]
    for place in corrections.add([(pin_ids[i], texts[i]) for i in good]):
        reasons[good[place]] = "pin_id is there twice, with different texts"
    return [
        BadRow(rows.source, rows.lines[i], reasons[i], row_as_json(rows.columns, i)) for i in sorted(reasons)
    ]


def _one_text(cells: tuple[Any, Any]) -> str:
    """The text of a row that may have it in two columns. Raises RowError."""
    given = [cell for cell in cells if cell is not None and cell != ""]
    if len(given) == 2 and given[0] != given[1]:
        raise RowError("text and caption differ: leave one of them empty")
    return caption_of_person(given[0] if given else None)


def _write(
    conn: Connection,
    corrections: Corrections,
    arguments: dict[str, Any],
    rows_read: int,
    files: Sequence[str] = (),
) -> CorrectionCounts:
    """Writes the corrections, and records them as a run."""
    run_id = start_run(conn, "captions set", arguments)
    with transaction(conn):
        forget_rejected(conn, files)
        written = corrections.write(run_id)
    counts = CorrectionCounts(
        rows_read=rows_read,
        set=sum(written),
        new=written.new,
        changed=written.changed,
        unchanged=written.unchanged,
    )
    finish_run(conn, run_id, counts)
    return counts


def _nothing_set(n: int, reasons: Counter[str]) -> str:
    """The sentence for a table some of whose rows cannot be used."""
    why = ", ".join(f"{times:,} {reason!r}" for reason, times in reasons.most_common(_REASONS_SHOWN))
    if len(reasons) > _REASONS_SHOWN:
        why += ", and others"
    rejected = reasons.total()
    return (
        f"nothing was set, because {rejected:,} of {n:,} rows cannot be used ({why}): mend them or take them "
        "out, and run it again; the table rejected_rows has the lines"
    )
