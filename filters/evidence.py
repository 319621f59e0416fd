"""What `captioner aggregate` has read: each source once, its rows as Parquet beside the store.

The store says which sources there are and in which file of STORE.partials/ their rows stand; files that it
does not name are leftovers of a process that was killed, and go with the next run. Ids and queries are
numbered in codebooks, so that counting is done on integers. Sources that hold the same bytes count once; one
that was rewritten replaces what it gave.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import sqlite3
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..sources.locations import absolute, file_stamp, find_sources, source_name
from ..sources.rows import SourceError
from ..sources.tables import check_columns
from ..store.connection import StoreError, transaction
from ..store.rejected import keep_rejected
from .duck import connect, read_parquet
from .evidence_rows import KINDS, Source, add_functions, read_batch

BATCH_BYTES = 128 << 20  # of sources that are read and committed together
TABLES = {"boards": ("boards", "saves"), "queries": ("log",)}  # what each aggregation reads


class Evidence:
    """The evidence of one aggregation, `name` of TABLES: its sources in the store, its files in `folder`, and
    a DuckDB to work with them.
    """

    def __init__(self, conn: sqlite3.Connection, name: str, folder: Path, db: Any):
        self.conn, self.name, self.folder, self.db = conn, name, folder, db

    def codebook(self, name: str) -> list[str]:
        """The files of a codebook: tables (code, text)."""
        return [
            str(self.folder / row[0])
            for row in self.conn.execute(
                "SELECT file FROM partials WHERE name = ? ORDER BY file", [f"{self.name} {name}"]
            )
        ]

    def live(self, kind: str) -> dict[int, int]:
        """evidence_id -> place in reading order, for everything that counts."""
        rows = self.conn.execute(
            "SELECT e.evidence_id, min(s.place) FROM evidence e JOIN evidence_sources s USING (evidence_id) WHERE e.kind = ? GROUP BY 1",
            [kind],
        )
        return dict(map(tuple, rows))

    def counts(self) -> list[dict[str, Any]]:
        """{"kind", "rows_read", **counts} of each source's content that counts."""
        marks = ", ".join("?" * len(TABLES[self.name]))
        rows = self.conn.execute(
            f"SELECT evidence_id, kind, rows_read, counts FROM evidence WHERE kind IN ({marks}) ORDER BY evidence_id",
            TABLES[self.name],
        )
        return [
            {"evidence_id": row[0], "kind": row[1], "rows_read": row[2]} | json.loads(row[3]) for row in rows
        ]

    def state(self) -> list[list[int]]:
        """What the result depends on besides options: the contents that count, in reading order."""
        return [
            [evidence_id for evidence_id, place in sorted(self.live(kind).items(), key=lambda item: item[1])]
            for kind in TABLES[self.name]
        ]

    def view(self, kind: str, leave: Collection[int] = ()) -> str:
        """SQL for the rows of a kind that count, but those of some sources (evidence_id)."""
        live = {
            evidence_id: place for evidence_id, place in self.live(kind).items() if evidence_id not in leave
        }
        named = self.conn.execute("SELECT evidence_id, file FROM evidence WHERE kind = ?", [kind])
        files = sorted({str(self.folder / file) for evidence_id, file in named if evidence_id in live})
        if not files:
            return f"(SELECT {KINDS[kind].empty} WHERE false)"
        places = (
            f"SELECT unnest({list(live)})::INTEGER AS source, unnest({list(live.values())})::INTEGER AS place"
        )
        return f"(SELECT * FROM {read_parquet(files)} JOIN ({places}) USING (source))"

    def codes(self, name: str) -> str:
        """SQL for a codebook."""
        files = self.codebook(name)
        return (
            read_parquet(files) if files else "(SELECT 0::INTEGER AS code, ''::VARCHAR AS text WHERE false)"
        )

    def check_files(self) -> None:
        """Raises StoreError when partials are missing that the store names."""
        names = [
            row[0] for row in self.conn.execute("SELECT file FROM evidence UNION SELECT file FROM partials")
        ]
        if missing := [name for name in names if not (self.folder / name).exists()]:
            raise StoreError(
                f"{self.folder / missing[0]} is missing, without which nothing can be added up: copy the folder with the store, or name all sources and --rebuild"
            )

    def forget(self) -> None:
        """Starts afresh: nothing counts any more that this aggregation has read.

        Within the caller's transaction.
        """
        for kind in TABLES[self.name]:
            paths = self.conn.execute("SELECT path FROM evidence_sources WHERE kind = ?", [kind]).fetchall()
            self.conn.executemany(
                "DELETE FROM rejected_rows WHERE source = ?", [(source_name(path),) for (path,) in paths]
            )
            self.conn.execute("DELETE FROM evidence_sources WHERE kind = ?", [kind])
            self.conn.execute("DELETE FROM evidence WHERE kind = ?", [kind])
        self.conn.execute("DELETE FROM partials WHERE name LIKE ?", [f"{self.name} %"])
        self.conn.execute("DELETE FROM aggregates WHERE name = ?", [self.name])

    def read(
        self,
        sources: Mapping[str, Sequence[str]],
        columns: Mapping[str, str],
        run_id: int,
        *,
        rebuild: bool = False,
        on_source: Callable[[int, int], None] = lambda done, total: None,
    ) -> dict[str, int]:
        """Takes in what is new in `sources` (kind -> paths, globs, folders, `-`). Returns {"rows_read",
        "rejected", "sources", "unchanged"}.

        `columns` maps fields to columns, `kind.field` those of one kind. `on_source` gets how many sources
        are done of how many. Raises SourceError; batches of sources that were read before it are kept.
        """
        mapped = {kind: fields_of(kind, columns, sources) for kind in TABLES[self.name]}
        found = [(kind, path) for kind in TABLES[self.name] for path in find_sources(sources.get(kind, ()))]
        new = [
            Source(kind, path, mapped[kind])
            for kind, path in found
            if rebuild or not self._unchanged(kind, path, mapped[kind])
        ]
        for kind in TABLES[self.name]:
            check_columns(
                [s.path for s in new if s.kind == kind and s.path != "-"],
                KINDS[kind].names,
                mapped[kind],
                KINDS[kind].required,
            )
        total = {"rows_read": 0, "rejected": 0, "sources": 0, "unchanged": len(found) - len(new)}
        if rebuild and not new:
            raise SourceError(
                "--rebuild starts afresh and needs every source: name them with "
                + " and ".join(f"--{kind}" for kind in TABLES[self.name])
            )
        done = 0
        on_source(0, len(new))
        with self._scratch() as scratch:
            for batch in _batches(new):
                for source in batch:
                    source.look(scratch)
                counts = self._take(batch, scratch, run_id, forget=rebuild and done == 0)
                for name, n in counts.items():
                    total[name] += n
                done += len(batch)
                on_source(done, len(new))
        return total

    def _unchanged(self, kind: str, path: str, columns: Mapping[str, str]) -> bool:
        if path == "-":
            return False
        row = self.conn.execute(
            "SELECT stamp FROM evidence_sources WHERE kind = ? AND path = ?", [kind, _key(path)]
        ).fetchone()
        return row is not None and row["stamp"] is not None and row["stamp"] == _stamp(path, columns)

    def _take(self, batch: list[Source], scratch: Path, run_id: int, *, forget: bool) -> dict[str, int]:
        """Reads a batch of one kind and commits it."""
        kind = batch[0].kind
        known = (
            {}
            if forget
            else {
                row["digest"]: row["evidence_id"]
                for row in self.conn.execute(
                    "SELECT digest, evidence_id FROM evidence WHERE kind = ?", [kind]
                )
            }
        )
        unread: dict[str, Source] = {}
        for source in batch:
            if source.digest not in known:
                unread.setdefault(source.digest, source)
        first = self.conn.execute(
            "SELECT coalesce(max(seq), 0) + 1 FROM sqlite_sequence WHERE name = 'evidence'"
        ).fetchone()[0]
        counts = {
            "rows_read": 0,
            "rejected": 0,
            "sources": len(unread),
            "unchanged": len(batch) - len(unread),
        }
        made: list[tuple[str, str, int]] = []
        if unread:
            stem = f"{self.name}-{run_id:06}-{first:06}"
            books = {name: [] if forget else self.codebook(name) for name in KINDS[kind].codebooks}
            rows = read_batch(self.db, list(unread.values()), first, self.folder, stem, books, scratch)
            made = [(file, f"{self.name} {name}", n) for name, file, n in rows.codebooks]
            counts["rows_read"] = sum(s.rows_read for s in unread.values())
            counts["rejected"] = sum(s.rejected for s in unread.values())
        for source in batch:
            if source.path != "-" and file_stamp(source.path) != source.seen:
                raise SourceError(f"{source.path} changed while it was read: run the same command again")
        with transaction(self.conn):
            if forget:
                self.forget()
            for source in unread.values():
                known[source.digest] = source.evidence_id
                self.conn.execute(
                    "INSERT INTO evidence VALUES (?, ?, ?, ?, ?, ?)",
                    [
                        source.evidence_id,
                        kind,
                        source.digest,
                        f"{stem}-{kind}.parquet",
                        source.rows_read,
                        json.dumps(source.counts),
                    ],
                )
            held = dict(
                self.conn.execute(
                    "SELECT path, evidence_id FROM evidence_sources WHERE kind = ?", [kind]
                ).fetchall()
            )
            others = [source for source in batch if held.get(_key(source.named)) != known[source.digest]]
            # The same file may be a table of two kinds: what this run said of it stays.
            self.conn.executemany(
                "DELETE FROM rejected_rows WHERE source = ? AND run_id <> ?",
                [(source_name(source.named), run_id) for source in others],
            )
            keep_rejected(self.conn, rows.bad if unread else (), run_id)
            self.conn.executemany("INSERT INTO partials VALUES (?, ?, ?, '{}')", made)
            for source in batch:
                self.conn.execute(
                    """INSERT INTO evidence_sources (kind, path, stamp, evidence_id) VALUES (?, ?, ?, ?)
                    ON CONFLICT (kind, path) DO UPDATE SET stamp = excluded.stamp, evidence_id = excluded.evidence_id""",
                    [kind, _key(source.named), source.stamp, known[source.digest]],
                )
            self.conn.execute(
                "DELETE FROM evidence WHERE kind = ? AND evidence_id NOT IN (SELECT evidence_id FROM evidence_sources)",
                [kind],
            )
        self.drop_leftovers()
        return counts

    def drop_leftovers(self) -> None:
        """Deletes files of this aggregation that the store does not name: of a process that was killed, or
        replaced.
        """
        named = {
            row[0] for row in self.conn.execute("SELECT file FROM evidence UNION SELECT file FROM partials")
        }
        for path in self.folder.iterdir():
            if path.name not in named and path.suffix == ".parquet":
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
def hold_evidence(conn: sqlite3.Connection) -> Iterator[Path]:
    """STORE.partials for this process alone, as long as the context; within it, `open_evidence` takes no lock
    of its own. Raises StoreError.
    """
    folder = Path(f"{conn.execute('PRAGMA database_list').fetchone()['file']}.partials")
    if folder in _held:
        yield folder
        return
    try:
        folder.mkdir(exist_ok=True)
        lock = (folder / "lock").open("w")
    except OSError as error:
        raise StoreError(
            f"{folder} cannot be written: {error.strerror}; what is counted is kept beside the store"
        ) from None
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise StoreError(
                f"another process aggregates or exports by {folder}: try again when it is done"
            ) from None
        _held.add(folder)
        try:
            yield folder
        finally:
            _held.discard(folder)


