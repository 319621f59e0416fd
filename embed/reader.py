"""What the trainer reads: an export's rows, and batches of pairs made of them.

A batch is a function of the seed, the step and the rank alone: nothing needs to be kept to go on exactly
where a training stopped.
"""

from __future__ import annotations

import functools
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch

from ..export.write import read_manifest
from ..store.columns import OMNISEARCHSAGE
from .controls import MOST_OWN_WORDS, RANDOM_WORDS, Control
from .errors import EmbedError
from .ngrams import Grams, grams
from .vocabulary import Vocabulary

FIELDS = ("title", "description", "caption", "board_titles", "engaged_queries")
ROWS_AT_ONCE = 2_000
# columns of the features that the towers have no use for
NOT_READ = {"board_title_counts", "engaged_query_scores", "image_sha256", "category", "caption_recipe"}


@dataclass
class Items:
    """Items as the item tower takes them: of each field the ids of its n-grams and where each item's begin,
    of each name of vectors a row per item and whether it has one.
    """

    texts: dict[str, tuple[torch.Tensor, torch.Tensor]]
    dense: dict[str, tuple[torch.Tensor, torch.Tensor]]

    def to(self, device: torch.device) -> Items:
        """The same on a device."""
        return Items(
            *(
                {
                    name: (a.to(device, non_blocking=True), b.to(device, non_blocking=True))
                    for name, (a, b) in some.items()
                }
                for some in (self.texts, self.dense)
            )
        )


