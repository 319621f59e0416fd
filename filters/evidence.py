"""What `captioner aggregate` has read: each source once, its rows as Parquet files beside the store.

The store lists the sources and the files of STORE.partials/ (see catalog.py). Files that it does not list are
left over from a process that was killed, and the next run deletes them. Ids and queries are numbered in
codebooks, so that counting works on integers. Sources with the same bytes count once; a source that was
rewritten replaces what it gave before.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, TypedDict

from ..sources.columns import Wanted
from ..sources.locations import look_for
from ..sources.report import Reading, ReadReport, Report
from ..sources.rows import SourceError
from ..sources.tables import check_columns, tables_of
from ..store import Connection, StoreError
from .batch import Target, add_functions, read_batch
from .catalog import TABLES, Aggregation, Catalog, Partial, partials_folder
from .duck import connect, read_parquet
from .files import AS_NAMED, Files
from .source import Source, current_stamp, source_key
from .table_kinds import TABLE_KINDS

BATCH_BYTES = 128 << 20  # of sources that are read and committed together


class ReadCounts(TypedDict):
    """What became of the sources that were named."""

    rows_read: int
    rejected: int  # rows, see the table rejected_rows
    reasons: dict[str, int]  # reason -> rejected rows, most frequent first
    left_empty: dict[str, int]  # reason -> cells that made no sense and were left empty
    columns: ReadReport  # what was read as what, and what was ignored
    sources: int  # contents that were read
    unchanged: int  # sources that had been read before


class Evidence:
    """The evidence of one aggregation, and a DuckDB to work with it."""

    def __init__(self, conn: Connection, aggregation: Aggregation, folder: Path, db: Any):
        self.catalog, self.folder, self.db = Catalog(conn, aggregation), folder, db
        self.failure: SourceError | None = None  # of sources that `read` could use nothing of

    def ids(self, kind: str) -> set[int]:
        """The evidence_id of each content that counts."""
        return set(self.catalog.places(kind))

    def state(self) -> list[list[int]]:
        """What the result depends on besides options: for each kind the contents, in reading order."""
        return [
            sorted(places, key=places.__getitem__) for places in map(self.catalog.places, self.catalog.kinds)
        ]

    def view(self, kind: str, without: Collection[int] = ()) -> str:
        """SQL for the rows of a kind that count, without those of some contents (evidence_id)."""
        places = {id_: place for id_, place in self.catalog.places(kind).items() if id_ not in without}
        files = {self.path(file) for id_, file in self.catalog.row_files(kind).items() if id_ in places}
        if not files:
            return f"(SELECT {TABLE_KINDS[kind].columns} WHERE false)"
        place_of_source = (
            f"SELECT unnest({list(places)})::INTEGER AS source,"
            f" unnest({list(places.values())})::INTEGER AS place"
        )
        return f"(SELECT * FROM {read_parquet(sorted(files))} JOIN ({place_of_source}) USING (source))"

    def codes(self, name: str) -> str:
        """SQL for a codebook: code, text."""
        files = self._codebook(name)
        nothing = "(SELECT 0::INTEGER AS code, ''::VARCHAR AS text WHERE false)"
        return read_parquet(files) if files else nothing

    def path(self, file: str) -> str:
        """The path of a file of STORE.partials/."""
        return str(self.folder / file)

    def check_files(self) -> None:
        """Raises StoreError when a file is missing that the store lists."""
        if missing := sorted(name for name in self.catalog.files() if not (self.folder / name).exists()):
            raise StoreError(
                f"{self.folder / missing[0]} is missing, and the results cannot be counted without it:"
                " copy the folder together with the store, or name all sources and add --rebuild"
            )

    def read(
        self,
        sources: Mapping[str, Sequence[str]],
        columns: Mapping[str, str],
        run_id: int,
        *,
        files: Files = AS_NAMED,
        rebuild: bool = False,
        on_source: Callable[[int, int], None] = lambda done, total: None,
    ) -> ReadCounts:
        """Takes in what is new in `sources`: kind -> paths, globs, folders or `-`.

        `columns` maps fields to columns, and `kind.field` the field of one kind; `files` says how the files
        are written. `on_source` gets how many sources are done, and of how many. Raises SourceError; batches
        that were read before it are kept. Sources all of whose rows are rejected are told by `failure`.
        """
        kinds = self.catalog.kinds
        report = Report()
        readings = {
            kind: Reading(
                wanted_of(kind, columns, files),
                report,
                kind if len(kinds) > 1 else "",
                TABLE_KINDS[kind].ignored,
            )
            for kind in kinds
        }
        for kind in kinds:
            any_name = readings[kind].wanted.read_as.format is not None
            report.skip(look_for(sources.get(kind, ()), any_name=any_name))
        all_sources = [
            (kind, path)
            for kind in kinds
            for path in tables_of(sources.get(kind, ()), readings[kind].wanted.read_as)
        ]
        new = [
            Source(kind, path, readings[kind].wanted)
            for kind, path in all_sources
            if rebuild or not self._is_unchanged(kind, path, readings[kind].wanted)
        ]
        for kind in kinds:
            paths = {source.path for source in new if source.kind == kind}
            check_columns(sources.get(kind, ()), readings[kind].wanted, paths)
        if rebuild and not new:
            raise SourceError(
                "--rebuild starts afresh and needs every source: name them with "
                + " and ".join(f"--{kind}" for kind in kinds)
            )
        total: ReadCounts = {
            "rows_read": 0,
            "rejected": 0,
            "reasons": {},
            "left_empty": {},
            "columns": report.as_json(),
            "sources": 0,
            "unchanged": len(all_sources) - len(new),
        }
        done, forget = 0, rebuild
        reasons, left_empty = Counter[str](), Counter[str]()
        on_source(0, len(new))
        with self._scratch() as scratch:
            for batch in _batches(new):
                for source in batch:
                    source.identify(scratch)
                read, any_good = self._read_batch(batch, scratch, run_id, report, left_empty, forget=forget)
                forget = forget and not any_good
                for source in read:
                    name = "-" if source.from_stdin else source.path
                    if source.columns:
                        readings[source.kind].columns(replace(source.columns, source=name))
                    readings[source.kind].rows(
                        name, source.rows_read - source.rejected, source.reasons.elements()
                    )
                    reasons.update(source.reasons)
                total["rows_read"] += sum(source.rows_read for source in read)
                total["rejected"] += sum(source.rejected for source in read)
                total["sources"] += len(read)
                total["unchanged"] += len(batch) - len(read)
                done += len(batch)
                on_source(done, len(new))
        total["reasons"] = dict(reasons.most_common())
        total["left_empty"] = dict(left_empty.most_common())
        total["columns"] = report.as_json()
        self.failure = next(filter(None, (reading.failure() for reading in readings.values())), None)
        return total

    def _is_unchanged(self, kind: str, path: str, wanted: Wanted) -> bool:
        if path == "-":
            return False
        stamp = self.catalog.stamp(kind, source_key(path))
        return stamp is not None and stamp == current_stamp(path, wanted)

    def _read_batch(
        self,
        batch: list[Source],
        scratch: Path,
        run_id: int,
        report: Report,
        left_empty: Counter[str],
        *,
        forget: bool,
    ) -> tuple[list[Source], bool]:
        """Reads a batch of one kind and commits it.

        Returns the sources whose content was not known, and whether any source of the batch counts. Adds to
        `left_empty` how many cells were left empty, by the reason.
        """
        kind = batch[0].kind
        ids = {} if forget else self.catalog.ids_by_digest(kind)
        by_digest: dict[str, Source] = {}
        for source in batch:
            if source.digest not in ids:
                by_digest.setdefault(source.digest, source)
        unread = list(by_digest.values())
        first_id = self.catalog.next_id()
        target = Target(self.folder, f"{self.catalog.aggregation}-{run_id:06}-{first_id:06}")
        codebooks: list[Partial] = []
        bad_rows: Iterable[Any] = ()
        emptied_cells: Iterable[Any] = ()
        if unread:
            names = TABLE_KINDS[kind].codebooks
            known_codes = {name: [] if forget else self._codebook(name) for name in names}
            rows = read_batch(self.db, unread, first_id, target, known_codes, scratch, report)
            codebooks = [
                Partial(book.file, f"{self.catalog.aggregation} {book.codebook}", book.rows)
                for book in rows.codebooks
            ]
            bad_rows, emptied_cells = rows.bad_rows, rows.emptied_cells
            left_empty.update(rows.left_empty)
        for source in batch:
            if source.has_changed():
                raise SourceError(f"{source.path} changed while it was read: run the same command again")
        ids |= {source.digest: source.evidence_id for source in unread}
        failed = {source.digest for source in unread if source.has_no_good_row}
        good = [source for source in batch if source.digest not in failed]
        self.catalog.commit(
            good,
            ids,
            [source for source in unread if source.digest not in failed],
            target.file(kind),
            codebooks if good else (),
            bad_rows,
            emptied_cells,
            run_id,
            failed=[source for source in batch if source.digest in failed],
            forget=forget and bool(good),
        )
        self.drop_leftovers()
        return unread, bool(good)

    def _codebook(self, name: str) -> list[str]:
        return [self.path(file) for file in self.catalog.codebook_files(name)]

    def drop_leftovers(self) -> None:
        """Deletes files that the store does not list: of a process that was killed, or replaced since."""
        listed = self.catalog.files()
        for path in self.folder.iterdir():
            if path.name not in listed and path.suffix == ".parquet":
                path.unlink()

    @contextmanager
    def _scratch(self) -> Iterator[Path]:
        folder = self.folder / "scratch"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


_held = set[Path]()  # folders that this process has locked


@contextmanager
def hold_evidence(conn: Connection, *, read_only: bool = False) -> Iterator[Path]:
    """STORE.partials for this process alone, as long as the context. Raises StoreError.

    Within it, `open_evidence` takes no lock of its own. With `read_only`, a folder that cannot be written
    will do; others may read it at the same time.
    """
    folder = partials_folder(conn)
    if folder in _held:
        yield folder
        return
    kind = fcntl.LOCK_EX
    try:
        if read_only and folder.is_dir() and not os.access(folder, os.W_OK):
            lock, kind = (folder / "lock").open("r"), fcntl.LOCK_SH
        else:
            folder.mkdir(exist_ok=True)
            lock = (folder / "lock").open("w")
    except OSError as error:
        to = "read" if kind == fcntl.LOCK_SH else "written"
        raise StoreError(
            f"{folder} cannot be {to}: {error.strerror}; captioner keeps what it has counted there: copy it "
            "together with the store to where you may write"
        ) from None
    with lock:
        try:
            fcntl.flock(lock, kind | fcntl.LOCK_NB)
        except OSError:
            raise StoreError(
                f"another process aggregates or exports with {folder}: try again when it is done"
            ) from None
        _held.add(folder)
        try:
            yield folder
        finally:
            _held.discard(folder)


@contextmanager
def open_evidence(
    conn: Connection, aggregation: Aggregation, memory_limit: str | None = None, *, read_only: bool = False
) -> Iterator[Evidence]:
    """The evidence of one aggregation, for one process at a time. `read_only` is that of `hold_evidence`.

    Raises StoreError.
    """
    with hold_evidence(conn, read_only=read_only) as folder:
        is_writable = os.access(folder, os.W_OK)
        # DuckDB puts there what has no room in memory.
        spill = folder / "spill" if is_writable else Path(tempfile.mkdtemp(prefix="captioner-"))
        shutil.rmtree(spill, ignore_errors=True)
        db = connect(spill, memory_limit)
        try:
            add_functions(db)
            evidence = Evidence(conn, aggregation, folder, db)
            if is_writable:
                evidence.drop_leftovers()
            yield evidence
        finally:
            db.close()
            shutil.rmtree(spill, ignore_errors=True)


def wanted_of(kind: str, columns: Mapping[str, str], files: Files = AS_NAMED) -> Wanted:
    """What is read of one kind of table. Raises SourceError for an unknown field of --map, OptionError."""
    table = TABLE_KINDS[kind]
    kinds = next(tables for tables in TABLES.values() if kind in tables)
    return Wanted(table.names, columns_of(kind, columns), table.required, files.of(kind, kinds))


def columns_of(kind: str, columns: Mapping[str, str]) -> dict[str, str]:
    """The part of `--map` that is meant for one kind of table. Raises SourceError for an unknown field."""
    tables = next(tables for tables in TABLES.values() if kind in tables)
    fields = [field for table in tables for field in TABLE_KINDS[table].names]
    for name in columns:
        table, dot, field = name.rpartition(".")
        known: Sequence[str] = fields
        if dot:
            known = TABLE_KINDS[table].names if table in tables else ()
        if field not in known:
            raise SourceError(
                f"--map names no field of {' or '.join(tables)}: {name};"
                f" the fields are {', '.join(dict.fromkeys(fields))}"
            )
    shared = {name: column for name, column in columns.items() if name in TABLE_KINDS[kind].names}
    prefix = f"{kind}."
    own = {name.removeprefix(prefix): col for name, col in columns.items() if name.startswith(prefix)}
    return shared | own


def _batches(sources: Iterable[Source]) -> Iterator[list[Source]]:
    """Sources of one kind that are read together.

    A small batch costs little after a crash, but each batch is a file more.
    """
    batch: list[Source] = []
    size = 0
    for source in sources:
        more = 0 if source.path == "-" else os.path.getsize(source.path)
        if batch and (source.kind != batch[0].kind or size + more > BATCH_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(source)
        size += more
    if batch:
        yield batch
