"""Every reader of a store agrees about native text and current captions, on random stores.

The view `enriched_features`, `stats`, `eval sample` and `eval compare`, `export`, EnrichedFeatures, the copy
that `browse` searches, and the pins that `run` selects are compared with one reference in plain Python.
"""

import json
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pincaption.browse.index import open_index, refresh
from pincaption.eval.draw import draw, draw_pairs
from pincaption.eval.items import SampleError, SampleOptions
from pincaption.export.features import write_features
from pincaption.store import EnrichedFeatures, StoreError, one_moment, open_store, transaction
from pincaption.store.claims import Claims
from pincaption.store.described import described_pins
from pincaption.store.recipes import Recipe
from pincaption.store.stats import coverage, tried_in_vain
from pincaption.store.work import Select

FIRST = Recipe("some/model", "main", "abc", "", {"num_beams": 1}, {"width": 32}, "float32")
SECOND = replace(FIRST, dtype="float16")
RECIPES = {
    recipe.recipe_id: recipe
    for one in (FIRST, SECOND)
    for recipe in (one, replace(one, prompt="a drawing of"))
}
SELECTIONS: tuple[Select, ...] = ("missing-description", "missing-text", "all")
FUTURE = "2999-01-01"  # as if written by the run that is going on


@dataclass
class Caption:
    """A row of `captions`, of a pin and a recipe."""

    status: Literal["ok", "rejected", "failed"]
    text: str
    image_sha256: str | None
    updated_at: str


@dataclass
class Pin:
    title: str | None
    has_title: bool
    description: str | None
    has_description: bool
    image_sha256: str | None
    deleted: bool
    prompt: str | None
    kind: str
    titles: list[str] | None
    queries: list[str] | None
    by_person: str | None = None
    captions: dict[str, Caption] = field(default_factory=dict)  # by recipe_id


digests = st.sampled_from(["one", "one", "one", "two"])
captions = st.builds(
    Caption,
    status=st.sampled_from(["ok", "ok", "ok", "rejected", "failed"]),
    text=st.sampled_from(["a dog", "a cat"]),
    image_sha256=digests,
    updated_at=st.sampled_from(["2026-01-01", "2026-01-02", FUTURE]),
)
pins = st.builds(
    Pin,
    title=st.sampled_from([None, "", "IMG_2041.JPG", "Oak table"]),
    has_title=st.booleans(),
    description=st.sampled_from([None, "N/A", "made of oak"]),
    has_description=st.booleans(),
    image_sha256=st.sampled_from(["one", "one", "one", "two", None]),
    deleted=st.sampled_from([False, False, False, True]),
    prompt=st.sampled_from([None, "", "a drawing of"]),
    kind=st.sampled_from(["pin", "product"]),
    titles=st.sampled_from([None, [], ["tea time"]]),
    queries=st.sampled_from([None, [], ["mug"]]),
    by_person=st.sampled_from([None, None, None, "a mug, I say"]),
    captions=st.fixed_dictionaries({}, optional=dict.fromkeys(sorted(RECIPES), captions)),
)
# Mostly many pins: then one example shows many cases.
rows = st.lists(pins, max_size=2) | st.lists(pins, min_size=12, max_size=20)
stores = rows.map(lambda rows: {f"pin {i}": pin for i, pin in enumerate(rows)})


# The reference.


def title_of(pin: Pin) -> str | None:
    return pin.title if pin.has_title else None


def description_of(pin: Pin) -> str | None:
    return pin.description if pin.has_description else None


def is_native(pin: Pin) -> bool:
    return title_of(pin) is not None or description_of(pin) is not None


def newest(captions: dict[str, Caption]) -> str | None:
    """The recipe of the newest caption; of several of the same time, the first one."""
    if not captions:
        return None
    latest = max(caption.updated_at for caption in captions.values())
    return min(recipe_id for recipe_id, caption in captions.items() if caption.updated_at == latest)


def valid(pin: Pin) -> dict[str, Caption]:
    """The accepted captions of the image that the pin has now."""
    return {
        recipe_id: caption
        for recipe_id, caption in pin.captions.items()
        if caption.status == "ok" and caption.image_sha256 == pin.image_sha256
    }


