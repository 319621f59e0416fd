"""Single values of a table as people have them, made into what the store keeps; and how a row that is none is
kept.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Sequence
from datetime import UTC, date, datetime
from decimal import Decimal
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any

from ..common.errors import PincaptionError
from ..common.redact import redact_credentials
from .rows import Unreadable, is_missing

MAX_ID = 4096  # characters, as many as a path may have
_TELEPHONE = re.compile(r"(?:\+?\d[\s()./-]{0,3}){9,}")


class RowError(PincaptionError):
    """Why a row is rejected: a short text of few kinds, to be counted."""


def cells(convert: Callable[[Any], Any], values: Sequence[Any], reasons: dict[int, str]) -> list[Any]:
    """`convert` for each value; why it refuses some goes to `reasons`, by row."""
    converted = []
    for i, value in enumerate(values):
        try:
            converted.append(convert(value))
        except RowError as error:
            converted.append(None)
            reasons.setdefault(i, str(error))
    return converted


def texts(name: str, values: Sequence[Any], reasons: dict[int, str]) -> list[Any]:
    """`text_of` for each value; most columns need no look at single ones."""
    if {*map(type, values)} <= {str, type(None)}:
        together = "".join(filter(None, values))
        if "\0" not in together and is_unicode(together):
            return [value or None for value in values]
    return cells(lambda value: text_of(name, value), values, reasons)


def text_of(name: str, value: Any) -> str | None:
    """A text or number as text without NUL characters, None if it is missing. Raises RowError."""
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
    """False for text with lone surrogates, which is how Python holds bytes that are no UTF-8."""
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def identifier(value: Any, name: str = "pin_id") -> str:
    """An id as text: text as it is, a whole number without its point. Raises RowError."""
    if isinstance(value, (float, Decimal)) and not is_missing(value):
        # pandas turns integers with gaps into floats, databases export them as decimals.
        if not math.isfinite(value) or value != int(value):
            raise RowError(f"{name} is neither text nor a whole number")
        if isinstance(value, float) and abs(value) > 2**53:
            raise RowError(f"{name} is a float too large to be exact: write it as text")
        value = int(value)
    text = text_of(name, value)
    if text is None or not text.strip():
        raise RowError(f"no {name}")
    if len(text) > MAX_ID:
        raise RowError(f"{name} is longer than {MAX_ID} characters")
    return text


def moment(value: Any, name: str = "created_at") -> str | None:
    """A moment as UTC ISO 8601 text, a date as it is. Without a zone it is in UTC; numbers are seconds or
    milliseconds since 1970.

    Besides ISO 8601, what mail and HTTP write ("Sun, 04 Apr 2021 05:43:58 +0000") is understood.
    """
    if is_missing(value):
        return None
    try:
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if isinstance(value, int) and 19000101 <= value <= 21001231:
            value = str(value)  # the day as databases write it, not a moment of the year 1970
        if isinstance(value, str) and value.strip().isdecimal() and len(value.strip()) > 8:
            value = int(value)
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            value = datetime.fromtimestamp(value / 1000 if abs(value) > 1e11 else value, UTC)
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
    raise RowError(
        value.reason
        if isinstance(value, Unreadable)
        else f"{name} is no date or time such as 2024-05-31T12:00:00Z"
    )


def absolute(path: str | Path) -> str:
    """The path from the root, `~` resolved."""
    return os.path.abspath(os.path.expanduser(path))


def file_stamp(path: str | Path) -> str | None:
    """Size and modification time of a file as text, or None where there is no file."""
    try:
        found = os.stat(path)
    except (OSError, ValueError):
        return None
    return f"{found.st_size}-{found.st_mtime_ns}"


def source_name(source: str) -> str:
    """How `rejected_rows` names a source, however it was written on the command line."""
    name = source if source == "-" or source.startswith("-#") else absolute(source)
    return redact_credentials(os.fsencode(name).decode(errors="replace"))


def _excerpt(content: str) -> str:
    """The start of a row without what looks like an e-mail address, a link or a telephone number."""
    content = _TELEPHONE.sub("[redacted]", content[:2000].encode(errors="replace").decode())
    return re.sub(
        r"\S+",
        lambda word: (
            "[redacted]" if any(mark in word[0].lower() for mark in ("@", "://", "www.")) else word[0]
        ),
        content,
    )[:300]
