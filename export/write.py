"""The features as files for a trainer: shuffled shards of Parquet (or JSON Lines), a manifest, a data card.

An export is a function of the store, the seed and the options: the same gives the same bytes. It is made in a
folder beside the target, which takes the target's place when it is whole.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import sqlite3
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq

from ..store.columns import OMNISEARCHSAGE
from ..store.connection import StoreError
from ..store.runs import version_of
from ..store.schema import MIGRATIONS
from .joined import Buckets, evidence_tables, features_schema, pin_tables

FORMAT = "pincaption features 1"
ROWS_PER_SHARD, ROWS_PER_GROUP = 250_000, 25_000  # of features
ROWS_PER_PAIR_SHARD, ROWS_PER_PAIR_GROUP = 2_000_000, 200_000
ROWS_PER_BUCKET = 25_000  # rows that are shuffled together in memory

OnStep = Callable[[str, int, int], None]  # what is being done, how much of it is done, of how much


@dataclass(frozen=True)
class ExportOptions:
    """`shards` None: so many that each has some 250,000 rows.

    `recipe` takes its captions in place of the current ones.
    """

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
    """A folder beside `target` to write into; on leaving, its manifest and card are written and it takes the
    target's place.

    Raises StoreError for a target that is something else than an earlier export.
    """
    target = target.resolve()  # an export behind a link stays behind it
    if target.exists() and not _is_export(target) and (not target.is_dir() or any(target.iterdir())):
        raise StoreError(f"{target} is there already and no export: name another folder")
    if os.path.ismount(target) or target == Path.cwd() or target in Path.cwd().parents:
        raise StoreError(
            f"{target} cannot be replaced at one moment, as it is in use itself: name a folder inside it"
        )
    if not target.parent.is_dir():
        raise StoreError(f"the folder {target.parent} does not exist: make it first, or export elsewhere")
    if target.exists() and (others := _others(target)):
        raise StoreError(
            f"{target} also holds what no export wrote ({', '.join(others[:3])}), which would be lost: move that, or name another folder"
        )
    _drop_leftovers(target)
    folder = target.parent / f".{target.name}.{os.getpid()}.unfinished"
    try:
        folder.mkdir()
    except OSError as error:
        raise StoreError(f"{target.parent} cannot be written: {error.strerror}") from None
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
    conn: sqlite3.Connection,
    export: Export,
    *,
    embeddings: Mapping[str, int] | None = None,
    on_step: OnStep = lambda what, done, total: None,
) -> dict[str, Any]:
    """Writes features/, every pin of enriched_features once, in an order that depends on the seed and the
    pins' ids alone.

    Within the caller's transaction, so that all is read as it was at one moment. Returns {"rows", "columns",
    "recipes": {recipe_id: captions}}.
    """
    options, embeddings = export.options, dict(embeddings or {})
    pins = conn.execute("SELECT count(*) FROM pins").fetchone()[0]
    schema, recipes = features_schema(embeddings), Counter[str]()
    with tempfile.TemporaryDirectory(dir=export.folder, prefix="scratch.") as scratch:
        rows = 0
        with Buckets(
            Path(scratch), options.seed, max(1, min(_files_at_once(), pins // ROWS_PER_BUCKET))
        ) as buckets:
            for table in pin_tables(conn, as_of=options.as_of):
                buckets.add("pins", table)
                rows += table.num_rows
                on_step("reading", rows, pins)
            for name, tables in evidence_tables(conn, recipe=options.recipe, embeddings=embeddings).items():
                for table in tables:
                    buckets.add(name, table)
                on_step("reading", rows, pins)
        if options.schema == "omnisearchsage":
            schema = pa.schema([f.with_name(OMNISEARCHSAGE.get(f.name, f.name)) for f in schema])

        def counted() -> Iterator[pa.Table]:
            for table in buckets.joined(embeddings):
                recipes.update(recipe for recipe in table["caption_recipe"].to_pylist() if recipe)
                yield table.rename_columns(schema.names)

        write_stream(
            export,
            "features/part",
            rows,
            schema,
            counted(),
            shards=options.shards or -(-rows // ROWS_PER_SHARD),
            group=ROWS_PER_GROUP,
            on_step=on_step,
        )
    columns = [
        {"name": f.name, "type": str(f.type).replace("element: ", "").replace("item: ", "")} for f in schema
    ]
    return {"rows": rows, "columns": columns, "recipes": dict(sorted(recipes.items()))}


def write_stream(
    export: Export,
    name: str,
    rows: int,
    schema: pa.Schema,
    tables: Iterable[pa.Table],
    *,
    shards: int,
    group: int,
    on_step: OnStep = lambda what, done, total: None,
) -> None:
    """Writes `rows` rows that come as Arrow tables into `shards` files name-00000, ... in the order in which
    they come; files and row groups of even sizes.
    """
    (export.folder / name).parent.mkdir(exist_ok=True)
    source, waiting, done = iter(tables), schema.empty_table(), 0
    with ThreadPoolExecutor(1) as thread:  # writes one group while the next one is put together
        for shard, size in enumerate(_even(rows, shards)):
            path = f"{name}-{shard:05}.{export.options.format}"
            with _writer(export.folder / path, schema) as write:
                written = thread.submit(lambda: None)
                for n in _even(size, -(-size // group)) if size else ():
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


def _files_at_once() -> int:
    """How many files may be open beside those that are."""
    import resource

    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return 800 if limit == resource.RLIM_INFINITY else min(800, max(1, limit // 2))


def _even(rows: int, parts: int) -> list[int]:
    """`rows` in parts that differ by one at most, none of them empty unless there are no rows."""
    parts = max(1, min(parts, rows))
    return [rows * (i + 1) // parts - rows * i // parts for i in range(parts)]


@contextmanager
def _writer(path: Path, schema: pa.Schema) -> Iterator[Callable[[pa.Table], None]]:
    """A function that writes a table as one row group of Parquet, or as JSON Lines."""
    if path.suffix == ".jsonl":
        with path.open("w", encoding="utf-8") as lines:
            # float: of float16
            yield lambda table: lines.writelines(
                json.dumps(row, ensure_ascii=False, default=float) + "\n" for row in table.to_pylist()
            )
    else:
        dictionary = [
            name
            for name in schema.names
            if name in ("kind", "caption_recipe", "category", "locale", "action", "date", "split")
        ]
        with pq.ParquetWriter(
            path, schema, compression="zstd", compression_level=1, use_dictionary=dictionary
        ) as parquet:
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
    manifest["card_sha256"] = _sha256(export.folder / "README.md")
    (export.folder / "manifest.json").write_text(
        json.dumps(manifest, ensure_ascii=False, indent=1) + "\n", encoding="utf-8"
    )
    for path in sorted(export.folder.rglob("*")):
        # on the disk before the folder gets its name: a power cut leaves the old one or the new one
        if path.is_file():
            with path.open("rb") as file:
                os.fsync(file.fileno())


def _card(manifest: Mapping[str, Any]) -> str:
    """The data card, with what `datasets.load_dataset` needs to find the files."""
    ending = "jsonl" if any(f["path"].endswith(".jsonl") for f in manifest["files"]) else "parquet"
    # `datasets` keeps what it loaded under the folder's name and this version: without one of its own,
    # another export of that name would be taken for this one.
    content = hashlib.sha256("".join(f["path"] + f["sha256"] for f in manifest["files"]).encode()).hexdigest()
    version = f"  version: 1.{int(content[:8], 16)}.{int(content[8:16], 16)}"
    configs = ["- config_name: features", version, f"  data_files: features/*.{ending}", "  default: true"]
    for name in ("pairs", "query_pairs"):
        splits = sorted(
            {
                Path(f["path"]).name.split("-")[0]
                for f in manifest["files"]
                if f["path"].startswith(f"{name}/")
            },
            reverse=True,
        )
        if splits:
            configs += [
                f"- config_name: {name}",
                version,
                "  data_files:",
                *(
                    line
                    for split in splits
                    for line in (f"  - split: {split}", f"    path: {name}/{split}-*.{ending}")
                ),
            ]
    columns = "\n".join(f"| {column['name']} | {column['type']} |" for column in manifest["columns"])
    as_of = ""
    if manifest["as_of"]:
        undated = (
            manifest.get("then", {}).get("undated") == "include" and manifest["then"]["saves_without_date"]
        )
        later = (
            f", but for {undated:,} saves without a date, which may be later"
            if undated
            else ": nothing later reaches them"
        )
        vectors = "and vectors " if manifest["embeddings"] else ""
        as_of = f"Board titles and queries are what was known on {manifest['as_of']}{later}. Native text {vectors}are of the day of the export.\n"
    recipes = "".join(
        f"- {n:,} captions of recipe {recipe} ({manifest['models'].get(recipe, 'unknown model')})\n"
        for recipe, n in manifest["recipes"].items()
    )
    builtin = (
        "The built-in checkpoint knows drawn pictures only.\n"
        if "builtin" in manifest["models"].values()
        else ""
    )
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
    """Compares an export with its manifest.

    Returns {"ok", "rows", "files", "problems": [sentences]}. Raises StoreError where there is none.
    """
    manifest = read_manifest(folder)
    if manifest is None:
        raise StoreError(f"{folder} is no export: it has no manifest.json of ours, or not a whole one")
    problems = []
    named = {f["path"] for f in manifest["files"]}
    if manifest["format"] != FORMAT:
        raise StoreError(
            f"{folder} was written by another version of captioner ({manifest['format']}): check it with that one"
        )
    for f in manifest["files"]:
        path = folder / f["path"]
        if not path.is_file():
            problems.append(f"{f['path']} is missing")
        elif path.stat().st_size != f["bytes"]:
            problems.append(f"{f['path']} has {path.stat().st_size:,} bytes, not {f['bytes']:,}")
        elif _sha256(path) != f["sha256"]:
            problems.append(f"{f['path']} has other content than was written (SHA-256)")
    problems += [f"{name} is not named in the manifest" for name in _others(folder)]
    if not (folder / "README.md").is_file() or _sha256(folder / "README.md") != manifest.get("card_sha256"):
        problems.append("README.md is missing or changed: datasets finds the files by it")
    if (rows := sum(f["rows"] for f in manifest["files"] if f["path"].startswith("features/"))) != manifest[
        "rows"
    ]:
        problems.append(
            f"manifest.json says {manifest['rows']:,} rows, and {rows:,} where it names the files"
        )
    return {"ok": not problems, "rows": manifest["rows"], "files": len(named), "problems": problems}


def read_manifest(folder: Path) -> dict[str, Any] | None:
    """The manifest of an export; None where there is none, or something else."""
    try:
        manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
        whole = manifest["format"].startswith(FORMAT.rpartition(" ")[0]) and isinstance(manifest["rows"], int)
        whole = whole and all(
            isinstance(f["path"], str) and isinstance(f["rows"], int) and f["bytes"] >= 0 and f["sha256"]
            for f in manifest["files"]
        )
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return None
    return dict(manifest) if whole else None


def _is_export(folder: Path) -> bool:
    return read_manifest(folder) is not None


def _others(folder: Path) -> list[str]:
    """Files below the folder of an export that its manifest does not name."""
    named = {f["path"] for f in (read_manifest(folder) or {"files": []})["files"]}
    return sorted(
        {str(path.relative_to(folder)) for path in folder.rglob("*") if not path.is_dir()}
        - named
        - {"manifest.json", "README.md"}
    )


def _exchange(a: Path, b: Path) -> bool:
    """Gives two folders each other's names at one moment; False where the system cannot (it is Linux that
    can).
    """
    import ctypes

    try:
        # AT_FDCWD, RENAME_EXCHANGE
        return int(ctypes.CDLL(None).renameat2(-100, os.fsencode(a), -100, os.fsencode(b), 2)) == 0
    except (OSError, AttributeError):
        return False


def _drop_leftovers(target: Path) -> None:
    """Deletes what processes left that were killed; puts back an export that was about to be replaced."""
    import psutil

    for name in os.listdir(target.parent):
        ours = re.fullmatch(re.escape(f".{target.name}.") + r"(\d+)\.(unfinished|replaced)", name)
        if ours and not psutil.pid_exists(int(ours[1])):
            path = target.parent / name
            if ours[2] == "replaced" and not target.exists():
                os.rename(path, target)
            else:
                shutil.rmtree(path, ignore_errors=True)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
