"""Which titles and descriptions say nothing, and count as missing."""

import csv
import json
import time
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pincaption.ingest import placeholders
from pincaption.ingest.placeholders import says_nothing

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"

BLANK = [
    None,
    "",
    " ",
    "\n\t ",
    "\u200b",
    "\ufeff",
    "\u00a0",
    "\u3000 ",
    "\u2800",
    "\u3164",
    "\uffa0",
    "\x00\x07",
    "\u2060\u200d",
]
NO_LETTERS = [
    "-",
    "...",
    "…",
    "?!",
    "❤️",
    "👩‍🍳🍰",
    "★★★★★",
    "🏴󠁧󠁢󠁥󠁮󠁧󠁿",
    "_",
    "•",
    "1️⃣",
    "1984",
    "10/10",
    "50%",
    "$25.00",
    "2021-03-04",
    "１２３",
    "„“",
]
PLACEHOLDERS = """
    No description available|No description available Story format|N/A|n.a.|none|None.|NULL|null|nan|NaN
    undefined|untitled|Untitled design|No Title|tbd|TBD.|todo|description|Description:|title|Test|test|image
    photo|Image|(no title)|[no description]|No Title Data Available|No Tags Available
    N,o, ,T,a,g,s, ,A,v,a,i,l,a,b,l,e|image not found|Image Not Available|lorem ipsum
    Lorem ipsum dolor sit amet
    ** no description **|no_description|no-description|"Untitled"|<null>|User Avatar|User Info Error
    Keine Beschreibung|keine Beschreibung verfügbar.|Ohne Titel|Aucune description disponible|Sans titre
    sans titre|Sin descripción|sin descripcion|SIN TÍTULO|Sem descrição|Sem título|Nessuna descrizione
    Senza titolo|Geen beschrijving|Brak opisu|Bez tytułu|Açıklama yok|AÇIKLAMA YOK|açıklama bulunamadı
    Нет описания|БЕЗ НАЗВАНИЯ|Немає опису|説明なし|無題|暂无描述|無標題|없음|설명 없음|제목 없음|لا يوجد وصف
    بدون عنوان|कोई विवरण नहीं
    शीर्षक उपलब्ध नहीं है|Χωρίς τίτλο|ΧΩΡΊΣ ΠΕΡΙΓΡΑΦΉ|ללא כותרת|tidak ada deskripsi|không có mô tả|ไม่มีคำอธิบาย
    Ingen beskrivning|Bez názvu|Nincs leírás|X|a|ℹ️"""
LINKS = """https://example.com/a?b=c|HTTP://EXAMPLE.COM|www.x.com|etsy.com/listing/123|pin.it/abc|youtu.be/dQw4w9WgXcQ
    etsy.com|shop.example.co.uk|<https://example.com>|(www.x.com)|https://a.example/x https://b.example/y
    Source: https://example.com/x|via www.x.com|link in bio: https://x.co/1|mp3-kolkata.blogspot.com
    https://例え.jp/猫"""
FILES = """IMG_2041.JPG|IMG_2041|IMG-20200101-WA0003.jpg|IMG-20200101-WA0003|DSC00012.jpg|DSC_0012
    Screenshot 2021-03-04 at 10.22.33.png|Screen Shot 2021-03-04 at 10.22.33 AM.png
    Screenshot 2021-03-04 at 10.22.33|image (3).jpeg|image (3)|Untitled design (2)|untitled-1.psd
    WhatsApp Image 2020-01-01 at 12.00.00.jpeg|WhatsApp Image 2020-01-01 at 12.00.00
    PXL_20210101_123456789.jpg
    20210304_102233.jpg|red-kitchen-ideas.jpg|red kitchen ideas.jpg
    Captura de pantalla 2021-03-04 a las 10.22.33.png|Bildschirmfoto 2021-03-04 um 10.22.33.png
    FB_IMG_1612345678901.jpg|received_123456789.jpeg|unnamed (1).png|download (3)"""
IDS = """0d29f3df020395aa7ce8387f40fbeed|c4bd2577-a7bb-4409-bb7a-17d5ed7e1cf1|C4BD2577A7BB|804244445969719616
    {c4bd2577-a7bb-4409-bb7a-17d5ed7e1cf1}"""

SAYS_SOMETHING = """cat|Zara|猫|7up|80s|U2|BTS|Null Bazaar|test kitchen|Photo wall
    No description needed: this cake speaks for itself|Untitled (Skull) by Basquiat|None of your business
    Nothing Compares 2 U|nada surf|R2-D2|AK-47|WH-1000XM4|Ⓒⓤⓣⓔ|𝓛𝓸𝓿𝓮|日本|寿司|กาแฟ|चाय|قهوة|커피
    See https://example.com for the recipe|Recipe at www.x.com|Get the look: etsy.com/listing/123|node.js
    St. Louis, MO|and/or|Mr. Right|Save as .png|How to draw a cat. jpg or png?|description of a scene
    Image transfer on wood|photo booth|My test results|Title IX|No. 5|no photo, no memory|Undefined Beauty
    TBD Vintage Market|The Null Device|decade of dance|facade|cafe|Untitled Goose Game|keine Angst|sans souci
    Sin City|Sem Parar|brak jajek|無印良品|无锡小笼包|없음의 미학|لا يوجد مستحيل|Нет войне
    image of a red car|Bilder|mug|DIY|OK
    10 cm|24h|image 7 ideas|photos of Rome|Loremipsum cake|N.Y.C.|Y2K|3D|4th of July|❤️ Paris|🍰 cake
    #dogs|@zara
    2000❤️s|Sick. Nissan GT-R.|hold up."""


