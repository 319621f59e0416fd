"""Normalises titles and queries, and finds out whether a text holds personal data."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable

# Personal data is looked for in raw text. With `_holds_address`, this is the pattern of docs/aggregate.md,
# searched in linear time.
_PERSONAL = re.compile(r"https?://|www\.|(?:\+?\d[\s().-]?){9,}")
_APOSTROPHES = "'\u2019\u02bc"  # what is typed for one; U+FF07 is U+0027 after NFKC
_LONG_RUN = 1000  # characters: of fewer, no order takes long to mend
_MARKS_IN_ONE = "\u0344\u0f73\u0f75\u0f81\uff9e\uff9f"  # characters that NFKC takes apart into marks alone
_NOT_KEPT_ASCII = str.maketrans({chr(code): " " for code in range(128) if not chr(code).isalnum()})


def normalise(text: str) -> str:
    """The form in which titles and queries are counted: "Kitchen!!  IDEAS" and "kitchen ideas" are one.

    Format characters vanish; NFKC, case folding, NFKC; letters, marks and numbers stay, and apostrophes
    within words; everything else becomes a space, runs of spaces one, ends trimmed. Idempotent; raises on no
    string.
    """
    if text.isascii():
        text = text.lower()
    else:
        text = text.translate(_WITHOUT_FORMAT)
        if len(text) > _LONG_RUN:
            text = _in_order(text)
        text = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    if not text.isascii():
        if any(mark in text for mark in _APOSTROPHES):
            text = _with_apostrophes(text)
        return " ".join(text.translate(_KEPT).split())
    if "'" in text:
        return " ".join(_with_apostrophes(text).translate(_KEPT).split())
    return " ".join(text.translate(_NOT_KEPT_ASCII).split())


def _in_order(text: str) -> str:
    """The same text to Unicode, its runs of combining marks in their canonical order: the library sorts them
    in quadratic time.
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
    """Apostrophes that stand within a word as U+0027, the others as spaces."""
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
    """What becomes of each character, found when it is first met; for str.translate."""

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


def holds_personal_data(text: str) -> bool:
    """Whether raw text holds an e-mail address, a link or a telephone number; takes time linear in its
    length.

    The same as a search for `\\S+@\\S+\\.\\S+|https?://|www\\.|(?:\\+?\\d[\\s().-]?){9,}`, whose first part
    alone would be quadratic.
    """
    return ("@" in text and _holds_address(text)) or _PERSONAL.search(text) is not None


def _holds_address(text: str) -> bool:
    for word in text.split():
        at, dot = word.find("@", 1), word.rfind(".", 0, -1)
        if 0 < at < dot - 1:
            return True
    return False
