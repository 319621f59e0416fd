"""What `ingest` and `aggregate` say about their tables and pictures when they are done."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click

from ..common.terminal import plural, printable, short_name

if TYPE_CHECKING:
    from ..sources.report import ReadReport, TableColumns

_NAMED = 8  # endings, keys and the like that a line names
_SETS, _IGNORED, _REMARKS = 5, 12, 5  # of columns; as many are printed, --json has more
_PATH = 60  # characters of a path


def print_pins(counts: Mapping[str, Any], store: str) -> None:
    """What became of the rows of tables."""
    _print_first_line(counts, store)
    if "deleted" in counts:
        click.echo(f"{counts['deleted']:,} pins marked as deleted that are gone from the sources")
    print_columns(counts["columns"])
    print_rejected(counts)
    print_left_empty(counts["left_empty"])
    if missing := counts["images_not_found"]:
        click.echo(
            f"{missing:,} images are files that are not there: relative paths start at the folder of the"
            f" table, or at --image-root DIR\n  for instance {printable(counts['first_image_not_found'])}"
        )
    for note, n in counts["notes"].items():
        click.echo(f"{n:,} {note}")


def print_images(counts: Mapping[str, Any], store: str) -> None:
    """What became of the files of folders and archives."""
    _print_first_line(counts, store)
    if counts["archives"]:
        click.echo(f"{plural(counts['archives'], 'tar archive')} read; the pictures stay in there")
    if counts["moved"]:
        where = ", ".join(map(printable, counts["moved_from"][:2])) or "another place"
        click.echo(f"{plural(counts['moved'], 'picture')} moved here, as the same bytes were in {where}")
    if "deleted" in counts:
        click.echo(f"{counts['deleted']:,} pins marked as deleted whose picture is gone from here")
    if counts["texts"] or counts["ignored"]:
        texts = _named(counts["texts"]) or "nothing"
        ignored = f"; ignored: {_named(counts['ignored'])}" if counts["ignored"] else ""
        click.echo(f"texts beside pictures: {texts}{ignored}")
    if counts["system"]:
        names = ", ".join(map(printable, counts["system_examples"]))
        click.echo(f"{counts['system']:,} hidden files and folders, or of systems, skipped ({names})")
    if counts["linked_folders"]:
        click.echo(f"{plural(counts['linked_folders'], 'link')} to folders not followed")
    if counts["skipped"]:
        endings = {ending or "no extension": n for ending, n in counts["skipped_by_ending"].items()}
        click.echo(f"{counts['skipped']:,} files skipped that have no image's extension ({_named(endings)})")
    print_rejected(counts)


def print_columns(report: ReadReport) -> None:
    """Which columns were read as what, and which were ignored: a line for each set of columns."""
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
    """How many rows were of no use, and why."""
    if counts["rejected"]:
        click.echo(f"{counts['rejected']:,} rows rejected (see the table rejected_rows):")
        _print_reasons(counts["reasons"])


def print_left_empty(left_empty: Mapping[str, int]) -> None:
    """How many cells were left empty, and why."""
    if left_empty:
        click.echo(
            f"{sum(left_empty.values()):,} cells left empty, their rows kept (see the table rejected_rows):"
        )
        _print_reasons(left_empty)


def _print_reasons(reasons: Mapping[str, int]) -> None:
    from ..sources.report import is_of_encoding

    for reason, n in reasons.items():
        advice = " (is it another encoding? --encoding cp1252)" if is_of_encoding(reason) else ""
        click.echo(f"  {n:>8,}  {printable(reason)}{advice}")


def _print_first_line(counts: Mapping[str, Any], store: str) -> None:
    click.echo(f"{counts['pins']:,} pins into {store}: {counts['new']:,} new, {counts['updated']:,} updated")


def _named(numbers: Mapping[str, int]) -> str:
    """ "3 .mp4, 1 .pdf": the most frequent first, and not more than a line has room for."""
    named = [f"{n:,} {printable(name)}" for name, n in list(numbers.items())[:_NAMED]]
    return ", ".join(named + (["..."] if len(numbers) > _NAMED else []))
