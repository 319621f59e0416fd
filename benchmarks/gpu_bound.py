"""What a device could do at best with BLIP-2 of OPT-2.7B's configuration, from rates that are measured on it
now.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from gpu_clock import milliseconds

# GFLOP an image at 224 px, by torch's own count of the modules (FACTS, section 9): with 20 new tokens 19
# decode steps.
VISION, QFORMER, PREFILL, DECODE_STEP = 521.0, 13.0, 166.0, 5.3
LANGUAGE_MODEL_BYTES = 2 * 2.65e9  # of weights that each decode step reads once for the whole batch
CACHE_BYTES = 2 * 2 * 2560 * 32  # keys and values of one token in bfloat16, 32 layers
PROMPT = 33  # tokens: 32 of the picture and one that begins
PATCHES, WIDTH, INNER = 257, 1408, 6144  # of the vision tower


def measure(
    device: str, batch: int, batches: list[int], toy: bool, tokens: int
) -> Iterator[tuple[str, float]]:
    """(what, figure), the bounds last; matrices of random numbers, for zeros are multiplied faster."""
    dtype = torch.bfloat16 if device != "cpu" else torch.float32
    rows, shrink = (PATCHES * batch, 1) if not toy else (64, 16)
    flops = spent = 0.0
    for inner, outer in ((WIDTH, 3 * WIDTH), (WIDTH, WIDTH), (WIDTH, INNER), (INNER, WIDTH)):
        left = torch.randn(rows, inner // shrink, device=device, dtype=dtype)
        right = torch.randn(outer // shrink, inner // shrink, device=device, dtype=dtype)
        took = milliseconds(lambda: torch.nn.functional.linear(left, right), device) / 1000  # noqa: B023
        work = 2.0 * rows * left.shape[1] * right.shape[0]
        yield (
            f"TFLOP/s in {dtype}, [{rows}, {left.shape[1]}] x [{left.shape[1]}, {right.shape[0]}]",
            work / took / 1e12,
        )
        flops, spent = flops + work, spent + took
    rate = flops / spent
    yield "TFLOP/s, the four together", rate / 1e12
    heads = torch.randn(3, batch, 16, PATCHES, WIDTH // 16, device=device, dtype=dtype)
    took = milliseconds(lambda: torch.nn.functional.scaled_dot_product_attention(*heads), device)
    yield f"milliseconds of the vision tower's attention in one of 39 layers, batch {batch}", took
    size = 1 << (22 if toy else 31)
    one, other = (torch.empty(size, dtype=torch.uint8, device=device) for _ in range(2))
    one.random_()
    bandwidth = 2 * size / milliseconds(lambda: other.copy_(one), device) * 1000
    yield "device to device, TB/s, bytes read and written", bandwidth / 1e12
    pixels = torch.randint(0, 256, (batch, 224, 224, 3), dtype=torch.uint8)
    buffer = torch.empty_like(pixels, device=device)
    kinds = {"unpinned": pixels} | ({"pinned": pixels.pin_memory()} if device != "cpu" else {})
    for kind, source in kinds.items():
        took = milliseconds(lambda: buffer.copy_(source, non_blocking=True), device)  # noqa: B023
        yield f"host to device, {kind}, GB/s, a batch of {batch} pictures", pixels.numel() / took / 1e6
    steps, length = tokens - 1, PROMPT + tokens / 2
    for n in batches:
        arithmetic = 1e9 * (VISION + QFORMER + PREFILL) / rate * n
        read = (LANGUAGE_MODEL_BYTES + CACHE_BYTES * length * n) / bandwidth
        step = max(1e9 * DECODE_STEP * n / rate, read)
        yield f"least milliseconds of a decode step by these rates, batch {n}", 1000 * step
        yield f"bound on images/s by these rates, batch {n}", n / (arithmetic + steps * step)
