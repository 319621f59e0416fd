"""`captioner doctor`: do machine, library versions and checkpoint fit, and if not, what to do."""

from __future__ import annotations

import os
import platform
import random
import shutil
import textwrap
import time
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, requires, version
from typing import TYPE_CHECKING

from ..store.recipes import BUILTIN
from .checkpoint import Checkpoint, CheckpointError, find_checkpoint

if TYPE_CHECKING:
    import numpy as np

    from .blip2 import Blip2

TESTED = {
    "torch": "2.13",
    "transformers": "5.23",
    "pillow": "13.0",
    "tokenizers": "0.23",
    "safetensors": "0.8",
}
PICTURES = 6
PROMPTS = ["", "a photo of"] * 3  # of different length, so that the batch needs padding
BENCH_SIZES = (1, 4, 16, 64)


@dataclass(frozen=True)
class Finding:
    """A line of the report; not `ok` means that captioning will not work, and `text` says what to do."""

    name: str
    text: str
    ok: bool = True

    def shown(self, width: int = 80) -> str:
        """The finding for a terminal, in lines of at most `width` characters where its words allow it."""
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
    model: str, *, revision: str | None = None, device: str = "auto", dtype: str = "auto", bench: bool = False
) -> Iterator[Finding]:
    """The report, line by line; ends with the first finding that makes the rest pointless."""
    import psutil

    memory = psutil.virtual_memory()
    yield Finding(
        "machine",
        f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores, {_gigabytes(memory.available)} of {_gigabytes(memory.total)} memory free",
    )
    yield Finding("disk", f"{_gigabytes(shutil.disk_usage('.').free)} free here")
    libraries = _libraries()
    yield libraries
    if not libraries.ok:
        return
    try:
        checkpoint = find_checkpoint(model, revision)
        size = sum(p.stat().st_size for p in checkpoint.weight_files)
        text = checkpoint.config.get("text_config") or {}
        at = f" at {checkpoint.revision[:12]}" if checkpoint.revision else ""
        yield Finding(
            "checkpoint",
            f"{checkpoint.model}{at}, {_gigabytes(size)} of safetensors, language model {text.get('model_type', 'opt')}",
        )
    except CheckpointError as error:
        yield Finding("checkpoint", str(error), False)
        return

    import torch

    from .blip2 import Blip2
    from .model import choose_device, choose_dtype

    try:
        device = choose_device("auto" if device == "all" else device.split(",")[0])
    except CheckpointError as error:
        yield Finding("device", str(error), False)
        return
    dtype = choose_dtype(dtype, device)
    gpu = device.startswith("cuda")
    yield Finding(
        "device",
        f"{device} ({torch.cuda.get_device_name(device) if gpu else f'{torch.get_num_threads()} threads'}), computing in {dtype}",
    )
    needed = size * (4 if dtype == "float32" else 2) / _stored_bytes(checkpoint)
    free = torch.cuda.mem_get_info(device)[0] if gpu else memory.available
    fits = needed * 1.1 < free
    advice = "" if fits else ": take --dtype bfloat16, another --device or a smaller model"
    yield Finding(
        "memory",
        f"the weights need {_gigabytes(needed)} in {dtype}, {_gigabytes(free)} are free{advice}",
        fits,
    )
    if not fits:
        return

    began = time.perf_counter()
    try:
        blip2 = Blip2(checkpoint, device, dtype)
    except (CheckpointError, MemoryError) as error:
        yield Finding("loading", str(error), False)
        return
    yield Finding(
        "loading",
        f"{time.perf_counter() - began:.1f} s, {sum(p.numel() for p in blip2.model.parameters()) / 1e6:,.1f} million parameters",
    )
    kind = "decoder-only" if blip2.decoder_only else "encoder-decoder"
    wanted = blip2.preprocessing
    yield Finding(
        "pictures",
        f"{wanted['width']} x {wanted['height']} pixels, {blip2.model.config.num_query_tokens} image tokens, {kind} language model",
    )
    yield from _captions(blip2, bench)


