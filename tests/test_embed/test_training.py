"""Training on a small export: the same every time, exactly resumed, and the same in two processes."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import load_file

from pincaption.cli import cli
from pincaption.embed.batches import MIX, Batches, batch_shares
from pincaption.embed.checkpoint import CHECKPOINT
from pincaption.embed.errors import EmbedError
from pincaption.embed.hard_negatives import HardNegatives, mine
from pincaption.embed.inputs import Inputs, Items
from pincaption.embed.model import EmbeddingModel
from pincaption.embed.objective import Objective
from pincaption.embed.options import TrainOptions
from pincaption.embed.pairs import QUERY_PIN, QUERY_PRODUCT, QUERY_QUERY, Pairs
from pincaption.embed.reader import Export
from pincaption.embed.sizes import Sizes
from pincaption.embed.start import initial_model
from pincaption.embed.training import train
from pincaption.embed.validation import Validation, hold_out
from pincaption.embed.vocabulary import Vocabulary

TINY = Sizes(rows=500, width=32, hidden=32, prefixes=(8, 16))
OPTIONS = TrainOptions(sizes=TINY, epochs=2, batch=56, every=10, compatible=("pinsage",), validation=0.1)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    encoder = folder / "encoder" / "model.safetensors"
    return load_file(folder / "towers.safetensors") | (load_file(encoder) if encoder.exists() else {})


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


def test_two_runs_agree_whichever_processes_make_the_batches(
    export: Path, trained: Path, tmp_path: Path
) -> None:
    train(export, tmp_path / "m", OPTIONS, workers=2)
    assert differences(trained, tmp_path / "m") == 0
    train(export, tmp_path / "other", replace(OPTIONS, seed=1), workers=0)
    assert differences(trained, tmp_path / "other") > 1e-3
    # The digest names the weights, not the folder.
    one, same, other = (
        EmbeddingModel.load(folder).digest for folder in (trained, tmp_path / "m", tmp_path / "other")
    )
    assert len(one) == 16
    assert one == same != other


def test_a_training_that_was_stopped_goes_on_exactly(export: Path, trained: Path, tmp_path: Path) -> None:
    points: list[dict[str, Any]] = []
    stopped = train(export, tmp_path / "m", OPTIONS, workers=0, stop_after=5, on_point=points.append)
    assert (stopped["steps"], stopped["done"]) == (5, False)
    with pytest.raises(EmbedError, match="unfinished training on another export or with other options"):
        train(export, tmp_path / "m", replace(OPTIONS, seed=5), workers=0)
    assert train(export, tmp_path / "m", OPTIONS, workers=0, on_point=points.append)["done"]
    assert differences(trained, tmp_path / "m") == 0
    assert points == json.loads((trained / "config.json").read_text())["history"]
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
    # Adam makes steps of full length of the smallest gradients, also of mere rounding. So the weights may
    # differ where they do not matter; the embeddings may not.
    one, two = EmbeddingModel.load(trained), EmbeddingModel.load(tmp_path / "m")
    torch.testing.assert_close(one.embed_items(export), two.embed_items(export), atol=2e-3, rtol=0)
    asked = ["red mug", "boat", "a drawing"]
    torch.testing.assert_close(one.embed_queries(asked), two.embed_queries(asked), atol=2e-3, rtol=0)


def test_a_training_that_was_killed_goes_on_exactly(export: Path, trained: Path, tmp_path: Path) -> None:
    code = f"""
import os, signal, sys; sys.path.insert(0, {str(Path(__file__).parent)!r})
from test_training import OPTIONS, train
def on_step(what, done, total):
    if done == 11:
        os.kill(os.getpid(), signal.SIGKILL)
