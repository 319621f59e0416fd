"""One model from scratch for 14 languages in ten scripts: an item is found however its words are written.

Queries are learned as people usually write them. The forms that are tested (without accents, in capitals, of
full width, decomposed, without spaces) are in no training query and in no item.
"""

from __future__ import annotations

import json
import random
import unicodedata
from collections.abc import Callable
from datetime import date, timedelta

import pytest
import torch
from click.testing import CliRunner

from pincaption.cli import cli
from pincaption.embed.model import EmbeddingModel
from pincaption.embed.options import TrainOptions
from pincaption.embed.reader import Export
from pincaption.embed.training import train

DAY = date(2026, 6, 1)
# {language: (a title, colours, things)}; every colour with every thing is an item
WORDS = {
    "fr": ("{thing} {colour}", "écrue dorée bleutée", "théière étagère poupée fenêtre crémaillère"),
    "de": ("{colour} {thing}", "grüne weiße rötliche", "Schüssel Tür Mütze Straßenlaterne Öllampe"),
    "vi": ("{thing} {colour}", "đỏ trắng xanh", "cốc đèn ghế bình nến"),
    "tr": ("{colour} {thing}", "kırmızı yeşil sarı", "fincan ışık şişe çanta kılıf"),
    "ru": ("{colour} {thing}", "зелёная чёрная синяя", "кружка ёлка скамейка лейка тарелка"),
    "el": ("{colour} {thing}", "κόκκινη μπλε λευκή", "κούπα καρέκλα λάμπα τσάντα πετσέτα"),
    "ar": ("{thing} {colour}", "أحمر أزرق أخضر", "كوب مصباح كرسي كتاب حقيبة"),
    "he": ("{thing} {colour}", "אדום כחול ירוק", "ספל ספר כיסא עציץ בקבוק"),
    "hi": ("{colour} {thing}", "लाल नीला हरा", "प्याला दीपक बर्तन कुर्सी ख़ज़ाना"),
    "th": ("{thing}{colour}", "สีแดง สีเขียว สีฟ้า", "แก้วกาแฟ โคมไฟ เก้าอี้ หนังสือ กระเป๋า"),
    "ja": ("おしゃれな{colour}{thing}北欧風", "赤い 青い 黒い", "マグカップ 椅子 ランプ 花瓶 茶碗"),
    "zh": ("新款{colour}{thing}套装", "红色 蓝色 绿色", "茶杯 台灯 椅子 花瓶 背包"),
    "ko": ("예쁜 {colour} {thing} 세트", "빨간 파란 초록", "머그컵 의자 램프 꽃병 가방"),
    "en": ("{colour} {thing} 100W", "red white black", "LED-lamp kettle toaster heater grill"),
}


def title(language: str, colour: str, thing: str) -> str:
    return WORDS[language][0].format(colour=colour, thing=thing)


def query(language: str, colour: str, thing: str) -> str:
    """As people ask: without the words around it."""
    pattern = WORDS[language][0]
    cut = slice(pattern.index("{"), pattern.rindex("}") + 1)
    return pattern[cut].format(colour=colour, thing=thing)


ITEMS = [
    (language, colour, thing)
    for language, (_, colours, things) in WORDS.items()
    for colour in colours.split()
    for thing in things.split()
]


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], list[tuple[str, str, str]]]:
    """Trains on the queries of two thirds of the items. Returns a function: a query -> items, best first."""
    folder, rng = tmp_path_factory.mktemp("languages"), random.Random(0)
    pins = [
        {"pin_id": f"p{i}", "title": title(*item), "kind": "product", "locale": item[0]}
        for i, item in enumerate(ITEMS)
    ]
    log = [
        {
            "pin_id": f"p{i}",
            "query": query(*item),
            "action": "save",
            "date": str(DAY + timedelta(day)),
        }
        for i, item in enumerate(ITEMS)
        if rng.random() < 0.67
        for day in (-1, 1, 9)
    ]
    for name, rows in (("pins", pins), ("log", log)):
        lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        (folder / f"{name}.jsonl").write_text(lines, encoding="utf-8")
    store, out = folder / "my.db", folder / "out"
    for command in (
        ["ingest", "pins", store, folder / "pins.jsonl"],
        ["aggregate", "queries", store, "--log", folder / "log.jsonl"],
        ["export", store, out, "--as-of", DAY, "--pairs", "--test-from", DAY + timedelta(5)],
    ):
        done = CliRunner().invoke(cli, [str(argument) for argument in command])
        assert done.exit_code == 0, done.output
    train(out, folder / "m", TrainOptions(epochs=4, batch=32, fields=("title",)), workers=0)
    model, export = EmbeddingModel.load(folder / "m"), Export(out, ("title",))
    vectors = model.embed_items(export)
    items = [ITEMS[int(pin_id[1:])] for pin_id in export.pin_ids.to_pylist()]

    def best(text: str) -> list[tuple[str, str, str]]:
        order = torch.argsort(model.embed_queries([text])[0] @ vectors.T, descending=True, stable=True)
        return [items[place] for place in order.tolist()]

    return best


