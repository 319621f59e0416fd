"""Parts e and g of benchmarks/gpu.py: `embed train` on a GPU."""

from __future__ import annotations

import cProfile
import pstats
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import accelerate
from accelerate.state import AcceleratorState
from gpu_bench import Bench, TrainOptions, tell_profile, training
from gpu_clock import in_place_of, profiled
from transformers import BertConfig, BertModel
from worker import word_tokenizer


def embed_training(bench: Bench) -> None:
    """Part e."""
    folder = bench.folder("export") / "out"
    small = TrainOptions(every=1_000_000, validation=0.0)
    kinds = {"n-grams alone, batch 256": small, "n-grams alone, batch 1024": replace(small, batch=1024)}
    if bench.toy:
        kinds = {"n-grams alone, batch 32": replace(small, batch=32)}
    encoder = str(random_encoder(bench.work / "encoder", small=bench.toy))
    kinds |= {
        name.replace("n-grams alone", "encoder of MiniLM's sizes fine-tuned"): replace(
            options, encoder=encoder
        )
        for name, options in kinds.items()
    }
    for name, options in kinds.items():
        few = bench.toy or options.trains_encoder
        for precision, workers in (("bf16", 1), ("no", 1), ("bf16", 8))[: 2 if few else 3]:
            if bench.left() < 25:
                print("no time for more trainings", flush=True)
                return
            rate = train_rate(bench, folder, options, precision, workers)
            dtype = "bfloat16" if precision == "bf16" else "float32"
            bench.tell("e", f"{name}, {dtype}, workers {workers}: pairs/s", rate)


def random_encoder(folder: Path, *, small: bool) -> Path:
    """Writes an encoder of the sizes of all-MiniLM-L6-v2 with random weights: it computes as long as that."""
    tokeniser = word_tokenizer(30_500)
    sizes = {"hidden_size": 384, "num_hidden_layers": 6, "num_attention_heads": 12, "intermediate_size": 1536}
    if small:
        sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64}
    BertModel(BertConfig(vocab_size=len(tokeniser), **sizes)).save_pretrained(folder)
    tokeniser.save_pretrained(folder)
    return folder


def recorded_training(bench: Bench) -> None:
    """Part g."""
    folder = bench.folder("export") / "out"
    options = TrainOptions(every=1_000_000, validation=0.0, batch=32 if bench.toy else 256)
    zones, moments = dict[str, list[tuple[int, int]]](), dict[int, int]()
    calls = cProfile.Profile()

    def on_step(done: int) -> None:
        if done == 5:
            calls.enable()

    def work() -> None:
        train_rate(bench, folder, options, "no", 1, 25, moments.__setitem__)
        zones["all"] = [(moments[5], moments[max(moments)])]

    found = profiled(work, zones, bench.device)
    tell_profile(bench, "g", f"embed train, n-grams alone, batch {options.batch}, float32", found)
    bench.tell("g", "kernels of 25 steps and their start", found.kernels)
    rate = train_rate(bench, folder, replace(options, seed=1), "no", 1, 25, lambda done, when: on_step(done))
    calls.disable()
    bench.tell("g", "pairs/s while the interpreter's calls are counted", rate)
    pstats.Stats(calls).sort_stats("tottime").print_stats(14)


def train_rate(
    bench: Bench,
    folder: Path,
    options: TrainOptions,
    precision: str,
    workers: int,
    steps: int = 40,
    on_done: Callable[[int, int], object] = lambda done, when: None,
) -> float:
    """pairs/s of the steps after the first fifth; `on_done` (steps, time.time_ns()) after each."""
    moments = dict[int, float]()
    steps = min(steps, 12) if bench.toy else steps
    kind = "encoder" if options.trains_encoder else "n-grams"
    out = bench.work / f"trained {kind} {options.batch} {precision} {workers} {steps} {options.seed}"

    def on_step(what: str, done: int, total: int) -> None:
        if what == "training":
            moments.setdefault(done, time.perf_counter())
            on_done(done, time.time_ns())

    class Accelerator(accelerate.Accelerator):  # type: ignore[misc]
        def __init__(self, **named: Any):
            super().__init__(**(named | {"mixed_precision": precision}))

    AcceleratorState._reset_state(reset_partial_state=True)  # one process, several precisions
    with in_place_of(accelerate, "Accelerator", Accelerator):
        found = training.train(
            folder,
            out,
            options,
            workers=workers,
            device=None if bench.cuda else "cpu",
            on_step=on_step,
            stop_after=steps,
        )
    done = max(moments)
    return (done - done // 5) * found["pairs"] / found["steps"] / (moments[done] - moments[done // 5])
