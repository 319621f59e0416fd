"""Rows into several files of even sizes, as Parquet or JSON Lines."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import pyarrow as pa
import pyarrow.parquet as pq

from ..common.terminal import OnStep, no_step
from .manifest import ExportFile, file_sha256

Format = Literal["parquet", "jsonl"]
# Columns with few different values. The others would only cost time as dictionaries.
_AS_DICTIONARY = {"kind", "caption_recipe", "category", "locale", "action", "date", "split"}


def write_shards(
    folder: Path,
    name: str,
    rows: int,
    schema: pa.Schema,
    tables: Iterable[pa.Table],
    *,
    format: Format,
    shards: int,
    group_rows: int,
    on_step: OnStep = no_step,
) -> list[ExportFile]:
    """Writes `tables` with `rows` rows in all to {name}-00000.parquet, ... in `folder`, in the given order.

    There are `shards` files, or one for each row if there are fewer rows. The sizes of the files differ by
    one row at most, and so do the sizes of the row groups within a file, of at most `group_rows` rows.
    """
    (folder / name).parent.mkdir(exist_ok=True)
    files: list[ExportFile] = []
    source, waiting, done = iter(tables), schema.empty_table(), 0
    with ThreadPoolExecutor(1) as thread:  # writes one group while the next one is put together
        for shard, size in enumerate(_even_parts(rows, shards)):
            path = f"{name}-{shard:05}.{format}"
            with _writer(folder / path, schema) as write:
                written = thread.submit(lambda: None)
                for n in _even_parts(size, -(-size // group_rows)) if size else ():
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
            complete = folder / path
            files.append(
                {
                    "path": path,
                    "rows": size,
                    "bytes": complete.stat().st_size,
                    "sha256": file_sha256(complete),
                }
            )
    return files


def _even_parts(rows: int, parts: int) -> list[int]:
    """Sizes of `parts` parts that differ by one at most; with fewer rows than parts, each part is one row."""
    parts = max(1, min(parts, rows))
    return [rows * (i + 1) // parts - rows * i // parts for i in range(parts)]


@contextmanager
def _writer(path: Path, schema: pa.Schema) -> Iterator[Callable[[pa.Table], None]]:
    """A function that writes a table as one row group of Parquet, or as JSON Lines."""
    if path.suffix == ".jsonl":
        with path.open("w", encoding="utf-8") as lines:
            # `default`: json knows no float16
            yield lambda table: lines.writelines(
                json.dumps(row, ensure_ascii=False, default=float) + "\n" for row in table.to_pylist()
            )
    else:
        dictionary = [name for name in schema.names if name in _AS_DICTIONARY]
        with pq.ParquetWriter(
            path, schema, compression="zstd", compression_level=1, use_dictionary=dictionary
        ) as parquet:
            yield lambda table: parquet.write_table(table, row_group_size=max(1, table.num_rows))