def _libraries() -> Finding:
    from packaging.requirements import Requirement

    try:
        wanted = {
            r.name: r
            for r in map(Requirement, requires("pincaption") or ())
            if not r.marker or r.marker.evaluate({"extra": ""})
        }
    except PackageNotFoundError:  # run from a folder without having been installed
        wanted = {}
    found, wrong = [f"Python {platform.python_version()}"], []
    for name, tested in TESTED.items():
        try:
            have = version(name)
        except PackageNotFoundError:
            wrong.append(str(wanted.get(name, name)))
            continue
        if name in wanted and not wanted[name].specifier.contains(have, prereleases=True):
            wrong.append(str(wanted[name]))
        found.append(
            f"{name} {have}" + ("" if f"{have}.".startswith(f"{tested}.") else f" (tested: {tested})")
        )
    advice = "; missing or too old or new, pip install " + " ".join(f"'{r}'" for r in wrong) if wrong else ""
    return Finding("libraries", ", ".join(found) + advice, not wrong)


def _captions(blip2: Blip2, bench: bool) -> Iterator[Finding]:
    """Captions of drawn pictures, one by one and in a batch: do both agree, and does the model see anything?"""
    import numpy as np
    from PIL import Image

    from ..drawn import draw
    from .model import Decoding, out_of_memory

    rng, decoding = random.Random(7), Decoding()
    scenes = [draw.random_scene(rng) for _ in range(PICTURES)]
    size = blip2.preprocessing["width"], blip2.preprocessing["height"]
    pixels = np.stack([np.asarray(draw.draw(s, rng).resize(size, Image.Resampling.BICUBIC)) for s in scenes])
    try:
        single = [
            blip2.caption(pixels[i : i + 1], PROMPTS[i : i + 1], decoding)[0].text.strip()
            for i in range(PICTURES)
        ]
        batched = [t.text.strip() for t in blip2.caption(pixels, PROMPTS, decoding)]
    except Exception as error:  # whatever a model does that it should not
        advice = "take a smaller model" if out_of_memory(error) else "report it with the versions above"
        yield Finding(
            "captions",
            f"the model fails on a picture ({type(error).__name__}: {str(error).strip().splitlines()[0][:200] if str(error) else ''}): {advice}",
            False,
        )
        return
    differ = sum(a != b for a, b in zip(single, batched, strict=True))
    exact = blip2.dtype == "float32" and blip2.device == "cpu"
    if exact and differ:
        yield Finding(
            "batching",
            f"{differ} of {PICTURES} pictures get another caption in a batch than alone: report it with the versions above",
            False,
        )
    else:
        rounding = f", {differ} others, as rounding in {blip2.dtype} may do" if differ else ""
        yield Finding(
            "batching",
            f"{PICTURES - differ} of {PICTURES} pictures get the same caption alone and in a batch{rounding}",
            differ <= PICTURES // 2,
        )
    # Random weights, wrong normalisation or a wrong slice show as captions that are empty or all alike.
    if len(set(batched)) == 1:
        yield Finding(
            "captions",
            f"every picture is called {batched[0]!r}: the model does not see; take a complete, trained checkpoint",
            False,
        )
    else:
        yield Finding(
            "captions",
            ", ".join(
                repr(caption) if len(caption) <= 60 else f"{caption[:57]!r}..." for caption in batched[:2]
            ),
        )
    if blip2.checkpoint.model == BUILTIN:
        right = sum(a == s.caption for a, s in zip(batched, scenes, strict=True))
        yield Finding(
            "builtin",
            f"{right} of {PICTURES} drawn pictures exactly right; for photos name a real model",
            right >= PICTURES - 1,
        )
    if bench:
        yield from _bench(blip2, pixels)


def _bench(blip2: Blip2, pixels: np.ndarray) -> Iterator[Finding]:
    from .model import Decoding, out_of_memory

    for n in BENCH_SIZES:
        many = pixels[[i % len(pixels) for i in range(n)]]
        began = time.perf_counter()
        try:
            blip2.caption(many, [""] * n, Decoding())
        except (RuntimeError, MemoryError) as error:
            if not out_of_memory(error):
                raise
            yield Finding(f"batch {n}", "does not fit into memory")
            return
        yield Finding(f"batch {n}", f"{n / (time.perf_counter() - began):,.1f} pictures/s")


def _stored_bytes(checkpoint: Checkpoint) -> int:
    return (
        2
        if str(checkpoint.config.get("dtype") or checkpoint.config.get("torch_dtype"))
        in ("float16", "bfloat16")
        else 4
    )


def _gigabytes(n: float) -> str:
    return f"{n / 1e9:.1f} GB" if n >= 1e9 else f"{n / 1e6:.0f} MB"
