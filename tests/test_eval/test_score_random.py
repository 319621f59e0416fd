"""`eval sample`, `eval compare` and `eval score` against the slow reference, and how items are drawn.

Stores, options, raters and spreadsheet programs are random.
"""

import csv
import io
import json
import math
import random
import shutil
import sqlite3
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from pincaption.cli import cli
from pincaption.eval.draw import allocate, draw, draw_pairs
from pincaption.eval.items import SampleOptions
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


def refused(*arguments: object) -> str:
    """The sentence with which a command refuses to work."""
    done = CliRunner().invoke(cli, [*map(str, arguments), "--json"])
    assert done.exit_code == 1, done.output[:200]
    assert done.output.startswith("Error: "), done.output
    assert "--debug" not in done.output, "an error that nobody thought of"
    return done.output


# --- stores ---


@dataclass
class Shop:
    """A store, and what a person would count in it."""

    path: Path
    # pins with a current caption: what each column of --stratify says of them
    current: dict[str, dict[str, Any]]
    in_vain: int  # pins that were tried and have none
    differ: int  # pins that the two recipes captioned differently


def make_store(path: Path, rng: random.Random, pins: int) -> Shop:
    """Pins of several categories, captioned by two recipes: ok, rejected, failed, of a replaced image."""
    shop = Shop(path, {}, 0, 0)
    categories = rng.sample(CATEGORIES, rng.randint(1, len(CATEGORIES)))
    conn = open_store(path, create=True)
    with transaction(conn):
        for recipe in ("aaaa1111", "bbbb2222"):
            conn.execute(
                "INSERT INTO recipes VALUES (?, ?, NULL, '', '', '{}', '{}', 'float32')",
                [recipe, f"model {recipe[0]}"],
            )
        for i in range(pins):
            pin = {
                "pin_id": f"pin-{i}",
                "kind": rng.choice(["pin", "pin", "product"]),
                "category": rng.choice(categories),
                "locale": rng.choice([None, "en", "de"]),
            }
            pin |= {
                "title": rng.choice([None, "a title"]),
                "image": f"/nowhere/{i}.jpg",
                "image_sha256": f"digest {i}",
                "deleted_at": rng.choice([None] * 9 + ["2026-01-01"]),
            }
            conn.execute(
                f"INSERT INTO pins ({', '.join(pin)}, has_title, has_description) VALUES "
                f"({', '.join('?' * len(pin))}, {int(pin['title'] is not None)}, 0)",
                list(pin.values()),
            )
            texts, newest, tried = [], None, False
            for recipe in ("aaaa1111", "bbbb2222"):
                status, fresh = rng.choice(["ok"] * 6 + ["rejected", "failed", None]), rng.random() < 0.9
                if status is None:
                    continue
                tried = True
                text = rng.choice(
                    [f"a {i % 7} mug, red", f'{recipe} "{i}"; a lamp\nand \'=1+1', "ランプ" * (i + 1)]
                )
                moment = f"2026-0{rng.randint(1, 9)}-01"
                row = [
                    pin["pin_id"],
                    recipe,
                    status,
                    None if status == "failed" else text,
                    None if status == "ok" else "why not",
                    f"digest {i}" if fresh else "earlier",
                    moment,
                ]
                conn.execute(
                    "INSERT INTO captions (pin_id, recipe_id, status, text, reason, image_sha256, "
                    "updated_at) VALUES (?, ?, ?, ?, ?, ?, ?)",
                    row,
                )
                if status == "ok" and fresh:
                    texts.append(text)
                    if newest is None or moment > newest[0]:
                        newest = (moment, recipe)
            if pin["deleted_at"]:
                continue
            if newest:
                strata = {
                    "kind": pin["kind"],
                    "category": (pin["category"] or "").strip(" ") or None,
                    "locale": pin["locale"],
                    "caption_recipe": newest[1],
                    None: None,
                }
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
            relevance, quality = rng.choice(
                [("relevant", ""), ("", "poor"), ("not", "poor"), ("partly", "acceptable")]
            )
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
    said: dict[str, dict[str, str]] = field(default_factory=dict)  # by item_id: the rows that were filled in

    @classmethod
    def any(cls, rng: random.Random, kind: str) -> "Person":
        odds = {}
        for question in ASKED[kind]:
            odds[question] = rng.choice(
                [
                    [8, 2, 1, 1, 1],
                    [20, 1, 1, 0, 0],
                    [1, 1, 1, 1, 1],
                    [1, 0, 0, 0, 0],
                    [0, 0, 1, 0, 0],
                    [1, 0, 1, 2, 4],
                    [0, 0, 0, 1, 3],
                    [1, 3, 8, 1, 0],
                ]
            )
        encoding, delimiter = rng.choice(
            [
                ("utf-8", ","),
                ("utf-8-sig", ","),
                ("utf-8-sig", ";"),
                ("utf-8", ";"),
                ("utf-8", "\t"),
                ("utf-16", "\t"),
            ]
        )
        without = rng.sample(
            [
                "sample",
                "rater",
                "number",
                "caption",
                "first_caption",
                "comment",
                "seconds",
                "answered_at",
            ],  # not those of the questions: such a sheet is refused
            rng.choice([0, 0, 1, 3]),
        )
        return cls(
            rng,
            odds,
            encoding,
            delimiter,
            rng.choice(["\n", "\r\n"]),
            rng.random() < 0.5,
            without,
            rng.random() < 0.3,
            rng.random() < 0.3,
        )

    def fill(
        self, sheet: Path, filled: Path, skip: float = 0.0, day: int | None = None, keep: float = 0.0
    ) -> Path:
        """Fills a sheet in and saves it as `filled`. A share `skip` of the rows stays unanswered.

        With a `day`, the sheet says when each row was answered. Of the rows that this person answered before,
        a share `keep` stays as it was, and always one that can be seen to be the same.
        """
        rng = self.rng
        kept = next((i for i, row in self.said.items() if keep and self.is_visible(row)), None)
        rows = list(csv.DictReader(io.StringIO(sheet.read_bytes().decode("utf-8-sig"), newline="")))
        for row in rows:
            item_id = row["item_id"]
            if item_id != kept and rng.random() < skip:
                continue
            if item_id == kept or (item_id in self.said and rng.random() < keep):
                row |= self.said[item_id]
                continue
            for question, odds in self.odds.items():
                answer = rng.choices([*VALUES[question], CANNOT, ""], odds)[0]
                row[question] = f"  {answer.upper()} " if self.shouting else answer
            seconds = rng.choice(["", "3", "0.5", "17.25", "17.25", "80"])
            row |= {
                "comment": rng.choice(COMMENTS) or "",
                "seconds": seconds.replace(".", ",") if self.delimiter == ";" else seconds,
            }
            row["answered_at"] = (
                f"2026-11-{day:02}T{rng.randint(0, 23):02}:15:{rng.randint(0, 59):02}Z" if day else ""
            )
            self.said[item_id] = dict(row)
        if self.shuffled:
            rng.shuffle(rows)
        columns = [name for name in rows[0] if name not in self.without or (day and name == "answered_at")]
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

    def is_visible(self, row: dict[str, str]) -> bool:
        """Whether anything is left of the row once columns were deleted."""
        return any(row[name] for name in (*self.odds, "comment") if name not in self.without)


