"""Columns match without regard to case and blanks; what is ambiguous is refused; what was read is said."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pincaption.sources.columns import Wanted
from pincaption.sources.names import find_columns, listed, plain
from pincaption.sources.rows import SourceError

from .table_commands import captioner, counts, refused, rows, said, workbook

FORMATS = ("csv", "tsv", "jsonl", "json", "parquet", "xlsx")


def write(path: Path, names: list[str], *table: tuple[str, ...]) -> Path:
    """A table in the format of the file's name; the names of columns may repeat."""
    ending = path.name.partition(".")[2]
    if ending == "parquet":
        columns = [pa.array(column) for column in zip(*table, strict=True)]
        pq.write_table(pa.Table.from_arrays(columns, names), path)
    elif ending == "xlsx":
        workbook(path, [names, *table])
    elif ending in ("csv", "tsv"):
        tab = "," if ending == "csv" else "\t"
        path.write_text("".join(tab.join(row) + "\n" for row in [tuple(names), *table]))
    else:
        objects = [
            "{"
            + ", ".join(f"{json.dumps(k)}: {json.dumps(v)}" for k, v in zip(names, row, strict=True))
            + "}"
            for row in table
        ]
        path.write_text("\n".join(objects) if ending == "jsonl" else "[" + ",\n".join(objects) + "]")
    return path


@pytest.mark.parametrize("ending", FORMATS)
def test_columns_match_without_regard_to_case_and_blanks(tmp_path: Path, ending: str) -> None:
    table = write(tmp_path / f"p.{ending}", ["PIN_ID", " Title ", "Price"], ("1", "Blue mug", "7"))
    printed = said("ingest", "pins", tmp_path / "s.db", table)
    assert rows(tmp_path / "s.db", "SELECT pin_id, title FROM pins") == [("1", "Blue mug")]
    assert "pin_id from PIN_ID, title from Title; ignored: Price\n" in printed


@pytest.mark.parametrize("ending", FORMATS)
def test_the_exact_name_wins_and_map_ignores_case_too(tmp_path: Path, ending: str) -> None:
    table = write(tmp_path / f"p.{ending}", ["SKU", "TITLE", "title"], ("1", "no", "yes"))
    printed = said("ingest", "pins", tmp_path / "s.db", table, "--map", "pin_id=sku")
    assert rows(tmp_path / "s.db", "SELECT pin_id, title FROM pins") == [("1", "yes")]
    assert "ignored: TITLE" in printed


@pytest.mark.parametrize("ending", ["csv", "tsv", "parquet", "xlsx"])
def test_two_columns_for_one_field_are_refused_by_name(tmp_path: Path, ending: str) -> None:
    twice = write(tmp_path / f"twice.{ending}", ["pin_id", "title", "title"], ("1", "", "Mug"))
    by_case = write(tmp_path / f"case.{ending}", ["pin_id", "Title", "TITLE"], ("1", "", "Mug"))
    store = tmp_path / "s.db"
    assert "has the column 'title' twice" in refused("ingest", "pins", store, twice)
    assert "has the columns 'Title' and 'TITLE', which differ only by case or blanks" in refused(
        "ingest", "pins", store, by_case
    )
    assert not store.exists()
    said("ingest", "pins", store, by_case, "--map", "title=TITLE")
    assert rows(store, "SELECT title FROM pins") == [("Mug",)]


@pytest.mark.parametrize("ending", ["jsonl", "json"])
def test_a_key_twice_in_an_object_costs_that_row(tmp_path: Path, ending: str) -> None:
    store = tmp_path / "s.db"
    twice = write(tmp_path / f"twice.{ending}", ["pin_id", "title", "title"], ("1", "a", "b"))
    assert "the key 'title' occurs twice" in refused("ingest", "pins", store, twice)
    by_case = write(tmp_path / f"case.{ending}", ["pin_id", "Title", "TITLE"], ("1", "a", "b"))
    assert "several keys are title" in refused("ingest", "pins", store, by_case)
    assert rows(store, "SELECT count(*) FROM rejected_rows") == [(2,)]


def test_a_key_twice_that_is_not_read_costs_nothing(tmp_path: Path) -> None:
    table = write(tmp_path / "p.jsonl", ["pin_id", "note", "note"], ("1", "a", "b"))
    assert counts("ingest", "pins", tmp_path / "s.db", table)["pins"] == 1
    table = write(tmp_path / "p.csv", ["pin_id", "note", "note"], ("1", "a", "b"))
    assert "ignored: note, note\n" in said("ingest", "pins", tmp_path / "s.db", table)


