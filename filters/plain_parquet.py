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
from .source import Source
from .staging import converter
from .table_kinds import TABLE_KINDS, FieldType

SQL_TYPES: dict[FieldType, str] = {"id": "VARCHAR", "text": "VARCHAR", "day": "DATE", "count": "BIGINT"}
_INTEGERS = {"TINYINT", "SMALLINT", "INTEGER", "BIGINT", "UTINYINT", "USMALLINT", "UINTEGER"}
# Texts that DuckDB and `moment` of sources/cells.py read as the same day.
_TIME_TEXT = (
    r"(000[1-9]|00[1-9]\d|0[1-9]\d\d|[1-9]\d{3})-\d\d-\d\d"
    r"([T ]([01]\d|2[0-3]):\d\d(:\d\d(\.\d{1,9})?)?(Z|[+-]\d\d(:?\d\d)?)?)?"
)


_COMPARED = 1000  # different values of a file that are compared with its folder's


class Layout(NamedTuple):
    """How DuckDB reads the fields of a file. Files of the same layout are read together."""

    # SQL for each field of the kind of table, in order; None for a field that folders name
    fields: tuple[str | None, ...]
    types: tuple[str, ...]  # the columns' types in the file
    has_reserved_name: bool  # a column is named like one that DuckDB adds


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
        fields: list[tuple[str | None, str]] = []
        for name, wanted in kind.fields.items():
            if name in matched.folders:
                value = converter(name, wanted, name in kind.required)(matched.folders[name])
                source.of_folders[name] = _literal(value, wanted)
                fields.append((None, ""))
                continue
            column = matched.columns.get(name, "")
            type_ = types.get(column, "")
            sql = _field(db, source.path, column, type_, wanted)
            if sql is None:
                return None
            fields.append((sql, type_))
        _compare_with_folders(db, source, matched.columns, report)
    except (duckdb.InvalidInputException, duckdb.BinderException, RowError):
        # text that is not UTF-8, a column named like one that DuckDB adds, or a folder such as date=hello
        return None
    source.columns = matched
    has_reserved_name = "file_row_number" in types or "file_index" in types
    return Layout(tuple(sql for sql, _ in fields), tuple(type_ for _, type_ in fields), has_reserved_name)


def _literal(value: Any, wanted: FieldType) -> str:
    """A value as SQL of the field's type."""
    text = "NULL" if value is None else "'" + str(value).replace("'", "''") + "'"
    return f"{text}::{SQL_TYPES[wanted]}"


def _compare_with_folders(db: Any, source: Source, columns: Mapping[str, str], report: Report) -> None:
    """Says where a file has other values than its folders."""
    for field, value in source.wanted.of_folders(source.path).items():
        if field in columns:
            name = '"' + columns[field].replace('"', '""') + '"'
            rows = db.execute(
                f"SELECT DISTINCT {name}::VARCHAR FROM {read_parquet([source.path])} LIMIT {_COMPARED}"
            ).fetchall()
            if others := differing((row[0] for row in rows), value):
                report.remark(folder_disagrees(source.path, field, value, others))


def _field(db: Any, path: str, column: str, type_: str, wanted: FieldType) -> str | None:
    """SQL for a field, or None if DuckDB cannot read the column as the Python reader does."""
    name = '"' + column.replace('"', '""') + '"'
    if not type_:
        return f"NULL::{SQL_TYPES[wanted]}"
    if wanted in ("id", "text") and type_ == "VARCHAR":
        without_nul = f"CASE WHEN contains({name}, chr(0)) THEN replace({name}, chr(0), '') ELSE {name} END"
        return f"nullif({without_nul}, '')"
    if wanted != "day" and type_ in _INTEGERS:
        return f"{name}::{SQL_TYPES[wanted]}"
    if wanted == "day" and (type_ == "DATE" or type_.startswith("TIMESTAMP")):
        return f"{name}::{SQL_TYPES[wanted]}"
    if wanted == "day" and type_ == "VARCHAR" and _all_times(db, path, name):
        day = f"CASE WHEN length({name}) > 10 THEN {name}::TIMESTAMPTZ::DATE ELSE {name}::DATE END"
        return f"TRY_CAST({day} AS DATE)"
    return None


def _all_times(db: Any, path: str, column: str) -> bool:
    """Whether every text of a column is a day or a time that DuckDB reads as the Python reader does."""
    is_time = f"regexp_full_match({column}, '{_TIME_TEXT}') AND TRY_CAST({column} AS TIMESTAMPTZ) IS NOT NULL"
    others, *_ = one(db, f"SELECT count(*) FROM {read_parquet([path])} WHERE NOT ({is_time})")
    return bool(others == 0)
