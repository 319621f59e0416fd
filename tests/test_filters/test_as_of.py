"""Features as of a day, and the pairs after it.

The features are compared with those of a store that never got later rows, and the pairs with a count by hand.
"""

from __future__ import annotations

import json
import random
import sqlite3
from collections import Counter
from collections.abc import Iterable
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner, Result

from pincaption.cli import cli

DAY = date(2026, 3, 10)
TITLES = [
    "Kitchen ideas",
    "kitchen",
    "Garden",
    "garden ideas",
    "Red things",
    "red",
    "Bücher",
    "mug love",
    "boats",
    "tea time",
]
QUERIES = ["red mug", "mug", "garden bench", "boat", "tea", "kitchen shelf", "bücherregal", "lamp"]
WEIGHTS = {"save": 1.0, "long_click": 1.0, "click": 0.25}


def captioner(*arguments: Any) -> Result:
    result = CliRunner().invoke(cli, [str(a) for a in arguments])
    assert result.exit_code == 0, result.output
    return result


def lines(path: Path, rows: Iterable[dict[str, Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def make_world(seed: int) -> dict[str, list[dict[str, Any]]]:
    """Pins, boards that are renamed, saves and a log, over twenty days around DAY."""
    rng = random.Random(seed)

    def some_day() -> str:
        return str(DAY + timedelta(rng.randint(-10, 10)))

    boards = [{"board_id": f"b{i}", "title": rng.choice(TITLES), "created_at": some_day()} for i in range(40)]
    boards += [
        {"board_id": f"b{rng.randrange(40)}", "title": rng.choice(TITLES), "created_at": some_day()}
        for _ in range(10)
    ]
    return {
        "pins": [
            {"pin_id": f"p{i}", "kind": rng.choice(["pin", "product"]), "title": "x",
             "created_at": some_day() if i % 5 == 0 else None}
            for i in range(30)
        ],
        "boards": boards,
        "saves": [
            {"pin_id": f"p{rng.randrange(33)}", "board_id": f"b{rng.randrange(42)}", "saved_at": some_day()}
            for _ in range(300)
        ],
        "log": [
            {"pin_id": f"p{rng.randrange(33)}", "query": rng.choice(QUERIES),
             "action": rng.choice([*WEIGHTS, "impression"]), "date": some_day(),
             "count": rng.randint(1, 3), "user_id": str(rng.randrange(9))}
            for _ in range(400)
        ],
    }  # fmt: skip


def make_store(folder: Path, world: dict[str, list[dict[str, Any]]], *options: Any) -> Path:
    folder.mkdir(exist_ok=True)
    store = folder / "my.db"
    captioner("ingest", "pins", store, lines(folder / "pins.jsonl", world["pins"]))
    captioner(
        "aggregate",
        "boards",
        store,
        "--boards",
        lines(folder / "boards.jsonl", world["boards"]),
        "--saves",
        lines(folder / "saves.jsonl", world["saves"]),
    )
    captioner("aggregate", "queries", store, "--log", lines(folder / "log.jsonl", world["log"]), *options)
    return store


def until(world: dict[str, list[dict[str, Any]]], day: date) -> dict[str, list[dict[str, Any]]]:
    """The world as it was on that day."""
    dates = {"pins": "created_at", "boards": "created_at", "saves": "saved_at", "log": "date"}
    return {
        name: [row for row in rows if row[dates[name]] is None or row[dates[name]] <= str(day)]
        for name, rows in world.items()
    }


def read(folder: Path, name: str) -> list[dict[str, Any]]:
    return (
        [row for path in sorted((folder / name).glob("*.parquet")) for row in pq.read_table(path).to_pylist()]
        if (folder / name).exists()
        else []
    )


def by_pin(rows: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {row["pin_id"]: row for row in rows}


@pytest.mark.parametrize("seed", range(6))
def test_features_are_those_of_a_store_that_never_got_later_rows(tmp_path: Path, seed: int) -> None:
    world = make_world(seed)
    options = ["--min-users", 2, "--window-days", 9] if seed % 2 else []
    store = make_store(tmp_path / "now", world, *options)
    then = make_store(tmp_path / "then", until(world, DAY), *options, "--as-of", DAY)
    captioner("export", store, tmp_path / "a", "--as-of", DAY)
    captioner("export", then, tmp_path / "b")
    assert by_pin(read(tmp_path / "a", "features")) == by_pin(read(tmp_path / "b", "features"))
    captioner("export", store, tmp_path / "c")
    assert by_pin(read(tmp_path / "c", "features")) != by_pin(read(tmp_path / "a", "features"))


@pytest.mark.parametrize("seed", range(4))
def test_pairs_are_what_people_did_after_the_day(tmp_path: Path, seed: int) -> None:
    world, test_from = make_world(seed), DAY + timedelta(5)
    store = make_store(tmp_path / "now", world)
    captioner(
        "export", store, tmp_path / "out", "--as-of", DAY, "--pairs", "--test-from", test_from, "--seed", seed
    )
    features = by_pin(read(tmp_path / "out", "features"))
    wanted: Counter[tuple[str, ...]] = Counter()
    for row in world["log"]:
        if row["date"] > str(DAY) and row["action"] in WEIGHTS and row["pin_id"] in features:
            wanted[row["query"], row["pin_id"], row["action"], row["date"]] += (
                WEIGHTS[row["action"]] * row["count"]
            )
    pairs = read(tmp_path / "out", "pairs")
    assert {(r["query"], r["pin_id"], r["action"], r["date"]): r["weight"] for r in pairs} == dict(wanted)
    assert len(pairs) == len(wanted)
    for pair in pairs:
        assert pair["kind"] == features[pair["pin_id"]]["kind"]
        assert pair["split"] == ("test" if pair["date"] >= str(test_from) else "train")
        assert pair["in_features"] == (pair["query"] in features[pair["pin_id"]]["engaged_queries"])

    weights: dict[tuple[str, str, str], float] = Counter()
    for pair in pairs:
        weights[pair["split"], pair["pin_id"], pair["query"]] += pair["weight"]
    together: dict[tuple[str, str, str], list[float]] = {}
    for (split, pin, query), weight in weights.items():
        for (other_split, other_pin, other), other_weight in weights.items():
            if (split, pin) == (other_split, other_pin) and query < other:
                together.setdefault((split, query, other), []).append(min(weight, other_weight))
    found = {
        (r["split"], r["query"], r["other_query"]): (r["weight"], r["pins"])
        for r in read(tmp_path / "out", "query_pairs")
    }
    assert found == {key: (sum(some), len(some)) for key, some in together.items()}


def test_a_leak_that_is_planted_does_not_reach_the_features(tmp_path: Path) -> None:
    world = make_world(0)
    after = str(DAY + timedelta(1))
    world["boards"] += [
        {"board_id": f"leak{i}", "title": "leaked title", "created_at": after} for i in range(50)
    ]
    world["saves"] += [{"pin_id": f"p{i % 30}", "board_id": f"leak{i}", "saved_at": after} for i in range(50)]
    # a board that did not exist then
    world["saves"] += [{"pin_id": "p1", "board_id": "leak1", "saved_at": str(DAY)}]
    world["log"] += [
        {
            "pin_id": f"p{i}",
            "query": "leaked query",
            "action": "save",
            "date": after,
            "count": 99,
            "user_id": "1",
        }
        for i in range(30)
    ]
    store = make_store(tmp_path / "now", world)
    captioner("export", store, tmp_path / "out", "--as-of", DAY, "--pairs", "--format", "jsonl")
    features = (tmp_path / "out" / "features" / "part-00000.jsonl").read_text()
    assert "leaked" not in features
    assert "leaked query" in (tmp_path / "out" / "pairs" / "train-00000.jsonl").read_text()
    captioner("export", store, tmp_path / "all", "--format", "jsonl")
    # the same search finds it where it is allowed
    assert "leaked title" in (tmp_path / "all" / "features" / "part-00000.jsonl").read_text()
    # The real tables are unchanged.
    assert sqlite3.connect(store).execute(
        "SELECT count(*) FROM board_titles WHERE titles LIKE '%leaked%'"
    ).fetchone() != (0,)


def test_saves_without_dates_are_refused_by_default(tmp_path: Path) -> None:
    world = make_world(1)
    for row in world["saves"][:100]:
        del row["saved_at"]
    store = make_store(tmp_path / "now", world)
    refused = CliRunner().invoke(cli, ["export", str(store), str(tmp_path / "out"), "--as-of", str(DAY)])
    assert refused.exit_code == 1
    assert refused.stderr.startswith(
        "Error: no saved_at for 100 of 300 saves, so it is not known what existed on 2026-03-10:"
        " --undated drop leaves such saves out, --undated include"
    )
    assert not (tmp_path / "out").exists()
    counts = {}
    for undated in ("include", "drop"):
        captioner("export", store, tmp_path / undated, "--as-of", DAY, "--undated", undated)
        counts[undated] = sum(sum(row["board_title_counts"]) for row in read(tmp_path / undated, "features"))
    assert counts["include"] > counts["drop"] > 0


def test_the_same_seed_gives_the_same_pairs_and_another_one_another_order(tmp_path: Path) -> None:
    store = make_store(tmp_path / "now", make_world(2))
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        captioner("export", store, tmp_path / name, "--as-of", DAY, "--pairs", "--seed", seed)
    files = [
        {
            str(p.relative_to(tmp_path / name)): p.read_bytes()
            for p in (tmp_path / name).rglob("*")
            if p.is_file()
        }
        for name in "abc"
    ]
    assert files[0] == files[1]
    assert [r["query"] for r in read(tmp_path / "a", "pairs")] != [
        r["query"] for r in read(tmp_path / "c", "pairs")
    ]
    assert json.loads((tmp_path / "a" / "manifest.json").read_text())["as_of"] == str(DAY)


def test_options_that_contradict_one_another_are_wrong_usage(tmp_path: Path) -> None:
    store = make_store(tmp_path / "now", make_world(3))
    for options in (
        ["--pairs"],
        ["--test-from", "2026-04-01"],
        ["--as-of", "2026-03-10", "--pairs", "--test-from", "2026-03-10"],
    ):
        assert CliRunner().invoke(cli, ["export", str(store), str(tmp_path / "out"), *options]).exit_code == 2


def test_pairs_of_queries_are_the_same_whatever_the_weights_add_up_to(tmp_path: Path) -> None:
    world = make_world(1)
    one_save, seven_clicks = [("save", 0)], [("click", d) for d in range(7)]
    world["log"] = [
        {
            "pin_id": f"p{p}",
            "query": f"tea {q}",
            "action": action,
            "date": str(DAY + timedelta(1 + d)),
            "count": 1,
        }
        for p in range(3)
        for q in range(30)
        for action, d in (one_save if q % 2 else seven_clicks)
    ]
    store = make_store(tmp_path / "w", world, "--weight", "click=0.1", "--weight", "save=0.7")
    captioner("export", store, tmp_path / "out", "--as-of", DAY, "--pairs")
    found = pq.read_table(tmp_path / "out" / "query_pairs").to_pydict()
    # seven clicks weigh as much as a save
    assert {*found["query"], *found["other_query"]} == set(sorted(f"tea {q}" for q in range(30))[:20])
