"""Where the time of a captioning run goes: what each stage takes, and how long the GPU has nothing to do.

Three instruments, because none sees everything. `Stages` puts marks around the stages of a whole run: CUDA
events for what the device does, so that nothing waits for it, and the clock for the rest. `Load` asks the
driver ten times a second for the share of time in which any kernel ran (NVML), which counts a tiny kernel
like a large one. `profiled` records every kernel of a short run (CUPTI) and adds up the time in which none
ran; recording slows the run by some per cent.
"""

from __future__ import annotations

import bisect
import contextlib
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

DEVICE_STAGES = ("copy and normalise", "vision", "Q-Former", "prefill", "decode steps")


class Stages:
    """Seconds of each stage, between `with stages:` and its end. `parts` are objects or modules and what to
    mark of them.
    """

    def __init__(self, device: str, model: Any, parts: dict[str, list[tuple[Any, str]]]):
        self.cuda, self.model, self.parts = device.startswith("cuda"), model, parts
        self.seconds: dict[str, float] = defaultdict(float)
        self.calls: dict[str, int] = defaultdict(int)
        self._events: dict[str, list[tuple[Any, Any]]] = defaultdict(list)
        self._undo = contextlib.ExitStack()
        self._lock = threading.Lock()

    def __enter__(self) -> Stages:
        for stage, places in self.parts.items():
            for owner, name in places:
                self._mark(owner, name, stage)
        modules = (self.model.vision_model, "vision"), (self.model.qformer, "Q-Former")
        for module, stage in modules:
            self._hook(module, stage)
        return self

    def __exit__(self, *error: object) -> None:
        self._undo.close()
        if self.cuda:
            torch.cuda.synchronize()
        for stage, pairs in self._events.items():
            for first, last in pairs:
                self.seconds[stage] += first.elapsed_time(last) / 1000 if self.cuda else last - first
            self.calls[stage] += len(pairs)
        self._events.clear()

    def _moment(self) -> Any:
        if not self.cuda:
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def _mark(self, owner: Any, name: str, stage: str) -> None:
        """Puts a stopwatch in the place of a function; on an object its class's method comes back by deleting
        ours.
        """
        inner, own = getattr(owner, name), name in vars(owner)

        def by_events(*arguments: Any, **named: Any) -> Any:
            first = self._moment()
            found = inner(*arguments, **named)
            self._events[stage].append((first, self._moment()))
            return found

        def by_the_clock(*arguments: Any, **named: Any) -> Any:
            began = time.perf_counter()
            try:
                return inner(*arguments, **named)
            finally:
                with self._lock:  # the reading threads come here too
                    self.seconds[stage] += time.perf_counter() - began
                    self.calls[stage] += 1

        setattr(owner, name, by_events if stage in DEVICE_STAGES else by_the_clock)
        self._undo.callback(setattr, owner, name, inner) if own else self._undo.callback(delattr, owner, name)

    def _hook(self, module: Any, stage: str) -> None:
        begun: list[tuple[str, Any]] = []

        def before(module: Any, arguments: Any, named: dict[str, Any]) -> None:
            begun.append((stage, self._moment()))

        def after(module: Any, arguments: Any, output: Any) -> None:
            name, first = begun.pop()
            self._events[name].append((first, self._moment()))

        self._undo.callback(module.register_forward_pre_hook(before, with_kwargs=True).remove)
        self._undo.callback(module.register_forward_hook(after).remove)


class Load:
    """The share of time in which a kernel ran, as the driver says it (NVML's utilisation), the mean of ten
    looks a second.
    """

    def __init__(self, device: str):
        self.looks: list[int] = []
        self._end = threading.Event()
        self._handle: Any = None
        if device.startswith("cuda"):
            with contextlib.suppress(Exception):  # without the driver's library there is no figure
                import pynvml

                pynvml.nvmlInit()
                self._nvml, self._handle = pynvml, pynvml.nvmlDeviceGetHandleByIndex(0)

    def __enter__(self) -> Load:
        self._end.clear()
        self.looks = []
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._end.set()
        self._thread.join()

    def _look(self) -> None:
        while self._handle is not None and not self._end.wait(0.1):
            self.looks.append(int(self._nvml.nvmlDeviceGetUtilizationRates(self._handle).gpu))

    @property
    def busy(self) -> float | None:
        """0 to 1, or None where it cannot be had."""
        return sum(self.looks) / len(self.looks) / 100 if self.looks else None


