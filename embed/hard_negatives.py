"""Hard negatives: items that the words of a query find, and that nobody chose for it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from .pairs import QUERY_QUERY, Pairs
from .ranking import candidates_of
from .reader import Export
from .scores import bm25_scores

LISTED = 50  # items for each query
SKIPPED = 5  # of the first ones: an item that ranks there is often right, only nobody has clicked it yet
QUERIES_AT_ONCE = 256


@dataclass
class HardNegatives:
    """The hard negatives of each query of one task."""

    places: np.ndarray  # [queries], ascending: their places in `Pairs.queries`
    rows: np.ndarray  # int64 [queries, LISTED]: rows of the export

    def draw(self, places: np.ndarray, n: int, rng: np.random.Generator) -> np.ndarray:
        """`n` rows for each query: [queries, n]."""
        lines = np.searchsorted(self.places, places)
        return self.rows[lines[:, None], rng.integers(self.rows.shape[1], size=(len(places), n))]


def mine(
    export: Export, pairs: Pairs, *, listed: int = LISTED, skipped: int = SKIPPED
) -> dict[str, HardNegatives]:
    """{task: its hard negatives}, by BM25 over the items' texts. Tasks with too few items have none.

    Each query gets the `listed` best items after the first `skipped` that nobody chose for it.
    """
    mined = {}
    for name, task in pairs.tasks.items():
        if name == QUERY_QUERY or len(task.pool) < 4 * (listed + skipped):
            continue
        candidates, places = candidates_of(task, None), np.unique(task.queries)
        scores = bm25_scores(export, pairs, task, candidates)
        rows = np.empty((len(places), listed), np.int64)
        for start in range(0, len(places), QUERIES_AT_ONCE):
            some = places[start : start + QUERIES_AT_ONCE]
            table = scores(some)
            line = np.searchsorted(some, task.queries)
            own = (line < len(some)) & (some[np.minimum(line, len(some) - 1)] == task.queries)
            table[torch.from_numpy(line[own]), torch.from_numpy(candidates.places(task.items[own]))] = -1
            best = table.topk(listed + skipped, dim=1).indices[:, skipped:]
            rows[start : start + len(some)] = candidates.rows[best.numpy()]
        mined[name] = HardNegatives(places, rows)
    return mined
