"""`captioner embed` as its users see it."""

from __future__ import annotations

import contextlib
import io
import json
import os
import pty
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import load_file, save_file

from pincaption.cli import cli
from pincaption.embed.errors import EmbedError
from pincaption.embed.exported_encoder import export_encoder, load_encoder
from pincaption.embed.model import EmbeddingModel
from pincaption.embed.pairs import QUERY_PIN, QUERY_PRODUCT, QUERY_QUERY
from pincaption.embed.queries import write_query_vectors
from pincaption.embed.query_text import QueryText


def captioner(*arguments: Any, **more: Any) -> Any:
    return CliRunner().invoke(cli, ["embed", *(str(argument) for argument in arguments)], **more)


def sentences(done: Any) -> str:
    return " ".join(done.stderr.replace("│", " ").split())


@pytest.fixture(scope="module")
def model(export: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("commands") / "m"
    done = captioner("train", export, out, "--epochs", 3, "--batch", 64, "--workers", 0, "--json")
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["validation"]
    return out


def test_a_model_is_measured_used_and_exported(export: Path, model: Path, tmp_path: Path) -> None:
    assert (model / "learning_curve.png").stat().st_size > 1000
    measured = captioner("recall", model, export, "--json")
    assert measured.exit_code == 0, measured.output
    assert set(json.loads(measured.stdout)["tasks"]) == {QUERY_PIN, QUERY_PRODUCT, QUERY_QUERY}
    shown = captioner("recall", model, export).stdout
    assert "both fused" in shown
    assert max(map(len, shown.splitlines())) <= 80
    wrote = captioner(
        "queries", model, "--out", tmp_path / "v.parquet", "--dim", 64, input="red mug\n\nboat\nred mug\n"
    )
    assert wrote.exit_code == 0, wrote.output
    rows = pq.read_table(tmp_path / "v.parquet").to_pylist()
    assert [row["query"] for row in rows] == ["red mug", "boat", "red mug"]
    assert rows[0]["vector"] == pytest.approx(rows[2]["vector"], abs=1e-6)
    assert np.linalg.norm(rows[0]["vector"]) == pytest.approx(1, abs=1e-5)
    exported = captioner("export-encoder", model, tmp_path / "encoder.pt2", "--json")
    assert json.loads(exported.stdout)["difference"] < 1e-4
    read = QueryText(str(tmp_path / "encoder.vocabulary.safetensors"))
    whole = load_encoder(tmp_path / "encoder.pt2")(*read(["Red MUG"]))
    torch.testing.assert_close(
        torch.nn.functional.normalize(whole[0, :64], dim=0),
        torch.tensor(rows[0]["vector"]),
        atol=1e-4,
        rtol=0,
    )


def test_an_exported_encoder_that_differs_is_not_written(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pincaption.embed.exported_encoder.MOST_DIFFERENCE", -1.0)
    with pytest.raises(EmbedError, match="the exported encoder differs from the model"):
        export_encoder(EmbeddingModel.load(model), tmp_path / "encoder.pt2")
    assert not any(tmp_path.iterdir())


def test_a_failed_call_leaves_the_file_that_was_there(model: Path, tmp_path: Path) -> None:
    (tmp_path / "v.parquet").write_text("mine")
    done = captioner("queries", model, "--out", tmp_path / "v.parquet", "--dim", 33, input="red mug\n")
    assert done.exit_code == 1
    assert "embeddings of 64, 128, 256, 512 numbers, not of 33" in sentences(done)

    def broken() -> Iterator[str]:
        yield from ["red mug"] * 300
        raise OSError

    with pytest.raises(OSError):
        write_query_vectors(EmbeddingModel.load(model), broken(), tmp_path / "v.parquet")
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("v.parquet", "mine")]


def test_many_queries_are_in_one_row_group(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = [f"red mug {i}" for i in range(1100)]
    assert captioner("queries", model, "--out", tmp_path / "v.parquet", input="\n".join(texts)).exit_code == 0
    assert pq.read_metadata(tmp_path / "v.parquet").num_row_groups == 1
    monkeypatch.setattr("pincaption.embed.queries.ROW_GROUP", 512)
    done = captioner("queries", model, input="\n".join(texts))
    file = pq.ParquetFile(io.BytesIO(done.stdout_bytes))
    assert [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)] == [512, 512, 76]
    assert file.read()["query"].to_pylist() == texts


@pytest.mark.parametrize(
    ("harm", "sentence"),
    [
        (
            lambda folder: edit(folder / "config.json", '"encoder": "none"', '"encoder": "some/encoder"'),
            "holds a model without its encoder: copy the whole folder",
        ),
        (
            lambda folder: (folder / "towers.safetensors").unlink(),
            "holds a model without its towers.safetensors: copy the whole folder",
        ),
        (
            lambda folder: edit(
                folder / "config.json", '"pincaption embedding 4"', '"pincaption embedding 2"'
            ),
            "of the format 'pincaption embedding 2', but this version reads",
        ),
        (
            lambda folder: (folder / "towers.safetensors").write_bytes(b"junk"),
            "is damaged, or you may not read it (Error while deserializing header: header too small): copy",
        ),
        (
            lambda folder: os.truncate(folder / "vocabulary.safetensors", 2000),
            "is damaged, or you may not read it (Error while deserializing header",
        ),
        (
            lambda folder: save_file({"first.bias": torch.zeros(3)}, folder / "towers.safetensors"),
            "holds parts of different models: copy the whole folder again",
        ),
        (
            lambda folder: other_shape(folder / "towers.safetensors"),
            "holds parts of different models: copy the whole folder again",
        ),
        (
            lambda folder: edit(folder / "config.json", '"pincaption embedding 4"', '"something else"'),
            "does not hold a trained model",
        ),
    ],
)
def test_an_incomplete_model_or_another_format_is_refused_with_a_sentence(
    model: Path, tmp_path: Path, harm: Callable[[Path], None], sentence: str
) -> None:
    shutil.copytree(model, tmp_path / "m")
    harm(tmp_path / "m")
    done = captioner("queries", tmp_path / "m", "--out", tmp_path / "v.parquet", input="red mug\n")
    assert done.exit_code == 1
    assert sentence in sentences(done)
    assert "huggingface.co" not in done.stderr
    assert not (tmp_path / "v.parquet").exists()


def other_shape(path: Path) -> None:
    weights = load_file(path)
    name = next(iter(weights))
    save_file(weights | {name: torch.zeros(3, 7)}, path)


def edit(path: Path, old: str, new: str) -> None:
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))


