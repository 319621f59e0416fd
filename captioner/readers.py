"""Threads that fetch and decode pictures ahead of the model."""

from __future__ import annotations

import contextlib
import itertools
import queue
import threading
import time
from collections.abc import Callable

import numpy as np

from ..store.work import Pin

_Key = tuple[str, str, str]  # SHA-256 of the image, recipe_id, prompt


class _Picture:
    """What the threads made of a pin's image: pixels (uint8 [height, width, 3]) or the reason why not."""

    __slots__ = ("image_sha256", "pin", "pixels", "reason")

    def __init__(
        self, pin: Pin, image_sha256: str | None, reason: str | None = None, pixels: np.ndarray | None = None
    ):
        self.pin, self.image_sha256, self.reason, self.pixels = pin, image_sha256, reason, pixels

    @property
    def key(self) -> _Key:
        """Pins with the same one get the same caption."""
        return self.image_sha256 or "", self.pin.recipe_id, self.pin.prompt


class _Readers:
    """Threads that read pictures; `next` has them as they get ready, so that a slow server holds up nobody
    else's.

    A picture that takes longer than `seconds` fails, and a fresh thread takes the place of the one that
    hangs. The threads are daemons: unlike ThreadPoolExecutor's, one that hangs on a dead disk never keeps the
    process from ending.
    """

    def __init__(self, read: Callable[[Pin], _Picture], threads: int, seconds: float):
        self.unfinished = 0  # submitted, and not yet returned by `next`
        self._read, self._threads, self._seconds = read, threads, seconds
        self._waiting: queue.SimpleQueue[Pin | None] = queue.SimpleQueue()
        self._done: queue.SimpleQueue[_Picture] = queue.SimpleQueue()
        self._reading: dict[int, tuple[Pin, float]] = {}  # thread -> what it reads, since when
        self._lock = threading.Lock()
        self._numbers = itertools.count()
        for _ in range(threads):
            self._start()

    def submit(self, pin: Pin) -> None:
        self.unfinished += 1
        self._waiting.put(pin)

    def next(self) -> _Picture | None:
        """The next picture that was read or took too long; None after a fifth of a second without one."""
        picture = self._overdue()
        if picture is None:
            try:
                picture = self._done.get(timeout=0.2)
            except queue.Empty:
                return None
        self.unfinished -= 1
        return picture

    def close(self) -> None:
        """Drops what has not begun and lets the threads end."""
        with self._lock:
            self._reading.clear()
        with contextlib.suppress(queue.Empty):
            while True:
                self._waiting.get_nowait()
        for _ in range(self._threads):
            self._waiting.put(None)

    def _overdue(self) -> _Picture | None:
        with self._lock:
            limit = time.monotonic() - self._seconds
            late = next((number for number, (_, since) in self._reading.items() if since < limit), None)
            if late is None:
                return None
            pin, _ = self._reading.pop(late)
        self._start()
        return _Picture(pin, None, f"took longer than {self._seconds:g} seconds to read")

    def _start(self) -> None:
        threading.Thread(target=self._work, args=[next(self._numbers)], daemon=True).start()

    def _work(self, number: int) -> None:
        while pin := self._waiting.get():
            with self._lock:
                self._reading[number] = pin, time.monotonic()
            picture = self._read(pin)
            with self._lock:
                if self._reading.pop(number, None) is None:
                    return  # took too long, or nobody waits any more
            self._done.put(picture)
            del pin, picture
