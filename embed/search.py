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

from ..common.terminal import OnStep, no_step, plural
from ..filters.text import normalise
from .bm25 import BM25
from .errors import EmbedError
from .frequent_queries import FrequentQueries, RelatedQuery
from .fusion import Fusion
from .hits import Hit, Ranked, Reasons
from .index import Index, best
from .item_vectors import ItemVectors, expect_fields, export_for, feature_column, model_digest, shown_fields
from .model import EmbeddingModel
from .reader import Export

NATIVE = ("title", "description")  # the fields of an item's own text
DEPTH = 200  # with an approximate index: so many of the best by meaning, and by words, are fused

By = Literal["both", "meaning", "words"]


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
        export, n = self.export, len(self.export)
        # An item of the export may have no vector yet, and one of the index may have left the export.
        found = pc.fill_null(pc.index_in(export.pin_ids, value_set=self.index.pin_ids), -1)
        self.place = found.to_numpy(zero_copy_only=False).astype(np.int64)  # [rows]: in the index, or -1
        self.row = np.full(len(self.index), -1)  # [items of the index]: in the export, or -1
        self.row[self.place[self.place >= 0]] = np.flatnonzero(self.place >= 0)
        self.same_order = len(self.index) == n and bool((self.place == np.arange(n)).all())
        kinds = {"pin": np.flatnonzero(~export.products), "product": np.flatnonzero(export.products)}
        self.rows_of_kind = {name: rows for name, rows in kinds.items() if len(rows)}
        categories = feature_column(export, "category")
        self.categories: pa.DictionaryArray = categories.dictionary_encode()
        self.fusion = Fusion.of(self.model.about)
        self.reasons = Reasons(export, self.fields, categories, self.fusion.kind)
        self._words: BM25 | None = None
        self._frequent: FrequentQueries | None = None
        self._moments: dict[str, tuple[torch.Tensor, torch.Tensor]] = {}

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
        """The embedding [dim] of an item, float32. Raises EmbedError if there is none."""
        return self.index.vectors[self.place_of(pin_id)].float()

    def place_of(self, pin_id: str) -> int:
        """Where an item is in the index. Raises EmbedError if it is not there."""
        row = self.export.pin_ids.index(pin_id).as_py()
        if row < 0:
            raise EmbedError(f"no item of {self.export.folder} has the pin_id {pin_id}: name another")
        if self.place[row] < 0:
            raise EmbedError(
                f"the item {pin_id} has no vector yet: write the vectors again with captioner embed items"
            )
        return int(self.place[row])

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
        if by != "words" and (missing := int((self.place < 0).sum())):
            notes.append(
                f"{plural(missing, 'item')} of the export {'has' if missing == 1 else 'have'} no vector yet: "
                "write the vectors again with captioner embed items"
            )
        if not normalise(query):
            raise EmbedError("the query is empty: give it at least one word or number")
        kinds = list(self.rows_of_kind)
        if kind is not None and kind not in kinds:
            raise EmbedError(f"the export has no items of the kind {kind}: leave out --kind")
        allowed = self.category_mask(category)
        vector = self.vector(query)
        words = None if by == "meaning" else self.words.scores(pa.array([query]))[0].numpy()
        meaning = self._meaning(vector) if by != "words" and self.index.approximate is None else None
        hits = {}
        for name in [kind] if kind else kinds:
            ranked = self._ranked(name, by, k, vector, meaning, words, allowed)
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

    def _ranked(
        self,
        kind: str,
        by: By,
        k: int,
        vector: torch.Tensor,
        meaning: np.ndarray | None,
        words: np.ndarray | None,
        allowed: np.ndarray,
    ) -> Ranked:
        """The best `k` allowed items of a kind. `meaning` and `words` are the scores of all items."""
        rows, near = self.rows_of_kind[kind], None
        if meaning is not None:
            near = meaning[rows]
        elif by != "words":
            rows = self._candidates(kind, by, k, vector, words, allowed)
            near = self._meaning(vector, rows)
        spoken = None if words is None else words[rows]
        if words is None or spoken is None:
            total, share = np.asarray(near), np.ones(len(rows))
        elif near is None:
            total, share = np.where(spoken > 0, spoken, np.nan), np.zeros(len(rows))
        else:
            mean, deviation = self._spread(kind, vector) if meaning is None else _spread_of(near)
            of_meaning = np.nan_to_num(self.fusion.weight * (near - mean) / deviation)
            mean, deviation = _spread_of(words[self.rows_of_kind[kind]])
            of_words = (1 - self.fusion.weight) * (spoken - mean) / deviation
            total, share = of_meaning + of_words, _share(of_meaning, of_words)
        chosen = best(np.where(allowed[rows], total, np.nan), k)
        return Ranked(
            rows[chosen],
            total[chosen],
            None if near is None else near[chosen],
            None if spoken is None else spoken[chosen],
            share[chosen],
        )

    def _meaning(self, vector: torch.Tensor, rows: np.ndarray | None = None) -> np.ndarray:
        """The dot products [rows] of a query and items; NaN for an item without a vector."""
        places = self.place if rows is None else self.place[rows]
        if rows is None and self.same_order:
            return self.index.scores(vector)
        scores = np.full(len(places), np.nan, np.float32)
        scores[places >= 0] = self.index.scores(vector, places[places >= 0])
        return scores

    def _candidates(
        self, kind: str, by: By, k: int, vector: torch.Tensor, words: np.ndarray | None, allowed: np.ndarray
    ) -> np.ndarray:
        """With an approximate index: the rows of the best items of a kind by meaning, and by words."""
        wanted = np.zeros(len(self.export), bool)
        wanted[self.rows_of_kind[kind]] = True
        wanted &= allowed
        in_index = (self.row >= 0) & wanted[self.row]
        depth = k if by == "meaning" else max(k, DEPTH)
        rows = self.row[self.index.search(vector[None], depth, in_index)[1][0]]
        if words is not None:
            rows = np.union1d(rows, best(np.where(wanted & (words > 0), words, np.nan), depth))
        return np.sort(rows)

    def _spread(self, kind: str, vector: torch.Tensor) -> tuple[float, float]:
        """(mean, standard deviation) of the dot products of a query and all items of a kind.

        They follow from the mean of the items' vectors and of the products of two of their numbers, so that
        no score has to be computed.
        """
        if kind not in self._moments:
            of_kind = np.zeros(len(self.export), bool)
            of_kind[self.rows_of_kind[kind]] = True
            self._moments[kind] = self.index.moments((self.row >= 0) & of_kind[self.row])
        mean, products = self._moments[kind]
        of_query = float(mean @ vector)
        return of_query, max(float(vector @ products @ vector) - of_query**2, 1e-18) ** 0.5

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


def _spread_of(scores: np.ndarray) -> tuple[float, float]:
    """(mean, standard deviation) of scores, without those that are not numbers."""
    if np.isnan(scores).all():
        return 0.0, 1.0
    return float(np.nanmean(scores)), max(float(np.nanstd(scores)), 1e-9)


def _share(of_meaning: np.ndarray, of_words: np.ndarray) -> np.ndarray:
    """The share of meaning in each fused score, from 0 to 1. A part below the mean of all items has none."""
    a, b = np.maximum(of_meaning, 0), np.maximum(of_words, 0)
    return np.where(a + b > 0, a / np.maximum(a + b, 1e-12), 0.5)


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
