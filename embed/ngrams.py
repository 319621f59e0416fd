"""Text to numbers for the item tower: word unigrams, word bigrams and character trigrams of many texts at
once.

The texts of a batch are one array of code points, and numpy finds words and n-grams in it. Only texts that
need more than a table of ASCII meet Python one by one: they go through the `normalise` of titles and queries,
so that a word has one form wherever it stands. An n-gram is a `code` of 64 bits (a trigram its three
characters, a word a hash of its characters); a `Vocabulary` turns codes into ids.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ..filters.text import normalise

KINDS = ("trigram", "unigram", "bigram")
MAX_CHARACTERS = 2_000  # of one text that count: a description of a megabyte is somebody's mistake
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


@functools.cache
def _powers(n: int) -> np.ndarray:
    with np.errstate(over="ignore"):
        return np.cumprod(np.full(n, _WORD, np.uint64)) | np.uint64(1)
