"""What `ingest` and `aggregate` say about their tables and pictures when they are done."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click

from ..common.terminal import TIED, plural, printable, short_name, wrapped

if TYPE_CHECKING:
    from ..sources.report import ReadReport, TableColumns

_NAMED = 8  # endings, keys and the like that a line names
_SETS, _IGNORED, _REMARKS = 5, 12, 5  # of columns; as many are printed, --json has more
ENCODING = "--encoding cp1252"  # the mend in a command that reads tables
_PATH = 60  # characters of a path


def print_pins(counts: Mapping[str, Any], store: str) -> None:
    """What became of the rows of tables."""
    _print_first_line(counts, store)
    print_repeated(counts)
    if "deleted" in counts:
        _say(f"{plural(counts['deleted'], 'pin')} marked as deleted: gone from the sources")
    print_columns(counts["columns"])
    print_rejected(counts)
    print_left_empty(counts["left_empty"])
    if missing := counts["images_not_found"]:
        _say(
            f"{plural(missing, 'image')} not found: relative paths start at the folder of the table, or at"
            " --image-root DIR"
        )
        click.echo(f"  for instance {printable(counts['first_image_not_found'])}")
    for note, n in counts["notes"].items():
        noun, _, rest = note.partition(" ")
        _say(f"{plural(n, _singular(noun))} {rest}")


def print_images(counts: Mapping[str, Any], store: str) -> None:
    """What became of the files of folders and archives."""
    _print_first_line(counts, store)
    if counts["archives"]:
        _say(f"{plural(counts['archives'], 'tar archive')} read; the pictures stay in there")
    if counts["moved"]:
        where = ", ".join(counts["moved_from"][:2]) or "another place"
        _say(f"{plural(counts['moved'], 'picture')} moved here, as the same bytes were in {where}")
    if "deleted" in counts:
        _say(f"{plural(counts['deleted'], 'pin')} marked as deleted whose picture is gone from here")
    if counts["texts"] or counts["ignored"]:
        texts = _named(counts["texts"]) or "nothing"
        ignored = f"; ignored: {_named(counts['ignored'])}" if counts["ignored"] else ""
        _say(f"texts beside pictures: {texts}{ignored}")
    if counts["system"]:
        what = plural(counts["system"], "file or folder", "files and folders")
        _say(f"{what} skipped, hidden or of systems ({', '.join(counts['system_examples'])})")
    if counts["linked_folders"]:
        _say(f"{plural(counts['linked_folders'], 'link')} to folders not followed")
    if counts["skipped"]:
        endings = {ending or "no extension": n for ending, n in counts["skipped_by_ending"].items()}
        _say(f"{plural(counts['skipped'], 'file')} skipped, with no image's extension ({_named(endings)})")
    print_rejected(counts, of_encoding="save it as UTF-8")


def print_columns(report: ReadReport) -> None:
    """Which columns were read as what, and which were ignored: a line for each set of columns."""
    tables = report["tables"]
    for table in tables[:_SETS]:
        click.echo(_line(table))
    more = sum(table["files"] for table in tables[_SETS:]) + report.get("more_tables", 0)
    if more:
        _say(f"{plural(more, 'more file')} with other columns; --json lists them")
    for remark in report["remarks"][:_REMARKS]:
        _say(remark)
    if len(report["remarks"]) > _REMARKS:
        click.echo("and more remarks like these; --json lists them")


def _line(table: TableColumns) -> str:
    files = _end_of(table["source"]) if table["files"] == 1 else ""
    if table["source"] == "-":
        files = "standard input"
    kind = f"{table['table']}: " if "table" in table else ""
    name = files or f"{plural(table['files'], 'file')} such as {_end_of(table['source'])}"
    read = [
        short_name(field) if field == column else f"{field}{TIED}from{TIED}{short_name(column)}"
        for field, column in table["read"].items()
    ]
    line = f"{kind}columns of {name}: {', '.join(read) or 'none that captioner knows'}"
    ignored = table["ignored"]
    if ignored:
        shown = [short_name(column) for column in ignored[:_IGNORED]]
        if more := len(ignored) - len(shown) + table.get("more_ignored", 0):
            shown.append(f"{more:,} more")
        line += f"; ignored:{TIED}{', '.join(shown)}"
    return wrapped(line)


def _end_of(path: str) -> str:
    """A path, or its end if it is long."""
    return path if len(path) <= _PATH else "…" + path[1 - _PATH :]


def print_repeated(counts: Mapping[str, Any]) -> None:
    """How many rows have no effect, because a later row is about the same pin."""
    if n := counts["repeated"]:
        name = "names" if n == 1 else "name"
        _say(f"{plural(n, 'row')} {name} a pin that another row has: the last one counts")


def print_rejected(counts: Mapping[str, Any], *, of_encoding: str = ENCODING) -> None:
    """How many rows were of no use, and why. `of_encoding` is the advice for what is not UTF-8."""
    if counts["rejected"]:
        _say(f"{plural(counts['rejected'], 'row')} rejected (see the table rejected_rows):")
        _print_reasons(counts["reasons"], of_encoding)


def print_left_empty(left_empty: Mapping[str, int]) -> None:
    """How many cells were left empty, and why."""
    if n := sum(left_empty.values()):
        rows = "its row" if n == 1 else "their rows"
        _say(f"{plural(n, 'cell')} left empty, {rows} kept (see the table rejected_rows):")
        _print_reasons(left_empty)


def _print_reasons(reasons: Mapping[str, int], of_encoding: str = ENCODING) -> None:
    from ..sources.report import is_of_encoding

    for reason, n in reasons.items():
        advice = f" (is it another encoding? {of_encoding})" if is_of_encoding(reason) else ""
        click.echo(wrapped(f"  {n:>8,}  {reason}{advice}", indent=" " * 12))


def _say(line: str) -> None:
    click.echo(wrapped(line))


def _print_first_line(counts: Mapping[str, Any], store: str) -> None:
    pins = plural(counts["pins"], "pin")
    click.echo(f"{pins} into {store}: {counts['new']:,} new, {counts['updated']:,} updated")


def _singular(nouns: str) -> str:
    """ "images" -> "image", "categories" -> "category"."""
    return f"{nouns[:-3]}y" if nouns.endswith("ies") else nouns.removesuffix("s")


def _named(numbers: Mapping[str, int]) -> str:
    """ "3 .mp4, 1 .pdf": the most frequent first, and not more than a line has room for."""
    named = [f"{n:,} {name}" for name, n in list(numbers.items())[:_NAMED]]
    return ", ".join(named + (["..."] if len(numbers) > _NAMED else []))
