"""Gives an image that ends early an end, so that it can be decoded as far as it goes.

Pillow can do that by a global switch, which would let every other picture pass that is decoded at the same
moment. So the bytes are completed here, and decoded like any other image. What is missing is grey in a JPEG;
in a PNG it is black, or white where a PNG without its end would be transparent.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator

from .decode import LARGE

_PNG = b"\x89PNG\r\n\x1a\n"
_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # colour type of PNG -> numbers in a pixel


def completed(data: bytes) -> bytes | None:
    """The image with an end of its own; None if it is neither JPEG nor PNG, or has no pixels yet."""
    if data.startswith(b"\xff\xd8\xff"):
        scan = data.find(b"\xff\xda")
        return data + b"\xff\xd9" if 0 <= scan < len(data) - 64 else None
    if data.startswith(_PNG):
        return _completed_png(data)
    return None


def _completed_png(data: bytes) -> bytes | None:
    chunks = list(_chunks(data))
    if not chunks or chunks[0][0] != b"IHDR" or len(chunks[0][1]) != 13:
        return None
    width, height, bits, colour, _, _, interlaced = struct.unpack(">IIBBBBB", chunks[0][1])
    if colour not in _CHANNELS or not 0 < width * height <= LARGE:
        return None
    row = 1 + -(-width * bits * _CHANNELS[colour] // 8)
    # Interlaced, a picture is seven small ones, whose rows have a byte more each and are filled up.
    size = row * height if not interlaced else 2 * row * height + 16 * height + 64
    decompressor, pixels = zlib.decompressobj(), bytearray()
    try:
        for _, part in (chunk for chunk in chunks if chunk[0] == b"IDAT"):
            pixels += decompressor.decompress(part, size - len(pixels) or 1)
            if len(pixels) >= size or decompressor.eof:
                break
    except zlib.error:
        return None
    if len(pixels) < min(row, size):
        return None
    filled = zlib.compress(bytes(pixels[:size]).ljust(size, b"\0"), 1)
    before = [chunk for chunk in chunks if chunk[0] in (b"IHDR", b"PLTE", b"tRNS", b"eXIf", b"gAMA", b"iTXt")]
    return _PNG + b"".join(_chunk(*chunk) for chunk in (*before, (b"IDAT", filled), (b"IEND", b"")))


def _chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """(type, content) of the chunks of a PNG; of the pixels also a part of one, of the rest whole ones."""
    at = len(_PNG)
    while at + 8 <= len(data):
        size, kind = struct.unpack_from(">I4s", data, at)
        content = data[at + 8 : at + 8 + size]
        if len(content) < size and kind != b"IDAT":
            return
        yield kind, content
        at += 12 + size


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