def table(text: str) -> list[str]:
    """The cells of a text whose lines are divided by |."""
    return [cell.strip() for line in text.strip().splitlines() for cell in line.split("|")]


@pytest.mark.parametrize(
    "text", BLANK + NO_LETTERS + [t for group in (PLACEHOLDERS, LINKS, FILES, IDS) for t in table(group)]
)
def test_says_nothing(text):
    assert says_nothing(text)


@pytest.mark.parametrize("text", table(SAYS_SOMETHING))
def test_says_something(text):
    assert not says_nothing(text)


@pytest.mark.parametrize(
    "text",
    [
        "Lorem ipsum dolor sit amet, " * 20,
        " " * 500,
        " " * 500 + "n/a" + "\n" * 500,
        "-" * 500,
        "🍰" * 500,
        "https://x.co/" + "a" * 500,
    ],
)
def test_long_text_that_says_nothing(text):
    assert says_nothing(text)


def test_long_prose_is_kept_whatever_it_contains():
    assert not says_nothing(
        "No description available. " + "Bake the cake for an hour, see https://example.com. " * 20
    )
    assert not says_nothing("红色的厨房里有一张木桌和四把椅子" * 30)


def test_placeholder_file_is_tidy():
    lines = Path(placeholders.__file__).with_name("placeholders.txt").read_text(encoding="utf-8").splitlines()
    sections = "\n".join(lines).split("\n\n")
    assert all(section.startswith("#") for section in sections)
    assert all(line == line.strip() for line in lines)
    for section in sections:
        assert len(set(section.splitlines())) == len(section.splitlines())
    assert max(map(len, placeholders._placeholders())) < placeholders._LONG


words = st.sampled_from(table(PLACEHOLDERS) + table(SAYS_SOMETHING) + table(FILES) + table(LINKS))


@given(st.text() | words)
def test_never_raises_and_surrounding_blanks_make_no_difference(text):
    assert isinstance(says_nothing(text), bool)
    assert says_nothing(f" \n\u3000{text}\u00a0\t\u2028") == says_nothing(text)


@given(st.text(st.characters(codec="utf-8", categories=["L", "N", "P", "S", "Z"]), max_size=40) | words)
@example("ß" * 30)
@example("İıſŉΐ")
def test_case_makes_no_difference(text):
    assert says_nothing(text.upper()) == says_nothing(text.lower()) == says_nothing(text)


@given(words, st.sampled_from(["{}.", "({})", "“{}”", "*{}*", "- {} -", "{}!!!", "{} ❤️"]))
def test_punctuation_around_placeholders_makes_no_difference(word, around):
    if word in table(PLACEHOLDERS):
        assert says_nothing(around.format(word))


@pytest.mark.parametrize(
    "piece",
    [
        " ",
        "a",
        "a.",
        "a-",
        "-",
        "http",
        "\u0301\u0323",
        "e\u0301\u0323",
        "img",
        "0",
        "ab ",
        "a1 ",
        "/",
        "猫",
        "\u3164",
        "(",
        "a.b/",
        "lorem ipsum ",
        "ab\u200b",
    ],
)
def test_a_megabyte_takes_linear_time(piece):
    for text in (
        piece * (1_000_000 // len(piece)),
        piece * (1_000_000 // len(piece)) + "!",
        "x" + piece * (1_000_000 // len(piece)),
    ):
        start = time.thread_time()
        says_nothing(text)
        assert time.thread_time() - start < 2


def pins(name: str) -> list[dict[str, str]]:
    path = DATA / name
    if not path.exists():
        pytest.skip(f"{path} is not here")
    with path.open(encoding="utf-8", newline="") as lines:
        return list(csv.DictReader(lines)) if path.suffix == ".csv" else json.load(lines)


@pytest.mark.parametrize(
    ("name", "titles", "descriptions"),
    [
        ("pinterest_sample/pins_pets_1000.csv", {"", "X", "User Avatar"}, {""}),
        (
            "pinterest_real_small/aicore_pins.json",
            {"No Title Data Available"},
            {"No description available Story format", "Untitled"},
        ),
        ("pinterest_real_small/search_result_pins_with_board.json", {""}, {" "}),
    ],
)
def test_real_pins(name, titles, descriptions):
    rows = pins(name)
    assert {row["title"] for row in rows if says_nothing(row["title"])} == titles
    assert {row["description"] for row in rows if says_nothing(row["description"])} == descriptions


def test_400_000_real_texts_fit_into_an_ingest_of_ten_seconds():
    rows = pins("pinterest_sample/pins_pets_1000.csv")
    texts = [row[column] for row in rows for column in ("title", "description")] * 20
    start = time.thread_time()
    for text in texts:
        says_nothing(text)
    assert (time.thread_time() - start) * 400_000 / len(texts) < 4  # about 0.8 s on an idle machine
