"""Folders such as `date=2026-05-31/locale=de/`, whose names are columns of the files below them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import PurePath
from typing import Any
from urllib.parse import unquote

from .cells import RowError
from .dates import moment
from .locations import absolute
from .names import plain
from .rows import SourceError

NULL = "__HIVE_DEFAULT_PARTITION__"  # what Hive and Spark call the folder of rows without a value
MAX_DIFFERENT = 3  # values of a file that differ from its folder's, as many as are shown


def folder_columns(source: str) -> dict[str, str | None]:
    """The columns that the folders above a file name, key -> value, the outermost first.

    All folders of the path count. So a file has the same columns whether it is named itself, by a glob that
    the shell has replaced, or by a folder above it. Raises SourceError if one key comes twice.
    """
    columns: dict[str, str | None] = {}
    if source == "-":
        return columns
    for part in PurePath(absolute(source)).parent.parts:
        key, equals, value = part.partition("=")
        if not equals or not key.strip():
            continue
        key = unquote(key, errors="replace")
        if key in columns:
            raise SourceError(f"{source} lies in two folders that name {key!r}: rename one of them")
        columns[key] = None if value in ("", NULL) else unquote(value, errors="replace")
    return columns


def differing(values: Iterable[Any], of_folder: str | None) -> list[str]:
    """Some of the values of a column that say something else than the folder of the file, as text."""
    found: list[str] = []
    for value in values:
        if not _same(value, of_folder):
            found.append(str(value))
            if len(found) == MAX_DIFFERENT:
                break
    return found


def _same(value: Any, of_folder: str | None) -> bool:
    if value is None or value == "" or of_folder is None:
        return (value in (None, "")) and of_folder is None
    if str(value).strip() == of_folder.strip():
        return True
    try:  # 2026-05-31T10:00:00Z lies in date=2026-05-31
        mine, theirs = moment(value), moment(of_folder)
    except (RowError, TypeError):
        return False
    return mine is not None and theirs is not None and mine[: len(theirs)] == theirs


def of_fields(source: str, fields: Mapping[str, str]) -> dict[str, str | None]:
    """field -> value, for the fields (field -> its column) that folders above a file name."""
    columns = folder_columns(source)
    if not columns:
        return {}
    found: dict[str, str | None] = {}
    for field, column in fields.items():
        keys = [key for key in columns if key == column] or [
            key for key in columns if plain(key) == plain(column)
        ]
        if len(keys) > 1:
            raise SourceError(
                f"{source} lies in the folders {keys[0]}= and {keys[1]}=, which differ by case only:"
                " rename one of them"
            )
        if keys:
            found[field] = columns[keys[0]]
    return found
