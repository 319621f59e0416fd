"""What is near to a query or to an item: other queries, and other items."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import pyarrow as pa
import torch

from ..filters.text import normalise
from .errors import EmbedError
from .frequent_queries import RelatedQuery
from .hits import shown_text
from .search import Search

To = Literal["queries", "items"]


@dataclass(frozen=True)
class RelatedItem:
    """An item that is near to what was asked."""

    rank: int
    pin_id: str
    kind: str
    text: str | None  # as in a `Hit`
    text_from: str | None
    score: float  # the dot product of the two embeddings


def related_queries(
    search: Search, *, query: str | None = None, item: str | None = None, k: int = 10
) -> list[RelatedQuery]:
    """The `k` frequent queries nearest to a query, or to an item by its pin_id. Raises EmbedError."""
    vector = _vector(search, query, item)
    return search.frequent.nearest(vector, k, leave_out=normalise(query or ""))


def related_items(
    search: Search, *, query: str | None = None, item: str | None = None, k: int = 10
) -> list[RelatedItem]:
    """The `k` items that are nearest to a query, or to another item by its pin_id. Raises EmbedError."""
    allowed = search.ranking.row >= 0
    if item is not None:
        allowed[search.place_of(item)] = False
    scores, places = search.index.search(_vector(search, query, item)[None], k, allowed)
    rows = search.ranking.row[places[0]]
    pin_ids = search.export.pin_ids.take(pa.array(rows)).to_pylist()
    shown = [shown_text(texts) for texts in search.reasons.texts(rows)]
    return [
        RelatedItem(rank, pin_id, "product" if search.export.products[row] else "pin", *text, float(score))
        for rank, (pin_id, row, text, score) in enumerate(
            zip(pin_ids, rows, shown, scores[0], strict=True), 1
        )
    ]


def _vector(search: Search, query: str | None, item: str | None) -> torch.Tensor:
    if (query is None) == (item is None):
        raise EmbedError("give one of --query and --item")
    if item is not None:
        return search.vector_of(item)
    if not normalise(query or ""):
        raise EmbedError("the query has no word and no number: give it one")
    return search.vector(query or "")
