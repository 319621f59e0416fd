"""What the trainer reads: an export's rows, and batches of pairs made of them.

A batch is a function of the seed, the step and the rank alone: nothing needs to be kept to go on exactly
where a training stopped.
"""

from __future__ import annotations

import functools
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch

from ..common.errors import PincaptionError
from ..export.write import read_manifest
from ..filters.text import normalise
from ..store.columns import OMNISEARCHSAGE
from .ngrams import MAX_CHARACTERS, Grams, Vocabulary, grams

FIELDS = ("title", "description", "caption", "board_titles", "engaged_queries")
QUERY_PIN, QUERY_PRODUCT, QUERY_QUERY, OWN_WORDS = "query-pin", "query-product", "query-query", "own-words"
# shares of a batch, after the mix of the published code
MIX = {QUERY_PIN: 8.0, QUERY_PRODUCT: 4.0, QUERY_QUERY: 2.0}
OWN_WORDS_SHARE = 4.0  # of an encoder that knows no words yet: the task that teaches it those of the items
MOST_OWN_WORDS = 5  # of a query that is made of an item's own words
RANDOM_NEGATIVES = 4  # for each pair of a batch, as published
ROWS_AT_ONCE = 2_000
# what random numbers are drawn for: a stream of its own for each
_NEGATIVES, _SWAPS, _OWN_WORDS, _WORDS = 1, 2, 3, 4
RANDOM_WORDS = 1_000  # that there are
# columns of the features that the towers have no use for
NOT_READ = {"board_title_counts", "engaged_query_scores", "image_sha256", "category", "caption_recipe"}

# another item's text: always the same one's, or another one's each time; words that say nothing
Control = Literal["shuffled", "reshuffled", "random words"]
Tokenise = Callable[[list[str]], tuple[torch.Tensor, torch.Tensor]]  # texts to ids and attention mask


class ExportError(PincaptionError):
    """An export that cannot be trained on; the message says why and what mends it."""


@dataclass
class Items:
    """Items as the item tower takes them: of each field the ids of its n-grams and where each item's begin,
    of each name of vectors a row per item and whether it has one.
    """

    texts: dict[str, tuple[torch.Tensor, torch.Tensor]]
    dense: dict[str, tuple[torch.Tensor, torch.Tensor]]

    def to(self, device: torch.device) -> Items:
        """The same on a device."""
        return Items(
            *(
                {
                    name: (a.to(device, non_blocking=True), b.to(device, non_blocking=True))
                    for name, (a, b) in some.items()
                }
                for some in (self.texts, self.dense)
            )
        )


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


