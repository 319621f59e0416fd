"""CSV as people have it: which rows come out, and which line a bad row names."""

from pathlib import Path

import pytest

from pincaption.sources import csv_reader

from .examples import read


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
        (b"pin_id,title\n1,m\x00ug\n", [(2, {"pin_id": "1", "title": "m\x00ug"})]),
        (b"pin_id,title\n1,caf\xe9\n", [(2, {"pin_id": "1", "title": "caf\udce9"})]),
        (b"pin_id , title\n1,mug", [(2, {"pin_id": "1", "title": "mug"})]),
        (b"pin_id\r1\r2\r", [(2, {"pin_id": "1"}), (3, {"pin_id": "2"})]),
        (b"pin_id\n", []),
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
    ]
    + ["null character", "Latin-1", "spaces in the header", "old Mac", "header only"],
)
def test_csv_of_many_writers(tmp_path: Path, content: bytes, rows: list) -> None:
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
def test_a_broken_row_costs_no_other_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, body: str, ids: list, bad: list
) -> None:
    monkeypatch.setattr(csv_reader, "MAX_LINE", 1000)
    (tmp_path / "a.csv").write_text("pin_id,title\n" + body)
    rows, bad_rows = read(tmp_path / "a.csv")
    assert [values["pin_id"] for _, values in rows] == ids
    assert bad_rows == bad
