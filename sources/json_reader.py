"""Reads JSON Lines, and files that are one array of objects."""

from __future__ import annotations

import codecs
import itertools
import json
import re
from collections.abc import Iterator
from typing import IO, Any

from .columns import Wanted
from .locations import open_source
from .rows import CHUNK, EXCERPT, MAX_LINE, BadRow, Rows

_BYTES_AT_ONCE = 1 << 20  # read at a time of an array
_BETWEEN_VALUES = re.compile(r"[\s,]*")


def column_names(source: str) -> None:
    """JSON has no header: every object names its own fields."""


def read_rows(source: str, wanted: Wanted) -> Iterator[Rows | BadRow]:
    """The rows of a JSON table in order. Neighbours that have the same fields come together."""
    columns = {field: wanted.column_of(field) for field in wanted.fields}
    with open_source(source) as raw:
        values = _values(source, raw)
        while chunk := list(itertools.islice(values, CHUNK)):
            rows: list[tuple[int, dict[str, Any]]] = []
            for number, value in chunk:
                if isinstance(value, dict):
                    rows.append((number, {f: value[c] for f, c in columns.items() if c in value}))
                elif isinstance(value, BadRow):
                    yield value
                else:
                    yield BadRow(source, number, "not a JSON object", str(value)[:EXCERPT])
            # Rows are not sorted by their fields: if a pin comes twice, its last row counts.
            for fields, group in itertools.groupby(rows, key=lambda row: tuple(row[1])):
                numbers, objects = zip(*group, strict=True)
                yield Rows(source, numbers, {field: [obj[field] for obj in objects] for field in fields})


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
            yield number, json.loads(line.decode())
        except UnicodeDecodeError:
            yield number, BadRow(source, number, "not valid UTF-8", _start_of(line))
        except (ValueError, RecursionError):
            yield number, BadRow(source, number, "not valid JSON", _start_of(line))


def _start_of(line: bytes) -> str:
    return line[:EXCERPT].decode(errors="replace")


def _values_of_array(source: str, first_line: bytes, raw: IO[bytes]) -> Iterator[tuple[int, Any]]:
    """(number, value) for each value of one JSON array, which is never in memory as a whole."""
    decode = codecs.getincrementaldecoder("utf-8")("surrogateescape").decode
    decoder = json.JSONDecoder()
    text = decode(first_line)
    at, number = text.index("[") + 1, 0
    while True:
        between = _BETWEEN_VALUES.match(text, at)
        at = between.end() if between else at
        if text[at : at + 1] == "]":
            return
        try:
            value, end = decoder.raw_decode(text, at)
            complete = end < len(text)  # a number at the end of the text may have more digits
        except (ValueError, RecursionError):
            complete = False
        if complete:
            at, number = end, number + 1
            yield number, value
            continue
        more = decode(raw.read(_BYTES_AT_ONCE))
        if not more or len(text) - at > MAX_LINE:
            reason = "not valid JSON; nothing after it was read"
            yield number + 1, BadRow(source, number + 1, reason, text[at : at + EXCERPT])
            return
        text, at = text[at:] + more, 0
