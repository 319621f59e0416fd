"""What forms of one word have in common: its letters without accents and vowel signs, in trigrams.

Words keep them, so that the exact form still counts more. `embed export-encoder` writes this code beside an
encoder; it needs nothing of ours.
"""

from __future__ import annotations

import functools
import unicodedata

# Accents of Latin, Greek and Cyrillic; vowel signs of Hebrew and Arabic, hamza and madda of an alef; tatweel.
# Signs of other scripts, such as Devanagari and Thai, are as much a part of a word as its letters.
_MARKS = ((0x300, 0x36F), (0x591, 0x5C7), (0x610, 0x61A), (0x640, 0x640), (0x64B, 0x65F), (0x670, 0x670))
# Letters that people type as others, and that Unicode does not take apart. The Arabic ones are those of
# Lucene's ArabicNormalizer and PersianNormalizer.
_OTHERS = {
    "ø": "o",
    "đ": "d",
    "ð": "d",
    "ł": "l",
    "ħ": "h",
    "ŧ": "t",
    "ı": "i",
    "\u0629": "\u0647",
    "\u0649": "\u064a",
    "\u06a9": "\u0643",
    "\u06cc": "\u064a",
}
LEAST, MOST = 0xC0, 0x2000  # only characters in this range are folded
# Han, and scripts in which two neighbours often form a word; Lucene's CJKBigramFilter has the same ones.
HAN = ((0x3005, 0x3007), (0x3400, 0x4DBF), (0x4E00, 0x9FFF), (0xF900, 0xFAFF), (0x20000, 0x3FFFF))
PAIRED = (*HAN, (0x3040, 0x30FF), (0x31F0, 0x31FF), (0xAC00, 0xD7A3))  # and kana, and Hangul


@functools.cache
def folded(character: str) -> str:
    """A character of a normalised word without its accents; "" for an accent."""
    if not LEAST <= ord(character) < MOST:
        return character
    apart = unicodedata.normalize("NFD", character)
    first = apart[0]
    if not all(within(ord(mark), _MARKS) for mark in apart[1:]):
        return character
    return "" if within(ord(first), _MARKS) else _OTHERS.get(first, first)


def within(code: int, ranges: tuple[tuple[int, int], ...]) -> bool:
    """Whether a code point is in one of some ranges, whose ends belong to them."""
    return any(low <= code <= high for low, high in ranges)
