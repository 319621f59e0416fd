"""Reading `enriched_features`: as Arrow tables for the export, as a PyTorch dataset for a trainer that reads the store itself."""

from __future__ import annotations

import os
import sqlite3
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .schema import StoreError, open_store

# What a trainer reads of a pin, in this order. Lists are never null: a pin without titles has an empty one.
TEXTS = ("title", "description", "caption")
LISTS = {"board_titles": "VARCHAR", "board_title_counts": "INTEGER", "engaged_queries": "VARCHAR", "engaged_query_scores": "FLOAT"}
COLUMNS = ("pin_id", "kind", *TEXTS, "caption_recipe", *LISTS, "image_sha256", "category", "locale")
VIEW = "enriched_features"
ROWS_AT_ONCE = 20_000


def schema(embeddings: dict[str, int] | None = None) -> Any:
    """The Arrow schema of the columns, and of `embeddings` {name: numbers} as fixed-size lists of float16 after them."""
    import pyarrow as pa

    kinds = {"VARCHAR": pa.string(), "INTEGER": pa.int32(), "FLOAT": pa.float32()}
    fields = [(name, pa.list_(kinds[LISTS[name]]) if name in LISTS else pa.string()) for name in COLUMNS]
    return pa.schema(fields + [(name, pa.list_(pa.float16(), dim)) for name, dim in (embeddings or {}).items()])


class FeatureReader:
    """Rows of the view as Arrow tables. `recipe` takes the captions of one recipe in place of the current ones; `view` is one like enriched_features.

    SQLite hands out each column of some ten thousand rows as one text, NUL between the cells: a Python object for every cell would cost
    more than everything else. Which rows is said by `pin_rowid`, the rowid of the pin.
    """

    def __init__(self, conn: sqlite3.Connection, *, view: str = VIEW, recipe: str | None = None, embeddings: dict[str, int] | None = None):
        import duckdb

        self.conn, self.schema, self._embeddings = conn, schema(embeddings), dict(embeddings or {})
        self._db = duckdb.connect()
        self._db.execute("SET threads = 1; SET enable_progress_bar = false")
        text = conn.execute("SELECT sql FROM (SELECT name, sql FROM sqlite_temp_master UNION ALL SELECT name, sql FROM sqlite_master) WHERE name = ?", [view]).fetchone()[0]
        select = text.partition(" AS\n")[2].strip().rstrip(";").removeprefix("SELECT ")
        names, joins, self._parameters = {name: f"e.{name}" for name in COLUMNS}, "", list[str]()
        if recipe is not None:
            names |= {"caption": "f.text", "caption_recipe": "f.recipe_id"}
            joins += " LEFT JOIN captions f ON f.pin_id = e.pin_id AND f.recipe_id = ? AND f.status = 'ok' AND f.image_sha256 = e.image_sha256"
            self._parameters.append(recipe)
        self._from = f"FROM (SELECT p.rowid AS pin_rowid, {select}) e"
        together = ", ".join(f"CAST(group_concat(coalesce({sql}, {'char(1)' if name not in LISTS else repr('[]')}), char(0)) AS BLOB)" for name, sql in names.items())
        self._together = f"SELECT count(*), {together} {self._from}{joins}"
        self._singly = f"SELECT {', '.join(names.values())} {self._from}{joins}"
        decoded = ", ".join(f"coalesce(from_json({name}, '[\"{kind}\"]'), []) AS {name}" for name, kind in LISTS.items())
        self._decode = f"SELECT * REPLACE ({decoded}) FROM texts"

    def raw(self, where: str, parameters: Sequence[Any]) -> tuple[Any, ...]:
        """What SQLite says of the rows for which `where` holds, to be made a table by `table`, in another thread if need be."""
        cursor = self.conn.cursor()
        cursor.row_factory = None
        values = [*self._parameters, *parameters]
        row = cursor.execute(f"{self._together} WHERE {where}", values).fetchone()
        cells = [(cell or b"").count(b"\0") + 1 for cell in row[1:]] if row[0] else []
        if any(n != row[0] for n in cells):  # a text holds NUL itself
            rows = cursor.execute(f"{self._singly} WHERE {where}", values).fetchall()
            row = (len(rows), *zip(*rows, strict=True))
        vectors = []
        for name in self._embeddings:
            one = f"SELECT v.vector {self._from} LEFT JOIN embeddings v ON v.pin_id = e.pin_id AND v.name = ? WHERE {where}"
            vectors.append([found for (found,) in cursor.execute(one, [name, *parameters])])
        return (*row, *vectors)

    def table(self, raw: tuple[Any, ...]) -> Any:
        """The Arrow table of what `raw` gave."""
        import pyarrow as pa

        rows, columns = raw[0], raw[1:]
        if not rows:
            return self.schema.empty_table()
        texts = pa.table({name: _texts(column, name in LISTS) for name, column in zip(COLUMNS, columns, strict=False)})
        table = self._db.from_arrow(texts).query("texts", self._decode).to_arrow_table()
        for name, column in zip(self._embeddings, columns[len(COLUMNS) :], strict=True):
            table = table.append_column(name, _vectors(column, self._embeddings[name]))
        return table.cast(self.schema)


