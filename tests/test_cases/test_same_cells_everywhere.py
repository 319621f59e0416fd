"""The same cells mean the same to `ingest pins`, `ingest embeddings`, `aggregate boards` and `queries`.

Python reads them from CSV and JSON Lines, DuckDB from Parquet.
"""

import json
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pincaption import api
from pincaption.filters.batch import add_functions
from pincaption.filters.row_checks import id_fault, id_of_text, optional_identifier
from pincaption.sources.cells import MISSING_IDS, RowError, identifier

# text in the table -> the id that it stands for, or the reason why it stands for none
IDS = {
    "1001": "1001",
    "1001.0": "1001",
    "1001.00": "1001",
    " 1001 ": "1001",
    "1001\u00a0": "1001",
    "\ufeff1001": "1001",
    "1001\u200b \u2060": "1001",
    "10\u200b02": "10\u200b02",
    "\u200b": "no pin_id",
    "1.0012345E7": "10012345",
    "-7.0": "-7",
    "007": "007",
    "007.0": "007.0",
    "1001.50": "1001.50",
    "1e3": "1e3",
    "v1.0": "v1.0",
    "ü 1": "ü 1",
    "none": "none",
    "1.00123E+12": "pin_id is a number such as 1.00123E+12, whose last digits are lost: write it as text",
    "9007199254740993.0": "pin_id is a float too large to be exact: write it as text",
    "nan": "no pin_id",
    "NULL": "no pin_id",
    "#N/A": "no pin_id",
    "#NAME?": "no pin_id",
    "\t": "no pin_id",
    "": "no pin_id",
    "x" * 5000: "pin_id is longer than 4096 characters",
}
GOOD = {text: found for text, found in IDS.items() if not found.startswith(("no ", "pin_id is"))}
DAYS = {
    "2026-05-31": "2026-05-31",
    "2026/05/31": "2026-05-31",
    "31.05.2026": "2026-05-31",
    "1780245000000000": "2026-05-31",
    "46173": "2026-05-31",
    "0000-00-00": None,
    "": None,
}


def write(path: Path, columns: dict[str, list[Any]]) -> str:
    rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    if path.suffix == ".parquet":
        pq.write_table(pa.table(columns), path)
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        lines = [columns, *(row.values() for row in rows)]
        path.write_text("".join(",".join(f'"{cell}"' for cell in line) + "\n" for line in lines))
    return str(path)


def column(store: Path, select: str) -> list[Any]:
    conn = sqlite3.connect(store)
    try:
        return [row[0] for row in conn.execute(select)]
    finally:
        conn.close()


@pytest.mark.parametrize("ending", ["csv", "jsonl", "parquet"])
def test_an_id_is_the_same_in_every_command_and_format(tmp_path: Path, ending: str) -> None:
    store, texts = tmp_path / "my.db", list(IDS)
    reasons = sorted(found for text, found in IDS.items() if text not in GOOD)
    pins = write(tmp_path / f"pins.{ending}", {"pin_id": texts})
    vectors = write(tmp_path / f"vectors.{ending}", {"pin_id": texts, "vector": ["1 2"] * len(texts)})
    saves = write(tmp_path / f"saves.{ending}", {"pin_id": texts, "board_id": ["8.0"] * len(texts)})
    boards = write(tmp_path / "boards.jsonl", {"board_id": [8], "title": ["Tea"]})
    log = {"pin_id": texts, "query": ["mug"] * len(texts), "action": ["save"] * len(texts)}
    log |= {"date": ["2026-05-31"] * len(texts)}

    ids = sorted(set(GOOD.values()))
    assert api.ingest_pins(store, pins)["rejected"] == len(reasons)
    assert sorted(column(store, "SELECT pin_id FROM pins")) == ids
    assert api.ingest_embeddings(store, vectors, name="v")["rejected"] == len(reasons)
    assert sorted(column(store, "SELECT pin_id FROM embeddings")) == ids
    found = api.aggregate_boards(store, boards=boards, saves=saves)
    assert (found["rejected"], found["unknown_boards"], found["pins_not_in_store"]) == (len(reasons), 0, 0)
    assert sorted(column(store, "SELECT pin_id FROM board_titles")) == ids
    queries = api.aggregate_queries(store, log=write(tmp_path / f"log.{ending}", log))
    assert (queries["rejected"], queries["pins_not_in_store"]) == (len(reasons), 0)
    assert sorted(column(store, "SELECT pin_id FROM engaged_queries")) == ids
    for name in ("pins", "vectors", "saves", "log"):
        select = f"SELECT reason FROM rejected_rows WHERE source LIKE '%/{name}.{ending}'"
        assert sorted(column(store, select)) == reasons


