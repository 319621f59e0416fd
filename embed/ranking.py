"""Exact ranks of the right items among all candidates, and the measures made of them: Recall@k and MRR."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from .pairs import QUERY_QUERY, Task

CUTS = (1, 10, 100)  # the k of Recall@k
BLOCK_BYTES = 256_000_000  # of scores that are computed at a time

# Places of queries [n] -> scores [n, candidates].
Scores = Callable[[np.ndarray], torch.Tensor]


@dataclass
class Candidates:
    """What pairs are ranked among: rows of items, or places of queries, ascending."""

    rows: np.ndarray

    def places(self, rows: np.ndarray) -> np.ndarray:
        """The place of each row among the candidates; -1 for rows that are not candidates."""
        place = np.minimum(np.searchsorted(self.rows, rows), len(self.rows) - 1)
        return np.where(self.rows[place] == rows, place, -1)


def candidates_of(task: Task, size: int | None, seed: int = 0) -> Candidates:
    """All items of the task's kind. With `size`: so many random ones, and the items of the pairs."""
    if size is None or size >= len(task.pool):
        return Candidates(task.pool)
    chosen = np.random.default_rng(seed).choice(task.pool, size, replace=False)
    return Candidates(np.union1d(chosen, task.items))


def known_positives(tasks_of_splits: Sequence[Mapping[str, Task]], name: str) -> np.ndarray:
    """query * 2^32 + item of all pairs of the task `name`, ascending.

    The splits must share one list of queries.
    For query-query it has each pair in both directions, and each query with itself.
    """
    known = np.concatenate([tasks[name].known for tasks in tasks_of_splits if name in tasks])
    if name == QUERY_QUERY:
        queries = np.unique(np.concatenate([known >> 32, known & 0xFFFFFFFF]))
        known = np.concatenate([known, (known & 0xFFFFFFFF) << 32 | known >> 32, queries << 32 | queries])
    return np.unique(known)


def ranks(scores: Scores, task: Task, candidates: Candidates, known: np.ndarray) -> np.ndarray:
    """The rank [pairs] of each pair's item among the candidates, 1 for the best.

    A rank counts the candidates with a higher score, and half of those with the same score. The query's other
    positives, listed in `known` (see `known_positives`), are left out. A score that is not a number ranks
    last.
    """
    ranked = np.empty(len(task))
    order = np.argsort(task.queries, kind="stable")
    queries, starts = np.unique(task.queries[order], return_index=True)
    ends = np.append(starts[1:], len(order))
    block = max(1, BLOCK_BYTES // (4 * max(1, len(candidates.rows))))
    for first in range(0, len(queries), block):
        some_queries = queries[first : first + block]
        table = scores(some_queries).float()
        table = torch.where(table.isnan(), -torch.inf, table)
        pairs = order[starts[first] : ends[min(first + block, len(queries)) - 1]]
        line = torch.from_numpy(np.searchsorted(some_queries, task.queries[pairs])).to(table.device)
        own = table[line, torch.from_numpy(candidates.places(task.items[pairs])).to(table.device)]
        _leave_out(table, some_queries, candidates, known)
        for start in range(0, len(pairs), block):
            rows, mine = table[line[start : start + block]], own[start : start + block, None]
            ranked[pairs[start : start + block]] = (
                (1 + (rows > mine).sum(1) + (rows == mine).sum(1) / 2).cpu().numpy()
            )
    return ranked


def _leave_out(table: torch.Tensor, queries: np.ndarray, candidates: Candidates, known: np.ndarray) -> None:
    """Sets the scores of known positives in the table [queries, candidates] to NaN.

    NaN is neither higher than any score nor equal to one, so that `ranks` does not count it.
    """
    low = np.searchsorted(known, queries.astype(np.int64) << 32)
    high = np.searchsorted(known, (queries.astype(np.int64) + 1) << 32)
    items = np.concatenate([known[a:b] & 0xFFFFFFFF for a, b in zip(low, high, strict=True)])
    places = candidates.places(items)
    lines = np.repeat(np.arange(len(queries)), high - low)
    table[
        torch.from_numpy(lines[places >= 0]).to(table.device),
        torch.from_numpy(places[places >= 0]).to(table.device),
    ] = torch.nan


def measures(rank: np.ndarray) -> dict[str, np.ndarray]:
    """{"recall@k" or "mrr": [ranks]}: whether each rank is at most k, and its reciprocal.

    The means are Recall@k and the mean reciprocal rank.
    """
    return {f"recall@{k}": (rank <= k).astype(float) for k in CUTS} | {"mrr": 1 / rank}
