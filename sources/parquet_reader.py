"""Reads Parquet files of any writer."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .cells import TOO_LARGE_FLOAT
from .columns import ColumnsRead, Wanted
from .rows import CHUNK, BadRow, ImageBytes, Rows, SourceError, Unreadable

CHUNK_OF_IMAGES = 16  # rows at a time where a column holds images
_IDS = ("item", "rater")  # fields that are ids without a name that says so


def column_names(source: str, wanted: Wanted) -> list[str]:
    _check_options(source, wanted)
    with _open(source) as file:
        return list(file.schema_arrow.names)


def read_rows(source: str, wanted: Wanted) -> Iterator[Rows | BadRow | ColumnsRead]:
    """The rows of a Parquet file in order; only the columns of wanted fields are read.

    A field "image" whose column holds bytes comes as `ImageBytes`, or as a list of these; a field "vector"
    comes as NumPy arrays, and an id that is bytes stays bytes.
    """
    _check_options(source, wanted)
    with _open(source) as file:
        schema = file.schema_arrow
        matched = wanted.match(source, schema.names)
        yield matched
        columns = matched.columns
        has_images = "image" in columns and _holds_bytes(
            _item_type(schema.field(schema.names.index(columns["image"])).type)
        )
        first_row = 0
        for batch in file.iter_batches(
            CHUNK_OF_IMAGES if has_images else CHUNK, columns=list(dict.fromkeys(columns.values()))
        ):
            values = {}
            for field, column in columns.items():
                array = batch.column(batch.schema.names.index(column))
                if field == "image" and has_images:
                    values[field] = _images(source, column, first_row, array)
                elif field == "vector":
                    values[field] = _vectors(array)
                else:
                    is_id = field.endswith("_id")
                    values[field] = _values(array, decode=not is_id)
                    if is_id or field in _IDS:
                        values[field] = _exact(array.type, values[field])
            yield Rows(source, range(first_row + 1, first_row + 1 + batch.num_rows), values)
            first_row += batch.num_rows


def _check_options(source: str, wanted: Wanted) -> None:
    if source == "-":
        raise SourceError("Parquet cannot be read from standard input: name a file")
    if wanted.read_as.names:
        raise SourceError(f"{source} is Parquet, which names its columns: --columns is for CSV and TSV")
    if wanted.read_as.encoding:
        raise SourceError(f"{source} is Parquet, whose text is UTF-8: --encoding is for CSV and JSON")


@contextmanager
def _open(source: str) -> Iterator[Any]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(source, pre_buffer=False, buffer_size=1 << 20) as file:
            yield file
    except pa.ArrowException as error:
        raise SourceError(
            f"{source} is not a Parquet file that can be read: {str(error).splitlines()[0]}"
        ) from error


def _holds_bytes(kind: Any) -> bool:
    """Whether a type of Arrow is bytes, a dictionary of bytes, or the struct {bytes, path} of `datasets`."""
    import pyarrow.types as types

    if types.is_dictionary(kind):
        return _holds_bytes(kind.value_type)
    if types.is_struct(kind):
        return kind.get_field_index("bytes") >= 0 and _holds_bytes(kind.field("bytes").type)
    return bool(
        types.is_binary(kind)
        or types.is_large_binary(kind)
        or types.is_binary_view(kind)
        or types.is_fixed_size_binary(kind)
    )


def _item_type(kind: Any) -> Any:
    """The type of the items of a list; every other type as it is."""
    import pyarrow.types as types

    is_list = types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind)
    return kind.value_type if is_list else kind


def _images(source: str, column: str, first_row: int, array: Any) -> list[Any]:
    path = str(Path(source).absolute())

    def image(cell: Any, row: int) -> ImageBytes | str | None:
        in_struct = isinstance(cell, dict)
        data = cell.get("bytes") if in_struct else cell
        if isinstance(data, bytes):
            return ImageBytes(path, f"{column}.bytes" if in_struct else column, row, data)
        # `datasets` writes {"bytes": null, "path": ...} for images that stay outside of the file
        return cell.get("path") if in_struct else None

    return [
        [image(item, row) for item in cell] if isinstance(cell, list) else image(cell, row)
        for row, cell in enumerate(array.to_pylist(), first_row)
    ]


def _vectors(array: Any) -> list[Any]:
    """Lists of numbers as NumPy arrays. No Python object is made for a single number."""
    import pyarrow.types as types

    kind = array.type
    if not (types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind)) or not (
        types.is_floating(kind.value_type) or types.is_integer(kind.value_type)
    ):
        return _values(array)
    numbers = array.values.to_numpy(zero_copy_only=False)  # a null among them becomes NaN
    if types.is_fixed_size_list(kind):
        ends = [(array.offset + i) * kind.list_size for i in range(len(array) + 1)]
    else:
        ends = array.offsets.to_pylist()
    present = array.is_valid().to_pylist()
    return [
        numbers[start:end] if there else None
        for start, end, there in zip(ends, ends[1:], present, strict=False)
    ]


def _values(array: Any, decode: bool = True) -> list[Any]:
    """Python values of a column; `Unreadable` where a cell has none. `decode` makes text of bytes."""
    import pyarrow as pa

    if pa.types.is_timestamp(array.type):  # to UTC; a time without a zone is taken to be in UTC
        array = array.cast(pa.timestamp("us", array.type.tz), safe=False).cast(pa.timestamp("us"))
    try:
        values = array.to_pylist()
    except (ValueError, OverflowError):  # text that is not UTF-8, or times after the year 9999
        values = [_value(scalar) for scalar in array]
    if decode and _holds_bytes(array.type):  # older writers do not mark text as text
        values = [_decoded(value) for value in values]
    return list(values)


def _exact(kind: Any, values: list[Any]) -> list[Any]:
    """The values of an id; `Unreadable` for those that a short float cannot tell from their neighbours.

    A float16 has 11 binary digits and a float32 has 24. Longer floats are checked where ids are made.
    """
    import pyarrow.types as types

    kind = kind.value_type if types.is_dictionary(kind) else kind
    if not (types.is_float16(kind) or types.is_float32(kind)):
        return values
    most = 2**11 if types.is_float16(kind) else 2**24
    return [
        Unreadable(TOO_LARGE_FLOAT)
        if value is not None and most < abs(value) and math.isfinite(value)
        else value
        for value in values
    ]


def _value(scalar: Any) -> Any:
    try:
        return scalar.as_py()
    except UnicodeDecodeError:
        return Unreadable("not valid UTF-8")
    except (ValueError, OverflowError):
        return Unreadable("a date or time beyond what can be")


def _decoded(value: Any) -> Any:
    try:
        return value.decode() if isinstance(value, bytes) else value
    except UnicodeDecodeError:
        return Unreadable("not valid UTF-8")
