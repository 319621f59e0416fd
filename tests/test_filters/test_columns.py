"""The columns of boards, saves and query logs: their names and types."""

import sqlite3
from contextlib import closing
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from .tables import (
    Columns,
    boards_table,
    counts,
    engagements,
    log_table,
    queries,
    refused,
    rejected,
    saves_table,
    titles,
    write,
)


def test_map_names_the_columns_of_all_tables_or_of_one(tmp_path: Path, db: Path) -> None:
    boards = write(tmp_path / "boards.csv", {"board": ["a"], "name": ["Tea"], "pin_id": ["?"]})
    saves = write(tmp_path / "saves.parquet", {"item": ["1"], "board": ["a"], "pin_id": ["no"]})
    counts(
        "aggregate",
        "boards",
        db,
        "--boards",
        boards,
        "--saves",
        saves,
        "--map",
        "board_id=board",
        "--map",
        "saves.pin_id=item",
        "--map",
        "boards.title=name",
    )
    assert titles(db) == {"1": ["tea"]}
    log = write(
        tmp_path / "log.jsonl", {"item": [1], "q": ["mug"], "what": ["save"], "day": ["2024-05-01"], "n": [3]}
    )
    maps = [
        part
        for pair in ("pin_id=item", "log.query=q", "action=what", "date=day", "count=n")
        for part in ("--map", pair)
    ]
    counts("aggregate", "queries", db, "--log", log, *maps)
    assert engagements(db) == {"1": {"mug": 3}}


@pytest.mark.parametrize(
    ("kind", "pair", "code", "said"),
    [
        (
            "boards",
            "saves.pinid=item",
            1,
            "--map names no field of boards or saves: saves.pinid;"
            " the fields are board_id, title, created_at, owner_id, pin_id",
        ),
        ("boards", "pinid=item", 1, "--map names no field of boards or saves: pinid; the fields are"),
        (
            "boards",
            "boards.pin_id=item",
            1,
            "--map names no field of boards or saves: boards.pin_id; the fields are",
        ),
        (
            "boards",
            "log.pin_id=item",
            1,
            "--map names no field of boards or saves: log.pin_id; the fields are",
        ),
        ("boards", "query=q", 1, "--map names no field of boards or saves: query; the fields are"),
        (
            "boards",
            "saves.pin_id=item",
            1,
            "saves.csv has no column 'item' (--map pin_id=item); its columns: pin_id, board_id",
        ),
        (
            "boards",
            "saves.pin_id",
            2,
            "--map takes FIELD=COLUMN, for instance --map title=name; it got 'saves.pin_id'",
        ),
        (
            "queries",
            "querry=q",
            1,
            "--map names no field of log: querry;"
            " the fields are pin_id, query, action, date, timestamp, count, user_id",
        ),
        ("queries", "saves.pin_id=item", 1, "--map names no field of log: saves.pin_id; the fields are"),
        (
            "queries",
            "query=q",
            1,
            "log.csv has no column 'q' (--map query=q); its columns: pin_id, query, action, date, count",
        ),
    ],
)
def test_a_mistyped_map_is_an_error_and_nothing_is_read(
    db: Path, boards: Path, saves: Path, log: Path, kind: str, pair: str, code: int, said: str
) -> None:
    sources = ["--boards", boards, "--saves", saves] if kind == "boards" else ["--log", log]
    assert said in refused("aggregate", kind, db, *sources, "--map", pair, code=code)
    with closing(sqlite3.connect(db)) as conn:
        assert conn.execute("SELECT count(*) FROM evidence").fetchone() == (0,)


def test_a_mapped_column_that_no_json_row_has_is_an_error(tmp_path: Path, db: Path) -> None:
    log = write(tmp_path / "log.jsonl", log_table(("1", "mug", "save", "2024-05-01")))
    assert f"no row of {log} has 'who' (--map user_id=who)" in refused(
        "aggregate", "queries", db, "--log", log, "--map", "user_id=who"
    )
    assert queries(db) == {}


