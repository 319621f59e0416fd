"""Batches of pins on their way into the store: written a few thousand at a time, and counted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, NotRequired, TypedDict

from ..common.terminal import OnStep, plural
from ..sources.report import Reading, ReadReport
from ..sources.rows import BadRow, SourceError
from ..store import Connection
from ..store.connection import transaction
from ..store.pins import PinsSeen, count_pins, upsert_pins
from ..store.rejected import EmptiedCells, forget_rejected, keep_rejected
from ..store.runs import finish_run, start_run
from .repeated_ids import IdsRead

ROWS_PER_COMMIT = 20_000


class PinCounts(TypedDict):
    """What became of the rows of an ingest of pins. `captioner ingest pins --json` prints it."""

    rows_read: int
    pins: int  # that the rows made or changed; a pin of several rows is one
    new: int
    updated: int
    repeated: int  # rows whose pin another row has, too, without the last one, which counts
    rejected: int
    reasons: dict[str, int]  # reason -> rejected rows, most frequent first
    left_empty: dict[str, int]  # reason -> cells that made no sense and were left empty, most frequent first
    notes: dict[str, int]  # what else was done with cells -> how often
    images_not_found: int  # pins whose image is a file that is not there
    first_image_not_found: NotRequired[str]
    deleted: NotRequired[int]  # with `sync`: pins that are gone from the sources
    columns: NotRequired[ReadReport]  # of tables: what was read as what, and what was ignored


@dataclass(slots=True)
class PinBatch:
    """Pins that are ready for the store, and rows that cannot be pins."""

    columns: tuple[str, ...] = ()  # of `pins`; the first is "pin_id"
    pins: Sequence[tuple[Any, ...]] = ()  # for each pin its values of `columns`
    rejected: list[BadRow] = field(default_factory=list)
    rejected_ids: list[str] = field(default_factory=list)  # ids of rejected rows, where they could be read
    emptied: list[BadRow] = field(default_factory=list)  # for each cell that is left empty: its row and why
    notes: Counter[str] = field(default_factory=Counter)  # what else was done with cells -> how often
    images_not_found: list[str] = field(default_factory=list)  # paths of images that are not there


def write_batches(
    conn: Connection,
    command: str,
    arguments: dict[str, Any],
    sources: Sequence[str],
    batches: Iterable[PinBatch],
    on_step: OnStep,
    *,
    sync: bool = False,
    mark_gone: Callable[[PinsSeen], int] | None = None,
    reading: Reading | None = None,
) -> PinCounts:
    """Writes `batches` to the store and records it as a run of `command` with `arguments`.

    Rejected rows replace those that are kept of earlier reads of `sources`. With `sync`, pins that no batch
    has are marked as deleted at the end; `mark_gone` marks others than these, and raises SourceError where it
    cannot tell. Raises SourceError if the batches do not tell which pins those are, or if `reading` has a
    source of which no row could be used; the pins are in the store all the same.
    """
    run_id = start_run(conn, command, arguments)
    before = count_pins(conn)
    with transaction(conn):
        forget_rejected(conn, sources)
    seen = PinsSeen(conn) if sync else None
    ids, without_id, reasons = IdsRead(), 0, Counter[str]()
    left_empty, notes, not_found = EmptiedCells(conn, run_id), Counter[str](), 0
    first_not_found = ""
    waiting: list[PinBatch] = []
    rows_waiting = 0
    on_step("reading", 0, None)
    for batch in batches:
        if seen:
            seen.add([*(pin[0] for pin in batch.pins), *batch.rejected_ids])
        ids.add(pin[0] for pin in batch.pins)
        without_id += len(batch.rejected) - len(batch.rejected_ids)
        reasons.update(row.reason for row in batch.rejected)
        notes += batch.notes
        not_found += len(batch.images_not_found)
        first_not_found = first_not_found or next(iter(batch.images_not_found), "")
        waiting.append(batch)
        rows_waiting += len(batch.pins) + len(batch.rejected)
        if rows_waiting >= ROWS_PER_COMMIT:
            _commit(conn, waiting, run_id, left_empty)
            waiting, rows_waiting = [], 0
        on_step("reading", len(ids) + reasons.total(), None)
    _commit(conn, waiting, run_id, left_empty)
    new, repeated = count_pins(conn) - before, ids.repeated()
    pins = len(ids) - repeated
    counts = PinCounts(
        rows_read=len(ids) + reasons.total(),
        pins=pins,
        new=new,
        updated=pins - new,
        repeated=repeated,
        rejected=reasons.total(),
        reasons=dict(reasons.most_common()),
        left_empty=dict(left_empty.counts.most_common()),
        notes=dict(notes),
        images_not_found=not_found,
    )
    if first_not_found:
        counts["first_image_not_found"] = first_not_found
    if reading:
        counts["columns"] = reading.report.as_json()
        if failure := reading.failure():
            finish_run(conn, run_id, counts)
            raise failure
    if seen:
        try:
            if mark_gone is None and (without_id or not pins):
                raise SourceError(_why_not_synced(without_id))
            with transaction(conn):
                counts["deleted"] = (mark_gone or PinsSeen.mark_others_deleted)(seen)
        except SourceError:
            finish_run(conn, run_id, counts)
            raise
        seen.close()
    finish_run(conn, run_id, counts)
    return counts


def _why_not_synced(without_id: int) -> str:
    why = "the sources hold no pins"
    if without_id:
        why = f"no pin_id can be read in {plural(without_id, 'row')}"
    return (
        f"{why}, so captioner cannot tell which pins are gone: it took the other rows in and marked no pin "
        "as deleted; mend the source and --sync again"
    )


def _commit(conn: Connection, batches: Iterable[PinBatch], run_id: int, left_empty: EmptiedCells) -> None:
    with transaction(conn):
        for batch in batches:
            if batch.pins:
                upsert_pins(conn, batch.columns, batch.pins)
            keep_rejected(conn, batch.rejected, run_id)
            left_empty.keep(batch.emptied)
