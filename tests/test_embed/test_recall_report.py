"""Recall by slice, what is shown, and the page about it."""

from __future__ import annotations

import json
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from click.testing import CliRunner

from pincaption.cli import cli
from pincaption.embed.options import TrainOptions
from pincaption.embed.pairs import QUERY_PIN, QUERY_QUERY, Pairs, Task
from pincaption.embed.reader import Export
from pincaption.embed.recall_report import write_report
from pincaption.embed.shown import gained_and_lost, popularity
from pincaption.embed.sizes import Sizes
from pincaption.embed.slices import HEAD, Training
from pincaption.embed.training import train


def recall(*arguments: object) -> Any:
    return CliRunner().invoke(cli, ["embed", "recall", *map(str, arguments)])


@pytest.fixture(scope="module")
def model(export: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("report") / "m"
    # So few numbers that it makes mistakes: the report shows what was gained and lost.
    train(export, out, TrainOptions(epochs=0.1, batch=64, sizes=Sizes(width=8, prefixes=())), workers=0)
    return out


@pytest.fixture(scope="module")
def page(export: Path, model: Path) -> tuple[dict[str, Any], str]:
    """(what --json prints, the report)."""
    path = model.parent / "report.html"
    done = recall(model, export, "--json", "--report", path, "--store", export.parent / "my.db")
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout), path.read_text()


def test_the_report_has_the_numbers_of_json(page: tuple[dict[str, Any], str]) -> None:
    result, html = page
    assert result["fusion"]["kind"] in html
    for name, task in result["tasks"].items():
        assert f"<h2>{name}</h2>" in html
        longest = [*task["dims"].values()][-1]
        for summary in (longest, task["bm25"], task["bm25 of words"], task["fused"]):
            assert f"{summary['recall@10'][0]:.3f}" in html
        assert f"{task['ndcg@10']['fused'][0]:.3f}" in html
        for groups in task["groups"].values():
            for group in groups.values():
                mean, low, high = group["differences"]["fused less bm25"]
                assert f"{mean:+.3f}<small>{low:+.3f} to {high:+.3f}</small>" in html
        for example in [*task["examples"]["gained"], *task["examples"]["lost"]]:
            assert example["query"] in html
            assert example["pin_id"] in html
    # The pins of this store have no images: the page says so.
    assert "no picture" in html


def test_each_slice_is_counted_once(page: tuple[dict[str, Any], str]) -> None:
    result, _ = page
    for task in result["tasks"].values():
        for groups in task["groups"].values():
            assert sum(group["pairs"] for group in groups.values()) == task["pairs"]
            mean = sum(g["pairs"] * g["bm25"]["recall@10"][0] for g in groups.values()) / task["pairs"]
            assert mean == pytest.approx(task["bm25"]["recall@10"][0], abs=2e-4)
        hit = task["fused"]["recall@10"][0] - task["bm25"]["recall@10"][0]
        assert task["differences"]["fused less bm25"][0] == pytest.approx(hit, abs=2e-4)


def test_the_fusion_that_a_training_saved_is_used(export: Path, model: Path, tmp_path: Path) -> None:
    config = json.loads((model / "config.json").read_text())
    kept = dict(config)
    config["fusion"] = {"kind": "words", "weight": 0.0, "recall": 0.25}
    (model / "config.json").write_text(json.dumps(config))
    try:
        done = recall(model, export, "--json")
    finally:
        (model / "config.json").write_text(json.dumps(kept))
    result = json.loads(done.stdout)
    assert result["fusion"] == config["fusion"]
    for task in result["tasks"].values():
        assert task["bm25"] == task["bm25 of words"] == task["fused"]


class _Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.names.add(tag)


