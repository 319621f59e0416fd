"""The items that a search found, and why: which words of the query match, and in which fields."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ..filters.text import normalise
from .bm25 import BM25, Kind
from .reader import Export

CAPTION = "caption"
# Which text of an item is shown: the first of these that it has, or else one of any other field.
SHOWN_FIRST = ("title", "caption", "description", "board_titles", "engaged_queries")


@dataclass(frozen=True)
class Hit:
    """An item that was found."""

    rank: int
    pin_id: str
    kind: str
    category: str | None
    text: str | None  # the title, or else the caption, or else another text; None for an item without any
    text_from: str | None  # the field that `text` is from
    score: float  # what hits are ordered by: the fused score, or that of meaning or of words alone
    meaning: float | None  # the dot product of the two embeddings
    words: float | None  # BM25
    share_of_meaning: float  # of the score, from 0 to 1
    share_of_words: float
    matches: dict[str, list[str]]  # {word of the query: fields that have it, or a word of the same stem}
    by_caption_alone: bool  # only its caption has words of the query, or it has no other text


@dataclass(frozen=True)
class Ranked:
    """Rows of the export that were found for a query, best first, and their scores [rows]."""

    rows: np.ndarray
    scores: np.ndarray
    meaning: np.ndarray | None
    words: np.ndarray | None
    share_of_meaning: np.ndarray


class Reasons:
    """Finds the texts of items, and which of their words a query has."""

    def __init__(self, export: Export, fields: Sequence[str], categories: pa.Array, word_kind: Kind):
        """`fields`: the text fields that count. `categories` [rows]: of the items. `word_kind`: of BM25."""
        self.export, self.fields, self.categories, self.word_kind = (
            export,
            tuple(fields),
            categories,
            word_kind,
        )
        self.locales = export.rows.data.column("locale")
        # An item without a locale is read in the most frequent language of the export, as BM25 reads it.
        counted = sorted(
            pc.value_counts(self.locales.drop_null()).to_pylist(),
            key=lambda entry: (-entry["counts"], entry["values"]),
        )
        self.usual_locale = counted[0]["values"] if counted else None

    def hits(self, query: str, ranked: Ranked) -> list[Hit]:
        """The items that were found, with their reasons."""
        texts = self.texts(ranked.rows)
        matches, shown_rows = self.matches(query, ranked.rows, texts), pa.array(ranked.rows)
        pin_ids = self.export.pin_ids.take(shown_rows).to_pylist()
        categories = self.categories.take(shown_rows).to_pylist()
        hits = []
        for place, row in enumerate(ranked.rows.tolist()):
            own = texts[place]
            text, text_from = shown_text(own)
            of_meaning = float(ranked.share_of_meaning[place])
            hits.append(
                Hit(
                    rank=place + 1,
                    pin_id=pin_ids[place],
                    kind="product" if self.export.products[row] else "pin",
                    category=categories[place],
                    text=text,
                    text_from=text_from,
                    score=float(ranked.scores[place]),
                    meaning=None if ranked.meaning is None else _number(ranked.meaning[place]),
                    words=None if ranked.words is None else float(ranked.words[place]),
                    share_of_meaning=of_meaning,
                    share_of_words=1 - of_meaning,
                    matches=matches[place],
                    by_caption_alone=_caption_alone(matches[place], own),
                )
            )
        return hits

    def texts(self, rows: np.ndarray) -> list[dict[str, list[str]]]:
        """For each row {field: its texts}, for the fields that have any."""
        texts: list[dict[str, list[str]]] = [{} for _ in rows]
        for name, (column, places) in self.export.texts(rows, self.fields).items():
            for place, text in zip(places.tolist(), column.to_pylist(), strict=True):
                if text and text.strip():
                    texts[place].setdefault(name, []).append(text)
        return texts

    def matches(
        self, query: str, rows: np.ndarray, texts: Sequence[dict[str, list[str]]]
    ) -> list[dict[str, list[str]]]:
        """For each row {word of the query: fields of the row that have it}."""
        found: list[dict[str, list[str]]] = [{} for _ in rows]
        order = normalise(query).replace("'", "").split()
        locales = self.locales.take(pa.array(rows)).combine_chunks().fill_null(self.usual_locale or "en")
        for name in self.fields:
            column = [(text, place) for place, own in enumerate(texts) for text in own.get(name, ())]
            if not column:
                continue
            batch = [(pa.array([text for text, _ in column]), np.array([place for _, place in column]))]
            kind: Kind = "words" if self.word_kind == "words" else "stems"  # trigrams are no words
            index = BM25([batch], len(rows), kind=kind, locales=locales)
            for own_matches, words in zip(found, index.matches(query, np.arange(len(rows))), strict=True):
                for word in words:
                    own_matches.setdefault(word, []).append(name)
        return [{word: own[word] for word in dict.fromkeys(order) if word in own} for own in found]


def shown_text(texts: dict[str, list[str]]) -> tuple[str | None, str | None]:
    """(the text of an item that is shown, the field that it is from)."""
    name = next((name for name in (*SHOWN_FIRST, *texts) if texts.get(name)), None)
    return (texts[name][0], name) if name else (None, None)


def _caption_alone(matches: dict[str, list[str]], texts: dict[str, list[str]]) -> bool:
    if matches:
        return all(fields == [CAPTION] for fields in matches.values())
    return list(texts) == [CAPTION]


def _number(value: float) -> float | None:
    """A score, or None for an item that has no vector."""
    return None if np.isnan(value) else float(value)
