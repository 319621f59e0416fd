"""Which captions people are to judge, in which order each of them: drawn at random by strata, and recorded in
the store.

The draw depends on the seed and the ids of the pins alone: the same seed on the same store gives the same
sample, its ids included.
"""

from __future__ import annotations

import hashlib
import heapq
import itertools
import json
import math
import random
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from ..common.errors import PincaptionError
from ..store import rules
from ..store.connection import now, one_moment, transaction
from ..store.recipes import find_recipe
from ..store.runs import finish_run, start_run
from ..store.stats import tried_in_vain
from .shares import Z, effective_size, size_for_margin

STRATA = {  # what --stratify may name, as SQL over pins p
    "kind": "p.kind",
    "category": "nullif(trim(p.category), '')",
    "locale": "nullif(trim(p.locale), '')",
    "native_text": f"CASE WHEN {rules.has_native_text()} THEN 'with' ELSE 'without' END",
}
SECONDS_PER_ITEM = 20.0  # what a rater takes, as long as the store knows no better
REPEAT_DISTANCE = 0.25  # of the sheet lies at least between an item and its repeat
# Ids are made of letters that spell nothing and that no spreadsheet program takes for a number or a date.
_LETTERS = "bcdfghjklmnpqrstvwxz"

# The frame: pins with a current caption; for a comparison, pins that two recipes captioned differently.
_CAPTIONS = """
    FROM enriched_features e JOIN pins p ON p.pin_id = e.pin_id WHERE e.caption IS NOT NULL"""
_CAPTION = "SELECT e.pin_id, e.caption_recipe AS recipe_id, e.caption, NULL AS other_recipe_id, NULL AS other_caption, p.image, p.image_sha256 FROM enriched_features e JOIN pins p ON p.pin_id = e.pin_id"
_BOTH = f"""
    FROM pins p JOIN captions a ON a.pin_id = p.pin_id AND a.recipe_id = :a AND {rules.is_valid("a")}
    JOIN captions b ON b.pin_id = p.pin_id AND b.recipe_id = :b AND {rules.is_valid("b")}
    WHERE p.deleted_at IS NULL"""
_PAIR = "SELECT p.pin_id, a.recipe_id, a.text AS caption, b.recipe_id AS other_recipe_id, b.text AS other_caption, p.image, p.image_sha256"


class SampleError(PincaptionError):
    """No sample can be drawn or written; the message says why and what to do."""


@dataclass(frozen=True)
class SampleOptions:
    """How to draw. `margin` takes the place of `n`: as many items as a 95% interval takes to reach at most so
    far to each side.

    `allocation` equal: as many items of every stratum, as far as it has them; proportional: as many as is its
    share. `duplicates` is the share of items that each rater gets a second time.
    """

    n: int = 200
    margin: float | None = None
    raters: int = 3
    stratify: str | None = None
    allocation: Literal["equal", "proportional"] = "equal"
    duplicates: float = 0.05
    seed: int = 0


@dataclass(frozen=True)
class Stratum:
    """`captions` in the store, `items` drawn of them; each stands for `weight` captions."""

    name: str | None
    captions: int
    items: int

    @property
    def weight(self) -> float:
        return self.captions / self.items


@dataclass(frozen=True)
class Item:
    """A row of `sample_items`: a caption to judge, or two; `weight` None for gold."""

    item: int
    pin_id: str
    stratum: str | None
    weight: float | None
    recipe_id: str | None
    caption: str
    other_recipe_id: str | None = None
    other_caption: str | None = None
    image: str | None = None
    image_sha256: str | None = None
    gold_relevance: str | None = None
    gold_quality: str | None = None


@dataclass(frozen=True)
class SheetRow:
    """A row of `sheet_rows`: an item where a rater meets it."""

    item_id: str
    rater: str
    position: int
    item: int
    is_repeat: bool
    swapped: bool


