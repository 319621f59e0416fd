"""`enriched_features` for all pins at once, shuffled, with embeddings.

The view looks up every pin in every table. That is right for a few pins, but slow for all pins of a large
store. Here, every table is read from one end to the other, and the rows are joined in memory, one bucket of
pins after the other. tests/test_export/test_write.py compares the result with the view.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ..common.terminal import OnStep, no_step
from ..store import Connection, rules
from ..store.columns import COLUMNS, LISTS, OMNISEARCHSAGE
from ..store.connection import StoreError
from ..store.described import truncated_images
from ..store.pins import count_pins
from ..store.scan import scan
from .buckets import Buckets
from .manifest import ExportFile
from .shards import Format, write_shards

ROWS_PER_SHARD, ROWS_PER_GROUP = 250_000, 25_000
ROWS_PER_BUCKET = 25_000  # pins that are joined and sorted together in memory

# table -> {column of the export: SQL of the table's column}
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
_BY_PEOPLE = {"pin_id": "pin_id", "caption_by_person": "text"}
_EVIDENCE = {
    "board_titles": {"board_titles": "titles", "board_title_counts": "boards"},
    "engaged_queries": {"engaged_queries": "queries", "engaged_query_scores": "scores"},
}
# The values of a list, for DuckDB and for Arrow.
_LIST_TYPES = {
    "board_titles": ("VARCHAR", pa.string()),
    "board_title_counts": ("INTEGER", pa.int32()),
    "engaged_queries": ("VARCHAR", pa.string()),
    "engaged_query_scores": ("FLOAT", pa.float32()),
}

TRUNCATED = "caption_truncated"
Schema = Literal["store", "omnisearchsage"]


@dataclass
class Features:
    """What `write_features` wrote."""

    rows: int  # pins
    columns: list[dict[str, str]]  # {"name", "type"}, in order
    recipes: dict[str, int]  # recipe_id -> captions; "person" for those that people wrote
    files: list[ExportFile]


def write_features(
    conn: Connection,
    folder: Path,
    *,
    seed: int = 0,
    format: Format = "parquet",
    shards: int | None = None,
    schema: Schema = "store",
    recipe_id: str | None = None,
    as_of: str | None = None,
    embeddings: Mapping[str, int] | None = None,
    on_step: OnStep = no_step,
) -> Features:
    """Writes features/ in `folder`: every pin of enriched_features once.

    The order depends on the seed and the pins' ids alone. `recipe_id` takes the captions of that recipe in
    place of the current ones, and none that people wrote. `as_of` leaves out pins that were made after that
    day. `embeddings` are those to add, each with the length of its vectors. If the store has captions of
    images that end early, there is a column TRUNCATED, which says of each pin whether its caption is one.

    Call it within a transaction, so that everything is read as it was at one moment.
    """
    embeddings = dict(embeddings or {})
    truncated = pa.array(truncated_images(conn), pa.string())
    pins, rows, recipes = count_pins(conn), 0, Counter[str]()
    names = OMNISEARCHSAGE if schema == "omnisearchsage" else {}
    arrow_schema = pa.schema(
        [field.with_name(names.get(field.name, field.name)) for field in features_schema(embeddings)]
    )
    if len(truncated):
        arrow_schema = arrow_schema.append(pa.field(TRUNCATED, pa.bool_()))
    with tempfile.TemporaryDirectory(dir=folder, prefix="scratch.") as scratch:
        n = max(1, min(_files_at_once(), pins // ROWS_PER_BUCKET))
        with Buckets(Path(scratch), seed, n) as buckets:
            for table in _scan_pins(conn, as_of):
                buckets.add("pins", table)
                rows += table.num_rows
                on_step("reading", rows, pins)
            for name, tables in _scan_others(conn, recipe_id, embeddings).items():
                for table in tables:
                    buckets.add(name, table)
                on_step("reading", rows, pins)

        def joined() -> Iterator[pa.Table]:
            for table in _join_all(buckets, embeddings):
                recipes.update(recipe for recipe in table["caption_recipe"].to_pylist() if recipe)
                if len(truncated):
                    ends_early = pc.is_in(table["image_sha256"], value_set=truncated)
                    by_model = pc.not_equal(table["caption_recipe"], rules.PERSON)
                    marks = pc.and_(pc.fill_null(by_model, False), ends_early)
                    table = table.append_column(TRUNCATED, marks)
                yield table.rename_columns(arrow_schema.names)

        files = write_shards(
            folder,
            "features/part",
            rows,
            arrow_schema,
            joined(),
            format=format,
            shards=shards or -(-rows // ROWS_PER_SHARD),
            group_rows=ROWS_PER_GROUP,
            on_step=on_step,
        )
    columns = [
        {"name": field.name, "type": str(field.type).replace("element: ", "").replace("item: ", "")}
        for field in arrow_schema
    ]
    return Features(rows, columns, dict(sorted(recipes.items())), files)


def features_schema(embeddings: Mapping[str, int]) -> pa.Schema:
    """The columns of an export. Embeddings {name: numbers} come last, as fixed-size lists of float16."""
    fields = [(name, pa.list_(_LIST_TYPES[name][1]) if name in LISTS else pa.string()) for name in COLUMNS]
    return pa.schema(fields + [(name, pa.list_(pa.float16(), dim)) for name, dim in embeddings.items()])


def _scan_pins(conn: Connection, as_of: str | None) -> Iterator[pa.Table]:
    """The pins of the view; with `as_of`, those that existed on that day or have no date."""
    if not as_of:
        return scan(conn, "pins", _PINS, "deleted_at IS NULL")
    existed = "deleted_at IS NULL AND (created_at IS NULL OR substr(created_at, 1, 10) <= ?)"
    return scan(conn, "pins", _PINS, existed, [as_of])


def _scan_others(
    conn: Connection, recipe_id: str | None, embeddings: Mapping[str, int]
) -> dict[str, Iterator[pa.Table]]:
    """What is joined to the pins: captions that are ok, those of people, titles, queries, and embeddings."""
    tables: dict[str, Iterator[pa.Table]] = {}
    if recipe_id:
        of_recipe = "status = 'ok' AND recipe_id = ?"
        tables["captions"] = scan(conn, "captions", _CAPTIONS, of_recipe, [recipe_id])
    else:
        tables["captions"] = scan(conn, "captions", _CAPTIONS, "status = 'ok'")
        tables["captions_by_people"] = scan(conn, "captions_by_people", _BY_PEOPLE)
    for name, columns in _EVIDENCE.items():
        tables[name] = scan(conn, name, {"pin_id": "pin_id", **columns})
    for name in embeddings:
        columns = {"pin_id": "pin_id", name: "vector"}
        tables[f"embedding {name}"] = scan(conn, "embeddings", columns, "name = ?", [name], blobs=[name])
    return tables


def _files_at_once() -> int:
    """How many files Buckets may keep open; the process has others open besides."""
    import resource

    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return 800 if limit == resource.RLIM_INFINITY else min(800, max(1, limit // 2))


def _join_all(buckets: Buckets, embeddings: Mapping[str, int]) -> Iterator[pa.Table]:
    """The features of one bucket after the other. Two threads work ahead of the reader."""
    db = duckdb.connect()
    db.execute("SET threads = 1; SET enable_progress_bar = false")
    with ThreadPoolExecutor(2) as threads:
        waiting: list[Any] = []
        for bucket in buckets.with_pins():
            waiting.append(threads.submit(_join, db, buckets, bucket, embeddings))
            if len(waiting) > 2:
                yield waiting.pop(0).result()
        for job in waiting:
            yield job.result()


def _join(db: Any, buckets: Buckets, bucket: int, embeddings: Mapping[str, int]) -> pa.Table:
    """The features of the pins of one bucket, in the order of their places."""
    pins = buckets.take("pins", bucket)
    assert pins is not None
    by_place = [("place", "ascending"), ("pin_id", "ascending")]
    pins = pins.take(pc.sort_indices(pins.select(["place", "pin_id"]), sort_keys=by_place))
    columns = {name: pins[name] for name in _PINS}
    columns |= _current_captions(pins, buckets.take("captions", bucket))
    if (by_people := buckets.take("captions_by_people", bucket)) is not None:
        columns |= _with_those_of_people(columns, _align(pins, by_people, ["caption_by_person"]))
    for name, evidence_columns in _EVIDENCE.items():
        columns |= _align(pins, buckets.take(name, bucket), list(evidence_columns))
    texts = pa.table({name: columns[name] for name in COLUMNS})
    decoded = ", ".join(
        f"coalesce(from_json({name}, '[\"{_LIST_TYPES[name][0]}\"]'), []) AS {name}" for name in LISTS
    )
    decode = f"SELECT * REPLACE ({decoded}) FROM texts"
    table = db.cursor().from_arrow(texts).query("texts", decode).to_arrow_table()
    for name, dim in embeddings.items():
        vectors = _align(pins, buckets.take(f"embedding {name}", bucket), [name])[name]
        table = table.append_column(name, _vectors(vectors.to_pylist(), dim))
    return table.cast(features_schema(embeddings))


def _align(pins: pa.Table, rows: pa.Table | None, names: list[str]) -> dict[str, Any]:
    """Columns of `rows` in the order of the pins; null where a pin has no row."""
    if rows is None:
        return {name: pa.nulls(pins.num_rows, pa.string()) for name in names}
    places = pc.index_in(pins["pin_id"], value_set=rows["pin_id"].combine_chunks())
    return {name: rows[name].take(places) for name in names}


def _current_captions(pins: pa.Table, captions: pa.Table | None) -> dict[str, Any]:
    """Each pin's newest caption of the image that it has now.

    Of two captions of the same time, the one whose recipe_id comes first counts.
    """
    names = ["caption", "caption_recipe"]
    if captions is None:
        return {name: pa.nulls(pins.num_rows, pa.string()) for name in names}
    pin = pc.index_in(captions["pin_id"], value_set=pins["pin_id"].combine_chunks())
    is_of_this_image = pc.equal(captions["image_sha256"], pins["image_sha256"].take(pin))
    captions = captions.append_column("pin", pin).filter(is_of_this_image)
    newest_first = [("pin", "ascending"), ("updated_at", "descending"), ("caption_recipe", "ascending")]
    sort_columns = captions.select([name for name, _ in newest_first])
    captions = captions.take(pc.sort_indices(sort_columns, sort_keys=newest_first))
    pin = captions["pin"].to_numpy()
    first = np.flatnonzero(np.diff(pin, prepend=-1))
    row_of_pin = np.full(pins.num_rows, -1)
    row_of_pin[pin[first]] = first
    rows = pa.array(row_of_pin, mask=row_of_pin < 0)
    return {name: captions[name].take(rows) for name in names}


def _with_those_of_people(columns: Mapping[str, Any], by_people: Mapping[str, Any]) -> dict[str, Any]:
    """The captions, and their recipes, with those that people wrote in place of those of models."""
    text = by_people["caption_by_person"]
    recipe = pc.if_else(pc.is_valid(text), rules.PERSON, columns["caption_recipe"])
    return {"caption": pc.coalesce(text, columns["caption"]), "caption_recipe": recipe}


def _vectors(column: list[bytes | None], dim: int) -> pa.Array:
    """Stored vectors as fixed-size lists, null where a pin has none."""
    if any(vector is not None and len(vector) != 2 * dim for vector in column):
        raise StoreError(
            f"under one name, the store has vectors of other sizes than {dim:,} numbers: ingest them anew"
        )
    data = pa.py_buffer(b"".join(vector or bytes(2 * dim) for vector in column))
    numbers = pa.Array.from_buffers(pa.float16(), dim * len(column), [None, data])
    is_missing = pa.array([vector is None for vector in column])
    return pa.FixedSizeListArray.from_arrays(numbers, dim, mask=is_missing)
