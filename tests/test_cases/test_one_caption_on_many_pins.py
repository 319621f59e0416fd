"""The warning that one caption covers many pins: not for a few photos that are alike."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pincaption.captioner.run import (
    COMMON_BY_CHANCE,
    COMMON_FROM,
    COMMON_SHARE,
    Result,
    is_too_common,
    warnings,
)


def warned(same: int, pins: int) -> bool:
    """Whether a run warns that gave `same` of its `pins` one caption."""
    result = Result("r", captioned=pins)
    result.add_texts([("a dog", same), *((f"a dog number {i}", 1) for i in range(pins - same))])
    return bool(warnings(result))


@pytest.mark.parametrize(
    ("same", "pins", "expected"),
    [
        (2, 24, False),  # 8%: two photos of one dog
        (4, 24, False),
        (5, 24, False),
        (6, 24, True),  # a quarter
        (12, 24, True),
        (2, 20, False),
        (19, 19, False),  # too few to say anything
        (20, 20, True),
        (10, 100, False),
        (13, 100, True),
        (60, 1000, False),
        (73, 1000, True),
        (5_100, 100_000, False),
        (5_300, 100_000, True),
        (5_000, 100_000, False),
    ],
)
def test_few_photos_that_are_alike_are_no_alarm(same: int, pins: int, expected: bool) -> None:
    assert warned(same, pins) == expected


def by_chance(same: int, pins: int) -> float:
    """How probable it is that a caption fits at least `same` of `pins`, if it fits COMMON_SHARE of all."""
    return sum(
        math.comb(pins, k) * COMMON_SHARE**k * (1 - COMMON_SHARE) ** (pins - k) for k in range(same, pins + 1)
    )


runs = st.integers(1, 400).flatmap(lambda pins: st.tuples(st.integers(1, pins), st.just(pins)))


@given(runs)
def test_an_alarm_is_never_what_chance_explains(run: tuple[int, int]) -> None:
    same, pins = run
    if is_too_common(same / pins, pins):
        assert pins >= COMMON_FROM
        assert same / pins > COMMON_SHARE
        assert by_chance(same, pins) < COMMON_BY_CHANCE


@given(runs)
def test_what_chance_does_not_explain_is_an_alarm(run: tuple[int, int]) -> None:
    """The bound is not exact. It costs a factor of 100 at most."""
    same, pins = run
    if pins >= COMMON_FROM and same / pins > COMMON_SHARE and by_chance(same, pins) < COMMON_BY_CHANCE / 100:
        assert is_too_common(same / pins, pins)


@given(runs, st.integers(1, 10))
def test_more_pins_or_a_larger_share_never_end_the_alarm(run: tuple[int, int], times: int) -> None:
    same, pins = run
    if is_too_common(same / pins, pins):
        assert is_too_common(same / pins, pins * times)
        assert all(is_too_common(more / pins, pins) for more in range(same, pins + 1))