@pytest.mark.parametrize("ending", ["csv", "jsonl", "parquet"])
def test_a_day_is_the_same_in_every_command_and_format(tmp_path: Path, ending: str) -> None:
    store, texts = tmp_path / "my.db", [*DAYS, "05/06/2026", "soon"]
    n, numbers = len(texts), [str(i) for i in range(len(texts))]
    faults = {
        "{} may have the day or the month first, as in 05/06/2026: write 2026-06-05": 1,
        "{} is no date or time such as 2024-05-31T12:00:00Z": 1,
    }
    named = lambda name: {reason.format(name): count for reason, count in faults.items()}  # noqa: E731
    pins = api.ingest_pins(
        store, write(tmp_path / f"pins.{ending}", {"pin_id": numbers, "created_at": texts})
    )
    assert (pins["pins"], pins["left_empty"]) == (n, named("created_at"))
    days = column(store, "SELECT substr(created_at, 1, 10) FROM pins ORDER BY pin_id")
    assert days == [*DAYS.values(), None, None]
    saves = {"pin_id": numbers, "board_id": ["8"] * n, "saved_at": texts}
    boards = {"board_id": ["8"], "title": ["Tea"]}
    found = api.aggregate_boards(
        store,
        boards=write(tmp_path / "boards.csv", boards),
        saves=write(tmp_path / f"saves.{ending}", saves),
    )
    assert (found["rejected"], found["rows_written"], found["left_empty"]) == (0, n, named("saved_at"))
    log = {"pin_id": numbers, "query": ["mug"] * n, "action": ["save"] * n, "date": texts}
    queries = api.aggregate_queries(store, log=write(tmp_path / f"log.{ending}", log))
    assert (queries["rejected"], queries["rows_written"], queries["left_empty"]) == (4, n - 4, {})
    both = log | {"timestamp": ["2026-05-31T12:00:00Z"] * n}
    queries = api.aggregate_queries(store, log=write(tmp_path / f"both.{ending}", both), rebuild=True)
    assert (queries["rejected"], queries["rows_written"], queries["left_empty"]) == (0, n, named("date"))


def test_typed_parquet_columns_leave_cells_empty_as_texts_do(tmp_path: Path) -> None:
    store, uuid = tmp_path / "my.db", UUID(int=7)
    table = {
        "pin_id": pa.array([uuid.bytes] * 3, pa.uuid()),
        "board_id": pa.array([8, 9, 10]),
        "saved_at": pa.array([3_664_000, 20_000, None], pa.int32()).cast(pa.date32()),  # the year 12001
    }
    boards = write(
        tmp_path / "boards.parquet", {"board_id": [8.0, 9.0, 10.0], "title": ["Tea", "Mug", "Cup"]}
    )
    found = api.aggregate_boards(store_with(store), boards=boards, saves=write(tmp_path / "s.parquet", table))
    assert (found["rejected"], found["unknown_boards"]) == (0, 0)
    assert found["left_empty"] == {"saved_at is no date that can be": 1}
    assert column(store, "SELECT pin_id FROM board_titles") == [str(uuid)]
    assert column(store, "SELECT reason FROM rejected_rows") == [
        "left empty: saved_at is no date that can be"
    ]


@pytest.mark.parametrize(("kind", "most"), [(pa.float32(), 2**24), (pa.float16(), 2**11)])
def test_an_id_in_a_short_float_is_refused_where_it_is_not_exact(
    tmp_path: Path, kind: pa.DataType, most: int
) -> None:
    ids = pa.array([most, most + 1, 7, 2 * most, None], pa.float64()).cast(kind, safe=False)
    ids = pa.concat_arrays([ids, pa.array([most + 2], pa.float64()).cast(kind)])
    store, reason = tmp_path / "my.db", "pin_id is a float too large to be exact: write it as text"
    table = write(tmp_path / "p.parquet", {"pin_id": ids, "vector": [[1.0, 2.0]] * 6})
    # what the table says of most + 1 can no longer be known: both are the same float
    assert api.ingest_pins(store, table)["reasons"] == {reason: 2, "no pin_id": 1}
    assert sorted(column(store, "SELECT pin_id FROM pins")) == sorted(["7", str(most)])
    assert api.ingest_embeddings(store, table, name="v")["reasons"][reason] == 2
    log = {"pin_id": ids, "query": ["mug"] * 6, "action": ["save"] * 6, "date": ["2026-05-31"] * 6}
    found = api.aggregate_queries(store, log=write(tmp_path / "l.parquet", log))
    assert (found["rejected"], found["reasons"][reason]) == (3, 2)


