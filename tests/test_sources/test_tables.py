"""Tables as people have them: what is read, which line is blamed, and what is refused."""

import gzip
import io
import json
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pincaption.sources import csv_reader, json_reader
from pincaption.sources.locations import find_sources
from pincaption.sources.rows import BadRow, ImageBytes, Rows, SourceError, Unreadable
from pincaption.sources.tables import read_tables

FIELDS = ("pin_id", "title", "image")
TWO = [{"pin_id": "1", "title": "mug"}, {"pin_id": "2", "title": "cup, blue"}]


def read(
    *paths: Path | str, **columns: str
) -> tuple[list[tuple[int, dict[str, Any]]], list[tuple[int | None, str]]]:
    """([(line, values)], [(line, reason)]) of some tables."""
    rows: list[tuple[int, dict[str, Any]]] = []
    bad = []
    for part in read_tables([str(p) for p in paths], FIELDS, columns, ("pin_id",)):
        if isinstance(part, Rows):
            rows += [
                (line, {name: column[i] for name, column in part.columns.items()})
                for i, line in enumerate(part.lines)
            ]
        else:
            bad.append((part.line, part.reason))
    return rows, bad


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    name = path.name.lower().removesuffix(".gz")
    if name.endswith(".parquet"):
        pq.write_table(pa.Table.from_pylist(rows), path)
        return path
    if name.endswith((".csv", ".tsv")):
        tab = "\t" if name.endswith(".tsv") else ","
        lines = [tab.join(rows[0])] + [tab.join(f'"{cell}"' for cell in row.values()) for row in rows]
        text = "\n".join(lines) + "\n"
    elif name.endswith(".json"):
        text = json.dumps(rows, indent=2)
    else:
        text = "".join(json.dumps(row) + "\n" for row in rows)
    path.write_bytes(gzip.compress(text.encode()) if path.name.endswith(".gz") else text.encode())
    return path


@pytest.mark.parametrize(
    "name",
    [
        "a.parquet",
        "a.PARQUET",
        *(f"a.{e}{gz}" for e in ("csv", "tsv", "jsonl", "ndjson", "json") for gz in ("", ".gz")),
    ],
)
def test_every_form_of_table_gives_the_same_rows(tmp_path: Path, name: str) -> None:
    rows, bad = read(write(tmp_path / name, TWO))
    assert [values for _, values in rows] == TWO
    assert bad == []


def test_a_table_that_was_unpacked_but_kept_its_name_is_read(tmp_path: Path) -> None:
    packed = write(tmp_path / "a.csv", TWO).rename(tmp_path / "a.csv.gz")
    assert len(read(packed)[0]) == 2


