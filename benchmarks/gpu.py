"""What captioning and training do on a GPU: one command, no download, every figure printed as it is had, a table last.

    python benchmarks/gpu.py --minutes 7                 all parts
    python benchmarks/gpu.py --minutes 3 --parts b,f     some
    python benchmarks/gpu.py --toy                       the same code on a CPU in a minute, at toy size

a  captions of the built-in checkpoint: the same on the GPU as on the CPU?
b  full-size BLIP-2 (the configuration of blip2-opt-2.7b, random bfloat16 weights, 20 new tokens) from files of 700 px into
   the store: images/s by batch size, the share of each stage, how long the GPU idles; beside it bare `generate`
c  what the device could do: its matrix rate on the vision tower's shapes, its copy rates, the images/s that they allow
d  two processes on one GPU; a batch that is too large for the memory
e  `embed train`: pairs/s in bfloat16 and float32
f  a prototype of the fast path (gpu_loop.py): images/s, and whether its tokens are those of `generate`
g  the same with torch.compile, which takes minutes to compile
h  what the GPU and the interpreter do during steps of `embed train`

A part that fails prints one line, and the others go on. The weights of b, d, f and g are random: captions are no words.
"""

from __future__ import annotations

import argparse
import cProfile
import json
import os
import pstats
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

BEGAN = time.monotonic()  # torch takes seconds to import: data are made meanwhile
HERE = Path(__file__).parent


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=7)
    parser.add_argument("--parts", default="a,b,c,d,e,f,g,h")
    parser.add_argument("--toy", action="store_true")
    parser.add_argument("--batches", help="batch sizes of b, comma-separated")
    parser.add_argument("--loops", help="batch sizes of f and g, comma-separated")
    parser.add_argument("--seconds", type=float, default=11, help="of steady work that a figure is taken from")
    parser.add_argument("--work", type=Path, help="folder that the files are made in, and stay in")
    return parser.parse_args()


def make_data(work: Path, chosen: argparse.Namespace) -> subprocess.Popen[bytes]:
    toy = chosen.toy
    wanted = {
        "plain": (12 if toy else 400, "af"),
        "pictures": (80 if toy else round(28_000 * chosen.seconds / 11), "bdfg"),
        "export": (400 if toy else 20_000, "eh"),
    }
    amounts = [f"--{name}={n}" for name, (n, users) in wanted.items() if set(users) & set(chosen.parts)]
    return subprocess.Popen([sys.executable, str(HERE / "gpu_data.py"), str(work), *amounts])


if __name__ == "__main__":
    CHOSEN = arguments()
    WORK = CHOSEN.work or Path(tempfile.mkdtemp(prefix="captioner-gpu-"))
    WORK.mkdir(parents=True, exist_ok=True)
    if CHOSEN.toy:
        os.environ["OMP_NUM_THREADS"] = "1"  # small tensors, and a machine that may be busy
    DATA = make_data(WORK, CHOSEN)

import accelerate
import full_size
import gpu_bound
import numpy as np
import torch
from accelerate.state import AcceleratorState
from gpu_clock import Load, Profile, Stages, in_place_of, milliseconds, profiled
from gpu_loop import Loop, images_per_second

from pincaption.captioner import blip2, checks, decode, fetch, worker
from pincaption.captioner.checkpoint import find_checkpoint
from pincaption.captioner.run import Options, run
from pincaption.embed import towers, training
from pincaption.store import open_store
from pincaption.store.captions import Queue
from pincaption.store.ingest import ingest_images

TOKENS = 20  # new tokens of each caption, forced
ZONES = ("copy, vision, Q-Former, prefill", "decode steps and words", "the time between batches")


def numbers(text: str | None) -> list[int]:
    return [int(n) for n in text.split(",")] if text else []


def picture(path: Path, size: tuple[int, int] = (224, 224)) -> np.ndarray:
    return np.asarray(decode.decode(path.read_bytes(), size))