def ways_to_score(
    rng: random.Random, people: Sequence[Person], sheets: Sequence[Path], folder: Path
) -> list[list[Path]]:
    """Calls of `score`, each with some sheets.

    All at once, one by one, half a sheet before the whole, with answers that change, or without sheets at the
    end. Answers change only where each says when it was given: otherwise they may be another person's.
    """
    if rng.random() < 0.2:  # two sheets of each rater, in one call or in two; then the later one comes second
        days = [
            [
                person.fill(sheet, folder / f"{day} {sheet.name}", 0.4, day, keep=0.5)
                for person, sheet in zip(people, sheets, strict=True)
            ]
            for day in (3, 4)
        ]
        return rng.choice([days, [days[0] + days[1]], [days[1] + days[0]]])
    whole = [
        person.fill(sheet, folder / sheet.name, rng.choice([0, 0, 0.1, 0.8]))
        for person, sheet in zip(people, sheets, strict=True)
    ]
    half = [
        person.fill(sheet, folder / f"half {sheet.name}", 0.5, keep=1)
        for person, sheet in zip(people, sheets, strict=True)
    ]
    some = rng.sample(whole, rng.randint(1, len(whole)))
    return rng.choice(
        [
            [whole],
            [some],
            [*([sheet] for sheet in whole), []],
            [*([sheet] for sheet in whole), whole],
            [half, whole],
            [whole, half],
            [half, some, []],
            [whole, some],
        ]
    )


