"""The exported query tower: it reads raw texts without our code, and gives the same embeddings."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pincaption.embed.exported_encoder import export_encoder
from pincaption.embed.model import EmbeddingModel
from pincaption.embed.ngrams import grams
from pincaption.embed.options import TrainOptions
from pincaption.embed.query_text import QueryText
from pincaption.embed.sizes import Sizes
from pincaption.embed.text_encoder import NONE
from pincaption.embed.training import train
from pincaption.embed.vocabulary import Vocabulary
from pincaption.filters.text import normalise

TINY = Sizes(rows=500, width=32, hidden=32, prefixes=(8, 16))
OPTIONS = TrainOptions(sizes=TINY, epochs=2, batch=56, every=10, validation=0.1)


@pytest.mark.parametrize(
    "name", ["bert", *(pytest.param(name, marks=pytest.mark.slow) for name in (None, "mean"))]
)
def test_the_exported_encoder_reads_raw_texts_without_our_code(
    export: Path, encoders: Path, tmp_path: Path, name: str | None
) -> None:
    options = replace(OPTIONS, encoder=str(encoders / name) if name else NONE, epochs=0.1)
    train(export, tmp_path / "m", options, workers=0)
    model = EmbeddingModel.load(tmp_path / "m")
    assert export_encoder(model, tmp_path / "served.pt2") < 1e-4
    texts = [
        "Red MUG!",
        "",
        "🎉",
        "women’s Größe ＦＵＬＬ",
        "red",
        "blue boat " * 40,
        "it's 80's 'n' 猫カフェ",
    ]
    files = ["served.vocabulary.safetensors", *(["served.tokeniser.json", "64"] if name else [])]
    code = f"""
import json, sys, torch
from served import QueryText
assert not any(module.startswith("pincaption") for module in sys.modules)
files = {files!r}
read = QueryText(*files[:2], *map(int, files[2:]))
encoder = torch.export.load("served.pt2").module()
print(json.dumps(encoder(*read({texts!r})).tolist()))
"""
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=240
    )
    assert run.returncode == 0, run.stderr[-2000:]
    served = torch.tensor(json.loads(run.stdout))
    torch.testing.assert_close(served, model.embed_queries(texts), atol=1e-4, rtol=0)


@given(st.lists(st.text(max_size=20), max_size=4), st.booleans())
@settings(deadline=None, max_examples=60)
def test_plain_python_finds_the_same_ngrams(texts: list[str], hashed: bool) -> None:
    found = grams(pa.array([*texts, "red mug"]))
    vocabulary = (
        Vocabulary({}, {"trigram": 50, "unigram": 70, "beginning": 30})
        if hashed
        else Vocabulary.build([[found]], least=1)
    )
    with tempfile.TemporaryDirectory() as folder:
        vocabulary.save(Path(folder) / "v")
        read = QueryText(str(Path(folder) / "v"))
    for text in [*texts, "red mug"]:
        ids, _ = vocabulary.ids(grams(pa.array([normalise(text)])), 1)
        row = read([text])[0][0].tolist()
        assert sorted(i for i in row if i >= 0) == sorted(ids.tolist())
