"""What eval reads from the store and writes to it: frames to draw from, samples, sheet rows and ratings.

All SQL of this package is here.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, TypedDict, cast

from ..store import Connection, rules, transaction
from ..store.connection import now
from ..store.runs import finish_run, start_run
from ..store.stats import captions_by_people, tried_in_vain
from .items import Item, Sample, SampleError, SheetRow, Stratum
from .questions import Kind

STRATA = {  # what --stratify may name, as SQL over pins p
    "kind": "p.kind",
    "category": "nullif(trim(p.category), '')",
    "locale": "nullif(trim(p.locale), '')",
    "native_text": f"CASE WHEN {rules.has_native_text()} THEN 'with' ELSE 'without' END",
}
SECONDS_PER_ITEM = 20.0  # assumed until raters have answered ENOUGH_TIMES rows
ENOUGH_TIMES = 20

# The frame: pins whose current caption a model wrote; for a comparison, pins that two recipes captioned
# differently.
_CAPTIONS = f"""
    FROM enriched_features e JOIN pins p ON p.pin_id = e.pin_id
    WHERE e.caption IS NOT NULL AND e.caption_recipe <> '{rules.PERSON}'"""
_CAPTION = """
    SELECT e.pin_id, e.caption_recipe AS recipe_id, e.caption, NULL AS other_recipe_id, NULL AS other_caption,
        p.image, p.image_sha256
    FROM enriched_features e JOIN pins p ON p.pin_id = e.pin_id"""
_BOTH = f"""
    FROM pins p
    JOIN captions a ON a.pin_id = p.pin_id AND a.recipe_id = :a AND {rules.is_valid("a")}
    JOIN captions b ON b.pin_id = p.pin_id AND b.recipe_id = :b AND {rules.is_valid("b")}
    WHERE p.deleted_at IS NULL"""
_PAIR = """
    SELECT p.pin_id, a.recipe_id, a.text AS caption, b.recipe_id AS other_recipe_id, b.text AS other_caption,
        p.image, p.image_sha256"""


@dataclass(frozen=True)
class Frame:
    """Everything that a sample can be drawn from, as SQL; `excluded` counts what it cannot be drawn from."""

    kind: Kind
    pins: str  # FROM ... WHERE ...: the pins of the frame
    item: str  # SELECT of the item of one pin, :pin_id
    parameters: dict[str, str]
    excluded: dict[str, int]

    def captions_by_stratum(self, conn: Connection, column: str | None) -> dict[str | None, int]:
        """How many pins of the frame each stratum has, the largest first."""
        sql = f"SELECT {_stratum(column)} AS stratum, count(*) {self.pins} GROUP BY 1 ORDER BY 2 DESC, 1"
        return dict(conn.execute(sql, self.parameters).fetchall())

    def pins_by_stratum(
        self, conn: Connection, column: str | None
    ) -> Iterator[tuple[str | None, Iterator[str]]]:
        """The pin_ids of each stratum. Read each stratum before you ask for the next one."""
        # One stratum after the other, so that the caller holds the ids of one stratum at a time.
        order = " ORDER BY 1" if column else ""
        sql = f"SELECT {_stratum(column)} AS stratum, p.pin_id {self.pins}{order}"
        by_stratum = itertools.groupby(conn.execute(sql, self.parameters), key=lambda row: row[0])
        for stratum, rows in by_stratum:
            yield stratum, (row[1] for row in rows)

    def item_of(self, conn: Connection, pin_id: str) -> dict[str, Any]:
        """The fields of `Item` that the store knows of a pin."""
        return dict(conn.execute(self.item, self.parameters | {"pin_id": pin_id}).fetchone())


def _stratum(column: str | None) -> str:
    return "e.caption_recipe" if column == "caption_recipe" else STRATA.get(column or "", "NULL")


def caption_frame(conn: Connection) -> Frame:
    """The current captions of the store that models wrote."""
    one = f"{_CAPTION} WHERE e.pin_id = :pin_id"
    excluded = tried_in_vain(conn)
    if by_people := captions_by_people(conn):  # else left out, so that a sample has the id that it always had
        excluded["by_people"] = by_people
    return Frame("captions", _CAPTIONS, one, {}, excluded)


def pair_frame(conn: Connection, recipe: str, other: str) -> Frame:
    """The pins that two recipes (ids) captioned differently."""
    recipes = {"a": recipe, "b": other}
    equal = conn.execute(f"SELECT count(*) {_BOTH} AND a.text = b.text", recipes).fetchone()[0]
    one = f"{_PAIR} {_BOTH} AND p.pin_id = :pin_id"
    return Frame("comparison", f"{_BOTH} AND a.text <> b.text", one, recipes, {"equal": equal})


class CurrentCaption(TypedDict):
    """A pin's current caption (None: it has none) and its image."""

    caption: str | None
    caption_recipe: str | None
    image: str | None
    image_sha256: str | None


