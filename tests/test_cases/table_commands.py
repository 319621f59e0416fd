"""What tests of messy tables share: run a command, look into the store, write a workbook."""

import json
import re
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import openpyxl
from click.testing import CliRunner, Result

from pincaption.cli import cli


def captioner(*arguments: object, stdin: str | bytes | None = None) -> Result:
    return CliRunner().invoke(cli, [str(a) for a in arguments], input=stdin)


def said(*arguments: object, stdin: str | bytes | None = None) -> str:
    """What a command that did its work prints, with lines that were broken at 80 columns in one piece."""
    result = captioner(*arguments, stdin=stdin)
    assert result.exit_code == 0, result.stderr
    return unwrapped(result.stdout)


def unwrapped(printed: str) -> str:
    """Lines of `common.terminal.wrapped`, and of rejected rows, in one piece again."""
    return re.sub(r"\n(?: {2}| {12})(?=\S)", " ", printed)


def counts(*arguments: object, stdin: str | bytes | None = None) -> dict[str, Any]:
    return dict(json.loads(said(*arguments, "--json", stdin=stdin)))


def refused(*arguments: object, stdin: str | bytes | None = None) -> str:
    """The one sentence of a command that could not do its work."""
    result = captioner(*arguments, stdin=stdin)
    assert (result.exit_code, result.stdout) == (1, "")
    assert len(result.stderr.splitlines()) == 1
    return result.stderr.removeprefix("Error: ").rstrip()


def rows(store: Path, query: str) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(store)) as conn:
        return conn.execute(query).fetchall()


def workbook(path: Path, table: Sequence[Sequence[Any]], *more_sheets: str) -> Path:
    book = openpyxl.Workbook()
    for row in table:
        book.active.append(row)
    for name in more_sheets:
        book.create_sheet(name)
    book.save(path)
    return path
