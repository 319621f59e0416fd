"""Filled sheets as they come back: which are read, and which are refused."""

from __future__ import annotations

import csv
import json
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st

from pincaption.cli import cli
from pincaption.eval.questions import defused, restored

from .shop import make_shop

Rows = list[dict[str, str]]


def captioner(*arguments: Any) -> Result:
    return CliRunner().invoke(cli, [str(a) for a in arguments])


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    """A store of 40 captions, and sheets/ with all of them for two raters."""
    make_shop(tmp_path / "my.db", [f"caption {i}" for i in range(40)])
    assert (
        captioner(
            "eval", "sample", tmp_path / "my.db", tmp_path / "sheets", "--raters", 2, "--duplicates", 0.1
        ).exit_code
        == 0
    )
    return tmp_path / "my.db"


def sheet(shop: Path, rater: int = 1) -> Rows:
    with (shop.parent / "sheets" / f"rater-{rater}.csv").open(encoding="utf-8-sig", newline="") as file:
        return list(csv.DictReader(file))


def filled(shop: Path, rater: int = 1, relevance: str = "relevant", quality: str = "good") -> Rows:
    return [row | {"relevance": relevance, "quality": quality} for row in sheet(shop, rater)]


def written(path: Path, rows: Rows, *, encoding: str = "utf-8", **options: Any) -> Path:
    with path.open("w", encoding=encoding, newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), **options)
        writer.writeheader()
        writer.writerows(rows)
    return path


def score(shop: Path, *sheets: Path) -> dict[str, Any]:
    result = captioner("eval", "score", shop, *sheets, "--json")
    assert result.exit_code == 0, result.output
    return dict(json.loads(result.stdout))


def refused(shop: Path, *sheets: Path) -> str:
    result = captioner("eval", "score", shop, *sheets)
    assert (result.exit_code, result.stdout) == (1, "")
    # nothing is half taken in
    assert sqlite3.connect(shop).execute("SELECT count(*) FROM ratings").fetchone() == (0,)
    assert result.stderr.count("\n") == 1
    return result.stderr


WAYS: dict[str, Callable[[Path, Rows], Path]] = {
    "as it was written": lambda path, rows: written(path, rows, encoding="utf-8-sig", quoting=csv.QUOTE_ALL),
    "Excel, with semicolons": lambda path, rows: written(path, rows, encoding="utf-8-sig", delimiter=";"),
    "Excel, in the code page of Western Europe": lambda path, rows: written(
        path, [row | {"comment": "schön grün"} for row in rows], encoding="cp1252", delimiter=";"
    ),
    "Excel, as Unicode text": lambda path, rows: written(path, rows, encoding="utf-16", delimiter="\t"),
    "LibreOffice": lambda path, rows: written(path, rows, lineterminator="\n"),
    "another order of rows": lambda path, rows: written(path, rows[::-1]),
    "another order of columns": lambda path, rows: written(
        path, [dict(reversed(row.items())) for row in rows]
    ),
    "more columns": lambda path, rows: written(path, [{"mine": "=1", **row, "": "x"} for row in rows]),
    "fewer columns": lambda path, rows: written(
        path, [{name: row[name] for name in ("item_id", "relevance", "quality")} for row in rows]
    ),
    "names in capitals": lambda path, rows: written(
        path, [{f" {name.upper()} ": cell for name, cell in row.items()} for row in rows]
    ),
    "answers in capitals": lambda path, rows: written(
        path, [row | {"relevance": " Relevant ", "quality": "GOOD."} for row in rows]
    ),
    "empty rows at the end": lambda path, rows: written(
        path, [*rows, *[dict.fromkeys(rows[0], "") for _ in range(3)]]
    ),
    "a title above the header": lambda path, rows: (
        path.write_text("Our captions\n\n" + written(path, rows).read_text()),
        path,
    )[1],
    "UTF-16 that does not say so": lambda path, rows: written(path, rows, encoding="utf-16-le"),
    "a line that names the separator": lambda path, rows: (
        path.write_text("sep=;\n" + written(path, rows, delimiter=";").read_text()),
        path,
    )[1],
    "times as a spreadsheet writes them": lambda path, rows: written(
        path, [row | {"seconds": "3,5", "answered_at": "25.11.2026 10:00"} for row in rows]
    ),
}


@pytest.mark.parametrize("way", WAYS)
def test_every_way_in_which_a_sheet_comes_back(shop: Path, tmp_path: Path, way: str) -> None:
    found = score(shop, WAYS[way](tmp_path / "back.csv", filled(shop)))
    assert found["read"] == {"new": 44, "changed": 0, "unchanged": 0, "earlier": 0}
    assert found["relevant_and_good"]["share"] == 1
    assert found["by_rater"]["rater-1"]["repeats_same"] == 4


