"""Parts f and h of benchmarks/gpu.py: the model alone, from decoded pictures in host memory to texts, and the
attention of one new token.
"""

from __future__ import annotations

import functools
import itertools
import time
from collections import deque
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from gpu_bench import TOKENS, Bench, Decoding, blip2, find_checkpoint, graph, picture, tell_profile
from gpu_clock import in_place_of, milliseconds, profiled

FORCED = Decoding(TOKENS, TOKENS)


def model_alone(bench: Bench) -> None:
    """Part f."""
    builtin = with_graphs(blip2.Blip2(find_checkpoint("builtin"), bench.device, "float32"))
    drawn = [picture(path, builtin.picture_size) for path in sorted(bench.folder("plain").iterdir())[:64]]
    for name, prompts in (("", [""]), (", mixed prompts", ["", "a photo of", "a drawing of a thing on"])):
        some = [prompts[i % len(prompts)] for i in range(len(drawn))]
        differ, _ = differing(builtin, np.stack(drawn), some, Decoding())
        what = f"built-in checkpoint, float32{name}: captions of {len(drawn)} whose tokens are not generate's"
        bench.tell("f", what, differ)
    del builtin
    for batch in bench.loops:
        if bench.left() < 40:
            print(f"no time for batch {batch}", flush=True)
            return
        differ, halves = differing(bench.model, bench.batch(batch), [""] * batch, FORCED)
        name = f"full size, {bench.dtype}, of {batch} captions those whose tokens are not generate's"
        bench.tell("f", f"{name}: ours", differ)
        bench.tell("f", f"{name}: generate with half the batch", halves)
        rates(bench, batch)
        bench.model._graphs.forget()
        bench.free()


def with_graphs(model: Any) -> Any:
    """On a CPU, too, so that the code of a GPU runs at toy size."""
    if model._graphs is None:
        model._graphs, model.ahead = graph.Graphs(model.model.language_model), 2
    return model


def generated(model: Any, pixels: np.ndarray, prompts: list[str], decoding: Decoding) -> torch.Tensor:
    """The new tokens by transformers' generate, filled up, on the CPU."""
    ids, mask = (t.to(model.device) for t in model.input_ids(prompts))
    values = model.pixel_values(pixels).to(model.model.dtype)
    ends = {"eos_token_id": model.end_tokens, "pad_token_id": model.pad_token}
    with torch.inference_mode():
        new = model.model.generate(
            values, input_ids=ids, attention_mask=mask, **decoding.parameters(), **ends
        )[:, ids.shape[1] :]
    return torch.nn.functional.pad(
        new, (0, decoding.max_new_tokens - new.shape[1]), value=model.pad_token
    ).cpu()


def differing(model: Any, pixels: np.ndarray, prompts: list[str], decoding: Decoding) -> tuple[int, int]:
    """Captions whose tokens are not those of generate: ours, and generate's of batches of half the size."""
    for _ in range(3):  # the second one is recorded as a graph, the third has a cache full of others
        ours = model.write(model.see(pixels), prompts, decoding)
    theirs, half = generated(model, pixels, prompts, decoding), len(pixels) // 2
    halves = torch.cat(
        [
            generated(model, pixels[:half], prompts[:half], decoding),
            generated(model, pixels[half:], prompts[half:], decoding),
        ]
    )
    return int((ours != theirs).any(1).sum()), int((halves != theirs).any(1).sum())


def rates(bench: Bench, batch: int) -> None:
    """images/s with and without the next batch in the model, and what the stages take."""
    model, pictures = bench.model, list(bench.batch(batch))
    once = batch / images_per_second(model, [pictures])
    many = [pictures] * max(3, round(bench.seconds / once))
    name = f"the model alone, batch {batch}"
    bench.tell("f", f"{name}: images/s from pixels in host memory to texts", images_per_second(model, many))
    seen = model.see(pictures)
    ids, mask = (t.to(bench.device) for t in model.input_ids([""] * batch))
    embeddings = model.model.get_input_embeddings()(ids)
    embeddings = embeddings.masked_scatter((ids == model._image_token).unsqueeze(-1), seen.features)
    shape = list(model._graphs._shapes.values())[-1]
    stages: dict[str, Callable[[], object]] = {
        "to see": lambda: model.see(pictures),
        "of the prefill": lambda: shape._begin(embeddings.detach(), mask),
        "to write": lambda: model.write(seen, [""] * batch, FORCED),
    }
    took: dict[str, float] = {}
    with torch.inference_mode():
        for stage, work in stages.items():
            took[stage] = milliseconds(work, bench.device, 2 if bench.toy else 8, 1)
    took["of a decode step"] = (took.pop("to write") - took["of the prefill"]) / (TOKENS - 1)
    for stage, milli in took.items():
        bench.tell("f", f"{name}: milliseconds {stage}", milli)
    if batch == bench.loops[-1]:
        work = functools.partial(images_per_second, model, many[:4])
        tell_profile(bench, "f", name, profiled(work, {}, bench.device))
        if model._graphs.attention_is_ours:
            model._graphs.forget()
            with in_place_of(model._graphs, "attention_is_ours", False):
                images_per_second(model, [pictures] * 3)
                rate = images_per_second(model, many)
            bench.tell("f", f"{name}, torch's attention: images/s", rate)
            model._graphs.forget()


def images_per_second(model: Any, batches: list[list[np.ndarray]]) -> float:
    """As the worker does: `ahead` later batches have begun when one is ended."""
    began, begun = time.perf_counter(), deque[Any]()
    for pictures in batches:
        begun.append(model.begin(pictures, [""] * len(pictures), FORCED))
        if len(begun) > model.ahead:
            end_first(begun)
    while begun:
        end_first(begun)
    return sum(map(len, batches)) / (time.perf_counter() - began)


def end_first(begun: deque[Any]) -> None:
    begun.popleft().texts()
    if begun:
        begun[0].start()


def attention(bench: Bench) -> None:
    """Part h: heads and widths of OPT-2.7B. Several layers, so that nothing stays near the chip."""
    heads, width = (4, 16) if bench.toy else (32, 80)
    ways: dict[str, Callable[..., torch.Tensor]] = {"torch": by_torch}
    if bench.cuda:
        from pincaption.captioner.decode_attention import attend

        ways["ours"] = attend
    for captions, places in ((2, 8),) if bench.toy else ((64, 56), (256, 56), (512, 56), (256, 152)):
        size = 4 * captions * heads * places * width
        layers = 1 if bench.toy else max(2, round(1.2e9 / size))
        of: dict[str, Any] = {"device": bench.device, "dtype": getattr(torch, bench.dtype)}
        keys, values = torch.randn(2, layers, captions, heads, places, width, **of)
        query = torch.randn(captions, heads, 1, width, **of) * width**-0.5
        visible = torch.ones(captions, places, dtype=torch.bool, device=bench.device)
        pairs = itertools.cycle(zip(keys, values, strict=True))
        for name, way in ways.items():
            once = functools.partial(lambda way, *given: way(given[0], *next(given[1]), given[2], 1.0), way)
            milli = milliseconds(functools.partial(once, query, pairs, visible), bench.device, 50, 5)
            what = f"attention of one token, {captions} captions, {places} places, {name}"
            bench.tell("h", f"{what}: milliseconds", milli)
            bench.tell("h", f"{what}: TB/s", size / milli / 1e9)


def by_torch(
    query: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, visible: torch.Tensor, scaling: float
) -> torch.Tensor:
    return torch.nn.functional.scaled_dot_product_attention(
        query, keys, values, attn_mask=visible[:, None, None], scale=scaling
    )
