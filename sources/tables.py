"""Tables as people have them: Parquet, CSV, TSV, JSON Lines, all but Parquet also gzipped; globs, folders,
standard input.

`read_tables` streams them, a few thousand rows at a time and column by column, in bounded memory. A row that
cannot be read becomes a `BadRow` with its line and the reason; only a source that cannot be used at all
raises SourceError.
"""

from __future__ import annotations

import codecs
import csv
import glob
import gzip
import io
import itertools
import json
import re
import sys
import zlib
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from .rows import BadRow, ImageBytes, Rows, SourceError, Unreadable

ENDINGS = (".parquet", ".csv", ".tsv", ".jsonl", ".ndjson", ".json")
CHUNK = 5000  # rows at a time
CHUNK_OF_IMAGES = 16  # ... where a column holds images
MAX_LINE = 32 * 1024 * 1024  # bytes or characters; a longer line or cell of text is no row
csv.field_size_limit(MAX_LINE)

_READS = f"captioner reads {', '.join(ENDINGS)}, all but Parquet also as .gz"


def find_sources(sources: Iterable[str]) -> list[str]:
    """The files behind paths, globs and folders, in order and once each; `-` stays as it is.

    Raises SourceError.
    """
    found: dict[str, None] = {}
    for source in sources:
        if source == "-":
            found[source] = None
            continue
        path = Path(source).expanduser()
        if path.is_dir():
            files = sorted(
                str(p)
                for p in path.rglob("*")
                if p.is_file()
                and _ending(p.name)
                and not any(part.endswith(".partials") for part in p.relative_to(path).parts)
            )
            if not files:
                raise SourceError(f"no table below the folder {source}: {_READS}")
        elif path.exists():
            if not _ending(path.name):
                raise SourceError(f"{source} is no table by its name: {_READS}")
            files = [str(path)]
        else:
            files = sorted(
                f for f in glob.glob(str(path), recursive=True) if Path(f).is_file() and _ending(f)
            )
            if not files:
                raise SourceError(f"no such file: {source}")
        found.update(dict.fromkeys(files))
    return list(found)


def check_columns(
    sources: Iterable[str], fields: Sequence[str], columns: Mapping[str, str], required: Sequence[str]
) -> None:
    """Opens every table and looks at its header alone. Raises SourceError as `read_tables` does."""
    for source in find_sources(sources):
        with _plain_errors(source):
            if _ending(source) == "parquet":
                with _parquet(source) as file:
                    _columns_of(source, file.schema_arrow.names, fields, columns, required)
            elif _ending(source) in ("csv", "tsv"):
                with _open(source) as raw:
                    names, _ = _csv_header(source, _Lines(raw))
                    if names:
                        _columns_of(source, names, fields, columns, required)


def read_tables(
    sources: Iterable[str], fields: Sequence[str], columns: Mapping[str, str] | None, required: Sequence[str]
) -> Iterator[Rows | BadRow]:
    """The rows of all `sources`, reading `fields` (from the column named in `columns`, else of the same name;
    None: the command has no --map).

    Raises SourceError for a missing file, a table without the columns of the `required` fields
    ("date|timestamp": one of the two), or a mapped column that is missing; in JSON a mapped column is missing
    if no row of any source has it, which shows at the end.
    """
    readers = {"parquet": _read_parquet, "csv": _read_csv, "tsv": _read_csv}
    unseen, any_row = dict(columns or {}), False
    for source in find_sources(sources):
        with _plain_errors(source):
            for rows in readers.get(_ending(source), _read_json)(source, fields, columns, required):
                if isinstance(rows, Rows):
                    any_row = True
                    unseen = {field: column for field, column in unseen.items() if field not in rows.columns}
                yield rows
    if any_row:
        for field, column in unseen.items():
            raise SourceError(
                f"no row has {column!r} (--map {field}={column}): the rows were read without it"
            )


def _ending(name: str) -> str:
    name = name.lower()
    if name.endswith(".parquet"):
        return "parquet"
    return next((e[1:] for e in ENDINGS[1:] if name.removesuffix(".gz").endswith(e)), "")


