"""Batches of pairs and random negatives.

A batch depends on nothing but the seed, the step and the number of the process. So a training that was
stopped goes on with exactly the batches that it would have had.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from ..filters.text import normalise
from .errors import EmbedError
from .ngrams import MAX_CHARACTERS
from .pairs import OWN_WORDS, QUERY_PIN, QUERY_PRODUCT, QUERY_QUERY, Pairs, Task
from .reader import Export
from .vocabulary import Vocabulary

# The tasks' weights in a batch: the mix of the published OmniSearchSage code.
MIX = {QUERY_PIN: 8.0, QUERY_PRODUCT: 4.0, QUERY_QUERY: 2.0}
# The weight of own-words for an encoder trained from scratch. The task teaches it the words of the items.
OWN_WORDS_WEIGHT = 4.0
MOST_OWN_WORDS = 5  # in a query of own-words
RANDOM_NEGATIVES = 4  # for each pair of a batch, as published
# Part of the seeds: each purpose has its own stream of random numbers.
_NEGATIVES, _SWAPS, _OWN_WORDS, _WORDS = 1, 2, 3, 4

Tokenise = Callable[[list[str]], tuple[torch.Tensor, torch.Tensor]]  # texts to ids and attention mask


@dataclass
class TaskBatch:
    """The pairs of one task in a batch, and their random negatives."""

    queries: tuple[torch.Tensor, torch.Tensor]  # ids and attention mask [pairs, tokens]
    query_keys: torch.Tensor  # int64 [pairs]
    positives: Any  # Items; for query-query ids and mask, like `queries`
    positive_keys: torch.Tensor  # int64 [pairs]: rows of items, or places of queries
    negatives: Any  # like `positives`
    negative_keys: torch.Tensor  # int64 [negatives]

    def to(self, device: torch.device) -> TaskBatch:
        """The same batch on a device."""

        def moved(value: Any) -> Any:
            return tuple(part.to(device) for part in value) if isinstance(value, tuple) else value.to(device)

        return TaskBatch(**{name: moved(value) for name, value in vars(self).items()})


class Batches(torch.utils.data.Dataset[dict[str, TaskBatch]]):
    """Element `i` is the batch {task: TaskBatch} of step `i`, or one process's even part of it."""

    def __init__(
        self,
        export: Export,
        pairs: Pairs,
        vocabulary: Vocabulary,
        tokenise: Tokenise,
        *,
        shares: Mapping[str, int],
        steps: int,
        seed: int = 0,
        process: int = 0,
        processes: int = 1,
        keep_own_query: bool = False,
    ):
        """`shares` {task: pairs of a step, of all processes together}, as made by `batch_shares`.

        The query of a pair is left out of its item's engaged queries, because it would teach the model to
        look for the query itself. `keep_own_query` keeps it.
        """
        self.export, self.pairs, self.vocabulary, self.tokenise = export, pairs, vocabulary, tokenise
        self.shares, self.steps, self.seed, self.keep_own_query = shares, steps, seed, keep_own_query
        self.process, self.processes = process, processes
        self._orders: dict[tuple[str, int], np.ndarray] = {}

    def __len__(self) -> int:
        return self.steps

    def __getitem__(self, step: int) -> dict[str, TaskBatch]:
        return {
            name: self._own_words(size, step)
            if name == OWN_WORDS
            else self._pairs(self.pairs.tasks[name], size, step)
            for name, size in self.shares.items()
        }

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
        negatives = task.pool[rng.integers(len(task.pool), size=size * RANDOM_NEGATIVES)]
        pair, negatives = self._part(pair), self._part(negatives)
        queries, items = task.queries[pair], task.items[pair]
        positive_batch: Any
        negative_batch: Any
        if task.name == QUERY_QUERY:
            # The two queries of a pair have no order. Half of the pairs are swapped.
            swapped = self._part(np.random.default_rng([_SWAPS, self.seed, step]).random(size)) < 0.5
            queries, items = np.where(swapped, items, queries), np.where(swapped, queries, items)
            positive_batch, negative_batch = self._tokens(items), self._tokens(negatives)
        else:
            own = None if self.keep_own_query else self.pairs.queries.take(pa.array(queries))
            positive_batch = self.export.items(items, self.vocabulary, own)
            negative_batch = self.export.items(negatives, self.vocabulary)
        query_keys, item_keys, negative_keys = map(_keys, (queries, items, negatives))
        return TaskBatch(
            self._tokens(queries), query_keys, positive_batch, item_keys, negative_batch, negative_keys
        )

    def _own_words(self, size: int, step: int) -> TaskBatch:
        """Random items, and for each a query made of words from one of its texts."""
        rng = np.random.default_rng([_OWN_WORDS, self.seed, step, size])
        pool = self.export.rows_with_text
        rows, negatives = (
            self._part(pool[rng.integers(len(pool), size=n)]) for n in (size, size * RANDOM_NEGATIVES)
        )
        table = self.export.rows[rows]
        # Each place in the whole batch has its own generator: the words do not depend on the process.
        queries = [
            some_words(fields, np.random.default_rng([_WORDS, self.seed, step, self.process * len(rows) + i]))
            for i, fields in enumerate(self._texts_of_items(rows, table))
        ]
        positive_items = self.export.items(rows, self.vocabulary, table=table)
        negative_items = self.export.items(negatives, self.vocabulary)
        keys, negative_keys = _keys(rows), _keys(negatives)
        return TaskBatch(self.tokenise(queries), keys, positive_items, keys, negative_items, negative_keys)

    def _texts_of_items(self, rows: np.ndarray, table: pa.Table) -> list[list[list[str]]]:
        """For each item a list of the fields that it has, each with its texts."""
        items: list[list[list[str]]] = [[] for _ in rows]
        for column, parents in self.export.texts(rows, self.export.fields, table=table).values():
            texts_of_field: dict[int, list[str]] = {}
            for parent, text in zip(parents.tolist(), column.to_pylist(), strict=True):
                if text:
                    texts_of_field.setdefault(parent, []).append(text)
            for parent, texts in texts_of_field.items():
                items[parent].append(texts)
        return items

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

    def _tokens(self, places: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
        return self.tokenise(self.pairs.queries.take(pa.array(places)).to_pylist())


def _keys(numbers: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(numbers.astype(np.int64))


def some_words(fields: list[list[str]], rng: np.random.Generator) -> str:
    """One to five words, in their order, from one text of one field. Empty for an item without texts."""
    if not fields:
        return ""
    texts = fields[rng.integers(len(fields))]
    words = normalise(texts[rng.integers(len(texts))][:MAX_CHARACTERS]).split()
    n = min(int(rng.integers(1, MOST_OWN_WORDS + 1)), len(words))
    return " ".join(words[i] for i in sorted(rng.permutation(len(words))[:n].tolist()))


def batch_shares(pairs: Pairs, batch: int, processes: int, weights: Mapping[str, float]) -> dict[str, int]:
    """{task: pairs in a batch}: `batch` pairs are shared out by the weights of the tasks.

    Each number is a multiple of `processes`, and at least that. Raises EmbedError if no task of pairs has a
    weight above 0.
    """
    weights = {name: weights.get(name, 0.0) for name in (*pairs.tasks, OWN_WORDS)}
    if not any(weights[name] > 0 for name in pairs.tasks):
        raise EmbedError("no task with pairs has a weight above 0: see --mix")
    return {
        name: max(1, round(batch * weight / sum(weights.values()) / processes)) * processes
        for name, weight in weights.items()
        if weight > 0
    }


def pairs_per_step(shares: Mapping[str, int]) -> int:
    """How many pairs of an export a batch has. Those of own-words do not count."""
    return sum(size for name, size in shares.items() if name != OWN_WORDS)


def steps_of(epochs: float, pairs: Pairs, shares: Mapping[str, int]) -> int:
    """How many steps see as many pairs as `epochs` passes over all pairs do; at least 1."""
    all_pairs = sum(len(pairs.tasks[name]) for name in shares if name != OWN_WORDS)
    return max(1, math.ceil(epochs * all_pairs / pairs_per_step(shares)))