@dataclass(frozen=True)
class Sample:
    """What was drawn. `beside` counts the pins that were tried and are not in the frame."""

    sample_id: str
    kind: Literal["captions", "comparison"]
    options: dict[str, Any]
    strata: list[Stratum]
    beside: dict[str, int]
    items: list[Item]
    rows: list[SheetRow] = field(repr=False)

    @property
    def raters(self) -> list[str]:
        return list(dict.fromkeys(row.rater for row in self.rows))

    @property
    def margin(self) -> float:
        """How far the 95% interval of a share of one half reaches to each side: no share's reaches farther."""
        weights = [s.weight for s in self.strata for _ in range(s.items)]
        return Z / 2 / math.sqrt(effective_size(weights))


def draw(conn: sqlite3.Connection, options: SampleOptions, *, gold: Sequence[Item] = ()) -> Sample:
    """Draws current captions to be judged. Raises SampleError."""
    with one_moment(conn):
        return _draw(
            conn,
            options,
            "captions",
            _CAPTIONS,
            _CAPTION + " WHERE e.pin_id = :pin_id",
            {},
            tried_in_vain(conn),
            gold,
        )


def draw_pairs(conn: sqlite3.Connection, options: SampleOptions, recipe: str, other: str) -> Sample:
    """Draws pins that two recipes captioned, to be compared.

    Equal captions need nobody: they are counted in `beside`. Raises SampleError.
    """
    recipes = {"a": find_recipe(conn, recipe), "b": find_recipe(conn, other)}
    if recipes["a"] == recipes["b"]:
        raise SampleError(f"{recipe} and {other} are the same recipe: a comparison takes two")
    with one_moment(conn):
        same = conn.execute(f"SELECT count(*) {_BOTH} AND a.text = b.text", recipes).fetchone()[0]
        return _draw(
            conn,
            options,
            "comparison",
            f"{_BOTH} AND a.text <> b.text",
            f"{_PAIR} {_BOTH} AND p.pin_id = :pin_id",
            recipes,
            {"equal": same},
            (),
        )


def stored(conn: sqlite3.Connection, sample_id: str) -> Sample:
    """A sample as it was recorded. Raises SampleError where there is none of that id."""
    row = conn.execute("SELECT * FROM samples WHERE sample_id = ?", [sample_id]).fetchone()
    if row is None:
        raise SampleError(f"the store has no sample {sample_id}")
    names = Item.__dataclass_fields__
    items = [
        Item(**{name: found[name] for name in names})
        for found in conn.execute("SELECT * FROM sample_items WHERE sample_id = ? ORDER BY item", [sample_id])
    ]
    rows = [
        SheetRow(
            found["item_id"],
            found["rater"],
            found["position"],
            found["item"],
            bool(found["is_repeat"]),
            bool(found["swapped"]),
        )
        for found in conn.execute("SELECT * FROM sheet_rows WHERE sample_id = ? ORDER BY rowid", [sample_id])
    ]
    strata = [Stratum(s["stratum"], s["captions"], s["items"]) for s in json.loads(row["strata"])]
    return Sample(
        sample_id, row["kind"], json.loads(row["options"]), strata, json.loads(row["beside"]), items, rows
    )


