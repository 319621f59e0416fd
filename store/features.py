"""The columns that a trainer reads of a pin, and `enriched_features` as a PyTorch dataset."""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import quote

from . import rules
from .columns import COLUMNS, LISTS
from .connection import StoreError, open_store
from .recipes import find_recipe


class EnrichedFeatures:
    """The store as a PyTorch dataset: row i is a dict of a pin's columns, lists as lists. Captioning may go
    on beside it.

    Map-style by itself: `DataLoader(EnrichedFeatures("my.db"), shuffle=True, num_workers=4)`; `.iterable()`
    gives the same rows as an IterableDataset, split over workers and ranks. Both see the pins that there were
    when this was made, with the text that they have when they are read. `columns` names those that are
    wanted. Raises StoreError.
    """

    def __init__(self, store: str | Path, *, columns: Sequence[str] = COLUMNS, recipe: str | None = None):
        if isinstance(columns, str) or not columns:
            raise StoreError(
                f"columns is a list of names, for instance ['title', 'caption'], not {columns!r}"
            )
        if unknown := set(columns) - set(COLUMNS):
            raise StoreError(
                f"enriched_features has no column {', '.join(sorted(unknown))}; it has {', '.join(COLUMNS)}"
            )
        self.path, self.columns = Path(store).absolute(), tuple(columns)
        with closing(open_store(store)) as conn:  # says what is wrong with it, and brings it up to date
            self.recipe = find_recipe(conn, recipe) if recipe is not None else None
        self._conn: sqlite3.Connection | None = None
        self._process = 0
        self._rowids = self._all_rowids()

    def _all_rowids(self) -> Any:
        import numpy as np

        conn = self._open()
        return np.fromiter(
            (
                row[0]
                for row in conn.execute("SELECT rowid FROM pins WHERE deleted_at IS NULL ORDER BY rowid")
            ),
            dtype=np.int64,
        )

    def _open(self) -> sqlite3.Connection:
        conn = sqlite3.connect(
            f"file:{quote(str(self.path))}?mode=ro", uri=True, check_same_thread=False, timeout=60
        )
        conn.execute("PRAGMA query_only = 1")
        return conn

    def _here(self) -> sqlite3.Connection:
        """A connection of this process: they do not outlive a fork."""
        if self._conn is None or self._process != os.getpid():
            self._conn, self._process = self._open(), os.getpid()
        return self._conn

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_conn": None}

    def __len__(self) -> int:
        return len(self._rowids)

    def __getitem__(self, i: int) -> dict[str, Any]:
        return self.__getitems__([i])[0]

    def __getitems__(self, places: Sequence[int]) -> list[dict[str, Any]]:
        """Several rows at once: what a DataLoader asks for a batch.

        A pin that was deleted meanwhile has its id and nothing else.
        """
        rowids = [int(self._rowids[i]) for i in places]
        conn, marks = self._here(), ", ".join("?" * len(set(rowids)))
        pins = dict(
            conn.execute(
                f"SELECT rowid, pin_id FROM pins WHERE rowid IN ({marks})", list(set(rowids))
            ).fetchall()
        )
        names, joins, parameters = {name: f"e.{name}" for name in COLUMNS}, "", list[Any]()
        if self.recipe is not None:
            names |= {"caption": "f.text", "caption_recipe": "f.recipe_id"}
            joins = f"LEFT JOIN captions f ON f.pin_id = e.pin_id AND f.recipe_id = ? AND {rules.is_valid('f', 'e')}"
            parameters.append(self.recipe)
        wanted = ", ".join(names[name] for name in self.columns)
        rows = conn.execute(
            f"SELECT e.pin_id, {wanted} FROM enriched_features e {joins} WHERE e.pin_id IN ({marks})",
            [*parameters, *pins.values()],
        ).fetchall()
        found = {
            row[0]: {
                name: json.loads(cell or "[]") if name in LISTS else cell
                for name, cell in zip(self.columns, row[1:], strict=True)
            }
            for row in rows
        }
        gone: dict[str, Any] = {name: [] if name in LISTS else None for name in self.columns}
        return [
            found.get(
                pins.get(rowid, ""), gone | ({"pin_id": pins.get(rowid)} if "pin_id" in self.columns else {})
            )
            for rowid in rowids
        ]

    def iterable(
        self, *, shuffle: bool = False, seed: int = 0, rank: int | None = None, world_size: int | None = None
    ) -> Any:
        """The same rows as a torch IterableDataset whose position can be kept (`state_dict`) and taken up
        again.

        Each rank of `torch.distributed` (or as given) and each worker of its DataLoader reads a part of its
        own; together they read every row once. `shuffle` reads runs of neighbouring rows in a random order
        that `set_epoch` changes.
        """
        from .torch_features import IterableFeatures

        return IterableFeatures(self, shuffle=shuffle, seed=seed, rank=rank, world_size=world_size)