# --- comparing ---


def differences(ours: Any, right: Any, where: str = "") -> list[str]:
    """Where what was printed differs from what is right; everything in `right` must be there."""
    if isinstance(right, dict) and isinstance(ours, dict):
        # who said nothing to a question need not be named there
        right = {name: of for name, of in right.items() if name in ours or of != {"ratings": 0, "mean": None}}
        missing = [f"{where}.{name}: missing" for name in right.keys() - ours.keys()]
        return missing + [
            found
            for name in right.keys() & ours.keys()
            for found in differences(ours[name], right[name], f"{where}.{name}")
        ]
    if isinstance(right, list) and isinstance(ours, list) and len(right) == len(ours):
        return [
            found
            for i, (a, b) in enumerate(zip(ours, right, strict=True))
            for found in differences(a, b, f"{where}[{i}]")
        ]
    if isinstance(right, float) and isinstance(ours, int | float):
        allowed = 0.05 if where.endswith("effective_items") else 0  # which is printed with one decimal
        return [] if abs(ours - right) <= allowed + 1e-9 else [f"{where}: {ours} where {right} is right"]
    return [] if ours == right else [f"{where}: {ours!r} where {right!r} is right"]


def check(conn: sqlite3.Connection, ours: dict[str, Any], calls: list[list[Path]]) -> None:
    right = expected(conn, calls)
    answers = right.pop("answers")
    assert differences(ours, right) == []
    assert len(ours["by_rater"]) == len(right["by_rater"])
    for shown in ours["disputed"] + ours["worst"] if ours["kind"] == "captions" else ours["disputed"]:
        given = {
            of["rater"]: {name: answer for name, answer in of.items() if name in VALUES}
            for of in shown["answers"]
        }
        assert given == answers[shown["pin_id"]]
    for of in ours["questions"].values():
        for measure, interval in of["intervals"].items():
            assert interval is None or interval[0] <= interval[1] <= 1, (measure, interval)
            assert interval is None or of[measure] is not None, measure

    if ours.get("decided"):
        # who sees no difference has answered: the shares of the two captions are to one another as the
        # preference says
        first, second = (ours["shares"][name]["share"] for name in ("first", "second"))
        assert ours["preference"]["share"] == pytest.approx(first / (first + second))

    taken = conn.execute(
        "SELECT item_id, relevance, quality, better, comment, seconds FROM ratings"
    ).fetchall()
    said = gathered(calls)
    assert {row[0] for row in taken} == set(said)
    for item_id, *row in taken:
        assert row == [
            said[item_id].get(name) for name in ("relevance", "quality", "better", "comment", "seconds")
        ]


def ratings(path: Path) -> list[Any]:
    conn = sqlite3.connect(path)
    try:
        return conn.execute("SELECT * FROM ratings ORDER BY item_id").fetchall()
    finally:
        conn.close()


