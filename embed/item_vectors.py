"""A Parquet file with a vector for each item of an export.

The columns are pin_id, kind, category, vector and text_digest. The schema's metadata has, under the key
`pincaption`, a JSON object: which model made the vectors, how many numbers they have, and of which type.
item_writer.py writes such files.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from .errors import EmbedError
from .model import EmbeddingModel
from .reader import Export

FORMAT = "pincaption item vectors 1"
METADATA = b"pincaption"  # the key of our JSON object in the metadata of the schema
INT8_SCALE = 127  # int8 numbers are those of the vector times this

Numbers = Literal["float16", "int8"]


class NarrowExport(Export):
    """An export that shows only some of its text fields. The other fields are empty, in every item."""

    def __init__(self, folder: str | Path, fields: Sequence[str], shown: Sequence[str]):
        """`fields`: those that a model reads; `shown`: those of them that have texts."""
        super().__init__(folder, fields)
        self.shown = tuple(name for name in fields if name in shown)

    def texts(
        self,
        rows: np.ndarray,
        fields: Sequence[str],
        leave_out: pa.Array | None = None,
        *,
        table: pa.Table | None = None,
    ) -> dict[str, tuple[pa.Array, np.ndarray]]:
        """What `Export.texts` returns, without a text in the fields that are not shown."""
        shown = [name for name in fields if name in self.shown]
        texts = super().texts(rows, shown, leave_out, table=table)
        nothing = pa.array([], pa.string()), np.empty(0, np.int64)
        return {name: texts.get(name, nothing) for name in fields}


def export_for(model: EmbeddingModel, folder: str | Path, fields: Sequence[str] | None = None) -> Export:
    """An export, as a model reads it; with `fields`, only these texts are shown to the model.

    Raises EmbedError if it is no export, if its dense vectors do not fit, or if the model does not read one
    of the fields.
    """
    read = model.fields
    if fields is not None and (unknown := [name for name in fields if name not in read]):
        raise EmbedError(f"the model does not read {', '.join(unknown)}: it reads {', '.join(read)}")
    export = Export(folder, read) if fields is None else NarrowExport(folder, read, fields)
    export.expect_vectors(model.dense)
    return export


def shown_fields(export: Export) -> tuple[str, ...]:
    """The text fields of an export that a model gets to see."""
    return export.shown if isinstance(export, NarrowExport) else export.fields


def feature_column(export: Export, name: str) -> pa.Array:
    """A text column of the export's features [rows], also one that the towers do not read."""
    if name in export.rows.column_names:
        column = export.rows.data.column(name)
    else:
        import datasets

        stored = datasets.load_dataset(str(export.folder), "features", split="train")
        if name not in stored.column_names:
            return pa.nulls(len(export), pa.string())
        column = stored.data.column(name)
    return column.cast(pa.string()).combine_chunks() if len(export) else pa.array([], pa.string())


@dataclass
class ItemVectors:
    """A file of item vectors, opened for reading. Its rows are read in blocks."""

    path: Path
    model_digest: str
    dim: int
    numbers: Numbers
    fields: tuple[str, ...]  # the text fields that the model got to see

    @classmethod
    def open(cls, path: str | Path, model: EmbeddingModel | None = None) -> ItemVectors:
        """Reads the metadata of a file.

        Raises EmbedError if it is not a file of item vectors, or if another model than `model` made it.
        """
        path = Path(path)
        if not path.is_file():
            raise EmbedError(f"{path} does not exist: make it with captioner embed items MODEL EXPORT {path}")
        try:
            about = json.loads((pq.read_schema(path).metadata or {})[METADATA])
            if about["format"] != FORMAT:
                raise ValueError
            opened = cls(path, about["model_digest"], about["dim"], about["numbers"], tuple(about["fields"]))
        except (pa.ArrowException, ValueError, LookupError, TypeError):
            raise EmbedError(
                f"{path} does not hold item vectors: make them with captioner embed items MODEL EXPORT OUT"
            ) from None
        if model is not None:
            expect_digest(path, opened.model_digest, model, f"captioner embed items MODEL EXPORT {path}")
        return opened

    def __len__(self) -> int:
        return int(pq.read_metadata(self.path).num_rows)

    def columns(self, *names: str) -> pa.Table:
        """Some columns of all rows."""
        return pq.read_table(self.path, columns=list(names))

    def stored_blocks(self) -> Iterator[np.ndarray]:
        """The vectors as they are stored, float16 or int8 [rows, dim], a row group at a time."""
        file = pq.ParquetFile(self.path)
        for group in range(file.num_row_groups):
            column = file.read_row_group(group, ["vector"])["vector"].combine_chunks()
            yield column.flatten().to_numpy(zero_copy_only=False).reshape(-1, self.dim)

    def blocks(self) -> Iterator[torch.Tensor]:
        """The vectors, float32 [rows, dim] of length 1, a row group at a time."""
        for block in self.stored_blocks():
            yield torch.nn.functional.normalize(torch.from_numpy(block.astype(np.float32)), dim=1)


def expect_digest(what: str | Path, digest: str, model: EmbeddingModel, mend: str) -> None:
    """Raises EmbedError if `what`, which has a model's digest, was made by another model than this one."""
    if digest != model_digest(model):
        raise EmbedError(
            f"{what} was made by another model (its digest is {digest}, that of this model {model.digest}): "
            f"make it again with {mend}"
        )


def model_digest(model: EmbeddingModel) -> str:
    """The digest of a model. Raises EmbedError if it has none, because an older version saved it."""
    if not model.digest:
        raise EmbedError(
            "this model has no digest that vectors could be known by: train it again with this version"
        )
    return model.digest


def expect_fields(path: str | Path, fields: Sequence[str], shown: Sequence[str]) -> None:
    """Raises EmbedError if vectors were made with other fields than those of the search."""
    if tuple(fields) != tuple(shown):
        raise EmbedError(
            f"{path} was made with the fields {', '.join(fields)}, but this search reads {', '.join(shown)}: "
            f"make it with captioner embed items MODEL EXPORT OUT --fields {','.join(shown)}"
        )