def test_every_command_that_reads_tables_matches_that_way(tmp_path: Path) -> None:
    store = tmp_path / "s.db"
    said("ingest", "pins", store, "-", stdin='{"Pin_Id": 1}\n')
    vectors = write(tmp_path / "v.csv", ["PIN_ID", "Vector"], ("1", "1 2"))
    assert "pin_id from PIN_ID, vector from Vector" in said(
        "ingest", "embeddings", store, vectors, "--name", "v"
    )
    boards = write(tmp_path / "b.parquet", ["Board_ID", "TITLE", "owner_id"], ("b", "Kitchen", "o"))
    saves = write(tmp_path / "s.csv", [" Pin_ID", "board_id "], ("1", "b"))
    printed = said("aggregate", "boards", store, "--boards", boards, "--saves", saves)
    assert "/b.parquet: board_id from Board_ID, title from TITLE; ignored: owner_id" in printed
    assert rows(store, "SELECT pin_id, titles FROM board_titles") == [("1", '["kitchen"]')]
    log = write(
        tmp_path / "l.parquet", ["PIN_ID", "Query", "ACTION", "Date"], ("1", "Mug", "save", "2026-05-31")
    )
    said("aggregate", "queries", store, "--log", log)
    assert rows(store, "SELECT queries FROM engaged_queries") == [('["mug"]',)]
    ratings = write(tmp_path / "r.csv", ["Item", "RATER", "value "], ("1", "a", "1"), ("1", "b", "1"))
    assert "2 ratings of 1 item " in said("eval", "score", "--ratings", ratings)


def test_json_has_the_columns_and_bounds_them(tmp_path: Path) -> None:
    store = tmp_path / "s.db"
    write(tmp_path / "wide.csv", ["pin_id", *(f"c{i}" for i in range(3000))], ("1", *["x"] * 3000))
    report = counts("ingest", "pins", store, tmp_path / "wide.csv")["columns"]
    assert report["tables"][0]["read"] == {"pin_id": "pin_id"}
    assert (len(report["tables"][0]["ignored"]), report["tables"][0]["more_ignored"]) == (100, 2900)
    printed = said("ingest", "pins", store, tmp_path / "wide.csv")
    assert "c11, 2,988 more\n" in printed
    assert len(printed) < 400


def test_one_line_for_each_set_of_columns_and_few_of_them(tmp_path: Path) -> None:
    for i in range(40):
        write(tmp_path / f"{i:02}.csv", ["pin_id", f"own{i // 2}"], (str(i), "x"))
    printed = said("ingest", "pins", tmp_path / "s.db", tmp_path)
    assert printed.count("columns of 2 files such as") == 5
    assert "30 more files with other columns; --json lists them" in printed
    result = counts("ingest", "pins", tmp_path / "s.db", tmp_path)
    assert len(result["columns"]["tables"]) == 20


def test_a_name_cannot_control_the_terminal(tmp_path: Path) -> None:
    (tmp_path / "p.csv").write_text("pin_id,\x1b[31mred\n1,a\n")
    assert "\x1b" not in captioner("ingest", "pins", tmp_path / "s.db", tmp_path / "p.csv").stdout


NAMES = st.lists(st.text(st.sampled_from("aAbBß İ\ufeff\t_1"), max_size=6), max_size=8)


@given(NAMES, st.text(st.sampled_from("aAbB ß"), min_size=1, max_size=4))
def test_a_field_gets_one_column_none_or_an_error(names: list[str], column: str) -> None:
    found = find_columns({"pin_id": column}, names)["pin_id"]
    assert all(plain(name) == plain(column) for name in found)
    if names.count(column) == 1:
        assert found == [column]
    wanted = Wanted(("pin_id",), {"pin_id": column}, ("pin_id",))
    if len(found) == 1:
        assert wanted.match("a.csv", names).columns == {"pin_id": found[0]}
    else:
        with pytest.raises(SourceError, match=r"a\.csv has"):
            wanted.match("a.csv", names)
    assert len(listed(names * 1000)) < 2000


@pytest.mark.parametrize("ending", FORMATS)
@pytest.mark.parametrize(
    ("command", "names", "row"),
    [
        ("ingest pins S T", ["pin_id", "pin_id"], ("1", "2")),
        ("ingest embeddings S T --name v", ["pin_id", "vector", "vector"], ("1", "1 2", "3 4")),
        ("aggregate boards S --boards T", ["board_id", "title", "title"], ("b", "Kitchen", "Garden")),
        ("aggregate boards S --saves T", ["pin_id", "board_id", "board_id"], ("1", "b", "c")),
        (
            "aggregate queries S --log T",
            ["pin_id", "query", "query", "action", "date"],
            ("1", "mug", "cup", "save", "2026-05-31"),
        ),
        ("captions set S --from T", ["pin_id", "text", "text"], ("1", "a mug", "a cup")),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_column_that_is_read_may_not_occur_twice_in_any_format_and_command(
    tmp_path: Path, ending: str, command: str, names: list[str], row: tuple[str, ...]
) -> None:
    """Nor may a key of JSON. The same table without the second column is read."""
    store = tmp_path / "s.db"
    said("ingest", "pins", store, "-", stdin='{"pin_id": 1}')
    twice = next(name for name in names if names.count(name) > 1)
    once = {name: i for i, name in enumerate(names)}.values()
    for table, is_read in (
        (write(tmp_path / f"twice.{ending}", names, row), False),
        (write(tmp_path / f"once.{ending}", [names[i] for i in once], tuple(row[i] for i in once)), True),
    ):
        arguments = [{"S": store, "T": table}.get(word, word) for word in command.split()]
        if is_read:
            said(*arguments)
        else:
            sentence = refused(*arguments)
            column_or_key = f"'{twice}' occurs twice" if "json" in ending else f"the column '{twice}' twice"
            assert column_or_key in sentence
