"""Folders such as date=2026-05-31/locale=de/ are columns of the tables below them."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from .table_commands import captioner, counts, refused, rows, said

ENDINGS = ("parquet", "csv", "jsonl")


def write(path: Path, **columns: list) -> Path:
    """A table in the format of the file's name, in its folders."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = list(zip(*columns.values(), strict=True))
    if path.suffix == ".parquet":
        pq.write_table(pa.table(columns), path)
    elif path.suffix == ".csv":
        path.write_text("".join(",".join(map(str, row)) + "\n" for row in [tuple(columns), *lines]))
    else:
        path.write_text("".join(json.dumps(dict(zip(columns, row, strict=True))) + "\n" for row in lines))
    return path


@pytest.fixture
def store(tmp_path: Path) -> Path:
    said("ingest", "pins", tmp_path / "s.db", "-", stdin='{"pin_id": "p1"}\n')
    return tmp_path / "s.db"


def queries(store: Path) -> list:
    return rows(
        store, "SELECT query, engagements, first_date, last_date FROM engaged_query_ranks ORDER BY query"
    )


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("source", ["log", "log/*/*.*", "log/date=2026-05-3?/*"])
def test_the_days_of_a_log_are_its_folders(
    tmp_path: Path, store: Path, monkeypatch: pytest.MonkeyPatch, ending: str, source: str
) -> None:
    same = {"pin_id": ["p1"], "query": ["red mug"], "action": ["save"]}
    for day in ("2026-05-30", "2026-05-31"):  # the same bytes on two days are two saves
        write(tmp_path / "log" / f"date={day}" / f"part-0.{ending}", **same)
    monkeypatch.chdir(tmp_path)
    assert "date from date= (folder)" in said("aggregate", "queries", store, "--log", source)
    assert queries(store) == [("red mug", 2, "2026-05-30", "2026-05-31")]
    assert counts("aggregate", "queries", store, "--log", source)["rows_read"] == 0


def test_a_file_named_itself_has_its_folders_too(tmp_path: Path, store: Path) -> None:
    log = write(tmp_path / "dt=2026-05-31" / "a.parquet", pin_id=["p1"], query=["mug"], action=["save"])
    assert "--map date=dt" in refused("aggregate", "queries", store, "--log", log)
    said("aggregate", "queries", store, "--log", log, "--map", "date=DT")
    assert queries(store) == [("mug", 1, "2026-05-31", "2026-05-31")]


@pytest.mark.parametrize("ending", ENDINGS)
def test_pins_have_the_columns_of_their_folders(tmp_path: Path, store: Path, ending: str) -> None:
    for locale, category, pin in (("de", "K%C3%BCche%2FBad", "1"), ("__HIVE_DEFAULT_PARTITION__", "x", "2")):
        write(tmp_path / f"pins/Locale={locale}/category={category}/year=2026/p.{ending}", pin_id=[pin])
    printed = said("ingest", "pins", store, tmp_path / "pins")
    assert "category from category= (folder)" in printed
    assert "ignored: year= (folder)" in printed
    found = rows(store, "SELECT pin_id, locale, category FROM pins WHERE pin_id < 'p' ORDER BY 1")
    assert found == [("1", "de", "Küche/Bad"), ("2", None, "x")]


@pytest.mark.parametrize("ending", ENDINGS)
def test_the_file_wins_over_its_folder_and_that_is_said(tmp_path: Path, store: Path, ending: str) -> None:
    table = {"pin_id": ["p1", "p1"], "query": ["mug", "cup"], "action": ["save", "save"]}
    log = write(
        tmp_path / f"date=2026-05-31/l.{ending}", **table, date=["2026-05-31T23:00:00Z", "2026-05-01"]
    )
    printed = said("aggregate", "queries", store, "--log", log)
    assert "date is 2026-05-01 in the file and 2026-05-31 by the folder's name; the file counts" in printed
    assert [row[2] for row in queries(store)] == ["2026-05-01", "2026-05-31"]
    agrees = write(
        tmp_path / f"date=2026-05-30/l.{ending}", **table, date=["2026-05-30", "2026-05-30T08:00:00Z"]
    )
    assert "by the folder's name" not in said("aggregate", "queries", store, "--log", agrees)


def test_a_time_in_the_file_counts_before_a_day_of_its_folder(tmp_path: Path, store: Path) -> None:
    for ending in ENDINGS:
        write(
            tmp_path / f"date=2026-05-31/{ending}.{ending}",
            pin_id=["p1"],
            query=[ending],
            action=["save"],
            timestamp=["2026-05-30T23:59:00Z"],
        )
    printed = said("aggregate", "queries", store, "--log", tmp_path / "date=2026-05-31")
    assert {row[3] for row in queries(store)} == {"2026-05-30"}
    assert "timestamp; ignored: date= (folder)" in printed


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_folder_that_is_no_date_is_an_error_of_its_rows(tmp_path: Path, store: Path, ending: str) -> None:
    log = write(tmp_path / f"date=today/l.{ending}", pin_id=["p1"], query=["mug"], action=["save"])
    assert "date is no date" in refused("aggregate", "queries", store, "--log", log)


