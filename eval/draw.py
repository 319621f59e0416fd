"""Draws a sample: which captions people judge, and in which order each rater meets them.

The draw depends only on the seed and the ids of the pins: the same seed on the same store gives the same
sample, its ids included.
"""

from __future__ import annotations

import hashlib
import heapq
import json
import math
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from ..common.terminal import plural
from ..store import Connection, one_moment
from ..store.recipes import find_recipe
from . import stored
from .items import Allocation, Item, Sample, SampleError, SampleOptions, SheetRow, Stratum
from .shares import size_for_margin

# An item and its repeat lie at least this far apart, as a share of the sheet.
REPEAT_DISTANCE = 0.25
# Ids are made of these letters: they spell no word, and no spreadsheet program takes them for a number or a
# date.
_LETTERS = "bcdfghjklmnpqrstvwxz"


def draw(conn: Connection, options: SampleOptions, *, gold: Sequence[Item] = ()) -> Sample:
    """Draws current captions to be judged; `gold` items are added to every sheet. Raises SampleError."""
    with one_moment(conn):
        return _draw(conn, stored.caption_frame(conn), options, gold)


def draw_pairs(conn: Connection, options: SampleOptions, recipe: str, other: str) -> Sample:
    """Draws pins that two recipes captioned differently, to be compared.

    Pairs of equal captions need no judge: they are only counted, in `excluded`. Raises SampleError, and
    StoreError for a recipe that the store does not have.
    """
    first, second = find_recipe(conn, recipe), find_recipe(conn, other)
    if first == second:
        raise SampleError(f"{recipe} and {other} are the same recipe: a comparison needs two")
    with one_moment(conn):
        return _draw(conn, stored.pair_frame(conn, first, second), options, ())


