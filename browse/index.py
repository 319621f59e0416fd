"""A copy of what the pages show of every pin, beside the store: it is searched, counted and paged through
without a join.

`STORE.browse` is a SQLite file with one table, its facets in an index and its texts in a full-text index. It
is brought up to date by comparing every row, never by what changed when: whatever happened to the store, the
copy then says the same. It may be deleted at any time.
"""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path

from ..common.terminal import OnStep, no_step
from ..store import rules
from ..store.connection import BUSY_SECONDS, CACHE_KIB, Mode, transaction, uri

VERSION = 1  # of what stands below: a copy of another version is made anew
CHUNK = 10_000  # pins compared in one transaction
MAX_TEXT = 2_000  # characters kept of a text

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
_UNINDEX = f"INSERT INTO pins_fts (pins_fts, rowid, {_SEARCHED}) VALUES ('delete', old.rowid, {', '.join(f'old.{name}' for name in SEARCHED)});"
_INDEX = f"INSERT INTO pins_fts (rowid, {_SEARCHED}) VALUES (new.rowid, {', '.join(f'new.{name}' for name in SEARCHED)});"

# Cn: characters that are younger than SQLite's Unicode are parts of words as well.
_SCHEMA = f"""
CREATE TABLE pins ({", ".join(f"{name} TEXT" for name in COLUMNS)}, PRIMARY KEY (pin_id));
CREATE INDEX pins_facets ON pins (status, reason, category, kind, texts);
CREATE VIRTUAL TABLE pins_fts USING fts5({_SEARCHED}, content='pins', tokenize="unicode61 remove_diacritics 2 categories 'L* M* N* Co Cn'");
CREATE TRIGGER pins_added AFTER INSERT ON pins BEGIN {_INDEX} END;
CREATE TRIGGER pins_gone AFTER DELETE ON pins BEGIN {_UNINDEX} END;
CREATE TRIGGER pins_changed AFTER UPDATE ON pins BEGIN {_UNINDEX} {_INDEX} END;
CREATE TABLE no_picture (pin_id TEXT PRIMARY KEY, image TEXT, image_stamp TEXT, reason TEXT, tried_at TEXT);
PRAGMA user_version = {VERSION};
"""

# One row per pin that is not deleted. Its caption is the one of `enriched_features`; without one that holds,
# its newest row says why.
_PINS = f"""
    SELECT pin_id, picture, kind, category, locale, status, reason,
        coalesce(nullif(rtrim(iif(title IS NULL AND description IS NULL, '', 'own text, ') || iif(caption IS NULL, '', 'caption, ')
            || iif(titles IS NULL, '', 'board titles, ') || iif(queries IS NULL, '', 'queries, '), ', '), ''), 'none') AS texts,
        rejected_text, title, description, caption, titles, queries
    FROM (
        SELECT p.pin_id, t.image_sha256 AS picture, p.kind, p.category, p.locale,
            CASE WHEN c.status = 'ok' AND {rules.is_stale()} THEN 'stale' ELSE coalesce(c.status, 'none') END AS status,
            c.reason, CASE WHEN c.status = 'rejected' THEN substr(c.text, 1, {MAX_TEXT}) END AS rejected_text,
            substr({rules.title()}, 1, {MAX_TEXT}) AS title,
            substr({rules.description()}, 1, {MAX_TEXT}) AS description,
            CASE WHEN {rules.is_valid()} THEN substr(c.text, 1, {MAX_TEXT}) END AS caption,
            nullif(b.titles, '[]') AS titles, nullif(q.queries, '[]') AS queries
        FROM store.pins p
        LEFT JOIN store.captions c ON c.pin_id = p.pin_id AND c.recipe_id = coalesce(
            {rules.current_recipe(captions="store.captions")}, {rules.newest_recipe(captions="store.captions")})
        LEFT JOIN store.board_titles b ON b.pin_id = p.pin_id
        LEFT JOIN store.engaged_queries q ON q.pin_id = p.pin_id
        LEFT JOIN store.thumbnails t ON t.image_sha256 = p.image_sha256
        WHERE p.deleted_at IS NULL AND p.rowid > :after AND p.rowid <= :upto)"""
_COPY = f"""
    INSERT INTO pins ({", ".join(COLUMNS)}) {_PINS} WHERE true
    ON CONFLICT (pin_id) DO UPDATE SET ({", ".join(COLUMNS)}) = ({", ".join(f"excluded.{name}" for name in COLUMNS)})
    WHERE ({", ".join(f"pins.{name}" for name in COLUMNS)}) IS NOT ({", ".join(f"excluded.{name}" for name in COLUMNS)})"""
_DROP = "DELETE FROM pins WHERE NOT EXISTS (SELECT 1 FROM store.pins p WHERE p.pin_id = pins.pin_id AND p.deleted_at IS NULL)"
_NEXT = (
    "SELECT max(rowid) FROM (SELECT rowid FROM store.pins WHERE rowid > :after ORDER BY rowid LIMIT :chunk)"
)


def open_index(path: Path, store: Path, mode: Mode = "mode=ro") -> sqlite3.Connection:
    """The copy at `path`, made if need be, with the store attached for reading.

    One that is damaged or of another version is made anew.
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


def _open(path: Path, store: Path) -> sqlite3.Connection:
    path.touch(mode=store.stat().st_mode & 0o066 | 0o600)  # no less private than the store
    conn = sqlite3.connect(
        uri(path, "mode=rwc"),
        uri=True,
        timeout=BUSY_SECONDS,
        isolation_level=None,
        check_same_thread=False,
    )
    with contextlib.ExitStack() as unless_it_opens:
        unless_it_opens.callback(conn.close)
        conn.row_factory = sqlite3.Row
        conn.execute("PRAGMA journal_mode = WAL")
        conn.execute("PRAGMA synchronous = OFF")  # what a power cut takes is made anew
        conn.execute(f"PRAGMA cache_size = -{CACHE_KIB}")
        with transaction(conn):
            version = conn.execute("PRAGMA user_version").fetchone()[0]
            if version == 0:
                for statement in _SCHEMA.split(";\n"):
                    conn.execute(statement)
            elif version != VERSION:
                raise sqlite3.DatabaseError("made by another version")
        unless_it_opens.pop_all()
    return conn


def refresh(conn: sqlite3.Connection, on_step: OnStep = no_step) -> int:
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