def test_folders_globs_and_repeated_names_are_each_file_once_in_order(tmp_path: Path) -> None:
    for name in ("b.csv", "a.csv", "notes.txt", "sub/c.jsonl"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("x")
    found = find_sources([str(tmp_path), f"{tmp_path}/*.csv", f"{tmp_path}/**/*.jsonl", "-"])
    assert found == [f"{tmp_path}/a.csv", f"{tmp_path}/b.csv", f"{tmp_path}/sub/c.jsonl", "-"]


def test_a_file_whose_name_has_brackets_is_no_glob(tmp_path: Path) -> None:
    assert len(read(write(tmp_path / "pins[1].csv", TWO))[0]) == 2


@pytest.mark.parametrize(
    ("content", "rows"),
    [
        (b"pin_id,title\n1,mug\n", [(2, {"pin_id": "1", "title": "mug"})]),
        (b"\xef\xbb\xbfpin_id,title\r\n1,mug\r\n", [(2, {"pin_id": "1", "title": "mug"})]),
        (b"pin_id;title\n1;mug, blue\n", [(2, {"pin_id": "1", "title": "mug, blue"})]),
        (b"pin_id\ttitle\n1\tmug, blue\n", [(2, {"pin_id": "1", "title": "mug, blue"})]),
        (b'"pin_id","title"\n"1","a ""fine"" mug"\n', [(2, {"pin_id": "1", "title": 'a "fine" mug'})]),
        (
            b'pin_id,title\n1,"two\nlines"\n\n2,cup\n',
            [(2, {"pin_id": "1", "title": "two\nlines"}), (5, {"pin_id": "2", "title": "cup"})],
        ),
        (b'pin_id,"ti\ntle"\n1,mug\n', [(3, {"pin_id": "1"})]),
        (b"\n\npin_id,title\n1,mug\n", [(4, {"pin_id": "1", "title": "mug"})]),
        (
            b"pin_id,title,image\n1\n2,cup\n",
            [
                (2, {"pin_id": "1", "title": "", "image": ""}),
                (3, {"pin_id": "2", "title": "cup", "image": ""}),
            ],
        ),
        (b"pin_id,title,title\n1,first,second\n", [(2, {"pin_id": "1", "title": "first"})]),
        (b"pin_id,title\n1,m\x00ug\n", [(2, {"pin_id": "1", "title": "m\x00ug"})]),
        (b"pin_id,title\n1,caf\xe9\n", [(2, {"pin_id": "1", "title": "caf\udce9"})]),
        (b"pin_id , title\n1,mug", [(2, {"pin_id": "1", "title": "mug"})]),
        (b"pin_id\r1\r2\r", [(2, {"pin_id": "1"}), (3, {"pin_id": "2"})]),
        (b"pin_id\n", []),
        (b"", []),
    ],
    ids=[
        "plain",
        "byte order mark",
        "semicolons",
        "tabs",
        "quotes",
        "lines in cells",
        "lines in the header",
        "blank lines first",
        "short rows",
        "a column twice",
    ]
    + ["null character", "Latin-1", "spaces in the header", "old Mac", "header only", "empty"],
)
def test_csv_as_it_is_found(tmp_path: Path, content: bytes, rows: list) -> None:
    (tmp_path / "a.csv").write_bytes(content)
    assert read(tmp_path / "a.csv") == (rows, [])


@pytest.mark.parametrize(
    ("body", "ids", "bad"),
    [
        ("1,a\n2,b,c\n3,d\n", ["1", "3"], [(3, "more cells than the header has columns")]),
        ('1,a\n2,"b\n3,c\n4,d\n', ["1", "3", "4"], [(3, "a quote is never closed")]),
        ('1,"two\nlines"\n2,b,c\n', ["1"], [(4, "more cells than the header has columns")]),
        (
            '1,a\n2,"the file ends\nwithin\n',
            ["1"],
            [(3, "a quote is never closed"), (4, "too few cells, after a quote that is never closed")],
        ),
        (f"1,a\n2,{'x' * 3000}\n3,c\n", ["1", "3"], [(3, "the line is too long")]),
    ],
    ids=["too many cells", "an open quote", "after lines in a cell", "cut off", "a huge line"],
)
def test_a_csv_row_that_cannot_be_read_costs_itself_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, body: str, ids: list, bad: list
) -> None:
    monkeypatch.setattr(csv_reader, "MAX_LINE", 1000)
    (tmp_path / "a.csv").write_text("pin_id,title\n" + body)
    rows, found = read(tmp_path / "a.csv")
    assert [values["pin_id"] for _, values in rows] == ids
    assert found == bad


def test_json_lines_that_cannot_be_read_are_named_by_their_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(json_reader, "MAX_LINE", 100)
    lines = [
        b'\xef\xbb\xbf{"pin_id": 1, "title": "mug"}',
        b"",
        b"{broken",
        b"[1, 2]",
        b"  ",
        b'{"pin_id": "caf\xe9"}',
        b'{"pin_id": "' + b"x" * 300 + b'"}',
        b'{"pin_id": 7, "other": {}}',
    ]
    (tmp_path / "a.jsonl").write_bytes(b"\r\n".join(lines))
    rows, bad = read(tmp_path / "a.jsonl")
    assert rows == [(1, {"pin_id": 1, "title": "mug"}), (8, {"pin_id": 7})]
    assert bad == [
        (3, "not valid JSON"),
        (4, "not a JSON object"),
        (6, "not valid UTF-8"),
        (7, "the line is too long"),
    ]


