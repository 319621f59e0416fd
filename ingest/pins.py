"""Pins into the store: from tables (`ingest_pins`) and from folders of images (`ingest_images`)."""

from __future__ import annotations

import hashlib
import json
import os
import re
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..images.parquet import reference
from ..sources.cells import (
    RowError,
    absolute,
    cells,
    file_stamp,
    identifier,
    is_unicode,
    moment,
    source_name,
    text_of,
    texts,
)
from ..sources.rows import BadRow, ImageBytes, Rows, SourceError, is_missing
from ..sources.tables import check_columns, find_sources, read_tables
from ..store.connection import now, transaction
from ..store.rejected import keep_rejected
from ..store.runs import finish_run, start_run
from .placeholders import says_nothing

FIELDS = ("pin_id", "title", "description", "image", "kind", "category", "locale", "created_at", "prompt")
IMAGE_ENDINGS = {
    *(
        ".jpg",
        ".jpeg",
        ".jpe",
        ".jfif",
        ".mpo",
        ".jp2",
        ".j2k",
        ".jpx",
        ".png",
        ".apng",
        ".gif",
        ".webp",
        ".avif",
        ".avifs",
        ".heic",
        ".heif",
    ),
    *(".bmp", ".dib", ".tif", ".tiff", ".ico", ".ppm", ".pgm", ".pbm", ".pnm", ".tga", ".qoi"),
}
ROWS_PER_COMMIT = 20_000
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://|data:", re.IGNORECASE)


@dataclass(slots=True)
class _Pins:
    """Pins ready for the store: a tuple for each, of the columns `names`; and the rows that are none."""

    names: tuple[str, ...] = ()
    pins: Sequence[tuple[Any, ...]] = ()
    bad: list[BadRow] = field(default_factory=list)
    bad_ids: list[str] = field(default_factory=list)  # pins that are in the source all the same


def check_sources(
    sources: Iterable[str], *, image_root: str | Path | None = None, columns: Mapping[str, str] | None = None
) -> None:
    """Looks whether `ingest_pins` can read these: files, headers, the folder of images.

    Raises SourceError.
    """
    if unknown := set(columns or {}) - set(FIELDS):
        raise SourceError(
            f"--map names no field of a pin: {', '.join(sorted(unknown))}; the fields are {', '.join(FIELDS)}"
        )
    if image_root and not os.path.isdir(absolute(image_root)):
        raise SourceError(f"--image-root {image_root} is not a folder")
    check_columns(sources, FIELDS, columns or {}, ("pin_id",))


def ingest_pins(
    conn: sqlite3.Connection,
    sources: Iterable[str],
    *,
    kind: str | None = None,
    image_root: str | Path | None = None,
    columns: Mapping[str, str] | None = None,
    sync: bool = False,
    on_rows: Callable[[int], None] = lambda n: None,
) -> dict[str, Any]:
    """Streams tables of pins into the store; a pin that is there already is updated in the columns that the
    source has.

    With `sync` the pins that are in none of the `sources` are marked as deleted at the end: nothing shows
    them until they come back.

    `kind` is for rows that name none; relative image paths count from `image_root`, else from the table's
    folder; `columns` maps fields to the source's column names. Returns the counts {"rows_read", "pins",
    "new", "updated", "rejected", "reasons"}, with `sync` also "deleted". Raises SourceError, as a rule before
    anything is written; with `sync` also where it cannot be told which pins are gone, after the pins were
    taken in.
    """
    sources, columns = list(sources), dict(columns or {})
    check_sources(sources, image_root=image_root, columns=columns)
    root = absolute(image_root) if image_root else None
    arguments = {"sources": sources, "kind": kind, "image_root": root, "map": columns, "sync": sync}
    tables = read_tables(sources, FIELDS, columns, ("pin_id",))
    batches = (_Pins(bad=[rows]) if isinstance(rows, BadRow) else _pins(rows, kind, root) for rows in tables)
    return _ingest(conn, "ingest pins", arguments, find_sources(sources), batches, on_rows, sync=sync)


