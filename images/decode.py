"""Decodes the bytes of an image to an upright RGB picture, or raises an `ImageError` that says why not.

Pillow does the decoding. This file decides which formats are read, how large a picture may be, which way is
up, and that transparent parts become white. The bytes come from strangers: whatever they say, memory and time
stay within limits.
"""

from __future__ import annotations

import contextlib
import functools
import re
import struct
import threading
from io import BytesIO

import numpy as np
from PIL import BmpImagePlugin, IcoImagePlugin, Image, ImageFile, JpegImagePlugin

from ..common.errors import PincaptionError

# In the order in which they are tried. Not among them: formats for which Pillow starts a program (EPS, WMF),
# formats without a signature, for which any bytes could be taken (TGA), and formats that no web page shows
# (PSD, DDS, FLI, ...).
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "AVIF", "BMP", "TIFF", "ICO", "JPEG2000", "PPM", "QOI")
# The kinds of HEIC by the name in the bytes 8 to 12. "mif1" and "msf1" may be AVIF too, which is tried first.
_HEIC = (b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"hevm", b"hevs", b"mif1", b"msf1")
TRUNCATED = "truncated image"  # the reason for an image whose bytes end early

# Part of every recipe. Raise it with any change to this file that gives a picture other pixels: then its
# captions may differ too, and must not count as captions of the same recipe.
DECODER_VERSION = 1

MAX_SIDE = 100_000  # pixels; resizing takes memory in proportion to the longer side
LARGE = 16_000_000  # pixels; larger pictures are decoded one at a time, to save memory
# Pixels. Pillow decodes some formats in Python (QOI, BMP with RLE, some PPM), at 2 seconds a million pixels.
MAX_SLOW_PIXELS = 4_000_000
# Of a large progressive JPEG; about 10 are usual. Each scan goes over all blocks, even if it has few bytes.
MAX_SCANS = 30

_PNG = b"\x89PNG\r\n\x1a\n"
_large_lock = threading.Lock()
Image.init()  # registers the formats now; else two threads might do it at the same time
# EXIF orientation -> what makes the picture upright
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
    """An image cannot be fetched or decoded.

    The message names no path and no number of this image, so that equal reasons can be counted.
    """


def decode(
    data: bytes,
    size: tuple[int, int] | None = None,
    *,
    side: int | None = None,
    max_pixels: int = 100_000_000,
    resample: Image.Resampling = Image.Resampling.BICUBIC,
) -> Image.Image:
    """The picture in `data`: mode RGB, upright by its EXIF orientation, white where it is transparent.

    Of an animation it is the first frame. Colour profiles are ignored. Can be called from many threads.

    With `size` (width and height in pixels) the picture is resized to exactly that, as
    `upright.resize(size, resample)` does; the aspect ratio is not kept. A JPEG whose sides are at least four
    times as long is first decoded at a half, a quarter or an eighth, which is faster and changes pixels by a
    few levels at most. With `side` (pixels) the picture is shrunk until neither side is longer; the aspect
    ratio is kept. Pictures of more than `max_pixels` are refused before a pixel is decoded.

    Raises `ImageError` for everything that is wrong with `data`; its cause is Pillow's own error.
    """
    try:
        picture, pixels = _open(data, max_pixels)
        if (size or side) and picture.format == "JPEG":
            # The same for both sides, because the picture may lie on its side.
            least = 2 * max(size) if size else side or 0
            if min(picture.size) >= 2 * least:
                picture.draft(None, (least, least))
                # A progressive JPEG keeps all its coefficients in memory, at any size.
                if not picture.info.get("progressive"):
                    pixels = picture.width * picture.height
        with _large_lock if pixels > LARGE else contextlib.nullcontext():
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
            upright.info = {}  # without the orientation, or somebody would turn the picture again
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
        return TRUNCATED
    return "broken image"