@contextmanager
def _plain_errors(source: str) -> Iterator[None]:
    try:
        yield
    except BrokenPipeError:
        raise
    except (OSError, EOFError, zlib.error) as error:
        raise SourceError(
            f"{source} cannot be read: {getattr(error, 'strerror', None) or str(error).partition(chr(10))[0]}"
        ) from error


@contextmanager
def _open(source: str) -> Iterator[IO[bytes]]:
    if source == "-":
        yield sys.stdin.buffer
        return
    with open(source, "rb") as file:
        # by content, not by name: browsers unpack .gz and keep the name
        packed = file.peek(2)[:2] == b"\x1f\x8b"
        yield gzip.GzipFile(fileobj=file) if packed else file  # type: ignore[misc]


def _columns_of(
    source: str,
    names: Sequence[str],
    fields: Sequence[str],
    columns: Mapping[str, str] | None,
    required: Sequence[str],
) -> dict[str, str]:
    """field -> column for the fields that this table has."""
    mend = "; say which one it is with --map {0}=COLUMN" if columns is not None else ""
    columns = columns or {}
    for field, column in columns.items():
        if column not in names:
            raise SourceError(
                f"{source} has no column {column!r} (--map {field}={column}); its columns: {', '.join(names)}"
            )
    taken = {field: columns.get(field, field) for field in fields if columns.get(field, field) in names}
    for field in required:
        if not taken.keys() & set(field.split("|")):
            field = field.partition("|")[0]
            raise SourceError(
                f"{source} has no column {field!r}{mend.format(field)}; its columns: {', '.join(names)}"
            )
    return taken


class _TooLong(Exception):
    """A line of text that is longer than MAX_LINE."""


class _Lines:
    """The lines of a text for csv.reader. `taken` are those of the row in hand; they can be given back.

    Bytes that are no UTF-8 become lone surrogates, so that they spoil a cell, not the file.
    """

    def __init__(self, raw: IO[bytes]):
        self._text = io.TextIOWrapper(raw, encoding="utf-8-sig", errors="surrogateescape", newline="")
        self._again: deque[str] = deque()
        self.taken: list[str] = []
        self.number = 0  # of lines read
        self.again_until = 0  # the last line that was given back
        self.ended = False

    def __iter__(self) -> _Lines:
        return self

    def __next__(self) -> str:
        line = self._again.popleft() if self._again else self._text.readline(MAX_LINE)
        if not line:
            self.ended = True
            raise StopIteration
        self.number += 1
        self.taken.append(line)
        if len(line) == MAX_LINE and line[-1] not in "\r\n":
            while (rest := self._text.readline(MAX_LINE)) and rest[-1] not in "\r\n":
                pass
            raise _TooLong
        return line

    def give_back(self, keep: int) -> None:
        """Takes only the first `keep` lines of the row in hand as read."""
        self.again_until, self.number = self.number, self.number - len(self.taken) + keep
        self._again.extendleft(reversed(self.taken[keep:]))
        self.ended = False
        del self.taken[keep:]


def _csv_header(source: str, lines: _Lines) -> tuple[list[str], str]:
    """The names of the columns and the delimiter; no names if the file is empty."""
    try:
        first = ""
        while not first.strip() and not lines.ended:
            lines.taken.clear()
            first = next(lines, "")
    except _TooLong:
        raise SourceError(
            f"{source} has a first line of more than {MAX_LINE:,} characters: is it a CSV file?"
        ) from None
    if first.startswith(("\udcff\udcfe", "\udcfe\udcff")):
        raise SourceError(f"{source} is in UTF-16: save it as CSV in UTF-8")
    # Spreadsheets of many countries write semicolons.
    delimiter = "\t" if _ending(source) == "tsv" else max(",;\t", key=first.count)
    lines.give_back(0)
    try:
        names = [name.strip() for name in next(csv.reader(lines, delimiter=delimiter), [])]
    except (csv.Error, _TooLong):
        lines.ended = True
    if first.strip() and lines.ended:
        raise SourceError(f"{source} has a header in which a quote is never closed")
    return names, delimiter


