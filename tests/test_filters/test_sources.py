"""The sources of `captioner aggregate`: file formats, standard input, repeated reading, errors."""

import json
import os
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from .tables import (
    boards_table,
    captioner,
    counts,
    engagements,
    log_table,
    process,
    queries,
    refused,
    rejected,
    saves_table,
    titles,
    write,
)


@pytest.mark.parametrize(
    "ending", ["parquet", "csv", "tsv", "jsonl", "ndjson", "json", "csv.gz", "tsv.gz", "jsonl.gz"]
)
def test_every_form_of_table_is_read(tmp_path: Path, db: Path, ending: str) -> None:
    boards = write(
        tmp_path / f"boards.{ending}",
        boards_table({"a": 'Küche, "neu"', "b": "Tea"})
        | {"owner_id": ["u", "v"], "created_at": ["2024-05-01"] * 2},
    )
    saves = write(
        tmp_path / f"saves.{ending}",
        saves_table(("1", "a"), ("2", "b"), ("1", "b"))
        | {"user_id": ["u"] * 3, "saved_at": ["2024-05-01T12:00:00Z"] * 3},
    )
    log = write(
        tmp_path / f"log.{ending}",
        log_table(
            ("1", "Küche", "save", "2024-05-01", "7"),
            ("2", "Tea", "click", "2024-05-02", ""),
            names=("pin_id", "query", "action", "date", "user_id"),
        ),
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
    found = counts(
        "aggregate",
        "boards",
        db,
        "--boards",
        boards,
        "--saves",
        f"{folder}/a-*",
        "--saves",
        folder / "b.parquet",
    )
    assert (found["rows_read"], sorted(titles(db)["1"]), titles(db)["2"]) == (6, ["mug", "tea"], ["tea"])
    found = counts("aggregate", "boards", db, "--saves", folder)
    assert (found["rows_read"], found["unchanged"], sorted(titles(db)["2"])) == (1, 3, ["cup", "tea"])


def test_standard_input_adds_up_and_the_same_again_is_skipped(db: Path) -> None:
    line = '{"pin_id": 1, "query": "%s", "action": "save", "date": "2024-05-01"}\n'
    given = [line % "mug", line % "mug" + line % "tea", line % "mug"]
    first = process("aggregate", "queries", db, "--log", "-", "--json", stdin=given[0].encode())
    found = [
        json.loads(first.stdout),
        *(counts("aggregate", "queries", db, "--log", "-", stdin=text) for text in given[1:]),
    ]
    assert [n["rows_read"] for n in found] == [1, 2, 0]
    assert engagements(db) == {"1": {"mug": 2, "tea": 1}}


def test_boards_may_come_by_standard_input_and_saves_from_a_file(db: Path, saves: Path) -> None:
    counts(
        "aggregate",
        "boards",
        db,
        "--boards",
        "-",
        "--saves",
        saves,
        stdin='{"board_id": "c", "title": "Tea Time"}\n',
    )
    assert titles(db) == {"1": ["tea time"], "9": ["tea time"]}


def test_standard_input_cannot_be_two_tables(db: Path) -> None:
    assert "standard input" in refused(
        "aggregate",
        "boards",
        db,
        "--boards",
        "-",
        "--saves",
        "-",
        code=2,
        stdin='{"board_id": "c", "title": "Tea Time"}\n',
    )


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


def test_rebuild_forgets_what_was_read_before(
    tmp_path: Path, db: Path, boards: Path, saves: Path, log: Path
) -> None:
    counts("aggregate", "boards", db, "--boards", boards, "--saves", saves)
    counts("aggregate", "queries", db, "--log", log)
    more = write(tmp_path / "more.csv", saves_table(("2", "a")))
    assert (
        counts("aggregate", "boards", db, "--boards", boards, "--saves", more, "--rebuild")["rows_read"] == 7
    )
    assert titles(db) == {"2": ["kitchen ideas"]}
    assert set(queries(db)) == {"1", "9"}  # the other aggregation is untouched
    other = write(tmp_path / "other.csv", log_table(("2", "cup", "save", "2024-05-01")))
    assert counts("aggregate", "queries", db, "--log", other, "--rebuild")["rows_read"] == 1
    assert queries(db) == {"2": ["cup"]}


@pytest.mark.parametrize("kind", ["boards", "queries"])
def test_rebuild_without_sources_says_what_to_name_and_keeps_everything(
    db: Path, boards: Path, saves: Path, log: Path, kind: str
) -> None:
    counts("aggregate", "boards", db, "--boards", boards, "--saves", saves)
    counts("aggregate", "queries", db, "--log", log)
    before = titles(db), queries(db)
    named = "--boards and --saves" if kind == "boards" else "--log"
    assert (
        refused("aggregate", kind, db, "--rebuild")
        == f"--rebuild starts afresh and needs every source: name them with {named}"
    )
    assert (titles(db), queries(db)) == before
    assert counts("aggregate", kind, db)["rows_read"] == 0


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("boards", "no boards and no saves have been read yet: name them with --boards and --saves"),
        ("queries", "no query log has been read yet: name it with --log"),
    ],
)
def test_a_first_run_without_sources_says_what_to_name(db: Path, kind: str, said: str) -> None:
    assert refused("aggregate", kind, db) == said


