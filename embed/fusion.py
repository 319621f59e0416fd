"""How much two scores count in their sum: chosen on held-out training queries, and saved in the model.

The two are the model's and BM25's, or, within the model, those of its n-grams and of its text encoder.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch

from .bm25 import KINDS, Kind
from .errors import EmbedError
from .pairs import Task
from .ranking import Candidates, Scores, measures, ranks
from .scores import standardised

WEIGHTS = tuple(step / 20 for step in range(21))  # 0, 0.05 ... 1
BLOCK_BYTES = 64_000_000  # of scores of one kind that are held at a time


@dataclass(frozen=True)
class Fusion:
    """`weight` times the standardised scores of the model, and 1 - `weight` times those of BM25."""

    kind: Kind  # of BM25
    weight: float  # between 0, BM25 alone, and 1, the model alone
    recall: float | None = None  # Recall@10 of both on the held-out training queries; None: not tuned

    def as_dict(self) -> dict[str, Any]:
        """As a model saves it under "fusion"."""
        return asdict(self)

    @classmethod
    def of(cls, about: Mapping[str, Any]) -> Fusion:
        """The fusion that a model has, from its `about`; half and half with the last of KINDS if it has none.

        Raises EmbedError for one that no training wrote.
        """
        saved = about.get("fusion")
        if saved is None:
            return UNTUNED
        try:
            found = cls(saved["kind"], float(saved["weight"]), saved["recall"])
        except (TypeError, LookupError, ValueError):
            found = None
        if found is None or found.kind not in KINDS or not 0 <= found.weight <= 1:
            raise EmbedError(
                "the model's config.json has a fusion that no training wrote: "
                "copy the model again, or train it again"
            )
        return found


UNTUNED = Fusion("stems and trigrams", 0.5)


def tune_fusion(
    model_scores: Scores,
    words_scores: Mapping[Kind, Scores],
    task: Task,
    candidates: Candidates,
    known: np.ndarray,
) -> Fusion:
    """The kind of BM25 that ranks the pairs of a task best alone, and the weight that is best with it.

    Best is the highest Recall@10. Of equal kinds the later one of KINDS wins, of equal weights the one
    nearest to 0.5, and then the lesser one. `words_scores`: those of each kind of BM25. The pairs must not be
    learned from, and their queries must be hidden from the items. Without pairs: UNTUNED.
    """
    if not len(task) or not words_scores:
        return UNTUNED
    kinds = [kind for kind in KINDS if kind in words_scores]
    alone = {kind: _hits(words_scores[kind], task, candidates, known).sum() for kind in kinds}
    kind = max(kinds, key=lambda kind: (alone[kind], kinds.index(kind)))
    weight, recall = best_weight(
        lambda places: standardised(model_scores(places)),
        lambda places: standardised(words_scores[kind](places)),
        task,
        candidates,
        known,
    )
    return Fusion(kind, weight, recall)


def best_weight(
    a: Scores,
    b: Scores,
    task: Task,
    candidates: Candidates,
    known: np.ndarray,
    *,
    weights: Sequence[float] = WEIGHTS,
    near: float = 0.5,
) -> tuple[float, float]:
    """(the best of `weights`, its Recall@10), where a weight w stands for the scores w * a + (1 - w) * b.

    Of equal weights the one nearest to `near` wins, and then the lesser one. The task must have pairs.
    """
    hits = np.zeros(len(weights))
    queries = np.unique(task.queries)
    block = max(1, BLOCK_BYTES // (4 * max(1, len(candidates.rows))))
    for first in range(0, len(queries), block):
        some = queries[first : first + block]
        mask = np.isin(task.queries, some)
        part = Task(task.name, task.queries[mask], task.items[mask], task.weights[mask], task.pool)
        of_a, of_b = a(some), b(some)
        for place, weight in enumerate(weights):
            table = weight * of_a + (1 - weight) * of_b

            def of_block(
                places: np.ndarray, table: torch.Tensor = table, some: np.ndarray = some
            ) -> torch.Tensor:
                return table[torch.from_numpy(np.searchsorted(some, places)).to(table.device)]

            hits[place] += _hits(of_block, part, candidates, known).sum()
    best = max(range(len(weights)), key=lambda i: (hits[i], -round(abs(weights[i] - near), 6), -i))
    return weights[best], round(float(hits[best]) / len(task), 4)


def _hits(scores: Scores, task: Task, candidates: Candidates, known: np.ndarray) -> np.ndarray:
    """Whether each pair's item [pairs] is among the first ten."""
    return measures(ranks(scores, task, candidates, known))["recall@10"]
