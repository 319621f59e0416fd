"""Texts that people wrote: `normalise` titles and queries, `holds_personal_data`, and does a text say
anything at all?

What says nothing is treated as missing, and the pin gets a caption besides. A mistake in that direction is
cheap, so numbers, bare links and file names say nothing too; a short real word ("Zara", "7up", "猫") always
says something.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable
from functools import cache
from pathlib import Path

_LONG = 64  # characters: no placeholder is longer, and two words of a text that is longer make it prose
_HANGUL_FILLERS = "\u115f\u1160\u3164\uffa0"  # letters by category, blank by look
_LETTER = re.compile(f"[^\\W\\d_{_HANGUL_FILLERS}]")
_NOT_WRITING = re.compile(f"[\\W_{_HANGUL_FILLERS}]+")
_NOT_WRITING_ASCII = bytes(code for code in range(128) if not chr(code).isalnum())
_ACCENTS = re.compile("[\u0300-\u036f]+")
_TWO_WORDS = re.compile(r"[^\W\d_]{2,30}\s[^\W\d_]{2}")
_DOT_WITHIN = re.compile(r"\.\w|:/")  # every link and file name has one

# One word that is a link: a scheme or www.; a host with a path ("pin.it/abc"); a host alone under a domain
# that is no English word ("etsy.com", but not "node.js" or "love.me").
_LINK = re.compile(
    r"""[<(\[]?(?:
        (?:https?:/|ftp:/|www\.)\S+
      | (?:[\w-]++\.)+[a-z]{2,24}(?::\d+)?/\S*
      | (?:[\w-]++\.)+(?:com|net|org|info|biz|edu|gov|io|(?:co|com)\.[a-z]{2}
                       |au|br|ca|ch|cz|de|dk|es|eu|fr|gr|hu|ie|jp|kr|mx|nl|pl|pt|ru|se|tr|ua|uk)
    )[>)\].,;:!]*""",
    re.VERBOSE,
)
# At most eight words, an extension at the end of the last.
_FILE_NAME = re.compile(
    r"""(?:[^\s]++\s++){0,7}\S*[\w)\]-]\.
    (?:jpe?g|jfif|png|gif|webp|avif|hei[cf]|bmp|tiff?|svg|cr2|nef|dng|psd|eps|pdf|mp4|mov|webm)""",
    re.VERBOSE,
)
# What cameras, telephones and browsers call a picture, and hexadecimal ids, without their punctuation.
_MACHINE_NAME = re.compile(
    r"""(?:img|imge|image|images|photo|foto|picture|pic|dsc[nf]?|pxl|vid|video|mvimg|mvi|pano|gopr|dji|cimg|fbimg|received
          |snapchat|whatsapp(?:image|video)|screenshot(?:from|on)?|screenrecording|bildschirmfoto|capturedecran
          |capturadepantalla|capturadetela|schermata|untitled|untitleddesign|unnamed|unknown|download|scan|slide)
        \d+(?:[a-z]{1,4}\d+)*(?:am|pm|copy|edit|edited)?
      | (?=[a-f]*\d)[0-9a-f]{12,128}""",
    re.VERBOSE,
)


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


def says_nothing(text: str | None) -> bool:
    """True when `text`, a native title or description, counts as missing.

    That is: None; blanks, punctuation, symbols, emoji and numbers ("1984" as well) without a letter; a single
    Latin letter; a placeholder of `placeholders.txt` in any case and punctuation; links alone or with a
    placeholder ("source: https://..."); a picture's file name, descriptive or not; a camera's name for a
    picture; a hexadecimal id. Case and surrounding blanks make no difference. Raises on no string, and takes
    time linear in its length.
    """
    if text is None:
        return True
    if len(text) > _LONG and _TWO_WORDS.search(text, 0, _LONG):
        return text.lstrip()[:11].lower() == "lorem ipsum"
    text = text.strip()
    if not _LETTER.search(text):
        # Only what looks like letters could still say something: "Ⓒⓤⓣⓔ".
        text = unicodedata.normalize("NFKC", text[:_LONG])
        if not _LETTER.search(text):
            return True
    if len(text) > _LONG:
        return all(map(_LINK.fullmatch, text.lower().split()))
    folded = _folded(text)
    writing = _writing(folded)
    if (
        writing in _placeholders()
        or _MACHINE_NAME.fullmatch(writing)
        or (len(writing) == 1 and writing.isascii())
    ):
        return True
    if not _DOT_WITHIN.search(folded):
        return False
    words = folded.split()
    others = [word for word in words if not _LINK.fullmatch(word)]
    if len(others) < len(words):
        return not others or _writing("".join(others)) in _placeholders()
    return bool(_FILE_NAME.fullmatch(folded))


def _folded(text: str) -> str:
    """`text` without case, compatibility forms and the accents of Latin, Greek and Cyrillic letters."""
    if text.isascii():
        return text.lower()
    text = unicodedata.normalize("NFKD", unicodedata.normalize("NFKD", text).casefold())
    return _ACCENTS.sub("", text).replace("ı", "i").strip()


def _writing(folded: str) -> str:
    """Letters and digits alone: "n/a" and "N,o,n,e" without what stands between."""
    if folded.isascii():
        return folded.encode().translate(None, _NOT_WRITING_ASCII).decode()  # the same, five times as fast
    return _NOT_WRITING.sub("", folded)


@cache
def _placeholders() -> frozenset[str]:
    lines = Path(__file__).with_name("placeholders.txt").read_text(encoding="utf-8").splitlines()
    return frozenset(_writing(_folded(line)) for line in lines if not line.startswith("#")) | {""}
