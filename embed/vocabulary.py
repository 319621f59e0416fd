"""Vocabulary."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .ngrams import KINDS, Grams, mixed

SIZES = {"trigram": 64_000, "unigram": 200_000, "bigram": 1_000_000}  # of the published OmniSearchSage code
WAITING = 4_000_000  # n-grams of a kind that wait to be merged into those seen


@dataclass(frozen=True)
class Vocabulary:
    """Which n-grams have an id.

    `known` {kind: their codes, ascending}; a kind of `hashed` {kind: ids} has no list: its ids are codes
    modulo their number.
    """

    known: Mapping[str, np.ndarray]
    hashed: Mapping[str, int]

    @classmethod
    def build(
        cls,
        batches: Iterable[Iterable[dict[str, Grams]]],
        sizes: Mapping[str, int] = SIZES,
        *,
        least: int = 2,
        waiting: int = WAITING,
    ) -> Vocabulary:
        """The `sizes` {kind: number} most frequent n-grams of what `grams` made of the batches, those seen
        less than `least` times left out; of equals the lesser code.

        Whatever the number and the cut of the batches, the result is the same. Memory: of every kind 16 bytes
        for each distinct n-gram seen, and 8 for each of fewer than `waiting` n-grams that are not merged yet
        (and for one batch). A merge, of one kind at a time, takes for its while 16 bytes more for each
        distinct n-gram and some 75 for each that waited: 300 MB.
        """
        seen: dict[str, tuple[np.ndarray, np.ndarray]] = {
            kind: (np.empty(0, np.uint64), np.empty(0, np.int64)) for kind in sizes
        }
        unmerged: dict[str, list[np.ndarray]] = {kind: [] for kind in sizes}
        for batch in batches:
            for found in batch:
                for kind in sizes:
                    unmerged[kind].append(found[kind].codes)
            for kind, some in unmerged.items():
                if sum(map(len, some)) >= waiting:
                    seen[kind] = _merged(*seen[kind], some)
                    some.clear()
        known = {}
        for kind in sizes:
            codes, counts = _merged(*seen.pop(kind), unmerged.pop(kind))
            codes, counts = codes[counts >= least], counts[counts >= least]
            known[kind] = np.sort(codes[np.argsort(-counts, kind="stable")[: sizes[kind]]])
        return cls(known, {})

    @property
    def sizes(self) -> dict[str, int]:
        """How many ids there are of each kind."""
        return {kind: self.hashed.get(kind, len(self.known.get(kind, ()))) for kind in KINDS}

    def __len__(self) -> int:
        return sum(self.sizes.values())

    def ids(self, found: Mapping[str, Grams], rows: int) -> tuple[np.ndarray, np.ndarray]:
        """n-grams of all kinds as one list of ids, row after row, and where each of the `rows` begins in it:
        what `EmbeddingBag` takes.
        """
        all_rows, all_ids, base = [], [], 0
        for kind, size in self.sizes.items():
            ids = self._of(kind, found[kind].codes, size)
            kept = ids >= 0
            all_rows.append(found[kind].rows[kept])
            all_ids.append(ids[kept] + base)
            base += size
        row = np.concatenate(all_rows)
        order = np.argsort(row, kind="stable")
        return np.concatenate(all_ids)[order], np.searchsorted(row[order], np.arange(rows))

    def _of(self, kind: str, codes: np.ndarray, size: int) -> np.ndarray:
        if kind in self.hashed:
            return (mixed(codes) % np.uint64(size)).astype(np.int64)
        if not size:
            return np.full(len(codes), -1)
        return _places(self.known[kind], self._slots[kind], codes)

    @functools.cached_property
    def _slots(self) -> dict[str, np.ndarray]:
        return {kind: _slots(codes) for kind, codes in self.known.items()}

    def save(self, path: Path) -> None:
        """Writes the vocabulary as safetensors."""
        from safetensors.numpy import save_file

        save_file(
            {**self.known, **{f"hashed {kind}": np.array([size]) for kind, size in self.hashed.items()}},
            str(path),
        )

    @classmethod
    def load(cls, path: Path) -> Vocabulary:
        """Reads what `save` wrote."""
        from safetensors.numpy import load_file

        stored: dict[str, Any] = load_file(str(path))
        return cls(
            {kind: stored[kind] for kind in KINDS if kind in stored},
            {kind: int(stored[f"hashed {kind}"][0]) for kind in KINDS if f"hashed {kind}" in stored},
        )


def _merged(seen: np.ndarray, counts: np.ndarray, waiting: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Distinct codes, ascending, and how often each was seen, with those that waited."""
    codes, more = np.unique(np.concatenate([seen[:0], *waiting]), return_counts=True)
    place = np.searchsorted(seen, codes)
    known = place < len(seen)
    known[known] = seen[place[known]] == codes[known]
    counts[place[known]] += more[known]
    new = ~known
    return np.insert(seen, place[new], codes[new]), np.insert(counts, place[new], more[new])


def _slots(known: np.ndarray) -> np.ndarray:
    """A hash table with open addressing, at most half full: in each slot a place in `known` or -1.

    Searching a million codes by halves takes five times as long.
    """
    slots = np.full(2 << len(known).bit_length(), -1, np.int32)
    left, slot = np.arange(len(known)), _first_slot(known, slots)
    while len(left):
        free = slots[slot] < 0
        slots[slot[free]] = left[free]
        lost = slots[slot] != left  # of several that want one slot, one has got it
        left, slot = left[lost], _next_slot(slot[lost], slots)
    return slots


def _places(known: np.ndarray, slots: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """The place of each code in `known`, -1 of those that are not there."""
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
