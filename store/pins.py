"""The table `pins`: writing pins, asking for them, and marking those that a source no longer has."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from .connection import Connection, now


def count_pins(conn: Connection) -> int:
    """The number of pins in the store, deleted ones included."""
    return int(conn.execute("SELECT count(*) FROM pins").fetchone()[0])


def has_pins(conn: Connection) -> bool:
    """Whether there is a pin that is not deleted."""
    return conn.execute("SELECT 1 FROM pins WHERE deleted_at IS NULL LIMIT 1").fetchone() is not None


def known_pins(conn: Connection) -> set[str]:
    """The ids of all pins, without deleted ones."""
    return {pin_id for (pin_id,) in conn.execute("SELECT pin_id FROM pins WHERE deleted_at IS NULL")}


def known_among(conn: Connection, pin_ids: Iterable[str]) -> set[str]:
    """Those of the ids that are ids of pins, without deleted ones."""
    rows = conn.execute(
        """SELECT pin_id FROM pins
        WHERE deleted_at IS NULL AND pin_id IN (SELECT value FROM json_each(?))""",
        [json.dumps(list(pin_ids))],
    )
    return {pin_id for (pin_id,) in rows}


def has_pin(conn: Connection, pin_id: str) -> bool:
    """Whether there is such a pin, deleted or not."""
    return conn.execute("SELECT 1 FROM pins WHERE pin_id = ?", [pin_id]).fetchone() is not None


def images_of_pins(conn: Connection) -> dict[str, str | None]:
    """Where the image of each pin is, by pin_id. Includes deleted pins."""
    return {row[0]: row[1] for row in conn.execute("SELECT pin_id, image FROM pins")}


def images_of(conn: Connection, pin_ids: Sequence[str]) -> dict[str, tuple[str | None, str | None]]:
    """{pin_id: (where its image is, image_sha256)} of some pins; those that are not there are left out."""
    found = {}
    for pin_id in pin_ids:
        query = "SELECT image, image_sha256 FROM pins WHERE pin_id = ? AND deleted_at IS NULL"
        if row := conn.execute(query, [pin_id]).fetchone():
            found[pin_id] = (row[0], row[1])
    return found


class StoredImage(NamedTuple):
    """Where the image of a pin is, its digest and its stamp, as in the table `pins`."""

    image: str
    image_sha256: str | None
    image_stamp: str | None


def stored_images(conn: Connection, pin_ids: Iterable[str]) -> dict[str, StoredImage]:
    """The images of those of the pins that are in the store, have one, and are not deleted."""
    rows = conn.execute(
        """SELECT pin_id, image, image_sha256, image_stamp FROM pins
        WHERE deleted_at IS NULL AND image IS NOT NULL AND pin_id IN (SELECT value FROM json_each(?))""",
        [json.dumps(list(pin_ids))],
    )
    return {row[0]: StoredImage(*row[1:]) for row in rows}


def has_images_elsewhere(conn: Connection, folder: str, prefix: str) -> bool:
    """Whether a pin that is not deleted has another image than FOLDER/NAME, where its id is PREFIX + NAME.

    `folder` ends with a slash. A pin without an image does not count.
    """
    row = conn.execute(
        """SELECT 1 FROM pins WHERE deleted_at IS NULL AND image IS NOT NULL AND NOT (
            substr(pin_id, 1, length(:prefix)) = :prefix
            AND image = :folder || substr(pin_id, length(:prefix) + 1)) LIMIT 1""",
        {"folder": folder, "prefix": prefix},
    ).fetchone()
    return row is not None


def count_created_after(conn: Connection, day: str) -> int:
    """How many pins were created after a day (2026-05-31) and are not deleted."""
    created_later = "deleted_at IS NULL AND substr(created_at, 1, 10) > ?"
    return int(conn.execute(f"SELECT count(*) FROM pins WHERE {created_later}", [day]).fetchone()[0])


def existing_pins(conn: Connection, day: str, rows_at_once: int = 100_000) -> Iterator[list[tuple[str, str]]]:
    """(pin_id, kind) of the pins that existed on a day (2026-05-31) and are not deleted, many at a time.

    A pin without a date has always existed.
    """
    existed = "deleted_at IS NULL AND (created_at IS NULL OR substr(created_at, 1, 10) <= ?)"
    cursor = conn.execute(f"SELECT pin_id, kind FROM pins WHERE {existed}", [day])
    while rows := cursor.fetchmany(rows_at_once):
        yield [(row[0], row[1]) for row in rows]


def upsert_pins(conn: Connection, columns: Sequence[str], pins: Iterable[Sequence[Any]]) -> None:
    """Adds pins, or updates `columns` of those that exist. Belongs into a transaction of the caller.

    `columns` has "pin_id"; `pins` gives a value for each column. A pin without a kind keeps the one that it
    has, or becomes a "pin". A pin without an image_sha256 keeps the one that it has, as long as image and
    image_stamp stay the same. A pin that was marked as deleted is no longer so.
    """
    conn.executemany(_upsert_statement(columns), pins)


def _upsert_statement(columns: Sequence[str]) -> str:
    values = {column: f"?{i}" for i, column in enumerate(columns, 1)}
    changes = {column: f"excluded.{column}" for column in columns if column != "pin_id"}
    if "kind" in columns:
        changes["kind"] = f"coalesce({values['kind']}, pins.kind)"
        values["kind"] = f"coalesce({values['kind']}, 'pin')"
    if "image_sha256" in columns:
        changes["image_sha256"] = """
            CASE WHEN excluded.image_sha256 IS NULL AND pins.image IS excluded.image
                AND pins.image_stamp IS excluded.image_stamp
            THEN pins.image_sha256 ELSE excluded.image_sha256 END"""
    changes["deleted_at"] = "NULL"
    assignments = ", ".join(f"{column} = {new}" for column, new in changes.items())
    return f"""
        INSERT INTO pins ({", ".join(columns)}) VALUES ({", ".join(values.values())})
        ON CONFLICT (pin_id) DO UPDATE SET {assignments}"""


class PinsSeen:
    """The ids that an ingest with --sync met in its sources, in a temporary table of the connection."""

    def __init__(self, conn: Connection) -> None:
        self._conn = conn
        conn.execute("DROP TABLE IF EXISTS temp.seen")
        conn.execute("CREATE TEMP TABLE seen (pin_id TEXT PRIMARY KEY) WITHOUT ROWID")

    def add(self, pin_ids: Iterable[str]) -> None:
        self._conn.executemany(
            "INSERT OR IGNORE INTO temp.seen VALUES (?)", [(pin_id,) for pin_id in pin_ids]
        )

    def close(self) -> None:
        self._conn.execute("DROP TABLE temp.seen")

    def mark_deleted(self, beginning: str, is_gone: Callable[[str, str], bool]) -> int:
        """Marks pins that were not seen as deleted, and returns how many.

        Those are looked at whose image has that `beginning`; `is_gone` decides by pin_id and image. Belongs
        into a transaction of the caller.
        """
        rows = self._conn.execute(
            """SELECT pin_id, image FROM pins WHERE deleted_at IS NULL
            AND substr(image, 1, length(?1)) = ?1 AND pin_id NOT IN (SELECT pin_id FROM temp.seen)""",
            [beginning],
        )
        gone = [(now(), pin_id) for pin_id, image in rows if is_gone(pin_id, image)]
        self._conn.executemany("UPDATE pins SET deleted_at = ? WHERE pin_id = ?", gone)
        return len(gone)

    def mark_others_deleted(self) -> int:
        """Marks all pins that were not seen as deleted, and returns how many that were.

        Belongs into a transaction of the caller.
        """
        marked = self._conn.execute(
            """UPDATE pins SET deleted_at = ?
            WHERE deleted_at IS NULL AND pin_id NOT IN (SELECT pin_id FROM temp.seen)""",
            [now()],
        )
        return marked.rowcount
