"""Codes of n-grams to ids: a list of the frequent ones, or ids by hashing."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .ngrams import KINDS, Grams, mixed

# Those of the published OmniSearchSage code, which has a million pairs of words as well. In tied towers a
# pair adds little to its two words, and makes the largest table.
SIZES = {"trigram": 64_000, "unigram": 200_000, "beginning": 100_000}
WAITING = 4_000_000  # n-grams of one kind that are collected before they are counted


@dataclass(frozen=True)
class Vocabulary:
    """Gives n-grams their ids. A kind of n-grams is either in `known` or in `hashed`."""

    known: Mapping[str, np.ndarray]  # {kind: codes, ascending}: an n-gram that is not listed has no id
    hashed: Mapping[
        str, int
    ]  # {kind: number of ids}: every n-gram has an id, the hash of its code modulo that

    @classmethod
    def build(
        cls,
        batches: Iterable[Iterable[dict[str, Grams]]],
        sizes: Mapping[str, int] = SIZES,
        *,
        least: int = 2,
        waiting: int = WAITING,
    ) -> Vocabulary:
        """Lists the most frequent n-grams: `sizes` {kind: at most so many}, each seen at least `least` times.

        `batches` come from `grams`. Of n-grams that are equally frequent, the lesser code wins. So the result
        does not depend on how the texts are cut into batches.

        Memory, for each kind: 16 bytes for each distinct n-gram, and 8 bytes for each n-gram that waits to be
        counted. Fewer than `waiting` wait, and those of one batch. While the waiting ones of one kind are
        counted, this takes 16 bytes more for each distinct n-gram and some 75 bytes for each waiting one
        (300 MB).
        """
        counted: dict[str, tuple[np.ndarray, np.ndarray]] = {
            kind: (np.empty(0, np.uint64), np.empty(0, np.int64)) for kind in sizes
        }
        uncounted: dict[str, list[np.ndarray]] = {kind: [] for kind in sizes}
        for batch in batches:
            for grams_by_kind in batch:
                for kind in sizes:
                    uncounted[kind].append(grams_by_kind[kind].codes)
            for kind, parts in uncounted.items():
                if sum(map(len, parts)) >= waiting:
                    counted[kind] = _add_counts(*counted[kind], parts)
                    parts.clear()
        known = {}
        for kind in sizes:
            codes, counts = _add_counts(*counted.pop(kind), uncounted.pop(kind))
            codes, counts = codes[counts >= least], counts[counts >= least]
            known[kind] = np.sort(codes[np.argsort(-counts, kind="stable")[: sizes[kind]]])
        return cls(known, {})

    @property
    def sizes(self) -> dict[str, int]:
        """How many ids there are of each kind."""
        return {kind: self.hashed.get(kind, len(self.known.get(kind, ()))) for kind in KINDS}

    def __len__(self) -> int:
        return sum(self.sizes.values())

    def ids(self, grams_by_kind: Mapping[str, Grams], rows: int) -> tuple[np.ndarray, np.ndarray]:
        """The distinct ids of the n-grams, row after row, and where each of the `rows` starts among them.

        Both are int64. They are the input and the offsets of `torch.nn.functional.embedding_bag`.
        """
        all_rows, all_ids, base = [], [], 0
        for kind, size in self.sizes.items():
            ids = self._ids_of_kind(kind, grams_by_kind[kind].codes, size)
            kept = ids >= 0
            all_rows.append(grams_by_kind[kind].rows[kept])
            all_ids.append(ids[kept] + base)
            base += size
        # An n-gram counts once in a row, however often the row has it.
        most = max(1, base)
        keys = np.unique(np.concatenate(all_rows) * most + np.concatenate(all_ids))
        return keys % most, np.searchsorted(keys, np.arange(rows) * most)

    def _ids_of_kind(self, kind: str, codes: np.ndarray, size: int) -> np.ndarray:
        """The id of each code, counted from 0 within the kind; -1 where there is none."""
        if kind in self.hashed:
            return (mixed(codes) % np.uint64(size)).astype(np.int64)
        if not size:
            return np.full(len(codes), -1)
        return _look_up(self.known[kind], self._hash_tables[kind], codes)

    @functools.cached_property
    def _hash_tables(self) -> dict[str, np.ndarray]:
        return {kind: _hash_table(codes) for kind, codes in self.known.items()}

    def save(self, path: Path) -> None:
        """Writes the vocabulary as safetensors."""
        path.write_bytes(self.to_bytes())

    def to_bytes(self) -> bytes:
        """The content of the file that `save` writes."""
        from safetensors.numpy import save

        hashed = {f"hashed {kind}": np.array([size]) for kind, size in self.hashed.items()}
        return bytes(save({**self.known, **hashed}))

    @classmethod
    def load(cls, path: Path) -> Vocabulary:
        """Reads what `save` wrote."""
        from safetensors.numpy import load_file

        stored: dict[str, Any] = load_file(str(path))
        return cls(
            {kind: stored[kind] for kind in KINDS if kind in stored},
            {kind: int(stored[f"hashed {kind}"][0]) for kind in KINDS if f"hashed {kind}" in stored},
        )


def _add_counts(
    codes: np.ndarray, counts: np.ndarray, parts: list[np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    """Distinct codes, ascending, and their counts, after the codes of `parts` are counted as well.

    Writes to `counts`.
    """
    new_codes, new_counts = np.unique(np.concatenate([codes[:0], *parts]), return_counts=True)
    place = np.searchsorted(codes, new_codes)
    known = place < len(codes)
    known[known] = codes[place[known]] == new_codes[known]
    counts[place[known]] += new_counts[known]
    new = ~known
    return np.insert(codes, place[new], new_codes[new]), np.insert(counts, place[new], new_counts[new])


def _hash_table(known: np.ndarray) -> np.ndarray:
    """Open addressing, at most half full: a slot holds a place in `known`, or -1.

    A binary search among a million codes takes five times as long.
    """
    slots = np.full(2 << len(known).bit_length(), -1, np.int32)
    left, slot = np.arange(len(known)), _first_slot(known, slots)
    while len(left):
        free = slots[slot] < 0
        slots[slot[free]] = left[free]
        lost = slots[slot] != left  # where several wanted one slot, only one got it
        left, slot = left[lost], _next_slot(slot[lost], slots)
    return slots


def _look_up(known: np.ndarray, slots: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """The place of each code in `known`; -1 where it is not there."""
    slot = _first_slot(codes, slots)
    places: np.ndarray = slots[slot].astype(np.int64)
    left = np.flatnonzero(places >= 0)
    while len(left := left[known[places[left]] != codes[left]]):
        slot[left] = _next_slot(slot[left], slots)
        places[left] = slots[slot[left]]
        left = left[places[left] >= 0]
    return places


def _first_slot(codes: np.ndarray, slots: np.ndarray) -> np.ndarray:
    return (mixed(codes) & np.uint64(len(slots) - 1)).astype(np.int64)


def _next_slot(slot: np.ndarray, slots: np.ndarray) -> np.ndarray:
    return (slot + 1) & (len(slots) - 1)
