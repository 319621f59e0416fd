"""Recall: how often the item that people chose is among the first ten that a model finds for their query.

Ranks are exact (`ranking.py`). Intervals resample queries, not pairs, because the pairs of one query are not
independent.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TypedDict, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ..common.terminal import OnStep, no_step
from .intervals import means_and_intervals
from .model import EmbeddingModel
from .pairs import QUERY_QUERY, Pairs, Task
from .ranking import Candidates, candidates_of, known_positives, measures, ranks
from .reader import Export
from .scores import Embedded, bm25_scores, fused

# {measure: [mean, low, high]}, with 95% intervals
Summary = TypedDict(
    "Summary",
    {"recall@1": list[float], "recall@10": list[float], "recall@100": list[float], "mrr": list[float]},
)


class GroupRecall(TypedDict):
    """Recall of a group of pairs, for instance those of one language."""

    pairs: int
    model: Summary
    bm25: Summary


class TaskRecall(TypedDict):
    """Recall of the pairs of one task."""

    pairs: int
    queries: int
    index: int  # how many candidates the pairs were ranked among
    bm25: Summary
    fused: Summary  # of the model and BM25
    dims: dict[str, Summary]  # {length of the embeddings: of the model}
    groups: dict[str, dict[str, GroupRecall]]  # {by what: {group: ...}}


class RecallResult(TypedDict):
    """What `recall` returns."""

    split: str
    fields: list[str]  # that BM25 and the item tower read
    tasks: dict[str, TaskRecall]


def recall(
    model: EmbeddingModel,
    export: Export | str | Path,
    *,
    split: str = "test",
    index: int | None = None,
    on_step: OnStep = no_step,
) -> RecallResult:
    """Recall@1, @10, @100 and MRR of a model on the pairs of a split, with those of BM25 and of both fused.

    `index`: rank among so many random items, and those of the pairs, instead of all. Raises EmbedError for an
    export without pairs of that split, or that does not fit the model.
    """
    if not isinstance(export, Export):
        export = Export(export, model.fields)
    pairs = Pairs.load(export, split)
    other = "train" if split == "test" else "test"
    tasks = [pairs.tasks]
    if export.manifest["pairs"]["pairs"].get(other):
        tasks.append(pairs.tasks_of(Pairs.load(export, other)))
    embedded = Embedded(model, export, pairs.queries, on_step=on_step)
    result: RecallResult = {"split": split, "fields": list(export.fields), "tasks": {}}
    for done, (name, task) in enumerate(pairs.tasks.items()):
        on_step("ranking", done, len(pairs.tasks))
        candidates, known = candidates_of(task, index), known_positives(tasks, name)
        result["tasks"][name] = _recall_of_task(model, export, pairs, task, embedded, candidates, known)
    on_step("ranking", len(pairs.tasks), len(pairs.tasks))
    return result


def _recall_of_task(
    model: EmbeddingModel,
    export: Export,
    pairs: Pairs,
    task: Task,
    embedded: Embedded,
    candidates: Candidates,
    known: np.ndarray,
) -> TaskRecall:
    words = bm25_scores(export, pairs, task, candidates)
    both = fused(embedded.scores(task, candidates, model.dim), words)
    by_dim = {
        dim: ranks(embedded.scores(task, candidates, dim), task, candidates, known) for dim in model.dims
    }
    bm25 = ranks(words, task, candidates, known)
    summary_of = summaries(
        {
            **{str(dim): rank for dim, rank in by_dim.items()},
            "bm25": bm25,
            "fused": ranks(both, task, candidates, known),
        },
        task.queries,
    )
    by_group: dict[str, dict[str, GroupRecall]] = {}
    for by, masks in groups(export, task, pairs.details[task.name]).items():
        by_group[by] = {}
        for group, mask in masks.items():
            of_group = {"model": by_dim[model.dim][mask], "bm25": bm25[mask]}
            summary = summaries(of_group, task.queries[mask])
            by_group[by][group] = {
                "pairs": int(mask.sum()),
                "model": summary["model"],
                "bm25": summary["bm25"],
            }
    return {
        "pairs": len(task),
        "queries": len(np.unique(task.queries)),
        "index": len(candidates.rows),
        "bm25": summary_of.pop("bm25"),
        "fused": summary_of.pop("fused"),
        "dims": summary_of,
        "groups": by_group,
    }


def summaries(ranks_of: Mapping[str, np.ndarray], queries: np.ndarray) -> dict[str, Summary]:
    """{name: Summary} of {name: ranks [pairs]} for the same pairs, with their queries [pairs]."""
    lines = {(who, name): values for who, rank in ranks_of.items() for name, values in measures(rank).items()}
    intervals = means_and_intervals(np.stack(list(lines.values())), queries)
    rounded: dict[str, dict[str, list[float]]] = {who: {} for who in ranks_of}
    for (who, name), interval in zip(lines, intervals, strict=True):
        rounded[who][name] = [round(number, 4) for number in interval]
    return cast(dict[str, Summary], rounded)


def groups(export: Export, task: Task, details: pa.Table) -> dict[str, dict[str, np.ndarray]]:
    """{by what: {group: bool [pairs]}}; groups without a pair are left out.

    By the action, by the item's language, by whether the item has native text, and by whether the query is
    one of the item's engaged queries. There are none for query-query.
    """
    if task.name == QUERY_QUERY:
        return {}
    rows = export.rows[task.items]
    native = (
        pc.fill_null(pc.utf8_length(rows.column("title")), 0).to_numpy()
        + pc.fill_null(pc.utf8_length(rows.column("description")), 0).to_numpy()
    ) > 0
    locale_parts = pc.split_pattern(pc.fill_null(rows.column("locale"), "unknown"), "-")
    language = pc.fill_null(pc.list_element(locale_parts, 0), "unknown").to_numpy(zero_copy_only=False)
    in_features = details["in_features"].to_numpy(zero_copy_only=False)
    action = details["action"].to_numpy(zero_copy_only=False)
    all_groups = {
        "action": {str(name): action == name for name in np.unique(action.astype(str))},
        "language": {str(name): language == name for name in np.unique(language.astype(str))},
        "item": {"with native text": native, "without native text": ~native},
        "query": {"known of the item": in_features, "new to the item": ~in_features},
    }
    return {
        by: {name: mask for name, mask in masks.items() if mask.any()} for by, masks in all_groups.items()
    }
