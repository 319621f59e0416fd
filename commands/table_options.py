"""The options of commands that read tables, and what these commands say about the columns that they read."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import click

from ..common.terminal import plural, printable, short_name

if TYPE_CHECKING:
    from ..sources.report import ReadReport, TableColumns

_SETS, _IGNORED, _REMARKS = 5, 12, 5  # as many are printed; --json has more
_PATH = 60  # characters of a path
_FORMATS = ("csv", "tsv", "jsonl", "json", "parquet", "xlsx")


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


def print_columns(report: ReadReport) -> None:
    """Says which columns were read as what, and which were ignored: a line for each set of columns."""
    tables = report["tables"]
    for table in tables[:_SETS]:
        click.echo(printable(_line(table)))
    more = sum(table["files"] for table in tables[_SETS:]) + report.get("more_tables", 0)
    if more:
        click.echo(f"{plural(more, 'more file')} with other columns; --json lists them")
    for remark in report["remarks"][:_REMARKS]:
        click.echo(printable(remark))
    if len(report["remarks"]) > _REMARKS:
        click.echo("and more remarks like these; --json lists them")


def _line(table: TableColumns) -> str:
    files = _end_of(table["source"]) if table["files"] == 1 else ""
    if table["source"] == "-":
        files = "standard input"
    kind = f"{table['table']}: " if "table" in table else ""
    name = files or f"{plural(table['files'], 'file')} such as {_end_of(table['source'])}"
    read = [
        short_name(field) if field == column else f"{field} from {short_name(column)}"
        for field, column in table["read"].items()
    ]
    line = f"{kind}columns of {name}: {', '.join(read) or 'none that captioner knows'}"
    ignored = table["ignored"]
    if ignored:
        shown = [short_name(column) for column in ignored[:_IGNORED]]
        if more := len(ignored) - len(shown) + table.get("more_ignored", 0):
            shown.append(f"{more:,} more")
        line += f"; ignored: {', '.join(shown)}"
    return line


def _end_of(path: str) -> str:
    """A path, or its end if it is long."""
    return path if len(path) <= _PATH else "…" + path[1 - _PATH :]


def print_rejected(counts: Mapping[str, Any]) -> None:
    """Says how many rows were rejected, and why."""
    if not counts["rejected"]:
        return
    click.echo(f"{counts['rejected']:,} rows rejected (see the table rejected_rows):")
    for reason, n in counts["reasons"].items():
        advice = " (is it another encoding? --encoding cp1252)" if reason == "not valid UTF-8" else ""
        click.echo(f"  {n:>8,}  {printable(reason)}{advice}")
