"""Rows of several tables, shuffled by pin without holding them all in memory.

A pin's place in the shuffled order is a hash of the seed and its id. Each bucket is a file per table with the
rows of the pins whose places lie in one range. Read one bucket after the other, and sort the pins of each by
their place: this gives the whole order.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa


class Buckets:
    """`n` buckets in `folder`. Add one table after the other, then take the rows out bucket by bucket."""

    def __init__(self, folder: Path, seed: int, n: int):
        self.folder, self.seed, self.n = folder, seed, n
        self._with_pins = set[int]()
        self._writers: dict[tuple[str, int], Any] = {}  # (table, bucket) -> file; all of one table
        self._db = duckdb.connect()
        self._db.execute("SET threads = 1; SET enable_progress_bar = false")

    def __enter__(self) -> Buckets:
        return self

    def __exit__(self, *error: Any) -> None:
        self._close()

    def add(self, name: str, table: pa.Table) -> None:
        """Adds rows of the table `name`, which have a column pin_id. "pins" get a column `place` besides."""
        if self._writers and next(iter(self._writers))[0] != name:
            self._close()
        hashed = f"SELECT md5_number_lower('{self.seed} ' || pin_id) AS place FROM ids"
        ids = self._db.from_arrow(table.select(["pin_id"]))
        place = ids.query("ids", hashed).to_arrow_table()["place"].combine_chunks()
        bucket = ((place.to_numpy() >> np.uint64(32)) * np.uint64(self.n) >> np.uint64(32)).astype(np.int64)
        if name == "pins":
            table = table.append_column("place", place)
        order = np.argsort(bucket, kind="stable")
        table, bucket = table.take(order), bucket[order]
        starts = np.flatnonzero(np.diff(bucket, prepend=-1)).tolist()
        for start, end in zip(starts, [*starts[1:], len(bucket)], strict=True):
            key = name, int(bucket[start])
            if name == "pins":
                self._with_pins.add(key[1])
            if key not in self._writers:
                self._writers[key] = pa.ipc.new_stream(self._path(*key), table.schema)
            self._writers[key].write_table(table.slice(start, end - start))

    def with_pins(self) -> list[int]:
        """The numbers of the buckets that have pins, in order."""
        return sorted(self._with_pins)

    def take(self, name: str, bucket: int) -> pa.Table | None:
        """The rows of a table in a bucket, or None where there are none. Deletes their file."""
        path = self._path(name, bucket)
        if not os.path.exists(path):
            return None
        with pa.OSFile(path) as source:
            rows = pa.ipc.open_stream(source).read_all().combine_chunks()
        os.unlink(path)
        return rows

    def _close(self) -> None:
        for writer in self._writers.values():
            writer.close()
        self._writers = {}

    def _path(self, name: str, bucket: int) -> str:
        return str(self.folder / f"{bucket} {name}")
