"""Text to numbers for the item tower: word unigrams, word bigrams and character trigrams of many texts at once.

Nothing here loops over rows in Python: the texts of a batch are one array of code points, and numpy finds words and n-grams in it.
An n-gram is a `code` of 64 bits (a trigram its three characters, a word a hash of its characters); a `Vocabulary` turns codes into ids.
"""

from __future__ import annotations

import functools
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

KINDS = ("trigram", "unigram", "bigram")
SIZES = {"trigram": 64_000, "unigram": 200_000, "bigram": 1_000_000}  # of the published OmniSearchSage code
MAX_CHARACTERS = 2_000  # of one text that count: a description of a megabyte is somebody's mistake
_VANISHES, _SEPARATES, _BELONGS = 0, 1, 2  # what a character does to the word that it stands in
_FIRST, _LAST = 1, 2  # in place of the character before a word and after it; no text holds these
_APOSTROPHES = "'’＇ʼ"
_WORD, _NEXT = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xC2B2AE3D27D4EB4F)  # odd numbers without a pattern


@dataclass
class Grams:
    """n-grams of one kind: the row of each (ascending) and its code."""

    rows: np.ndarray  # int64
    codes: np.ndarray  # uint64


def words(texts: pa.Array) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The words of texts, in order: of every character of a word its code point and the number of its word (from 0 on), of every word the number of its text.

    Words are what stands between characters that are no letter, mark or number, after NFKC and lower case; apostrophes vanish.
    """
    texts = pc.utf8_slice_codeunits(texts, 0, MAX_CHARACTERS)
    characters = _code_points(texts)
    if not len(characters):
        return characters, np.empty(0, np.int64), np.empty(0, np.int64)
    if int(characters.max()) > 127:
        texts = pc.utf8_normalize(texts, "NFKC")
        characters = _code_points(texts)
    text = np.repeat(np.arange(len(texts)), pc.fill_null(pc.utf8_length(texts), 0).to_numpy(zero_copy_only=False))
    characters, does = _lowered()[characters], _does()[characters]
    if not does.all():
        kept = does != _VANISHES
        characters, text, does = characters[kept], text[kept], does[kept]
    belongs = does == _BELONGS
    starts = belongs.copy()
    starts[1:] &= ~belongs[:-1] | (text[1:] != text[:-1])
    word = np.cumsum(starts)[belongs] - 1
    return characters[belongs], word, text[starts]


def grams(texts: pa.Array, rows: np.ndarray | None = None) -> dict[str, Grams]:
    """{kind: n-grams} of texts; `rows` (ascending) says to which row each text belongs, without it a text is a row. Null has none."""
    if isinstance(texts, pa.ChunkedArray):
        texts = texts.combine_chunks()
    rows = np.arange(len(texts)) if rows is None else rows
    characters, word, text = words(texts)
    row, n = rows[text], len(text)
    if not n:
        nothing = Grams(np.empty(0, np.int64), np.empty(0, np.uint64))
        return dict.fromkeys(KINDS, nothing)
    first = np.flatnonzero(np.diff(word, prepend=-1))
    at_first, at_last = np.zeros(len(word), bool), np.zeros(len(word), bool)
    at_first[first], at_last[np.append(first[1:], len(word)) - 1] = True, True
    wide = characters.astype(np.uint64)
    before, after = np.roll(wide, 1), np.roll(wide, -1)
    before[at_first], after[at_last] = _FIRST, _LAST
    trigrams = before << np.uint64(42) | wide << np.uint64(21) | after
    place = np.arange(len(word)) - first[word]
    unigrams = mixed(np.add.reduceat(mixed(wide) * _powers(MAX_CHARACTERS + 1)[np.minimum(place, MAX_CHARACTERS)], first))
    together = text[1:] == text[:-1]
    bigrams = mixed(unigrams[:-1] * _NEXT + unigrams[1:])[together]
    return {"trigram": Grams(row[word], trigrams), "unigram": Grams(row, unigrams), "bigram": Grams(row[1:][together], bigrams)}


def mixed(numbers: np.ndarray) -> np.ndarray:
    """Numbers of 64 bits whose bits all depend on all bits of `numbers` (the finaliser of SplitMix64, Steele et al. 2014)."""
    mixing = numbers + _WORD
    mixing = (mixing ^ (mixing >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixing = (mixing ^ (mixing >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixing ^ (mixing >> np.uint64(31))


@dataclass(frozen=True)
class Vocabulary:
    """Which n-grams have an id. `known` {kind: their codes, ascending}; a kind of `hashed` {kind: ids} has no list: its ids are codes modulo their number."""

    known: Mapping[str, np.ndarray]
    hashed: Mapping[str, int]

    @classmethod
    def build(cls, batches: Iterable[Iterable[dict[str, Grams]]], sizes: Mapping[str, int] = SIZES, *, least: int = 2) -> Vocabulary:
        """The `sizes` {kind: number} most frequent n-grams of what `grams` made of the batches, those seen less than `least` times left out; of equals the lesser code."""
        seen: dict[str, tuple[np.ndarray, np.ndarray]] = {kind: (np.empty(0, np.uint64), np.empty(0, np.int64)) for kind in sizes}
        for batch in batches:
            found = list(batch)
            for kind in sizes:
                codes, counts = np.unique(np.concatenate([some[kind].codes for some in found] or [seen[kind][0][:0]]), return_counts=True)
                together, inverse = np.unique(np.concatenate([seen[kind][0], codes]), return_inverse=True)
                seen[kind] = together, np.bincount(inverse, np.concatenate([seen[kind][1], counts]), len(together)).astype(np.int64)
        known = {}
        for kind, (codes, counts) in seen.items():
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
        """n-grams of all kinds as one list of ids, row after row, and where each of the `rows` begins in it: what `EmbeddingBag` takes."""
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
        known = self.known[kind]
        place = np.minimum(np.searchsorted(known, codes), size - 1)
        return np.where(known[place] == codes, place, -1)

    def save(self, path: Path) -> None:
        """Writes the vocabulary as safetensors."""
        from safetensors.numpy import save_file

        save_file({**self.known, **{f"hashed {kind}": np.array([size]) for kind, size in self.hashed.items()}}, str(path))

    @classmethod
    def load(cls, path: Path) -> Vocabulary:
        """Reads what `save` wrote."""
        from safetensors.numpy import load_file

        stored: dict[str, Any] = load_file(str(path))
        return cls({kind: stored[kind] for kind in KINDS if kind in stored}, {kind: int(stored[f"hashed {kind}"][0]) for kind in KINDS if f"hashed {kind}" in stored})


def _code_points(texts: pa.Array) -> np.ndarray:
    """All characters of the texts one after the other."""
    texts = texts.cast(pa.large_string())
    offsets = np.frombuffer(texts.buffers()[1], np.int64)[texts.offset : texts.offset + len(texts) + 1]
    data = texts.buffers()[2]
    if data is None or not len(offsets):
        return np.empty(0, np.uint32)
    part = data[int(offsets[0]) : int(offsets[-1])].to_pybytes()
    return np.frombuffer(part, np.uint8).astype(np.uint32) if part.isascii() else np.frombuffer(part.decode().encode("utf-32-le"), np.uint32)


@functools.cache
def _does() -> np.ndarray:
    found = np.full(0x110000, _SEPARATES, np.uint8)
    for code in range(0x110000):
        category = unicodedata.category(chr(code))
        if category[0] in "LMN":
            found[code] = _BELONGS
        elif category == "Cf" or chr(code) in _APOSTROPHES:
            found[code] = _VANISHES
    return found


@functools.cache
def _lowered() -> np.ndarray:
    found = np.arange(0x110000, dtype=np.uint32)
    for code in range(0x110000):
        lower = chr(code).lower()
        if len(lower) == 1:
            found[code] = ord(lower)
    return found


@functools.cache
def _powers(n: int) -> np.ndarray:
    with np.errstate(over="ignore"):
        return np.cumprod(np.full(n, _WORD, np.uint64)) | np.uint64(1)
