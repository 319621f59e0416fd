"""What a sample is made of: strata, items to judge, and the rows of the raters' sheets."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, Literal

from ..common.errors import PincaptionError
from .questions import Kind
from .shares import Z, effective_size

Allocation = Literal["equal", "proportional"]
Format = Literal["sheets", "label-studio"]  # what raters fill in


class SampleError(PincaptionError):
    """No sample can be drawn, found or scored. The message says why and what to do."""


@dataclass(frozen=True)
class SampleOptions:
    """How a sample is drawn.

    `n` is the number of items. If `margin` is given, it replaces `n`: the sample gets as many items as a 95%
    interval needs to reach at most `margin` to each side. `allocation` "equal" draws the same number of items
    from every stratum, as far as it has them; "proportional" draws in proportion to its size. `duplicates` is
    the share of items that each rater gets a second time.
    """

    n: int = 200
    margin: float | None = None
    raters: int = 3
    stratify: str | None = None
    allocation: Allocation = "equal"
    duplicates: float = 0.05
    seed: int = 0


@dataclass(frozen=True)
class Stratum:
    """A part of the store. It has so many `captions`, and `items` of them were drawn."""

    name: str | None
    captions: int
    items: int

    @property
    def weight(self) -> float:
        """How many captions of the store each drawn item stands for."""
        return self.captions / self.items


@dataclass(frozen=True)
class Item:
    """A row of `sample_items`: one caption to judge, or two to compare. `weight` is None for a gold item."""

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

    @property
    def is_gold(self) -> bool:
        """Whether the right answers are known: such an item tests the rater and counts in no share."""
        return self.weight is None


@dataclass(frozen=True)
class SheetRow:
    """A row of `sheet_rows`: the place of an item in one rater's sheet."""

    item_id: str
    rater: str
    position: int
    item: int
    is_repeat: bool
    swapped: bool  # in a comparison: the other caption is shown first


@dataclass(frozen=True)
class Sample:
    """What was drawn: the items, and the rows of every rater's sheet.

    `excluded` counts what the sample could not be drawn from: pins whose caption was rejected, failed, is
    stale or was written by a person; in a comparison, pairs of equal captions.
    """

    sample_id: str
    kind: Kind
    options: dict[str, Any]
    strata: list[Stratum]
    excluded: dict[str, int]
    items: list[Item]
    rows: list[SheetRow] = field(repr=False)

    @property
    def raters(self) -> list[str]:
        return list(dict.fromkeys(row.rater for row in self.rows))

    @property
    def margin(self) -> float:
        """How far the 95% interval of a share of one half reaches to each side.

        Other shares reach less far.
        """
        weights = [s.weight for s in self.strata for _ in range(s.items)]
        return Z / 2 / math.sqrt(effective_size(weights))

    def captions_of(self, row: SheetRow) -> list[str]:
        """The captions of a row in the order in which the sheet shows them."""
        item = self.items[row.item - 1]
        captions = [item.caption] if item.other_caption is None else [item.caption, item.other_caption]
        return captions[::-1] if row.swapped else captions
