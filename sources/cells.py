"""Turns single values of a table into what the store keeps: texts and ids. Dates are in dates.py."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import date
from decimal import Decimal
from typing import Any
from uuid import UUID

from ..common.errors import PincaptionError
from .rows import ImageBytes, Unreadable, is_missing

MAX_ID = 4096  # characters, as many as a path may have
EXACT_FLOATS = 2**53  # above it a float no longer tells neighbouring whole numbers apart
TOO_LARGE_FLOAT = "a float too large to be exact: write it as text"
# What Excel writes into a cell whose formula fails.
EXCEL_ERRORS = frozenset(["#N/A", "#REF!", "#VALUE!", "#NAME?", "#DIV/0!", "#NULL!", "#NUM!"])
# What programs write for a value that they do not have.
MISSING_WORDS = EXCEL_ERRORS.union(
    [
        "nan",
        "NaN",
        "NAN",
        "null",
        "Null",
        "NULL",
        "none",
        "None",
        "NONE",
        "<NA>",
        "<na>",
        "\\N",
        "nat",
        "NaT",
        "NAT",
        "undefined",
        "<null>",
        "(null)",
    ]
)
# A word of these alone as an id is no id: else all rows without one would be one pin. "none" may be a name.
MISSING_IDS = EXCEL_ERRORS.union(["nan", "NaN", "null", "NULL", "None", "<NA>", "\\N", "NaT"])
_PLACEHOLDERS = {word.lower() for word in MISSING_WORDS} | {"", "n/a", "na", "#n/a", "nil", "-", "--", "?"}
# Blanks, and what stands at the ends of ids without being seen: marks of byte order, width and direction.
_EDGES = (
    "".join(filter(str.isspace, map(chr, range(0x3001)))) + "\ufeff\u200b\u200c\u200d\u2060\u200e\u200f\u00ad"
)
_PLAIN_ID = re.compile(r"[\w:/-]+", re.ASCII)  # as most are: nothing has to be changed
# A float as Python, pandas and databases write it, and as Java and Spark do from ten million on.
_FLOAT = re.compile(r"(-?(?:0|[1-9]\d*))\.0+|-?[1-9]\.\d+E\d{1,2}", re.ASCII)
# Spreadsheets, R and C write the first digits of a large number alone: 1.00123E+12.
_CUT_NUMBER = re.compile(r"-?\d(?:\.\d+)?[eE]\+\d+", re.ASCII)
_QUOTED = re.compile(r"""'((?:[^'\\]|\\.)*)'|"((?:[^"\\]|\\.)*)\"""")
_SHOWN = 300  # characters of a cell that are shown where its row is


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


def text_column(
    name: str,
    values: Sequence[Any],
    reasons: dict[int, str],
    convert: Callable[[str, Any], str | None] | None = None,
) -> list[str | None]:
    """`text_of` of each value of the column `name`; reasons as for `convert_column`.

    A column of clean texts, as most are, is checked at once and not value by value. `convert` is for values
    that are no clean texts, instead of `text_of`; it also gets texts that look like a list.
    """
    if {*map(type, values)} <= {str, type(None)}:
        together = "".join(filter(None, values))
        lists = convert is not None and ("['" in together or '["' in together)
        if "\0" not in together and is_unicode(together) and not lists:
            return [value or None for value in values]
    of = convert or text_of
    return convert_column(lambda value: of(name, value), values, reasons)


def text_of(name: str, value: Any) -> str | None:
    """A text, number or UUID as text without NUL characters; None if it is missing. Raises RowError."""
    if type(value) is str and value.isascii() and "\0" not in value:
        return value or None
    if is_missing(value):
        return None
    if isinstance(value, Unreadable):
        raise RowError(f"{name} is {value.reason}")
    if isinstance(value, (int, float, Decimal, UUID)) and not isinstance(value, bool):
        value = str(value)
    if not isinstance(value, str):
        raise RowError(f"{name} is not text")
    if not is_unicode(value):
        raise RowError(f"{name} is not valid UTF-8")
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


def is_placeholder(text: str) -> bool:
    """Whether a cell that should hold no words holds one that stands for nothing: "nan", "NULL", "-"."""
    return len(text) <= 10 and text.strip().lower() in _PLACEHOLDERS


