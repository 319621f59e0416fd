"""Vectors of queries, for those who search: from a trained model, or from its exported query encoder, which
needs none of our code.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq
import torch

from ..common.files import whole
from .errors import EmbedError
from .model import Model

AT_ONCE = 256
ROW_GROUP = 50_000  # rows, of at most some 50 MB
MAX_LINE = 10_000  # characters of a query that are looked at


def encode(model: Model, queries: Iterable[str], dim: int | None = None) -> Iterator[pa.RecordBatch]:
    """Rows (query, vector) for queries in the order in which they come; blank lines have none.

    `dim`: only so many numbers. Raises EmbedError for a dim that the model has not.
    """
    dim = dim or model.sizes.dim
    if dim not in model.sizes.dims:
        raise EmbedError(
            f"the model has embeddings of {', '.join(map(str, model.sizes.dims))} numbers, not of {dim}"
        )
    return _encoded(model, queries, dim)


def _encoded(model: Model, queries: Iterable[str], dim: int) -> Iterator[pa.RecordBatch]:
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


@torch.inference_mode()
def _batch(model: Model, texts: list[str], dim: int) -> pa.RecordBatch:
    vectors = torch.nn.functional.normalize(model.queries(*model.tokenise(texts))[:, :dim], dim=1)
    flat = pa.array(vectors.reshape(-1).numpy())
    return pa.record_batch(
        [pa.array(texts), pa.FixedSizeListArray.from_arrays(flat, dim)], schema=schema(dim)
    )


def write(model: Model, queries: Iterable[str], sink: str | Path | BinaryIO, dim: int | None = None) -> int:
    """Writes `encode` as Parquet, a path whole or not at all, a stream as rows come; returns how many queries
    there were. Memory: that of a row group.
    """
    batches = encode(model, queries, dim)
    if isinstance(sink, (str, Path)):
        with whole(sink) as unfinished:
            return _write(batches, str(unfinished), schema(dim or model.sizes.dim))
    return _write(batches, sink, schema(dim or model.sizes.dim))


def _write(batches: Iterator[pa.RecordBatch], sink: str | BinaryIO, columns: pa.Schema) -> int:
    n = 0
    with pq.ParquetWriter(sink, columns, compression="zstd") as writer:
        while some := list(itertools.islice(batches, ROW_GROUP // AT_ONCE)):
            writer.write_table(pa.Table.from_batches(some))
            n += sum(batch.num_rows for batch in some)
    return n
