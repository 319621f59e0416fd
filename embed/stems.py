"""Words to their stems, "mugs" to "mug", by the language of an item: with the stemmers of Snowball.

Snowball has no stemmer for a language such as Japanese. There a word is its own stem.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from .ngrams import Words, grams, mixed

# {language, as a locale begins with it: its stemmer}, as snowballstemmer 3.1 has them
STEMMERS = {
    "ar": "arabic",
    "hy": "armenian",
    "eu": "basque",
    "ca": "catalan",
    "cs": "czech",
    "da": "danish",
    "nl": "dutch",
    "en": "english",
    "eo": "esperanto",
    "et": "estonian",
    "fi": "finnish",
    "fr": "french",
    "de": "german",
    "el": "greek",
    "hi": "hindi",
    "hu": "hungarian",
    "id": "indonesian",
    "ga": "irish",
    "it": "italian",
    "lt": "lithuanian",
    "ne": "nepali",
    "nb": "norwegian",
    "nn": "norwegian",
    "no": "norwegian",
    "fa": "persian",
    "pl": "polish",
    "pt": "portuguese",
    "ro": "romanian",
    "ru": "russian",
    "sr": "serbian",
    "st": "sesotho",
    "es": "spanish",
    "sv": "swedish",
    "ta": "tamil",
    "tr": "turkish",
    "yi": "yiddish",
}
USUAL = "en"  # the language of items if no locale of the index is known


class Stems:
    """The stems of the words of one language. Each distinct word is stemmed once."""

    def __init__(self, language: str):
        """`language`: the first part of a locale, "de" of "de-AT". Without a stemmer words are kept."""
        import snowballstemmer

        name = STEMMERS.get(language)
        known = name in snowballstemmer.algorithms()  # an older version has fewer
        self._stemmer: Any = snowballstemmer.stemmer(name) if known else None
        # A stem is a term of its language alone: German "die" is no English "die".
        self._salt = np.uint64(int.from_bytes(language.encode()[:8], "big") if known else 0)
        self._codes: dict[int, int] = {}  # {code of a word: code of its stem}

    def codes(self, words: Words, codes: np.ndarray, chosen: np.ndarray) -> np.ndarray:
        """The code of the stem of each chosen word, uint64 [chosen].

        `codes` [words] are the codes of `words`, `chosen` the numbers of the words in this language.
        """
        if self._stemmer is None:
            return codes.take(chosen)
        distinct, first, place = np.unique(codes[chosen], return_index=True, return_inverse=True)
        first = chosen[first]
        new = np.array([code not in self._codes for code in distinct.tolist()], bool)
        if new.any():
            stems = self._stemmer.stemWords(spelled(words, first[new]))
            self._codes.update(zip(distinct[new].tolist(), self._hashed(stems, distinct[new]), strict=True))
        stem_codes: np.ndarray = np.array([self._codes[code] for code in distinct.tolist()], np.uint64)
        return stem_codes.take(place)

    def _hashed(self, stems: list[str], own: np.ndarray) -> list[int]:
        """The code of each stem. A stem that is not one word gives way to the code of the word itself."""
        found = grams(pa.array(stems, pa.string()))["unigram"]
        once = np.bincount(found.rows, minlength=len(stems)) == 1
        own = own.copy()
        own[once] = found.codes[once[found.rows]]
        hashed: list[int] = mixed(own ^ self._salt).tolist()
        return hashed


def spelled(words: Words, chosen: np.ndarray) -> list[str]:
    """The letters of the words with these numbers."""
    lengths = words.lengths[chosen]
    starts = words.starts[chosen]
    return [
        words.characters[start : start + length].astype("<u4").tobytes().decode("utf-32-le")
        for start, length in zip(starts.tolist(), lengths.tolist(), strict=True)
    ]


def languages_of(locales: pa.Array | pa.ChunkedArray | None, n: int) -> tuple[list[str], np.ndarray]:
    """(languages, which of them each of `n` items has), of the items' locales: "de" of "de-AT" or "de_AT".

    An item without a locale counts for the most frequent language of the others. Without any locale all items
    are English. Languages without a stemmer count as one, "".
    """
    if locales is None or locales.null_count == n:
        return [USUAL], np.zeros(n, np.int64)
    if isinstance(locales, pa.ChunkedArray):
        locales = locales.combine_chunks()
    parts = pc.split_pattern_regex(pc.utf8_lower(pc.utf8_trim_whitespace(locales)), "[-_]")
    codes = pc.list_element(parts, 0).dictionary_encode()
    known = [name if name in STEMMERS else "" for name in codes.dictionary.to_pylist()]
    languages = sorted(set(known))
    language = np.array([languages.index(name) for name in known])
    place = pc.fill_null(codes.indices, -1).to_numpy(zero_copy_only=False)
    counts = np.bincount(language[place[place >= 0]], minlength=len(languages))
    return languages, np.where(place >= 0, language[place], counts.argmax())