@pytest.mark.parametrize("ending", ["csv", "parquet"])
@pytest.mark.parametrize(
    ("kind", "option", "table", "said"),
    [
        (
            "boards",
            "--boards",
            {"board_id": ["a"], "name": ["Tea"]},
            "has no column 'title'; say which one it is with --map title=name; its columns: board_id, name",
        ),
        (
            "boards",
            "--saves",
            {"pin": ["1"], "board_id": ["a"]},
            "has no column 'pin_id'; say which one it is with --map pin_id=pin; its columns: pin, board_id",
        ),
        (
            "queries",
            "--log",
            {"pin_id": ["1"], "query": ["mug"], "action": ["save"]},
            "has no column 'date'; say which one it is with --map date=COLUMN;"
            " its columns: pin_id, query, action",
        ),
        (
            "queries",
            "--log",
            {"pin_id": ["1"], "query": ["mug"], "date": ["2024-05-01"]},
            "has no column 'action'; say which one it is with --map action=COLUMN",
        ),
    ],
)
def test_a_missing_column_is_an_error_before_anything_is_read(
    tmp_path: Path, db: Path, ending: str, kind: str, option: str, table: Columns, said: str
) -> None:
    path = write(tmp_path / f"table.{ending}", table)
    assert f"{path} {said}" in refused("aggregate", kind, db, option, path)


@pytest.mark.parametrize("ending", ["csv", "jsonl", "parquet"])
def test_a_log_may_have_timestamps_instead_of_dates(tmp_path: Path, db: Path, ending: str) -> None:
    times: Any = ["2024-05-01T23:30:00-02:00", "2024-05-01T12:00:00Z"]
    if ending == "parquet":
        times = pa.array(
            [datetime(2024, 5, 2, 1, 30, tzinfo=UTC), datetime(2024, 5, 1, 12, tzinfo=UTC)],
            pa.timestamp("us", "America/Noronha"),
        )
    log = write(
        tmp_path / f"log.{ending}",
        {"pin_id": ["1", "2"], "query": ["late", "noon"], "action": ["save"] * 2, "timestamp": times},
    )
    found = counts("aggregate", "queries", db, "--log", log)
    with closing(sqlite3.connect(db)) as conn:
        assert conn.execute(
            "SELECT pin_id, first_dates, last_dates FROM engaged_queries ORDER BY pin_id"
        ).fetchall() == [
            ("1", '["2024-05-02"]', '["2024-05-02"]'),
            ("2", '["2024-05-01"]', '["2024-05-01"]'),
        ]
    assert found["as_of"] == "2024-05-02"


def test_where_a_log_has_both_the_date_counts_and_the_timestamp_fills_in(tmp_path: Path, db: Path) -> None:
    rows = [
        ("1", "mug", "save", "2024-05-01", "2024-05-03T12:00:00Z"),
        ("1", "cup", "save", "", "2024-05-02T12:00:00Z"),
        ("1", "tea", "save", "", ""),
    ]
    log = write(
        tmp_path / "log.csv", log_table(*rows, names=("pin_id", "query", "action", "date", "timestamp"))
    )
    found = counts("aggregate", "queries", db, "--log", log)
    assert (found["as_of"], queries(db), rejected(db)) == (
        "2024-05-02",
        {"1": ["cup", "mug"]},
        [(str(log), 4, "no date")],
    )


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
    found = counts(
        "aggregate",
        "boards",
        db,
        "--boards",
        boards,
        *(part for name in forms for part in ("--saves", tmp_path / name)),
    )
    assert (titles(db), found["unknown_boards"]) == ({"7": ["tea"]}, 0)
    with closing(sqlite3.connect(db)) as conn:
        assert conn.execute("SELECT boards FROM board_titles").fetchone() == (f"[{len(forms)}]",)
    assert rejected(db) == [(str(tmp_path / "float.parquet"), 2, "no pin_id")]


