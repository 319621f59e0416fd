"""How a store is opened, for writing or only for reading, and how transactions are written."""

from __future__ import annotations

import os
import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from ..common.errors import PincaptionError
from ..common.terminal import short_name
from .schema import MIGRATION_SET, MIGRATIONS
from .waiting import PatientConnection

# SQLite's page cache is 2 MB by default. Pins arrive in any order of their ids, so with so little memory
# every other pin would be read from the disk.
CACHE_KIB = 65_536

Connection = sqlite3.Connection
# How SQLite opens a file: "mode=ro" does not write to it, "mode=rwc" makes it if it is missing. "immutable=1"
# does not write to it either, needs no files beside it, and assumes that nobody writes to it meanwhile.
Mode = Literal["mode=ro", "mode=rwc", "immutable=1"]


class StoreError(PincaptionError):
    """The store cannot be used; the message says why and what to do."""


def now() -> str:
    """The time in UTC as ISO 8601 text with microseconds; sorts as text."""
    return datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def open_store(path: str | Path, *, create: bool = False, read_only: bool = False) -> Connection:
    """Opens a store, in autocommit mode: write inside `transaction`.

    `create` makes a missing store. Migrations that the store has not seen are applied.
    `read_only` writes nothing and applies no migration. It also opens a store on a read-only disk, or one
    that belongs to another user. Tables that a store of an older version lacks are then empty.
    Raises StoreError for a missing file, a file that is not a store, and a store of a newer version.
    """
    path = Path(path)
    _check_path(path, create)
    conn: Connection | None = None
    try:
        if read_only and not is_writable(path):
            mode = read_only_mode(path)
            conn = PatientConnection(uri(path, mode), uri=True, isolation_level=None, check_same_thread=False)
        else:
            conn = PatientConnection(path, isolation_level=None, check_same_thread=False)
        conn.row_factory = sqlite3.Row
        conn.execute(f"PRAGMA cache_size = -{CACHE_KIB}")
        if read_only:
            _stand_in_for_missing_tables(conn, path)
            if is_writable(path):
                # The connection itself may write, so that its last one removes SQLite's files beside the
                # store; a connection with mode=ro would leave them there.
                conn.execute("PRAGMA query_only = 1")
        else:
            conn.execute("PRAGMA synchronous = FULL")
            _migrate(conn, path, create)
    except (sqlite3.Error, StoreError) as error:
        if conn:
            conn.close()
        if isinstance(error, StoreError):
            raise
        raise StoreError(f"{path} {_why_not(path, str(error), read_only)}") from error
    return conn


def _check_path(path: Path, create: bool) -> None:
    try:
        path.stat()
    except PermissionError:
        raise StoreError(f"{path} cannot be opened: you may not look into the folder {path.parent}") from None
    except OSError:
        pass
    if path.is_dir():
        raise StoreError(f"{path} is a folder: name a SQLite file, for instance {path / 'my.db'}")
    if path.exists():
        return
    if not create:
        raise StoreError(
            f"{path} does not exist: make a store with `captioner ingest images {path} DIR`"
            f" or `captioner ingest pins {path} SOURCE`"
        )
    if not path.parent.is_dir():
        raise StoreError(
            f"the folder {path.parent} does not exist: make it first, or choose another place for the store"
        )


def _why_not(path: Path, message: str, read_only: bool = False) -> str:
    """The end of a sentence about a store that SQLite cannot open; it begins with the path."""
    if "not a database" in message:
        return "is not a SQLite file: name another one"
    if "malformed" in message:
        return "is damaged: take a copy from before, or rescue what is left with `sqlite3 FILE .recover`"
    if path.exists() and not os.access(path, os.R_OK):
        return "cannot be read: you lack the permission"
    if not read_only and ("unable to open" in message or "readonly" in message):
        return (
            "cannot be opened: SQLite writes files beside the store, so the file and the folder"
            f" {path.parent} must be writable to you"
        )
    return f"cannot be opened: {message}"


def uri(path: Path, mode: Mode) -> str:
    """The address by which SQLite opens a file in a mode."""
    return f"{path.absolute().as_uri()}?{mode}"


def is_writable(path: str | Path) -> bool:
    """Whether this user may write to the file of a store, and to its folder, where SQLite keeps files too."""
    return os.access(path, os.W_OK) and os.access(Path(path).absolute().parent, os.W_OK)


