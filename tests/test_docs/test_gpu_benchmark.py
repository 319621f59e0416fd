"""benchmarks/gpu.py is run on a GPU for minutes at a time, seldom: at toy size every part of it runs on a
CPU.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "gpu.py"
FIGURES = {
    "a": "captions that differ from CPU float32, of 12",
    "b": "images/s from files into the store, steady",
    "c": "share of the bound that captioner run reaches",
    "d": "two processes: pins captioned by both",
    "e": "bfloat16, workers 1: pairs/s",
    "f": "mixed prompts: captions of 12 whose tokens are not generate's",
    "g": "GPU idle by kernel times",
    "h": "places, torch: milliseconds",
}


@pytest.mark.slow  # 40 seconds of a quiet machine with two cores
def test_every_part_of_the_gpu_benchmark_prints_its_figures(tmp_path: Path) -> None:
    command = [sys.executable, str(SCRIPT), "--toy", "--minutes", "8", "--work", str(tmp_path)]
    environment = os.environ | {"HF_HUB_OFFLINE": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=560)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    rows = re.findall(r"^\| (\w) \| (.*) \| (.*) \|$", done.stdout, re.MULTILINE)
    for part, what in FIGURES.items():
        assert [figure for of, name, figure in rows if of == part and what in name], f"{part}: {what}"
    equal = [
        figure for part, name, figure in rows if part == "f" and "generate's" in name and "half" not in name
    ]
    assert set(equal) == {"0"}, "our tokens are not those of generate"
    assert ("d", "two processes: pins captioned by both (should be 0)", "0") in rows
