"""Ranking."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from .pairs import QUERY_QUERY, Task

CUTS = (1, 10, 100)
BLOCK_BYTES = 256_000_000  # of scores at a time
Scores = Callable[[np.ndarray], torch.Tensor]  # places of queries -> [queries, index]


@dataclass
class Index:
    """What is ranked: `rows` of items (or places of queries), ascending."""

    rows: np.ndarray

    def places(self, rows: np.ndarray) -> np.ndarray:
        """Where rows stand in the index; -1 for those that are not in it."""
        place = np.minimum(np.searchsorted(self.rows, rows), len(self.rows) - 1)
        return np.where(self.rows[place] == rows, place, -1)


def ranks(scores: Scores, task: Task, index: Index, known: np.ndarray) -> np.ndarray:
    """The rank of each pair's item, 1 for the best; equals share the mean of their ranks.

    `known` are query * 2^32 + item of all positives, ascending.
    """
    found = np.empty(len(task))
    order = np.argsort(task.queries, kind="stable")
    queries, starts = np.unique(task.queries[order], return_index=True)
    ends = np.append(starts[1:], len(order))
    block = max(1, BLOCK_BYTES // (4 * max(1, len(index.rows))))
    for first in range(0, len(queries), block):
        some = queries[first : first + block]
        table = scores(some).float()
        table = torch.where(table.isnan(), -torch.inf, table)  # a score that is no number ranks last
        pairs = order[starts[first] : ends[min(first + block, len(queries)) - 1]]
        line = torch.from_numpy(np.searchsorted(some, task.queries[pairs])).to(table.device)
        own = table[line, torch.from_numpy(index.places(task.items[pairs])).to(table.device)]
        low, high = (
            np.searchsorted(known, some.astype(np.int64) << 32),
            np.searchsorted(known, (some.astype(np.int64) + 1) << 32),
        )
        places = index.places(
            np.concatenate([known[a:b] & 0xFFFFFFFF for a, b in zip(low, high, strict=True)])
        )
        lines = np.repeat(np.arange(len(some)), high - low)
        # Other known positives are left out: not a number is neither higher than any score nor equal to it.
        table[
            torch.from_numpy(lines[places >= 0]).to(table.device),
            torch.from_numpy(places[places >= 0]).to(table.device),
        ] = torch.nan
        for start in range(0, len(pairs), block):
            rows, mine = table[line[start : start + block]], own[start : start + block, None]
            found[pairs[start : start + block]] = (
                (1 + (rows > mine).sum(1) + (rows == mine).sum(1) / 2).cpu().numpy()
            )
    return found


def measures(rank: np.ndarray) -> dict[str, np.ndarray]:
    """Of each rank whether it is within a cut, and its reciprocal: their means are Recall@k and MRR."""
    return {f"recall@{k}": (rank <= k).astype(float) for k in CUTS} | {"mrr": 1 / rank}


def index_of(task: Task, size: int | None, seed: int = 0) -> Index:
    """All items of the task's kind, or `size` random ones and those of the pairs."""
    if size is None or size >= len(task.pool):
        return Index(task.pool)
    return Index(np.union1d(np.random.default_rng(seed).choice(task.pool, size, replace=False), task.items))


def known_positives(tasks: Sequence[Mapping[str, Task]], name: str) -> np.ndarray:
    """query * 2^32 + item of the pairs of a task in several splits that share one list of queries, ascending;
    of query pairs both ways, and each query with itself.
    """
    known = np.concatenate([some[name].known for some in tasks if name in some])
    if name == QUERY_QUERY:
        queries = np.unique(np.concatenate([known >> 32, known & 0xFFFFFFFF]))
        known = np.concatenate([known, (known & 0xFFFFFFFF) << 32 | known >> 32, queries << 32 | queries])
    return np.unique(known)
