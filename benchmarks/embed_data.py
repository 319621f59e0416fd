"""The exports that the trainer is measured on: drawn pins, public data sets in ../shared/data, made-up pins.

Each is made once, in benchmarks/work or in the folder that CAPTIONER_BENCH names, and stays there for the
next time.
"""

from __future__ import annotations

import csv
import hashlib
import itertools
import json
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

WORK = Path(os.environ.get("CAPTIONER_BENCH", Path(__file__).parent / "work"))
DATA = Path(__file__).parents[2] / "shared" / "data"
HOMEDEPOT, MOVIELENS = DATA / "homedepot_search", DATA / "movielens_latest_small"
CAPTIONER = Path(sys.executable).with_name("captioner")
# the days of the engagements that the features have, that are learned from, and that test
FEATURES, ENGAGED, TEST = "2026-01-01", "2026-01-02", "2026-01-03"
# Options of a training for queries that nobody asked before, chosen on held-out training queries of Home
# Depot among all products: larger steps and a correction for popularity make the words of the untrained model
# worse.
GENTLE: dict[str, Any] = {"learning_rate": 1e-5, "table_learning_rate": 2e-4, "correction": "none"}
RELEVANT = 2.33  # on the scale of Home Depot, 1 to 3: most of three people found the product relevant

# Made-up words consist of these. So no text is copied, and there are as many words as in a real language.
SYLLABLES = {
    "English": "ba den for ga hill in ka lo mer nor ock pa quil ran stead tor um ver wick yon sha pre ding "
    "light ber ful ness row",
    "German": "bä dün für gau häl in kö lor mär nüß ock paß quel rün städ tör um ver wick ze schö prä dung "
    "licht bür voll nis reu",
    "Japanese": " ".join(
        "あいうえおかきくけこさしすせそたちつてとなにぬねのはまみやゆよらりるれろわんアイカキスタトナハマラリルロン花森石空海糸紙箱青赤白"
    ),
}


def captioner(*arguments: object, shown: bool = False) -> str:
    """Runs a command and returns what it prints; `shown`: prints it instead.

    Ends the benchmark if it fails.
    """
    done = subprocess.run(
        [CAPTIONER, *map(str, arguments)], stdout=None if shown else subprocess.PIPE, text=True
    )
    if done.returncode:
        sys.exit(f"captioner {' '.join(map(str, arguments[:2]))} failed")
    return done.stdout or ""


def folder_of(data: Path) -> Path:
    """The folder of a data set. Ends the benchmark if it does not exist."""
    if not data.exists():
        sys.exit(f"{data} does not exist, but this benchmark reads it")
    return data


def describe(export: Path) -> str:
    """One line: how many items and pairs an export has."""
    manifest = json.loads((export / "manifest.json").read_text())
    pairs = manifest["pairs"]
    counts = [
        f"{pairs['pairs'].get(split, 0):,} and {pairs['query_pairs'].get(split, 0):,} of queries alone {use}"
        for split, use in (("train", "to learn from"), ("test", "to test with"))
    ]
    return f"{manifest['rows']:,} items, known up to {manifest['as_of']}; pairs: {', '.join(counts)}"


def made_up_words(language: str = "English", n: int = 30_000) -> list[str]:
    """Words of one to four syllables, the same ones at each call."""
    rng, syllables = random.Random(language), SYLLABLES[language].split()
    found: dict[str, None] = {}
    while len(found) < n:
        found["".join(rng.choices(syllables, k=rng.choice((1, 2, 2, 3, 3, 4))))] = None
    return list(found)


def made_up_texts(
    n: int, language: str = "English", *, words: tuple[int, int] = (2, 12), seed: int = 0
) -> list[str]:
    """Texts of made-up words.

    A few words are frequent, most are rare. Japanese has no spaces between words.
    """
    rng, lexicon = random.Random(seed), made_up_words(language)
    weights = list(itertools.accumulate(1 / (rank + 10) for rank in range(len(lexicon))))
    gap = "" if language == "Japanese" else " "
    return [
        gap.join(rng.choices(lexicon, cum_weights=weights, k=rng.randint(*words))).capitalize()
        for _ in range(n)
    ]