@contextmanager
def open_evidence(conn: sqlite3.Connection, name: str, memory_limit: str | None = None) -> Iterator[Evidence]:
    """The evidence of one aggregation; one process at a time works on STORE.partials. Raises StoreError."""
    with hold_evidence(conn) as folder:
        shutil.rmtree(folder / "spill", ignore_errors=True)
        db = connect(folder / "spill", memory_limit)
        try:
            add_functions(db)
            evidence = Evidence(conn, name, folder, db)
            evidence.drop_leftovers()
            yield evidence
        finally:
            db.close()
            shutil.rmtree(folder / "spill", ignore_errors=True)


def fields_of(kind: str, columns: Mapping[str, str], sources: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """The part of `--map` that is meant for one kind of table.

    Raises SourceError for a field that no table has.
    """
    tables = next(tables for tables in TABLES.values() if kind in tables)
    fields = [field for table in tables for field in KINDS[table].names]
    for name in columns:
        table, dot, field = name.rpartition(".")
        if field not in (KINDS[table].names if table in tables else () if dot else fields):
            raise SourceError(
                f"--map names no field of {' or '.join(tables)}: {name}; the fields are {', '.join(dict.fromkeys(fields))}"
            )
    shared = {name: column for name, column in columns.items() if name in KINDS[kind].names}
    return shared | {
        name.partition(".")[2]: column for name, column in columns.items() if name.startswith(f"{kind}.")
    }


def _batches(sources: Iterable[Source]) -> Iterator[list[Source]]:
    """Sources of one kind that are read together, so many that a crash costs little and few files come of it."""
    batch: list[Source] = []
    size = 0
    for source in sources:
        grown = 0 if source.path == "-" else os.path.getsize(source.path)
        if batch and (source.kind != batch[0].kind or size + grown > BATCH_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(source)
        size += grown
    if batch:
        yield batch


def _key(path: str) -> str:
    """A source by its place, whatever bytes its name is made of."""
    return path if path.startswith("-#") else os.fsencode(absolute(path)).decode(errors="backslashreplace")


def _stamp(path: str, columns: Mapping[str, str]) -> str | None:
    stamp = file_stamp(path)
    return stamp and f"{stamp} {json.dumps(columns, sort_keys=True)}"
