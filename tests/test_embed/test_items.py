"""`captioner embed items`: a vector for each item; only what changed is embedded again."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import uuid
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from pincaption.cli import cli
from pincaption.embed import item_writer
from pincaption.embed.errors import EmbedError
from pincaption.embed.item_vectors import ItemVectors, export_for
from pincaption.embed.item_writer import write_item_vectors
from pincaption.embed.model import EmbeddingModel
from pincaption.embed.options import TrainOptions
from pincaption.embed.training import train


def captioner(*arguments: Any) -> Any:
    return CliRunner().invoke(cli, ["embed", *(str(argument) for argument in arguments)])


def sentences(done: Any) -> str:
    return " ".join(done.stderr.replace("│", " ").split())


@pytest.fixture(scope="module")
def model(export: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("items") / "m"
    train(export, folder, TrainOptions(epochs=0.2, batch=32), workers=0)
    return folder


@pytest.fixture(scope="module")
def loaded(model: Path) -> EmbeddingModel:
    return EmbeddingModel.load(model)


def changed_export(export: Path, folder: Path, change: Any) -> Path:
    """A copy of the export whose features are what `change` makes of their table."""
    # `datasets` knows an export by the folder's name and the version in its card
    copy = folder / f"changed-{uuid.uuid4().hex}"
    shutil.copytree(export, copy)
    (path,) = (copy / "features").glob("*.parquet")
    table = change(pq.read_table(path))
    pq.write_table(table, path)
    return copy


def test_every_item_gets_the_vector_of_the_model(
    export: Path, model: Path, loaded: EmbeddingModel, tmp_path: Path
) -> None:
    done = captioner("items", model, export, tmp_path / "v.parquet", "--dim", 64)
    assert done.exit_code == 0, done.output
    assert "120 items, 64 float16 numbers each; 120 embedded, 0 copied, 0 dropped" in " ".join(
        done.stdout.split()
    )
    table = pq.read_table(tmp_path / "v.parquet")
    assert table.column_names == ["pin_id", "kind", "category", "vector", "text_digest"]
    assert table.schema.field("vector").type == pa.list_(pa.float16(), 64)
    data = export_for(loaded, export)
    assert table["pin_id"].to_pylist() == data.pin_ids.to_pylist()
    assert (np.array(table["kind"].to_pylist()) == "product").tolist() == data.products.tolist()
    opened = ItemVectors.open(tmp_path / "v.parquet", loaded)
    assert (opened.model_digest, opened.dim, opened.numbers) == (loaded.digest, 64, "float16")
    assert opened.fields == data.fields
    wanted = loaded.embed_items(data, dim=64).numpy()
    (block,) = opened.blocks()
    np.testing.assert_allclose(block.numpy(), wanted, atol=1e-3)


def test_int8_numbers_are_those_of_the_vector_times_127(
    export: Path, loaded: EmbeddingModel, tmp_path: Path
) -> None:
    data = export_for(loaded, export)
    result = write_item_vectors(loaded, data, tmp_path / "v.parquet", int8=True)
    assert (result["numbers"], result["dim"]) == ("int8", loaded.dim)
    table = pq.read_table(tmp_path / "v.parquet")
    assert table.schema.field("vector").type.value_type == pa.int8()
    assert "divided by 127" in json.loads(table.schema.metadata[b"pincaption"])["note"]
    stored = np.array(table["vector"].to_pylist())
    np.testing.assert_allclose(stored / 127, loaded.embed_items(data).numpy(), atol=0.5 / 127 + 1e-6)
    (block,) = ItemVectors.open(tmp_path / "v.parquet").blocks()
    np.testing.assert_allclose(np.linalg.norm(block.numpy(), axis=1), 1, atol=1e-5)


def test_only_items_that_changed_are_embedded_again(
    export: Path, loaded: EmbeddingModel, tmp_path: Path
) -> None:
    out = tmp_path / "v.parquet"
    write_item_vectors(loaded, export_for(loaded, export), out)
    first = pq.read_table(out)

    def change(table: pa.Table) -> pa.Table:
        # p3 gets another title, p4 a caption, p5 another vector, p6 another category; p7 is gone; new order
        rows = table.filter(pc.not_equal(table["pin_id"], "p7")).to_pylist()
        rows = [*rows[50:], *rows[:50]]
        for row in rows:
            if row["pin_id"] == "p3":
                row["title"] = "an orange guitar"
            if row["pin_id"] == "p4":
                row["caption"] = "a drawing of a violin"
            if row["pin_id"] == "p5":
                row["pinsage"] = [1.0] * 16
            if row["pin_id"] == "p6":
                row["category"] = "boats"
        return pa.Table.from_pylist(rows, table.schema)

    changed = export_for(loaded, changed_export(export, tmp_path, change))
    result = write_item_vectors(loaded, changed, out)
    assert (result["items"], result["embedded"], result["copied"], result["dropped"]) == (119, 3, 116, 1)
    assert result["all_again"] is None
    table = pq.read_table(out)
    assert table["pin_id"].to_pylist() == changed.pin_ids.to_pylist()
    rows = {row["pin_id"]: row for row in table.to_pylist()}
    before = {row["pin_id"]: row for row in first.to_pylist()}
    assert rows["p6"]["category"] == "boats"
    different = [pin for pin, row in rows.items() if row["vector"] != before[pin]["vector"]]
    assert sorted(different) == ["p3", "p4", "p5"]
    assert [pin for pin, row in rows.items() if row["text_digest"] != before[pin]["text_digest"]] == different
    fresh = tmp_path / "fresh.parquet"
    write_item_vectors(loaded, changed, fresh)
    np.testing.assert_allclose(
        np.array(pq.read_table(fresh)["vector"].to_pylist(), np.float32),
        np.array(table["vector"].to_pylist(), np.float32),
        atol=1e-3,
    )


def test_vectors_of_some_fields_are_those_of_items_without_the_others(
    export: Path, model: Path, loaded: EmbeddingModel, tmp_path: Path
) -> None:
    def change(table: pa.Table) -> pa.Table:
        rows = table.to_pylist()
        for row in rows:
            row.update(caption=None, board_titles=[], engaged_queries=[])
        return pa.Table.from_pylist(rows, table.schema)

    bare = export_for(loaded, changed_export(export, tmp_path, change))
    wanted = loaded.embed_items(bare).numpy()
    out = tmp_path / "native.parquet"
    write_item_vectors(loaded, export_for(loaded, export), out)
    done = captioner("items", model, export, out, "--fields", "title,description")
    assert "vectors of other fields: all items were embedded again" in done.stdout
    opened = ItemVectors.open(out)
    assert opened.fields == ("title", "description")
    (block,) = opened.blocks()
    np.testing.assert_allclose(block.numpy(), wanted, atol=1e-3)
    refused = captioner("items", model, export, out, "--fields", "title,colour")
    assert "the model does not read colour: it reads title, description, caption" in sentences(refused)


@pytest.mark.parametrize(
    ("options", "reason"),
    [({"dim": 64}, "another length"), ({"int8": True}, "another number type")],
)
def test_vectors_of_another_kind_are_made_again(
    export: Path, loaded: EmbeddingModel, tmp_path: Path, options: dict[str, Any], reason: str
) -> None:
    data = export_for(loaded, export)
    write_item_vectors(loaded, data, tmp_path / "v.parquet")
    result = write_item_vectors(loaded, data, tmp_path / "v.parquet", **options)
    assert (result["all_again"], result["embedded"], result["copied"]) == (reason, 120, 0)


def test_after_another_training_all_items_are_embedded_again(
    export: Path, model: Path, tmp_path: Path
) -> None:
    out, other = tmp_path / "v.parquet", tmp_path / "other"
    train(export, other, TrainOptions(epochs=0.2, batch=32, seed=1), workers=0)
    assert captioner("items", model, export, out).exit_code == 0
    done = captioner("items", other, export, out)
    assert "vectors of another model: all items were embedded again" in done.stdout
    stranger = EmbeddingModel.load(model)
    with pytest.raises(EmbedError, match=r"was made by another model .*captioner embed items MODEL EXPORT"):
        ItemVectors.open(out, stranger)


def test_a_killed_call_leaves_the_old_file_and_the_next_one_goes_on(
    export: Path, model: Path, loaded: EmbeddingModel, tmp_path: Path
) -> None:
    out, whole = tmp_path / "v.parquet", tmp_path / "whole.parquet"
    data = export_for(loaded, export)
    write_item_vectors(loaded, data, out)
    write_item_vectors(loaded, data, whole, dim=64)
    old = out.read_bytes()
    code = f"""
