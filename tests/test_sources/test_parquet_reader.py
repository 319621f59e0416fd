"""Parquet of any writer: types, images and columns that occur twice."""

from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pincaption.sources.rows import ImageBytes, SourceError, Unreadable

from .examples import read


def test_values_are_python_values(tmp_path: Path) -> None:
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
def test_types_of_many_writers(tmp_path: Path, array: pa.Array, values: list) -> None:
    pq.write_table(
        pa.table({"pin_id": [str(i) for i in range(len(array))], "title": array}), tmp_path / "a.parquet"
    )
    assert [row["title"] for _, row in read(tmp_path / "a.parquet")[0]] == values


def test_a_table_with_a_column_twice_is_refused_and_a_table_without_rows_is_empty(tmp_path: Path) -> None:
    pq.write_table(
        pa.Table.from_arrays(
            [pa.array(["1"]), pa.array(["first"]), pa.array(["second"])], ["pin_id", "title", "title"]
        ),
        tmp_path / "twice.parquet",
    )
    pq.write_table(pa.table({"pin_id": pa.array([], pa.string())}), tmp_path / "none.parquet")
    with pytest.raises(SourceError, match="has the column 'title' twice"):
        read(tmp_path / "twice.parquet")
    assert read(tmp_path / "none.parquet") == ([], [])


@pytest.mark.parametrize(
    "kind", [pa.binary(), pa.large_binary(), pa.struct({"bytes": pa.binary(), "path": pa.string()})]
)
def test_images_in_a_column_know_their_file_column_and_row(tmp_path: Path, kind: pa.DataType) -> None:
    struct = pa.types.is_struct(kind)
    images = [{"bytes": bytes([i]), "path": None} if struct else bytes([i]) for i in range(40)]
    images[5] = None
    pq.write_table(
        pa.table({"pin_id": list(range(40)), "photo": pa.array(images, kind)}),
        tmp_path / "a.parquet",
        row_group_size=13,
    )
    images_read = [row["image"] for _, row in read(tmp_path / "a.parquet", image="photo")[0]]
    column = "photo.bytes" if struct else "photo"
    assert images_read == [
        None if i == 5 else ImageBytes(str(tmp_path / "a.parquet"), column, i, bytes([i])) for i in range(40)
    ]


def test_images_that_datasets_left_outside_of_the_file_are_paths(tmp_path: Path) -> None:
    kind = pa.struct({"bytes": pa.binary(), "path": pa.string()})
    pq.write_table(
        pa.table({"pin_id": [1], "image": pa.array([{"bytes": None, "path": "a.jpg"}], kind)}),
        tmp_path / "a.parquet",
    )
    assert read(tmp_path / "a.parquet")[0][0][1]["image"] == "a.jpg"
