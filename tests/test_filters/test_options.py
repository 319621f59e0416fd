"""The options of `captioner aggregate`: what they refuse, and what they decide."""

import os
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from .tables import boards_table, captioner, counts, log_table, queries, refused, saves_table, titles, write


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["boards", "--top", "0"], "'--top': 0 is not in the range 1<=x<=1000"),
        (["boards", "--top", "ten"], "'ten' is not a valid integer range"),
        (["boards", "--min-boards", "0"], "'--min-boards': 0 is not in the range x>=1"),
        (["boards", "--max-board-share", "1.1"], "'--max-board-share': 1.1 is not in the range"),
        (["boards", "--max-board-share", "-0.1"], "'--max-board-share': -0.1 is not in the range"),
        (["boards", "--min-chars", "0"], "'--min-chars': 0 is not in the range"),
        (["boards", "--max-chars", "0"], "'--max-chars': 0 is not in the range"),
        (["boards", "--max-words", "0"], "'--max-words': 0 is not in the range"),
        (["boards", "--log", "x.csv"], "No such option '--log'"),
        (["queries", "--top", "-1"], "'--top': -1 is not in the range 1<=x<=1000"),
        (["queries", "--window-days", "0"], "'--window-days': 0 is not in the range"),
        (["queries", "--min-engagements", "0"], "'--min-engagements': 0 is not in the range"),
        (["queries", "--min-users", "0"], "'--min-users': 0 is not in the range"),
        (["queries", "--as-of", "soon"], "'--as-of': 'soon' is no day: write it as in 2026-05-31"),
        (["queries", "--as-of", "2023-02-29"], "'--as-of': '2023-02-29' is no day of the calendar"),
        (["queries", "--as-of", "31.05.2026"], "is not written as a day: write it as 2026-05-31"),
        (["queries", "--as-of", "31.02.2026"], "'31.02.2026' is no day: write it as in 2026-05-31"),
        (["queries", "--as-of", "2026/05/31"], "is not written as a day: write it as 2026-05-31"),
        (["queries", "--weight", "save"], "'--weight': 'save' is not ACTION=W, for instance click=0.25"),
        (
            ["queries", "--weight", "save=much"],
            "'--weight': 'save=much' is not ACTION=W, for instance click=0.25",
        ),
        (["queries", "--weight", "=1"], "'--weight': '=1' is not ACTION=W, for instance click=0.25"),
        (["explain"], "Missing argument 'PIN_ID'"),
    ],
)
def test_an_option_that_makes_no_sense_is_wrong_usage(db: Path, arguments: list[str], said: str) -> None:
    command, *options = arguments
    assert said in refused("aggregate", command, db, *options, code=2)


@pytest.mark.parametrize("weight", ["save=-1", "save=nan", "save=inf", "save=1000001", "save=0.0000001"])
def test_an_impossible_weight_is_an_error(db: Path, log: Path, weight: str) -> None:
    said = captioner("aggregate", "queries", db, "--log", log, "--weight", weight)
    assert (said.exit_code in (1, 2), said.stdout) == (True, "")
    assert "it must be between 0 and a million, with at most 6 decimals" in said.stderr
    assert queries(db) == {}


def test_an_impossible_weight_is_wrong_usage(db: Path, log: Path) -> None:
    refused("aggregate", "queries", db, "--log", log, "--weight", "save=-1", code=2)


def test_a_share_that_is_no_number_is_wrong_usage(db: Path, boards: Path) -> None:
    refused("aggregate", "boards", db, "--boards", boards, "--max-board-share", "nan", code=2)


@pytest.mark.parametrize(
    "size",
    [
        "nonsense",
        "0",
        "4",
        "4 apples",
        "1e3",
        "1GB' --",
        *(size for size in ("-1", "none", "")),
    ],
)
def test_a_memory_limit_that_is_not_a_size_is_an_error(db: Path, boards: Path, size: str) -> None:
    assert (
        refused("aggregate", "boards", db, "--boards", boards, "--memory-limit", size)
        == f"--memory-limit {size} is not a size such as 500MB or 4GB"
    )


