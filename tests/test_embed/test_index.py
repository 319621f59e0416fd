"""`captioner embed index`: exact search, filters, and the recall of approximate indexes."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from click.testing import CliRunner

from pincaption.cli import cli
from pincaption.embed import index as index_module
from pincaption.embed.errors import EmbedError
from pincaption.embed.index import Index, Kind
from pincaption.embed.index_writer import build_index
from pincaption.embed.item_vectors import export_for
from pincaption.embed.item_writer import item_schema, write_item_vectors
from pincaption.embed.model import EmbeddingModel
from pincaption.embed.options import TrainOptions
from pincaption.embed.training import train

KINDS = get_args(Kind)
ITEMS, DIM = 3_000, 64


def captioner(*arguments: Any) -> Any:
    return CliRunner().invoke(cli, ["embed", *(str(argument) for argument in arguments)])


def sentences(done: Any) -> str:
    return " ".join(done.stderr.replace("│", " ").split())


@pytest.fixture(scope="module")
def model(export: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("index") / "m"
    train(export, folder, TrainOptions(epochs=0.2, batch=32), workers=0)
    return folder


@pytest.fixture(scope="module")
def loaded(model: Path) -> EmbeddingModel:
    return EmbeddingModel.load(model)


@pytest.fixture(scope="module")
def many(loaded: EmbeddingModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """3,000 random item vectors, as if the model had made them. A few are equal; a few are "rare"."""
    path, rng = tmp_path_factory.mktemp("many") / "items.parquet", np.random.default_rng(0)
    vectors = rng.normal(size=(ITEMS, DIM)).astype(np.float32)
    vectors[100:110] = vectors[100]
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    columns = [
        pa.array([f"i{n}" for n in range(ITEMS)]),
        pa.array(["product" if n % 4 == 0 else "pin" for n in range(ITEMS)]),
        pa.array(["rare" if n % 100 == 0 else None for n in range(ITEMS)]),
        pa.FixedSizeListArray.from_arrays(pa.array(vectors.astype(np.float16).reshape(-1)), DIM),
        pa.array([""] * ITEMS),
    ]
    pq.write_table(
        pa.table(columns, schema=item_schema(loaded, loaded.fields, DIM, "float16")),
        path,
        row_group_size=1_000,
    )
    return path


@pytest.fixture(scope="module", params=KINDS)
def index(
    request: pytest.FixtureRequest,
    loaded: EmbeddingModel,
    many: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Index:
    folder = tmp_path_factory.mktemp(request.param) / "index"
    build_index(loaded, many, folder, kind=request.param)
    return Index.open(folder, loaded)


def slow_search(index: Index, query: torch.Tensor, k: int, allowed: np.ndarray) -> list[float]:
    """The scores of the k best, by a loop."""
    scores = [float(index.vectors[row].float() @ query) for row in np.flatnonzero(allowed)]
    return sorted(scores, reverse=True)[:k]


def queries(n: int) -> torch.Tensor:
    return torch.nn.functional.normalize(
        torch.randn(n, DIM, generator=torch.Generator().manual_seed(1)), dim=1
    )


def test_exact_search_finds_what_a_loop_finds(
    loaded: EmbeddingModel, many: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(index_module, "BLOCK", 700)  # several blocks
    build_index(loaded, many, tmp_path / "index")
    opened = Index.open(tmp_path / "index", loaded)
    everything = np.ones(ITEMS, bool)
    found, rows = opened.search(queries(5), 10)
    for query, scores in zip(queries(5), found, strict=True):
        assert scores.tolist() == pytest.approx(slow_search(opened, query, 10, everything), abs=1e-5)
    assert opened.scores(queries(1)[0])[rows[0]].tolist() == pytest.approx(found[0].tolist(), abs=1e-5)
    # items with equal vectors come in the order of their rows
    assert opened.search(opened.vectors[100:101].float(), 5)[1].tolist() == [[100, 101, 102, 103, 104]]


@pytest.mark.parametrize("category", ["rare", None])
def test_filters_are_exact_for_every_kind_of_index(index: Index, category: str | None) -> None:
    allowed = np.array([kind == "product" for kind in index.kinds.to_pylist()])
    if category:
        allowed &= np.array([name == category for name in index.categories.to_pylist()])
    scores, rows = index.search(queries(8), 10, allowed)
    assert scores.shape == (8, 10)
    assert allowed[rows].all()
    for query, found in zip(queries(8), scores, strict=True):
        assert found.tolist() == pytest.approx(slow_search(index, query, 10, allowed), abs=1e-5)


def test_a_narrow_filter_of_faiss_itself_still_gives_k_items(
    index: Index, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(index_module, "EXACT_ITEMS", 0)
    monkeypatch.setattr(index_module, "EXACT_SHARE", 0)
    allowed = np.zeros(ITEMS, bool)
    allowed[::250] = True
    scores, rows = index.search(queries(8), 10, allowed)
    assert allowed[rows].all()
    assert np.isfinite(scores).all()
    assert (np.diff(scores, axis=1) <= 0).all()
    wide = np.ones(ITEMS, bool)
    wide[: ITEMS // 2] = False
    some = index.vectors[:80:10].float()
    scores, rows = index.search(some, 10, wide)
    assert wide[rows].all()
    best = [slow_search(index, query, 10, wide) for query in some]
    assert np.isclose(scores, best, atol=1e-5).mean() > 0.8


def test_more_items_than_there_are_are_not_invented(index: Index) -> None:
    assert sorted(index.search(queries(1), ITEMS + 5)[1][0].tolist()) == list(range(ITEMS))
    none = np.zeros(ITEMS, bool)
    assert index.search(queries(2), 10, none)[1].shape == (2, 0)


@pytest.mark.parametrize("kind", ["hnsw", "ivf"])
def test_the_recall_that_is_printed_is_that_of_the_index(
    loaded: EmbeddingModel, many: Path, tmp_path: Path, kind: Kind
) -> None:
    (tmp_path / "queries.txt").write_text("red mug\nblue boat\n\nred mug\ngreen lamp drawing\n")
    result = build_index(loaded, many, tmp_path / "index", kind=kind, queries=tmp_path / "queries.txt")
    assert result["queries"] == 3
    assert result["recall"] == result["efforts"][str(result["effort"])]
    opened = Index.open(tmp_path / "index", loaded)
    vectors = loaded.embed_queries(["red mug", "blue boat", "green lamp drawing"], dim=DIM)
    found, right = opened.search(vectors, 10)[0], opened.exact(vectors, 10)[0]
    assert np.isclose(found, right, atol=1e-5).mean() == pytest.approx(result["recall"], abs=0.04)


def test_the_command_says_what_an_index_loses(
    export: Path, model: Path, loaded: EmbeddingModel, tmp_path: Path
) -> None:
    items, index = tmp_path / "items.parquet", tmp_path / "index"
    write_item_vectors(loaded, export_for(loaded, export), items)
    exact = captioner("index", model, items, index, "--json")
    assert exact.exit_code == 0, exact.output
    assert json.loads(exact.stdout)["recall"] is None
    first = Index.open(index, loaded)
    shown = captioner("index", model, items, index, "--kind", "hnsw", "--queries", export)
    assert shown.exit_code == 0, shown.output
    assert re.search(r"recall@10 (0\.99..|1\.0000) of exact search, with effort \d+", shown.stdout)
    assert f"test queries of {export}" in " ".join(shown.stdout.split())
    assert "easier to find" in captioner("index", model, items, index, "--kind", "ivf").stdout
    # a search that runs keeps its vectors, and nothing of the indexes before is left
    assert first.search(loaded.embed_queries(["red mug"]), 3)[0].shape == (1, 3)
    names = sorted(path.name for path in index.iterdir())
    assert names == ["ids-3.parquet", "ivf-3.faiss", "manifest.json", "vectors-3.npy"]


def test_what_is_no_index_or_a_strangers_is_refused_with_a_sentence(
    export: Path, model: Path, loaded: EmbeddingModel, many: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    train(export, other, TrainOptions(epochs=0.2, batch=32, seed=1), workers=0)
    refused = captioner("index", other, many, tmp_path / "index")
    assert refused.exit_code == 1
    assert "items.parquet was made by another model" in sentences(refused)
    assert not (tmp_path / "index").exists()
    build_index(loaded, many, tmp_path / "index")
    with pytest.raises(EmbedError, match="index was made by another model"):
        Index.open(tmp_path / "index", EmbeddingModel.load(other))
    with pytest.raises(EmbedError, match="is not an index: make one with captioner embed index"):
        Index.open(tmp_path / "missing")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    assert "is no index and holds notes.txt" in sentences(captioner("index", model, many, tmp_path / "mine"))
    missing = captioner("index", model, many, tmp_path / "index", "--queries", tmp_path / "none.txt")
    assert "none.txt: No such file or directory: name an export or a file" in sentences(missing)
    (tmp_path / "index" / "vectors-1.npy").unlink()
    with pytest.raises(EmbedError, match=r"lacks its vectors-1.npy: make it again"):
        Index.open(tmp_path / "index")


def test_without_faiss_an_exact_index_works_and_the_others_say_what_to_install(
    model: Path, many: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "faiss", None)  # `import faiss` raises ImportError
    done = captioner("index", model, many, tmp_path / "index", "--kind", "hnsw")
    assert done.exit_code == 1
    assert "needs faiss: pip install 'pincaption[search]', or use --kind exact" in sentences(done)
    assert not (tmp_path / "index").exists()
    assert captioner("index", model, many, tmp_path / "index").exit_code == 0
