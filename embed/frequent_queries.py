"""The queries that people asked most often in an export, embedded: related queries are found among them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch

from ..common.terminal import OnStep, no_step
from .index import best
from .model import EmbeddingModel
from .reader import Export

MOST = 20_000  # queries that are embedded, which takes seconds with the small encoder
AT_ONCE = 1_000


@dataclass(frozen=True)
class RelatedQuery:
    """A query that is near to what was asked."""

    rank: int
    query: str
    score: float  # the dot product of the two embeddings
    frequency: int  # items that were engaged with after it, and pairs it is part of


@dataclass
class FrequentQueries:
    """Queries, the most frequent one first, and their embeddings."""

    texts: list[str]
    frequencies: np.ndarray  # [queries]
    vectors: torch.Tensor  # [queries, dim], float32

    @classmethod
    def embed(
        cls, model: EmbeddingModel, export: Export, dim: int, *, most: int = MOST, on_step: OnStep = no_step
    ) -> FrequentQueries:
        """Embeds the `most` frequent queries: engaged queries of items, and queries of training pairs."""
        texts, frequencies = frequent_queries(export, most)
        parts = [torch.empty(0, dim)]
        for start in range(0, len(texts), AT_ONCE):
            parts.append(model.embed_queries(texts[start : start + AT_ONCE], dim=dim).cpu())
            on_step("encoding queries", min(start + AT_ONCE, len(texts)), len(texts))
        return cls(texts, frequencies, torch.cat(parts))

    def nearest(self, vector: torch.Tensor, k: int, leave_out: str = "") -> list[RelatedQuery]:
        """The `k` queries nearest to an embedding [dim]; `leave_out` is not among them."""
        scores = (self.vectors @ vector.cpu().float()).numpy()
        rows = [row for row in best(scores, k + 1).tolist() if self.texts[row] != leave_out][:k]
        return [
            RelatedQuery(number, self.texts[row], float(scores[row]), int(self.frequencies[row]))
            for number, row in enumerate(rows, 1)
        ]


def frequent_queries(export: Export, most: int) -> tuple[list[str], np.ndarray]:
    """(queries, how frequent each is), at most `most`, the most frequent one first, then by the alphabet."""
    chunks = []
    if "engaged_queries" in export.rows.column_names:
        chunks += [chunk.flatten() for chunk in export.rows.data.column("engaged_queries").chunks]
    if export.manifest.get("pairs"):
        for table, columns in (("pairs", ["query"]), ("query_pairs", ["query", "other_query"])):
            pairs = export.pair_table(table, "train")
            chunks += [chunk for name in columns if len(pairs) for chunk in pairs[name].chunks]
    counted = pc.value_counts(pa.chunked_array(chunks, pa.string()).drop_null())
    table = pa.table({"query": counted.field("values"), "n": counted.field("counts")})
    table = table.sort_by([("n", "descending"), ("query", "ascending")]).slice(0, most)
    return table["query"].to_pylist(), table["n"].to_numpy()
