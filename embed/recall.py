"""Recall: how often the item that people chose is among the first ten that a model finds for their query.

Ranks are exact (`ranking.py`). Intervals resample queries, not pairs, because the pairs of one query are not
independent.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypedDict, cast

import numpy as np

from ..common.terminal import OnStep, no_step
from .bm25 import Kind
from .fusion import Fusion
from .intervals import interval_of_means, means_and_intervals
from .model import EmbeddingModel
from .pairs import QUERY_QUERY, Pairs, Task
from .ranking import Candidates, Gains, Scores, candidates_of, known_positives, measures, ndcg, ranks, top
from .reader import Export
from .scores import Embedded, bm25_scores, fused
from .shown import SHOWN, Example, Popularity, gained_and_lost, popularity
from .slices import Training, groups

# {measure: [mean, low, high]}, with 95% intervals
Summary = TypedDict(
    "Summary",
    {"recall@1": list[float], "recall@10": list[float], "recall@100": list[float], "mrr": list[float]},
)

# Of two methods, paired by query: the difference of Recall@10 and its 95% interval, [mean, low, high].
Differences = TypedDict("Differences", {"model less bm25": list[float], "fused less bm25": list[float]})


class GroupRecall(TypedDict):
    """Recall of a group of pairs, for instance those of one language."""

    pairs: int
    queries: int
    model: Summary
    bm25: Summary  # of the kind that RecallResult names
    fused: Summary
    differences: Differences


TaskRecall = TypedDict(
    "TaskRecall",
    {
        "pairs": int,
        "queries": int,
        "index": int,  # how many candidates the pairs were ranked among
        "bm25": Summary,  # of the kind that RecallResult names
        "bm25 of words": Summary,
        "fused": Summary,  # of the model and BM25
        "dims": dict[str, Summary],  # {length of the embeddings: of the model}
        "differences": Differences,
        # {"model", "bm25", "bm25 of words" or "fused": [mean, low, high]}; the gain of an item is the weight
        # of its pairs
        "ndcg@10": dict[str, list[float]],
        "groups": dict[str, dict[str, GroupRecall]],  # {by what: {group: ...}}
        "examples": dict[str, list[Example]],  # "gained" and "lost", by the model against BM25
        "popularity": Popularity | None,  # of the hits; None for query-query, or without training pairs
    },
)


class RecallResult(TypedDict):
    """What `recall` returns."""

    split: str
    fields: list[str]  # that BM25 and the model read
    fusion: dict[str, Any]  # the kind of BM25, the weight of the model, and its Recall@10 when it was tuned
    tasks: dict[str, TaskRecall]


def recall(
    model: EmbeddingModel,
    export: Export | str | Path,
    *,
    split: str = "test",
    index: int | None = None,
    on_step: OnStep = no_step,
) -> RecallResult:
    """Recall@1, @10, @100 and MRR of a model on the pairs of a split, beside BM25 and both fused.

    `index`: rank among so many random items, and those of the pairs, instead of all. Raises EmbedError for an
    export without pairs of that split, or that does not fit the model.
    """
    if not isinstance(export, Export):
        export = Export(export, model.fields)
    fusion, pairs = Fusion.of(model.about), Pairs.load(export, split)
    other = "train" if split == "test" else "test"
    others = Pairs.load(export, other) if export.manifest["pairs"]["pairs"].get(other) else None
    embedded = Embedded(model, export, pairs.queries, on_step=on_step)
    measuring = _Measuring(
        model,
        export,
        pairs,
        {} if others is None else pairs.tasks_of(others),
        embedded,
        Training.of(export, pairs.queries, others if split == "test" else pairs, export.fields),
        fusion,
    )
    result: RecallResult = {
        "split": split,
        "fields": list(export.fields),
        "fusion": fusion.as_dict(),
        "tasks": {},
    }
    for done, (name, task) in enumerate(pairs.tasks.items()):
        on_step("ranking", done, len(pairs.tasks))
        result["tasks"][name] = measuring.task(task, candidates_of(task, index))
    on_step("ranking", len(pairs.tasks), len(pairs.tasks))
    return result


class _Measuring:
    """What the measuring of every task needs."""

    def __init__(
        self,
        model: EmbeddingModel,
        export: Export,
        pairs: Pairs,
        others: Mapping[str, Task],
        embedded: Embedded,
        training: Training,
        fusion: Fusion,
    ):
        self.model, self.export, self.pairs, self.others = model, export, pairs, others
        self.embedded, self.training, self.fusion = embedded, training, fusion

    def task(self, task: Task, candidates: Candidates) -> TaskRecall:
        """Recall of the pairs of one task among the candidates."""
        known = known_positives([self.pairs.tasks, self.others], task.name)
        longest = self.model.dim
        words, bm25 = self._bm25(task, candidates, "words"), self._bm25(task, candidates, self.fusion.kind)
        ours = self.embedded.scores(task, candidates, longest)
        scores = {
            "model": ours,
            "bm25": bm25,
            "bm25 of words": words,
            "fused": fused(ours, bm25, self.fusion.weight),
        }
        ranks_of = {name: ranks(one, task, candidates, known) for name, one in scores.items()}
        shorter = {
            str(dim): ranks(self.embedded.scores(task, candidates, dim), task, candidates, known)
            for dim in self.model.dims
            if dim != longest
        }
        summary_of = summaries({**ranks_of, **shorter}, task.queries)
        shown = self._shown(scores, task, candidates)
        queries = np.unique(task.queries)
        gains = Gains.of(task.queries, task.items, task.weights)
        return {
            "pairs": len(task),
            "queries": len(queries),
            "index": len(candidates.rows),
            "bm25": summary_of["bm25"],
            "bm25 of words": summary_of["bm25 of words"],
            "fused": summary_of["fused"],
            "dims": {**{dim: summary_of[dim] for dim in shorter}, str(longest): summary_of["model"]},
            "differences": differences(ranks_of, task.queries),
            "ndcg@10": {name: interval_of_means(ndcg(rows, queries, gains)) for name, rows in shown.items()},
            "groups": self._groups(task, ranks_of),
            "examples": gained_and_lost(self.export, self.pairs, task, ranks_of["model"], ranks_of["bm25"]),
            "popularity": None
            if task.name == QUERY_QUERY
            else popularity(shown, task, candidates.rows, self.training.item_pairs),
        }

    def _bm25(self, task: Task, candidates: Candidates, kind: Kind) -> Scores:
        return bm25_scores(self.export, self.pairs, task, candidates, kind=kind)

    def _shown(
        self, scores: Mapping[str, Scores], task: Task, candidates: Candidates
    ) -> dict[str, np.ndarray]:
        """{method: the rows [queries, ten] that it shows}. What was known before is not shown."""
        before = known_positives([self.others], task.name) if task.name in self.others else task.known[:0]
        own = known_positives([{task.name: task}], task.name)
        if task.name == QUERY_QUERY:  # no query is shown to itself
            queries = np.unique(task.queries).astype(np.int64)
            before = np.union1d(before, queries << 32 | queries)
            own = task.known
        before = np.setdiff1d(before, own)
        queries = np.unique(task.queries)
        return {name: top(one, queries, candidates, before, SHOWN) for name, one in scores.items()}

    def _groups(self, task: Task, ranks_of: Mapping[str, np.ndarray]) -> dict[str, dict[str, GroupRecall]]:
        masks_by = self.training.groups(task) | groups(self.export, task, self.pairs.details[task.name])
        found: dict[str, dict[str, GroupRecall]] = {}
        for by, masks in masks_by.items():
            found[by] = {}
            for group, mask in masks.items():
                queries = task.queries[mask]
                part = {name: ranks_of[name][mask] for name in ("model", "bm25", "fused")}
                summary = summaries(part, queries)
                found[by][group] = {
                    "pairs": int(mask.sum()),
                    "queries": len(np.unique(queries)),
                    "model": summary["model"],
                    "bm25": summary["bm25"],
                    "fused": summary["fused"],
                    "differences": differences(part, queries),
                }
        return found


def differences(ranks_of: Mapping[str, np.ndarray], queries: np.ndarray) -> Differences:
    """How much more Recall@10 the model has than BM25, and both fused have, paired by query."""
    hits = {name: measures(ranks_of[name])["recall@10"] for name in ("model", "bm25", "fused")}
    lines = np.stack([hits["model"] - hits["bm25"], hits["fused"] - hits["bm25"]])
    model, both = ([round(x, 4) for x in line] for line in means_and_intervals(lines, queries))
    return {"model less bm25": model, "fused less bm25": both}


def summaries(ranks_of: Mapping[str, np.ndarray], queries: np.ndarray) -> dict[str, Summary]:
    """{name: Summary} of {name: ranks [pairs]} for the same pairs, with their queries [pairs]."""
    lines = {(who, name): values for who, rank in ranks_of.items() for name, values in measures(rank).items()}
    intervals = means_and_intervals(np.stack(list(lines.values())), queries)
    rounded: dict[str, dict[str, list[float]]] = {who: {} for who in ranks_of}
    for (who, name), interval in zip(lines, intervals, strict=True):
        rounded[who][name] = [round(number, 4) for number in interval]
    return cast(dict[str, Summary], rounded)
