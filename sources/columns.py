"""Which column of a table holds which field that a command wants."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from shlex import quote

from .folders import folder_columns, of_fields
from .formats import table_format
from .names import ambiguity, find_columns, listed, plain, proposed_column
from .read_as import AS_NAMED, ReadAs
from .rows import SourceError

_LONG_NAME = 40  # characters
_CELL = re.compile(r"^[\s\d.,:/+-]*\d[\s\d.,:/+TZ-]*$|://|\.(?:jpe?g|png|webp|gif|avif)$", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class ColumnsRead:
    """Which columns of a source were read as which fields, and which were ignored."""

    source: str
    columns: Mapping[str, str]  # field -> column
    folders: Mapping[str, str | None]  # field -> value, of fields that the folders of the source name
    ignored: Sequence[str]
    names: Sequence[str]  # of all columns, in order
    remarks: Sequence[str] = ()  # what else was ignored, for instance sheets of a workbook
    lists: Sequence[str] = ()  # keys of JSON that hold lists of objects, in rows without a required field


@dataclass(frozen=True, slots=True)
class Wanted:
    """The fields that a command wants of its tables, and from which columns it reads them.

    `columns` is what the user said with --map, field -> column; None for a command without --map. A field
    that is not mapped is read from the column of the same name. Case and blanks at the ends of names do not
    count, but a column that has exactly the name comes first. A table must have a column for each of the
    `required` fields; "date|timestamp" requires one of the two.
    """

    fields: Sequence[str]
    columns: Mapping[str, str] | None
    required: Sequence[str]
    read_as: ReadAs = AS_NAMED

    def column_of(self, field: str) -> str:
        return (self.columns or {}).get(field, field)

    def of_folders(self, source: str) -> dict[str, str | None]:
        """field -> value, for the wanted fields that folders of the source name. Raises SourceError."""
        if not self.read_as.folders:
            return {}
        return of_fields(source, {field: self.column_of(field) for field in self.fields})

    def match(self, source: str, names: Sequence[str]) -> ColumnsRead:
        """Finds the columns of the wanted fields among the columns `names` of a table.

        Raises SourceError if the table lacks a mapped column or the column of a required field, or if two
        columns could be the field's.
        """
        found = find_columns({field: self.column_of(field) for field in self.fields}, names)
        for field, columns in found.items():
            if len(columns) > 1:
                raise SourceError(f"{source} has {ambiguity(columns, field, self.columns is not None)}")
        matched = {field: columns[0] for field, columns in found.items() if columns}
        folders = self.of_folders(source)
        for field, column in (self.columns or {}).items():
            if field not in matched and field not in folders:
                raise SourceError(
                    f"{source} has no column {column!r} (--map {field}={quote(column)});"
                    f" {self.these(source, names)}"
                )
        folders = self.not_in_file(folders, matched)
        for alternatives in self.required:
            if not (matched.keys() | folders.keys()) & set(alternatives.split("|")):
                field = alternatives.partition("|")[0]
                raise SourceError(
                    f"{source} has no column {field!r}{self._advice(source, field, names, matched)};"
                    f" {self.these(source, names)}"
                )
        used = set(matched.values())
        ignored = [name for name in names if name not in used]
        ignored += self.ignored_folders(source, matched.keys() | folders.keys())
        return ColumnsRead(source, matched, folders, ignored, names)

    def not_in_file(self, folders: Mapping[str, str | None], matched: Iterable[str]) -> dict[str, str | None]:
        """The fields of folders that count beside the file's own: not those that the file has, too.

        Of fields that stand for one another (`date|timestamp`), the file's own counts as well.
        """
        own = set(matched)
        for alternatives in self.required:
            names = set(alternatives.split("|"))
            own |= names if names & own else set()
        return {field: value for field, value in folders.items() if field not in own}

    def ignored_folders(self, source: str, used: Iterable[str]) -> list[str]:
        """The columns that folders of the source name and none of the `used` fields is read from."""
        if not self.read_as.folders:
            return []
        read = {plain(self.column_of(field)) for field in used}
        return [f"{key}= (folder)" for key in folder_columns(source) if plain(key) not in read]

    def map_advice(self, source: str, field: str, names: Sequence[str]) -> str:
        """The part of an error that recommends --map, "" for a command that has none."""
        if self.columns is None:
            return ""
        column = proposed_column(field, [*names, *self._keys(source)])
        return f"; say which one it is with --map {field}={quote(column) if column else 'COLUMN'}"

    def _advice(self, source: str, field: str, names: Sequence[str], matched: Mapping[str, str]) -> str:
        """The same for a table that may be written in another way than it was read."""
        form = self.read_as.format or table_format(PurePath(source).name)
        if self.columns is not None and form in ("csv", "tsv"):
            if names and names[0].lstrip().startswith(("{", "[")):
                return "; if it is JSON Lines, say so with --format jsonl"
            if not matched and any(map(_looks_like_data, names)):
                return f"; if its first line is a row and no header: --columns {field},NAME,..."
        return self.map_advice(source, field, names)

    def _keys(self, source: str) -> list[str]:
        """The columns that folders of the source name."""
        return list(folder_columns(source)) if self.read_as.folders else []

    def these(self, source: str, names: Sequence[str]) -> str:
        """The part of an error that names the columns of a source, its folders included."""
        return f"its columns: {listed([*names, *(f'{key}= (folder)' for key in self._keys(source))])}"


def _looks_like_data(name: str) -> bool:
    """Whether the name of a column is rather a cell: a number, a date, a path, a link or a long text."""
    return _CELL.search(name) is not None or len(name) > _LONG_NAME
