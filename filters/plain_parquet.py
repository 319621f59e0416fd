"""Parquet files with plain types, which DuckDB reads as they are."""

from __future__ import annotations

from typing import Any, NamedTuple

import duckdb

from .duck import one, read_parquet
from .source import Source
from .table_kinds import TABLE_KINDS, FieldType

SQL_TYPES: dict[FieldType, str] = {"id": "VARCHAR", "text": "VARCHAR", "day": "DATE", "count": "BIGINT"}
_INTEGERS = {"TINYINT", "SMALLINT", "INTEGER", "BIGINT", "UTINYINT", "USMALLINT", "UINTEGER"}
# Texts that DuckDB and `moment` of sources/cells.py read as the same day.
_TIME_TEXT = (
    r"(000[1-9]|00[1-9]\d|0[1-9]\d\d|[1-9]\d{3})-\d\d-\d\d"
    r"([T ]([01]\d|2[0-3]):\d\d(:\d\d(\.\d{1,9})?)?(Z|[+-]\d\d(:?\d\d)?)?)?"
)


class Layout(NamedTuple):
    """How DuckDB reads the fields of a file. Files of the same layout are read together."""

    fields: tuple[str, ...]  # SQL for each field of the kind of table, in order
    types: tuple[str, ...]  # the columns' types in the file
    has_reserved_name: bool  # a column is named like one that DuckDB adds


def layout_of(db: Any, source: Source) -> Layout | None:
    """The layout of a Parquet file, or None if single values have to be looked at in Python."""
    if not source.path.lower().endswith(".parquet"):
        return None
    try:
        rows = db.execute(f"DESCRIBE SELECT * FROM {read_parquet([source.path], numbered=False)}").fetchall()
        types = {name: type_ for name, type_, *_ in rows}
        fields = []
        for name, wanted in TABLE_KINDS[source.kind].fields.items():
            column = source.columns.get(name, name)
            sql = _field(db, source.path, column, types.get(column, ""), wanted)
            if sql is None:
                return None
            fields.append((sql, types.get(column, "")))
    except (duckdb.InvalidInputException, duckdb.BinderException):
        # text that is not UTF-8, or a column named like one that DuckDB adds
        return None
    has_reserved_name = "file_row_number" in types or "file_index" in types
    return Layout(tuple(sql for sql, _ in fields), tuple(type_ for _, type_ in fields), has_reserved_name)


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
