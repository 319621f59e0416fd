"""How the names of image files end, and which ending fits the bytes of an image."""

from __future__ import annotations

# In lower case. Some of these formats cannot be decoded everywhere, such as HEIC: `run` then says so.
IMAGE_ENDINGS = frozenset(
    [
        ".jpg",
        ".jpeg",
        ".jpe",
        ".jfif",
        ".mpo",
        ".jp2",
        ".j2k",
        ".jpx",
        ".png",
        ".apng",
        ".gif",
        ".webp",
        ".avif",
        ".avifs",
        ".heic",
        ".heif",
        ".bmp",
        ".dib",
        ".tif",
        ".tiff",
        ".ico",
        ".ppm",
        ".pgm",
        ".pbm",
        ".pnm",
        ".tga",
        ".qoi",
    ]
)
# The first bytes of an image -> the usual ending of such files.
_SIGNATURES = (
    (b"\xff\xd8\xff", ".jpg"),
    (b"\x89PNG\r\n\x1a\n", ".png"),
    (b"GIF8", ".gif"),
    (b"BM", ".bmp"),
    (b"II*\0", ".tiff"),
    (b"MM\0*", ".tiff"),
    (b"\0\0\1\0", ".ico"),
    (b"\0\0\0\x0cjP  ", ".jp2"),
    (b"qoif", ".qoi"),
    (b"P6", ".ppm"),
    (b"P5", ".pgm"),
    (b"P4", ".pbm"),
)


def ending_of_bytes(data: bytes) -> str:
    """The ending of a file with these bytes, such as ".jpg"; ".img" if they are of no known format."""
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return ".webp"
    if data[4:8] == b"ftyp":
        return ".avif" if data[8:12] in (b"avif", b"avis") else ".heic"
    return next((ending for start, ending in _SIGNATURES if data.startswith(start)), ".img")
