"""`enriched_features` put together for all pins at once: every table is read from one end to the other, and
joined by ranges of pins in memory.

The view looks up each pin in each table, which is right for some pins, and slow for all of a large store.
What the view says is said here once more; tests/test_store/test_export.py compares the two.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ..store import rules
from ..store.columns import COLUMNS, LISTS
from ..store.connection import StoreError
from ..store.scan import scan

_PINS = {
    "pin_id": "pin_id",
    "kind": "kind",
    "title": rules.title("pins"),
    "description": rules.description("pins"),
    "image_sha256": "image_sha256",
    "category": "category",
    "locale": "locale",
}
_CAPTIONS = {
    "pin_id": "pin_id",
    "caption_recipe": "recipe_id",
    "caption": "text",
    "image_sha256": "image_sha256",
    "updated_at": "updated_at",
}
_EVIDENCE = {
    "board_titles": {"board_titles": "titles", "board_title_counts": "boards"},
    "engaged_queries": {"engaged_queries": "queries", "engaged_query_scores": "scores"},
}
_KINDS = {
    "board_titles": ("VARCHAR", pa.string()),
    "board_title_counts": ("INTEGER", pa.int32()),
    "engaged_queries": ("VARCHAR", pa.string()),
    "engaged_query_scores": ("FLOAT", pa.float32()),
}


def features_schema(embeddings: Mapping[str, int]) -> pa.Schema:
    """The columns of an export, and `embeddings` {name: numbers} as fixed-size lists of float16 after them."""
    fields = [(name, pa.list_(_KINDS[name][1]) if name in LISTS else pa.string()) for name in COLUMNS]
    return pa.schema(fields + [(name, pa.list_(pa.float16(), dim)) for name, dim in embeddings.items()])


def pin_tables(conn: sqlite3.Connection, *, as_of: str | None) -> Iterator[pa.Table]:
    """The pins of the view, with `as_of` only those that there were on that day, or whose day is not known."""
    made = " AND (created_at IS NULL OR substr(created_at, 1, 10) <= ?)" if as_of else ""
    return scan(conn, "pins", _PINS, f"deleted_at IS NULL{made}", [as_of] if as_of else [])


def evidence_tables(
    conn: sqlite3.Connection, *, recipe: str | None, embeddings: Mapping[str, int]
) -> dict[str, Iterator[pa.Table]]:
    """What is to be joined to the pins: captions that are ok (of one recipe), titles, queries, and each
    embedding.
    """
    found = {
        "captions": scan(
            conn,
            "captions",
            _CAPTIONS,
            "status = 'ok'" + (" AND recipe_id = ?" if recipe else ""),
            [recipe] if recipe else [],
        )
    }
    for name, columns in _EVIDENCE.items():
        found[name] = scan(conn, name, {"pin_id": "pin_id", **columns})
    for name in embeddings:
        found[f"embedding {name}"] = scan(
            conn, "embeddings", {"pin_id": "pin_id", name: "vector"}, "name = ?", [name], blobs=[name]
        )
    return found


class Buckets:
    """Rows of several tables on their way into the shuffled order: a bucket has the pins whose places lie in
    one range, and what belongs to them.

    A pin's place is a number made of the seed and its id.
    """

    def __init__(self, folder: Path, seed: int, n: int):
        self.folder, self.seed, self.n = folder, seed, n
        self._buckets = set[int]()  # those that have pins
        self._writers: dict[tuple[str, int], Any] = {}  # of the table that is being added
        self._db = duckdb.connect()
        self._db.execute("SET threads = 1; SET enable_progress_bar = false")

    def add(self, name: str, table: pa.Table) -> None:
        """Takes rows of a table in, each into its bucket."""
        if self._writers and next(iter(self._writers))[0] != name:
            self._close()
        hashed = f"SELECT md5_number_lower('{self.seed} ' || pin_id) AS place FROM ids"
        place = (
            self._db.from_arrow(table.select(["pin_id"]))
            .query("ids", hashed)
            .to_arrow_table()["place"]
            .combine_chunks()
        )
        bucket = ((place.to_numpy() >> np.uint64(32)) * np.uint64(self.n) >> np.uint64(32)).astype(np.int64)
        if name == "pins":
            table = table.append_column("place", place)
        order = np.argsort(bucket, kind="stable")
        table, bucket = table.take(order), bucket[order]
        starts = np.flatnonzero(np.diff(bucket, prepend=-1)).tolist()
        for start, end in zip(starts, [*starts[1:], len(bucket)], strict=True):
            key = name, int(bucket[start])
            if name == "pins":
                self._buckets.add(key[1])
            if key not in self._writers:
                self._writers[key] = pa.ipc.new_stream(self._path(*key), table.schema)
            self._writers[key].write_table(table.slice(start, end - start))

    def __enter__(self) -> Buckets:
        return self

    def __exit__(self, *error: Any) -> None:
        self._close()

    def _close(self) -> None:
        for writer in self._writers.values():
            writer.close()
        self._writers = {}

    def _path(self, name: str, bucket: int) -> str:
        return str(self.folder / f"{bucket} {name}")

    def _take(self, name: str, bucket: int) -> pa.Table | None:
        """The rows of a table in a bucket, once."""
        path = self._path(name, bucket)
        if not os.path.exists(path):
            return None
        with pa.OSFile(path) as source:
            rows = pa.ipc.open_stream(source).read_all().combine_chunks()
        os.unlink(path)
        return rows

    def joined(self, embeddings: Mapping[str, int]) -> Iterator[pa.Table]:
        """The features of one bucket after the other, in the order of the pins' places."""
        numbers = sorted(self._buckets)
        with ThreadPoolExecutor(2) as threads:
            waiting: list[Any] = []
            for bucket in numbers:
                waiting.append(threads.submit(self._joined, bucket, embeddings))
                if len(waiting) > 2:
                    yield waiting.pop(0).result()
            for job in waiting:
                yield job.result()

    def _joined(self, bucket: int, embeddings: Mapping[str, int]) -> pa.Table:
        pins = self._take("pins", bucket)
        assert pins is not None
        pins = pins.take(
            pc.sort_indices(
                pins.select(["place", "pin_id"]), sort_keys=[("place", "ascending"), ("pin_id", "ascending")]
            )
        )
        columns = {name: pins[name] for name in _PINS}
        columns |= _current_captions(pins, self._take("captions", bucket))
        for name, some in _EVIDENCE.items():
            rows = self._take(name, bucket)
            columns |= _of_pins(pins, rows, list(some))
        texts = pa.table({name: columns[name] for name in COLUMNS})
        decoded = ", ".join(
            f"coalesce(from_json({name}, '[\"{_KINDS[name][0]}\"]'), []) AS {name}" for name in LISTS
        )
        table = (
            self._db.cursor()
            .from_arrow(texts)
            .query("texts", f"SELECT * REPLACE ({decoded}) FROM texts")
            .to_arrow_table()
        )
        for name, dim in embeddings.items():
            vectors = _of_pins(pins, self._take(f"embedding {name}", bucket), [name])[name]
            table = table.append_column(name, _vectors(vectors.to_pylist(), dim))
        return table.cast(features_schema(embeddings))


