"""docs/commands.md: the help of every command, as a terminal of 100 columns shows it."""

import os
import runpy
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import click
import pytest

DOCS = Path(__file__).parents[2] / "docs"
generate = SimpleNamespace(**runpy.run_path(str(DOCS / "generate.py")))

COMMANDS = list(generate.commands())
PAGE = (DOCS / "commands.md").read_text(encoding="utf-8")
# Their names and the values that help lists say it all.
CLEAR = {"--json", "--debug", "--help", "--dtype", "--device"}


def test_the_page_is_what_help_says() -> None:
    assert generate.commands_page() == PAGE, (
        "docs/commands.md is not up to date: run `python docs/generate.py`"
    )


def test_commands_come_in_the_order_of_the_command_line() -> None:
    names = [name for name, *_ in COMMANDS]
    assert names[:4] == ["captioner", "captioner ingest", "captioner ingest pins", "captioner ingest images"]
    assert (
        names.index("captioner run")
        < names.index("captioner aggregate boards")
        < names.index("captioner stats")
    )


@pytest.mark.parametrize(
    ("name", "command"),
    [(name, command) for name, command, _ in COMMANDS],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_every_option_is_explained(name: str, command: click.Command) -> None:
    for option in command.params:
        if isinstance(option, click.Option) and not option.hidden:
            assert option.help or CLEAR & {*option.opts}, f"{name} {option.opts[-1]} has no help"


@pytest.mark.parametrize(
    ("name", "text"),
    [(name, text) for name, _, text in COMMANDS],
    ids=lambda value: value if value.startswith("captioner") else "",
)
def test_no_line_is_longer_than_100_columns(name: str, text: str) -> None:
    assert [line for line in text.splitlines() if len(line) > generate.COLUMNS_OF_TERMINAL] == []


def test_help_fits_a_terminal_of_80_columns() -> None:
    """Examples are not wrapped: they must be short enough as they are."""
    assert [
        line for _, _, text in generate.commands(80) for line in text.splitlines() if len(line) > 80
    ] == []


def test_a_terminal_of_100_columns_shows_the_same() -> None:
    name, _, text = next(entry for entry in COMMANDS if entry[0] == "captioner aggregate boards")
    command = [Path(sys.executable).with_name("captioner"), *name.split()[1:], "--help"]
    printed = subprocess.run(
        command, env=os.environ | {"COLUMNS": "100"}, capture_output=True, text=True, check=True
    ).stdout
    assert [line.rstrip() for line in printed.splitlines()] == text.splitlines()


def test_no_command_is_cut_short_in_the_list_of_commands_on_80_columns() -> None:
    for name, command, _ in COMMANDS:
        if isinstance(command, click.Group):
            context = click.Context(command, info_name=name, terminal_width=80)
            listed = command.get_help(context).partition("\nCommands:\n")[2].splitlines()
            cut = [line for line in listed if line.endswith("...")]
            assert listed
            assert cut == [], f"{name} --help: make the first sentence of the docstring shorter"
