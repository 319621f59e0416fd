"""Small pictures for the pages, made once and kept in the store by the digest of the image."""

from __future__ import annotations

import itertools
import sqlite3
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime, timedelta

from ..images.thumbnails import Picture
from ..store.connection import transaction

SIDE = 360  # pixels of the longer side
MAX_BYTES = 40_000
BATCH = 100  # pictures committed together
AGAIN = timedelta(days=1)  # a picture that could not be had is not asked for again before

# For each (image, its digest if known): the digest of the bytes, None without any, and the picture or the
# reason why there is none.
Fetch = Callable[[Iterable[tuple[str, str | None]]], Iterator[tuple[str | None, Picture | str]]]

_WANTED = """
    SELECT p.pin_id, p.image, p.image_sha256, p.image_stamp FROM pins p
    WHERE p.deleted_at IS NULL AND p.image IS NOT NULL AND NOT EXISTS (SELECT 1 FROM thumbnails t WHERE t.image_sha256 = p.image_sha256)
        AND NOT EXISTS (SELECT 1 FROM temp.in_vain v WHERE v.pin_id = p.pin_id AND v.image IS p.image AND v.image_stamp IS p.image_stamp)
    ORDER BY NOT EXISTS (SELECT 1 FROM captions c WHERE c.pin_id = p.pin_id), p.rowid LIMIT :n"""


def make_thumbnails(
    store: sqlite3.Connection,
    index: sqlite3.Connection,
    n: int,
    fetch: Fetch,
    on_step: Callable[[int, int], None],
) -> int:
    """Makes at most `n` pictures that are missing, those of pins that were captioned or failed first, and
    returns how many it made.

    A pin whose image was never read gets the digest of its bytes, as in a run. What is committed stays,
    whenever this is stopped.
    """
    store.execute(
        "CREATE TEMP TABLE IF NOT EXISTS in_vain (pin_id TEXT PRIMARY KEY, image TEXT, image_stamp TEXT)"
    )
    recently = (datetime.now(UTC) - AGAIN).isoformat()
    with transaction(store):
        store.execute("DELETE FROM temp.in_vain")
        store.executemany(
            "INSERT INTO temp.in_vain VALUES (?, ?, ?)",
            map(
                tuple,
                index.execute(
                    "SELECT pin_id, image, image_stamp FROM no_picture WHERE tried_at > ?", [recently]
                ),
            ),
        )
    found = store.execute(_WANTED, {"n": n}).fetchall()
    # pins may share an image
    once = list({row["image_sha256"] or f"pin {row['pin_id']}": row for row in found}.values())
    made = done = 0
    shown = zip(once, fetch((row["image"], row["image_sha256"]) for row in once), strict=True)
    while batch := list(itertools.islice(shown, BATCH)):
        had = [
            (row, digest, picture)
            for row, (digest, picture) in batch
            if digest and isinstance(picture, Picture)
        ]
        with transaction(store):
            store.executemany(
                "INSERT OR IGNORE INTO thumbnails VALUES (?, ?, ?, ?)",
                [(digest, p.jpeg, p.width, p.height) for _, digest, p in had],
            )
            store.executemany(
                "UPDATE pins SET image_sha256 = ? WHERE pin_id = ? AND image IS ? AND image_stamp IS ? AND image_sha256 IS NULL",
                [(digest, row["pin_id"], row["image"], row["image_stamp"]) for row, digest, _ in had],
            )
        in_vain = [
            (row["pin_id"], row["image"], row["image_stamp"], reason, datetime.now(UTC).isoformat())
            for row, (_, reason) in batch
            if isinstance(reason, str)
        ]
        index.executemany("INSERT OR REPLACE INTO no_picture VALUES (?, ?, ?, ?, ?)", in_vain)
        made, done = made + len(had), done + len(batch)
        on_step(done, len(once))
    return made
