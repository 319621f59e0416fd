"""Searches the items of an export by meaning and by words, and says why each item was found.

```
search = Search.open("model/", "out/", items="items.parquet")
answer = search.find("red mug", k=10)
for hit in answer.hits["pin"]:
    print(hit.rank, hit.pin_id, hit.text, hit.matches, hit.by_caption_alone)
```

A `Search` is loaded once and answers many queries.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
import torch.nn.functional as F

from ..common.terminal import OnStep, no_step, plural
from ..filters.text import normalise
from .bm25 import BM25
from .errors import EmbedError
from .frequent_queries import FrequentQueries, RelatedQuery
from .fusion import Fusion
from .hits import Hit, Reasons
from .index import Index
from .item_ranking import By, ItemRanking
from .item_vectors import ItemVectors, expect_fields, export_for, feature_column, model_digest, shown_fields
from .model import EmbeddingModel
from .reader import Export

NATIVE = ("title", "description")  # the fields of an item's own text


@dataclass(frozen=True)
class Answer:
    """What a search found."""

    query: str
    by: By
    hits: dict[str, list[Hit]]  # {"pin": hits, "product": hits}, best first
    queries: list[RelatedQuery]
    notes: list[str]  # sentences for people: what was not found, and why
    seconds: float


@dataclass
class Search:
    """Items, their vectors and their words. `open` loads it, `find` answers a query."""

    model: EmbeddingModel
    export: Export
    index: Index
    fields: tuple[str, ...]  # the text fields that count
    seconds_embedding: float | None  # that the items took, if their vectors were not in a file

    @classmethod
    def open(
        cls,
        model: EmbeddingModel | str | Path,
        export: str | Path,
        items: str | Path | None = None,
        index: str | Path | None = None,
        *,
        fields: Sequence[str] | None = None,
        on_step: OnStep = no_step,
    ) -> Search:
        """Loads a search.

        `items`: a file of `captioner embed items`, whose vectors are read into memory. `index`: a folder of
        `captioner embed index`, whose vectors stay on disk. Without both the items are embedded now.
        `fields`: only these texts count (NATIVE: an item's own), for words and for meaning; the vectors of
        `items` or `index` must have been made with the same ones. Raises EmbedError.
        """
        if items is not None and index is not None:
            raise EmbedError("give --items or --index, not both: an index has the vectors of its items")
        if not isinstance(model, EmbeddingModel):
            model = EmbeddingModel.load(model)
        data, seconds = export_for(model, export, fields), None
        shown = shown_fields(data)
        if index is not None:
            opened = Index.open(index, model)
            expect_fields(index, opened.fields, shown)
        elif items is not None:
            file = ItemVectors.open(items, model)
            expect_fields(items, file.fields, shown)
            opened = Index.in_memory(file)
        else:
            began = time.perf_counter()
            vectors = model.embed_items(data, on_step=on_step).cpu()
            seconds = time.perf_counter() - began
            kinds, categories = feature_column(data, "kind"), feature_column(data, "category")
            opened = Index(data.pin_ids, kinds, categories, vectors, model_digest(model), shown)
        return cls(model, data, opened, shown, seconds)

    def __post_init__(self) -> None:
        export = self.export
        categories = feature_column(export, "category")
        self.categories: pa.DictionaryArray = categories.dictionary_encode()
        self.fusion = Fusion.of(self.model.about)
        self.ranking = ItemRanking(export, self.index, self.fusion.weight)
        self.reasons = Reasons(export, self.fields, categories, self.fusion.kind)
        self._words: BM25 | None = None
        self._frequent: FrequentQueries | None = None

    @property
    def words(self) -> BM25:
        """The index of words, made at its first use."""
        if self._words is None:
            fields = self.fields
            documents = (
                [(texts, places + rows[0]) for texts, places in self.export.texts(rows, fields).values()]
                for rows in self.export.batches()
            )
            locales = self.export.rows.data.column("locale")
            self._words = BM25(documents, len(self.export), kind=self.fusion.kind, locales=locales)
        return self._words

    @property
    def frequent(self) -> FrequentQueries:
        """The most frequent queries of the export, embedded at their first use."""
        return self._frequent or self.embed_queries()

    def embed_queries(self, on_step: OnStep = no_step) -> FrequentQueries:
        """Embeds the most frequent queries of the export. A service calls it before the first search."""
        if self._frequent is None:
            dim = self.index.dim
            self._frequent = FrequentQueries.embed(self.model, self.export, dim, on_step=on_step)
        return self._frequent

    def vector(self, query: str) -> torch.Tensor:
        """The embedding [dim] of a query."""
        return self.model.embed_queries([query], dim=self.index.dim)[0].cpu()

    def vector_of(self, pin_id: str) -> torch.Tensor:
        """The embedding [dim] of an item that asks like a query, float32. Raises EmbedError if there is none.

        The last number of an item makes up for its length (towers.py). That of a query is 0.
        """
        vector = self.index.vectors[self.place_of(pin_id)].float()
        if len(vector) == self.model.dim:
            vector = F.pad(vector[:-1], (0, 1))
        return F.normalize(vector, dim=0)

    def place_of(self, pin_id: str) -> int:
        """Where an item is in the index. Raises EmbedError if it is not there."""
        row = self.export.pin_ids.index(pin_id).as_py()
        if row < 0:
            raise EmbedError(f"no item of {self.export.folder} has the pin_id {pin_id}: name another")
        if self.ranking.place[row] < 0:
            raise EmbedError(
                f"the item {pin_id} has no vector yet: write the vectors again with captioner embed items"
            )
        return int(self.ranking.place[row])

    def find(
        self,
        query: str,
        *,
        kind: Literal["pin", "product"] | None = None,
        category: str | None = None,
        k: int = 10,
        by: By = "both",
        related: int = 10,
    ) -> Answer:
        """The best `k` items of each kind for a query, and up to `related` other queries.

        By both: the fused score. The scores of meaning and of words are standardised over the items of a
        kind, and added with the model's weight. Items with equal scores come in the order of the export.
        Raises EmbedError for a query without words, and for a kind or category that no item has.
        """
        began, notes = time.perf_counter(), []
        if by != "words" and (missing := int((self.ranking.place < 0).sum())):
            notes.append(
                f"{plural(missing, 'item')} of the export {'has' if missing == 1 else 'have'} no vector yet: "
                "write the vectors again with captioner embed items"
            )
        if not normalise(query):
            raise EmbedError("the query has no word and no number: give it one")
        kinds = list(self.ranking.rows_of_kind)
        if kind is not None and kind not in kinds:
            raise EmbedError(f"the export has no items of the kind {kind}: leave out --kind")
        allowed = self.category_mask(category)
        vector = self.vector(query)
        words = None if by == "meaning" else self.words.scores(pa.array([query]))[0].numpy()
        exact = by != "words" and self.index.approximate is None
        meaning = self.ranking.meaning(vector) if exact else None
        hits = {}
        for name in [kind] if kind else kinds:
            ranked = self.ranking.best(name, by, k, vector, meaning, words, allowed)
            hits[name] = self.reasons.hits(query, ranked)
            if len(ranked.rows) < k:
                notes.append(_too_few(name, category, len(ranked.rows), by))
        found = [hit for of_kind in hits.values() for hit in of_kind]
        if not found and category is None:
            notes = []  # one sentence is enough
        if by != "meaning" and not any(hit.matches for hit in found):
            notes.append(_without_words(by, bool(found)))
        queries = self.frequent.nearest(vector, related, normalise(query)) if related else []
        return Answer(query, by, hits, queries, notes, time.perf_counter() - began)

    def category_mask(self, category: str | None) -> np.ndarray:
        """bool [rows]: the items of a category. Raises EmbedError if there are none."""
        if category is None:
            return np.ones(len(self.export), bool)
        names, place = self.categories.dictionary.to_pylist(), self.categories.indices
        if category not in names:
            counts = pc.value_counts(place.drop_null()).to_pylist()
            usual = [names[entry["values"]] for entry in sorted(counts, key=lambda entry: -entry["counts"])]
            there_are = (
                f"the most frequent are {', '.join(usual[:5])}" if usual else "the export has none at all"
            )
            raise EmbedError(f"no item is of the category {category}: {there_are}")
        found: np.ndarray = pc.fill_null(pc.equal(place, names.index(category)), False).to_numpy(
            zero_copy_only=False
        )
        return found


def _without_words(by: By, found: bool) -> str:
    """A sentence: what it means that no item has a word of the query."""
    if by == "both":
        return "no item shown has a word of the query: all of this is found by meaning or by parts of words"
    if found:
        return "no item has a word of the query: all of this is found by parts of words"
    return "no item has a word of the query: --by meaning finds what is near to it"


def _too_few(kind: str, category: str | None, n: int, by: By) -> str:
    """A sentence: why there are fewer items than were asked for."""
    of_category = f" of the category {category}" if category is not None else ""
    with_word = " with a word of the query" if by == "words" else ""
    there_are = plural(n, kind) if n else f"no {kind}"
    return f"there {'is' if n <= 1 else 'are'} {there_are}{of_category}{with_word}"
