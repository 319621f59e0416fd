"""Reads images that are bytes in a column of a Parquet file. They stay there and are not copied.

The store keeps a reference such as `parquet:///data/pins.parquet?column=image&row=12`. pandas writes all rows
as one row group, which can be gigabytes of image bytes. So a file is read forwards, a few rows at a time, and
only the last ones are kept.
"""

from __future__ import annotations

import bisect
import os
import re
import stat
import threading
from collections import deque
from pathlib import Path
from urllib.parse import quote, unquote_to_bytes

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

BATCH = 8  # rows read at a time
# How much of each open file is kept of what was read last, as requests come slightly out of order.
KEPT_BATCHES, KEPT_BYTES = 64, 32_000_000
OPEN_FILES = 8

_REFERENCE = re.compile(r"parquet://(/[^?#&]*)\?column=([^?#&]+)&row=([0-9]{1,18})", re.ASCII)


def reference(path: str | os.PathLike[str], column: str, row: int) -> str:
    """The reference to an image, as `pins.image` holds it.

    `row` counts from 0 over all row groups. `column` may be in a struct: "image.bytes". Raises ValueError.
    """
    if row < 0 or not column:
        raise ValueError("a reference needs a row from 0 and the name of a column")
    return f"parquet://{quote(os.fsencode(os.path.abspath(path)))}?column={quote(column, safe='')}&row={row}"


def parse(reference: str) -> tuple[Path, str, int]:
    """The path, column and row of a reference. Raises ValueError on anything else."""
    match = _REFERENCE.fullmatch(reference)
    if not match:
        raise ValueError("not a reference to an image in a Parquet file")
    path, column, row = match.groups()
    return Path(os.fsdecode(unquote_to_bytes(path))), unquote_to_bytes(column).decode(), int(row)


