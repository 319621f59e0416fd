"""Parts a to d of benchmarks/gpu.py: `captioner run` on a GPU, and what the GPU could do."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from datetime import datetime
from typing import Any

import gpu_bound
import torch
from gpu_bench import (
    TOKENS,
    Bench,
    Claims,
    Decoding,
    Fetcher,
    Options,
    checks,
    graph,
    run,
    tell_profile,
    worker,
)  # fmt: skip
from gpu_clock import Load, Stages, in_place_of, profiled


def same_captions(bench: Bench) -> None:
    """Part a."""
    texts: dict[str, dict[str, str]] = {}
    gpu = bench.device
    for device, dtype in (("cpu", "float32"), (gpu, "float32"), (gpu, "bfloat16"), (gpu, "float16")):
        name = f"{'CPU' if device == 'cpu' and not texts else gpu.partition(':')[0].upper()} {dtype}"
        name += " again" if name in texts else ""
        conn = bench.store(f"plain {name}", "plain")
        result = run(conn, Options(model="builtin", device=device, dtype=dtype, batch_size=64))
        texts[name] = dict(
            map(tuple, conn.execute("SELECT pin_id, text FROM captions WHERE status = 'ok'").fetchall())
        )
        right = sum(f" {text}." in pin for pin, text in texts[name].items())
        bench.tell("a", f"{name}: exact captions of {result.selected} drawn pictures", right)
        bench.tell("a", f"{name}: images/s, start included", result.images_per_second)
    reference = texts.pop("CPU float32")
    for name, found in texts.items():
        differ = sum(found.get(pin) != text for pin, text in reference.items())
        bench.tell("a", f"{name}: captions that differ from CPU float32, of {len(reference)}", differ)


def end_to_end(bench: Bench) -> None:
    """Part b."""
    model, decoding = bench.model, Decoding(TOKENS, TOKENS)
    conn = bench.store("full", "pictures")
    began = time.monotonic()
    bench.captioned(conn, 2, 2)
    bench.tell(
        "b",
        "seconds of a first run of two pictures (digest of the checkpoint included)",
        time.monotonic() - began,
    )
    for batch in bench.batches:
        if bench.left() < 60:
            print(f"no time for batch {batch}", flush=True)
            continue
        some = bench.batch(batch)
        model.caption(some, [""] * batch, decoding)  # warms up, and shows how long a batch takes
        began = time.perf_counter()
        model.caption(some, [""] * batch, decoding)
        limit = batch * max(5, round(bench.seconds / (time.perf_counter() - began)))
        if bench.cuda:
            torch.cuda.reset_peak_memory_stats()
        rate = measured_run(bench, conn, batch, limit)
        bench.rates[batch] = rate
        if bench.cuda:
            peak = torch.cuda.max_memory_allocated()
            bench.tell("b", f"batch {batch}: peak GPU memory, GB", peak / 1e9)
        if rate >= max(bench.rates.values()):
            bench.best_batch, bench.peak = batch, torch.cuda.max_memory_allocated() if bench.cuda else 0
    batch = bench.best_batch
    for workers in (4,) if bench.toy else (6, 8):
        if bench.left() < 40:
            print(f"no time for {workers} reading threads", flush=True)
            continue
        batches = max(4 if bench.toy else 9, round(bench.seconds * bench.rates[batch] / batch))
        measured_run(bench, conn, batch, batch * batches, workers, f", {workers} reading threads")
    for batch in dict.fromkeys((bench.batches[0] if bench.toy else 16, bench.best_batch)):
        bench.tell("b", f"bare generate, tensors ready, batch {batch}: images/s", bare(bench, batch))
    idle_time(bench, conn)


def measured_run(
    bench: Bench, conn: Any, batch: int, limit: int, workers: int | None = None, how: str = ""
) -> float:
    """images/s of `captioner run` between its first and its last commit, and where the time went."""
    model, marks = bench.model, list[tuple[int, float]]()
    parts = {
        "fetch": [(Fetcher, "fetch")],
        "decode": [(worker, "decode")],
        "copy and normalise": [(model, "pixel_values")],
        "prefill": [(graph._Shape, "_begin")],
        "decode steps": [(graph._Shape, "_step_on")],
        "to begin": [(model, "begin")],
        "to write, and to wait for the GPU": [(model, "start"), (graph.Writing, "end")],
        "words": [(model.tokenizer, "batch_decode")],
        "checks": [(checks, "check")],
        "store, commit": [(Claims, "commit")],
        "store, claim": [(Claims, "claim")],
        "store, known captions": [(Claims, "known")],
    }
    load = Load(bench.device)
    with Stages(bench.device, model.model, parts) as stages, load:
        result = bench.captioned(conn, batch, limit, marks, workers)
    steady = [mark for mark in marks if mark[0]]
    # When the first commit comes, later batches have begun; when the last one comes, none.
    steady = steady[: max(2, len(steady) - model.ahead)]
    (first, began), (last, ended) = steady[0], steady[-1]
    rate = (last - first) / max(ended - began, 1e-9)
    done = result.captioned + result.rejected + result.failed + result.shared
    name = f"batch {batch}{how}"
    bench.tell("b", f"{name}: images/s from files into the store, steady, {ended - began:.1f} s", rate)
    bench.tell("b", f"{name}: images/s, start and end included, {done} pictures", result.images_per_second)
    bench.tell("b", f"{name}: failed, shared (both should be 0)", f"{result.failed}, {result.shared}")
    s, wall = stages.seconds, result.seconds
    on_device = ("copy and normalise", "vision", "Q-Former", "prefill", "decode steps")
    for stage in on_device:
        bench.tell("b", f"{name}: {stage}, of the GPU's time", f"{100 * s[stage] / wall:.1f}%")
    of_host = (
        "to begin",
        "to write, and to wait for the GPU",
        "words",
        "checks",
        "store, commit",
        "store, claim",
        "store, known captions",
    )
    s["to wait for pictures, and the rest"] = wall - sum(s[stage] for stage in of_host)
    for stage in (*of_host, "to wait for pictures, and the rest"):
        bench.tell("b", f"{name}: {stage}, of the main thread's time", f"{100 * s[stage] / wall:.1f}%")
    threads = workers or max(2, min(16, os.cpu_count() or 2))
    for stage in ("fetch", "decode"):
        milli = 1000 * s[stage] / max(stages.calls[stage], 1)
        bench.tell("b", f"{name}: {stage}, milliseconds a picture in one of {threads} threads", milli)
    bench.tell("b", f"{name}: threads busy", f"{100 * (s['fetch'] + s['decode']) / threads / wall:.1f}%")
    if load.busy is not None:
        bench.tell("b", f"{name}: GPU idle by NVML utilisation", f"{100 - 100 * load.busy:.1f}%")
    return rate


def bare(bench: Bench, batch: int) -> float:
    """images/s of the library's generate on tensors that are on the device already."""
    model = bench.model
    ids, mask = (t.to(bench.device) for t in model.input_ids([""] * batch))
    values = model.pixel_values(bench.batch(batch)).to(model.model.dtype)
    parameters = Decoding(TOKENS, TOKENS).parameters() | {
        "eos_token_id": model.end_tokens,
        "pad_token_id": model.pad_token,
    }

    def once() -> None:
        with torch.inference_mode():
            model.model.generate(values, input_ids=ids, attention_mask=mask, **parameters).cpu()

    once()
    began, n = time.perf_counter(), 0
    while time.perf_counter() - began < 0.7 * bench.seconds:
        once()
        n += batch
    return n / (time.perf_counter() - began)