def ingest_images(
    conn: sqlite3.Connection, folder: str | Path, *, on_rows: Callable[[int], None] = lambda n: None
) -> dict[str, Any]:
    """Every file below `folder` with an image's ending becomes a pin, readable or not; pin_id is the relative
    path.

    Links to files are followed, links to folders are not. Returns the counts of `ingest_pins` and "skipped",
    the number of other files. Raises SourceError.
    """
    top = absolute(folder)
    if not os.path.isdir(top):
        raise SourceError(f"{folder} is not a folder")
    skipped = Counter[str]()
    counts = _ingest(conn, "ingest images", {"folder": top}, [top], _walk(top, skipped), on_rows)
    return counts | {"skipped": skipped.total()}


def _walk(top: str, skipped: Counter[str]) -> Iterator[_Pins]:
    """The images of each folder; `skipped` counts the other files by their ending."""
    errors: list[OSError] = []
    for folder, folders, files in os.walk(top, onerror=errors.append):
        folders.sort()
        found: list[tuple[Any, ...]] = []
        bad: list[BadRow] = []
        for name in sorted(files):
            path = os.path.join(folder, name)
            ending = os.path.splitext(name)[1].lower()
            if ending not in IMAGE_ENDINGS:
                skipped[ending] += 1
            elif is_unicode(path):
                found.append((os.path.relpath(path, top), path, None, file_stamp(path)))
            else:
                bad.append(BadRow(top, None, "the file's name is not valid UTF-8", path))
        yield _Pins(("pin_id", "image", "image_sha256", "image_stamp"), found, bad)
    yield _Pins(bad=[BadRow(top, None, "the folder cannot be read", str(error.filename)) for error in errors])


def _ingest(
    conn: sqlite3.Connection,
    command: str,
    arguments: dict[str, Any],
    sources: Sequence[str],
    batches: Iterable[_Pins],
    on_rows: Callable[[int], None],
    *,
    sync: bool = False,
) -> dict[str, Any]:
    run_id = start_run(conn, command, arguments)
    before = conn.execute("SELECT count(*) FROM pins").fetchone()[0]
    with transaction(conn):
        conn.executemany(
            "DELETE FROM rejected_rows WHERE source = ?", [(source_name(source),) for source in sources]
        )
    if sync:
        conn.execute("DROP TABLE IF EXISTS temp.seen")
        conn.execute("CREATE TEMP TABLE seen (pin_id TEXT PRIMARY KEY) WITHOUT ROWID")
    taken, reasons, nameless = 0, Counter[str](), 0
    waiting: list[_Pins] = []
    rows_waiting = 0
    for batch in batches:
        if sync:
            ids = [*(pin[0] for pin in batch.pins), *batch.bad_ids]
            conn.executemany("INSERT OR IGNORE INTO temp.seen VALUES (?)", [(pin_id,) for pin_id in ids])
        nameless += len(batch.bad) - len(batch.bad_ids)
        waiting.append(batch)
        n = len(batch.pins) + len(batch.bad)
        rows_waiting += n
        taken += len(batch.pins)
        reasons.update(row.reason for row in batch.bad)
        if rows_waiting >= ROWS_PER_COMMIT:
            _write(conn, waiting, run_id)
            waiting, rows_waiting = [], 0
        on_rows(n)
    _write(conn, waiting, run_id)
    new = conn.execute("SELECT count(*) FROM pins").fetchone()[0] - before
    rejected = reasons.total()
    counts = {
        "rows_read": taken + rejected,
        "pins": taken,
        "new": new,
        "updated": taken - new,
        "rejected": rejected,
        "reasons": dict(reasons.most_common()),
    }
    if sync:
        if nameless or not taken:
            why = (
                f"{nameless:,} rows have no pin_id that can be read"
                if nameless
                else "the sources hold no pins"
            )
            finish_run(conn, run_id, counts)
            raise SourceError(
                f"{why}, so it cannot be told which pins are gone: the others were taken in, none was marked as deleted; mend the source and --sync again"
            )
        with transaction(conn):
            gone = conn.execute(
                "UPDATE pins SET deleted_at = ? WHERE deleted_at IS NULL AND pin_id NOT IN (SELECT pin_id FROM temp.seen)",
                [now()],
            )
        counts["deleted"] = gone.rowcount
        conn.execute("DROP TABLE temp.seen")
    finish_run(conn, run_id, counts)
    return counts


def _write(conn: sqlite3.Connection, batches: Iterable[_Pins], run_id: int) -> None:
    with transaction(conn):
        for batch in batches:
            if batch.pins:
                conn.executemany(_upsert(batch.names), batch.pins)
            keep_rejected(conn, batch.bad, run_id)


