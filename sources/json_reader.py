"""Reads JSON Lines, and files that are one array of objects."""

from __future__ import annotations

import codecs
import io
import itertools
import json
import re
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any

from .columns import ColumnsRead, Wanted
from .encodings import as_utf_8
from .json_shape import check_shape
from .locations import open_source
from .names import find_columns
from .rows import CHUNK, EXCERPT, MAX_LINE, BadRow, EmptySource, Rows, SourceError

_BYTES_AT_ONCE = 1 << 20  # read at a time of an array
_BETWEEN_VALUES = re.compile(r"[\s,]*")
_OF_NO_VALUE = b"[] \t\r\n" + codecs.BOM_UTF8
MAX_KEYS = 2000  # different keys and sets of keys that are remembered of a source


def column_names(source: str, wanted: Wanted) -> None:
    """JSON has no header: every object names its own fields. Raises SourceError if lines are no rows."""
    with _open(source, wanted) as raw:
        if not raw.peek(_BYTES_AT_ONCE).strip(_OF_NO_VALUE) and next(_values(source, raw), None) is None:
            raise EmptySource(source)


def read_rows(source: str, wanted: Wanted) -> Iterator[Rows | BadRow | ColumnsRead]:
    """The rows of a JSON table in order. Neighbours that have the same fields come together."""
    keys = _Keys(wanted)
    with _open(source, wanted) as raw:
        values = _values(source, raw)
        while chunk := list(itertools.islice(values, CHUNK)):
            rows: list[tuple[int, dict[str, Any]]] = []
            for number, value in chunk:
                if isinstance(value, dict):
                    fields = keys.fields_of(value)
                    if isinstance(fields, str):
                        yield BadRow(source, number, fields, _as_text(value))
                    else:
                        rows.append((number, {field: value[key] for field, key in fields}))
                elif isinstance(value, BadRow):
                    yield value
                else:
                    yield BadRow(source, number, "not a JSON object", str(value)[:EXCERPT])
            # Rows are not sorted by their fields: if a pin comes twice, its last row counts.
            for fields_of_rows, group in itertools.groupby(rows, key=lambda row: tuple(row[1])):
                numbers, objects = zip(*group, strict=True)
                yield Rows(source, numbers, {name: [obj[name] for obj in objects] for name in fields_of_rows})
    yield keys.read(source)


@contextmanager
def _open(source: str, wanted: Wanted) -> Iterator[io.BufferedReader]:
    if wanted.read_as.names:
        raise SourceError(f"{source} is JSON, whose rows name their fields: --columns is for CSV and TSV")
    with open_source(source) as raw:
        text = as_utf_8(raw, wanted.read_as.encoding)
        check_shape(source, text.peek(_BYTES_AT_ONCE), wanted)
        yield text


def read_values(source: str) -> Iterator[tuple[int, Any]]:
    """(number, value or BadRow) of each value of a JSON file: an array or JSON Lines. Raises SourceError."""
    with open_source(source) as raw:
        yield from _values(source, as_utf_8(raw, None))


def _as_text(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)[:EXCERPT]


