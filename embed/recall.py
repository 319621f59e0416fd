"""How often the item that somebody took stands among the first that the model would show: Recall@k and MRR,
exactly, with BM25 beside.

A pair's rank counts the items of the index that score higher, the query's other known positives left out, and
half of those that score the same. Intervals resample queries, not pairs: the pairs of one query stand and
fall together.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch

from .bm25 import BM25
from .data import QUERY_QUERY, Export, Pairs, Task
from .loss import shortened
from .ngrams import grams
from .towers import Model

CUTS = (1, 10, 100)
RESAMPLES = 1_000
BLOCK_BYTES = 256_000_000  # of scores at a time
ENCODED_AT_ONCE = 1_024

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


def mean_and_interval(
    values: np.ndarray, clusters: np.ndarray, *, resamples: int = RESAMPLES, seed: int = 0
) -> tuple[float, float, float]:
    """The mean of values [n] and its 95% interval, from bootstrap samples of the clusters [n] that they
    belong to.
    """
    ((mean, low, high),) = means_and_intervals(values[None], clusters, resamples=resamples, seed=seed)
    return mean, low, high


def means_and_intervals(
    values: np.ndarray, clusters: np.ndarray, *, resamples: int = RESAMPLES, seed: int = 0
) -> list[tuple[float, float, float]]:
    """The same of each line of values [lines, n], from the same samples."""
    _, cluster = np.unique(clusters, return_inverse=True)
    sums, sizes = np.stack([np.bincount(cluster, line) for line in values], 1), np.bincount(cluster)
    rng, means = np.random.default_rng(seed), []
    for _ in range(0, resamples, 50):
        drawn = rng.multinomial(len(sizes), np.full(len(sizes), 1 / len(sizes)), size=50)
        means.append(drawn @ sums / (drawn @ sizes)[:, None])
    low, high = np.quantile(np.concatenate(means), [0.025, 0.975], axis=0)
    return list(zip(values.mean(1).tolist(), low.tolist(), high.tolist(), strict=True))


def summaries(ranks_of: Mapping[str, np.ndarray], queries: np.ndarray) -> dict[str, dict[str, Any]]:
    """{who: {"recall@10": [mean, low, high], ...}} of the ranks {who: [pairs]} of the same pairs."""
    lines = {(who, name): values for who, rank in ranks_of.items() for name, values in measures(rank).items()}
    found: dict[str, dict[str, Any]] = {who: {} for who in ranks_of}
    for (who, name), told in zip(
        lines, means_and_intervals(np.stack(list(lines.values())), queries), strict=True
    ):
        found[who][name] = [round(number, 4) for number in told]
    return found


def groups(export: Export, task: Task, details: pa.Table) -> dict[str, dict[str, np.ndarray]]:
    """{by what: {group: which pairs}}: action, language of the item, whether it has native text, whether the
    query stands among its engaged queries.
    """
    if task.name == QUERY_QUERY:
        return {}
    rows = export.rows[task.items]
    native = (
        pc.fill_null(pc.utf8_length(rows.column("title")), 0).to_numpy()
        + pc.fill_null(pc.utf8_length(rows.column("description")), 0).to_numpy()
    ) > 0
    language = pc.fill_null(
        pc.list_element(pc.split_pattern(pc.fill_null(rows.column("locale"), "unknown"), "-"), 0), "unknown"
    ).to_numpy(zero_copy_only=False)
    in_features = details["in_features"].to_numpy(zero_copy_only=False)
    action = details["action"].to_numpy(zero_copy_only=False)
    found = {
        "action": {str(name): action == name for name in np.unique(action.astype(str))},
        "language": {str(name): language == name for name in np.unique(language.astype(str))},
        "item": {"with native text": native, "without native text": ~native},
        "query": {"known of the item": in_features, "new to the item": ~in_features},
    }
    return {by: {name: mask for name, mask in some.items() if mask.any()} for by, some in found.items()}


class Encoded:
    """A model's embeddings of an export's items and of a list of queries, made once."""

    def __init__(
        self,
        model: Model,
        export: Export,
        queries: pa.Array,
        *,
        device: torch.device | str = "cpu",
        on_step: Callable[[str, int, int], None] = lambda what, done, total: None,
    ):
        self.queries = encode_queries(
            model,
            (queries[i : i + ENCODED_AT_ONCE].to_pylist() for i in range(0, len(queries), ENCODED_AT_ONCE)),
            device,
        )
        self.items = encode_items(model, export, device=device, on_step=on_step)

    def scores(self, task: Task, index: Index, dim: int) -> Scores:
        """Dot products of the first `dim` numbers."""
        candidates = self.queries if task.name == QUERY_QUERY else self.items
        queries, within = (
            shortened(self.queries, dim),
            shortened(candidates[torch.from_numpy(index.rows).to(candidates.device)], dim),
        )
        return lambda some: queries[torch.from_numpy(some).to(queries.device)] @ within.T


@torch.inference_mode()
def encode_queries(
    model: Model, batches: Iterable[list[str]], device: torch.device | str = "cpu"
) -> torch.Tensor:
    """[queries, dim] of texts that come in batches."""
    found = [
        model.queries(*(part.to(device) for part in model.tokenise(texts))) for texts in batches if texts
    ]
    return torch.cat(found) if found else torch.empty(0, model.sizes.dim)


@torch.inference_mode()
def encode_items(
    model: Model,
    export: Export,
    rows: np.ndarray | None = None,
    *,
    device: torch.device | str = "cpu",
    on_step: Callable[[str, int, int], None] = lambda what, done, total: None,
) -> torch.Tensor:
    """[items, dim] of all rows of an export, or of some."""
    export.expect(model.items.dense)
    found, done, total = [], 0, len(export) if rows is None else len(rows)
    for some in export.batches(rows):
        found.append(model.items(export.items(some, model.vocabulary).to(torch.device(device))))
        done += len(some)
        on_step("encoding items", done, total)
    return torch.cat(found) if found else torch.empty(0, model.sizes.dim)


def bm25_scores(
    export: Export, pairs: Pairs, task: Task, index: Index, fields: Sequence[str] | None = None
) -> Scores:
    """BM25 of the queries over the fields that the export is read with."""

    def documents() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        done = 0
        for some in export.batches(index.rows):
            if task.name == QUERY_QUERY:
                texts = [grams(pairs.queries.take(pa.array(some)))["unigram"]]
            else:
                texts = [
                    grams(column, parents)["unigram"]
                    for column, parents in export.texts(some, fields or export.fields).values()
                ]
            yield (
                np.concatenate([text.rows for text in texts]) + done,
                np.concatenate([text.codes for text in texts]),
            )
            done += len(some)

    bm25 = BM25(documents(), len(index.rows), pairs.queries.take(pa.array(np.unique(task.queries))))
    return lambda some: bm25.scores(pairs.queries.take(pa.array(some)))


def fused(a: Scores, b: Scores, weight: float = 0.5) -> Scores:
    """`weight` of a and the rest of b, after both have mean 0 and deviation 1 over the index, query by query."""

    def standard(table: torch.Tensor) -> torch.Tensor:
        return (table - table.mean(1, keepdim=True)) / table.std(1, keepdim=True, correction=0).clamp(
            min=1e-9
        )

    return lambda some: weight * standard(a(some)).cpu() + (1 - weight) * standard(b(some))


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


def recall(
    model: Model,
    export: Export,
    *,
    split: str = "test",
    index: int | None = None,
    device: torch.device | str = "cpu",
    on_step: Callable[[str, int, int], None] = lambda what, done, total: None,
) -> dict[str, Any]:
    """{"split", "fields", "tasks": {task: {"pairs", "queries", "index", "dims": {dim: summary}, "bm25",
    "fused", "groups": {by: {group: {"pairs", "model", "bm25"}}}}}}.

    `index`: rank among so many random items in place of all. Raises ExportError.
    """
    pairs = Pairs.load(export, split)
    other = "train" if split == "test" else "test"
    tasks = [pairs.tasks]
    if export.manifest["pairs"]["pairs"].get(other):
        tasks.append(pairs.with_queries_of(Pairs.load(export, other)))
    model.queries.to(device)
    model.items.to(device)
    encoded = Encoded(model, export, pairs.queries, device=device, on_step=on_step)
    found: dict[str, Any] = {"split": split, "fields": list(export.fields), "tasks": {}}
    for done, (name, task) in enumerate(pairs.tasks.items()):
        on_step("ranking", done, len(pairs.tasks))
        known, among = known_positives(tasks, name), index_of(task, index)
        words = bm25_scores(export, pairs, task, among)
        whole = encoded.scores(task, among, model.sizes.dim)
        ours = {dim: ranks(encoded.scores(task, among, dim), task, among, known) for dim in model.sizes.dims}
        theirs, both = ranks(words, task, among, known), ranks(fused(whole, words), task, among, known)
        told: dict[str, Any] = {
            "pairs": len(task),
            "queries": len(np.unique(task.queries)),
            "index": len(among.rows),
        }
        summed = summaries(
            {**{str(dim): rank for dim, rank in ours.items()}, "bm25": theirs, "fused": both}, task.queries
        )
        told |= {"bm25": summed.pop("bm25"), "fused": summed.pop("fused"), "dims": summed, "groups": {}}
        for by, some in groups(export, task, pairs.details[name]).items():
            told["groups"][by] = {
                group: {
                    "pairs": int(mask.sum()),
                    **summaries(
                        {"model": ours[model.sizes.dim][mask], "bm25": theirs[mask]}, task.queries[mask]
                    ),
                }
                for group, mask in some.items()
            }
        found["tasks"][name] = told
    on_step("ranking", len(pairs.tasks), len(pairs.tasks))
    return found
