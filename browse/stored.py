"""What the gallery and the pages of `captioner browse` read from the store, and the thumbnails they write to
it.

All SQL of this package is here, except that of the searchable copy, which stands in index.py.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime

from ..common.pages import MAX_TEXT
from ..images.thumbnails import Picture
from ..store import Connection, rules, transaction

# ---- the gallery

# One row per pin, with its section. A pin without a current caption has its newest row that is not ok.
_SHOWN = f"""
WITH shown AS (
    SELECT e.pin_id, substr(e.title, 1, :chars) AS title, substr(e.description, 1, :chars) AS description,
        substr(e.caption, 1, :chars) AS caption, e.caption_recipe IS '{rules.PERSON}' AS by_person,
        e.board_titles, e.engaged_queries,
        e.image, e.image_sha256, e.locale,
        c.status, c.reason, substr(c.text, 1, :chars) AS rejected_text,
        CASE WHEN e.caption IS NOT NULL THEN 'filled' WHEN c.status IS NOT NULL THEN 'failed'
            WHEN e.title IS NOT NULL OR e.description IS NOT NULL THEN 'native' ELSE 'waiting' END AS section
    FROM enriched_features e
    LEFT JOIN captions c ON e.caption IS NULL AND c.pin_id = e.pin_id AND c.status <> 'ok'
        AND c.recipe_id = {rules.newest_recipe("e", where="n.status <> 'ok'")})
