"""Words and n-grams of many texts at once, against `normalise` and plain Python."""

from __future__ import annotations

import itertools
import unicodedata
import weakref
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pincaption.embed import folding, ngrams, query_text
from pincaption.embed.ngrams import KINDS, Grams, find_words, grams
from pincaption.embed.vocabulary import Vocabulary
from pincaption.filters.text import normalise

# characters that normalise takes apart, joins or drops
ODD = (
    "aBß İıſςΣé9٣ \t_-!'’＇ʼ`\u0301\u0308\u0345\u093f\u3099\u00ad\u200b\u200c\u200d\ufeff"
    "赤いカﾞ각ﬁⅣ①²\ufdfa\U0001d6a6\U0001f469\U00013430"
    "ёйİøłةىأ\u0640\u064e\u05b8ไม้जफ\u093c花瓶々가방"
)
SAMPLES = [
    "Women’s SHOES",
    "don't",
    "80's 5'10\" 'n' d''e 'a' b'",
    "赤いもの 本",
    "ﬁne Ⅳ",
    "a\u200db c",
    "naïve café",
    "Straße",
    "İZMİR",
    "ΟΔΟΣ",
    "x" * 2100,
    "don't " * 400,
    "ß" * 2100,
]
TEXTS = st.lists(
    st.none() | st.text(max_size=30) | st.text(ODD, max_size=12) | st.sampled_from(SAMPLES), max_size=8
)


def plain_words(text: str | None) -> list[str]:
    return normalise((text or "")[:2000]).replace("'", "").split()


def plain_letters(word: str) -> str:
    """A word without accents: each character is taken apart, and put together again without them."""
    kept = ""
    for character in word:
        apart = unicodedata.normalize("NFD", character)
        kept += unicodedata.normalize(
            "NFC", "".join(c for c in apart if not folding.within(ord(c), folding._MARKS))
        )
    return "".join(folding._OTHERS.get(c, c) for c in kept)


def plain_trigrams(word: str) -> list[str]:
    """The trigrams of a word, then pairs of Han, kana and Hangul, then each Han character."""
    letters = plain_letters(word)
    names = [unicodedata.name(letter, "") for letter in letters]
    script = ["CJK" in n or letter in "々〆〇" for n, letter in zip(names, letters, strict=True)]
    paired = [
        is_han or (letter > "\u3000" and any(s in n for s in ("KATAKANA", "HIRAGANA", "HANGUL SYL")))
        for n, is_han, letter in zip(names, script, letters, strict=True)
    ]
    pairs = [letters[i : i + 2] for i in range(len(letters) - 1) if paired[i] and paired[i + 1]]
    singles = [letter for letter, is_han in zip(letters, script, strict=True) if is_han]
    return [f"\1{letters}\2"[i : i + 3] for i in range(len(letters))] + pairs + singles


def assert_words_are_plain(texts: list[str | None]) -> None:
    wanted = [plain_words(text) for text in texts]
    flat = list(itertools.chain.from_iterable(wanted))
    words = find_words(pa.array(texts, pa.string()))
    assert (words.characters.dtype, words.starts.dtype, words.texts.dtype) == (np.uint32, np.int64, np.int64)
    assert np.array_equal(words.texts, np.repeat(np.arange(len(texts)), [len(some) for some in wanted]))
    assert words.lengths.tolist() == [len(word) for word in flat]
    assert words.starts.tolist() == [0, *itertools.accumulate(map(len, flat))][: len(flat)]
    assert words.characters.astype("<u4").tobytes() == "".join(flat).encode("utf-32-le")


@settings(max_examples=300, deadline=None)
@given(TEXTS)
def test_words_are_those_of_normalise_without_apostrophes(texts: list[str | None]) -> None:
    assert_words_are_plain(texts)


def test_words_are_those_of_normalise_for_every_code_point_and_every_two_of_ascii() -> None:
    within = [f"a{chr(code)}b" for code in range(0x110000) if not 0xD800 <= code < 0xE000]
    assert_words_are_plain([" ".join(within[i : i + 100]) for i in range(0, len(within), 100)])
    assert_words_are_plain(["".join(pair) for pair in itertools.product(map(chr, range(128)), repeat=2)])


