"""Random choices that the pins, the boards and the query log of the drawn world make alike."""

from __future__ import annotations

import functools
import itertools
import random
from collections.abc import Sequence
from datetime import date, datetime, time, timedelta


def uneven_choice(values: Sequence[str], rng: random.Random) -> str:
    """One of the values; the n-th has weight 1 / (n + 4), so that a few are chosen often (Zipf's law)."""
    return rng.choices(values, cum_weights=_cumulative_weights(len(values)))[0]


@functools.cache
def _cumulative_weights(n: int) -> list[float]:
    return list(itertools.accumulate(1 / (rank + 5) for rank in range(n)))


def random_moment(rng: random.Random, first: date, last: date) -> datetime:
    """A second between two days, both included (UTC)."""
    seconds = ((last - first).days + 1) * 86400
    return datetime.combine(first, time()) + timedelta(seconds=rng.randrange(seconds))
