"""`captioner aggregate`: what people give to boards, queries and explain, and what they see."""

import csv
import gzip
import io
import json
import math
import os
import pty
import re
import shutil
import sqlite3
import subprocess
import sys
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner, Result

from pincaption.cli import cli
from pincaption.store import open_store

CAPTIONER = Path(sys.executable).with_name("captioner")
COUNTS = {"rows_read", "pins", "rows_written", "unknown_boards", "dropped"}
NO_DAY = "date is no date or time such as 2024-05-31T12:00:00Z"

USER_COLUMNS = ("pin_id", "query", "action", "date", "user_id")

Columns = dict[str, Any]  # column -> its values: a list, or an Arrow array where the type matters


def captioner(*arguments: object, stdin: str | bytes | None = None) -> Result:
    return CliRunner().invoke(cli, [str(a) for a in arguments], input=stdin)


def process(*arguments: Any, stdin: bytes | None = None, cwd: Path | None = None) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run([CAPTIONER, *arguments], input=stdin, capture_output=True, cwd=cwd)


def counts(*arguments: object, stdin: str | bytes | None = None) -> dict[str, Any]:
    """The one JSON object of a command that did its work."""
    result = captioner(*arguments, "--json", stdin=stdin)
    assert (result.exit_code, result.stderr) == (0, "")
    assert len(result.stdout.splitlines()) == 1
    return dict(json.loads(result.stdout))


def refused(*arguments: object, code: int = 1, stdin: str | bytes | None = None) -> str:
    """What is said, in one sentence on standard error, where nothing could be done."""
    result = captioner(*arguments, stdin=stdin)
    assert (result.exit_code, result.stdout) == (code, ""), result.stderr
    *usage, said = result.stderr.splitlines()
    assert said.startswith("Error: ")
    assert bool(usage) == (code == 2)
    return said.removeprefix("Error: ")


def write(path: Path, columns: Columns) -> Path:
    """A table in the form that its name says."""
    if path.suffix == ".parquet":
        pq.write_table(pa.table(columns), path)
        return path
    lines = list(zip(*columns.values(), strict=True))
    kind = path.name.removesuffix(".gz").rpartition(".")[2]
    if kind in ("csv", "tsv"):
        text = io.StringIO(newline="")
        csv.writer(text, delimiter="\t" if kind == "tsv" else ",", lineterminator="\n").writerows([tuple(columns), *lines])
        content = text.getvalue()
    else:
        rows = [dict(zip(columns, line, strict=True)) for line in lines]
        content = json.dumps(rows) if kind == "json" else "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    path.write_bytes(gzip.compress(content.encode()) if path.suffix == ".gz" else content.encode())
    return path


def boards_table(titles: Mapping[Any, str | None]) -> Columns:
    """board_id -> title"""
    return {"board_id": list(titles), "title": list(titles.values())}


def saves_table(*saves: tuple[Any, Any]) -> Columns:
    """(pin_id, board_id), ..."""
    return {"pin_id": [pin for pin, _ in saves], "board_id": [board for _, board in saves]}


def log_table(*rows: tuple[Any, ...], names: Sequence[str] = ("pin_id", "query", "action", "date")) -> Columns:
    return {name: [row[i] for row in rows] for i, name in enumerate(names)}


def titles(store: Path) -> dict[str, list[str]]:
    with closing(sqlite3.connect(store)) as conn:
        return {pin: json.loads(found) for pin, found in conn.execute("SELECT pin_id, titles FROM board_titles ORDER BY pin_id")}


def queries(store: Path) -> dict[str, list[str]]:
    with closing(sqlite3.connect(store)) as conn:
        return {pin: json.loads(found) for pin, found in conn.execute("SELECT pin_id, queries FROM engaged_queries ORDER BY pin_id")}


def engagements(store: Path) -> dict[str, dict[str, int]]:
    with closing(sqlite3.connect(store)) as conn:
        rows = conn.execute("SELECT pin_id, queries, engagements FROM engaged_queries ORDER BY pin_id").fetchall()
    return {pin: dict(zip(json.loads(texts), json.loads(numbers), strict=True)) for pin, texts, numbers in rows}


def rejected(store: Path) -> list[tuple[str, int, str]]:
    with closing(sqlite3.connect(store)) as conn:
        return conn.execute("SELECT source, line, reason FROM rejected_rows ORDER BY run_id, source, line").fetchall()


def shown(output: str) -> dict[str, str]:
    """label -> number of a table of counts."""
    return {match[1].strip(): match[2] for line in output.splitlines() if (match := re.fullmatch(r"(.*\S)\s+([\d,]+)", line))}


def fits(output: str) -> bool:
    return all(len(line) <= 80 for line in output.splitlines())


