"""Captions that people wrote: the table `captions_by_people`. They come before any model's caption."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import NamedTuple, TypedDict

from . import rules
from .connection import Connection, now


class AuthoredCaption(TypedDict):
    """A pin's current caption, and who wrote it."""

    text: str
    by: str  # "person", or the model
    recipe: str  # "person", or a recipe_id
    written_at: str
    instead_of: str | None  # the model's caption in whose place a person's one counts
    image_changed: bool  # the pin may have another image than when the person wrote


class Written(NamedTuple):
    """What `Corrections.write` did, in numbers of pins."""

    new: int  # had no caption by a person
    changed: int  # had another one
    unchanged: int  # had this one


class Corrections:
    """Captions by people on their way into the store, in a temporary table: they may be many.

    Nothing is in the store before `write`. An object that is not needed any more must be closed.
    """

    def __init__(self, conn: Connection) -> None:
        self._conn = conn
        conn.execute("DROP TABLE IF EXISTS temp.corrections")
        conn.execute("CREATE TEMP TABLE corrections (pin_id TEXT PRIMARY KEY, text TEXT) WITHOUT ROWID")

    def add(self, rows: Iterable[tuple[str, str]]) -> list[int]:
        """Takes in (pin_id, caption), and returns the places of those that contradict an earlier one."""
        contradicting = []
        for i, (pin_id, text) in enumerate(rows):
            added = self._conn.execute("INSERT OR IGNORE INTO temp.corrections VALUES (?, ?)", [pin_id, text])
            if not added.rowcount:
                query = "SELECT text FROM temp.corrections WHERE pin_id = ?"
                if self._conn.execute(query, [pin_id]).fetchone()[0] != text:
                    contradicting.append(i)
        return contradicting

    def write(self, run_id: int) -> Written:
        """Makes all of them the captions of their pins. Belongs into a transaction of the caller."""
        old = "SELECT h.text FROM captions_by_people h WHERE h.pin_id = k.pin_id"
        new, changed, unchanged = self._conn.execute(
            f"""SELECT coalesce(sum(old IS NULL), 0), coalesce(sum(old <> text), 0),
                coalesce(sum(old = text), 0)
            FROM (SELECT k.text, ({old}) AS old FROM temp.corrections k)"""
        ).fetchone()
        self._conn.execute(
            """INSERT INTO captions_by_people (pin_id, text, image_sha256, run_id, updated_at)
            SELECT k.pin_id, k.text, p.image_sha256, ?, ?
            FROM temp.corrections k JOIN pins p ON p.pin_id = k.pin_id WHERE true
            ON CONFLICT (pin_id) DO UPDATE SET text = excluded.text, image_sha256 = excluded.image_sha256,
                run_id = excluded.run_id, updated_at = excluded.updated_at""",
            [run_id, now()],
        )
        return Written(new, changed, unchanged)

    def close(self) -> None:
        self._conn.execute("DROP TABLE temp.corrections")


def not_captioned_by_people(conn: Connection, pin_ids: Sequence[str]) -> list[str]:
    """Those of the pins whose caption no person wrote."""
    known = {row[0] for row in conn.execute(*_of_pins("SELECT pin_id FROM captions_by_people", pin_ids))}
    return [pin_id for pin_id in pin_ids if pin_id not in known]


def remove_captions(conn: Connection, pin_ids: Sequence[str]) -> int:
    """Deletes the captions that people wrote of these pins.

    Returns how many of the pins have a model's caption now. Belongs into a transaction of the caller.
    """
    conn.execute(*_of_pins("DELETE FROM captions_by_people", pin_ids))
    captioned = "SELECT count(*) FROM enriched_features WHERE caption IS NOT NULL"
    sql, parameters = _of_pins(captioned, pin_ids, " AND")
    return int(conn.execute(sql, parameters).fetchone()[0])


def caption_with_author(conn: Connection, pin_id: str) -> AuthoredCaption | None:
    """The current caption of a pin that is not deleted, and who wrote it; None if it has none."""
    row = conn.execute(
        f"""
        SELECT h.text, c.text, r.model, c.recipe_id, h.updated_at, c.updated_at, {rules.image_changed()}
        FROM pins p LEFT JOIN captions_by_people h ON h.pin_id = p.pin_id
        LEFT JOIN captions c ON c.pin_id = p.pin_id AND c.recipe_id = {rules.current_recipe()}
        LEFT JOIN recipes r ON r.recipe_id = c.recipe_id
        WHERE p.pin_id = ? AND p.deleted_at IS NULL""",
        [pin_id],
    ).fetchone()
    if row is None or (row[0] is None and row[1] is None):
        return None
    by_person, by_model, model, recipe_id, written_at, captioned_at, image_changed = row
    if by_person is None:
        return AuthoredCaption(
            text=by_model,
            by=model,
            recipe=recipe_id,
            written_at=captioned_at,
            instead_of=None,
            image_changed=False,
        )
    return AuthoredCaption(
        text=by_person,
        by=rules.PERSON,
        recipe=rules.PERSON,
        written_at=written_at,
        instead_of=by_model,
        image_changed=bool(image_changed),
    )


def _of_pins(sql: str, pin_ids: Sequence[str], where: str = " WHERE") -> tuple[str, list[str]]:
    return f"{sql}{where} pin_id IN (SELECT value FROM json_each(?))", [json.dumps(list(pin_ids))]
