"""`captioner doctor`: do machine, library versions and checkpoint work together, and if not, what to do."""

from __future__ import annotations

import os
import platform
import random
import shutil
import textwrap
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, requires, version
from typing import TYPE_CHECKING

from ..common.errors import PincaptionError
from ..common.terminal import data_size
from ..store.recipes import BUILTIN
from .blip2_layout import remarks_on_what_is_filled_in
from .checkpoint import Checkpoint, CheckpointError
from .download import OnBytes
from .find import find_checkpoint
from .golden import Golden, read_picture, write_caption
from .model import CaptionModel, Decoding, choose_device, choose_dtype, out_of_memory

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np

    from ..drawn.draw import Scene

# The versions that the tests run with: major and minor, as in constraints.txt (a test compares the two).
TESTED = {
    "torch": "2.13",
    "transformers": "5.24",
    "pillow": "13.0",
    "tokenizers": "0.23",
    "safetensors": "0.8",
}
PICTURES = 6
PROMPTS = ["", "a photo of"] * 3  # one for each picture; their lengths differ, so that a batch needs padding
BENCH_SIZES = (1, 4, 16, 64)
_MEMORY_FACTOR = 1.1  # what a model needs besides its weights


@dataclass(frozen=True)
class Finding:
    """A line of the report. If it is not `ok`, captioning will not work and `text` says what to do."""

    name: str
    text: str
    ok: bool = True

    def shown(self, width: int = 80) -> str:
        """The finding for a terminal, in lines of at most `width` characters if its words allow it."""
        head = f"{'ok' if self.ok else 'NO':<3} {self.name:<10} "
        return textwrap.fill(
            self.text,
            width,
            initial_indent=head,
            subsequent_indent=" " * len(head),
            break_long_words=False,
            break_on_hyphens=False,
        )


def examine(
    model: str,
    *,
    revision: str | None = None,
    device: str = "auto",
    dtype: str = "auto",
    bench: bool = False,
    golden: tuple[Golden, Path] | None = None,
    say: Callable[[str], None] = lambda text: None,
    on_bytes: OnBytes = lambda done, total: None,
) -> Iterator[Finding]:
    """Examines this machine and the checkpoint `model`; yields one finding after the other.

    The report ends with the first finding that makes the others pointless. With `bench` it also says how many
    pictures per second the model captions at several batch sizes. With `golden`, a known caption and the file
    of its picture, it says whether the model writes that caption; a dtype of "auto" is then that of the known
    caption. `say` and `on_bytes` get what `find_checkpoint` says about a download.
    """
    import psutil

    machine_memory = psutil.virtual_memory()
    yield Finding(
        "machine",
        f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores, "
        f"{data_size(machine_memory.available)} of {data_size(machine_memory.total)} memory free",
    )
    yield Finding("disk", f"{data_size(shutil.disk_usage('.').free)} free here")
    libraries = _libraries()
    yield libraries
    if not libraries.ok:
        return
    if golden:  # before gigabytes are downloaded
        try:
            picture = read_picture(golden[1], golden[0])
        except (PincaptionError, OSError) as error:
            yield Finding("golden", str(error), False)
            return
    try:
        checkpoint = find_checkpoint(model, revision, say=say, on_bytes=on_bytes)
    except CheckpointError as error:
        yield Finding("checkpoint", str(error), False)
        return
    yield _describe(checkpoint)
    try:
        device = choose_device("auto" if device == "all" else device.split(",")[0])
    except CheckpointError as error:
        yield Finding("device", str(error), False)
        return
    dtype = golden[0].dtype_on(device) if golden and dtype == "auto" else choose_dtype(dtype, device)
    yield _device(device, dtype)
    memory = _memory(checkpoint, device, dtype, machine_memory.available)
    yield memory
    if not memory.ok:
        return

    from .blip2 import Blip2

    began = time.perf_counter()
    try:
        loaded = Blip2(checkpoint, device, dtype)
    except (CheckpointError, MemoryError) as error:
        yield Finding("loading", str(error), False)
        return
    yield Finding("loading", f"{time.perf_counter() - began:.1f} s")
    if remarks := remarks_on_what_is_filled_in(checkpoint, int(loaded.model.config.image_token_index)):
        yield Finding("filled in", "; ".join(remarks) + "; the files stay as they are")
    yield from examine_model(loaded, bench=bench)
    if golden:
        yield _golden(loaded, picture, golden[0])


def examine_model(model: CaptionModel, *, bench: bool = False) -> Iterator[Finding]:
    """Lets a loaded model caption drawn pictures, one by one and in a batch, and judges the captions."""
    import numpy as np
    from PIL import Image

    from ..drawn import draw

    width, height = model.picture_size
    yield Finding("pictures", f"{width} x {height} pixels, {model.details}")
    rng = random.Random(7)
    scenes = [draw.random_scene(rng) for _ in range(PICTURES)]
    pictures = [
        np.asarray(draw.draw(scene, rng).resize(model.picture_size, Image.Resampling.BICUBIC))
        for scene in scenes
    ]
    try:
        alone = [
            model.caption([picture], [prompt], Decoding())[0].text.strip()
            for picture, prompt in zip(pictures, PROMPTS, strict=True)
        ]
        batched = [text.text.strip() for text in model.caption(pictures, PROMPTS, Decoding())]
    except Exception as error:  # a model that does not work may raise anything
        advice = "take a smaller model" if out_of_memory(error) else "report it with the versions above"
        reason = f"{type(error).__name__}: {(str(error).strip().splitlines() or [''])[0][:200]}"
        yield Finding("captions", f"the model fails on a picture ({reason}): {advice}", False)
        return
    yield _batching(model, alone, batched)
    yield _captions(batched)
    if model.name == BUILTIN:
        yield _exact_captions(batched, scenes)
    if bench:
        yield from _bench(model, pictures)


