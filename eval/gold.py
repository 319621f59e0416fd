"""Gold items: captions whose right answers are known, mixed into every sheet to see how well raters do."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

from ..sources.cells import RowError, identifier, text_of
from ..sources.rows import BadRow
from ..sources.tables import read_tables
from .questions import QUALITY, RELEVANCE
from .sample import Item, SampleError

FIELDS = ("pin_id", "caption", "relevance", "quality")
MAX_GOLD = 1000


def read_gold(conn: sqlite3.Connection, path: str | Path) -> list[Item]:
    """The gold items of a table pin_id, [caption], [relevance], [quality]. Without a caption of its own a pin
    keeps its current one.

    Raises SampleError, with the line named, for a row that cannot be used, SourceError for a file that cannot
    be read.
    """
    found: list[Item] = []
    for rows in read_tables([str(path)], FIELDS, None, ("pin_id", "relevance|quality")):
        if isinstance(rows, BadRow):
            raise SampleError(f"{rows.source}, line {rows.line}: {rows.reason}")
        for i, line in enumerate(rows.lines):
            row = {field: rows.columns[field][i] if field in rows.columns else None for field in FIELDS}
            item = _item(conn, row, f"{rows.source}, line {line}")
            if any((item.pin_id, item.caption) == (other.pin_id, other.caption) for other in found):
                raise SampleError(
                    f"{rows.source}, line {line}: pin {item.pin_id!r} is there before with the same caption"
                )
            found.append(item)
    if not found:
        raise SampleError(f"{path} holds no gold items")
    if len(found) > MAX_GOLD:
        raise SampleError(
            f"{path} holds {len(found):,} gold items: every rater gets them all, so {MAX_GOLD:,} at most"
        )
    return found


def _item(conn: sqlite3.Connection, row: dict[str, Any], place: str) -> Item:
    try:
        pin_id, caption = identifier(row["pin_id"]), (text_of("caption", row["caption"]) or "").strip()
    except RowError as error:
        raise SampleError(f"{place}: {error}") from None
    pin = conn.execute(
        "SELECT caption, caption_recipe, image, image_sha256 FROM enriched_features WHERE pin_id = ?",
        [pin_id],
    ).fetchone()
    if pin is None:
        raise SampleError(f"{place}: the store has no pin {pin_id!r}")
    if not caption and pin["caption"] is None:
        raise SampleError(f"{place}: pin {pin_id!r} has no caption yet, and the row gives none")
    right: dict[str, str | None] = {}
    for question in (RELEVANCE, QUALITY):
        said = str(row[question.name] or "").strip().lower()
        if said and said not in question.answers:
            raise SampleError(
                f"{place}: {question.name} is {said[:40]!r}; it takes {', '.join(question.answers)}"
            )
        right[f"gold_{question.name}"] = said or None
    if not any(right.values()):
        raise SampleError(f"{place}: neither relevance nor quality is given")
    recipe = None if caption else pin["caption_recipe"]
    return Item(
        0,
        pin_id,
        None,
        None,
        recipe,
        caption or pin["caption"],
        image=pin["image"],
        image_sha256=pin["image_sha256"],
        **right,
    )