def test_paths_that_redaction_makes_equal_are_sources_of_their_own(tmp_path: Path, db: Path) -> None:
    for key, query in (("1", "mug"), ("2", "tea")):
        write(tmp_path / f"log?key={key}.csv", log_table(("1", query, "save", "2024-05-01")))
    counts(
        "aggregate", "queries", db, "--log", tmp_path / "log?key=1.csv", "--log", tmp_path / "log?key=2.csv"
    )
    assert queries(db) == {"1": ["mug", "tea"]}


def test_paths_that_are_not_text_are_sources_of_their_own(tmp_path: Path, db: Path) -> None:
    for name, query in ((b"caf\xe8.csv", "mug"), (b"caf\xe9.csv", "tea")):
        write(tmp_path / os.fsdecode(name), log_table(("1", query, "save", "2024-05-01")))
    counts("aggregate", "queries", db, "--log", f"{tmp_path}/caf*.csv")
    assert queries(db) == {"1": ["mug", "tea"]}


# --- sources that cannot be read ---


def test_a_missing_file_or_glob_or_an_empty_folder_is_an_error(tmp_path: Path, db: Path, saves: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert (
        refused("aggregate", "boards", db, "--boards", "none.csv", "--saves", saves)
        == "no such file: none.csv"
    )
    assert refused("aggregate", "queries", db, "--log", "log/*.parquet") == "no such file: log/*.parquet"
    assert refused("aggregate", "queries", db, "--log", tmp_path / "empty").startswith(
        f"no table below the folder {tmp_path}/empty: captioner reads .parquet, .csv"
    )
    assert "does not have the name of a table" in refused("aggregate", "queries", db, "--log", db)
    assert (
        refused("aggregate", "boards", db)
        == "no boards and no saves have been read yet: name them with --boards and --saves"
    )


@pytest.mark.parametrize(
    "arguments", [["boards", "--boards", "{boards}"], ["queries", "--log", "{log}"], ["explain", "1"]]
)
def test_a_missing_store_is_refused_and_nothing_is_made(
    tmp_path: Path, boards: Path, log: Path, arguments: list[str]
) -> None:
    command, *rest = (a.format(boards=boards, log=log) for a in arguments)
    before = set(tmp_path.iterdir())
    assert "none.db does not exist: make a store with `captioner ingest" in refused(
        "aggregate", command, tmp_path / "none.db", *rest
    )
    assert set(tmp_path.iterdir()) == before


def many_saves(path: Path) -> bytes:
    return write(path, saves_table(*((f"p{i % 300}", f"b{i % 70}") for i in range(3000)))).read_bytes()


def test_a_truncated_parquet_file_is_one_sentence_and_nothing_of_it_is_kept(
    tmp_path: Path, db: Path, boards: Path, saves: Path
) -> None:
    counts("aggregate", "boards", db, "--boards", boards, "--saves", saves)
    before = titles(db), counts("aggregate", "boards", db)
    path = tmp_path / "new.parquet"
    data = many_saves(path)
    good = write(tmp_path / "good.csv", saves_table(("2", "a")))
    for damaged in (data[: len(data) // 2], data[:-1], b"", b"no Parquet", bytes(len(data))):
        path.write_bytes(damaged)
        assert refused("aggregate", "boards", db, "--saves", good, "--saves", path).startswith(
            f"{path} is not a Parquet file that can be read: "
        )
    assert (titles(db), counts("aggregate", "boards", db)) == before
    many_saves(path)
    # as the sentence advises: copy it once more
    assert counts("aggregate", "boards", db, "--saves", good, "--saves", path)["rows_read"] == 3001


def test_a_parquet_file_that_is_damaged_anywhere_is_one_sentence_that_names_it(
    tmp_path: Path, db: Path
) -> None:
    path = tmp_path / "saves.parquet"
    data = many_saves(path)
    said = []
    for part in range(20):
        at = len(data) * part // 23 + 4
        path.write_bytes(data[:at] + b"\xff\x81\x7f\xfe" + data[at + 4 :])
        result = captioner("aggregate", "boards", db, "--saves", path, "--rebuild")
        if result.exit_code:  # otherwise the damage changed an id, which nobody can notice
            assert (result.exit_code, result.stdout, len(result.stderr.splitlines())) == (1, "", 1)
            said.append(result.stderr)
    with closing(sqlite3.connect(db)) as conn:
        assert conn.execute("SELECT count(*) FROM evidence_sources").fetchone()[0] <= 20 - len(said)
    assert len(said) > 15
    assert [sentence for sentence in said if str(path) not in sentence] == []
