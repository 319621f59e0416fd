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

# Characters. No placeholder is longer, and a longer text that has two words side by side is prose.
_LONG = 64
_HANGUL_FILLERS = "\u115f\u1160\u3164\uffa0"  # Unicode counts them as letters, but they are invisible
_LETTER = re.compile(f"[^\\W\\d_{_HANGUL_FILLERS}]")
_NOT_ALPHANUMERIC = re.compile(f"[\\W_{_HANGUL_FILLERS}]+")
_NOT_ALPHANUMERIC_ASCII = bytes(code for code in range(128) if not chr(code).isalnum())
_ACCENTS = re.compile("[\u0300-\u036f]+")
_TWO_WORDS = re.compile(r"[^\W\d_]{2,30}\s[^\W\d_]{2}")
_DOT_INSIDE = re.compile(r"\.\w|:/")  # every link and every file name has a match

# A word that is a link: it has a scheme or www., or it is a host with a path ("pin.it/abc"), or a host alone
# whose top-level domain is no English word ("etsy.com", but not "love.me") and no file's ending ("node.js").
_LINK = re.compile(
    r"""[<(\[]?(?:
        (?:https?:/|ftp:/|www\.)\S+
      | (?:[\w-]++\.)+[a-z]{2,24}(?::\d+)?/\S*
      | (?:[\w-]++\.)+(?:com|net|org|info|biz|edu|gov|io|(?:co|com)\.[a-z]{2}
                       |au|br|ca|ch|cz|de|dk|es|eu|fr|gr|hu|ie|jp|kr|mx|nl|pl|pt|ru|se|tr|ua|uk)
    )[>)\].,;:!]*""",
    re.VERBOSE,
)
# At most eight words, of which the last has the ending of a picture, a video or a PDF.
_FILE_NAME = re.compile(
    r"""(?:[^\s]++\s++){0,7}\S*[\w)\]-]\.
    (?:jpe?g|jfif|png|gif|webp|avif|hei[cf]|bmp|tiff?|svg|cr2|nef|dng|psd|eps|pdf|mp4|mov|webm)""",
    re.VERBOSE,
)
# Names that cameras, telephones and browsers give to pictures, and hexadecimal ids; without punctuation.
_MACHINE_NAME = re.compile(
    r"""(?:img|imge|image|images|photo|foto|picture|pic|dsc[nf]?|pxl|vid|video|mvimg|mvi|pano|gopr|dji
          |cimg|fbimg|received|snapchat|whatsapp(?:image|video)|screenshot(?:from|on)?
          |screenrecording|bildschirmfoto|capturedecran|capturadepantalla|capturadetela|schermata|untitled
          |untitleddesign|unnamed|unknown
          |download|scan|slide)
        \d+(?:[a-z]{1,4}\d+)*(?:am|pm|copy|edit|edited)?
      | (?=[a-f]*\d)[0-9a-f]{12,128}""",
    re.VERBOSE,
)


def says_nothing(text: str | None) -> bool:
    """Whether `text`, a pin's own title or description, counts as missing.

    These texts do:
    - None, and text without a letter: blanks, punctuation, symbols, emoji, numbers ("1984" too);
    - a single Latin letter;
    - a placeholder of `placeholders.txt`, in any case and with any punctuation;
    - links without other text, or with a placeholder ("source: https://...");
    - the file name of a picture, even if it describes it, and the name that a camera gave to a picture;
    - a hexadecimal id.

    Case and surrounding blanks make no difference. Any string is accepted, also with lone surrogates. The
    time that it takes is linear in the length of the text.
    """
    if text is None:
        return True
    if len(text) > _LONG and _TWO_WORDS.search(text, 0, _LONG):
        return text.lstrip()[:11].lower() == "lorem ipsum"
    text = text.strip()
    if not _LETTER.search(text):
        # Symbols that look like letters can still say something: "Ⓒⓤⓣⓔ".
        text = unicodedata.normalize("NFKC", text[:_LONG])
        if not _LETTER.search(text):
            return True
    if len(text) > _LONG:
        return all(map(_LINK.fullmatch, text.lower().split()))
    folded = _folded(text)
    letters = _alphanumeric(folded)
    if (
        letters in _placeholders()
        or _MACHINE_NAME.fullmatch(letters)
        or (len(letters) == 1 and letters.isascii())
    ):
        return True
    if not _DOT_INSIDE.search(folded):
        return False
    words = folded.split()
    others = [word for word in words if not _LINK.fullmatch(word)]
    if len(others) < len(words):
        return not others or _alphanumeric("".join(others)) in _placeholders()
    return bool(_FILE_NAME.fullmatch(folded))


def _folded(text: str) -> str:
    """`text` without case, compatibility forms and the accents of Latin, Greek and Cyrillic letters."""
    if text.isascii():
        return text.lower()
    text = unicodedata.normalize("NFKD", unicodedata.normalize("NFKD", text).casefold())
    return _ACCENTS.sub("", text).replace("ı", "i").strip()


def _alphanumeric(folded: str) -> str:
    """The letters and digits of a text, for instance "na" of "n/a"."""
    if folded.isascii():  # the same result, five times as fast
        return folded.encode().translate(None, _NOT_ALPHANUMERIC_ASCII).decode()
    return _NOT_ALPHANUMERIC.sub("", folded)


@cache
def _placeholders() -> frozenset[str]:
    """The lines of placeholders.txt as letters and digits."""
    lines = Path(__file__).with_name("placeholders.txt").read_text(encoding="utf-8").splitlines()
    return frozenset(_alphanumeric(_folded(line)) for line in lines if not line.startswith("#")) | {""}
