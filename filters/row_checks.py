"""Why a row of a table is rejected though its cells have the right types, as SQL."""

from __future__ import annotations

from ..sources.cells import MAX_ID
from .table_kinds import TableKind

MAX_COUNT = 2**31 - 1
_BLANKS = "".join(filter(str.isspace, map(chr, range(0x3001))))  # what Python's `strip` strips


def rejection_reason(kind: TableKind) -> str:
    """SQL for the reason why a row is rejected, or null."""
    tests = []
    for required in kind.required:
        names = required.split("|")
        if kind.fields[names[0]] == "id":
            # Most rows need only the first, cheap half of these tests. A blank id begins with a blank, and an
            # id that is too long in characters is too long in bytes.
            tests.append(
                f"WHEN {required} IS NULL OR (({required} < '!' OR {required} >= chr(127))"
                f" AND trim({required}, '{_BLANKS}') = '') THEN 'no {required}'"
            )
            tests.append(
                f"WHEN strlen({required}) > {MAX_ID} AND length({required}) > {MAX_ID}"
                f" THEN '{required} is longer than {MAX_ID} characters'"
            )
        elif kind.fields[names[0]] == "day":
            tests.append(f"WHEN coalesce({', '.join(names)}) IS NULL THEN 'no {names[0]}'")
    tests += [
        f"WHEN {name} NOT BETWEEN DATE '0001-01-01' AND DATE '9999-12-31'"
        f" THEN '{name} is no date that can be'"
        for name, type_ in kind.fields.items()
        if type_ == "day"
    ]
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
