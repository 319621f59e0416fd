"""`captioner embed probe`: a label predicted from vectors, against TF-IDF and the most frequent label."""

from __future__ import annotations

import json
import math
import shutil
import uuid
from collections import Counter
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from pincaption.cli import cli
from pincaption.embed.errors import EmbedError
from pincaption.embed.item_vectors import export_for
from pincaption.embed.labels import label_column, labels_of_queries
from pincaption.embed.logistic import FOLDS, Dense, fit, folds_of, most_frequent, out_of_fold
from pincaption.embed.model import EmbeddingModel
from pincaption.embed.options import TrainOptions
from pincaption.embed.pairs import QUERY_PIN, QUERY_PRODUCT, Pairs, Task
from pincaption.embed.probe import MAJORITY, ProbeResult, probe
from pincaption.embed.probe_scores import Samples, interval, macro_f1
from pincaption.embed.reader import Export
from pincaption.embed.tf_idf import tf_idf
from pincaption.embed.training import train


def with_column(export: Path, folder: Path, name: str, values: list[str | None]) -> Path:
    """A copy of an export with another column."""
    folder /= uuid.uuid4().hex  # `datasets` knows an export by the folder's name and the version in its card
    shutil.copytree(export, folder)
    (path,) = (folder / "features").glob("*.parquet")
    table = pq.read_table(path)
    if name in table.column_names:
        table = table.drop_columns([name])
    pq.write_table(
        table.append_column(name, pa.array(values, pa.string())).replace_schema_metadata(None), path
    )
    return folder


def things(export: Path) -> list[str | None]:
    """What each item shows, from its caption or title. Items with neither have no label."""
    (path,) = (export / "features").glob("*.parquet")
    table = pq.read_table(path).to_pylist()
    return [(row["caption"] or row["title"] or "").rpartition(" ")[2] or None for row in table]


