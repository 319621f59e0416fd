"""Means with confidence intervals, by bootstrap."""

from __future__ import annotations

import numpy as np

RESAMPLES = 1_000


def mean_and_interval(
    values: np.ndarray, clusters: np.ndarray, *, resamples: int = RESAMPLES, seed: int = 0
) -> tuple[float, float, float]:
    """(mean, low, high): the mean of values [n] and its 95% interval.

    `clusters` [n] says which cluster each value belongs to. Bootstrap samples are drawn from the clusters,
    because values in one cluster are not independent.
    """
    ((mean, low, high),) = means_and_intervals(values[None], clusters, resamples=resamples, seed=seed)
    return mean, low, high


def means_and_intervals(
    values: np.ndarray, clusters: np.ndarray, *, resamples: int = RESAMPLES, seed: int = 0
) -> list[tuple[float, float, float]]:
    """Like `mean_and_interval`, for each line of values [lines, n]. All lines share the bootstrap samples."""
    _, cluster = np.unique(clusters, return_inverse=True)
    sums, sizes = np.stack([np.bincount(cluster, line) for line in values], 1), np.bincount(cluster)
    rng, means = np.random.default_rng(seed), []
    for _ in range(0, resamples, 50):
        drawn = rng.multinomial(len(sizes), np.full(len(sizes), 1 / len(sizes)), size=50)
        means.append(drawn @ sums / (drawn @ sizes)[:, None])
    low, high = np.quantile(np.concatenate(means), [0.025, 0.975], axis=0)
    return list(zip(values.mean(1).tolist(), low.tolist(), high.tolist(), strict=True))


def interval_of_means(values: np.ndarray) -> list[float]:
    """[mean, low, high] of one value for each cluster, rounded; values that are not a number are left out.

    Three zeros without any value.
    """
    values = values[~np.isnan(values)]
    if not len(values):
        return [0.0, 0.0, 0.0]
    return [round(number, 4) for number in mean_and_interval(values, np.arange(len(values)))]
