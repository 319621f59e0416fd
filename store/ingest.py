"""Pins into the store: from tables (`ingest_pins`) and from folders of images (`ingest_images`)."""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from decimal import Decimal
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any

from ..filters.text import says_nothing
from .parquet_images import reference
from .runs import finish_run, redact_credentials, start_run
from .schema import transaction
from .sources import BadRow, ImageBytes, Rows, SourceError, Unreadable, check_columns, find_sources, is_missing, read_tables

FIELDS = ("pin_id", "title", "description", "image", "kind", "category", "locale", "created_at", "prompt")
IMAGE_ENDINGS = {
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".jp2", ".j2k", ".jpx", ".png", ".apng", ".gif", ".webp", ".avif", ".avifs", ".heic", ".heif"),
    *(".bmp", ".dib", ".tif", ".tiff", ".ico", ".ppm", ".pgm", ".pbm", ".pnm", ".tga", ".qoi"),
}
MAX_ID = 4096  # characters, as many as a path may have
ROWS_PER_COMMIT = 20_000
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://|data:", re.IGNORECASE)
_TELEPHONE = re.compile(r"(?:\+?\d[\s()./-]{0,3}){9,}")


class RowError(Exception):
    """Why a row is rejected: a short text of few kinds, to be counted."""


@dataclass(slots=True)
class _Pins:
    """Pins ready for the store: a tuple for each, of the columns `names`; and the rows that are none."""

    names: tuple[str, ...] = ()
    pins: Sequence[tuple[Any, ...]] = ()
    bad: list[BadRow] = field(default_factory=list)


