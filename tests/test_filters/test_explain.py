"""`captioner aggregate explain`: why each title and query was kept or dropped."""

import math
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from .tables import boards_table, captioner, counts, fits, log_table, refused, saves_table, titles, write


def explained(store: Path, pin: str, part: str) -> dict[str, Any]:
    """title or query (None: it is not shown) -> its entry in the output of `explain`."""
    found = counts("aggregate", "explain", store, pin)[part]
    return {
        entry["title" if part == "boards" else "query"]: entry
        for entry in found["titles" if part == "boards" else "queries"]
    }


def test_explain_says_of_every_title_why_it_was_kept_or_dropped(db: Path, boards: Path, saves: Path) -> None:
    counts("aggregate", "boards", db, "--boards", boards, "--saves", saves)
    result = captioner("aggregate", "explain", db, "1")
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout.splitlines() == [
        "pin 1",
        "",
        "2 of 5 board titles kept",
        "score = boards with the pin x idf of the words x all/(all+2)",
        "rank      score   boards     all  title",
        "   1   0.916291        2       2  kitchen ideas",
        "                                  idf 0.9163 of kitchen on 2, ideas on 2",
        "   2   0.462098        1       1  tea time",
        "                                  idf 1.386 of tea on 1, time on 1",
        "   -                   1          (empty)",
        "                                  dropped: empty",
        "   -                   1          (personal data)",
        "                                  dropped: personal data",
        "   -                   1       1  my stuff",
        "                                  dropped: says nothing",
    ]
    assert captioner("aggregate", "explain", db, "9").stdout.splitlines()[:3] == [
        "pin 9 (not in the store yet)",
        "",
        "1 of 1 board title kept; also on 1 board not known yet",
    ]


def test_explain_says_of_every_query_why_it_was_kept_or_dropped(db: Path, log: Path) -> None:
    counts("aggregate", "queries", db, "--log", log, "--weight", "view=0")
    result = captioner("aggregate", "explain", db, "1")
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout.splitlines() == [
        "pin 1",
        "",
        "1 of 3 engaged queries kept, 730 days up to 2024-05-02",
        'score = sum of weights: "save" 1, "long_click" 1, "click" 0.25',
        "rank      score  engaged   users  query",
        "   1       2.25        3          red mug",
        '                                  1 "click", 2 "save"; 2024-05-01 to 2024-05-02',
        "   -                   0          (personal data)",
        '                                  dropped: personal data; 1 "save"',
        "   -                   0          mug",
        '                                  dropped: action of no weight; 7 "view"',
    ]


def test_explain_in_json_has_every_number_and_every_reason_of_titles(tmp_path: Path, db: Path) -> None:
    names = {
        "1": "Tea Time",
        "2": "tea time",
        "3": "tea",
        "4": "y",
        "5": "x" * 61,
        "6": "a b c d e f g h i j k",
        "7": "random",
        "8": "♡",
        "9": "www.example.com",
    }
    common = {f"c{i}": "Recipes" for i in range(21)}
    others: dict[Any, str | None] = {f"o{i}": f"cake {i}" for i in range(980)}
    counts_of = ["--boards", write(tmp_path / "boards.parquet", boards_table(names | common | others))]
    counts_of += [
        "--saves",
        write(
            tmp_path / "saves.parquet",
            saves_table(*(("1", board) for board in (*names, "c0", "c1", "o0", "?")), ("2", "c2")),
        ),
    ]
    counts("aggregate", "boards", db, *counts_of, "--top", "1")
    found = explained(db, "1", "boards")
    assert {title: entry["reason"] for title, entry in found.items() if title} == {
        "tea time": None,
        "tea": "beyond --top",
        "cake 0": "beyond --top",
        "y": "shorter than --min-chars",
        "x" * 61: "longer than --max-chars",
        "a b c d e f g h i j k": "more words than --max-words",
        "random": "says nothing",
        "recipes": "on more than --max-board-share of the boards",
    }
    passed = 3 + 980
    idf = (
        pytest.approx((math.log(1 + passed / 3) + math.log(1 + passed / 2)) / 2, rel=1e-5),
        pytest.approx(math.log(1 + passed / 3), rel=1e-5),
    )
    assert found["tea time"] == {
        "title": "tea time",
        "boards": 2,
        "boards_with_title": 2,
        "words": {"tea": 3, "time": 2},
        "idf": idf[0],
        "score": pytest.approx(2 * found["tea time"]["idf"] * 2 / 4, rel=1e-5),
        "rank": 1,
        "reason": None,
    }
    assert (found["tea"]["idf"], found["tea"]["rank"]) == (idf[1], None)
    assert found["recipes"]["boards"] == 2
    assert found["recipes"]["boards_with_title"] == 21
    everything = counts("aggregate", "explain", db, "1")
    assert sorted(entry["reason"] for entry in everything["boards"]["titles"] if entry["title"] is None) == [
        "empty",
        "personal data",
    ]
    assert (
        everything["pin_id"],
        everything["in_store"],
        everything["boards"]["unknown_boards"],
        everything["boards"]["outdated"],
        everything["queries"],
    ) == (
        "1",
        True,
        1,
        False,
        None,
    )


