"""How many answers of a probe are right: accuracy and macro-F1, with intervals by bootstrap."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .intervals import RESAMPLES


@dataclass
class Samples:
    """The measures of one row: of all items first, then of each bootstrap sample. All rows share samples."""

    accuracy: np.ndarray  # [1 + resamples]
    macro_f1: np.ndarray
    part_accuracy: np.ndarray

    @classmethod
    def of(cls, labels: np.ndarray, answers: np.ndarray, part: np.ndarray) -> Samples:
        rng, n, of_samples = np.random.default_rng(0), len(labels), []
        right = labels == answers
        columns = np.stack([right, part, right & part], 1).astype(np.float64)
        for start in range(0, 1 + RESAMPLES, 50):
            times = rng.multinomial(n, np.full(n, 1 / n), size=50)
            if not start:
                times[0] = 1
            accuracy, in_part, right_in_part = (times @ columns).T
            f1 = macro_f1(labels, answers, times)
            of_samples.append([accuracy / n, f1, right_in_part / np.maximum(in_part, 1)])
        return cls(*np.concatenate(of_samples, 1)[:, : 1 + RESAMPLES])


def macro_f1(labels: np.ndarray, answers: np.ndarray, times: np.ndarray) -> np.ndarray:
    """Macro-F1 [samples]: the mean over labels of 2 * right / (labelled + answered).

    `times` [samples, n]: how often each item counts. A label that a sample neither has nor gives counts 0.
    """
    n_labels = int(max(labels.max(), answers.max())) + 1
    measures = np.empty(len(times))
    for sample, weights in enumerate(times):
        right = np.bincount(labels, weights * (labels == answers), minlength=n_labels)
        both = np.bincount(labels, weights, minlength=n_labels)
        both += np.bincount(answers, weights, minlength=n_labels)
        measures[sample] = (2 * right / np.maximum(both, 1)).mean()
    return measures


def interval(samples: np.ndarray) -> list[float]:
    """[value, low, high], rounded: the value of all items, and where 95% of the bootstrap samples lie."""
    low, high = np.quantile(samples[1:], [0.025, 0.975])
    return [round(float(number), 4) for number in (samples[0], low, high)]
