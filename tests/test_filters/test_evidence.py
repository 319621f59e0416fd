"""What the aggregations have read: nothing is read twice, and no crash or other process spoils the result."""

import os
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import duckdb
import pytest

from pincaption.filters.boards import BoardOptions, aggregate_boards
from pincaption.filters.explain import explain
from pincaption.filters.queries import QueryOptions, aggregate_queries
from pincaption.sources.rows import SourceError
from pincaption.store import open_store
from pincaption.store.connection import StoreError

CAPTIONER = Path(sys.executable).with_name("captioner")
MAY = QueryOptions(as_of=date(2024, 5, 31))
HOUR = 3_600_000_000_000  # in nanoseconds


def write_log(path: Path, *queries: str, pin: str = "p") -> Path:
    path.write_text(
        "pin_id,query,action,date\n" + "".join(f"{pin},{query},save,2024-05-01\n" for query in queries)
    )
    return path


def set_changed_at(path: Path, ns: int) -> None:
    """Sets the time at which a file was changed."""
    os.utime(path, ns=(ns, ns))


def queries_of(conn: sqlite3.Connection) -> dict[str, str]:
    return dict(map(tuple, conn.execute("SELECT pin_id, queries FROM engaged_queries ORDER BY pin_id")))


def partials_of(conn: sqlite3.Connection) -> Path:
    return Path(conn.execute("PRAGMA database_list").fetchone()["file"] + ".partials")


def listed_files(conn: sqlite3.Connection) -> set[str]:
    """The files that should be in STORE.partials."""
    return {row[0] for row in conn.execute("SELECT file FROM evidence UNION SELECT file FROM partials")} | {
        "lock"
    }


# --- nothing is read twice ---


def test_a_source_of_the_same_size_and_time_is_not_opened(tmp_path: Path, store: sqlite3.Connection) -> None:
    log = write_log(tmp_path / "log.csv", "mug")
    then = time.time_ns() - HOUR
    set_changed_at(log, then)
    aggregate_queries(store, log=[str(log)], options=MAY)
    set_changed_at(write_log(log, "cup"), then)
    counts = aggregate_queries(store, log=[str(log)], options=MAY)
    assert (counts["rows_read"], counts["sources"], counts["unchanged"], counts["pins"]) == (0, 0, 1, 0)
    assert queries_of(store) == {"p": '["mug"]'}


def test_a_source_that_had_just_been_changed_is_opened_again(
    tmp_path: Path, store: sqlite3.Connection
) -> None:
    """It may have been changed again within one tick of the clock after it was read."""
    log = write_log(tmp_path / "log.csv", "mug")
    soon = time.time_ns() + HOUR
    set_changed_at(log, soon)
    aggregate_queries(store, log=[str(log)], options=MAY)
    set_changed_at(write_log(log, "cup"), soon)
    assert aggregate_queries(store, log=[str(log)], options=MAY)["rows_read"] == 1
    assert queries_of(store) == {"p": '["cup"]'}


def test_a_source_with_a_new_time_and_the_same_bytes_is_not_read_again(
    tmp_path: Path, store: sqlite3.Connection
) -> None:
    log = write_log(tmp_path / "log.csv", "mug")
    set_changed_at(log, time.time_ns() - 2 * HOUR)
    aggregate_queries(store, log=[str(log)], options=MAY)
    then = time.time_ns() - HOUR
    set_changed_at(log, then)
    counts = aggregate_queries(store, log=[str(log)], options=MAY)
    assert (counts["rows_read"], counts["sources"], counts["unchanged"], counts["pins"]) == (0, 0, 1, 0)
    set_changed_at(write_log(log, "cup"), then)  # by now the new time is known
    assert aggregate_queries(store, log=[str(log)], options=MAY)["unchanged"] == 1
    assert queries_of(store) == {"p": '["mug"]'}


