"""The pairs of an export: a query and an item that people chose for it, or two related queries."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from .errors import EmbedError
from .reader import Export

# The tasks
QUERY_PIN, QUERY_PRODUCT, QUERY_QUERY = "query-pin", "query-product", "query-query"


@dataclass
class Task:
    """The pairs of one task. Queries are given by their places in `Pairs.queries`, items by their rows."""

    name: str
    queries: np.ndarray  # [pairs] places
    items: np.ndarray  # [pairs] rows; for query-query places of the other queries
    weights: np.ndarray  # [pairs]
    pool: np.ndarray  # the rows (or places) that negatives are drawn from, and that pairs are ranked among
    known: np.ndarray = field(init=False)  # query * 2^32 + item of every pair, ascending

    def __post_init__(self) -> None:
        self.known = np.unique(self.queries.astype(np.int64) << 32 | self.items)

    def __len__(self) -> int:
        return len(self.queries)

    def order(self, seed: int, epoch: int) -> np.ndarray:
        """The numbers of pairs [pairs] in the random order of an epoch.

        A pair occurs in proportion to its weight, rounded up or down: evenly spaced points on the cumulative
        sum of the weights choose the pairs.
        """
        rng = np.random.default_rng([seed, epoch, len(self)])
        ends = np.cumsum(self.weights, dtype=np.float64)
        points = (np.arange(len(self)) + rng.random()) / len(self) * ends[-1]
        return rng.permutation(np.minimum(np.searchsorted(ends, points, side="right"), len(self) - 1))


@dataclass
class Pairs:
    """The pairs of one split, by task, and the distinct queries in them."""

    queries: pa.Array
    tasks: dict[str, Task]
    details: dict[str, pa.Table]  # for each task the columns of its pairs, row by row

    @classmethod
    def load(cls, export: Export, split: str) -> Pairs:
        """Reads the pairs of the split "train" or "test". Raises EmbedError if there are none."""
        pairs, query_pairs = export.pair_table("pairs", split), export.pair_table("query_pairs", split)
        if not len(pairs):
            raise EmbedError(
                f"{export.folder} has no pairs of the split {split}: "
                + ("export with --test-from DATE" if split == "test" else "choose an earlier --as-of")
            )
        columns = [pairs["query"]]
        if len(query_pairs):
            columns += [query_pairs["query"], query_pairs["other_query"]]
        queries = pc.unique(
            pa.chunked_array([chunk for column in columns for chunk in column.chunks], pa.string())
        )
        details, tasks = {}, {}
        rows = pc.index_in(pairs["pin_id"], value_set=export.pin_ids).to_numpy()
        for name, is_product in ((QUERY_PIN, False), (QUERY_PRODUCT, True)):
            of_kind = export.products[rows] == is_product
            if of_kind.any():
                details[name] = pairs.filter(pa.array(of_kind))
                tasks[name] = Task(
                    name,
                    pc.index_in(details[name]["query"], value_set=queries).to_numpy(),
                    rows[of_kind],
                    details[name]["weight"].to_numpy(),
                    np.flatnonzero(export.products == is_product),
                )
        if len(query_pairs):
            details[QUERY_QUERY] = query_pairs
            tasks[QUERY_QUERY] = Task(
                QUERY_QUERY,
                pc.index_in(query_pairs["query"], value_set=queries).to_numpy(),
                pc.index_in(query_pairs["other_query"], value_set=queries).to_numpy(),
                query_pairs["weight"].to_numpy(),
                np.arange(len(queries)),
            )
        return cls(queries, tasks, details)

    @property
    def used_queries(self) -> pa.Array:
        """The queries that are part of a pair. After `select` these are fewer than `queries`."""
        places = [task.queries for task in self.tasks.values()]
        places += [task.items for name, task in self.tasks.items() if name == QUERY_QUERY]
        used = np.unique(np.concatenate(places)) if places else np.empty(0, np.int64)
        return self.queries.take(pa.array(used))

    def tasks_of(self, other: Pairs) -> dict[str, Task]:
        """The tasks of `other`, with places in this list of queries; pairs of other queries are left out."""
        places = pc.fill_null(pc.index_in(other.queries, value_set=self.queries), -1)
        place = places.to_numpy(zero_copy_only=False)
        tasks = {}
        for name, task in other.tasks.items():
            queries, items = place[task.queries], place[task.items] if name == QUERY_QUERY else task.items
            kept = (queries >= 0) & (items >= 0)
            tasks[name] = Task(name, queries[kept], items[kept], task.weights[kept], task.pool)
        return tasks

    def select(self, chosen: np.ndarray, *, both: bool = False) -> Pairs:
        """The pairs whose query is chosen; `chosen` is bool [queries]. Tasks without such a pair are removed.

        `both`: of two queries both must be chosen, and negatives are chosen queries only.
        """
        tasks, details = {}, {}
        for name, task in self.tasks.items():
            check_both = both and name == QUERY_QUERY
            mask = chosen[task.queries] & (chosen[task.items] if check_both else True)
            if mask.any():
                pool = task.pool[chosen[task.pool]] if check_both else task.pool
                tasks[name] = Task(name, task.queries[mask], task.items[mask], task.weights[mask], pool)
                details[name] = self.details[name].filter(pa.array(mask))
        return Pairs(self.queries, tasks, details)
