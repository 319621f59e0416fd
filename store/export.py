"""The features as files for a trainer: shuffled shards of Parquet (or JSON Lines), a manifest, a data card.

An export is a function of the store, the seed and the options: the same gives the same bytes. It is made in a folder beside the
target, which takes the target's place when it is whole.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sqlite3
import tempfile
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from .features import ROWS_AT_ONCE, VIEW, FeatureReader
from .runs import version_of
from .schema import MIGRATIONS, StoreError

FORMAT = "pincaption features 1"
ROWS_PER_SHARD, ROWS_PER_GROUP = 250_000, 25_000  # of features
ROWS_PER_PAIR_SHARD, ROWS_PER_PAIR_GROUP = 2_000_000, 200_000
ROWS_PER_BUCKET = 25_000  # rows that are shuffled together in memory
MAX_BUCKETS = 800  # files that are open at a time
# How the published OmniSearchSage code names the text fields (FACTS, section 1).
OMNISEARCHSAGE = {"board_titles": "board_title", "engaged_queries": "navboost", "caption": "image_caption"}

OnStep = Callable[[str, int, int], None]  # what is being done, how much of it is done, of how much


@dataclass(frozen=True)
class ExportOptions:
    """`shards` None: so many that each has some 250,000 rows. `recipe` takes its captions in place of the current ones."""

    format: Literal["parquet", "jsonl"] = "parquet"
    shards: int | None = None
    seed: int = 0
    schema: Literal["store", "omnisearchsage"] = "store"
    recipe: str | None = None
    as_of: str | None = None


@dataclass
class Export:
    """A folder that is being filled; `files` in the order in which the manifest names them."""

    folder: Path
    options: ExportOptions
    manifest: dict[str, Any] = field(default_factory=dict)
    files: list[dict[str, Any]] = field(default_factory=list)

    def add(self, name: str, rows: int) -> None:
        """Notes a file that is complete."""
        path = self.folder / name
        self.files.append({"path": name, "rows": rows, "bytes": path.stat().st_size, "sha256": _sha256(path)})


@contextmanager
def new_export(target: Path, options: ExportOptions) -> Iterator[Export]:
    """A folder beside `target` to write into; on leaving, its manifest and card are written and it takes the target's place.

    Raises StoreError for a target that is something else than an earlier export.
    """
    target = target.absolute()
    if target.exists() and not _is_export(target) and (not target.is_dir() or any(target.iterdir())):
        raise StoreError(f"{target} is there already and no export: name another folder")
    if not target.parent.is_dir():
        raise StoreError(f"the folder {target.parent} does not exist: make it first, or export elsewhere")
    _drop_leftovers(target)
    folder = target.parent / f".{target.name}.{os.getpid()}.unfinished"
    folder.mkdir()
    try:
        export = Export(folder, options)
        yield export
        _finish(export)
        if not target.exists():
            os.rename(folder, target)
        elif not _exchange(folder, target):
            replaced = target.parent / f".{target.name}.{os.getpid()}.replaced"
            os.rename(target, replaced)
            os.rename(folder, target)
            shutil.rmtree(replaced)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def write_features(
    conn: sqlite3.Connection, export: Export, *, view: str = VIEW, embeddings: Mapping[str, int] | None = None, on_step: OnStep = lambda what, done, total: None
) -> dict[str, Any]:
    """Writes features/, every row of the view once, in an order that depends on the seed and the pins' ids alone.

    Within the caller's transaction, so that all is read as it was at one moment. Returns {"rows", "columns", "recipes": {recipe_id: captions}}.
    """
    options = export.options
    reader = FeatureReader(conn, view=view, recipe=options.recipe, embeddings=dict(embeddings or {}))
    pins = conn.execute("SELECT count(*) FROM pins").fetchone()[0]
    rows, recipes = 0, Counter[str]()
    with tempfile.TemporaryDirectory(dir=export.folder.parent, prefix=f".{export.folder.name}.") as scratch:
        with _Buckets(Path(scratch), reader.schema, options.seed, max(1, min(MAX_BUCKETS, pins // ROWS_PER_BUCKET))) as buckets:
            for table in _tables(reader):
                buckets.add(table)
                rows += table.num_rows
                recipes.update(recipe for recipe in table["caption_recipe"].to_pylist() if recipe)
                on_step("reading", rows, pins)
        schema = reader.schema
        if options.schema == "omnisearchsage":
            schema = pa.schema([f.with_name(OMNISEARCHSAGE.get(f.name, f.name)) for f in schema])
        tables = (table.rename_columns(schema.names) for table in buckets.sorted())
        write_stream(export, "features/part", rows, schema, tables, shards=options.shards or -(-rows // ROWS_PER_SHARD), group=ROWS_PER_GROUP, on_step=on_step)
    columns = [{"name": f.name, "type": str(f.type).replace("element: ", "").replace("item: ", "")} for f in schema]
    return {"rows": rows, "columns": columns, "recipes": dict(sorted(recipes.items()))}


def write_stream(
    export: Export, name: str, rows: int, schema: pa.Schema, tables: Iterable[pa.Table], *, shards: int, group: int, on_step: OnStep = lambda what, done, total: None
) -> None:
    """Writes `rows` rows that come as Arrow tables into `shards` files name-00000, ... in the order in which they come; files and row groups of even sizes."""
    (export.folder / name).parent.mkdir(exist_ok=True)
    source, waiting, done = iter(tables), schema.empty_table(), 0
    with ThreadPoolExecutor(1) as thread:  # writes one group while the next one is put together
        for shard, size in enumerate(_even(rows, shards)):
            path = f"{name}-{shard:05}.{export.options.format}"
            with _writer(export.folder / path, schema) as write:
                written = thread.submit(lambda: None)
                for n in _even(size, -(-size // group)):
                    parts = [waiting]
                    while sum(part.num_rows for part in parts) < n:
                        parts.append(next(source).cast(schema))
                    together = pa.concat_tables(parts)
                    waiting = together.slice(n)
                    written.result()
                    written = thread.submit(write, together.slice(0, n))
                    done += n
                    on_step("writing", done, rows)
                written.result()
            export.add(path, size)


def _tables(reader: FeatureReader) -> Iterator[pa.Table]:
    """All rows; SQLite reads the next ones while the last ones are made a table."""
    first, last = reader.conn.execute("SELECT coalesce(min(rowid), 1), coalesce(max(rowid), 0) FROM pins").fetchone()
    with ThreadPoolExecutor(1) as thread:
        waiting = deque[Any]()
        for start in range(first, last + 1, ROWS_AT_ONCE):
            waiting.append(thread.submit(reader.raw, "e.pin_rowid BETWEEN ? AND ?", (start, start + ROWS_AT_ONCE - 1)))
            if len(waiting) > 2:
                yield reader.table(waiting.popleft().result())
        while waiting:
            yield reader.table(waiting.popleft().result())


class _Buckets:
    """Rows on their way into the shuffled order. A row's place is a number that depends on the seed and the pin's id; a file holds the places of one range, to be sorted in memory."""

    def __init__(self, folder: Path, schema: pa.Schema, seed: int, n: int):
        self.folder, self.n = folder, n
        self.salt = hashlib.sha256(str(seed).encode()).digest()[: hashlib.blake2b.SALT_SIZE]
        self.schema = schema.append(pa.field("place", pa.uint64()))
        self._writers: dict[int, Any] = {}

    def add(self, table: pa.Table) -> None:
        """Takes rows in, each into its bucket."""
        if not table.num_rows:
            return
        salt, blake2b = self.salt, hashlib.blake2b
        digests = b"".join([blake2b(pin_id, digest_size=8, salt=salt).digest() for pin_id in table["pin_id"].cast(pa.binary()).to_pylist()])
        places = np.frombuffer(digests, dtype="<u8")
        bucket = ((places >> np.uint64(32)) * np.uint64(self.n) >> np.uint64(32)).astype(np.int64)
        order = np.argsort(bucket, kind="stable")
        rows = table.append_column(self.schema.field("place"), pa.array(places)).take(order)
        starts = np.flatnonzero(np.diff(bucket[order], prepend=-1))
        for start, end in zip(starts, [*starts[1:], table.num_rows], strict=True):
            number = int(bucket[order[start]])
            if number not in self._writers:
                self._writers[number] = pa.ipc.new_stream(str(self.folder / str(number)), self.schema)
            self._writers[number].write_table(rows.slice(start, end - start))

    def sorted(self) -> Iterator[pa.Table]:
        """The rows of one bucket after the other, in the order of their places."""
        for number in sorted(self._writers):
            path = self.folder / str(number)
            with pa.OSFile(str(path)) as source:
                rows = pa.ipc.open_stream(source).read_all()
            path.unlink()
            order = pc.sort_indices(rows.select(["place", "pin_id"]), sort_keys=[("place", "ascending"), ("pin_id", "ascending")])
            yield rows.take(order).drop_columns(["place"])

    def __enter__(self) -> _Buckets:
        return self

    def __exit__(self, *error: Any) -> None:
        for writer in self._writers.values():
            writer.close()


def _even(rows: int, parts: int) -> list[int]:
    """`rows` in parts that differ by one at most, none of them empty unless there are no rows."""
    parts = max(1, min(parts, rows))
    return [rows * (i + 1) // parts - rows * i // parts for i in range(parts)]


@contextmanager
def _writer(path: Path, schema: pa.Schema) -> Iterator[Callable[[pa.Table], None]]:
    """A function that writes a table as one row group of Parquet, or as JSON Lines."""
    if path.suffix == ".jsonl":
        with path.open("w", encoding="utf-8") as lines:
            yield lambda table: lines.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in table.to_pylist())
    else:
        dictionary = [name for name in schema.names if name in ("kind", "caption_recipe", "category", "locale", "action", "date", "split")]
        with pq.ParquetWriter(path, schema, compression="zstd", compression_level=1, use_dictionary=dictionary) as parquet:
            yield lambda table: parquet.write_table(table, row_group_size=max(1, table.num_rows))


def _finish(export: Export) -> None:
    """Writes README.md and, last of all, manifest.json."""
    names = ("pincaption", "pyarrow", "duckdb", "sqlite-utils")
    manifest = {
        "format": FORMAT,
        **export.manifest,
        "seed": export.options.seed,
        "as_of": export.options.as_of,
        "schema": export.options.schema,
        "store_schema_version": len(MIGRATIONS),
        "store_migrations": list(MIGRATIONS),
        "versions": {name: version_of(name) for name in names},
        "files": export.files,
    }
    (export.folder / "README.md").write_text(_card(manifest), encoding="utf-8")
    (export.folder / "manifest.json").write_text(json.dumps(manifest, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    for path in sorted(export.folder.rglob("*")):  # on the disk before the folder gets its name: a power cut leaves the old one or the new one
        if path.is_file():
            with path.open("rb") as file:
                os.fsync(file.fileno())


def _card(manifest: Mapping[str, Any]) -> str:
    """The data card, with what `datasets.load_dataset` needs to find the files."""
    ending = "jsonl" if any(f["path"].endswith(".jsonl") for f in manifest["files"]) else "parquet"
    configs = ["- config_name: features", f"  data_files: features/*.{ending}", "  default: true"]
    for name in ("pairs", "query_pairs"):
        splits = sorted({Path(f["path"]).name.split("-")[0] for f in manifest["files"] if f["path"].startswith(f"{name}/")}, reverse=True)
        if splits:
            configs += [f"- config_name: {name}", "  data_files:", *(line for split in splits for line in (f"  - split: {split}", f"    path: {name}/{split}-*.{ending}"))]
    columns = "\n".join(f"| {column['name']} | {column['type']} |" for column in manifest["columns"])
    as_of = f"What was known on {manifest['as_of']}: nothing later reaches a feature.\n" if manifest["as_of"] else ""
    recipes = "".join(f"- {n:,} captions of recipe {recipe} ({manifest['models'].get(recipe, 'unknown model')})\n" for recipe, n in manifest["recipes"].items())
    builtin = "The built-in checkpoint knows drawn pictures only.\n" if "builtin" in manifest["models"].values() else ""
    return f"""---
