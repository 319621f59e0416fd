"""The output of `captioner aggregate`, on a terminal and as JSON, and the rows that are in the store then."""

import json
import os
import pty
import re
import sqlite3
import subprocess
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from pincaption.store import open_store

from .tables import (
    CAPTIONER,
    COUNTS,
    boards_table,
    captioner,
    counts,
    engagements,
    fits,
    log_table,
    process,
    saves_table,
    shown,
    titles,
    write,
)


def before_columns(printed: str) -> str:
    """What is printed before the lines about columns, which are as long as paths, and the reasons."""
    table, *_ = re.split(r"^(?:\w+: )?columns of ", printed, flags=re.MULTILINE)
    return table


def test_boards_end_with_a_table_of_what_was_read_kept_and_dropped(
    db: Path, boards: Path, saves: Path
) -> None:
    result = captioner("aggregate", "boards", db, "--boards", boards, "--saves", saves)
    assert (result.exit_code, result.stderr) == (0, "")
    assert shown(before_columns(result.stdout)) == {
        "rows read": "15",
        "rejected, see rejected_rows": "1",
        "pins ranked anew": "2",
        "rows written to board_titles": "2",
        "titles kept": "3",
        "dropped: empty": "1",
        "dropped: says nothing": "1",
        "dropped: personal data": "1",
        "saves on unknown boards": "1",
        "pins that are not in the store yet": "1",
    }
    assert fits(before_columns(result.stdout))
    assert titles(db) == {"1": ["kitchen ideas", "tea time"], "9": ["tea time"]}


def test_queries_end_with_a_table_of_what_was_read_kept_and_dropped(db: Path, log: Path) -> None:
    result = captioner("aggregate", "queries", db, "--log", log)
    assert (result.exit_code, result.stderr) == (0, "")
    assert shown(before_columns(result.stdout)) == {
        "rows read": "7",
        "rejected, see rejected_rows": "1",
        "pins ranked anew": "2",
        "rows written to engaged_queries": "2",
        "queries kept": "2",
        "dropped: personal data": "1",
        "dropped: before the window": "1",
        "dropped: action of no weight": "1",
        "pins that are not in the store yet": "1",
    }
    assert before_columns(result.stdout).splitlines()[-2:] == [
        '730 days up to 2024-05-02; weights: "save" 1, "long_click" 1, "click" 0.25',
        'actions of no weight (--weight ACTION=W): "view" (1 row)',
    ]
    assert fits(before_columns(result.stdout))
    assert engagements(db) == {"1": {"red mug": 3}, "9": {"cup": 1}}


def test_the_table_fits_into_80_columns_whatever_is_dropped(tmp_path: Path, db: Path) -> None:
    common = {f"c{i}": "Recipes" for i in range(30)}
    others: dict[Any, str | None] = {f"o{i}": f"cake {i}" for i in range(990)}
    odd = {"x": "x" * 61, "y": "y", "w": "a b c d e f g h i j k"}
    write(tmp_path / "boards.parquet", boards_table(common | others | odd))
    write(
        tmp_path / "saves.parquet",
        saves_table(*(("1", board) for board in [*common, *odd, *list(others)[:12]])),
    )
    result = captioner(
        "aggregate",
        "boards",
        db,
        "--boards",
        tmp_path / "boards.parquet",
        "--saves",
        tmp_path / "saves.parquet",
    )
    dropped = {
        label.removeprefix("dropped: "): int(n)
        for label, n in shown(before_columns(result.stdout)).items()
        if label.startswith("dropped: ")
    }
    assert dropped == {
        "on more than --max-board-share of the boards": 30,
        "longer than --max-chars": 1,
        "shorter than --min-chars": 1,
        "more words than --max-words": 1,
        "beyond --top": 2,
    }
    assert fits(before_columns(result.stdout))


def test_the_table_fits_into_80_columns_whatever_the_actions_are(tmp_path: Path, db: Path) -> None:
    log = write(
        tmp_path / "log.csv",
        log_table(*(("1", "mug", f"looked at it for the {i}. time", "2024-05-01") for i in range(10))),
    )
    assert fits(before_columns(captioner("aggregate", "queries", db, "--log", log).stdout))


def test_json_is_exactly_one_object_on_standard_output(
    db: Path, boards: Path, saves: Path, log: Path
) -> None:
    for arguments in (
        ["boards", db, "--boards", boards, "--saves", saves],
        ["queries", db, "--log", log],
        ["explain", db, "1"],
    ):
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


