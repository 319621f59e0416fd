"""Sources that DuckDB cannot read as they are (CSV, JSON, odd types), as Parquet with plain types.

The reader of `ingest pins` reads them, value by value.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import date
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ..sources.cells import RowError, convert_column, identifier, moment, text_column, text_of
from ..sources.columns import ColumnsRead
from ..sources.report import Report
from ..sources.rows import BadRow, Rows, SourceError, is_missing
from ..sources.tables import read_wanted
from .row_checks import MAX_COUNT
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
    rejected, or null) and content (of a rejected row, as JSON). Raises SourceError.
    """
    kind = TABLE_KINDS[source.kind]
    types = {"line": pa.int64(), "bad": pa.string(), "content": pa.string()} | {
        name: _ARROW_TYPES[wanted] for name, wanted in kind.fields.items()
    }
    path = str(scratch / f"{source.evidence_id}.parquet")
    any_rows = has_text = False
    with pq.ParquetWriter(path, pa.schema(types.items())) as writer:
        for rows in _read(source, report):
            if isinstance(rows, ColumnsRead):
                source.columns = rows
                continue
            if isinstance(rows, BadRow):
                columns: list[Any] = [[rows.line], [rows.reason], [rows.content]] + [[None]] * len(
                    kind.fields
                )
            else:
                any_rows, has_text = True, has_text or kind.text_field in rows.columns
                columns = _columns(rows, kind)
            writer.write_table(pa.table(columns, schema=writer.schema))
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
    """The columns line, bad, content and the fields of some rows."""
    n, reasons = len(rows.lines), dict[int, str]()
    fields: dict[str, Sequence[Any]] = {}
    for name, wanted in kind.fields.items():
        values = rows.columns.get(name, [None] * n)
        if wanted == "text":
            fields[name] = text_column(name, values, reasons)
        else:
            fields[name] = convert_column(converter(name, wanted, name in kind.required), values, reasons)
    for required in kind.required:
        names = required.split("|")
        if len(names) > 1:
            choices = zip(*(fields[name] for name in names), strict=True)
            missing = [i for i, values in enumerate(choices) if not any(values)]
            reasons = dict.fromkeys(missing, f"no {names[0]}") | reasons
    content = {i: _as_json(rows.columns, i) for i in reasons}
    return [
        list(rows.lines),
        list(map(reasons.get, range(n))),
        list(map(content.get, range(n))),
        *fields.values(),
    ]


def _as_json(columns: Mapping[str, Sequence[Any]], i: int) -> str:
    """The cells of a row as JSON; lone surrogates become `?`."""
    row = {name: _on_one_line(column[i]) for name, column in columns.items()}
    return json.dumps(row, ensure_ascii=False, default=str).encode(errors="replace").decode()


def _on_one_line(value: Any) -> Any:
    """A text without line ends and tabs: as escapes in JSON they would hide a telephone number."""
    return " ".join(value.split()) if isinstance(value, str) else value


def converter(name: str, wanted: FieldType, required: bool) -> Callable[[Any], Any]:
    """A function that turns a cell into a value of the field, or raises RowError."""
    if wanted == "id":
        return functools.partial(identifier, name=name) if required else _optional_identifier
    if wanted == "count":
        return _count

    @functools.lru_cache(100_000)
    def day(value: Any) -> date | None:
        text = moment(value, name)
        return date.fromisoformat(text[:10]) if text else None

    return lambda value: (
        day(value) if isinstance(value, (str, int, float, date)) else day(text_of(name, value))
    )


def _optional_identifier(value: Any) -> str | None:
    """A user id, or None."""
    if isinstance(value, str) or is_missing(value):
        text = text_of("user_id", value)
    else:
        text = identifier(value, "user_id")
    return text if text and text.strip() else None


def _count(value: Any) -> int:
    if is_missing(value):
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
