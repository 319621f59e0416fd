"""Parquet files with plain types, which DuckDB reads as they are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import duckdb

from ..sources.cells import RowError
from ..sources.folders import differing
from ..sources.formats import format_of
from ..sources.locations import errors_name
from ..sources.parquet_reader import column_names
from ..sources.report import Report
from ..sources.tables import folder_disagrees
from .duck import one, read_parquet
from .row_checks import day_fault, id_fault, id_of_text, is_day
from .source import Source
from .staging import converter
from .table_kinds import TABLE_KINDS, FieldType, TableKind

SQL_TYPES: dict[FieldType, str] = {"id": "VARCHAR", "text": "VARCHAR", "day": "DATE", "count": "BIGINT"}
_INTEGERS = {"TINYINT", "SMALLINT", "INTEGER", "BIGINT", "UTINYINT", "USMALLINT", "UINTEGER"}
_SHOWN = 300  # characters of a cell that are shown where its row is
_COMPARED = 1000  # different values of a file that are compared with its folder's
# Texts that DuckDB and `moment` of sources/dates.py read as the same day.
_TIME_TEXT = (
    r"(000[1-9]|00[1-9]\d|0[1-9]\d\d|[1-9]\d{3})-\d\d-\d\d"
    r"([T ]([01]\d|2[0-3]):\d\d(:\d\d(\.\d{1,9})?)?(Z|[+-]\d\d(:?\d\d)?)?)?"
)


class Layout(NamedTuple):
    """How DuckDB reads the fields of a file. Files of the same layout are read together."""

    # SQL for each field of the kind of table, in order; None for a field that folders name
    fields: tuple[str | None, ...]
    bad: str  # SQL for the reason why a row is rejected, or null
    emptied: str  # SQL for the reasons why cells are left empty, a line each, or null
    content: str  # SQL for the row as JSON
    types: tuple[str, ...]  # the columns' types in the file
    has_reserved_name: bool  # a column is named like one that DuckDB adds


class _Field(NamedTuple):
    value: str | None  # SQL; None if folders name the field
    fault: str | None = None  # SQL for the reason why a cell makes no sense, or null; None if all cells do


def layout_of(db: Any, source: Source, report: Report) -> Layout | None:
    """The layout of a Parquet file, or None if single values have to be looked at in Python.

    Fills in what the columns of the source are, and the SQL of the fields that its folders name. Raises
    SourceError for a file that lacks a column, or has one twice.
    """
    kind = TABLE_KINDS[source.kind]
    with errors_name(source.path):
        if format_of(source.path, source.wanted.read_as) != "parquet":
            return None
        names = column_names(source.path, source.wanted)
    matched = source.wanted.match(source.path, names)
    try:
        rows = db.execute(f"DESCRIBE SELECT * FROM {read_parquet([source.path], numbered=False)}").fetchall()
        if [name for name, *_ in rows] != names:
            return None  # DuckDB gives other names to columns that differ by case only
        types = {name: type_ for name, type_, *_ in rows}
        fields: dict[str, _Field] = {}
        for name, wanted in kind.fields.items():
            required = name in kind.required
            if name in matched.folders:
                value = converter(name, wanted, required)(matched.folders[name])
                source.of_folders[name] = _literal(value, wanted)
                fields[name] = _Field(None)
                continue
            column = matched.columns.get(name, "")
            field = _field(db, source.path, name, column, types.get(column, ""), wanted, required)
            if field is None:
                return None
            fields[name] = field
        _compare_with_folders(db, source, matched.columns, report)
    except (duckdb.InvalidInputException, duckdb.BinderException, RowError):
        # text that is not UTF-8, a column named like one that DuckDB adds, or a folder such as date=hello
        return None
    source.columns = matched
    return _layout(kind, matched.columns, types, fields)


def _layout(
    kind: TableKind, columns: Mapping[str, str], types: Mapping[str, str], fields: Mapping[str, _Field]
) -> Layout:
    """The layout of a file with these columns (field -> column), types (column -> type) and fields."""
    bad = [field.fault for name, field in fields.items() if field.fault and not kind.is_optional(name)]
    for names in kind.alternatives:
        # Either the file has some of these, or its folders do (`Wanted.not_in_file`), which have no faults.
        group = [fields[name] for name in names]
        if faults := [field.fault for field in group if field.fault]:
            values = ", ".join(field.value for field in group if field.value)
            bad.append(f"CASE WHEN coalesce({values}) IS NULL THEN coalesce({', '.join(faults)}, NULL) END")
    emptied = [field.fault for name, field in fields.items() if field.fault and kind.is_optional(name)]
    shown = ", ".join(
        f"{name} := left({_quoted(columns[name])}::VARCHAR, {_SHOWN})"
        for name in kind.fields
        if name in columns
    )
    return Layout(
        tuple(field.value for field in fields.values()),
        f"coalesce({', '.join(bad)}, NULL)" if bad else "NULL::VARCHAR",
        f"nullif(concat_ws(chr(10), {', '.join(emptied)}), '')" if emptied else "NULL::VARCHAR",
        f"to_json(struct_pack({shown}))::VARCHAR" if shown else "'{}'",
        tuple(types.get(columns.get(name, ""), "") for name in kind.fields),
        "file_row_number" in types or "file_index" in types,
    )


def _quoted(column: str) -> str:
    return '"' + column.replace('"', '""') + '"'


def _literal(value: Any, wanted: FieldType) -> str:
    """A value as SQL of the field's type."""
    text = "NULL" if value is None else "'" + str(value).replace("'", "''") + "'"
    return f"{text}::{SQL_TYPES[wanted]}"