def homedepot_export() -> Path:
    """Home Depot: products, and what people found relevant for queries.

    70% of the queries are known of the products and learned from. The others are the test.
    """
    source, (work, out) = folder_of(HOMEDEPOT), _place("homedepot")
    if (out / "manifest.json").exists():
        return out
    products: dict[str, str] = {}
    log = []
    with (source / "pairs.csv").open(encoding="utf-8") as lines:
        for row in csv.DictReader(lines):
            products[row["product_uid"]] = row["product_title"]
            if float(row["relevance"]) >= RELEVANT:
                test = hashlib.sha256(row["search_term"].strip().lower().encode()).digest()[0] < 256 * 0.3
                for day in (TEST,) if test else (FEATURES, ENGAGED):
                    log.append(
                        {
                            "pin_id": row["product_uid"],
                            "query": row["search_term"],
                            "action": "save",
                            "date": day,
                        }
                    )
    pins = ({"pin_id": i, "title": title, "kind": "product"} for i, title in products.items())
    store = work / "my.db"
    captioner("ingest", "pins", store, _lines(work / "pins.jsonl", pins))
    captioner("aggregate", "queries", store, "--log", _lines(work / "log.jsonl", log))
    return _export(store, out, FEATURES, TEST)


def movielens_export() -> Path:
    """MovieLens: movies; the tags of half of the users are board titles, those of the others are queries.

    There are 58 users. One of them wrote 41% of all tags, in one month. This user is in the half that makes
    boards: otherwise hardly any movie would have a title. The days that split the queries by time are those
    at 10% and 75% of the queries, because between 50% and 75% there are only six pairs to learn from.
    """
    source, (work, out) = folder_of(MOVIELENS), _place("movielens")
    if (out / "manifest.json").exists():
        return out
    boards: dict[str, str] = {}
    saves, log = [], []
    with (source / "tags.csv").open(encoding="utf-8") as lines:
        for row in csv.DictReader(lines):
            moment = datetime.fromtimestamp(int(row["timestamp"]), UTC).isoformat()
            if hashlib.sha256(row["userId"].encode()).digest()[2] % 2:
                board = f"{row['userId']} {row['tag'].lower()}"
                boards[board] = row["tag"]
                saves.append({"pin_id": row["movieId"], "board_id": board, "saved_at": moment})
            else:
                log.append(
                    {
                        "pin_id": row["movieId"],
                        "query": row["tag"],
                        "action": "save",
                        "date": moment[:10],
                        "user_id": row["userId"],
                    }
                )
    with (source / "movies.csv").open(encoding="utf-8") as lines:
        pins = [
            # A movie of one genre has it as its category: of several none is the main one.
            {
                "pin_id": row["movieId"],
                "title": row["title"],
                "category": None if "|" in row["genres"] or "(" in row["genres"] else row["genres"],
            }
            for row in csv.DictReader(lines)
        ]
    days = sorted(row["date"] for row in log)
    as_of, test_from = days[len(days) // 10], days[len(days) * 3 // 4]
    store = work / "my.db"
    titles = _lines(
        work / "boards.jsonl", ({"board_id": board, "title": title} for board, title in boards.items())
    )
    captioner("ingest", "pins", store, _lines(work / "pins.jsonl", pins))
    captioner(
        "aggregate", "boards", store, "--boards", titles, "--saves", _lines(work / "saves.jsonl", saves)
    )
    captioner(
        "aggregate",
        "queries",
        store,
        "--log",
        _lines(work / "log.jsonl", log),
        "--as-of",
        as_of,
        "--window-days",
        36_500,
    )
    return _export(store, out, as_of, test_from)


def drawn_export(pins: int = 3_000) -> Path:
    """Drawn pins with captions, a third of them without text, and the searches and saves of the demo."""
    work, out = _place(f"drawn-{pins}")
    if not (out / "manifest.json").exists():
        captioner("demo", work / "world", "--pins", pins)
        _export(work / "world" / "demo.db", out, "2026-06-15", "2026-06-24")
    return out


def usual_export() -> Path:
    """Home Depot, or drawn pins if that data set is missing."""
    return homedepot_export() if HOMEDEPOT.exists() else drawn_export()


def made_up_export(pins: int) -> Path:
    """Made-up pins: a fifth are products, 70% have a title, all have a caption and ten engaged queries.

    There are three pairs to learn from for every two pins. Words are drawn independently, so that there are
    more distinct pairs of words than in real text.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    from pincaption.store import open_store, transaction

    work, out = _place(f"made-up-{pins}")
    if (out / "manifest.json").exists():
        return out
    store, log, at_once = work / "my.db", work / "log.parquet", 50_000
    queries, rng = pa.array(made_up_texts(min(300_000, pins), words=(1, 4), seed=1)), np.random.default_rng(0)
    conn = open_store(store, create=True)
    conn.execute("PRAGMA synchronous = OFF")
    conn.execute("INSERT INTO recipes VALUES ('made-up', 'made-up', NULL, '', '', '{}', '{}', 'float32')")
    fields = [(name, pa.string()) for name in ("pin_id", "query", "action", "date")]
    with pq.ParquetWriter(log, pa.schema(fields)) as writer:
        for start in range(0, pins, at_once):
            numbers = np.arange(start, min(start + at_once, pins))
            ids, shas = [f"pin-{n:010}" for n in numbers], [f"{n:064x}" for n in numbers]
            titles, captions = (
                made_up_texts(len(ids), words=(3, 8), seed=start + 2),
                made_up_texts(len(ids), words=(6, 12), seed=start + 3),
            )
            own = [title if n % 10 < 7 else None for n, title in zip(numbers, titles, strict=True)]
            kinds = ["product" if n % 5 == 0 else "pin" for n in numbers]
            with transaction(conn):
                conn.executemany(
                    "INSERT INTO pins (pin_id, kind, title, image_sha256) VALUES (?, ?, ?, ?)",
                    zip(ids, kinds, own, shas, strict=True),
                )
                rows = zip(ids, captions, shas, strict=True)
                conn.executemany(
                    "INSERT INTO captions (pin_id, recipe_id, status, text, image_sha256, updated_at) "
                    "VALUES (?, 'made-up', 'ok', ?, ?, '2026-01-01')",
                    rows,
                )
            for day, which in (
                (FEATURES, np.repeat(numbers, 10)),
                (ENGAGED, np.append(numbers, numbers[::2])),
                (TEST, numbers[::100]),
            ):
                some = queries.take(pa.array((rng.random(len(which)) ** 2 * len(queries)).astype(np.int64)))
                columns = [
                    pa.array(ids).take(pa.array(which - start)),
                    some,
                    pa.repeat("save", len(which)),
                    pa.repeat(day, len(which)),
                ]
                writer.write_table(pa.table(columns, schema=writer.schema))
    conn.close()
    captioner("aggregate", "queries", store, "--log", log)
    _export(store, out, FEATURES, TEST)
    for path in work.iterdir():  # the store is large, and not needed any more
        if path != out:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    return out


def _place(name: str) -> tuple[Path, Path]:
    """(a folder to work in, the export in it). What an interrupted call left there is deleted."""
    work = WORK / name
    if not (work / "out" / "manifest.json").exists():
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir(parents=True)
    return work, work / "out"


def _lines(path: Path, rows: Iterable[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def _export(store: Path, out: Path, as_of: str, test_from: str) -> Path:
    captioner("export", store, out, "--as-of", as_of, "--pairs", "--test-from", test_from)
    return out
