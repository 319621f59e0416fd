"""The worker: an iterator of pins goes in, rows with captions come out.

Threads fetch and decode pictures ahead of the model, a bounded number at a time. The model gets full batches
of one shape. The worker knows nothing of stores or clusters: `captioner run`, `caption` for pictures without
a store, and a cluster can all use it.
"""

from __future__ import annotations

import functools
import hashlib
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace

import numpy as np
from PIL import Image

from ..images.decode import TRUNCATED, ImageError, decode
from ..images.fetch import Fetcher
from ..images.truncated import completed
from ..store.work import Caption, Pin
from . import checks
from .batch_size import MAX_BATCH, BatchSize
from .checkpoint import CheckpointError
from .model import CaptionModel, Decoding, Text, free_unused_memory, out_of_memory
from .readers import CaptionKey, PictureReaders, ReadPicture

MAX_PIXELS = 100_000_000  # of a picture; larger ones are refused
SECONDS_PER_IMAGE = 120  # how long it may take to fetch and decode a picture
MAX_REMEMBERED = 10_000  # images whose caption the worker itself remembers

# (image_sha256, recipe_id) -> a caption that this image has already with this recipe
FindCaption = Callable[[str, str], Caption | None]


def no_caption(image_sha256: str, recipe_id: str) -> Caption | None:
    """The `FindCaption` of a worker without a store: no picture has a caption yet."""
    return None


