"""Recipes, and what a run takes over from earlier runs."""

import sqlite3
import subprocess
import sys
from dataclasses import replace

from pincaption.store.claims import Claims
from pincaption.store.recipes import (
    Recipe,
    file_digests,
    keep_file_digests,
    last_dtype,
    last_revision,
    texts_of_run,
)
from pincaption.store.runs import start_run
from pincaption.store.work import Caption

RECIPE = Recipe("some/model", "main", "abc", "", {"num_beams": 1}, {"width": 32}, "float32")


def caption_pins(store: sqlite3.Connection, recipe: Recipe, n: int, text: str = "a dog") -> int:
    """A run that adds `n` pins and captions them; returns its run_id."""
    first = store.execute("SELECT count(*) FROM pins").fetchone()[0]
    store.executemany("INSERT INTO pins (pin_id) VALUES (?)", [(f"{first + i}",) for i in range(n)])
    run_id = start_run(store, "run", {"model": recipe.model, "dtype": recipe.dtype})
    work = Claims(store, recipe)
    work.commit(
        [Caption(pin.pin_id, pin.recipe_id, "ok", text, image_sha256="x") for pin in work.claim(n)], run_id
    )
    work.release()
    return run_id


def test_the_id_of_a_recipe_depends_on_all_of_its_fields_and_on_nothing_else() -> None:
    others = [
        replace(RECIPE, **change)
        for change in (
            {"model": "other"}, {"revision": None}, {"weights_digest": "abd"}, {"prompt": "a photo of"},
            {"dtype": "float16"}, {"decoding": {"num_beams": 2}}, {"preprocessing": {"width": 64}},
        )
    ]  # fmt: skip
    assert len({recipe.recipe_id for recipe in [RECIPE, *others]}) == 8
    assert (
        replace(RECIPE, decoding={"b": 1, "a": 2}).recipe_id
        == replace(RECIPE, decoding={"a": 2, "b": 1}).recipe_id
    )
    in_another_process = f"from pincaption.store.recipes import Recipe; print({RECIPE!r}.recipe_id)"
    process = subprocess.run(
        [sys.executable, "-c", in_another_process], capture_output=True, text=True, check=True
    )
    assert process.stdout.strip() == RECIPE.recipe_id


def test_the_last_revision_is_that_of_the_last_run_not_of_the_newest_recipe(
    store: sqlite3.Connection,
) -> None:
    assert last_revision(store, "some/model") is None
    for revision in ("A", "B", "A"):
        caption_pins(store, replace(RECIPE, revision=revision), 1)
        assert last_revision(store, "some/model") == revision
    caption_pins(store, replace(RECIPE, model="another/model", revision="C"), 1)
    assert last_revision(store, "some/model") == "A"
    assert last_revision(store, "another/model") == "C"


def test_the_last_dtype_is_that_of_the_last_run_of_the_model(store: sqlite3.Connection) -> None:
    assert last_dtype(store, "some/model") is None
    for dtype in ("float32", "bfloat16", "float32"):
        caption_pins(store, replace(RECIPE, dtype=dtype), 1)
        assert last_dtype(store, "some/model") == dtype
    caption_pins(store, replace(RECIPE, model="another/model", dtype="float16"), 1)
    assert last_dtype(store, "some/model") == "float32"


def test_digests_of_files_are_kept(store: sqlite3.Connection) -> None:
    keep_file_digests(store, {"/a": ("10 1", "aa"), "/b": ("20 1", "bb")})
    keep_file_digests(store, {"/b": ("20 2", "cc")})
    assert file_digests(store) == {"/a": ("10 1", "aa"), "/b": ("20 2", "cc")}


def test_the_texts_of_a_run_come_with_their_number_of_pins(store: sqlite3.Connection) -> None:
    caption_pins(store, RECIPE, 2, "a house")
    run_id = caption_pins(store, RECIPE, 3, "a dog")
    for pin_id in ("2", "3"):
        store.execute("UPDATE captions SET text = 'a cat' WHERE pin_id = ?", [pin_id])
    assert texts_of_run(store, run_id) == [("a cat", 2), ("a dog", 1)]
