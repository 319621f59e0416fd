"""The rules of what counts as text, and of which caption is current, stand in one place."""

import re
import sqlite3
from pathlib import Path

import pytest

from pincaption.store import rules
from pincaption.store.schema import MIGRATIONS
from pincaption.store.work import Select

ROOT = Path(rules.__file__).parents[1]
# What only store/rules.py and the migrations may say. Other files ask for it by a function of the rules.
FRAGMENTS = {
    "has_title, has_description": r"\bhas_(title|description)\b(?!\()",
    "a caption of the image that the pin has now": r"image_sha256 (=|IS|IS NOT|<>) \w+\.image_sha256",
    "the newest of a pin's captions": r"updated_at DESC, \w+\.recipe_id LIMIT",
}
# (file, fragment) that mean something else.
ELSEWHERE = {
    # written, not asked
    ("ingest/pins.py", "has_title, has_description"),
    ("ingest/texts_beside.py", "has_title, has_description"),
    ("store/claims.py", "a caption of the image that the pin has now"),
    ("store/people.py", "a caption of the image that the pin has now"),
    # a picture that is missing or has been made, not a caption
    ("browse/index.py", "a caption of the image that the pin has now"),
    ("browse/stored.py", "a caption of the image that the pin has now"),
}


def compact(sql: str) -> str:
    """SQL without comments, white space and parentheses."""
    return re.sub(r"--.*|[\s()]", "", sql)


@pytest.mark.parametrize("fragment", [rules.title(), rules.description(), rules.current_recipe()])
def test_the_view_says_the_same_as_the_rules(fragment: str) -> None:
    newest = [sql for sql in MIGRATIONS.values() if "CREATE VIEW enriched_features" in sql][-1]
    view = newest.partition("CREATE VIEW enriched_features")[2]
    assert compact(fragment) in compact(view)


@pytest.mark.parametrize("name", FRAGMENTS)
def test_no_other_file_repeats_a_rule(name: str) -> None:
    files = {
        path.relative_to(ROOT).as_posix()
        for room in ROOT.glob("*/__init__.py")
        for path in room.parent.rglob("*.py")
        if re.search(FRAGMENTS[name], path.read_text(encoding="utf-8"))
    }
    allowed = {"store/rules.py", "store/schema.py"} | {file for file, rule in ELSEWHERE if rule == name}
    assert files - allowed == set(), "use a function of store/rules.py instead"


@pytest.mark.parametrize(
    ("title", "has_title", "description", "has_description", "selected"),
    [
        (None, 0, None, 0, "missing-description missing-text all"),
        (None, 1, None, 1, "missing-description missing-text all"),
        ("IMG_2041.JPG", 0, "N/A", 0, "missing-description missing-text all"),
        ("Oak table", 1, None, 0, "missing-description all"),
        ("Oak table", 1, "N/A", 0, "missing-description all"),
        ("IMG_2041.JPG", 0, "made of oak", 1, "all"),
        ("Oak table", 1, "made of oak", 1, "all"),
    ],
)
def test_native_text_is_a_title_or_a_description_that_is_no_placeholder(
    store: sqlite3.Connection,
    title: str | None,
    has_title: int,
    description: str | None,
    has_description: int,
    selected: str,
) -> None:
    store.execute(
        "INSERT INTO pins (pin_id, title, has_title, description, has_description) VALUES (1, ?, ?, ?, ?)",
        [title, has_title, description, has_description],
    )
    selections: list[Select] = ["missing-description", "missing-text", "all"]
    columns = [f"{rules.is_selected(name)} AS '{name}'" for name in selections]
    row = store.execute(
        f"""
        SELECT {rules.title()} AS title, {rules.description()} AS description,
            {rules.has_title()} AS has_title, {rules.has_description()} AS has_description,
            {rules.has_native_text()} AS has_native_text, {", ".join(columns)}
        FROM pins p"""
    ).fetchone()
    assert row["has_title"] == (row["title"] is not None) == bool(title and has_title)
    assert row["has_description"] == (row["description"] is not None) == bool(description and has_description)
    assert row["has_native_text"] == (row["has_title"] or row["has_description"])
    assert [name for name in selections if row[name]] == selected.split()
