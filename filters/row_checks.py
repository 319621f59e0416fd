"""Why a row of a table is rejected, or a cell left empty, as SQL. `staging.py` has the same in Python.

Ids that are not plain are given to the functions of sources/cells.py, so that both ways agree.
"""

from __future__ import annotations

import math
import re
from typing import Any

from ..sources.cells import MAX_ID, MISSING_IDS, RowError, identifier
from .table_kinds import TableKind

MAX_COUNT = 2**31 - 1
# Every id that `identifier` changes or refuses has a match, and few others: characters that are not printable
# ASCII, floats as text, words that stand for nothing.
_WORDS = "|".join(map(re.escape, sorted(MISSING_IDS)))
_NOT_PLAIN = rf"[^!-~]|\.[0-9]+(E[0-9]+)?$|[eE]\+[0-9]+$|^({_WORDS})$"


def rejection_reason(kind: TableKind) -> str:
    """SQL for the reason why a row is rejected though its cells have the right types, or null."""
    tests = [f"WHEN coalesce({', '.join(names)}) IS NULL THEN 'no {names[0]}'" for names in kind.alternatives]
    if "action" in kind.fields:
        tests.append(
            "WHEN contains(action, '@') OR contains(action, '://') OR strlen(action) > 100"
            " THEN 'action is no name of an action'"
        )
    if "count" in kind.fields:
        tests += [
            "WHEN count < 1 THEN 'count is below 1'",
            f"WHEN count > {MAX_COUNT} THEN 'count is above {MAX_COUNT:,}'",
        ]
    return f"CASE {' '.join(tests)} END" if tests else "NULL::VARCHAR"


def id_of_text(field: str, text: str) -> str:
    """SQL for the id that a text stands for; null where it is none."""
    return (
        f"CASE WHEN regexp_matches({text}, '{_NOT_PLAIN}') THEN plain_id('{field}', {text}) ELSE {text} END"
    )


def id_fault(field: str, column: str, *, is_text: bool, required: bool) -> str:
    """SQL for the reason why a column has no id in a row, or null."""
    tests = [f"WHEN {column} IS NULL THEN 'no {field}'"] if required else []
    if is_text:
        odd = f"regexp_matches({column}, '{_NOT_PLAIN}')"
        if required:  # an id that is too long in characters is too long in bytes
            odd = f"strlen({column}) > {MAX_ID} OR {odd}"
        tests.append(f"WHEN {odd} THEN id_fault('{field}', {column})")
    return f"CASE {' '.join(tests)} END" if tests else "NULL::VARCHAR"


def day_fault(field: str, day: str) -> str:
    """SQL for the reason why a day cannot be, or null."""
    return f"CASE WHEN NOT ({is_day(day)}) THEN '{field} is no date that can be' END"


def is_day(day: str) -> str:
    """SQL for whether a day is within the years that there are."""
    return f"{day} BETWEEN DATE '0001-01-01' AND DATE '9999-12-31'"


def optional_identifier(value: Any, name: str) -> str | None:
    """A user id of any length, or None. Raises RowError."""
    if value is None or value == "":
        return None
    try:
        return identifier(value, name, math.inf)
    except RowError as error:
        if str(error) == f"no {name}":
            return None
        raise


def add_id_functions(db: Any) -> None:
    """Makes `plain_id(field, text)` and `id_fault(field, text)` known to DuckDB."""

    def read(field: str, text: str) -> tuple[str | None, str | None]:
        try:
            return (optional_identifier if field == "user_id" else identifier)(text, field), None
        except RowError as error:
            return None, str(error)

    def plain_id(field: str, text: str) -> str | None:
        return read(field, text)[0]

    def id_fault(field: str, text: str) -> str | None:
        return read(field, text)[1]

    for function in (plain_id, id_fault):
        db.create_function(function.__name__, function, [str, str], str, null_handling="special")
