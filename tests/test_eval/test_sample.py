"""What `captioner eval sample` draws, says and records."""

from __future__ import annotations

import json
import shutil
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from pincaption.cli import cli
from pincaption.eval.draw import allocate

from .shop import make_shop


def captioner(*arguments: Any) -> Result:
    return CliRunner().invoke(cli, [str(a) for a in arguments])


def drawn(*arguments: Any) -> dict[str, Any]:
    result = captioner("eval", "sample", *arguments, "--json")
    assert result.exit_code == 0, result.output
    assert result.stdout.count("\n") == 1
    return dict(json.loads(result.stdout))


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    """400 captions: 200 mugs, 120 lamps, 60 without a category (of them 20 with a blank one), 20 rugs."""
    categories = ["mugs"] * 10 + ["lamps"] * 6 + [None, None, " "] + ["rugs"]
    make_shop(tmp_path / "my.db", [f"caption {i}" for i in range(400)], categories=categories)
    return tmp_path / "my.db"


def test_equal_allocation_by_stratum_and_the_weights_that_follow(shop: Path, tmp_path: Path) -> None:
    found = drawn(shop, tmp_path / "sheets", "--n", 100, "--stratify", "category")
    strata = {s["stratum"]: (s["captions"], s["items"], s["weight"]) for s in found["strata"]}
    assert strata == {
        "mugs": (200, 27, 200 / 27),
        "lamps": (120, 27, 120 / 27),
        None: (60, 26, 60 / 26),
        "rugs": (20, 20, 1.0),
    }
    conn = sqlite3.connect(shop)
    weights = "SELECT stratum, count(*), sum(weight) FROM sample_items GROUP BY 1 ORDER BY 2 DESC, 1"
    assert conn.execute(weights).fetchall() == [
        ("lamps", 27, pytest.approx(120)),
        ("mugs", 27, pytest.approx(200)),
        (None, 26, pytest.approx(60)),
        ("rugs", 20, pytest.approx(20)),
    ]


def test_proportional_allocation() -> None:
    assert allocate({"a": 700, "b": 290, "c": 10}, 100, "proportional") == {"a": 70, "b": 29, "c": 1}
    assert allocate({"a": 9_990, "b": 5, "c": 5}, 10, "proportional") == {"a": 8, "b": 1, "c": 1}
    assert allocate({"a": 3, "b": 2}, 100) == {"a": 3, "b": 2}


def test_every_rater_gets_all_items_and_hidden_repeats_in_an_order_of_their_own(
    shop: Path, tmp_path: Path
) -> None:
    drawn(shop, tmp_path / "sheets", "--n", 100, "--raters", 3, "--duplicates", 0.1)
    conn = sqlite3.connect(shop)
    orders = [
        [
            row
            for (row,) in conn.execute(
                "SELECT item FROM sheet_rows WHERE rater = ? ORDER BY position", [f"rater-{i}"]
            )
        ]
        for i in (1, 2, 3)
    ]
    assert [len(order) for order in orders] == [110, 110, 110]
    assert all(set(order) == set(range(1, 101)) for order in orders)
    assert len({tuple(dict.fromkeys(order)) for order in orders}) == 3
    again = (
        "SELECT b.position - a.position FROM sheet_rows a JOIN sheet_rows b USING (rater, item) "
        "WHERE b.is_repeat AND NOT a.is_repeat"
    )
    # a repeat comes when the first answer is forgotten
    assert min(distance for (distance,) in conn.execute(again)) > 20
    # no id tells which is one
    assert conn.execute("SELECT count(DISTINCT item_id) FROM sheet_rows").fetchone() == (330,)


def test_the_same_seed_gives_the_same_sheets(shop: Path, tmp_path: Path) -> None:
    shutil.copy(shop, tmp_path / "copy.db")
    first, second = (
        drawn(shop, tmp_path / "a", "--seed", 7),
        drawn(tmp_path / "copy.db", tmp_path / "b", "--seed", 7),
    )
    assert first["sample_id"] == second["sample_id"] != drawn(shop, tmp_path / "c", "--seed", 8)["sample_id"]
    for name in first["files"]:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_who_has_a_sheet_and_the_source_of_captioner_cannot_find_the_repeats(
    shop: Path, tmp_path: Path
) -> None:
    found = drawn(shop, tmp_path / "sheets", "--raters", 1)
    conn = sqlite3.connect(shop)
    conn.execute("UPDATE pins SET image_sha256 = image_sha256 || 'x'")
    conn.execute("UPDATE captions SET image_sha256 = image_sha256 || 'x'")
    conn.commit()
    other = drawn(shop, tmp_path / "others", "--raters", 1)  # what orders depend on is not in the sheets
    orders = [
        [
            row
            for (row,) in conn.execute(
                "SELECT pin_id FROM sheet_rows JOIN sample_items USING (sample_id, item) WHERE sample_id "
                "= ? ORDER BY position",
                [s["sample_id"]],
            )
        ]
        for s in (found, other)
    ]
    assert sorted(set(orders[0])) == sorted(set(orders[1]))
    assert orders[0] != orders[1]


