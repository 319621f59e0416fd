"""`captioner doctor`: do machine, library versions and checkpoint fit, and if not, what to do."""

from __future__ import annotations

import os
import platform
import random
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version

from .checkpoint import BUILTIN, CheckpointError, find_checkpoint

TESTED = {"torch": "2.13", "transformers": "5.23", "pillow": "13.0", "tokenizers": "0.23", "safetensors": ""}
PICTURES = 6
BENCH_SIZES = (1, 4, 16, 64)


@dataclass(frozen=True)
class Finding:
    """A line of the report; not `ok` means that captioning will not work, and `text` says what to do."""

    name: str
    text: str
    ok: bool = True


def examine(model: str, *, revision: str | None = None, device: str = "auto", dtype: str = "auto", bench: bool = False) -> Iterator[Finding]:
    """The report, line by line; ends with the first finding that makes the rest pointless."""
    import psutil

    memory = psutil.virtual_memory()
    yield Finding(
        "machine",
        f"{platform.system()} {platform.machine()}, Python {platform.python_version()}, {os.cpu_count()} cores, {memory.available / 2**30:.1f} of {memory.total / 2**30:.1f} GiB free",
    )
    yield Finding("disk", f"{shutil.disk_usage('.').free / 2**30:.0f} GiB free here")
    found = {name: _version(name) for name in TESTED}
    missing = [name for name, v in found.items() if v is None]
    yield Finding(
        "libraries", ", ".join(f"{name} {v}" for name, v in found.items() if v) + (f"; missing: {', '.join(missing)}: pip install pincaption" if missing else ""), not missing
    )
    if missing:
        return
    import torch

    try:
        checkpoint = find_checkpoint(model, revision)
    except CheckpointError as error:
        yield Finding("checkpoint", str(error), False)
        return
    size = sum(p.stat().st_size for p in checkpoint.weight_files)
    text = checkpoint.config.get("text_config") or {}
    yield Finding(
        "checkpoint",
        f"{checkpoint.model}{f' at {checkpoint.revision[:12]}' if checkpoint.revision else ''}: {size / 1e6:,.0f} MB of safetensors, language model {text.get('model_type', 'opt')}",
    )

    from .blip2 import Blip2, Decoding, choose_device, choose_dtype

    try:
        device = choose_device("auto" if device == "all" else device.split(",")[0])
    except CheckpointError as error:
        yield Finding("device", str(error), False)
        return
    name = torch.cuda.get_device_name(device) if device.startswith("cuda") else f"{torch.get_num_threads()} threads"
    dtype = choose_dtype(dtype, device)
    yield Finding("device", f"{device} ({name}), computing in {dtype}")
    stored = 2 if str(checkpoint.config.get("dtype") or checkpoint.config.get("torch_dtype")) in ("float16", "bfloat16") else 4
    needed = size * (4 if dtype == "float32" else 2) / stored
    free = torch.cuda.mem_get_info(device)[0] if device.startswith("cuda") else memory.available
    if needed * 1.1 > free:
        yield Finding(
            "memory", f"the weights need {needed / 2**30:.1f} GiB in {dtype} and {free / 2**30:.1f} GiB are free: take --dtype bfloat16, another device or a smaller model", False
        )
        return
    yield Finding("memory", f"the weights need {needed / 2**30:.1f} GiB in {dtype}, {free / 2**30:.1f} GiB are free")

    began = time.perf_counter()
    try:
        blip2 = Blip2(checkpoint, device, dtype)
    except CheckpointError as error:
        yield Finding("loading", str(error), False)
        return
    yield Finding("loading", f"{time.perf_counter() - began:.1f} s, {sum(p.numel() for p in blip2.model.parameters()) / 1e6:,.0f} million parameters")
    wanted = blip2.preprocessing
    yield Finding(
        "pictures",
        f"scaled to {wanted['width']} x {wanted['height']}; {'decoder-only' if blip2.decoder_only else 'encoder-decoder'} language model, {blip2.model.config.num_query_tokens} image tokens",
    )

    import numpy as np
    from PIL import Image

    from . import draw

    rng = random.Random(7)
    scenes = [draw.random_scene(rng) for _ in range(PICTURES)]
    pixels = np.stack([np.asarray(draw.draw(s, rng).resize((wanted["width"], wanted["height"]), Image.Resampling.BICUBIC)) for s in scenes])
    decoding = Decoding()
    single = [blip2.caption(pixels[i : i + 1], [""], decoding)[0].text.strip() for i in range(PICTURES)]
    batched = [t.text.strip() for t in blip2.caption(pixels, [""] * PICTURES, decoding)]
    differ = sum(a != b for a, b in zip(single, batched, strict=True))
    if dtype == "float32" and not device.startswith("cuda"):
        yield Finding(
            "batching",
            f"{PICTURES} pictures one by one and in a batch: "
            + ("the same captions" if not differ else f"{differ} captions differ, which must not be in float32: report it with the versions above"),
            not differ,
        )
    else:
        yield Finding(
            "batching",
            f"{PICTURES} pictures one by one and in a batch: {PICTURES - differ} the same" + (f"; {differ} differ, as rounding in {dtype} allows" if differ else ""),
            differ <= PICTURES // 2,
        )
    # Random weights, wrong normalisation or a wrong slice show as captions that are empty or all alike.
    alike = len(set(batched)) == 1
    yield Finding(
        "captions",
        f"{batched[0]!r}" + ("; every picture got this caption or none: the checkpoint does not see, are its weights complete?" if alike else f", {batched[1]!r}, ..."),
        not alike,
    )
    if checkpoint.model == BUILTIN:
        right = sum(a == s.caption for a, s in zip(batched, scenes, strict=True))
        yield Finding("builtin", f"{right} of {PICTURES} drawn pictures exactly right; it knows drawn pictures only, for photos name a real model", right >= PICTURES - 1)
    if bench:
        for n in BENCH_SIZES:
            many = np.concatenate([pixels] * (n // PICTURES + 1))[:n]
            began = time.perf_counter()
            blip2.caption(many, [""] * n, decoding)
            yield Finding(f"batch {n}", f"{n / (time.perf_counter() - began):,.1f} pictures/s")


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
