"""Answers of two people to one rater's sheet, and several answers of one person. (f14)"""

from __future__ import annotations

import csv
import json
import shutil
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from pincaption.cli import cli

from ..test_eval.shop import make_shop

Rows = list[dict[str, str]]
TEN, ELEVEN, NOON = (f"2026-11-26T{hour}:00:00Z" for hour in (10, 11, 12))


def captioner(*arguments: Any) -> Result:
    return CliRunner().invoke(cli, [str(a) for a in arguments])


class Shop:
    """A store with a sample of 12 captions and the sheet of one rater, with one hidden repeat."""

    def __init__(self, folder: Path):
        self.folder, self.store = folder, folder / "s.db"
        make_shop(self.store, [f"caption {i}" for i in range(12)])
        self.draw(folder / "o")

    def draw(self, sheets: Path, *options: Any) -> None:
        drawn = captioner("eval", "sample", self.store, sheets, "--n", 12, "--raters", 1, *options)
        assert drawn.exit_code == 0, drawn.output

    def rows(self, relevance: str, time: str, n: int = 13, sheets: str = "o") -> Rows:
        """The sheet with its first `n` rows answered."""
        with (self.folder / sheets / "rater-1.csv").open(encoding="utf-8-sig", newline="") as file:
            rows = list(csv.DictReader(file))
        answer = {"relevance": relevance, "quality": "good", "answered_at": time}
        return [row | answer if i < n else row for i, row in enumerate(rows)]

    def file(self, name: str, rows: Rows) -> Path:
        with (self.folder / name).open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, rows[0])
            writer.writeheader()
            writer.writerows(rows)
        return self.folder / name

    def score(self, *arguments: Any) -> dict[str, Any]:
        result = captioner("eval", "score", self.store, *arguments, "--json")
        assert result.exit_code == 0, result.output
        return dict(json.loads(result.stdout))

    def refused(self, *arguments: Any) -> str:
        """What is said; nothing in the store has changed."""
        before = self.kept()
        result = captioner("eval", "score", self.store, *arguments)
        assert (result.exit_code, result.stdout, result.stderr.count("\n")) == (1, "", 1)
        assert self.kept() == before
        return result.stderr

    def kept(self) -> list[Any]:
        conn = sqlite3.connect(self.store)
        try:
            return conn.execute("SELECT * FROM ratings ORDER BY item_id").fetchall()
        finally:
            conn.close()


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    return Shop(tmp_path)


@pytest.fixture
def anna(shop: Shop) -> Path:
    return shop.file("anna.csv", shop.rows("relevant", TEN))


@pytest.fixture
def ben(shop: Shop) -> Path:
    return shop.file("ben.csv", shop.rows("not", ELEVEN))


def test_two_people_in_one_call_are_refused(shop: Shop, anna: Path, ben: Path) -> None:
    assert shop.refused(anna, ben) == (
        f"Error: {ben}, row 2 says 'not' and {anna}, row 2 says 'relevant' for the same row of rater-1's "
        "sheet (13 such rows), and nothing shows that one person gave both: score each person's file by "
        "itself with --rater NAME, or with --rater rater-1 if it was one person\n"
    )


@pytest.mark.parametrize("times", [(TEN, ELEVEN), (ELEVEN, TEN), (TEN, TEN), ("", ""), (TEN, ""), ("", TEN)])
def test_two_people_in_two_calls_are_refused(shop: Shop, times: tuple[str, str]) -> None:
    shop.score(shop.file("anna.csv", shop.rows("relevant", times[0])))
    said = shop.refused(shop.file("ben.csv", shop.rows("not", times[1])))
    assert "the store says 'relevant'" in said
    assert "--rater NAME" in said


def test_two_people_who_differ_in_one_row_are_refused(shop: Shop, anna: Path) -> None:
    rows = shop.rows("relevant", ELEVEN)
    rows[7]["relevance"] = "partly"
    assert "row 9 says 'partly'" in shop.refused(anna, shop.file("ben.csv", rows))


def test_two_people_who_differ_in_a_comment_are_refused(shop: Shop) -> None:
    one = [row | {"comment": "too short"} for row in shop.rows("relevant", TEN)]
    two = [row | {"comment": "no colour"} for row in shop.rows("relevant", ELEVEN)]
    assert "says 'no colour'" in shop.refused(shop.file("anna.csv", one), shop.file("ben.csv", two))