def test_large_numbers_are_exact_in_parquet_and_csv(tmp_path: Path, db: Path) -> None:
    numbers = {"int64": [2**53 + 1, 2**63 - 1, -7], "uint64": [2**64 - 1], "decimal": [10**25]}
    kinds = {"int64": pa.int64(), "uint64": pa.uint64(), "decimal": pa.decimal128(38, 0)}
    for name, ids in numbers.items():
        saves = write(
            tmp_path / f"{name}.parquet",
            {
                "pin_id": pa.array(map(Decimal, ids) if name == "decimal" else ids, kinds[name]),
                "board_id": ["a"] * len(ids),
            },
        )
        counts("aggregate", "boards", db, "--saves", saves)
    everything = [str(number) for ids in numbers.values() for number in ids]
    text = write(tmp_path / "text.csv", saves_table(*((number, "b") for number in everything)))
    counts(
        "aggregate",
        "boards",
        db,
        "--boards",
        write(tmp_path / "boards.jsonl", boards_table({"a": "Tea", "b": "Tea"})),
        "--saves",
        text,
    )
    with closing(sqlite3.connect(db)) as conn:
        assert dict(conn.execute("SELECT pin_id, boards FROM board_titles")) == dict.fromkeys(
            everything, "[2]"
        )


@pytest.mark.parametrize("order", ["abc", "bca", "cab", "ab"])
def test_parquet_files_of_one_run_may_have_different_types(tmp_path: Path, db: Path, order: str) -> None:
    """Ids are numbers in one file and texts in another. Only in one file, every count fits into a byte."""
    ids = {"a": pa.array([7], pa.int32()), "b": pa.array(["07"]), "c": pa.array([2**40], pa.int64())}
    n = {"a": pa.array([1], pa.int8()), "b": pa.array([1000], pa.int64()), "c": pa.array([200], pa.uint8())}
    for name in ids:
        write(
            tmp_path / f"{name}.parquet",
            log_table((None, "mug", "save", "2024-05-01")) | {"pin_id": ids[name], "count": n[name]},
        )
    counts(
        "aggregate",
        "queries",
        db,
        *(part for name in order for part in ("--log", tmp_path / f"{name}.parquet")),
    )
    found = {"a": ("7", 1), "b": ("07", 1000), "c": (str(2**40), 200)}
    assert engagements(db) == {found[name][0]: {"mug": found[name][1]} for name in sorted(order)}


def test_ids_that_differ_slightly_are_different_pins(tmp_path: Path, db: Path) -> None:
    ids = ["7", "07", "7.5", "7_0", "7e0", "٧", "7\u200b7"]
    for ending in ("csv", "jsonl", "parquet"):
        write(tmp_path / f"saves.{ending}", saves_table(*((pin, ending) for pin in ids)))
    write(tmp_path / "boards.csv", boards_table({"csv": "tea", "jsonl": "mug", "parquet": "cup"}))
    counts("aggregate", "boards", db, "--boards", tmp_path / "boards.csv", "--saves", f"{tmp_path}/saves.*")
    assert {pin: len(found) for pin, found in titles(db).items()} == dict.fromkeys(sorted(ids), 3)


def test_columns_of_other_names_are_ignored_and_the_exact_name_wins(tmp_path: Path, db: Path) -> None:
    names = ["source", "line", "bad", "content", "filename", "place", "code", "Query", "DATE", "pin_id "]
    log = write(
        tmp_path / "log.parquet",
        log_table(("1", "mug", "save", "2024-05-01")) | {name: ["9"] for name in names},
    )
    counts("aggregate", "queries", db, "--log", log)
    assert engagements(db) == {"1": {"mug": 1}}


def test_a_column_may_have_a_name_that_duckdb_uses(tmp_path: Path, db: Path) -> None:
    log = write(
        tmp_path / "log.parquet", log_table(("1", "mug", "save", "2024-05-01")) | {"file_row_number": [7]}
    )
    counts("aggregate", "queries", db, "--log", log)
    assert engagements(db) == {"1": {"mug": 1}}
