"""CSV of many programs, packed files, Excel, and what --format, --encoding and --columns say."""

import bz2
import gzip
import io
import random
import sys
import zipfile
from pathlib import Path

import openpyxl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pincaption.sources.encodings import as_utf_8
from pincaption.sources.locations import open_source

from .table_commands import captioner, counts, refused, rows, said, workbook

TABLE = "pin_id;title\r\n1;Küche, groß\r\n"


@pytest.mark.parametrize(
    ("content", "options"),
    [
        ("sep=;\r\n" + TABLE, []),
        ('\ufeff"SEP=;"\r\n' + TABLE, []),
        ("sep=|\n" + TABLE.replace(";", "|"), []),
        (TABLE.replace(";", "|"), []),
        (TABLE.replace(";", "\t"), []),
        ("\ufeff" + TABLE, []),
        ("\ufeff\ufeff" + TABLE, []),
        (('"title, of the pin; or product";' + TABLE).replace("\n1", "\nx;1"), []),
        (TABLE.encode("utf-16"), []),
        (TABLE.encode("utf-16-le"), []),
        (b"\xfe\xff" + TABLE.encode("utf-16-be"), []),
        (TABLE.encode("utf-32"), []),
        (("sep=;\n" + TABLE).encode("utf-16"), []),
        (TABLE.encode("cp1252"), ["--encoding", "cp1252"]),
        (TABLE.encode("utf-8-sig"), ["--encoding", "cp1252"]),
        (TABLE.encode("utf-16-be"), ["--encoding", "utf-16-be"]),
        ((TABLE + "2;" + "ж" * 200_000 + "\n").encode("koi8-r", "ignore"), ["--encoding", "koi8-r"]),
    ],
)
def test_csv_of_many_programs(tmp_path: Path, content: str | bytes, options: list[str]) -> None:
    (tmp_path / "p.csv").write_bytes(content.encode() if isinstance(content, str) else content)
    said("ingest", "pins", tmp_path / "s.db", tmp_path / "p.csv", *options)
    title = "Kche, gro" if "koi8-r" in options else "Küche, groß"
    assert rows(tmp_path / "s.db", "SELECT title FROM pins WHERE pin_id = '1'") == [(title,)]


@pytest.mark.parametrize("encoding", ["cp1252", "utf-16"])
def test_json_in_other_encodings(tmp_path: Path, encoding: str) -> None:
    (tmp_path / "p.jsonl").write_bytes('{"pin_id": 1, "title": "Küche"}\n'.encode(encoding))
    options = ["--encoding", "cp1252"] if encoding == "cp1252" else []
    said("ingest", "pins", tmp_path / "s.db", tmp_path / "p.jsonl", *options)
    assert rows(tmp_path / "s.db", "SELECT title FROM pins") == [("Küche",)]


def test_a_row_in_another_encoding_is_rejected_with_the_option_to_use(tmp_path: Path) -> None:
    (tmp_path / "p.csv").write_bytes(b"pin_id,title\n1,K\xfcche\n2,ok\n")
    assert "not valid UTF-8 (is it another encoding? --encoding cp1252)" in said(
        "ingest", "pins", tmp_path / "s.db", tmp_path / "p.csv"
    )


def test_an_encoding_is_refused_where_there_is_none_to_say(tmp_path: Path) -> None:
    workbook(tmp_path / "p.xlsx", [["pin_id"], [1]])
    pq.write_table(pa.table({"pin_id": [1]}), tmp_path / "p.parquet")
    for name in ("p.xlsx", "p.parquet"):
        sentence = refused("ingest", "pins", tmp_path / "s.db", tmp_path / name, "--encoding", "cp1252")
        assert "--encoding is for CSV and JSON" in sentence


@pytest.mark.parametrize("content", ["pin_id,title\n1,Mug\n\x1a", "pin_id\r\n1\r\n\x1a"])
def test_the_mark_of_dos_at_the_end_is_no_row(tmp_path: Path, content: str) -> None:
    (tmp_path / "p.csv").write_text(content, newline="")
    found = counts("ingest", "pins", tmp_path / "s.db", tmp_path / "p.csv")
    assert (found["pins"], found["rejected"]) == (1, 0)


def test_an_encoding_that_is_none_is_wrong_usage(tmp_path: Path) -> None:
    for name in ("zip", "base64", "nonsense", "rot13", "a\0b"):
        assert captioner("ingest", "pins", tmp_path / "s.db", "p.csv", "--encoding", name).exit_code == 2


