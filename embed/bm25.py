"""BM25, the baseline: what words alone find."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pyarrow as pa
import torch

from .ngrams import grams

K1, B = 1.2, 0.75  # the defaults of Lucene


class BM25:
    """An index of documents, with Lucene's formula and no stemming.

    idf = ln(1 + (N - df + 0.5) / (df + 0.5)). A word of a document scores
    idf * tf / (tf + k1 * (1 - b + b * length / mean length)).
    """

    def __init__(self, documents: Iterable[tuple[np.ndarray, np.ndarray]], n: int, queries: pa.Array):
        """`documents`, in parts: (the document of each word, the code of each word).

        Documents are counted from 0 to n over all parts. Only words of `queries` are kept in the index.
        """
        wanted, lengths = np.unique(grams(queries)["unigram"].codes), np.zeros(n, np.int64)
        parts = [(np.empty(0, np.int64), np.empty(0, np.uint64))]
        for rows, codes in documents:
            np.add.at(lengths, rows, 1)
            kept = np.isin(codes, wanted)
            parts.append((rows[kept], codes[kept]))
        rows, codes = (np.concatenate(column) for column in zip(*parts, strict=True))
        self.n = n
        self.terms, term = np.unique(codes, return_inverse=True)
        cell, tf = np.unique(term * max(1, n) + rows, return_counts=True)
        term, self.rows = np.divmod(cell, max(1, n))
        df = np.bincount(term, minlength=len(self.terms))
        idf = np.log1p((n - df + 0.5) / (df + 0.5))
        norm = K1 * (1 - B + B * lengths / max(lengths.mean() if n else 0, 1e-9))
        self.weights = idf[term] * tf / (tf + norm[self.rows])
        self.starts = np.searchsorted(term, np.arange(len(self.terms) + 1))

    def scores(self, queries: pa.Array) -> torch.Tensor:
        """[queries, documents], float32. A word that a query repeats counts each time."""
        words = grams(queries)["unigram"]
        place = np.minimum(np.searchsorted(self.terms, words.codes), max(0, len(self.terms) - 1))
        known = self.terms[place] == words.codes if len(self.terms) else np.zeros(len(words.codes), bool)
        query, term = words.rows[known], place[known]
        sizes = self.starts[term + 1] - self.starts[term]
        # the numbers of all postings of each word, word after word
        posting = (
            np.arange(sizes.sum())
            - np.repeat(np.cumsum(sizes) - sizes, sizes)
            + np.repeat(self.starts[term], sizes)
        )
        cells = np.repeat(query, sizes) * self.n + self.rows[posting]
        return torch.from_numpy(
            np.bincount(cells, self.weights[posting], len(queries) * self.n)
            .reshape(len(queries), self.n)
            .astype(np.float32)
        )
