"""Bytes from strangers in, an upright RGB picture out, or an `ImageError` that says why not.

Pillow does the decoding; this file decides which formats are read, how large a picture may be, which way is
up and what colour shows through where it is transparent. Memory and time stay bounded whatever the bytes say.
"""

from __future__ import annotations

import contextlib
import re
import struct
import threading
from io import BytesIO

import numpy as np
from PIL import BmpImagePlugin, IcoImagePlugin, Image, ImageFile, JpegImagePlugin

from ..common.errors import PincaptionError

# In the order in which they are tried. Left out: formats that start a program (EPS, WMF), that any bytes may
# be taken for (TGA has no signature), and that nobody shows on a page (PSD, DDS, FLI, ...).
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "AVIF", "BMP", "TIFF", "ICO", "JPEG2000", "PPM", "QOI")

MAX_SIDE = 100_000  # pixels; a longer side is no picture, and resizing takes memory in proportion to it
LARGE = 16_000_000  # pixels; pictures above are decoded one at a time
# pixels; the limit for what Pillow decodes in Python, at 2 s a million (BMP with RLE, some PPM, QOI)
SLOW = 4_000_000
# in a large progressive JPEG (ordinary: about 10): each goes over all blocks, however few its bytes
MAX_SCANS = 30

_PNG = b"\x89PNG\r\n\x1a\n"
_large = threading.Lock()
Image.init()  # registers the formats here and now, not in whichever thread comes first
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class ImageError(PincaptionError):
    """The image cannot be had.

    `str(error)` is a short sentence to be counted: no numbers or paths of this image.
    """


def decode(
    data: bytes,
    size: tuple[int, int] | None = None,
    *,
    side: int | None = None,
    max_pixels: int = 100_000_000,
    resample: Image.Resampling = Image.Resampling.BICUBIC,
) -> Image.Image:
    """The picture in `data`: mode RGB, upright by its EXIF orientation, on white where it is transparent.

    Of an animation, the first frame. With `size` (width, height in pixels) it is resized to exactly that,
    aspect ratio not kept, as `upright.resize(size, resample)` would; a JPEG at least four times as large both
    ways is decoded at a half, a quarter or an eighth first, which changes pixels by a few levels at most.
    With `side` (pixels) it is shrunk, its aspect ratio kept, until neither side is longer. Colour profiles
    are ignored. Pictures above `max_pixels` are refused before any pixel is decoded. May be called from many
    threads.

    Raises `ImageError` for everything that is wrong with `data`, whose cause is Pillow's own error.
    """
    try:
        picture, pixels = _open(data, max_pixels)
        if (size or side) and picture.format == "JPEG":
            least = 2 * max(size) if size else side or 0  # both ways, for the picture may lie on its side
            if min(picture.size) >= 2 * least:
                picture.draft(None, (least, least))
                if not picture.info.get("progressive"):  # its coefficients are all kept, drafted or not
                    pixels = picture.width * picture.height
        with _large if pixels > LARGE else contextlib.nullcontext():
            picture.load()
            upright = _to_rgb(picture)
            turn = _TURNS.get(_orientation(picture))
            if turn is not None:
                upright = upright.transpose(turn)
            if size and upright.size != size:
                upright = upright.resize(size, resample)
            elif upright is picture:
                upright = upright.copy()  # without the file and its decoder
            if side:
                upright.thumbnail((side, side), Image.Resampling.LANCZOS)
            upright.info = {}  # nobody downstream is to turn it again
            return upright
    except ImageError:
        raise
    except Exception as error:
        raise ImageError(_reason(error, max_pixels)) from error


def _reason(error: Exception, max_pixels: int) -> str:
    if isinstance(error, MemoryError):
        return "not enough memory to decode the image"
    if isinstance(error, (Image.DecompressionBombError, Image.DecompressionBombWarning)):
        return f"more pixels than the limit of {max_pixels:,}"
    if isinstance(error, EOFError) or re.search(
        "(?i)truncated|buffer overrun|not enough image data|only got", str(error)
    ):
        return "truncated image"
    return "broken image"


def _open(data: bytes, max_pixels: int) -> tuple[ImageFile.ImageFile, int]:
    """The picture, its pixels not yet decoded, and how many it has (or decodes at once, for a tiled TIFF).

    Does what `Image.open` does, less its warning and its limit, which depend on a global and count pixels
    differently, and tells a broken file from one of no known format.
    """
    if not data:
        raise ImageError("image file is empty")
    broken: Exception | None = None
    for name in FORMATS:
        factory, accept = Image.OPEN[name]
        if accept and accept(data[:16]) is not True:
            continue
        try:
            if name == "ICO":  # Pillow decodes an icon on opening it, and believes the sizes in the directory
                entry = IcoImagePlugin.IcoFile(BytesIO(data)).entry[0]
                frame = data[entry.offset :]
                if frame.startswith(_PNG):
                    return _open(frame, max_pixels)
                _checked(BmpImagePlugin.DibImageFile(BytesIO(frame)), frame, max_pixels)
            elif name == "JPEG":
                # the registered factory looks for further pictures (MPO), which are of no use here
                factory = JpegImagePlugin.JpegImageFile
            picture = factory(BytesIO(data), "")
        except (SyntaxError, IndexError, TypeError, struct.error) as error:
            broken = error
            continue
        if name == "PNG":
            _mend_transparency(picture, bits=data[24])
        return picture, _checked(picture, data, max_pixels)
    if broken:
        raise broken
    raise ImageError("not an image, or a format that is not supported")


