"""Images of pins as small JPEGs, for pages that people read."""

from __future__ import annotations

import base64
import hashlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from io import BytesIO

from PIL import Image

from .decode import TRUNCATED, ImageError, decode
from .fetch import Fetcher
from .truncated import completed

THREADS = 8
TIMEOUT = 5  # seconds for an image by URL, as a page waits for it
QUALITIES = (82, 70, 58, 46, 34)  # of JPEG, tried in this order if there is a limit of bytes


@dataclass(frozen=True, slots=True)
class Picture:
    """A small JPEG, upright and without EXIF. `width` and `height` are in pixels."""

    jpeg: bytes
    width: int
    height: int
    image_sha256: str  # of the image that it was made from

    @property
    def uri(self) -> str:
        """The picture as a data: URI, for the `src` of an <img>."""
        return f"data:image/jpeg;base64,{base64.b64encode(self.jpeg).decode()}"


# A function that makes pictures: for each (image, image_sha256) a picture, or the reason why there is none.
Pictures = Callable[[Iterable[tuple[str | None, str | None]]], Iterator[Picture | str]]


def pictures(
    images: Iterable[tuple[str | None, str | None]], side: int, *, max_bytes: int | None = None
) -> Iterator[Picture | str]:
    """For each (image, image_sha256), in order, a picture or the reason why there is none. Raises nothing.

    The longer side of a picture has at most `side` pixels. With `max_bytes`, the quality and then the size
    are lowered until the JPEG is small enough. If a SHA-256 is given and the image's bytes have another one,
    there is no picture: the image has changed since it was captioned.

    `images` is read only a few ahead of the pictures that are taken.
    """
    fetcher = Fetcher(timeout=TIMEOUT)
    waiting: deque[Future[Picture | str]] = deque()
    with ThreadPoolExecutor(THREADS) as threads:
        for image, image_sha256 in images:
            waiting.append(threads.submit(_picture, fetcher, image, image_sha256, side, max_bytes))
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
            return "the image has changed since it was captioned"
        picture = _decoded(data, side)
    except ImageError as error:
        return str(error)
    except BaseException as error:
        # Some libraries raise what is no Exception, such as a panic of Rust code. One image must not cost
        # the whole page.
        return f"cannot be read ({type(error).__name__})"
    jpeg = _jpeg(picture, max_bytes)
    while max_bytes and len(jpeg) > max_bytes:
        side = side * 3 // 4
        picture.thumbnail((side, side), Image.Resampling.LANCZOS)
        jpeg = _jpeg(picture, max_bytes)
    return Picture(jpeg, *picture.size, digest)


def _decoded(data: bytes, side: int) -> Image.Image:
    """The picture; of one that ends early what is there, since its caption may have been made from that."""
    try:
        return decode(data, side=side)
    except ImageError as error:
        with_end = completed(data) if str(error) == TRUNCATED else None
        if with_end is None:
            raise
        return decode(with_end, side=side)


def _jpeg(picture: Image.Image, max_bytes: int | None) -> bytes:
    """The picture in the best quality that has at most `max_bytes`; in the lowest if none has."""
    for quality in QUALITIES:
        file = BytesIO()
        picture.save(file, "JPEG", quality=quality, optimize=True)
        if not max_bytes or file.tell() <= max_bytes:
            break
    return file.getvalue()
