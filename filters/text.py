"""Normalises titles and queries."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable

_APOSTROPHES = "'\u2019\u02bc"  # characters that are typed as one; NFKC turns U+FF07 into U+0027
_LONG_TEXT = 1000  # characters; the marks of a shorter text are sorted fast enough in any case
# Characters that NFKC decomposes into nothing but marks.
_MARKS_IN_ONE = "\u0344\u0f73\u0f75\u0f81\uff9e\uff9f"
_NOT_KEPT_ASCII = str.maketrans({chr(code): " " for code in range(128) if not chr(code).isalnum()})


def normalise(text: str) -> str:
    """The form in which titles and queries are compared: "Kitchen!!  IDEAS" becomes "kitchen ideas".

    1. Format characters (category Cf) are removed.
    2. NFKC, case folding and NFKC are applied.
    3. Letters, marks and numbers stay, and so does an apostrophe within a word. Everything else becomes a
       space.
    4. Runs of spaces become one, and spaces at the ends are removed.

    A second call changes nothing. No string raises an error.
    """
    if text.isascii():
        text = text.lower()
    else:
        text = text.translate(_WITHOUT_FORMAT)
        if len(text) > _LONG_TEXT:
            text = _with_sorted_marks(text)
        text = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    if not text.isascii():
        if any(mark in text for mark in _APOSTROPHES):
            text = _with_apostrophes(text)
        return " ".join(text.translate(_KEPT).split())
    if "'" in text:
        return " ".join(_with_apostrophes(text).translate(_KEPT).split())
    return " ".join(text.translate(_NOT_KEPT_ASCII).split())


def _with_sorted_marks(text: str) -> str:
    """An equivalent text in which each run of combining marks is in canonical order.

    `unicodedata.normalize` would sort them too, but in time quadratic in the length of a run.
    """
    ordered: list[str] = []
    marks: list[str] = []
    for character in "".join(unicodedata.normalize("NFKD", c) if c in _MARKS_IN_ONE else c for c in text):
        if unicodedata.combining(character):
            marks.append(character)
            continue
        ordered += [*sorted(marks, key=unicodedata.combining), character]
        marks = []
    return "".join(ordered + sorted(marks, key=unicodedata.combining))


def _with_apostrophes(text: str) -> str:
    """The text with each apostrophe within a word as U+0027, and each other one as a space."""
    kept = list(text)
    for i, character in enumerate(text):
        if character in _APOSTROPHES:
            before, after = text[i - 1 : i] or " ", text[i + 1 : i + 2] or " "
            within = _category(before)[0] in "LMN" and _category(after)[0] == "L"
            kept[i] = "'" if within else " "
    return "".join(kept)


def _category(character: str) -> str:
    return "Po" if character in _APOSTROPHES else unicodedata.category(character)


class _Characters(dict[int, str | None]):
    """A table for str.translate that asks `change(character, category)` when it first meets a character."""

    def __init__(self, change: Callable[[str, str], str | None]):
        super().__init__()
        self._change = change

    def __missing__(self, code: int) -> str | None:
        character = chr(code)
        self[code] = self._change(character, unicodedata.category(character))
        return self[code]


_WITHOUT_FORMAT = _Characters(lambda character, category: None if category == "Cf" else character)
_KEPT = _Characters(
    lambda character, category: character if category[0] in "LMN" or character == "'" else " "
)
