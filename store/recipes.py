"""Recipes, and what earlier runs leave for the next one: revision, dtype, digests of weights, captions."""

from __future__ import annotations

import functools
import hashlib
import json
import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..common.terminal import plural
from .connection import StoreError, transaction

BUILTIN = "builtin"  # the name of the checkpoint that comes with the package


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
        """The columns of the table `recipes` without `recipe_id`; `decoding` and `preprocessing` as JSON."""
        return {
            "model": self.model,
            "revision": self.revision,
            "weights_digest": self.weights_digest,
            "prompt": self.prompt,
            "dtype": self.dtype,
            "decoding": json.dumps(self.decoding, sort_keys=True),
            "preprocessing": json.dumps(self.preprocessing, sort_keys=True),
        }


def find_recipe(conn: sqlite3.Connection, name: str) -> str:
    """The id of the recipe that `name` means: an id, the start of an id, or the name of a model.

    Only recipes that have captions count. Raises StoreError if no recipe or several recipes fit.
    """
    recipes = conn.execute(
        """
        SELECT r.recipe_id, r.model, count(*) AS n FROM captions c JOIN recipes r USING (recipe_id)
        WHERE c.status = 'ok' GROUP BY 1 ORDER BY n DESC, 1"""
    ).fetchall()
    fits = [row["recipe_id"] for row in recipes if row["recipe_id"] == name] or [
        row["recipe_id"]
        for row in recipes
        if (name and row["recipe_id"].startswith(name)) or row["model"] == name
    ]
    if len(fits) == 1:
        return str(fits[0])
    known = "; ".join(
        f"{row['recipe_id']} ({row['model']}, {plural(row['n'], 'caption')})" for row in recipes
    )
    raise StoreError(
        f"{'several recipes are' if fits else 'no recipe is'} called {name!r};"
        f" the store's: {known or 'none yet'}"
    )


def models_of_recipes(conn: sqlite3.Connection) -> dict[str, str]:
    """The model of each recipe: {recipe_id: model}."""
    return {row["recipe_id"]: row["model"] for row in conn.execute("SELECT recipe_id, model FROM recipes")}


def last_revision(conn: sqlite3.Connection, model: str) -> str | None:
    """The revision of `model` that the newest run with captions of that model used, or None."""
    row = conn.execute(
        """
        SELECT r.revision FROM captions c CROSS JOIN recipes r USING (recipe_id)
        WHERE r.model = ? AND r.revision IS NOT NULL AND c.run_id IS NOT NULL
        ORDER BY c.run_id DESC LIMIT 1""",
        [model],
    ).fetchone()
    return row["revision"] if row else None


def last_dtype(conn: sqlite3.Connection, model: str) -> str | None:
    """The dtype that the newest run of `model` used, or None. `model` is as in the arguments of that run."""
    row = conn.execute(
        """
        SELECT arguments ->> 'dtype' AS dtype FROM runs
        WHERE command = 'run' AND arguments ->> 'model' = ? ORDER BY run_id DESC LIMIT 1""",
        [model],
    ).fetchone()
    return row["dtype"] if row else None


def file_digests(conn: sqlite3.Connection) -> dict[str, tuple[str, str]]:
    """What is known of large files: {path: (size and modification time, SHA-256)}."""
    return {
        row["path"]: (row["stamp"], row["sha256"])
        for row in conn.execute("SELECT path, stamp, sha256 FROM file_digests")
    }


def keep_file_digests(conn: sqlite3.Connection, digests: Mapping[str, tuple[str, str]]) -> None:
    """Writes what is new or different in `digests`, which is as `file_digests` returns it."""
    known = file_digests(conn)
    changed = [(path, *digest) for path, digest in digests.items() if known.get(path) != digest]
    if changed:
        with transaction(conn):
            conn.executemany("INSERT OR REPLACE INTO file_digests VALUES (?, ?, ?)", changed)


def texts_of_run(conn: sqlite3.Connection, run_id: int) -> list[tuple[str, int]]:
    """The different captions that a run wrote, each with its number of pins, the most frequent first."""
    rows = conn.execute(
        """
        SELECT text, count(*) AS n FROM captions
        WHERE run_id = ? AND status = 'ok' GROUP BY text ORDER BY n DESC, text""",
        [run_id],
    )
    return [(row["text"], row["n"]) for row in rows]