def seconds_per_item(conn: sqlite3.Connection) -> float:
    """What raters of this store took so far, as a median, or an assumption."""
    took = [row[0] for row in conn.execute("SELECT seconds FROM ratings WHERE seconds > 0 ORDER BY seconds")]
    return float(took[len(took) // 2]) if len(took) >= 20 else SECONDS_PER_ITEM


def allocate(captions: Mapping[Any, int], n: int, allocation: str = "equal") -> dict[Any, int]:
    """How many items to draw of each stratum: `n` in all, or everything there is; every stratum gets one at
    least. `n` is at least the number of strata.
    """
    if n >= sum(captions.values()):
        return dict(captions)
    if allocation == "proportional":
        wanted = {name: n * size / sum(captions.values()) for name, size in captions.items()}
        items = {name: max(1, math.floor(share)) for name, share in wanted.items()}
        while lacking := n - sum(items.values()):  # by largest remainder
            step = 1 if lacking > 0 else -1
            able = [name for name in items if 1 <= items[name] + step <= captions[name]]
            items[max(able, key=lambda name: step * (wanted[name] - items[name]))] += step
        return items
    items, left = {}, n
    for i, name in enumerate(sorted(captions, key=lambda name: captions[name])):
        # small strata first: what they lack goes to the others
        items[name] = min(captions[name], left // (len(captions) - i))
        left -= items[name]
    return {name: items[name] for name in captions}


def _draw(
    conn: sqlite3.Connection,
    options: SampleOptions,
    kind: Any,
    frame: str,
    one: str,
    parameters: dict[str, Any],
    beside: dict[str, int],
    gold: Sequence[Item],
) -> Sample:
    column = options.stratify
    if column is not None and column not in {**STRATA, "caption_recipe": ""}:
        raise SampleError(f"--stratify takes {', '.join(STRATA)} or caption_recipe, not {column}")
    if column == "caption_recipe" and kind == "comparison":
        raise SampleError(
            "--stratify caption_recipe tells nothing where two recipes are compared: take another column"
        )
    stratum = {"caption_recipe": "e.caption_recipe"}.get(column or "", STRATA.get(column or "", "NULL"))
    sizes = dict(
        conn.execute(
            f"SELECT {stratum} AS stratum, count(*) {frame} GROUP BY 1 ORDER BY 2 DESC, 1", parameters
        ).fetchall()
    )
    if not sizes:
        if kind == "comparison":
            raise SampleError(
                f"no pin has two captions that differ{' (' + format(beside['equal'], ',') + ' are equal)' if beside['equal'] else ''}: caption the same pins with both recipes first"
            )
        raise SampleError("the store has no current caption to judge: `captioner run` makes some")
    n = options.n if options.margin is None else _items_for(options.margin, sizes, options.allocation)
    if len(sizes) > n:
        raise SampleError(
            f"{column} has {len(sizes):,} values, more than {n:,} items could tell anything about: take --n {2 * len(sizes)} or more, or another column"
        )
    items_of = allocate(sizes, n, options.allocation)
    key = hashlib.blake2b(str(options.seed).encode(), digest_size=16).digest()
    strata, chosen = (
        [Stratum(name, size, items_of[name]) for name, size in sizes.items()],
        dict[Any, list[str]](),
    )
    order = " ORDER BY 1" if column else ""  # one stratum after the other: then few ids are held at a time
    for name, rows in itertools.groupby(
        conn.execute(f"SELECT {stratum} AS stratum, p.pin_id {frame}{order}", parameters),
        key=lambda row: row[0],
    ):
        keyed = ((hashlib.blake2b(row[1].encode(), digest_size=8, key=key).digest(), row[1]) for row in rows)
        chosen[name] = [pin_id for _, pin_id in heapq.nsmallest(items_of[name], keyed)]
    items: list[Item] = []
    for s in strata:
        for pin_id in chosen[s.name]:
            row = conn.execute(one, parameters | {"pin_id": pin_id}).fetchone()
            items.append(Item(len(items) + 1, stratum=s.name, weight=s.weight, **dict(row)))
    items += [Item(**asdict(g) | {"item": len(items) + i}) for i, g in enumerate(gold, 1)]
    said = {name: value for name, value in asdict(options).items() if name not in ("n", "margin")} | {
        "n": sum(items_of.values()),
        "margin": options.margin,
        **parameters,
    }
    content = json.dumps(
        [kind, said, [asdict(s) for s in strata], beside, [asdict(item) | {"image": None} for item in items]],
        sort_keys=True,
    )
    sample_id = letters(content, 8)
    # Orders, sides and ids come from what no sheet tells (digests of images, ids of pins): who has a sheet
    # and this file cannot find the repeats.
    secret = hashlib.sha256(f"secret {content}".encode()).hexdigest()
    rows_of = [
        row
        for i in range(options.raters)
        for row in _sheet(secret, f"rater-{i + 1}", items, options, kind == "comparison")
    ]
    return Sample(sample_id, kind, said, strata, beside, items, rows_of)


def _items_for(margin: float, sizes: Mapping[Any, int], allocation: str) -> int:
    """The smallest sample whose effective size, after what uneven weights cost, allows the margin; all
    captions if none does.
    """
    wanted, low, high = size_for_margin(margin), len(sizes), sum(sizes.values())
    while low < high:
        n = (low + high) // 2
        items = allocate(sizes, n, allocation)
        if sum(sizes.values()) ** 2 >= wanted * sum(size**2 / items[name] for name, size in sizes.items()):
            high = n
        else:
            low = n + 1
    return low


def _sheet(
    secret: str, rater: str, items: Sequence[Item], options: SampleOptions, pairs: bool
) -> list[SheetRow]:
    """A rater's rows: all items in an order of the rater's own, some a second time well after the first."""
    rng = random.Random(f"{secret} {rater}")
    order: list[tuple[float, Item, bool]] = [
        (float(i), item, False) for i, item in enumerate(rng.sample(items, len(items)))
    ]
    repeats = math.floor(options.duplicates * sum(item.weight is not None for item in items) + 0.5)
    distance = REPEAT_DISTANCE * (len(order) + repeats)
    drawn = [
        (place, item)
        for place, item, _ in order
        if item.weight is not None and place + distance < len(order) - 1
    ]
    for place, item in rng.sample(drawn, min(len(drawn), repeats)):
        order.append((rng.uniform(place + distance, len(order)), item, True))
    order.sort(key=lambda placed: placed[0])
    return [
        SheetRow(
            letters(f"{secret} {rater} {item.item} {repeat}", 12),
            rater,
            i,
            item.item,
            repeat,
            pairs and rng.random() < 0.5,
        )
        for i, (_, item, repeat) in enumerate(order, 1)
    ]


def letters(text: str, n: int) -> str:
    """A digest of `text` in `n` letters."""
    number, found = int.from_bytes(hashlib.sha256(text.encode()).digest(), "big"), ""
    for _ in range(n):
        number, letter = divmod(number, len(_LETTERS))
        found += _LETTERS[letter]
    return found


def record(conn: sqlite3.Connection, sample: Sample) -> None:
    """Writes the sample into the store, all or nothing; one that is there already stays."""
    if conn.execute("SELECT 1 FROM samples WHERE sample_id = ?", [sample.sample_id]).fetchone():
        return
    run_id = start_run(
        conn, {"captions": "eval sample", "comparison": "eval compare"}[sample.kind], sample.options
    )
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
            json.dumps(sample.beside),
            now(),
            run_id,
        ]
        conn.execute("INSERT OR IGNORE INTO samples VALUES (?, ?, ?, ?, ?, ?, ?)", values)
        _insert(conn, "sample_items", sample.sample_id, sample.items)
        _insert(conn, "sheet_rows", sample.sample_id, sample.rows)
    finish_run(
        conn, run_id, {"sample_id": sample.sample_id, "items": len(sample.items), "rows": len(sample.rows)}
    )


def _insert(conn: sqlite3.Connection, table: str, sample_id: str, rows: Iterable[Any]) -> None:
    rows = [
        {"sample_id": sample_id} | {name: getattr(row, name) for name in row.__dataclass_fields__}
        for row in rows
    ]
    conn.executemany(
        f"INSERT OR IGNORE INTO {table} ({', '.join(rows[0])}) VALUES ({', '.join(f':{name}' for name in rows[0])})",
        rows,
    )