class Bench:
    """What the parts share: the device, the time left, the loaded model, and the figures so far."""

    def __init__(self, work: Path, data: subprocess.Popen[bytes], chosen: argparse.Namespace):
        self.work, self.data, self.toy = work, data, chosen.toy
        self.ends = BEGAN + 60 * chosen.minutes
        self.device = "cuda:0" if torch.cuda.is_available() and not chosen.toy else "cpu"
        self.cuda = self.device != "cpu"
        self.dtype = "bfloat16" if self.cuda else "float32"
        self.batches = numbers(chosen.batches) or ([2, 4] if self.toy else [64, 128, 256, 512])
        self.loops = numbers(chosen.loops) or ([4] if self.toy else [64, 128, 256])
        self.seconds = 0.1 if self.toy else chosen.seconds
        self.figures: list[tuple[str, str, str]] = []
        self.best_batch, self.rates = self.batches[len(self.batches) // 2], dict[int, float]()
        self.peak = 0  # bytes of GPU memory that a batch of the best size took
        self._model: Any = None
        self._pixels: Any = None

    def left(self) -> float:
        return self.ends - time.monotonic()

    def tell(self, part: str, what: str, figure: float | str) -> None:
        text = figure if isinstance(figure, str) else f"{figure:,.0f}" if abs(figure) >= 1000 else f"{figure:.4g}"
        self.figures.append((part, what, text))
        print(f"{time.monotonic() - BEGAN:6.1f} s  {part}  {what}: {text}", flush=True)

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
            self.tell("b", "seconds to load it onto the device (files in the page cache)", time.monotonic() - began)
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

    def captioned(self, conn: Any, batch: int, limit: int, marks: list[tuple[int, float]] | None = None,
                  workers: int | None = None) -> Any:  # fmt: skip
        """`captioner run` with the model that is loaded; `marks` gets (done, when) after each commit."""
        options = Options(model=str(self.checkpoint), batch_size=batch, limit=limit, dtype=self.dtype, device=self.device,
                          min_new_tokens=TOKENS, max_new_tokens=TOKENS, workers=workers)  # fmt: skip
        note = [] if marks is None else marks
        with in_place_of(blip2, "Blip2", lambda *_: self.model):
            return run(conn, options, on_batch=lambda done, total, size: note.append((done, time.perf_counter())))


def same_captions(bench: Bench) -> None:
    """Part a."""
    texts: dict[str, dict[str, str]] = {}
    gpu = bench.device
    for device, dtype in (("cpu", "float32"), (gpu, "float32"), (gpu, "bfloat16"), (gpu, "float16")):
        name = f"{'CPU' if device == 'cpu' and not texts else gpu.partition(':')[0].upper()} {dtype}"
        name += " again" if name in texts else ""
        conn = bench.store(f"plain {name}", "plain")
        result = run(conn, Options(model="builtin", device=device, dtype=dtype, batch_size=64))
        texts[name] = dict(map(tuple, conn.execute("SELECT pin_id, text FROM captions WHERE status = 'ok'").fetchall()))
        right = sum(f" {text}." in pin for pin, text in texts[name].items())
        bench.tell("a", f"{name}: exact captions of {result.selected} drawn pictures", right)
        bench.tell("a", f"{name}: images/s, start included", result.images_per_second)
    reference = texts.pop("CPU float32")
    for name, found in texts.items():
        differ = sum(found.get(pin) != text for pin, text in reference.items())
        bench.tell("a", f"{name}: captions that differ from CPU float32, of {len(reference)}", differ)


def end_to_end(bench: Bench) -> None:
    """Part b."""
    model, decoding = bench.model, blip2.Decoding(TOKENS, TOKENS)
    conn = bench.store("full", "pictures")
    began = time.monotonic()
    bench.captioned(conn, 2, 2)
    bench.tell("b", "seconds of a first run of two pictures (digest of the checkpoint included)", time.monotonic() - began)
    for batch in bench.batches:
        if bench.left() < 60:
            print(f"no time for batch {batch}", flush=True)
            continue
        some = bench.batch(batch)
        model.caption(some, [""] * batch, decoding)  # warms up, and shows how long a batch takes
        began = time.perf_counter()
        model.caption(some, [""] * batch, decoding)
        limit = batch * max(3, round(bench.seconds / (time.perf_counter() - began)))
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
    for name, workers, interval in (("4 reading threads", 4, 0.005), ("interpreter's switch interval 0.2 ms", None, 0.0002)):
        with in_place_of_switch_interval(interval):
            limit = batch * max(3, round(0.6 * bench.seconds * bench.rates.get(batch, 0) / batch))
            measured_run(bench, conn, batch, limit, workers, f", {name}")
    for batch in dict.fromkeys((bench.batches[0] if bench.toy else 16, bench.best_batch)):
        bench.tell("b", f"bare generate, tensors ready, batch {batch}: images/s", bare(bench, batch))
    idle_time(bench, conn)


@contextmanager
def in_place_of_switch_interval(seconds: float) -> Iterator[None]:
    """How long a thread may hold the interpreter's lock while others wait for it; Python's own is 5 ms."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(seconds)
    try:
        yield
    finally:
        sys.setswitchinterval(before)


def measured_run(bench: Bench, conn: Any, batch: int, limit: int, workers: int | None = None, how: str = "") -> float:
    """images/s of `captioner run` between its first and its last commit, and where the time went."""
    model, marks = bench.model, list[tuple[int, float]]()
    parts = {
        "fetch": [(fetch.Fetcher, "fetch")],
        "decode": [(worker, "decode")],
        "copy and normalise": [(model, "pixel_values")],
        "caption": [(model, "caption")],
        "words": [(model.tokenizer, "batch_decode")],
        "checks": [(checks, "check")],
        "store, commit": [(Queue, "commit")],
        "store, claim": [(Queue, "claim")],
        "store, known captions": [(Queue, "known")],
    }
    load = Load(bench.device)
    with Stages(bench.device, model.model, parts) as stages, load:
        result = bench.captioned(conn, batch, limit, marks, workers)
    steady = [mark for mark in marks if mark[0]]
    (first, began), (last, ended) = steady[0], steady[-1]
    rate = (last - first) / max(ended - began, 1e-9)
    done = result.captioned + result.rejected + result.failed + result.shared
    name = f"batch {batch}{how}"
    bench.tell("b", f"{name}: images/s from files into the store, steady, {ended - began:.1f} s", rate)
    bench.tell("b", f"{name}: images/s, start and end included, {done} pictures", result.images_per_second)
    bench.tell("b", f"{name}: failed, shared (both should be 0)", f"{result.failed}, {result.shared}")
    s, wall = stages.seconds, result.seconds
    inner = ("copy and normalise", "vision", "Q-Former", "prefill", "decode steps", "words")
    s["between steps"] = s["caption"] - sum(s[stage] for stage in inner)
    outer = ("checks", "store, commit", "store, claim", "store, known captions")
    s["waiting for pictures and the rest"] = wall - s["caption"] - sum(s[stage] for stage in outer)
    for stage in (*inner, "between steps", *outer, "waiting for pictures and the rest"):
        bench.tell("b", f"{name}: {stage}, share of the time", f"{100 * s[stage] / wall:.1f}%")
    threads = workers or max(2, min(16, os.cpu_count() or 2))
    for stage in ("fetch", "decode"):
        milli = 1000 * s[stage] / max(stages.calls[stage], 1)
        bench.tell("b", f"{name}: {stage}, milliseconds a picture in one of {threads} threads", milli)
    bench.tell("b", f"{name}: threads busy", f"{100 * (s['fetch'] + s['decode']) / threads / wall:.1f}%")
    bench.tell("b", f"{name}: milliseconds of a decode step, eager", 1000 * s["decode steps"] / max(stages.calls["decode steps"], 1))
    if load.busy is not None:
        bench.tell("b", f"{name}: GPU idle by NVML utilisation", f"{100 - 100 * load.busy:.1f}%")
    return rate


def bare(bench: Bench, batch: int) -> float:
    """images/s of the library's generate on tensors that are on the device already."""
    model = bench.model
    ids, mask = (t.to(bench.device) for t in model.input_ids([""] * batch))
    values = model.pixel_values(bench.batch(batch)).to(model.model.dtype)
    parameters = blip2.Decoding(TOKENS, TOKENS).parameters() | {"eos_token_id": model._eos, "pad_token_id": model._pad}

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
    """Every kernel of a few batches recorded: in which stage does the GPU have nothing to do?"""
    model, batch = bench.model, bench.best_batch
    inside, steps = list[tuple[int, int]](), list[int]()
    inner = model.caption

    def caption(*arguments: Any) -> Any:
        began = time.time_ns()
        steps.append(0)
        found = inner(*arguments)
        inside.append((began, time.time_ns()))
        return found

    def before(module: Any, arguments: Any, named: dict[str, Any]) -> None:
        if named.get("inputs_embeds") is None and not steps[-1]:
            steps[-1] = time.time_ns()

    zones: dict[str, list[tuple[int, int]]] = {name: [] for name in ("all", *ZONES)}

    def work() -> None:
        bench.captioned(conn, batch, 5 * batch)
        for (began, ended), step in zip(inside, steps, strict=True):
            zones[ZONES[0]].append((began, step))
            zones[ZONES[1]].append((step, ended))
        zones[ZONES[2]] += [(a[1], b[0]) for a, b in zip(inside, inside[1:], strict=False)]
        zones["all"].append((inside[0][0], inside[-1][1]))

    hook = model.model.language_model.register_forward_pre_hook(before, with_kwargs=True)
    try:
        with in_place_of(model, "caption", caption):
            told(bench, "b", f"batch {batch}, five batches recorded", profiled(work, zones, bench.device))
    finally:
        hook.remove()
        del model.caption


def told(bench: Bench, part: str, name: str, found: Profile) -> None:
    bench.tell(part, f"{name}: GPU idle by kernel times", f"{100 - 100 * found.busy:.1f}%")
    for zone, share in found.idle.items():
        bench.tell(part, f"{name}: idle during {zone}", f"{100 * share:.1f}% of it, {100 * found.share[zone]:.1f}% of all")
    for kernel, share, calls in found.largest:
        print(f"          {100 * share:5.1f}% of the busy time, {calls:6} calls, {kernel[:100]}", flush=True)


def bound(bench: Bench) -> None:
    """Part c."""
    for what, figure in gpu_bound.measure(bench.device, bench.best_batch, bench.toy, TOKENS):
        bench.tell("c", what, figure)
        if what.startswith("bound, ") and bench.rates:
            bench.tell("c", f"share of it that captioner run reaches, batch {bench.best_batch}",
                       f"{100 * bench.rates[bench.best_batch] / float(figure):.1f}%")  # fmt: skip


def together_and_too_large(bench: Bench) -> None:
    """Part d."""
    batch, conn = bench.best_batch, bench.store("full", "pictures")
    model = bench.model
    if bench.cuda:
        if not bench.peak:  # part b was left out
            model.caption(bench.batch(batch), [""] * batch, blip2.Decoding(TOKENS, TOKENS))
            bench.peak = torch.cuda.max_memory_allocated()
        weights = sum(p.numel() * p.element_size() for p in model.model.parameters())
        allowed = weights + 0.4 * (bench.peak - weights)
        bench.free()
        torch.cuda.set_per_process_memory_fraction(allowed / torch.cuda.get_device_properties(0).total_memory)
    sizes: list[int] = []
    inner = model.caption

    def caption(pictures: Any, *others: Any) -> Any:
        sizes.append(len(pictures))
        if not bench.cuda and len(pictures) > batch // 2:
            raise MemoryError  # at toy size nothing is too large
        return inner(pictures, *others)

    try:
        with in_place_of(model, "caption", caption):
            result = bench.captioned(conn, batch, 2 * batch)
    finally:
        del model.caption
        if bench.cuda:
            torch.cuda.set_per_process_memory_fraction(1.0)
    done = result.captioned + result.rejected
    bench.tell("d", f"too large a batch ({batch}, memory limited for it): sizes tried", ", ".join(map(str, dict.fromkeys(sizes))))
    bench.tell("d", "too large a batch: pictures captioned, failed", f"{done} of {result.selected}, {result.failed}")
    bench.free()
    two_processes(bench, conn, batch)


def two_processes(bench: Bench, conn: Any, batch: int) -> None:
    limit = 4 if bench.toy else max(4 * batch, round(0.7 * bench.seconds * (bench.rates.get(batch) or 200) / batch) * batch)
    command = [sys.executable, "-m", "pincaption.cli", "run", str(bench.work / "full.db"), "--model", str(bench.checkpoint),
               "--dtype", bench.dtype, "--device", bench.device, "--batch-size", str(batch), "--limit", str(limit),
               "--min-new-tokens", str(TOKENS), "--max-new-tokens", str(TOKENS), "--json"]  # fmt: skip
    before = conn.execute("SELECT coalesce(max(run_id), 0) FROM runs").fetchone()[0]
    load = Load(bench.device)
    with load:
        processes = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(2)]
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
    rate = n / (last - first) if last > first else 0.0
    name = f"two processes, batch {batch}: images/s of both while both ran, {last - first:.1f} s"
    bench.tell("d", name, rate)
    if load.busy is not None:
        bench.tell("d", "two processes: GPU idle by NVML utilisation, start included", f"{100 - 100 * load.busy:.1f}%")
    twice = conn.execute("SELECT count(*) FROM captions WHERE run_id > ? AND attempts > 1", [before]).fetchone()[0]
    bench.tell("d", "two processes: pins captioned by both (should be 0)", twice)


