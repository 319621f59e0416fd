"""Writes vectors of queries as Parquet."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq
import torch

from ..common.files import whole
from .model import EmbeddingModel

AT_ONCE = 256  # queries
ROW_GROUP = 50_000  # rows of a row group, which then has at most some 50 MB
MAX_LINE = 10_000  # characters of a query that are read


def write_query_vectors(
    model: EmbeddingModel,
    queries: Iterable[str],
    target: str | Path | BinaryIO,
    dim: int | None = None,
) -> int:
    """Writes the rows of `query_vectors` as Parquet, and returns how many there are.

    A path is written whole or not at all, a stream while rows are made. One row group is held in memory.
    """
    batches, columns = query_vectors(model, queries, dim), schema(model.check_dim(dim))
    if isinstance(target, (str, Path)):
        with whole(target) as unfinished:
            return _write(batches, str(unfinished), columns)
    return _write(batches, target, columns)


def query_vectors(
    model: EmbeddingModel, queries: Iterable[str], dim: int | None = None
) -> Iterator[pa.RecordBatch]:
    """Rows (query, vector) in the order of the queries. Blank queries are skipped.

    `dim`: only the first `dim` numbers. Raises EmbedError if the model has no embeddings of that length.
    """
    return _batches(model, queries, model.check_dim(dim))


def schema(dim: int) -> pa.Schema:
    """The columns of the rows."""
    return pa.schema([("query", pa.string()), ("vector", pa.list_(pa.float32(), dim))])


def _batches(model: EmbeddingModel, queries: Iterable[str], dim: int) -> Iterator[pa.RecordBatch]:
    texts = (text for query in queries if (text := query.strip()[:MAX_LINE]))
    while batch := list(itertools.islice(texts, AT_ONCE)):
        vectors = torch.nn.functional.normalize(model.embed_queries(batch)[:, :dim], dim=1)
        flat = pa.array(vectors.reshape(-1).cpu().numpy())
        yield pa.record_batch(
            [pa.array(batch), pa.FixedSizeListArray.from_arrays(flat, dim)], schema=schema(dim)
        )


def _write(batches: Iterator[pa.RecordBatch], target: str | BinaryIO, columns: pa.Schema) -> int:
    n = 0
    with pq.ParquetWriter(target, columns, compression="zstd") as writer:
        while row_group := list(itertools.islice(batches, ROW_GROUP // AT_ONCE)):
            writer.write_table(pa.Table.from_batches(row_group))
            n += sum(batch.num_rows for batch in row_group)
    return n
