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
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from .features import COLUMNS, VIEW, FeatureReader
from .runs import version_of
from .schema import MIGRATIONS, StoreError

FORMAT = "pincaption features 1"
ROWS_PER_SHARD = 250_000
ROWS_PER_BUCKET = 25_000  # rows that are shuffled together in memory, and stand as one row group
ROWS_PER_PAIR_SHARD, ROWS_PER_PAIR_GROUP = 2_000_000, 200_000
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
        if target.exists():
            replaced = target.parent / f".{target.name}.{os.getpid()}.replaced"
            os.rename(target, replaced)
            os.rename(folder, target)
            shutil.rmtree(replaced)
        else:
            os.rename(folder, target)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def write_features(
    conn: sqlite3.Connection, export: Export, *, view: str = VIEW, embeddings: Mapping[str, int] | None = None, on_step: OnStep = lambda what, done, total: None
) -> dict[str, Any]:
    """Writes features/, every row of the view once, in an order that depends on the seed and the pins' ids alone.

    Within the caller's transaction, so that counting and reading see the same. Returns {"rows", "columns", "recipes": {recipe_id: captions}}.
    """
    import numpy as np
    import pyarrow as pa

    options = export.options
    reader = FeatureReader(conn, view=view, recipe=options.recipe, embeddings=dict(embeddings or {}))
    key = hashlib.blake2b(str(options.seed).encode(), digest_size=16).digest()
    ids = conn.execute(f"SELECT pin_id FROM {view}")
    places = np.fromiter((_place(row[0], key) for row in ids), dtype=np.uint64)
    places.sort()
    rows = len(places)
    shards = _even(rows, options.shards or max(1, -(-rows // ROWS_PER_SHARD)))
    per_bucket = max(ROWS_PER_BUCKET, -(-rows // MAX_BUCKETS))
    buckets = [_even(n, max(1, -(-n // per_bucket))) for n in shards]  # of each shard
    ends = np.cumsum([n for some in buckets for n in some])
    firsts = places[ends[:-1]] if rows else places  # where each bucket but the first begins
    (export.folder / "features").mkdir()
    recipes: dict[str, int] = {}
    with tempfile.TemporaryDirectory(dir=export.folder.parent, prefix=f".{export.folder.name}.") as scratch:
        writers: dict[int, Any] = {}
        schema = reader.schema.append(pa.field("place", pa.uint64()))
        done = 0
        for table in reader.tables():
            for recipe, n in zip(*[column.to_pylist() for column in table["caption_recipe"].value_counts().flatten()], strict=True) if table.num_rows else ():
                if recipe:
                    recipes[recipe] = recipes.get(recipe, 0) + n
            of = np.fromiter((_place(pin_id, key) for pin_id in table["pin_id"].to_pylist()), dtype=np.uint64, count=table.num_rows)
            bucket = np.searchsorted(firsts, of, side="right")
            order = np.argsort(bucket, kind="stable")
            sorted_rows = table.append_column("place", pa.array(of)).take(order)
            starts = np.flatnonzero(np.diff(bucket[order], prepend=-1))
            for start, end in zip(starts, [*starts[1:], table.num_rows], strict=True):
                number = int(bucket[order[start]])
                if number not in writers:
                    writers[number] = pa.ipc.new_stream(os.path.join(scratch, str(number)), schema)
                writers[number].write_table(sorted_rows.slice(start, end - start))
            done += table.num_rows
            on_step("reading", done, rows)
        for writer in writers.values():
            writer.close()
        number = 0
        for shard, some in enumerate(buckets):
            name = f"features/part-{shard:05}.{options.format}"
            with _writer(export.folder / name, _renamed(reader.schema, options)) as write:
                for _ in some:
                    path = os.path.join(scratch, str(number))
                    if os.path.exists(path):
                        with pa.memory_map(path) as source:
                            rows_of = pa.ipc.open_stream(source).read_all()
                            rows_of = rows_of.take(pa.compute.sort_indices(rows_of, sort_keys=[("place", "ascending"), ("pin_id", "ascending")]))
                        write(rows_of.drop_columns(["place"]))
                        del rows_of
                        os.unlink(path)
                    number += 1
            export.add(name, shards[shard])
            on_step("writing", shard + 1, len(shards))
    columns = [{"name": f.name, "type": str(f.type).replace("element: ", "").replace("item: ", "")} for f in _renamed(reader.schema, options)]
    return {"rows": rows, "columns": columns, "recipes": dict(sorted(recipes.items()))}


def write_stream(export: Export, name: str, rows: int, schema: Any, batches: Iterable[Any], *, on_step: OnStep = lambda what, done, total: None) -> None:
    """Writes `rows` rows that come as Arrow batches into files name-00000, ... of even sizes, in groups of even sizes, in the order in which they come."""
    import pyarrow as pa

    (export.folder / name).parent.mkdir(exist_ok=True)
    waiting: list[Any] = []
    source, done = iter(batches), 0

    def take(n: int) -> Any:
        have = sum(batch.num_rows for batch in waiting)
        while have < n:
            batch = next(source)
            waiting.append(batch)
            have += batch.num_rows
        table = pa.Table.from_batches(waiting).cast(schema)
        waiting[:] = table.slice(n).combine_chunks().to_batches()
        return table.slice(0, n).combine_chunks()

    for shard, size in enumerate(_even(rows, max(1, -(-rows // ROWS_PER_PAIR_SHARD)))):
        path = f"{name}-{shard:05}.{export.options.format}"
        with _writer(export.folder / path, schema) as write:
            for group in _even(size, max(1, -(-size // ROWS_PER_PAIR_GROUP))):
                write(take(group))
                done += group
                on_step("writing", done, rows)
        export.add(path, size)


def _place(pin_id: str, key: bytes) -> int:
    """Where a pin stands in the shuffled order: a number that depends on the seed and its id."""
    return int.from_bytes(hashlib.blake2b(pin_id.encode(errors="surrogatepass"), digest_size=8, key=key).digest(), "big")


def _even(rows: int, parts: int) -> list[int]:
    """`rows` in parts that differ by one at most, none of them empty unless there are no rows."""
    parts = max(1, min(parts, rows))
    return [rows * (i + 1) // parts - rows * i // parts for i in range(parts)]


def _renamed(schema: Any, options: ExportOptions) -> Any:
    import pyarrow as pa

    if options.schema == "store":
        return schema
    return pa.schema([f.with_name(OMNISEARCHSAGE.get(f.name, f.name)) for f in schema])


@contextmanager
def _writer(path: Path, schema: Any) -> Iterator[Callable[[Any], None]]:
    """A function that writes a table as one row group of Parquet, or as JSON Lines."""
    import pyarrow.parquet as pq

    if path.suffix == ".jsonl":
        with path.open("w", encoding="utf-8") as lines:

            def write_lines(table: Any) -> None:
                for row in table.rename_columns(schema.names).to_pylist():
                    lines.write(json.dumps(row, ensure_ascii=False) + "\n")

            yield write_lines
    else:
        dictionary = [name for name in schema.names if name in ("kind", "caption_recipe", "category", "locale", "action", "date", "split")]
        with pq.ParquetWriter(path, schema, compression="zstd", compression_level=1, use_dictionary=dictionary) as parquet:
            yield lambda table: parquet.write_table(table.rename_columns(schema.names), row_group_size=max(1, table.num_rows))


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


__all__ = ["COLUMNS", "Export", "ExportOptions", "check_export", "new_export", "write_features"]
