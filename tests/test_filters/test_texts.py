"""Titles and queries of all languages, and those with personal data, which are written to no file."""

import json
import re
import sqlite3
import unicodedata
from contextlib import closing
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from .tables import (
    USER_COLUMNS,
    boards_table,
    captioner,
    counts,
    log_table,
    queries,
    saves_table,
    titles,
    write,
)

LANGUAGES = {
    "Café  CRÈME": "café crème",
    unicodedata.normalize("NFD", "Café crème, ici"): "café crème ici",
    "Women’s Shoes": "women's shoes",
    "’80s Rock ’n’ Roll": "80s rock n roll",
    "مطبخ — جميل!": "مطبخ جميل",
    "مَطْبَخ صغير": "مَطْبَخ صغير",
    "ﻣﻄﺒﺦ ﷲ": "مطبخ الله",
    "می‌خواهم": "میخواهم",
    "\u200fמטבח\u200e קטן": "מטבח קטן",
    "שָׁלוֹם": unicodedata.normalize("NFC", "שָׁלוֹם"),
    "ห้องครัวสวย ๆ": "ห้องครัวสวย ๆ",
    "น้ำชา": "น\u0e49\u0e4d\u0e32ชา",
    "रसोई के विचार।": "रसोई के विचार",
    "ज़िंदगी": unicodedata.normalize("NFC", "ज़िंदगी"),
    "厨房 创意！": "厨房 创意",
    "「和食」レシピ": "和食 レシピ",
    "ｷｯﾁﾝ ｶﾞｰﾃﾞﾝ": "キッチン ガーデン",
    unicodedata.normalize("NFD", "부엌 아이디어"): "부엌 아이디어",
    "ＫＩＴＣＨＥＮ　ＩＤＥＡＳ": "kitchen ideas",
    "ILIK IŞIK": "ilik işik",
    "ılık ışık": "ılık ışık",
    "İSTANBUL": "i̇stanbul",
    "ﬁne ﬂowers": "fine flowers",
    "STRAẞE Straße": "strasse strasse",
    "ΣΊΣΥΦΟΣ": "σίσυφοσ",
    "👩‍🍳 Küche 🍰": "küche",
    "№ 5, ½ Ⓒⓤⓣⓔ": "no 5 1 2 cute",
    "no\u00adel": "noel",
    "日本 🇯🇵 2024": "日本 2024",
    "Кухня: идеи": "кухня идеи",
}
NOTHING_LEFT = ["🍰", "👩‍🍳👨‍👩‍👧", "❤️", "☕️☕️", "♡ ♡", "...", "\u200b", " ", "🏴󠁧󠁢󠁥󠁮󠁧󠁿", "🇯🇵"]


@pytest.mark.parametrize("ending", ["parquet", "csv"])
def test_titles_and_queries_of_every_language_come_out_as_expected(
    tmp_path: Path, db: Path, ending: str
) -> None:
    raw = [*LANGUAGES, *NOTHING_LEFT]
    boards = write(tmp_path / f"boards.{ending}", boards_table(dict(enumerate(raw))))
    saves = write(tmp_path / f"saves.{ending}", saves_table(*((f"pin {i}", i) for i in range(len(raw)))))
    log = write(
        tmp_path / f"log.{ending}",
        log_table(*((f"pin {i}", text, "save", "2024-05-01") for i, text in enumerate(LANGUAGES))),
    )
    found = counts("aggregate", "boards", db, "--boards", boards, "--saves", saves)
    expected = {f"pin {i}": [text] for i, text in enumerate(LANGUAGES.values())}
    assert titles(db) == dict(sorted(expected.items()))
    assert found["dropped"] == {"empty": len(NOTHING_LEFT)}
    counts("aggregate", "queries", db, "--log", log)
    assert queries(db) == dict(sorted(expected.items()))


# --- personal data ---

SECRETS = [
    "zoe.secret@mail.example",
    "ask zoe@secret.example please",
    "call +49 151 234-567-89",
    "0151.234.567.89",
    "https://secret.example/zoe",
    "look at www.secret-zoe.example",
    "http://secret.example",
]
TRACES = re.compile(r"zoe.?secret|secret.?zoe|secret.?example|mail.?example|151.?234.?567", re.IGNORECASE)