def test_explain_in_json_has_every_number_and_every_reason_of_queries(tmp_path: Path, db: Path) -> None:
    rows = [
        ("1", "mug", "save", "2024-05-01", 2, "u"),
        ("1", "Mug", "click", "2024-05-03", 3, "v"),
        ("1", "mug", "view", "2024-05-03", 9, "w"),
        ("1", "cup", "save", "2024-05-01", 1, "u"),
        ("1", "cup", "save", "2024-05-01", 1, "v"),
        ("1", "tea", "save", "2024-05-02", 9, "u"),
        ("1", "old", "save", "2024-04-01", 5, "u"),
        ("1", "new", "save", "2024-05-09", 5, "u"),
        ("1", "seen", "view", "2024-05-01", 5, "u"),
        ("1", "few", "click", "2024-05-01", 1, "u"),
        ("1", "q" * 101, "save", "2024-05-01", 5, "u"),
        ("1", "♡", "save", "2024-05-01", 5, "u"),
        ("1", "me@example.com", "save", "2024-05-01", 5, "u"),
        ("2", "mug", "save", "2024-05-01", 5, "u"),
    ]
    log = write(
        tmp_path / "log.parquet",
        log_table(*rows, names=("pin_id", "query", "action", "date", "count", "user_id")),
    )
    counts(
        "aggregate",
        "queries",
        db,
        "--log",
        log,
        "--as-of",
        "2024-05-03",
        "--window-days",
        "10",
        "--top",
        "1",
        "--min-users",
        "2",
        "--min-engagements",
        "2",
    )
    found = explained(db, "1", "queries")
    assert {query: entry["reason"] for query, entry in found.items() if query} == {
        "mug": None,
        "cup": "beyond --top",
        "tea": "fewer users than --min-users",
        "few": "fewer engagements than --min-engagements",
        "old": "before the window",
        "new": "after the as-of date",
        "seen": "action of no weight",
    }
    assert found["mug"] == {
        "query": "mug",
        "engagements": 5,
        "actions": {"save": 2, "click": 3, "view": 9},
        "users": 2,
        "top_user": "v",
        "top_user_engagements": 3,
        "top_user_share": 0.6,
        "first_date": "2024-05-01",
        "last_date": "2024-05-03",
        "score": 2.75,
        "rank": 1,
        "reason": None,
    }
    assert (
        found["cup"]["users"],
        found["cup"]["engagements"],
        found["cup"]["score"],
        found["cup"]["rank"],
    ) == (2, 2, 2.0, None)
    everything = counts("aggregate", "explain", db, "1")["queries"]
    assert sorted(entry["reason"] for entry in everything["queries"] if entry["query"] is None) == [
        "empty",
        "longer than 100 characters",
        "personal data",
    ]
    assert {name: everything["options"][name] for name in ("as_of", "window_days", "top", "min_users")} == {
        "as_of": "2024-05-03",
        "window_days": 10,
        "top": 1,
        "min_users": 2,
    }


