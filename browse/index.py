"""The searchable copy: what the pages show of every pin, in a file beside the store.

The pages search, count and page through the copy without a join. `STORE.browse` is a SQLite file with one
table, an index of its facets and a full-text index. `refresh` compares every row, so the copy is right
whatever happened to the store. The file may be deleted at any time.
"""

from __future__ import annotations

import contextlib
import sqlite3
import time
from pathlib import Path

from ..common.terminal import OnStep, no_step, say
from ..store import rules
from ..store.connection import CACHE_KIB, Connection, Mode, transaction, uri
from ..store.waiting import PatientConnection

VERSION = 1  # of the tables below: a copy of another version is replaced
CHUNK = 10_000  # pins compared in one transaction
LOOK_EVERY = 3.0  # seconds between two checks whether the store has changed
REST = 10  # after a refresh there is a pause of so many times its duration
MAX_TEXT = 2_000  # characters kept of a text
BY_PERSON = "by a person"

SEARCHED = ("title", "description", "caption", "board_titles", "engaged_queries")
COLUMNS = (
    "pin_id",
    "picture",
    "kind",
    "category",
    "locale",
    "status",
    "reason",
    "texts",
    "rejected_text",
    *SEARCHED,
)
_SEARCHED = ", ".join(SEARCHED)
_OLD_TEXTS, _NEW_TEXTS = (", ".join(f"{row}.{name}" for name in SEARCHED) for row in ("old", "new"))
_UNINDEX = f"INSERT INTO pins_fts (pins_fts, rowid, {_SEARCHED}) VALUES ('delete', old.rowid, {_OLD_TEXTS});"
_INDEX = f"INSERT INTO pins_fts (rowid, {_SEARCHED}) VALUES (new.rowid, {_NEW_TEXTS});"

# Category Cn: characters that SQLite does not know yet are parts of words, too.
_SCHEMA = f"""
CREATE TABLE pins ({", ".join(f"{name} TEXT" for name in COLUMNS)}, PRIMARY KEY (pin_id));
CREATE INDEX pins_facets ON pins (status, reason, category, kind, texts);
CREATE VIRTUAL TABLE pins_fts USING fts5({_SEARCHED}, content='pins',
    tokenize="unicode61 remove_diacritics 2 categories 'L* M* N* Co Cn'");
CREATE TRIGGER pins_added AFTER INSERT ON pins BEGIN {_INDEX} END;
CREATE TRIGGER pins_gone AFTER DELETE ON pins BEGIN {_UNINDEX} END;
CREATE TRIGGER pins_changed AFTER UPDATE ON pins BEGIN {_UNINDEX} {_INDEX} END;
CREATE TABLE no_picture (pin_id TEXT PRIMARY KEY, image TEXT, image_stamp TEXT, reason TEXT, tried_at TEXT);
PRAGMA user_version = {VERSION};
"""

# One row per pin that is not deleted. Its caption is that of `enriched_features`. If it has none, its newest
# row in `captions` says why. The status of a caption that a person wrote is BY_PERSON.
_PINS = f"""
    SELECT pin_id, picture, kind, category, locale, status, reason,
        coalesce(nullif(rtrim(
            iif(title IS NULL AND description IS NULL, '', 'own text, ')
            || iif(caption IS NULL, '', 'caption, ') || iif(titles IS NULL, '', 'board titles, ')
            || iif(queries IS NULL, '', 'queries, '),
            ', '), ''), 'none') AS texts,
        rejected_text, title, description, caption, titles, queries
    FROM (
        SELECT p.pin_id, t.image_sha256 AS picture, p.kind, p.category, p.locale,
            CASE WHEN h.pin_id IS NOT NULL THEN '{BY_PERSON}'
                WHEN c.status = 'ok' AND {rules.is_stale()} THEN 'stale'
                ELSE coalesce(c.status, 'none') END AS status,
            c.reason, CASE WHEN c.status = 'rejected' THEN substr(c.text, 1, {MAX_TEXT}) END AS rejected_text,
            substr({rules.title()}, 1, {MAX_TEXT}) AS title,
            substr({rules.description()}, 1, {MAX_TEXT}) AS description,
            CASE WHEN h.pin_id IS NOT NULL THEN substr(h.text, 1, {MAX_TEXT})
                WHEN {rules.is_valid()} THEN substr(c.text, 1, {MAX_TEXT}) END AS caption,
            nullif(b.titles, '[]') AS titles, nullif(q.queries, '[]') AS queries
        FROM store.pins p
        LEFT JOIN store.captions_by_people h ON h.pin_id = p.pin_id
        LEFT JOIN store.captions c ON h.pin_id IS NULL AND c.pin_id = p.pin_id AND c.recipe_id = coalesce(
            {rules.current_recipe(captions="store.captions")},
            {rules.newest_recipe(captions="store.captions")})
        LEFT JOIN store.board_titles b ON b.pin_id = p.pin_id
        LEFT JOIN store.engaged_queries q ON q.pin_id = p.pin_id
        LEFT JOIN store.thumbnails t ON t.image_sha256 = p.image_sha256
        WHERE p.deleted_at IS NULL AND p.rowid > :after AND p.rowid <= :upto)"""