def listed(value: Any) -> list[Any] | None:
    """The items of a list, or of a text that writes a list of texts: `["a", "b"]`, `['a', 'b']`, `['a' 'b']`.

    None for everything else.
    """
    if isinstance(value, (list, tuple)):
        return list(value)
    if not isinstance(value, str) or not value.lstrip().startswith(("['", '["')):
        return None
    text = value.strip()
    try:
        items = json.loads(text)
    except (ValueError, RecursionError):
        if _QUOTED.sub("", text).replace(",", "").split() not in (["[]"], ["[", "]"]):
            return None
        items = [re.sub(r"\\(.)", r"\1", a or b) for a, b in _QUOTED.findall(text)]
    return items if isinstance(items, list) and all(isinstance(item, str) for item in items) else None


def identifier(value: Any, name: str = "pin_id", longest: float = MAX_ID) -> str:
    """An id as text without blanks at its ends, at most `longest` characters. Raises RowError.

    7, 7.0 and the texts "7", " 7 " and "7.0" are all "7"; the text "007" stays as it is.
    """
    if type(value) is str and _PLAIN_ID.fullmatch(value) and len(value) <= longest:
        if value in MISSING_IDS:
            raise RowError(f"no {name}")
        return value
    if isinstance(value, (bytes, bytearray)):
        raise RowError(f"{name} is bytes and not text: write it as text, for instance in hexadecimal")
    if isinstance(value, (float, Decimal)) and not is_missing(value):
        # pandas turns whole numbers with gaps into floats, and databases export them as decimals.
        if not math.isfinite(value) or value != int(value):
            raise RowError(f"{name} is neither text nor a whole number")
        if isinstance(value, float):
            _check_exact(value, name)
        value = int(value)
    text = (text_of(name, value) or "").strip(_EDGES)
    if not text or text in MISSING_IDS:
        raise RowError(f"no {name}")
    if len(text) > longest:
        raise RowError(f"{name} is longer than {longest} characters")
    if text[-1].isdigit() and ("." in text or "+" in text):
        return _whole_number(text, name)
    return text


def _whole_number(text: str, name: str) -> str:
    """The digits of a text that writes a float without a fraction; every other text as it is."""
    if _CUT_NUMBER.fullmatch(text):
        raise RowError(
            f"{name} is a number such as 1.00123E+12, whose last digits are lost: write it as text"
        )
    match = _FLOAT.fullmatch(text)
    if not match:
        return text
    number = Decimal(match[1] or text)
    if number != int(number):
        return text
    _check_exact(number, name)
    return str(int(number))


def _check_exact(number: float | Decimal, name: str) -> None:
    if not -EXACT_FLOATS <= number <= EXACT_FLOATS:
        raise RowError(f"{name} is {TOO_LARGE_FLOAT}")


def row_as_json(columns: Mapping[str, Sequence[Any]], i: int) -> str:
    """The cells of row `i` as JSON, for rejected_rows. Long cells are cut, bytes are hexadecimal."""
    return json.dumps({name: _shown(values[i]) for name, values in columns.items()}, ensure_ascii=False)


def _shown(value: Any) -> Any:
    """A value as JSON can hold it, cut to `_SHOWN` characters."""
    if value is None or isinstance(value, (bool, int)) or (isinstance(value, float) and math.isfinite(value)):
        return value
    if isinstance(value, ImageBytes):
        return f"an image of {len(value.data):,} bytes"
    if isinstance(value, Unreadable):
        return f"<{value.reason}>"
    if isinstance(value, (bytes, bytearray)):
        return f"0x{bytes(value[:_SHOWN]).hex()}"[:_SHOWN]
    if isinstance(value, (list, tuple)):
        return [_shown(item) for item in value[:20]]
    if isinstance(value, dict):
        return {str(name): _shown(item) for name, item in list(value.items())[:20]}
    text = value.isoformat() if isinstance(value, date) else str(value)
    # Line ends and tabs would be escapes in JSON, and hide a telephone number.
    return " ".join(text[:_SHOWN].encode(errors="replace").decode().split())