def test_many_days_of_parquet_are_read_together(tmp_path: Path, store: Path) -> None:
    for day in range(1, 29):
        write(
            tmp_path / f"log/date=2026-02-{day:02}/user_id=u'{day}/p.parquet",
            pin_id=["p1"], query=["mug"], action=["save"],
        )  # fmt: skip
    said("aggregate", "queries", store, "--log", tmp_path / "log", "--min-users", "28")
    assert queries(store) == [("mug", 28, "2026-02-01", "2026-02-28")]


def test_boards_saves_and_vectors_have_folders_too(tmp_path: Path, store: Path) -> None:
    write(tmp_path / "boards/title=Kitchen%20ideas/b.csv", board_id=["b1"])
    write(tmp_path / "saves/board_id=b1/s.parquet", pin_id=["p1"])
    said("aggregate", "boards", store, "--boards", tmp_path / "boards", "--saves", tmp_path / "saves")
    assert rows(store, "SELECT titles FROM board_titles") == [('["kitchen ideas"]',)]
    write(tmp_path / "v/pin_id=p1/v.csv", vector=["1 2"])
    assert counts("ingest", "embeddings", store, tmp_path / "v", "--name", "v")["vectors"] == 1


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_folder_that_makes_no_sense_for_an_optional_field_costs_its_cells(
    tmp_path: Path, store: Path, ending: str
) -> None:
    write(tmp_path / "b.csv", board_id=["b1"], title=["Tea"])
    for folder, pin_id in (("saved_at=soon/user_id=7", "p1"), ("saved_at=2026-05-31", "p2")):
        write(tmp_path / "saves" / folder / f"s.{ending}", pin_id=[pin_id], board_id=["b1"])
    printed = said(
        "aggregate", "boards", store, "--boards", tmp_path / "b.csv", "--saves", tmp_path / "saves"
    )
    assert "saved_at from saved_at= (folder); ignored: user_id= (folder)" in printed
    assert "1 cell left empty, its row kept" in printed
    assert rows(store, "SELECT pin_id FROM board_titles ORDER BY 1") == [("p1",), ("p2",)]
    [(reason, content)] = rows(store, "SELECT reason, content FROM rejected_rows")
    assert reason == "left empty: saved_at is no date or time such as 2024-05-31T12:00:00Z"
    assert json.loads(content)["saved_at"] == "soon"


@pytest.mark.parametrize("ending", ENDINGS)
def test_odd_cells_are_the_same_beside_folders(tmp_path: Path, store: Path, ending: str) -> None:
    """An id that is none, a user that is none, and the line and reason of each, in two days at once."""
    cells = {"PIN_ID": ["p1", "p1", "nan"], "Query": ["red mug", "blue mug", "mug"], "action": ["save"] * 3}
    for day in ("2026-05-30", "2026-05-31"):
        path = tmp_path / f"log/date={day}/l.{ending}"
        write(path, **cells, user_id=["u1", "1.00123E+12", day])
    result = counts("aggregate", "queries", store, "--log", tmp_path / "log")
    fault = "user_id is a number such as 1.00123E+12, whose last digits are lost: write it as text"
    assert (result["reasons"], result["left_empty"]) == ({"no pin_id": 2}, {fault: 2})
    assert [row[:2] for row in queries(store)] == [("blue mug", 2), ("red mug", 2)]
    first = 1 if ending == "csv" else 0
    assert rows(store, "SELECT line, reason FROM rejected_rows ORDER BY line, source") == [
        *[(first + 2, f"left empty: {fault}")] * 2,
        *[(first + 3, "no pin_id")] * 2,
    ]


def test_two_folders_of_one_name_are_refused(tmp_path: Path, store: Path) -> None:
    pins = write(tmp_path / "locale=de/locale=at/p.csv", pin_id=["1"])
    assert "two folders that name 'locale'" in refused("ingest", "pins", store, pins)


def test_standard_input_has_no_folders(tmp_path: Path) -> None:
    store = tmp_path / "date=2026-05-31" / "s.db"
    store.parent.mkdir()
    said("ingest", "pins", store, "-", stdin='{"pin_id": "p1"}\n')
    row = '{"pin_id": "p1", "query": "mug", "action": "save"}\n'
    assert captioner("aggregate", "queries", store, "--log", "-", stdin=row).exit_code == 1


def test_what_systems_put_beside_tables_is_no_table(tmp_path: Path, store: Path) -> None:
    write(tmp_path / "pins/a.csv", pin_id=["1"])
    for name in ("._a.csv", "_delta_log/0.json", "__MACOSX/a.csv", ".ipynb_checkpoints/a.csv"):
        write(tmp_path / "pins" / name, pin_id=["junk"])
    assert counts("ingest", "pins", store, tmp_path / "pins")["pins"] == 1