class Worker:
    """Captions pins with one model.

    A `batch_size` of None grows the batch as long as that makes the model faster. In any case a batch is
    halved when memory runs out. `threads` fetch and decode pictures; the default is one per core, between 2
    and 16. `max_pixels` and `seconds_per_image` limit what a picture may cost. `find_caption` may return a
    caption that an image has already, so that it is not captioned again. With `accept_truncated`, a JPEG or
    PNG that ends early is captioned from what is there, and its row says so. Set the event `stop` to end
    after the current batch.

    Raises CheckpointError if the model has no room for captions of the longest length.
    """

    def __init__(
        self,
        model: CaptionModel,
        decoding: Decoding | None = None,
        *,
        batch_size: int | None = None,
        threads: int | None = None,
        fetcher: Fetcher | None = None,
        max_pixels: int = MAX_PIXELS,
        seconds_per_image: float = SECONDS_PER_IMAGE,
        find_caption: FindCaption = no_caption,
        accept_truncated: bool = False,
    ):
        self.model, self.decoding = model, decoding or Decoding()
        self.fetcher = fetcher or Fetcher()
        self.max_pixels, self.seconds_per_image = max_pixels, seconds_per_image
        self.find_caption, self.accept_truncated = find_caption, accept_truncated
        largest = MAX_BATCH["cuda" if model.device.startswith("cuda") else "cpu"]
        self.batch_size = BatchSize(batch_size, largest)
        self.threads = threads or max(2, min(16, os.cpu_count() or 2))
        self.stop = threading.Event()
        self._remembered: dict[CaptionKey, Caption] = {}
        if not model.prompt_fits("", self.decoding):
            raise CheckpointError(
                f"{model.name} has no room for captions of {self.decoding.max_new_tokens} new tokens: choose "
                "a smaller maximum"
            )

    def __call__(self, pins: Iterable[Pin]) -> Iterator[Caption]:
        """Yields one row for every pin, in no particular order.

        A pin that cannot be captioned gets a row with the status `failed` and a reason.
        """
        for captions in self.batches(pins):
            yield from captions

    def batches(self, pins: Iterable[Pin]) -> Iterator[list[Caption]]:
        """Like calling the worker, but yields the finished rows of each batch as one list.

        `pins` is read lazily, a little over two batches ahead. If the iterator is closed early, the rows that
        it has not yielded yet are lost.
        """
        source, more = iter(pins), True
        readers = PictureReaders(self._read, self.threads, self.seconds_per_image)
        rows: list[Caption] = []  # finished without the model
        ready: dict[CaptionKey, ReadPicture] = {}  # waiting for the model
        duplicates: list[tuple[CaptionKey, Pin]] = []  # pins whose picture and prompt are in `ready` already
        try:
            while not self.stop.is_set():
                size = self.batch_size.current
                while (
                    more
                    and readers.unfinished < 2 * size + self.threads
                    and len(rows) < size
                    and not self.stop.is_set()
                ):
                    if (pin := next(source, None)) is None:
                        more = False
                    elif pin.image_sha256 and (caption := self._shared(pin, pin.image_sha256)):
                        rows.append(caption)
                    else:
                        readers.submit(pin)
                if len(rows) >= size:
                    yield rows
                    rows = []
                elif not readers.unfinished:
                    break
                elif picture := readers.next():
                    if picture.reason is not None:
                        rows.append(_failed(picture))
                    elif caption := self._shared(picture.pin, picture.key[0]):
                        rows.append(caption)
                    elif picture.key in ready:
                        duplicates.append((picture.key, picture.pin))
                    else:
                        ready[picture.key] = picture
                    if len(ready) >= size or len(duplicates) >= 4 * size:
                        yield rows + self._caption(ready, duplicates)
                        rows, ready, duplicates = [], {}, []
            if rows or ready:
                yield rows + self._caption(ready, duplicates)
        finally:
            readers.close()

    def _shared(self, pin: Pin, image_sha256: str) -> Caption | None:
        """The caption of another pin with the same image, recipe and prompt, as a row of `pin`, or None."""
        caption = self._remembered.get((image_sha256, pin.recipe_id, pin.prompt)) or self.find_caption(
            image_sha256, pin.recipe_id
        )
        return replace(caption, pin_id=pin.pin_id, shared=True) if caption else None

    def _read(self, pin: Pin) -> ReadPicture:
        """Reads the image of a pin and decodes it to the size that the model wants. Runs in the threads."""
        digest = None
        try:
            if not self.model.prompt_fits(pin.prompt, self.decoding):
                return ReadPicture(pin, reason="the prompt is too long for the model")
            data = self.fetcher.fetch(pin.image)
            digest = hashlib.sha256(data).hexdigest()
            # The address of an image in a Parquet file is a row number. It may be another image now.
            in_parquet = (pin.image or "").startswith("parquet://")
            if in_parquet and pin.image_sha256 and pin.image_sha256 != digest:
                return ReadPicture(
                    pin, reason="the Parquet file was rewritten since it was ingested: ingest it again"
                )
            picture, truncated = self._decode(data)
            return ReadPicture(pin, digest, pixels=np.asarray(picture), truncated=truncated)
        except ImageError as error:
            return ReadPicture(pin, digest, reason=str(error))
        except BaseException as error:
            # An image may make a library fail in any way, for instance with a panic of its Rust part, which
            # is no Exception. The run must continue.
            return ReadPicture(pin, digest, reason=f"cannot be read ({type(error).__name__})")

    def _decode(self, data: bytes) -> tuple[Image.Image, bool]:
        """The picture in the size that the model wants, and whether the image ends early."""
        decoded = functools.partial(
            decode,
            size=self.model.picture_size,
            max_pixels=self.max_pixels,
            resample=self.model.resample,
        )
        try:
            return decoded(data), False
        except ImageError as error:
            if not self.accept_truncated or str(error) != TRUNCATED:
                raise
            with_end = completed(data)
            if with_end is None:
                raise
            return decoded(with_end), True

    def _caption(
        self, ready: dict[CaptionKey, ReadPicture], duplicates: list[tuple[CaptionKey, Pin]]
    ) -> list[Caption]:
        """Rows for the pictures in `ready`, and for the pins that share one of them."""
        pictures, captions = list(ready.values()), dict[CaptionKey, Caption]()
        for picture, text in zip(pictures, self._texts(pictures), strict=True):
            pin = picture.pin
            caption, reason = checks.check(text.text, pin.prompt, text.finished)
            captions[picture.key] = Caption(
                pin_id=pin.pin_id,
                recipe_id=pin.recipe_id,
                status="rejected" if reason else "ok",
                text=caption,
                reason=reason,
                image_sha256=picture.image_sha256,
                truncated=picture.truncated,
            )
        self._remembered |= captions
        while len(self._remembered) > MAX_REMEMBERED:
            self._remembered.pop(next(iter(self._remembered)))
        shared = [replace(captions[key], pin_id=pin.pin_id, shared=True) for key, pin in duplicates]
        return [*captions.values(), *shared]

    def _texts(self, pictures: list[ReadPicture]) -> list[Text]:
        """What the model writes about these pictures, in smaller batches if they do not fit into memory."""
        texts: list[Text] = []
        while part := pictures[len(texts) :][: self.batch_size.current]:
            began = time.perf_counter()
            try:
                texts += self.model.caption(
                    [picture.pixels for picture in part if picture.pixels is not None],
                    [picture.pin.prompt for picture in part],
                    self.decoding,
                )
                self.batch_size.record(len(part), time.perf_counter() - began)
                continue
            except (RuntimeError, MemoryError) as error:
                if not out_of_memory(error):
                    raise
            # Outside of the except clause, because the traceback of the error keeps the tensors alive.
            self.batch_size.shrink(len(part))
            free_unused_memory(self.model.device)
        return texts


def _failed(picture: ReadPicture) -> Caption:
    return Caption(
        pin_id=picture.pin.pin_id,
        recipe_id=picture.pin.recipe_id,
        status="failed",
        reason=picture.reason,
        image_sha256=picture.image_sha256,
    )
