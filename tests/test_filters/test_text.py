"""How titles and queries are normalised, and what counts as personal data."""

import random
import re
import time
import unicodedata
from collections.abc import Iterator
from typing import Any

import duckdb
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from pincaption.common.personal import holds_personal_data
from pincaption.filters.batch import add_functions
from pincaption.filters.text import normalise

from . import reference


def table(text: str) -> list[str]:
    return [cell.strip() for line in text.splitlines() for cell in line.split("|")]


# --- normalise ---

NORMALISED = {
    # the examples of the contract
    "Kitchen!!  IDEAS": "kitchen ideas",
    "Women’s Shoes": "women's shoes",
    "80's": "80's",
    "♡ Tea Time! ♡": "tea time",
    # nothing, or only characters that are removed
    "": "",
    " \t\n\u3000": "",
    "!?…": "",
    "🍰🥧": "",
    "\u200b\ufeff\u00ad": "",
    "'": "",
    # format characters are removed, which joins what they divided; others become one space between words
    "no\u00adel": "noel",
    "می\u200cخواهم": "میخواهم",
    "\u200fשלום\u200e": "שלום",
    "a\u200d\u0301": "á",
    "a-b_c/d": "a b c d",
    "tea\0time": "tea time",
    "\ud800tea\udfff": "tea",
    # compatibility forms, case, and compatibility forms that case folding gives
    "ＫＩＴＣＨＥＮ　Ⅳ": "kitchen iv",
    "ﬁne ﬂowers": "fine flowers",
    "½ № ①": "1 2 no 1",
    "STRAẞE Straße": "strasse strasse",
    "İstanbul ISPARTA ılık": "i\u0307stanbul isparta ılık",
    "ΣΊΣΥΦΟΣ σίσυφος": "σίσυφοσ σίσυφοσ",
    "cafe\u0301": "café",
    "ｶﾞ": "ガ",
    "\u1112\u1161\u11ab": "한",
    "\u0958": "\u0915\u093c",
    "น้ำ": "น\u0e49\u0e4d\u0e32",
    "ﷺ": "صلى الله عليه وسلم",
    # marks stay, even without the character below them
    "´a": "\u0301a",
    "1\ufe0f\u20e3": "1\ufe0f\u20e3",
    # apostrophes within a word: after a letter, mark or number, before a letter
    "rock ’n’ roll": "rock n roll",
    "rock'n'roll": "rock'n'roll",
    "mothers' day": "mothers day",
    "'tis": "tis",
    "5'7": "5 7",
    "the 80’s": "the 80's",
    "women\uff07s": "women's",
    "women\u02bcs": "women's",
    "ŉ": "n",
    "aŉ": "a'n",
    "cafe\u0301's": "café's",
    "a''b": "a b",
    "a'’b": "a b",
    "a\u02bc'b": "a b",
    "a'\u0301b": "a \u0301b",
    "a\u200d'b": "a'b",
    "a `b´ c": "a b \u0301 c",
}


@pytest.mark.parametrize(("raw", "expected"), NORMALISED.items())
def test_normalise(raw: str, expected: str) -> None:
    assert normalise(raw) == expected


TRICKY = list(
    "'\u2019\u02bc\uff07\u200d\u200b\u00ad\ud800\udc00\udfff\ufeff\ufe0f\u20e3\u0345\u0301\u0323\u0327\u0344\u0f73\u0f81\u1161\u11a8가ŉΐᾳᾼςΣİıſßẞﬁﬅⅧ½①²ª№㌔ﷺﾞｶ\u212b\u2126𝓛🍰🇯🇵"
)
TRICKY += list("_-´¨΄ͺ‾\u0958\u0e33\U0001d15e\U000e0041aZ7é \0\n\x1c\u3000")
# st.characters() has surrogates, too
any_text = st.lists(st.sampled_from(TRICKY) | st.characters(), max_size=12).map("".join)


@given(any_text)
@example("a\u0345\u0301")
@example("\u0345'a")
def test_normalise_is_idempotent_and_equal_to_the_reference(text: str) -> None:
    normalised = normalise(text)
    assert normalised == reference.normalise(text)
    assert normalise(normalised) == normalised


@given(any_text)
def test_normalise_leaves_letters_marks_numbers_and_apostrophes_in_words_with_single_spaces(
    text: str,
) -> None:
    words = normalise(text).split(" ")
    assert "" not in words or words == [""]
    for word in words:
        assert all(unicodedata.category(character)[0] in "LMN" or character == "'" for character in word)
        assert not word.startswith("'")
        assert not word.endswith("'")
    assert words == [unicodedata.normalize("NFKC", word) for word in words]


