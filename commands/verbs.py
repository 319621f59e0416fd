"""What all commands have in common: --json, --debug, errors as one sentence, and the order of their help."""

from __future__ import annotations

import errno
import functools
import json
import os
import sys
from collections.abc import Callable, Iterable
from typing import IO, Any, NoReturn, TextIO, cast

import click

from ..common.errors import PincaptionError
from ..common.terminal import printable

STORE = click.argument("store", type=click.Path(dir_okay=True))


class Verbs(click.Group):
    """A group whose help lists the commands in the order in which they are used, not by the alphabet."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)


def verb(group: click.Group, name: str) -> Callable[[Callable[..., Any]], click.Command]:
    """Like `command`, and adds the command to a group."""

    def decorate(function: Callable[..., Any]) -> click.Command:
        added = command(name)(function)
        group.add_command(added)
        return added

    return decorate


def command(name: str) -> Callable[[Callable[..., Any]], click.Command]:
    """Makes a command with --json and --debug whose errors are one sentence on standard error, exit code 1.

    The decorated function gets `as_json`. With --json, what it returns is printed as the one JSON object.
    """

    def decorate(function: Callable[..., Any]) -> click.Command:
        @functools.wraps(function)
        def run_and_report(*args: Any, debug: bool, as_json: bool, **kwargs: Any) -> None:
            try:
                result = function(*args, as_json=as_json, **kwargs)
                if as_json:
                    click.echo(json.dumps(result, ensure_ascii=False))
            except (click.ClickException, click.exceptions.Exit, click.Abort):
                raise
            except KeyboardInterrupt:
                _end_interrupted()
            except BrokenPipeError:  # of standard error: ReaderMayLeave takes care of standard output
                _write_to_nowhere(sys.stderr)
                sys.exit(1)
            except Exception as error:
                if _is_interrupt(error):
                    _end_interrupted()
                if debug:
                    raise
                raise click.ClickException(printable(sentence_of(error))) from error

        decorated = click.command(name)(run_and_report)
        decorated.params += [
            click.Option(
                ["--json", "as_json"], is_flag=True, help="Print one JSON object to standard output."
            ),
            click.Option(["--debug"], is_flag=True, help="Show the traceback of an error."),
        ]
        return decorated

    return decorate


def finish(result: Any, as_json: bool, code: int) -> NoReturn:
    """Prints the JSON object if it was asked for, and ends the process with an exit code other than 0."""
    if as_json:
        click.echo(json.dumps(result, ensure_ascii=False))
    sys.exit(code)


class ReaderMayLeave:
    """Standard output whose reader may leave before the end, as in `captioner stats my.db | head -1`.

    That is no fault: the command goes on and ends with the exit code that it would have had. What it prints
    from then on goes nowhere.
    """

    def __init__(self, stream: IO[Any]) -> None:
        self._stream = stream

    @property
    def buffer(self) -> ReaderMayLeave:
        """The same for bytes."""
        return ReaderMayLeave(cast(TextIO, self._stream).buffer)

    def write(self, written: Any) -> int:
        try:
            return self._stream.write(written)
        except BrokenPipeError:
            _write_to_nowhere(self._stream)
            return len(written)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except BrokenPipeError:
            _write_to_nowhere(self._stream)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def _write_to_nowhere(stream: IO[Any]) -> None:
    """Lets the file descriptor of a stream stand for a file that keeps nothing."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _end_interrupted() -> NoReturn:
    click.echo("stopped; what was committed is kept, and the same command continues from there", err=True)
    sys.exit(130)


def _is_interrupt(error: Exception) -> bool:
    """Whether Ctrl-C interrupted a query of DuckDB, which raises an exception of its own for it."""
    if "duckdb" not in sys.modules:
        return False
    from ..filters.duck_errors import is_interrupt

    return is_interrupt(error)


def sentence_of(error: Exception) -> str:
    """What happened, in one sentence."""
    from ..store.sqlite_errors import explain_sqlite_error

    if isinstance(error, PincaptionError):
        return str(error)
    if sentence := explain_sqlite_error(error):
        return sentence
    if "duckdb" in sys.modules:
        from ..filters.duck_errors import explain_duckdb_error

        if sentence := explain_duckdb_error(error):
            return sentence
    if isinstance(error, (MemoryError, ValueError, FileExistsError)) and str(error):
        return str(error)
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:  # also from Arrow, which names no file
        where = f", in the folder of {error.filename}" if error.filename else ""
        return f"the disk is full{where}: make room, and run the same command again"
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    message = str(error).splitlines()[0] if str(error) else "no message"
    return f"{type(error).__name__}: {message} (--debug shows where)"


def pairs(texts: Iterable[str]) -> dict[str, str]:
    """The columns of fields of --map. Raises click.UsageError, also for a field that comes twice."""
    columns: dict[str, str] = {}
    for field, column in map(pair, texts):
        if columns.setdefault(field, column) != column:
            raise click.UsageError(
                f"--map gives {field} two columns, {columns[field]!r} and {column!r}: leave one of them out"
            )
    return columns


def pair(text: str) -> tuple[str, str]:
    """FIELD=COLUMN of --map as a pair. Raises click.UsageError."""
    field, equals, column = text.partition("=")
    if not equals or not field.strip() or not column.strip():
        raise click.UsageError(f"--map takes FIELD=COLUMN, for instance --map title=name; it got {text!r}")
    return field.strip(), column.strip()