@given(st.text(st.characters(exclude_categories=["Cs"])), st.sampled_from(["utf-16", "utf-32", "utf-8-sig"]))
def test_text_with_a_mark_comes_out_as_it_was(text: str, encoding: str) -> None:
    raw = io.BufferedReader(io.BytesIO(text.encode(encoding)))
    assert as_utf_8(raw).read().decode("utf-8-sig") == text


@given(st.binary(max_size=300), st.sampled_from(["utf-16", "utf-8", "cp1252", "shift_jis", "utf-7"]))
def test_bytes_that_are_no_text_never_break_the_reader(data: bytes, encoding: str) -> None:
    as_utf_8(io.BufferedReader(io.BytesIO(data)), encoding).read().decode("utf-8", "surrogateescape")


def packed(data: bytes, ending: str) -> bytes:
    codec = {"gz": gzip.compress, "bz2": bz2.compress}
    return codec[ending](data) if ending in codec else pa.Codec("zstd").compress(data, asbytes=True)


@pytest.mark.parametrize("ending", ["gz", "bz2", "zst"])
@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_packed_text_in_both_paths_and_in_parts(tmp_path: Path, kind: str, ending: str) -> None:
    first, second = ("pin_id,query,action,date\n1,mug,save,2026-05-31\n", "1,cup,save,2026-05-31\n")
    if kind == "jsonl":
        row = '{"pin_id": "1", "query": "%s", "action": "save", "date": "2026-05-31"}\n'
        first, second = row % "mug", row % "cup"
    path = tmp_path / f"l.{kind}.{ending}"
    path.write_bytes(packed(first.encode(), ending) + packed(second.encode(), ending))
    assert counts("ingest", "pins", tmp_path / "s.db", path)["rows_read"] == 2
    assert counts("aggregate", "queries", tmp_path / "s.db", "--log", path)["queries"] == 2
    path.write_bytes(packed(first.encode() * 1000, ending)[:-30])
    assert "cannot be read" in refused("ingest", "pins", tmp_path / "s.db", path)


@pytest.mark.parametrize("ending", ["gz", "bz2", "zst"])
def test_unpacking_takes_little_memory(tmp_path: Path, ending: str) -> None:
    import resource

    (tmp_path / f"p.csv.{ending}").write_bytes(packed(bytes(100_000_000), ending))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with open_source(str(tmp_path / f"p.csv.{ending}")) as file:
        assert sum(len(part) for part in iter(lambda: file.read(1 << 20), b"")) == 100_000_000
    if sys.platform == "linux":
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000  # kB


# --- Excel ---


@pytest.mark.parametrize("name", ["p.xlsx", "p.csv", "p.xls", "p.parquet"])
def test_excel_is_told_by_its_first_bytes(tmp_path: Path, name: str) -> None:
    workbook(
        tmp_path / "p.xlsx", [[None], ["PIN_ID", "title", None], [1001, "Mug"], [], [1002.0, None]], "Stock"
    )
    (tmp_path / "p.xlsx").rename(tmp_path / name)
    printed = said("ingest", "pins", tmp_path / "s.db", tmp_path / name)
    assert rows(tmp_path / "s.db", "SELECT pin_id, title FROM pins") == [("1001", "Mug"), ("1002", None)]
    assert "only the sheet 'Sheet' was read, not 'Stock'" in printed


def test_excel_reads_the_first_sheet_that_has_rows(tmp_path: Path) -> None:
    book = openpyxl.Workbook()
    book.active.title = "Cover"
    book.create_sheet("Hidden").append(["pin_id"])
    book["Hidden"].sheet_state = "hidden"
    data = book.create_sheet("Data")
    data.append(["pin_id", "title"])
    data.append([1, "Mug"])
    book.create_sheet("Notes")
    book.save(tmp_path / "p.xlsx")
    assert "only the sheet 'Data' was read, not 'Cover' (empty), 'Hidden', 'Notes'" in said(
        "ingest", "pins", tmp_path / "s.db", tmp_path / "p.xlsx"
    )
    assert rows(tmp_path / "s.db", "SELECT title FROM pins") == [("Mug",)]


