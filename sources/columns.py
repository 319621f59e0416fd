"""Which column of a table holds which field that a command wants."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from .rows import SourceError


@dataclass(frozen=True, slots=True)
class Wanted:
    """The fields that a command wants of its tables, and from which columns it reads them.

    `columns` is what the user said with --map, field -> column; None for a command without --map. A field
    that is not mapped is read from the column of the same name. A table must have a column for each of the
    `required` fields; "date|timestamp" requires one of the two.
    """

    fields: Sequence[str]
    columns: Mapping[str, str] | None
    required: Sequence[str]

    def column_of(self, field: str) -> str:
        return (self.columns or {}).get(field, field)

    def match(self, source: str, names: Sequence[str]) -> dict[str, str]:
        """field -> column, for the wanted fields that a table with the columns `names` has.

        Raises SourceError if the table lacks a mapped column or the column of a required field.
        """
        for field, column in (self.columns or {}).items():
            if column not in names:
                raise SourceError(
                    f"{source} has no column {column!r} (--map {field}={column}); "
                    f"its columns: {', '.join(names)}"
                )
        matched = {field: self.column_of(field) for field in self.fields if self.column_of(field) in names}
        for alternatives in self.required:
            if not matched.keys() & set(alternatives.split("|")):
                field = alternatives.partition("|")[0]
                advice = (
                    f"; say which one it is with --map {field}=COLUMN" if self.columns is not None else ""
                )
                raise SourceError(
                    f"{source} has no column {field!r}{advice}; its columns: {', '.join(names)}"
                )
        return matched
