"""Exact ranks of the right items among all candidates, and what is measured: Recall@k, MRR, NDCG@k."""

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


def top(scores: Scores, queries: np.ndarray, candidates: Candidates, known: np.ndarray, k: int) -> np.ndarray:
    """The rows [queries, k] of the best k candidates of each query, the best first; -1 where there are fewer.

    `queries`: places, ascending. Positives that `known` lists for a query are never shown, nor is a score
    that is not a number. Of candidates with equal scores the first ones win.
    """
    best = np.full((len(queries), k), -1)
    block = max(1, BLOCK_BYTES // (4 * max(1, len(candidates.rows))))
    for first in range(0, len(queries), block):
        table = scores(queries[first : first + block]).float()
        _leave_out(table, queries[first : first + block], candidates, known)
        table = torch.where(table.isnan(), -torch.inf, table)
        least = table.topk(min(k, table.shape[1]), 1).values[:, -1:]  # the lowest score that may be shown
        line, place = torch.where((table >= least) & (table > -torch.inf))
        value = table[line, place].cpu().numpy()
        lines, places = line.cpu().numpy(), place.cpu().numpy()
        order = np.lexsort((places, -value, lines))
        lines, places = lines[order], places[order]
        rank = np.arange(len(lines)) - np.searchsorted(lines, lines)
        shown = rank < k
        best[first + lines[shown], rank[shown]] = candidates.rows[places[shown]]
    return best


@dataclass(frozen=True)
class Gains:
    """How good an item is for a query, for NDCG. An item that nobody judged for the query gains 0."""

    keys: np.ndarray  # query * 2^32 + item, ascending, each once
    gains: np.ndarray  # [keys], at least 0

    @classmethod
    def of(cls, queries: np.ndarray, items: np.ndarray, gains: np.ndarray) -> Gains:
        """Of judgements: the place of the query, the row of the item, and the gain of each; repeated ones
        add up."""
        keys, place = np.unique(queries.astype(np.int64) << 32 | items, return_inverse=True)
        return cls(keys, np.bincount(place, gains, len(keys)))

    def __call__(self, queries: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """The gains [queries, k] of the rows [queries, k]; of the row -1 it is 0."""
        wanted = queries.astype(np.int64)[:, None] << 32 | np.maximum(rows, 0)
        if not len(self.keys):
            return np.zeros(rows.shape)
        place = np.minimum(np.searchsorted(self.keys, wanted), len(self.keys) - 1)
        return np.where((rows >= 0) & (self.keys[place] == wanted), self.gains[place], 0.0)

    def best(self, queries: np.ndarray, k: int) -> np.ndarray:
        """The k highest gains [queries, k] of each query, the highest first; zeros where it has fewer."""
        query = self.keys >> 32
        order = np.lexsort((-self.gains, query))
        rank = np.arange(len(order)) - np.searchsorted(query, query)
        table, kept = np.zeros((len(queries), k)), (rank < k) & np.isin(query, queries)
        table[np.searchsorted(queries, query[kept]), rank[kept]] = self.gains[order][kept]
        return table


def ndcg(shown: np.ndarray, queries: np.ndarray, gains: Gains) -> np.ndarray:
    """NDCG [queries] of the rows [queries, k] that are shown, the best first; see `top`.

    It is the sum of gain / log2(1 + rank) over the shown rows, divided by that of the best order. NaN for a
    query without a judged item that gains more than 0. `queries`: places, ascending.
    """
    k = shown.shape[1]
    discount = 1 / np.log2(np.arange(k) + 2)
    highest = gains.best(queries, k) @ discount
    found = gains(queries, shown) @ discount
    return np.where(highest > 0, found / np.where(highest > 0, highest, 1), np.nan)


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
