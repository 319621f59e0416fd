"""`captioner eval score --ratings`: agreement of any table item, rater, question, value."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner, Result

from pincaption.cli import cli

ROWS = [
    ("1", "a", "fit", 1),
    ("1", "b", "fit", 2),
    ("2", "a", "fit", 2),
    ("2", "b", "fit", 2),
    ("3", "a", "fit", 3),
    ("1", "a", "style", 0),
    ("2", "b", "style", 1),
]
HEADER = ["item", "rater", "question", "value"]


def captioner(*arguments: Any) -> Result:
    return CliRunner().invoke(cli, [str(a) for a in arguments])


def scored(path: Path) -> dict[str, Any]:
    result = captioner("eval", "score", "--ratings", path, "--json")
    assert result.exit_code == 0, result.output
    return dict(json.loads(result.stdout)["questions"])


def csv_of(rows: list[Any], separator: str = ",", header: list[str] = HEADER) -> str:
    return "".join(separator.join(map(str, row)) + "\n" for row in [header, *rows])


def test_the_shape_of_the_result(tmp_path: Path) -> None:
    (tmp_path / "r.csv").write_text(csv_of(ROWS))
    found = scored(tmp_path / "r.csv")
    assert list(found) == ["fit", "style"]
    assert set(found["fit"]) == {
        "items",
        "ratings",
        "mean",
        "alpha_nominal",
        "alpha_ordinal",
        "alpha_interval",
        "ac1",
        "ac2",
        "by_rater",
    }
    assert (found["fit"]["items"], found["fit"]["ratings"], found["fit"]["mean"]) == (3, 5, 2.0)
    assert found["fit"]["by_rater"] == {"a": {"ratings": 3, "mean": 2.0}, "b": {"ratings": 2, "mean": 2.0}}
    assert found["style"]["alpha_nominal"] is None  # no item was rated twice


@pytest.mark.parametrize("form", ["semicolons", "tabs", "json lines", "parquet", "decimal commas", "a BOM"])
def test_the_forms_of_a_table(tmp_path: Path, form: str) -> None:
    path = tmp_path / {"tabs": "r.tsv", "json lines": "r.jsonl", "parquet": "r.parquet"}.get(form, "r.csv")
    if form == "parquet":
        pq.write_table(pa.Table.from_pylist([dict(zip(HEADER, row, strict=True)) for row in ROWS]), path)
    elif form == "json lines":
        path.write_text("".join(json.dumps(dict(zip(HEADER, row, strict=True))) + "\n" for row in ROWS))
    elif form == "decimal commas":
        path.write_text(csv_of([(*row[:3], f"{row[3]},0") for row in ROWS], ";"))
    else:
        path.write_text(
            csv_of(ROWS, {"semicolons": ";", "tabs": "\t"}.get(form, ",")),
            encoding="utf-8-sig" if form == "a BOM" else "utf-8",
        )
    (tmp_path / "plain.csv").write_text(csv_of(ROWS))
    assert scored(path) == scored(tmp_path / "plain.csv")


def test_a_table_of_one_question_needs_not_name_it_and_gaps_are_fine(tmp_path: Path) -> None:
    (tmp_path / "r.csv").write_text(
        csv_of(
            [(1, "a", 3), (1, "b", 3), (2, "a", "NA"), (2, "b", ""), (3, "a", 1)],
            header=["item", "rater", "value"],
        )
    )
    found = scored(tmp_path / "r.csv")
    assert list(found) == ["rating"]
    assert (found["rating"]["items"], found["rating"]["ratings"]) == (2, 3)


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        (
            [(1, "a", "q", "good")],
            "line 2: the value 'good' is no number: agreement takes numbers of an ordinal scale",
        ),
        (
            [(1, "a", "q", 1), (1, "a", "q", 2)],
            "line 3: rater a has answered q for item 1 before: one answer each",
        ),
        ([("", "a", "q", 1)], "line 2: no item"),
        (
            [(1, "a", "q", "")],
            "holds no ratings: it takes a row for each, with the columns item, rater, question, value",
        ),
        (
            [(i, "a", "q", i / 7) for i in range(1500)],
            "have 1,500 different values: agreement is for scales of at most 1000",
        ),
    ],
)
def test_a_row_that_cannot_be_used_is_named(tmp_path: Path, rows: list[Any], said: str) -> None:
    (tmp_path / "r.csv").write_text(csv_of(rows))
    result = captioner("eval", "score", "--ratings", tmp_path / "r.csv")
    assert (result.exit_code, result.stdout, result.stderr.count("\n")) == (1, "", 1)
    assert said in result.stderr


def test_what_is_printed_and_the_page(tmp_path: Path) -> None:
    (tmp_path / "r.csv").write_text(csv_of(ROWS))
    result = captioner("eval", "score", "--ratings", tmp_path / "r.csv", "--report", tmp_path / "report.html")
    assert result.stdout.startswith("fit: 5 ratings of 3 items by 2 raters, mean 2.000\n")
    assert "How far do the raters agree?" in (tmp_path / "report.html").read_text()