@pytest.mark.parametrize(
    "array",
    [
        pa.array(["x", "RED", None, "mug's", "Tür"]).slice(1),
        pa.array(["RED", None, "mug's", "Tür"], pa.large_string()),
        pa.array(["RED", None, "mug's", "Tür"]).dictionary_encode(),
        pa.StringArray.from_buffers(
            4,
            pa.py_buffer(np.array([0, 3, 6, 11, 15], np.int32)),
            pa.py_buffer("REDbadmug'sTür".encode()),
            pa.py_buffer(b"\x0d"),
        ),
    ],
    ids=["slice", "large", "dictionary", "bytes below a null"],
)
def test_words_are_the_same_however_arrow_holds_the_texts(array: pa.Array) -> None:
    words = find_words(array)
    assert ["".join(map(chr, part)) for part in np.split(words.characters, words.starts[1:])] == [
        "red",
        "mugs",
        "tür",
    ]
    assert words.texts.tolist() == [0, 2, 3]


@settings(max_examples=200, deadline=None)
@given(TEXTS)
def test_words_bigrams_and_trigrams_are_those_of_plain_python(texts: list[str | None]) -> None:
    found = grams(pa.array(texts, pa.string()))
    wanted = [plain_words(text) for text in texts]
    assert found["unigram"].rows.tolist() == [row for row, some in enumerate(wanted) for _ in some]
    assert found["beginning"].rows.tolist() == found["unigram"].rows.tolist()
    assert found["bigram"].rows.tolist() == [row for row, some in enumerate(wanted) for _ in some[1:]]
    trigrams = [
        (row, part)
        for row, some in enumerate(wanted)
        for part in sorted(itertools.chain.from_iterable(map(plain_trigrams, some)))
    ]
    read = [
        (row, "".join(chr(part) for shift in (42, 21, 0) if (part := code >> shift & 0x1FFFFF)))
        for row, code in zip(found["trigram"].rows.tolist(), map(int, found["trigram"].codes), strict=True)
    ]
    assert found["trigram"].rows.tolist() == sorted(found["trigram"].rows.tolist())
    assert sorted(read) == trigrams
    # an exported encoder has the same codes
    assert sorted(itertools.chain.from_iterable(map(query_text.trigrams, wanted))) == sorted(
        map(int, found["trigram"].codes)
    )
    # the same code for the same words, and another one for others
    for kind, texts_of in (
        ("unigram", [w for some in wanted for w in some]),
        ("beginning", [w[:4] for some in wanted for w in some]),
        ("bigram", [pair for some in wanted for pair in itertools.pairwise(some)]),
    ):
        assert (
            len(set(texts_of))
            == len(np.unique(found[kind].codes))
            == len(set(zip(texts_of, found[kind].codes.tolist(), strict=True)))
        )


def test_every_character_becomes_one_character_without_its_accents_or_none() -> None:
    table = ngrams._folds()
    for code in range(0x110000):
        if not 0xD800 <= code < 0xE000 and unicodedata.category(chr(code))[0] in "LMN":
            letters = folding.folded(chr(code))
            assert table[code] == (ord(letters) if letters else 0)
            if unicodedata.normalize("NFKC", chr(code)) == chr(code):  # as it stands in a normalised word
                assert letters == plain_letters(chr(code)), hex(code)
                assert folding.folded(letters) == letters if letters else True


@pytest.mark.parametrize(
    ("text", "letters"),
    [
        ("crème", "creme"),
        ("đèn", "den"),
        ("Ёлка", "елка"),
        ("Κόκκινη", "κοκκινη"),
        ("أحْـمَر", "احمر"),
        ("חָלָב", "חלב"),
        # their signs are not accents
        ("ไม้", "ไม้"),
        ("फूल", "फूल"),
        ("が", "が"),
        ("각", "각"),
    ],
)
def test_accents_are_left_out_of_trigrams_but_not_of_words(text: str, letters: str) -> None:
    found, plain = grams(pa.array([text])), grams(pa.array([letters]))
    assert found["trigram"].codes.tolist() == plain["trigram"].codes.tolist()
    same = normalise(text) == letters
    assert (found["unigram"].codes.tolist() == plain["unigram"].codes.tolist()) == same


def test_lists_belong_to_their_rows_and_no_bigram_crosses_two_texts() -> None:
    found = grams(pa.array(["red mug", "tea", "blue"]), np.array([0, 0, 3]))
    assert found["unigram"].rows.tolist() == [0, 0, 0, 3]
    assert found["bigram"].rows.tolist() == [0]


