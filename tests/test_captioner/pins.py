"""Pins, their rows, and a model whose memory is small: what tests of the worker share."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from pincaption.captioner.blip2 import Blip2
from pincaption.captioner.model import Decoding, Text
from pincaption.store.work import Caption, Pin


def pins(images: Path, *names: str, prompt: str = "") -> list[Pin]:
    return [Pin(f"{i}:{name}", str(images / name), prompt) for i, name in enumerate(names)]


def by_pin(rows: Iterator[Caption]) -> dict[str, Caption]:
    found: dict[str, Caption] = {}
    for row in rows:
        assert row.pin_id not in found
        found[row.pin_id] = row
    return found


def tiny(n: int) -> Iterator[Pin]:
    """Pins whose images all differ."""
    with tempfile.TemporaryDirectory() as folder:
        for i in range(n):
            path = Path(folder) / f"{i}.ppm"
            path.write_bytes(b"P6 8 8 255\n" + i.to_bytes(4, "big") * 48)
            yield Pin(str(i), str(path))


class Crowded:
    """A model whose memory has room for `fits` pictures at a time, in one part of its work."""

    def __init__(
        self, model: Blip2, fits: int, part: str = "begin", error: type[Exception] = torch.OutOfMemoryError
    ):
        self.model, self.fits, self.part, self.error = model, fits, part, error
        self.sizes: list[int] = []  # of the batches that came to this part

    def __getattr__(self, name: str) -> object:
        return getattr(self.model, name)

    def begin(self, pictures: list[np.ndarray], prompts: list[str], decoding: Decoding) -> object:
        self.check(pictures, "begin")
        batch = self.model.begin(pictures, prompts, decoding)
        start, texts = batch.start, batch.texts
        batch.start = lambda: self.check(pictures, "start") or start()
        batch.texts = lambda: self.check(pictures, "texts") or texts()
        return batch

    def caption(self, pictures: list[np.ndarray], prompts: list[str], decoding: Decoding) -> list[Text]:
        self.check(pictures, self.part)
        return self.model.caption(pictures, prompts, decoding)

    def check(self, pictures: list[np.ndarray], part: str) -> None:
        if part != self.part:
            return
        self.sizes.append(len(pictures))
        if len(pictures) > self.fits:
            raise self.error("CUDA out of memory. Tried to allocate 20.00 GiB.")
