"""Gold items: captions with known right answers.

They are mixed into every sheet to see how well raters do.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..sources.cells import RowError, identifier, text_of
from ..sources.rows import BadRow
from ..sources.tables import read_tables
from ..store import Connection, rules
from .items import Item, SampleError
from .questions import QUALITY, RELEVANCE
from .stored import current_caption

FIELDS = ("pin_id", "caption", "relevance", "quality")
MAX_GOLD = 1000


def read_gold(conn: Connection, path: str | Path) -> list[Item]:
    """The gold items of a table pin_id, [caption], [relevance], [quality].

    A row without a caption means the pin's current caption. Raises SampleError for a row that cannot be used,
    with the line named, and SourceError for a file that cannot be read.
    """
    items: list[Item] = []
    for rows in read_tables([str(path)], FIELDS, None, ("pin_id", "relevance|quality")):
        if isinstance(rows, BadRow):
            raise SampleError(f"{rows.source}, line {rows.line}: {rows.reason}")
        for i, line in enumerate(rows.lines):
            row = {field: rows.columns[field][i] if field in rows.columns else None for field in FIELDS}
            item = _item(conn, row, f"{rows.source}, line {line}")
            if any((item.pin_id, item.caption) == (other.pin_id, other.caption) for other in items):
                raise SampleError(
                    f"{rows.source}, line {line}: pin {item.pin_id!r} is there before with the same caption"
                )
            items.append(item)
    if not items:
        raise SampleError(f"{path} holds no gold items")
    if len(items) > MAX_GOLD:
        raise SampleError(
            f"{path} holds {len(items):,} gold items: every rater gets them all, so {MAX_GOLD:,} at most"
        )
    return items


def _item(conn: Connection, row: dict[str, Any], place: str) -> Item:
    try:
        pin_id, caption = identifier(row["pin_id"]), (text_of("caption", row["caption"]) or "").strip()
    except RowError as error:
        raise SampleError(f"{place}: {error}") from None
    pin = current_caption(conn, pin_id)
    if pin is None:
        raise SampleError(f"{place}: the store has no pin {pin_id!r}")
    shown = caption or pin["caption"]
    if shown is None:
        raise SampleError(f"{place}: pin {pin_id!r} has no caption yet, and the row gives none")
    right: dict[str, str | None] = {}
    for question in (RELEVANCE, QUALITY):
        answer = str(row[question.name] or "").strip().lower()
        if answer and answer not in question.answers:
            raise SampleError(
                f"{place}: {question.name} is {answer[:40]!r}; it takes {', '.join(question.answers)}"
            )
        right[question.name] = answer or None
    if not any(right.values()):
        raise SampleError(f"{place}: neither relevance nor quality is given")
    return Item(
        item=0,  # numbered when the sample is drawn
        pin_id=pin_id,
        stratum=None,
        weight=None,
        recipe_id=None if caption or pin["caption_recipe"] == rules.PERSON else pin["caption_recipe"],
        caption=shown,
        image=pin["image"],
        image_sha256=pin["image_sha256"],
        gold_relevance=right["relevance"],
        gold_quality=right["quality"],
    )