def allocate(captions: Mapping[Any, int], n: int, allocation: Allocation = "equal") -> dict[Any, int]:
    """How many items to draw from each stratum, given how many `captions` each has.

    They are `n` in all, or everything there is. `n` must be at least the number of strata, because every
    stratum gets at least one item.
    """
    total = sum(captions.values())
    if n >= total:
        return dict(captions)
    if allocation == "proportional":
        wanted = {name: n * size / total for name, size in captions.items()}
        items = {name: max(1, math.floor(share)) for name, share in wanted.items()}
        while lacking := n - sum(items.values()):  # largest remainder
            step = 1 if lacking > 0 else -1
            able = [name for name in items if 1 <= items[name] + step <= captions[name]]
            items[max(able, key=lambda name: step * (wanted[name] - items[name]))] += step
        return items
    items, left = {}, n
    # Small strata first, so that the items they cannot fill go to the larger ones.
    for i, name in enumerate(sorted(captions, key=lambda name: captions[name])):
        items[name] = min(captions[name], left // (len(captions) - i))
        left -= items[name]
    return {name: items[name] for name in captions}


def _draw(conn: Connection, frame: stored.Frame, options: SampleOptions, gold: Sequence[Item]) -> Sample:
    column = options.stratify
    _check_column(column, frame)
    captions = frame.captions_by_stratum(conn, column)
    if not captions:
        raise SampleError(_why_empty(frame))
    n = options.n
    if options.margin is not None:
        n = _items_for(options.margin, captions, options.allocation)
    if len(captions) > n:
        raise SampleError(
            f"{column} has {len(captions):,} values, more than {n:,} items could tell anything about: "
            f"use --n {2 * len(captions)} or more, or another column"
        )
    items_of = allocate(captions, n, options.allocation)
    strata = [Stratum(name, size, items_of[name]) for name, size in captions.items()]
    items = _drawn_items(conn, frame, strata, options)
    items += [Item(**asdict(one) | {"item": len(items) + i}) for i, one in enumerate(gold, 1)]
    recorded = {name: value for name, value in asdict(options).items() if name not in ("n", "margin")}
    recorded |= {"n": sum(items_of.values()), "margin": options.margin, **frame.parameters}
    everything = [
        frame.kind,
        recorded,
        [asdict(stratum) for stratum in strata],
        frame.excluded,
        [asdict(item) | {"image": None} for item in items],
    ]
    content = json.dumps(everything, sort_keys=True)
    # Orders, sides and ids depend on digests of images and ids of pins, which no sheet contains. So a rater
    # who has a sheet and this source code still cannot find out which rows are repeats.
    secret = hashlib.sha256(f"secret {content}".encode()).hexdigest()
    raters = [f"rater-{i + 1}" for i in range(options.raters)]
    rows = [
        row
        for rater in raters
        for row in _sheet_rows(secret, rater, items, options, frame.kind == "comparison")
    ]
    return Sample(letters(content, 8), frame.kind, recorded, strata, frame.excluded, items, rows)


def _check_column(column: str | None, frame: stored.Frame) -> None:
    if column is not None and column not in {**stored.STRATA, "caption_recipe": ""}:
        raise SampleError(f"--stratify takes {', '.join(stored.STRATA)} or caption_recipe, not {column}")
    if column == "caption_recipe" and frame.kind == "comparison":
        raise SampleError(
            "--stratify caption_recipe makes no sense where two recipes are compared: use another column"
        )


def _why_empty(frame: stored.Frame) -> str:
    if frame.kind == "captions":
        if by_people := frame.excluded.get("by_people"):
            return (
                f"no model has written a caption to judge ({plural(by_people, 'caption')} by people are not "
                "judged): `captioner run` makes some"
            )
        return "the store has no current caption to judge: `captioner run` makes some"
    equal = frame.excluded["equal"]
    return (
        f"no pin has two captions that differ{f' ({equal:,} are equal)' if equal else ''}: "
        "caption the same pins with both recipes first"
    )


def _drawn_items(
    conn: Connection, frame: stored.Frame, strata: Sequence[Stratum], options: SampleOptions
) -> list[Item]:
    """Of each stratum, the pins whose ids have the smallest keyed digests: a random draw that can be
    repeated.
    """
    key = hashlib.blake2b(str(options.seed).encode(), digest_size=16).digest()
    items_of = {stratum.name: stratum.items for stratum in strata}

    def keyed(pin_ids: Iterator[str]) -> Iterator[tuple[bytes, str]]:
        for pin_id in pin_ids:
            yield hashlib.blake2b(pin_id.encode(), digest_size=8, key=key).digest(), pin_id

    drawn = {
        name: [pin_id for _, pin_id in heapq.nsmallest(items_of[name], keyed(pin_ids))]
        for name, pin_ids in frame.pins_by_stratum(conn, options.stratify)
    }
    items: list[Item] = []
    for stratum in strata:
        for pin_id in drawn[stratum.name]:
            fields = frame.item_of(conn, pin_id)
            items.append(Item(len(items) + 1, stratum=stratum.name, weight=stratum.weight, **fields))
    return items


def _items_for(margin: float, captions: Mapping[Any, int], allocation: Allocation) -> int:
    """The size of the smallest sample whose interval stays within the margin.

    Uneven weights make the effective size smaller than the sample; this is taken into account. Returns the
    number of all captions if no sample is large enough.
    """
    wanted, low, high = size_for_margin(margin), len(captions), sum(captions.values())
    while low < high:
        n = (low + high) // 2
        items = allocate(captions, n, allocation)
        sum_of_squares = sum(size**2 / items[name] for name, size in captions.items())
        if sum(captions.values()) ** 2 >= wanted * sum_of_squares:
            high = n
        else:
            low = n + 1
    return low


def _sheet_rows(
    secret: str, rater: str, items: Sequence[Item], options: SampleOptions, pairs: bool
) -> list[SheetRow]:
    """The rows of one rater: all items in the rater's own order, some of them again well after the first
    time.
    """
    rng = random.Random(f"{secret} {rater}")
    order: list[tuple[float, Item, bool]] = [
        (float(i), item, False) for i, item in enumerate(rng.sample(items, len(items)))
    ]
    repeats = math.floor(options.duplicates * sum(not item.is_gold for item in items) + 0.5)
    distance = REPEAT_DISTANCE * (len(order) + repeats)
    repeatable = [
        (place, item) for place, item, _ in order if not item.is_gold and place + distance < len(order) - 1
    ]
    for place, item in rng.sample(repeatable, min(len(repeatable), repeats)):
        order.append((rng.uniform(place + distance, len(order)), item, True))
    order.sort(key=lambda placed: placed[0])
    return [
        SheetRow(
            item_id=letters(f"{secret} {rater} {item.item} {is_repeat}", 12),
            rater=rater,
            position=position,
            item=item.item,
            is_repeat=is_repeat,
            swapped=pairs and rng.random() < 0.5,
        )
        for position, (_, item, is_repeat) in enumerate(order, 1)
    ]


def letters(text: str, n: int) -> str:
    """A digest of `text` as `n` letters: an id of a sample or of a row of a sheet."""
    number, letters = int.from_bytes(hashlib.sha256(text.encode()).digest(), "big"), ""
    for _ in range(n):
        number, letter = divmod(number, len(_LETTERS))
        letters += _LETTERS[letter]
    return letters
