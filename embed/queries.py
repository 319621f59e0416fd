"""Vectors of queries, for those who search: from a trained model, or from its exported query encoder, which
needs none of our code.
"""

from __future__ import annotations

import io
import itertools
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import nn

from ..common.files import whole, write_whole
from ..filters.text import normalise
from .data import ExportError
from .towers import SMALL, Model

AT_ONCE = 256
ROW_GROUP = 50_000  # rows, of at most some 50 MB
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
    """Writes the query tower by torch.export, for any number of queries of up to 64 tokens, and returns the
    largest difference to the model on some texts.

    It takes what the tokeniser of MODEL/encoder makes of texts in the form of `filters.text.normalise`. The
    small encoder's brings raw texts into that form by itself: with it the difference is measured on raw
    texts. Raises ExportError, and writes nothing, where that is above 1e-4.
    """
    texts = [
        "Red Mug!",
        "a",
        "two blue boats, beside a green tree: on a yellow background",
        "Grandma\u2019s Crème  BRÛLÉE & 猫カフェ",
    ]
    texts = texts if model.about.get("encoder") == SMALL else [normalise(text) for text in texts]
    ids, mask = _ids(model, texts)
    n, length = (
        torch.export.Dim("queries", min=1, max=65_536),
        torch.export.Dim("tokens", min=2, max=model.most_tokens),
    )
    written = io.BytesIO()
    with torch.no_grad():
        program = torch.export.export(
            _Encoder(model).eval(), (ids, mask), dynamic_shapes=({0: n, 1: length}, {0: n, 1: length})
        )
        torch.export.save(program, written)
        encoder = load_encoder(io.BytesIO(written.getvalue()))
        gap = max(
            float((encoder(*_ids(model, some)) - model.queries(*model.tokenise(some))).abs().max())
            for some in (texts, texts[:1], texts * 9)
        )
        if not gap <= MOST_DIFFERENCE:
            raise ExportError(
                f"the exported encoder differs from the model by {gap:.1e}, more than {MOST_DIFFERENCE:.0e}: nothing was written"
            )
    write_whole(path, written.getvalue())
    return gap


def _ids(model: Model, texts: list[str]) -> tuple[torch.Tensor, torch.Tensor]:
    """What a service gives to the encoder: ids and mask by the tokeniser alone."""
    found = model.tokeniser(
        texts, padding=True, truncation=True, max_length=model.most_tokens, return_tensors="pt"
    )
    return found["input_ids"], found["attention_mask"]


def load_encoder(source: Path | io.BytesIO) -> Any:
    """The exported encoder: (ids, mask) -> [queries, dim]."""
    return torch.export.load(source if isinstance(source, io.BytesIO) else str(source)).module()


def encode(model: Model, queries: Iterable[str], dim: int | None = None) -> Iterator[pa.RecordBatch]:
    """Rows (query, vector) for queries in the order in which they come; blank lines have none.

    `dim`: only so many numbers. Raises ExportError for a dim that the model has not.
    """
    dim = dim or model.sizes.dim
    if dim not in model.sizes.dims:
        raise ExportError(
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
