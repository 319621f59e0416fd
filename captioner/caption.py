"""Captions for pictures without a store: files, addresses, bytes, images of Pillow or numpy arrays."""

from __future__ import annotations

import re
import secrets
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from io import BytesIO
from os import PathLike
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import Image, ImageOps

from ..images.decode import ImageError
from ..images.fetch import Fetcher
from ..store.work import Pin
from .find import find_checkpoint
from .model import Decoding
from .plan import Plan
from .worker import MAX_PIXELS, SECONDS_PER_IMAGE, Worker

# A path or an address (http, https, s3, gs, ...), the bytes of an image file, or pixels.
Picture = str | PathLike[str] | bytes | Image.Image | np.ndarray
_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:")
# The modes of Pillow that its PNG and its TIFF can hold. Pictures in other modes are converted first.
_PNG_MODES = {"1", "L", "LA", "I;16", "P", "RGB", "RGBA"}
_TIFF_MODES = {"I", "F"}


@dataclass(frozen=True, slots=True)
class PictureCaption:
    """The caption of one picture.

    `status` is "ok", "rejected" (the model wrote something that must not be used; it is kept in
    `rejected_text`) or "failed" (the picture could not be read). `text` is the caption if the status is
    "ok", `reason` says in a few words why there is none.
    """

    status: Literal["ok", "rejected", "failed"]
    text: str | None = None
    reason: str | None = None
    rejected_text: str | None = None


def caption(
    pictures: Iterable[Picture],
    *,
    model: str,
    revision: str | None = None,
    prompt: str = "",
    decoding: Decoding | None = None,
    device: str = "auto",
    dtype: str = "auto",
    batch_size: int | None = None,
    threads: int | None = None,
    max_pixels: int = MAX_PIXELS,
    seconds_per_image: float = SECONDS_PER_IMAGE,
) -> Iterator[PictureCaption]:
    """Captions pictures, and yields one `PictureCaption` for each of them, in the order given.

    `pictures` may mix paths, addresses, the bytes of image files, images of Pillow, and numpy arrays (uint8,
    [height, width] or [height, width, channels] with 3 channels for RGB or 4 for RGBA). They are read lazily,
    a few batches ahead. A picture that cannot be captioned never stops the others: its result has a reason.

    `model` is "builtin", a folder, or a name on the Hugging Face hub (at `revision`). The text continues
    `prompt`. `dtype` and `device` "auto" suit the machine; `batch_size` None finds a good size. The captions
    are checked and cleaned as those of `captioner run` are.

    Raises, when it is called, CheckpointError if the model cannot be used and MemoryError if it does not fit
    into memory. The iterator raises MemoryError if not even one picture fits.

        for path, result in zip(paths, caption(paths, model="builtin")):
            print(path, result.text or result.reason)
    """
    plan = Plan(
        find_checkpoint(model, revision),
        prompt=prompt,
        decoding=decoding or Decoding(),
        device=device,
        dtype=dtype,
        batch_size=batch_size,
        threads=threads,
        max_pixels=max_pixels,
        seconds_per_image=seconds_per_image,
    )
    fetcher = _GivenPictures()
    return _in_order(plan.worker(fetcher=fetcher), fetcher, pictures, prompt)


def _in_order(
    worker: Worker, fetcher: _GivenPictures, pictures: Iterable[Picture], prompt: str
) -> Iterator[PictureCaption]:
    """The worker yields rows as they get ready. Here they wait until those before them were yielded."""
    pins = (Pin(str(i), fetcher.address(i, picture), prompt) for i, picture in enumerate(pictures))
    waiting: dict[int, PictureCaption] = {}
    next_index = 0
    for row in worker(pins):
        is_ok = row.status == "ok"
        waiting[int(row.pin_id)] = PictureCaption(
            status=row.status,
            text=row.text if is_ok else None,
            reason=row.reason,
            rejected_text=None if is_ok else row.text,
        )
        while next_index in waiting:
            yield waiting.pop(next_index)
            next_index += 1


class _GivenPictures(Fetcher):
    """Fetches pictures by path or address, and those given as bytes or pixels by an address made up here."""

    def __init__(self) -> None:
        super().__init__()
        self._in_memory = f"memory:{secrets.token_hex(8)}:"  # no address of a caller begins like this
        self._given: dict[str, Any] = {}
        self._lock = threading.Lock()

    def address(self, index: int, picture: Picture) -> str:
        """What `fetch` finds the picture by. A relative path is one in the current folder."""
        if isinstance(picture, str) and _ADDRESS.match(picture):
            return picture
        if isinstance(picture, (str, PathLike)):
            return str(Path(picture).absolute())
        with self._lock:
            self._given[f"{self._in_memory}{index}"] = picture
        return f"{self._in_memory}{index}"

    def fetch(self, image: str | None) -> bytes:
        if not image or not image.startswith(self._in_memory):
            return super().fetch(image)
        with self._lock:
            picture = self._given.pop(image)
        if isinstance(picture, (bytes, bytearray, memoryview)):
            return bytes(picture)
        if isinstance(picture, np.ndarray):
            picture = _from_array(picture)
        if isinstance(picture, Image.Image):
            return _as_file(picture)
        raise ImageError("neither a path, an address, bytes, an image of Pillow nor a numpy array")


def _from_array(array: np.ndarray) -> Image.Image:
    if array.dtype != np.uint8 or not (array.ndim == 2 or (array.ndim == 3 and array.shape[2] in (3, 4))):
        raise ImageError(
            "an array that is not uint8 with the shape [height, width] or [height, width, 3 or 4]"
        )
    if not array.size:
        raise ImageError("an image without pixels")
    return Image.fromarray(array)


def _as_file(picture: Image.Image) -> bytes:
    """The picture as the bytes of an image file, without loss, so that it is decoded as any other file is."""
    picture = ImageOps.exif_transpose(picture)
    if picture.mode == "La":  # grey with premultiplied alpha; Pillow converts it to LA only
        picture = picture.convert("LA")
    if picture.mode not in _PNG_MODES | _TIFF_MODES:
        picture = picture.convert("RGBA" if picture.has_transparency_data else "RGB")
    file = BytesIO()
    if picture.mode in _TIFF_MODES:
        picture.save(file, "TIFF")
    else:
        picture.save(file, "PNG", compress_level=1)
    return file.getvalue()
