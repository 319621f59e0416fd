"""Parts f and g of benchmarks/gpu.py: what the fast path of gpu_loop.py is worth."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from gpu_bench import TOKENS, Bench, Decoding, blip2, find_checkpoint, picture, tell_profile
from gpu_clock import milliseconds, profiled
from gpu_loop import Loop, images_per_second


def prototype(bench: Bench) -> None:
    """Part f."""
    builtin = blip2.Blip2(find_checkpoint("builtin"), bench.device, "float32")
    size = builtin.preprocessing["width"], builtin.preprocessing["height"]
    drawn = np.stack([picture(path, size) for path in sorted(bench.folder("plain").iterdir())[:64]])
    differ, _ = differing(builtin, drawn, 5, 30)
    name = f"own loop, built-in checkpoint, float32: captions of {len(drawn)} whose tokens are not generate's"
    bench.tell("f", name, differ)
    for batch in bench.loops:
        if bench.left() < 40:
            print(f"no time for batch {batch}", flush=True)
            return
        differ, halves = differing(bench.model, bench.batch(batch), TOKENS, TOKENS)
        name = f"full size, {bench.dtype}, of {batch} captions those whose tokens are not generate's"
        bench.tell("f", f"{name}: own loop", differ)
        bench.tell("f", f"{name}: generate with half the batch", halves)
        variants(bench, "f", batch)
        bench.free()
    if bench.cuda:
        torch.backends.cuda.enable_cudnn_sdp(False)
        try:
            variants(bench, "f", bench.loops[-1], ", cuDNN's attention off")
        finally:
            torch.backends.cuda.enable_cudnn_sdp(True)


def differing(model: Any, pixels: np.ndarray, minimum: int, maximum: int) -> tuple[int, int]:
    """Captions whose tokens are not those of generate: the prototype's, and generate's of smaller batches."""

    def generated(pixels: np.ndarray) -> torch.Tensor:
        ids, mask = (t.to(model.device) for t in model.input_ids([""] * len(pixels)))
        values = model.pixel_values(pixels).to(model.model.dtype)
        ends = {"eos_token_id": model.end_tokens, "pad_token_id": model.pad_token}
        parameters = Decoding(minimum, maximum).parameters() | ends
        new = model.model.generate(values, input_ids=ids, attention_mask=mask, **parameters)[
            :, ids.shape[1] :
        ]
        return torch.nn.functional.pad(new, (0, maximum - new.shape[1]), value=model.pad_token)

    n = len(pixels)
    loop = Loop(model, n, minimum, maximum)
    with torch.inference_mode():
        for _ in range(2):  # the second time with a cache that is full of the first
            mine = loop.run(loop.see(torch.from_numpy(pixels).to(loop.device)))
        theirs = generated(pixels)
        halves = torch.cat([generated(pixels[: n // 2]), generated(pixels[n // 2 :])])
        return int((mine != theirs).any(1).sum()), int((halves != theirs).any(1).sum())


def variants(bench: Bench, part: str, batch: int, how: str = "") -> None:
    """images/s of the prototype without and with a CUDA graph, and what its stages take."""
    pixels = torch.from_numpy(bench.batch(batch).copy())
    if bench.cuda:
        pixels = pixels.pin_memory()
    for graph in (True,) if how else (False, True) if bench.cuda else (False,):
        loop = Loop(bench.model, batch, TOKENS, TOKENS, graph=graph)
        name = f"own loop, {'CUDA graph' if graph else 'no graph'}{how}, batch {batch}"
        once = batch / images_per_second(loop, [pixels])
        many = [pixels] * max(3, round(bench.seconds / once))
        bench.tell(part, f"{name}: images/s from uint8 pixels in host memory", images_per_second(loop, many))
        if bench.cuda and not graph:
            continue
        on_device = pixels.to(loop.device)
        seen = loop.see(on_device).clone()
        stages: dict[str, Callable[[], object]] = {
            "to see": lambda on_device=on_device, loop=loop: loop.see(on_device),
            "of the prefill": lambda seen=seen, loop=loop: loop.start(seen),
            "of the language model": lambda seen=seen, loop=loop: loop.run(seen),
        }
        took = {
            stage: milliseconds(work, bench.device, 2 if bench.toy else 10, 1)
            for stage, work in stages.items()
        }
        took["of a decode step"] = (took.pop("of the language model") - took["of the prefill"]) / (TOKENS - 1)
        for stage, milli in took.items():
            bench.tell(part, f"{name}: milliseconds {stage}", milli)
        if bench.cuda:
            rate = images_per_second(loop, many, ahead=True)
            bench.tell(part, f"{name}, next batch seen meanwhile: images/s", rate)
            if batch == bench.loops[-1]:
                work = functools.partial(images_per_second, loop, many[:4], ahead=True)
                tell_profile(
                    bench, part, f"{name}, next batch seen meanwhile", profiled(work, {}, bench.device)
                )


def compiled_prototype(bench: Bench) -> None:
    """Part g: first the vision tower and the Q-Former compiled, then the language model too; a decode step
    stays a graph.
    """
    if not bench.cuda:
        bench.tell("g", "torch.compile", "left out on a CPU")
        return
    model, batch = bench.model.model, bench.loops[-1]
    several = [model.vision_model, model.qformer], [model.language_model]
    try:
        for modules, name in zip(several, (", vision compiled", ", all compiled"), strict=True):
            if bench.left() < 70:
                bench.tell("g", f"torch.compile{name}", "no time left")
                break
            began = time.monotonic()
            for module in modules:
                module.compile(dynamic=False)
            variants(bench, "g", batch, name)
            bench.tell("g", f"seconds{name}, compilation included", time.monotonic() - began)
    finally:
        for module in (*several[0], *several[1]):
            module._compiled_call_impl = None
