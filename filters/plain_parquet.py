"""Parquet files with plain types, which DuckDB reads as they are."""

from __future__ import annotations

from typing import Any, NamedTuple

import duckdb

from .duck import one, read_parquet
from .row_checks import day_fault, id_fault, id_of_text, is_day
from .source import Source
from .table_kinds import TABLE_KINDS, FieldType

SQL_TYPES: dict[FieldType, str] = {"id": "VARCHAR", "text": "VARCHAR", "day": "DATE", "count": "BIGINT"}
_INTEGERS = {"TINYINT", "SMALLINT", "INTEGER", "BIGINT", "UTINYINT", "USMALLINT", "UINTEGER"}
_SHOWN = 300  # characters of a cell that are shown where its row is
# Texts that DuckDB and `moment` of sources/dates.py read as the same day.
_TIME_TEXT = (
    r"(000[1-9]|00[1-9]\d|0[1-9]\d\d|[1-9]\d{3})-\d\d-\d\d"
    r"([T ]([01]\d|2[0-3]):\d\d(:\d\d(\.\d{1,9})?)?(Z|[+-]\d\d(:?\d\d)?)?)?"
)


class Layout(NamedTuple):
    """How DuckDB reads the fields of a file. Files of the same layout are read together."""

    fields: tuple[str, ...]  # SQL for each field of the kind of table, in order
    bad: str  # SQL for the reason why a row is rejected, or null
    emptied: str  # SQL for the reasons why cells are left empty, a line each, or null
    content: str  # SQL for the row as JSON
    types: tuple[str, ...]  # the columns' types in the file
    has_reserved_name: bool  # a column is named like one that DuckDB adds


class _Field(NamedTuple):
    value: str  # SQL
    fault: str | None = None  # SQL for the reason why a cell makes no sense, or null; None if all cells do


def layout_of(db: Any, source: Source) -> Layout | None:
    """The layout of a Parquet file, or None if single values have to be looked at in Python."""
    if not source.path.lower().endswith(".parquet"):
        return None
    kind = TABLE_KINDS[source.kind]
    try:
        rows = db.execute(f"DESCRIBE SELECT * FROM {read_parquet([source.path], numbered=False)}").fetchall()
        types = {name: type_ for name, type_, *_ in rows}
        fields: dict[str, _Field] = {}
        columns = {name: source.columns.get(name, name) for name in kind.fields}
        for name, wanted in kind.fields.items():
            type_ = types.get(columns[name], "")
            field = _field(db, source.path, name, columns[name], type_, wanted, name in kind.required)
            if field is None:
                return None
            fields[name] = field
    except (duckdb.InvalidInputException, duckdb.BinderException):
        # text that is not UTF-8, or a column named like one that DuckDB adds
        return None
    bad = [field.fault for name, field in fields.items() if field.fault and not kind.is_optional(name)]
    for names in kind.alternatives:
        values, faults = ([field[i] for field in map(fields.__getitem__, names)] for i in (0, 1))
        if any(faults):
            reason = f"coalesce({', '.join(filter(None, faults))}, NULL)"
            bad.append(f"CASE WHEN coalesce({', '.join(map(str, values))}) IS NULL THEN {reason} END")
    emptied = [field.fault for name, field in fields.items() if field.fault and kind.is_optional(name)]
    shown = ", ".join(
        f"{name} := left({_quoted(column)}::VARCHAR, {_SHOWN})"
        for name, column in columns.items()
        if column in types
    )
    return Layout(
        tuple(field.value for field in fields.values()),
        f"coalesce({', '.join(bad)}, NULL)" if bad else "NULL::VARCHAR",
        f"nullif(concat_ws(chr(10), {', '.join(emptied)}), '')" if emptied else "NULL::VARCHAR",
        f"to_json(struct_pack({shown}))::VARCHAR",
        tuple(types.get(column, "") for column in columns.values()),
        "file_row_number" in types or "file_index" in types,
    )


def _quoted(column: str) -> str:
    return '"' + column.replace('"', '""') + '"'


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
