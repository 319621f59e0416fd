"""Texts that replace an item's own in an ablation, to find out what a field is worth beyond being there."""

from __future__ import annotations

import zlib
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

# "shuffled": the text of another item, always the same one. "reshuffled": of another item in every batch.
# "random words": words that say nothing, always the same ones.
Control = Literal["shuffled", "reshuffled", "random words"]
RANDOM_WORDS = 1_000  # different words
RANDOM_WORDS_OF_AN_ITEM = 5


class ReplacedTexts:
    """One field of an export, with other texts in place of its own. Items without a text still have none."""

    def __init__(self, control: Control, column: pa.ChunkedArray, number: int, seed: int):
        """`column`: the field's texts, or lists of texts, of all rows. `number`: which field it is."""
        self.control, self.column, self.seed = control, column, [seed, number]
        self.rows_with_text = rows_with_text(column)
        rng = np.random.default_rng(self.seed)
        if control == "random words":
            self._words = rng.integers(RANDOM_WORDS, size=(len(column), RANDOM_WORDS_OF_AN_ITEM))
        elif control == "shuffled":
            self._sources = rng.permutation(self.rows_with_text)

    def take(self, rows: np.ndarray) -> pa.Array:
        """The replaced texts of some rows."""
        having = self.rows_with_text
        place = np.searchsorted(having, rows)
        has = having[np.minimum(place, len(having) - 1)] == rows if len(having) else np.zeros(len(rows), bool)
        if self.control == "random words":
            return self._random_words(rows, has)
        if self.control == "shuffled":
            sources = self._sources[np.minimum(place, len(having) - 1)]
        else:
            # The seed includes the rows: other texts in every batch, but the same ones if a batch is made
            # again.
            rng = np.random.default_rng([*self.seed, zlib.crc32(rows.tobytes())])
            sources = having[rng.integers(len(having), size=len(rows))]
        others = self.column.take(pa.array(sources)).combine_chunks()
        return pc.if_else(pa.array(has), others, pa.scalar(None, self.column.type))

    def _random_words(self, rows: np.ndarray, has: np.ndarray) -> pa.Array:
        texts = [
            " ".join(f"word{i}" for i in words) if has_text else None
            for words, has_text in zip(self._words[rows].tolist(), has.tolist(), strict=True)
        ]
        if not pa.types.is_list(self.column.type):
            return pa.array(texts, self.column.type)
        return pa.array([[text] if text else [] for text in texts], self.column.type)


def rows_with_text(column: pa.ChunkedArray) -> np.ndarray:
    """The rows, ascending, that have a text (or a list with texts) in a column."""
    lengths = pc.list_value_length(column) if pa.types.is_list(column.type) else pc.utf8_length(column)
    return np.flatnonzero(pc.fill_null(lengths, 0).to_numpy() > 0)