def test_missing_answers_are_fine_and_scoring_twice_changes_nothing(shop: Path, tmp_path: Path) -> None:
    rows = filled(shop)
    for row in rows[::2]:
        row |= {"relevance": "", "quality": ""}
    path = written(tmp_path / "half.csv", rows)
    first = score(shop, path)
    before = sqlite3.connect(shop).execute("SELECT * FROM ratings").fetchall()
    second = score(shop, path, shop.parent / "sheets" / "rater-2.csv")  # an empty one beside it
    assert second.pop("read") == {"new": 0, "changed": 0, "unchanged": 22, "earlier": 0}
    assert first.pop("read") == {"new": 22, "changed": 0, "unchanged": 0, "earlier": 0}
    assert second == first
    assert sqlite3.connect(shop).execute("SELECT * FROM ratings").fetchall() == before


def test_sheets_may_come_one_by_one(shop: Path, tmp_path: Path) -> None:
    one = score(shop, written(tmp_path / "1.csv", filled(shop, 1)))
    two = score(shop, written(tmp_path / "2.csv", filled(shop, 2, "not", "poor")))
    both = json.loads(captioner("eval", "score", shop, "--json").stdout)
    assert (one["raters"], two["raters"], both["raters"]) == (1, 1, 2)
    assert (one["relevant_and_good"]["share"], two["irrelevant_and_poor"]["share"]) == (1, 1)
    # ties count for nothing
    assert (both["relevant_and_good"]["share"], both["irrelevant_and_poor"]["share"]) == (0, 0)


def test_answers_that_contradict_without_times_need_the_raters_name(shop: Path, tmp_path: Path) -> None:
    score(shop, written(tmp_path / "a.csv", filled(shop)))
    b = written(tmp_path / "b.csv", filled(shop, 1, "not"))
    assert "--rater rater-1 if it was one person" in captioner("eval", "score", shop, b).stderr
    result = captioner("eval", "score", shop, b, "--rater", "rater-1", "--json")
    assert json.loads(result.stdout)["read"] == {"new": 0, "changed": 44, "unchanged": 0, "earlier": 0}


def test_cells_that_were_sorted_apart_are_refused(shop: Path, tmp_path: Path) -> None:
    rows = filled(shop)
    sorted_ids = [
        row | {"item_id": item_id}
        for row, item_id in zip(rows, sorted(row["item_id"] for row in rows), strict=True)
    ]
    assert "does not belong to the" in refused(shop, written(tmp_path / "a.csv", sorted_ids))
    sorted_captions = [
        row | {"caption": caption}
        for row, caption in zip(rows, sorted(row["caption"] for row in rows), strict=True)
    ]
    assert "does not belong to the caption beside it: were cells moved or sorted apart?" in refused(
        shop, written(tmp_path / "b.csv", sorted_captions)
    )
    score(shop, written(tmp_path / "c.csv", [row | {"caption": f"{row['caption']}, mended"} for row in rows]))


def test_answers_that_contradict_are_refused(shop: Path, tmp_path: Path) -> None:
    a, b = written(tmp_path / "a.csv", filled(shop)), written(tmp_path / "b.csv", filled(shop, 1, "not"))
    assert (
        refused(shop, a, b)
        == f"Error: {b}, row 2 says 'not' and {a}, row 2 says 'relevant' for the same row of rater-1's "
        "sheet (44 such rows), and nothing shows that one person gave both: score each person's file by "
        "itself with --rater NAME, or with --rater rater-1 if it was one person\n"
    )


def test_an_edited_item_id_is_refused_with_its_row(shop: Path, tmp_path: Path) -> None:
    rows = filled(shop)
    rows[5]["item_id"] = "bbbbbbbbbbbb"
    sample = rows[0]["sample"]
    assert refused(shop, written(tmp_path / "edited.csv", rows)) == (
        f"Error: {tmp_path}/edited.csv, row 7: bbbbbbbbbbbb is no item_id of sample {sample}: was it "
        "edited? The sheet as it was written has the right one\n"
    )
    rows[5]["item_id"] = rows[2]["item_id"]
    assert "row 7 has the same item_id as row 4" in refused(shop, written(tmp_path / "twice.csv", rows))
    rows[5]["item_id"] = " "
    assert "row 7 has no item_id" in refused(shop, written(tmp_path / "none.csv", rows))


