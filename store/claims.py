"""Which pins still need a caption, which process works on which of them, and the captions that are written.

Several processes may caption one store at the same time, also from several hosts. Each process claims a few
pins at a time. A claim names the host, the process id and the time when the process started, so the claims
of a process that was killed end at once. A commit writes the captions and the digests of the images, and
ends the claims, in one transaction: after a crash each pin is either done or free.
"""

from __future__ import annotations

import functools
import json
import os
import socket
import sqlite3
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from . import rules
from .connection import now, transaction
from .recipes import Recipe
from .work import Caption, Pin, Select

# A claim of another host ends when it has not been renewed for this long.
LEASE = timedelta(minutes=30)


class Claims:
    """The pins of a SQLite store that one run has to caption; implements `Work`.

    `recipe` is the recipe of the run. A pin with a prompt of its own gets the same recipe with that prompt.
    A pin is done when it has a caption of its recipe for the image that it has now, or when its image has
    failed, or when a person wrote its caption. With `retry_failed`, a failure of an earlier run does not
    count as done; nor does one whose reason is `retry_reason`.
    """

    def __init__(
        self,
        conn: sqlite3.Connection,
        recipe: Recipe,
        select: Select = "missing-description",
        *,
        retry_failed: bool = False,
        retry_reason: str | None = None,
    ):
        self.conn, self.recipe = conn, recipe
        self.since = now()
        # (prompt, image, image_stamp) of each claimed pin, by pin_id
        self._claimed: dict[str, tuple[str, str | None, str | None]] = {}
        self._recipe_of = functools.lru_cache(100_000)(lambda prompt: replace(recipe, prompt=prompt))
        # An SQL function that gives the recipe of a pin with a prompt of its own. Its name is unique, because
        # two runs may share a connection.
        own = f"recipe_{recipe.recipe_id}"
        conn.create_function(own, 1, lambda prompt: self._recipe_of(prompt).recipe_id, deterministic=True)
        self._recipe = f"CASE WHEN coalesce(p.prompt, '') = '' THEN :recipe_id ELSE {own}(p.prompt) END"
        self._parameters = {
            "recipe_id": recipe.recipe_id,
            "prompt": recipe.prompt,
            "since": self.since,
            "retry_reason": retry_reason,
            "host": _host(),
            **_this_process(),
        }
        # With --retry-failed, a failure counts as done only once this run has tried the pin again.
        tried = "1"
        if retry_failed or retry_reason:
            failed = "c.status = 'failed'" + ("" if retry_failed else " AND c.reason = :retry_reason")
            tried = f"(NOT ({failed}) OR c.updated_at >= :since)"
        self._open = f"""
            FROM pins p WHERE p.deleted_at IS NULL AND {rules.is_selected(select)}
            AND NOT {rules.has_persons_caption()}
            AND NOT EXISTS (
                SELECT 1 FROM captions c WHERE c.pin_id = p.pin_id AND c.recipe_id = {self._recipe}
                AND {rules.is_done()} AND {tried})"""
        self._after = 0  # the rowid of the pin that was claimed last

    def count(self) -> int:
        """Number of pins that are still to be captioned, those included that another process works on."""
        return int(self.conn.execute(f"SELECT count(*) {self._open}", self._parameters).fetchone()[0])

    def claim(self, n: int) -> list[Pin]:
        """Claims up to `n` free pins for this process; an empty list means that no free pin is left."""
        # Goes on after the pin that was claimed last. At the end it starts again from the first pin, because
        # other processes may have given pins back.
        for start in dict.fromkeys((self._after, 0)):
            with transaction(self.conn):
                if start == 0:
                    self._drop_void_claims()
                # Few statements and one row: other threads may take the interpreter at each of them, and
                # keep it for milliseconds.
                (found,) = self.conn.execute(
                    f"""
                    SELECT json_group_array(
                        json_array(place, pin_id, recipe_id, prompt, image, stamp, digest))
                    FROM (
                        SELECT p.rowid AS place, p.pin_id, p.image, p.image_sha256 AS digest,
                            p.image_stamp AS stamp, coalesce(nullif(p.prompt, ''), :prompt) AS prompt,
                            {self._recipe} AS recipe_id
                        {self._open} AND p.rowid > :after
                        AND NOT EXISTS (
                            SELECT 1 FROM claims k
                            WHERE k.pin_id = p.pin_id AND k.recipe_id = {self._recipe})
                        ORDER BY p.rowid LIMIT :n)""",
                    self._parameters | {"after": start, "n": n},
                ).fetchone()
                self.conn.execute(
                    """
                    INSERT INTO claims SELECT value ->> 1, value ->> 2, :host, :process_id, :process_started,
                        :until FROM json_each(:found)""",
                    self._parameters | {"found": found, "until": _lease()},
                )
            if rows := sorted(json.loads(found)):
                self._after = rows[-1][0]
                self._claimed |= {row[1]: tuple(row[3:6]) for row in rows}
                return [
                    Pin(pin_id, image, prompt, recipe_id, digest)
                    for _, pin_id, recipe_id, prompt, image, _, digest in rows
                ]
        return []

    def known(self, keys: Sequence[tuple[str, str]]) -> dict[tuple[str, str], Caption]:
        """The captions that images already have with recipes, by (image_sha256, recipe_id).

        It makes no difference which pin they were made for. A rejected caption counts, a failure does not.
        """
        # One question for all of them: while other threads work, each question waits for the interpreter.
        rows = self.conn.execute(
            """
            SELECT c.* FROM json_each(?) k, captions c WHERE c.recipe_id = k.value ->> 1 AND c.pin_id = (
                SELECT pin_id FROM captions o WHERE o.image_sha256 = k.value ->> 0
                AND o.recipe_id = k.value ->> 1 AND o.status <> 'failed' LIMIT 1)""",
            [json.dumps(keys)],
        )
        return {
            (row["image_sha256"], row["recipe_id"]): Caption(
                row["pin_id"],
                row["recipe_id"],
                row["status"],
                row["text"],
                row["reason"],
                row["image_sha256"],
                row["score"],
            )
            for row in rows
        }

    def commit(self, captions: Sequence[Caption], run_id: int | None = None) -> None:
        """Writes captions and the digests of their images, and ends their claims, all or nothing.

        If a pin has got another image since it was claimed, its caption is dropped and the pin is free again.
        """
        moment = now()
        with transaction(self.conn):
            valid = [caption for caption in captions if self._has_its_image(caption.pin_id)]
            self._insert_recipes(valid)
            self.conn.executemany(
                "UPDATE pins SET image_sha256 = ?1 WHERE pin_id = ?2 AND image_sha256 IS NOT ?1",
                [(caption.image_sha256, caption.pin_id) for caption in valid if caption.image_sha256],
            )
            self.conn.executemany(
                "INSERT OR IGNORE INTO truncated_images VALUES (?)",
                [(caption.image_sha256,) for caption in valid if caption.truncated],
            )
            self.conn.executemany(
                """
                INSERT INTO captions
                    (pin_id, recipe_id, status, text, reason, score, image_sha256, run_id, updated_at)
                VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)
                ON CONFLICT (pin_id, recipe_id) DO UPDATE SET
                    status = excluded.status, text = excluded.text, reason = excluded.reason,
                    score = excluded.score, image_sha256 = excluded.image_sha256, run_id = excluded.run_id,
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
                [(caption.pin_id, caption.recipe_id) for caption in captions],
            )
            self.conn.execute(
                f"UPDATE claims SET leased_until = :until WHERE {_MINE}",
                self._parameters | {"until": _lease()},
            )
        for caption in captions:
            self._claimed.pop(caption.pin_id, None)

    def _insert_recipes(self, captions: Sequence[Caption]) -> None:
        prompts = {self.recipe.prompt} | {
            self._claimed[caption.pin_id][0] for caption in captions if caption.pin_id in self._claimed
        }
        used = {caption.recipe_id for caption in captions}
        recipes = [recipe for recipe in map(self._recipe_of, prompts) if recipe.recipe_id in used]
        self.conn.executemany(
            """
            INSERT OR IGNORE INTO recipes VALUES (:recipe_id, :model, :revision, :weights_digest, :prompt,
                :decoding, :preprocessing, :dtype)""",
            [recipe.row() | {"recipe_id": recipe.recipe_id} for recipe in recipes],
        )

    def _has_its_image(self, pin_id: str) -> bool:
        """Whether a pin still has the image that it had when it was claimed."""
        if pin_id not in self._claimed:
            return True
        row = self.conn.execute("SELECT image, image_stamp FROM pins WHERE pin_id = ?", [pin_id]).fetchone()
        return row is not None and tuple(row) == self._claimed[pin_id][1:]

    def release(self) -> None:
        """Gives back every claim of this process."""
        with transaction(self.conn):
            self.conn.execute(f"DELETE FROM claims WHERE {_MINE}", self._parameters)

    def _drop_void_claims(self) -> None:
        """Deletes the claims of processes of this host that ended, and expired claims of other hosts."""
        owners = self.conn.execute(
            """
            SELECT host, process_id, process_started, max(leased_until) AS leased_until
            FROM claims GROUP BY 1, 2, 3"""
        ).fetchall()
        void = [tuple(owner)[:3] for owner in owners if _is_void(owner)]
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


def _is_void(owner: sqlite3.Row) -> bool:
    if owner["host"] != _host():
        return bool(owner["leased_until"] < now())
    return not _is_alive(owner["process_id"], owner["process_started"])


def _is_alive(process_id: int, started: float) -> bool:
    """Whether the process that started at that time still runs: a process id alone may have been reused."""
    import psutil

    try:
        process = psutil.Process(process_id)
        return bool(abs(process.create_time() - started) < 1 and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False
    except psutil.AccessDenied:
        return True
