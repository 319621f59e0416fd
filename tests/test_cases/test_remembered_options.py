"""What decides a ranking is remembered from call to call, and printed."""

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from pincaption.cli import cli


def captioner(*arguments: object, stdin: str | None = None) -> Result:
    done = CliRunner().invoke(cli, [str(a) for a in arguments], input=stdin)
    assert done.exit_code == 0, done.stderr
    return done


def scores(store: Path) -> dict[str, float]:
    with closing(sqlite3.connect(store)) as conn:
        return dict(conn.execute("SELECT query, score FROM engaged_query_ranks ORDER BY rank").fetchall())


@pytest.fixture
def store(tmp_path: Path) -> Path:
    captioner("ingest", "pins", tmp_path / "s.db", "-", stdin='{"pin_id": "p1"}\n')
    return tmp_path / "s.db"


def log(path: Path, *rows: str) -> Path:
    path.write_text("\n".join(["pin_id,query,action,date,user_id", *rows]) + "\n")
    return path


def test_weights_and_windows_are_those_of_the_call_before(store: Path, tmp_path: Path) -> None:
    first = log(tmp_path / "a.csv", "p1,red mug,add_to_cart,2026-05-30,u", "p1,old mug,save,2026-04-01,u")
    second = log(tmp_path / "b.csv", "p1,mug,click,2026-05-31,u")
    aggregate = ("aggregate", "queries", store)
    captioner(*aggregate, "--log", first, "--weight", "add_to_cart=2", "--window-days", 30)
    said = captioner(*aggregate, "--log", second).stdout
    assert scores(store) == {"red mug": 2, "mug": 0.25}
    assert (
        '30 days up to 2026-05-31; weights: "save" 1, "long_click" 1, "click" 0.25, "add_to_cart" 2'
        in " ".join(said.split())
    )
    captioner(*aggregate, "--weight", "Click=3", "--window-days", 365)  # the other weights stay
    assert scores(store) == {"mug": 3, "red mug": 2, "old mug": 1}
    captioner(*aggregate, "--defaults")
    assert scores(store) == {"old mug": 1, "mug": 0.25}


def test_the_last_day_is_not_remembered(store: Path, tmp_path: Path) -> None:
    aggregate = ("aggregate", "queries", store)
    rows = log(tmp_path / "a.csv", "p1,mug,save,2026-05-30,u", "p1,cup,save,2026-05-31,u")
    captioner(*aggregate, "--log", rows, "--as-of", "2026-05-30")
    assert list(scores(store)) == ["mug"]
    captioner(*aggregate)
    assert list(scores(store)) == ["cup", "mug"]


def test_what_decides_which_queries_are_kept_holds_for_one_call(store: Path, tmp_path: Path) -> None:
    rows = log(tmp_path / "a.csv", "p1,mug,save,2026-05-30,u", "p1,cup,save,2026-05-31,u")
    captioner("aggregate", "queries", store, "--log", rows, "--top", 1)
    captioner("aggregate", "queries", store)
    assert list(scores(store)) == ["cup", "mug"]


@pytest.mark.parametrize("spelled", ["Save", " save", "SAVE", "long-click", "Long Click", "LONG_CLICK "])
def test_an_action_is_the_same_in_every_spelling(store: Path, tmp_path: Path, spelled: str) -> None:
    captioner(
        "aggregate", "queries", store, "--log", log(tmp_path / "a.csv", f"p1,mug,{spelled},2026-05-30,u")
    )
    assert scores(store) == {"mug": 1}


def test_an_action_without_a_weight_is_printed_in_quotes(store: Path, tmp_path: Path) -> None:
    rows = log(tmp_path / "a.csv", "p1,mug,Add To Cart,2026-05-30,u")
    said = captioner("aggregate", "queries", store, "--log", rows).stdout
    assert 'actions of no weight (--weight ACTION=W): "Add To Cart" (1 row)' in said
    said = captioner("aggregate", "queries", store, "--weight", "add-to-cart=2").stdout
    assert (scores(store), "no weight" in said) == ({"mug": 2}, False)