class Export:
    """The rows of an export, memory-mapped by `datasets`. `fields` are the text fields that are read, the
    others are as if no item had them.

    `controls` {field: how its texts are replaced, drawn by `seed`} show what a field is worth beyond being
    there: items that have none get none (a "reshuffled" text is drawn by the rows that are asked for
    together). `hidden` queries are on no item. Raises EmbedError.
    """

    def __init__(
        self,
        folder: str | Path,
        fields: Sequence[str] = FIELDS,
        *,
        controls: Mapping[str, Control] | None = None,
        seed: int = 0,
        hidden: pa.Array | None = None,
    ):
        import datasets

        self.folder, self.fields, self.controls, self.seed, self.hidden = (
            Path(folder),
            tuple(fields),
            dict(controls or {}),
            seed,
            hidden,
        )
        manifest = read_manifest(self.folder)
        if manifest is None:
            raise EmbedError(
                f"{folder} is no export: write one with captioner export STORE {folder} --as-of DATE --pairs --test-from DATE"
            )
        self.manifest = manifest
        datasets.disable_progress_bars()
        names = {theirs: ours for ours, theirs in OMNISEARCHSAGE.items()}
        features = _with_types(datasets.load_dataset(str(self.folder), "features", split="train"))
        self.rows = features.rename_columns(
            {theirs: ours for theirs, ours in names.items() if theirs in features.column_names}
        ).with_format("arrow")
        self.rows = self.rows.select_columns(
            [name for name in self.rows.column_names if name not in NOT_READ]
        )
        self._stored: dict[str, int] = dict(self.manifest.get("embeddings", {}))
        self.dense = dict(self._stored)
        self._rows_having: dict[str, np.ndarray] = {}
        self._draws: dict[str, np.ndarray] = {}

    def __len__(self) -> int:
        return len(self.rows)

    @functools.cached_property
    def pin_ids(self) -> pa.Array:
        """The pins' ids in the order of the rows."""
        return (
            pa.concat_arrays(self.rows.data.column("pin_id").chunks)
            if len(self)
            else pa.array([], pa.string())
        )

    @functools.cached_property
    def products(self) -> np.ndarray:
        """Whether each row is a product."""
        return np.asarray(pc.equal(self.rows.data.column("kind"), "product").to_numpy(zero_copy_only=False))

    def pairs(self, name: str, split: str) -> pa.Table:
        """The rows of `pairs` or `query_pairs` in a split; none where the export has none.

        Raises EmbedError for an export without pairs.
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
        without: pa.Array | None = None,
        *,
        table: pa.Table | None = None,
    ) -> dict[str, tuple[pa.Array, np.ndarray]]:
        """Of each field the texts of some rows, and to which of them (counted from 0) each belongs. `without`
        has a query for each row, which is left out of its engaged queries.

        `table`: these rows, where they have been read already.
        """
        found, table = {}, self.rows[rows] if table is None else table
        for name in fields:
            column = (
                self._replaced(name, rows) if name in self.controls else table.column(name).combine_chunks()
            )
            if pa.types.is_list(column.type):
                parents = pc.list_parent_indices(column).to_numpy()
                column = column.flatten()
                if name == "engaged_queries" and (without is not None or self.hidden is not None):
                    kept = (
                        pa.array(np.ones(len(column), bool))
                        if self.hidden is None
                        else pc.invert(pc.is_in(column, value_set=self.hidden))
                    )
                    kept = (
                        kept
                        if without is None
                        else pc.and_(kept, pc.not_equal(column, without.take(pa.array(parents))))
                    )
                    column, parents = column.filter(kept), parents[kept.to_numpy(zero_copy_only=False)]
            else:
                parents = np.arange(len(rows))
            found[name] = column, parents
        return found

    @functools.cached_property
    def with_text(self) -> np.ndarray:
        """The rows, ascending, that have a text in any of the fields."""
        return functools.reduce(
            np.union1d, (self._having(name) for name in self.fields), np.empty(0, np.int64)
        )

    def has(self, name: str) -> bool:
        """Whether any item has a text in a field."""
        return bool(len(self._having(name)))

    def _having(self, name: str) -> np.ndarray:
        if name not in self._rows_having:
            column = self.rows.data.column(name)
            lengths = (
                pc.list_value_length(column) if pa.types.is_list(column.type) else pc.utf8_length(column)
            )
            self._rows_having[name] = np.flatnonzero(pc.fill_null(lengths, 0).to_numpy() > 0)
        return self._rows_having[name]

    def _replaced(self, name: str, rows: np.ndarray) -> pa.Array:
        """What a control puts in place of a field of some rows."""
        column, having, number = self.rows.data.column(name), self._having(name), FIELDS.index(name)
        place = np.searchsorted(having, rows)
        has = having[np.minimum(place, len(having) - 1)] == rows if len(having) else np.zeros(len(rows), bool)
        if self.controls[name] == "random words":
            if name not in self._draws:
                self._draws[name] = np.random.default_rng([self.seed, number]).integers(
                    RANDOM_WORDS, size=(len(self), MOST_OWN_WORDS)
                )
            texts = [
                " ".join(f"word{i}" for i in line) if known else None
                for line, known in zip(self._draws[name][rows].tolist(), has.tolist(), strict=True)
            ]
            return pa.array(
                texts if not pa.types.is_list(column.type) else [[text] if text else [] for text in texts],
                column.type,
            )
        if self.controls[name] == "shuffled":
            if name not in self._draws:
                self._draws[name] = np.random.default_rng([self.seed, number]).permutation(having)
            source = self._draws[name][np.minimum(place, len(having) - 1)]
        else:
            # drawn by the rows that are asked for: another one in every batch, and the same when the batch is
            # made again
            source = having[
                np.random.default_rng([self.seed, number, zlib.crc32(rows.tobytes())]).integers(
                    len(having), size=len(rows)
                )
            ]
        return pc.if_else(
            pa.array(has), column.take(pa.array(source)).combine_chunks(), pa.scalar(None, column.type)
        )

    def items(
        self,
        rows: np.ndarray,
        vocabulary: Vocabulary,
        without: pa.Array | None = None,
        *,
        table: pa.Table | None = None,
    ) -> Items:
        """Some rows as the item tower takes them; `table` as in `texts`."""
        texts, table = {}, self.rows[rows] if table is None else table
        for name, (column, parents) in self.texts(rows, self.fields, without, table=table).items():
            ids, starts = vocabulary.ids(grams(column, parents), len(rows))
            texts[name] = torch.from_numpy(ids), torch.from_numpy(starts)
        return Items(texts, {name: self._vectors(table, name) for name in self.dense})

    def expect(self, dense: Mapping[str, int]) -> None:
        """Gives items the vectors {name: numbers} that a model reads, and no others; names that the export
        does not have are missing of every item. Raises EmbedError for other sizes.
        """
        for name, size in dense.items():
            if self._stored.get(name, size) != size:
                raise EmbedError(
                    f"{self.folder} has vectors {name} of {self._stored[name]} numbers, the model was trained on {size}"
                )
        self.dense = dict(dense)

    def _vectors(self, table: pa.Table, name: str) -> tuple[torch.Tensor, torch.Tensor]:
        """Stored vectors of some rows, of length 1 (zeros where there is none), and whether each has one."""
        if name not in self._stored:
            return torch.zeros(len(table), self.dense[name]), torch.zeros(len(table), dtype=torch.bool)
        column = table.column(name).combine_chunks()
        has = torch.from_numpy(column.is_valid().to_numpy(zero_copy_only=False).copy())
        numbers = (
            column.fill_null(pa.scalar([0.0] * self.dense[name], column.type))
            if column.null_count
            else column
        )
        found = torch.from_numpy(numbers.flatten().to_numpy(zero_copy_only=False).astype(np.float32)).view(
            len(table), self.dense[name]
        )
        return torch.nn.functional.normalize(found, dim=1), has

    def batches(self, rows: np.ndarray | None = None) -> Iterator[np.ndarray]:
        """The numbers of all rows (or of `rows`), some at a time."""
        rows = np.arange(len(self)) if rows is None else rows
        for start in range(0, len(rows), ROWS_AT_ONCE):
            yield rows[start : start + ROWS_AT_ONCE]

    def grams(self, extra: pa.Array | None = None) -> Iterator[list[dict[str, Grams]]]:
        """The n-grams of all texts, some rows at a time, and those of `extra` texts."""
        for rows in self.batches():
            yield [grams(column, parents) for column, parents in self.texts(rows, self.fields).values()]
        if extra is not None:
            yield [grams(extra)]


def _with_types(rows: Any) -> Any:
    """A dataset whose text columns are texts also where JSON Lines had none in them, of which `datasets`
    cannot tell what they are.
    """
    import datasets

    text = datasets.Value("string")
    wanted = {name: text if getattr(feature, "dtype", "") == "null" else datasets.List(text) if getattr(getattr(feature, "feature", None), "dtype", "") == "null" else feature
              for name, feature in rows.features.items()}  # fmt: skip
    return rows if wanted == dict(rows.features) else rows.cast(datasets.Features(wanted))