def embed_training(bench: Bench) -> None:
    """Part e."""
    folder = bench.folder("export") / "out"
    small = training.TrainOptions(encoder=towers.SMALL, every=1_000_000, validation=0.0)
    large = replace(small, sizes=towers.Sizes(), batch=1024)
    kinds = {"small sizes, batch 256": small, "published sizes of the towers, small encoder, batch 1024": large}
    if bench.toy:
        kinds = {"small sizes, batch 32": replace(small, batch=32)}
    for name, options in kinds.items():
        for precision, workers in (("bf16", 1), ("no", 1), ("bf16", 8))[: 2 if bench.toy else 3]:
            rate = train_rate(bench, folder, options, precision, workers)
            dtype = "bfloat16" if precision == "bf16" else "float32"
            bench.tell("e", f"{name}, {dtype}, workers {workers}: pairs/s", rate)


def recorded_training(bench: Bench) -> None:
    """Part h."""
    folder = bench.folder("export") / "out"
    options = training.TrainOptions(encoder=towers.SMALL, every=1_000_000, validation=0.0)
    zones, moments = dict[str, list[tuple[int, int]]](), dict[int, int]()
    calls = cProfile.Profile()

    def on_step(done: int) -> None:
        if done == 5:
            calls.enable()

    def work() -> None:
        train_rate(bench, folder, options, "no", 1, 25, moments.__setitem__)
        zones["all"] = [(moments[5], moments[max(moments)])]

    found = profiled(work, zones, bench.device)
    told(bench, "h", "embed train, small sizes, batch 256, float32", found)
    bench.tell("h", "kernels of 25 steps and their start", found.kernels)
    rate = train_rate(bench, folder, replace(options, seed=1), "no", 1, 25, lambda done, when: on_step(done))
    calls.disable()
    bench.tell("h", "pairs/s while the interpreter's calls are counted", rate)
    pstats.Stats(calls).sort_stats("tottime").print_stats(14)


