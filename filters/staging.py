"""Sources that DuckDB cannot read as they are (CSV, JSON, odd types), as Parquet with plain types.

The reader of `ingest pins` reads them, value by value.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from datetime import date
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ..sources.cells import MISSING_WORDS, RowError, convert_column, identifier, row_as_json, text_column
from ..sources.columns import ColumnsRead
from ..sources.dates import moment
from ..sources.report import Report
from ..sources.rows import BadRow, EmptySource, Rows, SourceError, is_missing
from ..sources.tables import read_wanted
from .row_checks import MAX_COUNT, optional_identifier
from .source import Source
from .table_kinds import TABLE_KINDS, FieldType, TableKind

_ARROW_TYPES: dict[FieldType, pa.DataType] = {
    "id": pa.string(),
    "text": pa.string(),
    "day": pa.date32(),
    "count": pa.int64(),
}


def stage(source: Source, scratch: Path, report: Report) -> str:
    """Writes the rows of a source to a Parquet file in `scratch`, and returns its path.

    Its columns are the fields of the kind of table, and line (number in the source), bad (why the row is
    rejected, or null), emptied (why cells of it were left empty, a line each, or null) and content (of a row
    with one of these, as JSON). Raises SourceError.
    """
    kind = TABLE_KINDS[source.kind]
    types = {"line": pa.int64(), "bad": pa.string(), "emptied": pa.string(), "content": pa.string()}
    types |= {name: _ARROW_TYPES[wanted] for name, wanted in kind.fields.items()}
    path = str(scratch / f"{source.evidence_id}.parquet")
    any_rows = has_text = any_of_it = False
    with pq.ParquetWriter(path, pa.schema(types.items())) as writer:
        for rows in _read(source, report):
            if isinstance(rows, ColumnsRead):
                source.columns = rows
                any_of_it = any_of_it or bool(rows.names)
                continue
            if isinstance(rows, BadRow):
                columns: list[Any] = [[rows.line], [rows.reason], [None], [rows.content]]
                columns += [[None]] * len(kind.fields)
            else:
                any_rows, has_text = True, has_text or kind.text_field in rows.columns
                columns = _columns(rows, kind)
            writer.write_table(pa.table(columns, schema=writer.schema))
            any_of_it = True
    if source.from_stdin and not any_of_it:
        raise EmptySource("-")
    # A row of JSON names its own fields, so whether any row has the text is known only at the end.
    if kind.text_field and any_rows and not has_text:
        raise SourceError(
            f"no row of {source.name} has {kind.text_field!r}:"
            f" name its column with --map {kind.text_field}=COLUMN"
        )
    return path


def _read(source: Source, report: Report) -> Iterator[Rows | BadRow | ColumnsRead]:
    """The rows of a source. Errors name standard input, and not the file that it was copied to."""
    try:
        yield from read_wanted([source.path], source.wanted, report)
    except SourceError as error:
        if source.from_stdin:
            raise SourceError(str(error).replace(source.path, "standard input")) from error
        raise


def _columns(rows: Rows, kind: TableKind) -> list[Sequence[Any]]:
    """The columns line, bad, emptied, content and the fields of some rows."""
    n = len(rows.lines)
    reasons, empty = dict[int, str](), dict[int, list[str]]()
    fields: dict[str, Sequence[Any]] = {}
    faults_of: dict[str, dict[int, str]] = {}
    for name, wanted in kind.fields.items():
        values, faults = rows.columns.get(name, [None] * n), faults_of.setdefault(name, {})
        if wanted == "text":
            fields[name] = text_column(name, values, faults)
        else:
            fields[name] = convert_column(converter(name, wanted, name in kind.required), values, faults)
        for i, reason in faults.items():
            if kind.is_optional(name):
                empty.setdefault(i, []).append(reason)
            else:
                reasons.setdefault(i, reason)
    for names in kind.alternatives:
        choices = zip(*(fields[name] for name in names), strict=True)
        for i in [i for i, alternatives in enumerate(choices) if not any(alternatives)]:
            why = next((faults_of[name][i] for name in names if i in faults_of[name]), f"no {names[0]}")
            reasons.setdefault(i, why)
    content = {i: row_as_json(rows.columns, i) for i in reasons.keys() | empty.keys()}
    return [
        list(rows.lines),
        list(map(reasons.get, range(n))),
        ["\n".join(empty[i]) if i in empty and i not in reasons else None for i in range(n)]
        if empty
        else [None] * n,
        list(map(content.get, range(n))),
        *fields.values(),
    ]


def converter(name: str, wanted: FieldType, required: bool) -> Callable[[Any], Any]:
    """A function that turns a cell into a value of the field, or raises RowError."""
    if wanted == "id":
        return functools.partial(identifier if required else optional_identifier, name=name)
    if wanted == "count":
        return _count

    @functools.lru_cache(100_000)
    def day(value: Any) -> date | None:
        text = moment(value, name)
        return date.fromisoformat(text[:10]) if text else None

    # True equals 1 in a cache, and what is no single value cannot be in one.
    single = (str, int, float, date, Decimal)
    return lambda value: (
        day(value)
        if type(value) is str or (isinstance(value, single) and not isinstance(value, bool))
        else moment(value, name)
    )


def _count(value: Any) -> int:
    if is_missing(value) or (isinstance(value, str) and value.strip() in MISSING_WORDS | {""}):
        return 1
    try:
        exact = Decimal(value.strip()) if isinstance(value, str) else value
        number = int(exact)
        if isinstance(value, bool) or number != exact:
            raise ValueError
    except (ValueError, TypeError, OverflowError, InvalidOperation):
        raise RowError("count is no whole number") from None
    if number < 1:
        raise RowError("count is below 1")
    if number > MAX_COUNT:
        raise RowError(f"count is above {MAX_COUNT:,}")
    return number
