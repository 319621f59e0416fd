"""How often the item that somebody took stands among the first that the model would show: Recall@k and MRR,
exactly, with BM25 beside.

A pair's rank counts the items of the index that score higher, the query's other known positives left out, and
half of those that score the same. Intervals resample queries, not pairs: the pairs of one query stand and
fall together.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch

from .intervals import means_and_intervals
from .model import Model
from .pairs import QUERY_QUERY, Pairs, Task
from .ranking import index_of, known_positives, measures, ranks
from .reader import Export
from .scores import Encoded, bm25_scores, fused


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

    `index`: rank among so many random items in place of all. Raises EmbedError.
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