class Export:
    """The rows of an export, memory-mapped by `datasets`. `fields` are the text fields that are read, the
    others are as if no item had them.

    `controls` {field: how its texts are replaced, drawn by `seed`} show what a field is worth beyond being
    there: items that have none get none (a "reshuffled" text is drawn by the rows that are asked for
    together). `hidden` queries are on no item. Raises ExportError.
    """

    def __init__(
        self,
        folder: str | Path,
        fields: Sequence[str] = FIELDS,
        *,
        controls: Mapping[str, Control] | None = None,
        seed: int = 0,
        hidden: pa.Array | None = None,
    ):
        import datasets

        self.folder, self.fields, self.controls, self.seed, self.hidden = (
            Path(folder),
            tuple(fields),
            dict(controls or {}),
            seed,
            hidden,
        )
        manifest = read_manifest(self.folder)
        if manifest is None:
            raise ExportError(
                f"{folder} is no export: write one with captioner export STORE {folder} --as-of DATE --pairs --test-from DATE"
            )
        self.manifest = manifest
        datasets.disable_progress_bars()
        names = {theirs: ours for ours, theirs in OMNISEARCHSAGE.items()}
        features = _with_types(datasets.load_dataset(str(self.folder), "features", split="train"))
        self.rows = features.rename_columns(
            {theirs: ours for theirs, ours in names.items() if theirs in features.column_names}
        ).with_format("arrow")
        self.rows = self.rows.select_columns(
            [name for name in self.rows.column_names if name not in NOT_READ]
        )
        self._stored: dict[str, int] = dict(self.manifest.get("embeddings", {}))
        self.dense = dict(self._stored)
        self._rows_having: dict[str, np.ndarray] = {}
        self._draws: dict[str, np.ndarray] = {}

    def __len__(self) -> int:
        return len(self.rows)

    @functools.cached_property
    def pin_ids(self) -> pa.Array:
        """The pins' ids in the order of the rows."""
        return (
            pa.concat_arrays(self.rows.data.column("pin_id").chunks)
            if len(self)
            else pa.array([], pa.string())
        )

    @functools.cached_property
    def products(self) -> np.ndarray:
        """Whether each row is a product."""
        return np.asarray(pc.equal(self.rows.data.column("kind"), "product").to_numpy(zero_copy_only=False))

    def pairs(self, name: str, split: str) -> pa.Table:
        """The rows of `pairs` or `query_pairs` in a split; none where the export has none.

        Raises ExportError for an export without pairs.
        """
        import datasets

        counts = self.manifest.get("pairs")
        if not counts:
            raise ExportError(
                f"{self.folder} has no pairs to learn from: export with --as-of DATE --pairs --test-from DATE"
            )
        if not counts.get(name, {}).get(split):
            return pa.table({})
        return pa.table(datasets.load_dataset(str(self.folder), name, split=split).data.table)

    def texts(
        self,
        rows: np.ndarray,
        fields: Sequence[str],
        without: pa.Array | None = None,
        *,
        table: pa.Table | None = None,
    ) -> dict[str, tuple[pa.Array, np.ndarray]]:
        """Of each field the texts of some rows, and to which of them (counted from 0) each belongs. `without`
        has a query for each row, which is left out of its engaged queries.

        `table`: these rows, where they have been read already.
        """
        found, table = {}, self.rows[rows] if table is None else table
        for name in fields:
            column = (
                self._replaced(name, rows) if name in self.controls else table.column(name).combine_chunks()
            )
            if pa.types.is_list(column.type):
                parents = pc.list_parent_indices(column).to_numpy()
                column = column.flatten()
                if name == "engaged_queries" and (without is not None or self.hidden is not None):
                    kept = (
                        pa.array(np.ones(len(column), bool))
                        if self.hidden is None
                        else pc.invert(pc.is_in(column, value_set=self.hidden))
                    )
                    kept = (
                        kept
                        if without is None
                        else pc.and_(kept, pc.not_equal(column, without.take(pa.array(parents))))
                    )
                    column, parents = column.filter(kept), parents[kept.to_numpy(zero_copy_only=False)]
            else:
                parents = np.arange(len(rows))
            found[name] = column, parents
        return found

    @functools.cached_property
    def with_text(self) -> np.ndarray:
        """The rows, ascending, that have a text in any of the fields."""
        return functools.reduce(
            np.union1d, (self._having(name) for name in self.fields), np.empty(0, np.int64)
        )

    def has(self, name: str) -> bool:
        """Whether any item has a text in a field."""
        return bool(len(self._having(name)))

    def _having(self, name: str) -> np.ndarray:
        if name not in self._rows_having:
            column = self.rows.data.column(name)
            lengths = (
                pc.list_value_length(column) if pa.types.is_list(column.type) else pc.utf8_length(column)
            )
            self._rows_having[name] = np.flatnonzero(pc.fill_null(lengths, 0).to_numpy() > 0)
        return self._rows_having[name]

    def _replaced(self, name: str, rows: np.ndarray) -> pa.Array:
        """What a control puts in place of a field of some rows."""
        column, having, number = self.rows.data.column(name), self._having(name), FIELDS.index(name)
        place = np.searchsorted(having, rows)
        has = having[np.minimum(place, len(having) - 1)] == rows if len(having) else np.zeros(len(rows), bool)
        if self.controls[name] == "random words":
            if name not in self._draws:
                self._draws[name] = np.random.default_rng([self.seed, number]).integers(
                    RANDOM_WORDS, size=(len(self), MOST_OWN_WORDS)
                )
            texts = [
                " ".join(f"word{i}" for i in line) if known else None
                for line, known in zip(self._draws[name][rows].tolist(), has.tolist(), strict=True)
            ]
            return pa.array(
                texts if not pa.types.is_list(column.type) else [[text] if text else [] for text in texts],
                column.type,
            )
        if self.controls[name] == "shuffled":
            if name not in self._draws:
                self._draws[name] = np.random.default_rng([self.seed, number]).permutation(having)
            source = self._draws[name][np.minimum(place, len(having) - 1)]
        else:
            # drawn by the rows that are asked for: another one in every batch, and the same when the batch is
            # made again
            source = having[
                np.random.default_rng([self.seed, number, zlib.crc32(rows.tobytes())]).integers(
                    len(having), size=len(rows)
                )
            ]
        return pc.if_else(
            pa.array(has), column.take(pa.array(source)).combine_chunks(), pa.scalar(None, column.type)
        )

    def items(
        self,
        rows: np.ndarray,
        vocabulary: Vocabulary,
        without: pa.Array | None = None,
        *,
        table: pa.Table | None = None,
    ) -> Items:
        """Some rows as the item tower takes them; `table` as in `texts`."""
        texts, table = {}, self.rows[rows] if table is None else table
        for name, (column, parents) in self.texts(rows, self.fields, without, table=table).items():
            ids, starts = vocabulary.ids(grams(column, parents), len(rows))
            texts[name] = torch.from_numpy(ids), torch.from_numpy(starts)
        return Items(texts, {name: self._vectors(table, name) for name in self.dense})

    def expect(self, dense: Mapping[str, int]) -> None:
        """Gives items the vectors {name: numbers} that a model reads, and no others; names that the export
        does not have are missing of every item. Raises ExportError for other sizes.
        """
        for name, size in dense.items():
            if self._stored.get(name, size) != size:
                raise ExportError(
                    f"{self.folder} has vectors {name} of {self._stored[name]} numbers, the model was trained on {size}"
                )
        self.dense = dict(dense)

    def _vectors(self, table: pa.Table, name: str) -> tuple[torch.Tensor, torch.Tensor]:
        """Stored vectors of some rows, of length 1 (zeros where there is none), and whether each has one."""
        if name not in self._stored:
            return torch.zeros(len(table), self.dense[name]), torch.zeros(len(table), dtype=torch.bool)
        column = table.column(name).combine_chunks()
        has = torch.from_numpy(column.is_valid().to_numpy(zero_copy_only=False).copy())
        numbers = (
            column.fill_null(pa.scalar([0.0] * self.dense[name], column.type))
            if column.null_count
            else column
        )
        found = torch.from_numpy(numbers.flatten().to_numpy(zero_copy_only=False).astype(np.float32)).view(
            len(table), self.dense[name]
        )
        return torch.nn.functional.normalize(found, dim=1), has

    def batches(self, rows: np.ndarray | None = None) -> Iterator[np.ndarray]:
        """The numbers of all rows (or of `rows`), some at a time."""
        rows = np.arange(len(self)) if rows is None else rows
        for start in range(0, len(rows), ROWS_AT_ONCE):
            yield rows[start : start + ROWS_AT_ONCE]

    def grams(self, extra: pa.Array | None = None) -> Iterator[list[dict[str, Grams]]]:
        """The n-grams of all texts, some rows at a time, and those of `extra` texts."""
        for rows in self.batches():
            yield [grams(column, parents) for column, parents in self.texts(rows, self.fields).values()]
        if extra is not None:
            yield [grams(extra)]


