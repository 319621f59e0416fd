"""What the parts of benchmarks/gpu.py share: the device, the time left, the model, and the figures so far.

Whatever the GPU benchmark takes from the package is imported here, and nowhere else.
"""

from __future__ import annotations

import argparse
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import full_size
import numpy as np
import torch
from gpu_clock import Profile, in_place_of

from pincaption.captioner import blip2, checks, graph, worker
from pincaption.captioner.find import find_checkpoint
from pincaption.captioner.model import Decoding
from pincaption.captioner.run import Options, run
from pincaption.embed import training
from pincaption.embed.options import TrainOptions
from pincaption.images.decode import decode
from pincaption.images.fetch import Fetcher
from pincaption.ingest.images import ingest_images
from pincaption.store import open_store
from pincaption.store.claims import Claims

__all__ = [
    "TOKENS", "Bench", "Claims", "Decoding", "Fetcher", "Options", "TrainOptions", "blip2",
    "checks", "find_checkpoint", "graph", "picture", "run", "tell_profile", "training", "worker",
]  # fmt: skip
TOKENS = 20  # new tokens of each caption, forced


def numbers(text: str | None) -> list[int]:
    return [int(n) for n in text.split(",")] if text else []


def picture(path: Path, size: tuple[int, int] = (224, 224)) -> np.ndarray:
    return np.asarray(decode(path.read_bytes(), size))


class Bench:
    """What the parts share: the device, the time left, the loaded model, and the figures so far."""

    def __init__(self, began: float, work: Path, data: subprocess.Popen[bytes], chosen: argparse.Namespace):
        self.began = began
        self.work, self.data, self.toy = work, data, chosen.toy
        self.ends = self.began + 60 * chosen.minutes
        self.device = "cuda:0" if torch.cuda.is_available() and not chosen.toy else "cpu"
        self.cuda = self.device != "cpu"
        self.dtype = "bfloat16" if self.cuda else "float32"
        self.batches = numbers(chosen.batches) or ([2, 4] if self.toy else [256, 512])
        self.loops = numbers(chosen.loops) or ([4] if self.toy else [256, 512])
        self.seconds = 0.1 if self.toy else chosen.seconds
        self.figures: list[tuple[str, str, str]] = []
        self.best_batch, self.rates = self.batches[len(self.batches) // 2], dict[int, float]()
        self.peak = 0  # bytes of GPU memory that a batch of the best size took
        self._model: Any = None
        self._pixels: Any = None

    def left(self) -> float:
        return self.ends - time.monotonic()

    def tell(self, part: str, what: str, figure: float | str) -> None:
        text = (
            figure
            if isinstance(figure, str)
            else f"{figure:,.0f}"
            if abs(figure) >= 1000
            else f"{figure:.4g}"
        )
        self.figures.append((part, what, text))
        print(f"{time.monotonic() - self.began:6.1f} s  {part}  {what}: {text}", flush=True)

    def folder(self, name: str) -> Path:
        """A folder of data, once it is complete."""
        began = time.monotonic()
        while not (self.work / name).exists():
            if self.data.poll() not in (None, 0):
                raise RuntimeError(f"gpu_data.py could not make {name}")
            time.sleep(0.1)
        if time.monotonic() - began > 1:
            print(f"waited {time.monotonic() - began:.0f} s for {name}", flush=True)
        return self.work / name

    def store(self, name: str, folder: str) -> Any:
        path = self.work / f"{name}.db"
        new = not path.exists()
        conn = open_store(path, create=True)
        if new:
            ingest_images(conn, self.folder(folder))
        return conn

    @property
    def checkpoint(self) -> Path:
        """The random checkpoint, as a folder that save_pretrained wrote."""
        folder = self.work / "blip2-opt-2.7b-random"
        if not folder.exists():
            began = time.monotonic()
            full_size.save(folder, self.device, small=self.toy)
            self.tell("b", "random checkpoint, seconds to make and to save", time.monotonic() - began)
            self.free()
        return folder

    @property
    def model(self) -> Any:
        if self._model is None:
            folder, began = find_checkpoint(str(self.checkpoint)), time.monotonic()
            self._model = blip2.Blip2(folder, self.device, self.dtype)
            if not self.cuda:  # the code of a GPU, at toy size
                self._model._graphs = graph.Graphs(self._model.model.language_model)
                self._model.ahead = 2
            self.tell(
                "b", "seconds to load it onto the device (files in the page cache)", time.monotonic() - began
            )
        return self._model

    @property
    def pixels(self) -> np.ndarray:
        """Some hundred decoded pictures, uint8 [n, 224, 224, 3]."""
        if self._pixels is None:
            paths = sorted(self.folder("pictures").iterdir())[: max(self.batches + self.loops)]
            with ThreadPoolExecutor() as threads:
                self._pixels = np.stack(list(threads.map(picture, paths)))
        return self._pixels

    def batch(self, n: int) -> np.ndarray:
        return np.concatenate([self.pixels] * -(-n // len(self.pixels)))[:n]

    def free(self) -> None:
        if self.cuda:
            torch.cuda.synchronize()
            torch.cuda.empty_cache()

    def captioned(
        self,
        conn: Any,
        batch: int,
        limit: int,
        marks: list[tuple[int, float]] | None = None,
        workers: int | None = None,
    ) -> Any:
        """`captioner run` with the model that is loaded; `marks` gets (done, when) after each commit."""
        options = Options(
            model=str(self.checkpoint),
            batch_size=batch,
            min_new_tokens=TOKENS,
            max_new_tokens=TOKENS,
            device=self.device,
            dtype=self.dtype,
            workers=workers,
            limit=limit,
        )
        note = [] if marks is None else marks
        with in_place_of(blip2, "Blip2", lambda *_: self.model):
            return run(
                conn, options, on_batch=lambda done, total, size: note.append((done, time.perf_counter()))
            )


def tell_profile(bench: Bench, part: str, name: str, found: Profile) -> None:
    bench.tell(part, f"{name}: GPU idle by kernel times", f"{100 - 100 * found.busy:.1f}%")
    for zone, share in found.idle.items():
        bench.tell(
            part,
            f"{name}: idle during {zone}",
            f"{100 * share:.1f}% of it, {100 * found.share[zone]:.1f}% of all",
        )
    for kernel, share, calls in found.largest:
        print(f"          {100 * share:5.1f}% of the busy time, {calls:6} calls, {kernel[:100]}", flush=True)
