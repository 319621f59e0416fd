"""Text in any encoding as UTF-8."""

from __future__ import annotations

import codecs
import io
from typing import IO

_BYTES_AT_ONCE = 1 << 16
_HEAD = 400  # bytes that are looked at
UTF_8 = ("utf-8", "utf-8-sig")


def _lone_surrogate(error: UnicodeError) -> tuple[str, int]:
    """Stands for bytes that are no text. In UTF-8 it becomes a byte that is no text either."""
    assert isinstance(error, UnicodeDecodeError)
    return "\udcff", error.end


codecs.register_error("pincaption-surrogate", _lone_surrogate)


def encoding_of(head: bytes, wanted: str | None = None) -> str:
    """The encoding of a text by its first bytes: a byte order mark comes before `wanted`, that before UTF-8.

    UTF-16 without a mark is known by the zero bytes of its letters.
    """
    if head.startswith((codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)):
        return "utf-32"
    if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "utf-16"
    if head.startswith(codecs.BOM_UTF8):
        return "utf-8-sig"
    if wanted:
        name = codecs.lookup(wanted).name
        return f"{name}-le" if name in ("utf-16", "utf-32") else name  # without a mark
    even, odd = head[0:_HEAD:2], head[1:_HEAD:2]
    if len(head) >= 4 and odd.count(0) * 2 > len(odd) and not even.count(0):
        return "utf-16-le"
    if len(head) >= 4 and even.count(0) * 2 > len(even) and not odd.count(0):
        return "utf-16-be"
    return "utf-8"


def as_utf_8(raw: io.BufferedReader, wanted: str | None = None) -> io.BufferedReader:
    """The bytes of a text in UTF-8. Text that is in UTF-8 already, as most is, is given through as it is."""
    encoding = encoding_of(raw.peek(_HEAD), wanted)
    if encoding in UTF_8:
        return raw
    return io.BufferedReader(_Recoded(raw, encoding), _BYTES_AT_ONCE)


class _Recoded(io.RawIOBase):
    """The bytes of a text in another encoding, in UTF-8, a few at a time."""

    def __init__(self, raw: IO[bytes], encoding: str):
        self._raw, self._rest = raw, b""
        self._decoder = codecs.getincrementaldecoder(encoding)("pincaption-surrogate")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer) -> int:  # type: ignore[no-untyped-def]
        while not self._rest:
            data = self._raw.read(_BYTES_AT_ONCE)
            text = self._decoder.decode(data, final=not data)
            self._rest = text.encode("utf-8", "surrogateescape")
            if not data:
                break
        n = min(len(buffer), len(self._rest))
        buffer[:n], self._rest = self._rest[:n], self._rest[n:]
        return n
