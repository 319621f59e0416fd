"""Validation."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from .model import Model
from .pairs import QUERY_QUERY, Pairs, Task
from .ranking import Index, index_of, known_positives, measures, ranks
from .reader import Export
from .scores import bm25_scores, encode_items, encode_queries

VALIDATION_PAIRS = 1_000  # of each task; of the training pairs, by their queries
VALIDATION_INDEX = 5_000


def split_validation(pairs: Pairs, share: float) -> tuple[Pairs, Pairs, pa.Array]:
    """Training pairs without, and with, the queries that a hash picks, and these: about `share` of all, none
    where nothing would be left to learn from.

    On an item (`Export.hidden`) they would be found by words alone, and their rank would say nothing.
    """
    hashed = np.array(
        [
            int.from_bytes(hashlib.blake2b(text.encode(), digest_size=4).digest(), "big") / 2**32
            for text in pairs.queries.to_pylist()
        ]
    )
    held = hashed < share
    kept = pairs.only(~held, both=True)
    if not kept.tasks:
        kept, held = pairs, np.zeros_like(held)
    return kept, pairs.only(held), pairs.queries.filter(pa.array(held))


class Validation:
    """Held-out queries among some thousand items, ranked again and again: for the curve and the choice of a
    step, not for a report.
    """

    def __init__(self, export: Export, pairs: Pairs, seed: int):
        self.export, self.pairs = export, pairs
        # of each task its pairs, what they are ranked among, what is known, BM25's recall
        self.ranked: dict[str, tuple[Task, Index, np.ndarray, float]] = {}
        for name, task in pairs.tasks.items():
            if len(task) > VALIDATION_PAIRS:
                some = np.random.default_rng(seed).permutation(len(task))[:VALIDATION_PAIRS]
                task = Task(name, task.queries[some], task.items[some], task.weights[some], task.pool)
            index, known = index_of(task, VALIDATION_INDEX, seed), known_positives([pairs.tasks], name)
            self.ranked[name] = (
                task,
                index,
                known,
                _recall_at_10(ranks(bm25_scores(export, pairs, task, index), task, index, known)),
            )

    def __call__(self, model: Model, device: torch.device | str) -> dict[str, dict[str, float]]:
        """{task: {"recall@10", "bm25 recall@10"}}."""
        if not self.ranked:
            return {}
        found = {}
        for name, (task, index, known, bm25) in self.ranked.items():
            asked = np.unique(task.queries)
            queries = self._encoded(model, asked, device)
            candidates = (
                self._encoded(model, index.rows, device)
                if name == QUERY_QUERY
                else encode_items(model, self.export, index.rows, device=device)
            )

            def scores(
                some: np.ndarray, queries: Any = queries, asked: Any = asked, candidates: Any = candidates
            ) -> Any:
                return (
                    queries[torch.from_numpy(np.searchsorted(asked, some)).to(queries.device)] @ candidates.T
                )

            ours = ranks(scores, task, index, known)
            found[name] = {"recall@10": _recall_at_10(ours), "bm25 recall@10": bm25}
        return found

    def _encoded(self, model: Model, places: np.ndarray, device: torch.device | str) -> torch.Tensor:
        texts = self.pairs.queries.take(pa.array(places))
        return encode_queries(
            model, (texts[i : i + 1024].to_pylist() for i in range(0, len(texts), 1024)), device
        )


def _recall_at_10(rank: np.ndarray) -> float:
    return round(float(measures(rank)["recall@10"].mean()), 4)
