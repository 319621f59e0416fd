"""Samples judged in Label Studio.

The files in label_studio/ were exported by Label Studio 1.23.2 (`pip install label-studio`, SQLite), from a
project that was made of what `captioner eval sample` wrote for the store below. Two users, 1 and 2, annotated
its tasks by the REST API. The user 1 skipped one task, user 2 left a draft, and one task has a prediction.
later.csv was exported after user 1 had changed two annotations and user 2 had annotated three more tasks.
"""

from __future__ import annotations

import csv
import json
import sqlite3
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from hypothesis import given, settings
from hypothesis import strategies as st

from pincaption.cli import cli
from pincaption.eval.answers import SheetError, read_answer_file
from pincaption.eval.questions import QUESTIONS

from .shop import HOSTILE, make_shop

EXPORTS = Path(__file__).parent / "label_studio"
FORMATS = ["export.json", "export_min.json", "export.csv"]


def captioner(*arguments: Any) -> Result:
    return CliRunner().invoke(cli, [str(a) for a in arguments])


def draw(store: Path, folder: Path, *options: Any) -> list[dict[str, Any]]:
    """The data of the tasks."""
    drawn = captioner("eval", "sample", store, folder, "--format", "label-studio", *options)
    assert drawn.exit_code == 0, drawn.output
    return [task["data"] for task in json.loads((folder / "tasks.json").read_text())]


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    """The store that the exports are of."""
    make_shop(tmp_path / "my.db", HOSTILE[:8])
    gold = tmp_path / "gold.csv"
    gold.write_text("pin_id,caption,relevance,quality\npin-0,a green lamp,not,good\n")
    draw(tmp_path / "my.db", tmp_path / "o", "--n", 8, "--raters", 2, "--duplicates", 0.25, "--gold", gold)
    return tmp_path / "my.db"


def score(shop: Path, *files: Path) -> dict[str, Any]:
    result = captioner("eval", "score", shop, *files, "--json")
    assert result.exit_code == 0, result.output
    return dict(json.loads(result.stdout))


def refused(shop: Path, *arguments: Any) -> str:
    result = captioner("eval", "score", shop, *arguments)
    assert (result.exit_code, result.stdout, result.stderr.count("\n")) == (1, "", 1)
    assert sqlite3.connect(shop).execute("SELECT count(*) FROM ratings").fetchone() == (0,)
    return result.stderr


def edited(path: Path, change: Any) -> Path:
    """export.json after `change` was applied to each task."""
    tasks = json.loads((EXPORTS / "export.json").read_text())
    path.write_text(json.dumps([change(task) or task for task in tasks]))
    return path


def test_tasks_say_nothing_that_a_rater_must_not_know(tmp_path: Path) -> None:
    make_shop(tmp_path / "my.db", HOSTILE, pictures=tmp_path / "pictures")
    tasks = draw(tmp_path / "my.db", tmp_path / "o", "--duplicates", 0.25)
    assert {tuple(data) for data in tasks} == {("sample", "number", "item_id", "caption", "picture")}
    assert [data["number"] for data in tasks] == list(range(1, 16))  # 12 items, 3 of them twice
    assert len({data["item_id"] for data in tasks}) == 15
    assert {data["caption"] for data in tasks} == set(HOSTILE)
    assert all(data["picture"].startswith("data:image/jpeg;base64,/9j/") for data in tasks)
    written = (tmp_path / "o" / "tasks.json").read_text()
    assert "pin-" not in written
    assert "recipe" not in written
    assert sorted(path.name for path in (tmp_path / "o").iterdir()) == [
        "guidance.html",
        "labelling.xml",
        "tasks.json",
    ]


def test_a_task_without_a_picture_says_so(tmp_path: Path) -> None:
    make_shop(tmp_path / "my.db", ["a"])
    assert draw(tmp_path / "my.db", tmp_path / "o")[0]["picture"].startswith("data:image/png;base64,")