# --- files with nothing in them ---


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("e.csv", ""),
        ("e.csv", "sep=;\n"),
        ("e.csv", "\ufeff\n\n"),
        ("e.tsv", "\n"),
        ("e.jsonl", ""),
        ("e.jsonl", "\n \n"),
        ("e.json", "[]"),
        ("e.json", " [\n]\n"),
    ],
)
def test_a_file_with_nothing_in_it_is_an_error_in_every_command(
    tmp_path: Path, name: str, content: str
) -> None:
    (tmp_path / name).write_text(content)
    empty, store = tmp_path / name, tmp_path / "s.db"
    assert refused("ingest", "pins", store, empty) == f"{empty} is empty"
    assert not store.exists()
    said("ingest", "pins", store, "-", stdin='{"pin_id": "1"}\n')
    assert refused("ingest", "embeddings", store, empty, "--name", "v") == f"{empty} is empty"
    assert refused("aggregate", "queries", store, "--log", empty) == f"{empty} is empty"
    assert refused("captions", "set", store, "--from", empty) == f"{empty} is empty"
    assert f"{empty} is empty" in captioner("eval", "score", "--ratings", empty).stderr
    assert refused("ingest", "pins", store, "-", stdin="") == "standard input is empty"
    assert refused("aggregate", "queries", store, "--log", "-", stdin="") == "standard input is empty"


def test_an_empty_workbook_is_an_error(tmp_path: Path) -> None:
    path = workbook(tmp_path / "e.xlsx", [])
    assert refused("ingest", "pins", tmp_path / "s.db", path) == f"{path} is empty"


def test_empty_parts_of_a_folder_are_said_and_a_header_alone_is_no_error(tmp_path: Path) -> None:
    store, parts = tmp_path / "s.db", tmp_path / "parts"
    parts.mkdir()
    (parts / "0.csv").write_text("")
    (parts / "1.csv").write_text("pin_id,query,action,date\n1,mug,save,2026-05-31\n")
    (parts / "2.csv").write_text("pin_id,query,action,date\n")
    printed = said("ingest", "pins", store, parts)
    assert "1 pin into" in printed
    assert f"1 empty file: {parts / '0.csv'}" in printed
    (parts / "3.csv").write_text("\n")
    found = counts("aggregate", "queries", store, "--log", f"{parts}/*.csv")
    assert found["rows_read"] == 1
    assert found["columns"]["remarks"] == [f"2 empty files: {parts / '0.csv'}, ..."]
    assert counts("ingest", "pins", store, parts / "2.csv")["pins"] == 0
    (parts / "1.csv").unlink()
    (parts / "2.csv").unlink()
    assert refused("ingest", "pins", store, parts) == f"{parts / '0.csv'} is empty"


def test_excel_in_aggregate(tmp_path: Path) -> None:
    said("ingest", "pins", tmp_path / "s.db", "-", stdin='{"pin_id": "1"}\n')
    log = workbook(
        tmp_path / "l.xlsx", [["pin_id", "query", "action", "date"], [1, "mug", "save", "2026-05-31"]]
    )
    assert counts("aggregate", "queries", tmp_path / "s.db", "--log", log)["queries"] == 1


def _zip(path: Path, *names: str) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        for name in names:
            archive.writestr(name, "x")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda p: p.write_bytes(b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"), "Excel file of the old kind"),
        (lambda p: p.write_bytes(b"PK\x03\x04xx"), "is damaged: copy it once more"),
        (lambda p: _zip(p, "p.csv"), "is a zip archive: unpack it"),
        (lambda p: _zip(p, "xl/workbook.bin"), "binary Excel file (.xlsb): save it as .xlsx or as CSV UTF-8"),
        (lambda p: _zip(p, "content.xml"), "OpenDocument (.ods): save it as"),
        (lambda p: _zip(p, "xl/workbook.xml", "[Content_Types].xml"), "is a damaged Excel file"),
    ],
    ids=["xls", "damaged", "zip", "xlsb", "ods", "no workbook"],
)
@pytest.mark.parametrize("name", ["x.csv", "x.xlsx", "x.json"])
def test_what_is_no_table_is_refused_by_name(tmp_path: Path, name: str, make, message: str) -> None:
    make(tmp_path / name)
    sentence = refused("ingest", "pins", tmp_path / "s.db", tmp_path / name)
    assert str(tmp_path / name) in sentence
    assert message in sentence


def test_a_workbook_that_unpacks_to_too_much_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    workbook(tmp_path / "p.xlsx", [["pin_id"], *([i] for i in range(1000))])
    monkeypatch.setattr("pincaption.sources.excel_reader.MAX_UNPACKED", 10_000)
    assert "save it as CSV UTF-8" in refused("ingest", "pins", tmp_path / "s.db", tmp_path / "p.xlsx")


def test_without_openpyxl_the_error_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    workbook(tmp_path / "p.xlsx", [["pin_id"], [1]])
    monkeypatch.setitem(sys.modules, "openpyxl", None)
    assert "pip install 'pincaption[excel]'" in refused(
        "ingest", "pins", tmp_path / "s.db", tmp_path / "p.xlsx"
    )


