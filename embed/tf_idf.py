"""TF-IDF: the words of texts as a sparse matrix."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
from torch.nn.functional import embedding_bag

from .bm25 import Batch
from .ngrams import grams

LEAST = 2  # documents that have a word; one of a single document says nothing about others


class Sparse:
    """A sparse matrix of float32 [rows, numbers], which logistic.py multiplies."""

    def __init__(self, rows: np.ndarray, columns: np.ndarray, values: np.ndarray, shape: tuple[int, int]):
        """`rows`, `columns` (int64) and `values` (float32) of the entries; `rows` are ascending."""
        self.shape, self._rows, self._columns, self._values = shape, rows, columns, values
        self._starts = np.searchsorted(rows, np.arange(shape[0] + 1))
        self._by_row = _bags(rows, columns, values, shape[0])
        order = np.argsort(columns, kind="stable")
        self._by_column = _bags(columns[order], rows[order], values[order], shape[1])

    def take(self, rows: np.ndarray) -> Sparse:
        """Some rows."""
        lengths = np.diff(self._starts)[rows]
        entries = np.repeat(self._starts[rows] - np.cumsum(lengths) + lengths, lengths)
        entries += np.arange(len(entries))
        return Sparse(
            np.repeat(np.arange(len(rows)), lengths),
            self._columns[entries],
            self._values[entries],
            (len(rows), self.shape[1]),
        )

    # A bag of rows of the other matrix is what a row of a sparse matrix multiplies. torch's own sparse
    # matrices take four times as long.
    def times(self, weights: torch.Tensor) -> torch.Tensor:
        """The product with weights [numbers, labels]: [rows, labels]."""
        ids, starts, values = self._by_row
        return embedding_bag(ids, weights, starts, mode="sum", per_sample_weights=values)

    def transposed_times(self, gradient: torch.Tensor) -> torch.Tensor:
        """The product of the transposed matrix with a gradient [rows, labels]: [numbers, labels]."""
        ids, starts, values = self._by_column
        return embedding_bag(ids, gradient, starts, mode="sum", per_sample_weights=values)


def _bags(
    rows: np.ndarray, columns: np.ndarray, values: np.ndarray, n: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    starts = np.searchsorted(rows, np.arange(n))
    return torch.from_numpy(columns), torch.from_numpy(starts), torch.from_numpy(values)


def tf_idf(documents: Iterable[Batch], n: int) -> Sparse:
    """The TF-IDF of the words of `n` documents, in batches as BM25 takes them; each row has length 1.

    A word counts tf * (ln((1 + N) / (1 + df)) + 1), as in scikit-learn. Words of one document alone are left
    out.
    """
    rows, codes = [np.empty(0, np.int64)], [np.empty(0, np.uint64)]
    for batch in documents:
        for texts, parents in batch:
            found = grams(texts, parents)["unigram"]
            rows.append(found.rows)
            codes.append(found.codes)
    words, word = np.unique(np.concatenate(codes), return_inverse=True)
    cells, tf = np.unique(np.concatenate(rows) * max(len(words), 1) + word, return_counts=True)
    row, word = np.divmod(cells, max(len(words), 1))
    df = np.bincount(word, minlength=len(words))
    idf = np.log((1 + n) / (1 + df)) + 1
    kept = df[word] >= LEAST
    column = np.cumsum(df >= LEAST) - 1
    row, values = row[kept], (tf * idf[word])[kept]
    lengths = np.sqrt(np.bincount(row, values**2, minlength=n))
    scaled = (values / lengths[row]).astype(np.float32)
    return Sparse(row, column[word[kept]], scaled, (n, int((df >= LEAST).sum())))
