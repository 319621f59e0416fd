"""A small store with captioned pins, for the tests of `captioner eval`."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from pincaption.store import open_store, transaction

HOSTILE = [
    "a red mug on a table",
    "<b>bold</b><script>alert(1)</script>",
    "</script><img src=x onerror=alert(1)>",
    "<!-- \"quotes\" & 'apostrophes' &amp; ]]>",
    "=cmd()|' /C calc'!A0",
    "+1 -1 @x",
    "a;=1+1;b",
    "كوب أحمر على طاولة",
    "\u202ereversed\u202c and \u2066isolated\u2069",
    "two\nlines\u2028and a third",
    'comma, "quote" and\ttab',
    "絵文字 🍵👩‍👩‍👧 カップ",
]


def make_shop(
    path: Path,
    captions: Sequence[str],
    *,
    others: Sequence[str] = (),
    categories: Sequence[str | None] = ("mugs",),
    pictures: Path | None = None,
) -> None:
    """Makes a store with pins pin-0, pin-1, ... that recipe-a captioned with `captions`.

    `others` are captions by the older recipe-b. The pictures have one colour each; without `pictures` their
    files do not exist.
    """
    if pictures:
        pictures.mkdir(parents=True, exist_ok=True)
    conn = open_store(path, create=True)
    with transaction(conn):
        for recipe in ("recipe-a", "recipe-b"):
            conn.execute(
                "INSERT OR IGNORE INTO recipes VALUES (?, ?, NULL, '', '', '{}', '{}', 'float32')",
                [recipe, f"model of {recipe}"],
            )
        for i, caption in enumerate(captions):
            image, digest = Path(f"/nowhere/{i}.jpg"), f"digest {i}"
            if pictures:
                image = pictures / f"{i}.png"
                Image.new("RGB", (40 + i, 30), (7 * i % 256, 80, 120)).save(image)
                digest = hashlib.sha256(image.read_bytes()).hexdigest()
            conn.execute(
                "INSERT INTO pins (pin_id, category, image, image_sha256) VALUES (?, ?, ?, ?)",
                [f"pin-{i}", categories[i % len(categories)], str(image), digest],
            )
            rows = [("recipe-a", caption, "2026-02-01")] + (
                [("recipe-b", others[i], "2026-01-01")] if others else []
            )
            for recipe, text, moment in rows:
                conn.execute(
                    "INSERT INTO captions (pin_id, recipe_id, status, text, image_sha256, updated_at) "
                    "VALUES (?, ?, 'ok', ?, ?, ?)",
                    [f"pin-{i}", recipe, text, digest, moment],
                )
    conn.close()
