"""`captioner embed` as its users see it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from click.testing import CliRunner

from pincaption.cli import cli
from pincaption.embed.data import OWN_WORDS, QUERY_PIN, QUERY_PRODUCT, QUERY_QUERY
from pincaption.embed.queries import load_encoder
from pincaption.embed.towers import SMALL_SIZES, Model


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
    shown = captioner("embed", "recall", tmp_path / "m", export).stdout
    assert "both fused" in shown
    assert max(map(len, shown.splitlines())) <= 80
    wrote = captioner("embed", "queries", tmp_path / "m", "--out", tmp_path / "v.parquet", "--dim", 32, input="red mug\n\nboat\nred mug\n")
    assert wrote.exit_code == 0, wrote.output
    rows = pq.read_table(tmp_path / "v.parquet").to_pylist()
    assert [row["query"] for row in rows] == ["red mug", "boat", "red mug"]
    assert rows[0]["vector"] == pytest.approx(rows[2]["vector"], abs=1e-6)
    assert np.linalg.norm(rows[0]["vector"]) == pytest.approx(1, abs=1e-5)
    exported = captioner("embed", "export-encoder", tmp_path / "m", tmp_path / "encoder.pt2", "--json")
    assert json.loads(exported.stdout)["difference"] < 1e-4
    model = Model.load(tmp_path / "m")
    torch.testing.assert_close(load_encoder(tmp_path / "encoder.pt2")(*model.tokenise(["Red MUG"]))[0], torch.tensor(rows[0]["vector"] + [0] * 96), atol=2, rtol=0)


def test_what_a_training_shows(export: Path, tmp_path: Path) -> None:
    command = ["embed", "train", str(export), str(tmp_path / "m"), "--epochs", "1", "--workers", "0", "--width", "32", "--dims", "8,16"]
    done = CliRunner().invoke(cli, command)
    assert done.exit_code == 0, done.output
    shown = done.stderr.splitlines()
    assert [name for name in (QUERY_PIN, QUERY_PRODUCT, QUERY_QUERY, OWN_WORDS) if name in shown[0]] == [QUERY_PIN, QUERY_PRODUCT, QUERY_QUERY, OWN_WORDS]
    assert shown[1].split() == ["step", "loss", "r@10", "loss", "r@10", "loss", "r@10", "loss"]
    assert max(map(len, done.output.splitlines())) <= 80 or str(tmp_path) in done.output
    assert Model.load(tmp_path / "m").sizes == replace(SMALL_SIZES, width=32, encoder_width=32, dims=(8, 16))
    other = CliRunner().invoke(cli, [*command[:-1], "16"], env={"RANK": "1"})
    assert (other.exit_code, other.output) == (1, "")  # one process speaks for all


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["train", "{export}", "{new}", "--fields", "colour"], "--fields takes names out of"),
        (["train", "{export}", "{new}", "--mix", "query-pin"], "--mix takes TASK=WEIGHT"),
        (["train", "{export}", "{new}", "--mix", "query-pin=0", "--mix", "query-product=0", "--mix", "query-query=0"], "no task with pairs has a weight above 0"),
        (["train", "{export}", "{new}", "--compatible", "itemsage"], "the export has no vectors of that name (pinsage)"),
        (["train", "{export}", "{new}", "--dims", "0,x"], "--dims takes numbers from 1 to 8192"),
        (["train", "{new}", "{new}"], "is no export: write one with"),
        (["train", "{export}", "{new}", "--encoder", "/nowhere"], "cannot be loaded as a text encoder"),
        (["recall", "{new}", "{export}"], "holds no trained model"),
        (["recall", "{export}", "{new}"], "is no export"),
        (["export-encoder", "{new}", "{new}"], "holds no trained model"),
        (["queries", "{new}"], "Parquet is nothing to look at"),
    ],
)
def test_mistakes_get_a_sentence(export: Path, tmp_path: Path, arguments: list[str], sentence: str) -> None:
    names = {"export": export, "new": tmp_path / "new"}
    done = CliRunner().invoke(cli, ["embed", *(argument.format(**names) for argument in arguments), *(["--json"] if arguments[0] == "queries" else [])])
    assert done.exit_code in (1, 2)
    assert sentence in " ".join(done.stderr.replace("│", " ").split())
    assert not (tmp_path / "new").exists()