def _mend_transparency(png: Image.Image, bits: int) -> None:
    """Pillow scales the pixels of a PNG to 8 bits, but not the value that is transparent."""
    value = png.info.get("transparency")
    if png.mode == "L" and isinstance(value, int) and bits < 8:
        png.info["transparency"] = value * 255 // (2**bits - 1)
    elif png.mode == "RGB" and isinstance(value, tuple) and bits == 16:
        png.info["transparency"] = tuple(v >> 8 for v in value)


def _checked(picture: ImageFile.ImageFile, data: bytes, max_pixels: int) -> int:
    """The number of pixels; ImageError when it cannot be decoded within bounds."""
    width, height = picture.size
    pixels = width * height
    tags = getattr(picture, "tag_v2", {})
    if 322 in tags and 323 in tags:
        pixels = max(pixels, tags[322] * tags[323])  # TileWidth, TileLength
    if width < 1 or height < 1:
        raise ImageError("an image without pixels")
    if pixels > max_pixels:
        raise ImageError(f"more pixels than the limit of {max_pixels:,}")
    if max(picture.size) > MAX_SIDE:
        raise ImageError(f"a side longer than the limit of {MAX_SIDE:,} pixels")
    if pixels > SLOW and any(tile.codec_name in Image.DECODERS for tile in picture.tile):
        raise ImageError(f"more pixels than the limit of {SLOW:,} for a format this slow")
    if picture.info.get("progressive"):
        scans = data.count(b"\xff\xda")
        if scans > MAX_SCANS and scans * pixels > MAX_SCANS * LARGE:
            raise ImageError("a progressive JPEG with too many scans")
    return pixels


def _to_rgb(picture: Image.Image) -> Image.Image:
    """Any mode to RGB, on white."""
    transparent = picture.info.get("transparency")
    if picture.mode.startswith(("I", "F")):
        picture = _to_8_bits(picture, transparent)
    elif picture.mode == "RGB":
        if transparent is None:
            return picture
    elif picture.mode == "P" and not isinstance(transparent, (bytes, int)):
        picture.info.pop("transparency", None)
    if not picture.has_transparency_data:
        return picture.convert("RGB")
    picture = picture.convert("RGBA")
    white = Image.new("RGB", picture.size, "white")
    white.paste(picture, mask=picture.getchannel("A"))
    return white


def _to_8_bits(picture: Image.Image, transparent: object = None) -> Image.Image:
    """Grey of 12, 16 or 32 bits or of floating point to L, or to LA where one value is transparent.

    16 bits lose the lower 8, as Pillow does for colour. Integers beyond 16 bits and floating point have no
    agreed range: floats up to 1 and up to 255 are taken to have just that range, everything else is scaled by
    its maximum.
    """
    grey = np.asarray(picture)
    tags = getattr(picture, "tag_v2", {})
    if picture.mode == "F":
        grey = np.nan_to_num(grey, nan=0.0, posinf=0.0, neginf=0.0)
        top = float(grey.max())
        top = 1.0 if top <= 1 else max(255.0, top)
        light = np.rint(np.clip(grey, 0, top) * np.float32(255 / top)).astype(np.uint8)
    elif picture.mode == "I" and int(grey.max()) > 0xFFFF:
        light = (np.maximum(grey, 0) / np.float32(int(grey.max()) / 255)).astype(np.uint8)
    else:
        # BitsPerSample
        light = (np.clip(grey, 0, 0xFFFF) >> (4 if tags.get(258) == (12,) else 8)).astype(np.uint8)
    if tags.get(262) == 0 and picture.mode != "F":  # PhotometricInterpretation: white is zero
        light = 255 - light
    result = Image.fromarray(light)
    if isinstance(transparent, int):
        result.putalpha(Image.fromarray(np.where(grey == transparent, 0, 255).astype(np.uint8)))
    return result


def _orientation(picture: Image.Image) -> int:
    """1 to 8, by EXIF or else XMP; 1 where neither says.

    Read by hand: corrupt EXIF is common, and worth no warning.
    """
    if picture.format == "TIFF":  # Pillow turns these itself
        return 1
    with contextlib.suppress(struct.error, ValueError):
        exif = picture.info.get("exif") or b""
        if raw := picture.info.get("Raw profile type exif"):
            # how ImageMagick kept it before PNG had a place for it
            exif = bytes.fromhex("".join(str(raw).split("\n")[3:]))
        exif = exif.removeprefix(b"Exif\0\0")
        order = {b"II": "<", b"MM": ">"}.get(exif[:2])
        if order:
            (start,) = struct.unpack_from(order + "I", exif, 4)
            (count,) = struct.unpack_from(order + "H", exif, start)
            for i in range(count):
                tag, kind, _, value = struct.unpack_from(order + "HHIH", exif, start + 2 + 12 * i)
                if tag == 0x112 and kind == 3:
                    return int(value)
    xmp = picture.info.get("xmp") or picture.info.get("XML:com.adobe.xmp") or b""
    found = re.search(
        rb'tiff:Orientation(?:="|>)([1-8])', xmp if isinstance(xmp, bytes) else str(xmp).encode()
    )
    return int(found[1]) if found else 1
