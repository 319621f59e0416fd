"""Recipes: everything that decides a caption besides the image."""

from __future__ import annotations

import functools
import hashlib
import json
import sqlite3
from dataclasses import dataclass
from typing import Any

from .connection import StoreError


@dataclass(frozen=True)
class Recipe:
    """Everything that decides a caption besides the image; `recipe_id` is the hash of the rest."""

    model: str
    revision: str | None
    weights_digest: str
    prompt: str
    decoding: dict[str, Any]
    preprocessing: dict[str, Any]
    dtype: str

    @functools.cached_property
    def recipe_id(self) -> str:

        return hashlib.sha256(json.dumps(self.row(), sort_keys=True).encode()).hexdigest()[:16]

    def row(self) -> dict[str, str | None]:
        as_json = {
            name: json.dumps(getattr(self, name), sort_keys=True) for name in ("decoding", "preprocessing")
        }
        return {
            name: getattr(self, name) for name in ("model", "revision", "weights_digest", "prompt", "dtype")
        } | as_json


def find_recipe(conn: sqlite3.Connection, name: str) -> str:
    """The id of a recipe by its id, the start of it, or its model where the store has one recipe of that
    model. Raises StoreError.
    """
    rows = conn.execute(
        "SELECT r.recipe_id, r.model, count(*) AS n FROM captions c JOIN recipes r USING (recipe_id) WHERE c.status = 'ok' GROUP BY 1 ORDER BY n DESC, 1"
    ).fetchall()
    fits = [row["recipe_id"] for row in rows if row["recipe_id"] == name] or [
        row["recipe_id"]
        for row in rows
        if (name and row["recipe_id"].startswith(name)) or row["model"] == name
    ]
    if len(fits) == 1:
        return str(fits[0])
    known = "; ".join(f"{row['recipe_id']} ({row['model']}, {row['n']:,} captions)" for row in rows)
    raise StoreError(
        f"{'several recipes are' if fits else 'no recipe is'} called {name!r}; the store's: {known or 'none yet'}"
    )


BUILTIN = "builtin"
