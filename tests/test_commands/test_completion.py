"""Shell completion, as the README has it: a real bash, and fast enough for a key press."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent


@pytest.mark.parametrize(
    ("typed", "completed"),
    [
        ("captioner in", ["ingest"]),
        ("captioner captions ", ["set", "unset"]),
        ("captioner run --select missing", ["missing-description", "missing-text"]),
        ("captioner captions set my.db --fro", ["--from"]),
    ],
)
def test_bash_completes_what_is_typed(typed: str, completed: list[str]) -> None:
    line = re.search(
        r'eval "\$\(_CAPTIONER_COMPLETE=bash_source captioner\)"', (ROOT / "README.md").read_text()
    )
    assert line
    words = typed.split(" ")
    script = (
        f"{line[0]}; complete -p captioner >/dev/null || exit 9; COMP_WORDS=({' '.join(words)}"
        f"{' ' + chr(39) * 2 if not words[-1] else ''}); COMP_CWORD={len(words) - 1}; "
        'compopt() { :; }; _captioner_completion captioner; printf "%s\\n" "${COMPREPLY[@]}"'
    )
    path = os.pathsep.join([str(BIN), os.environ["PATH"]])
    done = subprocess.run(
        ["bash", "-c", script], capture_output=True, text=True, env=os.environ | {"PATH": path}
    )
    assert (done.stdout.split(), done.stderr) == (completed, "")


def test_completion_loads_nothing_heavy() -> None:
    script = (
        "import sys, atexit; sys.argv = ['captioner']\n"
        "atexit.register(lambda: print(*sys.modules, file=sys.stderr))\n"
        "from pincaption.cli import main; main()"
    )
    asked = {"_CAPTIONER_COMPLETE": "bash_complete", "COMP_WORDS": "captioner run --dev", "COMP_CWORD": "2"}
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, env=os.environ | asked
    )
    assert done.stdout == "plain,--device\n"
    loaded = set(done.stderr.split())
    assert loaded & {"torch", "transformers", "pyarrow", "duckdb", "numpy", "PIL", "sqlite_utils"} == set()