def _read_csv(
    source: str, fields: Sequence[str], columns: Mapping[str, str] | None, required: Sequence[str]
) -> Iterator[Rows | BadRow]:
    with _open(source) as raw:
        lines = _Lines(raw)
        names, delimiter = _csv_header(source, lines)
        if not names:
            return
        taken = {
            field: names.index(column)
            for field, column in _columns_of(source, names, fields, columns, required).items()
        }
        cells: list[list[str]] = []
        numbers: list[int] = []
        for number, row in _csv_rows(source, lines, delimiter, len(names)):
            if isinstance(row, BadRow):
                yield row
                continue
            cells.append(row)
            numbers.append(number)
            if len(cells) == CHUNK:
                yield Rows(source, numbers, {field: [row[i] for row in cells] for field, i in taken.items()})
                cells, numbers = [], []
        if cells:
            yield Rows(source, numbers, {field: [row[i] for row in cells] for field, i in taken.items()})


def _csv_rows(
    source: str, lines: _Lines, delimiter: str, width: int
) -> Iterator[tuple[int, list[str] | BadRow]]:
    """(line, cells) of each row.

    A quote that is never closed costs its own line, not the rest of the file.
    """
    reader = csv.reader(lines, delimiter=delimiter)
    while True:
        lines.taken.clear()
        number = lines.number + 1
        try:
            cells = next(reader)
            reason = "a quote is never closed" if lines.ended else ""
        except StopIteration:
            return
        except csv.Error:
            reason = "a cell is too long, or a quote is never closed"
        except _TooLong:
            yield number, BadRow(source, number, "the line is too long", lines.taken[0][:2000])
            continue
        if reason:
            lines.give_back(1)
        elif not cells:
            continue
        elif len(cells) > width:
            reason = "more cells than the header has columns"
        elif len(cells) < width and number <= lines.again_until:
            # perhaps the rest of the cell that was not closed
            reason = "too few cells, after a quote that is never closed"
        yield (
            number,
            BadRow(source, number, reason, "".join(lines.taken)[:2000])
            if reason
            else cells + [""] * (width - len(cells)),
        )


def _read_json(
    source: str, fields: Sequence[str], columns: Mapping[str, str] | None, required: Sequence[str]
) -> Iterator[Rows | BadRow]:
    taken = {field: (columns or {}).get(field, field) for field in fields}
    with _open(source) as raw:
        found = _json_values(source, raw)
        while chunk := list(itertools.islice(found, CHUNK)):
            rows: list[tuple[int, dict[str, Any]]] = []
            for number, value in chunk:
                if isinstance(value, dict):
                    rows.append((number, {f: value[c] for f, c in taken.items() if c in value}))
                else:
                    yield (
                        value
                        if isinstance(value, BadRow)
                        else BadRow(source, number, "not a JSON object", str(value)[:2000])
                    )
            # Rows stay in order: if a pin comes twice, the last one counts.
            for same_fields, group in itertools.groupby(rows, key=lambda row: tuple(row[1])):
                numbers, values = zip(*group, strict=True)
                yield Rows(source, numbers, {field: [v[field] for v in values] for field in same_fields})


def _json_values(source: str, raw: IO[bytes]) -> Iterator[tuple[int, Any]]:
    """(line, value or BadRow) of JSON Lines, (number, value) of a file that is one array."""
    number = 0
    while line := raw.readline(MAX_LINE):
        number += 1
        if number == 1:
            line = line.removeprefix(b"\xef\xbb\xbf")
            if line.lstrip().startswith(b"["):
                yield from _json_array(source, line, raw)
                return
        if len(line) == MAX_LINE and not line.endswith(b"\n"):
            while (rest := raw.readline(MAX_LINE)) and not rest.endswith(b"\n"):
                pass
            yield number, BadRow(source, number, "the line is too long", line[:2000].decode(errors="replace"))
            continue
        if not line.strip():
            continue
        try:
            yield number, json.loads(line.decode())
        except UnicodeDecodeError:
            yield number, BadRow(source, number, "not valid UTF-8", line[:2000].decode(errors="replace"))
        except (ValueError, RecursionError):
            yield number, BadRow(source, number, "not valid JSON", line[:2000].decode(errors="replace"))


