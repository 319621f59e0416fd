"""Pins' images as small JPEGs for pages that people look at."""

from __future__ import annotations

import base64
import hashlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from io import BytesIO

from PIL import Image

from .decode import ImageError, decode
from .fetch import Fetcher

THREADS = 8
QUALITIES = (82, 70, 58, 46, 34)  # of JPEG, tried in turn where a limit of bytes is given


def pictures(
    images: Iterable[tuple[str | None, str | None]], side: int, *, max_bytes: int | None = None
) -> Iterator[Picture | str]:
    """A picture for each (image, image_sha256), in order, or the reason why there is none; never an error.

    The longer side has at most `side` pixels; quality and then size are lowered until a picture has at most
    `max_bytes`. An image whose bytes are not those of the SHA-256, where one is given, is not shown: it is
    another one than was captioned. `images` is read a few ahead.
    """
    fetcher = Fetcher(timeout=5)
    waiting: deque[Future[Picture | str]] = deque()
    with ThreadPoolExecutor(THREADS) as threads:
        for image, digest in images:
            waiting.append(threads.submit(_picture, fetcher, image, digest, side, max_bytes))
            if len(waiting) > 4 * THREADS:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def _picture(
    fetcher: Fetcher, image: str | None, image_sha256: str | None, side: int, max_bytes: int | None
) -> Picture | str:
    try:
        data = fetcher.fetch(image)
        digest = hashlib.sha256(data).hexdigest()
        if image_sha256 and digest != image_sha256:
            return "the image is another one now than was captioned"
        picture = decode(data, side=side)
    except ImageError as error:
        return str(error)
    except BaseException as error:
        # whatever an image does to a library, a panic of its Rust part too, the page is written
        return f"cannot be read ({type(error).__name__})"
    jpeg = _jpeg(picture, max_bytes)
    while max_bytes and len(jpeg) > max_bytes:
        side = side * 3 // 4
        picture.thumbnail((side, side), Image.Resampling.LANCZOS)
        jpeg = _jpeg(picture, max_bytes)
    return Picture(jpeg, *picture.size, digest)


def _jpeg(picture: Image.Image, max_bytes: int | None) -> bytes:
    """The picture in the best quality that fits, or in the lowest."""
    for quality in QUALITIES:
        file = BytesIO()
        picture.save(file, "JPEG", quality=quality, optimize=True)
        if not max_bytes or file.tell() <= max_bytes:
            break
    return file.getvalue()


@dataclass(frozen=True, slots=True)
class Picture:
    """A small JPEG to show, upright and without EXIF; `width` and `height` in pixels, and the SHA-256 of the
    image that it was made of.
    """

    jpeg: bytes
    width: int
    height: int
    image_sha256: str

    @property
    def uri(self) -> str:
        return f"data:image/jpeg;base64,{base64.b64encode(self.jpeg).decode()}"


# (image, image_sha256) -> a picture, or why there is none
Pictures = Callable[[Iterable[tuple[str | None, str | None]]], Iterator[Picture | str]]