@pytest.mark.parametrize("ending", ["csv", "jsonl", "parquet"])
def test_words_for_nothing_are_no_texts_of_boards_and_queries(tmp_path: Path, ending: str) -> None:
    store = store_with(tmp_path / "my.db")
    words = ["nan", "NULL", " None ", "#N/A", "#DIV/0!", "\\N", "undefined", "none", "Null island", "n a n"]
    n, numbers = len(words), [str(i) for i in range(len(words))]
    log = {"pin_id": numbers, "query": words, "action": ["save"] * n, "date": ["2026-05-31"] * n}
    found = api.aggregate_queries(store, log=write(tmp_path / f"log.{ending}", log))
    assert found["dropped"]["empty"] == 6
    queries = column(store, "SELECT query FROM engaged_query_ranks ORDER BY 1")
    assert queries == ["n a n", "none", "null island", "undefined"]
    saves = write(tmp_path / "s.csv", {"pin_id": numbers, "board_id": numbers})
    boards = write(tmp_path / f"boards.{ending}", {"board_id": numbers, "title": words})
    found = api.aggregate_boards(store, boards=boards, saves=saves)
    titles = column(store, "SELECT json_each.value FROM board_titles, json_each(titles) ORDER BY 1")
    assert titles == ["n a n", "null island"]


@pytest.mark.parametrize("ending", ["csv", "jsonl", "parquet"])
def test_a_count_that_is_missing_in_words_counts_one(tmp_path: Path, ending: str) -> None:
    store = store_with(tmp_path / "my.db")
    words = ["NULL", "nan", "\\N", "<NA>", "", "#N/A", " "]
    log = {"pin_id": ["1"] * 8, "query": ["mug"] * 8, "action": ["save"] * 8, "date": ["2026-05-31"] * 8}
    found = api.aggregate_queries(store, log=write(tmp_path / f"l.{ending}", {**log, "count": [*words, "2"]}))
    assert found["rejected"] == 0
    assert column(store, "SELECT engagements FROM engaged_query_ranks") == [9]


def test_numbers_and_addresses_that_invisible_characters_hide_are_personal_data(tmp_path: Path) -> None:
    store = store_with(tmp_path / "my.db")
    hidden = ["0170\u200b1234\u200b567", "0170\u00ad1234\u00ad567", "jo＠example.org", "ｗｗｗ．example.org"]
    hidden += ["０１７０ １２３４ ５６７", "ht\u2060tps://example.org/a"]
    texts = [*hidden, "می‌خواهم", "ＫＩＴＣＨＥＮ", "café 24"]
    n, numbers = len(texts), [str(i) for i in range(len(texts))]
    log = {"pin_id": numbers, "query": texts, "action": ["save"] * n, "date": ["2026-05-31"] * n}
    found = api.aggregate_queries(store, log=write(tmp_path / "log.csv", log))
    assert found["dropped"]["personal data"] == len(hidden)
    queries = column(store, "SELECT query FROM engaged_query_ranks ORDER BY 1")
    assert queries == ["café 24", "kitchen", "میخواهم"]


def store_with(path: Path) -> Path:
    api.ingest_pins(path, write(path.with_name("none.csv"), {"pin_id": ["x"]}))
    return path


@pytest.fixture(scope="module")
def db() -> Iterator[Any]:
    with duckdb.connect() as connection:
        add_functions(connection)
        yield connection


pieces = st.sampled_from(
    [*"0019", "1001", ".", ".0", ".50", "E", "E7", "e+", "E+12", "-", "+", " ", "\t", "\u00a0", "x"]
)
texts = (
    st.lists(pieces, max_size=6).map("".join)
    | st.sampled_from(sorted(MISSING_IDS))
    | st.text(st.characters(codec="utf-8"), max_size=8)
)


@given(st.lists(texts, min_size=1, max_size=30))
@example([*IDS, *MISSING_IDS, "a\0b", "\x7f1", "1.5E0", "1.25E1", "12.0E3"])
def test_duckdb_and_python_read_every_text_as_the_same_id(db: Any, texts: list[str]) -> None:
    table = "(SELECT unnest($1) AS raw)"
    for field in ("pin_id", "user_id"):
        required, text = field == "pin_id", "nullif(raw, '')"
        fault = id_fault(field, text, is_text=True, required=required)
        select = f"SELECT raw, {id_of_text(field, text)}, {fault} FROM {table}"
        for raw, found, reason in db.execute(select, [texts]).fetchall():
            try:
                expected = (identifier(raw) if required else optional_identifier(raw, field)), None
            except RowError as error:
                expected = None, str(error)
            if reason and required:
                found = None  # the row is rejected, and what else is in it does not matter
            assert (found, reason) == expected, raw