def _upsert(names: tuple[str, ...]) -> str:
    value = {name: f"?{i}" for i, name in enumerate(names, 1)}
    changes = {name: f"excluded.{name}" for name in names if name != "pin_id"}
    if "kind" in names:  # a row that names none changes none
        changes["kind"] = f"coalesce({value['kind']}, pins.kind)"
        value["kind"] = f"coalesce({value['kind']}, 'pin')"
    if "image_sha256" in names:  # what is known of a file stays known as long as the file looks the same
        changes[
            "image_sha256"
        ] = """CASE WHEN excluded.image_sha256 IS NULL AND pins.image IS excluded.image AND pins.image_stamp IS excluded.image_stamp
            THEN pins.image_sha256 ELSE excluded.image_sha256 END"""
    changes["deleted_at"] = "NULL"
    return f"""INSERT INTO pins ({", ".join(names)}) VALUES ({", ".join(value.values())})
        ON CONFLICT (pin_id) DO UPDATE SET {", ".join(f"{name} = {new}" for name, new in changes.items())}"""


def _pins(rows: Rows, kind: str | None, image_root: str | None) -> _Pins:
    """The pins of some rows, made column by column: most columns need no look at single cells."""
    found, reasons = rows.columns, dict[int, str]()
    n = len(rows.lines)
    pins: dict[str, Sequence[Any]] = {"pin_id": cells(identifier, found.get("pin_id", [None] * n), reasons)}
    for name in ("title", "description", "category", "locale", "prompt"):
        if name in found:
            pins[name] = texts(name, found[name], reasons)
    for name in ("title", "description"):
        if name in found:
            pins[f"has_{name}"] = [not says_nothing(text) for text in pins[name]]
    if "kind" in found:
        pins["kind"] = cells(lambda value: _kind(value, kind), found["kind"], reasons)
    elif kind:
        pins["kind"] = [kind] * n
    if "created_at" in found:
        pins["created_at"] = cells(moment, found["created_at"], reasons)
    if "image" in found:
        base = image_root or os.path.dirname(absolute(rows.source if rows.source != "-" else "stdin"))
        images = cells(lambda value: _image(value, base, image_root), found["image"], reasons)
        pins["image"], pins["image_sha256"], pins["image_stamp"] = zip(
            *(image or (None, None, None) for image in images), strict=True
        )
    ready = list(zip(*pins.values(), strict=True))
    bad, bad_ids = [], []
    if reasons:
        bad_ids = [pins["pin_id"][i] for i in reasons if pins["pin_id"][i] is not None]
        ready = [pin for i, pin in enumerate(ready) if i not in reasons]
        for i, reason in sorted(reasons.items()):
            content = json.dumps(
                {name: column[i] for name, column in found.items()},
                ensure_ascii=False,
                default=lambda value: type(value).__name__,
            )
            bad.append(BadRow(rows.source, rows.lines[i], reason, content))
    return _Pins(tuple(pins), ready, bad, bad_ids)


def _kind(value: Any, default: str | None) -> str | None:
    if value in ("pin", "product"):
        return str(value)
    if is_missing(value):
        return default
    raise RowError("kind is neither pin nor product")


def _image(value: Any, base: str, image_root: str | None) -> tuple[str | None, str | None, str | None]:
    """Where the image is, the SHA-256 of its bytes if they are at hand, and a stamp that changes when it
    does.
    """
    if isinstance(value, ImageBytes):
        digest = hashlib.sha256(value.data).hexdigest()
        return reference(value.path, value.column, value.row), digest, digest
    text = (text_of("image", value) or "").strip()
    if not text:
        return None, None, None
    if ":" in text and (address := _SCHEME.match(text)):
        if address[0].lower() == "file://":
            raise RowError("image is a file:// address: give the path alone")
        if address[0].lower() in ("parquet://", "data:"):
            # parquet:// is ours: a row may not point into files of its choice
            raise RowError("image is an address that captioner does not read")
        return text, None, None
    path = os.path.normpath(text if text.startswith("/") else f"{base}/{text}")
    if image_root and not path.startswith(image_root.rstrip("/") + "/"):
        raise RowError("image lies outside --image-root")
    if not is_unicode(path):
        raise RowError("the image's folder has a name that is not valid UTF-8")
    return path, None, file_stamp(path)
