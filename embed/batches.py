"""Batches of pairs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from ..filters.text import normalise
from .controls import MOST_OWN_WORDS
from .errors import EmbedError
from .ngrams import MAX_CHARACTERS
from .pairs import OWN_WORDS, QUERY_PIN, QUERY_PRODUCT, QUERY_QUERY, Pairs, Task
from .reader import Export
from .vocabulary import Vocabulary

# shares of a batch, after the mix of the published code
MIX = {QUERY_PIN: 8.0, QUERY_PRODUCT: 4.0, QUERY_QUERY: 2.0}
OWN_WORDS_SHARE = 4.0  # of an encoder that knows no words yet: the task that teaches it those of the items
RANDOM_NEGATIVES = 4  # for each pair of a batch, as published
# what random numbers are drawn for: a stream of its own for each
_NEGATIVES, _SWAPS, _OWN_WORDS, _WORDS = 1, 2, 3, 4
Tokenise = Callable[[list[str]], tuple[torch.Tensor, torch.Tensor]]  # texts to ids and attention mask


@dataclass
class TaskBatch:
    """Pairs of one task.

    `positives` and `negatives` are Items, or (ids, mask) of queries where the task is query-query.
    """

    queries: tuple[torch.Tensor, torch.Tensor]
    query_keys: torch.Tensor
    positives: Any
    positive_keys: torch.Tensor
    negatives: Any
    negative_keys: torch.Tensor


class Batches(torch.utils.data.Dataset[dict[str, TaskBatch]]):
    """Item `i` is the batch of step `i` as rank `rank` of `ranks` sees it: its even part of the pairs and of
    the negatives of the whole batch.

    `shares` {task: pairs of a step}, of all ranks. `keep_own_query`: leave a pair's query among its item's
    engaged queries. It would teach to look for the query itself, and is taken out otherwise.
    """

    def __init__(
        self, export: Export, pairs: Pairs, vocabulary: Vocabulary, tokenise: Tokenise, *, shares: Mapping[str, int], steps: int, seed: int = 0,
        rank: int = 0, ranks: int = 1, keep_own_query: bool = False,
    ):  # fmt: skip
        self.export, self.pairs, self.vocabulary, self.tokenise, self.shares = (
            export,
            pairs,
            vocabulary,
            tokenise,
            shares,
        )
        self.steps, self.seed, self.rank, self.ranks, self.keep_own_query = (
            steps,
            seed,
            rank,
            ranks,
            keep_own_query,
        )
        self._orders: dict[tuple[str, int], np.ndarray] = {}

    def __len__(self) -> int:
        return self.steps

    def __getitem__(self, step: int) -> dict[str, TaskBatch]:
        return {
            name: self._own_words(size, step)
            if name == OWN_WORDS
            else self._task(self.pairs.tasks[name], size, step)
            for name, size in self.shares.items()
        }

    def _own_words(self, size: int, step: int) -> TaskBatch:
        """Random items, and some words of one of its texts as a query for each: of one field, whichever, and
        of one text of it.
        """
        rng = np.random.default_rng([_OWN_WORDS, self.seed, step, size])
        pool = self.export.with_text
        rows, negatives = (
            self._part(pool[rng.integers(len(pool), size=n)]) for n in (size, size * RANDOM_NEGATIVES)
        )
        table = self.export.rows[rows]
        texts: list[list[list[str]]] = [[] for _ in rows]  # of each item, of each field that it has
        for column, parents in self.export.texts(rows, self.export.fields, table=table).values():
            of_field: dict[int, list[str]] = {}
            for parent, text in zip(parents.tolist(), column.to_pylist(), strict=True):
                if text:
                    of_field.setdefault(parent, []).append(text)
            for parent, some in of_field.items():
                texts[parent].append(some)
        # A generator for each place in the whole batch: the words do not depend on which rank picks them.
        queries = [
            some_words(some, np.random.default_rng([_WORDS, self.seed, step, self.rank * len(rows) + i]))
            for i, some in enumerate(texts)
        ]
        keys, negative_keys = (torch.from_numpy(numbers.astype(np.int64)) for numbers in (rows, negatives))
        positive_items, negative_items = (
            self.export.items(rows, self.vocabulary, table=table),
            self.export.items(negatives, self.vocabulary),
        )
        return TaskBatch(self.tokenise(queries), keys, positive_items, keys, negative_items, negative_keys)

    def _task(self, task: Task, size: int, step: int) -> TaskBatch:
        places = np.arange(step * size, (step + 1) * size)
        picks = np.concatenate(
            [
                self._order(task, epoch)[places[places // len(task) == epoch] % len(task)]
                for epoch in np.unique(places // len(task)).tolist()
            ]
        )
        rng = np.random.default_rng([_NEGATIVES, self.seed, step, size, list(MIX).index(task.name)])
        negatives = task.pool[rng.integers(len(task.pool), size=size * RANDOM_NEGATIVES)]
        picks, negatives = self._part(picks), self._part(negatives)
        queries, items = task.queries[picks], task.items[picks]
        positive_items: Any
        negative_items: Any
        if task.name == QUERY_QUERY:
            swapped = (
                np.random.default_rng([_SWAPS, self.seed, step]).random(size)[
                    self.rank * len(picks) : (self.rank + 1) * len(picks)
                ]
                < 0.5
            )
            # neither of the two is the one that was asked
            queries, items = np.where(swapped, items, queries), np.where(swapped, queries, items)
            positive_items, negative_items = self._tokens(items), self._tokens(negatives)
        else:
            own = None if self.keep_own_query else self.pairs.queries.take(pa.array(queries))
            positive_items, negative_items = (
                self.export.items(items, self.vocabulary, own),
                self.export.items(negatives, self.vocabulary),
            )
        keys = (torch.from_numpy(numbers.astype(np.int64)) for numbers in (queries, items, negatives))
        query_keys, positive_keys, negative_keys = keys
        return TaskBatch(
            self._tokens(queries), query_keys, positive_items, positive_keys, negative_items, negative_keys
        )

    def _order(self, task: Task, epoch: int) -> np.ndarray:
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
        size = len(numbers) // self.ranks
        return numbers[self.rank * size : (self.rank + 1) * size]

    def _tokens(self, places: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
        return self.tokenise(self.pairs.queries.take(pa.array(places)).to_pylist())


def some_words(fields: list[list[str]], rng: np.random.Generator) -> str:
    """One to five words, in their order, of one of the texts of one of the fields; nothing of an item that
    has none.
    """
    if not fields:
        return ""
    texts = fields[rng.integers(len(fields))]
    words = normalise(texts[rng.integers(len(texts))][:MAX_CHARACTERS]).split()
    n = min(int(rng.integers(1, MOST_OWN_WORDS + 1)), len(words))
    return " ".join(words[i] for i in sorted(rng.permutation(len(words))[:n].tolist()))


def batch_shares(pairs: Pairs, batch: int, ranks: int, mix: Mapping[str, float]) -> dict[str, int]:
    """How many pairs of each task a batch has: `batch` by the weights of the tasks that there are, in
    multiples of `ranks`. Raises EmbedError if no task with pairs has a weight.
    """
    weights = {name: mix.get(name, 0.0) for name in (*pairs.tasks, OWN_WORDS)}
    if not any(weights[name] > 0 for name in pairs.tasks):
        raise EmbedError("no task with pairs has a weight above 0: see --mix")
    return {
        name: max(1, round(batch * weight / sum(weights.values()) / ranks)) * ranks
        for name, weight in weights.items()
        if weight > 0
    }