def test_everything_that_strangers_wrote_is_escaped(page: tuple[dict[str, Any], str], tmp_path: Path) -> None:
    result = json.loads(json.dumps(page[0]))
    evil = "<script>alert(1)</script>\"'<iframe src=x>"
    task = result["tasks"][QUERY_PIN]
    task["examples"]["gained"] = [
        {"query": evil, "pin_id": evil, "title": evil, "caption": evil, "model": 1.0, "bm25": 12.5}
    ]
    task["groups"]["language"][evil] = next(iter(task["groups"]["language"].values()))
    result["fields"] = [evil]
    write_report(result, tmp_path / "r.html", {evil: 'data:image/png;base64,"><script>'})
    tags = _Tags()
    tags.feed((tmp_path / "r.html").read_text())
    assert not tags.names & {"script", "iframe"}
    assert "img" in tags.names


def test_a_report_never_replaces_what_is_no_page(export: Path, model: Path, tmp_path: Path) -> None:
    notes = tmp_path / "notes.txt"
    notes.write_text("mine")
    done = recall(model, export, "--report", notes)
    assert done.exit_code == 1
    assert "name another file" in " ".join(done.stderr.split())
    assert notes.read_text() == "mine"
    done = recall(model, export, "--store", export.parent / "my.db")
    assert done.exit_code == 2
    assert "--report" in done.stderr


def test_head_torso_tail_new_items_and_unseen_words(export: Path) -> None:
    data = Export(export)
    training = Pairs.load(data, "train")
    asked = pa.array(["red mug", "mug zyzzyva", "never asked", training.queries[0].as_py()])
    found = Training.of(data, asked, training, data.fields)
    counts: dict[str, int] = dict.fromkeys(asked.to_pylist(), 0)
    for task in training.tasks.values():
        for place in task.queries.tolist():
            query = training.queries[place].as_py()
            if query in counts:
                counts[query] += 1
    assert found.query_pairs.tolist() == [*counts.values()]
    assert found.query_pairs[3] > 0
    assert found.unseen_word.tolist() == [False, True, True, False]
    items = np.concatenate([training.tasks[name].items for name in training.tasks if name != QUERY_QUERY])
    assert found.item_pairs.tolist() == [(items == row).sum() for row in range(len(data))]
    found.query_pairs = np.array([HEAD, HEAD - 1, 1, 0])
    task = Task(QUERY_PIN, np.arange(4), np.arange(4), np.ones(4), np.arange(len(data)))
    by = found.groups(task)["training pairs of the query"]
    assert [mask.tolist() for mask in by.values()] == [
        [True, False, False, False],
        [False, True, True, False],
        [False, False, False, True],
    ]


def test_popularity_counts_hits_in_the_tenth_with_most_pairs() -> None:
    rows, pairs_of = np.arange(20), np.zeros(20, np.int64)
    pairs_of[[3, 7, 11]] = [5, 9, 1]
    task = Task(QUERY_PIN, np.array([0, 0, 1, 1]), np.array([3, 7, 11, 0]), np.ones(4), rows)
    found = popularity({"model": np.array([[3, 7], [1, -1]])}, task, rows, pairs_of)
    assert found == {"items": 2, "least": 5, "chosen": 0.5, "shown": {"model": round(2 / 3, 4)}}
    assert popularity({}, task, rows, np.zeros(20, np.int64)) is None


def test_gained_and_lost_have_one_example_of_a_query_the_largest_differences_first(export: Path) -> None:
    data = Export(export)
    pairs = Pairs.load(data, "test")
    task = pairs.tasks[QUERY_PIN]
    model, bm25 = np.full(len(task), 5.0), np.full(len(task), 5.0)
    other = int(np.flatnonzero(task.queries != task.queries[0])[0])
    same = np.flatnonzero(task.queries == task.queries[0])
    model[same], bm25[same] = 3.0, 100.0
    model[same[-1]] = 1.0
    model[other], bm25[other] = 50.0, 2.0
    found = gained_and_lost(data, pairs, task, model, bm25)
    assert [(e["query"], e["model"], e["bm25"]) for e in found["gained"]] == [
        (pairs.queries[int(task.queries[0])].as_py(), 1.0, 100.0)
    ]
    assert [e["pin_id"] for e in found["lost"]] == [data.pin_ids[int(task.items[other])].as_py()]
