"""Stores that other processes hold, and SQLite files that are somebody else's."""

import os
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from pincaption.store import open_store, waiting
from pincaption.store.connection import transaction

CAPTIONER = Path(sys.executable).with_name("captioner")
# Holds the lock, says so, and lets it go when its standard input ends.
HOLD = """
import sqlite3, sys
conn = sqlite3.connect(sys.argv[1], isolation_level=None)
conn.execute(sys.argv[2])
conn.execute("BEGIN IMMEDIATE")
conn.execute("UPDATE pins SET title = title")
print("held", flush=True)
sys.stdin.read()
"""


def started(*command: object) -> subprocess.Popen[str]:
    pipe = subprocess.PIPE
    return subprocess.Popen([str(c) for c in command], stdin=pipe, stdout=pipe, stderr=pipe, text=True)


@contextmanager
def held(store: Path, pragma: str = "PRAGMA cache_size") -> Iterator[subprocess.Popen[str]]:
    """Another process that has the lock for writing."""
    other = started(sys.executable, "-c", HOLD, store, pragma)
    assert other.stdout
    assert other.stdout.readline() == "held\n"
    try:
        yield other
    finally:
        other.communicate()


@pytest.fixture
def store(tmp_path: Path) -> Path:
    with closing(open_store(tmp_path / "my.db", create=True)) as conn:
        conn.execute("INSERT INTO pins (pin_id) VALUES ('p')")
    return tmp_path / "my.db"


@pytest.mark.parametrize(
    ("command", "pragma", "result"),
    [
        (("ingest", "pins", "my.db", "pins.csv"), "PRAGMA cache_size", "1 pin into my.db: 1 new"),
        # Readers wait only for a process that keeps them out.
        (
            ("stats", "my.db"),
            "PRAGMA locking_mode = EXCLUSIVE",
            "pins 1 with native text 0",
        ),
    ],
)
def test_whoever_waits_for_a_lock_says_so_and_whose_it_is(
    store: Path, monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...], pragma: str, result: str
) -> None:
    monkeypatch.chdir(store.parent)
    Path("pins.csv").write_text("pin_id,title\nq,A lamp\n")
    with held(store, pragma) as other:
        waits = started(CAPTIONER, *command)
        assert waits.stderr
        said = waits.stderr.readline()  # it comes while the lock is held: nothing else ends the wait
        assert said.startswith(f"waiting: my.db is locked by process {other.pid} (")
        assert said.endswith("; Ctrl-C stops waiting\n")
    assert " ".join(waits.communicate(timeout=60)[0].split()).startswith(result)
    assert waits.returncode == 0


def test_nobody_is_named_who_does_not_hold_a_lock(store: Path) -> None:
    assert waiting.lock_holders(store) == []
    with closing(open_store(store)) as conn, transaction(conn):
        assert waiting.lock_holders(store) == []  # only other processes count
    with held(store) as other:
        assert waiting.lock_holders(store) == [other.pid]


def test_waiting_ends_with_the_error_of_before(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting, "BUSY_SECONDS", 0)
    monkeypatch.setattr(waiting, "SILENT_SECONDS", 0)
    with held(store), closing(open_store(store)) as conn:
        with pytest.raises(sqlite3.OperationalError, match="database is locked"), transaction(conn):
            pass
        assert not conn.in_transaction


@pytest.mark.parametrize("command", [("ingest", "images"), ("ingest", "pins"), ("stats",)])
def test_a_file_of_somebody_else_stays_as_it_is(tmp_path: Path, command: tuple[str, ...]) -> None:
    path = tmp_path / "shop.db"
    with closing(sqlite3.connect(path)) as conn:
        conn.executescript("CREATE TABLE users (id); INSERT INTO users VALUES (1)")
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "a.jpg").write_bytes(b"a folder without pictures is refused anyway")
    (tmp_path / "pins.csv").write_text("pin_id\n1\n")
    sources = {"images": ["pictures"], "pins": ["pins.csv"]}.get(command[-1], [])
    before = path.read_bytes()
    done = subprocess.run(
        [CAPTIONER, *command, path, *sources], capture_output=True, text=True, cwd=tmp_path, env=os.environ
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert "a captioner store" in done.stderr or "(its tables: users), and is left as it is" in done.stderr
    assert path.read_bytes() == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["pictures", "pins.csv", "shop.db"]
