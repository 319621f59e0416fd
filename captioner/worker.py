"""The worker: an iterator of pins goes in, rows with captions come out.

Threads fetch and decode pictures ahead of the model, a bounded number at a time. The model gets full batches
of one shape. The worker knows nothing of stores or clusters: `captioner run`, `caption` for pictures without
a store, and a cluster can all use it.
"""

from __future__ import annotations

import functools
import hashlib
import itertools
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

import numpy as np
from PIL import Image

from ..images.decode import TRUNCATED, ImageError, decode
from ..images.fetch import Fetcher
from ..images.truncated import completed
from ..store.work import Caption, Pin
from . import checks
from .batch_size import FIRST_BATCH, MAX_BATCH, BatchSize
from .checkpoint import CheckpointError
from .model import Begun, CaptionModel, Decoding, Text, free_unused_memory, out_of_memory
from .readers import CaptionKey, PictureReaders, ReadPicture

MAX_PIXELS = 100_000_000  # of a picture; larger ones are refused
SECONDS_PER_IMAGE = 120  # how long it may take to fetch and decode a picture
DECODERS = 8  # threads that decode at a time; more of them keep the interpreter from the model
TURN_SECONDS = 5  # how long a thread waits for its turn to decode; others may hang
MAX_REMEMBERED = 10_000  # images whose caption the worker itself remembers

Key = tuple[str, str]  # SHA-256 of the image, recipe_id
# The captions that these images have already with these recipes
FindCaptions = Callable[[Sequence[Key]], dict[Key, Caption]]


def no_captions(keys: Sequence[Key]) -> dict[Key, Caption]:
    """The `FindCaptions` of a worker without a store: no picture has a caption yet."""
    return {}


@dataclass
class _Batch:
    """Pictures for the model, and what it has begun with them; None if its memory had no room for all."""

    pictures: list[ReadPicture]
    began: float  # time.perf_counter()
    begun: Begun | None = None