class ParquetImages:
    """Reads images by reference, from many threads. Fast if rows are wanted in roughly ascending order."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._readers: list[_Reader] = []  # least recently used first

    def read(self, reference: str) -> bytes:
        """The bytes of one image. Raises LookupError or OSError; ValueError if `reference` is none.

        The first argument of each of these errors is a plain sentence without a path.
        """
        path, column, row = parse(reference)
        with self._lock:
            reader = self._reader(path, column, row)
            try:
                value = reader.value(row)
            except (pa.ArrowException, OSError, StopIteration) as error:
                reader.close()
                raise OSError("the Parquet file cannot be read") from error
            self._readers.append(reader)
        if value is None:
            raise LookupError("no image in this row of the Parquet file")
        return value

    def _reader(self, path: Path, column: str, row: int) -> _Reader:
        """Takes the nearest reader off the list; a new one if none can reach `row` without starting over."""
        able = [r for r in self._readers if (r.path, r.column) == (path, column) and r.reaches(row)]
        if able:
            nearest = max(able, key=lambda r: r.next_row)
            self._readers.remove(nearest)
            return nearest
        while len(self._readers) >= OPEN_FILES:
            self._readers.pop(0).close()
        return _Reader(path, column, row)


class _Reader:
    """An open file, read forwards from the row group of the first wanted row. Not thread-safe."""

    def __init__(self, path: Path, column: str, row: int) -> None:
        self.path, self.column = path, column
        try:
            if not stat.S_ISREG(os.stat(path).st_mode):
                raise OSError("the Parquet file is not a regular file")
            self._file = pq.ParquetFile(path, pre_buffer=False, buffer_size=1 << 20)
        except (FileNotFoundError, NotADirectoryError) as error:
            raise FileNotFoundError("the Parquet file is not there") from error
        except PermissionError as error:
            raise PermissionError("no permission to read the Parquet file") from error
        except pa.ArrowException as error:
            raise OSError("the Parquet file cannot be read") from error
        try:
            self._fields = _fields(self._file.schema_arrow, column)
            in_list = _is_list(self._file.schema_arrow.field(self._fields[0]).type)
            self._leaves = self._fields[0] if in_list else ".".join(self._fields)
            self._start_at(row)
        except LookupError:
            self.close()
            raise

    def _start_at(self, row: int) -> None:
        meta = self._file.metadata
        if row >= meta.num_rows:
            raise LookupError("the Parquet file has fewer rows")
        self._group_starts = [0]  # the first row of each row group, and at the end the number of rows
        for i in range(meta.num_row_groups):
            self._group_starts.append(self._group_starts[-1] + meta.row_group(i).num_rows)
        self._kept: deque[tuple[int, pa.Array, int]] = deque()
        self._stream(self._group_of(row))

    def _group_of(self, row: int) -> int:
        return bisect.bisect_right(self._group_starts, row) - 1

    def _stream(self, group: int) -> None:
        """Goes to the start of a row group.

        No batch spans two row groups, so that a damaged one does not affect the rows of another.
        """
        self._group = group
        self._batches = self._file.iter_batches(
            BATCH, row_groups=[group], columns=[self._leaves], use_threads=False
        )
        self.next_row = self._group_starts[group]

    def reaches(self, row: int) -> bool:
        """Whether `row` is among the kept rows or after them."""
        return row >= (self._kept[0][0] if self._kept else self.next_row)

    def value(self, row: int) -> bytes | None:
        """The bytes in `row`; `reaches(row)` must be true."""
        if row >= self._group_starts[-1]:
            raise LookupError("the Parquet file has fewer rows")
        if self._group_of(row) > self._group + 1:  # far ahead: skip the row groups between
            self._kept.clear()
            self._stream(self._group_of(row))
        while row >= self.next_row:
            if self.next_row == self._group_starts[self._group + 1]:
                self._stream(self._group_of(self.next_row))
            array = next(self._batches).column(0)
            if not _is_list(array.type):
                for name in self._fields[1:]:
                    array = pc.struct_field(array, name)
            self._kept.append((self.next_row, array, array.nbytes))
            self.next_row += len(array)
            while len(self._kept) > 1 and (
                len(self._kept) > KEPT_BATCHES or sum(size for *_, size in self._kept) > KEPT_BYTES
            ):
                self._kept.popleft()
        start, array, _ = next(k for k in reversed(self._kept) if k[0] <= row)
        cell = array[row - start]
        if _is_list(array.type):
            return self._first_of(cell)
        value: bytes | None = cell.as_py()
        return value

    def _first_of(self, cell: pa.ListScalar) -> bytes | None:
        """The first image of a list that has bytes, which is the one that `ingest` took."""
        for item in cell if cell.is_valid else ():
            for name in self._fields[1:]:
                item = item[name] if item.is_valid else item
            data = item.as_py()
            if isinstance(data, bytes):
                return data
        return None

    def close(self) -> None:
        self._file.close()


def _fields(schema: pa.Schema, column: str) -> list[str]:
    """The path of fields from the column down to the bytes, for instance ["image", "bytes"].

    For the struct {bytes, path} that `datasets` writes, the name of the column is enough. A list of images
    has the path of its items.
    """
    names = [column] if column in schema.names else column.split(".")
    if names[0] not in schema.names:
        raise LookupError("the Parquet file has no such column")
    kind = schema.field(names[0]).type
    if _is_list(kind):
        kind = kind.value_type
    for name in names[1:]:
        if not pa.types.is_struct(kind) or kind.get_field_index(name) < 0:
            raise LookupError("the Parquet file has no such column")
        kind = kind.field(name).type
    if pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0:
        names, kind = [*names, "bytes"], kind.field("bytes").type
    is_bytes = (
        pa.types.is_binary,
        pa.types.is_large_binary,
        pa.types.is_binary_view,
        pa.types.is_fixed_size_binary,
    )
    if not any(test(kind) for test in is_bytes):
        raise LookupError("the column of the Parquet file does not hold bytes")
    return names


def _is_list(kind: pa.DataType) -> bool:
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind))