# --- one user ---

BOT = [f"p1,cheap pills,click,2026-05-{1 + i % 30:02},bot" for i in range(300)]
PEOPLE = [f"p1,red mug,save,2026-05-30,{user}" for user in "abc"]


def explained(store: Path) -> dict[str, Any]:
    from pincaption.filters.explain import explain
    from pincaption.store import open_store

    with closing(open_store(store)) as conn:
        engaged = explain(conn, "p1")["queries"]
        assert engaged
        return {str(query["query"]): query for query in engaged["queries"]}


def test_one_user_can_be_bounded_by_number(store: Path, tmp_path: Path) -> None:
    aggregate = ("aggregate", "queries", store, "--log", log(tmp_path / "l.csv", *BOT, *PEOPLE))
    captioner(*aggregate)
    assert scores(store) == {"cheap pills": 75, "red mug": 3}
    captioner(*aggregate, "--max-per-user", 2)
    assert scores(store) == {"red mug": 3, "cheap pills": 0.5}
    assert explained(store)["cheap pills"]["engagements"] == 2


def test_one_user_can_be_bounded_by_share(store: Path, tmp_path: Path) -> None:
    shared = ["p1,blue cup,save,2026-05-30,bot"] * 50 + [f"p1,blue cup,save,2026-05-30,{u}" for u in "ab"]
    aggregate = ("aggregate", "queries", store, "--log", log(tmp_path / "l.csv", *BOT, *PEOPLE, *shared))
    said = captioner(*aggregate, "--max-share-per-user", 0.5).stdout
    # Half of "blue cup" is the bot's: as much as the two others have together.
    assert scores(store) == {"blue cup": 4, "red mug": 3}
    assert "dropped: too few users for --max-share-per-user 1" in " ".join(said.split())
    assert "--max-share-per-user 0.5" in said
    reasons = {query: why["reason"] for query, why in explained(store).items()}
    assert reasons == {
        "blue cup": None,
        "red mug": None,
        "cheap pills": "too few users for --max-share-per-user",
    }


def test_explain_says_who_dominates(store: Path, tmp_path: Path) -> None:
    captioner("aggregate", "queries", store, "--log", log(tmp_path / "l.csv", *BOT, *PEOPLE))
    said = captioner("aggregate", "explain", store, "p1").stdout
    assert "300 of them, 100%, by one user, bot" in " ".join(said.split())
    assert said.count("by one user") == 1  # of three people who saved once each, nobody dominates
    query = explained(store)["cheap pills"]
    assert (query["top_user"], query["top_user_engagements"], query["users"]) == ("bot", 300, 1)


def test_actions_without_a_weight_do_not_hide_who_dominates(store: Path, tmp_path: Path) -> None:
    seen = [f"p1,cheap pills,impression,2026-05-30,{user}" for user in range(1000)]
    rows = log(
        tmp_path / "l.csv", *BOT, *seen, "p1,cheap pills,click,2026-05-30,", "p1,red mug,save,2026-05-30,"
    )
    captioner("aggregate", "queries", store, "--log", rows)
    query = explained(store)["cheap pills"]
    assert (query["top_user"], query["top_user_engagements"]) == ("bot", 300)
    assert query["top_user_share"] == round(300 / 301, 4)
    assert explained(store)["red mug"]["top_user"] is None
    assert "by one user, bot" in " ".join(captioner("aggregate", "explain", store, "p1").stdout.split())


def test_rows_without_a_user_are_not_bounded(store: Path, tmp_path: Path) -> None:
    rows = log(tmp_path / "l.csv", *["p1,mug,save,2026-05-30,"] * 5, *["p1,mug,save,2026-05-30,bot"] * 9)
    captioner("aggregate", "queries", store, "--log", rows, "--max-per-user", 1)
    assert scores(store) == {"mug": 6}
    captioner("aggregate", "queries", store, "--defaults", "--max-share-per-user", 0.5)
    assert scores(store) == {"mug": 10}