def test_a_json_array_is_streamed_up_to_what_is_broken(tmp_path: Path) -> None:
    # larger than what is read at a time
    many = [{"pin_id": i, "title": "x" * 2000, "image": None} for i in range(2000)]
    (tmp_path / "a.json").write_text(json.dumps(many)[:-1] + ", 5, {broken]")
    rows, bad = read(tmp_path / "a.json")
    assert [values for _, values in rows] == many
    assert rows[-1][0] == 2000
    assert bad == [(2001, "not a JSON object"), (2002, "not valid JSON; nothing after it was read")]


def test_rows_of_one_pin_with_different_keys_stay_in_order(tmp_path: Path) -> None:
    rows = [
        {"pin_id": 1, "title": "a"},
        {"pin_id": 1, "title": "b", "image": "c"},
        {"pin_id": 1, "title": "z"},
    ]
    assert read(write(tmp_path / "a.jsonl", rows))[0] == list(enumerate(rows, 1))


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
            r"a\.parquet has no column 'pin_id'; say which one it is with --map pin_id=COLUMN; its columns: id, title",
        ),
        ("a.jsonl", {"title": "nme"}, r"no row has 'nme' \(--map title=nme\)"),
    ],
)
def test_a_column_that_is_missing_is_said_with_those_that_there_are(
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
        ("a.xlsx", Path.touch, r"does not have the name of a table: captioner reads \.parquet, \.csv"),
        ("a.parquet.gz", Path.touch, "does not have the name of a table"),
        ("folder", Path.mkdir, "no table below the folder"),
        ("a.parquet", Path.touch, "is not a Parquet file that can be read"),
        ("a.csv.gz", _cut, "cannot be read"),
        ("a.csv.gz", _damaged, "cannot be read"),
        (
            "a.csv",
            lambda path: path.write_bytes("pin_id,title\n1,a\n".encode("utf-16")),
            "is in UTF-16: save it as CSV in UTF-8",
        ),
        (
            "a.csv",
            lambda path: path.write_text('pin_id,"title\n1,a\n'),
            "has a header in which a quote is never closed",
        ),
    ],
    ids=[
        "missing",
        "a spreadsheet",
        "packed Parquet",
        "an empty folder",
        "empty Parquet",
        "cut gzip",
        "damaged gzip",
        "UTF-16",
        "an open quote in the header",
    ],
)
def test_a_source_that_cannot_be_used_is_said_in_one_sentence(
    tmp_path: Path, name: str, make, message: str
) -> None:
    make(tmp_path / name)
    with pytest.raises(SourceError, match=message) as error:
        read(tmp_path / name)
    assert name in str(error.value)
    assert "\n" not in str(error.value)


def test_parquet_values_come_as_python_values(tmp_path: Path) -> None:
    table = pa.table(
        {
            "pin_id": pa.array([1, None], pa.int64()),
            "title": pa.array(["a", "a"]).dictionary_encode(),
            "image": pa.array(["b", None], pa.large_string()),
        }
    )
    pq.write_table(table, tmp_path / "a.parquet")
    assert read(tmp_path / "a.parquet")[0] == [
        (1, {"pin_id": 1, "title": "a", "image": "b"}),
        (2, {"pin_id": None, "title": "a", "image": None}),
    ]