def current(pin: Pin) -> tuple[str | None, str | None]:
    """(text, recipe_id) of the pin's current caption, or (None, None). A person's comes before a model's."""
    if pin.by_person:
        return pin.by_person, "person"
    recipe_id = newest(valid(pin))
    return (pin.captions[recipe_id].text, recipe_id) if recipe_id else (None, None)


def forced(pin: Pin, recipe_id: str) -> tuple[str | None, str | None]:
    """(text, recipe_id) of the pin's caption by one recipe, or (None, None)."""
    caption = valid(pin).get(recipe_id)
    return (caption.text, recipe_id) if caption else (None, None)


def state(pin: Pin) -> str:
    """What became of a pin: "person", "ok", "rejected", "failed", "stale" or "none"."""
    if pin.by_person:
        return "person"
    if valid(pin):
        return "ok"
    recipe_id = newest(pin.captions)
    if recipe_id is None:
        return "none"
    status = pin.captions[recipe_id].status
    return "stale" if status == "ok" else status


def selected(pins: dict[str, Pin], recipe: Recipe, select: Select, retry_failed: bool) -> dict[str, Recipe]:
    """The pins that a run with this recipe has to caption, each with the recipe that it gets."""
    recipes = {}
    for pin_id, pin in pins.items():
        has_text = {
            "missing-description": description_of(pin) is not None,
            "missing-text": is_native(pin),
            "all": False,
        }[select]
        own = replace(recipe, prompt=pin.prompt) if pin.prompt else recipe
        caption = pin.captions.get(own.recipe_id)
        if caption is None:
            done = False
        elif caption.status == "failed":
            done = not retry_failed or caption.updated_at == FUTURE
        else:
            done = caption.image_sha256 == pin.image_sha256
        if not has_text and not done and not pin.by_person:
            recipes[pin_id] = own
    return recipes


# The stores.


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[sqlite3.Connection]:
    """One store, filled anew for each example: making one takes longer than filling it."""
    with closing(open_store(tmp_path_factory.mktemp("store") / "my.db", create=True)) as conn:
        conn.execute("PRAGMA synchronous = OFF")
        yield conn


@pytest.fixture(scope="module")
def index(store: sqlite3.Connection) -> Iterator[sqlite3.Connection]:
    """The copy that `browse` searches. It is brought up to date for each example, never made anew."""
    path = path_of(store)
    with closing(open_index(path.with_name("copy"), path)) as conn:
        yield conn


def path_of(conn: sqlite3.Connection) -> Path:
    return Path(conn.execute("PRAGMA database_list").fetchone()["file"])


def fill(conn: sqlite3.Connection, pins: dict[str, Pin]) -> None:
    """Replaces everything that is in the store."""
    with transaction(conn):
        for table in ("captions", "captions_by_people", "pins", "recipes", "board_titles", "engaged_queries"):
            conn.execute(f"DELETE FROM {table}")
        insert(conn, pins)


def insert(conn: sqlite3.Connection, pins: dict[str, Pin]) -> None:
    conn.executemany(
        "INSERT INTO recipes VALUES (:recipe_id, :model, :revision, :weights_digest, :prompt, :decoding,"
        " :preprocessing, :dtype)",
        [{"recipe_id": recipe_id} | recipe.row() for recipe_id, recipe in RECIPES.items()],
    )
    for pin_id, pin in pins.items():
        conn.execute(
            "INSERT INTO pins (pin_id, title, has_title, description, has_description, image_sha256,"
            " deleted_at, prompt, kind) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            [
                pin_id,
                pin.title,
                pin.has_title,
                pin.description,
                pin.has_description,
                pin.image_sha256,
                "2026-02-01" if pin.deleted else None,
                pin.prompt,
                pin.kind,
            ],
        )
        for recipe_id, caption in pin.captions.items():
            conn.execute(
                "INSERT INTO captions (pin_id, recipe_id, status, text, reason, image_sha256, updated_at)"
                " VALUES (?, ?, ?, ?, ?, ?, ?)",
                [
                    pin_id,
                    recipe_id,
                    caption.status,
                    None if caption.status == "failed" else caption.text,
                    None if caption.status == "ok" else f"{caption.status} because of {caption.text}",
                    caption.image_sha256,
                    caption.updated_at,
                ],
            )
        if pin.by_person:
            conn.execute(
                "INSERT INTO captions_by_people VALUES (?, ?, ?, NULL, '2026-01-01')",
                [pin_id, pin.by_person, "one"],
            )
        if pin.titles is not None:
            ones = json.dumps([1 for _ in pin.titles])
            conn.execute(
                "INSERT INTO board_titles VALUES (?, ?, ?, ?)", [pin_id, json.dumps(pin.titles), ones, ones]
            )
        if pin.queries is not None:
            ones = json.dumps([1 for _ in pin.queries])
            days = json.dumps(["2026-01-01" for _ in pin.queries])
            conn.execute(
                "INSERT INTO engaged_queries VALUES (?, ?, ?, ?, ?, ?)",
                [pin_id, json.dumps(pin.queries), ones, ones, days, days],
            )


