"""Turns single values of a table into what the store keeps: text, ids, dates and times."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from datetime import UTC, date, datetime
from decimal import Decimal
from email.utils import parsedate_to_datetime
from typing import Any

from ..common.errors import PincaptionError
from .rows import Unreadable, is_missing

MAX_ID = 4096  # characters, as many as a path may have
EXACT_FLOATS = 2**53  # above it a float no longer tells neighbouring whole numbers apart
# A number above it is in milliseconds: in seconds it would be after the year 5138.
MAX_SECONDS = 10**11


class RowError(PincaptionError):
    """Why a value, and with it its row, is rejected. The message is one of few, so that it can be counted."""


def convert_column(
    convert: Callable[[Any], Any], values: Sequence[Any], reasons: dict[int, str]
) -> list[Any]:
    """`convert` of each value. Where it raises RowError, the message goes to `reasons` by the row's index."""
    converted = []
    for i, value in enumerate(values):
        try:
            converted.append(convert(value))
        except RowError as error:
            converted.append(None)
            reasons.setdefault(i, str(error))
    return converted


def text_column(name: str, values: Sequence[Any], reasons: dict[int, str]) -> list[str | None]:
    """`text_of` of each value of the column `name`; reasons as for `convert_column`.

    A column of clean texts, as most are, is checked at once and not value by value.
    """
    if {*map(type, values)} <= {str, type(None)}:
        together = "".join(filter(None, values))
        if "\0" not in together and is_unicode(together):
            return [value or None for value in values]
    return convert_column(lambda value: text_of(name, value), values, reasons)


def text_of(name: str, value: Any) -> str | None:
    """A text or a number as text without NUL characters; None if it is missing. Raises RowError."""
    if type(value) is str and value.isascii() and "\0" not in value:
        return value or None
    if is_missing(value):
        return None
    if isinstance(value, Unreadable):
        raise RowError(value.reason)
    if isinstance(value, (int, float, Decimal)) and not isinstance(value, bool):
        value = str(value)
    if not isinstance(value, str):
        raise RowError(f"{name} is not text")
    if not is_unicode(value):
        raise RowError("not valid UTF-8")
    return value.replace("\0", "") or None


def is_unicode(text: str) -> bool:
    """False for text with lone surrogates, which is how Python holds bytes that are not UTF-8."""
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def identifier(value: Any, name: str = "pin_id") -> str:
    """An id as text. Text stays as it is; 7 and 7.0 are both "7". Raises RowError."""
    if isinstance(value, (float, Decimal)) and not is_missing(value):
        # pandas turns whole numbers with gaps into floats, and databases export them as decimals.
        if not math.isfinite(value) or value != int(value):
            raise RowError(f"{name} is neither text nor a whole number")
        if isinstance(value, float) and abs(value) > EXACT_FLOATS:
            raise RowError(f"{name} is a float too large to be exact: write it as text")
        value = int(value)
    text = text_of(name, value)
    if text is None or not text.strip():
        raise RowError(f"no {name}")
    if len(text) > MAX_ID:
        raise RowError(f"{name} is longer than {MAX_ID} characters")
    return text


def moment(value: Any, name: str = "created_at") -> str | None:
    """A time as ISO 8601 text in UTC ("2024-05-31T12:00:00Z"), a date as "2024-05-31"; None if missing.

    Read are ISO 8601, what mail and HTTP write ("Sun, 04 Apr 2021 05:43:58 +0000"), the number of a day
    (20240531), and seconds or milliseconds since 1970. A time without a zone is taken to be in UTC. Raises
    RowError.
    """
    if is_missing(value):
        return None
    if isinstance(value, Unreadable):
        raise RowError(value.reason)
    try:
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if isinstance(value, int) and 19000101 <= value <= 21001231:
            value = str(value)  # a day as databases write it, and no second of the year 1970
        if isinstance(value, str) and value.strip().isdecimal() and len(value.strip()) > len("20240531"):
            value = int(value)
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            value = datetime.fromtimestamp(value / 1000 if abs(value) > MAX_SECONDS else value, UTC)
        if isinstance(value, str):
            text = value.strip().removesuffix(" UTC")
            if text[:3].isalpha():
                value = parsedate_to_datetime(text)
            else:
                value = date.fromisoformat(text) if len(text) <= 10 else datetime.fromisoformat(text)
        if isinstance(value, datetime):
            return (value.astimezone(UTC) if value.tzinfo else value).replace(tzinfo=None).isoformat() + "Z"
        if isinstance(value, date):
            return value.isoformat()
    except (ValueError, OverflowError, OSError):
        pass
    raise RowError(f"{name} is no date or time such as 2024-05-31T12:00:00Z")