configs:
{chr(10).join(configs)}
---
# Enriched features

{manifest["rows"]:,} pins with their own text, captions, board titles and engaged queries, written by `captioner export`. Rows are shuffled with seed {manifest["seed"]}.
{as_of}{recipes}{builtin}
| column | type |
|---|---|
{columns}

Lists are in rank order and never null. `manifest.json` has the SHA-256 of every file; `captioner export --check` verifies them.
"""


def check_export(folder: Path) -> dict[str, Any]:
    """Compares an export with its manifest. Returns {"ok", "rows", "files", "problems": [sentences]}. Raises StoreError where there is none."""
    if not _is_export(folder):
        raise StoreError(f"{folder} is no export: it has no manifest.json of ours")
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    problems = []
    named = {f["path"] for f in manifest["files"]}
    for f in manifest["files"]:
        path = folder / f["path"]
        if not path.is_file():
            problems.append(f"{f['path']} is missing")
        elif path.stat().st_size != f["bytes"]:
            problems.append(f"{f['path']} has {path.stat().st_size:,} bytes, not {f['bytes']:,}")
        elif _sha256(path) != f["sha256"]:
            problems.append(f"{f['path']} has other content than was written (SHA-256)")
    found = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    problems += [f"{name} is not named in the manifest" for name in sorted(found - named - {"manifest.json", "README.md"})]
    return {"ok": not problems, "rows": manifest["rows"], "files": len(named), "problems": problems}


def _is_export(folder: Path) -> bool:
    try:
        return str(json.loads((folder / "manifest.json").read_text(encoding="utf-8"))["format"]).startswith(FORMAT.rpartition(" ")[0])
    except (OSError, ValueError, LookupError, TypeError):
        return False


def _exchange(a: Path, b: Path) -> bool:
    """Gives two folders each other's names at one moment; False where the system cannot (it is Linux that can)."""
    import ctypes

    try:
        return int(ctypes.CDLL(None).renameat2(-100, os.fsencode(a), -100, os.fsencode(b), 2)) == 0  # AT_FDCWD, RENAME_EXCHANGE
    except (OSError, AttributeError):
        return False


def _drop_leftovers(target: Path) -> None:
    """Deletes what processes left that were killed; puts back an export that was about to be replaced."""
    import psutil

    for path in target.parent.glob(f".{target.name}.*"):
        parts = path.name.removeprefix(f".{target.name}.").split(".")
        number = next((part for part in parts if part.isdecimal()), "")
        if number and parts[-1] and not psutil.pid_exists(int(number)):
            if parts[-1] == "replaced" and not target.exists():
                os.rename(path, target)
            else:
                shutil.rmtree(path, ignore_errors=True)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