def _texts(column: Any, is_list: bool) -> Any:
    """A column as SQLite handed it out, together or singly."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if not isinstance(column, bytes):
        return pa.array(["[]" if cell is None and is_list else cell for cell in column], pa.string())
    whole = pa.Array.from_buffers(pa.large_binary(), 1, [None, pa.py_buffer(struct.pack("<qq", 0, len(column))), pa.py_buffer(column)])
    cells = pc.split_pattern(whole, pattern=b"\0").flatten()
    cells = cells if is_list else pc.if_else(pc.equal(cells, b"\1"), None, cells)
    try:
        return cells.cast(pa.string())
    except pa.ArrowInvalid:  # no UTF-8: somebody else has written to the store
        return pa.array([cell and cell.decode(errors="replace") for cell in cells.to_pylist()], pa.string())


def _vectors(column: Sequence[bytes | None], dim: int) -> Any:
    """Stored vectors as a fixed-size list, null where a pin has none."""
    import pyarrow as pa

    flat = pa.Array.from_buffers(pa.float16(), dim * len(column), [None, pa.py_buffer(b"".join(vector or bytes(2 * dim) for vector in column))])
    return pa.FixedSizeListArray.from_arrays(flat, dim, mask=pa.array([vector is None for vector in column]))


class EnrichedFeatures:
    """The store as a PyTorch dataset: row i is a dict of a pin's columns, lists as lists. Captioning may go on beside it.

    Map-style by itself: `DataLoader(EnrichedFeatures("my.db"), shuffle=True, num_workers=4)`; `.iterable()` gives the same rows as an
    IterableDataset, split over workers and ranks. Both see the pins that there were when this was made, with the text that they have
    when they are read. `columns` names those that are wanted. Raises StoreError.
    """

    def __init__(self, store: str | Path, *, columns: Sequence[str] = COLUMNS, recipe: str | None = None):
        if unknown := set(columns) - set(COLUMNS):
            raise StoreError(f"enriched_features has no column {', '.join(sorted(unknown))}; it has {', '.join(COLUMNS)}")
        open_store(store).close()  # says what is wrong with it, and brings it up to date
        self.path, self.columns, self.recipe = Path(store).absolute(), tuple(columns), recipe
        self._reader: FeatureReader | None = None
        self._process = 0
        self._rowids = self._all_rowids()

    def _all_rowids(self) -> Any:
        import numpy as np

        conn = self._open()
        return np.fromiter((row[0] for row in conn.execute("SELECT rowid FROM pins WHERE deleted_at IS NULL ORDER BY rowid")), dtype=np.int64)

    def _open(self) -> sqlite3.Connection:
        conn = sqlite3.connect(f"file:{self.path}?mode=ro", uri=True, check_same_thread=False, timeout=60)
        conn.execute("PRAGMA query_only = 1")
        return conn

    def _here(self) -> FeatureReader:
        """A reader of this process: SQLite's connections do not outlive a fork."""
        if self._reader is None or self._process != os.getpid():
            self._reader, self._process = FeatureReader(self._open(), recipe=self.recipe), os.getpid()
        return self._reader

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_reader": None}

    def __len__(self) -> int:
        return len(self._rowids)

    def __getitem__(self, i: int) -> dict[str, Any]:
        return self.__getitems__([i])[0]

    def __getitems__(self, places: Sequence[int]) -> list[dict[str, Any]]:
        """Several rows at once: what a DataLoader asks for a batch. A pin that was deleted meanwhile has its id and nothing else."""
        rowids = [int(self._rowids[i]) for i in places]
        reader = self._here()
        where = f"e.pin_rowid IN ({', '.join('?' * len(set(rowids)))})"
        found = {row["pin_id"]: row for row in reader.table(reader.raw(where, sorted(set(rowids)))).select(list(dict.fromkeys(("pin_id", *self.columns)))).to_pylist()}
        names = dict(reader.conn.execute(f"SELECT rowid, pin_id FROM pins WHERE {where.replace('e.pin_rowid', 'rowid')}", sorted(set(rowids))).fetchall())
        nothing: dict[str, Any] = {name: [] if name in LISTS else None for name in self.columns}
        rows = [found.get(names.get(rowid, ""), nothing | {"pin_id": names.get(rowid)}) for rowid in rowids]
        return [{name: row[name] for name in self.columns} for row in rows]

    def iterable(self, *, shuffle: bool = False, seed: int = 0, rank: int | None = None, world_size: int | None = None) -> Any:
        """The same rows as a torch IterableDataset whose position can be kept (`state_dict`) and taken up again.

        Each rank of `torch.distributed` (or as given) and each worker of its DataLoader reads a part of its own; together they read every
        row once. `shuffle` reads runs of neighbouring rows in a random order that `set_epoch` changes.
        """
        from .torch_features import IterableFeatures

        return IterableFeatures(self, shuffle=shuffle, seed=seed, rank=rank, world_size=world_size)
