"""Text to numbers for the item tower: word unigrams, word bigrams and character trigrams of many texts at
once.

The texts of a batch are one array of code points, and numpy finds words and n-grams in it. Only texts that
need more than a table of ASCII meet Python one by one: they go through the `normalise` of titles and queries,
so that a word has one form wherever it stands. An n-gram is a `code` of 64 bits (a trigram its three
characters, a word a hash of its characters); a `Vocabulary` turns codes into ids.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ..filters.text import normalise

KINDS = ("trigram", "unigram", "bigram")
SIZES = {"trigram": 64_000, "unigram": 200_000, "bigram": 1_000_000}  # of the published OmniSearchSage code
MAX_CHARACTERS = 2_000  # of one text that count: a description of a megabyte is somebody's mistake
WAITING = 4_000_000  # n-grams of a kind that wait to be merged into those seen
_FIRST, _LAST = 1, 2  # in place of the character before a word and after it; no text holds these
_WORD, _NEXT = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xC2B2AE3D27D4EB4F)  # odd numbers without a pattern
# What becomes of a byte of UTF-8: of ASCII but the apostrophe what `normalise` makes of it wherever it
# stands, a space for what separates; other bytes stay.
_KEPT = bytes(ord(normalise(chr(code)) or " ") for code in range(128)) + bytes(range(128, 256))


@dataclass
class Grams:
    """n-grams of one kind: the row of each (ascending) and its code."""

    rows: np.ndarray  # int64
    codes: np.ndarray  # uint64


def words(texts: pa.Array) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The words of texts, in order: of every character of a word its code point and the number of its word
    (from 0 on), of every word the number of its text.

    They are the words of `filters.text.normalise`, split at spaces, without apostrophes. A text's first
    MAX_CHARACTERS count; null has no words.
    """
    characters, first, text = _words(texts)
    return characters, np.repeat(np.arange(len(first)), _lengths(first, characters)), text


def grams(texts: pa.Array, rows: np.ndarray | None = None) -> dict[str, Grams]:
    """{kind: n-grams} of texts; `rows` (ascending) says to which row each text belongs, without it a text is
    a row. Null has none.
    """
    if isinstance(texts, pa.ChunkedArray):
        texts = texts.combine_chunks()
    characters, first, text = _words(texts)
    row = text if rows is None else rows[text]
    if not len(first):
        nothing = Grams(np.empty(0, np.int64), np.empty(0, np.uint64))
        return dict.fromkeys(KINDS, nothing)
    lengths = _lengths(first, characters)
    wide = characters.astype(np.uint64)
    before, after = np.roll(wide, 1), np.roll(wide, -1)
    before[first], after[first + lengths - 1] = _FIRST, _LAST
    trigrams = before << np.uint64(42) | wide << np.uint64(21) | after
    place = np.arange(len(wide)) - np.repeat(first, lengths)
    unigrams = mixed(
        np.add.reduceat(mixed(wide) * _powers(MAX_CHARACTERS + 1).take(place, mode="clip"), first)
    )
    together = text[1:] == text[:-1]
    bigrams = mixed(unigrams[:-1] * _NEXT + unigrams[1:])[together]
    return {
        "trigram": Grams(np.repeat(row, lengths), trigrams),
        "unigram": Grams(row, unigrams),
        "bigram": Grams(row[1:][together], bigrams),
    }


def mixed(numbers: np.ndarray) -> np.ndarray:
    """Numbers of 64 bits whose bits all depend on all bits of `numbers` (the finaliser of SplitMix64, Steele
    et al. 2014).
    """
    mixing = numbers + _WORD
    mixing = (mixing ^ (mixing >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixing = (mixing ^ (mixing >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixing ^ (mixing >> np.uint64(31))


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


def _words(texts: pa.Array) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The code points of all words, of every word the place of its first one, and the number of its text."""
    texts = pc.utf8_slice_codeunits(texts.cast(pa.large_string()).fill_null(""), 0, MAX_CHARACTERS)
    data, offsets = _utf8(texts)
    if not data.isascii() or b"'" in data:
        texts = _normalised(texts, data, offsets)
        data, offsets = _utf8(texts)
    data = data.translate(_KEPT)
    if data.isascii():
        characters = np.frombuffer(data, np.uint8)
    else:
        characters = np.frombuffer(data.decode().encode("utf-32-le"), np.uint32)
        offsets = np.append(0, np.cumsum(pc.utf8_length(texts).to_numpy()))
    belongs = characters != ord(" ")
    starts = belongs.copy()
    starts[1:] &= ~belongs[:-1]
    begins = offsets[:-1][offsets[:-1] < len(characters)]
    starts[begins] = belongs[begins]
    text = np.repeat(np.arange(len(texts)), np.diff(np.searchsorted(np.flatnonzero(starts), offsets)))
    return characters[belongs].astype(np.uint32, copy=False), np.flatnonzero(starts[belongs]), text


def _normalised(texts: pa.Array, data: bytes, offsets: np.ndarray) -> pa.Array:
    """The texts; those that are not ASCII or have an apostrophe as `normalise` makes them, without
    apostrophes.
    """
    characters = np.frombuffer(data, np.uint8)
    before = np.append(0, np.cumsum((characters > 127) | (characters == ord("'"))))
    chosen = pa.array(before[offsets[1:]] > before[offsets[:-1]])
    distinct = texts.filter(chosen).dictionary_encode()
    forms = pa.array(
        [normalise(text).replace("'", "") for text in distinct.dictionary.to_pylist()], pa.large_string()
    )
    return pc.replace_with_mask(texts, chosen, forms.take(distinct.indices))


def _utf8(texts: pa.Array) -> tuple[bytes, np.ndarray]:
    """The UTF-8 of large strings, one after the other, and where each begins and the last one ends."""
    _, offsets, data = texts.buffers()
    if not len(texts):
        return b"", np.zeros(1, np.int64)
    places = np.frombuffer(offsets, np.int64)[texts.offset : texts.offset + len(texts) + 1]
    return data[int(places[0]) : int(places[-1])].to_pybytes() if data else b"", places - places[0]


def _lengths(first: np.ndarray, characters: np.ndarray) -> np.ndarray:
    return np.diff(first, append=len(characters))


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


@functools.cache
def _powers(n: int) -> np.ndarray:
    with np.errstate(over="ignore"):
        return np.cumprod(np.full(n, _WORD, np.uint64)) | np.uint64(1)
