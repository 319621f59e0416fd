"""The worker: an iterator of pins in, caption rows out.

Threads fetch and decode ahead of the model, a bounded number of pictures at a time; the model gets full
batches of one shape. It knows nothing of stores or clusters, so the same object serves `captioner run` and,
mapped over blocks, Ray.
"""

from __future__ import annotations

import hashlib
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace

import numpy as np
import torch
from PIL import Image

from ..images.decode import ImageError, decode
from ..images.fetch import Fetcher
from ..store.work import Caption, Pin
from . import checks
from .batch_size import MAX_BATCH, BatchSize
from .blip2 import Blip2
from .checkpoint import CheckpointError
from .model import Decoding, Text, out_of_memory
from .readers import _Key, _Picture, _Readers

SHARED_MEMORY = 10_000  # images whose caption the worker itself remembers


class Worker:
    """Captions pins with one model.

    `batch_size` None grows the batch as long as that makes the model faster, and halves it when memory runs
    out. `threads` fetch and decode. `known` may name a caption that exists for (image_sha256, pin) already.
    Set `stop` to end after the batch in hand.
    """

    def __init__(
        self,
        model: Blip2,
        decoding: Decoding | None = None,
        *,
        batch_size: int | None = None,
        threads: int | None = None,
        fetcher: Fetcher | None = None,
        max_pixels: int = 100_000_000,
        seconds_per_image: float = 120,
        known: Callable[[str, Pin], Caption | None] = lambda image_sha256, pin: None,
    ):
        self.model, self.decoding, self.known = model, decoding or Decoding(), known
        self.fetcher = fetcher or Fetcher()
        self.max_pixels, self.seconds_per_image = max_pixels, seconds_per_image
        self.size = BatchSize(batch_size, MAX_BATCH["cuda" if model.device.startswith("cuda") else "cpu"])
        self.threads = threads or max(2, min(16, os.cpu_count() or 2))
        self.stop = threading.Event()
        wanted = model.preprocessing
        self._shape, self._resample = (
            (wanted["width"], wanted["height"]),
            Image.Resampling[wanted["resample"].upper()],
        )
        self._recent: dict[_Key, Caption] = {}
        if not model.prompt_fits("", self.decoding):
            raise CheckpointError(
                f"--max-new-tokens {self.decoding.max_new_tokens} is more than {model.checkpoint.model} has room for: take a smaller number"
            )

    def __call__(self, pins: Iterable[Pin]) -> Iterator[Caption]:
        """A caption row for every pin, in no particular order; a pin that cannot be captioned gets a failed
        row.
        """
        for captions in self.batches(pins):
            yield from captions

    def batches(self, pins: Iterable[Pin]) -> Iterator[list[Caption]]:
        """As calling the worker, with the rows that are ready after each batch of the model together.

        `pins` is read lazily, a little over two batches ahead. Rows that were not yielded when the iterator
        is closed are lost.
        """
        source, more = iter(pins), True
        readers = _Readers(self._read, self.threads, self.seconds_per_image)
        rows: list[Caption] = []  # that need no model
        ready: dict[_Key, _Picture] = {}
        same: list[tuple[_Key, Pin]] = []  # pins whose picture and prompt are in `ready` already
        try:
            while not self.stop.is_set():
                while (
                    more
                    and readers.unfinished < 2 * self.size.current + self.threads
                    and len(rows) < self.size.current
                    and not self.stop.is_set()
                ):
                    if (pin := next(source, None)) is None:
                        more = False
                    elif pin.image_sha256 and (caption := self._shared(pin.image_sha256, pin)):
                        rows.append(caption)
                    else:
                        readers.submit(pin)
                if len(rows) >= self.size.current:
                    yield rows
                    rows = []
                elif not readers.unfinished:
                    break
                elif picture := readers.next():
                    pin, key = picture.pin, picture.key
                    if picture.reason is not None:
                        rows.append(
                            Caption(
                                pin.pin_id,
                                pin.recipe_id,
                                "failed",
                                reason=picture.reason,
                                image_sha256=picture.image_sha256,
                            )
                        )
                    elif caption := self._shared(key[0], pin):
                        rows.append(caption)
                    elif key in ready:
                        same.append((key, pin))
                    else:
                        ready[key] = picture
                    if len(ready) >= self.size.current or len(same) >= 4 * self.size.current:
                        yield rows + self._caption(ready, same)
                        rows, ready, same = [], {}, []
            if rows or ready:
                yield rows + self._caption(ready, same)
        finally:
            readers.close()

    def _shared(self, image_sha256: str, pin: Pin) -> Caption | None:
        caption = self._recent.get((image_sha256, pin.recipe_id, pin.prompt)) or self.known(image_sha256, pin)
        return replace(caption, pin_id=pin.pin_id, shared=True) if caption else None

    def _read(self, pin: Pin) -> _Picture:
        """Runs in the threads: the image's bytes, their digest, and the picture in the model's size."""
        digest = None
        try:
            if not self.model.prompt_fits(pin.prompt, self.decoding):
                return _Picture(pin, None, "the prompt is too long for the model")
            data = self.fetcher.fetch(pin.image)
            digest = hashlib.sha256(data).hexdigest()
            if pin.image_sha256 and pin.image_sha256 != digest and (pin.image or "").startswith("parquet://"):
                return _Picture(
                    pin, None, "the Parquet file was rewritten since it was ingested: ingest it again"
                )
            return _Picture(
                pin,
                digest,
                pixels=np.asarray(
                    decode(data, self._shape, max_pixels=self.max_pixels, resample=self._resample)
                ),
            )
        except ImageError as error:
            return _Picture(pin, digest, str(error))
        except BaseException as error:
            # whatever else an image does to a library, a panic of its Rust part too, the run goes on
            return _Picture(pin, digest, f"cannot be read ({type(error).__name__})")

    def _caption(self, ready: dict[_Key, _Picture], same: list[tuple[_Key, Pin]]) -> list[Caption]:
        """Rows for the pictures of `ready`, and for the pins that share one of them."""
        pictures, made = list(ready.values()), dict[_Key, Caption]()
        for picture, text in zip(pictures, self._texts(pictures), strict=True):
            pin = picture.pin
            words, reason = checks.check(text.text, pin.prompt, text.finished)
            made[picture.key] = Caption(
                pin.pin_id, pin.recipe_id, "rejected" if reason else "ok", words, reason, picture.image_sha256
            )
        self._recent |= made
        while len(self._recent) > SHARED_MEMORY:
            self._recent.pop(next(iter(self._recent)))
        return [*made.values(), *(replace(made[key], pin_id=pin.pin_id, shared=True) for key, pin in same)]

    def _texts(self, pictures: list[_Picture]) -> list[Text]:
        """What the model says of these pictures, in smaller batches where they do not fit into memory
        together.
        """
        texts: list[Text] = []
        while part := pictures[len(texts) :][: self.size.current]:
            began = time.perf_counter()
            try:
                texts += self.model.caption(
                    np.stack([p.pixels for p in part if p.pixels is not None]),
                    [p.pin.prompt for p in part],
                    self.decoding,
                )
                self.size.ran(len(part), time.perf_counter() - began)
                continue
            except (RuntimeError, MemoryError) as error:
                if not out_of_memory(error):
                    raise
            # Outside the except clause: the error's traceback would keep the tensors alive.
            self.size.shrink(len(part))
            if self.model.device.startswith("cuda"):
                torch.cuda.empty_cache()
        return texts
