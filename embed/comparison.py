"""The same search twice: over the texts that people wrote themselves, and over all texts that a model reads.

```
comparison = Comparison.open("model/", "out/", "native.parquet", "items.parquet")
found = comparison.find("red mug")
print(found.without.silent, "and", found.enriched.silent, "pins that have no text of their own")
```
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ..common.terminal import OnStep, no_step
from ..filters.text import normalise
from .errors import EmbedError
from .hits import Hit
from .model import EmbeddingModel
from .search import Answer, Search

ADDED = ("caption", "board_titles", "engaged_queries")  # the fields that captioner adds to an item
HITS = 9  # of each kind, on each side
RELATED = 8  # queries
EXAMPLES, TRIED, SECONDS = 6, 40, 5.0  # examples shown; queries tried for them, and for how long


@dataclass(frozen=True)
class Side:
    """What one of the two searches found."""

    hits: dict[str, list[Hit]]  # {"pin": hits, "product": hits}, best first
    no_own_text: frozenset[str]  # pin_ids of the hits that have no text of their own

    @property
    def found(self) -> int:
        """Hits of all kinds."""
        return sum(map(len, self.hits.values()))

    @property
    def silent(self) -> int:
        """Hits that have no text of their own."""
        return len(self.no_own_text)

    @property
    def silent_with_words(self) -> int:
        """Hits that have no text of their own, but a word of the query in another text."""
        return sum(bool(hit.matches) for hit in self._silent_hits())

    @property
    def by_caption(self) -> int:
        """Hits that have no text of their own, and that only their caption made findable."""
        return sum(hit.by_caption_alone for hit in self._silent_hits())

    def _silent_hits(self) -> list[Hit]:
        return [hit for hits in self.hits.values() for hit in hits if hit.pin_id in self.no_own_text]


@dataclass(frozen=True)
class Compared:
    """Both answers to a query."""

    query: str
    without: Side  # over the items' own texts alone
    enriched: Side  # over all texts that the model reads
    related: list[str]  # queries near to this one

    @property
    def has_words(self) -> bool:
        """Whether any hit has a word of the query."""
        return any(hit.matches for hits in self.enriched.hits.values() for hit in hits)


@dataclass(frozen=True)
class Example:
    """A query to try, and how many of the `found` hits over all texts have no text of their own."""

    query: str
    silent: int
    found: int


@dataclass
class Comparison:
    """Two searches with one model. It must be used by one thread at a time."""

    without: Search
    enriched: Search

    @classmethod
    def open(
        cls,
        model: EmbeddingModel | str | Path,
        export: str | Path,
        native_items: str | Path,
        items: str | Path,
        on_step: OnStep = no_step,
    ) -> Comparison:
        """Loads both searches, with their related queries.

        `native_items` and `items`: files of `captioner embed items`, made with the fields `own_fields(model)`
        and with all fields. Raises EmbedError.
        """
        if not isinstance(model, EmbeddingModel):
            model = EmbeddingModel.load(model)
        without = Search.open(model, export, native_items, fields=own_fields(model))
        enriched = Search.open(model, export, items)
        enriched.embed_queries(on_step)
        return cls(without, enriched)

    def __post_init__(self) -> None:
        export = self.without.export
        self._has_own_text = np.zeros(len(export), bool)
        for field in self.without.fields:
            self._has_own_text[export.rows_with(field)] = True

    @property
    def added(self) -> tuple[str, ...]:
        """The fields that only the search over all texts reads."""
        return tuple(name for name in self.enriched.fields if name not in self.without.fields)

    def find(self, query: str, *, k: int = HITS, related: int = RELATED) -> Compared:
        """The best `k` items of each kind, from both searches.

        Raises EmbedError for a query without words.
        """
        without = self.without.find(query, k=k, related=0)
        enriched = self.enriched.find(query, k=k, related=related)
        near = [one.query for one in enriched.queries]
        return Compared(query, self._side(without), self._side(enriched), near)

    def examples(self, n: int = EXAMPLES, *, k: int = HITS, seconds: float = SECONDS) -> list[Example]:
        """`n` frequent queries for which the two searches differ most.

        They are chosen among the TRIED most frequent queries, or as many of these as can be tried in
        `seconds`: most hits over all texts that have no text of their own, but a word of the query in another
        text. No two of the examples have most of their words in common.
        """
        began, tried = time.perf_counter(), list[tuple[int, int, Example]]()
        for place, query in enumerate(self.enriched.frequent.texts[:TRIED]):
            if tried and time.perf_counter() - began > seconds:
                break
            found = self.find(query, k=k, related=0)
            example = Example(query, found.enriched.silent, found.enriched.found)
            tried.append((-found.enriched.silent_with_words, place, example))
        chosen = list[Example]()
        for _, _, example in sorted(tried, key=lambda one: one[:2]):
            if len(chosen) < n and not any(_alike(example.query, other.query) for other in chosen):
                chosen.append(example)
        return chosen

    def _side(self, answer: Answer) -> Side:
        pin_ids = pa.array([hit.pin_id for hits in answer.hits.values() for hit in hits], pa.string())
        export = self.without.export
        rows = np.flatnonzero(pc.is_in(export.pin_ids, value_set=pin_ids).to_numpy(zero_copy_only=False))
        silent = export.pin_ids.take(pa.array(rows[~self._has_own_text[rows]])).to_pylist()
        return Side(answer.hits, frozenset(silent))


def own_fields(model: EmbeddingModel) -> tuple[str, ...]:
    """The fields that a model reads and that captioner does not add: title, description and such.

    Raises EmbedError if the model reads none.
    """
    own = tuple(name for name in model.fields if name not in ADDED)
    if not own:
        raise EmbedError(
            f"the model reads {', '.join(model.fields)} alone, so there is no search without them to compare "
            "with: train one that reads title and description too"
        )
    return own


def _alike(query: str, other: str) -> bool:
    """Whether two queries have more than half of the words of the shorter one in common."""
    one, two = set(normalise(query).split()), set(normalise(other).split())
    return 2 * len(one & two) > min(len(one), len(two))