def test_a_source_is_read_anew_for_other_columns(tmp_path: Path, store: sqlite3.Connection) -> None:
    log = tmp_path / "log.csv"
    log.write_text("pin_id,query,first,action,date\np,mug,cup,save,2024-05-01\n")
    set_changed_at(log, time.time_ns() - HOUR)
    aggregate_queries(store, log=[str(log)], options=MAY)
    for columns, query in (({"query": "first"}, "cup"), ({}, "mug")):
        assert aggregate_queries(store, log=[str(log)], options=MAY, columns=columns)["rows_read"] == 1
        assert queries_of(store) == {"p": f'["{query}"]'}
    assert aggregate_queries(store, log=[str(log)], options=MAY)["unchanged"] == 1


def test_the_same_bytes_under_another_path_are_not_read(tmp_path: Path, store: sqlite3.Connection) -> None:
    first, second = write_log(tmp_path / "first.csv", "mug"), write_log(tmp_path / "second.csv", "mug")
    counts = aggregate_queries(store, log=[str(first), str(second)], options=MAY)
    assert (counts["rows_read"], counts["sources"], counts["unchanged"]) == (1, 1, 1)
    third = write_log(tmp_path / "third.csv", "mug")
    counts = aggregate_queries(store, log=[str(third)], options=MAY)
    assert (counts["rows_read"], counts["unchanged"], counts["pins"]) == (0, 1, 0)
    assert store.execute("SELECT engagements FROM engaged_queries").fetchone()[0] == "[1]"


