"""DuckDB as this project uses it: limited in memory, in UTC, spilling beside the store."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import duckdb

from ..store import StoreError


def connect(spill: Path, memory_limit: str | None = None) -> Any:
    """An empty database in memory. What does not fit goes to the folder `spill`.

    Raises StoreError for a limit that is not a size.
    """
    db = duckdb.connect()
    try:
        if memory_limit is not None and not re.fullmatch(
            r"\s*\d+(\.\d+)?\s*([KMGT]i?)?B\s*", memory_limit, re.IGNORECASE
        ):
            raise duckdb.ParserException
        db.execute(f"SET memory_limit = '{escaped(memory_limit or default_memory_limit())}'")
    except duckdb.Error:
        raise StoreError(f"--memory-limit {memory_limit} is not a size such as 500MB or 4GB") from None
    db.execute(f"SET temp_directory = '{escaped(spill)}'")
    db.execute("SET preserve_insertion_order = false; SET TimeZone = 'UTC'; SET enable_progress_bar = false")
    return db


def default_memory_limit() -> str:
    """A sixteenth of the machine's memory, but at least 600 MB. To spill the rest costs little time."""
    import psutil

    return f"{max(600, psutil.virtual_memory().total // 16 // 1_000_000)}MB"


def one(db: Any, select: str, parameters: Sequence[Any] | None = None) -> tuple[Any, ...]:
    """The only row of a result."""
    # All rows are fetched: a result that is left open would hold up the next statement.
    return tuple(db.execute(select, parameters).fetchall()[0])


def escaped(path: Path | str) -> str:
    """A path as it is written between the quotes of SQL."""
    return str(path).replace("'", "''")


def read_parquet(files: Iterable[str], numbered: bool = True) -> str:
    """SQL for the rows of files; `numbered` adds their number in the file as file_row_number."""
    # Only the content of a file counts: names of folders give no columns, and names of files are no globs.
    quoted = ", ".join(f"'{escaped(_without_globs(file))}'" for file in files)
    row_number = ", file_row_number = true" if numbered else ""
    return f"read_parquet([{quoted}], hive_partitioning = false{row_number})"


def _without_globs(path: str) -> str:
    return "".join(f"[{c}]" if c in "*?[" else c for c in path)


def sql(name: str) -> str:
    """The text of sql/{name}.sql: one SELECT that DuckDB runs as it is, and Spark once it is transpiled."""
    return (Path(__file__).parent / "sql" / f"{name}.sql").read_text(encoding="utf-8")


def make(db: Any, text: str, parameters: Mapping[str, Any] | None = None, name: str | None = None) -> None:
    """Runs sql/{text}.sql into a table of that name, or of the name given."""
    db.execute(f"CREATE OR REPLACE TEMP TABLE {name or text} AS {sql(text)}", parameters or None)