def _compare_with_folders(db: Any, source: Source, columns: Mapping[str, str], report: Report) -> None:
    """Says where a file has other values than its folders."""
    for field, value in source.wanted.of_folders(source.path).items():
        if field in columns:
            rows = db.execute(
                f"SELECT DISTINCT {_quoted(columns[field])}::VARCHAR FROM {read_parquet([source.path])}"
                f" LIMIT {_COMPARED}"
            ).fetchall()
            if others := differing((row[0] for row in rows), value):
                report.remark(folder_disagrees(source.path, field, value, others))


def _field(
    db: Any, path: str, field: str, column: str, type_: str, wanted: FieldType, required: bool
) -> _Field | None:
    """SQL for a field, or None if DuckDB cannot read the column as the Python reader does."""
    name = _quoted(column)
    if not type_:
        return _Field(f"NULL::{SQL_TYPES[wanted]}")
    if wanted == "text" and type_ == "VARCHAR":
        without_nul = f"CASE WHEN contains({name}, chr(0)) THEN replace({name}, chr(0), '') ELSE {name} END"
        return _Field(f"nullif({without_nul}, '')")
    if wanted == "id" and type_ == "VARCHAR":
        text = f"nullif({name}, '')"
        return _Field(id_of_text(field, text), id_fault(field, text, is_text=True, required=required))
    if wanted in ("id", "text") and (type_ == "UUID" or type_ in _INTEGERS):
        fault = id_fault(field, name, is_text=False, required=True) if wanted == "id" and required else None
        return _Field(f"{name}::VARCHAR", fault)
    if wanted == "count" and type_ in _INTEGERS:
        return _Field(f"{name}::BIGINT")
    if wanted == "day":
        if type_ == "DATE" or type_.startswith("TIMESTAMP"):
            day = f"{name}::DATE"
        elif type_ == "VARCHAR" and _all_times(db, path, name):
            day = f"CASE WHEN length({name}) > 10 THEN {name}::TIMESTAMPTZ::DATE ELSE {name}::DATE END"
            return _Field(f"TRY_CAST({day} AS DATE)")
        else:
            return None
        return _Field(f"CASE WHEN {is_day(day)} THEN {day} END", day_fault(field, day))
    return None


def _all_times(db: Any, path: str, column: str) -> bool:
    """Whether every text of a column is a day or a time that DuckDB reads as the Python reader does."""
    is_time = f"regexp_full_match({column}, '{_TIME_TEXT}') AND TRY_CAST({column} AS TIMESTAMPTZ) IS NOT NULL"
    others, *_ = one(db, f"SELECT count(*) FROM {read_parquet([path])} WHERE NOT ({is_time})")
    return bool(others == 0)