@pytest.mark.parametrize("size", ["0MB", "1KB", "1MB"])
def test_a_memory_limit_that_is_too_small_is_an_error_with_advice(
    db: Path, boards: Path, saves: Path, size: str
) -> None:
    assert "--memory-limit" in refused(
        "aggregate", "boards", db, "--boards", boards, "--saves", saves, "--memory-limit", size
    )


def test_memory_limits_that_are_sizes_are_accepted(db: Path, boards: Path, saves: Path) -> None:
    for size in ("500MB", "1GB", "0.5GiB", "600 MB"):
        counts(
            "aggregate",
            "boards",
            db,
            "--boards",
            boards,
            "--saves",
            saves,
            "--rebuild",
            "--memory-limit",
            size,
        )
        assert titles(db) == {"1": ["kitchen ideas", "tea time"], "9": ["tea time"]}


def test_options_of_boards_decide_without_reading_again(tmp_path: Path, db: Path) -> None:
    boards = write(
        tmp_path / "boards.csv",
        boards_table(
            {
                1: "Kitchen Ideas",
                2: "kitchen ideas",
                3: "茶",
                4: "Tea",
                5: "a very long title of a board indeed",
                6: "one two three four",
            }
        ),
    )
    saves = write(tmp_path / "saves.csv", saves_table(*(("1", i) for i in range(1, 7))))
    counts("aggregate", "boards", db, "--boards", boards, "--saves", saves)
    everything = ["one two three four", "a very long title of a board indeed", "kitchen ideas", "tea"]
    assert sorted(titles(db)["1"]) == sorted(everything)
    boards.unlink()
    saves.unlink()
    for options, kept, dropped in [
        (["--top", "1"], ["kitchen ideas"], {"beyond --top": 3}),
        (
            ["--min-boards", "2"],
            ["kitchen ideas"],
            {"shorter than --min-chars": 1, "on fewer boards than --min-boards": 3},
        ),
        (["--min-chars", "1", "--max-chars", "3"], ["tea", "茶"], {"longer than --max-chars": 4}),
        (["--max-words", "2"], ["kitchen ideas", "tea"], {"more words than --max-words": 2}),
        ([], sorted(everything), {"shorter than --min-chars": 1}),
    ]:
        found = counts("aggregate", "boards", db, *options)
        assert found["rows_read"] == 0
        assert sorted(titles(db)["1"]) == sorted(kept)
        assert found["dropped"].items() >= dropped.items()


def test_a_file_of_generic_titles_replaces_the_list(
    tmp_path: Path, db: Path, boards: Path, saves: Path
) -> None:
    arguments = ["aggregate", "boards", db, "--boards", boards, "--saves", saves]
    counts(*arguments)
    assert titles(db)["1"] == ["kitchen ideas", "tea time"]  # My Stuff is on the built-in list
    (tmp_path / "list.txt").write_text(
        "\ufeff# what we skip\n\nＴＥＡ time!!\n   Something else\n", encoding="utf-8"
    )
    assert counts(*arguments, "--generic-titles", tmp_path / "list.txt")["dropped"]["says nothing"] == 1
    assert titles(db)["1"] == ["kitchen ideas", "my stuff"]
    (tmp_path / "list.txt").write_text("# nothing\n")  # the same path with other titles
    counts(*arguments, "--generic-titles", tmp_path / "list.txt")
    assert sorted(titles(db)["1"]) == ["kitchen ideas", "my stuff", "tea time"]


@pytest.mark.parametrize(
    ("name", "why"),
    [("none.txt", "No such file or directory"), (".", "Is a directory"), ("latin.txt", "it is not UTF-8")],
)
def test_a_file_of_generic_titles_that_cannot_be_read_is_an_error(
    tmp_path: Path, db: Path, boards: Path, name: str, why: str
) -> None:
    (tmp_path / "latin.txt").write_bytes(b"caf\xe9\n")
    path = os.path.normpath(tmp_path / name)
    assert (
        refused("aggregate", "boards", db, "--boards", boards, "--generic-titles", path)
        == f"{path} cannot be read as a list of titles: {why}"
    )


