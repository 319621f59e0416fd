"""The examples in pages of docs/: files, commands, Python code, and what they print.

The tests run them and compare; this file run as a program writes what is printed now into a page:

    python tests/test_docs/examples.py docs/inputs.md docs/api.md

Commands: the examples of a section run in a folder of their own, with the drawn pictures PHOTOS in photos/. A
block whose first line names a file (```` ```csv pins.csv ````) is written to that file. A block marked
`console` holds commands after `$ ` and what they print, standard output and standard error together.

Python: all blocks of a page run one after the other in the folder that `captioner demo` makes. A block marked
`text` that follows directly has what the Python block prints.

In both, a line `...` stands for any lines. Other blocks are not run.
"""

from __future__ import annotations

import os
import random
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import chdir, redirect_stdout
from dataclasses import dataclass, field
from io import StringIO
from pathlib import Path

from click.testing import CliRunner

from pincaption.cli import cli
from pincaption.drawn.draw import draw, random_scene
from pincaption.drawn.world import make_world

DOCS = Path(__file__).parents[2] / "docs"
PHOTOS = ("mug.png", "lamp.png", "garden/chair.png")
_FENCE = re.compile(r"^```(\w+)?(?: (\S+))?\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_QUOTED = re.compile(r"'[^']*'|\"[^\"]*\"")
_PYTHON = re.compile(r"^```python\n(.*?)^```\n(?:```text\n(.*?)^```$)?", re.MULTILINE | re.DOTALL)
DRAWN_PINS = 24
# The tests cannot load checkpoints from the hub: the built-in one replaces them.
_MODELS = re.compile(r"Salesforce/blip2-\S+")


@dataclass
class Command:
    """A command line, what the page says it prints, and where in the page that stands."""

    line: str
    expected: str
    start: int
    end: int


@dataclass
class Section:
    """What stands below a heading of the page: files (name, text) and commands, in order."""

    name: str
    steps: list[Command | tuple[str, str]] = field(default_factory=list)


def sections(page: str) -> list[Section]:
    """The sections of a page that have commands."""
    text = (DOCS / page).read_text(encoding="utf-8")
    all_sections = [Section("(top)")]
    for match in re.finditer(rf"^## ([^\n]*)$|{_FENCE.pattern}", text, re.MULTILINE | re.DOTALL):
        heading, language, name, body = match.groups()
        if heading:
            all_sections.append(Section(heading))
        elif name:
            all_sections[-1].steps.append((name, body))
        elif language == "console":
            all_sections[-1].steps += _commands(body, match.start(4))
    return [section for section in all_sections if any(isinstance(step, Command) for step in section.steps)]


def _commands(block: str, at: int) -> Iterator[Command]:
    for match in re.finditer(r"^\$ ((?:.*\\\n)*.*)\n((?:(?!\$ ).*\n)*)", block, re.MULTILINE):
        yield Command(match[1].replace("\\\n", " "), match[2], at + match.start(2), at + match.end(2))


def run(section: Section, folder: Path) -> Iterator[tuple[Command, str]]:
    """Each command of a section and what it printed, run in `folder`."""
    for i, name in enumerate(PHOTOS):
        path = folder / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        draw(random_scene(random.Random(i)), random.Random(i)).save(path)
    for step in section.steps:
        if isinstance(step, Command):
            yield step, _printed(step.line, folder)
        else:
            path = folder / step[0]
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(_MODELS.sub("builtin", step[1]), encoding="utf-8")


def _printed(line: str, folder: Path) -> str:
    line = _MODELS.sub("builtin", line)
    words = shlex.split(line)
    if words[0] == "captioner" and not re.search(r"[|<>;&$*?~]", _QUOTED.sub("", line)):
        # in this process: it has loaded everything before
        with chdir(folder):
            return CliRunner().invoke(cli, words[1:]).output
    path = os.pathsep.join(
        [
            str(Path(sys.executable).parent),
            *([] if shutil.which("sqlite3") else [str(_stand_in())]),
            os.environ["PATH"],
        ]
    )
    return subprocess.run(
        ["bash", "-c", line],
        cwd=folder,
        env=os.environ | {"PATH": path},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ).stdout


def _stand_in() -> Path:
    """A folder with a `sqlite3 FILE SQL`, for machines without one."""
    folder = Path(tempfile.mkdtemp())
    script = f"""#!{sys.executable}
import sqlite3, sys
for row in sqlite3.connect(sys.argv[1]).execute(sys.argv[2]):
    print(*("" if value is None else value for value in row), sep="|")
"""
    (folder / "sqlite3").write_text(script)
    (folder / "sqlite3").chmod(0o755)
    return folder


def agrees(expected: str, printed: str) -> bool:
    """Whether the page shows what was printed; blanks at the ends of lines do not count, nor does how large a
    file is (versions of libraries differ in that).
    """
    pattern = "".join(
        r"(?:.*\n)*" if line == "..." else re.escape(line.rstrip()) + r"\n" for line in expected.splitlines()
    )
    pattern = re.sub(r"[\d,.\\]+\\ (kB|MB)", r"[\\d,.]+ [kM]B", pattern)
    return re.fullmatch(pattern, "".join(f"{line.rstrip()}\n" for line in printed.splitlines())) is not None


@dataclass
class PythonBlock:
    """Code, what the page says it prints, and where in the page that stands."""

    code: str
    expected: str
    start: int
    end: int


def python_blocks(page: str) -> list[PythonBlock]:
    """The Python blocks of a page, in order."""
    text = (DOCS / page).read_text(encoding="utf-8")
    return [PythonBlock(match[1], match[2] or "", *match.span(2)) for match in _PYTHON.finditer(text)]


def run_python(blocks: list[PythonBlock], folder: Path) -> Iterator[tuple[PythonBlock, str]]:
    """Each block and what it printed. All run with one set of variables, as if they were one program."""
    make_world(folder, DRAWN_PINS)
    variables = {"__name__": "__main__"}
    for block in blocks:
        with chdir(folder), redirect_stdout(StringIO()) as printed:
            exec(compile(block.code, "docs", "exec"), variables)
        yield block, printed.getvalue()


def write_anew(page: str) -> None:
    """Puts what is printed now into the page, where the page shows something else."""
    text, changes = (DOCS / page).read_text(encoding="utf-8"), []
    for section in sections(page):
        with tempfile.TemporaryDirectory() as folder:
            changes += [
                (example.start, example.end, printed)
                for example, printed in run(section, Path(folder))
                if not agrees(example.expected, printed)
            ]
    with tempfile.TemporaryDirectory() as folder:
        changes += [
            (block.start, block.end, printed)
            for block, printed in run_python(python_blocks(page), Path(folder))
            if block.end >= 0 and not agrees(block.expected, printed)
        ]
    for start, end, printed in sorted(changes, reverse=True):
        text = text[:start] + "".join(f"{line.rstrip()}\n" for line in printed.splitlines()) + text[end:]
    (DOCS / page).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    for argument in sys.argv[1:]:
        write_anew(os.path.relpath(argument, DOCS))