def test_with_their_names_both_count(shop: Shop, anna: Path, ben: Path) -> None:
    shop.score(anna, "--rater", "anna")
    assert shop.score(ben, "--rater", " ben ")["by_rater"].keys() == {"ben"}
    found = shop.score()
    assert found["by_rater"].keys() == {"anna", "ben"}
    assert (found["judged"], found["ratings"], found["raters"]) == (12, 24, 2)
    assert found["relevant_and_good"]["share"] == 0  # they disagree, and half is not enough
    assert [of["repeats"] for of in found["by_rater"].values()] == [1, 1]


def test_named_files_are_recognised_when_they_are_read_again(shop: Shop, anna: Path, ben: Path) -> None:
    shop.score(anna, "--rater", "anna")
    shop.score(ben, "--rater", "ben")
    before = shop.kept()
    again = shop.score(ben, anna)
    assert again["by_rater"].keys() == {"anna", "ben"}
    assert again["read"] == {"new": 0, "changed": 0, "unchanged": 26, "earlier": 0}
    assert shop.kept() == before


def test_a_name_given_later_moves_the_answers(shop: Shop, anna: Path, ben: Path) -> None:
    shop.score(ben)
    found = shop.score(ben, "--rater", "ben")
    assert found["notes"] == ["what was read before as the answers of rater-1 (13 rows) now belongs to ben"]
    shop.score(anna)
    assert shop.score()["by_rater"].keys() == {"rater-1", "ben"}
    assert len(shop.kept()) == 26


def test_a_name_given_later_with_a_part_of_the_sheet_moves_all_answers(shop: Shop) -> None:
    rows = [row | {"comment": f"c {i}"} for i, row in enumerate(shop.rows("relevant", TEN))]
    shop.score(shop.file("all.csv", rows))
    before = {row[1:2] + row[3:] for row in shop.kept()}
    no_comments = [row | {"comment": ""} for row in rows]
    emptied = dict.fromkeys(("relevance", "quality", "answered_at"), "")
    part = no_comments[:5] + [row | emptied for row in no_comments[5:9]]
    found = shop.score(shop.file("part.csv", part), "--rater", "anna")
    assert found["by_rater"].keys() == {"anna"}
    assert (found["read"]["new"], found["read"]["changed"], found["read"]["unchanged"]) == (0, 0, 5)
    assert {row[2] for row in shop.kept()} == {"anna"}
    assert {row[1:2] + row[3:] for row in shop.kept()} == before  # each answer, comment and time


def test_a_fuller_version_of_ones_own_answers_is_taken(shop: Shop) -> None:
    first, then = shop.rows("relevant", TEN, 5), shop.rows("partly", NOON)
    kept = shop.file("later.csv", first[:5] + then[5:])  # as a sheet in the browser writes them
    assert shop.score(shop.file("first.csv", first))["read"]["new"] == 5
    assert shop.score(kept)["read"] == {"new": 8, "changed": 0, "unchanged": 5, "earlier": 0}
    assert shop.score(shop.folder / "first.csv")["read"] == {
        "new": 0,
        "changed": 0,
        "unchanged": 5,
        "earlier": 0,
    }


@pytest.mark.parametrize("time", [TEN, ""])
def test_a_fuller_version_needs_no_times(shop: Shop, time: str) -> None:
    shop.score(shop.file("first.csv", shop.rows("relevant", time, 5)))
    found = shop.score(shop.file("later.csv", shop.rows("relevant", "")))
    assert (found["read"]["new"], found["by_rater"].keys()) == (8, {"rater-1"})


def test_answers_that_changed_are_taken_where_others_kept_their_times(shop: Shop) -> None:
    first, then = shop.rows("relevant", TEN), shop.rows("partly", NOON)
    calls = shop.file("first.csv", first), shop.file("later.csv", first[:6] + then[6:])
    shop.score(calls[0])
    assert shop.score(calls[1])["read"] == {"new": 0, "changed": 7, "unchanged": 6, "earlier": 0}
    assert shop.score(calls[0])["read"] == {
        "new": 0,
        "changed": 0,
        "unchanged": 6,
        "earlier": 7,
    }  # the earlier state
    assert shop.score(*calls)["read"] == {"new": 0, "changed": 0, "unchanged": 13, "earlier": 0}


@pytest.mark.parametrize("time", [TEN, ""])
def test_a_named_raters_sheet_read_without_times_or_a_name_counts_once(shop: Shop, time: str) -> None:
    shop.score(shop.file("anna.csv", shop.rows("relevant", time)), "--rater", "anna")
    found = shop.score(shop.file("n.csv", shop.rows("relevant", "")))
    assert (found["by_rater"].keys(), found["read"]["unchanged"]) == ({"anna"}, 13)
    assert "all answers are those of anna" in found["notes"][0]
    assert {row[2] for row in shop.kept()} == {"anna"}


