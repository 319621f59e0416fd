"""Words and n-grams of many texts at once, against plain Python, one text after the other."""

from __future__ import annotations

import itertools
import unicodedata
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pincaption.embed.ngrams import KINDS, Vocabulary, grams

TEXTS = st.lists(st.none() | st.text(max_size=30) | st.sampled_from(["Women’s SHOES", "don't", "赤いもの 本", "ﬁne Ⅳ", "a\u200db c", "naïve café", "x" * 2100]), max_size=8)


def plain_words(text: str | None) -> list[str]:
    text = (text or "")[:2000]
    if not text.isascii():
        text = unicodedata.normalize("NFKC", text)
    found, word = [], ""
    for character in text:
        category = unicodedata.category(character)
        if category[0] in "LMN":
            word += character.lower() if len(character.lower()) == 1 else character
        elif category != "Cf" and character not in "'’＇ʼ":
            found, word = [*found, word] if word else found, ""
    return [*found, word] if word else found


@settings(max_examples=200, deadline=None)
@given(TEXTS)
def test_words_bigrams_and_trigrams_are_those_of_plain_python(texts: list[str | None]) -> None:
    found = grams(pa.array(texts, pa.string()))
    words = [plain_words(text) for text in texts]
    assert found["unigram"].rows.tolist() == [row for row, some in enumerate(words) for _ in some]
    assert found["bigram"].rows.tolist() == [row for row, some in enumerate(words) for _ in some[1:]]
    trigrams = [(row, f"\1{word}\2"[i : i + 3]) for row, some in enumerate(words) for word in some for i in range(len(word))]
    assert [
        (row, "".join(chr(code >> shift & 0x1FFFFF) for shift in (42, 21, 0))) for row, code in zip(found["trigram"].rows.tolist(), map(int, found["trigram"].codes), strict=True)
    ] == trigrams
    # the same code for the same words, and another one for others
    for kind, texts_of in (("unigram", [w for some in words for w in some]), ("bigram", [pair for some in words for pair in itertools.pairwise(some)])):
        assert len(set(texts_of)) == len(np.unique(found[kind].codes)) == len(set(zip(texts_of, found[kind].codes.tolist(), strict=True)))


def test_lists_belong_to_their_rows_and_no_bigram_crosses_two_texts() -> None:
    found = grams(pa.array(["red mug", "tea", "blue"]), np.array([0, 0, 3]))
    assert found["unigram"].rows.tolist() == [0, 0, 0, 3]
    assert found["bigram"].rows.tolist() == [0]


def test_a_vocabulary_keeps_the_most_frequent_and_ids_are_laid_out_row_by_row(tmp_path: Path) -> None:
    texts = pa.array(["red mug", None, "red mug red", "boat"])
    vocabulary = Vocabulary.build([[grams(texts)], [grams(pa.array(["red"]))]], {"trigram": 0, "unigram": 1, "bigram": 5})
    assert vocabulary.sizes == {"trigram": 0, "unigram": 1, "bigram": 1}
    ids, starts = vocabulary.ids(grams(texts), 4)
    assert ids.tolist() == [0, 1, 0, 0, 1]
    assert starts.tolist() == [0, 2, 2, 5]
    vocabulary.save(tmp_path / "v.safetensors")
    again = Vocabulary.load(tmp_path / "v.safetensors")
    assert [part.tolist() for part in again.ids(grams(texts), 4)] == [ids.tolist(), starts.tolist()]


@given(st.lists(st.text("abc ", max_size=12), min_size=1, max_size=10))
def test_ids_count_every_known_gram_of_every_row(texts: list[str]) -> None:
    found = grams(pa.array(texts, pa.string()))
    vocabulary = Vocabulary.build([[found]], dict.fromkeys(KINDS, 1000), least=1)
    ids, starts = vocabulary.ids(found, len(texts))
    ends = [*starts[1:].tolist(), len(ids)]
    for row, (start, end) in enumerate(zip(starts.tolist(), ends, strict=True)):
        assert end - start == sum(int((found[kind].rows == row).sum()) for kind in KINDS)


@pytest.mark.parametrize("kind", KINDS)
def test_hashed_ids_stay_within_their_number(kind: str, tmp_path: Path) -> None:
    vocabulary = Vocabulary({}, {kind: 7})
    found = grams(pa.array(["the quick brown fox jumps over the lazy dog"]))
    ids, _ = vocabulary.ids(found, 1)
    assert len(ids) == len(found[kind].codes)
    assert set(ids.tolist()) <= set(range(7))
    vocabulary.save(tmp_path / "v.safetensors")
    assert Vocabulary.load(tmp_path / "v.safetensors") == vocabulary
