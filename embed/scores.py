"""Scores of candidates for queries: by a model, by BM25, and by both."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa
import torch

from ..common.terminal import OnStep, no_step
from .bm25 import BM25, Batch, Kind
from .loss import shortened
from .model import EmbeddingModel
from .pairs import QUERY_QUERY, Pairs, Task
from .ranking import Candidates, Scores
from .reader import Export


class Embedded:
    """The embeddings of all items of an export and of a list of queries, made once for many tasks."""

    def __init__(
        self,
        model: EmbeddingModel,
        export: Export,
        queries: pa.Array,
        *,
        on_step: OnStep = no_step,
    ):
        self.queries = model.embed_queries(queries.to_pylist())
        self.items = model.embed_items(export, on_step=on_step)

    def scores(self, task: Task, candidates: Candidates, dim: int) -> Scores:
        """Dot products of embeddings of the first `dim` numbers."""
        targets = self.queries if task.name == QUERY_QUERY else self.items
        queries = shortened(self.queries, dim)
        chosen = shortened(targets[torch.from_numpy(candidates.rows).to(targets.device)], dim)
        return lambda places: queries[torch.from_numpy(places).to(queries.device)] @ chosen.T


def bm25_scores(
    export: Export,
    pairs: Pairs,
    task: Task,
    candidates: Candidates,
    fields: Sequence[str] | None = None,
    *,
    kind: Kind = "words",
) -> Scores:
    """BM25 over the candidates' texts in `fields`, by default in the fields that the export is read with."""
    used = pairs.queries.take(pa.array(np.unique(task.queries)))
    if task.name == QUERY_QUERY:
        others = pairs.queries.take(pa.array(candidates.rows))
        bm25 = BM25([[(others, np.arange(len(others)))]], len(others), used, kind=kind)
    else:
        bm25 = item_index(export, candidates.rows, fields, kind=kind, queries=used)
    return lambda places: bm25.scores(pairs.queries.take(pa.array(places)))


def item_index(
    export: Export,
    rows: np.ndarray,
    fields: Sequence[str] | None = None,
    *,
    kind: Kind = "words",
    queries: pa.Array | None = None,
) -> BM25:
    """An index of the items in these rows: document i is the item in rows[i].

    `fields`: by default those that the export is read with. With `queries`, it answers these alone.
    """

    def documents() -> Iterator[Batch]:
        done = 0
        for some in export.batches(rows):
            texts = export.texts(some, fields or export.fields).values()
            yield [(column, parents + done) for column, parents in texts]
            done += len(some)

    locales = None
    if kind != "words":
        locales = export.rows.data.column("locale").take(pa.array(rows))
    return BM25(documents(), len(rows), queries, kind=kind, locales=locales)


def fused(a: Scores, b: Scores, weight: float = 0.5) -> Scores:
    """`weight` times the standardised scores a, plus 1 - `weight` times the standardised scores b."""
    return lambda places: weight * standardised(a(places)) + (1 - weight) * standardised(b(places))


def standardised(table: torch.Tensor) -> torch.Tensor:
    """Scores [queries, candidates], on the CPU, with mean 0 and standard deviation 1 for each query.

    Equal scores become zeros.
    """
    table = table.cpu()
    deviation = table.std(1, keepdim=True, correction=0).clamp(min=1e-9)
    return (table - table.mean(1, keepdim=True)) / deviation
