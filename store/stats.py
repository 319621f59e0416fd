"""Coverage: how many pins have text of which kind."""

from __future__ import annotations

from typing import Any, TypedDict, cast

from . import rules
from .connection import Connection
from .rejected import LEFT_EMPTY

_TEXTS = f"""
    WITH pin AS MATERIALIZED (
        SELECT p.kind = 'product' AS product,
            {rules.has_title()} AS title,
            {rules.has_description()} AS description,
            EXISTS (SELECT 1 FROM captions c WHERE c.pin_id = p.pin_id AND {rules.is_valid()})
                OR {rules.has_persons_caption()} AS caption,
            EXISTS (SELECT 1 FROM board_titles b WHERE b.pin_id = p.pin_id AND b.titles <> '[]') AS boards,
            EXISTS (SELECT 1 FROM engaged_queries q
                WHERE q.pin_id = p.pin_id AND q.queries <> '[]') AS queries
        FROM pins p WHERE p.deleted_at IS NULL)
    SELECT count(*) AS pins,
        coalesce(sum(product), 0) AS products,
        coalesce(sum(title), 0) AS title,
        coalesce(sum(description), 0) AS description,
        coalesce(sum(title OR description), 0) AS native_text,
        coalesce(sum(caption), 0) AS caption,
        coalesce(sum(caption AND NOT title AND NOT description), 0) AS only_caption,
        coalesce(sum(boards), 0) AS board_titles,
        coalesce(sum(queries), 0) AS engaged_queries,
        coalesce(sum(title OR description OR caption OR boards OR queries), 0) AS any_text,
        coalesce(sum(NOT description AND NOT caption), 0) AS waiting
    FROM pin"""
# Pins that were tried and have no current caption, counted by what their newest row says.
_TRIED = f"""
    SELECT c.status, c.reason, NOT {rules.has_description()} AS undescribed, count(*) AS n
    FROM captions c CROSS JOIN pins p ON p.pin_id = c.pin_id
    WHERE p.deleted_at IS NULL AND (c.status <> 'ok' OR {rules.is_stale()})
        AND NOT EXISTS (SELECT 1 FROM captions h WHERE h.pin_id = p.pin_id AND {rules.is_valid("h")})
        AND NOT {rules.has_persons_caption()}
        AND c.recipe_id = {rules.newest_recipe()}
    GROUP BY 1, 2, 3"""
_BY_PEOPLE = f"""
    SELECT count(*), coalesce(sum({rules.image_changed()}), 0)
    FROM captions_by_people h JOIN pins p USING (pin_id) WHERE p.deleted_at IS NULL"""
_SHARED_IMAGES = """
    SELECT count(*), coalesce(sum(n), 0) FROM (
        SELECT count(*) AS n FROM pins WHERE deleted_at IS NULL AND image IS NOT NULL
        GROUP BY coalesce(image_sha256, image) HAVING count(*) > 1)"""
_MODELS = """
    SELECT r.recipe_id, r.model, r.dtype, r.prompt, count(*) AS captions
    FROM captions c JOIN recipes r USING (recipe_id)
    WHERE c.status = 'ok' GROUP BY r.recipe_id ORDER BY captions DESC, r.recipe_id"""


class Reasons(TypedDict):
    """Why there is no caption: how many pins, by reason."""

    rejected: dict[str, int]
    failed: dict[str, int]


class ModelCoverage(TypedDict):
    """How many captions a recipe has made, those included in whose place another one counts now."""

    model: str
    dtype: str
    prompt: str
    captions: int


class Coverage(TypedDict):
    """Counts of pins, unless something else is said."""

    pins: int
    products: int
    title: int
    description: int
    native_text: int  # title or description
    caption: int  # a current caption
    by_people: int  # a caption that a person wrote
    by_people_image_changed: int  # of these: the pin may have another image since
    only_caption: int  # a current caption, and no native text
    board_titles: int
    engaged_queries: int
    any_text: int  # any of these
    waiting: int  # neither a description nor a caption, and no row in `captions`
    rejected: int  # no current caption, and the newest row was rejected
    failed: int
    stale: int  # the newest row is a caption of an image that the pin no longer has
    reasons: Reasons
    shared_images: int  # images that several pins have
    pins_sharing_images: int
    rejected_rows: int  # rows of sources
    models: dict[str, ModelCoverage]  # by recipe_id


def coverage(conn: Connection) -> Coverage:
    """Counts the pins that have text of each kind. Pins that are deleted do not count."""
    counts: dict[str, Any] = dict(conn.execute(_TEXTS).fetchone()) | {"rejected": 0, "failed": 0, "stale": 0}
    reasons: dict[str, dict[str, int]] = {"rejected": {}, "failed": {}}
    for status, reason, undescribed, n in conn.execute(_TRIED):
        counts["stale" if status == "ok" else status] += n
        counts["waiting"] -= n if undescribed else 0
        if status != "ok":
            reasons[status][reason] = reasons[status].get(reason, 0) + n
    counts["reasons"] = {
        status: dict(sorted(counted.items(), key=lambda item: (-item[1], item[0])))
        for status, counted in reasons.items()
    }
    counts["by_people"], counts["by_people_image_changed"] = conn.execute(_BY_PEOPLE).fetchone()
    counts["shared_images"], counts["pins_sharing_images"] = conn.execute(_SHARED_IMAGES).fetchone()
    rejected = "SELECT count(*) FROM rejected_rows WHERE substr(reason, 1, ?) <> ?"
    counts["rejected_rows"] = conn.execute(rejected, [len(LEFT_EMPTY), LEFT_EMPTY]).fetchone()[0]
    counts["models"] = {
        row["recipe_id"]: {name: row[name] for name in ("model", "dtype", "prompt", "captions")}
        for row in conn.execute(_MODELS)
    }
    return cast(Coverage, counts)


def captions_by_people(conn: Connection) -> int:
    """How many pins have a caption that a person wrote. Pins that are deleted do not count."""
    return int(conn.execute(_BY_PEOPLE).fetchone()[0])


def tried_in_vain(conn: Connection) -> dict[str, int]:
    """Counts pins that were tried and have no current caption: {"rejected", "failed", "stale"}."""
    counts = {"rejected": 0, "failed": 0, "stale": 0}
    for status, _, _, n in conn.execute(_TRIED):
        counts["stale" if status == "ok" else status] += n
    return counts
