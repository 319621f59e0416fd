"""Writes the vectors of an export's items, and copies those of items that did not change.

item_vectors.py describes the file.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, Literal, TypedDict

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import torch

from ..common.files import whole
from ..common.terminal import OnStep, no_step
from .distributed import gathered, process_count, process_rank
from .errors import EmbedError
from .item_vectors import (
    FORMAT,
    INT8_SCALE,
    METADATA,
    ItemVectors,
    Numbers,
    feature_column,
    model_digest,
    shown_fields,
)
from .model import EmbeddingModel
from .reader import ROWS_AT_ONCE, Export

# Rows of a row group, which are held in memory: 10,000 vectors of 256 numbers are 10 MB as float32. It is a
# multiple of ROWS_AT_ONCE, so that several processes make the same batches as one process.
ROW_GROUP = 5 * ROWS_AT_ONCE
DIGEST_BYTES = 8  # of text_digest: a change stays unseen once in 2^64 changes

# Why no vector of a file that was there before could be copied.
Reason = Literal["no file before", "another model", "another length", "another number type", "other fields"]


class ItemsResult(TypedDict):
    """What `write_item_vectors` did. `all_again` is null if vectors of before could be copied."""

    items: int
    embedded: int
    copied: int
    dropped: int  # items of the file of before that the export does not have any more
    all_again: Reason | None
    model_digest: str
    dim: int
    numbers: Numbers
    out: str


def write_item_vectors(
    model: EmbeddingModel,
    export: Export,
    out: str | Path,
    *,
    dim: int | None = None,
    int8: bool = False,
    on_step: OnStep = no_step,
) -> ItemsResult:
    """Writes the vector of each item of `export` (see `export_for`) to the Parquet file `out`.

    `dim`: only the first `dim` numbers, scaled to length 1. `int8`: the numbers times 127, rounded. If `out`
    has vectors of the same model, length and type, those of unchanged items are copied. The file is written
    whole: after a crash the file of before is still there. The ids and one row group are held in memory.
    Under `accelerate launch` each process embeds a part of the rows, and the file is the same as that of one
    process. Raises EmbedError.
    """
    out, dim = Path(out), model.check_dim(dim)
    numbers: Numbers = "int8" if int8 else "float16"
    if not out.absolute().parent.is_dir():
        raise EmbedError(f"{out.parent} is not a folder: make it, or name another file to write")
    schema = item_schema(model, shown_fields(export), dim, numbers)
    before, all_again = _before(out, schema)
    rank, processes = process_rank(), process_count()
    starts = list(range(0, len(export), ROW_GROUP))
    mine = starts[len(starts) * rank // processes : len(starts) * (rank + 1) // processes]
    share = min(len(mine) * ROW_GROUP, len(export))
    dropped = 0
    with contextlib.ExitStack() as opened:
        old = None
        if before:
            # It has no name in the folder: nothing is left of it, even after kill -9.
            scratch = opened.enter_context(tempfile.TemporaryFile(dir=out.absolute().parent))
            old = OldVectors(before, scratch)
            dropped = old.not_in(export.pin_ids)
        tables = ItemTables(model, export, schema, dim, old)
        unfinished = opened.enter_context(whole(out if processes == 1 else _part(out, rank)))
        writer = opened.enter_context(_writer(unfinished, schema))
        for number, start in enumerate(mine):
            rows = np.arange(start, min(start + ROW_GROUP, len(export)))

            def on_done(done: int, before: int = number * ROW_GROUP) -> None:
                on_step("encoding items", before + done, share)

            on_done(0)
            writer.write_table(tables.read(rows, on_done))
    embedded = sum(gathered(tables.embedded))  # waits for the parts of the other processes
    if rank == 0:
        if processes > 1:
            _join(out, processes, schema)
        for path in out.absolute().parent.iterdir():  # also those that killed processes left
            if path.name.startswith(f".{out.name}.part-"):
                path.unlink()
    gathered(0)  # waits for the whole file
    return ItemsResult(
        items=len(export),
        embedded=embedded,
        copied=len(export) - embedded,
        dropped=dropped,
        all_again=all_again,
        model_digest=model.digest,
        dim=dim,
        numbers=numbers,
        out=str(out),
    )


def item_schema(model: EmbeddingModel, fields: Sequence[str], dim: int, numbers: Numbers) -> pa.Schema:
    """The columns of a file of item vectors, and in its metadata what they are.

    `fields`: the text fields that the model got to see.
    """
    about = {
        "format": FORMAT,
        "model_digest": model_digest(model),
        "dim": dim,
        "numbers": numbers,
        "fields": list(fields),
        "dense": model.dense,
    }
    if numbers == "int8":
        about["note"] = f"a number of a vector is the int8 number divided by {INT8_SCALE}"
    number_type = pa.int8() if numbers == "int8" else pa.float16()
    return pa.schema(
        [
            ("pin_id", pa.string()),
            ("kind", pa.string()),
            ("category", pa.string()),
            ("vector", pa.list_(number_type, dim)),
            ("text_digest", pa.string()),
        ],
        {METADATA: json.dumps(about, ensure_ascii=False)},
    )


class OldVectors:
    """The vectors of the file of before, by row. They are in a file on disk, not in memory."""

    def __init__(self, before: ItemVectors, scratch: IO[bytes]):
        """`scratch`: an empty file for the copy that can be read at any row."""
        columns = before.columns("pin_id", "text_digest")
        self.ids: pa.Array = columns["pin_id"].combine_chunks()
        self.digests: pa.Array = columns["text_digest"].combine_chunks()
        stored = np.int8 if before.numbers == "int8" else np.float16
        self.vectors = np.empty((0, before.dim), stored)
        if len(self.ids):
            self.vectors = np.memmap(scratch, stored, "w+", shape=(len(self.ids), before.dim))
            done = 0
            for block in before.stored_blocks():
                self.vectors[done : done + len(block)] = block
                done += len(block)

    def not_in(self, pin_ids: pa.Array) -> int:
        """How many items of the file are not among these."""
        return len(self.ids) - int(pc.sum(pc.is_in(self.ids, value_set=pin_ids)).as_py() or 0)

    def unchanged(self, pin_ids: pa.Array, digests: pa.Array) -> np.ndarray:
        """The row of each item in the file, or -1 if it is not there or had another digest."""
        rows = pc.index_in(pin_ids, value_set=self.ids)
        same = pc.fill_null(pc.equal(self.digests.take(rows), digests), False)
        found: np.ndarray = pc.if_else(same, rows, -1).to_numpy(zero_copy_only=False).astype(np.int64)
        return found


class ItemTables:
    """Makes the rows of the new file; counts how many were embedded."""

    def __init__(
        self, model: EmbeddingModel, export: Export, schema: pa.Schema, dim: int, old: OldVectors | None
    ):
        self.model, self.export, self.schema, self.dim, self.old = model, export, schema, dim, old
        self.categories = feature_column(export, "category")
        self.kinds = feature_column(export, "kind")
        self.embedded = 0

    def read(self, rows: np.ndarray, on_done: Callable[[int], None]) -> pa.Table:
        """The rows of some items of the export. `on_done` gets how many of them are embedded so far."""
        picked = pa.array(rows)
        ids = self.export.pin_ids.take(picked)
        digests = pa.array(text_digests(self.export, rows, self.model.dense), pa.string())
        old_rows = np.full(len(rows), -1) if self.old is None else self.old.unchanged(ids, digests)
        stored = self.schema.field("vector").type.value_type.to_pandas_dtype()
        vectors, changed = np.empty((len(rows), self.dim), stored), np.flatnonzero(old_rows < 0)
        if self.old is not None:
            copied = np.flatnonzero(old_rows >= 0)
            vectors[copied] = self.old.vectors[old_rows[copied]]
        if len(changed):
            made = self.model.embed_items(
                self.export, rows[changed], dim=self.dim, on_step=lambda _, done, total: on_done(done)
            )
            vectors[changed] = _as_stored(made, stored)
            self.embedded += len(changed)
        flat = pa.array(vectors.reshape(-1), self.schema.field("vector").type.value_type)
        columns = [
            ids,
            self.kinds.take(picked),
            self.categories.take(picked),
            pa.FixedSizeListArray.from_arrays(flat, self.dim),
            digests,
        ]
        return pa.table(columns, schema=self.schema)


def text_digests(export: Export, rows: np.ndarray, dense: Mapping[str, int]) -> list[str]:
    """For each row a hash of all that a model reads of the item: its texts in `export.fields`, its vectors.

    Every text goes in with its field and its length, so that no two items have the same bytes by chance.
    """
    digests: list[str] = []
    for some_rows in export.batches(rows):
        table = export.rows[some_rows]
        hashes = [hashlib.blake2b(digest_size=DIGEST_BYTES) for _ in some_rows]
        for field, (texts, places) in export.texts(some_rows, export.fields, table=table).items():
            for place, text in zip(places.tolist(), texts.to_pylist(), strict=True):
                if text:
                    hashes[place].update(f"{field} {len(text)} {text} ".encode())
        for name in sorted(dense.keys() & set(export.stored_vectors)):
            for place, vector in enumerate(table.column(name).to_pylist()):
                if vector is not None:
                    hashes[place].update(name.encode() + np.asarray(vector, np.float32).tobytes())
        digests += [made.hexdigest() for made in hashes]
    return digests


def _as_stored(vectors: torch.Tensor, stored: Any) -> np.ndarray:
    """float32 vectors of length 1 as float16, or as int8 after a multiplication by 127."""
    scaled = vectors.cpu().float()
    if stored is np.int8:
        scaled = (scaled * INT8_SCALE).round()
    return np.asarray(scaled.numpy(), stored)


def _before(out: Path, schema: pa.Schema) -> tuple[ItemVectors | None, Reason | None]:
    """The file that is there, if its vectors fit the schema of the new one, or else the reason why not.

    Raises EmbedError if `out` is another kind of file, which must not be overwritten.
    """
    if not out.exists():
        return None, "no file before"
    try:
        before = ItemVectors.open(out)
    except EmbedError:
        raise EmbedError(
            f"{out} exists, but does not hold item vectors: name another file to write, or delete it"
        ) from None
    about = json.loads(schema.metadata[METADATA])
    if before.model_digest != about["model_digest"]:
        return None, "another model"
    if before.dim != about["dim"]:
        return None, "another length"
    if before.numbers != about["numbers"]:
        return None, "another number type"
    return (before, None) if list(before.fields) == about["fields"] else (None, "other fields")


def _writer(path: Path, schema: pa.Schema) -> pq.ParquetWriter:
    # Vectors are noise to a compressor: it would only make them slow to read.
    compression = {name: "zstd" for name in schema.names if name != "vector"}
    return pq.ParquetWriter(
        path,
        schema,
        compression=compression | {"vector.list.element": "none"},
        use_dictionary=["kind", "category"],
    )


def _part(out: Path, rank: int) -> Path:
    return out.with_name(f".{out.name}.part-{rank}")


def _join(out: Path, processes: int, schema: pa.Schema) -> None:
    """Writes the row groups of all parts into one file."""
    parts = [_part(out, rank) for rank in range(processes)]
    with whole(out) as unfinished, _writer(unfinished, schema) as writer:
        for part in parts:
            file = pq.ParquetFile(part)
            for group in range(file.num_row_groups):
                writer.write_table(file.read_row_group(group))
