"""Pins from tables: a row becomes a pin, or is rejected with a reason."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..common.terminal import OnStep, no_step
from ..images.parquet import reference
from ..sources.cells import RowError, convert_column, identifier, is_unicode, moment, text_column, text_of
from ..sources.columns import ColumnsRead, Wanted
from ..sources.locations import absolute, file_stamp
from ..sources.read_as import AS_NAMED, ReadAs
from ..sources.report import Reading
from ..sources.rows import BadRow, ImageBytes, Rows, SourceError, is_missing
from ..sources.tables import check_columns, read_wanted, tables_of
from ..store import Connection
from .batches import PinBatch, PinCounts, write_batches
from .placeholders import says_nothing

FIELDS = ("pin_id", "title", "description", "image", "kind", "category", "locale", "created_at", "prompt")
KINDS = ("pin", "product")
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://|data:", re.IGNORECASE)


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
    that name none. A relative path of an image starts at `image_root`, else at the table's folder; with
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
    """The pins of some rows. They are made column by column, because that is faster than cell by cell."""
    source, reasons = rows.columns, dict[int, str]()
    n = len(rows.lines)
    pins: dict[str, Sequence[Any]] = {
        "pin_id": convert_column(identifier, source.get("pin_id", [None] * n), reasons)
    }
    for name in ("title", "description", "category", "locale", "prompt"):
        if name in source:
            pins[name] = text_column(name, source[name], reasons)
    for name in ("title", "description"):
        if name in source:
            pins[f"has_{name}"] = [not says_nothing(text) for text in pins[name]]
    if "kind" in source:
        pins["kind"] = convert_column(lambda value: _kind_of(value, kind), source["kind"], reasons)
    elif kind:
        pins["kind"] = [kind] * n
    if "created_at" in source:
        pins["created_at"] = convert_column(moment, source["created_at"], reasons)
    if "image" in source:
        base = image_root or os.path.dirname(absolute(rows.source if rows.source != "-" else "stdin"))
        images = convert_column(lambda value: _image_of(value, base, image_root), source["image"], reasons)
        pins["image"], pins["image_sha256"], pins["image_stamp"] = zip(
            *(image or (None, None, None) for image in images), strict=True
        )
    return PinBatch(
        tuple(pins),
        [pin for i, pin in enumerate(zip(*pins.values(), strict=True)) if i not in reasons],
        [BadRow(rows.source, rows.lines[i], reasons[i], _content(source, i)) for i in sorted(reasons)],
        [pins["pin_id"][i] for i in reasons if pins["pin_id"][i] is not None],
    )


def _content(columns: Mapping[str, Sequence[Any]], i: int) -> str:
    """Row `i` as JSON, for `rejected_rows`. A value that JSON cannot hold is shown as its type."""
    row = {name: values[i] for name, values in columns.items()}
    return json.dumps(row, ensure_ascii=False, default=lambda value: type(value).__name__)


def _kind_of(value: Any, default: str | None) -> str | None:
    if value in KINDS:
        return str(value)
    if is_missing(value):
        return default
    raise RowError("kind is neither pin nor product")


def _image_of(value: Any, base: str, image_root: str | None) -> tuple[str | None, str | None, str | None]:
    """(image, image_sha256, image_stamp) of a cell.

    The SHA-256 is None where the image's bytes are not at hand. The stamp changes when the image does.
    """
    if isinstance(value, ImageBytes):
        digest = hashlib.sha256(value.data).hexdigest()
        return reference(value.path, value.column, value.row), digest, digest
    text = (text_of("image", value) or "").strip()
    if not text:
        return None, None, None
    if ":" in text and (scheme := _SCHEME.match(text)):
        if scheme[0].lower() == "file://":
            raise RowError("image is a file:// address: give the path alone")
        if scheme[0].lower() in ("parquet://", "data:"):
            # parquet:// is captioner's own address: a row must not point into files of its choice
            raise RowError("image is an address that captioner does not read")
        return text, None, None
    path = os.path.normpath(text if text.startswith("/") else f"{base}/{text}")
    if image_root and not path.startswith(image_root.rstrip("/") + "/"):
        raise RowError("image lies outside --image-root")
    if not is_unicode(path):
        raise RowError("the image's folder has a name that is not valid UTF-8")
    return path, None, file_stamp(path)