def full_width(text: str) -> str:
    return "".join(chr(ord(c) + 0xFEE0) if "!" <= c <= "~" else c for c in text)


def without_marks(text: str) -> str:
    """As somebody types who has no accents on the keyboard, or does not care."""
    bare = "".join(c for c in unicodedata.normalize("NFD", text) if not unicodedata.combining(c))
    return bare.translate(str.maketrans("đĐıł", "dDil"))


def decomposed(text: str) -> str:
    return unicodedata.normalize("NFD", text)


def without_spaces(text: str) -> str:
    return text.replace(" ", "")


def with_vowel_signs(text: str) -> str:
    """Each letter with a vowel sign, as in a dictionary or a holy book."""
    sign = "\u064e" if "\u0621" <= text[0] <= "\u064a" else "\u05b8"
    return "".join(letter + sign if letter != " " else letter for letter in text)


def with_tatweel(text: str) -> str:
    return " ".join(word[0] + "ـ" * 3 + word[1:] for word in text.split(" "))


# what a form is, how it is made, and the languages whose people write so
FORMS: list[tuple[str, Callable[[str], str], str]] = [
    ("as it is", str, " ".join(WORDS)),
    ("in capitals", str.upper, "fr de vi tr ru el en"),
    ("decomposed", decomposed, "fr de vi tr ru el ar hi ja ko"),
    ("compatibility forms", lambda text: unicodedata.normalize("NFKD", text), "fr vi ru el ar hi th ko"),
    ("without accents", without_marks, "fr de vi tr ru el"),
    ("in capitals, without accents", lambda text: without_marks(text.upper()), "fr vi tr ru el"),
    ("full width", full_width, "fr de tr en"),
    ("without spaces", without_spaces, "de ru el ar ko"),
    ("without the hamza", without_marks, "ar"),
    ("with vowel signs", with_vowel_signs, "ar he"),
    ("with tatweel", with_tatweel, "ar"),
]
CASES = [(name, language) for name, _, languages in FORMS for language in languages.split()]


@pytest.mark.parametrize(("name", "language"), CASES)
def test_an_item_is_found_in_every_form(
    name: str, language: str, found: Callable[[str], list[tuple[str, str, str]]]
) -> None:
    form = next(make for known, make, _ in FORMS if known == name)
    ranks = {}
    for item in ITEMS:
        if item[0] == language:
            ranks[form(query(*item))] = found(form(query(*item))).index(item) + 1
    missed = {text: rank for text, rank in ranks.items() if rank > 1}
    # One of fifteen may be second or third among the 210 items.
    assert len(missed) <= 1, missed
    assert max(ranks.values()) <= 3, missed


@pytest.mark.parametrize("language", ["th", "ja", "zh", "ko"])
def test_a_short_word_is_found_within_a_text_without_spaces(
    language: str, found: Callable[[str], list[tuple[str, str, str]]]
) -> None:
    _, colours, things = WORDS[language]
    for thing in things.split():
        best = [item[2] for item in found(thing)[:5]]
        assert best[0] == thing, best
        assert best.count(thing) >= 3, best
    for colour in colours.split():
        best = [item[1] for item in found(colour)[:5]]
        assert best.count(colour) >= 4, best


@pytest.mark.parametrize(
    ("text", "thing"),
    [
        ("ﾏｸﾞｶｯﾌﾟ", "マグカップ"),  # of half width
        ("茶碗", "茶碗"),
        ("杯", "茶杯"),  # one character
        ("瓶", "花瓶"),
        ("ＬＥＤ－ｌａｍｐ １００Ｗ", "LED-lamp"),
        ("led lamp", "LED-lamp"),
        ("STRASSENLATERNE", "Straßenlaterne"),
        ("ελκα ΚΑΡΕΚΛΑ", "καρέκλα"),
        ("елка", "ёлка"),
        ("Ёлка", "ёлка"),
        ("حقيبه", "حقيبة"),  # teh marbuta, often typed as heh
    ],
)
def test_other_forms_of_a_word(
    text: str, thing: str, found: Callable[[str], list[tuple[str, str, str]]]
) -> None:
    best = [item[2] for item in found(text)[:3]]
    assert best[0] == thing, best
    assert best.count(thing) >= 2, best