_COLUMNS = ", ".join(COLUMNS)
_NEW, _OLD = (", ".join(f"{table}.{name}" for name in COLUMNS) for table in ("excluded", "pins"))
_COPY = f"""
    INSERT INTO pins ({_COLUMNS}) {_PINS} WHERE true
    ON CONFLICT (pin_id) DO UPDATE SET ({_COLUMNS}) = ({_NEW}) WHERE ({_OLD}) IS NOT ({_NEW})"""
_DROP = """
    DELETE FROM pins WHERE NOT EXISTS (
        SELECT 1 FROM store.pins p WHERE p.pin_id = pins.pin_id AND p.deleted_at IS NULL)"""
_NEXT = (
    "SELECT max(rowid) FROM (SELECT rowid FROM store.pins WHERE rowid > :after ORDER BY rowid LIMIT :chunk)"
)


def open_index(path: Path, store: Path, mode: Mode = "mode=ro") -> Connection:
    """Opens the copy at `path`, with the store attached for reading as `store`.

    A copy that is missing, damaged or of another version is replaced by an empty one.
    """
    try:
        conn = _open(path, store)
    except sqlite3.DatabaseError as error:
        if isinstance(error, sqlite3.OperationalError):
            raise
        for suffix in ("", "-wal", "-shm"):
            path.with_name(path.name + suffix).unlink(missing_ok=True)
        conn = _open(path, store)
    conn.execute("ATTACH ? AS store", [uri(store, mode)])
    return conn


def _open(path: Path, store: Path) -> Connection:
    path.touch(mode=store.stat().st_mode & 0o066 | 0o600)  # as private as the store
    conn = PatientConnection(uri(path, "mode=rwc"), uri=True, isolation_level=None, check_same_thread=False)
    with contextlib.ExitStack() as on_error:
        on_error.callback(conn.close)
        conn.row_factory = sqlite3.Row
        conn.execute("PRAGMA journal_mode = WAL")
        conn.execute("PRAGMA synchronous = OFF")  # a copy that a power cut damages is replaced
        conn.execute(f"PRAGMA cache_size = -{CACHE_KIB}")
        with transaction(conn):
            version = conn.execute("PRAGMA user_version").fetchone()[0]
            if version == 0:
                for statement in _SCHEMA.split(";\n"):
                    conn.execute(statement)
            elif version != VERSION:
                raise sqlite3.DatabaseError("the copy is of another version")
        on_error.pop_all()
    return conn


def refresh(conn: Connection, on_step: OnStep = no_step) -> int:
    """Brings the copy up to date, and returns how many of its rows changed."""
    before, done, after = conn.total_changes, 0, -1
    total = conn.execute("SELECT count(*) FROM store.pins").fetchone()[0]
    while (upto := conn.execute(_NEXT, {"after": after, "chunk": CHUNK}).fetchone()[0]) is not None:
        with transaction(conn):
            conn.execute(_COPY, {"after": after, "upto": upto})
        after, done = upto, done + CHUNK
        on_step("texts to be searched", min(done, total), total)
    with transaction(conn):
        conn.execute(_DROP)
    return conn.total_changes - before


def keep_current(path: Path, store: Path, mode: Mode = "mode=ro") -> None:
    """Refreshes the copy whenever the store has changed. It never returns: run it in a thread of its own."""
    conn, seen = open_index(path, store, mode), None
    while True:
        began = time.monotonic()
        try:
            version = conn.execute("PRAGMA store.data_version").fetchone()[0]
            if version != seen:
                refresh(conn)
                seen = version
        except sqlite3.Error as error:
            say(f"the pages cannot be brought up to date for now: {error}")
        time.sleep(max(LOOK_EVERY, REST * (time.monotonic() - began)))


def pictures_and_pins(conn: Connection) -> tuple[int, int]:
    """How many pins of the copy have a picture, and how many pins it has."""
    pictures, pins = conn.execute("SELECT count(picture), count(*) FROM pins").fetchone()
    return pictures, pins


def connect_read_only(path: Path, mode: Mode) -> Connection:
    """A connection of its own for a page, which can only read."""
    conn = sqlite3.connect(uri(path, mode), uri=True, check_same_thread=False)
    conn.execute("PRAGMA query_only = 1")
    return conn
