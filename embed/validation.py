"""Recall on held-out training queries, during a training."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TypedDict

import numpy as np
import pyarrow as pa
import torch
import torch.nn.functional as F

from .bm25 import KINDS
from .fusion import Fusion, best_weight, tune_fusion
from .model import EmbeddingModel
from .pairs import QUERY_QUERY, Pairs, Task
from .ranking import Candidates, Scores, candidates_of, known_positives, measures, ranks
from .reader import Export
from .scores import bm25_scores

VALIDATION_PAIRS = 1_000  # at most, of each task
# Random items that are ranked, beside those of the pairs. Among few of them words hardly matter, and a
# training may look better than it is among all. An encoder that is trained has to encode them each time.
VALIDATION_CANDIDATES = 20_000
CANDIDATES_WITH_ENCODER = 5_000
SHARES = tuple(step / 20 for step in range(1, 20))  # of the n-grams: 0.05, 0.1 ... 0.95
TUNING_CANDIDATES = 50_000  # the weight of a fusion depends on how many items there are

TaskValidation = TypedDict("TaskValidation", {"recall@10": float, "bm25 recall@10": float})


def hold_out(pairs: Pairs, share: float) -> tuple[Pairs, Pairs, pa.Array]:
    """(pairs to learn from, held-out pairs, held-out queries): a hash chooses about `share` of the queries.

    No query is held out if nothing would be left to learn from. The held-out queries must be hidden from the
    items (`Export.hidden_queries`): otherwise words alone would find the item that such a query stands on.
    """
    hashed = np.array(
        [
            int.from_bytes(hashlib.blake2b(text.encode(), digest_size=4).digest(), "big") / 2**32
            for text in pairs.queries.to_pylist()
        ]
    )
    held_out = hashed < share
    kept = pairs.select(~held_out, both=True)
    if not kept.tasks:
        kept, held_out = pairs, np.zeros_like(held_out)
    return kept, pairs.select(held_out), pairs.queries.filter(pa.array(held_out))


@dataclass
class _Ranked:
    """The pairs of one task that are ranked each time, and what does not change."""

    task: Task
    candidates: Candidates
    known: np.ndarray
    bm25: float  # Recall@10


class Validation:
    """Ranks the same held-out pairs each time it is called.

    It is made for the learning curve and the choice of a step. It is not a report: there are few candidates.
    """

    def __init__(
        self, export: Export, held_out: Pairs, seed: int, most_candidates: int = VALIDATION_CANDIDATES
    ):
        self.export, self.pairs, self.seed = export, held_out, seed
        self.tasks: dict[str, _Ranked] = {}
        for name, task in held_out.tasks.items():
            if len(task) > VALIDATION_PAIRS:
                some = np.random.default_rng(seed).permutation(len(task))[:VALIDATION_PAIRS]
                task = Task(name, task.queries[some], task.items[some], task.weights[some], task.pool)
            candidates = candidates_of(task, most_candidates, seed)
            known = known_positives([held_out.tasks], name)
            words = bm25_scores(export, held_out, task, candidates, kind=KINDS[-1])
            bm25 = ranks(words, task, candidates, known)
            self.tasks[name] = _Ranked(task, candidates, known, _recall_at_10(bm25))

    def __call__(self, model: EmbeddingModel) -> dict[str, TaskValidation]:
        """{task: recall of the model and of BM25}; empty without held-out pairs."""
        return {
            name: {"recall@10": self._recall(model, ranked), "bm25 recall@10": ranked.bm25}
            for name, ranked in self.tasks.items()
        }

    def tune(self, model: EmbeddingModel) -> Fusion | None:
        """How to fuse the model with BM25, chosen on the task with most held-out pairs of queries and items.

        None without such pairs. Before that it gives the n-grams of a model that has a text encoder the share
        of a score that is best for the same pairs. A training learns a share, too, but among the few items of
        a batch.
        """
        tasks = [ranked.task for name, ranked in self.tasks.items() if name != QUERY_QUERY]
        if not tasks:
            return None
        task = max(tasks, key=len)
        candidates = candidates_of(task, TUNING_CANDIDATES, self.seed)
        known = known_positives([self.pairs.tasks], task.name)
        queries, items = self._embeddings(model, task, candidates)
        if model.towers.encoder:
            before = model.towers.share_of_words
            self._tune_share(model, queries, items, task, candidates, known)
            queries, items = (_with_share(vectors, model, before) for vectors in (queries, items))
        words = {kind: bm25_scores(self.export, self.pairs, task, candidates, kind=kind) for kind in KINDS}
        return tune_fusion(_products(task, queries, items), words, task, candidates, known)

    def _tune_share(
        self,
        model: EmbeddingModel,
        queries: torch.Tensor,
        items: torch.Tensor,
        task: Task,
        candidates: Candidates,
        known: np.ndarray,
    ) -> None:
        towers = model.towers
        first, share = towers.widths[0], towers.share_of_words
        words = _products(task, queries[:, first:] / share, items[:, first:])
        meaning = _products(task, queries[:, :first] / (1 - share), items[:, :first])
        best, _ = best_weight(words, meaning, task, candidates, known, weights=SHARES, near=share)
        model.about["words_share"] = {"learned": round(share, 4), "chosen": best}
        towers.share_of_words = best

    def _recall(self, model: EmbeddingModel, ranked: _Ranked) -> float:
        scores = self._scores(model, ranked.task, ranked.candidates)
        return _recall_at_10(ranks(scores, ranked.task, ranked.candidates, ranked.known))

    def _scores(self, model: EmbeddingModel, task: Task, candidates: Candidates) -> Scores:
        return _products(task, *self._embeddings(model, task, candidates))

    def _embeddings(
        self, model: EmbeddingModel, task: Task, candidates: Candidates
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Of the queries of a task, in ascending order, and of the candidates."""
        queries = model.embed_queries(self._texts(np.unique(task.queries)))
        if task.name == QUERY_QUERY:
            return queries, model.embed_queries(self._texts(candidates.rows))
        return queries, model.embed_items(self.export, candidates.rows)

    def _texts(self, places: np.ndarray) -> list[str]:
        texts: list[str] = self.pairs.queries.take(pa.array(places)).to_pylist()
        return texts


def _with_share(vectors: torch.Tensor, model: EmbeddingModel, before: float) -> torch.Tensor:
    """The embeddings that the model gives now, from those that it gave with another share of the n-grams."""
    first, share = model.towers.widths[0], model.towers.share_of_words
    meaning = vectors[:, :first] * ((1 - share) / (1 - before)) ** 0.5
    words = vectors[:, first:] * (share / before) ** 0.5
    return F.normalize(torch.cat([meaning, words], 1), dim=1)


def _products(task: Task, queries: torch.Tensor, targets: torch.Tensor) -> Scores:
    """The dot products of a task's queries, which `queries` has in ascending order, with `targets`."""
    used = np.unique(task.queries)
    return lambda places: (
        queries[torch.from_numpy(np.searchsorted(used, places)).to(queries.device)] @ targets.T
    )


def _recall_at_10(rank: np.ndarray) -> float:
    return round(float(measures(rank)["recall@10"].mean()), 4)
