"""Finds out whether a title or description says nothing: blanks, a placeholder, a link or a file name alone.

Such a text counts as missing, and the pin gets a caption. A mistake in that direction is cheap, because it
costs one caption. So numbers, bare links and file names say nothing too. A short real word ("Zara", "7up",
"猫") always says something.
"""

from __future__ import annotations

import re
import unicodedata
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
