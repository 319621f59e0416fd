"""What readers of tables give: rows, rows that cannot be read, images, and the error of a whole source."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ..common.errors import PincaptionError

CHUNK = 5000  # rows that a reader gives at a time
MAX_LINE = 32 * 1024 * 1024  # bytes or characters; a longer line or cell makes a BadRow
EXCERPT = 2000  # characters of a row that a BadRow carries at most


class SourceError(PincaptionError):
    """A source that cannot be read at all. The message names it and says what to do."""


class EmptySource(SourceError):
    """A source with nothing in it, not even the names of columns."""

    def __init__(self, source: str):
        super().__init__(f"{'standard input' if source == '-' else source} is empty")


@dataclass(slots=True)
class Rows:
    """Rows of one source that have the same fields, column by column."""

    source: str
    lines: Sequence[int]  # the line on which each row begins, from 1; in Parquet and JSON arrays its number
    columns: dict[str, list[Any]]  # field -> a value for each row, for the fields that these rows have


@dataclass(slots=True)
class BadRow:
    """A row that cannot be used, why, and the start of what it holds."""

    source: str
    line: int | None
    reason: str
    content: str


@dataclass(slots=True)
class ImageBytes:
    """An image in a column of a Parquet file: where it is, and its bytes."""

    path: str
    column: str
    row: int  # from 0
    data: bytes


@dataclass(slots=True)
class Unreadable:
    """Stands in a column for a value that cannot be read."""

    reason: str


def is_missing(value: Any) -> bool:
    """True for None, NaN and empty text."""
    return value is None or value == "" or (isinstance(value, float) and math.isnan(value))