# --- --format and --columns ---


def test_format_says_what_the_name_does_not(tmp_path: Path) -> None:
    folder = tmp_path / "out"
    folder.mkdir()
    (folder / "part-0").write_text("pin_id,title\n1,mug\n")
    (folder / "_SUCCESS").write_text("")
    store = tmp_path / "s.db"
    assert "does not have the name of a table" in refused("ingest", "pins", store, folder / "part-0")
    for source in (folder / "part-0", f"{folder}/part*", folder):
        assert counts("ingest", "pins", store, source, "--format", "csv")["rows_read"] == 1
    assert counts("ingest", "pins", store, "-", "--format", "csv", stdin="pin_id\n1\n2\n")["pins"] == 2


ROW = "p1\tred mug, big; blue\tsave\t2026-05-31\n"


@pytest.mark.parametrize("options", [[], ["--format", "tsv"]])
def test_a_log_without_a_header(tmp_path: Path, options: list[str]) -> None:
    store, log = tmp_path / "s.db", tmp_path / "l.csv"
    said("ingest", "pins", store, "-", stdin='{"pin_id": "p1"}\n')
    log.write_text(ROW * 2)
    columns = ["--columns", "pin_id,query,action,date"]
    found = counts("aggregate", "queries", store, "--log", log, *columns, *options)
    assert (found["rows_read"], found["queries"]) == (2, 1)
    found = counts("aggregate", "queries", store, "--log", "-", "--format", "tsv", *columns, stdin=ROW)
    assert found["rows_read"] == 1
    assert counts("aggregate", "queries", store, "--log", log, *columns, *options)["rows_read"] == 0
    other = ["--columns", "item,query,action,day", "--map", "pin_id=item", "--map", "date=day"]
    assert counts("aggregate", "queries", store, "--log", log, *other)["rows_read"] == 2


def test_columns_for_each_kind_of_table(tmp_path: Path) -> None:
    store = tmp_path / "s.db"
    said("ingest", "pins", store, "-", stdin='{"pin_id": "p1"}\n')
    (tmp_path / "b.csv").write_text("b1,Kitchen\n")
    (tmp_path / "s.csv").write_text("p1,b1\n")
    tables = ["--boards", tmp_path / "b.csv", "--saves", tmp_path / "s.csv"]
    columns = ["--columns", "boards=board_id,title", "--columns", "saves=pin_id,board_id"]
    said("aggregate", "boards", store, *tables, *columns)
    assert rows(store, "SELECT titles FROM board_titles") == [('["kitchen"]',)]
    assert "--columns names no table of this command: log" in refused(
        "aggregate", "boards", store, *tables, "--columns", "log=pin_id"
    )


def test_columns_for_a_file_that_names_its_own_are_refused(tmp_path: Path) -> None:
    (tmp_path / "p.csv").write_text("PIN_ID,title\n1,mug\n")
    (tmp_path / "p.jsonl").write_text('{"pin_id": 1}\n')
    for name, message in (("p.csv", "has a header"), ("p.jsonl", "is JSON")):
        assert message in refused(
            "ingest", "pins", tmp_path / "s.db", tmp_path / name, "--columns", "pin_id,title"
        )
    assert captioner("ingest", "pins", tmp_path / "s.db", "x.csv", "--columns", "a,a").exit_code == 2


@given(st.integers(0, 2**32))
def test_rows_are_never_lost_in_silence(seed: int) -> None:
    """Random cells with quotes, delimiters and line ends: every row comes out as it was written."""
    import csv as plain_csv
    import tempfile

    from pincaption.sources.rows import Rows
    from pincaption.sources.tables import read_tables

    draw = random.Random(seed)
    table = [
        ["".join(draw.choices('a,;\t|"\n \ufeff', k=draw.randrange(6))) for _ in range(2)] for _ in range(5)
    ]
    delimiter = draw.choice(",;\t|")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "t.csv"
        with path.open("w", newline="", encoding=draw.choice(["utf-8", "utf-8-sig", "utf-16"])) as file:
            writer = plain_csv.writer(file, delimiter=delimiter)
            writer.writerows([["pin_id", "title"], *table])
        found = []
        for part in read_tables([str(path)], ("pin_id", "title"), None, ("pin_id",)):
            assert isinstance(part, Rows)
            found += [list(row) for row in zip(part.columns["pin_id"], part.columns["title"], strict=True)]
    assert found == table