def test_sheets_of_another_sample_are_refused(shop: Path, tmp_path: Path) -> None:
    assert captioner("eval", "sample", shop, tmp_path / "others", "--seed", 5).exit_code == 0
    ours, theirs = shop.parent / "sheets" / "rater-1.csv", tmp_path / "others" / "rater-1.csv"
    said = refused(shop, ours, theirs)
    assert f"{theirs}, row 2 is of another sample" in said
    rows = filled(shop)
    rows[3]["item_id"] = next(csv.DictReader(theirs.open(encoding="utf-8-sig")))["item_id"]
    assert "row 5 is of another sample" in refused(shop, written(tmp_path / "mixed.csv", rows))
    make_shop(tmp_path / "empty.db", ["a"])
    assert "is not in this store (no sample was drawn here)" in refused(tmp_path / "empty.db", ours)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "has no column item_id, so it is not a sheet; its columns: none"),
        (b"a,b\n1,2\n", "has no column item_id, so it is not a sheet; its columns: a, b"),
        (b"PK\x03\x04 and so on", "is a workbook: save it as CSV and give that file"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1 and so on", "is a workbook: save it as CSV and give that file"),
        (b"\x1b]0;title\x07,\x1b[31mred\n", "its columns: \ufffd]0;title\ufffd, \ufffd[31mred"),
        (b"<!DOCTYPE html>\n<p>item_id,", "download the answers (key d) and give that CSV"),
        (b"\x00\x01\x02\xff\xfe", "has no column item_id"),
    ],
)
def test_what_is_no_sheet(shop: Path, tmp_path: Path, content: bytes, said: str) -> None:
    (tmp_path / "x.csv").write_bytes(content)
    assert said in refused(shop, tmp_path / "x.csv")
    assert "cannot be read: No such file or directory" in refused(shop, tmp_path / "nothing.csv")


def test_an_answer_that_is_none_is_named(shop: Path, tmp_path: Path) -> None:
    rows = filled(shop)
    rows[8]["quality"] = "godo"
    assert refused(shop, written(tmp_path / "typo.csv", rows)).endswith(
        "typo.csv, row 10: quality is 'godo'; it takes good, acceptable, poor or cannot judge\n"
    )


def test_a_sheet_without_a_column_of_its_questions_is_refused(shop: Path, tmp_path: Path) -> None:
    rows = [{"Relevanz" if k == "relevance" else k: v for k, v in row.items()} for row in filled(shop)]
    said = refused(shop, path := written(tmp_path / "renamed.csv", rows))
    assert f"{path} has no column relevance, which its sample asks for: was it renamed? Its columns:" in said
    assert "item_id, caption, relevanz, quality" in said


def test_columns_that_are_not_read_are_told(shop: Path, tmp_path: Path) -> None:
    rows = [row | {"notes": "", "empty": " ", "": ""} for row in filled(shop)]
    rows[3] |= {"notes": "too long", "": "x"}
    found = score(shop, path := written(tmp_path / "more.csv", rows))
    assert found["notes"] == [f"{path}: not read: the columns notes, number 13, which has no name"]


def test_comments_alone_are_kept_and_told(shop: Path, tmp_path: Path) -> None:
    path = written(tmp_path / "c.csv", [row | {"comment": "hm"} for row in sheet(shop)])
    assert captioner("eval", "score", shop, path).stderr == (
        "Error: no answers yet, only 44 comments, which the store keeps: answer the questions of some "
        "sheets, and give them\n"
    )
    assert sqlite3.connect(shop).execute("SELECT count(*) FROM ratings").fetchone() == (44,)


def test_a_comment_that_is_cut_is_told(shop: Path, tmp_path: Path) -> None:
    rows = filled(shop)
    rows[2]["comment"], rows[3]["comment"] = "x" * 10_001, "y" * 10_000
    found = score(shop, path := written(tmp_path / "long.csv", rows))
    assert found["notes"] == [f"{path}: a comment is kept up to 10,000 characters; cut was the one of row 4"]


def test_sheets_that_hold_answers_are_not_written_over(shop: Path, tmp_path: Path) -> None:
    again = ["eval", "sample", shop, tmp_path / "sheets", "--raters", 2, "--duplicates", 0.1]
    written(tmp_path / "sheets" / "rater-2.csv", filled(shop, 2))
    assert (
        captioner(*again).stderr
        == f"Error: {tmp_path}/sheets/rater-2.csv holds answers already: they would be lost; name "
        "another folder, or move the file\n"
    )
    assert "is a sheet of another sample" in captioner(*again, "--seed", 1).stderr
    assert sqlite3.connect(shop).execute("SELECT count(*) FROM samples").fetchone() == (1,)
    assert sheet(shop, 2) == filled(shop, 2)


@given(st.text() | st.text("=+-@'\";\t\n\r x＝", max_size=8))
def test_no_cell_is_a_formula_and_every_text_comes_back(text: str) -> None:
    cell = defused(text)
    assert restored(cell) == text
    for start in cell.replace("\t", ";").replace("\r", ";").replace("\n", ";").split(";"):
        assert not start.lstrip(' \u00a0"').startswith(("=", "+", "-", "@", "＝", "＋", "－", "＠"))


def test_comments_arrive_as_they_were_typed(shop: Path, tmp_path: Path) -> None:
    comments = ["=cmd()|' /C calc'!A0", "'quoted'", "- a dash; =1+1", 'two\nlines, "quotes"', "أحمر"]
    rows = [
        row | {"comment": defused(comments[i])} if i < len(comments) else row
        for i, row in enumerate(filled(shop))
    ]
    score(shop, written(tmp_path / "comments.csv", rows))
    kept = dict(
        sqlite3.connect(shop)
        .execute("SELECT item_id, comment FROM ratings WHERE comment IS NOT NULL")
        .fetchall()
    )
    assert [kept[row["item_id"]] for row in rows[: len(comments)]] == comments
