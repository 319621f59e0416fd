"""Texts to n-grams: character trigrams, words, their beginnings and pairs of words, for many texts at once.

A batch of texts becomes one array of code points, and numpy finds words and n-grams in it. Texts in plain
ASCII need only a table of 256 bytes. Every other text goes through `normalise`, one at a time, which titles
and queries go through as well. So a word has the same form wherever it stands.

Each n-gram has a `code` of 64 bits: a trigram the code points of its three characters, a word or a pair of
words a hash. A `Vocabulary` turns codes into ids.

Trigrams are made of words without accents and vowel signs (folding.py). Han, kana and Hangul are written
without spaces, or in short words: there each two neighbours count among the trigrams, and each Han character.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ..filters.text import normalise
from . import folding

# A unigram is a word, and a bigram a pair of words. A beginning is the first four characters of a word: it
# stands for a stem, in any language that adds endings.
KINDS = ("trigram", "unigram", "beginning", "bigram")
BEGINNING = 4  # characters
MAX_CHARACTERS = 2_000  # of one text that are read: a description of a megabyte is a mistake
# They stand for the character before the first one of a word, and after the last one. No text contains them.
_WORD_START, _WORD_END = 1, 2
# Odd constants without a pattern in their bits. The first is the increment of SplitMix64.
_GOLDEN, _BIGRAM_FACTOR = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xC2B2AE3D27D4EB4F)
# Maps each byte of UTF-8. An ASCII character becomes what `normalise` makes of it wherever it stands (a space
# if it separates words). That is not true of the apostrophe, which is removed before. Other bytes stay as
# they are.
_ASCII_TABLE = bytes(ord(normalise(chr(code)) or " ") for code in range(128)) + bytes(range(128, 256))


@dataclass
class Grams:
    """The n-grams of one kind in some rows."""

    rows: np.ndarray  # int64 [n-grams], ascending: the row of each n-gram
    codes: np.ndarray  # uint64 [n-grams]


@dataclass
class Words:
    """The words of some texts, in order: those of `filters.text.normalise`, without their apostrophes."""

    characters: np.ndarray  # uint32 [characters]: the code points of all words, one word after the other
    starts: np.ndarray  # int64 [words]: where each word starts in `characters`
    texts: np.ndarray  # int64 [words]: the text that each word belongs to

    @property
    def lengths(self) -> np.ndarray:
        """int64 [words]: how many characters each word has."""
        return np.diff(self.starts, append=len(self.characters))


def grams(texts: pa.Array, rows: np.ndarray | None = None) -> dict[str, Grams]:
    """{kind: n-grams} of texts. A null has none.

    `rows` [texts], ascending, says which row each text belongs to. Without it each text is a row of its own.
    A pair of words never spans two texts.
    """
    if isinstance(texts, pa.ChunkedArray):
        texts = texts.combine_chunks()
    words = find_words(texts)
    row = words.texts if rows is None else rows[words.texts]
    if not len(words.starts):
        empty = Grams(np.empty(0, np.int64), np.empty(0, np.uint64))
        return dict.fromkeys(KINDS, empty)
    lengths = words.lengths
    wide = words.characters.astype(np.uint64)
    in_word, trigrams = _trigrams(words)
    place = np.arange(len(wide)) - np.repeat(words.starts, lengths)
    hashes = mixed(wide) * _powers(MAX_CHARACTERS + 1).take(place, mode="clip")
    unigrams = mixed(np.add.reduceat(hashes, words.starts))
    beginnings = mixed(np.add.reduceat(np.where(place < BEGINNING, hashes, np.uint64(0)), words.starts))
    same_text = words.texts[1:] == words.texts[:-1]
    bigrams = mixed(unigrams[:-1] * _BIGRAM_FACTOR + unigrams[1:])[same_text]
    return {
        "trigram": Grams(row[in_word], trigrams),
        "unigram": Grams(row, unigrams),
        "beginning": Grams(row, beginnings),
        "bigram": Grams(row[1:][same_text], bigrams),
    }


def _trigrams(words: Words) -> tuple[np.ndarray, np.ndarray]:
    """(the word of each trigram, ascending; its code), with the pairs and the single characters."""
    characters, starts = words.characters, words.starts
    word = np.repeat(np.arange(len(starts)), words.lengths)
    has_others = bool((characters >= folding.LEAST).any())
    if has_others:
        characters = _folds()[characters]
        kept = characters > 0
        characters, word = characters[kept], word[kept]
        starts = np.flatnonzero(np.diff(word, prepend=-1))
    wide = characters.astype(np.uint64)
    before, after = np.roll(wide, 1), np.roll(wide, -1)
    before[starts], after[np.append(starts[1:], len(wide))[: len(starts)] - 1] = _WORD_START, _WORD_END
    trigrams = before << np.uint64(42) | wide << np.uint64(21) | after
    if not has_others or not (paired := _scripts()[characters] > 0).any():
        return word, trigrams
    pairs = np.flatnonzero(paired[1:] & paired[:-1] & (word[1:] == word[:-1]))
    han = np.flatnonzero(_scripts()[characters] == 2)
    all_words = np.concatenate([word, word[pairs], word[han]])
    codes = np.concatenate([trigrams, wide[pairs] << np.uint64(21) | wide[pairs + 1], wide[han]])
    order = np.argsort(all_words, kind="stable")
    return all_words[order], codes[order]


@functools.cache
def _folds() -> np.ndarray:
    """uint32 [code points]: what each character becomes in a trigram, 0 if it is left out."""
    table = np.arange(0x110000, dtype=np.uint32)
    for code in range(folding.LEAST, folding.MOST):
        table[code] = ord(folding.folded(chr(code)) or "\0")
    return table


@functools.cache
def _scripts() -> np.ndarray:
    """uint8 [code points]: 2 for Han, 1 for other characters whose pairs count, 0 for all others."""
    table = np.zeros(0x110000, np.uint8)
    for number, ranges in ((1, folding.PAIRED), (2, folding.HAN)):
        for low, high in ranges:
            table[low : high + 1] = number
    return table


def mixed(numbers: np.ndarray) -> np.ndarray:
    """A hash of each number of 64 bits: every bit depends on all bits of the number.

    It is the finalizer of SplitMix64 (Steele et al. 2014).
    """
    mixing = numbers + _GOLDEN
    mixing = (mixing ^ (mixing >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixing = (mixing ^ (mixing >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixing ^ (mixing >> np.uint64(31))


def find_words(texts: pa.Array) -> Words:
    """The words of texts. Only the first MAX_CHARACTERS of a text are read. A null has no words."""
    texts = pc.utf8_slice_codeunits(texts.cast(pa.large_string()).fill_null(""), 0, MAX_CHARACTERS)
    data, offsets = _utf8(texts)
    if not data.isascii() or b"'" in data:
        texts = _normalised(texts, data, offsets)
        data, offsets = _utf8(texts)
    data = data.translate(_ASCII_TABLE)
    if data.isascii():
        characters = np.frombuffer(data, np.uint8)
    else:
        characters = np.frombuffer(data.decode().encode("utf-32-le"), np.uint32)
        offsets = np.append(0, np.cumsum(pc.utf8_length(texts).to_numpy()))
    in_word = characters != ord(" ")
    starts = in_word.copy()
    starts[1:] &= ~in_word[:-1]
    text_starts = offsets[:-1][offsets[:-1] < len(characters)]
    starts[text_starts] = in_word[text_starts]
    text = np.repeat(np.arange(len(texts)), np.diff(np.searchsorted(np.flatnonzero(starts), offsets)))
    return Words(characters[in_word].astype(np.uint32, copy=False), np.flatnonzero(starts[in_word]), text)


def _normalised(texts: pa.Array, data: bytes, offsets: np.ndarray) -> pa.Array:
    """Texts, after `normalise` and without apostrophes where they have an apostrophe or are not ASCII.

    `data` and `offsets` are those of `_utf8`. Each distinct text is normalised once.
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
    """The UTF-8 of large strings, joined, and the offset [texts + 1] at which each text starts in it."""
    _, offsets, data = texts.buffers()
    if not len(texts):
        return b"", np.zeros(1, np.int64)
    places = np.frombuffer(offsets, np.int64)[texts.offset : texts.offset + len(texts) + 1]
    return data[int(places[0]) : int(places[-1])].to_pybytes() if data else b"", places - places[0]


@functools.cache
def _powers(n: int) -> np.ndarray:
    """The first `n` powers of an odd number, modulo 2^64."""
    with np.errstate(over="ignore"):
        return np.cumprod(np.full(n, _GOLDEN, np.uint64)) | np.uint64(1)