def _of_pins(pins: pa.Table, rows: pa.Table | None, names: list[str]) -> dict[str, Any]:
    """Columns of `rows` in the order of the pins; null where a pin has no row."""
    if rows is None:
        return {name: pa.nulls(pins.num_rows, pa.string()) for name in names}
    places = pc.index_in(pins["pin_id"], value_set=rows["pin_id"].combine_chunks())
    return {name: rows[name].take(places) for name in names}


def _current_captions(pins: pa.Table, captions: pa.Table | None) -> dict[str, Any]:
    """Each pin's newest caption that was made from the image that it has now; of two of one moment the one
    whose recipe comes first.
    """
    names = ["caption", "caption_recipe"]
    if captions is None:
        return {name: pa.nulls(pins.num_rows, pa.string()) for name in names}
    place = pc.index_in(captions["pin_id"], value_set=pins["pin_id"].combine_chunks())
    captions = captions.append_column("pin", place).filter(
        pc.equal(captions["image_sha256"], pins["image_sha256"].take(place))
    )
    captions = captions.take(
        pc.sort_indices(
            captions.select(["pin", "updated_at", "caption_recipe"]),
            sort_keys=[("pin", "ascending"), ("updated_at", "descending"), ("caption_recipe", "ascending")],
        )
    )
    pin = captions["pin"].to_numpy()
    first = np.flatnonzero(np.diff(pin, prepend=-1))
    of_pin = np.full(pins.num_rows, -1)
    of_pin[pin[first]] = first
    places = pa.array(of_pin, mask=of_pin < 0)
    return {name: captions[name].take(places) for name in names}


def _vectors(column: list[bytes | None], dim: int) -> pa.Array:
    """Stored vectors as a fixed-size list, null where a pin has none."""
    if any(vector is not None and len(vector) != 2 * dim for vector in column):
        raise StoreError(
            f"the store has vectors of one name and of other sizes than {dim:,} numbers: ingest that name anew"
        )
    flat = pa.Array.from_buffers(
        pa.float16(),
        dim * len(column),
        [None, pa.py_buffer(b"".join(vector or bytes(2 * dim) for vector in column))],
    )
    return pa.FixedSizeListArray.from_arrays(flat, dim, mask=pa.array([vector is None for vector in column]))
