"""Training on a small export: the same every time, exactly resumed, the same in two processes, and better than chance."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import load_file

from pincaption.cli import cli
from pincaption.embed.data import QUERY_PIN, QUERY_PRODUCT, QUERY_QUERY, Batches, Export, ExportError, Items, Pairs
from pincaption.embed.ngrams import Vocabulary
from pincaption.embed.queries import export_encoder
from pincaption.embed.recall import encode_items
from pincaption.embed.towers import Model, Sizes
from pincaption.embed.training import CHECKPOINT, TrainOptions, train

TINY = Sizes(rows=500, width=32, hidden=(32,), dims=(8, 16), encoder_width=32, encoder_layers=1, encoder_vocabulary=300)
OPTIONS = TrainOptions(encoder="small", sizes=TINY, epochs=2, batch=56, every=10, compatible=("pinsage",), validation=0.1)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "towers.safetensors") | load_file(folder / "encoder" / "model.safetensors")


def differences(a: Path, b: Path) -> float:
    one, other = weights(a), weights(b)
    assert one.keys() == other.keys()
    return max(float((one[name] - other[name]).abs().max()) for name in one)


@pytest.fixture(scope="module")
def trained(export: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("model") / "m"
    found = train(export, out, OPTIONS, workers=0)
    assert found["done"]
    return out


def test_two_runs_agree_whatever_makes_the_batches(export: Path, trained: Path, tmp_path: Path) -> None:
    train(export, tmp_path / "m", OPTIONS, workers=2)
    assert differences(trained, tmp_path / "m") == 0
    train(export, tmp_path / "other", replace(OPTIONS, seed=1), workers=0)
    assert differences(trained, tmp_path / "other") > 1e-3


def test_a_training_that_was_stopped_goes_on_exactly(export: Path, trained: Path, tmp_path: Path) -> None:
    stopped = train(export, tmp_path / "m", OPTIONS, workers=0, stop_after=5)
    assert (stopped["steps"], stopped["done"]) == (5, False)
    with pytest.raises(ExportError, match="unfinished training on another export or with other options"):
        train(export, tmp_path / "m", replace(OPTIONS, seed=5), workers=0)
    assert train(export, tmp_path / "m", OPTIONS, workers=0)["done"]
    assert differences(trained, tmp_path / "m") == 0
    assert not (tmp_path / "m" / CHECKPOINT).exists()


def test_two_processes_learn_what_one_does(export: Path, trained: Path, tmp_path: Path) -> None:
    code = f"""