class Worker:
    """Captions pins with one model.

    A `batch_size` of None grows the batch as long as that makes the model faster. In any case a batch is
    halved when memory runs out. `threads` fetch and decode pictures; the default is one per core, between 2
    and 16. `max_pixels` and `seconds_per_image` limit what a picture may cost. `find_captions` may return
    captions that images have already, so that they are not captioned again. With `accept_truncated`, a JPEG
    or PNG that ends early is captioned from what is there, and its row says so. Set the event `stop` to end
    after the batches that the model has begun.

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
        find_captions: FindCaptions = no_captions,
        accept_truncated: bool = False,
    ):
        self.model, self.decoding = model, decoding or Decoding()
        self.fetcher = fetcher or Fetcher()
        self.max_pixels, self.seconds_per_image = max_pixels, seconds_per_image
        self.find_captions, self.accept_truncated = find_captions, accept_truncated
        kind = "cuda" if model.device.startswith("cuda") else "cpu"
        self.batch_size = BatchSize(batch_size, MAX_BATCH[kind], FIRST_BATCH[kind])
        self.threads = threads or max(2, min(16, os.cpu_count() or 2))
        self.stop = threading.Event()
        self._decoders = threading.BoundedSemaphore(DECODERS)
        self._remembered: dict[CaptionKey, Caption] = {}
        self._ended = 0.0  # when the last batch ended, by time.perf_counter()
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

        `pins` is read lazily, a few batches ahead. If the iterator is closed early, the rows that it has not
        yielded yet are lost.
        """
        flow = _Flow(self, iter(pins))
        try:
            while not self.stop.is_set() and flow.read():
                if flow.is_full:
                    flow.caption()
                    if flow.rows:
                        yield flow.take_rows()
                elif len(flow.rows) >= self.batch_size.current:
                    yield flow.take_rows()
            while flow.ready or flow.begun:
                flow.caption()
                if flow.rows:
                    yield flow.take_rows()
            if flow.rows:
                yield flow.rows
        finally:
            flow.readers.close()

    def known(self, pictures: Sequence[tuple[str | None, Pin]]) -> dict[str, Caption]:
        """{pin_id: row} of the pins whose image has a caption already; takes (SHA-256 of the image, pin)."""
        found: dict[str, Caption] = {}
        others: list[tuple[Key, Pin]] = []
        for digest, pin in pictures:
            if not digest:
                continue
            if caption := self._remembered.get((digest, pin.recipe_id, pin.prompt)):
                found[pin.pin_id] = caption
            else:
                others.append(((digest, pin.recipe_id), pin))
        stored = self.find_captions(sorted({key for key, _ in others})) if others else {}
        found |= {pin.pin_id: stored[key] for key, pin in others if key in stored}
        return {pin_id: replace(caption, pin_id=pin_id, shared=True) for pin_id, caption in found.items()}

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
            turn = self._decoders.acquire(timeout=TURN_SECONDS)
            try:
                picture, truncated = self._decode(data)
            finally:
                if turn:
                    self._decoders.release()
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

    def _rows(self, pictures: Sequence[ReadPicture], texts: Sequence[Text]) -> dict[CaptionKey, Caption]:
        rows = dict[CaptionKey, Caption]()
        for picture, text in zip(pictures, texts, strict=True):
            if text.reason:
                rows[picture.key] = _failed(replace(picture, reason=text.reason))
                continue
            pin = picture.pin
            caption, reason = checks.check(text.text, pin.prompt, text.finished)
            rows[picture.key] = self._remembered[picture.key] = Caption(
                pin_id=pin.pin_id,
                recipe_id=pin.recipe_id,
                status="rejected" if reason else "ok",
                text=caption,
                reason=reason,
                image_sha256=picture.image_sha256,
                truncated=picture.truncated,
            )
        while len(self._remembered) > MAX_REMEMBERED:
            self._remembered.pop(next(iter(self._remembered)))
        return rows

    def begin(self, pictures: list[ReadPicture]) -> _Batch:
        """Gives pictures to the model."""
        began = time.perf_counter()
        try:
            return _Batch(pictures, began, self.model.begin(*_inputs(pictures), self.decoding))
        except (RuntimeError, MemoryError) as error:
            if not out_of_memory(error):
                raise
        return _Batch(pictures, began)

    def end(self, batch: _Batch, following: _Batch | None) -> dict[CaptionKey, Caption]:
        """A row for each picture of a batch, by its key. The texts of `following` are started before."""
        texts = self._texts(batch)
        if following and following.begun:
            # The device writes them while the rows are made and stored.
            with suppress(RuntimeError, MemoryError):  # raised again when they are taken
                following.begun.start()
        return self._rows(batch.pictures, texts)

    def _texts(self, batch: _Batch) -> list[Text]:
        """What the model writes about a batch, in smaller batches if it does not fit into memory."""
        try:
            if batch.begun:
                texts = batch.begun.texts()
                now = time.perf_counter()
                self.batch_size.record(len(texts), now - max(batch.began, self._ended))
                self._ended = now
                return texts
        except (RuntimeError, MemoryError) as error:
            if not out_of_memory(error):
                raise
        # Outside of the except clause, because the traceback of the error keeps the tensors alive.
        batch.begun = None
        self._shrink(len(batch.pictures))
        return self._in_smaller_batches(batch.pictures)

    def _shrink(self, n: int) -> None:
        self.batch_size.shrink(n)
        free_unused_memory(self.model.device)

    def _in_smaller_batches(self, pictures: list[ReadPicture]) -> list[Text]:
        """What the model writes about these pictures, for which memory ran out."""
        texts: list[Text] = []
        while part := pictures[len(texts) :][: self.batch_size.current]:
            try:
                texts += self.model.caption(*_inputs(part), self.decoding)
                continue
            except (RuntimeError, MemoryError) as error:
                if not out_of_memory(error):
                    raise
            self._shrink(len(part))
        return texts


