"""BM25 of words, of stems, and of stems and trigrams, against a slow count in plain Python."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import pyarrow as pa
import pytest
import snowballstemmer
from hypothesis import given, settings
from hypothesis import strategies as st

from pincaption.embed.bm25 import BM25, KINDS, TRIGRAMS, Batch, Kind
from pincaption.embed.stems import STEMMERS

TERMS = ["red", "mug", "mugs", "boats", "boat", "teas"]


def batches(documents: Sequence[str], at_once: int = 2) -> Iterator[Batch]:
    for start in range(0, len(documents), at_once):
        some = documents[start : start + at_once]
        yield [(pa.array(some, pa.string()), np.arange(start, start + len(some)))]


def trigrams(words: Sequence[str]) -> list[str]:
    return [f"^{word}$"[i : i + 3] for word in words for i in range(len(word))]


def slow_scores(documents: Sequence[Sequence[str]], query: Sequence[str]) -> list[float]:
    mean, scores = sum(map(len, documents)) / len(documents), []
    for terms in documents:
        tf, score = Counter(terms), 0.0
        for term in query:
            df = sum(term in some for some in documents)
            idf = math.log(1 + (len(documents) - df + 0.5) / (df + 0.5))
            if tf[term]:
                score += idf * tf[term] / (tf[term] + 1.2 * (1 - 0.75 + 0.75 * len(terms) / mean))
        scores.append(score)
    return scores


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("for_any_query", [True, False])
@settings(max_examples=25, deadline=None)
@given(
    documents=st.lists(st.lists(st.sampled_from(TERMS), max_size=6), min_size=1, max_size=6),
    query=st.lists(st.sampled_from([*TERMS, "none"]), max_size=4),
)
def test_bm25_is_lucenes_formula(
    documents: list[list[str]], query: list[str], kind: Kind, for_any_query: bool
) -> None:
    asked = pa.array([" ".join(query)], pa.string())
    index = BM25(
        batches([" ".join(words) for words in documents]),
        len(documents),
        None if for_any_query else asked,
        kind=kind,
    )
    stem: Callable[[str], str] = snowballstemmer.stemmer("english").stemWord if kind != "words" else str
    wanted = slow_scores([[*map(stem, words)] for words in documents], [*map(stem, query)])
    if kind == "stems and trigrams":
        more = slow_scores([trigrams(words) for words in documents], trigrams(query))
        wanted = [a + TRIGRAMS * b for a, b in zip(wanted, more, strict=True)]
    assert index.scores(asked).tolist()[0] == pytest.approx(wanted, rel=1e-5, abs=1e-6)
    has = index.matches(" ".join(query), np.arange(len(documents)))
    for words, matched in zip(documents, has, strict=True):
        assert matched == [word for word in dict.fromkeys(query) if stem(word) in {*map(stem, words)}]


def test_a_document_is_stemmed_in_its_own_language_and_found_by_its_own_words() -> None:
    documents = ["blaue Tassen", "running shoes", "blaue Tassen", "赤い カップ", "Tassen"]
    locales = pa.array(["de-DE", "en_US", "EN", "ja-JP", None])
    index = BM25(batches(documents), 5, kind="stems", locales=locales)
    # "Tasse" has the stem of "Tassen" in German alone; the last has the usual language, which is English.
    assert [bool(line) for line in index.matches("Tasse", np.arange(5))] == [True, False, False, False, False]
    # Its own words find a document in every language, and count for it as a word counts.
    assert index.matches("TASSEN!", np.arange(5)) == [["tassen"], [], ["tassen"], [], ["tassen"]]
    assert index.matches("run", np.array([1])) == [["run"]]
    assert index.matches("カップ", np.array([3])) == [["カップ"]]
    found = index.scores(pa.array(["Tassen", "shoe"])).numpy()
    assert (found > 0).tolist() == [[True, False, True, False, True], [False, True, False, False, False]]
    assert found[0, 0] == pytest.approx(found[0, 2])


def test_items_without_a_locale_have_the_language_of_most() -> None:
    documents, locales = ["Tassen", "Tassen", "mugs"], pa.array(["de", None, None])
    assert BM25(batches(documents), 3, kind="stems", locales=locales).matches("Tasse", np.arange(3)) == [
        ["tasse"],
        ["tasse"],
        [],
    ]
    assert BM25(batches(documents), 3, kind="stems", locales=None).matches("mug", np.array([2])) == [["mug"]]


def test_trigrams_find_parts_of_words() -> None:
    documents = ["deckover wood coating", "red mug"]
    asked = pa.array(["deck over"])
    assert BM25(batches(documents), 2, kind="stems").scores(asked).tolist() == [[0, 0]]
    deckover, mug = BM25(batches(documents), 2, kind="stems and trigrams").scores(asked).tolist()[0]
    assert deckover > 0 == mug


def test_every_language_has_a_stemmer_that_exists() -> None:
    assert set(STEMMERS.values()) <= set(snowballstemmer.algorithms())


@pytest.mark.parametrize("kind", KINDS)
def test_an_index_of_nothing_answers(kind: Kind) -> None:
    index = BM25([], 0, kind=kind)
    assert index.scores(pa.array(["red mug", ""])).shape == (2, 0)
    index = BM25(batches(["", ""]), 2, kind=kind)
    assert index.scores(pa.array(["red mug"])).tolist() == [[0, 0]]
    assert index.matches("red mug", np.array([0, 1])) == [[], []]
    assert index.matches("", np.array([0])) == [[]]