@given(any_text, st.sampled_from(["NFC", "NFD"]))
def test_normalise_does_not_care_how_accents_are_written(text: str, form: Any) -> None:
    assert normalise(unicodedata.normalize(form, text)) == normalise(text)


@pytest.mark.parametrize("text", list(NORMALISED))
@pytest.mark.parametrize("form", ["NFC", "NFD", "NFKC", "NFKD"])
def test_normalise_gives_the_same_for_every_form_of_the_examples(text: str, form: Any) -> None:
    assert normalise(unicodedata.normalize(form, text)) == normalise(text)


def test_every_character_of_every_script_is_normalised_as_by_the_reference() -> None:
    for first in range(0, 0x110000, 32):
        for text in ("".join(map(chr, range(first, first + 32))), f"a{chr(first + first // 32 % 32)}b"):
            normalised = normalise(text)
            assert normalised == reference.normalise(text), ascii(text)
            assert normalise(normalised) == normalised, ascii(text)


@pytest.fixture(scope="module")
def db() -> Iterator[Any]:
    with duckdb.connect() as connection:
        add_functions(connection)
        yield connection


@given(
    st.lists(any_text.filter(lambda text: not re.search("[\ud800-\udfff]", text)), min_size=1, max_size=20)
)
def test_sql_normalises_and_finds_personal_data_alike(db: Any, texts: list[str]) -> None:
    texts += [*(text for text in NORMALISED if "\ud800" not in text), *table(PERSONAL), *table(HARMLESS)]
    rows = db.execute(
        "SELECT raw, normalise(raw), holds_personal_data(raw) FROM (SELECT unnest($1) AS raw)", [texts]
    ).fetchall()
    assert sorted(rows) == sorted((text, normalise(text), holds_personal_data(text)) for text in texts)


def test_sql_leaves_null_as_it_is(db: Any) -> None:
    assert db.execute("SELECT normalise(NULL::VARCHAR), holds_personal_data(NULL::VARCHAR)").fetchall() == [
        (None, None)
    ]


# --- holds_personal_data ---

# The pattern of docs/aggregate.md. A telephone number is one only if it is made of more than codes and dates.
ADDRESS = re.compile(r"\S+@\S+\.\S+|[Hh][Tt][Tt][Pp][Ss]?://|[Ww][Ww][Ww]\.")
TELEPHONE = re.compile(r"\+?\d(?:[\s()./\u2010-\u2015\u2212-]{0,3}\+?\d){8,}")
PERSONAL = """me@example.com|mail me@example.com now|<me@mail.example.co.uk>|me+pins@example.com,you
    ü@ö.de|@a@b.c|a@b@.c|.@..x
    http://example.com|see https://example.com/a?b|xhttp://|www.example.com|mywww.x|call 0151 234 5678
    +1-555-123-4567|555.123.4567|(555)123-4567
    123456789|1 2 3 4 5 6 7 8 9|1)2(3.4-5 6 7 8 9|٠١٢٣٤٥٦٧٨|1  2  3  4  5  6  7  8  9
    WWW.EXAMPLE.COM|HTTPS://EXAMPLE|+1 (555) 123-4567|(555) 123-4567|0049 30 123456|+44 20 7946 0958
    +44 (0)20 7946 0958|030 / 1234567|555 - 123 - 4567|555–123–4567|4006381333932|+4006381333931
    4006381333931 030 1234567|0301234567 9780141036144|0049 30 12345670
    +4+9+1+5+1+2+3+4+5"""
HARMLESS = """|kitchen ideas|me@home|@zara|@ a.b|a@ b.c|a@b|a@b.|a@.b|a@b .c|@b.c
    http:/example|https:example|w.w.w|12345678|1234-5678|1    2    3    4    5    6    7    8    9
    9780141036144|lego 4006381333931|4006381333931 2 pack|978-0-14-103614-4|978 0141036144|0-306-40615-2
    080442957X|0-8044-2957-x|0306406152|4 006381 333931|036000291452|0 36000 29145 2|96385074 2020
    10614141000415|(9780141036144)|9780141036144 9780306406157|2024-05-01 12:00 and 2024-05-01 12
    31.05.2024 - 07.06.2024|12,345,678,901|2024-05-01|3.5 @ 4.5
    me at example dot com|1080x1920|IMG 20240501"""


@pytest.mark.parametrize("text", table(PERSONAL))
def test_personal_data_is_found(text: str) -> None:
    assert holds_personal_data(text)