def test_control_characters_of_an_export_do_not_reach_the_terminal(
    export: Path, model: Path, tmp_path: Path
) -> None:
    # datasets knows an export by the folder's name and the version in its card
    shutil.copytree(export, tmp_path / "strangers")
    for path in (tmp_path / "strangers" / "features").rglob("*.parquet"):
        table = pq.read_table(path)
        pq.write_table(
            table.set_column(
                table.column_names.index("locale"), "locale", pa.array(["\x1b[31mde-DE"] * len(table))
            ),
            path,
        )
    done = captioner("recall", model, tmp_path / "strangers")
    assert "language: \ufffd[31mde" in done.stdout
    assert "\x1b" not in done.output


def test_a_training_prints_a_table_within_80_columns(export: Path, tmp_path: Path) -> None:
    command = [
        "train",
        export,
        tmp_path / "m",
        "--epochs",
        1,
        "--workers",
        0,
        "--width",
        32,
        "--dims",
        "8,16",
    ]
    done = captioner(*command)
    assert done.exit_code == 0, done.output
    shown = done.stderr.splitlines()
    assert [name for name in (QUERY_PIN, QUERY_PRODUCT, QUERY_QUERY) if name in shown[0]] == [
        QUERY_PIN,
        QUERY_PRODUCT,
        QUERY_QUERY,
    ]
    assert shown[1].split() == ["step", "loss", "r@10", "loss", "r@10", "loss", "r@10"]
    assert max(len(line) for line in done.output.splitlines() if str(tmp_path) not in line) <= 80
    assert EmbeddingModel.load(tmp_path / "m").dims == (8, 16, 32)
    other = captioner(*command[:-1], "16", env={"RANK": "1"})
    assert (other.exit_code, other.output) == (1, "")  # one process speaks for all