import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})
from test_training import OPTIONS, train
train({str(export)!r}, {str(tmp_path / "m")!r}, OPTIONS, workers=0, device="cpu")"""
    (tmp_path / "two.py").write_text(code)
    launch = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--nproc-per-node",
        "2",
        "--master-port",
        "0",
        "--rdzv-backend",
        "c10d",
        "--rdzv-endpoint",
        "localhost:0",
        str(tmp_path / "two.py"),
    ]
    done = subprocess.run(launch, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr[-2000:]
    assert differences(trained, tmp_path / "m") < 1e-3


def test_a_model_that_is_done_is_left_alone_and_another_one_never_overwritten(export: Path, trained: Path, tmp_path: Path) -> None:
    before = (trained / "config.json").stat().st_mtime_ns
    assert train(export, trained, OPTIONS, workers=0)["done"]
    assert (trained / "config.json").stat().st_mtime_ns == before
    with pytest.raises(ExportError, match="trained on another export or with other options"):
        train(export, trained, replace(OPTIONS, epochs=3), workers=0)
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ExportError, match="something else than a training"):
        train(export, tmp_path, OPTIONS, workers=0)


@pytest.mark.parametrize("changes", [{"correction": "conditional"}, {"correction": "none", "mask_known": True}, {"hashed": True, "keep_own_query": True}, {"validation": 0.0}])
def test_every_option_trains(export: Path, tmp_path: Path, changes: dict[str, Any]) -> None:
    found = train(export, tmp_path / "m", replace(OPTIONS, epochs=0.1, **changes), workers=0)
    assert all(np.isfinite(value) for value in found["loss"].values())
    assert set(found["loss"]) == {QUERY_PIN, QUERY_PRODUCT, QUERY_QUERY, f"{QUERY_PIN} pinsage", f"{QUERY_PRODUCT} pinsage"}


def test_a_batch_has_its_shares_and_a_pairs_own_query_is_not_among_its_items_queries(export: Path) -> None:
    data = Export(export)
    pairs = Pairs.load(data, "train")
    vocabulary = Vocabulary.build(data.grams(pairs.queries), least=1)
    made = Batches(data, pairs, vocabulary, lambda texts: (torch.zeros(len(texts), 1), torch.ones(len(texts), 1)), batch=56, steps=3)
    assert made.shares == {QUERY_PIN: 32, QUERY_PRODUCT: 16, QUERY_QUERY: 8}
    part = made[2][QUERY_PIN]
    assert len(part.positive_keys) == 32
    assert len(part.negative_keys) == 128
    assert not data.products[part.positive_keys.numpy()].any()
    task = pairs.tasks[QUERY_PIN]
    assert {(int(q) << 32 | int(i)) for q, i in zip(part.query_keys, part.positive_keys, strict=True)} <= set(task.known.tolist())
    own = pairs.queries.take(part.query_keys.numpy())
    texts, parents = data.texts(part.positive_keys.numpy(), ["engaged_queries"], own)["engaged_queries"]
    every, _ = data.texts(part.positive_keys.numpy(), ["engaged_queries"])["engaged_queries"]
    assert not pc.any(pc.equal(texts, own.take(parents))).as_py()
    assert 0 < len(texts) < len(every)


def test_pairs_come_as_often_as_they_weigh(export: Path) -> None:
    task = Pairs.load(Export(export), "train").tasks[QUERY_PIN]
    counts = np.bincount(task.order(0, 0), minlength=len(task))
    wanted = task.weights / task.weights.sum() * len(task)
    assert np.all(np.abs(counts - wanted) < 1)
    assert not np.array_equal(task.order(0, 0), task.order(0, 1))


def test_items_with_any_pattern_of_missing_fields_have_an_embedding(export: Path, trained: Path) -> None:
    model, data = Model.load(trained), Export(export)
    vectors = encode_items(model, data)
    assert torch.allclose(vectors.norm(dim=1), torch.ones(len(data)), atol=1e-5)
    nothing = Items(
        {name: (torch.empty(0, dtype=torch.int64), torch.zeros(2, dtype=torch.int64)) for name in data.fields}, {"pinsage": (torch.zeros(2, 16), torch.zeros(2, dtype=torch.bool))}
    )
    found = model.items(nothing)
    assert torch.isfinite(found).all()
    assert torch.equal(found[0], found[1])
    one = torch.cat([encode_items(model, data, np.array([row])) for row in range(10)])
    torch.testing.assert_close(one, vectors[:10], atol=1e-5, rtol=0)


def test_the_command_line(export: Path, tmp_path: Path) -> None:
    def captioner(*arguments: Any, **more: Any) -> Any:
        return CliRunner().invoke(cli, [str(a) for a in arguments], **more)

    done = captioner("embed", "train", export, tmp_path / "m", "--epochs", 3, "--batch", 64, "--workers", 0, "--json")
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["validation"]
    assert (tmp_path / "m" / "learning_curve.png").stat().st_size > 1000
    told = captioner("embed", "recall", tmp_path / "m", export, "--json")
    assert told.exit_code == 0, told.output
    assert set(json.loads(told.stdout)["tasks"]) == {QUERY_PIN, QUERY_PRODUCT, QUERY_QUERY}
    assert "fused with BM25" in captioner("embed", "recall", tmp_path / "m", export).stdout
    wrote = captioner("embed", "queries", tmp_path / "m", "--out", tmp_path / "v.parquet", "--dim", 32, input="red mug\n\nboat\nred mug\n")
    assert wrote.exit_code == 0, wrote.output
    rows = pq.read_table(tmp_path / "v.parquet").to_pylist()
    assert [row["query"] for row in rows] == ["red mug", "boat", "red mug"]
    assert rows[0]["vector"] == pytest.approx(rows[2]["vector"], abs=1e-6)
    assert np.linalg.norm(rows[0]["vector"]) == pytest.approx(1, abs=1e-5)
    assert export_encoder(Model.load(tmp_path / "m"), tmp_path / "encoder.pt2") < 1e-4


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["train", "{export}", "{new}", "--fields", "colour"], "--fields takes names out of"),
        (["train", "{export}", "{new}", "--mix", "query-pin"], "--mix takes TASK=WEIGHT"),
        (["train", "{export}", "{new}", "--mix", "query-pin=0", "--mix", "query-product=0", "--mix", "query-query=0"], "no task with pairs has a weight above 0"),
        (["train", "{export}", "{new}", "--compatible", "itemsage"], "the export has no vectors of that name (pinsage)"),
        (["train", "{new}", "{new}"], "is no export: write one with"),
        (["train", "{export}", "{new}", "--encoder", "/nowhere"], "cannot be loaded as a text encoder"),
        (["recall", "{new}", "{export}"], "holds no trained model"),
        (["queries", "{new}"], "Parquet is nothing to look at"),
    ],
)
def test_mistakes_get_a_sentence(export: Path, tmp_path: Path, arguments: list[str], sentence: str) -> None:
    names = {"export": export, "new": tmp_path / "new"}
    done = CliRunner().invoke(cli, ["embed", *(argument.format(**names) for argument in arguments), *(["--json"] if arguments[0] == "queries" else [])])
    assert done.exit_code in (1, 2)
    assert sentence in " ".join(done.stderr.replace("│", " ").split())
    assert not (tmp_path / "new").exists()