@dataclass
class Profile:
    """What a GPU did in a stretch of time. `idle`: share of each zone's time without any kernel or copy."""

    seconds: float
    busy: float
    kernels: int
    idle: dict[str, float] = field(default_factory=dict)
    share: dict[str, float] = field(default_factory=dict)  # of the whole time that is idle in this zone
    largest: list[tuple[str, float, int]] = field(
        default_factory=list
    )  # kernel, share of the busy time, calls


def profiled(work: Callable[[], object], zones: dict[str, list[tuple[int, int]]], device: str) -> Profile:
    """Records the kernels of `work`, which may fill `zones`: {name: [(begin, end)]} by time.time_ns(); "all"
    is the whole.
    """
    from torch.profiler import ProfilerActivity, profile

    cuda = device.startswith("cuda")
    with profile(
        activities=[ProfilerActivity.CUDA if cuda else ProfilerActivity.CPU], acc_events=True
    ) as recorded:
        began = time.time_ns()
        work()
        if cuda:
            torch.cuda.synchronize()
        ended = time.time_ns()
    spans, of_name = [], defaultdict[str, list[int]](list)
    for event in recorded.profiler.kineto_results.events():  # type: ignore[union-attr]
        on_device = str(event.device_type()).endswith("CUDA") == cuda
        if on_device and event.duration_ns() and "Sync" not in event.name():
            spans.append((event.start_ns(), event.start_ns() + event.duration_ns()))
            of_name[event.name()].append(event.duration_ns())
    busy = _Busy(spans)
    (began, ended), *_ = zones.pop("all", None) or [(began, ended)]
    whole = busy.between(began, ended)
    found = Profile((ended - began) / 1e9, whole / (ended - began), len(spans))
    for name, windows in zones.items():
        length = sum(end - begin for begin, end in windows)
        idle = length - sum(busy.between(begin, end) for begin, end in windows)
        found.idle[name], found.share[name] = idle / max(length, 1), idle / (ended - began)
    total = sum(map(sum, of_name.values()))
    most = sorted(of_name.items(), key=lambda item: -sum(item[1]))[:12]
    found.largest = [(name, sum(durations) / total, len(durations)) for name, durations in most]
    return found


class _Busy:
    """The union of spans of time."""

    def __init__(self, spans: list[tuple[int, int]]):
        merged: list[list[int]] = []
        for begin, end in sorted(spans):
            if merged and begin <= merged[-1][1]:
                merged[-1][1] = max(merged[-1][1], end)
            else:
                merged.append([begin, end])
        self._begins, self._ends = [m[0] for m in merged], [m[1] for m in merged]
        self._sums = [0, *np.cumsum([end - begin for begin, end in merged], dtype=np.int64).tolist()]

    def between(self, begin: int, end: int) -> int:
        """Nanoseconds of it that lie between two moments."""
        return self._until(end) - self._until(begin)

    def _until(self, moment: int) -> int:
        n = bisect.bisect_right(self._begins, moment)
        if not n:
            return 0
        return int(self._sums[n - 1]) + min(moment, self._ends[n - 1]) - self._begins[n - 1]


@contextlib.contextmanager
def in_place_of(owner: Any, name: str, other: Any) -> Iterator[None]:
    """`owner.name` is `other` for a while."""
    before = getattr(owner, name)
    setattr(owner, name, other)
    try:
        yield
    finally:
        setattr(owner, name, before)


def milliseconds(work: Callable[[], object], device: str, rounds: int = 10, warm: int = 3) -> float:
    """Median milliseconds of one call, by CUDA events on a GPU."""
    cuda = device.startswith("cuda")
    for _ in range(warm):
        work()
    times = []
    for _ in range(rounds):
        if cuda:
            first, last = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
            first.record()
            work()
            last.record()
            last.synchronize()
            times.append(first.elapsed_time(last))
        else:
            began = time.perf_counter()
            work()
            times.append(1000 * (time.perf_counter() - began))
    return float(np.median(times))
