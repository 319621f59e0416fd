"""Pins with their picture and their texts, one after the other, for exports that go back to pictures."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from . import rules
from .connection import Connection


class DescribedPin(NamedTuple):
    """A pin that is not deleted: its picture, its own texts, and its caption with the recipe that made it.

    The recipe is rules.PERSON if a person wrote the caption. `truncated`: a model made the caption from what
    is there of an image that ends early.
    """

    pin_id: str
    image: str | None
    image_sha256: str | None
    title: str | None
    description: str | None
    caption: str | None
    caption_recipe: str | None
    truncated: bool

    @property
    def text(self) -> str | None:
        """What a trainer reads as the picture's text: the caption, else the description, else the title."""
        return self.caption or self.description or self.title


def described_pins(conn: Connection, recipe_id: str | None = None) -> Iterator[DescribedPin]:
    """All pins in the order in which they were added, with their current caption or that of `recipe_id`."""
    recipe = ":recipe" if recipe_id else rules.current_recipe()
    cursor = conn.execute(
        f"""
        SELECT p.pin_id, p.image, p.image_sha256, {rules.title()}, {rules.description()},
            CASE WHEN h.pin_id IS NULL THEN c.text ELSE h.text END,
            CASE WHEN h.pin_id IS NULL THEN c.recipe_id ELSE '{rules.PERSON}' END,
            h.pin_id IS NULL AND c.text IS NOT NULL
                AND p.image_sha256 IN (SELECT image_sha256 FROM truncated_images)
        FROM pins p LEFT JOIN captions_by_people h ON h.pin_id = p.pin_id AND :recipe IS NULL
        LEFT JOIN captions c ON c.pin_id = p.pin_id AND c.recipe_id = {recipe} AND {rules.is_valid()}
        WHERE p.deleted_at IS NULL ORDER BY p.rowid""",
        {"recipe": recipe_id},
    )
    for row in cursor:
        yield DescribedPin._make((*tuple(row)[:7], bool(row[7])))


def truncated_images(conn: Connection) -> list[str]:
    """The digests of images that end early and that were captioned from what is there."""
    return [row[0] for row in conn.execute("SELECT image_sha256 FROM truncated_images ORDER BY 1")]


def captions_of(conn: Connection, pin_ids: Iterable[str]) -> dict[str, set[str]]:
    """All captions that pins have or had, those of people too, by pin_id; pins without any are left out."""
    captions: dict[str, set[str]] = {}
    for pin_id, text in conn.execute(
        """SELECT pin_id, text FROM captions
        WHERE status = 'ok' AND pin_id IN (SELECT value FROM json_each(?1))
        UNION ALL
        SELECT pin_id, text FROM captions_by_people WHERE pin_id IN (SELECT value FROM json_each(?1))""",
        [json.dumps(list(pin_ids))],
    ):
        captions.setdefault(pin_id, set()).add(text)
    return captions