@pytest.mark.parametrize("plan", range(25))
def test_scores_are_those_of_the_reference(plan: int, tmp_path: Path) -> None:
    rng = random.Random(plan)
    shop = make_store(tmp_path / "my.db", rng, rng.choice([40, 60, 100]))
    kind, stratify = rng.choice(["captions", "captions", "comparison"]), rng.choice(STRATIFY)
    if kind == "comparison" and stratify == "caption_recipe":
        stratify = None
    options: list[object] = [
        "--n",
        rng.choice([9, 15, 40, 100]),
        "--raters",
        rng.choice([1, 2, 3, 3, 5]),
        "--seed",
        rng.choice([0, 3, 10**12]),
        "--duplicates",
        rng.choice([0, 0.05, 0.3, 0.5]),
    ]
    options += ["--allocation", rng.choice(["equal", "proportional"])] + (
        ["--stratify", stratify] if stratify else []
    )
    if kind == "captions":
        if rng.random() < 0.5:
            options += ["--gold", gold_file(tmp_path / "gold.csv", rng, list(shop.current))]
        drawn = captioner("eval", "sample", shop.path, tmp_path / "sheets", *options)
        assert {s["stratum"]: s["captions"] for s in drawn["strata"]} == Counter(
            of[stratify] for of in shop.current.values()
        )
        assert drawn["rejected"] + drawn["failed"] + drawn["stale"] == shop.in_vain
    else:
        drawn = captioner(
            "eval",
            "compare",
            shop.path,
            tmp_path / "sheets",
            "--recipe",
            "aaaa",
            "--recipe",
            "model b",
            *options,
        )
        assert drawn["captions"] == shop.differ

    sheets = sorted((tmp_path / "sheets").glob("*.csv"))
    people = [Person.any(rng, kind) for _ in sheets]
    calls = ways_to_score(rng, people, sheets, tmp_path / "filled")
    conn = sqlite3.connect(shop.path)
    for i, call in enumerate(calls):
        found = None
        if expected(conn, calls[: i + 1])["ratings"] == 0:
            assert "no answers yet" in refused("eval", "score", shop.path, *call)
        else:
            found = captioner("eval", "score", shop.path, *call)
            check(conn, found, calls[: i + 1])
    conn.close()
    if found is None:
        return

    before = ratings(shop.path)
    again = captioner("eval", "score", shop.path, *calls[-1])
    assert ratings(shop.path) == before
    read = again.pop("read")
    assert again == {name: value for name, value in found.items() if name != "read"}
    assert read is None or read["new"] == read["changed"] == 0


def test_a_comparison_knows_which_side_was_which(tmp_path: Path) -> None:
    """Everybody prefers what the newer recipe wrote, wherever the sheet shows it."""
    shop = make_store(tmp_path / "my.db", random.Random(1), 100)
    captioner(
        "eval",
        "compare",
        shop.path,
        tmp_path / "sheets",
        "--recipe",
        "aaaa",
        "--recipe",
        "bbbb",
        "--n",
        20,
        "--duplicates",
        0.5,
    )
    conn = sqlite3.connect(shop.path)
    other = dict(
        conn.execute(
            "SELECT item_id, other_caption FROM sheet_rows JOIN sample_items USING (sample_id, item)"
        )
    )
    conn.close()
    sheets = sorted((tmp_path / "sheets").glob("*.csv"))
    for sheet in sheets:
        rows = read_rows(sheet)
        shown_first = {
            row["item_id"]
            for row in rows
            if row["first_caption"].replace("'=", "=") == other[row["item_id"]].replace("'=", "=")
        }
        assert 0 < len(shown_first) < len(rows)
        write_rows(
            sheet, [row | {"better": "first" if row["item_id"] in shown_first else "second"} for row in rows]
        )
    found = captioner("eval", "score", shop.path, *sheets)
    assert found["wins"] == {"first": 0, "no_difference": 0, "second": 20}
    assert found["recipes"]["second"]["recipe"] == "bbbb2222"
    assert found["sign_test"] == pytest.approx(2 / 2**20)
    assert all(of["repeats"] == of["repeats_same"] == 10 for of in found["by_rater"].values())


def test_who_answered_nothing_is_not_among_those_who_judged(tmp_path: Path) -> None:
    """`sheets/*.csv` names the sheets, too, that nobody has filled in yet."""
    shop = make_store(tmp_path / "my.db", random.Random(1), 40)
    captioner("eval", "sample", shop.path, tmp_path / "sheets", "--n", 10)
    sheets = sorted((tmp_path / "sheets").glob("*.csv"))
    write_rows(
        sheets[0], [row | {"relevance": "relevant", "quality": "good"} for row in read_rows(sheets[0])]
    )
    found = captioner("eval", "score", shop.path, *sheets)
    assert found["raters"] == 1
    assert "3 people" not in found["sentence"]


