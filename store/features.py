"""The view `enriched_features` as a PyTorch dataset, for training straight from the store."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import rules
from .columns import COLUMNS, LISTS
from .connection import Connection, StoreError, open_store
from .recipes import find_recipe

if TYPE_CHECKING:
    import numpy as np

    from .torch_features import IterableFeatures

# Connections that a process inherited when it was forked. SQLite forbids even to close them there.
_inherited: list[Connection] = []


class EnrichedFeatures:
    """The store as a PyTorch dataset: row i is a dict of a pin's columns.

    The dataset is map-style: `DataLoader(EnrichedFeatures("my.db"), shuffle=True, num_workers=4)`.
    `iterable()` gives the same rows as an iterable dataset, split over workers and ranks.
    `columns` names the columns that are wanted; those of LISTS are lists, the others text or None. `recipe`
    forces the captions of one recipe (an id, the start of one, or a model) instead of the current ones.
    The rows are the pins that the store had when the dataset was made; their texts are read when a row is
    read, so captioning may go on meanwhile. The store is opened read-only.
    Raises StoreError if the store, a column or the recipe cannot be used.
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
        with closing(open_store(store, read_only=True)) as conn:
            self.recipe = find_recipe(conn, recipe) if recipe is not None else None
            self._rowids = _rowids(conn)
        self._conn: Connection | None = None
        self._process = 0

    def _connection(self) -> Connection:
        """The connection of this process; a connection must not be used in a forked process."""
        if self._conn is None or self._process != os.getpid():
            if self._conn is not None:
                _inherited.append(self._conn)
            self._conn, self._process = open_store(self.path, read_only=True), os.getpid()
            self._conn.row_factory = None
        return self._conn

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_conn": None}

    def __len__(self) -> int:
        return len(self._rowids)

    def __getitem__(self, i: int) -> dict[str, Any]:
        return self.__getitems__([i])[0]

    def __getitems__(self, places: Sequence[int]) -> list[dict[str, Any]]:
        """Several rows at once; a DataLoader reads a batch by this method.

        Of a pin that was deleted since the dataset was made, only the pin_id is left.
        """
        rowids = [int(self._rowids[i]) for i in places]
        unique = list(set(rowids))
        conn, marks = self._connection(), ", ".join("?" * len(unique))
        pin_ids: dict[int, str] = dict(
            conn.execute(f"SELECT rowid, pin_id FROM pins WHERE rowid IN ({marks})", unique).fetchall()
        )
        names = {name: f"e.{name}" for name in COLUMNS}
        join, parameters = "", list[Any]()
        if self.recipe is not None:
            names |= {"caption": "f.text", "caption_recipe": "f.recipe_id"}
            join = (
                "LEFT JOIN captions f ON f.pin_id = e.pin_id AND f.recipe_id = ?"
                f" AND {rules.is_valid('f', 'e')}"
            )
            parameters.append(self.recipe)
        wanted = ", ".join(names[name] for name in self.columns)
        rows = conn.execute(
            f"SELECT e.pin_id, {wanted} FROM enriched_features e {join} WHERE e.pin_id IN ({marks})",
            [*parameters, *pin_ids.values()],
        ).fetchall()
        features = {
            row[0]: {
                name: json.loads(cell or "[]") if name in LISTS else cell
                for name, cell in zip(self.columns, row[1:], strict=True)
            }
            for row in rows
        }
        return [features.get(pin_ids.get(rowid, "")) or self._gone(pin_ids.get(rowid)) for rowid in rowids]

    def _gone(self, pin_id: str | None) -> dict[str, Any]:
        """The row of a pin that is no longer there."""
        row: dict[str, Any] = {name: [] if name in LISTS else None for name in self.columns}
        return row | ({"pin_id": pin_id} if "pin_id" in row else {})

    def iterable(
        self, *, shuffle: bool = False, seed: int = 0, rank: int | None = None, world_size: int | None = None
    ) -> IterableFeatures:
        """The same rows as a torch IterableDataset that can go on where it stopped (`state_dict`).

        Each rank of `torch.distributed` (or as given here) and each worker of its DataLoader reads its own
        part; together they read every row once. With `shuffle`, runs of neighbouring rows come in a random
        order, another one for each `set_epoch`.
        """
        from .torch_features import IterableFeatures

        return IterableFeatures(self, shuffle=shuffle, seed=seed, rank=rank, world_size=world_size)


def _rowids(conn: Connection) -> np.ndarray:
    """The rowid of each pin that is not deleted, int64, ascending: 8 bytes a pin."""
    import numpy as np

    cursor = conn.execute("SELECT rowid FROM pins WHERE deleted_at IS NULL ORDER BY rowid")
    return np.fromiter((row[0] for row in cursor), dtype=np.int64)