@pytest.mark.parametrize(
    ("array", "values"),
    [
        (pa.array([b"mug", b"caf\xe9", None], pa.binary()), ["mug", Unreadable("not valid UTF-8"), None]),
        (
            pa.array([b"mug", b"caf\xe9", None], pa.binary()).view(pa.string()),
            ["mug", Unreadable("not valid UTF-8"), None],
        ),
        (
            pa.array([datetime(2024, 5, 1, 12, tzinfo=UTC)], pa.timestamp("ns", "Asia/Tokyo")),
            [datetime(2024, 5, 1, 12)],
        ),
        (pa.array([1714564800123456789], pa.timestamp("ns")), [datetime(2024, 5, 1, 12, 0, 0, 123456)]),
        (
            pa.array([10**17, 0], pa.timestamp("us")),
            [datetime(5138, 11, 16, 9, 46, 40), datetime(1970, 1, 1)],
        ),
        (
            pa.array([10**18, 0], pa.timestamp("us")),
            [Unreadable("a date or time beyond what can be"), datetime(1970, 1, 1)],
        ),
        (pa.array([date(2024, 5, 1)]), [date(2024, 5, 1)]),
        (pa.array([Decimal("12")], pa.decimal128(38, 0)), [Decimal(12)]),
        (pa.array([[1, 2]]), [[1, 2]]),
    ],
    ids=["binary", "invalid UTF-8", "zone", "nanoseconds", "far", "too far", "date", "decimal", "nested"],
)
def test_parquet_types_of_all_kinds(tmp_path: Path, array: pa.Array, values: list) -> None:
    pq.write_table(
        pa.table({"pin_id": [str(i) for i in range(len(array))], "title": array}), tmp_path / "a.parquet"
    )
    assert [row["title"] for _, row in read(tmp_path / "a.parquet")[0]] == values


def test_a_parquet_table_with_a_column_twice_or_no_rows(tmp_path: Path) -> None:
    pq.write_table(
        pa.Table.from_arrays(
            [pa.array(["1"]), pa.array(["first"]), pa.array(["second"])], ["pin_id", "title", "title"]
        ),
        tmp_path / "twice.parquet",
    )
    pq.write_table(pa.table({"pin_id": pa.array([], pa.string())}), tmp_path / "none.parquet")
    assert [row for _, row in read(tmp_path / "twice.parquet")[0]] == [{"pin_id": "1", "title": "first"}]
    assert read(tmp_path / "none.parquet") == ([], [])


@pytest.mark.parametrize(
    "kind", [pa.binary(), pa.large_binary(), pa.struct({"bytes": pa.binary(), "path": pa.string()})]
)
def test_images_in_a_parquet_column_come_with_the_place_where_they_stand(
    tmp_path: Path, kind: pa.DataType
) -> None:
    struct = pa.types.is_struct(kind)
    images = [{"bytes": bytes([i]), "path": None} if struct else bytes([i]) for i in range(40)]
    images[5] = None
    pq.write_table(
        pa.table({"pin_id": list(range(40)), "photo": pa.array(images, kind)}),
        tmp_path / "a.parquet",
        row_group_size=13,
    )
    found = [row["image"] for _, row in read(tmp_path / "a.parquet", image="photo")[0]]
    column = "photo.bytes" if struct else "photo"
    assert found == [
        None if i == 5 else ImageBytes(str(tmp_path / "a.parquet"), column, i, bytes([i])) for i in range(40)
    ]


def test_images_that_datasets_left_outside_come_as_their_path(tmp_path: Path) -> None:
    kind = pa.struct({"bytes": pa.binary(), "path": pa.string()})
    pq.write_table(
        pa.table({"pin_id": [1], "image": pa.array([{"bytes": None, "path": "a.jpg"}], kind)}),
        tmp_path / "a.parquet",
    )
    assert read(tmp_path / "a.parquet")[0][0][1]["image"] == "a.jpg"


def test_standard_input_is_json_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b'{"pin_id": "1"}\nnonsense\n')))
    assert read("-") == ([(1, {"pin_id": "1"})], [(2, "not valid JSON")])


def test_bad_rows_carry_the_start_of_what_they_held(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("pin_id\n1,2\n")
    assert next(read_tables([str(tmp_path / "a.csv")], FIELDS, {}, ("pin_id",))) == BadRow(
        str(tmp_path / "a.csv"), 2, "more cells than the header has columns", "1,2\n"
    )