def test_a_sample_of_a_store_that_has_changed_is_another_one(shop: Path, tmp_path: Path) -> None:
    first = drawn(shop, tmp_path / "a", "--n", 5)
    drawn_pins = [pin for (pin,) in sqlite3.connect(shop).execute("SELECT pin_id FROM sample_items")]
    conn = sqlite3.connect(shop)
    conn.execute(
        "UPDATE captions SET status = 'rejected', reason = 'too long' WHERE rowid % 2 = 0 AND pin_id "
        f"NOT IN ({', '.join('?' * 5)})",
        drawn_pins,
    )
    conn.commit()
    second = drawn(shop, tmp_path / "b", "--n", 5)
    assert (second["captions"], second["rejected"]) != (first["captions"], first["rejected"])
    assert second["sample_id"] != first["sample_id"]


@pytest.mark.parametrize("name", ["rater-1.csv", "rater-2.html", "guidance.html"])
def test_somebody_elses_files_are_not_written_over(shop: Path, tmp_path: Path, name: str) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / name).write_text("mine")
    result = captioner("eval", "sample", shop, tmp_path / "folder")
    assert (result.exit_code, "would be lost" in result.stderr) == (1, True)
    assert [(path.name, path.read_text()) for path in (tmp_path / "folder").iterdir()] == [(name, "mine")]
    assert sqlite3.connect(shop).execute("SELECT count(*) FROM samples").fetchone() == (0,)
    assert "is a file: name a folder" in captioner("eval", "sample", shop, tmp_path / "folder" / name).stderr


def test_the_same_command_again_does_no_harm(shop: Path, tmp_path: Path) -> None:
    drawn(shop, tmp_path / "sheets")
    drawn(shop, tmp_path / "sheets")
    assert sqlite3.connect(shop).execute("SELECT count(*) FROM samples").fetchone() == (1,)


def test_a_margin_takes_the_place_of_n(shop: Path, tmp_path: Path) -> None:
    found = drawn(shop, tmp_path / "sheets", "--margin", 0.08)
    assert found["items"] == 151  # 1.96^2 / (4 x 0.08^2), rounded up
    assert found["margin"] <= 0.08
    uneven = drawn(shop, tmp_path / "strata", "--margin", 0.08, "--stratify", "category")
    assert uneven["items"] > 151  # uneven weights cost some
    assert uneven["margin"] <= 0.08
    assert (
        "hours for all raters"
        in captioner("eval", "sample", shop, tmp_path / "again", "--margin", 0.1).stdout
    )
    assert drawn(shop, tmp_path / "all", "--margin", 0.01)["items"] == 400  # everything there is
    assert (
        "note: ± 1 points need more captions than there are"
        in captioner("eval", "sample", shop, tmp_path / "all", "--margin", 0.01).stdout
    )


def test_what_is_not_in_the_frame_is_told_beside(shop: Path, tmp_path: Path) -> None:
    conn = sqlite3.connect(shop)
    conn.execute(
        "UPDATE captions SET status = 'rejected', reason = 'too long' WHERE pin_id IN ('pin-1', 'pin-2', "
        "'pin-3', 'pin-4')"
    )
    conn.execute(
        "UPDATE captions SET status = 'failed', text = NULL, reason = 'image file not found' WHERE "
        "pin_id = 'pin-5'"
    )
    conn.execute("UPDATE pins SET deleted_at = '2026-01-01' WHERE pin_id = 'pin-6'")
    conn.commit()
    result = captioner("eval", "sample", shop, tmp_path / "sheets", "--n", 400)
    assert "394 of 394 current captions" in result.stdout
    assert "4 pins whose caption was rejected (1.0%), 1 pin that could not be captioned (0.3%)" in " ".join(
        result.stdout.split()
    )
    assert (
        not sqlite3.connect(shop)
        .execute("SELECT 1 FROM sample_items WHERE pin_id IN ('pin-1', 'pin-5', 'pin-6')")
        .fetchone()
    )