import os, signal
from pincaption.embed import item_writer
from pincaption.embed.item_vectors import export_for
from pincaption.embed.model import EmbeddingModel
item_writer.ROW_GROUP = 40
model = EmbeddingModel.load({str(model)!r})
def on_step(what, done, total):
    if done > 80:
        os.kill(os.getpid(), signal.SIGKILL)
export = export_for(model, {str(export)!r})
item_writer.write_item_vectors(model, export, {str(out)!r}, dim=64, on_step=on_step)"""
    killed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=240)
    assert killed.returncode == -signal.SIGKILL, killed.stderr[-2000:]
    assert out.read_bytes() == old
    assert sorted(path.name for path in tmp_path.glob(".*save*")) == [
        ".v.parquet.save-0",
        ".v.parquet.save-40",
    ]

    # What was finished is of no use to another kind of vectors.
    (tmp_path / ".v.parquet.save-80").write_text("half of a file")
    kept = {path: path.read_bytes() for path in tmp_path.glob(".*save*")}
    other = write_item_vectors(loaded, data, out, dim=128)
    assert (other["embedded"], other["resumed"]) == (120, 0)
    for path, content in kept.items():
        path.write_bytes(content)
    said = " ".join(captioner("items", model, export, out, "--dim", 64).stdout.split())
    assert "40 embedded, 80 copied" in said
    assert "copied from a call that was stopped: 80 items" in said
    assert pq.read_table(out).equals(pq.read_table(whole))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["v.parquet", "whole.parquet"]


def test_what_a_stopped_call_made_of_a_text_that_changed_since_is_not_used(
    export: Path, loaded: EmbeddingModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(item_writer, "ROW_GROUP", 40)
    out, whole = tmp_path / "v.parquet", tmp_path / "whole.parquet"

    def stop(what: str, done: int, total: int) -> None:
        if done > 80:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_item_vectors(loaded, export_for(loaded, export), out, on_step=stop)

    def change(table: pa.Table) -> pa.Table:
        titles = ["something else", *table["title"].to_pylist()[1:]]
        return table.set_column(table.column_names.index("title"), "title", pa.array(titles, pa.string()))

    changed = export_for(loaded, changed_export(export, tmp_path / "changed", change))
    result = write_item_vectors(loaded, changed, out)
    assert (result["embedded"], result["copied"], result["resumed"]) == (41, 79, 79)
    write_item_vectors(loaded, changed, whole)
    resumed, fresh = pq.read_table(out), pq.read_table(whole)
    assert resumed.drop_columns("vector").equals(fresh.drop_columns("vector"))
    vectors = [np.array(table["vector"].to_pylist(), np.float32) for table in (resumed, fresh)]
    np.testing.assert_allclose(*vectors, atol=1e-3)  # other batches round in another way


@pytest.mark.slow
def test_two_processes_write_the_file_of_one(
    export: Path, model: Path, loaded: EmbeddingModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(item_writer, "ROW_GROUP", 40)
    one = tmp_path / "one.parquet"
    write_item_vectors(loaded, export_for(loaded, export), one)
    for left in (".two.parquet.part-7", ".two.parquet.save-0", "..two.parquet.save-40.unfinished"):
        (tmp_path / left).write_text("left by a killed process")
    (tmp_path / "two.py").write_text(f"""