def check_sources(sources: Iterable[str], *, image_root: str | Path | None = None, columns: Mapping[str, str] | None = None) -> None:
    """Looks whether `ingest_pins` can read these: files, headers, the folder of images. Raises SourceError."""
    if unknown := set(columns or {}) - set(FIELDS):
        raise SourceError(f"--map names no field of a pin: {', '.join(sorted(unknown))}; the fields are {', '.join(FIELDS)}")
    if image_root and not os.path.isdir(_absolute(image_root)):
        raise SourceError(f"--image-root {image_root} is not a folder")
    check_columns(sources, FIELDS, columns or {}, "pin_id")


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
    {"rows_read", "pins", "new", "updated", "rejected", "reasons"}. Raises SourceError, as a rule before anything is written.
    """
    sources, columns = list(sources), dict(columns or {})
    check_sources(sources, image_root=image_root, columns=columns)
    root = _absolute(image_root) if image_root else None
    arguments = {"sources": sources, "kind": kind, "image_root": root, "map": columns}
    tables = read_tables(sources, FIELDS, columns, "pin_id")
    batches = (_Pins(bad=[rows]) if isinstance(rows, BadRow) else _pins(rows, kind, root) for rows in tables)
    return _ingest(conn, "ingest pins", arguments, find_sources(sources), batches, on_rows)


def ingest_images(conn: sqlite3.Connection, folder: str | Path, *, on_rows: Callable[[int], None] = lambda n: None) -> dict[str, Any]:
    """Every file below `folder` with an image's ending becomes a pin, readable or not; pin_id is the relative path.

    Links to files are followed, links to folders are not. Returns the counts of `ingest_pins` and "skipped", the number
    of other files. Raises SourceError.
    """
    top = _absolute(folder)
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
            elif _is_unicode(path):
                found.append((os.path.relpath(path, top), path, None, file_stamp(path)))
            else:
                bad.append(BadRow(top, None, "the file's name is not valid UTF-8", path))
        yield _Pins(("pin_id", "image", "image_sha256", "image_stamp"), found, bad)
    yield _Pins(bad=[BadRow(top, None, "the folder cannot be read", str(error.filename)) for error in errors])


def _ingest(conn: sqlite3.Connection, command: str, arguments: dict[str, Any], sources: Sequence[str], batches: Iterable[_Pins], on_rows: Callable[[int], None]) -> dict[str, Any]:
    run_id = start_run(conn, command, arguments)
    before = conn.execute("SELECT count(*) FROM pins").fetchone()[0]
    with transaction(conn):
        conn.executemany("DELETE FROM rejected_rows WHERE source = ?", [(_source_name(source),) for source in sources])
    taken, reasons = 0, Counter[str]()
    waiting: list[_Pins] = []
    rows_waiting = 0
    for batch in batches:
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
    counts = {"rows_read": taken + rejected, "pins": taken, "new": new, "updated": taken - new, "rejected": rejected, "reasons": dict(reasons.most_common())}
    finish_run(conn, run_id, counts)
    return counts


def _write(conn: sqlite3.Connection, batches: Iterable[_Pins], run_id: int) -> None:
    with transaction(conn):
        for batch in batches:
            if batch.pins:
                conn.executemany(_upsert(batch.names), batch.pins)
            conn.executemany(
                "INSERT INTO rejected_rows (source, line, reason, content, run_id) VALUES (?, ?, ?, ?, ?)",
                [(_source_name(row.source), row.line, row.reason, _excerpt(row.content), run_id) for row in batch.bad],
            )


def _upsert(names: tuple[str, ...]) -> str:
    value = {name: f"?{i}" for i, name in enumerate(names, 1)}
    changes = {name: f"excluded.{name}" for name in names if name != "pin_id"}
    if "kind" in names:  # a row that names none changes none
        changes["kind"] = f"coalesce({value['kind']}, pins.kind)"
        value["kind"] = f"coalesce({value['kind']}, 'pin')"
    if "image_sha256" in names:  # what is known of a file stays known as long as the file looks the same
        changes["image_sha256"] = """CASE WHEN excluded.image_sha256 IS NULL AND pins.image IS excluded.image AND pins.image_stamp IS excluded.image_stamp
            THEN pins.image_sha256 ELSE excluded.image_sha256 END"""
    changes["deleted_at"] = "NULL"
    return f"""INSERT INTO pins ({", ".join(names)}) VALUES ({", ".join(value.values())})
        ON CONFLICT (pin_id) DO UPDATE SET {", ".join(f"{name} = {new}" for name, new in changes.items())}"""


def _pins(rows: Rows, kind: str | None, image_root: str | None) -> _Pins:
    """The pins of some rows, made column by column: most columns need no look at single cells."""
    found, reasons = rows.columns, dict[int, str]()
    n = len(rows.lines)
    pins: dict[str, Sequence[Any]] = {"pin_id": _cells(_identifier, found.get("pin_id", [None] * n), reasons)}
    for name in ("title", "description", "category", "locale", "prompt"):
        if name in found:
            pins[name] = _texts(name, found[name], reasons)
    for name in ("title", "description"):
        if name in found:
            pins[f"has_{name}"] = [not says_nothing(text) for text in pins[name]]
    if "kind" in found:
        pins["kind"] = _cells(lambda value: _kind(value, kind), found["kind"], reasons)
    elif kind:
        pins["kind"] = [kind] * n
    if "created_at" in found:
        pins["created_at"] = _cells(_time, found["created_at"], reasons)
    if "image" in found:
        base = image_root or os.path.dirname(_absolute(rows.source if rows.source != "-" else "stdin"))
        images = _cells(lambda value: _image(value, base, image_root), found["image"], reasons)
        pins["image"], pins["image_sha256"], pins["image_stamp"] = zip(*(image or (None, None, None) for image in images), strict=True)
    ready = list(zip(*pins.values(), strict=True))
    bad = []
    if reasons:
        ready = [pin for i, pin in enumerate(ready) if i not in reasons]
        for i, reason in sorted(reasons.items()):
            content = json.dumps({name: column[i] for name, column in found.items()}, ensure_ascii=False, default=lambda value: type(value).__name__)
            bad.append(BadRow(rows.source, rows.lines[i], reason, content))
    return _Pins(tuple(pins), ready, bad)


def _cells(convert: Callable[[Any], Any], values: Sequence[Any], reasons: dict[int, str]) -> list[Any]:
    """`convert` for each value; why it refuses some goes to `reasons`, by row."""
    converted = []
    for i, value in enumerate(values):
        try:
            converted.append(convert(value))
        except RowError as error:
            converted.append(None)
            reasons.setdefault(i, str(error))
    return converted


def _texts(name: str, values: Sequence[Any], reasons: dict[int, str]) -> list[Any]:
    if {*map(type, values)} <= {str, type(None)}:
        together = "".join(filter(None, values))
        if "\0" not in together and _is_unicode(together):
            return [value or None for value in values]
    return _cells(lambda value: _text(name, value), values, reasons)


def _text(name: str, value: Any) -> str | None:
    if type(value) is str and value.isascii() and "\0" not in value:
        return value or None
    if is_missing(value):
        return None
    if isinstance(value, Unreadable):
        raise RowError(value.reason)
    if isinstance(value, (int, float, Decimal)) and not isinstance(value, bool):
        value = str(value)
    if not isinstance(value, str):
        raise RowError(f"{name} is not text")
    if not _is_unicode(value):
        raise RowError("not valid UTF-8")
    return value.replace("\0", "") or None


def _is_unicode(text: str) -> bool:
    """False for text with lone surrogates, which is how Python holds bytes that are no UTF-8."""
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _identifier(value: Any) -> str:
    if isinstance(value, (float, Decimal)) and not is_missing(value):
        # pandas turns integers with gaps into floats, databases export them as decimals.
        if not math.isfinite(value) or value != int(value):
            raise RowError("pin_id is neither text nor a whole number")
        if isinstance(value, float) and abs(value) > 2**53:
            raise RowError("pin_id is a float too large to be exact: write it as text")
        value = int(value)
    text = _text("pin_id", value)
    if text is None or not text.strip():
        raise RowError("no pin_id")
    if len(text) > MAX_ID:
        raise RowError(f"pin_id is longer than {MAX_ID} characters")
    return text


def _kind(value: Any, default: str | None) -> str | None:
    if value in ("pin", "product"):
        return str(value)
    if is_missing(value):
        return default
    raise RowError("kind is neither pin nor product")


def _time(value: Any) -> str | None:
    """A moment as UTC ISO 8601 text, a date as it is. Without a zone it is in UTC; numbers are seconds or milliseconds since 1970.

    Besides ISO 8601, what mail and HTTP write ("Sun, 04 Apr 2021 05:43:58 +0000") is understood.
    """
    if is_missing(value):
        return None
    try:
        if isinstance(value, str) and value.strip().isdecimal() and len(value.strip()) > 8:
            value = int(value)
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            value = datetime.fromtimestamp(value / 1000 if abs(value) > 1e11 else value, UTC)
        if isinstance(value, str):
            text = value.strip().removesuffix(" UTC")
            if text[:3].isalpha():
                value = parsedate_to_datetime(text)
            else:
                value = date.fromisoformat(text) if len(text) <= 10 else datetime.fromisoformat(text)
        if isinstance(value, datetime):
            return (value.astimezone(UTC) if value.tzinfo else value).replace(tzinfo=None).isoformat() + "Z"
        if isinstance(value, date):
            return value.isoformat()
    except (ValueError, OverflowError, OSError):
        pass
    raise RowError(value.reason if isinstance(value, Unreadable) else "created_at is no date or time such as 2024-05-31T12:00:00Z")


def _image(value: Any, base: str, image_root: str | None) -> tuple[str | None, str | None, str | None]:
    """Where the image is, the SHA-256 of its bytes if they are at hand, and a stamp that changes when it does."""
    if isinstance(value, ImageBytes):
        digest = hashlib.sha256(value.data).hexdigest()
        return reference(value.path, value.column, value.row), digest, digest
    text = (_text("image", value) or "").strip()
    if not text:
        return None, None, None
    if ":" in text and (address := _SCHEME.match(text)):
        if address[0].lower() == "file://":
            raise RowError("image is a file:// address: give the path alone")
        if address[0].lower() in ("parquet://", "data:"):  # parquet:// is ours: a row may not point into files of its choice
            raise RowError("image is an address that captioner does not read")
        return text, None, None
    path = os.path.normpath(text if text.startswith("/") else f"{base}/{text}")
    if image_root and not path.startswith(image_root.rstrip("/") + "/"):
        raise RowError("image lies outside --image-root")
    if not _is_unicode(path):
        raise RowError("the image's folder has a name that is not valid UTF-8")
    return path, None, file_stamp(path)


def _absolute(path: str | Path) -> str:
    return os.path.abspath(os.path.expanduser(path))


def file_stamp(path: str | Path) -> str | None:
    """Size and modification time of a file as text, or None where there is no file."""
    try:
        found = os.stat(path)
    except (OSError, ValueError):
        return None
    return f"{found.st_size}-{found.st_mtime_ns}"


def _source_name(source: str) -> str:
    """How `rejected_rows` names a source, however it was written on the command line."""
    name = source if source == "-" else _absolute(source)
    return redact_credentials(os.fsencode(name).decode(errors="replace"))


def _excerpt(content: str) -> str:
    """The start of a row without what looks like an e-mail address, a link or a telephone number."""
    content = _TELEPHONE.sub("[redacted]", content[:2000].encode(errors="replace").decode())
    return re.sub(r"\S+", lambda word: "[redacted]" if any(mark in word[0].lower() for mark in ("@", "://", "www.")) else word[0], content)[:300]