@pytest.mark.slow
def test_a_training_shows_its_progress_on_a_terminal(export: Path, tmp_path: Path) -> None:
    controller, terminal = pty.openpty()
    code = "from pincaption.cli import cli; cli()"
    command = [
        sys.executable,
        "-c",
        code,
        "embed",
        "train",
        str(export),
        str(tmp_path / "m"),
        "--epochs",
        "1",
        "--workers",
        "0",
        "--width",
        "32",
        "--dims",
        "8,16",
    ]
    with subprocess.Popen(
        command,
        stdout=subprocess.DEVNULL,
        stderr=terminal,
        env=os.environ | {"TERM": "xterm", "COLUMNS": "120"},
    ) as process:
        os.close(terminal)
        shown = b""
        with contextlib.suppress(OSError):  # what a terminal that was closed gives
            while part := os.read(controller, 65536):
                shown += part
    os.close(controller)
    assert process.returncode == 0, shown
    for wanted in (b"building the vocabulary", b"training", b" steps, ", QUERY_PIN.encode()):
        assert wanted in shown


def test_an_error_of_another_process_has_the_number_of_the_process(export: Path, tmp_path: Path) -> None:
    shutil.copytree(export, tmp_path / "out")
    shutil.rmtree(tmp_path / "out" / "features")
    done = captioner("train", tmp_path / "out", tmp_path / "m", env={"RANK": "3"})
    assert done.exit_code == 1
    assert "process 3: " in sentences(done)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["train", "{export}", "{new}", "--fields", "title,colour"], "has no column of texts named colour"),
        (["train", "{export}", "{new}", "--mix", "query-pin"], "--mix takes TASK=WEIGHT"),
        (
            [
                "train",
                "{export}",
                "{new}",
                "--mix",
                "query-pin=0",
                "--mix",
                "query-product=0",
                "--mix",
                "query-query=0",
            ],
            "no task with pairs has a weight above 0",
        ),
        (
            ["train", "{export}", "{new}", "--compatible", "itemsage"],
            "the export has no vectors of that name (pinsage)",
        ),
        (["train", "{export}", "{new}", "--dims", "0,x"], "--dims takes numbers from 1 to 8192"),
        (["train", "{new}", "{new}"], "is not an export: write one with"),
        (["train", "{export}", "{new}", "--encoder", "/nowhere"], "cannot be loaded as a text encoder"),
        (["recall", "{new}", "{export}"], "does not hold a trained model"),
        (["recall", "{export}", "{new}"], "is not an export"),
        (["export-encoder", "{new}", "{new}"], "does not hold a trained model"),
        (["train", "{export}", "{new}", "--seed", "-1"], "-1 is not in the range 0<=x<=2147483647"),
        (["queries", "{new}"], "Parquet cannot be shown on a terminal"),
    ],
)
def test_mistakes_get_a_sentence(export: Path, tmp_path: Path, arguments: list[str], sentence: str) -> None:
    names = {"export": export, "new": tmp_path / "new"}
    done = captioner(
        *(argument.format(**names) for argument in arguments),
        *(["--json"] if arguments[0] == "queries" else []),
    )
    assert done.exit_code in (1, 2)
    assert sentence in sentences(done)
    assert not (tmp_path / "new").exists()
