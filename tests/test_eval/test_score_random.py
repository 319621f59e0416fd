"""`eval sample`, `eval compare`, `eval score` against the slow reference: random stores, options, raters and spreadsheet programs. And how items are drawn."""

import csv
import io
import json
import math
import random
import shutil
import sqlite3
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from pincaption.cli import cli
from pincaption.eval.sample import SampleOptions, allocate, draw, draw_pairs
from pincaption.store import open_store, transaction

from .plain_score import ASKED, CANNOT, VALUES, expected, gathered
from .reference import kish

Z = 1.959963984540054
CATEGORIES = [None, "", "  ", "mugs", " mugs ", "lamps", "Lamps", "ランプ", "a;b,'c'"]
STRATIFY = [None, "category", "kind", "locale", "native_text", "caption_recipe"]
COMMENTS = [None, None, None, "fine", "=1+1", 'comma, "quote"; and\na line', "🍵 حسن", "  padded "]


def captioner(*arguments: object) -> dict[str, Any]:
    """The JSON that a command prints."""
    done = CliRunner().invoke(cli, [*map(str, arguments), "--json"])
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


# --- stores ---


@dataclass
class Shop:
    """A store, and what a person would count in it."""

    path: Path
    current: dict[str, dict[str, Any]]  # pins with a current caption: what each column of --stratify says of them
    in_vain: int  # pins that were tried and have none
    differ: int  # pins that the two recipes captioned differently


def make_store(path: Path, rng: random.Random, pins: int) -> Shop:
    """Pins of several categories, with captions of two recipes that are ok, rejected, failed, or of an image that was replaced since."""
    shop = Shop(path, {}, 0, 0)
    categories = rng.sample(CATEGORIES, rng.randint(1, len(CATEGORIES)))
    conn = open_store(path, create=True)
    with transaction(conn):
        for recipe in ("aaaa1111", "bbbb2222"):
            conn.execute("INSERT INTO recipes VALUES (?, ?, NULL, '', '', '{}', '{}', 'float32')", [recipe, f"model {recipe[0]}"])
        for i in range(pins):
            pin = {"pin_id": f"pin-{i}", "kind": rng.choice(["pin", "pin", "product"]), "category": rng.choice(categories), "locale": rng.choice([None, "en", "de"])}
            pin |= {"title": rng.choice([None, "a title"]), "image": f"/nowhere/{i}.jpg", "image_sha256": f"digest {i}", "deleted_at": rng.choice([None] * 9 + ["2026-01-01"])}
            conn.execute(f"INSERT INTO pins ({', '.join(pin)}, has_title, has_description) VALUES ({', '.join('?' * len(pin))}, {int(pin['title'] is not None)}, 0)", list(pin.values()))
            texts, newest, tried = [], None, False
            for recipe in ("aaaa1111", "bbbb2222"):
                status, fresh = rng.choice(["ok"] * 6 + ["rejected", "failed", None]), rng.random() < 0.9
                if status is None:
                    continue
                tried = True
                text = rng.choice([f"a {i % 7} mug, red", f"{recipe} \"{i}\"; a lamp\nand '=1+1", "ランプ" * (i + 1)])
                moment = f"2026-0{rng.randint(1, 9)}-01"
                row = [pin["pin_id"], recipe, status, None if status == "failed" else text, None if status == "ok" else "why not", f"digest {i}" if fresh else "earlier", moment]
                conn.execute("INSERT INTO captions (pin_id, recipe_id, status, text, reason, image_sha256, updated_at) VALUES (?, ?, ?, ?, ?, ?, ?)", row)
                if status == "ok" and fresh:
                    texts.append(text)
                    if newest is None or moment > newest[0]:
                        newest = (moment, recipe)
            if pin["deleted_at"]:
                continue
            if newest:
                strata = {"kind": pin["kind"], "category": (pin["category"] or "").strip(" ") or None, "locale": pin["locale"], "caption_recipe": newest[1], None: None}
                shop.current[pin["pin_id"]] = strata | {"native_text": "with" if pin["title"] else "without"}
            elif tried:
                shop.in_vain += 1
            shop.differ += len(set(texts)) == 2
    conn.close()
    return shop