train({str(export)!r}, {str(tmp_path / "m")!r}, OPTIONS, workers=1, on_step=on_step)"""
    killed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=240)
    assert killed.returncode == -signal.SIGKILL, killed.stderr[-2000:]
    assert torch.load(tmp_path / "m" / CHECKPOINT, weights_only=True)["step"] == 10
    assert train(export, tmp_path / "m", OPTIONS, workers=0)["done"]
    assert differences(trained, tmp_path / "m") == 0


def test_the_step_that_ranks_held_out_queries_best_is_kept(export: Path, tmp_path: Path) -> None:
    options = replace(OPTIONS, epochs=3, every=2, validation=0.2)
    points: list[dict[str, Any]] = []
    found = train(export, tmp_path / "m", options, workers=0, on_point=points.append)
    scores = [np.mean([task["recall@10"] for task in point["validation"].values()]) for point in points]
    best = points[max(i for i, score in enumerate(scores) if score == max(scores))]
    assert len(points) > 5
    assert (found["kept_step"], found["validation"]) == (best["step"], best["validation"])
    data = Export(export)
    _, held_out, data.hidden_queries = hold_out(Pairs.load(data, "train"), 0.2)
    assert Validation(data, held_out, options.seed)(EmbeddingModel.load(tmp_path / "m")) == best["validation"]


def test_held_out_queries_are_on_no_item_and_in_no_pair(export: Path) -> None:
    data = Export(export)
    kept, held_out, data.hidden_queries = hold_out(Pairs.load(data, "train"), 0.3)
    hidden, rows = set(data.hidden_queries.to_pylist()), np.arange(len(data))
    on_items = set(data.texts(rows, ["engaged_queries"])["engaged_queries"][0].to_pylist())
    everything = set(Export(export).texts(rows, ["engaged_queries"])["engaged_queries"][0].to_pylist())
    assert hidden & everything
    assert on_items == everything - hidden
    for name, task in kept.tasks.items():
        asked = set(kept.queries.take(pa.array(task.queries)).to_pylist())
        asked |= (
            set(kept.queries.take(pa.array(task.items)).to_pylist())
            | set(kept.queries.take(pa.array(task.pool)).to_pylist())
            if name == QUERY_QUERY
            else set()
        )
        assert not asked & hidden
        assert set(held_out.queries.take(pa.array(held_out.tasks[name].queries)).to_pylist()) <= hidden
    assert set(kept.used_queries.to_pylist()) <= set(kept.queries.to_pylist()) - hidden
    data = Export(export, ("engaged_queries",))
    data.hidden_queries = pa.array(["red mug"])
    assert "red mug" not in data.texts(rows, data.fields)["engaged_queries"][0].to_pylist()


def test_nothing_is_held_out_if_nothing_would_be_left_to_learn_from(export: Path) -> None:
    pairs = Pairs.load(Export(export), "train")
    kept, held_out, hidden = hold_out(pairs, 1.0)
    assert kept.tasks.keys() == pairs.tasks.keys()
    assert (held_out.tasks, len(hidden)) == ({}, 0)


def test_an_export_of_json_lines_gives_the_same_items(tmp_path: Path) -> None:
    store = tmp_path / "my.db"
    (tmp_path / "pins.jsonl").write_text(
        "".join(json.dumps({"pin_id": f"p{i}", "title": f"mug {i}"}) + "\n" for i in range(9))
    )
    (tmp_path / "log.jsonl").write_text(
        "".join(
            json.dumps(
                {"pin_id": f"p{i}", "query": "a mug", "action": "save", "date": f"2026-06-0{1 + i % 5}"}
            )
            + "\n"
            for i in range(9)
        )
    )
    commands = [
        ["ingest", "pins", store, tmp_path / "pins.jsonl"],
        ["aggregate", "queries", store, "--log", tmp_path / "log.jsonl"],
    ]
    commands += [
        ["export", store, tmp_path / form, "--format", form, "--as-of", "2026-06-02", "--pairs"]
        for form in ("parquet", "jsonl")
    ]
    for command in commands:
        done = CliRunner().invoke(cli, [str(a) for a in command])
        assert done.exit_code == 0, done.output
    texts = []
    for form in ("parquet", "jsonl"):
        data = Export(tmp_path / form)
        order = np.argsort(data.pin_ids.to_pylist())
        texts.append(
            {
                name: (column.to_pylist(), parents.tolist())
                for name, (column, parents) in data.texts(order, data.fields).items()
            }
        )
        assert len(data.rows_with_text) == 9
        assert train(
            tmp_path / form, tmp_path / f"{form}-model", replace(OPTIONS, compatible=(), epochs=1), workers=0
        )["done"]
    assert texts[0] == texts[1]


def test_an_export_may_lack_the_vectors_of_a_model_but_not_have_them_in_another_size(
    export: Path, trained: Path
) -> None:
    model, data = EmbeddingModel.load(trained), Export(export)
    data.stored_vectors = {}
    without = model.embed_items(data)
    assert torch.allclose(without.norm(dim=1), torch.ones(len(data)), atol=1e-5)
    rows = data.rows.to_pandas()
    missing = torch.from_numpy(rows["pinsage"].isna().to_numpy())
    torch.testing.assert_close(without[missing], model.embed_items(export)[missing], atol=1e-5, rtol=0)
    data.stored_vectors = {"pinsage": 8}
    with pytest.raises(EmbedError, match="vectors pinsage of 8 numbers, but the model was trained on 16"):
        model.embed_items(data)


def test_a_folder_that_cannot_be_written_is_refused_before_anything_is_made(
    export: Path, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("mine")
    seen: list[str] = []
    with pytest.raises(EmbedError, match="cannot be written"):
        train(
            export,
            tmp_path / "file" / "m",
            OPTIONS,
            workers=0,
            on_step=lambda what, done, total: seen.append(what),
        )
    assert seen == []


def test_hard_negatives_share_words_with_the_query_and_nobody_chose_them(export: Path) -> None:
    data = Export(export)
    pairs = Pairs.load(data, "train")
    lists = HardNegatives(np.array([3, 7]), np.arange(20).reshape(2, 10))
    drawn = lists.draw(np.array([7, 3, 7]), 4, np.random.default_rng(0))
    assert drawn.shape == (3, 4)
    assert ((drawn[[0, 2]] >= 10).all(), (drawn[1] < 10).all()) == (True, True)
    mined = mine(data, pairs, listed=5, skipped=1)
    assert mined.keys() == {QUERY_PIN, QUERY_PRODUCT}
    for name, negatives in mined.items():
        task = pairs.tasks[name]
        chosen = set(zip(task.queries.tolist(), task.items.tolist(), strict=True))
        assert negatives.places.tolist() == sorted(set(task.queries.tolist()))
        for place, rows in zip(negatives.places.tolist(), negatives.rows, strict=True):
            assert len(set(rows.tolist())) == 5
            assert set(rows.tolist()) <= set(task.pool.tolist())
            assert not {(place, row) for row in rows.tolist()} & chosen


def test_bfloat16_learns_nearly_the_same(export: Path) -> None:
    data = Export(export)
    pairs = Pairs.load(data, "train")
    model = initial_model(data, pairs, OPTIONS)
    objective = Objective(model, OPTIONS, pairs, len(data))
    state = {name: value.clone() for name, value in objective.state_dict().items()}
    batch = Batches(
        data,
        pairs,
        model.inputs,
        shares=batch_shares(pairs, 72, 1, OPTIONS.weights),
        steps=1,
    )[0]
    losses, gradients = [], []
    for enabled in (False, True):
        objective.load_state_dict(state)
        objective.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            found = objective(batch)
        torch.stack(list(found.values())).sum().backward()
        assert all(value.dtype == torch.float32 for value in found.values())
        losses.append(torch.stack(list(found.values())).detach())
        gradients.append(torch.cat([p.grad.flatten() for p in objective.parameters() if p.grad is not None]))
    assert not torch.equal(*losses)  # it was computed in 16 bits
    torch.testing.assert_close(*losses, rtol=0.02, atol=0)
    assert torch.nn.functional.cosine_similarity(*gradients, dim=0) > 0.98


def test_a_finished_model_is_left_alone_and_another_one_is_never_overwritten(
    export: Path, trained: Path, tmp_path: Path
) -> None:
    before = (trained / "config.json").stat().st_mtime_ns
    assert train(export, trained, OPTIONS, workers=0)["done"]
    assert (trained / "config.json").stat().st_mtime_ns == before
    with pytest.raises(
        EmbedError, match="trained on another export, with other options or by another version"
    ):
        train(export, trained, replace(OPTIONS, epochs=3), workers=0)
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(EmbedError, match="something else than a training"):
        train(export, tmp_path, OPTIONS, workers=0)


@pytest.mark.parametrize(
    "changes",
    [
        {"correction": "conditional"},
        {"correction": "none", "mask_known": True},
        {"hashed": True, "keep_own_query": True},
        {"validation": 0.0},
        {"hard_negatives": 2, "random_negatives": 0},
        {"table_learning_rate": 0.0},
    ],
)
def test_every_option_trains(export: Path, tmp_path: Path, changes: dict[str, Any]) -> None:
    found = train(export, tmp_path / "m", replace(OPTIONS, epochs=0.1, **changes), workers=0)
    assert all(np.isfinite(value) for value in found["loss"].values())
    assert set(found["loss"]) == {
        QUERY_PIN,
        QUERY_PRODUCT,
        QUERY_QUERY,
        f"{QUERY_PIN} pinsage",
        f"{QUERY_PRODUCT} pinsage",
    }


def test_a_batch_has_its_shares_and_no_item_has_the_query_of_its_own_pair(export: Path) -> None:
    data = Export(export)
    pairs = Pairs.load(data, "train")
    inputs = Inputs(Vocabulary.build(data.grams(pairs.queries), least=1), None)
    batches = Batches(
        data,
        pairs,
        inputs,
        shares=batch_shares(pairs, 56, 1, MIX),
        steps=3,
    )
    assert batches.shares == {QUERY_PIN: 32, QUERY_PRODUCT: 16, QUERY_QUERY: 8}
    part = batches[2][QUERY_PIN]
    assert len(part.positive_keys) == 32
    assert len(part.negative_keys) == 128
    assert not data.products[part.positive_keys.numpy()].any()
    task = pairs.tasks[QUERY_PIN]
    assert {(int(q) << 32 | int(i)) for q, i in zip(part.query_keys, part.positive_keys, strict=True)} <= set(
        task.known.tolist()
    )
    own = pairs.queries.take(part.query_keys.numpy())
    texts, parents = data.texts(part.positive_keys.numpy(), ["engaged_queries"], own)["engaged_queries"]
    every, _ = data.texts(part.positive_keys.numpy(), ["engaged_queries"])["engaged_queries"]
    assert not pc.any(pc.equal(texts, own.take(parents))).as_py()
    assert 0 < len(texts) < len(every)


def test_pairs_occur_in_proportion_to_their_weights(export: Path) -> None:
    task = Pairs.load(Export(export), "train").tasks[QUERY_PIN]
    counts = np.bincount(task.order(0, 0), minlength=len(task))
    wanted = task.weights / task.weights.sum() * len(task)
    assert np.all(np.abs(counts - wanted) < 1)
    assert not np.array_equal(task.order(0, 0), task.order(0, 1))


def test_items_may_lack_any_of_their_fields(export: Path, trained: Path) -> None:
    model, data = EmbeddingModel.load(trained), Export(export)
    vectors = model.embed_items(data)
    assert torch.allclose(vectors.norm(dim=1), torch.ones(len(data)), atol=1e-5)
    empty = torch.empty(0, dtype=torch.int64), torch.zeros(2, dtype=torch.int64)
    nothing = Items(
        dict.fromkeys(data.fields, empty),
        None,
        {},
        {"pinsage": (torch.zeros(2, 16), torch.zeros(2, dtype=torch.bool))},
    )
    assert torch.equal(model.towers.items(nothing), torch.zeros(2, 32))
    one = torch.cat([model.embed_items(data, np.array([row])) for row in range(10)])
    torch.testing.assert_close(one, vectors[:10], atol=1e-5, rtol=0)


def test_the_vectors_of_a_loaded_model_have_the_shapes_that_its_docstrings_say(
    export: Path, trained: Path
) -> None:
    model, rows = EmbeddingModel.load(trained), np.array([3, 1])
    queries = model.embed_queries(["red mug", "boat", ""])
    items = model.embed_items(export)
    assert (queries.shape, items.shape) == ((3, 32), (120, 32))
    assert queries.dtype == items.dtype == torch.float32
    for whole, short in (
        (queries, model.embed_queries(iter(["red mug", "boat", ""]), dim=8)),
        (items[rows], model.embed_items(Export(export), rows, dim=8)),
    ):
        assert whole[:2].norm(dim=1).tolist() == pytest.approx([1, 1], abs=1e-5)
        torch.testing.assert_close(
            short, torch.nn.functional.normalize(whole[:, :8], dim=1), atol=1e-5, rtol=0
        )
    assert model.embed_queries([]).shape == (0, 32)
    with pytest.raises(EmbedError, match="the model has embeddings of 8, 16, 32 numbers, not of 5"):
        model.embed_queries(["red mug"], dim=5)
