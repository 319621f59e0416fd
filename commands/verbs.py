"""What the commands have in common: --json, --debug, errors in one sentence, the order in which help names
them.
"""

from __future__ import annotations

import functools
import json
import os
import sys
from collections.abc import Callable
from typing import Any

import click

from ..common.errors import PincaptionError
from ..common.terminal import printable

STORE = click.argument("store", type=click.Path(dir_okay=True))


class Verbs(click.Group):
    """Commands in the order in which they are used, not of the alphabet."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)


def verb(group: click.Group, name: str) -> Callable[[Callable[..., Any]], click.Command]:
    """A command with --json and --debug, whose errors are one sentence on standard error and exit code 1.

    The function gets `as_json`; what it returns is printed as the one JSON object if that is set.
    """

    def decorate(function: Callable[..., Any]) -> click.Command:
        @functools.wraps(function)
        def wrapped(*args: Any, debug: bool, as_json: bool, **kwargs: Any) -> None:
            try:
                found = function(*args, as_json=as_json, **kwargs)
            except (click.ClickException, click.exceptions.Exit, click.Abort):
                raise
            except KeyboardInterrupt:
                click.echo(
                    "stopped at once; what was committed is kept, the same command goes on from there",
                    err=True,
                )
                sys.exit(130)
            except BrokenPipeError:
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
                sys.exit(1)
            except Exception as error:
                if type(error).__name__ == "InterruptException" or "Query interrupted" in str(error):
                    # how DuckDB hands on Ctrl-C
                    click.echo(
                        "stopped at once; what was committed is kept, the same command goes on from there",
                        err=True,
                    )
                    sys.exit(130)
                if debug:
                    raise
                raise click.ClickException(printable(_sentence(error))) from error
            if as_json:
                click.echo(json.dumps(found, ensure_ascii=False))

        made = group.command(name)(wrapped)
        made.params.append(
            click.Option(
                ["--json", "as_json"], is_flag=True, help="Print one JSON object to standard output."
            )
        )
        made.params.append(click.Option(["--debug"], is_flag=True, help="Show the traceback of an error."))
        return made

    return decorate


def _sentence(error: Exception) -> str:
    import sqlite3

    if isinstance(error, sqlite3.OperationalError) and "locked" in str(error):
        return "the store is locked by another process that is writing to it: try again when it is done"
    if isinstance(error, sqlite3.OperationalError) and "readonly" in str(error):
        return "the store cannot be written: the file and its folder must be writable to you"
    if isinstance(error, sqlite3.OperationalError) and "full" in str(error):
        return "the disk is full: what was committed is kept, make room and run the same command again"
    if type(error).__name__ == "OutOfMemoryException":
        return "the memory that --memory-limit allows is too little for this: allow more, for instance --memory-limit 1GB; what was committed is kept"
    if isinstance(error, PincaptionError) or (
        isinstance(error, (MemoryError, ValueError, FileExistsError)) and str(error)
    ):
        return str(error)
    return f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else 'no message'} (--debug shows where)"


def pair(text: str) -> tuple[str, str]:
    """FIELD=COLUMN of --map. Raises click.UsageError."""
    field, equals, column = text.partition("=")
    if not equals or not field.strip() or not column.strip():
        raise click.UsageError(f"--map takes FIELD=COLUMN, for instance --map title=name; it got {text!r}")
    return field.strip(), column.strip()
