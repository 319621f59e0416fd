"""What the cell of an image may hold: addresses without a scheme, several of them, words for nothing."""

import sqlite3
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pincaption.images.fetch import Fetcher
from pincaption.ingest.image_cells import read_image_cell
from pincaption.ingest.pins import ingest_pins


@pytest.mark.parametrize(
    ("value", "image", "left_out"),
    [
        ("//cdn.example/a.jpg", "https://cdn.example/a.jpg", 0),
        ("//cdn.example:8443/a.jpg", "https://cdn.example:8443/a.jpg", 0),
        ("www.example/b.jpg", "https://www.example/b.jpg", 0),
        ("WWW.shop.example/b.jpg", "https://WWW.shop.example/b.jpg", 0),
        ("//data/a.jpg", "/data/a.jpg", 0),  # no host has such a name
        ("a.jpg, b.jpg", "{base}/a.jpg", 1),
        ("a.jpg|b.jpg|c.PNG", "{base}/a.jpg", 2),
        ("a.jpg;b.jpg", "{base}/a.jpg", 1),
        ("a.jpg\nb.jpg", "{base}/a.jpg", 1),
        ("|b.jpg", "{base}/b.jpg", 0),
        ("nan, b.jpg", "{base}/b.jpg", 0),
        ("Smith, John.jpg", "{base}/Smith, John.jpg", 0),
        ("there, too.jpg, b.jpg", "{base}/there, too.jpg, b.jpg", 0),  # "there" is no picture
        ("one, two.jpg", "{base}/one, two.jpg", 0),
        ("red.jpg, blue.jpg", "{base}/red.jpg, blue.jpg", 0),  # a file that is there
        ("https://h.example/w_1,h_2/a.jpg", "https://h.example/w_1,h_2/a.jpg", 0),
        ("https://h.example/a.jpg,https://h.example/b.jpg", "https://h.example/a.jpg", 1),
        ("https://h.example/a.jpg https://h.example/b.jpg", "https://h.example/a.jpg", 1),
        ("https://h.example/a.jpg|//h.example/b.jpg", "https://h.example/a.jpg", 1),
        ("s3://b/a.jpg; s3://b/b.jpg", "s3://b/a.jpg", 1),
        (["a.jpg", "b.jpg", None, ""], "{base}/a.jpg", 1),
        ([None, "b.jpg"], "{base}/b.jpg", 0),
        ('["a.jpg", "b.jpg"]', "{base}/a.jpg", 1),
        ("['https://h.example/a.jpg', 'b.jpg']", "https://h.example/a.jpg", 1),
        ("['a.jpg' 'b.jpg']", "{base}/a.jpg", 1),
        ("{a.jpg,b.jpg}", "{base}/a.jpg", 1),
        ("sub\\a.jpg", "{base}/sub/a.jpg", 0),  # as Windows writes a path
        *((word, None, 0) for word in ("", " ", "nan", "NaN", "null", "NULL", "None", "<NA>", "\\N", "N/A")),
        *((cell, None, 0) for cell in ([], [None], ["nan"], None, float("nan"))),
    ],
)
def test_the_first_image_that_is_meant_is_taken(
    tmp_path: Path, value: Any, image: str | None, left_out: int
) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "a.jpg").touch()
    (tmp_path / "red.jpg, blue.jpg").touch()
    found = read_image_cell(value, str(tmp_path), None)
    assert found.image == (image and image.format(base=tmp_path))
    assert found.left_out == left_out


def test_an_address_without_a_scheme_may_be_a_file_that_is_there(tmp_path: Path) -> None:
    (tmp_path / "www.cat.example").mkdir()
    (tmp_path / "www.cat.example" / "a.jpg").touch()
    found = read_image_cell("www.cat.example/a.jpg", str(tmp_path), None)
    assert (found.image, found.not_found) == (str(tmp_path / "www.cat.example" / "a.jpg"), False)


def test_the_counts_say_what_is_missing_and_what_was_left_out(
    store: sqlite3.Connection, tmp_path: Path
) -> None:
    (tmp_path / "there.jpg").touch()
    cells = ["there.jpg", "gone.jpg", '"a.jpg, b.jpg, c.jpg"', "nan", "https://h.example/x.jpg", "ftp://h/x"]
    rows = "".join(f"{i},{cell}\n" for i, cell in enumerate(cells))
    (tmp_path / "pins.csv").write_text(f"pin_id,image\n{rows}")
    counts = ingest_pins(store, [str(tmp_path / "pins.csv")])
    assert (counts["pins"], counts["images_not_found"]) == (6, 2)
    assert counts["first_image_not_found"] == str(tmp_path / "gone.jpg")
    assert counts["notes"] == {"images left out: of several in a cell the first is taken": 2}


ITEM = pa.struct({"bytes": pa.binary(), "path": pa.string()})
ONE, TWO = {"bytes": b"one", "path": "1.jpg"}, {"bytes": b"two", "path": "2.jpg"}


@pytest.mark.parametrize(
    ("kind", "cells"),
    [
        (pa.list_(ITEM), [[ONE, TWO], [{"bytes": None, "path": None}, TWO], [], None]),
        (pa.large_list(pa.binary()), [[b"one", b"two"], [None, b"two"], [], None]),
    ],
)
def test_of_a_list_of_images_in_parquet_the_first_is_taken_and_can_be_read(
    store: sqlite3.Connection, tmp_path: Path, kind: pa.DataType, cells: list[Any]
) -> None:
    table = {"pin_id": ["1", "2", "3", "4"], "image": pa.array(cells, kind)}
    pq.write_table(pa.table(table), tmp_path / "p.parquet", row_group_size=3)
    counts = ingest_pins(store, [str(tmp_path / "p.parquet")])
    assert (counts["pins"], counts["left_empty"], list(counts["notes"].values())) == (4, {}, [1])
    first, second, *none = [row[0] for row in store.execute("SELECT image FROM pins ORDER BY pin_id")]
    assert none == [None, None]
    fetcher = Fetcher()
    assert [fetcher.fetch(image) for image in (first, second, first)] == [b"one", b"two", b"one"]
