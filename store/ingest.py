"""Pins into the store: from tables (`ingest_pins`) and from folders of images (`ingest_images`)."""

from __future__ import annotations

import hashlib
import json
import os
import re
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

from ..filters.text import PERSONAL_DATA, says_nothing
from .parquet_images import reference
from .runs import finish_run, redact_credentials, start_run
from .schema import transaction
from .sources import NOT_TEXT, BadRow, ImageBytes, Row, SourceError, find_sources, is_missing, read_tables

FIELDS = ("pin_id", "title", "description", "image", "kind", "category", "locale", "created_at", "prompt")
IMAGE_ENDINGS = frozenset(
    ".jpg .jpeg .jpe .jfif .png .apng .gif .webp .avif .avifs .bmp .dib .tif .tiff .ico .ppm .pgm .pbm .pnm .jp2 .j2k .jpx .tga .qoi .mpo .heic .heif".split()
)
MAX_ID = 1000  # characters
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")


class RowError(Exception):
    """Why a row is rejected: a short text of few kinds, to be counted."""


def ingest_pins(
    conn: sqlite3.Connection,
    sources: Iterable[str],
    *,
    kind: str | None = None,
    image_root: str | Path | None = None,
    columns: Mapping[str, str] | None = None,
    on_rows: Callable[[int], None] = lambda n: None,
) -> dict[str, Any]:
    """Streams tables of pins into the store; a pin that is there already is updated in the columns that the source has.

    `kind` is for rows that name none; relative image paths count from `image_root`, else from the table's folder;
    `columns` maps fields to the source's column names. Returns the counts
    {"rows_read", "pins", "new", "updated", "rejected", "reasons"}. Raises SourceError.
    """
    sources, columns = list(sources), dict(columns or {})
    if unknown := set(columns) - set(FIELDS):
        raise SourceError(f"--map names no field of a pin: {', '.join(sorted(unknown))}; the fields are {', '.join(FIELDS)}")
    find_sources(sources)  # a missing file is said before anything is written
    root = Path(image_root).expanduser().absolute() if image_root else None
    if root and not root.is_dir():
        raise SourceError(f"--image-root {image_root} is not a folder")
    chunks = read_tables(sources, FIELDS, columns, "pin_id")
    arguments = {"sources": sources, "kind": kind, "image_root": str(root) if root else None, "map": columns}
    return _ingest(conn, "ingest pins", arguments, chunks, lambda row: _pin(row, kind, root), on_rows)


def ingest_images(conn: sqlite3.Connection, folder: str | Path, *, on_rows: Callable[[int], None] = lambda n: None) -> dict[str, Any]:
    """Every file below `folder` with an image's ending becomes a pin, readable or not; pin_id is the relative path.

    Returns the counts of `ingest_pins` and "skipped", the number of other files. Raises SourceError.
    """
    top = Path(folder).expanduser().absolute()
    if not top.is_dir():
        raise SourceError(f"{folder} is not a folder")
    skipped = Counter[str]()
    counts = _ingest(conn, "ingest images", {"folder": str(top)}, _walk(top, skipped), lambda row: _pin(row, None, None), on_rows)
    return counts | {"skipped": skipped.total()}


def _walk(top: Path, skipped: Counter[str]) -> Iterator[list[Row | BadRow]]:
    chunk: list[Row | BadRow] = []
    for folder, folders, files in os.walk(top):
        folders.sort()
        for name in sorted(files):
            path = os.path.join(folder, name)
            if os.path.splitext(name)[1].lower() not in IMAGE_ENDINGS:
                skipped[os.path.splitext(name)[1].lower()] += 1
                continue
            try:
                name.encode(), folder.encode()
                chunk.append(Row(str(top), 0, {"pin_id": os.path.relpath(path, top).replace(os.sep, "/"), "image": path}))
            except UnicodeEncodeError:
                chunk.append(BadRow(str(top), 0, "the file's name is not valid UTF-8", os.fsencode(path).decode(errors="replace")))
        if len(chunk) >= 1000:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


def _ingest(
    conn: sqlite3.Connection,
    command: str,
    arguments: dict[str, Any],
    chunks: Iterator[list[Row | BadRow]],
    pin_of: Callable[[Row], dict[str, Any]],
    on_rows: Callable[[int], None],
) -> dict[str, Any]:
    run_id = start_run(conn, command, arguments)
    before = conn.execute("SELECT count(*) FROM pins").fetchone()[0]
    read, taken, reasons, seen = 0, 0, Counter[str](), set[str]()
    for chunk in chunks:
        groups: dict[tuple[str, ...], list[dict[str, Any]]] = {}
        bad: list[tuple[str, int, str, str, int]] = []
        for row in chunk:
            reason, content = (row.reason, row.content) if isinstance(row, BadRow) else (None, "")
            if isinstance(row, Row):
                try:
                    pin = pin_of(row)
                    groups.setdefault(tuple(pin), []).append(pin)
                    continue
                except RowError as error:
                    reason, content = str(error), json.dumps(row.values, ensure_ascii=False, default=lambda v: type(v).__name__)
            assert reason is not None
            reasons[reason] += 1
            bad.append((redact_credentials(row.source), row.line, reason, _excerpt(content), run_id))
        with transaction(conn):
            for source in {row.source for row in chunk} - seen:
                conn.execute("DELETE FROM rejected_rows WHERE source = ?", [redact_credentials(source)])
                seen.add(source)
            for names, pins in groups.items():
                conn.executemany(_upsert(names), pins)
            conn.executemany("INSERT INTO rejected_rows (source, line, reason, content, run_id) VALUES (?, ?, ?, ?, ?)", bad)
        read += len(chunk)
        taken += len(chunk) - len(bad)
        on_rows(len(chunk))
    new = conn.execute("SELECT count(*) FROM pins").fetchone()[0] - before
    counts = {"rows_read": read, "pins": taken, "new": new, "updated": taken - new, "rejected": reasons.total(), "reasons": dict(reasons.most_common())}
    finish_run(conn, run_id, counts)
    return counts