class _Flow:
    """One call of a worker, and where its pins are: being read, ready for the model, in it, or finished.

    The pictures of `begun` batches are in the model. While it works on them, the next ones are read, and the
    rows of the batch before are made and stored.
    """

    def __init__(self, worker: Worker, pins: Iterator[Pin]):
        self.worker, self.pins, self.more = worker, pins, True
        self.readers = PictureReaders(worker._read, worker.threads, worker.seconds_per_image)
        self.rows: list[Caption] = []
        self.ready: dict[CaptionKey, ReadPicture] = {}
        self.begun: deque[_Batch] = deque()
        # Other pins with the picture and the prompt of one that is ready or begun, by its key.
        self.sharing: dict[CaptionKey, list[Pin]] = {}
        self.n_sharing = 0

    @property
    def is_full(self) -> bool:
        """Whether there is enough for a batch, or too much that waits for one."""
        size = self.worker.batch_size.current
        return len(self.ready) >= size or self.n_sharing >= 4 * size

    def take_rows(self) -> list[Caption]:
        """The finished rows, which are no longer kept here."""
        rows, self.rows = self.rows, []
        return rows

    def read(self) -> bool:
        """Lets the threads read ahead, and sorts what they have read. False: everything has been read."""
        size = self.worker.batch_size.current
        ahead = (2 + self.worker.model.ahead) * size + self.worker.threads
        while self.more and len(self.rows) < size and not self.worker.stop.is_set():
            if (room := ahead - self.readers.unfinished) <= 0:
                break
            self._submit(list(itertools.islice(self.pins, min(room, size))))
        if len(self.rows) >= size:
            return True
        if not self.readers.unfinished:
            return False
        self._sort(self.readers.ready(max(1, size - len(self.ready))))
        return True

    def _submit(self, pins: list[Pin]) -> None:
        self.more = bool(pins)
        known = self.worker.known([(pin.image_sha256, pin) for pin in pins])
        self.rows += known.values()
        for pin in pins:
            if pin.pin_id not in known:
                self.readers.submit(pin)

    def _sort(self, pictures: list[ReadPicture]) -> None:
        """Rows for pictures that could not be read or have a caption; the others wait for the model."""
        self.rows += [_failed(picture) for picture in pictures if picture.reason is not None]
        whole = [picture for picture in pictures if picture.reason is None]
        known = self.worker.known([(picture.image_sha256, picture.pin) for picture in whole])
        self.rows += known.values()
        for picture in whole:
            if picture.pin.pin_id in known:
                continue
            if picture.key in self.sharing:
                self.sharing[picture.key].append(picture.pin)
                self.n_sharing += 1
            else:
                self.sharing[picture.key] = []
                self.ready[picture.key] = picture

    def caption(self) -> None:
        """Begins a batch with the pictures that are ready, and ends the oldest one if enough have begun."""
        if self.ready:
            self.begun.append(self.worker.begin(list(self.ready.values())))
            self.ready = {}
            if len(self.begun) <= self.worker.model.ahead:
                return
        self._end()

    def _end(self) -> None:
        batch = self.begun.popleft()
        rows = self.worker.end(batch, self.begun[0] if self.begun else None)
        for key, row in rows.items():
            sharing = self.sharing.pop(key)
            self.n_sharing -= len(sharing)
            self.rows += [row, *(replace(row, pin_id=pin.pin_id, shared=True) for pin in sharing)]


def _inputs(pictures: list[ReadPicture]) -> tuple[list[np.ndarray], list[str]]:
    """What a model takes: pixels and prompts."""
    pixels = [picture.pixels for picture in pictures if picture.pixels is not None]
    return pixels, [picture.pin.prompt for picture in pictures]


def _failed(picture: ReadPicture) -> Caption:
    return Caption(
        pin_id=picture.pin.pin_id,
        recipe_id=picture.pin.recipe_id,
        status="failed",
        reason=picture.reason,
        image_sha256=picture.image_sha256,
    )
