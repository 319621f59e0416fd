"""Shares with intervals that hold for weighted and stratified samples, small shares and small samples."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

Z = 1.959963984540054  # the normal distribution's 97.5% point: intervals of 95%
FEW = 10  # effective hits: with fewer, the interval gets a continuity correction


@dataclass(frozen=True)
class Share:
    """A share with its 95% interval, between 0 and 1; None if there is no item.

    `effective` is the size of a simple random sample that would be as precise.
    """

    share: float | None
    low: float | None
    high: float | None
    items: int
    effective: float


def wilson(share: float, n: float) -> tuple[float, float]:
    """Wilson's 95% score interval (1927) of a share seen in `n` items. `n` may be a fraction.

    Unlike the interval of a bootstrap, it also holds for small shares.
    """
    middle = (share + Z**2 / (2 * n)) / (1 + Z**2 / n)
    half = Z / (1 + Z**2 / n) * math.sqrt(share * (1 - share) / n + Z**2 / (4 * n**2))
    return (0.0 if share == 0 else max(0.0, middle - half)), (1.0 if share == 1 else min(1.0, middle + half))


def effective_size(weights: Any) -> float:
    """Kish's effective sample size (1965), (sum w)^2 / sum w^2.

    Uneven weights make it smaller than the sample.
    """
    w = np.asarray(weights, dtype=float)
    return float(w.sum() ** 2 / (w**2).sum()) if len(w) else 0.0


def share_of(hits: Any, weights: Any, strata: Sequence[Any]) -> Share:
    """The weighted share of items that are hits, with Wilson's interval on the effective sample size.

    The effective size is Kish's, or the one that follows from the stratified variance if that is smaller. It
    is smaller if the hits are in strata of large weight. If uneven weights leave few effective hits, or few
    effective misses, half an item is added to either side: the continuity correction (Newcombe 1998, method
    4). Without it such intervals contain the truth in only 86 to 92% of the cases, see
    tests/test_eval/test_coverage.py.
    """
    hit, w = np.asarray(hits, dtype=float), np.asarray(weights, dtype=float)
    if not len(hit):
        return Share(None, None, None, 0, 0.0)
    share = float((w * hit).sum() / w.sum())
    share = 0.0 if not hit.any() else 1.0 if hit.all() else share
    effective = effective_size(w)
    variance = _stratified_variance(hit, w, strata)
    if variance > 0:
        effective = min(effective, share * (1 - share) / variance)
    few = effective < 0.999 * len(hit) and effective * min(share, 1 - share) < FEW
    half = 0.5 / effective if few else 0.0
    return Share(
        share,
        wilson(max(share - half, 0.0), effective)[0],
        wilson(min(share + half, 1.0), effective)[1],
        len(hit),
        effective,
    )


def _stratified_variance(hit: np.ndarray, weights: np.ndarray, strata: Sequence[Any]) -> float:
    """The estimated variance of a stratified share.

    With equal weights and one stratum it is that of a plain sample, so Wilson's interval is then the plain
    one.
    """
    names = {name: i for i, name in enumerate(dict.fromkeys(strata))}
    of = np.array([names[name] for name in strata])
    n = np.bincount(of)
    p = np.bincount(of, hit) / n
    w = np.bincount(of, weights) / weights.sum()
    return float((w**2 * p * (1 - p) / n).sum())


def size_for_margin(margin: float) -> float:
    """The effective size at which a 95% interval reaches at most `margin` to each side: 2,400.9 for 0.02.

    This holds for every share, because the interval is widest at a share of one half.
    """
    return Z**2 / (4 * margin**2)


def sign_test(wins: int, losses: int) -> float:
    """The exact two-sided p of the sign test: the probability of a result at least this uneven by chance.

    Ties do not count: leave them out.
    """
    n, fewer = wins + losses, min(wins, losses)
    logs = np.array(
        [
            math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1) - n * math.log(2)
            for k in range(fewer + 1)
        ]
    )
    return min(1.0, 2 * float(np.exp(logs).sum()))