def train_rate(bench: Bench, folder: Path, options: training.TrainOptions, precision: str, workers: int,
               steps: int = 100, on_done: Callable[[int, int], object] = lambda done, when: None) -> float:  # fmt: skip
    """pairs/s of the steps after the first fifth; `on_done` (steps, time.time_ns()) after each."""
    moments = dict[int, float]()
    steps = min(steps, 12) if bench.toy else steps
    out = bench.work / f"trained {options.batch} {precision} {workers} {steps} {options.seed}"

    def on_step(what: str, done: int, total: int) -> None:
        if what == "training":
            moments.setdefault(done, time.perf_counter())
            on_done(done, time.time_ns())

    class Accelerator(accelerate.Accelerator):  # type: ignore[misc]
        def __init__(self, **named: Any):
            super().__init__(**(named | {"mixed_precision": precision}))

    AcceleratorState._reset_state(reset_partial_state=True)  # one process, several precisions
    with in_place_of(accelerate, "Accelerator", Accelerator):
        found = training.train(folder, out, options, workers=workers, device=None if bench.cuda else "cpu", on_step=on_step, stop_after=steps)
    done = max(moments)
    return (done - done // 5) * found["pairs"] / found["steps"] / (moments[done] - moments[done // 5])


def prototype(bench: Bench) -> None:
    """Part f."""
    builtin = blip2.Blip2(find_checkpoint("builtin"), bench.device, "float32")
    size = builtin.preprocessing["width"], builtin.preprocessing["height"]
    drawn = np.stack([picture(path, size) for path in sorted(bench.folder("plain").iterdir())[:64]])
    differ, _ = differing(builtin, drawn, 5, 30)
    name = f"own loop, built-in checkpoint, float32: captions of {len(drawn)} whose tokens are not generate's"
    bench.tell("f", name, differ)
    for batch in bench.loops:
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
        ends = {"eos_token_id": model._eos, "pad_token_id": model._pad}
        parameters = blip2.Decoding(minimum, maximum).parameters() | ends
        new = model.model.generate(values, input_ids=ids, attention_mask=mask, **parameters)[:, ids.shape[1] :]
        return torch.nn.functional.pad(new, (0, maximum - new.shape[1]), value=model._pad)

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
        began = time.perf_counter()
        images_per_second(loop, [pixels])
        many = [pixels] * max(3, round(bench.seconds / (time.perf_counter() - began)))
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
        took = {stage: milliseconds(work, bench.device, 2 if bench.toy else 10, 1) for stage, work in stages.items()}
        took["of a decode step"] = (took.pop("of the language model") - took["of the prefill"]) / (TOKENS - 1)
        for stage, milli in took.items():
            bench.tell(part, f"{name}: milliseconds {stage}", milli)
        if bench.cuda:
            rate = images_per_second(loop, many, ahead=True)
            bench.tell(part, f"{name}, next batch seen meanwhile: images/s", rate)
            if batch == bench.loops[-1]:
                work = lambda loop=loop, many=many: images_per_second(loop, many[:4], ahead=True)  # noqa: E731
                told(bench, part, f"{name}, next batch seen meanwhile", profiled(work, {}, bench.device))


def compiled_prototype(bench: Bench) -> None:
    """Part g: first the vision tower and the Q-Former compiled, then the language model too; a decode step stays a graph."""
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
        for module in sum(several, []):
            module._compiled_call_impl = None


PARTS: dict[str, Callable[[Bench], None]] = {
    "a": same_captions, "b": end_to_end, "c": bound, "d": together_and_too_large, "e": embed_training, "f": prototype, "g": compiled_prototype,
    "h": recorded_training,
}  # fmt: skip


def main() -> None:
    bench = Bench(WORK, DATA, CHOSEN)
    if bench.cuda:
        driver = subprocess.run(["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"], capture_output=True, text=True).stdout.strip()
        properties = torch.cuda.get_device_properties(0)
        device = f"{properties.name}, {properties.total_memory / 2**30:.0f} GiB, driver {driver}"
    else:
        device = "CPU"
    import transformers

    print(f"{device}; torch {torch.__version__}, transformers {transformers.__version__}, Python {sys.version.split()[0]}, {os.cpu_count()} cores", flush=True)
    print(f"{time.monotonic() - BEGAN:.1f} s to import", flush=True)
    failed = []
    for name in CHOSEN.parts.split(","):
        began = time.monotonic()
        if bench.left() < 5:
            print(f"part {name}: no time left", flush=True)
            failed.append(name)
            continue
        try:
            PARTS[name](bench)
        except Exception as error:
            where = traceback.extract_tb(error.__traceback__)[-1]
            print(f"part {name} failed: {type(error).__name__}: {str(error)[:500]} ({Path(where.filename).name}:{where.lineno})", flush=True)
            failed.append(name)
        print(f"part {name}: {time.monotonic() - began:.0f} s", flush=True)
        bench.free()
    print(f"\n{device}; torch {torch.__version__}, transformers {transformers.__version__}\n\n| part | what | figure |\n|---|---|---|")
    for row in bench.figures:
        print(f"| {' | '.join(row)} |")
    DATA.wait()
    if failed:
        sys.exit(f"failed or left out: {', '.join(failed)}")


if __name__ == "__main__":
    main()
