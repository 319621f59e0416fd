"""DuckDB as this project uses it: bounded in memory, spilling beside the store, in UTC, one result at a time."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import duckdb

from ..store.connection import StoreError


def connect(spill: Path, memory_limit: str | None = None) -> Any:
    """An empty database in memory, which spills what does not fit to the folder `spill`.

    Raises StoreError for a limit that is none.
    """
    db = duckdb.connect()
    try:
        if memory_limit is not None and not re.fullmatch(
            r"\s*\d+(\.\d+)?\s*([KMGT]i?)?B\s*", memory_limit, re.IGNORECASE
        ):
            raise duckdb.ParserException
        db.execute(f"SET memory_limit = '{escaped(memory_limit or default_memory_limit())}'")
    except duckdb.Error:
        raise StoreError(f"--memory-limit {memory_limit} is no size such as 500MB or 4GB") from None
    db.execute(f"SET temp_directory = '{escaped(spill)}'")
    db.execute("SET preserve_insertion_order = false; SET TimeZone = 'UTC'; SET enable_progress_bar = false")
    return db


def default_memory_limit() -> str:
    """A sixteenth of the machine's memory, at least 600 MB: what does not fit is spilled to the disk, which
    costs little.
    """
    import psutil

    return f"{max(600, psutil.virtual_memory().total // 16 // 1_000_000)}MB"


def one(db: Any, sql: str, parameters: Sequence[Any] | None = None) -> tuple[Any, ...]:
    """The only row of a result, taken to its end."""
    return tuple(db.execute(sql, parameters).fetchall()[0])


def escaped(path: Path | str) -> str:
    """A path within quotes of SQL."""
    return str(path).replace("'", "''")


def read_parquet(files: Iterable[str], numbered: bool = True) -> str:
    """SQL for the rows of files, with their numbers as file_row_number."""
    # Only what a file itself says counts: no columns from the names of folders, no globs in the names of
    # files.
    quoted = ", ".join(f"'{escaped(_literal(file))}'" for file in files)
    return (
        f"read_parquet([{quoted}], hive_partitioning = false{', file_row_number = true' if numbered else ''})"
    )


def _literal(path: str) -> str:
    return "".join(f"[{c}]" if c in "*?[" else c for c in path)


def sql(name: str) -> str:
    """The text of sql/{name}.sql: one SELECT, as DuckDB and, transpiled, Spark run it."""
    return (Path(__file__).parent / "sql" / f"{name}.sql").read_text(encoding="utf-8")


def make(db: Any, text: str, parameters: Mapping[str, Any] | None = None, name: str | None = None) -> None:
    """Runs sql/{text}.sql into a table of that name, or of another."""
    db.execute(f"CREATE OR REPLACE TEMP TABLE {name or text} AS {sql(text)}", parameters or None)
