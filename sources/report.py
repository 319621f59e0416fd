"""What was read of tables: which columns as which fields, which not at all; sources without a good row."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from shlex import quote
from typing import NotRequired, TypedDict

from ..common.terminal import plural
from .columns import ColumnsRead, Wanted
from .json_shape import jq
from .locations import Found
from .rows import SourceError

MAX_SETS = 20  # different sets of columns that are remembered
MAX_NAMES = 100  # names of ignored columns that are remembered of a set
MAX_REMARKS = 20
_REASONS_SHOWN = 3
_NO_JSON = "not valid JSON"
_OF_ENCODING = re.compile(r"(?:\w+ is )?not valid UTF-8")  # of a line, or of the cell of a field


class TableColumns(TypedDict):
    """What was read of the tables that have the same columns."""

    table: NotRequired[str]  # "boards", "saves" or "log", where a command reads several kinds
    files: int
    source: str  # the first of them
    read: dict[str, str]  # field -> column, or "KEY= (folder)"
    ignored: list[str]  # at most 100 columns
    more_ignored: NotRequired[int]  # how many beyond these


class ReadReport(TypedDict):
    """What was read and what was ignored of all tables of a command."""

    tables: list[TableColumns]  # at most 20
    more_tables: NotRequired[int]  # files with other columns beyond these
    remarks: list[str]
    skipped_by_ending: NotRequired[dict[str, int]]  # files in folders that are no tables by their names


class Report:
    """Gathers what was read, bounded in size however many files and columns there are."""

    def __init__(self) -> None:
        self._tables: dict[tuple[object, ...], TableColumns] = {}
        self._more = 0
        self._remarks: dict[str, None] = {}
        self._skipped = Counter[str]()  # ending -> files
        self._system = list[str]()
        self._empty = list[str]()

    def add(self, read: ColumnsRead, wanted: Wanted, table: str = "", unread: Collection[str] = ()) -> None:
        """Adds a source. `unread` are fields that the command knows and does not read."""
        fields = {field: _text(column) for field, column in read.columns.items() if field not in unread}
        folders = {field: f"{wanted.column_of(field)}= (folder)" for field in read.folders}
        fields |= {field: column for field, column in folders.items() if field not in unread}
        ignored = [_text(name) or "(no name)" for name in read.ignored]
        of_fields = [*read.columns.items(), *folders.items()]
        ignored += [_text(column) for field, column in of_fields if field in unread]
        key = (table, *fields.items(), "", *ignored)
        if found := self._tables.get(key):
            found["files"] += 1
        elif len(self._tables) < MAX_SETS:
            new: TableColumns = {
                "files": 1,
                "source": _text(read.source),
                "read": fields,
                "ignored": ignored[:MAX_NAMES],
            }
            if table:
                new["table"] = table
            if len(ignored) > MAX_NAMES:
                new["more_ignored"] = len(ignored) - MAX_NAMES
            self._tables[key] = new
        else:
            self._more += 1
        for remark in read.remarks:
            self.remark(f"{read.source}: {remark}")

    def remark(self, text: str) -> None:
        """Adds something else that was ignored, as a sentence without a full stop."""
        if len(self._remarks) < MAX_REMARKS:
            self._remarks[_text(text)] = None

    def skip(self, found: Found) -> None:
        """Adds the files in folders and behind globs that are not read."""
        self._skipped.update(found.skipped)
        self._system += found.system

    def empty(self, source: str) -> None:
        """Adds a file with nothing in it."""
        self._empty.append(source)

    def _of_files(self) -> Iterator[str]:
        """What is said of files that were not read or had nothing in them."""
        if n := self._skipped.total():
            by_ending = [f"{k:,} {ending or 'no extension'}" for ending, k in self._skipped.most_common(8)]
            dots = ["..."] if len(self._skipped) > 8 else []
            are = "is no table by its name" if n == 1 else "are no tables by their names"
            yield f"{plural(n, 'file')} skipped, which {are} ({', '.join(by_ending + dots)})"
        if n := len(self._system):
            examples = ", ".join(dict.fromkeys(_text(name) for name in self._system[:4]))
            yield f"{plural(n, 'file')} skipped, hidden or of systems ({examples})"
        if n := len(self._empty):
            yield f"{plural(n, 'empty file')}: {_text(self._empty[0])}{', ...' if n > 1 else ''}"

    def as_json(self) -> ReadReport:
        report: ReadReport = {
            "tables": list(self._tables.values()),
            "remarks": [*self._of_files(), *self._remarks],
        }
        if self._skipped:
            report["skipped_by_ending"] = dict(self._skipped.most_common())
        if self._more:
            report["more_tables"] = self._more
        return report


def _text(name: str) -> str:
    """A name without blanks at its ends; bytes that are no text become marks that say so."""
    return name.strip().encode("utf-8", "replace").decode()


class Reading:
    """What a command learns of its tables while it reads them.

    Gathers the columns for the report, and knows the sources of which nothing could be used. `table` and
    `unread` are as for `Report.add`.
    """

    def __init__(
        self, wanted: Wanted, report: Report | None = None, table: str = "", unread: Collection[str] = ()
    ):
        self.wanted, self.report = wanted, report or Report()
        self._table, self._unread = table, unread
        self._good = set[str]()  # sources with a row that could be used
        self._reasons: dict[str, Counter[str]] = {}  # of sources that had none so far
        self._columns: dict[str, ColumnsRead] = {}  # of the same

    def columns(self, read: ColumnsRead) -> None:
        """Takes in which columns a source has."""
        self.report.add(read, self.wanted, self._table, self._unread)
        if read.source not in self._good:
            self._columns[read.source] = read

    def rows(self, source: str, good: int, rejected: Iterable[str] = ()) -> None:
        """Takes in how many rows of a source could be used, and why others were rejected."""
        if source in self._good:
            return
        if good:
            self._good.add(source)
            self._reasons.pop(source, None)
            self._columns.pop(source, None)
        else:
            self._reasons.setdefault(source, Counter()).update(rejected)

    def failure(self) -> SourceError | None:
        """The error to raise if there is a source all of whose rows were rejected."""
        failed = [source for source, reasons in self._reasons.items() if reasons]
        if not failed:
            return None
        sentence = nothing_understood(
            failed[0], self._reasons[failed[0]], self._columns.get(failed[0]), self.wanted
        )
        if more := len(failed) - 1:
            sentence += f"; {more:,} more source{' is' if more == 1 else 's are'} like that"
        if self._good:
            sentence += "; the rows of the other sources were taken in"
        return SourceError(sentence)


def nothing_understood(source: str, reasons: Counter[str], read: ColumnsRead | None, wanted: Wanted) -> str:
    """The sentence for a source all of whose rows were rejected: why, what it has, and the mend."""
    n = reasons.total()
    why = ", ".join(reason for reason, _ in reasons.most_common(_REASONS_SHOWN))
    more = f", and {len(reasons) - _REASONS_SHOWN} other reasons" if len(reasons) > _REASONS_SHOWN else ""
    name = "standard input" if source == "-" else source
    rows = "its only row was" if n == 1 else f"all {n:,} rows were"
    sentence = f"nothing of {name} could be used: {rows} rejected, see the table rejected_rows ({why}{more})"
    if read and not read.names and any(reason.startswith(_NO_JSON) for reason in reasons):
        sentence += "; if it is CSV, say so with --format csv" if wanted.columns is not None else ""
    elif read:
        sentence += f"; {wanted.these(source, read.names)}{_mend(source, read, wanted)}"
    if any(map(is_of_encoding, reasons)):
        sentence += "; if it is in another encoding, say which with --encoding cp1252"
    return sentence


def is_of_encoding(reason: str) -> bool:
    """Whether a cell or a line may be text in another encoding than UTF-8."""
    return _OF_ENCODING.fullmatch(reason) is not None


def _mend(source: str, read: ColumnsRead, wanted: Wanted) -> str:
    """The advice for a source that lacks a required field."""
    if read.lists:
        return f"; if the rows are in {read.lists[0]!r}: {jq(read.lists[:1], source)}"
    for group in wanted.required:
        field = group.partition("|")[0]
        if not (read.columns.keys() | read.folders.keys()) & set(group.split("|")):
            column = wanted.column_of(field)
            mapped = f"; no row has {column!r} (--map {field}={quote(column)})" if column != field else ""
            return mapped + wanted.map_advice(source, field, read.names)
    return ""
