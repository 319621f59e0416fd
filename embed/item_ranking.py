"""Ranks the items of an export for a query: by meaning, by words, or by both fused."""

from __future__ import annotations

from typing import Literal

import numpy as np
import pyarrow.compute as pc
import torch

from .hits import Ranked
from .index import Index, best
from .reader import Export

DEPTH = 200  # with an approximate index: so many of the best by meaning, and by words, are fused

By = Literal["both", "meaning", "words"]


class ItemRanking:
    """The vectors of an export's items, by the rows of the export."""

    def __init__(self, export: Export, index: Index, weight: float):
        """`weight`: of meaning in the fused score; that of words is 1 - `weight`."""
        self.index, self.weight, n = index, weight, len(export)
        # An item of the export may have no vector yet, and one of the index may have left the export.
        found = pc.fill_null(pc.index_in(export.pin_ids, value_set=index.pin_ids), -1)
        self.place = found.to_numpy(zero_copy_only=False).astype(np.int64)  # [rows]: in the index, or -1
        self.row = np.full(len(index), -1)  # [items of the index]: in the export, or -1
        self.row[self.place[self.place >= 0]] = np.flatnonzero(self.place >= 0)
        self.same_order = len(index) == n and bool((self.place == np.arange(n)).all())
        kinds = {"pin": np.flatnonzero(~export.products), "product": np.flatnonzero(export.products)}
        self.rows_of_kind = {name: rows for name, rows in kinds.items() if len(rows)}
        self._moments: dict[str, tuple[torch.Tensor, torch.Tensor]] = {}

    def best(
        self,
        kind: str,
        by: By,
        k: int,
        vector: torch.Tensor,
        meaning: np.ndarray | None,
        words: np.ndarray | None,
        allowed: np.ndarray,
    ) -> Ranked:
        """The best `k` allowed items of a kind. `meaning` and `words` are the scores of all items."""
        rows, near = self.rows_of_kind[kind], None
        if meaning is not None:
            near = meaning[rows]
        elif by != "words":
            rows = self._candidates(kind, by, k, vector, words, allowed)
            near = self.meaning(vector, rows)
        spoken = None if words is None else words[rows]
        if words is None or spoken is None:
            total, share = np.asarray(near), np.ones(len(rows))
        elif near is None:
            total, share = np.where(spoken > 0, spoken, np.nan), np.zeros(len(rows))
        else:
            mean, deviation = self._spread(kind, vector) if meaning is None else _spread_of(near)
            of_meaning = np.nan_to_num(self.weight * (near - mean) / deviation)
            mean, deviation = _spread_of(words[self.rows_of_kind[kind]])
            of_words = (1 - self.weight) * (spoken - mean) / deviation
            total, share = of_meaning + of_words, _share(of_meaning, of_words)
        chosen = best(np.where(allowed[rows], total, np.nan), k)
        return Ranked(
            rows[chosen],
            total[chosen],
            None if near is None else near[chosen],
            None if spoken is None else spoken[chosen],
            share[chosen],
        )

    def meaning(self, vector: torch.Tensor, rows: np.ndarray | None = None) -> np.ndarray:
        """The dot products [rows] of a query and items; NaN for an item without a vector."""
        places = self.place if rows is None else self.place[rows]
        if rows is None and self.same_order:
            return self.index.scores(vector)
        scores = np.full(len(places), np.nan, np.float32)
        scores[places >= 0] = self.index.scores(vector, places[places >= 0])
        return scores

    def _candidates(
        self, kind: str, by: By, k: int, vector: torch.Tensor, words: np.ndarray | None, allowed: np.ndarray
    ) -> np.ndarray:
        """With an approximate index: the rows of the best items of a kind by meaning, and by words."""
        wanted = np.zeros(len(self.place), bool)
        wanted[self.rows_of_kind[kind]] = True
        wanted &= allowed
        in_index = (self.row >= 0) & wanted[self.row]
        depth = k if by == "meaning" else max(k, DEPTH)
        rows = self.row[self.index.search(vector[None], depth, in_index)[1][0]]
        if words is not None:
            rows = np.union1d(rows, best(np.where(wanted & (words > 0), words, np.nan), depth))
        return np.sort(rows)

    def _spread(self, kind: str, vector: torch.Tensor) -> tuple[float, float]:
        """(mean, standard deviation) of the dot products of a query and all items of a kind.

        They follow from the mean of the items' vectors and of the products of two of their numbers, so that
        no score has to be computed.
        """
        if kind not in self._moments:
            of_kind = np.zeros(len(self.place), bool)
            of_kind[self.rows_of_kind[kind]] = True
            self._moments[kind] = self.index.moments((self.row >= 0) & of_kind[self.row])
        mean, products = self._moments[kind]
        of_query = float(mean @ vector)
        return of_query, max(float(vector @ products @ vector) - of_query**2, 1e-18) ** 0.5


def _spread_of(scores: np.ndarray) -> tuple[float, float]:
    """(mean, standard deviation) of scores, without those that are not numbers."""
    if np.isnan(scores).all():
        return 0.0, 1.0
    return float(np.nanmean(scores)), max(float(np.nanstd(scores)), 1e-9)


def _share(of_meaning: np.ndarray, of_words: np.ndarray) -> np.ndarray:
    """The share of meaning in each fused score, from 0 to 1. A part below the mean of all items has none."""
    a, b = np.maximum(of_meaning, 0), np.maximum(of_words, 0)
    return np.where(a + b > 0, a / np.maximum(a + b, 1e-12), 0.5)