@pytest.mark.parametrize("kind", ["captions", "comparison"])
def test_the_configuration_asks_the_questions_of_the_sheet(tmp_path: Path, kind: Any) -> None:
    make_shop(tmp_path / "my.db", HOSTILE, others=[f"other {i}" for i in range(len(HOSTILE))])
    how = ["sample"] if kind == "captions" else ["compare", "--recipe", "recipe-a", "--recipe", "recipe-b"]
    done = captioner("eval", how[0], tmp_path / "my.db", tmp_path / "o", *how[1:], "--format", "label-studio")
    assert done.exit_code == 0, done.output
    root = ET.parse(tmp_path / "o" / "labelling.xml").getroot()
    data = json.loads((tmp_path / "o" / "tasks.json").read_text())[0]["data"]
    asked = {c.get("name"): [choice.get("value") for choice in c] for c in root.iter("Choices")}
    assert asked == {q.name: [*q.answers, "cannot judge"] for q in QUESTIONS[kind]}
    shown = [of.get("value") for of in root.iter() if of.tag in ("Text", "Image")]
    assert {f"${name}" for name in data} - set(shown) == {"$sample", "$number", "$item_id"}
    assert {of.get("toName") for of in root.iter() if of.get("toName")} == {"shown"}


@pytest.mark.parametrize("name", FORMATS)
def test_each_export_is_read(shop: Path, name: str) -> None:
    found = score(shop, EXPORTS / name)
    assert found["read"] == {"new": 18, "changed": 0, "unchanged": 0, "earlier": 0}
    assert {rater: of["judged"] for rater, of in found["by_rater"].items()} == {
        "annotator-1": 7,
        "annotator-2": 5,
    }
    assert found["relevant_and_good"]["share"] == 5 / 8
    assert [of["gold"] for of in found["by_rater"].values()] == [2, 2]
    assert [of["repeats"] for of in found["by_rater"].values()] == [1, 2]
    assert [of["cannot_judge"] for of in found["by_rater"].values()] == [1, 0]
    assert found["questions"]["quality"]["ratings"] == 12
    rows = sqlite3.connect(shop).execute("SELECT comment, seconds FROM ratings WHERE comment <> ''")
    assert sorted(rows) == [("=1+1", 4.25), ('comma, "quote"; and\ntwo lines', 3.25), ("🍵 حسن", 6.25)]


def test_what_is_no_answer_is_said(shop: Path) -> None:
    assert score(shop, EXPORTS / "export.json")["notes"] == [
        f"{EXPORTS / 'export.json'}: left out, because they are no answers: 1 draft, 1 prediction, "
        "1 skipped annotation"
    ]
    said = captioner("eval", "score", shop, EXPORTS / "export.json").stderr
    assert said.startswith("note: ")
    assert "1 skipped annotation" in said


def test_annotations_without_an_id_count_and_what_cannot_be_read_is_said(shop: Path, tmp_path: Path) -> None:
    tasks = json.loads((EXPORTS / "export.json").read_text())
    annotations = [a for task in tasks for a in task["annotations"] if not a["was_cancelled"]]
    for annotation in annotations:
        del annotation["id"]
    unreadable: list[Any] = ["relevant", {"relevance": "relevant"}, [3]]
    for annotation, result in zip(annotations, [*unreadable, [], None], strict=False):
        annotation["result"] = result
    (path := tmp_path / "x.json").write_text(json.dumps(tasks))
    found = score(shop, path)
    assert found["read"]["new"] == len(annotations) - 5 == 13
    assert "2 empty annotations" in found["notes"][0]
    assert "3 unreadable annotations" in found["notes"][0]


def test_half_of_a_surrogate_pair_in_a_comment_is_replaced(shop: Path, tmp_path: Path) -> None:
    def comment(task: dict[str, Any]) -> None:
        for annotation in task["annotations"]:
            for text in ("a \ud800 b", ["c \udfff", "\U0001f375"]):
                said = {"from_name": "comment", "type": "textarea", "value": {"text": text}}
                annotation["result"] = [r for r in annotation["result"] if r["from_name"] != "comment"]
                annotation["result"].append(said)

    score(shop, edited(tmp_path / "x.json", comment))
    rows = sqlite3.connect(shop).execute("SELECT DISTINCT comment FROM ratings")
    assert rows.fetchall() == [("c \ufffd\n\U0001f375",)]


