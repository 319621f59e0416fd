"""Batches of pairs and random negatives.

A batch depends on nothing but the seed, the step and the number of the process. So a training that was
stopped goes on with exactly the batches that it would have had.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from .errors import EmbedError
from .hard_negatives import HardNegatives
from .inputs import Inputs, Queries
from .pairs import QUERY_PIN, QUERY_PRODUCT, QUERY_QUERY, Pairs, Task
from .reader import Export

# The tasks' weights in a batch: the mix of the published OmniSearchSage code.
MIX = {QUERY_PIN: 8.0, QUERY_PRODUCT: 4.0, QUERY_QUERY: 2.0}
# Part of the seeds: each purpose has its own stream of random numbers.
_NEGATIVES, _SWAPS, _HARD = 1, 2, 3


@dataclass
class TaskBatch:
    """The pairs of one task in a batch, and their random negatives."""

    queries: Queries  # [pairs]
    query_keys: torch.Tensor  # int64 [pairs]
    positives: Any  # Items; for query-query Queries
    positive_keys: torch.Tensor  # int64 [pairs]: rows of items, or places of queries
    negatives: Any  # like `positives`
    negative_keys: torch.Tensor  # int64 [negatives]

    def to(self, device: torch.device) -> TaskBatch:
        """The same batch on a device."""

        return TaskBatch(**{name: value.to(device) for name, value in vars(self).items()})


class Batches(torch.utils.data.Dataset[dict[str, TaskBatch]]):
    """Element `i` is the batch {task: TaskBatch} of step `i`, or one process's even part of it."""

    def __init__(
        self,
        export: Export,
        pairs: Pairs,
        inputs: Inputs,
        *,
        shares: Mapping[str, int],
        steps: int,
        seed: int = 0,
        process: int = 0,
        processes: int = 1,
        keep_own_query: bool = False,
        random_negatives: int = 4,
        hard_negatives: tuple[int, Mapping[str, HardNegatives]] = (0, {}),
    ):
        """`shares` {task: pairs of a step, of all processes together}, as made by `batch_shares`.

        The query of a pair is left out of its item's engaged queries, because it would teach the model to
        look for the query itself. `keep_own_query` keeps it. `random_negatives` and `hard_negatives` are
        drawn for each pair, the latter from a list of such items.
        """
        self.export, self.pairs, self.inputs = export, pairs, inputs
        self.random_negatives, self.hard_negatives = random_negatives, hard_negatives
        self.shares, self.steps, self.seed, self.keep_own_query = shares, steps, seed, keep_own_query
        self.process, self.processes = process, processes
        self._orders: dict[tuple[str, int], np.ndarray] = {}

    def __len__(self) -> int:
        return self.steps

    def __getitem__(self, step: int) -> dict[str, TaskBatch]:
        return {name: self._pairs(self.pairs.tasks[name], size, step) for name, size in self.shares.items()}

    def _pairs(self, task: Task, size: int, step: int) -> TaskBatch:
        """The next `size` pairs of a task, in the order of its epoch, and negatives from its pool."""
        numbers = np.arange(step * size, (step + 1) * size)
        epochs = numbers // len(task)
        pair = np.concatenate(
            [
                self._order(task, epoch)[numbers[epochs == epoch] % len(task)]
                for epoch in np.unique(epochs).tolist()
            ]
        )
        rng = np.random.default_rng([_NEGATIVES, self.seed, step, size, list(MIX).index(task.name)])
        negatives = task.pool[rng.integers(len(task.pool), size=size * self.random_negatives)]
        n_hard, lists = self.hard_negatives
        if n_hard and task.name in lists:
            rng = np.random.default_rng([_HARD, self.seed, step, size, list(MIX).index(task.name)])
            hard = lists[task.name].draw(task.queries[pair], n_hard, rng)
            # A process gets the random and the hard ones of its own pairs.
            parts = [self._part(negatives), self._part(hard.reshape(-1))]
            negatives = np.concatenate(parts)
        else:
            negatives = self._part(negatives)
        pair = self._part(pair)
        queries, items = task.queries[pair], task.items[pair]
        positive_batch: Any
        negative_batch: Any
        if task.name == QUERY_QUERY:
            # The two queries of a pair have no order. Half of the pairs are swapped.
            swapped = self._part(np.random.default_rng([_SWAPS, self.seed, step]).random(size)) < 0.5
            queries, items = np.where(swapped, items, queries), np.where(swapped, queries, items)
            positive_batch, negative_batch = self._queries(items), self._queries(negatives)
        else:
            own = None if self.keep_own_query else self.pairs.queries.take(pa.array(queries))
            positive_batch = self.inputs.items(self.export, items, own)
            negative_batch = self.inputs.items(self.export, negatives)
        query_keys, item_keys, negative_keys = map(_keys, (queries, items, negatives))
        return TaskBatch(
            self._queries(queries), query_keys, positive_batch, item_keys, negative_batch, negative_keys
        )

    def _order(self, task: Task, epoch: int) -> np.ndarray:
        """The order of an epoch. Only those of the last two epochs are kept."""
        key = task.name, epoch
        if key not in self._orders:
            self._orders = {
                other: order
                for other, order in self._orders.items()
                if other[0] != task.name or other[1] == epoch - 1
            }
            self._orders[key] = task.order(self.seed, epoch)
        return self._orders[key]

    def _part(self, numbers: np.ndarray) -> np.ndarray:
        """This process's part of the whole batch."""
        size = len(numbers) // self.processes
        return numbers[self.process * size : (self.process + 1) * size]

    def _queries(self, places: np.ndarray) -> Queries:
        return self.inputs.queries(self.pairs.queries.take(pa.array(places)).to_pylist())


def _keys(numbers: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(numbers.astype(np.int64))


def batch_shares(pairs: Pairs, batch: int, processes: int, weights: Mapping[str, float]) -> dict[str, int]:
    """{task: pairs in a batch}: `batch` pairs are shared out by the weights of the tasks.

    Each number is a multiple of `processes`, and at least that. Raises EmbedError if no task of pairs has a
    weight above 0.
    """
    weights = {name: weights.get(name, 0.0) for name in pairs.tasks}
    if not any(weight > 0 for weight in weights.values()):
        raise EmbedError("no task with pairs has a weight above 0: see --mix")
    return {
        name: max(1, round(batch * weight / sum(weights.values()) / processes)) * processes
        for name, weight in weights.items()
        if weight > 0
    }


def pairs_per_step(shares: Mapping[str, int]) -> int:
    """How many pairs a batch has."""
    return sum(shares.values())


def steps_of(epochs: float, pairs: Pairs, shares: Mapping[str, int]) -> int:
    """How many steps see as many pairs as `epochs` passes over all pairs do; at least 1."""
    all_pairs = sum(len(pairs.tasks[name]) for name in shares)
    return max(1, math.ceil(epochs * all_pairs / pairs_per_step(shares)))
