"""A batch of sources turned into numbered rows, as Parquet files in STORE.partials/.

Titles and queries are normalised here, once per distinct text, in Python. So every engine that reads the
files later sees the same texts. Texts with personal data go no further than here.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import duckdb

from ..common.personal import holds_personal_data
from ..sources.cells import MISSING_IDS, MISSING_WORDS
from ..sources.report import Report
from ..sources.rows import BadRow, SourceError
from ..store.rejected import MOST_EMPTIED
from .duck import escaped, one, read_parquet
from .plain_parquet import Layout, layout_of
from .row_checks import add_id_functions, rejection_reason
from .source import Source
from .staging import stage
from .table_kinds import TABLE_KINDS, TableKind
from .text import normalise

MAX_QUERY = 100  # characters of a normalised query; a longer one was pasted, not typed
EMPTY, PERSONAL, LONG_QUERY = "empty", "personal data", f"longer than {MAX_QUERY} characters"
ROWS_AT_ONCE = 50_000
# Errors that the other reader would not mend either.
_NOT_OF_THE_FILE = (
    duckdb.OutOfMemoryException,
    duckdb.BinderException,
    duckdb.CatalogException,
    duckdb.ParserException,
)


class CodebookFile(NamedTuple):
    """A new file of a codebook, which gives numbers to texts: code, text."""

    codebook: str
    file: str
    rows: int


@dataclass
class Batch:
    """What a batch of sources became: new files of codebooks, rejected rows, and cells left empty."""

    codebooks: list[CodebookFile]
    bad_rows: Iterator[BadRow]
    left_empty: dict[str, int]  # reason -> cells
    emptied_cells: Iterator[BadRow]  # some of each reason, as the row that they are in


class Target(NamedTuple):
    """Where a batch is written: to files in `folder` whose names begin with `stem`."""

    folder: Path
    stem: str

    def file(self, name: str) -> str:
        """The name of a file."""
        return f"{self.stem}-{name}.parquet"


def read_batch(
    db: Any,
    sources: Sequence[Source],
    first_id: int,
    target: Target,
    codebooks: Mapping[str, list[str]],
    scratch: Path,
    report: Report,
) -> Batch:
    """Writes the rows of `sources`, all of one kind, to the file {stem}-{kind}.parquet.

    Texts get the numbers that they have in `codebooks` (name -> paths of its files); texts that are new get
    numbers in new files. Fills in evidence_id (counting from `first_id`), rows_read, rejected and counts of
    each source. `report` gets what else was ignored. Raises SourceError.
    """
    layouts = {source.path: layout for source in sources if (layout := layout_of(db, source, report))}
    try:
        return _read(db, sources, layouts, first_id, target, codebooks, scratch, report)
    except _NOT_OF_THE_FILE:
        raise
    except duckdb.Error as error:
        if "nterrupt" in str(error):
            raise KeyboardInterrupt from error
        if not layouts or isinstance(error, duckdb.FatalException):
            paths = " or ".join(source.path for source in sources[:3])
            others = " or another of these files" if len(sources) > 3 else ""
            message = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise SourceError(f"{paths}{others} is damaged: {message}") from error
        # Text that is not UTF-8, or a damaged file. The Python reader says which row or which file it is.
        return _read(db, sources, {}, first_id, target, codebooks, scratch, report)


def _read(
    db: Any,
    sources: Sequence[Source],
    layouts: Mapping[str, Layout],
    first_id: int,
    target: Target,
    codebooks: Mapping[str, list[str]],
    scratch: Path,
    report: Report,
) -> Batch:
    kind = TABLE_KINDS[sources[0].kind]
    _load(db, sources, layouts, first_id, scratch, report)
    new = []
    if kind.text_field:
        _normalise_texts(db, kind.text_field)
    for name, field in kind.codebooks.items():
        if field:
            distinct = f"SELECT DISTINCT {field} AS text FROM good"
        else:
            distinct = "SELECT DISTINCT text FROM normalised WHERE text IS NOT NULL"
        new.append(_number(db, name, distinct, codebooks[name], target))
        if not field:
            db.execute(f"""CREATE OR REPLACE TABLE normalised AS
                SELECT n.raw, n.reason, c.code FROM normalised n LEFT JOIN {name}_codes c USING (text)""")
    path = target.folder / target.file(sources[0].kind)
    db.execute(f"COPY ({kind.rows}) TO '{escaped(path)}' (FORMAT parquet, COMPRESSION zstd)")
    _count(db, sources, path)
    db.execute("DROP TABLE IF EXISTS normalised")
    left_empty = _left_empty(db)
    emptied_cells = _emptied_cells(db, sources) if left_empty else iter(())
    return Batch([file for file in new if file], _bad_rows(db, sources), left_empty, emptied_cells)


def _load(
    db: Any,
    sources: Sequence[Source],
    layouts: Mapping[str, Layout],
    first_id: int,
    scratch: Path,
    report: Report,
) -> None:
    """Makes the views raw (all rows) and good (those that are not rejected).

    Their columns: source, line, bad (why a row is rejected), emptied (why cells of it were left empty, a line
    each), content (the row as JSON), and the fields.
    """
    kind = TABLE_KINDS[sources[0].kind]
    groups: dict[Layout | None, list[Source]] = defaultdict(list)
    for source in sources:
        groups[layouts.get(source.path)].append(source)
    parts = []
    for layout, group in groups.items():
        for source in group:
            source.evidence_id, first_id = first_id, first_id + 1
        files = [source.path if layout else stage(source, scratch, report) for source in group]
        parts.append(_raw_rows(kind, layout, files, group))
    db.execute("CREATE OR REPLACE TEMP VIEW raw AS " + " UNION ALL ".join(parts))
    db.execute("CREATE OR REPLACE TEMP VIEW good AS SELECT * FROM raw WHERE bad IS NULL")


def _raw_rows(kind: TableKind, layout: Layout | None, files: Sequence[str], sources: Sequence[Source]) -> str:
    """SQL for the rows of the files of some sources, of one layout or staged."""
    names = ", ".join(kind.fields)
    source = f"{sources[0].evidence_id} + file_index::INTEGER AS source"
    if layout:
        fields = ", ".join(
            f"{_of_folders(name, sources) if sql is None else sql} AS {name}"
            for name, sql in zip(kind.fields, layout.fields, strict=True)
        )
        about = f"{layout.bad} AS bad, {layout.emptied} AS emptied, {layout.content} AS content"
        rows = f"SELECT {source}, file_row_number + 1 AS line, {about}, {fields} FROM {read_parquet(files)}"
        content = "content"
    else:
        rows = f"SELECT {source}, line, bad, emptied, content, {names} FROM {read_parquet(files)}"
        struct = ", ".join(f"{name} := {name}::VARCHAR" for name in kind.fields)
        content = f"coalesce(content, to_json(struct_pack({struct}))::VARCHAR)"
    return f"""SELECT source, line, coalesce(bad, why) AS bad, emptied, {content} AS content, {names}
        FROM (SELECT *, {rejection_reason(kind)} AS why FROM ({rows}))"""


def _of_folders(field: str, sources: Sequence[Source]) -> str:
    """SQL for a field that has one value in all rows of a file."""
    values = [source.of_folders[field] for source in sources]
    return values[0] if len({*values}) == 1 else f"[{', '.join(values)}][file_index::INTEGER + 1]"


def _normalise_texts(db: Any, field: str) -> None:
    """Makes the table normalised (raw, text, reason): what becomes of each distinct raw text.

    `reason` says why a text is dropped whatever the options are; its text is then null.
    """
    if field == "query":
        function, too_long = "normalise", f"WHEN length(text) > {MAX_QUERY} THEN '{LONG_QUERY}'"
    else:
        function, too_long = "normalise_title", ""
    # A query in lower case such as "none" can be real, so only what programs write counts there.
    missing = MISSING_IDS if field == "query" else MISSING_WORDS
    words = ", ".join(f"'{word}'" for word in sorted(missing))
    is_missing = f"trim(raw, ' ' || chr(9) || chr(10) || chr(13)) IN ({words})"
    db.execute(f"""CREATE OR REPLACE TABLE normalised AS
        WITH raw_texts AS (
            SELECT DISTINCT {field} AS raw FROM good WHERE {field} IS NOT NULL
        ),
        texts AS (
            SELECT raw, {function}(raw) AS text, holds_personal_data(raw) AS personal FROM raw_texts
        ),
        judged AS (
            SELECT raw, text,
                CASE WHEN text = '' OR {is_missing} THEN '{EMPTY}' {too_long}
                WHEN personal THEN '{PERSONAL}' END AS reason
            FROM texts
        )
        SELECT raw, CASE WHEN reason IS NULL THEN text END AS text, reason FROM judged""")


def _normalise_title(raw: str) -> str:
    """The normalised title. It is empty if all that is left of emoji is marks that say how to draw them."""
    text = normalise(raw)
    return text if text.strip("\ufe0e\ufe0f\u20e3 ") else ""


def add_functions(db: Any) -> None:
    """Makes the text functions of this project known to DuckDB."""
    db.create_function("normalise", normalise, [str], str)
    db.create_function("normalise_title", _normalise_title, [str], str)
    db.create_function("holds_personal_data", holds_personal_data, [str], bool)
    add_id_functions(db)


def _number(db: Any, name: str, distinct: str, files: list[str], target: Target) -> CodebookFile | None:
    """Gives numbers to the texts of `distinct` that the codebook lacks, in a new file of it.

    Makes the view {name}_codes of the whole codebook. Returns None if no text was new.
    """
    size, new = 0, f"SELECT text FROM ({distinct})"
    if files:
        size, *_ = one(db, f"SELECT count(*) FROM {read_parquet(files)}")
        new += f" ANTI JOIN {read_parquet(files)} USING (text)"
    file = target.file(f"{name}-codes")
    path = target.folder / file
    numbered = f"SELECT (row_number() OVER (ORDER BY text) + {size - 1})::INTEGER AS code, text FROM ({new})"
    rows, *_ = one(db, f"COPY ({numbered}) TO '{escaped(path)}' (FORMAT parquet)")
    if not rows and files:
        path.unlink()
    else:
        files = [*files, str(path)]
    db.execute(f"CREATE OR REPLACE TEMP VIEW {name}_codes AS SELECT code, text FROM {read_parquet(files)}")
    return CodebookFile(name, file, rows) if path.exists() else None


def _count(db: Any, sources: Sequence[Source], path: Path) -> None:
    """Fills in rows_read and rejected of each source, and counts of a source of the query log."""
    by_id = {source.evidence_id: source for source in sources}
    for evidence_id, n in db.execute("SELECT source, count(*) FROM raw GROUP BY 1").fetchall():
        by_id[evidence_id].rows_read = by_id[evidence_id].rejected = n
    of_log = sources[0].kind == "log"
    columns = "day, action, reason" if of_log else "NULL, NULL, NULL"
    select = f"SELECT source, {columns}, count(*) FROM {read_parquet([str(path)])} GROUP BY ALL"
    for evidence_id, day, action, reason, n in db.execute(select).fetchall():
        source = by_id[evidence_id]
        source.rejected -= n
        if of_log:
            _add(source.counts, "readable", str(day), n)
            if reason:
                _add(source.counts, "dropped", reason, n)
            else:
                _add(source.counts, "kept", str(day), n)
                _add(source.counts, "actions", action, n)


def _add(counts: dict[str, Any], name: str, key: str, n: int) -> None:
    counts_by_key = counts.setdefault(name, {})
    counts_by_key[key] = counts_by_key.get(key, 0) + n


_EMPTIED = "SELECT *, unnest(string_split(emptied, chr(10))) AS why FROM good WHERE emptied IS NOT NULL"


def _left_empty(db: Any) -> dict[str, int]:
    """reason -> cells that were left empty, most frequent first."""
    rows = db.execute(f"SELECT why, count(*) AS n FROM ({_EMPTIED}) GROUP BY 1 ORDER BY n DESC, why")
    return dict(rows.fetchall())


def _emptied_cells(db: Any, sources: Sequence[Source]) -> Iterator[BadRow]:
    some = f"row_number() OVER (PARTITION BY why) <= {MOST_EMPTIED}"
    select = f"SELECT source, line, why, content FROM ({_EMPTIED}) QUALIFY {some}"
    return (row for _, row in _rows(db, sources, select))


def _bad_rows(db: Any, sources: Sequence[Source]) -> Iterator[BadRow]:
    if not any(source.rejected for source in sources):
        return
    for source, row in _rows(db, sources, "SELECT source, line, bad, content FROM raw WHERE bad IS NOT NULL"):
        source.reasons[row.reason] += 1
        yield row


def _rows(db: Any, sources: Sequence[Source], select: str) -> Iterator[tuple[Source, BadRow]]:
    """The source and the row, of each row of `select`: source, line, reason, content."""
    by_id = {source.evidence_id: source for source in sources}
    rows = db.sql(select)
    for batch in rows.to_arrow_reader(ROWS_AT_ONCE):
        columns = (column.to_pylist() for column in batch.columns)
        for evidence_id, line, reason, content in zip(*columns, strict=True):
            source = by_id[evidence_id]
            yield source, BadRow(source.name, line, reason, content or "")
