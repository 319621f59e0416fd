"""`captioner run --device all`: one process per device on one store. Their claims share the work."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..captioner.limit import SharedLimit

# The environment variable that names the file of the limit to a process.
_LIMIT_FILE = "PINCAPTION_LIMIT_FILE"
_SUMMED = ("captioned", "rejected", "failed", "shared")


def all_devices() -> list[str]:
    """Every GPU of this machine, by torch's names; without a GPU, what "auto" finds."""
    import torch

    return [f"cuda:{i}" for i in range(torch.cuda.device_count())] or ["auto"]


def shared_limit() -> SharedLimit | None:
    """The limit that this process shares with others, if it was started by `run_processes`, or None."""
    from ..captioner.limit import SharedLimit

    path = os.environ.get(_LIMIT_FILE)
    return SharedLimit(Path(path)) if path else None


def run_processes(store: str, devices: list[str], choices: dict[str, Any]) -> tuple[dict[str, Any], int]:
    """Runs `captioner run` once per device, adds up what they did, and returns that and the exit code.

    `choices` are the options of `captioner run`. The progress of the processes goes to standard error.
    SIGTERM is passed on to them; Ctrl-C reaches them from the terminal.

    If `choices` has a limit, it is one for all processes together. A process that is killed may have taken
    pins that it did not caption. They are captioned by a second round on the other devices.
    """
    from ..captioner.limit import SharedLimit

    limit: int | None = choices.get("limit")
    with tempfile.TemporaryDirectory() as folder:
        shared = SharedLimit(Path(folder) / "limit.json") if limit else None
        if shared and limit:
            shared.set(limit)
        rounds, codes = list[list[dict[str, Any]]](), list[int]()
        while True:
            outcomes, stopped = _run_once(store, devices, choices, shared)
            rounds.append([result for result, _ in outcomes if result])
            codes += [code for _, code in outcomes]
            all_ended_well = len(rounds[-1]) == len(devices)
            devices = [device for device, (result, _) in zip(devices, outcomes, strict=True) if result]
            if not shared or not limit or stopped or all_ended_well or not devices:
                break
            left = limit - _captioned(store, shared.runs)
            if left <= 0:
                break
            shared.set(left)
    return _sum(rounds), 130 if stopped else 0 if 0 in codes else max(codes)


def _run_once(
    store: str, devices: list[str], choices: dict[str, Any], limit: SharedLimit | None
) -> tuple[list[tuple[dict[str, Any] | None, int]], bool]:
    """One process per device: (what it did or None, exit code) for each, and whether a signal came."""
    environment = os.environ | ({_LIMIT_FILE: str(limit.path)} if limit else {})
    command = [sys.executable, "-m", "pincaption.cli", "run", store, "--json", *_as_words(choices)]
    processes = [
        subprocess.Popen([*command, "--device", device], stdout=subprocess.PIPE, text=True, env=environment)
        for device in devices
    ]
    with _signals_passed_on(processes) as received:
        outputs = [process.communicate()[0] for process in processes]
    codes = [process.returncode for process in processes]
    # A process that a signal killed may have printed a part of its result.
    results = [
        json.loads(output) if output.strip() and code >= 0 else None
        for output, code in zip(outputs, codes, strict=True)
    ]
    return list(zip(results, codes, strict=True)), bool(received)


def _as_words(choices: dict[str, Any]) -> list[str]:
    """The options as words of a command line. The device is left out."""
    words: list[str] = []
    for name, value in choices.items():
        if name == "device" or value is None or value is False or value == "":
            continue
        words += [f"--{name.replace('_', '-')}", *([] if value is True else [str(value)])]
    return words


@contextmanager
def _signals_passed_on(processes: list[subprocess.Popen[str]]) -> Iterator[list[int]]:
    """Passes SIGTERM on to the processes. Yields a list to which every signal is added that comes."""
    received: list[int] = []

    def handle(number: int, frame: Any) -> None:
        received.append(number)
        if number == signal.SIGTERM:
            for process in processes:
                process.send_signal(number)

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _captioned(store: str, runs: list[int]) -> int:
    """How many captions these runs have written."""
    from ..store import open_store
    from ..store.runs import captions_of_runs

    conn = open_store(store)
    try:
        return captions_of_runs(conn, runs)
    finally:
        conn.close()


def _sum(rounds: list[list[dict[str, Any]]]) -> dict[str, Any]:
    """What all processes of all rounds did together, with the keys of one of them."""
    results = [result for round_ in rounds for result in round_]
    if not results:
        return dict.fromkeys((*_SUMMED, "remaining", "images_per_second"), 0)
    total = results[0] | {name: sum(result[name] for result in results) for name in _SUMMED}
    total["selected"] = max(result["selected"] for result in results)
    total["remaining"] = min(result["remaining"] for result in results)
    # The processes of a round run at the same time, the rounds one after the other.
    seconds = (max(result["seconds"] for result in results) for results in rounds if results)
    total["seconds"] = round(sum(seconds), 3)
    written = sum(total[name] for name in _SUMMED)
    total["images_per_second"] = round(written / max(total["seconds"], 1e-3), 3)
    return total
