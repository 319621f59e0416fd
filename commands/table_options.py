"""The options of commands that read tables: how the files are written."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

_FORMATS = ("csv", "tsv", "jsonl", "json", "parquet", "xlsx")


MAP = click.option(
    "--map",
    "columns",
    multiple=True,
    metavar="FIELD=COLUMN",
    help="Read FIELD from the source's COLUMN. Repeatable.",
)


def one_list(names: Any) -> list[str]:
    """The value of --columns for a command that reads one kind of table. Raises click.UsageError."""
    if isinstance(names, dict):
        raise click.UsageError("--columns takes names of columns, for instance pin_id,title,image")
    return list(names)


def table_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """--format, --encoding and --columns."""
    for option in reversed(
        [
            click.option(
                "--format",
                type=click.Choice(_FORMATS),
                help="Format of sources whose names do not say it.",
            ),
            click.option(
                "--encoding",
                metavar="NAME",
                callback=_encoding,
                help="Encoding of CSV and JSON that is not UTF-8 or UTF-16, for instance cp1252.",
            ),
            click.option(
                "--columns",
                "names",
                multiple=True,
                metavar="NAME,NAME...",
                callback=_names,
                help="Columns, in order, of CSV and TSV without a header.",
            ),
        ]
    ):
        function = option(function)
    return function


def _encoding(ctx: click.Context, param: click.Parameter, value: str | None) -> str | None:
    from ..sources.read_as import is_text_encoding

    if value is not None and not is_text_encoding(value):
        raise click.BadParameter(f"{value!r} is no encoding: take for instance cp1252, latin-1 or utf-16")
    return value


def _names(
    ctx: click.Context, param: click.Parameter, values: tuple[str, ...]
) -> list[str] | dict[str, list[str]]:
    """A list of names, or of `TABLE=NAME,NAME...` a list for each kind of table."""
    names: dict[str, list[str]] = {}
    for value in values:
        table, _, listed = value.rpartition("=")
        columns = [name.strip() for name in listed.split(",")]
        if not any(columns):
            raise click.BadParameter("takes names of columns, for instance pin_id,query,action,date")
        if table.strip() in names:
            raise click.BadParameter("is given twice for the same tables")
        if twice := next((name for name in columns if name and columns.count(name) > 1), None):
            raise click.BadParameter(f"has {twice!r} twice")
        names[table.strip()] = columns
    return names[""] if set(names) == {""} else names if names else []
