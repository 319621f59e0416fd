"""Which pins still need a caption, who is working on them, and what came out.

Several processes, also on several hosts, may run on one store. Each claims a handful of pins at a time; a
claim names host, process id and process start time, so that the claims of a process that was killed are void
at once. Captions, the images' digests and the end of the claims are committed together: after a crash a pin
is either done or free.
"""

from __future__ import annotations

import functools
import os
import socket
import sqlite3
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

from .connection import now, transaction
from .recipes import Recipe
from .work import Caption, Pin

Select = Literal["missing-description", "missing-text", "all"]
LEASE = timedelta(minutes=30)  # how long a claim of another host counts without a sign of life
_WANTED: dict[str, str] = {
    "missing-description": "(p.description IS NULL OR NOT p.has_description)",
    "missing-text": "(p.description IS NULL OR NOT p.has_description) AND (p.title IS NULL OR NOT p.has_title)",
    "all": "1",
}


class Queue:
    """The pins of one store that one run is to caption.

    `recipe` is the run's; a pin with a prompt of its own gets the same recipe with that prompt. A pin is done
    once it has a caption of its recipe for the image that it has now, or has failed (`retry_failed` takes
    failures up once more).
    """

    def __init__(
        self,
        conn: sqlite3.Connection,
        recipe: Recipe,
        select: Select = "missing-description",
        *,
        retry_failed: bool = False,
    ):
        self.conn, self.recipe = conn, recipe
        self.since = now()
        # prompt, image and its stamp of the pins in hand, by pin_id
        self._claimed: dict[str, tuple[str, str | None, str | None]] = {}
        self._recipe_of = functools.lru_cache(100_000)(lambda prompt: replace(recipe, prompt=prompt))
        own = f"recipe_{recipe.recipe_id}"  # an SQL function for pins with a prompt of their own
        conn.create_function(own, 1, lambda prompt: self._recipe_of(prompt).recipe_id, deterministic=True)
        self._recipe = f"CASE WHEN coalesce(p.prompt, '') = '' THEN :recipe_id ELSE {own}(p.prompt) END"
        self._parameters = {
            "recipe_id": recipe.recipe_id,
            "prompt": recipe.prompt,
            "since": self.since,
            "host": _host(),
            **_this_process(),
        }
        # A failure counts as done, except for --retry-failed, where it does once it was tried again in this
        # run.
        failed = "(c.status = 'failed' AND c.updated_at >= :since)" if retry_failed else "c.status = 'failed'"
        self._open = f"""
            FROM pins p WHERE p.deleted_at IS NULL AND {_WANTED[select]}
            AND NOT EXISTS (SELECT 1 FROM captions c WHERE c.pin_id = p.pin_id AND c.recipe_id = {self._recipe}
                AND ({failed} OR (c.status <> 'failed' AND c.image_sha256 = p.image_sha256)))"""
        self._after = 0  # rowid up to which pins were looked at

    def count(self) -> int:
        """Number of pins that are still to be captioned, those included that somebody is working on."""
        return int(self.conn.execute(f"SELECT count(*) {self._open}", self._parameters).fetchone()[0])

    def claim(self, n: int) -> list[Pin]:
        """Takes up to `n` free pins; an empty list means that none is left that nobody works on."""
        for start in dict.fromkeys((self._after, 0)):
            # go on; at the end look once more for what others gave back
            with transaction(self.conn):
                if start == 0:
                    self._drop_void_claims()
                rows = self.conn.execute(
                    f"""SELECT p.rowid AS place, p.pin_id, p.image, p.image_sha256, p.image_stamp, coalesce(nullif(p.prompt, ''), :prompt) AS prompt,
                        {self._recipe} AS recipe_id {self._open} AND p.rowid > :after
                    AND NOT EXISTS (SELECT 1 FROM claims k WHERE k.pin_id = p.pin_id AND k.recipe_id = {self._recipe})
                    ORDER BY p.rowid LIMIT :n""",
                    self._parameters | {"after": start, "n": n},
                ).fetchall()
                claims = [
                    self._parameters
                    | {"pin_id": row["pin_id"], "recipe_id": row["recipe_id"], "until": _lease()}
                    for row in rows
                ]
                self.conn.executemany(
                    "INSERT INTO claims VALUES (:pin_id, :recipe_id, :host, :process_id, :process_started, :until)",
                    claims,
                )
            if rows:
                self._after = rows[-1]["place"]
                self._claimed |= {
                    row["pin_id"]: (row["prompt"], row["image"], row["image_stamp"]) for row in rows
                }
                return [
                    Pin(row["pin_id"], row["image"], row["prompt"], row["recipe_id"], row["image_sha256"])
                    for row in rows
                ]
        return []

    def known(self, images: Sequence[tuple[str, str]]) -> dict[tuple[str, str], Caption]:
        """Captions that exist for (image_sha256, recipe_id), whichever pin they were made for."""
        found = {}
        for image_sha256, recipe_id in images:
            row = self.conn.execute(
                "SELECT * FROM captions WHERE image_sha256 = ? AND recipe_id = ? AND status <> 'failed' LIMIT 1",
                [image_sha256, recipe_id],
            ).fetchone()
            if row:
                found[image_sha256, recipe_id] = Caption(
                    row["pin_id"],
                    recipe_id,
                    row["status"],
                    row["text"],
                    row["reason"],
                    image_sha256,
                    row["score"],
                )
        return found

    def commit(self, captions: Sequence[Caption], run_id: int | None = None) -> None:
        """Writes captions, the digests of their images and the end of their claims, all or nothing.

        What was made of an image that the pin has lost since it was claimed is dropped; such a pin is free
        again.
        """
        moment = now()
        with transaction(self.conn):
            valid = [c for c in captions if self._has_its_image(c.pin_id)]
            prompts = {self.recipe.prompt} | {
                self._claimed[c.pin_id][0] for c in valid if c.pin_id in self._claimed
            }
            self.conn.executemany(
                "INSERT OR IGNORE INTO recipes VALUES (:recipe_id, :model, :revision, :weights_digest, :prompt, :decoding, :preprocessing, :dtype)",
                [
                    r.row() | {"recipe_id": r.recipe_id}
                    for r in map(self._recipe_of, prompts)
                    if r.recipe_id in {c.recipe_id for c in valid}
                ],
            )
            self.conn.executemany(
                "UPDATE pins SET image_sha256 = ?1 WHERE pin_id = ?2 AND image_sha256 IS NOT ?1",
                [(c.image_sha256, c.pin_id) for c in valid if c.image_sha256],
            )
            self.conn.executemany(
                """INSERT INTO captions (pin_id, recipe_id, status, text, reason, score, image_sha256, run_id, updated_at)
                VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (pin_id, recipe_id) DO UPDATE SET status = excluded.status, text = excluded.text,
                reason = excluded.reason, score = excluded.score, image_sha256 = excluded.image_sha256, run_id = excluded.run_id,
                updated_at = excluded.updated_at, attempts = captions.attempts + 1""",
                [
                    (
                        c.pin_id,
                        c.recipe_id,
                        c.status,
                        c.text,
                        c.reason,
                        c.score,
                        c.image_sha256,
                        run_id,
                        moment,
                    )
                    for c in valid
                ],
            )
            self.conn.executemany(
                "DELETE FROM claims WHERE pin_id = ? AND recipe_id = ?",
                [(c.pin_id, c.recipe_id) for c in captions],
            )
            self.conn.execute(
                f"UPDATE claims SET leased_until = :until WHERE {_MINE}",
                self._parameters | {"until": _lease()},
            )
        for caption in captions:
            self._claimed.pop(caption.pin_id, None)

    def _has_its_image(self, pin_id: str) -> bool:
        if pin_id not in self._claimed:
            return True
        row = self.conn.execute("SELECT image, image_stamp FROM pins WHERE pin_id = ?", [pin_id]).fetchone()
        return row is not None and tuple(row) == self._claimed[pin_id][1:]

    def release(self) -> None:
        """Gives back every claim of this process."""
        with transaction(self.conn):
            self.conn.execute(f"DELETE FROM claims WHERE {_MINE}", self._parameters)

    def _drop_void_claims(self) -> None:
        owners = self.conn.execute(
            "SELECT host, process_id, process_started, max(leased_until) AS leased_until FROM claims GROUP BY 1, 2, 3"
        ).fetchall()
        void = [
            tuple(row)[:3]
            for row in owners
            if (
                not _alive(row["process_id"], row["process_started"])
                if row["host"] == _host()
                else row["leased_until"] < now()
            )
        ]
        self.conn.executemany(
            "DELETE FROM claims WHERE host = ? AND process_id = ? AND process_started = ?", void
        )


_MINE = "host = :host AND process_id = :process_id AND process_started = :process_started"


def _lease() -> str:
    return (datetime.now(UTC) + LEASE).isoformat(timespec="microseconds").replace("+00:00", "Z")


@functools.cache
def _host() -> str:
    return socket.gethostname()


def _this_process() -> dict[str, Any]:
    import psutil

    return {"process_id": os.getpid(), "process_started": psutil.Process().create_time()}


def _alive(process_id: int, started: float) -> bool:
    import psutil

    try:
        process = psutil.Process(process_id)
        return bool(abs(process.create_time() - started) < 1 and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False
    except psutil.AccessDenied:
        return True
