"""The pairs of an export: which query led to which item, or to which other query."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from .errors import EmbedError
from .reader import Export

QUERY_PIN, QUERY_PRODUCT, QUERY_QUERY, OWN_WORDS = "query-pin", "query-product", "query-query", "own-words"


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
        """Reads the pairs of an export; raises EmbedError if there are none."""
        pairs, query_pairs = export.pairs("pairs", split), export.pairs("query_pairs", split)
        if not len(pairs):
            raise EmbedError(
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
