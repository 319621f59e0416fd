"""Images in Parquet files: their bytes are read from every layout, in any order and in bounded memory."""

import os
import random
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pincaption.images import parquet as parquet_images
from pincaption.images.parquet import ParquetImages, parse, reference


def image(row: int, size: int = 50) -> bytes:
    return f"image {row} ".encode() * size


def table(rows: int, kind: pa.DataType | None = None) -> pa.Table:
    return pa.table(
        {
            "pin_id": [str(i) for i in range(rows)],
            "image": pa.array([image(i) for i in range(rows)], kind or pa.binary()),
        }
    )


def test_a_reference_is_readable_and_can_be_parsed():
    assert (
        reference("/data/pins.parquet", "image.bytes", 12)
        == "parquet:///data/pins.parquet?column=image.bytes&row=12"
    )
    for path, column in [
        ("/a b/ü?#%&=.parquet", "im&age=? ü"),
        (os.fsdecode(b"/not utf-8 \xff.parquet"), "image"),
        ("/x//y", "a/b"),
    ]:
        assert parse(reference(path, column, 7)) == (Path(path), column, 7)
    assert parse(reference("here.parquet", "image", 0))[0] == Path.cwd() / "here.parquet"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "/a.parquet",
        "parquet:///a",
        "parquet:///a?column=i",
        "parquet:///a?column=i&row=-1",
        "parquet:///a?column=i&row=1&row=2",
        "parquet:///a?column=&row=1",
        "parquet://host/a?column=i&row=1",
        "parquet:///a?column=i&row=1\n",
        "parquet:///a?column=i&row=٣",
        "file:///a?column=i&row=1",
        "parquet:///a?column=i&row=" + "9" * 30,
    ],
)
def test_anything_else_is_no_reference(text):
    with pytest.raises(ValueError, match="not a reference"):
        parse(text)


def test_a_negative_row_has_no_reference():
    with pytest.raises(ValueError, match="row from 0"):
        reference("/a", "image", -1)


@pytest.mark.parametrize("kind", [pa.binary(), pa.large_binary(), pa.binary_view()])
def test_every_kind_of_binary_column(tmp_path, kind):
    path = tmp_path / "pins.parquet"
    pq.write_table(table(30, kind), path, row_group_size=7)
    images = ParquetImages()
    for row in (0, 6, 7, 29, 3):
        assert images.read(reference(path, "image", row)) == image(row)


@pytest.mark.parametrize("column", ["image.bytes", "image"])
def test_the_layout_of_hugging_face_datasets(tmp_path, column):
    path = tmp_path / "train.parquet"
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    rows = [{"bytes": image(i), "path": f"{i}.jpg"} for i in range(20)]
    pq.write_table(pa.table({"image": pa.array([*rows, None, {"bytes": None, "path": "x"}], kind)}), path)
    images = ParquetImages()
    for row in (0, 19, 4):
        assert images.read(reference(path, column, row)) == image(row)
    for row in (20, 21):
        with pytest.raises(LookupError, match="no image in this row"):
            images.read(reference(path, column, row))


def test_a_dot_may_be_part_of_the_name(tmp_path):
    path = tmp_path / "dots.parquet"
    pq.write_table(table(3).rename_columns(["pin_id", "my.image"]), path)
    assert ParquetImages().read(reference(path, "my.image", 2)) == image(2)


def test_errors_are_plain_sentences(tmp_path):
    path = tmp_path / "pins.parquet"
    pq.write_table(table(3), path)
    broken = tmp_path / "broken.parquet"
    broken.write_bytes(path.read_bytes()[:-20])
    os.mkfifo(tmp_path / "pipe")
    images = ParquetImages()
    for where, column, row, kind, words in [
        (path, "image", 3, LookupError, "fewer rows"),
        (path, "picture", 0, LookupError, "no such column"),
        (path, "image.bytes", 0, LookupError, "no such column"),
        (path, "pin_id", 0, LookupError, "does not hold bytes"),
        (tmp_path / "gone.parquet", "image", 0, FileNotFoundError, "not there"),
        (broken, "image", 0, OSError, "cannot be read"),
        (tmp_path, "image", 0, OSError, "not a regular file"),
        (tmp_path / "pipe", "image", 0, OSError, "not a regular file"),
    ]:
        with pytest.raises(kind, match=words) as error:
            images.read(reference(where, column, row))
        assert str(tmp_path) not in str(error.value.args[0])
    assert images.read(reference(path, "image", 0)) == image(0)
    with pytest.raises(LookupError, match="fewer rows"):
        images.read(reference(path, "image", 3))
    assert images.read(reference(path, "image", 2)) == image(2)


