"""Stores that may only be read: on a read-only disk, of another user, of an older version."""

import gc
import json
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from contextlib import closing
from pathlib import Path

import pytest

from pincaption.store import EnrichedFeatures, StoreError, open_store, transaction
from pincaption.store.schema import MIGRATION_SET, MIGRATIONS
from pincaption.store.stats import coverage


def fill(path: Path, n: int = 3) -> Path:
    """A store of `n` pins with a title."""
    with closing(open_store(path, create=True)) as conn, transaction(conn):
        conn.executemany("INSERT INTO pins (pin_id, title) VALUES (?, 'Oak table')", [(i,) for i in range(n)])
    return path


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "folder"
    folder.mkdir()
    return folder


def test_reading_writes_nothing_and_leaves_no_files_beside_the_store(folder: Path) -> None:
    store = fill(folder / "my.db")
    before = contents(folder)
    with closing(open_store(store, read_only=True)) as conn:
        assert coverage(conn)["pins"] == 3
        with pytest.raises(sqlite3.OperationalError, match="readonly"):
            conn.execute("DELETE FROM pins")
    features = EnrichedFeatures(store)
    assert [row["title"] for row in features.__getitems__([0, 1, 2])] == ["Oak table"] * 3
    del features
    gc.collect()  # closes its connection
    assert contents(folder) == before


def test_what_is_no_store_is_refused_for_reading_too(folder: Path) -> None:
    with pytest.raises(StoreError, match="does not exist"):
        open_store(folder / "none.db", read_only=True)
    (folder / "text.db").write_text("this is a letter to somebody, not a data base\n" * 100)
    with pytest.raises(StoreError, match="is not a SQLite file"):
        open_store(folder / "text.db", read_only=True)
    sqlite3.connect(folder / "other.db").execute("CREATE TABLE things (a)").connection.close()
    with pytest.raises(StoreError, match="is a SQLite file but not a captioner store"):
        open_store(folder / "other.db", read_only=True)


def older(path: Path) -> Path:
    """A store as the first version made it, with one pin."""
    with closing(sqlite3.connect(path)) as conn:
        name = next(iter(MIGRATIONS))
        conn.executescript(
            "CREATE TABLE _sqlite_migrations"
            " (id INTEGER PRIMARY KEY, migration_set TEXT, name TEXT, applied_at TEXT);"
            f"INSERT INTO _sqlite_migrations VALUES (1, '{MIGRATION_SET}', '{name}', '2026');"
            f"{MIGRATIONS[name]}"
            "INSERT INTO pins (pin_id, title) VALUES ('1', 'Oak table'); PRAGMA journal_mode = WAL;"
        )
    return path


def test_a_store_of_an_older_version_is_read_as_it_is(folder: Path) -> None:
    store = older(folder / "my.db")
    before = contents(folder)
    with closing(open_store(store, read_only=True)) as conn:
        assert coverage(conn)["title"] == 1
        assert conn.execute("SELECT count(*) FROM embeddings").fetchone()[0] == 0
        assert conn.execute("SELECT count(*) FROM samples").fetchone()[0] == 0
    assert EnrichedFeatures(store)[0]["title"] == "Oak table"
    gc.collect()  # closes its connection
    assert contents(folder) == before
    open_store(store).close()
    assert contents(folder) != before  # a command that writes brings it up to date


