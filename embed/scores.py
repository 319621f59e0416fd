"""Scores."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np
import pyarrow as pa
import torch

from .bm25 import BM25
from .loss import shortened
from .model import Model
from .ngrams import grams
from .pairs import QUERY_QUERY, Pairs, Task
from .ranking import Index, Scores
from .reader import Export

ENCODED_AT_ONCE = 1_024


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