class _Object(dict[str, Any]):
    """A JSON object that has a key twice."""

    twice: frozenset[str] = frozenset()


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object of its pairs. `json` itself would keep the last of two values of a key in silence."""
    made = dict(pairs)
    if len(made) == len(pairs):
        return made
    counts = Counter(key for key, _ in pairs)
    repeated = _Object(made)
    repeated.twice = frozenset(key for key, n in counts.items() if n > 1)
    return repeated


_DECODER = json.JSONDecoder(object_pairs_hook=_object)


class _Keys:
    """Which keys of the objects of a source are which fields."""

    def __init__(self, wanted: Wanted):
        self._wanted = wanted
        self._columns = {field: wanted.column_of(field) for field in wanted.fields}
        self._known: dict[tuple[str, ...], list[tuple[str, str]] | str] = {}
        self._used: dict[str, str] = {}  # field -> key
        self._used_keys = set[str]()  # in all their spellings
        self._seen: dict[str, None] = {}  # keys, as an ordered set
        self._lists: dict[str, None] = {}  # keys that hold lists of objects

    def fields_of(self, value: dict[str, Any]) -> list[tuple[str, str]] | str:
        """(field, key) of an object, or why it is refused."""
        names = tuple(value)
        fields = self._known.get(names)
        if fields is None:
            fields = self._match(names, value)
            if len(self._known) < MAX_KEYS:
                self._known[names] = fields
        if isinstance(value, _Object) and not isinstance(fields, str):
            for _, key in fields:
                if key in value.twice:
                    return f"the key {key[:60]!r} occurs twice"
        return fields

    def _match(self, names: tuple[str, ...], value: dict[str, Any]) -> list[tuple[str, str]] | str:
        found = find_columns(self._columns, names)
        for field, keys in found.items():
            if len(keys) > 1:
                return f"several keys are {field}: they differ only by case or blanks"
        fields = [(field, keys[0]) for field, keys in found.items() if keys]
        if len(self._seen) < MAX_KEYS:
            self._seen.update(dict.fromkeys(names))
        self._used.update({field: key for field, key in fields if field not in self._used})
        if len(self._used_keys) < MAX_KEYS:
            self._used_keys.update(key for _, key in fields)
        of_required = {name for group in self._wanted.required for name in group.split("|")}
        if not of_required & {field for field, _ in fields}:
            for key, cell in value.items():
                if isinstance(cell, list) and cell and isinstance(cell[0], dict) and len(self._lists) < 5:
                    self._lists[key] = None
        return fields

    def read(self, source: str) -> ColumnsRead:
        """What became of the keys, once all rows were read."""
        folders = self._wanted.not_in_file(self._wanted.of_folders(source), self._used)
        ignored = [key for key in self._seen if key not in self._used_keys]
        ignored += self._wanted.ignored_folders(source, self._used.keys() | folders.keys())
        return ColumnsRead(source, self._used, folders, ignored, list(self._seen), lists=list(self._lists))


def _values(source: str, raw: IO[bytes]) -> Iterator[tuple[int, Any]]:
    """(line, value or BadRow) of JSON Lines; (number, value or BadRow) of a file that is one array."""
    number = 0
    while line := raw.readline(MAX_LINE):
        number += 1
        if number == 1:
            line = line.removeprefix(codecs.BOM_UTF8)
            if line.lstrip().startswith(b"["):
                yield from _values_of_array(source, line, raw)
                return
        if len(line) == MAX_LINE and not line.endswith(b"\n"):
            while (rest := raw.readline(MAX_LINE)) and not rest.endswith(b"\n"):
                pass
            yield number, BadRow(source, number, "the line is too long", _start_of(line))
            continue
        if not line.strip():
            continue
        try:
            yield number, _DECODER.decode(line.decode())
        except UnicodeDecodeError:
            yield number, BadRow(source, number, "not valid UTF-8", _start_of(line))
        except (ValueError, RecursionError):
            yield number, BadRow(source, number, "not valid JSON", _start_of(line))


def _start_of(line: bytes) -> str:
    return line[:EXCERPT].decode(errors="replace")


def _values_of_array(source: str, first_line: bytes, raw: IO[bytes]) -> Iterator[tuple[int, Any]]:
    """(number, value) for each value of JSON arrays, which are never in memory as a whole.

    As a rule that is one array. Pages that were appended to one file are several, one after the other.
    """
    decode = codecs.getincrementaldecoder("utf-8")("surrogateescape").decode
    text = decode(first_line)
    at, number, within = text.index("[") + 1, 0, True
    while True:
        between = _BETWEEN_VALUES.match(text, at)
        at = between.end() if between else at
        mark = text[at : at + 1]
        if mark and mark == ("]" if within else "["):
            at, within = at + 1, not within
            continue
        complete = False
        if mark and within:
            try:
                value, end = _DECODER.raw_decode(text, at)
                complete = end < len(text)  # a number at the end of the text may have more digits
            except (ValueError, RecursionError):
                pass
        if complete:
            at, number = end, number + 1
            yield number, value
            continue
        more = decode(raw.read(_BYTES_AT_ONCE))
        if not more and not mark and not within:
            return
        if not more or (mark and not within) or len(text) - at > MAX_LINE:
            reason = "not valid JSON; nothing after it was read"
            yield number + 1, BadRow(source, number + 1, reason, text[at : at + EXCERPT])
            return
        text, at = text[at:] + more, 0