def test_answers_that_are_those_of_two_named_raters_need_a_name(shop: Shop) -> None:
    path = shop.file("n.csv", shop.rows("relevant", ""))
    shop.score(path, "--rater", "anna")
    found = shop.score(path, "--rater", "ben")
    assert "are those of anna, too, and no times tell whether that is one person" in found["notes"][0]
    assert "are those of anna and of ben: score the file with --rater NAME" in shop.refused(path)


@pytest.mark.parametrize("names", [("anna", None), (None, "anna")])
def test_a_fuller_version_of_a_named_raters_sheet_is_that_persons(
    shop: Shop, names: tuple[str | None, str | None]
) -> None:
    first, then = shop.rows("relevant", TEN, 5), shop.rows("not", NOON)
    for rows, name in zip((first, first[:5] + then[5:]), names, strict=True):
        found = shop.score(shop.file("f.csv", rows), *(["--rater", name] if name else []))
        assert len(found["notes"]) == (len(shop.kept()) == 13)
    assert {row[2] for row in shop.kept()} == {"anna"}
    assert len(shop.kept()) == 13


def test_the_raters_own_name_says_that_it_was_one_person(shop: Shop, anna: Path, ben: Path) -> None:
    shop.score(anna)
    found = shop.score(ben, "--rater", "rater-1")
    assert (found["read"]["changed"], found["by_rater"].keys()) == (13, {"rater-1"})
    assert found["questions"]["relevance"]["mean"] == 0


def test_the_same_answers_at_other_times_count_once_and_are_told(shop: Shop, anna: Path) -> None:
    found = shop.score(anna, copy := shop.file("copy.csv", shop.rows("relevant", ELEVEN)))
    assert found["ratings"] == 12
    assert found["notes"] == [
        f"{copy} repeats 13 answers of rater-1 with other times: they count once; if another person gave "
        "them, score the file with --rater NAME"
    ]


def test_the_same_file_twice_counts_once(shop: Shop, anna: Path) -> None:
    other = shutil.copy(anna, shop.folder / "copy.csv")
    found = shop.score(anna, anna, shop.folder / "o" / ".." / "anna.csv", other)
    assert (found["read"]["new"], found["ratings"], found["notes"]) == (13, 12, [])


def test_two_raters_who_answer_alike_at_one_time_stay_two(tmp_path: Path) -> None:
    shop = Shop(tmp_path)
    captioner("eval", "sample", shop.store, tmp_path / "two", "--n", 10, "--raters", 2)
    files = []
    for number in (1, 2):
        with (tmp_path / "two" / f"rater-{number}.csv").open(encoding="utf-8-sig", newline="") as file:
            answer = {"relevance": "relevant", "quality": "good", "answered_at": TEN}
            files.append(shop.file(f"{number}.csv", [row | answer for row in csv.DictReader(file)]))
    found = shop.score(*files)
    assert {name: of["judged"] for name, of in found["by_rater"].items()} == {"rater-1": 10, "rater-2": 10}
    said = shop.refused(files[0], "--rater", "rater-2")
    assert "is of the sheet of rater-1, but rater-2 has another sheet of this sample" in said
    assert "has the answers of rater-1, rater-2" in shop.refused(
        shop.file("both.csv", [r for f in files for r in csv.DictReader(f.open(newline=""))]), "--rater", "x"
    )


def test_a_sheet_of_another_sample_is_refused_with_a_name_too(shop: Shop, anna: Path) -> None:
    shop.draw(shop.folder / "p", "--seed", 5, "--duplicates", 0)
    other = shop.file("other.csv", shop.rows("not", TEN, sheets="p"))
    assert "is of another sample" in shop.refused(anna, other, "--rater", "ben")


@pytest.mark.parametrize("name", ["", "  ", "x" * 65, "a\x1b[31m", "two\nlines"])
def test_a_name_that_is_none(shop: Shop, anna: Path, name: str) -> None:
    assert "--rater takes a name of 1 to 64 printable characters" in shop.refused(anna, "--rater", name)


def test_a_name_without_sheets_is_refused(shop: Shop) -> None:
    result = captioner("eval", "score", shop.store, "--rater", "ben")
    assert result.exit_code == 2
    assert "name them, too" in result.stderr
