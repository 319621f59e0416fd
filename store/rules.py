"""What counts as a pin's own text, and which caption is its current one, as fragments of SQL.

Every query of the package that asks one of these questions is put together from these functions, so that all
commands agree with the view `enriched_features`. `pin` and `caption` are the names under which the query
knows a row of the tables `pins` and `captions`. The text of the view itself is part of a migration and never
changes; tests/test_store/test_rules.py compares it with these fragments.

A caption that a person wrote (table `captions_by_people`) is a pin's current caption, whatever models wrote.
"""

from __future__ import annotations

from .work import Select

PERSON = "person"  # stands for a recipe where a person wrote the caption; no recipe_id is like it


def title(pin: str = "p") -> str:
    """The title of a pin, or null where it is a mere placeholder such as "IMG_2041.JPG"."""
    return f"CASE WHEN {pin}.has_title THEN {pin}.title END"


def description(pin: str = "p") -> str:
    """The description of a pin, or null where it is a mere placeholder."""
    return f"CASE WHEN {pin}.has_description THEN {pin}.description END"


def has_title(pin: str = "p") -> str:
    """Whether a pin has a title that is more than a placeholder; 0 or 1, never null."""
    return f"({pin}.title IS NOT NULL AND {pin}.has_title)"


def has_description(pin: str = "p") -> str:
    """Whether a pin has a description that is more than a placeholder; 0 or 1, never null."""
    return f"({pin}.description IS NOT NULL AND {pin}.has_description)"


def has_native_text(pin: str = "p") -> str:
    """Whether a pin has text of its own, a title or a description; 0 or 1, never null."""
    return f"({has_title(pin)} OR {has_description(pin)})"


def is_selected(select: Select, pin: str = "p") -> str:
    """Whether `captioner run --select` wants a caption for a pin, whatever captions it has."""
    return {
        "missing-description": f"NOT {has_description(pin)}",
        "missing-text": f"NOT {has_native_text(pin)}",
        "all": "1",
    }[select]


def is_valid(caption: str = "c", pin: str = "p") -> str:
    """Whether a row of `captions` is a caption of the image that the pin has now.

    A pin may have several valid captions, one of each recipe: `current_recipe` says which of them counts.
    """
    return f"({caption}.status = 'ok' AND {caption}.image_sha256 = {pin}.image_sha256)"


def is_stale(caption: str = "c", pin: str = "p") -> str:
    """Whether a caption, accepted or rejected, was made from another image than the pin has now.

    A failure is never stale: a trigger deletes it when the pin gets another image.
    """
    return f"({caption}.status <> 'failed' AND {caption}.image_sha256 IS NOT {pin}.image_sha256)"


def is_done(caption: str = "c", pin: str = "p") -> str:
    """Whether a row of `captions` settles its pin for its recipe: not stale, or failed."""
    return f"({caption}.status = 'failed' OR {caption}.image_sha256 = {pin}.image_sha256)"


def has_persons_caption(pin: str = "p") -> str:
    """Whether a person wrote the caption of a pin; 0 or 1, never null."""
    return f"EXISTS (SELECT 1 FROM captions_by_people h WHERE h.pin_id = {pin}.pin_id)"


def image_changed(written: str = "h", pin: str = "p") -> str:
    """Whether a pin has or may have another image than when a person wrote its caption; 0 or 1, never null.

    It may have another one if its file or address was changed and nobody has read the image since. `written`
    is a row of `captions_by_people`. 0 if nobody had read the image at that time.
    """
    return f"({written}.image_sha256 IS NOT NULL AND {written}.image_sha256 IS NOT {pin}.image_sha256)"


def current_recipe(pin: str = "p", captions: str = "captions") -> str:
    """The recipe of a pin's current caption, if no person wrote one: of its newest valid caption, or null.

    Of two captions of the same time, the one whose recipe_id comes first counts.
    """
    return newest_recipe(pin, captions, where=is_valid("n", pin))


def newest_recipe(pin: str = "p", captions: str = "captions", *, where: str = "1") -> str:
    """The recipe of a pin's newest row `n` of `captions` for which `where` holds, or null."""
    return (
        f"(SELECT n.recipe_id FROM {captions} n WHERE n.pin_id = {pin}.pin_id AND {where}"
        " ORDER BY n.updated_at DESC, n.recipe_id LIMIT 1)"
    )