def test_nothing_in_the_sheets_tells_where_a_caption_comes_from(shop: Path, tmp_path: Path) -> None:
    (tmp_path / "gold.csv").write_text("pin_id,caption,relevance,quality\npin-3,wrong on purpose,not,good\n")
    found = drawn(shop, tmp_path / "sheets", "--gold", tmp_path / "gold.csv")
    assert (found["gold"], found["items"]) == (1, 200)
    for name in found["files"]:
        content = (tmp_path / "sheets" / name).read_text(encoding="utf-8-sig")
        for word in ("recipe-a", "model of", "pin-3", "/nowhere", "gold", "is_repeat"):
            assert word not in content, (name, word)
        if name != "guidance.html":
            assert content.count("wrong on purpose") == 1


def test_a_long_sheet_comes_in_parts(tmp_path: Path) -> None:
    make_shop(tmp_path / "my.db", [f"caption {i}" for i in range(1300)])
    found = drawn(tmp_path / "my.db", tmp_path / "sheets", "--n", 1300, "--raters", 1, "--duplicates", 0)
    assert [name for name in found["files"] if name.endswith(".html")] == [
        "guidance.html",
        "rater-1-part-1.html",
        "rater-1-part-2.html",
        "rater-1-part-3.html",
    ]
    assert 'href="rater-1-part-2.html"' in (tmp_path / "sheets" / "rater-1-part-1.html").read_text()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (
            ["--stratify", "colour"],
            "--stratify takes kind, category, locale, native_text or caption_recipe, not colour",
        ),
        (
            ["--stratify", "category", "--n", 3],
            "category has 4 values, more than 3 items could tell anything about: use --n 8 or more, or "
            "another column",
        ),
        (["--gold", "gold.csv"], "no such file: gold.csv"),
    ],
)
def test_errors_name_the_mend_and_record_nothing(
    shop: Path, tmp_path: Path, options: list[Any], said: str
) -> None:
    result = captioner("eval", "sample", shop, tmp_path / "sheets", *options)
    assert (result.exit_code, result.stderr) == (1, f"Error: {said}\n")
    assert not (tmp_path / "sheets").exists()
    assert sqlite3.connect(shop).execute("SELECT count(*) FROM samples").fetchone() == (0,)


@pytest.mark.parametrize(
    ("gold", "said"),
    [
        ("pin_id,relevance\npin-1,yes\n", "line 2: relevance is 'yes'; it takes relevant, partly, not"),
        ("pin_id,relevance\nnobody,not\n", "line 2: the store has no pin 'nobody'"),
        (
            "pin_id,relevance,quality\npin-1,not,poor\npin-2,,\n",
            "line 3: neither relevance nor quality is given",
        ),
        ("pin_id,relevance\n", "holds no gold items"),
    ],
)
def test_a_bad_row_of_gold_is_named(shop: Path, tmp_path: Path, gold: str, said: str) -> None:
    (tmp_path / "gold.csv").write_text(gold)
    result = captioner("eval", "sample", shop, tmp_path / "sheets", "--gold", tmp_path / "gold.csv")
    assert (result.exit_code, result.stderr.count("\n")) == (1, 1)
    assert said in result.stderr


def test_a_store_without_captions_says_what_to_do(tmp_path: Path) -> None:
    make_shop(tmp_path / "my.db", [])
    assert (
        captioner("eval", "sample", tmp_path / "my.db", tmp_path / "sheets").stderr
        == "Error: the store has no current caption to judge: `captioner run` makes some\n"
    )


def test_comparisons_take_pins_that_two_recipes_captioned_differently(tmp_path: Path) -> None:
    make_shop(
        tmp_path / "my.db",
        [f"caption {i}" for i in range(20)],
        others=[f"caption {i}" if i < 5 else f"other {i}" for i in range(20)],
    )
    result = captioner(
        "eval",
        "compare",
        tmp_path / "my.db",
        tmp_path / "sheets",
        "--recipe",
        "recipe-a",
        "--recipe",
        "model of recipe-b",
    )
    assert "15 of 15 pairs of captions that differ" in result.stdout
    assert "5 equal pairs (25.0% of all pairs)" in result.stdout
    sides = (
        sqlite3.connect(tmp_path / "my.db")
        .execute("SELECT rater, sum(swapped) FROM sheet_rows GROUP BY 1")
        .fetchall()
    )
    assert all(0 < swapped < 16 for _, swapped in sides)
    wrong = captioner(
        "eval",
        "compare",
        tmp_path / "my.db",
        tmp_path / "other",
        "--recipe",
        "recipe",
        "--recipe",
        "recipe-b",
    )
    assert wrong.stderr.startswith(
        "Error: several recipes are called 'recipe'; the store's: recipe-a (model of recipe-a, 20 "
        "captions); recipe-b"
    )
    assert (
        captioner("eval", "compare", tmp_path / "my.db", tmp_path / "other", "--recipe", "recipe-a").exit_code
        == 2
    )
