"""How far raters agree beyond chance: Krippendorff's alpha, Gwet's AC1 and AC2, and their intervals.

All of them are computed from one table: how many raters gave each item each value. Ratings may be missing,
and each item may have other raters. If nearly all captions are good, there is no variation to agree on: alpha
is then low although the raters hardly ever differ, while AC1 and AC2 stay near the share of equal answers. So
both are given.
"""

from __future__ import annotations

from typing import Any, cast

import numpy as np

from .results import Measures

LABELS = {
    "alpha_nominal": "Krippendorff's alpha, nominal",
    "alpha_ordinal": "Krippendorff's alpha, ordinal",
    "alpha_interval": "Krippendorff's alpha, interval",
    "ac1": "Gwet's AC1",
    "ac2": "Gwet's AC2, quadratic",
}
MEASURES = tuple(LABELS)
CONFIDENCE = 0.95
_AT_ONCE = 2_000_000  # numbers held per step of the bootstrap


def agreement(counts: Any, values: Any) -> Measures:
    """The five measures of agreement.

    `counts` [items, values] says how many raters gave each item each value. `values` are the numbers of an
    ordinal scale, in ascending order. Alpha (Krippendorff, Content Analysis, 2018, chapter 12) is computed
    over the items with at least two ratings, with nominal, ordinal or interval distance. AC1 has identity
    weights and AC2 quadratic weights (Gwet, Handbook of Inter-Rater Reliability, 2014). A measure is None
    where it is not defined: if no item has two ratings or, for alpha, if all values are the same.
    """
    table = _Table(counts, values)
    measures = {
        name: None if np.isnan(value[0]) else float(value[0])
        for name, value in table.measures(table.times[None, :]).items()
    }
    return cast(Measures, measures)


def bootstrap(
    counts: Any, values: Any, *, replicates: int = 1000, seed: int = 0
) -> dict[str, tuple[float, float] | None]:
    """95% percentile intervals of the five measures.

    The bootstrap draws items, not single ratings, because the ratings of one picture are not independent. An
    interval is None if the measure is not defined in half of the `replicates` or more, or if there is only
    one item. The same seed gives the same intervals.
    """
    table = _Table(counts, values)
    draws: dict[str, list[np.ndarray]] = {name: [] for name in MEASURES}
    rng = np.random.default_rng(seed)
    at_once = max(1, _AT_ONCE // max(1, len(table.times)))
    for start in range(0, replicates if table.items > 1 else 0, at_once):
        times = rng.multinomial(table.items, table.times / table.items, min(at_once, replicates - start))
        for name, values_drawn in table.measures(times.astype(float)).items():
            draws[name].append(values_drawn)
    tail = (1 - CONFIDENCE) / 2
    intervals: dict[str, tuple[float, float] | None] = {}
    for name, parts in draws.items():
        defined = np.concatenate([*parts, np.empty(0)])
        defined = defined[~np.isnan(defined)]
        intervals[name] = (
            tuple(np.quantile(defined, [tail, 1 - tail]).tolist()) if 2 * len(defined) > replicates else None
        )
    return intervals


class _Table:
    """What each item adds to the sums that the measures are made of.

    Items with the same ratings share one row; `times` says how many items a row stands for.
    """

    def __init__(self, counts: Any, values: Any):
        n = np.asarray(counts, dtype=float)
        x = np.asarray(values, dtype=float)
        n, times = np.unique(n[n.sum(axis=1) > 0], axis=0, return_counts=True)
        self.times, self.items, self.categories = times.astype(float), int(times.sum()), n.shape[1]
        raters = n.sum(axis=1)
        paired = raters > 1
        pairs = np.maximum(raters * (raters - 1), 1)  # ordered pairs of ratings of an item
        self.n = n * paired[:, None]  # only what can be paired counts for alpha
        self.raters = raters * paired
        self.per = paired / np.maximum(raters - 1, 1)
        # only distances matter, and small numbers lose fewer digits
        self.x = x - x.mean() if len(x) else x
        self.paired = paired.astype(float)
        self.shares = n / raters[:, None]
        self.identity = (n * (n - 1)).sum(axis=1) / pairs
        spread = float(np.ptp(x)) if len(x) else 0.0
        self.quadratic_weights = (
            1 - ((x[:, None] - x[None, :]) / spread) ** 2 if spread else np.ones((len(x), len(x)))
        )
        self.quadratic = (n * (n @ self.quadratic_weights - 1)).sum(axis=1) / pairs * paired

    def measures(self, times: np.ndarray) -> dict[str, np.ndarray]:
        """Each measure [replicates], with row i counted `times[:, i]` times; NaN where it is not defined.

        `times` is [replicates, rows].
        """
        with np.errstate(divide="ignore", invalid="ignore"):
            counted = times @ self.n  # [replicates, values]
            # ordinal distance: the rank of a value is the middle of the ranks of all ratings with that value
            ranks = np.cumsum(counted, axis=1) - counted / 2
            nominal = times @ (self.per * (self.raters**2 - (self.n**2).sum(axis=1)))
            total = counted.sum(axis=1)
            return {
                "alpha_nominal": _alpha(nominal, (total**2 - (counted**2).sum(axis=1)) / (total - 1)),
                "alpha_ordinal": _alpha(self._observed(times, ranks), _expected(counted, ranks)),
                "alpha_interval": _alpha(
                    self._observed(times, np.broadcast_to(self.x, counted.shape)), _expected(counted, self.x)
                ),
                "ac1": self._ac(times, self.identity, float(self.categories)),
                "ac2": self._ac(times, self.quadratic, float(self.quadratic_weights.sum())),
            }

    def _observed(self, times: np.ndarray, x: np.ndarray) -> np.ndarray:
        """Squared differences within items [replicates].

        For m ratings x of an item, the sum over ordered pairs is 2 (m sum of x^2 - (sum of x)^2).
        """
        within = 2 * self.per[:, None] * (self.raters[:, None] * (self.n @ (x**2).T) - (self.n @ x.T) ** 2)
        return (times * within.T).sum(axis=1)  # type: ignore[no-any-return]

    def _ac(self, times: np.ndarray, equal: np.ndarray, weights: float) -> np.ndarray:
        observed = times @ equal / (times @ self.paired)
        if self.categories == 1:
            return np.asarray(
                observed
            )  # with one category raters always agree: 1 if any item has two ratings
        shares = times @ self.shares / times.sum(axis=1, keepdims=True)
        by_chance = weights / (self.categories * (self.categories - 1)) * (shares * (1 - shares)).sum(axis=1)
        return (observed - by_chance) / (1 - by_chance)  # type: ignore[no-any-return]


def _expected(counted: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Squared differences over all pairs of ratings, whatever their items [replicates]."""
    total = counted.sum(axis=1)
    return 2 * (total * (counted * x**2).sum(axis=1) - (counted * x).sum(axis=1) ** 2) / (total - 1)  # type: ignore[no-any-return]


def _alpha(observed: np.ndarray, expected: np.ndarray) -> np.ndarray:
    return np.where(expected > 1e-9, 1 - observed / expected, np.nan)
