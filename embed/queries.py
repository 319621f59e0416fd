"""Vectors of queries, for those who search: from a trained model, or from its exported query encoder, which needs none of our code."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import nn

from ..files import write_whole
from .data import ExportError
from .towers import Model

AT_ONCE = 256
MOST_DIFFERENCE = 1e-4  # of an exported encoder, in any number of an embedding
MAX_LINE = 10_000  # characters of a query that are looked at


class _Encoder(nn.Module):
    """Ids and mask in, embeddings out."""

    def __init__(self, model: Model):
        super().__init__()
        self.tower = model.queries

    def forward(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        return torch.as_tensor(self.tower(ids, mask))


def export_encoder(model: Model, path: Path) -> float:
    """Writes the query tower by torch.export, for any number of queries of up to 64 tokens, and returns the largest difference to the model on some texts.

    Raises ExportError, and writes nothing, where that is above 1e-4.
    """
    texts = ["red mug", "a", "two blue boats beside a green tree on a yellow background"]
    ids, mask = model.tokenise(texts)
    n, length = torch.export.Dim("queries", min=1, max=65_536), torch.export.Dim("tokens", min=2, max=model.most_tokens)
    written = io.BytesIO()
    with torch.no_grad():
        program = torch.export.export(_Encoder(model).eval(), (ids, mask), dynamic_shapes=({0: n, 1: length}, {0: n, 1: length}))
        torch.export.save(program, written)
        encoder = load_encoder(io.BytesIO(written.getvalue()))
        gap = max(float((encoder(*model.tokenise(some)) - model.queries(*model.tokenise(some))).abs().max()) for some in (texts, texts[:1], texts * 9))
        if not gap <= MOST_DIFFERENCE:
            raise ExportError(f"the exported encoder differs from the model by {gap:.1e}, more than {MOST_DIFFERENCE:.0e}: nothing was written")
    write_whole(path, written.getvalue())
    return gap


def load_encoder(source: Path | io.BytesIO) -> Any:
    """The exported encoder: (ids, mask) -> [queries, dim]."""
    return torch.export.load(source if isinstance(source, io.BytesIO) else str(source)).module()


@torch.inference_mode()
def encode(model: Model, queries: Iterable[str], dim: int | None = None) -> Iterator[pa.RecordBatch]:
    """Rows (query, vector) for queries in the order in which they come; blank lines have none. `dim`: only so many numbers. Raises ExportError for a dim that the model has not."""
    dim = dim or model.sizes.dim
    if dim not in model.sizes.dims:
        raise ExportError(f"the model has embeddings of {', '.join(map(str, model.sizes.dims))} numbers, not of {dim}")
    waiting: list[str] = []
    for query in queries:
        if text := query.strip()[:MAX_LINE]:
            waiting.append(text)
        if len(waiting) == AT_ONCE:
            yield _batch(model, waiting, dim)
            waiting = []
    if waiting:
        yield _batch(model, waiting, dim)


def schema(dim: int) -> pa.Schema:
    """Of the rows that `encode` gives."""
    return pa.schema([("query", pa.string()), ("vector", pa.list_(pa.float32(), dim))])


def _batch(model: Model, texts: list[str], dim: int) -> pa.RecordBatch:
    vectors = torch.nn.functional.normalize(model.queries(*model.tokenise(texts))[:, :dim], dim=1)
    flat = pa.array(vectors.reshape(-1).numpy())
    return pa.record_batch([pa.array(texts), pa.FixedSizeListArray.from_arrays(flat, dim)], schema=schema(dim))


def write(model: Model, queries: Iterable[str], sink: Any, dim: int | None = None) -> int:
    """Writes `encode` as Parquet; returns how many queries there were."""
    n = 0
    batches = encode(model, queries, dim)
    with pq.ParquetWriter(sink, schema(dim or model.sizes.dim), compression="zstd") as writer:
        for batch in batches:
            writer.write_batch(batch)
            n += batch.num_rows
    return n
