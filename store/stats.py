"""How much of a store can be found by text: coverage, counted."""

from __future__ import annotations

import sqlite3
from typing import Any


def coverage(conn: sqlite3.Connection) -> dict[str, Any]:
    """Counts over the pins that are not deleted.

    {"pins", "products", "title", "description", "native_text", "caption", "board_titles", "engaged_queries", "any_text",
    "rejected", "failed", "reasons": {"rejected": {reason: n}, "failed": {...}}, "stale", "waiting", "shared_images",
    "pins_sharing_images", "rejected_rows", "models"}. A pin counts as rejected or failed by its newest row, if it has no caption
    that holds; as stale if its captions are of an image that it no longer has; as waiting if it has no text and no row at all.
    """
    counts = dict(
        conn.execute(
            """WITH texts AS (
                SELECT p.pin_id, p.kind, p.image_sha256, p.title IS NOT NULL AND p.has_title AS title, p.description IS NOT NULL AND p.has_description AS description,
                    EXISTS (SELECT 1 FROM captions c WHERE c.pin_id = p.pin_id AND c.status = 'ok' AND c.image_sha256 = p.image_sha256) AS caption,
                    EXISTS (SELECT 1 FROM captions c WHERE c.pin_id = p.pin_id) AS tried,
                    EXISTS (SELECT 1 FROM board_titles b WHERE b.pin_id = p.pin_id AND b.titles <> '[]') AS boards,
                    EXISTS (SELECT 1 FROM engaged_queries q WHERE q.pin_id = p.pin_id AND q.queries <> '[]') AS queries
                FROM pins p WHERE p.deleted_at IS NULL)
            SELECT count(*) AS pins, total(kind = 'product') AS products, total(title) AS title, total(description) AS description, total(title OR description) AS native_text,
                total(caption) AS caption, total(boards) AS board_titles, total(queries) AS engaged_queries, total(title OR description OR caption OR boards OR queries) AS any_text,
                total(NOT title AND NOT description AND caption) AS only_caption, total(NOT description AND NOT tried) AS waiting
            FROM texts"""
        ).fetchone()
    )
    found: dict[str, Any] = {name: int(n) for name, n in counts.items()}
    found |= {"rejected": 0, "failed": 0, "stale": 0, "reasons": {"rejected": {}, "failed": {}}}
    for status, reason, n in conn.execute(
        """SELECT status, reason, count(*) FROM (
            SELECT c.status, c.reason, row_number() OVER (PARTITION BY c.pin_id ORDER BY c.updated_at DESC, c.recipe_id) AS newest,
                max(c.status = 'ok' AND c.image_sha256 IS p.image_sha256) OVER (PARTITION BY c.pin_id) AS holds
            FROM captions c JOIN pins p USING (pin_id) WHERE p.deleted_at IS NULL)
        WHERE newest = 1 AND NOT holds GROUP BY status, reason ORDER BY 3 DESC, 2"""
    ):
        if status == "ok":
            found["stale"] += n
        else:
            found[status] += n
            found["reasons"][status][reason] = n
    found["shared_images"], found["pins_sharing_images"] = (
        int(n)
        for n in conn.execute(
            """SELECT count(*), total(n) FROM (SELECT count(*) AS n FROM pins WHERE deleted_at IS NULL AND image IS NOT NULL
            GROUP BY coalesce(image_sha256, image) HAVING count(*) > 1)"""
        ).fetchone()
    )
    found["rejected_rows"] = conn.execute("SELECT count(*) FROM rejected_rows").fetchone()[0]
    found["models"] = {
        row["recipe_id"]: {"model": row["model"], "dtype": row["dtype"], "prompt": row["prompt"], "captions": row["n"]}
        for row in conn.execute(
            "SELECT r.recipe_id, r.model, r.dtype, r.prompt, count(*) AS n FROM recipes r JOIN captions c USING (recipe_id) WHERE c.status = 'ok' GROUP BY r.recipe_id ORDER BY n DESC"
        )
    }
    return found
