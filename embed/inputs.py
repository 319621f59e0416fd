"""Turns queries and items into what the towers read: n-grams, tokens and vectors."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch

from ..filters.text import normalise
from .encoded_texts import EncodedTexts
from .ngrams import MAX_CHARACTERS, grams
from .reader import ROWS_AT_ONCE, Export
from .text_encoder import TextEncoder, Tokens
from .vocabulary import Vocabulary

ENCODED_TEXTS = 5  # texts of a list that the encoder reads: the first board titles, the first queries

Bags = tuple[torch.Tensor, torch.Tensor]  # numbers, row after row; where each row starts among them; int64
# Texts for the encoder: their tokens or, where they were encoded before, their vectors [texts, width].
EncoderInput = Tokens | torch.Tensor


@dataclass
class Queries:
    """Some queries, as the query tower takes them."""

    grams: Bags
    texts: EncoderInput | None  # for the encoder; None without one

    def to(self, device: torch.device | str) -> Queries:
        """The same queries on a device."""
        return Queries(_moved(self.grams, device), _input_moved(self.texts, device))


@dataclass
class Items:
    """Some items, as the item tower takes them."""

    grams: dict[str, Bags]  # {field: n-grams}
    # The distinct texts of these items, and {field: the numbers of its texts among them}. None without an
    # encoder.
    texts: EncoderInput | None
    places: dict[str, Bags]
    # {name of vectors: (vectors [items, numbers], float32; whether each item has one [items], bool)}
    dense: dict[str, tuple[torch.Tensor, torch.Tensor]]

    def to(self, device: torch.device | str) -> Items:
        """The same items on a device."""
        return Items(
            {name: _moved(bags, device) for name, bags in self.grams.items()},
            _input_moved(self.texts, device),
            {name: _moved(bags, device) for name, bags in self.places.items()},
            {name: _moved(parts, device) for name, parts in self.dense.items()},
        )


class Inputs:
    """Reads texts with a vocabulary of n-grams and, if the model has an encoder, with its tokeniser.

    A training whose encoder stays as it is sets `encoded`: then the vectors of texts are looked up there.
    """

    def __init__(self, vocabulary: Vocabulary, encoder: TextEncoder | None):
        self.vocabulary, self.encoder = vocabulary, encoder
        self.encoded: EncodedTexts | None = None

    def queries(self, texts: Sequence[str]) -> Queries:
        """Queries, which are normalised as in the store."""
        normalised = [normalise(text) for text in texts]
        ids, starts = self.vocabulary.ids(grams(pa.array(normalised, pa.string())), len(normalised))
        return Queries(
            (torch.from_numpy(ids), torch.from_numpy(starts)),
            self._encoder_input(normalised),
        )

    def _encoder_input(self, texts: list[str]) -> EncoderInput | None:
        if self.encoded is not None:
            return self.encoded.vectors(texts)
        return self.encoder.tokenise(texts) if self.encoder else None

    def items(self, export: Export, rows: np.ndarray, leave_out: pa.Array | None = None) -> Items:
        """Some rows of an export. `leave_out` is that of `Export.texts`."""
        table, bags = export.rows[rows], dict[str, Bags]()
        texts_by_field = export.texts(rows, export.fields, leave_out, table=table)
        for name, (column, parents) in texts_by_field.items():
            ids, starts = self.vocabulary.ids(grams(column, parents), len(rows))
            bags[name] = torch.from_numpy(ids), torch.from_numpy(starts)
        texts, places = encoder_texts(texts_by_field, len(rows)) if self.encoder else ([], {})
        vectors = {name: export.vectors(table, name) for name in export.dense}
        return Items(bags, self._encoder_input(texts), places, vectors)


def encoder_texts(
    texts_by_field: dict[str, tuple[pa.Array, np.ndarray]], rows: int, most: int = ENCODED_TEXTS
) -> tuple[list[str], dict[str, Bags]]:
    """The distinct texts of some items that the encoder reads, and {field: numbers of its texts}.

    `most`: of a list. Texts are normalised, as queries are: the same words give the same tokens.
    """
    bags, places = dict[str, Bags](), dict[str, int]()
    for name, (column, parents) in texts_by_field.items():
        # How many texts of its row come before each text.
        earlier = np.arange(len(parents)) - np.searchsorted(parents, parents)
        chosen = earlier < most
        texts = pc.utf8_slice_codeunits(column.filter(pa.array(chosen)), 0, MAX_CHARACTERS).to_pylist()
        numbers, of_rows = [], []
        for text, row in zip(texts, parents[chosen].tolist(), strict=True):
            if text and (normalised := normalise(text)):
                numbers.append(places.setdefault(normalised, len(places)))
                of_rows.append(row)
        starts = np.searchsorted(np.array(of_rows, np.int64), np.arange(rows))
        bags[name] = torch.tensor(numbers, dtype=torch.int64), torch.from_numpy(starts)
    return list(places), bags


def texts_to_encode(export: Export, queries: pa.Array) -> Iterator[list[str]]:
    """All texts that the encoder reads in a training on these queries, normalised.

    A training leaves at most one engaged query of an item out: then the next one is read in its place.
    """
    for rows in export.batches():
        yield encoder_texts(export.texts(rows, export.fields), len(rows), ENCODED_TEXTS + 1)[0]
    for start in range(0, len(queries), ROWS_AT_ONCE):
        yield [normalise(text) for text in queries[start : start + ROWS_AT_ONCE].to_pylist()]


def _input_moved(texts: EncoderInput | None, device: Any) -> EncoderInput | None:
    if texts is None or isinstance(texts, torch.Tensor):
        return texts if texts is None else texts.to(device, non_blocking=True)
    return _moved(texts, device)


def _moved(parts: tuple[torch.Tensor, torch.Tensor], device: Any) -> tuple[torch.Tensor, torch.Tensor]:
    a, b = parts
    return a.to(device, non_blocking=True), b.to(device, non_blocking=True)
