"""The table `embeddings`: named vectors of pins, as float16."""

from __future__ import annotations

from collections.abc import Iterable

from .connection import Connection


def dimensions(conn: Connection) -> dict[str, int]:
    """{name: how many numbers its vectors have} of all embeddings in the store, sorted by name."""
    return dict(map(tuple, conn.execute("SELECT name, max(dim) FROM embeddings GROUP BY name ORDER BY name")))


def dimension_of(conn: Connection, name: str) -> int | None:
    """How many numbers the vectors called `name` have; None if there are none yet."""
    row = conn.execute("SELECT dim FROM embeddings WHERE name = ? LIMIT 1", [name]).fetchone()
    return row and int(row[0])


def upsert_vectors(conn: Connection, name: str, dim: int, vectors: Iterable[tuple[str, bytes]]) -> None:
    """Adds or replaces vectors, given as (pin_id, float16 numbers, little-endian).

    Belongs into a transaction of the caller.
    """
    conn.executemany(
        """INSERT INTO embeddings (pin_id, name, dim, vector) VALUES (?, ?, ?, ?)
        ON CONFLICT (pin_id, name) DO UPDATE SET dim = excluded.dim, vector = excluded.vector""",
        [(pin_id, name, dim, vector) for pin_id, vector in vectors],
    )


def count_without_pin(conn: Connection, name: str) -> int:
    """How many vectors called `name` belong to pins that are not in the store."""
    row = conn.execute(
        """SELECT count(*) FROM embeddings e
        WHERE name = ? AND NOT EXISTS (SELECT 1 FROM pins p WHERE p.pin_id = e.pin_id)""",
        [name],
    ).fetchone()
    return int(row[0])
