"""Pins from tables: a row becomes a pin, or is rejected with a reason."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import compress
from pathlib import Path
from typing import Any

from ..common.terminal import OnStep, no_step
from ..sources.cells import (
    MISSING_WORDS,
    convert_column,
    identifier,
    listed,
    row_as_json,
    text_column,
    text_of,
)
from ..sources.columns import ColumnsRead, Wanted
from ..sources.dates import moment
from ..sources.locations import absolute
from ..sources.read_as import AS_NAMED, ReadAs
from ..sources.report import Reading
from ..sources.rows import BadRow, Rows, SourceError
from ..sources.tables import check_columns, read_wanted, tables_of
from ..store import Connection
from .batches import PinBatch, PinCounts, write_batches
from .image_cells import NO_IMAGE, ImageCell, read_image_cell
from .kinds import kind_of
from .placeholders import says_nothing

FIELDS = ("pin_id", "title", "description", "image", "kind", "category", "locale", "created_at", "prompt")
LEFT_OUT = "{} left out: of several in a cell the first is taken"
_PLURALS = {"title": "titles", "category": "categories", "locale": "locales", "prompt": "prompts"}


def check_sources(
    sources: Iterable[str],
    *,
    image_root: str | Path | None = None,
    columns: Mapping[str, str] | None = None,
    read_as: ReadAs = AS_NAMED,
) -> None:
    """Finds out whether `ingest_pins` can read these sources: the files, their headers, the image root.

    Raises SourceError. Needs no store, so that a mistyped name does not create one.
    """
    if unknown := set(columns or {}) - set(FIELDS):
        raise SourceError(
            f"--map names no field of a pin: {', '.join(sorted(unknown))}; the fields are {', '.join(FIELDS)}"
        )
    if image_root and not os.path.isdir(absolute(image_root)):
        raise SourceError(f"--image-root {image_root} is not a folder")
    check_columns(sources, _wanted(columns, read_as))


def _wanted(columns: Mapping[str, str] | None, read_as: ReadAs) -> Wanted:
    return Wanted(FIELDS, columns or {}, ("pin_id",), read_as)


def ingest_pins(
    conn: Connection,
    sources: Iterable[str],
    *,
    kind: str | None = None,
    image_root: str | Path | None = None,
    columns: Mapping[str, str] | None = None,
    read_as: ReadAs = AS_NAMED,
    sync: bool = False,
    on_step: OnStep = no_step,
) -> PinCounts:
    """Reads tables of pins into the store. A pin that is there already is updated in the source's columns.

    `sources` are files, folders, globs, or "-" for JSON Lines on standard input; `columns` maps fields to
    columns of other names, and `read_as` says how files are written. `kind` ("pin" or "product") is for rows
    that name none. A cell that makes no sense is left empty and counted; a row whose pin_id makes no sense is
    rejected. A relative path of an image starts at `image_root`, else at the table's folder; with
    `image_root`, no image may lie outside.

    With `sync` the sources are all there is: at the end, pins that are in none of them are marked as deleted.
    Nothing shows such pins until a source has them again.

    Raises SourceError. As a rule that is before anything is written. It comes after all other rows were
    written if all rows of a source are rejected, and, with `sync`, if a row has no id that can be read; then
    no pin is marked.
    """
    sources, columns = list(sources), dict(columns or {})
    check_sources(sources, image_root=image_root, columns=columns, read_as=read_as)
    root = absolute(image_root) if image_root else None
    arguments = {"sources": sources, "kind": kind, "image_root": root, "map": columns, "sync": sync}
    reading = Reading(_wanted(columns, read_as))
    batches = _batches(sources, reading, kind, root)
    files = tables_of(sources, read_as)
    return write_batches(
        conn,
        "ingest pins",
        arguments | read_as.as_json(),
        files,
        batches,
        on_step,
        sync=sync,
        reading=reading,
    )


def _batches(
    sources: Iterable[str], reading: Reading, kind: str | None, image_root: str | None
) -> Iterator[PinBatch]:
    for rows in read_wanted(sources, reading.wanted, reading.report):
        if isinstance(rows, ColumnsRead):
            reading.columns(rows)
            continue
        batch = PinBatch(rejected=[rows]) if isinstance(rows, BadRow) else _pins_of(rows, kind, image_root)
        reading.rows(rows.source, len(batch.pins), (row.reason for row in batch.rejected))
        yield batch


def _pins_of(rows: Rows, kind: str | None, image_root: str | None) -> PinBatch:
    """The pins of some rows. They are made column by column, because that is faster than cell by cell.

    A cell that makes no sense becomes empty. Only a row whose pin_id makes no sense is rejected.
    """
    source, n = rows.columns, len(rows.lines)
    reasons = dict[int, str]()  # why a row is rejected
    empty: dict[str, dict[int, str]] = {field: {} for field in source}  # why a cell is left empty, by field
    notes = Counter[str]()
    pins: dict[str, Sequence[Any]] = {
        "pin_id": convert_column(identifier, source.get("pin_id", [None] * n), reasons)
    }
    for name in ("title", "description", "category", "locale", "prompt"):
        if name in source:
            pins[name] = text_column(name, source[name], empty[name], partial(_text_of_cell, notes))
    for name in ("title", "description"):
        if name in source:
            pins[f"has_{name}"] = [not says_nothing(text) for text in pins[name]]
    for name in ("category", "locale", "prompt"):
        if name in source:
            pins[name] = [None if text in MISSING_WORDS else text for text in pins[name]]
    if "kind" in source:
        pins["kind"] = convert_column(kind_of, source["kind"], empty["kind"])
        pins["kind"] = [of_row or kind for of_row in pins["kind"]]  # a cell that makes no sense is empty
    elif kind:
        pins["kind"] = [kind] * n
    if "created_at" in source:
        pins["created_at"] = convert_column(moment, source["created_at"], empty["created_at"])
    not_found: list[str] = []
    if "image" in source:
        base = image_root or os.path.dirname(absolute(rows.source if rows.source != "-" else "stdin"))
        images: list[ImageCell] = [
            image or NO_IMAGE
            for image in convert_column(
                lambda value: read_image_cell(value, base, image_root), source["image"], empty["image"]
            )
        ]
        pins["image"], pins["image_sha256"], pins["image_stamp"], left_out, missing = zip(
            *images, strict=True
        )
        notes[LEFT_OUT.format("images")] += sum(left_out)
        not_found = [str(image.image) for image in compress(images, missing)]
    return PinBatch(
        tuple(pins),
        [pin for i, pin in enumerate(zip(*pins.values(), strict=True)) if i not in reasons],
        [BadRow(rows.source, rows.lines[i], reasons[i], row_as_json(source, i)) for i in sorted(reasons)],
        [pins["pin_id"][i] for i in reasons if pins["pin_id"][i] is not None],
        [
            BadRow(rows.source, rows.lines[i], reason, row_as_json(source, i))
            for faults in empty.values()
            for i, reason in faults.items()
            if i not in reasons
        ],
        notes,
        not_found,
    )


def _text_of_cell(notes: Counter[str], name: str, value: Any) -> str | None:
    """The text of a cell: of several titles the first, of several descriptions all. Raises RowError."""
    items = listed(value)
    if items is None:
        return text_of(name, value)
    texts = [text for item in items if (text := text_of(name, item)) and text.strip()]
    if name == "description" and len(texts) > 1:
        notes["descriptions joined: several in a cell"] += 1
        return " ".join(texts)
    if len(texts) > 1:
        notes[LEFT_OUT.format(_PLURALS[name])] += len(texts) - 1
    return texts[0] if texts else None