def _json_array(source: str, first: bytes, raw: IO[bytes]) -> Iterator[tuple[int, Any]]:
    """The values of one JSON array, without ever holding all of it."""
    decode = codecs.getincrementaldecoder("utf-8")("surrogateescape").decode
    decoder, between = json.JSONDecoder(), re.compile(r"[\s,]*")
    text = decode(first)
    at, number = text.index("[") + 1, 0
    while True:
        at = _end(between, text, at)
        if text[at : at + 1] == "]":
            return
        try:
            value, end = decoder.raw_decode(text, at)
            complete = end < len(text)  # a number that ends with the text may go on
        except (ValueError, RecursionError):
            complete = False
        if complete:
            at, number = end, number + 1
            yield number, value
            continue
        more = decode(raw.read(1 << 20))
        if not more or len(text) - at > MAX_LINE:
            yield (
                number + 1,
                BadRow(source, number + 1, "not valid JSON; nothing after it was read", text[at : at + 2000]),
            )
            return
        text, at = text[at:] + more, 0


def _end(pattern: re.Pattern[str], text: str, at: int) -> int:
    match = pattern.match(text, at)
    return match.end() if match else at


@contextmanager
def _parquet(source: str) -> Iterator[Any]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(source, pre_buffer=False, buffer_size=1 << 20) as file:
            yield file
    except pa.ArrowException as error:
        raise SourceError(
            f"{source} is not a Parquet file that can be read: {str(error).splitlines()[0]}"
        ) from error


def _read_parquet(
    source: str, fields: Sequence[str], columns: Mapping[str, str] | None, required: Sequence[str]
) -> Iterator[Rows | BadRow]:
    with _parquet(source) as file:
        schema = file.schema_arrow
        taken = _columns_of(source, schema.names, fields, columns, required)
        of_images = "image" in taken and _holds_bytes(schema.field(schema.names.index(taken["image"])).type)
        first = 0
        for batch in file.iter_batches(
            CHUNK_OF_IMAGES if of_images else CHUNK, columns=list(dict.fromkeys(taken.values()))
        ):
            arrays = {
                field: batch.column(batch.schema.names.index(column)) for field, column in taken.items()
            }
            values = {
                field: _images(source, taken[field], first, array)
                if field == "image" and of_images
                else _vectors(array)
                if field == "vector"
                else _values(array)
                for field, array in arrays.items()
            }
            yield Rows(source, range(first + 1, first + 1 + batch.num_rows), values)
            first += batch.num_rows


def _holds_bytes(kind: Any) -> bool:
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


def _images(source: str, column: str, first_row: int, array: Any) -> list[Any]:
    found: list[Any] = []
    path = str(Path(source).absolute())
    for i, cell in enumerate(array.to_pylist()):
        within = isinstance(cell, dict)
        data = cell.get("bytes") if within else cell
        if isinstance(data, bytes):
            found.append(ImageBytes(path, f"{column}.bytes" if within else column, first_row + i, data))
        else:  # `datasets` writes {"bytes": null, "path": ...} for images that stay outside
            found.append(cell.get("path") if within else None)
    return found


def _vectors(array: Any) -> list[Any]:
    """Lists of numbers as NumPy arrays, without ever making a Python object of each number."""
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


def _values(array: Any) -> list[Any]:
    import pyarrow as pa

    if pa.types.is_timestamp(array.type):  # in UTC; without a zone it is taken for UTC
        array = array.cast(pa.timestamp("us", array.type.tz), safe=False).cast(pa.timestamp("us"))
    try:
        values = array.to_pylist()
    except (ValueError, OverflowError):  # text that is no UTF-8, moments beyond the year 9999
        values = [_value(scalar) for scalar in array]
    if _holds_bytes(array.type):  # older writers do not mark text as text
        values = [_decoded(value) for value in values]
    return list(values)


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