def test_a_negative_seed(tmp_path: Path) -> None:
    shop = make_store(tmp_path / "my.db", random.Random(1), 40)
    captioner("eval", "sample", shop.path, tmp_path / "sheets", "--n", 10, "--seed", -1)
    sheet = tmp_path / "sheets" / "rater-1.csv"
    write_rows(sheet, [row | {"relevance": "relevant", "quality": "good"} for row in read_rows(sheet)])
    assert captioner("eval", "score", shop.path, sheet)["relevant_and_good"]["share"] == 1


@pytest.mark.parametrize("order", [["early", "late"], ["late", "early"]])
@pytest.mark.parametrize("together", [True, False])
def test_the_later_answer_counts_whichever_sheet_comes_first(
    order: list[str], together: bool, tmp_path: Path
) -> None:
    """One answer stays as it was, with its time: so the same person gave both."""
    shop = make_store(tmp_path / "my.db", random.Random(1), 40)
    captioner("eval", "sample", shop.path, tmp_path / "sheets", "--n", 10)
    rows = read_rows(tmp_path / "sheets" / "rater-1.csv")
    kept = rows[0] | {"relevance": "relevant", "quality": "good", "answered_at": "2026-11-03T09:00:00Z"}
    for name, relevance, quality, day in (("early", "not", "poor", 3), ("late", "relevant", "good", 4)):
        answer = {"relevance": relevance, "quality": quality, "answered_at": f"2026-11-0{day}T09:01:00Z"}
        write_rows(tmp_path / f"{name}.csv", [kept, *(row | answer for row in rows[1:])])
    sheets = [tmp_path / f"{name}.csv" for name in order]
    for call in [sheets] if together else [[sheet] for sheet in sheets]:
        found = captioner("eval", "score", shop.path, *call)
    assert found["relevant_and_good"]["share"] == 1


@pytest.mark.parametrize("edit", ["two exchanged", "the column sorted by itself", "those of another rater"])
def test_an_item_id_that_belongs_to_another_row_is_refused(edit: str, tmp_path: Path) -> None:
    """Each of them is an item_id of the sample, but not beside this number and this caption."""
    shop = make_store(tmp_path / "my.db", random.Random(1), 60)
    captioner("eval", "sample", shop.path, tmp_path / "sheets", "--n", 10)
    sheet = tmp_path / "sheets" / "rater-1.csv"
    rows = [row | {"relevance": "relevant", "quality": "good"} for row in read_rows(sheet)]
    ids = [row["item_id"] for row in rows]
    if edit == "two exchanged":
        ids[3], ids[5] = ids[5], ids[3]
    elif edit == "those of another rater":
        ids = [row["item_id"] for row in read_rows(sheet.with_name("rater-2.csv"))]
    else:
        ids.sort()
    write_rows(sheet, [row | {"item_id": item_id} for row, item_id in zip(rows, ids, strict=True)])
    assert "row " in refused("eval", "score", shop.path, sheet)
    assert ratings(shop.path) == []


def read_rows(sheet: Path) -> list[dict[str, str]]:
    with sheet.open(newline="", encoding="utf-8-sig") as file:
        return list(csv.DictReader(file))


def write_rows(sheet: Path, rows: Sequence[dict[str, str]]) -> None:
    with sheet.open("w", newline="", encoding="utf-8-sig") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


# --- how items are drawn ---


