"""Turns queries and items into what the towers read: n-grams, tokens and vectors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch

from ..filters.text import normalise
from .ngrams import MAX_CHARACTERS, grams
from .reader import Export
from .text_encoder import TextEncoder
from .vocabulary import Vocabulary

ENCODED_TEXTS = 5  # texts of a list that the encoder reads: the first board titles, the first queries

Bags = tuple[torch.Tensor, torch.Tensor]  # numbers, row after row; where each row starts among them; int64
Tokens = tuple[torch.Tensor, torch.Tensor]  # ids and attention mask [texts, tokens]


@dataclass
class Queries:
    """Some queries, as the query tower takes them."""

    grams: Bags
    tokens: Tokens | None  # for the encoder; None without one

    def to(self, device: torch.device | str) -> Queries:
        """The same queries on a device."""
        return Queries(_moved(self.grams, device), self.tokens and _moved(self.tokens, device))


@dataclass
class Items:
    """Some items, as the item tower takes them."""

    grams: dict[str, Bags]  # {field: n-grams}
    # The distinct texts of these items, and {field: the numbers of its texts among them}. None without an
    # encoder.
    tokens: Tokens | None
    texts: dict[str, Bags]
    # {name of vectors: (vectors [items, numbers], float32; whether each item has one [items], bool)}
    dense: dict[str, tuple[torch.Tensor, torch.Tensor]]

    def to(self, device: torch.device | str) -> Items:
        """The same items on a device."""
        return Items(
            {name: _moved(bags, device) for name, bags in self.grams.items()},
            self.tokens and _moved(self.tokens, device),
            {name: _moved(bags, device) for name, bags in self.texts.items()},
            {name: _moved(parts, device) for name, parts in self.dense.items()},
        )


class Inputs:
    """Reads texts with a vocabulary of n-grams and, if the model has an encoder, with its tokeniser."""

    def __init__(self, vocabulary: Vocabulary, encoder: TextEncoder | None):
        self.vocabulary = vocabulary
        self.tokeniser: Any = encoder and encoder.tokeniser
        self.most_tokens = encoder.most_tokens if encoder else 0

    def queries(self, texts: Sequence[str]) -> Queries:
        """Queries, which are normalised as in the store."""
        normalised = [normalise(text) for text in texts]
        ids, starts = self.vocabulary.ids(grams(pa.array(normalised, pa.string())), len(normalised))
        return Queries(
            (torch.from_numpy(ids), torch.from_numpy(starts)),
            self.tokenise(normalised) if self.tokeniser else None,
        )

    def tokenise(self, texts: Sequence[str]) -> Tokens:
        """Ids and attention mask [texts, tokens]."""
        if not texts:
            return torch.zeros(0, 1, dtype=torch.int64), torch.zeros(0, 1, dtype=torch.int64)
        tokens = self.tokeniser(
            list(texts), padding=True, truncation=True, max_length=self.most_tokens, return_tensors="pt"
        )
        return tokens["input_ids"], tokens["attention_mask"]

    def items(self, export: Export, rows: np.ndarray, leave_out: pa.Array | None = None) -> Items:
        """Some rows of an export. `leave_out` is that of `Export.texts`."""
        table, bags = export.rows[rows], dict[str, Bags]()
        texts_by_field = export.texts(rows, export.fields, leave_out, table=table)
        for name, (column, parents) in texts_by_field.items():
            ids, starts = self.vocabulary.ids(grams(column, parents), len(rows))
            bags[name] = torch.from_numpy(ids), torch.from_numpy(starts)
        tokens, numbers = self._encoder_texts(texts_by_field, len(rows)) if self.tokeniser else (None, {})
        return Items(bags, tokens, numbers, {name: export.vectors(table, name) for name in export.dense})

    def _encoder_texts(
        self, texts_by_field: dict[str, tuple[pa.Array, np.ndarray]], rows: int
    ) -> tuple[Tokens, dict[str, Bags]]:
        """The tokens of the distinct texts, and {field: numbers of its texts}.

        Texts are normalised, as queries are: the same words give the same tokens.
        """
        bags, places = dict[str, Bags](), dict[str, int]()
        for name, (column, parents) in texts_by_field.items():
            # How many texts of its row come before each text.
            earlier = np.arange(len(parents)) - np.searchsorted(parents, parents)
            chosen = earlier < ENCODED_TEXTS
            texts = pc.utf8_slice_codeunits(column.filter(pa.array(chosen)), 0, MAX_CHARACTERS).to_pylist()
            numbers, of_rows = [], []
            for text, row in zip(texts, parents[chosen].tolist(), strict=True):
                if text and (normalised := normalise(text)):
                    numbers.append(places.setdefault(normalised, len(places)))
                    of_rows.append(row)
            starts = np.searchsorted(np.array(of_rows, np.int64), np.arange(rows))
            bags[name] = torch.tensor(numbers, dtype=torch.int64), torch.from_numpy(starts)
        return self.tokenise(list(places)), bags


def _moved(parts: tuple[torch.Tensor, torch.Tensor], device: Any) -> tuple[torch.Tensor, torch.Tensor]:
    a, b = parts
    return a.to(device, non_blocking=True), b.to(device, non_blocking=True)