def test_a_store_that_must_be_brought_up_to_date_says_so(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = fill(folder / "my.db")
    monkeypatch.setitem(MIGRATIONS, "0999_colours", "ALTER TABLE pins ADD COLUMN colour TEXT;")
    with pytest.raises(StoreError, match="a command that writes to it, for instance `captioner ingest`"):
        open_store(store, read_only=True)


# In a namespace of its own a process may remount a folder, and with it make a disk that is really read-only.
REMOUNT = 'mount --bind "$1" "$1" && mount -o remount,bind,ro "$1" && touch "$1/x" 2>/dev/null && exit 78; '


def on_a_read_only_disk(folder: Path, *command: str) -> subprocess.CompletedProcess[str]:
    """Runs a command while `folder` is on a read-only disk; skips the test where that cannot be arranged."""
    if not shutil.which("unshare"):
        pytest.skip("no unshare")
    unshare = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c"]
    tried = subprocess.run([*unshare, REMOUNT + "exit 0", "sh", str(folder)], capture_output=True, text=True)
    if tried.returncode or "mount" in tried.stderr:
        pytest.skip(f"no read-only disk can be made here: {tried.stderr}")
    return subprocess.run(
        [*unshare, REMOUNT + 'shift; exec "$@"', "sh", str(folder), *command], capture_output=True, text=True
    )


CAPTIONER = (sys.executable, "-m", "pincaption.cli")


def test_commands_that_read_work_on_a_read_only_disk(folder: Path, tmp_path: Path) -> None:
    store = fill(folder / "my.db")
    writable = subprocess.run([*CAPTIONER, "stats", str(store), "--json"], capture_output=True, text=True)
    done = on_a_read_only_disk(folder, *CAPTIONER, "stats", str(store), "--json")
    assert (done.returncode, done.stdout) == (0, writable.stdout), done.stderr

    out = tmp_path / "out"
    done = on_a_read_only_disk(folder, *CAPTIONER, "export", str(store), str(out), "--json")
    assert done.returncode == 0, done.stderr
    assert "my.db cannot be written: this export is not recorded among its runs" in done.stderr
    assert json.loads(done.stdout)["rows"] == 3
    subprocess.run([*CAPTIONER, "export", str(store), str(tmp_path / "other")], check=True)
    assert (out / "features/part-00000.parquet").read_bytes() == (
        tmp_path / "other/features/part-00000.parquet"
    ).read_bytes()
    with closing(open_store(store)) as conn:
        assert conn.execute("SELECT count(*) FROM runs").fetchone()[0] == 1

    script = (
        f"from pincaption.store import EnrichedFeatures; print(EnrichedFeatures({str(store)!r})[0]['title'])"
    )
    done = on_a_read_only_disk(folder, sys.executable, "-c", script)
    assert (done.returncode, done.stdout) == (0, "Oak table\n"), done.stderr

    with closing(open_store(store)) as conn:
        conn.execute("UPDATE pins SET image_sha256 = 'x' WHERE pin_id = '1'")
        conn.execute("INSERT INTO recipes VALUES ('r', 'm', NULL, 'w', '', '{}', '{}', 'float32')")
        conn.execute(
            "INSERT INTO captions (pin_id, recipe_id, status, text, image_sha256, updated_at)"
            " VALUES ('1', 'r', 'ok', 'a dog', 'x', '2026-01-01')"
        )
    sample = ("eval", "sample", str(store), str(tmp_path / "sheets"), "--json")
    done = on_a_read_only_disk(folder, *CAPTIONER, *sample, "--dry-run")
    assert done.returncode == 0, done.stderr
    planned = json.loads(done.stdout)
    assert (planned["items"], planned["files"]) == (1, [])
    assert not (tmp_path / "sheets").exists()
    drawn = subprocess.run([*CAPTIONER, *sample], capture_output=True, text=True, check=True)
    assert json.loads(drawn.stdout)["sample_id"] == planned["sample_id"]

    done = on_a_read_only_disk(folder, *CAPTIONER, "ingest", "pins", str(store), "-")
    assert done.returncode == 1
    assert f"the folder {folder} must be writable to you" in done.stderr


def test_what_was_aggregated_is_read_on_a_read_only_disk(folder: Path, tmp_path: Path) -> None:
    store, tables = fill(folder / "my.db"), {"boards": "board_id,title\nb,Tables\n"}
    tables["saves"] = "pin_id,board_id,saved_at\n1,b,2026-05-01\n"
    tables["log"] = "pin_id,query,action,date\n1,oak,save,2026-05-01\n1,desk,save,2026-05-31\n"
    paths = {name: tmp_path / f"{name}.csv" for name in tables}
    for name, path in paths.items():
        path.write_text(tables[name])
    for what, names in (("boards", ("boards", "saves")), ("queries", ("log",))):
        options = [part for name in names for part in (f"--{name}", str(paths[name]))]
        subprocess.run([*CAPTIONER, "aggregate", what, str(store), *options], check=True)
    done = on_a_read_only_disk(folder, *CAPTIONER, "aggregate", "explain", str(store), "1")
    assert done.returncode == 0, done.stderr
    assert "1 of 1 board title kept" in done.stdout
    assert "2 of 2 engaged queries kept" in done.stdout

    day = ("--as-of", "2026-05-15", "--pairs", "--json")
    done = on_a_read_only_disk(folder, *CAPTIONER, "export", str(store), str(tmp_path / "out"), *day)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["pairs"]

    done = on_a_read_only_disk(folder, *CAPTIONER, "aggregate", "queries", str(store))
    assert done.returncode == 1
    assert "must be writable to you" in done.stderr


def test_rows_that_are_still_in_the_wal_are_not_passed_over(folder: Path, tmp_path: Path) -> None:
    """As after a power cut, or where somebody copied a store while it was written."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    with closing(open_store(fill(elsewhere / "my.db", 0))) as conn:
        conn.execute("INSERT INTO pins (pin_id) VALUES ('1')")
        for name in ("my.db", "my.db-wal"):
            shutil.copy(elsewhere / name, folder)
    done = on_a_read_only_disk(folder, *CAPTIONER, "stats", str(folder / "my.db"), "--json")
    assert done.returncode == 1
    assert "its newest rows are still in my.db-wal" in done.stderr
    with closing(open_store(folder / "my.db", read_only=True)) as conn:  # as the sentence advises
        assert coverage(conn)["pins"] == 1


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become another user")
@pytest.mark.parametrize("busy", [False, True], ids=["nobody writes", "the owner has it open"])
def test_another_users_store_can_be_read(tmp_path: Path, busy: bool) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        store = fill(folder / "my.db")
        folder.chmod(0o755)
        owner = open_store(store) if busy else None
        if owner:
            owner.execute("INSERT INTO pins (pin_id) VALUES ('new')")
        before = set(contents(folder))
        script = (
            "import os, sys, numpy; from pincaption.store import EnrichedFeatures, open_store\n"
            "from pincaption.store.stats import coverage\n"
            # imports what it needs while it may still read the code
            f"coverage(open_store({str(fill(tmp_path / 'other.db'))!r}, read_only=True))\n"
            "try: os.setgid(65534), os.setuid(65534)\n"
            "except OSError: sys.exit(77)\n"
            f"conn = open_store({str(store)!r}, read_only=True)\n"
            f"print(coverage(conn)['pins'], len(EnrichedFeatures({str(store)!r})))"
        )
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
        if done.returncode == 77:
            pytest.skip("root of this container cannot become somebody else")
        assert done.stdout == ("4 4\n" if busy else "3 3\n"), done.stderr
        assert set(contents(folder)) == before
        if owner:
            owner.close()