@dataclass
class Task:
    """Pairs of one kind: places in `queries`, rows of items (or places in `queries`), weights; and which
    items negatives are drawn from.
    """

    name: str
    queries: np.ndarray
    items: np.ndarray
    weights: np.ndarray
    pool: np.ndarray
    known: np.ndarray = field(init=False)  # query * 2^32 + item of every pair, ascending

    def __post_init__(self) -> None:
        self.known = np.unique(self.queries.astype(np.int64) << 32 | self.items)

    def __len__(self) -> int:
        return len(self.queries)

    def order(self, seed: int, epoch: int) -> np.ndarray:
        """Pairs in a random order, each as often as its weight demands, rounded up or down: evenly spaced
        points on the sum of the weights.
        """
        rng = np.random.default_rng([seed, epoch, len(self)])
        ends = np.cumsum(self.weights, dtype=np.float64)
        points = (np.arange(len(self)) + rng.random()) / len(self) * ends[-1]
        return rng.permutation(np.minimum(np.searchsorted(ends, points, side="right"), len(self) - 1))


@dataclass
class Pairs:
    """The pairs of a split as tasks, over one list of distinct queries."""

    queries: pa.Array
    tasks: dict[str, Task]
    details: dict[str, pa.Table]  # of each task the columns of its pairs, row by row

    @classmethod
    def load(cls, export: Export, split: str) -> Pairs:
        """Reads the pairs of an export; raises ExportError if there are none."""
        pairs, query_pairs = export.pairs("pairs", split), export.pairs("query_pairs", split)
        if not len(pairs):
            raise ExportError(
                f"{export.folder} has no pairs of the split {split}: "
                + ("export with --test-from DATE" if split == "test" else "choose an earlier --as-of")
            )
        texts = [
            pairs["query"],
            *((query_pairs[name] for name in ("query", "other_query")) if len(query_pairs) else ()),
        ]
        queries = pc.unique(
            pa.chunked_array([chunk for column in texts for chunk in column.chunks], pa.string())
        )
        details, tasks = {}, {}
        rows = pc.index_in(pairs["pin_id"], value_set=export.pin_ids).to_numpy()
        for name, of_products in ((QUERY_PIN, False), (QUERY_PRODUCT, True)):
            of_kind = export.products[rows] == of_products
            if of_kind.any():
                details[name] = pairs.filter(pa.array(of_kind))
                places = pc.index_in(details[name]["query"], value_set=queries).to_numpy()
                tasks[name] = Task(
                    name,
                    places,
                    rows[of_kind],
                    details[name]["weight"].to_numpy(),
                    np.flatnonzero(export.products == of_products),
                )
        if len(query_pairs):
            details[QUERY_QUERY] = query_pairs
            places, others = (
                pc.index_in(query_pairs[name], value_set=queries).to_numpy()
                for name in ("query", "other_query")
            )
            tasks[QUERY_QUERY] = Task(
                QUERY_QUERY, places, others, query_pairs["weight"].to_numpy(), np.arange(len(queries))
            )
        return cls(queries, tasks, details)

    @property
    def asked(self) -> pa.Array:
        """The queries that stand in any pair."""
        places = [task.queries for task in self.tasks.values()] + [
            task.items for name, task in self.tasks.items() if name == QUERY_QUERY
        ]
        return self.queries.take(
            pa.array(np.unique(np.concatenate(places)) if places else np.empty(0, np.int64))
        )

    def with_queries_of(self, other: Pairs) -> dict[str, Task]:
        """The tasks of `other` over this list of queries; pairs of queries that are not on it are left out."""
        place = pc.fill_null(pc.index_in(other.queries, value_set=self.queries), -1).to_numpy(
            zero_copy_only=False
        )
        found = {}
        for name, task in other.tasks.items():
            queries, items = place[task.queries], place[task.items] if name == QUERY_QUERY else task.items
            kept = (queries >= 0) & (items >= 0)
            found[name] = Task(name, queries[kept], items[kept], task.weights[kept], task.pool)
        return found

    def only(self, kept: np.ndarray, *, both: bool = False) -> Pairs:
        """The pairs of the queries [queries] of which `kept` is true, with `both` those alone whose two
        queries are, and no negatives but those; tasks that lose all are gone.
        """
        tasks, details = {}, {}
        for name, task in self.tasks.items():
            both_ways = both and name == QUERY_QUERY
            mask = kept[task.queries] & (kept[task.items] if both_ways else True)
            if mask.any():
                pool = task.pool[kept[task.pool]] if both_ways else task.pool
                tasks[name] = Task(name, task.queries[mask], task.items[mask], task.weights[mask], pool)
                details[name] = self.details[name].filter(pa.array(mask))
        return Pairs(self.queries, tasks, details)


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


def _with_types(rows: Any) -> Any:
    """A dataset whose text columns are texts also where JSON Lines had none in them, of which `datasets`
    cannot tell what they are.
    """
    import datasets

    text = datasets.Value("string")
    wanted = {name: text if getattr(feature, "dtype", "") == "null" else datasets.List(text) if getattr(getattr(feature, "feature", None), "dtype", "") == "null" else feature
              for name, feature in rows.features.items()}  # fmt: skip
    return rows if wanted == dict(rows.features) else rows.cast(datasets.Features(wanted))


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
    multiples of `ranks`. Raises ExportError if no task with pairs has a weight.
    """
    weights = {name: mix.get(name, 0.0) for name in (*pairs.tasks, OWN_WORDS)}
    if not any(weights[name] > 0 for name in pairs.tasks):
        raise ExportError("no task with pairs has a weight above 0: see --mix")
    return {
        name: max(1, round(batch * weight / sum(weights.values()) / ranks)) * ranks
        for name, weight in weights.items()
        if weight > 0
    }
