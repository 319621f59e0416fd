"""Tables of all formats: which rows come out, and which sources are errors."""

from pathlib import Path

import pytest

from pincaption.sources.rows import BadRow, SourceError
from pincaption.sources.tables import read_tables

from .examples import FIELDS, TWO_PINS, read, write


@pytest.mark.parametrize(
    "name",
    [
        "a.parquet",
        "a.PARQUET",
        *(f"a.{e}{gz}" for e in ("csv", "tsv", "jsonl", "ndjson", "json") for gz in ("", ".gz")),
    ],
)
def test_every_format_gives_the_same_rows(tmp_path: Path, name: str) -> None:
    rows, bad = read(write(tmp_path / name, TWO_PINS))
    assert [values for _, values in rows] == TWO_PINS
    assert bad == []


def test_a_column_of_another_name_is_read_as_the_field(tmp_path: Path) -> None:
    for name in ("a.csv", "a.parquet", "a.jsonl"):
        table = write(tmp_path / name, [{"sku": "1", "title": "no", "name": "mug"}])
        assert [values for _, values in read(table, pin_id="sku", title="name")[0]] == [
            {"pin_id": "1", "title": "mug"}
        ]


@pytest.mark.parametrize(
    ("name", "columns", "message"),
    [
        (
            "a.csv",
            {"pin_id": "sku"},
            r"a\.csv has no column 'sku' \(--map pin_id=sku\); its columns: id, title",
        ),
        (
            "a.parquet",
            {},
            r"a\.parquet has no column 'pin_id'; say which one it is with --map pin_id=id; "
            "its columns: id, title",
        ),
        ("a.jsonl", {"pin_id": "id", "title": "nme"}, r"no row of .*a\.jsonl has 'nme' \(--map title=nme\)"),
    ],
)
def test_the_error_for_a_missing_column_lists_the_columns_of_the_table(
    tmp_path: Path, name: str, columns: dict, message: str
) -> None:
    with pytest.raises(SourceError, match=message):
        read(write(tmp_path / name, [{"id": "1", "title": "mug"}]), **columns)


def _cut(path: Path) -> None:
    write(path, [{"pin_id": str(i), "title": str(i**20)} for i in range(5000)])
    path.write_bytes(path.read_bytes()[:-2000])


def _damaged(path: Path) -> None:
    write(path, [{"pin_id": str(i), "title": str(i**20)} for i in range(5000)])
    data = bytearray(path.read_bytes())
    data[1000:1100] = b"\xff" * 100
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("name", "make", "message"),
    [
        ("none.csv", lambda path: None, "no such file"),
        ("a.doc", Path.touch, r"does not have the name of a table: captioner reads \.parquet, \.csv"),
        ("a.xlsx", Path.touch, "is no Excel file, whatever its name says"),
        ("a.parquet.gz", Path.touch, "does not have the name of a table"),
        ("folder", Path.mkdir, "no table below the folder"),
        ("a.parquet", Path.touch, "is not a Parquet file that can be read"),
        ("a.csv.gz", _cut, "cannot be read"),
        ("a.csv.gz", _damaged, "cannot be read"),
        (
            "a.csv",
            lambda path: path.write_text('pin_id,"title\n1,a\n'),
            "has a header in which a quote is never closed",
        ),
    ],
    ids=[
        "missing",
        "a document",
        "an empty spreadsheet",
        "packed Parquet",
        "an empty folder",
        "empty Parquet",
        "cut gzip",
        "damaged gzip",
        "an open quote in the header",
    ],
)
def test_a_source_that_cannot_be_used_is_an_error_of_one_sentence(
    tmp_path: Path, name: str, make, message: str
) -> None:
    make(tmp_path / name)
    with pytest.raises(SourceError, match=message) as error:
        read(tmp_path / name)
    assert name in str(error.value)
    assert "\n" not in str(error.value)


def test_a_bad_row_has_the_start_of_its_content(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("pin_id\n1,2\n")
    assert next(read_tables([str(tmp_path / "a.csv")], FIELDS, {}, ("pin_id",))) == BadRow(
        str(tmp_path / "a.csv"), 2, "more cells than the header has columns", "1,2\n"
    )