def test_a_path_is_one_source_however_it_is_written(
    tmp_path: Path, store: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = write_log(tmp_path / "log.csv", "mug")
    monkeypatch.chdir(tmp_path)
    for path, query in ((str(log), "cup"), ("log.csv", "tea"), ("./nowhere/../log.csv", "oak")):
        write_log(log, query)
        (tmp_path / "nowhere").mkdir(exist_ok=True)
        aggregate_queries(store, log=[path], options=MAY)
        assert queries_of(store) == {"p": f'["{query}"]'}


def test_sources_may_be_deleted_once_they_were_read(tmp_path: Path, store: sqlite3.Connection) -> None:
    boards, saves, log = (
        tmp_path / "boards.csv",
        tmp_path / "saves.csv",
        write_log(tmp_path / "log.csv", "mug", "cup", "cup"),
    )
    boards.write_text("board_id,title\na,Tea\nb,Green Tea\n")
    saves.write_text("pin_id,board_id\np,a\np,b\n")
    aggregate_boards(store, boards=[str(boards)], saves=[str(saves)])
    aggregate_queries(store, log=[str(log)], options=MAY)
    for path in (boards, saves, log):
        path.unlink()
    aggregate_boards(store, options=BoardOptions(max_words=1))
    aggregate_queries(store, options=QueryOptions(top=1))
    assert [row[0] for row in store.execute("SELECT titles FROM board_titles")] == ['["tea"]']
    assert queries_of(store) == {"p": '["cup"]'}
    later = write_log(tmp_path / "later.csv", "mug", "mug")
    aggregate_queries(store, log=[str(later)], options=MAY)
    assert queries_of(store) == {"p": '["mug","cup"]'}
    with pytest.raises(SourceError, match=f"no such file: {log}"):
        aggregate_queries(store, log=[str(log)])


def test_a_store_can_be_copied_with_its_partials(tmp_path: Path, store: sqlite3.Connection) -> None:
    aggregate_queries(store, log=[str(write_log(tmp_path / "log.csv", "mug"))], options=MAY)
    store.close()
    shutil.move(tmp_path / "pins.db", tmp_path / "moved.db")
    shutil.move(tmp_path / "pins.db.partials", tmp_path / "moved.db.partials")
    with closing(open_store(tmp_path / "moved.db")) as conn:
        aggregate_queries(conn, log=[str(write_log(tmp_path / "more.csv", "cup"))], options=MAY)
        assert queries_of(conn) == {"p": '["cup","mug"]'}


@pytest.mark.parametrize("missing", ["*", "*-log.parquet", "*-queries-codes.parquet", "*-core.parquet"])
def test_missing_partials_are_an_error_that_a_rebuild_mends(
    tmp_path: Path, store: sqlite3.Connection, missing: str
) -> None:
    log = write_log(tmp_path / "log.csv", "mug")
    aggregate_queries(store, log=[str(log)], options=MAY)
    for path in partials_of(store).glob(missing):
        path.unlink()
    said = (
        r"pins\.db\.partials/queries-[\w-]+\.parquet is missing,"
        r" and the results cannot be counted without it: copy the folder together with the store,"
        r" or name all sources and add --rebuild$"
    )
    for again in (
        lambda: aggregate_queries(store, options=MAY),
        lambda: aggregate_queries(store, log=[str(write_log(tmp_path / "more.csv", "cup"))], options=MAY),
        lambda: explain(store, "p"),
    ):
        with pytest.raises(StoreError, match=said):
            again()
    assert queries_of(store) == {"p": '["mug"]'}
    aggregate_queries(store, log=[str(log)], options=MAY, rebuild=True)
    assert queries_of(store) == {"p": '["mug"]'}
    assert set(os.listdir(partials_of(store))) == listed_files(store)


def test_a_place_where_no_folder_can_be_made_is_an_error(tmp_path: Path, store: sqlite3.Connection) -> None:
    (tmp_path / "pins.db.partials").write_text("a file")
    with pytest.raises(StoreError, match=r"pins\.db\.partials cannot be (made|written): "):
        aggregate_queries(store, log=[str(write_log(tmp_path / "log.csv", "mug"))])


def test_files_of_what_was_replaced_are_removed(tmp_path: Path, store: sqlite3.Connection) -> None:
    log = tmp_path / "log.csv"
    for query in ("mug", "cup", "tea"):
        aggregate_queries(store, log=[str(write_log(log, query))], options=MAY)
        assert set(os.listdir(partials_of(store))) == listed_files(store)
    assert len(list(partials_of(store).glob("*-log.parquet"))) == 1


def test_the_next_run_deletes_leftovers_whatever_it_does(tmp_path: Path, store: sqlite3.Connection) -> None:
    boards = tmp_path / "boards.csv"
    boards.write_text("board_id,title\na,Tea\n")
    aggregate_boards(store, boards=[str(boards)])
    (partials_of(store) / "boards-000099-000099-saves.parquet").write_bytes(b"half a file")
    (partials_of(store) / "scratch").mkdir()
    aggregate_boards(store, options=BoardOptions(top=3))
    assert set(os.listdir(partials_of(store))) == listed_files(store)


# --- other processes ---


KINDS = {"boards": ("boards", "saves"), "queries": ("log",)}
TABLES = {"boards": "board_titles", "queries": "engaged_queries"}
AGGREGATE: dict[str, Callable[..., dict[str, Any]]] = {
    "boards": aggregate_boards,
    "queries": aggregate_queries,
}


@dataclass
class Big:
    """Files of 300,000 saves and a log of 60,000 rows, and a store that has aggregated a part of them.

    It also has the tables that all of it should give.
    """

    folder: Path
    old: dict[str, list[Any]]
    new: dict[str, list[Any]]

    @property
    def sources(self) -> dict[str, dict[str, list[str]]]:
        """For each aggregation, the sources that are new to the store."""
        return {
            name: {kind: [str(self.folder / f"{kind}.parquet")] for kind in kinds}
            for name, kinds in KINDS.items()
        }

    @property
    def all_sources(self) -> dict[str, dict[str, list[str]]]:
        """For each aggregation, the sources that the store knows and those that are new."""
        return {
            name: {
                kind: [str(self.folder / f"{kind}-old.parquet"), str(self.folder / f"{kind}.parquet")]
                for kind in kinds
            }
            for name, kinds in KINDS.items()
        }

    def arguments(self, name: str, rebuild: bool = False) -> list[str]:
        """Sources as arguments of the command line."""
        sources = self.all_sources if rebuild else self.sources
        return [
            part for kind, paths in sources[name].items() for path in paths for part in (f"--{kind}", path)
        ] + ["--rebuild"] * rebuild

    def store_in(self, folder: Path) -> Path:
        """A copy of the store, with the old results."""
        shutil.copytree(self.folder / "pins.db.partials", folder / "pins.db.partials")
        return Path(shutil.copy(self.folder / "pins.db", folder / "pins.db"))


def table(conn: sqlite3.Connection, name: str) -> list[Any]:
    return [tuple(row) for row in conn.execute(f"SELECT * FROM {TABLES[name]} ORDER BY pin_id")]


@pytest.fixture(scope="module")
def big(tmp_path_factory: pytest.TempPathFactory) -> Big:
    folder = tmp_path_factory.mktemp("big")
    found = Big(folder, {}, {})
    with duckdb.connect() as db:
        for name, text in (
            (
                "boards",
                """SELECT 'b' || i AS board_id, 'Title ' || (i % 5000) || ' ' || (i % 37) AS title
                FROM range(10000) r(i)""",
            ),
            (
                "saves",
                """SELECT 'p' || (i % 6000) AS pin_id,
                    'b' || ((i * 104729 + i // 6000 * 17) % 10000) AS board_id
                FROM range(300000) r(i)""",
            ),
            (
                "log",
                """SELECT 'p' || (i % 6000) AS pin_id, 'query ' || (i * 7919 % 997) AS query,
                    'save' AS action, DATE '2024-01-01' + (i % 100)::INTEGER AS date
                FROM range(60000) r(i)""",
            ),
        ):
            db.execute(f"COPY ({text}) TO '{folder / name}.parquet' (FORMAT parquet)")
            db.execute(
                f"COPY (SELECT * FROM ({text}) LIMIT 2000) TO '{folder / name}-old.parquet' (FORMAT parquet)"
            )
    with (
        closing(open_store(folder / "pins.db", create=True)) as conn,
        closing(open_store(folder / "undisturbed.db", create=True)) as other,
    ):
        for name, kinds in KINDS.items():
            AGGREGATE[name](conn, **{kind: [str(folder / f"{kind}-old.parquet")] for kind in kinds})
            found.old[name] = table(conn, name)
            AGGREGATE[name](other, **found.all_sources[name])
            found.new[name] = table(other, name)
            assert 0 < len(found.old[name]) < len(found.new[name]) == 6000
    return found


def captioner(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([CAPTIONER, *arguments], capture_output=True, text=True)


def test_a_second_process_is_refused_in_a_sentence_and_readers_and_writers_are_not(
    tmp_path: Path, big: Big
) -> None:
    path = big.store_in(tmp_path)
    (tmp_path / "pins.csv").write_text("pin_id\np1\np2\n")
    met: dict[str, subprocess.CompletedProcess[str]] = {}

    def meanwhile(what: str, done: int, total: int | None) -> None:
        if what == "reading" and "boards" not in met:
            met["boards"] = captioner("aggregate", "boards", path, *big.arguments("boards"))
            met["queries"] = captioner("aggregate", "queries", path)
            met["explain"] = captioner("aggregate", "explain", path, "p1")
        if what == "ranking":
            met["ingest"] = captioner("ingest", "pins", path, tmp_path / "pins.csv")
        if what == "writing" and "stats" not in met:
            met["stats"] = captioner("stats", path, "--json")

    with closing(open_store(path)) as conn:
        aggregate_boards(conn, **big.sources["boards"], on_step=meanwhile)
        assert table(conn, "boards") == big.new["boards"]
        assert table(conn, "queries") == big.old["queries"]
    refusal = (
        f"Error: another process aggregates or exports with {path}.partials: try again when it is done\n"
    )
    assert {name: (found.returncode, found.stderr) for name, found in met.items()} == {
        **dict.fromkeys(["boards", "queries", "explain"], (1, refusal)),
        **dict.fromkeys(["ingest", "stats"], (0, "")),
    }
    assert '"pins": 2, ' in met["stats"].stdout


@pytest.mark.parametrize("name", TABLES)
def test_a_reader_sees_the_old_results_until_all_of_the_new_ones_are_there(
    tmp_path: Path, big: Big, name: str
) -> None:
    path = big.store_in(tmp_path)
    seen: list[bool] = []
    with closing(open_store(path)) as conn, closing(open_store(path)) as reader:
        AGGREGATE[name](
            conn,
            **big.sources[name],
            on_step=lambda what, done, total: (
                seen.append(table(reader, name) == big.old[name]) if what == "writing" else None
            ),
        )
        assert table(reader, name) == big.new[name]
    assert len(seen) > 1
    assert all(seen)


@pytest.mark.parametrize("name", TABLES)
def test_a_run_that_fails_leaves_the_results_as_they_were(tmp_path: Path, big: Big, name: str) -> None:
    path = big.store_in(tmp_path)

    def stop(what: str, done: int, total: int | None) -> None:
        if what == "writing":
            raise KeyboardInterrupt

    with closing(open_store(path)) as conn:
        with pytest.raises(KeyboardInterrupt):
            AGGREGATE[name](conn, **big.sources[name], on_step=stop)
        assert table(conn, name) == big.old[name]
        AGGREGATE[name](conn)  # the rows that were read are kept
        assert table(conn, name) == big.new[name]


def test_a_source_that_fails_leaves_the_results_as_they_were(
    tmp_path: Path, store: sqlite3.Connection
) -> None:
    aggregate_queries(store, log=[str(write_log(tmp_path / "log.csv", "mug"))], options=MAY)
    good, bad = write_log(tmp_path / "good.csv", "cup"), tmp_path / "bad.csv.gz"
    bad.write_bytes(b"\x1f\x8b no gzip at all")
    for rebuild in (False, True):
        with pytest.raises(SourceError, match=f"{bad} cannot be read: "):
            aggregate_queries(store, log=[str(good), str(bad)], options=MAY, rebuild=rebuild)
        assert queries_of(store) == {"p": '["mug"]'}
        aggregate_queries(store, options=QueryOptions(as_of=date(2024, 5, 30 if rebuild else 29)))
        assert queries_of(store) == {"p": '["mug"]'}


# --- kill -9 ---

# STORE.partials, the files that were in it, a reader of the store
Moment = Callable[[Path, set[str], sqlite3.Connection], bool]


def rows(conn: sqlite3.Connection, kind: str) -> int:
    return int(conn.execute("SELECT count(*) FROM evidence WHERE kind = ?", [kind]).fetchone()[0])


def new_files(partials: Path, before: set[str]) -> set[str]:
    return set(os.listdir(partials)) - before


MOMENTS: dict[str, tuple[str, bool, Moment]] = {  # (aggregation, with --rebuild or not)
    "reading begins": ("boards", False, lambda partials, before, conn: (partials / "scratch").exists()),
    "a first file is written": (
        "boards",
        False,
        lambda partials, before, conn: any(name.endswith(".parquet") for name in new_files(partials, before)),
    ),
    "boards are taken in": ("boards", False, lambda partials, before, conn: rows(conn, "boards") == 2),
    "everything is forgotten": ("boards", True, lambda partials, before, conn: rows(conn, "saves") == 0),
    "the log is taken in": ("queries", False, lambda partials, before, conn: rows(conn, "log") == 2),
    "sums are being written": (
        "queries",
        True,
        lambda partials, before, conn: any(
            name.endswith("-core.parquet") for name in new_files(partials, before)
        ),
    ),
}


@pytest.fixture
def started() -> Iterator[list[subprocess.Popen[bytes]]]:
    """Processes that a test starts. They end with the test."""
    processes: list[subprocess.Popen[bytes]] = []
    yield processes
    for process in processes:
        process.kill()
        process.wait()


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_process_that_is_killed_spoils_nothing(
    tmp_path: Path, big: Big, moment: str, started: list[subprocess.Popen[bytes]]
) -> None:
    name, rebuild, reached = MOMENTS[moment]
    for attempt in range(20):  # on a busy machine the moment may have passed before this process checks
        folder = tmp_path / str(attempt)
        folder.mkdir()
        path = big.store_in(folder)
        partials = Path(f"{path}.partials")
        before = set(os.listdir(partials))
        with closing(open_store(path)) as reader:
            process = subprocess.Popen(
                [CAPTIONER, "aggregate", name, path, *big.arguments(name, rebuild)], stdout=subprocess.DEVNULL
            )
            started.append(process)
            while process.poll() is None and not reached(partials, before, reader):
                os.sched_yield()
            process.kill()
            assert process.wait() in (-9, 0)
            if process.returncode == -9 and table(reader, name) != big.new[name]:
                break
    else:
        pytest.fail("it was always done before it could be killed")
    after_a_kill(path, big, name)


@pytest.mark.parametrize(("name", "rebuild"), [("boards", False), ("queries", False), ("queries", True)])
def test_a_process_that_is_killed_while_it_replaces_the_results_spoils_nothing(
    tmp_path: Path, big: Big, name: str, rebuild: bool
) -> None:
    path = big.store_in(tmp_path)
    sources = (big.all_sources if rebuild else big.sources)[name]
    script = f"""import os
from pincaption.filters.{name} import aggregate_{name}
from pincaption.store import open_store
def on_step(what, done, total):
    if what == "writing":
        os.kill(os.getpid(), 9)
aggregate_{name}(open_store({str(path)!r}), **{sources!r}, rebuild={rebuild}, on_step=on_step)"""
    assert subprocess.run([sys.executable, "-c", script]).returncode == -9
    after_a_kill(path, big, name)


def after_a_kill(path: Path, big: Big, name: str) -> None:
    """The store is intact and has the old results. The next run gives the results of an undisturbed run, and
    cleans up.
    """
    with closing(open_store(path)) as conn:
        assert conn.execute("PRAGMA integrity_check").fetchone()[0] == "ok"
        assert table(conn, name) == big.old[name]
        AGGREGATE[name](conn, **big.sources[name])
        assert table(conn, name) == big.new[name]
        assert conn.execute("PRAGMA integrity_check").fetchone()[0] == "ok"
        assert set(os.listdir(f"{path}.partials")) == listed_files(conn)


def test_explain_says_that_rows_were_read_since(tmp_path: Path, big: Big) -> None:
    """A run is killed after it has read and before it has ranked."""
    path = big.store_in(tmp_path)
    log = write_log(tmp_path / "log.csv", "mug", pin="p1")
    script = f"""import os
from pincaption.filters.queries import aggregate_queries
from pincaption.store import open_store
def on_step(what, done, total):
    if what == "ranking":
        os.kill(os.getpid(), 9)
aggregate_queries(open_store({str(path)!r}), log=[{str(log)!r}], on_step=on_step)"""
    assert subprocess.run([sys.executable, "-c", script]).returncode == -9
    with closing(open_store(path)) as conn:
        assert explain(conn, "p1")["queries"]["outdated"]
        assert not explain(conn, "p1")["boards"]["outdated"]
        assert (
            "rows were read after the last ranking: `captioner aggregate queries` ranks again"
            in captioner("aggregate", "explain", path, "p1").stdout
        )
        aggregate_queries(conn)
        found = explain(conn, "p1")["queries"]
    assert not found["outdated"]
    assert "mug" in [query["query"] for query in found["queries"]]