"""
_SECTIONS = f"{_SHOWN} SELECT section, count(*) FROM shown GROUP BY section"
# A sample of a section is drawn by the digests of the images: these are as good as random, and always the
# same.
_PINS = f"""{_SHOWN} SELECT * FROM shown WHERE section = :section
ORDER BY CASE WHEN :sampled THEN image_sha256 ELSE title IS NOT NULL OR description IS NOT NULL END, pin_id
LIMIT :n"""
_TITLE_CAPTIONED = f"""
    SELECT count(*) FROM enriched_features
    WHERE title IS NOT NULL AND description IS NULL AND caption IS NOT NULL
        AND caption_recipe <> '{rules.PERSON}'"""
_STATE = """
    SELECT (SELECT count(*) || ' ' || count(deleted_at) FROM pins),
        (SELECT max(run_id) || ' ' || count(finished_at) FROM runs),
        (SELECT count(*) || ' ' || max(updated_at) FROM captions)"""


@dataclass(frozen=True)
class GalleryPin:
    """A pin as the gallery shows it. Texts are cut to what can be shown."""

    pin_id: str
    title: str | None
    description: str | None
    caption: str | None
    by_person: bool  # a person wrote the caption
    board_titles: list[str]
    engaged_queries: list[str]
    image: str | None
    locale: str | None
    status: str | None  # "rejected" or "failed" if the pin has no caption but was tried
    reason: str | None
    rejected_text: str | None
    section: str


def section_counts(conn: Connection) -> dict[str, int]:
    """How many pins each section of the gallery has: filled, native, failed, waiting."""
    return dict(conn.execute(_SECTIONS, {"chars": MAX_TEXT + 1}).fetchall())


def gallery_pins(conn: Connection, section: str, n: int, *, sampled: bool) -> list[GalleryPin]:
    """`n` pins of a section: the first ones, or a sample that is always the same."""
    parameters = {"section": section, "n": n, "sampled": sampled, "chars": MAX_TEXT + 1}
    pins = []
    for row in conn.execute(_PINS, parameters):
        fields = {name: row[name] for name in GalleryPin.__dataclass_fields__}
        fields["by_person"] = bool(row["by_person"])
        for name in ("board_titles", "engaged_queries"):
            fields[name] = json.loads(row[name] or "[]")
        pins.append(GalleryPin(**fields))
    return pins


def pins_with_title_captioned(conn: Connection) -> int:
    """How many pins have a title but no description, and got a caption."""
    return int(conn.execute(_TITLE_CAPTIONED).fetchone()[0])


def state_digest(conn: Connection, style: str) -> str:
    """A digest that changes with every ingest, run and batch, and with the style of the page."""
    state = tuple(conn.execute(_STATE).fetchone())
    return hashlib.sha256(json.dumps([state, style]).encode()).hexdigest()[:32]


# ---- thumbnails

_WANTED = """
    SELECT p.pin_id, p.image, p.image_sha256, p.image_stamp FROM pins p
    WHERE p.deleted_at IS NULL AND p.image IS NOT NULL
        AND NOT EXISTS (SELECT 1 FROM thumbnails t WHERE t.image_sha256 = p.image_sha256)
        AND NOT EXISTS (SELECT 1 FROM temp.tried_in_vain v
            WHERE v.pin_id = p.pin_id AND v.image IS p.image AND v.image_stamp IS p.image_stamp)
    ORDER BY NOT EXISTS (SELECT 1 FROM captions c WHERE c.pin_id = p.pin_id), p.rowid LIMIT :n"""
_SET_DIGEST = """
    UPDATE pins SET image_sha256 = ?
    WHERE pin_id = ? AND image IS ? AND image_stamp IS ? AND image_sha256 IS NULL"""


@dataclass(frozen=True)
class ImagePlace:
    """Where the image of a pin is; `image_sha256` is None if nobody has read it yet."""

    pin_id: str
    image: str
    image_sha256: str | None
    image_stamp: str | None


def images_without_thumbnail(conn: Connection, index: Connection, n: int, since: str) -> list[ImagePlace]:
    """At most `n` images that have no thumbnail, those of pins first that were captioned or failed.

    Images that the copy `index` says were tried in vain after `since` (a time as ISO 8601 text) are left out.
    """
    conn.execute(
        "CREATE TEMP TABLE IF NOT EXISTS tried_in_vain"
        " (pin_id TEXT PRIMARY KEY, image TEXT, image_stamp TEXT)"
    )
    tried = index.execute("SELECT pin_id, image, image_stamp FROM no_picture WHERE tried_at > ?", [since])
    with transaction(conn):
        conn.execute("DELETE FROM temp.tried_in_vain")
        conn.executemany("INSERT INTO temp.tried_in_vain VALUES (?, ?, ?)", map(tuple, tried))
    return [ImagePlace(**dict(row)) for row in conn.execute(_WANTED, {"n": n})]


def write_thumbnails(conn: Connection, made: Iterable[tuple[ImagePlace, Picture]]) -> None:
    """Writes thumbnails. A pin whose image nobody had read gets the digest of the image, as in a run."""
    made = list(made)
    with transaction(conn):
        conn.executemany(
            "INSERT OR IGNORE INTO thumbnails VALUES (?, ?, ?, ?)",
            [(p.image_sha256, p.jpeg, p.width, p.height) for _, p in made],
        )
        conn.executemany(
            _SET_DIGEST,
            [(p.image_sha256, place.pin_id, place.image, place.image_stamp) for place, p in made],
        )


def write_failures(index: Connection, failed: Iterable[tuple[ImagePlace, str]]) -> None:
    """Writes into the copy `index` why some images have no thumbnail."""
    tried_at = datetime.now(UTC).isoformat()
    index.executemany(
        "INSERT OR REPLACE INTO no_picture VALUES (?, ?, ?, ?, ?)",
        [(place.pin_id, place.image, place.image_stamp, reason, tried_at) for place, reason in failed],
    )


# ---- queries that Datasette sends for a page

THUMBNAIL = "SELECT jpeg FROM thumbnails WHERE image_sha256 = ?"
TABLES = {  # that visitors may look into, with the name that they are shown by
    "rejected_rows": "rejected rows",
    "samples": "samples",
    "ratings": "ratings",
    "captions": "captions",
    "captions_by_people": "people's captions",
    "recipes": "recipes",
    "runs": "runs",
}
SIZES = "SELECT " + ", ".join(f"(SELECT count(*) FROM {table}) AS {table}" for table in TABLES)
RUNS = (
    "SELECT run_id, command, started_at, finished_at, counts, device FROM runs ORDER BY run_id DESC LIMIT 20"
)
PINS_BY_TEXTS = (
    "SELECT kind, category, texts, count(*) FROM pins GROUP BY kind, category, texts"  # of the copy
)
SHOWN = """
    SELECT pin_id, picture, title, description, caption FROM pins
    WHERE pin_id IN (SELECT value FROM json_each(:pin_ids))"""  # of the copy
NO_PICTURE = "SELECT reason FROM no_picture WHERE pin_id = ?"  # of the copy
OF_PIN = {
    "pin": "SELECT * FROM pins WHERE pin_id = :pin_id",
    "by_people": f"""
        SELECT h.*, {rules.image_changed()} AS image_changed
        FROM captions_by_people h JOIN pins p USING (pin_id) WHERE h.pin_id = :pin_id""",
    "captions": f"""
        SELECT c.*, r.model, r.prompt, r.dtype, {rules.is_stale()} AS is_stale,
            c.recipe_id IS (
                SELECT e.caption_recipe FROM enriched_features e WHERE e.pin_id = :pin_id) AS is_current
        FROM captions c JOIN pins p USING (pin_id) LEFT JOIN recipes r USING (recipe_id)
        WHERE c.pin_id = :pin_id ORDER BY is_current DESC, c.updated_at DESC, c.recipe_id""",
    "titles": "SELECT * FROM board_title_ranks WHERE pin_id = :pin_id ORDER BY rank",
    "queries": "SELECT * FROM engaged_query_ranks WHERE pin_id = :pin_id ORDER BY rank",
    "ratings": """
        SELECT r.*, i.caption, i.other_caption, s.swapped FROM ratings r JOIN sheet_rows s USING (item_id)
        JOIN sample_items i ON i.sample_id = s.sample_id AND i.item = s.item
        WHERE r.pin_id = :pin_id ORDER BY r.answered_at, r.item_id LIMIT 200""",
    "embeddings": "SELECT name, dim FROM embeddings WHERE pin_id = :pin_id ORDER BY name",
}