def test_a_second_run_reads_nothing_and_ends_with_the_same_titles(
    db: Path, boards: Path, saves: Path, log: Path
) -> None:
    for arguments in (["boards", db, "--boards", boards, "--saves", saves], ["queries", db, "--log", log]):
        first = counts("aggregate", *arguments)
        result = captioner("aggregate", *arguments)
        lines = shown(result.stdout)
        sources = 2 if arguments[0] == "boards" else 1
        assert [lines["rows read"], lines["sources that were read before"], lines["pins ranked anew"]] == [
            "0",
            str(sources),
            "0",
        ]
        again = counts("aggregate", *arguments)
        assert [again[name] for name in ("rows_read", "pins", "rows_written")] == [0, 0, 0]
        assert [again[name] for name in ("dropped", "unknown_boards", "pins_not_in_store")] == [
            first[name] for name in ("dropped", "unknown_boards", "pins_not_in_store")
        ]
    assert titles(db) == {"1": ["kitchen ideas", "tea time"], "9": ["tea time"]}
    assert engagements(db) == {"1": {"red mug": 3}, "9": {"cup": 1}}


def test_the_runs_are_kept_with_their_arguments_and_counts(db: Path, boards: Path, saves: Path) -> None:
    found = counts("aggregate", "boards", db, "--boards", boards, "--saves", saves, "--top", "3")
    with closing(sqlite3.connect(db)) as conn:
        command, arguments, finished, kept = conn.execute(
            "SELECT command, arguments, finished_at, counts FROM runs"
        ).fetchone()
    assert (command, json.loads(arguments)["top"], json.loads(kept)) == ("aggregate boards", 3, found)
    assert finished


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> str:
    """What a command draws on a terminal."""
    folder = tmp_path_factory.mktemp("terminal")
    open_store(folder / "my.db", create=True).close()
    saves = write(folder / "saves.csv", saves_table(("1", "a")))
    screen, terminal = pty.openpty()
    arguments: list[str | Path] = [
        "aggregate",
        "boards",
        folder / "my.db",
        "--boards",
        write(folder / "boards.csv", boards_table({"a": "Tea"})),
        "--saves",
        saves,
    ]
    with subprocess.Popen([CAPTIONER, *arguments], stdout=subprocess.DEVNULL, stderr=terminal) as process:
        os.close(terminal)
        shown = b""
        while True:
            try:
                shown += os.read(screen, 65536)
            except OSError:  # how Linux reports the end
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
        assert re.findall(r"(?m)^  (boards|queries|explain) ", result.stdout) == [
            "boards",
            "queries",
            "explain",
        ]


# --- pins that are not in the store ---


def test_titles_and_queries_of_a_pin_wait_until_it_is_ingested(
    tmp_path: Path, db: Path, boards: Path, saves: Path, log: Path
) -> None:
    assert counts("aggregate", "boards", db, "--boards", boards, "--saves", saves)["pins_not_in_store"] == 1
    assert counts("aggregate", "queries", db, "--log", log)["pins_not_in_store"] == 1
    seen = """SELECT pin_id, board_titles, board_title_counts, engaged_queries, engaged_query_counts
        FROM enriched_features ORDER BY pin_id"""
    first = ("1", '["kitchen ideas","tea time"]', "[2,1]", '["red mug"]', "[3]")
    with closing(sqlite3.connect(db)) as conn:
        assert conn.execute(seen).fetchall() == [first, ("2", None, None, None, None)]
        assert (
            captioner(
                "ingest", "pins", db, write(tmp_path / "pins.csv", {"pin_id": ["9"], "title": ["Cup"]})
            ).exit_code
            == 0
        )
        assert conn.execute(seen).fetchall() == [
            first,
            ("2", None, None, None, None),
            ("9", '["tea time"]', "[1]", '["cup"]', "[1]"),
        ]
    assert counts("aggregate", "boards", db)["pins_not_in_store"] == 0
    assert counts("aggregate", "queries", db)["pins_not_in_store"] == 0


def test_stats_count_pins_with_titles_and_queries(db: Path, boards: Path, saves: Path, log: Path) -> None:
    counts("aggregate", "boards", db, "--boards", boards, "--saves", saves)
    counts("aggregate", "queries", db, "--log", log)
    found = counts("stats", db)
    assert (found["pins"], found["board_titles"], found["engaged_queries"], found["any_text"]) == (2, 1, 1, 1)