def left(pins: dict[str, Pin]) -> dict[str, Pin]:
    return {pin_id: pin for pin_id, pin in pins.items() if not pin.deleted}


# What each reader says. A row is (title, description, caption, caption_recipe).

Row = tuple[str | None, str | None, str | None, str | None]


def of_view(conn: sqlite3.Connection) -> dict[str, Row]:
    sql = "SELECT pin_id, title, description, caption, caption_recipe FROM enriched_features"
    return {row[0]: tuple(row)[1:] for row in conn.execute(sql)}


def of_export(conn: sqlite3.Connection, recipe: str | None) -> dict[str, Row]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with one_moment(conn):
            write_features(conn, folder, recipe_id=recipe)
        rows = [
            row
            for path in sorted(folder.glob("features/*.parquet"))
            for row in pq.read_table(path).to_pylist()
        ]
    return rows_by_pin(rows)


def of_pictures(conn: sqlite3.Connection, recipe: str | None) -> dict[str, Row]:
    return {
        pin.pin_id: (pin.title, pin.description, pin.caption, pin.caption_recipe)
        for pin in described_pins(conn, recipe)
    }


def rows_by_pin(rows: list[dict[str, Any]]) -> dict[str, Row]:
    by_pin = {
        row["pin_id"]: (row["title"], row["description"], row["caption"], row["caption_recipe"])
        for row in rows
    }
    assert len(by_pin) == len(rows)
    return by_pin


@settings(max_examples=12)
@given(pins=stores, recipe_id=st.sampled_from(sorted(RECIPES)))
def test_view_export_and_dataset_show_the_same_texts(
    store: sqlite3.Connection, pins: dict[str, Pin], recipe_id: str
) -> None:
    wanted = {
        pin_id: (title_of(pin), description_of(pin), *current(pin)) for pin_id, pin in left(pins).items()
    }
    of_recipe = {
        pin_id: (title_of(pin), description_of(pin), *forced(pin, recipe_id))
        for pin_id, pin in left(pins).items()
    }
    # `--recipe` takes a recipe that has captions, whatever became of their pins.
    exists = any(
        pin.captions.get(recipe_id, Caption("failed", "", None, "")).status == "ok" for pin in pins.values()
    )
    fill(store, pins)
    assert of_view(store) == wanted
    assert of_export(store, None) == wanted
    assert of_pictures(store, None) == wanted
    features = EnrichedFeatures(path_of(store))
    assert rows_by_pin(features.__getitems__(range(len(features)))) == wanted
    if exists:
        assert of_export(store, recipe_id) == of_recipe
        assert of_pictures(store, recipe_id) == of_recipe
        features = EnrichedFeatures(path_of(store), recipe=recipe_id)
        assert rows_by_pin(features.__getitems__(range(len(features)))) == of_recipe


