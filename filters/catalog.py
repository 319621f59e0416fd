"""Which sources an aggregation has read, and in which files of STORE.partials/ their rows are.

Three tables of the store hold this: `evidence` has a row for each content of a source (by its digest),
`evidence_sources` says which content each path had when it was last read, and `partials` lists the other
files. This is the only module of filters/ that sends SQL to the store.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

from ..sources.locations import source_name
from ..sources.rows import BadRow
from ..store import Connection, transaction
from ..store.rejected import EmptiedCells, keep_rejected
from .source import Source

Aggregation = Literal["boards", "queries"]
# The kinds of tables that each aggregation reads.
TABLES: dict[Aggregation, tuple[str, ...]] = {"boards": ("boards", "saves"), "queries": ("log",)}


class Partial(NamedTuple):
    """A file that is listed in `partials`: a part of a codebook, or counts that are kept for the next run."""

    file: str
    name: str
    rows: int
    about: str = "{}"


class Catalog:
    """The tables `evidence`, `evidence_sources` and `partials`, as far as one aggregation is concerned."""

    def __init__(self, conn: Connection, aggregation: Aggregation):
        self.conn, self.aggregation = conn, aggregation
        self.kinds = TABLES[aggregation]

    def places(self, kind: str) -> dict[int, int]:
        """evidence_id -> place in reading order, of each content that counts.

        A content counts as long as some path had it when it was last read.
        """
        rows = self.conn.execute(
            """SELECT e.evidence_id, min(s.place) FROM evidence e JOIN evidence_sources s USING (evidence_id)
            WHERE e.kind = ? GROUP BY 1""",
            [kind],
        )
        return dict(map(tuple, rows))

    def row_files(self, kind: str) -> dict[int, str]:
        """evidence_id -> the file that has the rows of a content."""
        return dict(
            map(tuple, self.conn.execute("SELECT evidence_id, file FROM evidence WHERE kind = ?", [kind]))
        )

    def codebook_files(self, name: str) -> list[str]:
        """The files of a codebook."""
        rows = self.conn.execute(
            "SELECT file FROM partials WHERE name = ? ORDER BY file", [f"{self.aggregation} {name}"]
        )
        return [row[0] for row in rows]

    def files(self) -> set[str]:
        """All files that the store lists, those of the other aggregation included."""
        return {
            row[0] for row in self.conn.execute("SELECT file FROM evidence UNION SELECT file FROM partials")
        }

    def counts(self) -> list[dict[str, Any]]:
        """The counts of each content, see `Source.counts`."""
        marks = ", ".join("?" * len(self.kinds))
        rows = self.conn.execute(
            f"SELECT counts FROM evidence WHERE kind IN ({marks}) ORDER BY evidence_id", self.kinds
        )
        return [json.loads(row[0]) for row in rows]

    def next_id(self) -> int:
        """The evidence_id of the next content; an id is never used twice."""
        row = self.conn.execute(
            "SELECT coalesce(max(seq), 0) + 1 FROM sqlite_sequence WHERE name = 'evidence'"
        ).fetchone()
        return int(row[0])

    def ids_by_digest(self, kind: str) -> dict[str, int]:
        """digest -> evidence_id, of each content that was read."""
        return dict(
            map(tuple, self.conn.execute("SELECT digest, evidence_id FROM evidence WHERE kind = ?", [kind]))
        )

    def stamp(self, kind: str, key: str) -> str | None:
        """The stamp that a source had when it was last read (`Source.stamp`), if it has one."""
        row = self.conn.execute(
            "SELECT stamp FROM evidence_sources WHERE kind = ? AND path = ?", [kind, key]
        ).fetchone()
        return str(row["stamp"]) if row and row["stamp"] is not None else None

    def commit(
        self,
        batch: Sequence[Source],
        ids: Mapping[str, int],
        unread: Iterable[Source],
        file: str,
        codebooks: Iterable[Partial],
        bad_rows: Iterable[BadRow],
        emptied_cells: Iterable[BadRow],
        run_id: int,
        *,
        failed: Sequence[Source] = (),
        forget: bool,
    ) -> None:
        """Notes that a batch of sources of one kind was read.

        `ids` has the evidence_id of each source's content (by digest). The rows of the sources that were
        `unread` are in `file`. Of sources that `failed`, only the rejected rows are kept: they will be read
        again, and what they gave before still counts. `forget` first forgets everything that the aggregation
        has read.
        """
        kind = (*batch, *failed)[0].kind
        with transaction(self.conn):
            if forget:
                self._forget()
            self.conn.executemany(
                "INSERT INTO evidence VALUES (?, ?, ?, ?, ?, ?)",
                [(s.evidence_id, kind, s.digest, file, s.rows_read, json.dumps(s.counts)) for s in unread],
            )
            self._replace_rejected(kind, batch, ids, failed, bad_rows, run_id)
            EmptiedCells(self.conn, run_id).keep(emptied_cells)
            self.conn.executemany("INSERT INTO partials VALUES (?, ?, ?, ?)", codebooks)
            self.conn.executemany(
                """INSERT INTO evidence_sources (kind, path, stamp, evidence_id) VALUES (?, ?, ?, ?)
                ON CONFLICT (kind, path)
                DO UPDATE SET stamp = excluded.stamp, evidence_id = excluded.evidence_id""",
                [(kind, source.key, source.stamp, ids[source.digest]) for source in batch],
            )
            self.conn.execute(
                """DELETE FROM evidence
                WHERE kind = ? AND evidence_id NOT IN (SELECT evidence_id FROM evidence_sources)""",
                [kind],
            )

    def _replace_rejected(
        self,
        kind: str,
        batch: Sequence[Source],
        ids: Mapping[str, int],
        failed: Sequence[Source],
        bad_rows: Iterable[BadRow],
        run_id: int,
    ) -> None:
        """Replaces the rejected rows of sources whose content has changed."""
        rows = self.conn.execute("SELECT path, evidence_id FROM evidence_sources WHERE kind = ?", [kind])
        id_before = dict(map(tuple, rows))
        changed = [source for source in batch if id_before.get(source.key) != ids[source.digest]]
        changed += failed
        # `run_id`: the same file may be given as a table of two kinds. The rows that this run rejected when
        # it read the other one stay.
        self.conn.executemany(
            "DELETE FROM rejected_rows WHERE source = ? AND run_id <> ?",
            [(source_name(source.name), run_id) for source in changed],
        )
        keep_rejected(self.conn, bad_rows, run_id)

    def _forget(self) -> None:
        """Forgets all sources, files and results of this aggregation, within the caller's transaction."""
        for kind in self.kinds:
            paths = self.conn.execute("SELECT path FROM evidence_sources WHERE kind = ?", [kind]).fetchall()
            self.conn.executemany(
                "DELETE FROM rejected_rows WHERE source = ?", [(source_name(path),) for (path,) in paths]
            )
            self.conn.execute("DELETE FROM evidence_sources WHERE kind = ?", [kind])
            self.conn.execute("DELETE FROM evidence WHERE kind = ?", [kind])
        self.conn.execute("DELETE FROM partials WHERE name LIKE ?", [f"{self.aggregation} %"])
        self.conn.execute("DELETE FROM aggregates WHERE name = ?", [self.aggregation])

    def partials(self, names: Sequence[str]) -> list[Partial]:
        """The files of these names, in the order of the names."""
        select = "SELECT file, name, rows, about FROM partials WHERE name = ?"
        return [Partial(*row) for name in names for row in self.conn.execute(select, [name])]

    def replace_partials(self, partials: Sequence[Partial]) -> None:
        """Puts files in the place of those of the same names, within the caller's transaction."""
        self.conn.executemany("DELETE FROM partials WHERE name = ?", [(p.name,) for p in partials])
        self.conn.executemany("INSERT INTO partials VALUES (?, ?, ?, ?)", partials)


def partials_folder(conn: Connection) -> Path:
    """STORE.partials, which may not exist yet."""
    return Path(f"{conn.execute('PRAGMA database_list').fetchone()['file']}.partials")
