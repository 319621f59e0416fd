"""Tables of boards, saves and query logs into numbered rows: what one batch of sources becomes in
STORE.partials/.

Parquet with plain types is read by DuckDB as it is. Everything else (CSV, JSON, odd types, bytes that are no
UTF-8) goes through the reader of `ingest pins` first. Titles and queries are normalised once per distinct
text, in Python, so that every engine that reads the partials sees the same texts; personal data goes no
further than here.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import shutil
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from ..sources.cells import (
    MAX_ID,
    RowError,
    convert_column,
    identifier,
    moment,
    text_column,
    text_of,
)
from ..sources.locations import file_stamp
from ..sources.rows import BadRow, SourceError, is_missing
from ..sources.tables import read_tables
from .duck import escaped, one, read_parquet
from .text import holds_personal_data, normalise

MAX_COUNT = 2**31 - 1
MAX_QUERY = 100  # characters of a normalised query; what is longer was pasted, not typed
# a file that changed less than 2 s before it is read may change again under the same time stamp
SETTLED_NS = 2_000_000_000
EMPTY, PERSONAL, LONG_QUERY = "empty", "personal data", f"longer than {MAX_QUERY} characters"
ROWS_AT_ONCE = 50_000
# What no other reader would mend.
_PROGRAMMING = (
    duckdb.OutOfMemoryException,
    duckdb.BinderException,
    duckdb.CatalogException,
    duckdb.ParserException,
)


@dataclass(frozen=True)
class Kind:
    """A kind of table: its fields by their type, those that a row must have, and the SQL that makes numbered
    rows of it.
    """

    fields: Mapping[str, str]  # those that are read: "id", "text", "day" or "count"
    required: tuple[str, ...]
    codebooks: Mapping[str, str]  # codebook -> field whose values it numbers; "" for normalised texts
    rows: str
    empty: str  # the columns of its rows, for no rows at all
    others: tuple[str, ...] = ()  # known, but not read
    spoken: str = ""  # the field that holds what people wrote

    @property
    def names(self) -> tuple[str, ...]:
        return (*self.fields, *self.others)


KINDS = {
    "boards": Kind(
        {"board_id": "id", "title": "text", "created_at": "day"},
        ("board_id", "title"),
        {"boards": "board_id"},
        """SELECT r.source, r.line, b.code AS board, t.text AS title, CASE WHEN r.title IS NULL THEN 'empty' ELSE t.reason END AS reason, r.created_at AS day
        FROM good r JOIN boards_codes b ON b.text = r.board_id LEFT JOIN spoken t ON t.raw = r.title""",
        "0::INTEGER AS source, 0 AS place, 0::BIGINT AS line, 0::INTEGER AS board, ''::VARCHAR AS title, ''::VARCHAR AS reason, NULL::DATE AS day",
        ("owner_id",),
        "title",
    ),
    "saves": Kind(
        {"pin_id": "id", "board_id": "id", "saved_at": "day"},
        ("pin_id", "board_id"),
        {"pins": "pin_id", "boards": "board_id"},
        """SELECT r.source, p.code AS pin, b.code AS board, r.saved_at AS day
        FROM good r JOIN pins_codes p ON p.text = r.pin_id JOIN boards_codes b ON b.text = r.board_id""",
        "0::INTEGER AS source, 0 AS place, 0::INTEGER AS pin, 0::INTEGER AS board, NULL::DATE AS day",
        ("user_id",),
    ),
    "log": Kind(
        {
            "pin_id": "id",
            "query": "text",
            "action": "id",
            "date": "day",
            "timestamp": "day",
            "count": "count",
            "user_id": "id",
        },
        ("pin_id", "query", "action", "date|timestamp"),
        {"pins": "pin_id", "queries": ""},
        """SELECT r.source, p.code AS pin, t.code AS query, CASE WHEN r.query IS NULL THEN 'empty' ELSE t.reason END AS reason, r.action,
            coalesce(r.date, r.timestamp) AS day, coalesce(r.count, 1)::INTEGER AS count,
            CASE WHEN regexp_full_match(r.user_id, '[0-9A-Za-z_-]*') THEN r.user_id ELSE md5(r.user_id) END AS user_id -- addresses are nobody's business
        FROM good r JOIN pins_codes p ON p.text = r.pin_id LEFT JOIN spoken t ON t.raw = r.query""",
        """0::INTEGER AS source, 0 AS place, 0::INTEGER AS pin, 0::INTEGER AS query, ''::VARCHAR AS reason, ''::VARCHAR AS action, DATE '2000-01-01' AS day,
        1::INTEGER AS count, ''::VARCHAR AS user_id""",
        spoken="query",
    ),
}
_SQL_TYPES = {"id": "VARCHAR", "text": "VARCHAR", "day": "DATE", "count": "BIGINT"}
_ARROW_TYPES = {"id": pa.string(), "text": pa.string(), "day": pa.date32(), "count": pa.int64()}
_BLANKS = "".join(filter(str.isspace, map(chr, range(0x3001))))  # as Python strips them
# what DuckDB and `moment` read alike
_TIME_TEXT = r"(000[1-9]|00[1-9]\d|0[1-9]\d\d|[1-9]\d{3})-\d\d-\d\d([T ]([01]\d|2[0-3]):\d\d(:\d\d(\.\d{1,9})?)?(Z|[+-]\d\d(:?\d\d)?)?)?"


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__


@dataclass
class Source:
    """A source to be read, and what came of it."""

    kind: str
    path: str
    columns: Mapping[str, str]  # field -> column, where they differ
    # the path; for standard input `-` and the digest, as what comes there does not replace what came before
    named: str = ""
    digest: str = ""
    seen: str | None = None  # the file's stamp before it was read
    stamp: str | None = None  # what tells later that it is unchanged; None where only its bytes can
    evidence_id: int = 0
    rows_read: int = 0
    rejected: int = 0
    counts: dict[str, Any] = field(default_factory=dict)

    def look(self, scratch: Path) -> None:
        """Finds out what the source holds, by its bytes; standard input is put into a file."""
        how = json.dumps(self.columns, sort_keys=True)
        path = self.path
        if path == "-":
            path = str(scratch / "stdin.jsonl")
            with open(path, "wb") as file:
                shutil.copyfileobj(sys.stdin.buffer, file)
        self.seen = file_stamp(path)
        with open(path, "rb") as file:
            digest = hashlib.file_digest(file, "sha256")
        digest.update(how.encode())
        self.digest = digest.hexdigest()
        self.named = f"-#{self.digest[:16]}" if self.path == "-" else self.path
        self.path = path
        settled = time.time_ns() - os.stat(path).st_mtime_ns > SETTLED_NS
        self.stamp = f"{self.seen} {how}" if settled else None


@dataclass
class Batch:
    """What a batch of sources became: the codebooks' new files (name, file, rows), and the rows that are
    none.
    """

    codebooks: list[tuple[str, str, int]]
    bad: Iterator[BadRow]


def read_batch(
    db: Any,
    sources: Sequence[Source],
    first_id: int,
    folder: Path,
    stem: str,
    books: Mapping[str, list[str]],
    scratch: Path,
) -> Batch:
    """Writes the rows of `sources`, all of one kind, to {stem}-{kind}.parquet in `folder`, numbered by
    `books` (codebook -> files) and additions to them.

    Fills in evidence_id (counting from `first_id`), rows_read, rejected and counts of each source. Raises
    SourceError.
    """
    plain = {s.path: sql for s in sources if (sql := _plain(db, s))}
    try:
        return _read(db, sources, plain, first_id, folder, stem, books, scratch)
    except _PROGRAMMING:
        raise
    except duckdb.Error as error:
        if "nterrupt" in str(error):
            raise KeyboardInterrupt from error
        if not plain or isinstance(error, duckdb.FatalException):
            raise SourceError(
                f"{' or '.join(s.path for s in sources[:3])}{' or another of these files' if len(sources) > 3 else ''} is damaged: {_first_line(error)}"
            ) from error
        # Text that is no UTF-8, or a damaged file: the other reader tells which row or file it is.
        return _read(db, sources, {}, first_id, folder, stem, books, scratch)


def _read(
    db: Any,
    sources: Sequence[Source],
    plain: Mapping[str, tuple[tuple[str, ...], ...]],
    first_id: int,
    folder: Path,
    stem: str,
    books: Mapping[str, list[str]],
    scratch: Path,
) -> Batch:
    kind = KINDS[sources[0].kind]
    groups: dict[tuple[tuple[str, ...], ...], list[Source]] = defaultdict(list)
    for source in sources:
        groups[plain.get(source.path, ())].append(source)
    parts = []
    for sql, group in groups.items():
        for source in group:
            source.evidence_id, first_id = first_id, first_id + 1
        parts.append(
            _raw(
                kind, sql, [s.path if sql else _stage(s, kind, scratch) for s in group], group[0].evidence_id
            )
        )
    db.execute("CREATE OR REPLACE TEMP VIEW raw AS " + " UNION ALL ".join(parts))
    db.execute("CREATE OR REPLACE TEMP VIEW good AS SELECT * FROM raw WHERE bad IS NULL")
    made = []
    if kind.spoken:
        _normalise_all(db, kind.spoken)
        if kind.spoken == "query":
            made.append(
                _number(
                    db,
                    "queries",
                    "SELECT DISTINCT text FROM spoken WHERE text IS NOT NULL",
                    books["queries"],
                    folder,
                    stem,
                )
            )
            db.execute(
                "CREATE OR REPLACE TABLE spoken AS SELECT s.raw, s.reason, q.code FROM spoken s LEFT JOIN queries_codes q USING (text)"
            )
    for name, column in kind.codebooks.items():
        if column:
            made.append(
                _number(db, name, f"SELECT DISTINCT {column} AS text FROM good", books[name], folder, stem)
            )
    target = folder / f"{stem}-{sources[0].kind}.parquet"
    db.execute(f"COPY ({kind.rows}) TO '{escaped(target)}' (FORMAT parquet, COMPRESSION zstd)")
    _count(db, sources, target)
    db.execute("DROP TABLE IF EXISTS spoken")
    return Batch([m for m in made if m], _bad(db, sources))


def _plain(db: Any, source: Source) -> tuple[tuple[str, ...], ...] | None:
    """SQL and type of each field of a Parquet file whose types need no look at single values, else None."""
    if not source.path.lower().endswith(".parquet"):
        return None
    try:
        schema = {
            name: kind
            for name, kind, *_ in db.execute(
                f"DESCRIBE SELECT * FROM {read_parquet([source.path], numbered=False)}"
            ).fetchall()
        }
        found = []
        for name, wanted in KINDS[source.kind].fields.items():
            column = source.columns.get(name, name)
            have, sql = schema.get(column, ""), '"' + column.replace('"', '""') + '"'
            integer = have in (
                "TINYINT",
                "SMALLINT",
                "INTEGER",
                "BIGINT",
                "UTINYINT",
                "USMALLINT",
                "UINTEGER",
            )
            if not have:
                found.append((f"NULL::{_SQL_TYPES[wanted]}", ""))
            elif wanted in ("id", "text") and have == "VARCHAR":
                found.append(
                    (
                        f"nullif(CASE WHEN contains({sql}, chr(0)) THEN replace({sql}, chr(0), '') ELSE {sql} END, '')",
                        have,
                    )
                )
            elif (wanted in ("id", "text", "count") and integer) or (
                wanted == "day" and (have == "DATE" or have.startswith("TIMESTAMP"))
            ):
                found.append((f"{sql}::{_SQL_TYPES[wanted]}", have))
            elif wanted == "day" and have == "VARCHAR" and _all_times(db, source.path, sql):
                found.append(
                    (
                        f"TRY_CAST(CASE WHEN length({sql}) > 10 THEN {sql}::TIMESTAMPTZ::DATE ELSE {sql}::DATE END AS DATE)",
                        have,
                    )
                )
            else:
                return None
    except (duckdb.InvalidInputException, duckdb.BinderException):
        # text that is no UTF-8, a column named like one of DuckDB's own
        return None
    return (*found, ("", str("file_row_number" in schema or "file_index" in schema)))


def _all_times(db: Any, path: str, column: str) -> bool:
    """Whether every text of a column is a day or a time that DuckDB reads as `moment` does."""
    tried = f"TRY_CAST({column} AS TIMESTAMPTZ)"
    others, *_ = one(
        db,
        f"SELECT count(*) FROM {read_parquet([path])} WHERE NOT (regexp_full_match({column}, '{_TIME_TEXT}') AND {tried} IS NOT NULL)",
    )
    return bool(others == 0)


def _raw(kind: Kind, plain: tuple[tuple[str, ...], ...], files: Sequence[str], first_id: int) -> str:
    """SQL for the rows of some files of one form: source, line, bad (why the row is none), content, and the
    fields.
    """
    names = ", ".join(kind.fields)
    content = (
        f"to_json(struct_pack({', '.join(f'{name} := {name}::VARCHAR' for name in kind.fields)}))::VARCHAR"
    )
    if plain:
        fields = ", ".join(f"{sql} AS {name}" for name, (sql, _) in zip(kind.fields, plain, strict=False))
        rows = f"SELECT {first_id} + file_index::INTEGER AS source, file_row_number + 1 AS line, NULL::VARCHAR AS bad, NULL::VARCHAR AS content, {fields} FROM {read_parquet(files)}"
    else:
        rows = f"SELECT {first_id} + file_index::INTEGER AS source, line, bad, content, {names} FROM {read_parquet(files)}"
    return f"""SELECT source, line, coalesce(bad, why) AS bad, CASE WHEN why IS NOT NULL THEN coalesce(content, {content}) ELSE content END AS content, {names}
        FROM (SELECT *, {_why_bad(kind)} AS why FROM ({rows}))"""


def _why_bad(kind: Kind) -> str:
    """SQL that says of a row of the right types why it is rejected all the same."""
    tests = []
    for need in kind.required:
        names = need.split("|")
        if kind.fields[names[0]] == "id":
            # What is blank begins with a blank, what is long in characters is long in bytes: most rows need
            # the cheap half alone.
            tests.append(
                f"WHEN {need} IS NULL OR (({need} < '!' OR {need} >= chr(127)) AND trim({need}, '{_BLANKS}') = '') THEN 'no {need}'"
            )
            tests.append(
                f"WHEN strlen({need}) > {MAX_ID} AND length({need}) > {MAX_ID} THEN '{need} is longer than {MAX_ID} characters'"
            )
        elif kind.fields[names[0]] == "day":
            tests.append(f"WHEN coalesce({', '.join(names)}) IS NULL THEN 'no {names[0]}'")
    tests += [
        f"WHEN {name} NOT BETWEEN DATE '0001-01-01' AND DATE '9999-12-31' THEN '{name} is no date that can be'"
        for name, wanted in kind.fields.items()
        if wanted == "day"
    ]
    if "action" in kind.fields:
        tests.append(
            "WHEN contains(action, '@') OR contains(action, '://') OR strlen(action) > 100 THEN 'action is no name of an action'"
        )
    if "count" in kind.fields:
        tests += [
            "WHEN count < 1 THEN 'count is below 1'",
            f"WHEN count > {MAX_COUNT} THEN 'count is above {MAX_COUNT:,}'",
        ]
    return f"CASE {' '.join(tests)} END" if tests else "NULL::VARCHAR"


def _stage(source: Source, kind: Kind, scratch: Path) -> str:
    """Brings a source of any form into Parquet with plain types, in which each row says what is wrong with
    it; returns the path.
    """
    types = {"line": pa.int64(), "bad": pa.string(), "content": pa.string()} | {
        name: _ARROW_TYPES[wanted] for name, wanted in kind.fields.items()
    }
    path = str(scratch / f"{source.evidence_id}.parquet")
    unseen: bool | None = None
    with pq.ParquetWriter(path, pa.schema(types.items())) as writer:
        for rows in read_tables([source.path], kind.names, source.columns, kind.required):
            if isinstance(rows, BadRow):
                writer.write_table(
                    pa.table(
                        [[rows.line], [rows.reason], [rows.content]] + [[None]] * len(kind.fields),
                        schema=writer.schema,
                    )
                )
                continue
            unseen = unseen is not False and kind.spoken not in rows.columns
            n, reasons = len(rows.lines), dict[int, str]()
            made: dict[str, Sequence[Any]] = {}
            for name, wanted in kind.fields.items():
                values = rows.columns.get(name, [None] * n)
                made[name] = (
                    text_column(name, values, reasons)
                    if wanted == "text"
                    else convert_column(_converter(name, wanted, name in kind.required), values, reasons)
                )
            for need in kind.required:
                if "|" in need:
                    lacking = [
                        i
                        for i, values in enumerate(
                            zip(*(made[name] for name in need.split("|")), strict=True)
                        )
                        if not any(values)
                    ]
                    reasons = dict.fromkeys(lacking, f"no {need.partition('|')[0]}") | reasons
            content = {
                i: json.dumps(
                    {name: _on_one_line(column[i]) for name, column in rows.columns.items()},
                    ensure_ascii=False,
                    default=str,
                )
                for i in reasons
            }
            arrays = [
                list(rows.lines),
                list(map(reasons.get, range(n))),
                [_clean(content.get(i)) for i in range(n)],
                *made.values(),
            ]
            writer.write_table(pa.table(arrays, schema=writer.schema))
    if kind.spoken and unseen:  # in JSON this shows at the end
        raise SourceError(
            f"no row of {source.named} has {kind.spoken!r}: say which one it is with --map {kind.spoken}=COLUMN"
        )
    return path


def _on_one_line(value: Any) -> Any:
    """A text without line ends and tabs, whose escapes in JSON would hide a telephone number from redaction."""
    return " ".join(value.split()) if isinstance(value, str) else value


def _clean(text: str | None) -> str | None:
    return text and text.encode(errors="replace").decode()


def _converter(name: str, wanted: str, required: bool) -> Callable[[Any], Any]:
    if wanted == "id":
        return functools.partial(identifier, name=name) if required else _identifier_if_any
    if wanted == "count":
        return _whole_number

    @functools.lru_cache(100_000)
    def day(value: Any) -> date | None:
        text = moment(value, name)
        return date.fromisoformat(text[:10]) if text else None

    return lambda value: (
        day(value) if isinstance(value, (str, int, float, date)) else day(text_of(name, value))
    )


def _identifier_if_any(value: Any) -> str | None:
    """An id that a row can do without."""
    text = (
        text_of("user_id", value)
        if isinstance(value, str) or is_missing(value)
        else identifier(value, "user_id")
    )
    return text if text and text.strip() else None


def _whole_number(value: Any) -> int:
    if is_missing(value):
        return 1
    try:
        exact = Decimal(value.strip()) if isinstance(value, str) else value
        number = int(exact)
        if isinstance(value, bool) or number != exact:
            raise ValueError
    except (ValueError, TypeError, OverflowError, InvalidOperation):
        raise RowError("count is no whole number") from None
    if number < 1:
        raise RowError("count is below 1")
    if number > MAX_COUNT:
        raise RowError(f"count is above {MAX_COUNT:,}")
    return number


def _normalise_all(db: Any, column: str) -> None:
    """The table spoken (raw, text, reason): what becomes of each distinct raw text; reason where it is
    dropped, whatever the options are.
    """
    form, too_long = (
        ("normalise", f"WHEN length(text) > {MAX_QUERY} THEN '{LONG_QUERY}'")
        if column == "query"
        else ("title_form", "")
    )
    db.execute(f"""CREATE OR REPLACE TABLE spoken AS SELECT raw, CASE WHEN reason IS NULL THEN text END AS text, reason FROM (
        SELECT raw, text, CASE WHEN text = '' THEN '{EMPTY}' {too_long} WHEN personal THEN '{PERSONAL}' END AS reason FROM (
        SELECT raw, {form}(raw) AS text, holds_personal_data(raw) AS personal FROM (SELECT DISTINCT {column} AS raw FROM good WHERE {column} IS NOT NULL)))""")


def _title_form(raw: str) -> str:
    """The normalised title, but empty where all that is left of emoji is the marks that tell how to draw
    them.
    """
    text = normalise(raw)
    return text if text.strip("\ufe0e\ufe0f\u20e3 ") else ""


def add_functions(db: Any) -> None:
    """Makes the text functions of this project known to SQL."""
    for name, function, result in (
        ("normalise", normalise, str),
        ("title_form", _title_form, str),
        ("holds_personal_data", holds_personal_data, bool),
    ):
        db.create_function(name, function, [str], result)


def _number(
    db: Any, name: str, distinct: str, files: list[str], folder: Path, stem: str
) -> tuple[str, str, int] | None:
    """Gives numbers to texts that the codebook lacks, in a new file of it; the whole becomes the view
    {name}_codes. Returns (name, file, rows).
    """
    size, new = 0, f"SELECT text FROM ({distinct})"
    if files:
        size, *_ = one(db, f"SELECT count(*) FROM {read_parquet(files)}")
        new += f" ANTI JOIN {read_parquet(files)} USING (text)"
    file = f"{stem}-{name}-codes.parquet"
    path = folder / file
    rows, *_ = one(
        db,
        f"COPY (SELECT (row_number() OVER (ORDER BY text) + {size - 1})::INTEGER AS code, text FROM ({new})) TO '{escaped(path)}' (FORMAT parquet)",
    )
    if not rows and files:
        path.unlink()
    else:
        files = [*files, str(path)]
    db.execute(f"CREATE OR REPLACE TEMP VIEW {name}_codes AS SELECT code, text FROM {read_parquet(files)}")
    return (name, file, rows) if path.exists() else None


def _count(db: Any, sources: Sequence[Source], target: Path) -> None:
    """How many rows each source had.

    Of a log also how many were readable and kept on each day, kept of each action, and dropped for each
    reason.
    """
    by_id = {s.evidence_id: s for s in sources}
    for source_id, n in db.execute("SELECT source, count(*) FROM raw GROUP BY 1").fetchall():
        by_id[source_id].rows_read = by_id[source_id].rejected = n
    of_log = sources[0].kind == "log"
    columns = "day, action, reason" if of_log else "NULL, NULL, NULL"
    for source_id, day, action, reason, n in db.execute(
        f"SELECT source, {columns}, count(*) FROM {read_parquet([str(target)])} GROUP BY ALL"
    ).fetchall():
        source = by_id[source_id]
        source.rejected -= n
        if of_log:
            for name, key, more in (
                ("readable", str(day), n),
                ("kept", str(day), 0 if reason else n),
                ("actions", action, 0 if reason else n),
                ("dropped", reason, n if reason else 0),
            ):
                if more:
                    counted = source.counts.setdefault(name, {})
                    counted[key] = counted.get(key, 0) + more


def _bad(db: Any, sources: Sequence[Source]) -> Iterator[BadRow]:
    names = {s.evidence_id: s.named for s in sources}
    if not any(s.rejected for s in sources):
        return
    for batch in db.sql("SELECT source, line, bad, content FROM raw WHERE bad IS NOT NULL").to_arrow_reader(
        ROWS_AT_ONCE
    ):
        for source, line, reason, content in zip(
            *(column.to_pylist() for column in batch.columns), strict=True
        ):
            yield BadRow(names[source], line, reason, content or "")
