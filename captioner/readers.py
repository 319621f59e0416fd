"""Threads that fetch and decode pictures ahead of the model."""

from __future__ import annotations

import contextlib
import itertools
import queue
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ..store.work import Pin

CaptionKey = tuple[str, str, str]  # SHA-256 of the image, recipe_id, prompt
_POLL_SECONDS = 0.2  # how long `ready` waits for a picture


@dataclass(frozen=True, slots=True)
class ReadPicture:
    """What was read of a pin's image: its pixels (RGB, uint8 [height, width, 3]), or the reason why not.

    `truncated`: the image ends early, and the pixels are those of what is there.
    """

    pin: Pin
    image_sha256: str | None = None
    pixels: np.ndarray | None = None
    reason: str | None = None
    truncated: bool = False

    @property
    def key(self) -> CaptionKey:
        """Pins with the same key get the same caption."""
        return self.image_sha256 or "", self.pin.recipe_id, self.pin.prompt


class PictureReaders:
    """A number of threads that call `read` for one pin after the other.

    `ready` returns pictures in the order in which they become ready, so that a slow server delays only its
    own pictures. A picture that takes longer than `seconds` fails. Its thread is abandoned and a fresh one
    takes its place.

    The threads are daemons. Unlike those of ThreadPoolExecutor, a thread that hangs on a dead disk does not
    keep the process from ending.
    """

    def __init__(self, read: Callable[[Pin], ReadPicture], threads: int, seconds: float):
        self.unfinished = 0  # pins that were submitted and not yet returned by `ready`
        self._read, self._threads, self._seconds = read, threads, seconds
        self._waiting: queue.SimpleQueue[Pin | None] = queue.SimpleQueue()  # None ends a thread
        self._done: queue.SimpleQueue[ReadPicture] = queue.SimpleQueue()
        self._reading: dict[int, tuple[Pin, float]] = {}  # number of a thread -> its pin, and since when
        self._lock = threading.Lock()  # guards `_reading`
        self._numbers = itertools.count()
        for _ in range(threads):
            self._start_thread()

    def submit(self, pin: Pin) -> None:
        """Puts a pin into the line of those to be read."""
        self.unfinished += 1
        self._waiting.put(pin)

    def ready(self, most: int) -> list[ReadPicture]:
        """Up to `most` pictures that were read or took too long; waits a fifth of a second for the first."""
        pictures = self._overdue()
        with contextlib.suppress(queue.Empty):
            if not pictures:
                pictures.append(self._done.get(timeout=_POLL_SECONDS))
            while len(pictures) < most:
                pictures.append(self._done.get_nowait())
        self.unfinished -= len(pictures)
        return pictures

    def close(self) -> None:
        """Drops the pins that nobody reads yet, and lets the threads end."""
        with self._lock:
            self._reading.clear()
        with contextlib.suppress(queue.Empty):
            while True:
                self._waiting.get_nowait()
        for _ in range(self._threads):
            self._waiting.put(None)

    def _overdue(self) -> list[ReadPicture]:
        """A picture that takes too long, as failed; its thread is replaced."""
        with self._lock:
            limit = time.monotonic() - self._seconds
            late = next((number for number, (_, since) in self._reading.items() if since < limit), None)
            if late is None:
                return []
            pin, _ = self._reading.pop(late)
        self._start_thread()
        return [ReadPicture(pin, reason=f"took longer than {self._seconds:g} seconds to read")]

    def _start_thread(self) -> None:
        threading.Thread(target=self._read_pins, args=[next(self._numbers)], daemon=True).start()

    def _read_pins(self, number: int) -> None:
        """What a thread does: reads pins until it is told to end, or until one of them took too long."""
        while pin := self._waiting.get():
            with self._lock:
                self._reading[number] = pin, time.monotonic()
            picture = self._read(pin)
            with self._lock:
                if self._reading.pop(number, None) is None:
                    return  # it took too long and was replaced, or the readers were closed
            self._done.put(picture)
            del pin, picture  # frees their memory while the thread waits
