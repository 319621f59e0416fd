"""Errors of SQLite that a user can do something about become a sentence."""

import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from pincaption.store.sqlite_errors import explain_sqlite_error


def error_of(statement: Callable[[], object]) -> Exception:
    with pytest.raises(sqlite3.Error) as caught:
        statement()
    return caught.value


@pytest.fixture
def conn(tmp_path: Path) -> sqlite3.Connection:
    conn = sqlite3.connect(tmp_path / "my.db", timeout=0, isolation_level=None)
    conn.execute("CREATE TABLE t (a)")
    return conn


def test_a_store_that_another_process_writes_to(conn: sqlite3.Connection, tmp_path: Path) -> None:
    writer = sqlite3.connect(tmp_path / "my.db", isolation_level=None)
    writer.execute("BEGIN IMMEDIATE")
    sentence = explain_sqlite_error(error_of(lambda: conn.execute("INSERT INTO t VALUES (1)")))
    writer.close()
    assert sentence is not None
    assert sentence.startswith("the store is locked by another process")


def test_a_store_that_cannot_be_written(conn: sqlite3.Connection, tmp_path: Path) -> None:
    read_only = sqlite3.connect(f"file:{tmp_path}/my.db?mode=ro", uri=True)
    sentence = explain_sqlite_error(error_of(lambda: read_only.execute("INSERT INTO t VALUES (1)")))
    assert sentence is not None
    assert sentence.startswith("the store cannot be written")


def test_a_disk_that_is_full(conn: sqlite3.Connection) -> None:
    conn.execute("PRAGMA max_page_count = 3")
    sentence = explain_sqlite_error(error_of(lambda: conn.execute("INSERT INTO t VALUES (zeroblob(100000))")))
    assert sentence is not None
    assert sentence.startswith("the disk is full")


def test_other_errors_have_no_sentence(conn: sqlite3.Connection) -> None:
    assert explain_sqlite_error(error_of(lambda: conn.execute("SELECT * FROM nothing"))) is None
    assert explain_sqlite_error(ValueError("database is locked")) is None