def read_only_mode(path: Path) -> Mode:
    """The mode in which SQLite can read a store that this user may not write. Raises StoreError.

    While somebody writes to the store, SQLite's files beside it are there, and "mode=ro" reads them. Where
    they are missing and cannot be made, only "immutable=1" opens the store.
    """
    try:
        with closing(PatientConnection(uri(path, "mode=ro"), uri=True)) as conn:
            conn.execute("SELECT 1 FROM sqlite_master").fetchone()
        return "mode=ro"
    except sqlite3.OperationalError as error:
        if not os.access(path, os.R_OK) or not ("unable to open" in str(error) or "readonly" in str(error)):
            raise StoreError(f"{path} {_why_not(path, str(error), read_only=True)}") from error
    except sqlite3.Error as error:
        raise StoreError(f"{path} {_why_not(path, str(error), read_only=True)}") from error
    wal = path.with_name(f"{path.name}-wal")
    if wal.exists() and wal.stat().st_size:
        raise StoreError(
            f"{path} cannot be read where it is: its newest rows are still in {wal.name}, and SQLite would"
            " have to write beside them. Copy both files into a folder of your own and use the copy"
        )
    return "immutable=1"


def missing_migrations(conn: Connection, path: Path) -> list[str]:
    """The migrations that a store of an older version has not seen.

    Raises StoreError if the file is not a store, or was written by a newer version.
    """
    applied = _applied(conn)
    if unknown := applied - set(MIGRATIONS):
        raise StoreError(
            f"{path} was written by a newer version of captioner ({', '.join(sorted(unknown))}):"
            " upgrade captioner"
        )
    if not applied:
        raise StoreError(f"{path} is a SQLite file but not a captioner store: `captioner ingest` makes one")
    return [name for name in MIGRATIONS if name not in applied]


def _stand_in_for_missing_tables(conn: Connection, path: Path) -> None:
    """Adds, to this connection alone, empty tables for those that a store of an older version lacks.

    A view that was changed since is the new one, also for this connection alone.
    """
    for name in missing_migrations(conn, path):
        for statement in _statements(MIGRATIONS[name]):
            kind = re.search(
                r"^\s*(CREATE (?:TABLE|INDEX|TRIGGER|VIEW)|DROP VIEW)\b", statement, re.MULTILINE
            )
            if not kind:
                raise StoreError(
                    f"{path} was written by an older version of captioner and cannot be read as it is:"
                    " a command that writes to it, for instance `captioner ingest`, brings it up to date"
                )
            if kind[1] in ("CREATE TABLE", "CREATE VIEW"):
                conn.execute(statement.replace("CREATE ", "CREATE TEMP ", 1))


def _migrate(conn: Connection, path: Path, create: bool) -> None:
    if _pending(conn, path, create):
        # Not imported at the top: with pandas installed, this import takes longer than `captioner stats`.
        from sqlite_utils import Database
        from sqlite_utils.migrations import Migrations

        migrations = Migrations(MIGRATION_SET)
        for name, script in MIGRATIONS.items():
            migrations(name=name)(lambda db, script=script: [db.conn.execute(s) for s in _statements(script)])
        with transaction(conn):
            if _pending(conn, path, create):  # another process may have applied them meanwhile
                migrations.apply(Database(conn))
    # Last, so that a file which turns out to be somebody else's is left as it is.
    if conn.execute("PRAGMA journal_mode").fetchone()[0] != "wal":
        conn.execute("PRAGMA journal_mode = WAL")


def _pending(conn: Connection, path: Path, create: bool) -> bool:
    """Whether migrations have to be applied. Raises StoreError if this is no store and may not become one."""
    # The tables first, then the migrations: another process may make the same store just now, and both appear
    # at one moment.
    tables = conn.execute(
        "SELECT name FROM sqlite_master WHERE type IN ('table', 'view') AND name NOT LIKE 'sqlite_%'"
    ).fetchall()
    if not create or _applied(conn):
        return bool(missing_migrations(conn, path))
    if tables:
        names = [short_name(table["name"]) for table in tables]
        more = f" and {len(names) - 3} more" if len(names) > 3 else ""
        raise StoreError(
            f"{path} is a SQLite file of something else (its tables: {', '.join(names[:3])}{more}), and is"
            " left as it is: choose another file for the store"
        )
    return True


def _applied(conn: Connection) -> set[str]:
    """The names of the migrations that a store has seen."""
    try:
        rows = conn.execute("SELECT name FROM _sqlite_migrations WHERE migration_set = ?", [MIGRATION_SET])
        return {row[0] for row in rows}
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
def transaction(conn: Connection) -> Iterator[Connection]:
    """Commits everything that is written inside, or nothing of it if an error leaves the context.

    It takes the write lock at once, so that what is read inside stays true until the commit.
    """
    conn.execute("BEGIN IMMEDIATE")
    try:
        yield conn
    except BaseException:
        conn.execute("ROLLBACK")
        raise
    conn.execute("COMMIT")


@contextmanager
def one_moment(conn: Connection) -> Iterator[Connection]:
    """Everything that is read inside is as it was at one moment, even while others write.

    Inside a transaction, or another `one_moment`, it is the moment of that one.
    """
    if conn.in_transaction:
        yield conn
        return
    conn.execute("BEGIN")
    try:
        yield conn
    finally:
        conn.execute("COMMIT")