@pytest.mark.parametrize("command", ["sample", "compare"])
def test_the_same_seed_on_a_copy_of_the_store_gives_the_same_bytes(command: str, tmp_path: Path) -> None:
    shop = make_store(tmp_path / "my.db", random.Random(2), 80)
    shutil.copy(shop.path, tmp_path / "copy.db")
    options: list[object] = [
        "--n",
        20,
        "--stratify",
        "category",
        "--allocation",
        "proportional",
        "--duplicates",
        0.2,
    ]
    options += (
        ["--recipe", "aaaa", "--recipe", "bbbb"]
        if command == "compare"
        else ["--gold", gold_file(tmp_path / "gold.csv", random.Random(2), list(shop.current))]
    )
    folders = {name: tmp_path / name for name in ("first", "again", "copied", "other")}
    for name, folder in folders.items():
        captioner(
            "eval",
            command,
            tmp_path / ("copy.db" if name == "copied" else "my.db"),
            folder,
            *options,
            "--seed",
            6 if name == "other" else 5,
        )
    bytes_of = {
        name: {path.name: path.read_bytes() for path in sorted(folder.iterdir())}
        for name, folder in folders.items()
    }
    assert len(bytes_of["first"]) == 1 + 2 * 3
    assert bytes_of["first"] == bytes_of["again"] == bytes_of["copied"]
    assert bytes_of["first"]["rater-1.csv"] != bytes_of["other"]["rater-1.csv"]
    conn = sqlite3.connect(shop.path)
    assert conn.execute("SELECT count(*) FROM samples").fetchone() == (2,)
    conn.close()


def too_uneven(counts: Sequence[int], draws: int, chance: float) -> float:
    """How far the chi-square of some counts lies above that of a fair draw, in standard deviations.

    In each draw each of them should be counted with this chance.
    """
    free = len(counts) - 1
    square = (
        sum((count - draws * chance) ** 2 for count in counts)
        / (draws * chance * (1 - chance))
        * free
        / len(counts)
    )
    return (square - free) / math.sqrt(2 * free)


@pytest.mark.parametrize("kind", ["captions", "comparison"])
def test_every_caption_of_a_stratum_is_drawn_as_often_as_the_next(kind: str, tmp_path: Path) -> None:
    make_store(tmp_path / "my.db", random.Random(3), 200)
    conn = open_store(tmp_path / "my.db")
    drawn, repeated, opened, swapped, pairs, seeds = (
        Counter[str](),
        Counter[int](),
        Counter[int](),
        Counter[bool](),
        Counter[Any](),
        300,
    )
    for seed in range(seeds):
        options = SampleOptions(n=20, seed=seed, stratify="locale", duplicates=0.2, raters=2)
        sample = draw(conn, options) if kind == "captions" else draw_pairs(conn, options, "aaaa", "bbbb")
        drawn.update(item.pin_id for item in sample.items)
        repeated.update(row.item for row in sample.rows if row.is_repeat)
        opened.update(row.item for row in sample.rows if row.position == 1)
        swapped.update(row.swapped for row in sample.rows)
        if len({row.swapped for row in sample.rows if row.item == 1 and not row.is_repeat}) == 2:
            pairs["not alike for both raters"] += 1
    strata = dict(conn.execute("SELECT pin_id, locale FROM pins").fetchall())
    conn.close()
    for stratum in sample.strata:
        counts = [count for pin_id, count in drawn.items() if strata[pin_id] == stratum.name]
        assert len(counts) == stratum.captions
        assert too_uneven(counts, seeds, stratum.items / stratum.captions) < 4
    assert too_uneven([repeated[i] for i in range(1, 21)], 2 * seeds, 0.2) < 4, "which items come twice"
    assert too_uneven([opened[i] for i in range(1, 21)], 2 * seeds, 1 / 20) < 4, "which item comes first"
    if kind == "captions":
        assert swapped[True] == 0
    else:
        assert abs(swapped[True] / swapped.total() - 0.5) < 0.02
        assert abs(pairs["not alike for both raters"] / seeds - 0.5) < 0.12


