"""Multinomial logistic regression, cross-validated: how well labels follow from some numbers.

It is forty lines of torch rather than scikit-learn, which would bring scipy with it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import numpy as np
import torch

FOLDS = 5
# What is tried for C, the weight of the data against the penalty, as scikit-learn defines it: the sum of the
# losses times C, plus half of the squared weights. The first one has the strongest penalty.
STRENGTHS = (1.0, 10.0, 100.0, 1000.0)
ITERATIONS = 60  # at most, of a fit; each starts where the fit with the next stronger penalty ended

Fit = tuple[torch.Tensor, torch.Tensor]  # weights [numbers, labels] and biases [labels], float32


class Matrix(Protocol):
    """Numbers [rows, numbers] that a fit multiplies."""

    shape: tuple[int, int]

    def take(self, rows: np.ndarray) -> Matrix:
        """Some rows."""

    def times(self, weights: torch.Tensor) -> torch.Tensor:
        """The product with weights [numbers, labels]: [rows, labels]."""

    def transposed_times(self, gradient: torch.Tensor) -> torch.Tensor:
        """The product of the transposed matrix with a gradient [rows, labels]: [numbers, labels]."""


class Dense:
    """Vectors."""

    def __init__(self, numbers: torch.Tensor):
        """`numbers`: float32 [rows, numbers]."""
        self.numbers = numbers
        self.shape = (numbers.shape[0], numbers.shape[1])

    def take(self, rows: np.ndarray) -> Dense:
        return Dense(self.numbers[torch.from_numpy(rows)])

    def times(self, weights: torch.Tensor) -> torch.Tensor:
        return self.numbers @ weights

    def transposed_times(self, gradient: torch.Tensor) -> torch.Tensor:
        return self.numbers.T @ gradient


def fit(
    matrix: Matrix, labels: torch.Tensor, n_labels: int, strength: float, start: Fit | None = None
) -> Fit:
    """Minimises the mean cross-entropy plus the squared weights / (2 * strength * rows), by L-BFGS.

    `labels`: int64 [rows], from 0 to `n_labels` - 1. `start`: where it begins; without it, at zero.
    """
    rows, penalty = torch.arange(len(labels)), 1 / (strength * len(labels))
    if start is None:
        start = torch.zeros(matrix.shape[1], n_labels), torch.zeros(n_labels)
    weights, biases = (part.clone() for part in start)
    optimiser = torch.optim.LBFGS(
        [weights, biases],
        max_iter=ITERATIONS,
        tolerance_grad=1e-4,  # as in scikit-learn
        tolerance_change=1e-7,
        line_search_fn="strong_wolfe",
    )

    def closure() -> torch.Tensor:
        # The gradient is written out: autograd would take ten times as long for a sparse matrix.
        log_shares = torch.log_softmax(matrix.times(weights) + biases, 1)
        gradient = log_shares.exp()
        gradient[rows, labels] -= 1
        gradient /= len(labels)
        weights.grad = matrix.transposed_times(gradient) + penalty * weights
        biases.grad = gradient.sum(0)
        return -log_shares[rows, labels].mean() + penalty / 2 * weights.square().sum()

    optimiser.step(closure)  # type: ignore[no-untyped-call]
    return weights, biases


def predicted(matrix: Matrix, fitted: Fit) -> np.ndarray:
    """The most probable label of each row, int64 [rows]."""
    return (matrix.times(fitted[0]) + fitted[1]).argmax(1).numpy()


def folds_of(labels: np.ndarray, seed: int = 0) -> np.ndarray:
    """The fold, 0 to 4, of each row, int64 [rows]: at random, and each label evenly over all folds."""
    order = np.random.default_rng(seed).permutation(len(labels))
    order = order[np.argsort(labels[order], kind="stable")]
    folds = np.empty(len(labels), np.int64)
    folds[order] = np.arange(len(labels)) % FOLDS
    return folds


def out_of_fold(
    matrix: Matrix, labels: np.ndarray, folds: np.ndarray, on_fold: Callable[[], None] = lambda: None
) -> np.ndarray:
    """For each row the label predicted by a fit to the other folds, int64 [rows].

    The strength is chosen within these: fitted to three of them, compared on the fourth.
    """
    n_labels, answers = int(labels.max()) + 1, np.empty(len(labels), np.int64)
    for fold in range(FOLDS):
        test, held_out = folds == fold, folds == (fold + 1) % FOLDS
        strength, start = _best_strength(matrix, labels, ~test & ~held_out, held_out, n_labels)
        fitted = _fit_rows(matrix, labels, ~test, n_labels, strength, start)
        answers[test] = predicted(matrix.take(np.flatnonzero(test)), fitted)
        on_fold()
    return answers


def _best_strength(
    matrix: Matrix, labels: np.ndarray, train: np.ndarray, held_out: np.ndarray, n_labels: int
) -> tuple[float, Fit]:
    """The strength that predicts most held-out labels, and its fit.

    Weaker penalties are tried as long as they help.
    """
    part, part_labels = matrix.take(np.flatnonzero(train)), torch.from_numpy(labels[train])
    others = matrix.take(np.flatnonzero(held_out))
    best, most, fitted = None, -1, None
    for strength in STRENGTHS:
        fitted = fit(part, part_labels, n_labels, strength, fitted)
        right = int((predicted(others, fitted) == labels[held_out]).sum())
        if best is not None and right <= most:
            break
        best, most = (strength, fitted), right
    assert best is not None
    return best


def _fit_rows(
    matrix: Matrix, labels: np.ndarray, train: np.ndarray, n_labels: int, strength: float, start: Fit
) -> Fit:
    some = matrix.take(np.flatnonzero(train))
    return fit(some, torch.from_numpy(labels[train]), n_labels, strength, start)


def most_frequent(labels: np.ndarray, folds: np.ndarray) -> np.ndarray:
    """For each row the label that is most frequent in the other folds, int64 [rows]."""
    answers = np.empty(len(labels), np.int64)
    for fold in range(FOLDS):
        answers[folds == fold] = np.bincount(labels[folds != fold]).argmax()
    return answers