@settings(max_examples=40)
@given(pins=stores)
def test_coverage_counts_what_the_reference_counts(store: sqlite3.Connection, pins: dict[str, Pin]) -> None:
    here = left(pins).values()
    states = [state(pin) for pin in here]
    reasons: dict[str, dict[str, int]] = {"rejected": {}, "failed": {}}
    for pin in here:
        if state(pin) in reasons:
            recipe_id = newest(pin.captions)
            assert recipe_id
            reason = f"{state(pin)} because of {pin.captions[recipe_id].text}"
            reasons[state(pin)][reason] = reasons[state(pin)].get(reason, 0) + 1
    wanted = {
        "pins": len(here),
        "products": sum(pin.kind == "product" for pin in here),
        "title": sum(title_of(pin) is not None for pin in here),
        "description": sum(description_of(pin) is not None for pin in here),
        "native_text": sum(map(is_native, here)),
        "caption": states.count("ok") + states.count("person"),
        "by_people": states.count("person"),
        "by_people_image_changed": sum(state(pin) == "person" and pin.image_sha256 != "one" for pin in here),
        "only_caption": sum(current(pin)[0] is not None and not is_native(pin) for pin in here),
        "board_titles": sum(bool(pin.titles) for pin in here),
        "engaged_queries": sum(bool(pin.queries) for pin in here),
        "any_text": sum(
            is_native(pin) or current(pin)[0] is not None or bool(pin.titles) or bool(pin.queries)
            for pin in here
        ),
        "rejected": states.count("rejected"),
        "failed": states.count("failed"),
        "stale": states.count("stale"),
        "waiting": sum(description_of(pin) is None and state(pin) == "none" for pin in here),
        "reasons": reasons,
    }
    fill(store, pins)
    counts = coverage(store)
    assert {name: counts[name] for name in wanted} == wanted
    assert tried_in_vain(store) == {name: wanted[name] for name in ("rejected", "failed", "stale")}


@settings(max_examples=40)
@given(pins=stores, recipes=st.permutations(sorted(RECIPES)).map(lambda ids: ids[:2]))
def test_samples_are_drawn_of_current_captions_of_models(
    store: sqlite3.Connection, pins: dict[str, Pin], recipes: list[str]
) -> None:
    here = left(pins)
    wanted = {
        pin_id: (*current(pin), "with" if is_native(pin) else "without")
        for pin_id, pin in here.items()
        if current(pin)[1] and not pin.by_person
    }
    pairs = {
        pin_id: tuple(forced(pin, recipe_id)[0] for recipe_id in recipes) for pin_id, pin in here.items()
    }
    options = SampleOptions(n=100, raters=1, duplicates=0)
    fill(store, pins)
    if wanted:
        sample = draw(store, replace(options, stratify="native_text"))
        items = {item.pin_id: (item.caption, item.recipe_id, item.stratum) for item in sample.items}
        assert (items, len(sample.items)) == (wanted, len(wanted))
        assert sample.excluded.get("by_people", 0) == sum(bool(pin.by_person) for pin in here.values())
    else:
        with pytest.raises(SampleError):
            draw(store, options)
    try:
        comparison = draw_pairs(store, options, *recipes)
    except (SampleError, StoreError):  # one of the recipes has no caption, or no pin has two that differ
        differ = {}
    else:
        differ = {item.pin_id: (item.caption, item.other_caption) for item in comparison.items}
        assert comparison.excluded == {"equal": sum(a == b and a is not None for a, b in pairs.values())}
    assert differ == {
        pin_id: pair for pin_id, pair in pairs.items() if None not in pair and len(set(pair)) == 2
    }


@settings(max_examples=40)
@given(pins=stores)
def test_the_copy_that_browse_searches_shows_the_same(
    store: sqlite3.Connection, index: sqlite3.Connection, pins: dict[str, Pin]
) -> None:
    fill(store, pins)
    refresh(index)
    rows = index.execute("SELECT pin_id, title, description, caption, status FROM pins").fetchall()
    assert {row["pin_id"]: tuple(row)[1:] for row in rows} == {
        pin_id: (
            title_of(pin),
            description_of(pin),
            current(pin)[0],
            "by a person" if state(pin) == "person" else state(pin),
        )
        for pin_id, pin in left(pins).items()
    }


@settings(max_examples=40)
@given(pins=stores, recipe=st.sampled_from([FIRST, SECOND]), retry_failed=st.booleans())
def test_a_run_selects_the_pins_that_have_no_caption_of_its_recipe(
    store: sqlite3.Connection, pins: dict[str, Pin], recipe: Recipe, retry_failed: bool
) -> None:
    fill(store, pins)
    for select in SELECTIONS:
        wanted = selected(left(pins), recipe, select, retry_failed)
        work = Claims(store, recipe, select, retry_failed=retry_failed)
        assert work.count() == len(wanted)
        claimed = [pin for _ in range(8) for pin in work.claim(3)]
        assert {pin.pin_id: (pin.recipe_id, pin.prompt) for pin in claimed} == {
            pin_id: (own.recipe_id, own.prompt) for pin_id, own in wanted.items()
        }
        assert len(claimed) == len(wanted)
        work.release()