def current_caption(conn: Connection, pin_id: str) -> CurrentCaption | None:
    """The current caption of a pin. None: the store has no such pin."""
    sql = "SELECT caption, caption_recipe, image, image_sha256 FROM enriched_features WHERE pin_id = ?"
    row = conn.execute(sql, [pin_id]).fetchone()
    return cast(CurrentCaption, dict(row)) if row else None


def record(conn: Connection, sample: Sample) -> None:
    """Writes a sample into the store, all of it or nothing. A sample that is there already is left alone."""
    if conn.execute("SELECT 1 FROM samples WHERE sample_id = ?", [sample.sample_id]).fetchone():
        return
    command = {"captions": "eval sample", "comparison": "eval compare"}[sample.kind]
    run_id = start_run(conn, command, sample.options)
    strata = [
        {"stratum": s.name, "captions": s.captions, "items": s.items, "weight": s.weight}
        for s in sample.strata
    ]
    with transaction(conn):
        values = [
            sample.sample_id,
            sample.kind,
            json.dumps(sample.options),
            json.dumps(strata, ensure_ascii=False),
            json.dumps(sample.excluded),
            now(),
            run_id,
        ]
        conn.execute("INSERT OR IGNORE INTO samples VALUES (?, ?, ?, ?, ?, ?, ?)", values)
        _insert(conn, "sample_items", sample.sample_id, sample.items)
        _insert(conn, "sheet_rows", sample.sample_id, sample.rows)
    counts = {"sample_id": sample.sample_id, "items": len(sample.items), "rows": len(sample.rows)}
    finish_run(conn, run_id, counts)


def _insert(conn: Connection, table: str, sample_id: str, rows: Iterable[Item] | Iterable[SheetRow]) -> None:
    values = [{"sample_id": sample_id} | vars(row) for row in rows]
    columns = values[0]
    conn.executemany(
        f"INSERT OR IGNORE INTO {table} ({', '.join(columns)}) "
        f"VALUES ({', '.join(f':{name}' for name in columns)})",
        values,
    )


def load_sample(conn: Connection, sample_id: str) -> Sample:
    """A sample as it was recorded. Raises SampleError if the store has none of that id."""
    sample = conn.execute("SELECT * FROM samples WHERE sample_id = ?", [sample_id]).fetchone()
    if sample is None:
        raise SampleError(f"the store has no sample {sample_id}")
    names = Item.__dataclass_fields__
    items = [
        Item(**{name: row[name] for name in names})
        for row in conn.execute("SELECT * FROM sample_items WHERE sample_id = ? ORDER BY item", [sample_id])
    ]
    rows = [
        SheetRow(
            row["item_id"],
            row["rater"],
            row["position"],
            row["item"],
            bool(row["is_repeat"]),
            bool(row["swapped"]),
        )
        for row in conn.execute("SELECT * FROM sheet_rows WHERE sample_id = ? ORDER BY rowid", [sample_id])
    ]
    strata = [Stratum(s["stratum"], s["captions"], s["items"]) for s in json.loads(sample["strata"])]
    options, excluded = json.loads(sample["options"]), json.loads(sample["beside"])
    return Sample(sample_id, sample["kind"], options, strata, excluded, items, rows)


def newest_sample(conn: Connection) -> str:
    """The id of the sample that was drawn last. Raises SampleError if there is none."""
    sql = "SELECT sample_id FROM samples ORDER BY created_at DESC, run_id DESC LIMIT 1"
    row = conn.execute(sql).fetchone()
    if row is None:
        raise SampleError("no sample was drawn from this store: `captioner eval sample` draws one")
    return str(row[0])


def sample_ids(conn: Connection) -> list[str]:
    """The ids of all samples, the oldest first."""
    return [row[0] for row in conn.execute("SELECT sample_id FROM samples ORDER BY created_at")]


def kind_of(conn: Connection, sample_id: str) -> Kind:
    """The kind of a sample that the store has."""
    row = conn.execute("SELECT kind FROM samples WHERE sample_id = ?", [sample_id]).fetchone()
    return cast(Kind, row[0])


