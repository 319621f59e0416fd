"""Dates and times in the forms that people's tables have."""

import re
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pincaption.sources.cells import RowError
from pincaption.sources.dates import moment

NOON = "2026-05-31T16:30:00Z"


@pytest.mark.parametrize(
    "value",
    [
        1780245000,
        1780245000.0,
        "1780245000",
        "1780245000.0",
        "1.780245E9",  # as Java writes a double
        1780245000000,
        "1780245000000.0",
        1780245000000000,
        "1780245000000000",
        1780245000000000000,
        1.780245e18,
        "1.780245e+18",  # as Python writes a float
        Decimal("1780245000"),
        "20260531163000",
        20260531163000,
        46173.6875,  # days, as Excel counts them
        "46173.6875",
        "2026-05-31 16:30:00",
        "2026/05/31 16:30",
        "2026-05-31 18:30:00 +0200",
        "2026-05-31T16:30:00.000000000Z",
        "31.05.2026 16:30",
        "5/31/2026 4:30 PM",
        "5/31/2026, 4:30:00 p.m.",
        "Sun, 31 May 2026 16:30:00 +0000",
        "Sun May 31 16:30:00 +0000 2026",
        "May 31, 2026 4:30 PM",
    ],
)
def test_a_time_is_read_in_every_form(value: Any) -> None:
    assert moment(value) == NOON


@pytest.mark.parametrize(
    "value",
    [
        *(20260531, "20260531", 46173, 46173.0, "46173", "46173.0", "2026-05-31", "2026/05/31", "2026.5.31"),
        *("2026/5/31", "31.05.2026", "31/5/2026", "05/31/2026", "31-05-2026", " 2026-05-31 ", "31 May 2026"),
        *("May 31, 2026", "31-May-2026", "31-MAY-2026", "Sunday, May 31st, 2026", "31. May 2026"),
    ],
)
def test_a_day_is_read_in_every_form(value: Any) -> None:
    assert moment(value) == "2026-05-31"


@pytest.mark.parametrize(
    "value",
    [
        *(None, "", " ", "NaT", "nan", float("nan"), "NULL", "null", "None", "<NA>", "\\N", "N/A", "-", 0),
        *("0", 0.0, "0.0", "0000-00-00", "0000-00-00 00:00:00", "0000-00-00T00:00:00Z", "00/00/0000"),
        *("00.00.0000", "00000000"),
    ],
)
def test_zeros_and_words_for_nothing_are_a_missing_time(value: Any) -> None:
    assert moment(value) is None


@pytest.mark.parametrize("value", ["05/06/2026", "5.6.2026", "05-06-2026", "05/06/2026 12:00"])
def test_day_and_month_are_never_guessed(value: str) -> None:
    with pytest.raises(RowError, match="created_at may have the day or the month first"):
        moment(value)
    assert moment("05/05/2026") == "2026-05-05"  # it is the same in both orders


@pytest.mark.parametrize(
    "value",
    [
        *(
            "yesterday",
            "2026-02-30",
            "31.31.2026",
            "13/32/2026",
            "1/2/26",
            "2026",
            2026,
            19999,
            80001,
            -1,
            86400,
        ),
        *("1.78025E+09", "1.78025e+09", "May 2026", "2026-05", True, [20260531], {"$date": 1}, b"20260531"),
        *(float("inf"), 10**30, "1780245000 s", "4:30 PM", "31 Mai 2026", "13:00 PM 2026-05-31"),
    ],
)
def test_what_makes_no_sense_is_refused(value: Any) -> None:
    with pytest.raises(RowError, match=re.escape("date is no date or time such as 2024-05-31T12:00:00Z")):
        moment(value, "date")


times = st.datetimes(datetime(1974, 1, 1), datetime(2250, 1, 1)).map(lambda t: t.replace(microsecond=0))


@given(times, st.sampled_from([1, 10**3, 10**6, 10**9]), st.booleans(), st.booleans())
def test_the_unit_is_told_by_the_size(time: datetime, unit: int, as_text: bool, with_point: bool) -> None:
    number: Any = int(time.replace(tzinfo=UTC).timestamp()) * unit
    if with_point:
        number = f"{number}.0" if as_text else float(number)
    assert moment(str(number) if as_text else number) == f"{time.isoformat()}Z"


@given(st.dates(datetime(1955, 1, 1).date(), datetime(2099, 12, 31).date()))
def test_a_serial_of_excel_is_its_day(day: Any) -> None:
    assert moment((day - datetime(1899, 12, 30).date()).days) == day.isoformat()


@given(st.dates(datetime(1900, 1, 1).date(), datetime(2099, 12, 31).date()), st.sampled_from("./-"))
def test_a_day_with_the_year_last_is_its_day_or_refused(day: Any, separator: str) -> None:
    for text in (day.strftime("%d_%m_%Y"), day.strftime("%m_%d_%Y")):
        try:
            assert moment(text.replace("_", separator)) == day.isoformat()
        except RowError:
            assert day.day <= 12
            assert day.day != day.month


@given(st.text(max_size=40) | st.text("0123456789-/.: TZ+eE", max_size=30) | st.floats() | st.integers())
def test_every_value_is_a_time_a_missing_one_or_refused(value: Any) -> None:
    try:
        found = moment(value)
    except RowError:
        return
    assert found is None or moment(found) == found


def test_a_fraction_is_kept_to_the_microsecond() -> None:
    for value in (1780245000.25, "1780245000.25", "1780245000250", 1780245000250000, 1780245000250000999):
        assert moment(value) == "2026-05-31T16:30:00.250000Z"
    assert moment("46173.25") == f"{(datetime(2026, 5, 31) + timedelta(hours=6)).isoformat()}Z"
