"""Bad rows of boards, saves and logs: no other row suffers, and each is kept with its reason."""

from collections.abc import Iterable
from datetime import date
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from .tables import (
    NO_DAY,
    USER_COLUMNS,
    boards_table,
    captioner,
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
def test_bad_rows_of_a_log_are_counted_and_kept_with_their_line(
    tmp_path: Path, db: Path, ending: str
) -> None:
    log = write(
        tmp_path / f"log.{ending}",
        log_table(*BAD_LOG_ROWS, names=("pin_id", "query", "action", "date", "count")),
    )
    found = counts("aggregate", "queries", db, "--log", log)
    assert (found["rows_read"], found["rejected"]) == (len(BAD_LOG_ROWS), len(BAD_LOG_REASONS))
    header = 1 if ending.partition(".")[0] in ("csv", "tsv") else 0
    assert rejected(db) == [(str(log), line + header, reason) for line, reason in BAD_LOG_REASONS.items()]
    assert engagements(db) == {"1": {"mug": 2}}


def test_bad_rows_of_a_parquet_log_with_types_are_counted_and_kept_too(tmp_path: Path, db: Path) -> None:
    columns = log_table(*([("1", "mug", "save")] * 6), names=("pin_id", "query", "action"))
    columns |= {
        "date": pa.array([date(2024, 5, 1)] * 5 + [None], pa.date32()),
        "count": pa.array([1, 0, -3, 2**31, None, 1], pa.int64()),
    }
    columns["pin_id"] = pa.array([1, 1, 1, 1, None, 1], pa.int64())
    whole, half = write(tmp_path / "whole.parquet", columns), dict(columns)
    half["count"] = pa.array([2.0, 1.5, float("nan"), float("inf"), 1.0, 1.0])
    write(tmp_path / "half.parquet", half)
    counts("aggregate", "queries", db, "--log", whole)
    assert [row[1:] for row in rejected(db)] == [
        (2, "count is below 1"),
        (3, "count is below 1"),
        (4, "count is above 2,147,483,647"),
        (5, "no pin_id"),
        (6, "no date"),
    ]
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
    boards = write(
        tmp_path / f"boards.{ending}",
        {"board_id": ["a", None, " ", "b"], "title": ["Tea", "no id", "blank id", None]},
    )
    saves = write(
        tmp_path / f"saves.{ending}",
        {
            "pin_id": ["1", None, "1", "1"],
            "board_id": ["a", "a", " ", "b"],
            "saved_at": ["2024-05-01", None, None, None],
        },
    )
    found = counts("aggregate", "boards", db, "--boards", boards, "--saves", saves)
    header = 1 if ending == "csv" else 0
    assert rejected(db) == [
        (str(boards), 2 + header, "no board_id"),
        (str(boards), 3 + header, "no board_id"),
        (str(saves), 2 + header, "no pin_id"),
        (str(saves), 3 + header, "no board_id"),
    ]
    assert (found["rows_read"], found["rejected"], found["dropped"], found["unknown_boards"]) == (
        8,
        4,
        {"empty": 1},
        0,
    )
    assert titles(db) == {"1": ["tea"]}


def test_lines_that_are_no_rows_at_all_are_counted_and_kept(tmp_path: Path, db: Path) -> None:
    good = '{"pin_id": 1, "query": "mug", "action": "save", "date": "2024-05-01"}\n'
    (tmp_path / "log.jsonl").write_text(good + "{no json\n" + "[1]\n\n" + good)
    (tmp_path / "log.csv").write_text(
        "pin_id,query,action,date\n1,mug,save,2024-05-01\n1,too,many,2024-05-01,cells\n1,few\n"
    )
    assert counts("aggregate", "queries", db, "--log", tmp_path / "log.jsonl")["rejected"] == 2
    assert counts("aggregate", "queries", db, "--log", tmp_path / "log.csv")["rejected"] == 2
    assert [row[1:] for row in rejected(db)] == [
        (2, "not valid JSON"),
        (3, "not a JSON object"),
        (3, "more cells than the header has columns"),
        (4, "no action"),
    ]
    assert engagements(db) == {"1": {"mug": 3}}


def spoilt(texts: Iterable[bytes]) -> pa.Array:
    """Text as Arrow has it, but not necessarily UTF-8."""
    return pa.Array.from_buffers(
        pa.string(), len(binary := pa.array(list(texts), pa.binary())), binary.buffers()
    )


@pytest.mark.parametrize("ending", ["csv", "jsonl", "parquet"])
def test_bytes_that_are_not_utf8_reject_only_their_row(tmp_path: Path, db: Path, ending: str) -> None:
    rows = [[b"1", b"mug", b"save", b"2024-05-01", b"u"] for _ in range(6)]
    for row, column in enumerate((0, 1, 2, 3), 1):
        rows[row][column] = b"caf\xe9"
    log = tmp_path / f"log.{ending}"
    if ending == "parquet":
        pq.write_table(
            pa.table({name: spoilt(row[i] for row in rows) for i, name in enumerate(USER_COLUMNS)}), log
        )
    elif ending == "csv":
        log.write_bytes(b"\n".join(map(b",".join, [[name.encode() for name in USER_COLUMNS], *rows])))
    else:
        log.write_bytes(
            b"\n".join(
                b"{"
                + b", ".join(
                    b'"%s": "%s"' % (name.encode(), value)
                    for name, value in zip(USER_COLUMNS, row, strict=True)
                )
                + b"}"
                for row in rows
            )
        )
    assert counts("aggregate", "queries", db, "--log", log)["rejected"] == 4
    header = 1 if ending == "csv" else 0
    # A line of JSON is not read at all; elsewhere the reason names the cell.
    names = [""] * 4 if ending == "jsonl" else [f"{name} is " for name in USER_COLUMNS[:4]]
    reasons = [f"{name}not valid UTF-8" for name in names]
    if ending == "csv":
        reasons[3] = NO_DAY
    assert rejected(db) == [(str(log), line + header, reason) for line, reason in enumerate(reasons, 2)]
    assert engagements(db) == {"1": {"mug": 2}}


def test_a_date_in_parquet_that_is_not_utf8_rejects_only_its_row(tmp_path: Path, db: Path) -> None:
    log = write(
        tmp_path / "log.parquet",
        {
            "pin_id": ["1", "1"],
            "query": ["mug", "cup"],
            "action": ["save"] * 2,
            "date": spoilt([b"2024-05-01", b"caf\xe9"]),
        },
    )
    assert counts("aggregate", "queries", db, "--log", log)["rejected"] == 1
    assert queries(db) == {"1": ["mug"]}


def test_a_count_in_parquet_beyond_int64_rejects_only_its_row(tmp_path: Path, db: Path) -> None:
    log = write(
        tmp_path / "log.parquet",
        log_table(("1", "mug", "save", "2024-05-01"), ("1", "cup", "save", "2024-05-01"))
        | {"count": pa.array([1, 2**64 - 1], pa.uint64())},
    )
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
def test_an_impossible_day_rejects_only_its_row(tmp_path: Path, db: Path, days: pa.Array) -> None:
    """As in CSV and JSON, and in `ingest pins`."""
    log = write(
        tmp_path / "log.parquet", {"pin_id": ["1"], "query": ["mug"], "action": ["save"], "date": days}
    )
    assert "its only row was rejected" in refused("aggregate", "queries", db, "--log", log)
    assert len(rejected(db)) == 1
    assert queries(db) == {}


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_an_id_of_blanks_is_a_missing_id(tmp_path: Path, db: Path, ending: str) -> None:
    saves = write(
        tmp_path / f"saves.{ending}",
        saves_table(("1", "a"), *((blank, "a") for blank in ("\t", "\n", "\u00a0", "\u3000", " \u2003"))),
    )
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
def test_a_row_without_a_valid_user_counts(tmp_path: Path, db: Path, ending: str) -> None:
    """A row without a valid user_id counts, as user_id is optional."""
    log = write(
        tmp_path / f"log.{ending}",
        log_table(
            *(("1", "mug", "save", "2024-05-01", user) for user in (" ", "\t", "u" * 5000)),
            names=USER_COLUMNS,
        ),
    )
    counts("aggregate", "queries", db, "--log", log)
    assert (engagements(db), rejected(db)) == ({"1": {"mug": 3}}, [])


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_a_count_of_2_0_is_two(tmp_path: Path, db: Path, ending: str) -> None:
    """What pandas writes for whole numbers where some are missing."""
    log = write(
        tmp_path / f"log.{ending}",
        log_table(("1", "mug", "save", "2024-05-01"), ("1", "mug", "save", "2024-05-01"))
        | {"count": [2.0, 3.0]},
    )
    counts("aggregate", "queries", db, "--log", log)
    assert engagements(db) == {"1": {"mug": 5}}


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_there_is_no_hour_24(tmp_path: Path, db: Path, ending: str) -> None:
    log = write(tmp_path / f"log.{ending}", log_table(("1", "mug", "save", "2024-05-01T24:00:00Z")))
    assert "its only row was rejected" in refused("aggregate", "queries", db, "--log", log)
    assert len(rejected(db)) == 1


def test_a_bad_row_of_standard_input_is_kept_under_its_name(db: Path) -> None:
    refused(
        "aggregate",
        "queries",
        db,
        "--log",
        "-",
        stdin='{"query": "mug", "action": "save", "date": "2024-05-01"}\n',
    )
    ((source, *row),) = rejected(db)
    assert row == [1, "no pin_id"]
    assert source.startswith("-")


def test_rejected_rows_are_those_of_what_counts(tmp_path: Path, db: Path) -> None:
    good = log_table(("1", "mug", "save", "2024-05-01"))
    first, second = (
        write(tmp_path / "first.csv", log_table(("", "mug", "save", "2024-05-01"))),
        write(tmp_path / "second.csv", good),
    )
    refused("aggregate", "queries", db, "--log", first, "--log", second)
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
    path = write(
        tmp_path / "both.csv",
        {"pin_id": ["1", "", "2"], "board_id": ["a", "a", ""], "title": ["Tea", "Tea", "Mug"]},
    )
    assert counts("aggregate", "boards", db, "--boards", path, "--saves", path)["rejected"] == 3
    assert titles(db) == {"1": ["tea"]}
    assert rejected(db) == [
        (str(path), 3, "no pin_id"),
        (str(path), 4, "no board_id"),
        (str(path), 4, "no board_id"),
    ]