@pytest.mark.parametrize("allocation", ["equal", "proportional"])
def test_allocations_come_to_n_and_leave_no_stratum_out(allocation: str) -> None:
    rng = random.Random(4)
    for _ in range(1000):
        captions = {
            name: rng.choice([1, 2, 3, 5, 40, 1000, rng.randint(1, 5000)])
            for name in range(rng.randint(1, 9))
        }
        n = rng.randint(len(captions), rng.choice([len(captions), 60, 400]) + len(captions))
        items = allocate(captions, n, allocation)
        assert sum(items.values()) == min(n, sum(captions.values()))
        assert all(1 <= items[name] <= captions[name] for name in captions)
        if allocation == "equal":
            # a stratum has fewer than another only where it has no more; one item may be left over
            assert all(
                items[name] == captions[name] or items[name] >= max(items.values()) - 1 for name in captions
            )
        elif n <= sum(captions.values()):
            enough = all(n * size >= sum(captions.values()) for size in captions.values())
            assert not enough or all(
                abs(items[name] - n * size / sum(captions.values())) < 1 for name, size in captions.items()
            )


@pytest.mark.parametrize(
    ("n", "duplicates", "gold"),
    [
        (60, 0.05, 0),
        (60, 0.25, 10),
        (60, 0.5, 0),
        (30, 0.05, 0),
        (10, 0.5, 20),
        (4, 0.3, 0),
        (1, 0.5, 0),
        (60, 0, 3),
    ],
)
def test_repeats_come_well_after_the_original(n: int, duplicates: float, gold: int, tmp_path: Path) -> None:
    make_store(tmp_path / "my.db", random.Random(5), 150)
    conn = open_store(tmp_path / "my.db")
    known = (
        [
            item.__class__(0, item.pin_id, None, None, None, "gold", gold_quality="poor")
            for item in draw(conn, SampleOptions(n=gold)).items
        ]
        if gold
        else []
    )
    for seed in range(20):
        sample = draw(conn, SampleOptions(n=n, duplicates=duplicates, seed=seed), gold=known)
        assert len({row.item_id for row in sample.rows}) == len(sample.rows)
        for rater in sample.raters:
            rows = [row for row in sample.rows if row.rater == rater]
            assert [row.position for row in rows] == list(range(1, len(rows) + 1))
            first = {row.item: row.position for row in rows if not row.is_repeat}
            assert sorted(first) == list(range(1, n + gold + 1))
            repeats = [row for row in rows if row.is_repeat]
            assert len({row.item for row in repeats}) == len(repeats)
            order = sorted(first, key=lambda item: first[item])
            quarter = (len(order) + math.floor(duplicates * n + 0.5)) / 4
            # items after which a quarter of the sheet is still to come
            room = sum(item <= n and i + quarter < len(order) - 1 for i, item in enumerate(order))
            assert len(repeats) == min(room, math.floor(duplicates * n + 0.5))
            assert all(row.item <= n for row in repeats), "gold comes once"
            assert all(row.position - first[row.item] >= (n + gold) / 4 for row in repeats)
    conn.close()


@pytest.mark.parametrize(
    ("margin", "options"),
    [
        (0.1, []),
        (0.12, ["--stratify", "category"]),
        (0.2, ["--stratify", "locale"]),
        (0.15, ["--stratify", "category", "--allocation", "proportional"]),
    ],
)
def test_a_margin_takes_as_few_items_as_it_can(margin: float, options: list[str], tmp_path: Path) -> None:
    shop = make_store(tmp_path / "my.db", random.Random(6), 400)

    def reached(found: dict[str, Any]) -> float:
        """Half the width of a 95% interval about one half, after what uneven weights cost."""
        exact = Z / 2 / math.sqrt(kish([s["weight"] for s in found["strata"] for _ in range(s["items"])]))
        assert found["margin"] == round(exact, 4)
        return exact

    found = captioner("eval", "sample", shop.path, tmp_path / "sheets", "--margin", margin, *options)
    assert reached(found) <= margin
    fewer = captioner("eval", "sample", shop.path, tmp_path / "fewer", "--n", found["items"] - 1, *options)
    assert reached(fewer) > margin


def test_a_margin_beyond_reach_takes_all_there_is(tmp_path: Path) -> None:
    shop = make_store(tmp_path / "my.db", random.Random(7), 40)
    found = captioner("eval", "sample", shop.path, tmp_path / "sheets", "--margin", 0.01)
    assert found["items"] == found["captions"] == len(shop.current)
