"""Reads an export: the texts and vectors of its items."""

from __future__ import annotations

import functools
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch

from ..export.manifest import read_manifest
from ..store.columns import OMNISEARCHSAGE
from .controls import Control, ReplacedTexts, rows_with_text
from .errors import EmbedError
from .ngrams import Grams, grams

FIELDS = ("title", "description", "caption", "board_titles", "engaged_queries")
ROWS_AT_ONCE = 2_000
# columns of text that say nothing about what an item is
NO_FIELDS = {"pin_id", "kind", "image_sha256", "locale", "caption_recipe"}
# columns of an export that nobody here reads
NOT_READ = {"board_title_counts", "engaged_query_scores", "image_sha256", "caption_recipe"}


class Export:
    """The rows of an export, memory-mapped by `datasets`. A row is an item: a pin or a product."""

    def __init__(
        self,
        folder: str | Path,
        fields: Sequence[str] = FIELDS,
        *,
        controls: Mapping[str, Control] | None = None,
        seed: int = 0,
        hidden_queries: pa.Array | None = None,
    ):
        """`fields`: the text columns to read, `text_columns` says which there are.

        Raises EmbedError if the folder is not an export, or does not have one of the fields.

        `controls` {field: how `seed` replaces its texts}: for ablations. `hidden_queries` are removed from
        the engaged queries of every item.
        """
        import datasets

        self.folder, self.hidden_queries = Path(folder), hidden_queries
        self.controls, self.seed = dict(controls or {}), seed
        manifest = read_manifest(self.folder)
        if manifest is None:
            raise EmbedError(
                f"{folder} is not an export: write one with captioner export STORE {folder} "
                "--as-of DATE --pairs --test-from DATE"
            )
        self.manifest = manifest
        datasets.disable_progress_bars()
        our_names = {theirs: ours for ours, theirs in OMNISEARCHSAGE.items()}
        features = _with_text_types(datasets.load_dataset(str(self.folder), "features", split="train"))
        self.rows = features.rename_columns(
            {theirs: ours for theirs, ours in our_names.items() if theirs in features.column_names}
        ).with_format("arrow")
        self.rows = self.rows.select_columns(
            [name for name in self.rows.column_names if name not in NOT_READ]
        )
        self.read_fields(fields)
        self.stored_vectors: dict[str, int] = dict(self.manifest.get("embeddings", {}))  # {name: numbers}
        self.dense = dict(self.stored_vectors)  # {name: numbers} of the vectors that `items` gives
        self._rows_with: dict[str, np.ndarray] = {}
        self._replaced: dict[str, ReplacedTexts] = {}

    def __len__(self) -> int:
        return len(self.rows)

    @functools.cached_property
    def text_columns(self) -> list[str]:
        """The names of the columns that can be fields: those of texts, or of lists of texts."""
        return [
            field.name
            for field in self.rows.data.table.schema
            if field.name not in NO_FIELDS and _is_text(field.type)
        ]

    @functools.cached_property
    def pin_ids(self) -> pa.Array:
        """The pin_id of every row."""
        return (
            pa.concat_arrays(self.rows.data.column("pin_id").chunks)
            if len(self)
            else pa.array([], pa.string())
        )

    @functools.cached_property
    def products(self) -> np.ndarray:
        """bool [rows]: whether each row is a product."""
        return np.asarray(pc.equal(self.rows.data.column("kind"), "product").to_numpy(zero_copy_only=False))

    @functools.cached_property
    def rows_with_text(self) -> np.ndarray:
        """The rows, ascending, that have a text in at least one of the fields."""
        return functools.reduce(
            np.union1d, (self.rows_with(name) for name in self.fields), np.empty(0, np.int64)
        )

    def rows_with(self, field: str) -> np.ndarray:
        """The rows, ascending, that have a text in a field."""
        if field not in self._rows_with:
            self._rows_with[field] = rows_with_text(self.rows.data.column(field))
        return self._rows_with[field]

    def pair_table(self, name: str, split: str) -> pa.Table:
        """The table `pairs` or `query_pairs` of a split; empty if the export has no such pairs.

        Raises EmbedError for an export that was written without pairs.
        """
        import datasets

        counts = self.manifest.get("pairs")
        if not counts:
            raise EmbedError(
                f"{self.folder} has no pairs to learn from: export with --as-of DATE --pairs --test-from DATE"
            )
        if not counts.get(name, {}).get(split):
            return pa.table({})
        return pa.table(datasets.load_dataset(str(self.folder), name, split=split).data.table)

    def texts(
        self,
        rows: np.ndarray,
        fields: Sequence[str],
        leave_out: pa.Array | None = None,
        *,
        table: pa.Table | None = None,
    ) -> dict[str, tuple[pa.Array, np.ndarray]]:
        """{field: (texts, place in `rows` that each text belongs to)} of some rows.

        `leave_out` [rows]: for each row one query that is left out of its engaged queries. `table`: the
        content of these rows, if the caller has read it already.
        """
        texts_by_field, table = {}, self.rows[rows] if table is None else table
        for name in fields:
            column = (
                self._replaced_texts(name).take(rows)
                if name in self.controls
                else table.column(name).combine_chunks()
            )
            if not pa.types.is_list(column.type):
                texts_by_field[name] = column, np.arange(len(rows))
                continue
            parents = pc.list_parent_indices(column).to_numpy()
            column = column.flatten()
            if name == "engaged_queries" and (leave_out is not None or self.hidden_queries is not None):
                kept = pa.array(np.ones(len(column), bool))
                if self.hidden_queries is not None:
                    kept = pc.invert(pc.is_in(column, value_set=self.hidden_queries))
                if leave_out is not None:
                    kept = pc.and_(kept, pc.not_equal(column, leave_out.take(pa.array(parents))))
                column, parents = column.filter(kept), parents[kept.to_numpy(zero_copy_only=False)]
            texts_by_field[name] = column, parents
        return texts_by_field

    def _replaced_texts(self, field: str) -> ReplacedTexts:
        if field not in self._replaced:
            self._replaced[field] = ReplacedTexts(
                self.controls[field], self.rows.data.column(field), zlib.crc32(field.encode()), self.seed
            )
        return self._replaced[field]

    def read_fields(self, fields: Sequence[str]) -> None:
        """Makes these the text fields of the items.

        Raises EmbedError if the export does not have one of them.
        """
        if unknown := [name for name in fields if name not in self.text_columns]:
            raise EmbedError(
                f"{self.folder} has no column of texts named {', '.join(unknown)}: "
                f"the fields of its items are {', '.join(self.text_columns)}"
            )
        self.fields = tuple(fields)

    def expect_vectors(self, dense: Mapping[str, int]) -> None:
        """Makes `items` give the vectors {name: numbers} that a model reads, and no others.

        If the export does not have vectors of some name, every item lacks them. Raises EmbedError if it has
        vectors of that name with another number of numbers.
        """
        for name, size in dense.items():
            if self.stored_vectors.get(name, size) != size:
                raise EmbedError(
                    f"{self.folder} has vectors {name} of {self.stored_vectors[name]} numbers, "
                    f"but the model was trained on {size}"
                )
        self.dense = dict(dense)

    def vectors(self, table: pa.Table, name: str) -> tuple[torch.Tensor, torch.Tensor]:
        """The vectors of some rows, scaled to length 1 (zeros if missing), and whether each row has one."""
        if name not in self.stored_vectors:
            return torch.zeros(len(table), self.dense[name]), torch.zeros(len(table), dtype=torch.bool)
        column = table.column(name).combine_chunks()
        has = torch.from_numpy(column.is_valid().to_numpy(zero_copy_only=False).copy())
        if column.null_count:
            column = column.fill_null(pa.scalar([0.0] * self.dense[name], column.type))
        numbers = column.flatten().to_numpy(zero_copy_only=False).astype(np.float32)
        vectors = torch.from_numpy(numbers).view(len(table), self.dense[name])
        return torch.nn.functional.normalize(vectors, dim=1), has

    def batches(self, rows: np.ndarray | None = None) -> Iterator[np.ndarray]:
        """The numbers of all rows, or of `rows`, up to 2,000 at a time."""
        rows = np.arange(len(self)) if rows is None else rows
        for start in range(0, len(rows), ROWS_AT_ONCE):
            yield rows[start : start + ROWS_AT_ONCE]

    def grams(self, more_texts: pa.Array | None = None) -> Iterator[list[dict[str, Grams]]]:
        """The n-grams of all texts, up to 2,000 rows at a time, and then those of `more_texts`."""
        for rows in self.batches():
            yield [grams(column, parents) for column, parents in self.texts(rows, self.fields).values()]
        if more_texts is not None:
            yield [grams(more_texts)]


def _is_text(kind: pa.DataType) -> bool:
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        kind = kind.value_type
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _with_text_types(rows: Any) -> Any:
    """A dataset whose text columns have the type of text.

    A JSON Lines export may have a column without a single text. `datasets` gives it the type null.
    """
    import datasets

    text = datasets.Value("string")
    wanted = {}
    for name, feature in rows.features.items():
        if getattr(feature, "dtype", "") == "null":
            feature = text
        elif getattr(getattr(feature, "feature", None), "dtype", "") == "null":
            feature = datasets.List(text)
        wanted[name] = feature
    return rows if wanted == dict(rows.features) else rows.cast(datasets.Features(wanted))