def test_weights_decide_how_much_an_action_counts(tmp_path: Path, db: Path) -> None:
    rows = [
        ("1", "mug", "save", "2024-05-01"),
        ("1", "cup", "click", "2024-05-01"),
        ("1", "tea", "add to cart", "2024-05-01"),
        ("1", "tea", "view", "2024-05-01"),
    ]
    log = write(tmp_path / "log.csv", log_table(*rows))
    found = counts("aggregate", "queries", db, "--log", log)
    assert (queries(db), found["unweighted_actions"]) == (
        {"1": ["mug", "cup"]},
        {"add to cart": 1, "view": 1},
    )
    found = counts(
        "aggregate",
        "queries",
        db,
        "--weight",
        "add to cart=2.5",
        "--weight",
        "click=1.25",
        "--weight",
        "save=0",
    )
    assert (queries(db), found["unweighted_actions"]) == ({"1": ["tea", "cup"]}, {"save": 1, "view": 1})
    with closing(sqlite3.connect(db)) as conn:
        assert conn.execute("SELECT scores FROM engaged_queries").fetchone() == ("[2.5,1.25]",)


def test_the_window_moves_to_any_day_and_back(tmp_path: Path, db: Path) -> None:
    days = {
        "old": "2024-01-01",
        "edge": "2024-04-22",
        "in": "2024-04-23",
        "new": "2024-05-02",
        "to come": "2999-01-01",
    }
    log = write(tmp_path / "log.csv", log_table(*(("1", query, "save", day) for query, day in days.items())))
    found = counts("aggregate", "queries", db, "--log", log)
    assert (found["as_of"], queries(db)) == ("2024-05-02", {"1": ["new", "in", "edge", "old"]})
    for options, kept, dropped in [
        (["--window-days", "10"], ["in", "new"], {"before the window": 2, "after the as-of date": 1}),
        (
            ["--window-days", "10", "--as-of", "2024-05-01"],
            ["edge", "in"],
            {"before the window": 1, "after the as-of date": 2},
        ),
        (["--as-of", "2024-01-01"], ["old"], {"after the as-of date": 4}),
        (["--as-of", "2999-01-01", "--window-days", "1"], ["to come"], {"before the window": 4}),
        (["--as-of", "0001-01-01"], [], {"after the as-of date": 5}),
        (["--as-of", "9999-12-31"], [], {"before the window": 5}),
        ([], ["edge", "in", "new", "old"], {"after the as-of date": 1}),
    ]:
        found = counts("aggregate", "queries", db, "--defaults", *options)
        assert sorted(queries(db).get("1", [])) == kept
        assert (found["rows_read"], found["dropped"]) == (0, dropped)


def test_min_engagements_min_users_and_top_of_queries(tmp_path: Path, db: Path) -> None:
    rows = [
        ("mug", 5, "u"),
        ("mug", 1, "u"),
        ("cup", 1, "u"),
        ("cup", 1, "v"),
        ("tea", 1, ""),
        ("tea", 1, None),
    ]
    log = write(
        tmp_path / "log.parquet",
        log_table(
            *(("1", query, "save", "2024-05-01", n, user) for query, n, user in rows),
            names=("pin_id", "query", "action", "date", "count", "user_id"),
        ),
    )
    counts("aggregate", "queries", db, "--log", log)
    for options, kept, reason, n in [
        (["--min-engagements", "3"], ["mug"], "fewer engagements than --min-engagements", 2),
        (["--min-users", "2"], ["cup"], "fewer users than --min-users", 2),
        (["--top", "1"], ["mug"], "beyond --top", 2),
        (["--top", "1", "--min-users", "2"], ["cup"], "fewer users than --min-users", 2),
    ]:
        found = counts("aggregate", "queries", db, *options)
        assert (queries(db)["1"], found["dropped"]) == (kept, {reason: n})