@pytest.fixture(scope="module")
def two_pins(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("store") / "two_pins.db"
    with closing(open_store(path, create=True)) as conn:
        conn.execute("INSERT INTO pins (pin_id, title) VALUES ('1', 'Mug'), ('2', NULL)")
    return path


@pytest.fixture
def db(tmp_path: Path, two_pins: Path) -> Path:
    """A store with the pins 1 and 2."""
    return Path(shutil.copy(two_pins, tmp_path / "my.db"))


@pytest.fixture
def boards(tmp_path: Path) -> Path:
    return write(tmp_path / "boards.csv", boards_table({"a": "Kitchen!!  IDEAS", "b": "kitchen ideas", "c": "Tea Time", "d": "♡♡", "e": "My Stuff", "f": "mail me@example.com"}))


@pytest.fixture
def saves(tmp_path: Path) -> Path:
    return write(tmp_path / "saves.csv", saves_table(("1", "a"), ("1", "b"), ("1", "c"), ("1", "d"), ("1", "e"), ("1", "f"), ("9", "c"), ("9", "unknown"), ("", "c")))


@pytest.fixture
def log(tmp_path: Path) -> Path:
    rows = [
        ("1", "Red Mug!", "save", "2024-05-01", 2),
        ("1", "red mug", "click", "2024-05-02", 1),
        ("1", "mug", "view", "2024-05-02", 7),
        ("1", "mug", "click", "2020-05-02", 1),
        ("1", "me@example.com", "save", "2024-05-01", 1),
        ("9", "cup", "long_click", "2024-05-01", 1),
        ("9", "cup", "long_click", "2024-05-01", 0),
    ]
    return write(tmp_path / "log.csv", log_table(*rows, names=("pin_id", "query", "action", "date", "count")))


# --- the end table and --json ---


def test_boards_end_with_a_table_of_what_was_read_kept_and_dropped(db: Path, boards: Path, saves: Path) -> None:
    result = captioner("aggregate", "boards", db, "--boards", boards, "--saves", saves)
    assert (result.exit_code, result.stderr) == (0, "")
    assert shown(result.stdout) == {
        "rows read": "15",
        "rejected, see rejected_rows": "1",
        "pins ranked anew": "2",
        "rows written to board_titles": "2",
        "titles kept": "3",
        "dropped: empty": "1",
        "dropped: says nothing": "1",
        "dropped: personal data": "1",
        "saves on unknown boards": "1",
        "pins with some, not in the store yet": "1",
    }
    assert fits(result.stdout)
    assert titles(db) == {"1": ["kitchen ideas", "tea time"], "9": ["tea time"]}


def test_queries_end_with_a_table_of_what_was_read_kept_and_dropped(db: Path, log: Path) -> None:
    result = captioner("aggregate", "queries", db, "--log", log)
    assert (result.exit_code, result.stderr) == (0, "")
    assert shown(result.stdout) == {
        "rows read": "7",
        "rejected, see rejected_rows": "1",
        "pins ranked anew": "2",
        "rows written to engaged_queries": "2",
        "queries kept": "2",
        "dropped: personal data": "1",
        "dropped: before the window": "1",
        "dropped: action of no weight": "1",
        "pins with some, not in the store yet": "1",
    }
    assert result.stdout.splitlines()[-2:] == ["730 days up to 2024-05-02", "actions of no weight (--weight ACTION=W): view (1 rows)"]
    assert fits(result.stdout)
    assert engagements(db) == {"1": {"red mug": 3}, "9": {"cup": 1}}


def test_the_table_fits_into_80_columns_whatever_is_dropped(tmp_path: Path, db: Path) -> None:
    common = {f"c{i}": "Recipes" for i in range(30)}
    others: dict[Any, str | None] = {f"o{i}": f"cake {i}" for i in range(990)}
    odd = {"x": "x" * 61, "y": "y", "w": "a b c d e f g h i j k"}
    write(tmp_path / "boards.parquet", boards_table(common | others | odd))
    write(tmp_path / "saves.parquet", saves_table(*(("1", board) for board in [*common, *odd, *list(others)[:12]])))
    result = captioner("aggregate", "boards", db, "--boards", tmp_path / "boards.parquet", "--saves", tmp_path / "saves.parquet")
    dropped = {label.removeprefix("dropped: "): int(n) for label, n in shown(result.stdout).items() if label.startswith("dropped: ")}
    assert dropped == {
        "on more than --max-board-share of the boards": 30,
        "longer than --max-chars": 1,
        "shorter than --min-chars": 1,
        "more words than --max-words": 1,
        "beyond --top": 2,
    }
    assert fits(result.stdout)


def test_the_table_fits_into_80_columns_whatever_the_actions_are(tmp_path: Path, db: Path) -> None:
    log = write(tmp_path / "log.csv", log_table(*(("1", "mug", f"looked at it for the {i}. time", "2024-05-01") for i in range(10))))
    assert fits(captioner("aggregate", "queries", db, "--log", log).stdout)


def test_json_is_exactly_one_object_on_standard_output(db: Path, boards: Path, saves: Path, log: Path) -> None:
    for arguments in (["boards", db, "--boards", boards, "--saves", saves], ["queries", db, "--log", log], ["explain", db, "1"]):
        found = process("aggregate", *arguments, "--json")
        assert (found.returncode, found.stderr, found.stdout.count(b"\n")) == (0, b"", 1)
        if arguments[0] != "explain":
            assert json.loads(found.stdout).keys() >= COUNTS


def test_what_json_counts(db: Path, boards: Path, saves: Path, log: Path) -> None:
    found = counts("aggregate", "boards", db, "--boards", boards, "--saves", saves)
    assert {name: found[name] for name in COUNTS} == {
        "rows_read": 15,
        "pins": 2,
        "rows_written": 2,
        "unknown_boards": 1,
        "dropped": {"empty": 1, "says nothing": 1, "personal data": 1},
    }
    found = counts("aggregate", "queries", db, "--log", log)
    assert {name: found[name] for name in COUNTS} == {
        "rows_read": 7,
        "pins": 2,
        "rows_written": 2,
        "unknown_boards": 0,
        "dropped": {"personal data": 1, "before the window": 1, "action of no weight": 1},
    }


def test_a_second_run_reads_nothing_and_ends_with_the_same_titles(db: Path, boards: Path, saves: Path, log: Path) -> None:
    for arguments in (["boards", db, "--boards", boards, "--saves", saves], ["queries", db, "--log", log]):
        first = counts("aggregate", *arguments)
        result = captioner("aggregate", *arguments)
        lines = shown(result.stdout)
        sources = 2 if arguments[0] == "boards" else 1
        assert [lines["rows read"], lines["sources that were read before"], lines["pins ranked anew"]] == ["0", str(sources), "0"]
        again = counts("aggregate", *arguments)
        assert [again[name] for name in ("rows_read", "pins", "rows_written")] == [0, 0, 0]
        assert [again[name] for name in ("dropped", "unknown_boards", "pins_not_in_store")] == [first[name] for name in ("dropped", "unknown_boards", "pins_not_in_store")]
    assert titles(db) == {"1": ["kitchen ideas", "tea time"], "9": ["tea time"]}
    assert engagements(db) == {"1": {"red mug": 3}, "9": {"cup": 1}}


def test_the_runs_are_kept_with_their_arguments_and_counts(db: Path, boards: Path, saves: Path) -> None:
    found = counts("aggregate", "boards", db, "--boards", boards, "--saves", saves, "--top", "3")
    with closing(sqlite3.connect(db)) as conn:
        command, arguments, finished, kept = conn.execute("SELECT command, arguments, finished_at, counts FROM runs").fetchone()
    assert (command, json.loads(arguments)["top"], json.loads(kept)) == ("aggregate boards", 3, found)
    assert finished


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> str:
    """What is drawn on a terminal."""
    folder = tmp_path_factory.mktemp("terminal")
    open_store(folder / "my.db", create=True).close()
    saves = write(folder / "saves.csv", saves_table(("1", "a")))
    screen, terminal = pty.openpty()
    arguments: list[str | Path] = ["aggregate", "boards", folder / "my.db", "--boards", write(folder / "boards.csv", boards_table({"a": "Tea"})), "--saves", saves]
    with subprocess.Popen([CAPTIONER, *arguments], stdout=subprocess.DEVNULL, stderr=terminal) as process:
        os.close(terminal)
        shown = b""
        while True:
            try:
                shown += os.read(screen, 65536)
            except OSError:  # the end, as Linux says it
                break
    os.close(screen)
    assert process.returncode == 0
    return shown.decode()


def test_progress_is_shown_on_a_terminal(drawn: str) -> None:
    assert re.search(r"reading .* 2 of 2 sources", drawn)
    assert "ranking" in drawn
    assert re.search(r"writing .* 1 of 1 pins", drawn)


def test_progress_shows_no_numbers_of_nothing(drawn: str) -> None:
    assert " 0 , 0.0/s" not in drawn


@pytest.mark.parametrize("command", [[], ["boards"], ["queries"], ["explain"]])
def test_every_command_explains_itself_with_an_example(command: list[str]) -> None:
    result = captioner("aggregate", *command, "--help")
    assert result.exit_code == 0
    assert max(map(len, result.stdout.splitlines())) <= 100
    if command:
        assert f"  captioner aggregate {command[0]} my.db" in result.stdout
        assert "--json" in result.stdout
    else:
        assert re.findall(r"(?m)^  (boards|queries|explain) ", result.stdout) == ["boards", "queries", "explain"]


# --- sources ---


@pytest.mark.parametrize("ending", ["parquet", "csv", "tsv", "jsonl", "ndjson", "json", "csv.gz", "tsv.gz", "jsonl.gz"])
def test_every_form_of_table_is_read(tmp_path: Path, db: Path, ending: str) -> None:
    boards = write(tmp_path / f"boards.{ending}", boards_table({"a": 'Küche, "neu"', "b": "Tea"}) | {"owner_id": ["u", "v"], "created_at": ["2024-05-01"] * 2})
    saves = write(tmp_path / f"saves.{ending}", saves_table(("1", "a"), ("2", "b"), ("1", "b")) | {"user_id": ["u"] * 3, "saved_at": ["2024-05-01T12:00:00Z"] * 3})
    log = write(
        tmp_path / f"log.{ending}",
        log_table(("1", "Küche", "save", "2024-05-01", "7"), ("2", "Tea", "click", "2024-05-02", ""), names=("pin_id", "query", "action", "date", "user_id")),
    )
    assert counts("aggregate", "boards", db, "--boards", boards, "--saves", saves)["rows_read"] == 5
    assert titles(db) == {"1": ["küche neu", "tea"], "2": ["tea"]}
    assert counts("aggregate", "queries", db, "--log", log)["rows_read"] == 2
    assert queries(db) == {"1": ["küche"], "2": ["tea"]}
    assert rejected(db) == []


def test_globs_folders_and_repeated_options_add_up(tmp_path: Path, db: Path) -> None:
    folder = tmp_path / "saves"
    (folder / "day=2" / "deep").mkdir(parents=True)
    write(folder / "a-1.csv", saves_table(("1", "a")))
    write(folder / "a-2.jsonl.gz", saves_table(("1", "b")))
    write(folder / "b.parquet", saves_table(("2", "a")))
    write(folder / "day=2" / "deep" / "c.tsv", saves_table(("2", "c")))
    (folder / "notes.txt").write_text("no table")
    boards = write(tmp_path / "boards.csv", boards_table({"a": "tea", "b": "mug", "c": "cup"}))
    found = counts("aggregate", "boards", db, "--boards", boards, "--saves", f"{folder}/a-*", "--saves", folder / "b.parquet")
    assert (found["rows_read"], sorted(titles(db)["1"]), titles(db)["2"]) == (6, ["mug", "tea"], ["tea"])
    found = counts("aggregate", "boards", db, "--saves", folder)
    assert (found["rows_read"], found["unchanged"], sorted(titles(db)["2"])) == (1, 3, ["cup", "tea"])


def test_standard_input_adds_up_and_the_same_again_is_skipped(db: Path) -> None:
    line = '{"pin_id": 1, "query": "%s", "action": "save", "date": "2024-05-01"}\n'
    given = [line % "mug", line % "mug" + line % "tea", line % "mug"]
    first = process("aggregate", "queries", db, "--log", "-", "--json", stdin=given[0].encode())
    found = [json.loads(first.stdout), *(counts("aggregate", "queries", db, "--log", "-", stdin=text) for text in given[1:])]
    assert [n["rows_read"] for n in found] == [1, 2, 0]
    assert engagements(db) == {"1": {"mug": 2, "tea": 1}}


def test_boards_may_come_by_standard_input_and_saves_from_a_file(db: Path, saves: Path) -> None:
    counts("aggregate", "boards", db, "--boards", "-", "--saves", saves, stdin='{"board_id": "c", "title": "Tea Time"}\n')
    assert titles(db) == {"1": ["tea time"], "9": ["tea time"]}


def test_standard_input_cannot_be_two_tables(db: Path) -> None:
    assert "standard input" in refused("aggregate", "boards", db, "--boards", "-", "--saves", "-", code=2, stdin='{"board_id": "c", "title": "Tea Time"}\n')


def test_saves_may_come_before_their_boards(db: Path, boards: Path, saves: Path) -> None:
    assert counts("aggregate", "boards", db, "--saves", saves)["unknown_boards"] == 8
    assert titles(db) == {}
    assert counts("aggregate", "boards", db, "--boards", boards)["unknown_boards"] == 1
    assert titles(db) == {"1": ["kitchen ideas", "tea time"], "9": ["tea time"]}


def test_a_source_that_is_rewritten_replaces_what_it_gave(db: Path, boards: Path, saves: Path) -> None:
    arguments = ["aggregate", "boards", db, "--boards", boards, "--saves", saves]
    counts(*arguments)
    write(saves, saves_table(("2", "c")))
    assert counts(*arguments)["rows_read"] == 1
    assert titles(db) == {"2": ["tea time"]}
    write(boards, boards_table({"c": "Coffee Time"}))
    assert counts(*arguments)["rows_read"] == 1
    assert titles(db) == {"2": ["coffee time"]}
    assert rejected(db) == []  # the row without a pin_id is gone with the rest


def test_rebuild_forgets_what_was_read_before(tmp_path: Path, db: Path, boards: Path, saves: Path, log: Path) -> None:
    counts("aggregate", "boards", db, "--boards", boards, "--saves", saves)
    counts("aggregate", "queries", db, "--log", log)
    more = write(tmp_path / "more.csv", saves_table(("2", "a")))
    assert counts("aggregate", "boards", db, "--boards", boards, "--saves", more, "--rebuild")["rows_read"] == 7
    assert titles(db) == {"2": ["kitchen ideas"]}
    assert set(queries(db)) == {"1", "9"}  # of the other aggregation nothing was said
    other = write(tmp_path / "other.csv", log_table(("2", "cup", "save", "2024-05-01")))
    assert counts("aggregate", "queries", db, "--log", other, "--rebuild")["rows_read"] == 1
    assert queries(db) == {"2": ["cup"]}


@pytest.mark.parametrize("kind", ["boards", "queries"])
def test_rebuild_without_sources_says_what_to_name_and_keeps_everything(db: Path, boards: Path, saves: Path, log: Path, kind: str) -> None:
    counts("aggregate", "boards", db, "--boards", boards, "--saves", saves)
    counts("aggregate", "queries", db, "--log", log)
    before = titles(db), queries(db)
    named = "--boards and --saves" if kind == "boards" else "--log"
    assert refused("aggregate", kind, db, "--rebuild") == f"--rebuild starts afresh and needs every source: name them with {named}"
    assert (titles(db), queries(db)) == before
    assert counts("aggregate", kind, db)["rows_read"] == 0


@pytest.mark.parametrize(
    ("kind", "said"),
    [("boards", "no boards and no saves have been read yet: name them with --boards and --saves"), ("queries", "no query log has been read yet: name it with --log")],
)
def test_a_first_run_without_sources_says_what_to_name(db: Path, kind: str, said: str) -> None:
    assert refused("aggregate", kind, db) == said


def test_paths_that_redaction_makes_equal_are_sources_of_their_own(tmp_path: Path, db: Path) -> None:
    for key, query in (("1", "mug"), ("2", "tea")):
        write(tmp_path / f"log?key={key}.csv", log_table(("1", query, "save", "2024-05-01")))
    counts("aggregate", "queries", db, "--log", tmp_path / "log?key=1.csv", "--log", tmp_path / "log?key=2.csv")
    assert queries(db) == {"1": ["mug", "tea"]}


def test_paths_that_are_no_text_are_sources_of_their_own(tmp_path: Path, db: Path) -> None:
    for name, query in ((b"caf\xe8.csv", "mug"), (b"caf\xe9.csv", "tea")):
        write(tmp_path / os.fsdecode(name), log_table(("1", query, "save", "2024-05-01")))
    counts("aggregate", "queries", db, "--log", f"{tmp_path}/caf*.csv")
    assert queries(db) == {"1": ["mug", "tea"]}


# --- columns ---


def test_map_names_the_columns_of_all_tables_or_of_one(tmp_path: Path, db: Path) -> None:
    boards = write(tmp_path / "boards.csv", {"board": ["a"], "name": ["Tea"], "pin_id": ["?"]})
    saves = write(tmp_path / "saves.parquet", {"item": ["1"], "board": ["a"], "pin_id": ["no"]})
    counts("aggregate", "boards", db, "--boards", boards, "--saves", saves, "--map", "board_id=board", "--map", "saves.pin_id=item", "--map", "boards.title=name")
    assert titles(db) == {"1": ["tea"]}
    log = write(tmp_path / "log.jsonl", {"item": [1], "q": ["mug"], "what": ["save"], "day": ["2024-05-01"], "n": [3]})
    maps = [part for pair in ("pin_id=item", "log.query=q", "action=what", "date=day", "count=n") for part in ("--map", pair)]
    counts("aggregate", "queries", db, "--log", log, *maps)
    assert engagements(db) == {"1": {"mug": 3}}


@pytest.mark.parametrize(
    ("kind", "pair", "code", "said"),
    [
        ("boards", "saves.pinid=item", 1, "--map names no field of boards or saves: saves.pinid; the fields are board_id, title, created_at, owner_id, pin_id"),
        ("boards", "pinid=item", 1, "--map names no field of boards or saves: pinid; the fields are"),
        ("boards", "boards.pin_id=item", 1, "--map names no field of boards or saves: boards.pin_id; the fields are"),
        ("boards", "log.pin_id=item", 1, "--map names no field of boards or saves: log.pin_id; the fields are"),
        ("boards", "query=q", 1, "--map names no field of boards or saves: query; the fields are"),
        ("boards", "saves.pin_id=item", 1, "saves.csv has no column 'item' (--map pin_id=item); its columns: pin_id, board_id"),
        ("boards", "saves.pin_id", 2, "--map takes FIELD=COLUMN, for instance --map title=name; it got 'saves.pin_id'"),
        ("queries", "querry=q", 1, "--map names no field of log: querry; the fields are pin_id, query, action, date, timestamp, count, user_id"),
        ("queries", "saves.pin_id=item", 1, "--map names no field of log: saves.pin_id; the fields are"),
        ("queries", "query=q", 1, "log.csv has no column 'q' (--map query=q); its columns: pin_id, query, action, date, count"),
    ],
)
def test_a_mistyped_map_is_said_and_nothing_is_read(db: Path, boards: Path, saves: Path, log: Path, kind: str, pair: str, code: int, said: str) -> None:
    sources = ["--boards", boards, "--saves", saves] if kind == "boards" else ["--log", log]
    assert said in refused("aggregate", kind, db, *sources, "--map", pair, code=code)
    with closing(sqlite3.connect(db)) as conn:
        assert conn.execute("SELECT count(*) FROM evidence").fetchone() == (0,)


def test_a_mapped_column_that_no_json_row_has_is_said(tmp_path: Path, db: Path) -> None:
    log = write(tmp_path / "log.jsonl", log_table(("1", "mug", "save", "2024-05-01")))
    assert "no row has 'who' (--map user_id=who)" in refused("aggregate", "queries", db, "--log", log, "--map", "user_id=who")
    assert queries(db) == {}


@pytest.mark.parametrize("ending", ["csv", "parquet"])
@pytest.mark.parametrize(
    ("kind", "option", "table", "said"),
    [
        ("boards", "--boards", {"board_id": ["a"], "name": ["Tea"]}, "has no column 'title'; say which one it is with --map title=COLUMN; its columns: board_id, name"),
        ("boards", "--saves", {"pin": ["1"], "board_id": ["a"]}, "has no column 'pin_id'; say which one it is with --map pin_id=COLUMN; its columns: pin, board_id"),
        (
            "queries",
            "--log",
            {"pin_id": ["1"], "query": ["mug"], "action": ["save"]},
            "has no column 'date'; say which one it is with --map date=COLUMN; its columns: pin_id, query, action",
        ),
        ("queries", "--log", {"pin_id": ["1"], "query": ["mug"], "date": ["2024-05-01"]}, "has no column 'action'; say which one it is with --map action=COLUMN"),
    ],
)
def test_a_missing_column_is_said_before_anything_is_read(tmp_path: Path, db: Path, ending: str, kind: str, option: str, table: Columns, said: str) -> None:
    path = write(tmp_path / f"table.{ending}", table)
    assert f"{path} {said}" in refused("aggregate", kind, db, option, path)


@pytest.mark.parametrize("ending", ["csv", "jsonl", "parquet"])
def test_a_log_may_have_timestamps_instead_of_dates(tmp_path: Path, db: Path, ending: str) -> None:
    times: Any = ["2024-05-01T23:30:00-02:00", "2024-05-01T12:00:00Z"]
    if ending == "parquet":
        times = pa.array([datetime(2024, 5, 2, 1, 30, tzinfo=UTC), datetime(2024, 5, 1, 12, tzinfo=UTC)], pa.timestamp("us", "America/Noronha"))
    log = write(tmp_path / f"log.{ending}", {"pin_id": ["1", "2"], "query": ["late", "noon"], "action": ["save"] * 2, "timestamp": times})
    found = counts("aggregate", "queries", db, "--log", log)
    with closing(sqlite3.connect(db)) as conn:
        assert conn.execute("SELECT pin_id, first_dates, last_dates FROM engaged_queries ORDER BY pin_id").fetchall() == [
            ("1", '["2024-05-02"]', '["2024-05-02"]'),
            ("2", '["2024-05-01"]', '["2024-05-01"]'),
        ]
    assert found["as_of"] == "2024-05-02"


def test_where_a_log_has_both_the_date_counts_and_the_timestamp_fills_in(tmp_path: Path, db: Path) -> None:
    rows = [("1", "mug", "save", "2024-05-01", "2024-05-03T12:00:00Z"), ("1", "cup", "save", "", "2024-05-02T12:00:00Z"), ("1", "tea", "save", "", "")]
    log = write(tmp_path / "log.csv", log_table(*rows, names=("pin_id", "query", "action", "date", "timestamp")))
    found = counts("aggregate", "queries", db, "--log", log)
    assert (found["as_of"], queries(db), rejected(db)) == ("2024-05-02", {"1": ["cup", "mug"]}, [(str(log), 4, "no date")])


def test_a_whole_number_is_the_same_pin_in_every_form_and_type(tmp_path: Path, db: Path) -> None:
    forms: dict[str, Any] = {
        "text.parquet": ["7"],
        "int8.parquet": pa.array([7], pa.int8()),
        "uint64.parquet": pa.array([7], pa.uint64()),
        "float.parquet": pa.array([7.0, None], pa.float64()),  # what pandas makes of integers with gaps
        "decimal.parquet": pa.array([Decimal(7)], pa.decimal128(38, 0)),
        "dictionary.parquet": pa.array(["7"]).dictionary_encode(),
        "text.csv": ["7"],
        "int.jsonl": [7],
        "float.jsonl": [7.0],
        "text.jsonl": ["7"],
    }
    boards = write(tmp_path / "boards.csv", boards_table(dict.fromkeys(range(len(forms)), "Tea")))
    for i, (name, ids) in enumerate(forms.items()):
        write(tmp_path / name, {"pin_id": ids, "board_id": [i] * len(ids)})
    found = counts("aggregate", "boards", db, "--boards", boards, *(part for name in forms for part in ("--saves", tmp_path / name)))
    assert (titles(db), found["unknown_boards"]) == ({"7": ["tea"]}, 0)
    with closing(sqlite3.connect(db)) as conn:
        assert conn.execute("SELECT boards FROM board_titles").fetchone() == (f"[{len(forms)}]",)
    assert rejected(db) == [(str(tmp_path / "float.parquet"), 2, "no pin_id")]


def test_large_numbers_are_exact_in_parquet_and_csv(tmp_path: Path, db: Path) -> None:
    numbers = {"int64": [2**53 + 1, 2**63 - 1, -7], "uint64": [2**64 - 1], "decimal": [10**25]}
    kinds = {"int64": pa.int64(), "uint64": pa.uint64(), "decimal": pa.decimal128(38, 0)}
    for name, ids in numbers.items():
        saves = write(tmp_path / f"{name}.parquet", {"pin_id": pa.array(map(Decimal, ids) if name == "decimal" else ids, kinds[name]), "board_id": ["a"] * len(ids)})
        counts("aggregate", "boards", db, "--saves", saves)
    everything = [str(number) for ids in numbers.values() for number in ids]
    text = write(tmp_path / "text.csv", saves_table(*((number, "b") for number in everything)))
    counts("aggregate", "boards", db, "--boards", write(tmp_path / "boards.jsonl", boards_table({"a": "Tea", "b": "Tea"})), "--saves", text)
    with closing(sqlite3.connect(db)) as conn:
        assert dict(conn.execute("SELECT pin_id, boards FROM board_titles")) == dict.fromkeys(everything, "[2]")


@pytest.mark.parametrize("order", ["abc", "bca", "cab", "ab"])
def test_parquet_files_of_one_run_may_have_different_types(tmp_path: Path, db: Path, order: str) -> None:
    """One writer's ids are numbers, another's texts; a count fits into a byte on one day and not on the other."""
    ids = {"a": pa.array([7], pa.int32()), "b": pa.array(["07"]), "c": pa.array([2**40], pa.int64())}
    n = {"a": pa.array([1], pa.int8()), "b": pa.array([1000], pa.int64()), "c": pa.array([200], pa.uint8())}
    for name in ids:
        write(tmp_path / f"{name}.parquet", log_table((None, "mug", "save", "2024-05-01")) | {"pin_id": ids[name], "count": n[name]})
    counts("aggregate", "queries", db, *(part for name in order for part in ("--log", tmp_path / f"{name}.parquet")))
    found = {"a": ("7", 1), "b": ("07", 1000), "c": (str(2**40), 200)}
    assert engagements(db) == {found[name][0]: {"mug": found[name][1]} for name in sorted(order)}


def test_ids_that_only_look_alike_are_different_pins(tmp_path: Path, db: Path) -> None:
    ids = ["7", "07", "7.0", " 7", "7e0", "٧", "7\u200b"]
    for ending in ("csv", "jsonl", "parquet"):
        write(tmp_path / f"saves.{ending}", saves_table(*((pin, ending) for pin in ids)))
    write(tmp_path / "boards.csv", boards_table({"csv": "tea", "jsonl": "mug", "parquet": "cup"}))
    counts("aggregate", "boards", db, "--boards", tmp_path / "boards.csv", "--saves", f"{tmp_path}/saves.*")
    assert {pin: len(found) for pin, found in titles(db).items()} == dict.fromkeys(sorted(ids), 3)


def test_columns_of_other_names_do_no_harm(tmp_path: Path, db: Path) -> None:
    names = ["source", "line", "bad", "content", "filename", "place", "code", "Query", "COUNT", "pin_id "]
    log = write(tmp_path / "log.parquet", log_table(("1", "mug", "save", "2024-05-01")) | {name: ["9"] for name in names})
    counts("aggregate", "queries", db, "--log", log)
    assert engagements(db) == {"1": {"mug": 1}}


def test_a_column_may_have_the_name_of_one_of_duckdb(tmp_path: Path, db: Path) -> None:
    log = write(tmp_path / "log.parquet", log_table(("1", "mug", "save", "2024-05-01")) | {"file_row_number": [7]})
    counts("aggregate", "queries", db, "--log", log)
    assert engagements(db) == {"1": {"mug": 1}}


# --- rows that are none ---


BAD_LOG_ROWS = [
    ("1", "mug", "save", "2024-05-01", "1"),
    (None, "no id", "save", "2024-05-01", "1"),
    (" ", "blank id", "save", "2024-05-01", "1"),
    ("1", "no action", None, "2024-05-01", "1"),
    ("1", "nothing", "save", "2024-05-01", "0"),
    ("1", "less than nothing", "save", "2024-05-01", "-2"),
    ("1", "half", "save", "2024-05-01", "1.5"),
    ("1", "text", "save", "2024-05-01", "two"),
    ("1", "too many", "save", "2024-05-01", str(2**31)),
    ("1", "no date", "save", None, "1"),
    ("1", "no such date", "save", "soon", "1"),
    ("1", "no such day", "save", "2024-02-30", "1"),
    ("p" * 4097, "long id", "save", "2024-05-01", "1"),
    ("1", "mug", "save", "2024-05-02", None),
]
BAD_LOG_REASONS = {
    2: "no pin_id",
    3: "no pin_id",
    4: "no action",
    5: "count is below 1",
    6: "count is below 1",
    7: "count is no whole number",
    8: "count is no whole number",
    9: "count is above 2,147,483,647",
    10: "no date",
    11: NO_DAY,
    12: NO_DAY,
    13: "pin_id is longer than 4096 characters",
}


@pytest.mark.parametrize("ending", ["csv", "jsonl", "tsv.gz", "parquet"])
def test_bad_rows_of_a_log_are_counted_and_kept_with_their_line_and_stop_nothing(tmp_path: Path, db: Path, ending: str) -> None:
    log = write(tmp_path / f"log.{ending}", log_table(*BAD_LOG_ROWS, names=("pin_id", "query", "action", "date", "count")))
    found = counts("aggregate", "queries", db, "--log", log)
    assert (found["rows_read"], found["rejected"]) == (len(BAD_LOG_ROWS), len(BAD_LOG_REASONS))
    header = 1 if ending.partition(".")[0] in ("csv", "tsv") else 0
    assert rejected(db) == [(str(log), line + header, reason) for line, reason in BAD_LOG_REASONS.items()]
    assert engagements(db) == {"1": {"mug": 2}}


def test_bad_rows_of_a_parquet_log_with_types_are_counted_and_kept_too(tmp_path: Path, db: Path) -> None:
    columns = log_table(*([("1", "mug", "save")] * 6), names=("pin_id", "query", "action"))
    columns |= {"date": pa.array([date(2024, 5, 1)] * 5 + [None], pa.date32()), "count": pa.array([1, 0, -3, 2**31, None, 1], pa.int64())}
    columns["pin_id"] = pa.array([1, 1, 1, 1, None, 1], pa.int64())
    whole, half = write(tmp_path / "whole.parquet", columns), dict(columns)
    half["count"] = pa.array([2.0, 1.5, float("nan"), float("inf"), 1.0, 1.0])
    write(tmp_path / "half.parquet", half)
    counts("aggregate", "queries", db, "--log", whole)
    assert [row[1:] for row in rejected(db)] == [(2, "count is below 1"), (3, "count is below 1"), (4, "count is above 2,147,483,647"), (5, "no pin_id"), (6, "no date")]
    assert engagements(db) == {"1": {"mug": 1}}
    counts("aggregate", "queries", db, "--log", tmp_path / "half.parquet", "--rebuild")
    assert [row[1:] for row in rejected(db) if row[0].endswith("half.parquet")] == [
        (2, "count is no whole number"),
        (4, "count is no whole number"),
        (5, "no pin_id"),
        (6, "no date"),
    ]
    assert engagements(db) == {"1": {"mug": 3}}  # 2, and one of a count that is missing


@pytest.mark.parametrize("ending", ["csv", "jsonl", "parquet"])
def test_bad_rows_of_boards_and_saves_are_counted_and_kept(tmp_path: Path, db: Path, ending: str) -> None:
    boards = write(tmp_path / f"boards.{ending}", {"board_id": ["a", None, " ", "b"], "title": ["Tea", "no id", "blank id", None]})
    saves = write(tmp_path / f"saves.{ending}", {"pin_id": ["1", None, "1", "1"], "board_id": ["a", "a", " ", "b"], "saved_at": ["2024-05-01", None, None, None]})
    found = counts("aggregate", "boards", db, "--boards", boards, "--saves", saves)
    header = 1 if ending == "csv" else 0
    assert rejected(db) == [
        (str(boards), 2 + header, "no board_id"),
        (str(boards), 3 + header, "no board_id"),
        (str(saves), 2 + header, "no pin_id"),
        (str(saves), 3 + header, "no board_id"),
    ]
    assert (found["rows_read"], found["rejected"], found["dropped"], found["unknown_boards"]) == (8, 4, {"empty": 1}, 0)
    assert titles(db) == {"1": ["tea"]}


def test_lines_that_are_no_rows_at_all_are_counted_and_kept(tmp_path: Path, db: Path) -> None:
    good = '{"pin_id": 1, "query": "mug", "action": "save", "date": "2024-05-01"}\n'
    (tmp_path / "log.jsonl").write_text(good + "{no json\n" + "[1]\n\n" + good)
    (tmp_path / "log.csv").write_text("pin_id,query,action,date\n1,mug,save,2024-05-01\n1,too,many,2024-05-01,cells\n1,few\n")
    assert counts("aggregate", "queries", db, "--log", tmp_path / "log.jsonl")["rejected"] == 2
    assert counts("aggregate", "queries", db, "--log", tmp_path / "log.csv")["rejected"] == 2
    assert [row[1:] for row in rejected(db)] == [(2, "not valid JSON"), (3, "not a JSON object"), (3, "more cells than the header has columns"), (4, "no action")]
    assert engagements(db) == {"1": {"mug": 3}}


def spoilt(texts: Iterable[bytes]) -> pa.Array:
    """Text as Arrow has it, without the promise that it is UTF-8."""
    return pa.Array.from_buffers(pa.string(), len(binary := pa.array(list(texts), pa.binary())), binary.buffers())


@pytest.mark.parametrize("ending", ["csv", "jsonl", "parquet"])
def test_bytes_that_are_no_utf8_cost_their_row_alone(tmp_path: Path, db: Path, ending: str) -> None:
    rows = [[b"1", b"mug", b"save", b"2024-05-01", b"u"] for _ in range(6)]
    for row, column in enumerate((0, 1, 2, 4), 1):
        rows[row][column] = b"caf\xe9"
    log = tmp_path / f"log.{ending}"
    if ending == "parquet":
        pq.write_table(pa.table({name: spoilt(row[i] for row in rows) for i, name in enumerate(USER_COLUMNS)}), log)
    elif ending == "csv":
        log.write_bytes(b"\n".join(map(b",".join, [[name.encode() for name in USER_COLUMNS], *rows])))
    else:
        log.write_bytes(b"\n".join(b"{" + b", ".join(b'"%s": "%s"' % (name.encode(), value) for name, value in zip(USER_COLUMNS, row, strict=True)) + b"}" for row in rows))
    assert counts("aggregate", "queries", db, "--log", log)["rejected"] == 4
    header = 1 if ending == "csv" else 0
    assert rejected(db) == [(str(log), line + header, "not valid UTF-8") for line in range(2, 6)]
    assert engagements(db) == {"1": {"mug": 2}}


def test_a_date_in_parquet_that_is_no_utf8_costs_its_row_alone(tmp_path: Path, db: Path) -> None:
    log = write(tmp_path / "log.parquet", {"pin_id": ["1", "1"], "query": ["mug", "cup"], "action": ["save"] * 2, "date": spoilt([b"2024-05-01", b"caf\xe9"])})
    assert counts("aggregate", "queries", db, "--log", log)["rejected"] == 1
    assert queries(db) == {"1": ["mug"]}


def test_a_count_in_parquet_beyond_int64_costs_its_row_alone(tmp_path: Path, db: Path) -> None:
    log = write(tmp_path / "log.parquet", log_table(("1", "mug", "save", "2024-05-01"), ("1", "cup", "save", "2024-05-01")) | {"count": pa.array([1, 2**64 - 1], pa.uint64())})
    assert counts("aggregate", "queries", db, "--log", log)["rejected"] == 1
    assert engagements(db) == {"1": {"mug": 1}}


@pytest.mark.parametrize(
    "days",
    [
        pytest.param(pa.array([3_664_000], pa.int32()).cast(pa.date32()), id="the year 12001"),
        pytest.param(pa.array([-800_000], pa.int32()).cast(pa.date32()), id="before Christ"),
        pytest.param(pa.array([2**31 - 1], pa.int32()).cast(pa.date32()), id="infinity"),
        pytest.param(pa.array(["0000-01-01"]), id="the year 0 as text"),
    ],
)
def test_a_day_beyond_what_can_be_costs_its_row_alone(tmp_path: Path, db: Path, days: pa.Array) -> None:
    """As it does in CSV and JSON, and in `ingest pins`."""
    log = write(tmp_path / "log.parquet", {"pin_id": ["1"], "query": ["mug"], "action": ["save"], "date": days})
    assert counts("aggregate", "queries", db, "--log", log)["rejected"] == 1
    assert queries(db) == {}


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_an_id_of_blanks_of_any_kind_is_none(tmp_path: Path, db: Path, ending: str) -> None:
    saves = write(tmp_path / f"saves.{ending}", saves_table(("1", "a"), *((blank, "a") for blank in ("\t", "\n", "\u00a0", "\u3000", " \u2003"))))
    boards = write(tmp_path / "boards.csv", boards_table({"a": "Tea"}))
    counts("aggregate", "boards", db, "--boards", boards, "--saves", saves)
    assert titles(db) == {"1": ["tea"]}
    assert [reason for *_, reason in rejected(db)] == ["no pin_id"] * 5


@pytest.mark.parametrize("ending", ["jsonl", "parquet"])
def test_an_id_with_a_nul_is_the_pin_that_ingest_makes_of_it(tmp_path: Path, db: Path, ending: str) -> None:
    saves = write(tmp_path / f"saves.{ending}", saves_table(("x\0y", "a")))
    boards = write(tmp_path / "boards.csv", boards_table({"a": "Tea"}))
    assert captioner("ingest", "pins", db, saves).exit_code == 0
    assert counts("aggregate", "boards", db, "--boards", boards, "--saves", saves)["pins_not_in_store"] == 0


@pytest.mark.parametrize("ending", ["parquet", "csv"])
def test_a_user_who_cannot_be_told_costs_no_row(tmp_path: Path, db: Path, ending: str) -> None:
    """user_id is optional."""
    log = write(tmp_path / f"log.{ending}", log_table(*(("1", "mug", "save", "2024-05-01", user) for user in (" ", "\t", "u" * 5000)), names=USER_COLUMNS))
    counts("aggregate", "queries", db, "--log", log)
    assert (engagements(db), rejected(db)) == ({"1": {"mug": 3}}, [])


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_a_count_of_2_0_is_two(tmp_path: Path, db: Path, ending: str) -> None:
    """What pandas writes for whole numbers where some are missing."""
    log = write(tmp_path / f"log.{ending}", log_table(("1", "mug", "save", "2024-05-01"), ("1", "mug", "save", "2024-05-01")) | {"count": [2.0, 3.0]})
    counts("aggregate", "queries", db, "--log", log)
    assert engagements(db) == {"1": {"mug": 5}}


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_there_is_no_hour_24(tmp_path: Path, db: Path, ending: str) -> None:
    log = write(tmp_path / f"log.{ending}", log_table(("1", "mug", "save", "2024-05-01T24:00:00Z")))
    assert counts("aggregate", "queries", db, "--log", log)["rejected"] == 1


def test_a_bad_row_of_standard_input_is_kept_under_its_name(db: Path) -> None:
    counts("aggregate", "queries", db, "--log", "-", stdin='{"query": "mug", "action": "save", "date": "2024-05-01"}\n')
    ((source, *row),) = rejected(db)
    assert row == [1, "no pin_id"]
    assert source.startswith("-")


def test_rejected_rows_are_those_of_what_counts(tmp_path: Path, db: Path) -> None:
    good = log_table(("1", "mug", "save", "2024-05-01"))
    first, second = write(tmp_path / "first.csv", log_table(("", "mug", "save", "2024-05-01"))), write(tmp_path / "second.csv", good)
    counts("aggregate", "queries", db, "--log", first, "--log", second)
    assert rejected(db) == [(str(first), 2, "no pin_id")]
    write(first, good)
    counts("aggregate", "queries", db, "--log", first, "--log", second)
    assert rejected(db) == []


def test_rejected_rows_stay_where_a_source_is_looked_at_again(db: Path, boards: Path, saves: Path) -> None:
    for _ in range(3):
        counts("aggregate", "boards", db, "--boards", boards, "--saves", saves)
        assert rejected(db) == [(str(saves), 10, "no pin_id")]
        saves.touch()


def test_a_file_of_boards_and_saves_keeps_the_rejected_rows_of_both(tmp_path: Path, db: Path) -> None:
    """One row for each save, with the board's title."""
    path = write(tmp_path / "both.csv", {"pin_id": ["1", "", "2"], "board_id": ["a", "a", ""], "title": ["Tea", "Tea", "Mug"]})
    assert counts("aggregate", "boards", db, "--boards", path, "--saves", path)["rejected"] == 3
    assert titles(db) == {"1": ["tea"]}
    assert rejected(db) == [(str(path), 3, "no pin_id"), (str(path), 4, "no board_id"), (str(path), 4, "no board_id")]


# --- sources that cannot be read ---


def test_a_missing_file_or_glob_or_an_empty_folder_is_said(tmp_path: Path, db: Path, saves: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert refused("aggregate", "boards", db, "--boards", "none.csv", "--saves", saves) == "no such file: none.csv"
    assert refused("aggregate", "queries", db, "--log", "log/*.parquet") == "no such file: log/*.parquet"
    assert refused("aggregate", "queries", db, "--log", tmp_path / "empty").startswith(f"no table below the folder {tmp_path}/empty: captioner reads .parquet, .csv")
    assert "is no table by its name" in refused("aggregate", "queries", db, "--log", db)
    assert refused("aggregate", "boards", db) == "no boards and no saves have been read yet: name them with --boards and --saves"


@pytest.mark.parametrize("arguments", [["boards", "--boards", "{boards}"], ["queries", "--log", "{log}"], ["explain", "1"]])
def test_a_missing_store_is_refused_and_nothing_is_made(tmp_path: Path, boards: Path, log: Path, arguments: list[str]) -> None:
    command, *rest = (a.format(boards=boards, log=log) for a in arguments)
    before = set(tmp_path.iterdir())
    assert "none.db does not exist: make a store with `captioner ingest" in refused("aggregate", command, tmp_path / "none.db", *rest)
    assert set(tmp_path.iterdir()) == before


def many_saves(path: Path) -> bytes:
    return write(path, saves_table(*((f"p{i % 300}", f"b{i % 70}") for i in range(3000)))).read_bytes()


def test_a_truncated_parquet_file_is_one_sentence_and_nothing_of_it_is_kept(tmp_path: Path, db: Path, boards: Path, saves: Path) -> None:
    counts("aggregate", "boards", db, "--boards", boards, "--saves", saves)
    before = titles(db), counts("aggregate", "boards", db)
    path = tmp_path / "new.parquet"
    data = many_saves(path)
    good = write(tmp_path / "good.csv", saves_table(("2", "a")))
    for damaged in (data[: len(data) // 2], data[:-1], b"", b"no Parquet", bytes(len(data))):
        path.write_bytes(damaged)
        assert refused("aggregate", "boards", db, "--saves", good, "--saves", path).startswith(f"{path} is not a Parquet file that can be read: ")
    assert (titles(db), counts("aggregate", "boards", db)) == before
    many_saves(path)
    assert counts("aggregate", "boards", db, "--saves", good, "--saves", path)["rows_read"] == 3001  # the mend: copy it once more


def test_a_parquet_file_that_is_damaged_anywhere_is_one_sentence_that_names_it(tmp_path: Path, db: Path) -> None:
    path = tmp_path / "saves.parquet"
    data = many_saves(path)
    said = []
    for part in range(20):
        at = len(data) * part // 23 + 4
        path.write_bytes(data[:at] + b"\xff\x81\x7f\xfe" + data[at + 4 :])
        result = captioner("aggregate", "boards", db, "--saves", path, "--rebuild")
        if result.exit_code:  # else the damage changed an id: nothing can tell
            assert (result.exit_code, result.stdout, len(result.stderr.splitlines())) == (1, "", 1)
            said.append(result.stderr)
    with closing(sqlite3.connect(db)) as conn:
        assert conn.execute("SELECT count(*) FROM evidence_sources").fetchone()[0] <= 20 - len(said)
    assert len(said) > 15
    assert [sentence for sentence in said if str(path) not in sentence] == []


# --- options ---


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["boards", "--top", "0"], "'--top': 0 is not in the range 1<=x<=1000"),
        (["boards", "--top", "ten"], "'ten' is not a valid integer range"),
        (["boards", "--min-boards", "0"], "'--min-boards': 0 is not in the range x>=1"),
        (["boards", "--max-board-share", "1.1"], "'--max-board-share': 1.1 is not in the range"),
        (["boards", "--max-board-share", "-0.1"], "'--max-board-share': -0.1 is not in the range"),
        (["boards", "--min-chars", "0"], "'--min-chars': 0 is not in the range"),
        (["boards", "--max-chars", "0"], "'--max-chars': 0 is not in the range"),
        (["boards", "--max-words", "0"], "'--max-words': 0 is not in the range"),
        (["boards", "--log", "x.csv"], "No such option '--log'"),
        (["queries", "--top", "-1"], "'--top': -1 is not in the range 1<=x<=1000"),
        (["queries", "--window-days", "0"], "'--window-days': 0 is not in the range"),
        (["queries", "--min-engagements", "0"], "'--min-engagements': 0 is not in the range"),
        (["queries", "--min-users", "0"], "'--min-users': 0 is not in the range"),
        (["queries", "--as-of", "soon"], "'--as-of': 'soon' does not match the format '%Y-%m-%d'"),
        (["queries", "--as-of", "2023-02-29"], "'--as-of': '2023-02-29' does not match the format"),
        (["queries", "--weight", "save"], "'--weight': 'save' is no ACTION=W such as click=0.25"),
        (["queries", "--weight", "save=much"], "'--weight': 'save=much' is no ACTION=W such as click=0.25"),
        (["queries", "--weight", "=1"], "'--weight': '=1' is no ACTION=W such as click=0.25"),
        (["explain"], "Missing argument 'PIN_ID'"),
    ],
)
def test_an_option_that_makes_no_sense_is_wrong_usage(db: Path, arguments: list[str], said: str) -> None:
    command, *options = arguments
    assert said in refused("aggregate", command, db, *options, code=2)


@pytest.mark.parametrize("weight", ["save=-1", "save=nan", "save=inf", "save=1000001", "save=0.0000001"])
def test_a_weight_that_cannot_be_is_said(db: Path, log: Path, weight: str) -> None:
    said = captioner("aggregate", "queries", db, "--log", log, "--weight", weight)
    assert (said.exit_code in (1, 2), said.stdout) == (True, "")
    assert "it must be between 0 and a million, with at most 6 decimals" in said.stderr
    assert queries(db) == {}


def test_a_weight_that_cannot_be_is_wrong_usage(db: Path, log: Path) -> None:
    refused("aggregate", "queries", db, "--log", log, "--weight", "save=-1", code=2)


def test_a_share_that_is_no_number_is_wrong_usage(db: Path, boards: Path) -> None:
    refused("aggregate", "boards", db, "--boards", boards, "--max-board-share", "nan", code=2)


@pytest.mark.parametrize(
    "size",
    [
        "nonsense",
        "0",
        "4",
        "4 apples",
        "1e3",
        "1GB' --",
        *(size for size in ("-1", "none", "")),
    ],
)
def test_a_memory_limit_that_is_no_size_is_said(db: Path, boards: Path, size: str) -> None:
    assert refused("aggregate", "boards", db, "--boards", boards, "--memory-limit", size) == f"--memory-limit {size} is no size such as 500MB or 4GB"


@pytest.mark.parametrize("size", ["0MB", "1KB", "1MB"])
def test_a_memory_limit_that_is_too_small_is_said_with_the_mend(db: Path, boards: Path, saves: Path, size: str) -> None:
    assert "--memory-limit" in refused("aggregate", "boards", db, "--boards", boards, "--saves", saves, "--memory-limit", size)


def test_memory_limits_that_are_sizes_are_taken(db: Path, boards: Path, saves: Path) -> None:
    for size in ("500MB", "1GB", "0.5GiB", "600 MB"):
        counts("aggregate", "boards", db, "--boards", boards, "--saves", saves, "--rebuild", "--memory-limit", size)
        assert titles(db) == {"1": ["kitchen ideas", "tea time"], "9": ["tea time"]}


def test_options_of_boards_decide_without_reading_again(tmp_path: Path, db: Path) -> None:
    boards = write(
        tmp_path / "boards.csv", boards_table({1: "Kitchen Ideas", 2: "kitchen ideas", 3: "茶", 4: "Tea", 5: "a very long title of a board indeed", 6: "one two three four"})
    )
    saves = write(tmp_path / "saves.csv", saves_table(*(("1", i) for i in range(1, 7))))
    counts("aggregate", "boards", db, "--boards", boards, "--saves", saves)
    everything = ["one two three four", "a very long title of a board indeed", "kitchen ideas", "tea"]
    assert sorted(titles(db)["1"]) == sorted(everything)
    boards.unlink()
    saves.unlink()
    for options, kept, dropped in [
        (["--top", "1"], ["kitchen ideas"], {"beyond --top": 3}),
        (["--min-boards", "2"], ["kitchen ideas"], {"shorter than --min-chars": 1, "on fewer boards than --min-boards": 3}),
        (["--min-chars", "1", "--max-chars", "3"], ["tea", "茶"], {"longer than --max-chars": 4}),
        (["--max-words", "2"], ["kitchen ideas", "tea"], {"more words than --max-words": 2}),
        ([], sorted(everything), {"shorter than --min-chars": 1}),
    ]:
        found = counts("aggregate", "boards", db, *options)
        assert found["rows_read"] == 0
        assert sorted(titles(db)["1"]) == sorted(kept)
        assert found["dropped"].items() >= dropped.items()


def test_a_file_of_generic_titles_replaces_the_list(tmp_path: Path, db: Path, boards: Path, saves: Path) -> None:
    arguments = ["aggregate", "boards", db, "--boards", boards, "--saves", saves]
    counts(*arguments)
    assert titles(db)["1"] == ["kitchen ideas", "tea time"]  # My Stuff is on the list that comes along
    (tmp_path / "list.txt").write_text("\ufeff# what we skip\n\nＴＥＡ time!!\n   Something else\n", encoding="utf-8")
    assert counts(*arguments, "--generic-titles", tmp_path / "list.txt")["dropped"]["says nothing"] == 1
    assert titles(db)["1"] == ["kitchen ideas", "my stuff"]
    (tmp_path / "list.txt").write_text("# nothing\n")  # the same path with other titles
    counts(*arguments, "--generic-titles", tmp_path / "list.txt")
    assert sorted(titles(db)["1"]) == ["kitchen ideas", "my stuff", "tea time"]


@pytest.mark.parametrize(("name", "why"), [("none.txt", "No such file or directory"), (".", "Is a directory"), ("latin.txt", "it is not UTF-8")])
def test_a_file_of_generic_titles_that_cannot_be_read_is_said(tmp_path: Path, db: Path, boards: Path, name: str, why: str) -> None:
    (tmp_path / "latin.txt").write_bytes(b"caf\xe9\n")
    path = os.path.normpath(tmp_path / name)
    assert refused("aggregate", "boards", db, "--boards", boards, "--generic-titles", path) == f"{path} cannot be read as a list of titles: {why}"


def test_weights_say_what_an_action_counts(tmp_path: Path, db: Path) -> None:
    rows = [("1", "mug", "save", "2024-05-01"), ("1", "cup", "click", "2024-05-01"), ("1", "tea", "add to cart", "2024-05-01"), ("1", "tea", "view", "2024-05-01")]
    log = write(tmp_path / "log.csv", log_table(*rows))
    found = counts("aggregate", "queries", db, "--log", log)
    assert (queries(db), found["unweighted_actions"]) == ({"1": ["mug", "cup"]}, {"add to cart": 1, "view": 1})
    found = counts("aggregate", "queries", db, "--weight", "add to cart=2.5", "--weight", "click=1.25", "--weight", "save=0")
    assert (queries(db), found["unweighted_actions"]) == ({"1": ["tea", "cup"]}, {"save": 1, "view": 1})
    with closing(sqlite3.connect(db)) as conn:
        assert conn.execute("SELECT scores FROM engaged_queries").fetchone() == ("[2.5,1.25]",)


def test_the_window_moves_to_any_day_and_back(tmp_path: Path, db: Path) -> None:
    days = {"old": "2024-01-01", "edge": "2024-04-22", "in": "2024-04-23", "new": "2024-05-02", "to come": "2999-01-01"}
    log = write(tmp_path / "log.csv", log_table(*(("1", query, "save", day) for query, day in days.items())))
    found = counts("aggregate", "queries", db, "--log", log)
    assert (found["as_of"], queries(db)) == ("2024-05-02", {"1": ["new", "in", "edge", "old"]})
    for options, kept, dropped in [
        (["--window-days", "10"], ["in", "new"], {"before the window": 2, "after the as-of date": 1}),
        (["--window-days", "10", "--as-of", "2024-05-01"], ["edge", "in"], {"before the window": 1, "after the as-of date": 2}),
        (["--as-of", "2024-01-01"], ["old"], {"after the as-of date": 4}),
        (["--as-of", "2999-01-01", "--window-days", "1"], ["to come"], {"before the window": 4}),
        (["--as-of", "0001-01-01"], [], {"after the as-of date": 5}),
        (["--as-of", "9999-12-31"], [], {"before the window": 5}),
        ([], ["edge", "in", "new", "old"], {"after the as-of date": 1}),
    ]:
        found = counts("aggregate", "queries", db, *options)
        assert sorted(queries(db).get("1", [])) == kept
        assert (found["rows_read"], found["dropped"]) == (0, dropped)


def test_min_engagements_min_users_and_top_of_queries(tmp_path: Path, db: Path) -> None:
    rows = [("mug", 5, "u"), ("mug", 1, "u"), ("cup", 1, "u"), ("cup", 1, "v"), ("tea", 1, ""), ("tea", 1, None)]
    log = write(
        tmp_path / "log.parquet",
        log_table(*(("1", query, "save", "2024-05-01", n, user) for query, n, user in rows), names=("pin_id", "query", "action", "date", "count", "user_id")),
    )
    counts("aggregate", "queries", db, "--log", log)
    for options, kept, reason, n in [
        (["--min-engagements", "3"], ["mug"], "fewer engagements than --min-engagements", 2),
        (["--min-users", "2"], ["cup"], "fewer users than --min-users", 2),
        (["--top", "1"], ["mug"], "beyond --top", 2),
        (["--top", "1", "--min-users", "2"], ["cup"], "fewer users than --min-users", 2),
    ]:
        found = counts("aggregate", "queries", db, *options)
        assert (queries(db)["1"], found["dropped"]) == (kept, {reason: n})


# --- pins that are not in the store ---


def test_titles_and_queries_of_a_pin_wait_until_it_is_ingested(tmp_path: Path, db: Path, boards: Path, saves: Path, log: Path) -> None:
    assert counts("aggregate", "boards", db, "--boards", boards, "--saves", saves)["pins_not_in_store"] == 1
    assert counts("aggregate", "queries", db, "--log", log)["pins_not_in_store"] == 1
    seen = "SELECT pin_id, board_titles, board_title_counts, engaged_queries, engaged_query_counts FROM enriched_features ORDER BY pin_id"
    first = ("1", '["kitchen ideas","tea time"]', "[2,1]", '["red mug"]', "[3]")
    with closing(sqlite3.connect(db)) as conn:
        assert conn.execute(seen).fetchall() == [first, ("2", None, None, None, None)]
        assert captioner("ingest", "pins", db, write(tmp_path / "pins.csv", {"pin_id": ["9"], "title": ["Cup"]})).exit_code == 0
        assert conn.execute(seen).fetchall() == [first, ("2", None, None, None, None), ("9", '["tea time"]', "[1]", '["cup"]', "[1]")]
    assert counts("aggregate", "boards", db)["pins_not_in_store"] == 0
    assert counts("aggregate", "queries", db)["pins_not_in_store"] == 0


def test_stats_count_pins_with_titles_and_queries(db: Path, boards: Path, saves: Path, log: Path) -> None:
    counts("aggregate", "boards", db, "--boards", boards, "--saves", saves)
    counts("aggregate", "queries", db, "--log", log)
    found = counts("stats", db)
    assert (found["pins"], found["board_titles"], found["engaged_queries"], found["any_text"]) == (2, 1, 1, 1)


# --- texts ---

LANGUAGES = {
    "Café  CRÈME": "café crème",
    unicodedata.normalize("NFD", "Café crème, ici"): "café crème ici",
    "Women’s Shoes": "women's shoes",
    "’80s Rock ’n’ Roll": "80s rock n roll",
    "مطبخ — جميل!": "مطبخ جميل",
    "مَطْبَخ صغير": "مَطْبَخ صغير",
    "ﻣﻄﺒﺦ ﷲ": "مطبخ الله",
    "می‌خواهم": "میخواهم",
    "\u200fמטבח\u200e קטן": "מטבח קטן",
    "שָׁלוֹם": unicodedata.normalize("NFC", "שָׁלוֹם"),
    "ห้องครัวสวย ๆ": "ห้องครัวสวย ๆ",
    "น้ำชา": "น\u0e49\u0e4d\u0e32ชา",
    "रसोई के विचार।": "रसोई के विचार",
    "ज़िंदगी": unicodedata.normalize("NFC", "ज़िंदगी"),
    "厨房 创意！": "厨房 创意",
    "「和食」レシピ": "和食 レシピ",
    "ｷｯﾁﾝ ｶﾞｰﾃﾞﾝ": "キッチン ガーデン",
    unicodedata.normalize("NFD", "부엌 아이디어"): "부엌 아이디어",
    "ＫＩＴＣＨＥＮ　ＩＤＥＡＳ": "kitchen ideas",
    "ILIK IŞIK": "ilik işik",
    "ılık ışık": "ılık ışık",
    "İSTANBUL": "i̇stanbul",
    "ﬁne ﬂowers": "fine flowers",
    "STRAẞE Straße": "strasse strasse",
    "ΣΊΣΥΦΟΣ": "σίσυφοσ",
    "👩‍🍳 Küche 🍰": "küche",
    "№ 5, ½ Ⓒⓤⓣⓔ": "no 5 1 2 cute",
    "no\u00adel": "noel",
    "日本 🇯🇵 2024": "日本 2024",
    "Кухня: идеи": "кухня идеи",
}
NOTHING_LEFT = ["🍰", "👩‍🍳👨‍👩‍👧", "❤️", "☕️☕️", "♡ ♡", "...", "\u200b", " ", "🏴󠁧󠁢󠁥󠁮󠁧󠁿", "🇯🇵"]


@pytest.mark.parametrize("ending", ["parquet", "csv"])
def test_titles_and_queries_of_every_language_come_out_as_expected(tmp_path: Path, db: Path, ending: str) -> None:
    raw = [*LANGUAGES, *NOTHING_LEFT]
    boards = write(tmp_path / f"boards.{ending}", boards_table(dict(enumerate(raw))))
    saves = write(tmp_path / f"saves.{ending}", saves_table(*((f"pin {i}", i) for i in range(len(raw)))))
    log = write(tmp_path / f"log.{ending}", log_table(*((f"pin {i}", text, "save", "2024-05-01") for i, text in enumerate(LANGUAGES))))
    found = counts("aggregate", "boards", db, "--boards", boards, "--saves", saves)
    expected = {f"pin {i}": [text] for i, text in enumerate(LANGUAGES.values())}
    assert titles(db) == dict(sorted(expected.items()))
    assert found["dropped"] == {"empty": len(NOTHING_LEFT)}
    counts("aggregate", "queries", db, "--log", log)
    assert queries(db) == dict(sorted(expected.items()))


# --- personal data ---

SECRETS = [
    "zoe.secret@mail.example",
    "ask zoe@secret.example please",
    "call +49 151 234-567-89",
    "0151.234.567.89",
    "https://secret.example/zoe",
    "look at www.secret-zoe.example",
    "http://secret.example",
]
TRACES = re.compile(r"zoe.?secret|secret.?zoe|secret.?example|mail.?example|151.?234.?567", re.IGNORECASE)


def everything_written(store: Path) -> str:
    """All that is in the files of a store and in its partials, as text."""
    texts = [path.read_bytes().decode(errors="replace") for path in (store, Path(f"{store}-wal")) if path.exists()]
    for path in Path(f"{store}.partials").rglob("*"):
        if path.is_file():
            texts.append(json.dumps(pq.read_table(path).to_pylist(), ensure_ascii=False, default=str) if path.suffix == ".parquet" else path.read_bytes().decode(errors="replace"))
    return "\n".join(texts)


@pytest.mark.parametrize("ending", ["parquet", "jsonl"])
def test_addresses_links_and_telephone_numbers_in_titles_and_queries_reach_no_file(tmp_path: Path, db: Path, ending: str) -> None:
    raw = [*SECRETS, "harmless kitchen"]
    boards = write(tmp_path / f"boards.{ending}", {"board_id": [*map(str, range(len(raw))), None], "title": [*raw, "zoe@secret.example"]})
    saves = write(tmp_path / f"saves.{ending}", saves_table(*(("1", str(i)) for i in range(len(raw)))))
    rows: list[tuple[Any, ...]] = [("1", text, "save", "2024-05-01", 1) for text in raw]
    rows += [("1", text, "save", "2024-05-01", 0) for text in raw]  # these are rejected, and kept in rejected_rows
    log = write(tmp_path / f"log.{ending}", log_table(*rows, names=("pin_id", "query", "action", "date", "count")))
    found = counts("aggregate", "boards", db, "--boards", boards, "--saves", saves)
    assert (found["dropped"], found["rejected"], titles(db)) == ({"personal data": len(SECRETS)}, 1, {"1": ["harmless kitchen"]})
    found = counts("aggregate", "queries", db, "--log", log)
    assert (found["dropped"], found["rejected"], queries(db)) == ({"personal data": len(SECRETS)}, len(raw), {"1": ["harmless kitchen"]})
    for output in (captioner("aggregate", "explain", db, "1").stdout, json.dumps(counts("aggregate", "explain", db, "1")), everything_written(db)):
        assert TRACES.search(output) is None
        assert "harmless kitchen" in output
    assert "[redacted]" in everything_written(db)


def test_a_telephone_number_with_tabs_is_redacted_in_rejected_rows(tmp_path: Path, db: Path) -> None:
    log = write(tmp_path / "log.jsonl", log_table(("1", "call\t0151\t234\t567\t89", "save", "2024-05-01", 0), names=("pin_id", "query", "action", "date", "count")))
    counts("aggregate", "queries", db, "--log", log)
    with closing(sqlite3.connect(db)) as conn:
        assert "567" not in conn.execute("SELECT content FROM rejected_rows").fetchone()[0]


@pytest.mark.parametrize(
    ("ending", "user"),
    [
        ("parquet", "zoe.secret@mail.example"),
        ("csv", "zoe.secret@mail.example"),
        *(("parquet", user) for user in ("+49 151 234-567-89", "https://secret.example/zoe", "www.secret.example/zoe")),
    ],
)
def test_addresses_links_and_telephone_numbers_as_user_ids_reach_no_file_and_count_as_users(tmp_path: Path, db: Path, ending: str, user: str) -> None:
    log = write(tmp_path / f"log.{ending}", log_table(*(("1", "mug", "save", "2024-05-01", who) for who in (user, user, "v")), names=USER_COLUMNS))
    for users, kept in (("2", {"1": ["mug"]}), ("3", {})):
        counts("aggregate", "queries", db, "--log", log, "--min-users", users)
        assert queries(db) == kept
    assert TRACES.search(everything_written(db)) is None


def test_an_address_that_got_into_the_column_of_actions_reaches_no_file(tmp_path: Path, db: Path) -> None:
    log = write(tmp_path / "log.csv", log_table(("1", "mug", "zoe@secret.example", "2024-05-01"), ("1", "mug", "save", "2024-05-01")))
    counts("aggregate", "queries", db, "--log", log)
    assert TRACES.search(everything_written(db)) is None


# --- explain ---


def explained(store: Path, pin: str, part: str) -> dict[str, Any]:
    """title or query (None: it is not shown) -> what `explain` says of it."""
    found = counts("aggregate", "explain", store, pin)[part]
    return {entry["title" if part == "boards" else "query"]: entry for entry in found["titles" if part == "boards" else "queries"]}


def test_explain_says_of_every_title_why_it_was_kept_or_dropped(db: Path, boards: Path, saves: Path) -> None:
    counts("aggregate", "boards", db, "--boards", boards, "--saves", saves)
    result = captioner("aggregate", "explain", db, "1")
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout.splitlines() == [
        "pin 1",
        "",
        "2 of 5 board titles kept",
        "score = boards with the pin x idf of the words x all/(all+2)",
        "rank      score   boards     all  title",
        "   1   0.916291        2       2  kitchen ideas",
        "                                  idf 0.9163 of kitchen on 2, ideas on 2",
        "   2   0.462098        1       1  tea time",
        "                                  idf 1.386 of tea on 1, time on 1",
        "   -                   1          (empty)",
        "                                  dropped: empty",
        "   -                   1          (personal data)",
        "                                  dropped: personal data",
        "   -                   1       1  my stuff",
        "                                  dropped: says nothing",
    ]
    assert captioner("aggregate", "explain", db, "9").stdout.splitlines()[:3] == [
        "pin 9 (not in the store yet)",
        "",
        "1 of 1 board titles kept; on 1 boards that are not known yet",
    ]


def test_explain_says_of_every_query_why_it_was_kept_or_dropped(db: Path, log: Path) -> None:
    counts("aggregate", "queries", db, "--log", log, "--weight", "view=0")
    result = captioner("aggregate", "explain", db, "1")
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout.splitlines() == [
        "pin 1",
        "",
        "1 of 3 engaged queries kept, 730 days up to 2024-05-02",
        "score = sum of weights: save 1, long_click 1, click 0.25",
        "rank      score  engaged   users  query",
        "   1       2.25        3          red mug",
        "                                  1 click, 2 save; 2024-05-01 to 2024-05-02",
        "   -                   0          (personal data)",
        "                                  dropped: personal data; 1 save",
        "   -                   0          mug",
        "                                  dropped: action of no weight; 7 view",
    ]


def test_explain_in_json_has_every_number_and_every_reason_of_titles(tmp_path: Path, db: Path) -> None:
    names = {"1": "Tea Time", "2": "tea time", "3": "tea", "4": "y", "5": "x" * 61, "6": "a b c d e f g h i j k", "7": "random", "8": "♡", "9": "www.example.com"}
    common = {f"c{i}": "Recipes" for i in range(21)}
    others: dict[Any, str | None] = {f"o{i}": f"cake {i}" for i in range(980)}
    counts_of = ["--boards", write(tmp_path / "boards.parquet", boards_table(names | common | others))]
    counts_of += ["--saves", write(tmp_path / "saves.parquet", saves_table(*(("1", board) for board in (*names, "c0", "c1", "o0", "?")), ("2", "c2")))]
    counts("aggregate", "boards", db, *counts_of, "--top", "1")
    found = explained(db, "1", "boards")
    assert {title: entry["reason"] for title, entry in found.items() if title} == {
        "tea time": None,
        "tea": "beyond --top",
        "cake 0": "beyond --top",
        "y": "shorter than --min-chars",
        "x" * 61: "longer than --max-chars",
        "a b c d e f g h i j k": "more words than --max-words",
        "random": "says nothing",
        "recipes": "on more than --max-board-share of the boards",
    }
    passed = 3 + 980
    idf = (pytest.approx((math.log(1 + passed / 3) + math.log(1 + passed / 2)) / 2, rel=1e-5), pytest.approx(math.log(1 + passed / 3), rel=1e-5))
    assert found["tea time"] == {
        "title": "tea time",
        "boards": 2,
        "boards_with_title": 2,
        "words": {"tea": 3, "time": 2},
        "idf": idf[0],
        "score": pytest.approx(2 * found["tea time"]["idf"] * 2 / 4, rel=1e-5),
        "rank": 1,
        "reason": None,
    }
    assert (found["tea"]["idf"], found["tea"]["rank"]) == (idf[1], None)
    assert found["recipes"]["boards"] == 2
    assert found["recipes"]["boards_with_title"] == 21
    everything = counts("aggregate", "explain", db, "1")
    assert sorted(entry["reason"] for entry in everything["boards"]["titles"] if entry["title"] is None) == ["empty", "personal data"]
    assert (everything["pin_id"], everything["in_store"], everything["boards"]["unknown_boards"], everything["boards"]["outdated"], everything["queries"]) == (
        "1",
        True,
        1,
        False,
        None,
    )


def test_explain_in_json_has_every_number_and_every_reason_of_queries(tmp_path: Path, db: Path) -> None:
    rows = [
        ("1", "mug", "save", "2024-05-01", 2, "u"),
        ("1", "Mug", "click", "2024-05-03", 3, "v"),
        ("1", "mug", "view", "2024-05-03", 9, "w"),
        ("1", "cup", "save", "2024-05-01", 1, "u"),
        ("1", "cup", "save", "2024-05-01", 1, "v"),
        ("1", "tea", "save", "2024-05-02", 9, "u"),
        ("1", "old", "save", "2024-04-01", 5, "u"),
        ("1", "new", "save", "2024-05-09", 5, "u"),
        ("1", "seen", "view", "2024-05-01", 5, "u"),
        ("1", "few", "click", "2024-05-01", 1, "u"),
        ("1", "q" * 101, "save", "2024-05-01", 5, "u"),
        ("1", "♡", "save", "2024-05-01", 5, "u"),
        ("1", "me@example.com", "save", "2024-05-01", 5, "u"),
        ("2", "mug", "save", "2024-05-01", 5, "u"),
    ]
    log = write(tmp_path / "log.parquet", log_table(*rows, names=("pin_id", "query", "action", "date", "count", "user_id")))
    counts("aggregate", "queries", db, "--log", log, "--as-of", "2024-05-03", "--window-days", "10", "--top", "1", "--min-users", "2", "--min-engagements", "2")
    found = explained(db, "1", "queries")
    assert {query: entry["reason"] for query, entry in found.items() if query} == {
        "mug": None,
        "cup": "beyond --top",
        "tea": "fewer users than --min-users",
        "few": "fewer engagements than --min-engagements",
        "old": "before the window",
        "new": "after the as-of date",
        "seen": "action of no weight",
    }
    assert found["mug"] == {
        "query": "mug",
        "engagements": 5,
        "actions": {"save": 2, "click": 3, "view": 9},
        "users": 2,
        "first_date": "2024-05-01",
        "last_date": "2024-05-03",
        "score": 2.75,
        "rank": 1,
        "reason": None,
    }
    assert (found["cup"]["users"], found["cup"]["engagements"], found["cup"]["score"], found["cup"]["rank"]) == (2, 2, 2.0, None)
    everything = counts("aggregate", "explain", db, "1")["queries"]
    assert sorted(entry["reason"] for entry in everything["queries"] if entry["query"] is None) == ["empty", "longer than 100 characters", "personal data"]
    assert {name: everything["options"][name] for name in ("as_of", "window_days", "top", "min_users")} == {"as_of": "2024-05-03", "window_days": 10, "top": 1, "min_users": 2}


def test_what_explain_keeps_is_what_stands_in_the_store(tmp_path: Path, db: Path) -> None:
    words = ["tea", "mug", "cup", "oak", "red", "new"]
    names = {str(i): f"{words[i % 6]} {words[i * i % 5]} {words[i // 7 % 6]}" for i in range(40)}
    boards = write(tmp_path / "boards.parquet", boards_table(names))
    saves = write(tmp_path / "saves.parquet", saves_table(*((str(i % 7), str(i * i % 40)) for i in range(200))))
    rows = [(str(i % 7), words[i * i % 5] + words[i % 6], ["save", "click", "view"][i % 3], f"2024-05-{i % 28 + 1:02}", i % 4 + 1) for i in range(300)]
    log = write(tmp_path / "log.parquet", log_table(*rows, names=("pin_id", "query", "action", "date", "count")))
    counts("aggregate", "boards", db, "--boards", boards, "--saves", saves, "--top", "5", "--min-boards", "1")
    counts("aggregate", "queries", db, "--log", log, "--top", "4", "--min-engagements", "3", "--window-days", "20")
    for pin in map(str, range(7)):
        found = counts("aggregate", "explain", db, pin)
        kept = [(t["rank"], t["title"], t["boards"], t["score"]) for t in found["boards"]["titles"] if t["rank"]]
        asked = [(q["rank"], q["query"], q["engagements"], q["score"], q["first_date"], q["last_date"]) for q in found["queries"]["queries"] if q["rank"]]
        with closing(sqlite3.connect(db)) as conn:
            assert kept == conn.execute("SELECT rank, title, boards, score FROM board_title_ranks WHERE pin_id = ? ORDER BY rank", [pin]).fetchall()
            assert asked == conn.execute("SELECT rank, query, engagements, score, first_date, last_date FROM engaged_query_ranks WHERE pin_id = ? ORDER BY rank", [pin]).fetchall()
        assert kept
        assert asked


def test_explain_goes_by_the_options_of_the_last_run(db: Path, boards: Path, saves: Path, log: Path) -> None:
    counts("aggregate", "boards", db, "--boards", boards, "--saves", saves)
    counts("aggregate", "queries", db, "--log", log)
    counts("aggregate", "boards", db, "--min-boards", "2", "--min-chars", "9")
    counts("aggregate", "queries", db, "--weight", "view=1", "--as-of", "2024-05-01")
    assert {title: entry["reason"] for title, entry in explained(db, "1", "boards").items() if title} == {
        "kitchen ideas": None,
        "tea time": "shorter than --min-chars",
        "my stuff": "shorter than --min-chars",
    }
    assert {query: (entry["engagements"], entry["reason"]) for query, entry in explained(db, "1", "queries").items() if query} == {
        "red mug": (2, None),
        "mug": (0, "before the window"),
    }


def test_explain_of_a_pin_of_which_nothing_was_read(db: Path, boards: Path, saves: Path, log: Path) -> None:
    counts("aggregate", "boards", db, "--boards", boards, "--saves", saves)
    counts("aggregate", "queries", db, "--log", log)
    result = captioner("aggregate", "explain", db, "2")
    assert result.exit_code == 0
    assert result.stdout.splitlines() == ["pin 2", "", "0 of 0 board titles kept", "", "0 of 0 engaged queries kept, 730 days up to 2024-05-02"]
    assert refused("aggregate", "explain", db, "no such pin") == "no pin 'no such pin': neither in the store nor in what was aggregated"


def test_explain_before_any_aggregation_says_what_to_run(db: Path) -> None:
    assert refused("aggregate", "explain", db, "1") == "nothing has been aggregated yet: run `captioner aggregate boards` or `captioner aggregate queries` first"


def test_explain_fits_into_80_columns(tmp_path: Path, db: Path) -> None:
    boards = write(tmp_path / "boards.csv", boards_table({"a": "mid century modern " * 3}))
    counts("aggregate", "boards", db, "--boards", boards, "--saves", write(tmp_path / "saves.csv", saves_table(("1", "a"))))
    assert fits(captioner("aggregate", "explain", db, "1").stdout)


@pytest.mark.parametrize("change", ["edited", "removed"])
def test_explain_still_explains_the_store_after_the_list_of_generic_titles_is_changed(tmp_path: Path, db: Path, boards: Path, saves: Path, change: str) -> None:
    path = tmp_path / "list.txt"
    path.write_text("tea time\n")
    counts("aggregate", "boards", db, "--boards", boards, "--saves", saves, "--generic-titles", path)
    path.write_text("kitchen ideas\n")
    if change == "removed":
        path.unlink()
    found = counts("aggregate", "explain", db, "1")["boards"]
    kept = [entry["title"] for entry in found["titles"] if entry["rank"]]
    assert kept == titles(db)["1"] or found["outdated"]
