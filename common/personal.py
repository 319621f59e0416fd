"""Personal data in texts that strangers wrote: e-mail addresses, links and telephone numbers."""

from __future__ import annotations

import itertools
import re
import unicodedata

_LINK = re.compile(r"[Hh][Tt][Tt][Pp][Ss]?://|[Ww][Ww][Ww]\.")
# Nine digits or more, with at most three separators between two of them: `+1 (555) 123-4567`. The separators
# are blanks, parentheses, dots, slashes and dashes of every kind.
_NUMBER = r"\+?\d(?:[\s()./\u2010-\u2015\u2212-]{0,3}\+?\d){8,}"
_TELEPHONE = re.compile(_NUMBER)
_MAYBE_CODE = re.compile(_NUMBER + r"(?:[ -]?[Xx](?!\w))?")  # an ISBN-10 may end with X
_GROUP = re.compile(r"\d+[Xx]?|[Xx]")
_GTIN_LENGTHS = (8, 12, 13, 14)
# How many digits stand together where the code is printed in groups: below the bars of an EAN-13, UPC-A and
# GTIN-14. The groups of an ISBN have no fixed lengths.
_PRINTED_GROUPS = {(1, 6, 6), (1, 5, 5, 1), (1, 2, 5, 5, 1)}
_MOST_GROUPS = 5
_ADDRESS_MARKS = ("@", "://", "www.")


def holds_personal_data(text: str) -> bool:
    """Whether raw text holds an e-mail address, a link or a telephone number.

    It is looked at as it is, and as people read it: a zero-width space may stand within a number. The time is
    linear in the length of the text. docs/aggregate.md has the pattern. A date, and a number with the check
    digit of a GTIN (EAN, UPC) or an ISBN, is no telephone number.
    """
    return _holds(text) or (not _is_plain(text) and _holds(_as_read(text)))


def _is_plain(text: str) -> bool:
    """Whether `_as_read` changes nothing that matters. A format character is not printable."""
    return text.isascii() or (text.isprintable() and unicodedata.is_normalized("NFKC", text))


def _as_read(text: str) -> str:
    """The text in NFKC, without format characters and without marks, which NFKC could take long to sort."""
    seen = "".join(c for c in text if unicodedata.category(c) not in ("Cf", "Mn", "Mc", "Me"))
    return unicodedata.normalize("NFKC", seen)


def _holds(text: str) -> bool:
    return (
        ("@" in text and _holds_address(text))
        or _LINK.search(text) is not None
        or (_TELEPHONE.search(text) is not None and any(map(_is_telephone, _MAYBE_CODE.finditer(text))))
    )


def redact_personal_data(text: str) -> str:
    """The text with `[redacted]` in place of telephone numbers and of words that are an address or a link."""
    text = _MAYBE_CODE.sub(lambda match: "[redacted]" if _is_telephone(match) else match[0], text)
    text = re.sub(r"\S+", _redacted_word, text)
    # What only shows once invisible characters are gone has no place in the text.
    return "[redacted]" if holds_personal_data(text) else text


def _redacted_word(match: re.Match[str]) -> str:
    return "[redacted]" if any(mark in match[0].lower() for mark in _ADDRESS_MARKS) else match[0]


def _holds_address(text: str) -> bool:
    """Whether a word has an @ that is not its first character, and after it a dot within the rest.

    The regular expression `\\S+@\\S+\\.\\S+` would take quadratic time.
    """
    for word in text.split():
        at, dot = word.find("@", 1), word.rfind(".", 0, -1)
        if 0 < at < dot - 1:
            return True
    return False


def _is_telephone(match: re.Match[str]) -> bool:
    """Whether a number is a telephone number, and not made of codes of products and dates."""
    number = match[0]
    if "+" in number:
        return True
    groups = list(_GROUP.finditer(number))
    rest, kept_from, i = [], 0, 0
    while i < len(groups):
        width = _code_at(number, groups, i)
        if width:
            rest.append(number[kept_from : groups[i].start()])
            kept_from = groups[i + width - 1].end()
        i += width or 1
    rest.append(number[kept_from:])
    return any(map(_TELEPHONE.search, rest))


def _code_at(number: str, groups: list[re.Match[str]], i: int) -> int:
    """Of how many groups of digits the code or date is that begins with group `i`; 0 if there is none."""
    for width in range(min(_MOST_GROUPS, len(groups) - i), 0, -1):
        window = groups[i : i + width]
        between = {number[a.end() : b.start()] for a, b in itertools.pairwise(window)}
        if len(between) > 1:
            continue
        separator = between.pop() if between else ""
        texts = [group[0] for group in window]
        if (separator in ("", " ", "-") and _is_code(texts, first=i == 0)) or (
            separator in ("-", ".", "/") and _is_date(texts)
        ):
            return width
    return 0


def _is_date(texts: list[str]) -> bool:
    """2026-05-31, 31.05.2026, 5/31/2026."""
    if len(texts) != 3 or not all(map(str.isdecimal, texts)):
        return False
    lengths = tuple(map(len, texts))
    if lengths[0] == 4 and max(lengths[1:]) <= 2:
        year, *others = map(int, texts)
    elif lengths[2] == 4 and max(lengths[:2]) <= 2:
        *others, year = map(int, texts)
    else:
        return False
    return 1900 <= year <= 2099 and 1 <= min(others) <= 12 and max(others) <= 31


def _is_code(texts: list[str], *, first: bool) -> bool:
    """Whether groups of digits are a GTIN-8, 12, 13 or 14 (EAN, UPC), an ISBN-10 or an ISBN-13.

    Eight digits count only at the beginning: after others they are the end of a telephone number.
    """
    lengths = tuple(map(len, texts))
    total = sum(lengths)
    if total not in (10, *_GTIN_LENGTHS) or (total == 8 and not (first and len(texts) == 1)):
        return False
    digits = "".join(texts)
    if total == 10:
        return (len(texts) == 1 or (len(texts) == 4 and lengths[3] == 1)) and _is_isbn_10(digits)
    grouped_as_printed = len(texts) == 1 or lengths in _PRINTED_GROUPS
    return (grouped_as_printed or digits.startswith(("978", "979"))) and _is_gtin(digits)


def _is_gtin(digits: str) -> bool:
    """GS1 General Specifications, section 7.9: the digits before the last weigh 3 and 1 in turn."""
    if not digits.isdecimal():
        return False
    weighted = sum(int(digit) * (3 if i % 2 else 1) for i, digit in enumerate(reversed(digits)))
    return weighted % 10 == 0 and any(int(digit) for digit in digits)


def _is_isbn_10(digits: str) -> bool:
    """ISO 2108: digits weigh 10 to 1, X as the last one is 10, and the sum is a multiple of 11."""
    if not digits[:9].isdecimal():
        return False
    values = [10 if digit in "Xx" else int(digit) for digit in digits]
    return sum(value * weight for value, weight in zip(values, range(10, 0, -1), strict=True)) % 11 == 0