def test_the_formats_say_the_same(shop: Path) -> None:
    found = score(shop, *(EXPORTS / name for name in FORMATS))
    assert found["read"] == {"new": 18, "changed": 0, "unchanged": 0, "earlier": 0}
    again = score(shop, EXPORTS / "export.csv")
    assert again["read"] == {"new": 0, "changed": 0, "unchanged": 18, "earlier": 0}
    same = ("by_rater", "questions", "relevant_and_good", "disputed")
    assert [found[name] for name in same] == [again[name] for name in same]


def test_a_later_export_changes_what_was_changed(shop: Path) -> None:
    score(shop, EXPORTS / "export.json")
    later = score(shop, EXPORTS / "later.csv")
    assert later["read"] == {"new": 3, "changed": 2, "unchanged": 16, "earlier": 0}
    assert later["questions"]["relevance"]["answers"]["partly"] == 2
    assert score(shop, EXPORTS / "export.csv")["read"] == {
        "new": 0,
        "changed": 0,
        "unchanged": 16,
        "earlier": 2,
    }


def test_the_name_of_an_annotator_is_checked(shop: Path, tmp_path: Path) -> None:
    def renamed(task: dict[str, Any]) -> None:
        for annotation in task["annotations"]:
            annotation["completed_by"] = {"email": "a\x1b[31m@example.com"}

    path = edited(tmp_path / "x.json", renamed)
    assert f"{path}: an annotator's name has 1 to 64 printable characters" in refused(shop, path)


def test_an_annotator_by_address_is_the_same_person(shop: Path, tmp_path: Path) -> None:
    def by_address(task: dict[str, Any]) -> None:
        for annotation in task["annotations"]:
            annotation["completed_by"] = {"email": f"{annotation['completed_by']}@example.com"}

    path = edited(tmp_path / "x.json", by_address)
    assert score(shop, EXPORTS / "export.csv", path)["by_rater"].keys() == {"annotator-1", "annotator-2"}


def test_the_first_user_of_two_installations_is_not_one_person(shop: Path, tmp_path: Path) -> None:
    def elsewhere(task: dict[str, Any]) -> None:
        task["annotations"] = [a for a in task["annotations"] if a["completed_by"] == 2]
        for annotation in task["annotations"]:
            annotation |= {"completed_by": 1, "updated_at": annotation["updated_at"].replace("2026", "2025")}

    other = edited(tmp_path / "other.json", elsewhere)
    assert "nothing shows that one person gave both" in refused(shop, EXPORTS / "export.csv", other)
    score(shop, EXPORTS / "export.csv")
    found = captioner("eval", "score", shop, other, "--rater", "carl", "--json")
    assert json.loads(found.stdout)["by_rater"].keys() == {"carl"}


def test_files_with_several_annotators_take_no_name(shop: Path) -> None:
    said = refused(shop, EXPORTS / "export.csv", "--rater", "ben")
    assert "export.csv has the answers of annotator-2, annotator-1: --rater ben takes the file of" in said


def test_exports_of_other_projects_are_refused(shop: Path, tmp_path: Path) -> None:
    path = edited(tmp_path / "other.json", lambda task: task | {"data": {"image": "/a.jpg"}})
    assert refused(shop, path) == (
        f"Error: {path} is an export of Label Studio, but of another project: task 1 has no item_id, which "
        "all tasks of `eval sample --format label-studio` have\n"
    )
    (tmp_path / "other.csv").write_text('"annotation_id","annotator","image"\n1,"1","a.jpg"\n')
    assert "of another project: it has no item_id" in refused(shop, tmp_path / "other.csv")
    make_shop(tmp_path / "other.db", ["a", "b"])
    draw(tmp_path / "other.db", tmp_path / "p")
    assert "its sample dhflhpkb is not in this store" in refused(
        tmp_path / "other.db", EXPORTS / "export.csv"
    )