@pytest.mark.parametrize("text", table(HARMLESS))
def test_other_text_is_no_personal_data(text: str) -> None:
    assert not holds_personal_data(text)


pieces = st.sampled_from(
    [
        *"@@@..aab1234567890+-() \t\n:/",
        "\u00a0",
        "\u2003",
        "\x1c",
        "\u200b",
        "\ud800",
        "٣",
        "７",
        "²",
        "http",
        "https://",
        "www",
        "www.",
        "12345678",
    ]
)


@given(st.lists(pieces, max_size=25).map("".join) | any_text)
@example("a@.b")
@example("a@b.\x1cc")
def test_personal_data_is_what_the_pattern_of_the_contract_finds(text: str) -> None:
    found = holds_personal_data(text)
    if ADDRESS.search(text):
        assert found
    elif not TELEPHONE.search(text):
        assert not found
    elif "+" in text and all("+" in match[0] for match in TELEPHONE.finditer(text)):
        assert found  # no code of a product has a plus


def check_digit(digits: str) -> str:
    """GS1: the digits from the right weigh 3 and 1 in turn, and the whole is a multiple of 10."""
    total = sum(int(digit) * weight for digit, weight in zip(reversed(digits), [3, 1] * 7, strict=False))
    return str(-total % 10)


@given(st.sampled_from([11, 12, 13]).flatmap(lambda n: st.text("0123456789", min_size=n, max_size=n)))
def test_of_ten_last_digits_one_makes_a_code_of_a_product(digits: str) -> None:
    assume(digits.strip("0"))
    harmless = [d for d in "0123456789" if not holds_personal_data(f"lego {digits}{d}")]
    assert harmless == [check_digit(digits)]


@given(st.text("0123456789", min_size=9, max_size=9))
def test_of_eleven_last_characters_one_makes_an_isbn_10(digits: str) -> None:
    harmless = [d for d in "0123456789X" if not holds_personal_data(f"{digits}{d}")]
    total = sum(int(digit) * weight for digit, weight in zip(digits, range(10, 1, -1), strict=True))
    assert harmless == ["0123456789X"[-total % 11]]


# --- hostile texts ---

HOSTILE = [
    "@",
    "a@",
    "@a",
    "a@b",
    "a.",
    ".@",
    "@.",
    " @ ",
    "1 ",
    "1  ",
    "12345678x",
    "+1",
    "https:/",
    "www",
    "é",
    "a'",
    "é'",
    "’",
    "ŉ",
    "ﷺ",
    "\u200d",
    "\u1112\u1161",
    "\u0344",
    "🍰",
    "\ud800",
]


@pytest.mark.parametrize("piece", HOSTILE)
def test_200_000_characters_take_linear_time(piece: str) -> None:
    text = piece * (200_000 // len(piece))
    for hostile in (text, f"1{text}.x"):
        start = time.thread_time()
        normalise(hostile)
        holds_personal_data(hostile)
        # usually a tenth of a second; the longest ligature (18 letters) takes a second
        assert time.thread_time() - start < 5


@pytest.mark.parametrize(
    "marks",
    [
        "\u0301\u0323",
        "\u0301\u0327\u0323",
        "\u0345\u0301",
        "\u0344\u0323",
        "\u0f81\u0f71",
        "e\u0301\u0323",
        "\u0301\uff9e",
        "\uff9f\u0301",
    ],
)
def test_marks_that_are_not_in_their_order_take_linear_time(marks: str) -> None:
    """Python sorts them by insertion: 40,000 would take more than a second, and 200,000 half a minute."""
    took = []
    for _ in range(3):  # Python may collect the garbage of all tests during one of them
        start = time.thread_time()
        normalise("a" + marks * 20_000)
        took.append(time.thread_time() - start)
    assert min(took) < 0.6


MARKS = [chr(code) for code in range(0x110000) if unicodedata.category(chr(code))[0] == "M"]
ODD_MARKS = list("\u0301\u0323\u0344\u0f73\u0f75\u0f81\u0345\uff9e\uff9f\u3099\u200d´aé가ｶ'")


@given(
    st.randoms(use_true_random=False), st.sampled_from([MARKS + ODD_MARKS, ODD_MARKS]), st.integers(990, 1200)
)
@settings(max_examples=30, deadline=None)
def test_many_marks_are_normalised_as_by_the_reference(
    rng: random.Random, characters: list[str], n: int
) -> None:
    text = "".join(rng.choices(characters, k=n))
    assert normalise(text) == reference.normalise(text)
    assert normalise(unicodedata.normalize("NFC", text)) == normalise(text)
