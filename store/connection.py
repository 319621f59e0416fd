"""How a store is opened and written to: migrations applied, WAL mode, transactions."""

from __future__ import annotations

import os
import re
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from ..common.errors import PincaptionError
from .schema import MIGRATION_SET, MIGRATIONS

# how long a writer waits for another: results of an aggregation of 80 million saves take a minute to write
BUSY_SECONDS = 300
# pins come in any order of their ids: with SQLite's 2 MB every other one would touch the disk
CACHE_KIB = 65_536

Connection = sqlite3.Connection


class StoreError(PincaptionError):
    """The store cannot be used; the message says why and what to do."""


def now() -> str:
    """The time in UTC as ISO 8601 text with microseconds; sorts as text."""
    return datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def open_store(path: str | Path, *, create: bool = False) -> sqlite3.Connection:
    """Opens a store for reading and writing, in autocommit mode: write inside `transaction`.

    With `create` a missing file is made. Migrations that the store has not seen are applied.
    Raises StoreError for a missing file, a file that is no store, or one that a newer version wrote.
    """
    path = Path(path)
    try:
        path.stat()
    except PermissionError:
        raise StoreError(f"{path} cannot be opened: you may not look into the folder {path.parent}") from None
    except OSError:
        pass
    if path.is_dir():
        raise StoreError(f"{path} is a folder: name a SQLite file, for instance {path / 'my.db'}")
    if not path.exists():
        if not create:
            raise StoreError(
                f"{path} does not exist: make a store with `captioner ingest images {path} DIR` or `captioner ingest pins {path} SOURCE`"
            )
        if not path.parent.is_dir():
            raise StoreError(
                f"the folder {path.parent} does not exist: make it first, or choose another place for the store"
            )
    conn: sqlite3.Connection | None = None
    try:
        conn = sqlite3.connect(path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False)
        conn.row_factory = sqlite3.Row
        conn.execute(f"PRAGMA cache_size = -{CACHE_KIB}")
        conn.execute("PRAGMA synchronous = FULL")
        _migrate(conn, path, create)
    except (sqlite3.Error, StoreError) as error:
        if conn:
            conn.close()
        if isinstance(error, StoreError):
            raise
        raise StoreError(f"{path} {_why_not(path, str(error))}") from error
    return conn


def _why_not(path: Path, message: str) -> str:
    if "not a database" in message:
        return "is not a SQLite file: name another one"
    if "malformed" in message:
        return "is damaged: take a copy from before, or rescue what is left with `sqlite3 FILE .recover`"
    if path.exists() and not os.access(path, os.R_OK):
        return "cannot be read: you lack the permission"
    if "unable to open" in message or "readonly" in message:
        return f"cannot be opened: SQLite writes files beside the store, so the file and the folder {path.parent} must be writable to you"
    return f"cannot be opened: {message}"


def _migrate(conn: sqlite3.Connection, path: Path, create: bool) -> None:
    if _pending(conn, path, create):
        # Imported here alone: with pandas installed it takes longer to import than `captioner stats` takes to
        # run.
        from sqlite_utils import Database
        from sqlite_utils.migrations import Migrations

        migrations = Migrations(MIGRATION_SET)
        for name, script in MIGRATIONS.items():
            migrations(name=name)(lambda db, script=script: [db.conn.execute(s) for s in _statements(script)])
        with transaction(conn):
            if _pending(conn, path, create):  # another process may just have done the same
                migrations.apply(Database(conn))
    # After the tables: a file that turns out to be somebody else's is left as it is.
    if conn.execute("PRAGMA journal_mode").fetchone()[0] != "wal":
        _begin_wal(conn)


def _pending(conn: sqlite3.Connection, path: Path, create: bool) -> bool:
    """Whether migrations are to be applied. Raises StoreError if this is no store of ours."""
    applied = _applied(conn)
    if unknown := applied - set(MIGRATIONS):
        raise StoreError(
            f"{path} was written by a newer version of captioner ({', '.join(sorted(unknown))}): upgrade captioner"
        )
    if not applied and not create:
        raise StoreError(f"{path} is a SQLite file but not a captioner store: `captioner ingest` makes one")
    if not applied and (
        tables := conn.execute(
            "SELECT name FROM sqlite_master WHERE type IN ('table', 'view') AND name NOT LIKE 'sqlite_%'"
        ).fetchall()
    ):
        ours = " ".join(MIGRATIONS.values())
        if taken := [
            row["name"]
            for row in tables
            if re.search(rf"CREATE (TABLE|VIEW) {re.escape(row['name'])}\b", ours)
        ]:
            raise StoreError(
                f"{path} already has a table named {taken[0]} that captioner did not make: choose another file"
            )
    return applied != set(MIGRATIONS)


def _begin_wal(conn: sqlite3.Connection) -> None:
    """WAL mode stays with the file.

    SQLite does not wait for other processes at this one step, so it is done here.
    """
    for patience in range(BUSY_SECONDS * 20):
        try:
            conn.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or patience == BUSY_SECONDS * 20 - 1:
                raise
            time.sleep(0.05)


def _applied(conn: sqlite3.Connection) -> set[str]:
    try:
        return {
            row[0]
            for row in conn.execute(
                "SELECT name FROM _sqlite_migrations WHERE migration_set = ?", [MIGRATION_SET]
            )
        }
    except sqlite3.OperationalError as error:
        if "no such table" in str(error):
            return set()
        raise


def _statements(script: str) -> Iterator[str]:
    statement = ""
    for line in script.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""


@contextmanager
def transaction(conn: sqlite3.Connection) -> Iterator[sqlite3.Connection]:
    """All or nothing; takes the write lock at once, so that what is read inside stays true until the commit."""
    conn.execute("BEGIN IMMEDIATE")
    try:
        yield conn
    except BaseException:
        conn.execute("ROLLBACK")
        raise
    conn.execute("COMMIT")


@contextmanager
def one_moment(conn: sqlite3.Connection) -> Iterator[sqlite3.Connection]:
    """Everything read inside is as it was at one moment, whoever writes meanwhile; within another one, or a
    transaction, it is part of that.
    """
    if conn.in_transaction:
        yield conn
        return
    conn.execute("BEGIN")
    try:
        yield conn
    finally:
        conn.execute("COMMIT")
