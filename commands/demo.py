"""`captioner demo`: the whole way on drawn pins, offline, with the built-in checkpoint; a second call does
nothing twice.
"""

from __future__ import annotations

import functools
import os
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

from ..browse.gallery import is_current, write_gallery
from ..captioner.run import Options, run, warnings
from ..drawn.world import make_world
from ..eval.sample import SampleOptions, draw, record
from ..eval.sheet import MAX_BYTES, SIDE, write_sheets
from ..filters.boards import aggregate_boards
from ..filters.queries import aggregate_queries
from ..images.thumbnails import pictures
from ..ingest.pins import ingest_pins
from ..store import open_store
from ..store.recipes import BUILTIN
from ..store.stats import coverage

TITLE = "What captioner filled in"


def demo(
    folder: Path,
    say: Callable[[str], None] = lambda text: None,
    on_progress: Callable[[int, int, int], None] = lambda done, total, batch: None,
    *,
    pins: int = 300,
    options: Options | None = None,
) -> dict[str, Any]:
    """Draws pins into `folder`, ingests them into demo.db, captions those without a description, gathers
    titles and queries, writes gallery.html and sheets/.

    What is done already is left as it is, so that a call that was interrupted is gone on with by the next
    one. `say` gets lines for people, `on_progress` (done, total, batch size) after each batch. Returns
    {"folder", "store", "gallery", "sheets": paths, "drew": bool, "ingested": rows, "run": counts, "coverage":
    counts, "stopped": bool, "warnings": sentences, "examples": [(pin_id, caption)]}. Raises what its parts
    raise: CheckpointError, StoreError, SourceError, FileExistsError for a folder with somebody else's images.
    """
    folder = Path(folder)
    store, gallery, sheets = folder / "demo.db", folder / "gallery.html", folder / "sheets"
    drew = make_world(folder, pins)
    if drew:
        say(f"drew {pins} pins, boards, saves and a query log into {folder}")
    with closing(open_store(store, create=True)) as conn:
        table = folder / "pins.parquet"
        ingested = 0 if _has_all(conn, table) else ingest_pins(conn, [str(table)])["pins"]
        if ingested:
            say(f"ingested {ingested} pins into {store}")
        result = run(conn, options or Options(model=BUILTIN), say=say, on_batch=on_progress)
        aggregated = {row["name"] for row in conn.execute("SELECT name FROM aggregates")}
        if "boards" not in aggregated:
            counts = aggregate_boards(
                conn, boards=[str(folder / "boards.parquet")], saves=[str(folder / "saves")]
            )
            say(
                f"{counts['rows_read']:,} boards and saves came to {counts['titles']:,} board titles of {counts['rows_written']:,} pins"
            )
        if "queries" not in aggregated:
            counts = aggregate_queries(conn, log=[str(folder / "log")])
            say(
                f"{counts['rows_read']:,} rows of the query log came to {counts['queries']:,} queries of {counts['rows_written']:,} pins"
            )
        covered = coverage(conn)
        if not sheets.exists() and covered["caption"]:
            sample = draw(conn, SampleOptions(n=40, raters=2, stratify="kind"))
            record(conn, sample)
            write_sheets(sample, sheets, functools.partial(pictures, side=SIDE, max_bytes=MAX_BYTES))
            say(f"wrote sheets for two people to judge 40 captions to {sheets}")
        if not is_current(conn, gallery):
            shown = write_gallery(conn, gallery, title=TITLE)
            say(f"wrote {shown} pictures with their captions to {gallery}")
        return {
            "folder": str(folder), "store": str(store), "gallery": str(gallery), "sheets": str(sheets), "drew": drew, "ingested": ingested, "run": result.counts(),
            "coverage": covered, "stopped": result.stopped, "warnings": warnings(result), "examples": result.examples,
        }  # fmt: skip


def _has_all(conn: sqlite3.Connection, table: Path) -> bool:
    """Whether the store has every pin of `table`, with the image where it is now (a folder may have been
    moved).
    """
    import pyarrow.parquet as pq

    rows = pq.read_table(table, columns=["pin_id", "image"]).to_pylist()
    known = dict(conn.execute("SELECT pin_id, image FROM pins"))
    base = table.absolute().parent
    return all(known.get(row["pin_id"]) == os.path.normpath(base / row["image"]) for row in rows)