def gold_file(path: Path, rng: random.Random, pins: Sequence[str]) -> Path:
    """Some pins whose answers are known: for one question or both, of the caption they have or of another."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["pin_id", "caption", "relevance", "quality"])
        for pin_id in rng.sample(pins, min(len(pins), rng.randint(1, 4))):
            relevance, quality = rng.choice([("relevant", ""), ("", "poor"), ("not", "poor"), ("partly", "acceptable")])
            writer.writerow([pin_id, rng.choice(["", "nothing of the kind"]), relevance, quality])
    return path


# --- people ---


@dataclass
class Person:
    """How somebody answers, and what their spreadsheet program makes of the sheet."""

    rng: random.Random
    odds: dict[str, list[float]]  # question -> of each answer, of "cannot judge", of no answer
    encoding: str
    delimiter: str
    line_end: str
    shuffled: bool
    without: list[str]  # columns that were deleted
    extra: bool  # a column that was added
    shouting: bool  # column names and answers in capitals, with blanks

    @classmethod
    def any(cls, rng: random.Random, kind: str) -> "Person":
        odds = {}
        for question in ASKED[kind]:
            odds[question] = rng.choice([[8, 2, 1, 1, 1], [20, 1, 1, 0, 0], [1, 1, 1, 1, 1], [1, 0, 0, 0, 0], [0, 0, 1, 0, 0], [1, 0, 1, 2, 4], [0, 0, 0, 1, 3], [1, 3, 8, 1, 0]])
        encoding, delimiter = rng.choice([("utf-8", ","), ("utf-8-sig", ","), ("utf-8-sig", ";"), ("utf-8", ";"), ("utf-8", "\t"), ("utf-16", "\t")])
        without = rng.sample(["sample", "rater", "number", "caption", "first_caption", "comment", "seconds", "answered_at", *ASKED[kind]], rng.choice([0, 0, 1, 3]))
        return cls(rng, odds, encoding, delimiter, rng.choice(["\n", "\r\n"]), rng.random() < 0.5, without, rng.random() < 0.3, rng.random() < 0.3)

    def fill(self, sheet: Path, filled: Path, skip: float = 0.0) -> Path:
        """Fills a sheet in and saves it as `filled`; of the rows a share of `skip` is not answered (yet)."""
        rng = self.rng
        rows = list(csv.DictReader(io.StringIO(sheet.read_bytes().decode("utf-8-sig"), newline="")))
        for row in rows:
            if rng.random() < skip:
                continue
            for question, odds in self.odds.items():
                answer = rng.choices([*VALUES[question], CANNOT, ""], odds)[0]
                row[question] = f"  {answer.upper()} " if self.shouting else answer
            seconds = rng.choice(["", "3", "0.5", "17.25", "17.25", "80"])
            row |= {"comment": rng.choice(COMMENTS) or "", "seconds": seconds.replace(".", ",") if self.delimiter == ";" else seconds}
        if self.shuffled:
            rng.shuffle(rows)
        columns = [name for name in rows[0] if name not in self.without]
        if self.extra:
            columns.insert(rng.randint(0, len(columns)), "my notes")
            for row in rows:
                row["my notes"] = rng.choice(["", "look; again, 'please'"])
        file = io.StringIO()
        writer = csv.writer(file, delimiter=self.delimiter, lineterminator=self.line_end)
        writer.writerow([f" {name.upper()}" if self.shouting else name for name in columns])
        writer.writerows([row[name] for name in columns] for row in rows)
        filled.parent.mkdir(exist_ok=True)
        filled.write_bytes(file.getvalue().encode(self.encoding))
        return filled


def ways_to_score(rng: random.Random, people: Sequence[Person], sheets: Sequence[Path], folder: Path) -> list[list[Path]]:
    """Calls of `score` with some sheets each: all at once, one by one, half a sheet before the whole, with answers that change, or without sheets at the end."""
    whole = [person.fill(sheet, folder / sheet.name, rng.choice([0, 0, 0.1, 0.8])) for person, sheet in zip(people, sheets, strict=True)]
    half = [person.fill(sheet, folder / f"half {sheet.name}", 0.5) for person, sheet in zip(people, sheets, strict=True)]
    some = rng.sample(whole, rng.randint(1, len(whole)))
    return rng.choice([[whole], [some], [*([sheet] for sheet in whole), []], [*([sheet] for sheet in whole), whole], [half, whole], [whole, half], [half, some, []], [whole, some]])


# --- comparing ---


def differences(ours: Any, right: Any, where: str = "") -> list[str]:
    """Where what was printed differs from what is right; everything in `right` must be there."""
    if isinstance(right, dict) and isinstance(ours, dict):
        missing = [f"{where}.{name}: missing" for name in right.keys() - ours.keys()]
        return missing + [found for name in right.keys() & ours.keys() for found in differences(ours[name], right[name], f"{where}.{name}")]
    if isinstance(right, list) and isinstance(ours, list) and len(right) == len(ours):
        return [found for i, (a, b) in enumerate(zip(ours, right, strict=True)) for found in differences(a, b, f"{where}[{i}]")]
    if isinstance(right, float) and isinstance(ours, int | float):
        allowed = 0.05 if where.endswith("effective_items") else 0  # which is printed with one decimal
        return [] if abs(ours - right) <= allowed + 1e-9 else [f"{where}: {ours} where {right} is right"]
    return [] if ours == right else [f"{where}: {ours!r} where {right!r} is right"]


def check(conn: sqlite3.Connection, ours: dict[str, Any], calls: list[list[Path]]) -> None:
    right = expected(conn, calls)
    answers = right.pop("answers")
    assert differences(ours, right) == []
    for name in ("by_rater", "questions", "strata", "shares"):
        assert len(ours.get(name, [])) == len(right.get(name, [])), f"{name}: one too many"
    for shown in ours["disputed"] + ours["worst"] if ours["kind"] == "captions" else ours["disputed"]:
        given = {of["rater"]: {name: answer for name, answer in of.items() if name in VALUES} for of in shown["answers"]}
        assert given == answers[shown["pin_id"]]
    for of in ours["questions"].values():
        for measure, interval in of["intervals"].items():
            assert interval is None or -1 <= interval[0] <= interval[1] <= 1, (measure, interval)

    taken = conn.execute("SELECT item_id, relevance, quality, better, comment, seconds FROM ratings").fetchall()
    said = gathered(calls)
    assert {row[0] for row in taken} == set(said)
    for item_id, *row in taken:
        assert row == [said[item_id].get(name) for name in ("relevance", "quality", "better", "comment", "seconds")]


def ratings(path: Path) -> list[Any]:
    conn = sqlite3.connect(path)
    try:
        return conn.execute("SELECT * FROM ratings ORDER BY item_id").fetchall()
    finally:
        conn.close()


@pytest.mark.parametrize("plan", range(40))
def test_scores_are_those_of_the_reference(plan: int, tmp_path: Path) -> None:
    rng = random.Random(plan)
    shop = make_store(tmp_path / "my.db", rng, rng.choice([40, 90, 200]))
    kind, stratify = rng.choice(["captions", "captions", "comparison"]), rng.choice(STRATIFY)
    if kind == "comparison" and stratify == "caption_recipe":
        stratify = None
    options: list[object] = ["--n", rng.choice([9, 15, 40, 1000]), "--raters", rng.choice([1, 2, 3, 3, 5]), "--seed", rng.choice([0, 3, 10**12]), "--duplicates", rng.choice([0, 0.05, 0.3, 0.5])]
    options += ["--allocation", rng.choice(["equal", "proportional"])] + (["--stratify", stratify] if stratify else [])
    if kind == "captions":
        if rng.random() < 0.5:
            options += ["--gold", gold_file(tmp_path / "gold.csv", rng, list(shop.current))]
        drawn = captioner("eval", "sample", shop.path, tmp_path / "sheets", *options)
        assert {s["stratum"]: s["captions"] for s in drawn["strata"]} == Counter(of[stratify] for of in shop.current.values())
        assert drawn["rejected"] + drawn["failed"] + drawn["stale"] == shop.in_vain
    else:
        drawn = captioner("eval", "compare", shop.path, tmp_path / "sheets", "--recipe", "aaaa", "--recipe", "model b", *options)
        assert drawn["captions"] == shop.differ

    sheets = sorted((tmp_path / "sheets").glob("*.csv"))
    people = [Person.any(rng, kind) for _ in sheets]
    calls = ways_to_score(rng, people, sheets, tmp_path / "filled")
    for call in calls:
        found = captioner("eval", "score", shop.path, *call)
    conn = sqlite3.connect(shop.path)
    check(conn, found, calls)
    conn.close()

    before = ratings(shop.path)
    again = captioner("eval", "score", shop.path, *calls[-1])
    assert ratings(shop.path) == before
    read = again.pop("read")
    assert again == {name: value for name, value in found.items() if name != "read"}
    assert read is None or read["new"] == read["changed"] == 0
