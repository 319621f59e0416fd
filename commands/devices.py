"""`captioner run --device all`: a process per device on one store; the store's claims share the work."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from typing import Any


def all_devices() -> list[str]:
    """Every GPU of this machine, by torch's names; without one, what "auto" finds."""
    import torch

    return [f"cuda:{i}" for i in range(torch.cuda.device_count())] or ["auto"]


def run_processes(store: str, devices: list[str], choices: dict[str, Any]) -> tuple[dict[str, Any], int]:
    """Runs `captioner run` once per device and adds up what they did; returns that and the exit code.

    Progress of the processes goes to standard error. SIGTERM is passed on; Ctrl-C reaches them from the
    terminal.
    """
    command = [sys.executable, "-m", "pincaption.cli", "run", store, "--json"]
    for name, value in choices.items():
        if (
            name != "device"
            and value is not None
            and value is not False
            and not (name == "prompt" and not value)
        ):
            command += [f"--{name.replace('_', '-')}", *([] if value is True else [str(value)])]
    processes = [
        subprocess.Popen([*command, "--device", device], stdout=subprocess.PIPE, text=True)
        for device in devices
    ]
    stopped = []

    def pass_on(number: int, frame: Any) -> None:
        stopped.append(number)
        if number == signal.SIGTERM:
            for process in processes:
                process.send_signal(number)

    before = {number: signal.signal(number, pass_on) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        outputs = [process.communicate()[0] for process in processes]
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    results = [json.loads(output) for output in outputs if output.strip()]
    if not results:
        return dict.fromkeys(
            ("captioned", "rejected", "failed", "shared", "remaining", "images_per_second"), 0
        ), 1
    found = results[0] | {
        name: sum(r[name] for r in results) for name in ("captioned", "rejected", "failed", "shared")
    }
    found["selected"], found["remaining"] = (
        max(r["selected"] for r in results),
        min(r["remaining"] for r in results),
    )
    found["seconds"] = max(r["seconds"] for r in results)
    written = found["captioned"] + found["rejected"] + found["failed"] + found["shared"]
    found["images_per_second"] = round(written / max(found["seconds"], 1e-3), 3)
    codes = [process.returncode for process in processes]
    return found, 130 if stopped else 0 if 0 in codes else max(codes)