def everything_written(store: Path) -> str:
    """All texts in the files of a store and in its partials."""
    texts = [
        path.read_bytes().decode(errors="replace") for path in (store, Path(f"{store}-wal")) if path.exists()
    ]
    for path in Path(f"{store}.partials").rglob("*"):
        if path.is_file():
            texts.append(
                json.dumps(pq.read_table(path).to_pylist(), ensure_ascii=False, default=str)
                if path.suffix == ".parquet"
                else path.read_bytes().decode(errors="replace")
            )
    return "\n".join(texts)


@pytest.mark.parametrize("ending", ["parquet", "jsonl"])
def test_addresses_links_and_telephone_numbers_in_titles_and_queries_reach_no_file(
    tmp_path: Path, db: Path, ending: str
) -> None:
    raw = [*SECRETS, "harmless kitchen"]
    boards = write(
        tmp_path / f"boards.{ending}",
        {"board_id": [*map(str, range(len(raw))), None], "title": [*raw, "zoe@secret.example"]},
    )
    saves = write(tmp_path / f"saves.{ending}", saves_table(*(("1", str(i)) for i in range(len(raw)))))
    rows: list[tuple[Any, ...]] = [("1", text, "save", "2024-05-01", 1) for text in raw]
    # these are rejected, and kept in rejected_rows
    rows += [("1", text, "save", "2024-05-01", 0) for text in raw]
    log = write(
        tmp_path / f"log.{ending}", log_table(*rows, names=("pin_id", "query", "action", "date", "count"))
    )
    found = counts("aggregate", "boards", db, "--boards", boards, "--saves", saves)
    assert (found["dropped"], found["rejected"], titles(db)) == (
        {"personal data": len(SECRETS)},
        1,
        {"1": ["harmless kitchen"]},
    )
    found = counts("aggregate", "queries", db, "--log", log)
    assert (found["dropped"], found["rejected"], queries(db)) == (
        {"personal data": len(SECRETS)},
        len(raw),
        {"1": ["harmless kitchen"]},
    )
    for output in (
        captioner("aggregate", "explain", db, "1").stdout,
        json.dumps(counts("aggregate", "explain", db, "1")),
        everything_written(db),
    ):
        assert TRACES.search(output) is None
        assert "harmless kitchen" in output
    assert "[redacted]" in everything_written(db)


def test_a_telephone_number_with_tabs_is_redacted_in_rejected_rows(tmp_path: Path, db: Path) -> None:
    log = write(
        tmp_path / "log.jsonl",
        log_table(
            ("1", "call\t0151\t234\t567\t89", "save", "2024-05-01", 0),
            names=("pin_id", "query", "action", "date", "count"),
        ),
    )
    assert captioner("aggregate", "queries", db, "--log", log).exit_code == 1  # nothing else is in it
    with closing(sqlite3.connect(db)) as conn:
        assert "567" not in conn.execute("SELECT content FROM rejected_rows").fetchone()[0]


@pytest.mark.parametrize(
    ("ending", "user"),
    [
        ("parquet", "zoe.secret@mail.example"),
        ("csv", "zoe.secret@mail.example"),
        *(
            ("parquet", user)
            for user in ("+49 151 234-567-89", "https://secret.example/zoe", "www.secret.example/zoe")
        ),
    ],
)
def test_addresses_links_and_telephone_numbers_as_user_ids_reach_no_file_and_count_as_users(
    tmp_path: Path, db: Path, ending: str, user: str
) -> None:
    log = write(
        tmp_path / f"log.{ending}",
        log_table(
            *(("1", "mug", "save", "2024-05-01", who) for who in (user, user, "v")), names=USER_COLUMNS
        ),
    )
    for users, kept in (("2", {"1": ["mug"]}), ("3", {})):
        counts("aggregate", "queries", db, "--log", log, "--min-users", users)
        assert queries(db) == kept
    assert TRACES.search(everything_written(db)) is None


def test_an_address_that_got_into_the_column_of_actions_reaches_no_file(tmp_path: Path, db: Path) -> None:
    log = write(
        tmp_path / "log.csv",
        log_table(("1", "mug", "zoe@secret.example", "2024-05-01"), ("1", "mug", "save", "2024-05-01")),
    )
    counts("aggregate", "queries", db, "--log", log)
    assert TRACES.search(everything_written(db)) is None