def test_a_page_damaged_in_the_middle_is_an_error_and_the_next_read_works(tmp_path):
    path = tmp_path / "pins.parquet"
    pq.write_table(table(200), path, row_group_size=100, compression="zstd", use_dictionary=False)
    data = bytearray(path.read_bytes())
    chunk = pq.ParquetFile(path).metadata.row_group(1).column(1)
    data[chunk.data_page_offset : chunk.data_page_offset + 60] = bytes(60)
    path.write_bytes(data)
    images = ParquetImages()
    assert images.read(reference(path, "image", 99)) == image(99)
    with pytest.raises(OSError, match="cannot be read"):
        images.read(reference(path, "image", 100))
    assert images.read(reference(path, "image", 3)) == image(3)


def test_many_threads_in_about_ascending_order(tmp_path):
    path = tmp_path / "pins.parquet"
    pq.write_table(table(3000), path, row_group_size=1000)
    rows = sorted(range(3000), key=lambda row: row + random.Random(row).uniform(0, 60))
    images = ParquetImages()
    with ThreadPoolExecutor(8) as threads:
        for row, data in zip(
            rows, threads.map(lambda row: images.read(reference(path, "image", row)), rows), strict=True
        ):
            assert data == image(row)
    assert len(images._readers) <= 3  # a thread that was delayed for long may need a reader of its own


def test_two_places_of_one_file_are_each_read_forwards(tmp_path):
    path = tmp_path / "pins.parquet"
    pq.write_table(table(20_000), path)
    images = ParquetImages()
    for row in range(0, 4000, 500):
        # one row group: starting over each time would read 20,000 rows eight times
        assert images.read(reference(path, "image", 15_000 + row)) == image(15_000 + row)
        assert images.read(reference(path, "image", row)) == image(row)
    assert len(images._readers) == 2


def test_open_files_are_bounded(tmp_path):
    images = ParquetImages()
    for i in range(20):
        pq.write_table(table(3), tmp_path / f"{i}.parquet")
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(2):
        for i in range(20):
            assert images.read(reference(tmp_path / f"{i}.parquet", "image", 1)) == image(1)
    assert len(os.listdir("/proc/self/fd")) - before <= parquet_images.OPEN_FILES


def test_a_large_row_group_is_streamed(tmp_path):
    path = tmp_path / "large.parquet"
    size, rows = 20_000, 10_000  # 200 MB in one row group, as pandas writes them
    noise = random.Random(0).randbytes(2 * size)
    pq.write_table(
        pa.table({"image": pa.array([noise[i % size :][:size] for i in range(rows)], pa.large_binary())}),
        path,
        row_group_size=rows,
    )
    assert pq.ParquetFile(path).metadata.num_row_groups == 1
    code = f"""if True:
        import re
        from pincaption.images.parquet import ParquetImages, reference
        # not ru_maxrss, which also counts the memory of the process that forked this one
        peak = lambda: int(re.search(r"VmHWM:\\s+(\\d+) kB", open("/proc/self/status").read())[1])
        before = peak()
        images = ParquetImages()
        total = sum(len(images.read(reference({str(path)!r}, "image", row))) for row in range({rows}))
        print(total, peak() - before)"""
    total, kilobytes = map(
        int,
        subprocess.run(
            [sys.executable, "-c", code], check=True, capture_output=True, text=True
        ).stdout.split(),
    )
    assert total == size * rows
    assert kilobytes < 140_000
