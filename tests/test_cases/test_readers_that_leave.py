"""`captioner ... | head -1`: a reader that leaves early is no fault of the command."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from .table_commands import said

CAPTIONER = [sys.executable, "-m", "pincaption.cli"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of 3,000 pins with a query each, and an export that was changed since."""
    folder = tmp_path_factory.mktemp("pipes")
    (folder / "pins.csv").write_text("pin_id,title\n" + "".join(f"{i},Oak table {i}\n" for i in range(3000)))
    (folder / "log.csv").write_text(
        "pin_id,query,action,date\n"
        + "".join(f"1,mug number {i} of a long list of queries,save,2026-05-31\n" for i in range(3000))
    )
    said("ingest", "pins", folder / "my.db", folder / "pins.csv")
    said("aggregate", "queries", folder / "my.db", "--log", folder / "log.csv")
    said("export", folder / "my.db", folder / "out")
    (folder / "out" / "README.md").write_text("changed")
    return folder


def left_at_once(folder: Path, *command: str) -> tuple[int, str]:
    """Exit code and standard error of a command whose reader is gone before it prints anything."""
    process = subprocess.Popen(
        [*CAPTIONER, *command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=folder
    )
    assert process.stdout
    assert process.stderr
    process.stdout.close()
    said_to_people = process.stderr.read()
    return process.wait(), said_to_people


@pytest.mark.parametrize(
    "command",
    [
        ["--help"],
        ["--version"],
        ["ingest", "pins", "--help"],
        ["stats", "my.db"],
        ["stats", "my.db", "--json"],
        ["ingest", "pins", "my.db", "pins.csv"],
        ["aggregate", "explain", "my.db", "1"],
    ],
    ids=" ".join,
)
def test_a_reader_that_has_left_is_no_error(folder: Path, command: list[str]) -> None:
    assert left_at_once(folder, *command) == (0, "")


def test_the_work_goes_on_without_a_reader(folder: Path) -> None:
    assert left_at_once(folder, "ingest", "pins", "new.db", "pins.csv") == (0, "")
    assert "3,000" in said("stats", folder / "new.db").splitlines()[0]


def test_the_exit_code_is_that_of_the_work(folder: Path) -> None:
    assert left_at_once(folder, "export", "--check", "out") == (1, "")
    code, error = left_at_once(folder, "stats", "nothing.db")
    assert (code, len(error.splitlines())) == (1, 1)


def test_head_takes_the_first_line_of_many(folder: Path) -> None:
    """More is printed than a pipe holds, so that the command meets the end of its reader while it writes."""
    command = " ".join(CAPTIONER) + " aggregate explain my.db 1 | head -1; echo ${PIPESTATUS[0]}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, cwd=folder)
    assert (done.stdout, done.stderr) == ("pin 1\n0\n", "")
    assert len(said("aggregate", "explain", folder / "my.db", "1")) > 200_000


def test_bytes_may_lose_their_reader_too() -> None:
    """As `captioner embed queries` writes them."""
    script = (
        "import sys; from pincaption.commands.verbs import ReaderMayLeave\n"
        "import pyarrow as pa, pyarrow.parquet as pq\n"
        "sys.stdout = ReaderMayLeave(sys.stdout)\n"
        "table = pa.table({'vector': list(range(500_000))})\n"
        "with pq.ParquetWriter(sys.stdout.buffer, table.schema) as writer: writer.write_table(table)\n"
        "print('done', file=sys.stderr)"
    )
    command = [
        "bash",
        "-c",
        '"$@" | head -c 4; echo " ${PIPESTATUS[0]}"',
        "bash",
        sys.executable,
        "-c",
        script,
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("PAR1 0\n", "done\n")
