"""A row of a table as its reader gives it, the rows that cannot be read, and the errors of a source."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ..common.errors import PincaptionError


class SourceError(PincaptionError):
    """A source that cannot be read at all; the message names it and the mend."""


@dataclass(slots=True)
class Rows:
    """Rows of one source that have the same fields, column by column."""

    source: str
    lines: Sequence[int]  # where each row begins, from 1; in Parquet and JSON arrays the row's number
    columns: dict[str, list[Any]]  # field -> a value for each row, for the fields that these rows have


@dataclass(slots=True)
class BadRow:
    source: str
    line: int | None
    reason: str
    content: str


@dataclass(slots=True)
class ImageBytes:
    """An image held in a Parquet column: where it stands, and its bytes."""

    path: str
    column: str
    row: int
    data: bytes


@dataclass(slots=True)
class Unreadable:
    """Stands for a value that cannot be had."""

    reason: str


def is_missing(value: Any) -> bool:
    """None, NaN and empty text."""
    return value is None or value == "" or (isinstance(value, float) and math.isnan(value))