def idle_time(bench: Bench, conn: Any) -> None:
    """Every kernel of some batches recorded: how long does the GPU have nothing to do?"""
    model, batch, moments = bench.model, bench.best_batch, list[int]()
    inner = model.start

    def written(*arguments: Any) -> Any:
        moments.append(time.time_ns())
        return inner(*arguments)

    zones: dict[str, list[tuple[int, int]]] = {}

    def work() -> None:
        bench.captioned(conn, batch, 7 * batch)
        zones["all"] = [(moments[1], moments[-1])]

    with in_place_of(model, "start", written):
        name = f"batch {batch}, five batches recorded"
        tell_profile(bench, "b", name, profiled(work, zones, bench.device))
    del model.start


def bound(bench: Bench) -> None:
    """Part c."""
    for what, figure in gpu_bound.measure(bench.device, bench.best_batch, bench.batches, bench.toy, TOKENS):
        bench.tell("c", what, figure)
        batch = int(what.rpartition(" ")[2]) if what.startswith("bound") else 0
        if batch in bench.rates:
            name = f"share of the bound that captioner run reaches, batch {batch}"
            bench.tell("c", name, f"{100 * bench.rates[batch] / figure:.1f}%")


def together_and_too_large(bench: Bench) -> None:
    """Part d."""
    batch, conn = bench.best_batch, bench.store("full", "pictures")
    model = bench.model
    if bench.cuda:
        if not bench.peak:  # part b was left out
            model.caption(bench.batch(batch), [""] * batch, Decoding(TOKENS, TOKENS))
            bench.peak = torch.cuda.max_memory_allocated()
        weights = sum(p.numel() * p.element_size() for p in model.model.parameters())
        allowed = weights + 0.4 * (bench.peak - weights)
        bench.free()
        torch.cuda.set_per_process_memory_fraction(allowed / torch.cuda.get_device_properties(0).total_memory)
    sizes: list[int] = []
    inner = model.see

    def see(pictures: Any) -> Any:
        sizes.append(len(pictures))
        if not bench.cuda and len(pictures) > batch // 2:
            raise MemoryError  # at toy size nothing is too large
        return inner(pictures)

    model._graphs.forget()
    try:
        with in_place_of(model, "see", see):
            result = bench.captioned(conn, batch, 2 * batch)
    finally:
        del model.see
        if bench.cuda:
            torch.cuda.set_per_process_memory_fraction(1.0)
    done = result.captioned + result.rejected
    bench.tell(
        "d",
        f"too large a batch ({batch}, memory limited for it): sizes tried",
        ", ".join(map(str, dict.fromkeys(sizes))),
    )
    bench.tell(
        "d", "too large a batch: pictures captioned, failed", f"{done} of {result.selected}, {result.failed}"
    )
    bench.free()
    two_processes(bench, conn, batch)