@pytest.fixture(scope="module")
def labelled(export: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The export, whose category is what an item shows."""
    return with_column(export, tmp_path_factory.mktemp("probe"), "category", things(export))


@pytest.fixture(scope="module")
def model(labelled: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """It reads category, too."""
    folder = tmp_path_factory.mktemp("probe") / "m"
    fields = ("title", "description", "caption", "category")
    train(labelled, folder, TrainOptions(epochs=0.2, batch=32, fields=fields), workers=0)
    return folder


@pytest.fixture(scope="module")
def loaded(model: Path) -> EmbeddingModel:
    return EmbeddingModel.load(model)


@pytest.fixture(scope="module")
def result(loaded: EmbeddingModel, labelled: Path) -> ProbeResult:
    return probe(loaded, labelled, "category")


def test_captions_tell_what_an_item_without_a_title_shows(result: ProbeResult) -> None:
    rows, differences = result["rows"], result["differences"]
    assert rows["vectors of all text"]["accuracy"][0] > 0.95
    assert rows["TF-IDF of all text"]["accuracy"][0] > 0.95
    assert rows["vectors of native text"]["accuracy"][0] < 0.9
    assert result["part"] == "items without native text"
    of_part = {name: row["accuracy of the part"] or [0.0] for name, row in rows.items()}
    assert of_part["vectors of all text"][0] > 0.9
    assert of_part["vectors of native text"][0] < 0.5
    assert differences["vectors of all text less vectors of native text"]["accuracy"][1] > 0
    assert differences["TF-IDF of all text less TF-IDF of native text"]["macro-F1"][1] > 0


def test_what_is_counted(result: ProbeResult, labelled: Path) -> None:
    counts = Counter(name for name in things(labelled) if name)
    assert result["labels"] == {name: n for name, n in counts.most_common() if n >= 10}
    assert result["count"] == sum(result["labels"].values())
    assert result["left_out"].get("without a label", 0) == things(labelled).count(None) > 0
    small = sum(n for n in counts.values() if n < 10)
    assert result["left_out"].get("with a label that fewer than 10 have", 0) == small
    majority = result["rows"][MAJORITY]["accuracy"][0]
    assert majority <= max(counts.values()) / result["count"] + 1e-4


def test_labels_that_say_nothing_are_not_predicted(
    loaded: EmbeddingModel, labelled: Path, tmp_path: Path
) -> None:
    shuffled = np.random.default_rng(5).permutation(np.array(things(labelled), object)).tolist()
    rows = probe(loaded, with_column(labelled, tmp_path, "category", shuffled), "category")["rows"]
    for name, row in rows.items():
        assert abs(row["accuracy"][0] - rows[MAJORITY]["accuracy"][0]) < 0.12, name


def test_the_label_is_not_read_from_its_own_field(
    loaded: EmbeddingModel, labelled: Path, result: ProbeResult, tmp_path: Path
) -> None:
    vectors = "the vectors also have what the model reads of pinsage; TF-IDF has not"
    left_out = "the model reads category, which is the label: this field was left out"
    assert result["notes"] == [left_out, vectors]
    # The result is the same if no item has a text in that field, and the label is in another column.
    copy = with_column(labelled, tmp_path, "shows", things(labelled))
    nothing = with_column(copy, tmp_path, "category", [None] * 120)
    again = probe(loaded, nothing, "shows")
    assert again["rows"] == result["rows"]
    assert again["notes"] == [vectors]


def test_a_sample_is_the_same_at_each_call(loaded: EmbeddingModel, labelled: Path) -> None:
    some = probe(loaded, labelled, "kind", limit=60, seed=3)
    assert some["count"] == 60
    assert some["left_out"] == {"not sampled": 60}
    assert probe(loaded, labelled, "kind", limit=60, seed=3) == some
    assert probe(loaded, labelled, "kind", limit=60, seed=4) != some


def test_the_label_of_a_query_is_the_most_frequent_one_of_its_items(
    loaded: EmbeddingModel, labelled: Path
) -> None:
    found = probe(loaded, labelled, "category", on="queries", least=2)
    items = dict(zip(export_for(loaded, labelled).pin_ids.to_pylist(), things(labelled), strict=True))
    labels: dict[str, Counter[str]] = {}
    pairs = pq.read_table(next((labelled / "pairs").rglob("*test*"))).to_pylist()
    for query, pin in {(pair["query"], pair["pin_id"]) for pair in pairs}:
        labels.setdefault(query, Counter()).update([items[pin]] if items[pin] else [])
    expected = Counter[str]()
    for counts in labels.values():
        best = [name for name, n in counts.items() if n == max(counts.values())]
        expected.update(best if len(best) == 1 else [])
    assert found["labels"] == {name: n for name, n in expected.items() if n >= 2}
    assert set(found["rows"]) == {"vectors", "TF-IDF", MAJORITY}
    assert found["rows"]["TF-IDF"]["accuracy"][0] > 0.9


@settings(max_examples=80, deadline=None)
@given(
    pairs=st.lists(st.tuples(st.integers(0, 4), st.integers(0, 6)), min_size=1, max_size=20),
    labels=st.lists(st.sampled_from(["a", "b", "c", None]), min_size=7, max_size=7),
    cut=st.integers(0, 20),
)
def test_labels_of_queries_equal_a_slow_count(
    pairs: list[tuple[int, int]], labels: list[str | None], cut: int
) -> None:
    parts = {QUERY_PIN: pairs[:cut], QUERY_PRODUCT: pairs[cut:]}
    tasks = {
        name: Task(name, *np.array(part).reshape(-1, 2).T, np.ones(len(part)), np.arange(7))
        for name, part in parts.items()
        if part
    }
    left_out: dict[str, int] = {}
    places, found = labels_of_queries(Pairs(pa.array("abcde"), tasks, {}), pa.array(labels), left_out)
    expected, ties = {}, 0
    for query in sorted({query for query, _ in pairs}):
        counts = Counter(label for q, i in set(pairs) if q == query and (label := labels[i]))
        best = [name for name, n in counts.items() if n == max(counts.values())]
        ties += len(best) > 1
        if len(best) < 2:
            expected[query] = best[0] if best else None
    assert dict(zip(places.tolist(), found.to_pylist(), strict=True)) == expected
    assert left_out == {"with two labels equally frequent": ties}


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"label": "colour"}, "has no column colour: --label is one of kind, title,"),
        (
            {"label": "board_titles"},
            "board_titles holds lists or objects, and a label is one value for each item",
        ),
        ({"label": "caption_recipe"}, "has no column caption_recipe"),
        (
            {"label": "description"},
            " has 0 labels that at least 10 items have, and a probe needs two: choose another --label, or a",
        ),
        ({"label": "kind", "least": 50}, "1 label that at least 50 items have, and a probe needs two"),
        ({"label": "category", "on": "queries", "least": 99}, "0 labels that at least 99 queries have"),
    ],
)
def test_what_cannot_be_probed_is_one_sentence(
    loaded: EmbeddingModel, labelled: Path, options: Any, sentence: str
) -> None:
    with pytest.raises(EmbedError) as error:
        probe(loaded, labelled, **options)
    assert sentence in str(error.value)


def test_a_label_of_numbers_or_bytes(labelled: Path, tmp_path: Path) -> None:
    folder = tmp_path / uuid.uuid4().hex
    shutil.copytree(labelled, folder)
    (path,) = (folder / "features").glob("*.parquet")
    table = pq.read_table(path)
    missing = [float("nan"), 1.5, None]
    for name, values in {
        "number": [missing[i % 3] for i in range(len(table))],
        "spaces": [" " if i % 3 else "x" for i in range(len(table))],
        "bytes": [b"\xff"] * len(table),
    }.items():
        table = table.append_column(name, pa.array(values))
    pq.write_table(table, path)
    export = Export(folder)
    assert set(label_column(export, "number").to_pylist()) == {"1.5", None}
    assert set(label_column(export, "spaces").to_pylist()) == {"x", None}
    with pytest.raises(EmbedError, match=r"bytes holds values that are no text \(binary\): choose another"):
        label_column(export, "bytes")


def test_too_many_labels(loaded: EmbeddingModel, labelled: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pincaption.embed.labels.MOST_LABELS", 2)
    with pytest.raises(EmbedError, match="and a probe takes 2: choose another --label, or a higher --min"):
        probe(loaded, labelled, "category")


def test_the_command_prints_a_table_of_80_columns(model: Path, labelled: Path, result: ProbeResult) -> None:
    command = ["embed", "probe", str(model), str(labelled), "--label", "category"]
    done = CliRunner().invoke(cli, command)
    assert done.exit_code == 0, done.output
    assert max(map(len, done.stdout.splitlines())) <= 80
    row = result["rows"]["vectors of all text"]
    line = next(line for line in done.stdout.splitlines() if "vectors of all text" in line)
    assert f"{row['accuracy'][0]:.3f} ({row['accuracy'][1]:.3f}-{row['accuracy'][2]:.3f})" in line
    assert "without native text" in done.stdout
    assert "this field was left out" in done.stderr
    as_json = CliRunner().invoke(cli, [*command, "--json"])
    assert json.loads(as_json.stdout) == result
    queries = CliRunner().invoke(cli, [*command, "--on", "queries", "--min", "5"])
    assert queries.exit_code == 0, queries.output
    assert "TF-IDF" in queries.stdout


# The classifier


def test_a_fit_is_the_minimum_of_the_loss() -> None:
    """Gradient descent in float64, a row at a time, ends at the same weights."""
    rng = np.random.default_rng(0)
    numbers, labels, strength = rng.normal(size=(12, 3)), rng.integers(0, 3, 12), 2.0
    weights, biases = np.zeros((3, 3)), np.zeros(3)
    for _ in range(4_000):
        slope, slope_of_biases = weights / (strength * 12), np.zeros(3)
        for x, label in zip(numbers, labels, strict=True):
            shares = np.exp(x @ weights + biases)
            wrong = shares / shares.sum() - np.eye(3)[label]
            slope, slope_of_biases = slope + np.outer(x, wrong) / 12, slope_of_biases + wrong / 12
        weights, biases = weights - 0.3 * slope, biases - 0.3 * slope_of_biases
    found = fit(Dense(torch.tensor(numbers, dtype=torch.float32)), torch.from_numpy(labels), 3, strength)
    np.testing.assert_allclose(found[0].numpy(), weights, atol=0.01)
    np.testing.assert_allclose(found[1].numpy(), biases, atol=0.01)


def test_answers_of_a_fold_do_not_depend_on_its_labels() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 4, 200)
    matrix = Dense(torch.from_numpy(np.eye(4)[labels] + rng.normal(size=(200, 4))).float())
    folds = folds_of(labels)
    answers = out_of_fold(matrix, labels, folds)
    assert 0.4 < (answers == labels).mean() < 0.95
    for fold in range(FOLDS):
        changed = np.where(folds == fold, (labels + 1) % 4, labels)
        again = out_of_fold(matrix, changed, folds)
        assert (again[folds == fold] == answers[folds == fold]).all()


@settings(max_examples=60, deadline=None)
@given(counts=st.lists(st.integers(5, 30), min_size=2, max_size=6), seed=st.integers(0, 9))
def test_each_label_is_spread_evenly_over_the_folds(counts: list[int], seed: int) -> None:
    labels = np.random.default_rng(seed).permutation(np.repeat(np.arange(len(counts)), counts))
    folds = folds_of(labels, seed)
    for label in range(len(counts)):
        in_folds = np.bincount(folds[labels == label], minlength=FOLDS)
        assert in_folds.max() - in_folds.min() <= 1
    sizes = np.bincount(folds, minlength=FOLDS)
    assert sizes.max() - sizes.min() <= 1
    expected = [
        Counter(labels[folds != fold].tolist()).most_common()[0][1] for fold in range(FOLDS)
    ]  # how often the most frequent label of the other folds occurs there
    for i, answer in enumerate(most_frequent(labels, folds).tolist()):
        assert Counter(labels[folds != folds[i]].tolist())[answer] == expected[folds[i]]


# Sparse words


@settings(max_examples=60, deadline=None)
@given(
    documents=st.lists(
        st.lists(st.sampled_from(["red", "mug", "tea", "boat"]), max_size=5), min_size=1, max_size=6
    ),
    cut=st.integers(0, 6),
    seed=st.integers(0, 9),
)
def test_tf_idf_equals_a_slow_count(documents: list[list[str]], cut: int, seed: int) -> None:
    texts = pa.array([" ".join(words) for words in documents])
    batches = [
        [(texts.slice(start, len(part)), np.arange(start, start + len(part)))]
        for start, part in ((0, documents[:cut]), (cut, documents[cut:]))
        if part
    ]
    matrix, n = tf_idf(batches, len(documents)), len(documents)
    df = Counter(word for words in documents for word in set(words))
    words = [word for word in df if df[word] > 1]
    expected = np.zeros((n, len(words)))
    for row, document in enumerate(documents):
        values = [document.count(word) * (math.log((1 + n) / (1 + df[word])) + 1) for word in words]
        expected[row] = np.array(values) / (math.hypot(*values) or 1)
    dense = matrix.times(torch.eye(matrix.shape[1])).numpy()
    # The columns are in the order of hashes, so the products of all rows with one another are compared.
    np.testing.assert_allclose(dense @ dense.T, expected @ expected.T, atol=1e-5)
    rng = np.random.default_rng(seed)
    rows = rng.integers(0, n, 4)
    gradient = torch.from_numpy(rng.normal(size=(4, 3))).float()
    part = matrix.take(rows)
    np.testing.assert_allclose(part.times(torch.eye(matrix.shape[1])).numpy(), dense[rows], atol=1e-6)
    np.testing.assert_allclose(
        part.transposed_times(gradient).numpy(), dense[rows].T @ gradient.numpy(), atol=1e-5
    )


# Scores


@settings(max_examples=80, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=12))
def test_macro_f1_equals_a_slow_count(rows: list[tuple[int, int, int]]) -> None:
    labels, answers, times = (np.array(column) for column in zip(*rows, strict=True))
    total, n_labels = Fraction(0), max(labels.max(), answers.max()) + 1
    for label in range(n_labels):
        right = sum(n for a, b, n in rows if a == b == label)
        labelled, answered = (
            sum(n for a, _, n in rows if a == label),
            sum(n for _, b, n in rows if b == label),
        )
        if right:
            precision, recall = Fraction(right, answered), Fraction(right, labelled)
            total += 2 * precision * recall / (precision + recall)
    assert macro_f1(labels, answers, times[None])[0] == pytest.approx(float(total / n_labels))


def test_intervals_cover_the_truth_and_differences_are_paired() -> None:
    """Of 100 made-up results with a true accuracy of 0.7, about 95 have it in their interval."""
    rng, covered = np.random.default_rng(0), 0
    for _ in range(100):
        labels = rng.integers(0, 2, 80)
        answers = np.where(rng.random(80) < 0.7, labels, 1 - labels)
        sample = Samples.of(labels, answers, np.zeros(80, bool))
        assert sample.accuracy[0] == pytest.approx((labels == answers).mean())
        _, low, high = interval(sample.accuracy)
        covered += low <= 0.7 <= high
    assert 89 <= covered <= 99
    same = Samples.of(labels, answers, np.ones(80, bool))
    assert interval(same.accuracy - sample.accuracy) == [0.0, 0.0, 0.0]
    assert interval(same.part_accuracy) == interval(same.accuracy)