def test_another_labelling_configuration_is_refused(shop: Path, tmp_path: Path) -> None:
    def renamed(task: dict[str, Any]) -> None:
        for annotation in task["annotations"]:
            annotation["result"] = [result | {"from_name": "fit"} for result in annotation["result"]]

    assert "none of them answers relevance" in refused(shop, edited(tmp_path / "x.json", renamed))

    def others(task: dict[str, Any]) -> None:
        for annotation in task["annotations"]:
            for result in annotation["result"]:
                result["value"] = {"choices": ["superb"]}

    said = refused(shop, edited(tmp_path / "y.json", others))
    assert "y.json, task 1 by annotator-1: relevance is 'superb'; it takes relevant, partly, not" in said


def test_two_choices_for_one_question_are_refused(shop: Path, tmp_path: Path) -> None:
    def both(task: dict[str, Any]) -> None:
        task["annotations"][0]["result"] += [
            {"from_name": "relevance", "type": "choices", "value": {"choices": ["not"]}},
            {"from_name": "relevance", "type": "choices", "value": {"choices": ["partly"]}},
        ]

    assert "task 1 by annotator-1: relevance is" in refused(shop, edited(tmp_path / "x.json", both))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("[]", "without any submitted annotation"),
        ('[{"pin_id": 1}]', "is JSON, but no export of Label Studio: value 1 is none of its tasks"),
        ('{\n "a": 1\n}', "is no export of Label Studio, value 1: not valid JSON"),
        ('[{"data": {"item_id"', "is no export of Label Studio, value 1: not valid JSON"),
        ('[{"data": [], "annotations": []}]', "task 1 is no task of Label Studio"),
        ('[{"data": {"item_id": "a"}, "annotations": [3]}]', "task 1 is no task of Label Studio"),
    ],
)
def test_other_json_is_refused(shop: Path, tmp_path: Path, content: str, said: str) -> None:
    (tmp_path / "x.json").write_text(content)
    assert said in refused(shop, tmp_path / "x.json")


def test_tasks_that_nobody_annotated_are_no_answers(shop: Path) -> None:
    assert "without any submitted annotation" in refused(shop, shop.parent / "o" / "tasks.json")


def test_files_of_others_are_not_written_over(shop: Path, tmp_path: Path) -> None:
    (tmp_path / "p").mkdir()
    (tmp_path / "p" / "tasks.json").write_text("[]")
    sample = ["eval", "sample", shop, tmp_path / "p", "--format", "label-studio"]
    assert "tasks.json is no file of this sample" in captioner(*sample).stderr
    again = draw(shop, tmp_path / "q", "--n", 5)
    assert draw(shop, tmp_path / "q", "--n", 5) == again
    assert captioner(*sample[:3], tmp_path / "q", *sample[4:], "--n", 4).exit_code == 1


def test_an_export_that_a_spreadsheet_program_saved(shop: Path, tmp_path: Path) -> None:
    with (EXPORTS / "export.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.reader(file))
    with (tmp_path / "x.csv").open("w", encoding="utf-16", newline="") as file:
        csv.writer(file, delimiter=";").writerows(rows)
    assert score(shop, tmp_path / "x.csv")["read"]["new"] == 18


ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["data", "item_id", "annotations", "id", "completed_by", "result", "value", "from_name"]
                + ["choices", "text", "relevance", "annotation_id", "annotator", "lead_time", "updated_at"]
            ),
            inner | st.sampled_from(["relevance", "comment", "relevant"]),
            max_size=6,
        )
    ),
    max_leaves=20,
)


@settings(max_examples=150, deadline=None)
@given(st.lists(ANY_JSON, max_size=3))
def test_any_json_is_read_or_refused_in_one_sentence(
    tmp_path_factory: pytest.TempPathFactory, content: list[Any]
) -> None:
    path = tmp_path_factory.getbasetemp() / "any.json"
    path.write_text(json.dumps(content))
    said = ""
    try:
        answers = read_answer_file(path).answers
    except SheetError as error:
        said = str(error)
    assert (str(path) in said and "\n" not in said) if said else answers