def _upsert(names: tuple[str, ...]) -> str:
    changes = [f"{name} = excluded.{name}" for name in names if name not in ("pin_id", "image_sha256")]
    if "image_sha256" in names:  # what is known of a file stays known as long as the file looks the same
        changes.append(
            "image_sha256 = CASE WHEN excluded.image_sha256 IS NULL AND pins.image IS excluded.image"
            " AND pins.image_stamp IS excluded.image_stamp THEN pins.image_sha256 ELSE excluded.image_sha256 END"
        )
    changes.append("deleted_at = NULL")
    values = ", ".join(f":{name}" for name in names)
    return f"INSERT INTO pins ({', '.join(names)}) VALUES ({values}) ON CONFLICT (pin_id) DO UPDATE SET {', '.join(changes)}"


def _pin(row: Row, kind: str | None, image_root: Path | None) -> dict[str, Any]:
    """The pin's columns that a row sets. Raises RowError."""
    pin: dict[str, Any] = {}
    values = row.values
    pin["pin_id"] = _identifier(values.get("pin_id"))
    for name in ("title", "description", "category", "locale", "prompt"):
        if name in values:
            pin[name] = _text(name, values[name])
    if "title" in pin:
        pin["has_title"] = int(not says_nothing(pin["title"]))
    if "description" in pin:
        pin["has_description"] = int(not says_nothing(pin["description"]))
    if not is_missing(named := values.get("kind")):
        if named not in ("pin", "product"):
            raise RowError("kind is neither pin nor product")
        pin["kind"] = named
    elif kind:
        pin["kind"] = kind
    if "created_at" in values:
        pin["created_at"] = _time(values["created_at"])
    if "image" in values:
        pin["image"], pin["image_sha256"], pin["image_stamp"] = _image(values["image"], row.source, image_root)
    return pin


def _identifier(value: Any) -> str:
    if isinstance(value, float) and value.is_integer():  # pandas turns integers with gaps into floats
        value = int(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    text = _text("pin_id", value)
    if text is None or not text.strip():
        raise RowError("no pin_id")
    if len(text) > MAX_ID:
        raise RowError(f"pin_id is longer than {MAX_ID} characters")
    return text.strip()


def _text(name: str, value: Any) -> str | None:
    if is_missing(value):
        return None
    if value is NOT_TEXT:
        raise RowError("not valid UTF-8")
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        value = str(value)
    if not isinstance(value, str):
        raise RowError(f"{name} is not text")
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError:
            raise RowError("not valid UTF-8") from None
    return value.replace("\x00", "") if "\x00" in value else value


def _time(value: Any) -> str | None:
    """A moment as UTC ISO 8601 text; other text is kept as it is."""
    if isinstance(value, datetime):
        return value.replace(tzinfo=value.tzinfo or UTC).astimezone(UTC).isoformat().replace("+00:00", "Z")
    if isinstance(value, date):
        return value.isoformat()
    return _text("created_at", value)


def _image(value: Any, source: str, image_root: Path | None) -> tuple[str | None, str | None, str | None]:
    """Where the image is, the SHA-256 of its bytes if they are at hand, and a stamp that changes when it does."""
    if isinstance(value, ImageBytes):
        digest = hashlib.sha256(value.data).hexdigest()
        return reference(value.path, value.column, value.row), digest, digest
    text = _text("image", value)
    if text is None or not text.strip():
        return None, None, None
    text = text.strip()
    if text.lower().startswith("file://"):
        raise RowError("image is a file:// address: give the path alone")
    if _SCHEME.match(text):
        if text.startswith("parquet://"):  # ours alone: a row may not point into files of its choice
            raise RowError("image is an address that captioner does not read")
        return text, None, None
    base = image_root or (Path.cwd() if source == "-" else Path(source).absolute().parent)
    path = os.path.normpath(os.path.join(base, text))
    if image_root and not Path(path).is_relative_to(image_root):
        raise RowError("image lies outside --image-root")
    return path, None, file_stamp(path)


def file_stamp(path: str | Path) -> str | None:
    """Size and modification time of a file as text, or None where there is no file."""
    try:
        found = os.stat(path)
    except (OSError, ValueError):
        return None
    return f"{found.st_size}-{found.st_mtime_ns}"


def _excerpt(content: str) -> str:
    return PERSONAL_DATA.sub("[redacted]", content[:2000])[:300].encode(errors="replace").decode()