def _open(data: bytes, max_pixels: int) -> tuple[ImageFile.ImageFile, int]:
    """The picture before its pixels are decoded, and how many pixels that will be.

    This is `Image.open` without its warning and its limit: these depend on a global variable and count pixels
    in another way. It also distinguishes a broken file from a file of no known format.
    """
    if not data:
        raise ImageError("image file is empty")
    broken: Exception | None = None
    is_heic = data[4:8] == b"ftyp" and data[8:12] in _HEIC
    for name in (*FORMATS, "HEIF") if is_heic and _reads_heic() else FORMATS:
        factory, accept = Image.OPEN[name]
        if accept and accept(data[:16]) is not True:
            continue
        try:
            if name == "ICO":
                # Pillow decodes an icon when it opens it, and trusts the sizes that the directory of icons
                # gives. So the first icon is checked by itself.
                entry = IcoImagePlugin.IcoFile(BytesIO(data)).entry[0]
                frame = data[entry.offset :]
                if frame.startswith(_PNG):
                    return _open(frame, max_pixels)
                _checked(BmpImagePlugin.DibImageFile(BytesIO(frame)), frame, max_pixels)
            elif name == "JPEG":
                # The registered factory also looks for further pictures in the file (MPO).
                factory = JpegImagePlugin.JpegImageFile
            picture = factory(BytesIO(data), "")
        except (SyntaxError, IndexError, TypeError, struct.error) as error:
            broken = error
            continue
        if name == "PNG":
            _scale_transparency(picture, bits=data[24])
        return picture, _checked(picture, data, max_pixels)
    if is_heic and not _reads_heic():
        raise ImageError("HEIC images need: pip install 'pincaption[heic]'")
    if broken:
        raise broken
    raise ImageError("not an image, or a format that is not supported")


@functools.cache
def _reads_heic() -> bool:
    """Whether pillow-heif is there, which adds HEIF to Pillow's formats. Imported at the first such image."""
    try:
        import pillow_heif
    except ImportError:
        return False
    pillow_heif.register_heif_opener()
    return True


def _scale_transparency(png: Image.Image, bits: int) -> None:
    """Scales the value that is transparent in a PNG to 8 bits. Pillow does that for the pixels alone."""
    value = png.info.get("transparency")
    if png.mode == "L" and isinstance(value, int) and bits < 8:
        png.info["transparency"] = value * 255 // (2**bits - 1)
    elif png.mode == "RGB" and isinstance(value, tuple) and bits == 16:
        png.info["transparency"] = tuple(v >> 8 for v in value)


def _checked(picture: ImageFile.ImageFile, data: bytes, max_pixels: int) -> int:
    """The number of pixels to decode; of a tiled TIFF at least those of one tile.

    Raises ImageError if decoding would take too much memory or time.
    """
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
    if pixels > MAX_SLOW_PIXELS and any(tile.codec_name in Image.DECODERS for tile in picture.tile):
        raise ImageError(f"more pixels than the limit of {MAX_SLOW_PIXELS:,} for a format this slow")
    if picture.info.get("progressive"):
        scans = data.count(b"\xff\xda")
        if scans > MAX_SCANS and scans * pixels > MAX_SCANS * LARGE:
            raise ImageError("a progressive JPEG with too many scans")
    return pixels


def _to_rgb(picture: Image.Image) -> Image.Image:
    """A picture of any mode as RGB, on white where it is transparent."""
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
    """Grey of 12, 16 or 32 bits or of floating point as mode L; as LA if one value is transparent.

    Of 16 bits the upper 8 are kept, as Pillow does for colour. Integers of more than 16 bits and floating
    point have no agreed range. Floats of at most 1 are taken to have the range 0 to 1, floats of at most 255
    the range 0 to 255; everything else is scaled by its maximum.
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
        # tag 258: BitsPerSample
        light = (np.clip(grey, 0, 0xFFFF) >> (4 if tags.get(258) == (12,) else 8)).astype(np.uint8)
    if tags.get(262) == 0 and picture.mode != "F":  # tag 262, PhotometricInterpretation: zero is white
        light = 255 - light
    result = Image.fromarray(light)
    if isinstance(transparent, int):
        result.putalpha(Image.fromarray(np.where(grey == transparent, 0, 255).astype(np.uint8)))
    return result


def _orientation(picture: Image.Image) -> int:
    """The orientation by EXIF, else by XMP, as EXIF numbers it (1 to 8); 1, upright, if neither has one.

    EXIF is parsed here and not by Pillow, which warns about corrupt EXIF. That is too common for a warning.
    """
    if picture.format == "TIFF":  # Pillow turns these by itself
        return 1
    with contextlib.suppress(struct.error, ValueError):
        exif = picture.info.get("exif") or b""
        if raw := picture.info.get("Raw profile type exif"):
            # where ImageMagick put EXIF before PNG had a chunk for it
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
    xmp = xmp if isinstance(xmp, bytes) else str(xmp).encode()
    orientation = re.search(rb'tiff:Orientation(?:="|>)([1-8])', xmp)
    return int(orientation[1]) if orientation else 1
