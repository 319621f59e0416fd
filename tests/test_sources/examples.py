"""Small tables of every format, and what is read of them."""

import gzip
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pincaption.sources.rows import Rows
from pincaption.sources.tables import read_tables

FIELDS = ("pin_id", "title", "image")
TWO_PINS = [{"pin_id": "1", "title": "mug"}, {"pin_id": "2", "title": "cup, blue"}]


def read(
    *paths: Path | str, **columns: str
) -> tuple[list[tuple[int, dict[str, Any]]], list[tuple[int | None, str]]]:
    """([(line, values)] of rows, [(line, reason)] of bad rows) of some tables. `columns` is --map."""
    rows: list[tuple[int, dict[str, Any]]] = []
    bad = []
    for part in read_tables([str(p) for p in paths], FIELDS, columns, ("pin_id",)):
        if isinstance(part, Rows):
            rows += [
                (line, {name: column[i] for name, column in part.columns.items()})
                for i, line in enumerate(part.lines)
            ]
        else:
            bad.append((part.line, part.reason))
    return rows, bad


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    name = path.name.lower().removesuffix(".gz")
    if name.endswith(".parquet"):
        pq.write_table(pa.Table.from_pylist(rows), path)
        return path
    if name.endswith((".csv", ".tsv")):
        tab = "\t" if name.endswith(".tsv") else ","
        lines = [tab.join(rows[0])] + [tab.join(f'"{cell}"' for cell in row.values()) for row in rows]
        text = "\n".join(lines) + "\n"
    elif name.endswith(".json"):
        text = json.dumps(rows, indent=2)
    else:
        text = "".join(json.dumps(row) + "\n" for row in rows)
    path.write_bytes(gzip.compress(text.encode()) if path.name.endswith(".gz") else text.encode())
    return path
