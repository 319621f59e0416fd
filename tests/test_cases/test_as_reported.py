"""The reports as they came: small shell scripts of ../shared/cases, and what must be in their output now.

The other files here test the same kinds of input without these scripts, each in many forms.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

CASES = Path(__file__).parents[3] / "shared" / "cases"
PRINTED = {
    "f01": ["query, action, date from date=", "rows written to engaged_queries             1", "rc=0"],
    "f02": ["rows read                                     1\npins ranked anew"],
    "f03": ['1001|["kitchen lamps"]\n1001', "1  no pin_id"],
    "f04": ["pin_id from PIN_ID", "1|Blue mug|Nice one|", "1 image not found"],
    "f05": ["csv rc=1", "jsonl rc=1", "say which one it is with --map pin_id=id"],
    "f06": ["jq -c '.items[]' p.json", "rc=1"],
    "f07": ["p.csv has the column 'title' twice", "rc=1"],
    "f08": ["1 pin into s.db", "columns of p.csv: pin_id, title", "x.csv begins like an Excel file"],
    "f09": ["1 pin into s.db", "pin_id is bytes and not text"],  # the UUID is another one each time
    "f10": ["4 files and folders skipped", "\na.jpg\n"],
    "f11": ["3 pins into s.db", "\n3\n"],
    "f12": [
        "4|no image",
        "3|image file not found",
        "1 image left out: of several in a cell the first is taken",
    ],
    "f13": ["2 vectors of 3 numbers"],
    "f14": ["for the same row of rater-1's sheet", "--rater NAME", "rc=1"],
    "f15": ["1 pin marked as deleted whose picture is gone from here", "rc=0"],
    "f17": ["\n9780141036144\nlego 4006381333931\n", "dropped: personal data                      2"],
    "f18": ["1 tar archive read", "0.tar/0.jpg|a caption", "0.jpg|a caption"],
    "f19": ["is left as it is", "\nusers\ndelete\n"],
    "f20": ["waiting: s.db is locked by process"],
    "f21": ["1 pin into s.db", "rc=0"],
    "f22": ["red mug|2\n--", "red mug|2\nmug|0.25"],
    "f23": ["1|cheap pills|750", "2|red mug|3"],  # the bounds for one user are options
}


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cases") / "demo"
    subprocess.run([sys.executable, "-m", "pincaption.cli", "demo", str(folder), "--pins", "24"], check=True)
    return folder


@pytest.mark.slow
@pytest.mark.skipif(not CASES.exists(), reason=f"needs the reports in {CASES}")
@pytest.mark.parametrize("case", PRINTED)
def test_a_report_prints_what_is_right_now(demo: Path, tmp_path: Path, case: str) -> None:
    """f16 is left out: it needs a second user. tests/test_store/test_read_only.py has one where it can."""
    for name, words in (("captioner", "-m pincaption.cli "), ("python", "")):
        command = tmp_path / name
        command.write_text(f'#!/bin/sh\nexec {sys.executable} {words}"$@"\n')
        command.chmod(0o755)
    (script,) = CASES.glob(f"{case}_*.sh")
    environment = os.environ | {"C": str(tmp_path / "captioner"), "DEMO": str(demo), "COLUMNS": "80"}
    done = subprocess.run(
        ["bash", str(script)],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=120,
        check=False,
    )
    assert [line for line in PRINTED[case] if line not in done.stdout] == [], done.stdout
    assert "Traceback" not in done.stdout