import sys
from pincaption.embed import item_writer
from pincaption.cli import cli
item_writer.ROW_GROUP = 40
cli(["embed", "items", {str(model)!r}, {str(export)!r}, {str(tmp_path / "two.parquet")!r}, "--json"])""")
    launch = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", "0"]
    launch += ["--rdzv-backend", "c10d", "--rdzv-endpoint", "localhost:0", str(tmp_path / "two.py")]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(launch, capture_output=True, text=True, timeout=240, env=environment)
    assert done.returncode == 0, done.stderr[-2000:]
    assert json.loads(done.stdout)["embedded"] == 120  # only the first process prints
    assert pq.read_table(tmp_path / "two.parquet").equals(pq.read_table(one))
    assert pq.read_metadata(tmp_path / "two.parquet").num_row_groups == 3
    assert not list(tmp_path.glob(".*two*"))


def test_what_cannot_be_written_or_read_is_said_in_one_sentence(
    export: Path, model: Path, tmp_path: Path
) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    pq.write_table(pa.table({"pin_id": ["a"]}), tmp_path / "other.parquet")
    for out, options, sentence in (
        ("notes.txt", (), "exists, but does not hold item vectors: name another file"),
        ("other.parquet", (), "exists, but does not hold item vectors"),
        ("missing/v.parquet", (), "is not a folder: make it"),
        ("v.parquet", ("--dim", 33), "numbers, not of 33"),
    ):
        done = captioner("items", model, export, tmp_path / out, *options)
        assert done.exit_code == 1
        assert sentence in sentences(done)
    assert (tmp_path / "notes.txt").read_text() == "mine"
    assert not (tmp_path / "v.parquet").exists()
    with pytest.raises(EmbedError, match="does not exist: make it with captioner embed items"):
        ItemVectors.open(tmp_path / "v.parquet")