@dataclass(frozen=True)
class SheetPlace:
    """What a row of a sheet is about: the sample, the rater, and the captions that it shows."""

    item_id: str
    sample_id: str
    rater: str
    position: int
    item: int
    is_repeat: int
    swapped: int
    pin_id: str
    caption: str
    other_caption: str | None


_PLACES = """
    SELECT s.item_id, s.sample_id, s.rater, s.position, s.item, s.is_repeat, s.swapped,
        i.pin_id, i.caption, i.other_caption
    FROM sheet_rows s JOIN sample_items i USING (sample_id, item)"""


def sheet_place(conn: Connection, item_id: str) -> SheetPlace | None:
    """The row of a sheet with this item_id, in whatever sample; None if there is none."""
    row = conn.execute(f"{_PLACES} WHERE s.item_id = ?", [item_id]).fetchone()
    return SheetPlace(**dict(row)) if row else None


def sheet_places(conn: Connection, sample_id: str) -> dict[str, SheetPlace]:
    """The rows of all sheets of a sample, by item_id."""
    rows = conn.execute(f"{_PLACES} WHERE s.sample_id = ?", [sample_id])
    return {row["item_id"]: SheetPlace(**dict(row)) for row in rows}


def add_sheet_rows(conn: Connection, places: Iterable[SheetPlace]) -> None:
    """Records rows of sheets that were answered by more people than they were written for.

    Rows that are there already are left alone. Call it inside a transaction.
    """
    conn.executemany(
        "INSERT OR IGNORE INTO sheet_rows (item_id, sample_id, rater, position, item, is_repeat, swapped) "
        "VALUES (:item_id, :sample_id, :rater, :position, :item, :is_repeat, :swapped)",
        [vars(place) for place in places],
    )


class StoredRating(TypedDict):
    """A row of `ratings`."""

    item_id: str
    sample_id: str
    rater: str
    pin_id: str
    relevance: str | None
    quality: str | None
    better: str | None
    comment: str | None
    seconds: float | None
    answered_at: str | None
    read_at: str


class PlacedRating(StoredRating):
    """A row of `ratings` with the place where it was given."""

    item: int
    is_repeat: int
    swapped: int


def ratings_by_item_id(conn: Connection, sample_id: str) -> dict[str, StoredRating]:
    """The ratings of a sample, by item_id."""
    rows = conn.execute("SELECT * FROM ratings WHERE sample_id = ?", [sample_id])
    return {row["item_id"]: cast(StoredRating, dict(row)) for row in rows}


def ratings_in_sheet_order(conn: Connection, sample_id: str) -> Iterator[PlacedRating]:
    """The ratings of a sample in the order of the sheets."""
    sql = """
        SELECT r.*, s.item, s.is_repeat, s.swapped FROM ratings r JOIN sheet_rows s USING (item_id)
        WHERE r.sample_id = ? ORDER BY s.rowid"""
    for row in conn.execute(sql, [sample_id]):
        yield cast(PlacedRating, dict(row))


def write_ratings(conn: Connection, ratings: list[StoredRating]) -> None:
    """Writes ratings; one of the same item_id is replaced. Call it inside a transaction."""
    columns = list(StoredRating.__annotations__)
    conn.executemany(
        f"INSERT OR REPLACE INTO ratings ({', '.join(columns)}) "
        f"VALUES ({', '.join(f':{name}' for name in columns)})",
        ratings,
    )


def delete_ratings(conn: Connection, item_ids: Iterable[str]) -> None:
    """Deletes the ratings of these rows of sheets. Call it inside a transaction."""
    conn.executemany("DELETE FROM ratings WHERE item_id = ?", [[item_id] for item_id in item_ids])


def seconds_per_item(conn: Connection) -> float:
    """The median of the seconds that raters of this store took for an item, or an assumption if few are
    known.
    """
    seconds = [
        row[0] for row in conn.execute("SELECT seconds FROM ratings WHERE seconds > 0 ORDER BY seconds")
    ]
    return float(seconds[len(seconds) // 2]) if len(seconds) >= ENOUGH_TIMES else SECONDS_PER_ITEM


def models_of(conn: Connection, recipe_ids: Iterable[str]) -> dict[str, str]:
    """The model of each of these recipes that the store knows, by recipe_id."""
    return {
        recipe_id: row[0]
        for recipe_id in sorted(recipe_ids)
        if (row := conn.execute("SELECT model FROM recipes WHERE recipe_id = ?", [recipe_id]).fetchone())
    }