def two_processes(bench: Bench, conn: Any, batch: int) -> None:
    batches = round(0.7 * bench.seconds * (bench.rates.get(batch) or 200) / batch)
    limit = batch if bench.toy else batch * max(8, batches)  # of each process
    command = [sys.executable, "-m", "pincaption.cli", "run", str(bench.work / "full.db"), "--json"]
    choices = {"model": bench.checkpoint, "dtype": bench.dtype, "device": bench.device, "limit": limit}
    choices |= {"batch-size": batch, "min-new-tokens": TOKENS, "max-new-tokens": TOKENS}
    for name, value in choices.items():
        command += [f"--{name}", str(value)]
    before = conn.execute("SELECT coalesce(max(run_id), 0) FROM runs").fetchone()[0]
    load = Load(bench.device)
    with load:
        processes = [
            subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
            for _ in range(2)
        ]
        try:
            outputs = [process.communicate(timeout=max(30, bench.left())) for process in processes]
        finally:
            for process in processes:
                process.kill()  # nothing to one that has ended
    if any(process.returncode for process in processes):
        raise RuntimeError(" | ".join(errors.strip()[-200:] for _, errors in outputs))
    each = [json.loads(output) for output, _ in outputs]
    rows = conn.execute("SELECT run_id, updated_at FROM captions WHERE run_id > ?", [before]).fetchall()
    moments: dict[int, list[float]] = {}
    for row in rows:
        moments.setdefault(row["run_id"], []).append(datetime.fromisoformat(row["updated_at"]).timestamp())
    first, last = max(map(min, moments.values())), min(map(max, moments.values()))
    n = sum(first < moment <= last for some in moments.values() for moment in some)
    each_rate = ", ".join(f"{result['images_per_second']:.1f}" for result in each)
    bench.tell("d", f"two processes, batch {batch}: images/s of each, start included", each_rate)
    rate = n / (last - first) if last > first else "one ended before the other began"
    name = f"two processes, batch {batch}: images/s of both while both ran, {last - first:.1f} s"
    bench.tell("d", name, rate)
    if load.busy is not None:
        bench.tell(
            "d",
            "two processes: GPU idle by NVML utilisation, start included",
            f"{100 - 100 * load.busy:.1f}%",
        )
    twice = conn.execute(
        "SELECT count(*) FROM captions WHERE run_id > ? AND attempts > 1", [before]
    ).fetchone()[0]
    bench.tell("d", "two processes: pins captioned by both (should be 0)", twice)