def test_what_explain_keeps_is_what_stands_in_the_store(tmp_path: Path, db: Path) -> None:
    words = ["tea", "mug", "cup", "oak", "red", "new"]
    names = {str(i): f"{words[i % 6]} {words[i * i % 5]} {words[i // 7 % 6]}" for i in range(40)}
    boards = write(tmp_path / "boards.parquet", boards_table(names))
    saves = write(
        tmp_path / "saves.parquet", saves_table(*((str(i % 7), str(i * i % 40)) for i in range(200)))
    )
    rows = [
        (
            str(i % 7),
            words[i * i % 5] + words[i % 6],
            ["save", "click", "view"][i % 3],
            f"2024-05-{i % 28 + 1:02}",
            i % 4 + 1,
        )
        for i in range(300)
    ]
    log = write(
        tmp_path / "log.parquet", log_table(*rows, names=("pin_id", "query", "action", "date", "count"))
    )
    counts("aggregate", "boards", db, "--boards", boards, "--saves", saves, "--top", "5", "--min-boards", "1")
    counts(
        "aggregate",
        "queries",
        db,
        "--log",
        log,
        "--top",
        "4",
        "--min-engagements",
        "3",
        "--window-days",
        "20",
    )
    for pin in map(str, range(7)):
        found = counts("aggregate", "explain", db, pin)
        kept = [
            (t["rank"], t["title"], t["boards"], t["score"]) for t in found["boards"]["titles"] if t["rank"]
        ]
        asked = [
            (q["rank"], q["query"], q["engagements"], q["score"], q["first_date"], q["last_date"])
            for q in found["queries"]["queries"]
            if q["rank"]
        ]
        with closing(sqlite3.connect(db)) as conn:
            assert (
                kept
                == conn.execute(
                    "SELECT rank, title, boards, score FROM board_title_ranks WHERE pin_id = ? ORDER BY rank",
                    [pin],
                ).fetchall()
            )
            assert (
                asked
                == conn.execute(
                    """SELECT rank, query, engagements, score, first_date, last_date
                    FROM engaged_query_ranks WHERE pin_id = ? ORDER BY rank""",
                    [pin],
                ).fetchall()
            )
        assert kept
        assert asked


def test_explain_goes_by_the_options_of_the_last_run(db: Path, boards: Path, saves: Path, log: Path) -> None:
    counts("aggregate", "boards", db, "--boards", boards, "--saves", saves)
    counts("aggregate", "queries", db, "--log", log)
    counts("aggregate", "boards", db, "--min-boards", "2", "--min-chars", "9")
    counts("aggregate", "queries", db, "--weight", "view=1", "--as-of", "2024-05-01")
    assert {title: entry["reason"] for title, entry in explained(db, "1", "boards").items() if title} == {
        "kitchen ideas": None,
        "tea time": "shorter than --min-chars",
        "my stuff": "shorter than --min-chars",
    }
    assert {
        query: (entry["engagements"], entry["reason"])
        for query, entry in explained(db, "1", "queries").items()
        if query
    } == {
        "red mug": (2, None),
        "mug": (0, "before the window"),
    }


def test_explain_of_a_pin_of_which_nothing_was_read(db: Path, boards: Path, saves: Path, log: Path) -> None:
    counts("aggregate", "boards", db, "--boards", boards, "--saves", saves)
    counts("aggregate", "queries", db, "--log", log)
    result = captioner("aggregate", "explain", db, "2")
    assert result.exit_code == 0
    assert result.stdout.splitlines() == [
        "pin 2",
        "",
        "0 of 0 board titles kept",
        "",
        "0 of 0 engaged queries kept, 730 days up to 2024-05-02",
    ]
    assert (
        refused("aggregate", "explain", db, "no such pin")
        == "no pin 'no such pin': neither in the store nor in what was aggregated"
    )


def test_explain_before_any_aggregation_says_what_to_run(db: Path) -> None:
    assert (
        refused("aggregate", "explain", db, "1") == "nothing has been aggregated yet:"
        " run `captioner aggregate boards` or `captioner aggregate queries` first"
    )


def test_explain_fits_into_80_columns(tmp_path: Path, db: Path) -> None:
    boards = write(tmp_path / "boards.csv", boards_table({"a": "mid century modern " * 3}))
    counts(
        "aggregate",
        "boards",
        db,
        "--boards",
        boards,
        "--saves",
        write(tmp_path / "saves.csv", saves_table(("1", "a"))),
    )
    assert fits(captioner("aggregate", "explain", db, "1").stdout)


@pytest.mark.parametrize("change", ["edited", "removed"])
def test_explain_still_explains_the_store_after_the_list_of_generic_titles_is_changed(
    tmp_path: Path, db: Path, boards: Path, saves: Path, change: str
) -> None:
    path = tmp_path / "list.txt"
    path.write_text("tea time\n")
    counts("aggregate", "boards", db, "--boards", boards, "--saves", saves, "--generic-titles", path)
    path.write_text("kitchen ideas\n")
    if change == "removed":
        path.unlink()
    found = counts("aggregate", "explain", db, "1")["boards"]
    kept = [entry["title"] for entry in found["titles"] if entry["rank"]]
    assert kept == titles(db)["1"] or found["outdated"]


@pytest.mark.parametrize("pin", ["1.0", " 1 ", "1.00"])
def test_explain_understands_an_id_as_tables_do(db: Path, log: Path, pin: str) -> None:
    counts("aggregate", "queries", db, "--log", log)
    assert counts("aggregate", "explain", db, pin)["pin_id"] == "1"