def _golden(model: CaptionModel, picture: bytes, golden: Golden) -> Finding:
    """Whether the model writes the known caption."""
    try:
        caption = write_caption(model, picture, golden)
    except Exception as error:  # a model that does not work may raise anything
        return Finding("golden", f"the model fails on the picture ({type(error).__name__}: {error})", False)
    if caption == golden.caption:
        return Finding("golden", f"{caption!r}, as expected")
    return Finding(
        "golden",
        f"{caption!r}, but {golden.caption!r} was expected: compare with --dtype float32, and report it with "
        "the versions above",
        False,
    )


def _libraries() -> Finding:
    """Which versions are installed, and whether the package's requirements hold."""
    from packaging.requirements import Requirement

    try:
        requirements = {
            requirement.name: requirement
            for requirement in map(Requirement, requires("pincaption") or ())
            if not requirement.marker or requirement.marker.evaluate({"extra": ""})
        }
    except PackageNotFoundError:  # runs from a folder, without having been installed
        requirements = {}
    versions, wrong = [f"Python {platform.python_version()}"], []
    for name, tested in TESTED.items():
        try:
            installed = version(name)
        except PackageNotFoundError:
            wrong.append(str(requirements.get(name, name)))
            continue
        if name in requirements and not requirements[name].specifier.contains(installed, prereleases=True):
            wrong.append(str(requirements[name]))
        is_tested = f"{installed}.".startswith(f"{tested}.")
        versions.append(f"{name} {installed}" + ("" if is_tested else f" (tested: {tested})"))
    advice = "; missing or too old or new, pip install " + " ".join(f"'{r}'" for r in wrong) if wrong else ""
    return Finding("libraries", ", ".join(versions) + advice, not wrong)


def _describe(checkpoint: Checkpoint) -> Finding:
    text = checkpoint.config.get("text_config") or {}
    at = f" at {checkpoint.revision[:12]}" if checkpoint.revision else ""
    return Finding(
        "checkpoint",
        f"{checkpoint.name}{at}, {data_size(checkpoint.weight_bytes)} of safetensors, language model "
        f"{text.get('model_type', 'opt')}",
    )


def _device(device: str, dtype: str) -> Finding:
    import torch

    if device.startswith("cuda"):
        what = torch.cuda.get_device_name(device)
    else:
        what = f"{torch.get_num_threads()} threads"
    return Finding("device", f"{device} ({what}), computing in {dtype}")


def _memory(checkpoint: Checkpoint, device: str, dtype: str, free_on_machine: int) -> Finding:
    """Whether the weights fit into the memory of the device. Sizes are in bytes."""
    import torch

    stored_dtype = str(checkpoint.config.get("dtype") or checkpoint.config.get("torch_dtype"))
    stored = 2 if stored_dtype in ("float16", "bfloat16") else 4  # per parameter
    needed = checkpoint.weight_bytes * (4 if dtype == "float32" else 2) / stored
    free = torch.cuda.mem_get_info(device)[0] if device.startswith("cuda") else free_on_machine
    fits = needed * _MEMORY_FACTOR < free
    advice = "" if fits else ": take the dtype bfloat16, another device or a smaller model"
    return Finding(
        "memory", f"the weights need {data_size(needed)} in {dtype}, {data_size(free)} are free{advice}", fits
    )


def _batching(model: CaptionModel, alone: list[str], batched: list[str]) -> Finding:
    """Whether pictures get the same caption alone and in a batch."""
    differ = sum(a != b for a, b in zip(alone, batched, strict=True))
    if differ and model.dtype == "float32" and model.device == "cpu":  # there the captions must be equal
        return Finding(
            "batching",
            f"{differ} of {PICTURES} pictures get another caption in a batch than alone: report it with the "
            "versions above",
            False,
        )
    rounding = f", {differ} another one, which rounding in {model.dtype} may cause" if differ else ""
    return Finding(
        "batching",
        f"{PICTURES - differ} of {PICTURES} pictures get the same caption alone and in a batch{rounding}",
        differ <= PICTURES // 2,
    )


def _captions(captions: list[str]) -> Finding:
    """Whether the captions depend on the pictures.

    Random weights or wrong preprocessing lead to captions that are empty or all the same.
    """
    if len(set(captions)) == 1:
        return Finding(
            "captions",
            f"every picture is called {captions[0]!r}: the model does not see; take a complete, trained "
            "checkpoint",
            False,
        )
    shown = (repr(caption) if len(caption) <= 60 else f"{caption[:57]!r}..." for caption in captions[:2])
    return Finding("captions", ", ".join(shown))


def _exact_captions(captions: list[str], scenes: list[Scene]) -> Finding:
    """The built-in checkpoint must caption drawn pictures exactly; one mistake is allowed."""
    right = sum(caption == scene.caption for caption, scene in zip(captions, scenes, strict=True))
    return Finding(
        "builtin",
        f"{right} of {PICTURES} drawn pictures exactly right; for photos name a real model",
        right >= PICTURES - 1,
    )


def _bench(model: CaptionModel, pictures: list[np.ndarray]) -> Iterator[Finding]:
    """Pictures per second at several batch sizes, until one does not fit into memory."""
    for n in BENCH_SIZES:
        batch = [pictures[i % len(pictures)] for i in range(n)]
        began = time.perf_counter()
        try:
            model.caption(batch, [""] * n, Decoding())
        except (RuntimeError, MemoryError) as error:
            if not out_of_memory(error):
                raise
            yield Finding(f"batch {n}", "does not fit into memory")
            return
        yield Finding(f"batch {n}", f"{n / (time.perf_counter() - began):,.1f} pictures/s")
