"""Dates and times as people's tables have them, as ISO 8601 text."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from email.utils import parsedate_to_datetime
from typing import Any

from .cells import RowError, is_placeholder
from .rows import Unreadable, is_missing

_EPOCH = datetime(1970, 1, 1)
# Numbers since 1970 are told apart by size: each unit begins in March 1973 and ends in the year 5138.
_SMALLEST_TIME = 10**8  # seconds
_MICROSECONDS_OF = ((10**11, 10**6), (10**14, 10**3), (10**17, 1))  # below this: so many microseconds each
# Excel counts days from here. Its day 0 is 1900-01-00, and it takes 1900 for a leap year.
_EXCEL_DAY_0 = datetime(1899, 12, 30)
_EXCEL_DAYS = (20_000, 80_000)  # from the year 1954 to 2119; no other number of a time is as small
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
# Java writes 1.7802E9, Python 1.7e+18 from 1e16 on. A spreadsheet writes 1.7802E+09, with digits missing.
_NUMBER = re.compile(r"[+-]?\d{1,25}(?:\.\d{0,25})?(?P<exponent>E\d{1,2}|e\+\d{1,2})?", re.ASCII)
_ONLY_ZEROS = re.compile(r"0[0\s.:/TZ-]*", re.ASCII)
_TIME = (
    r"(?:[\sT,]+(?P<hour>\d{1,2}):(?P<minute>\d\d)(?::(?P<second>\d\d)(?:[.,](?P<fraction>\d{1,9}))?)?"
    r"(?:\s*(?P<half>[ap])\.?m\.?)?(?:\s*(?P<zone>z|utc|gmt|[+-]\d\d:?\d\d))?)?"
)
_IN_NUMBERS = re.compile(
    r"(?P<a>\d{1,4})(?P<separator>[-/.])(?P<b>\d{1,2})(?P=separator)(?P<c>\d{1,4})" + _TIME,
    re.ASCII | re.IGNORECASE,
)
_WEEKDAY = r"(?:(?:mon|tue|wed|thu|fri|sat|sun)[a-z]*[\s,.]+)?"
_MONTH = r"(?P<month>jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)[a-z]{0,6}\.?"
_IN_WORDS = [
    re.compile(_WEEKDAY + words + _TIME, re.ASCII | re.IGNORECASE)
    for words in (
        rf"(?P<day>\d{{1,2}})(?:st|nd|rd|th)?\.?[\s-]*{_MONTH}[\s,-]*(?P<year>\d{{4}})",
        rf"{_MONTH}[\s-]*(?P<day>\d{{1,2}})(?:st|nd|rd|th)?[\s,-]+(?P<year>\d{{4}})",
    )
]


def moment(value: Any, name: str = "created_at") -> str | None:
    """A time as ISO 8601 text in UTC ("2024-05-31T12:00:00Z"), a date as "2024-05-31"; None if missing.

    Read are ISO 8601, dates with the year first or the month as an English word, dates with the year last if
    it is certain which number is the day, what mail and HTTP write, 20240531, 20240531120000, the numbers of
    days of Excel, and seconds, milliseconds, microseconds or nanoseconds since 1970. A time without a zone is
    taken to be in UTC. Zeros alone and words such as "NaT" are a missing time. Raises RowError.
    """
    try:
        if isinstance(value, str):
            value = _of_text(value.strip(), name) if value else None
        elif isinstance(value, Unreadable):
            raise RowError(f"{name} is {value.reason}")
        elif is_missing(value):
            return None
        elif isinstance(value, (int, float, Decimal)) and not isinstance(value, bool):
            value = _of_number(value)
        if value is None:
            return None
        if isinstance(value, datetime):
            if value.tzinfo:
                value = (value if value.tzinfo is UTC else value.astimezone(UTC)).replace(tzinfo=None)
            return f"{value.isoformat()}Z"
        if isinstance(value, date):
            return value.isoformat()
    except (ValueError, ArithmeticError, OSError):
        pass
    raise RowError(f"{name} is no date or time such as 2024-05-31T12:00:00Z")


def _of_text(text: str, name: str) -> date | None:
    """The date or time of a text. Raises ValueError."""
    if len(text) == 10 and text[4] == "-":
        try:
            return date.fromisoformat(text)
        except ValueError:
            pass
    elif len(text) > 10:
        try:
            return datetime.fromisoformat(text.removesuffix(" UTC"))
        except ValueError:
            pass
    if is_placeholder(text) or _ONLY_ZEROS.fullmatch(text):
        return None
    if match := _NUMBER.fullmatch(text):
        number = Decimal(text)
        exponent = match["exponent"]
        if exponent and exponent.startswith("e+") and number < 10**16:
            raise ValueError
        return _of_number(int(number) if number == int(number) else number)
    if match := _IN_NUMBERS.fullmatch(text):
        return _with_time(_day_of(match["a"], match["b"], match["c"], name), match)
    for pattern in _IN_WORDS:
        if match := pattern.fullmatch(text):
            month = _MONTHS.index(match["month"].lower()) + 1
            return _with_time(date(int(match["year"]), month, int(match["day"])), match)
    if text[:3].isalpha():
        return parsedate_to_datetime(text)
    return date.fromisoformat(text) if len(text) <= 10 else datetime.fromisoformat(text)


def _of_number(value: int | float | Decimal) -> date | None:
    """The date or time of a number, by its size. Raises ValueError, ArithmeticError."""
    if value == 0:
        return None
    is_float = isinstance(value, float)
    if value == int(value):
        value = int(value)
        if 19000101 <= value <= 21001231:
            return date.fromisoformat(str(value))
        if 19000101_000000 <= value <= 21001231_235959:
            return datetime.fromisoformat(f"{str(value)[:8]}T{str(value)[8:]}")
    if _EXCEL_DAYS[0] <= value < _EXCEL_DAYS[1]:
        # Fractions of a day are floats: 16:30 is 0.6875, and 0:01 is not exact.
        time = _EXCEL_DAY_0 + timedelta(milliseconds=round(value * 86_400_000))
        return time if time.time() != datetime.min.time() else time.date()
    if -_SMALLEST_TIME < value < _SMALLEST_TIME:
        raise ValueError
    for limit, microseconds in _MICROSECONDS_OF:
        if -limit < value < limit:
            return _EPOCH + timedelta(microseconds=round(value * microseconds))
    if is_float:  # of so many nanoseconds it has the last hundreds wrong
        return _EPOCH + timedelta(microseconds=10 * round(value / 10_000))
    return _EPOCH + timedelta(microseconds=int(value // 1000))


def _day_of(first: str, second: str, third: str, name: str) -> date:
    """The date of three numbers. Raises RowError if it is not certain which one is the day, ValueError."""
    if len(first) == 4 and len(third) <= 2:
        return date(int(first), int(second), int(third))
    if len(first) > 2 or len(third) != 4:
        raise ValueError
    day, month, year = int(first), int(second), int(third)
    if max(day, month) <= 12 and day != month:
        raise RowError(f"{name} may have the day or the month first, as in 05/06/2026: write 2026-06-05")
    return date(year, month, day) if month <= 12 else date(year, day, month)


def _with_time(day: date, match: re.Match[str]) -> date:
    """The day together with the time of `_TIME`, if there is one. Raises ValueError."""
    if match["hour"] is None:
        return day
    hour = int(match["hour"])
    if match["half"]:
        if not 1 <= hour <= 12:
            raise ValueError
        hour = hour % 12 + (12 if match["half"].lower() == "p" else 0)
    fraction = (match["fraction"] or "").ljust(6, "0")[:6]
    zone = (match["zone"] or "").lower()
    offset = "" if zone in ("", "z", "utc", "gmt") else zone
    time = f"{hour:02}:{match['minute']}:{match['second'] or '00'}.{fraction}{offset}"
    return datetime.fromisoformat(f"{day.isoformat()}T{time}")