def test_a_vocabulary_keeps_the_most_frequent_and_ids_are_laid_out_row_by_row(tmp_path: Path) -> None:
    texts = pa.array(["red mug", None, "red mug red", "boat"])
    vocabulary = Vocabulary.build(
        [[grams(texts)], [grams(pa.array(["red"]))]], {"trigram": 0, "unigram": 1, "bigram": 5}
    )
    assert vocabulary.sizes == {"trigram": 0, "unigram": 1, "beginning": 0, "bigram": 1}
    ids, starts = vocabulary.ids(grams(texts), 4)
    assert ids.tolist() == [0, 1, 0, 1]  # "red" counts once in the third row
    assert starts.tolist() == [0, 2, 2, 4]
    vocabulary.save(tmp_path / "v.safetensors")
    again = Vocabulary.load(tmp_path / "v.safetensors")
    assert [part.tolist() for part in again.ids(grams(texts), 4)] == [ids.tolist(), starts.tolist()]


@settings(deadline=None)
@given(
    st.lists(st.text("ab ", max_size=12), max_size=12),
    st.integers(1, 4),
    st.integers(1, 3),
    st.integers(0, 40),
    st.integers(1, 3),
)
def test_a_vocabulary_does_not_depend_on_how_texts_are_cut_into_batches(
    texts: list[str], cut: int, together: int, waiting: int, least: int
) -> None:
    parts = [grams(pa.array(texts[i : i + cut], pa.string())) for i in range(0, len(texts), cut)]
    batches = [parts[i : i + together] for i in range(0, len(parts), together)]
    sizes = {"trigram": 5, "unigram": 3, "bigram": 4}
    vocabulary = Vocabulary.build(batches, sizes, least=least, waiting=waiting)
    for kind, size in sizes.items():
        counts = Counter(code for part in parts for code in part[kind].codes.tolist())
        frequent = sorted(
            (code for code, count in counts.items() if count >= least), key=lambda code: (-counts[code], code)
        )
        assert vocabulary.known[kind].tolist() == sorted(frequent[:size])
        assert vocabulary.known[kind].dtype == np.uint64


def test_the_ngrams_that_wait_to_be_counted_are_limited() -> None:
    alive: list[weakref.ref[np.ndarray]] = []
    most = 0

    def batches() -> Iterator[list[dict[str, Grams]]]:
        nonlocal most
        for i in range(30):
            batch = [grams(pa.array([f"red mug {i}"]))]  # three words
            alive.append(weakref.ref(batch[0]["unigram"].codes))
            yield batch
            most = max(most, sum(codes() is not None for codes in alive))

    Vocabulary.build(batches(), waiting=12)
    # three batches wait, one is read, and one is made
    assert 3 <= most <= 5


@given(st.lists(st.text("abc ", max_size=12), min_size=1, max_size=10))
def test_every_known_ngram_of_every_row_has_an_id_once(texts: list[str]) -> None:
    found = grams(pa.array(texts, pa.string()))
    vocabulary = Vocabulary.build([[found]], dict.fromkeys(KINDS, 1000), least=1)
    ids, starts = vocabulary.ids(found, len(texts))
    ends = [*starts[1:].tolist(), len(ids)]
    for row, (start, end) in enumerate(zip(starts.tolist(), ends, strict=True)):
        assert end - start == sum(len(set(found[kind].codes[found[kind].rows == row])) for kind in KINDS)
        assert len(set(ids[start:end].tolist())) == end - start


@pytest.mark.parametrize("n", [1, 2, 3, 1000, 4095, 4096])
def test_the_id_of_a_code_is_its_place_in_the_list_and_other_codes_have_none(n: int) -> None:
    codes = np.random.default_rng(n).permutation(
        np.unique(np.random.default_rng(0).integers(0, 1 << 63, 2 * n, np.uint64))
    )
    vocabulary = Vocabulary({"unigram": np.sort(codes[:n])}, {})
    nothing = Grams(np.empty(0, np.int64), np.empty(0, np.uint64))
    ids, starts = vocabulary.ids(
        dict.fromkeys(KINDS, nothing) | {"unigram": Grams(np.arange(len(codes)), codes)}, len(codes)
    )
    assert ids.dtype == starts.dtype == np.int64
    assert ids.tolist() == np.searchsorted(vocabulary.known["unigram"], codes[:n]).tolist()
    assert starts.tolist() == [min(row, n) for row in range(len(codes))]


@pytest.mark.parametrize("kind", KINDS)
def test_hashed_ids_stay_within_their_number(kind: str, tmp_path: Path) -> None:
    vocabulary = Vocabulary({}, {kind: 7})
    found = grams(pa.array(["the quick brown fox jumps over the lazy dog"]))
    ids, _ = vocabulary.ids(found, 1)
    assert 0 < len(ids) == len(set(ids.tolist()))
    assert set(ids.tolist()) <= set(range(7))
    vocabulary.save(tmp_path / "v.safetensors")
    assert Vocabulary.load(tmp_path / "v.safetensors") == vocabulary
