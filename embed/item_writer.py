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
    resumed: int  # of those copied, from a call that was stopped
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
    whole: after a crash the file of before is still there, and the next call copies the vectors of all
    finished row groups. The ids and one row group are held in memory. Under `accelerate launch` each process
    embeds a part of the rows, and the file is the same as that of one process. Raises EmbedError.
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
    with contextlib.ExitStack() as opened:

        def old(files: Sequence[ItemVectors]) -> OldVectors | None:
            if not files:
                return None
            # It has no name in the folder: nothing is left of it, even after kill -9.
            scratch = opened.enter_context(tempfile.TemporaryFile(dir=out.absolute().parent))
            return OldVectors(files, export.pin_ids, scratch)

        known = old([before] if before else [])
        tables = ItemTables(model, export, schema, saved=old(_saved(out, schema)), before=known)
        unfinished = opened.enter_context(whole(out if processes == 1 else _part(out, rank)))
        writer = opened.enter_context(_writer(unfinished, schema))
        for number, start in enumerate(mine):
            rows = np.arange(start, min(start + ROW_GROUP, len(export)))

            def on_done(done: int, before: int = number * ROW_GROUP) -> None:
                on_step("encoding items", before + done, share)

            on_done(0)
            embedded = tables.embedded
            table = tables.read(rows, on_done)
            if tables.embedded > embedded:
                with whole(_save(out, start)) as path, _writer(path, schema) as save:
                    save.write_table(table)
            writer.write_table(table)
    counts = gathered((tables.embedded, tables.resumed))  # waits for the parts of the other processes
    embedded, resumed = (sum(count) for count in zip(*counts, strict=True))
    if rank == 0:
        if processes > 1:
            _join(out, processes, schema)
        for path in (*_beside(out, "part"), *_beside(out, "save")):  # also those that killed processes left
            path.unlink()
    gathered(0)  # waits for the whole file
    return ItemsResult(
        items=len(export),
        embedded=embedded,
        copied=len(export) - embedded,
        resumed=resumed,
        dropped=known.dropped if known else 0,
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
    """Vectors that were embedded before, for the items of an export. They are on disk, not in memory."""

    def __init__(self, files: Sequence[ItemVectors], pin_ids: pa.Array, scratch: IO[bytes]):
        """`files`: one or more of the same kind of vectors; `scratch`: an empty file for the copy of them
        that can be read at any row."""
        columns = pa.concat_tables(file.columns("pin_id", "text_digest") for file in files).combine_chunks()
        ids, digests = (columns[name].combine_chunks() for name in columns.column_names)
        self.rows: pa.Array = pc.index_in(pin_ids, value_set=ids)  # of each item of the export; null: none
        self.digests: pa.Array = digests
        self.dropped = len(ids) - int(pc.sum(pc.is_in(ids, value_set=pin_ids)).as_py() or 0)
        stored = np.int8 if files[0].numbers == "int8" else np.float16
        self.vectors = np.empty((0, files[0].dim), stored)
        if len(ids):
            self.vectors = np.memmap(scratch, stored, "w+", shape=(len(ids), files[0].dim))
            done = 0
            for file in files:
                for block in file.stored_blocks():
                    self.vectors[done : done + len(block)] = block
                    done += len(block)

    def copy_unchanged(self, items: pa.Array, digests: pa.Array, vectors: np.ndarray) -> np.ndarray:
        """Copies to `vectors` [items, dim] what has the digest that the item has now; returns which."""
        rows = self.rows.take(items)
        same: np.ndarray = pc.fill_null(pc.equal(self.digests.take(rows), digests), False).to_numpy(False)
        vectors[same] = self.vectors[rows.filter(pa.array(same)).to_numpy(False)]
        return same


class ItemTables:
    """Makes the rows of the new file; counts how many were embedded, and how many a stopped call had made."""

    def __init__(
        self,
        model: EmbeddingModel,
        export: Export,
        schema: pa.Schema,
        *,
        saved: OldVectors | None,
        before: OldVectors | None,
    ):
        """`saved`: what a call that was stopped has made; `before`: the vectors of the file of before."""
        self.model, self.export, self.schema, self.saved, self.before = model, export, schema, saved, before
        self.categories = feature_column(export, "category")
        self.kinds = feature_column(export, "kind")
        self.embedded = self.resumed = 0

    def read(self, rows: np.ndarray, on_done: Callable[[int], None]) -> pa.Table:
        """The rows of some items of the export. `on_done` gets how many of them are embedded so far."""
        picked, vector = pa.array(rows), self.schema.field("vector").type
        digests = pa.array(text_digests(self.export, rows, self.model.dense), pa.string())
        stored, dim = vector.value_type.to_pandas_dtype(), vector.list_size
        vectors, known = np.empty((len(rows), dim), stored), np.zeros(len(rows), bool)
        if self.before is not None:
            known |= self.before.copy_unchanged(picked, digests, vectors)
        if self.saved is not None:
            resumed = self.saved.copy_unchanged(picked, digests, vectors)
            self.resumed += int((resumed & ~known).sum())
            known |= resumed
        changed = np.flatnonzero(~known)
        if len(changed):
            made = self.model.embed_items(
                self.export, rows[changed], dim=dim, on_step=lambda _, done, total: on_done(done)
            )
            vectors[changed] = _as_stored(made, stored)
            self.embedded += len(changed)
        columns = [
            self.export.pin_ids.take(picked),
            self.kinds.take(picked),
            self.categories.take(picked),
            pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1), vector.value_type), dim),
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
    reason = _other(before, schema)
    return (None, reason) if reason else (before, None)


def _other(vectors: ItemVectors, schema: pa.Schema) -> Reason | None:
    """Why vectors are not of the kind that the schema describes, or None."""
    about = json.loads(schema.metadata[METADATA])
    if vectors.model_digest != about["model_digest"]:
        return "another model"
    if vectors.dim != about["dim"]:
        return "another length"
    if vectors.numbers != about["numbers"]:
        return "another number type"
    return None if list(vectors.fields) == about["fields"] else "other fields"


def _saved(out: Path, schema: pa.Schema) -> list[ItemVectors]:
    """The row groups that a call which was stopped has finished, as far as they fit the schema."""
    found = []
    for path in sorted(path for path in _beside(out, "save") if path.suffix != ".unfinished"):
        with contextlib.suppress(EmbedError):
            found.append(ItemVectors.open(path))
    return [vectors for vectors in found if _other(vectors, schema) is None]


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
    """The rows of one process."""
    return out.with_name(f".{out.name}.part-{rank}")


def _save(out: Path, start: int) -> Path:
    """A finished row group, by its first row. It is there until all of the file is written."""
    return out.with_name(f".{out.name}.save-{start}")


def _beside(out: Path, what: Literal["part", "save"]) -> list[Path]:
    """All files of one kind, finished or not, of this or of another call."""
    start = f".{out.name}.{what}-", f"..{out.name}.{what}-"
    return [path for path in out.absolute().parent.iterdir() if path.name.startswith(start)]


def _join(out: Path, processes: int, schema: pa.Schema) -> None:
    """Writes the row groups of all parts into one file."""
    parts = [_part(out, rank) for rank in range(processes)]
    with whole(out) as unfinished, _writer(unfinished, schema) as writer:
        for part in parts:
            file = pq.ParquetFile(part)
            for group in range(file.num_row_groups):
                writer.write_table(file.read_row_group(group))
