"""BM25, the opponent: what words alone find, with stems and character trigrams where they are asked for."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Literal, get_args

import numpy as np
import pyarrow as pa
import torch

from .ngrams import find_words, grams
from .stems import Stems, languages_of, spelled

K1, B = 1.2, 0.75  # the defaults of Lucene
# How much the scores of trigrams count beside those of stems: the best on 2,000 training queries of
# Home Depot (Recall@10: 0.525 without trigrams, 0.550 with 0.3, 0.542 with 1, 0.541 as one bag of terms).
TRIGRAMS = 0.3
MOST = 255  # a word that occurs more often in one document counts as if it occurred so often

# What the terms of documents and queries are.
Kind = Literal["words", "stems", "stems and trigrams"]
KINDS: tuple[Kind, ...] = get_args(Kind)

# Some documents: for each field its texts, and the document of each text. The documents are counted from 0
# over all batches, in ascending order. All texts of a document are in one batch.
Batch = Sequence[tuple[pa.Array, np.ndarray]]


class BM25:
    """An index of documents, with Lucene's formula.

    idf = ln(1 + (N - df + 0.5) / (df + 0.5)). A term of a document scores
    idf * tf / (tf + k1 * (1 - b + b * length / mean length)).

    The terms of the kind "words" are words as they stand. Of the kind "stems" they are stems: a document is
    stemmed in its own language, and it has a word of a query if the word has, in that language, a stem of the
    document. "stems and trigrams" adds 0.3 times the score of a second index, of character trigrams.

    Memory: 5 bytes for each distinct term of each document, and twice that while the index is made.
    """

    def __init__(
        self,
        documents: Iterable[Batch],
        n: int,
        queries: pa.Array | None = None,
        *,
        kind: Kind = "words",
        locales: pa.Array | pa.ChunkedArray | None = None,
    ):
        """`documents`: `n` of them, in batches. `locales` [n]: of the documents, for their stemmers.

        With `queries`, the index answers these alone, and is smaller.
        """
        self.n, self.kind = n, kind
        languages, language = [""], np.zeros(n, np.int64)
        if kind != "words":
            languages, language = languages_of(locales, n)
        self._stems = [Stems(name) for name in languages]
        wanted = None if queries is None else np.unique(self._words(queries)[1])
        self._word_index = _Index(n, wanted)
        self._trigram_index: _Index | None = None
        if kind == "stems and trigrams":
            wanted = None if queries is None else np.unique(grams(queries)["trigram"].codes)
            self._trigram_index = _Index(n, wanted)
        for batch in documents:
            self._add(batch, language)
        self._word_index.finish()
        if self._trigram_index is not None:
            self._trigram_index.finish()

    def _add(self, batch: Batch, language: np.ndarray) -> None:
        rows, codes, trigram_rows, trigrams = [], [], [], []
        for texts, documents in batch:
            found = grams(texts, documents)
            of_words = found["unigram"]
            rows.append(of_words.rows)
            codes.append(self._stemmed(texts, of_words.codes, language[of_words.rows]))
            trigram_rows.append(found["trigram"].rows)
            trigrams.append(found["trigram"].codes)
        self._word_index.add(np.concatenate(rows), np.concatenate(codes))
        if self._trigram_index is not None:
            self._trigram_index.add(np.concatenate(trigram_rows), np.concatenate(trigrams))

    def _stemmed(self, texts: pa.Array, codes: np.ndarray, language: np.ndarray) -> np.ndarray:
        """The codes of the stems of the words of texts, each by its own language [words]."""
        if self.kind == "words":
            return codes
        words, stems = find_words(texts), codes.copy()
        for number in np.unique(language):
            chosen = np.flatnonzero(language == number)
            stems[chosen] = self._stems[number].codes(words, codes, chosen)
        return stems

    def _words(self, queries: pa.Array) -> tuple[np.ndarray, np.ndarray]:
        """(the query of each word [words], its term in each language [languages, words])."""
        found = grams(queries)["unigram"]
        languages = range(len(self._stems))
        if self.kind == "words":
            return found.rows, found.codes[None]
        same = [self._stemmed(queries, found.codes, np.full(len(found.codes), i)) for i in languages]
        return found.rows, np.stack(same)

    def scores(self, queries: pa.Array) -> torch.Tensor:
        """[queries, documents], float32. A word that a query repeats counts each time."""
        table = np.zeros((len(queries), self.n), np.float32)
        self._word_index.add_scores(*self._words(queries), table)
        if self._trigram_index is not None:
            trigrams = grams(queries)["trigram"]
            self._trigram_index.add_scores(trigrams.rows, trigrams.codes[None], table, TRIGRAMS)
        return torch.from_numpy(table)

    def matches(self, query: str, documents: np.ndarray) -> list[list[str]]:
        """For each of some documents the words of the query that it has, or whose stem it has, in order.

        The words are written as `filters.text.normalise` writes them, without apostrophes.
        """
        texts = pa.array([query], pa.string())
        words = find_words(texts)
        spelling = spelled(words, np.arange(len(words.starts)))
        has = self._word_index.has(self._words(texts)[1], documents)
        return [
            list(dict.fromkeys(word for word, found in zip(spelling, line, strict=True) if found))
            for line in has.T
        ]


class _Index:
    """Which documents have a term, and how often."""

    def __init__(self, n: int, wanted: np.ndarray | None):
        self.n, self._wanted = n, wanted
        self._lengths = np.zeros(n, np.int64)
        self._parts: list[tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]] = []

    def add(self, rows: np.ndarray, codes: np.ndarray) -> None:
        """Adds the terms `codes` [terms] of the documents `rows` [terms], which no other call names."""
        np.add.at(self._lengths, rows, 1)
        if self._wanted is not None:
            kept = np.isin(codes, self._wanted)
            rows, codes = rows[kept], codes[kept]
        if not len(rows):
            return
        terms, term = np.unique(codes, return_inverse=True)
        first = rows.min()
        width = int(rows.max() - first) + 1
        cell, tf = np.unique(term * width + (rows - first), return_counts=True)
        term, row = np.divmod(cell, width)
        part = terms, np.bincount(term), (row + first).astype(np.int32), np.minimum(tf, MOST).astype(np.uint8)
        self._parts.append(part)

    def finish(self) -> None:
        """Makes one list of documents for each term. The parts are freed one after the other."""
        codes = [part[0] for part in self._parts]
        self._terms = np.unique(np.concatenate(codes)) if codes else np.empty(0, np.uint64)
        self._df = np.zeros(len(self._terms), np.int64)
        for terms, df, _, _ in self._parts:
            self._df[np.searchsorted(self._terms, terms)] += df
        self._starts = np.append(0, np.cumsum(self._df))
        self._rows = np.empty(self._starts[-1], np.int32)
        self._tf = np.empty(self._starts[-1], np.uint8)
        free = self._starts[:-1].copy()
        self._parts.reverse()
        while self._parts:
            terms, df, rows, tf = self._parts.pop()
            place = np.searchsorted(self._terms, terms)
            posting = np.repeat(free[place] - np.cumsum(df) + df, df) + np.arange(len(rows))
            self._rows[posting], self._tf[posting] = rows, tf
            free[place] += df
        mean = max(float(self._lengths.mean()) if self.n else 0.0, 1e-9)
        self._norm = (K1 * (1 - B + B * self._lengths / mean)).astype(np.float32)

    def _places(self, codes: np.ndarray) -> np.ndarray:
        """Where each code is among the terms; -1 where it is not."""
        if not len(self._terms):
            return np.full(codes.shape, -1)
        place = np.minimum(np.searchsorted(self._terms, codes), len(self._terms) - 1)
        return np.where(self._terms[place] == codes, place, -1)

    def add_scores(self, query: np.ndarray, codes: np.ndarray, table: np.ndarray, times: float = 1.0) -> None:
        """Adds the scores of queries, so many times, to a table [queries, documents].

        `query` [words], `codes` [languages, words]: the term that each word of a query is in each language.
        """
        places = self._places(codes)
        df = np.where(places >= 0, self._df[places] if len(self._df) else 0, 0).sum(0)
        idf = (times * np.log1p((self.n - df + 0.5) / (df + 0.5))).astype(np.float32)
        for of_language in places:
            order = np.argsort(of_language, kind="stable")
            for term, words in _runs(of_language, order):
                if term >= 0:
                    rows, weights = self._weights(term)
                    for word in words:
                        table[query[word], rows] += idf[word] * weights

    def _weights(self, term: int) -> tuple[np.ndarray, np.ndarray]:
        """The documents that have a term, and its score in each, without idf."""
        postings = slice(self._starts[term], self._starts[term + 1])
        rows, tf = self._rows[postings], self._tf[postings].astype(np.float32)
        return rows, tf / (tf + self._norm[rows])

    def has(self, codes: np.ndarray, documents: np.ndarray) -> np.ndarray:
        """bool [words, documents]: whether a document has a word; `codes` [languages, words] of the words."""
        found = np.zeros((codes.shape[1], len(documents)), bool)
        for of_language in self._places(codes):
            for word, term in enumerate(of_language):
                if term >= 0:
                    rows = self._rows[self._starts[term] : self._starts[term + 1]]
                    place = np.minimum(np.searchsorted(rows, documents), len(rows) - 1)
                    found[word] |= rows[place] == documents
        return found


def _runs(values: np.ndarray, order: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """(value, the places that have it), value by value; `order` sorts the values."""
    distinct, starts = np.unique(values[order], return_index=True)
    return zip(distinct.tolist(), np.split(order, starts)[1:], strict=True)
