"""Pretrained text encoders in the towers: what an untrained model equals, and what is refused."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch

from pincaption.embed.errors import EmbedError
from pincaption.embed.model import EmbeddingModel
from pincaption.embed.ngrams import grams
from pincaption.embed.options import TrainOptions
from pincaption.embed.pairs import QUERY_QUERY, Pairs
from pincaption.embed.reader import Export
from pincaption.embed.sizes import Sizes
from pincaption.embed.start import initial_model
from pincaption.embed.text_encoder import TextEncoder
from pincaption.embed.training import train
from pincaption.embed.validation import SHARES, Validation, _with_share, hold_out

TINY = Sizes(rows=500, width=32, hidden=32, prefixes=(8, 16))
OPTIONS = TrainOptions(sizes=TINY, epochs=2, batch=56, every=10, validation=0.1)


@pytest.mark.parametrize("name", ["bert", "mean", "short"])
def test_an_encoder_of_transformers_trains_and_loads(
    export: Path, encoders: Path, tmp_path: Path, name: str
) -> None:
    options = replace(OPTIONS, encoder=str(encoders / name), epochs=0.2)
    assert train(export, tmp_path / "m", options, workers=0)["done"]
    model = EmbeddingModel.load(tmp_path / "m")
    assert model.dims == (8, 16, 32, 64)
    assert model.towers.encoder is not None
    assert model.towers.encoder.pooling == ("mean" if name == "mean" else "first")
    read = model.inputs.queries(["red mug " * 100])
    assert isinstance(read.texts, tuple)
    assert read.texts[0].shape[1] == {"short": 12}.get(name, 64)
    lengths = model.embed_queries(["red mug", "tea " * 100]).norm(dim=1).tolist()
    assert lengths == pytest.approx([1, 1], abs=1e-5)


def test_the_share_of_the_ngrams_is_the_best_for_held_out_queries(
    export: Path, encoders: Path, tmp_path: Path
) -> None:
    options = replace(OPTIONS, encoder=str(encoders / "bert"), epochs=0.5)
    train(export, tmp_path / "m", options, workers=0)
    model = EmbeddingModel.load(tmp_path / "m")
    chosen = model.about["words_share"]["chosen"]
    assert model.towers.share_of_words == pytest.approx(chosen, abs=1e-6)
    data = Export(export, options.fields)
    _, held_out, data.hidden_queries = hold_out(Pairs.load(data, "train"), options.validation)
    validation = Validation(data, held_out, options.seed)
    sizes = {name: len(pairs) for name, pairs in held_out.tasks.items() if name != QUERY_QUERY}
    name = max(sizes, key=lambda name: sizes[name])
    recalls = {}
    for share in SHARES:
        model.towers.share_of_words = share
        recalls[share] = validation(model)[name]["recall@10"]
    assert recalls[chosen] == max(recalls.values())
    # What the fusion was tuned with is what the model gives now.
    queries = model.embed_queries(["red mug", "", "unheard of"])
    model.towers.share_of_words = 0.3
    before = model.embed_queries(["red mug", "", "unheard of"])
    model.towers.share_of_words = SHARES[-1]
    assert torch.allclose(_with_share(before, model, 0.3), queries, atol=1e-5)
    assert len(set(recalls.values())) > 1


def test_the_untrained_model_is_the_encoders_similarity_and_the_overlap_of_ngrams(
    export: Path, encoders: Path
) -> None:
    data = Export(export, ("title",))
    pairs = Pairs.load(data, "train")
    options = replace(OPTIONS, encoder=str(encoders / "mean"), fields=("title",))
    data.expect_vectors({})
    model = initial_model(data, pairs, options)
    titles = data.rows.data.column("title").to_pylist()
    rows = np.array([row for row, title in enumerate(titles) if title][:20])
    texts = ["red mug", "a blue boat"]
    encoder, towers = model.towers.encoder, model.towers
    assert encoder is not None

    def plain(texts: list[str]) -> tuple[torch.Tensor, torch.Tensor]:
        """Means of tokens and sums of n-grams, one text at a time."""
        meaning, words = [], []
        for text in texts:
            outputs = encoder.network(**encoder.tokeniser(text, return_tensors="pt")).last_hidden_state
            meaning.append(outputs[0].mean(0))
            ids, _ = model.inputs.vocabulary.ids(grams(pa.array([text])), 1)
            one = [towers.ngrams(torch.tensor([i]), torch.tensor([0]))[0] for i in ids]
            words.append(torch.stack(one).sum(0))
        return normalize(torch.stack(meaning), dim=1), torch.stack(words)

    normalize = torch.nn.functional.normalize
    with torch.no_grad():
        query_meaning, query_words = plain(texts)
        item_meaning, item_words = plain([titles[row] for row in rows])
        every_length = plain([title for title in titles if title])[1].norm(dim=1)
        # As in BM25 with b = 1/2: a text of mean length counts one half, a long one more.
        item_words /= item_words.norm(dim=1, keepdim=True) + every_length.mean()
        overlap = normalize(query_words, dim=1) @ item_words.T
        wanted = 0.4 * query_meaning @ item_meaning.T + 0.6 * overlap
    queries, items = model.embed_queries(texts), model.embed_items(data, rows)
    torch.testing.assert_close(queries @ items.T, wanted, atol=1e-5, rtol=0)
    assert torch.allclose(items.norm(dim=1), torch.ones(len(rows)), atol=1e-5)
    assert not queries[:, -1].any()
    # A common n-gram adds its idf: the square of its importance.
    importance = towers.ngrams.importance.weight[:, 0].detach()
    has = [set(model.inputs.vocabulary.ids(grams(pa.array([t or ""])), 1)[0].tolist()) for t in titles]
    for i in range(0, len(importance), 7):
        df = sum(i in some for some in has)
        assert float(importance[i]) ** 2 == pytest.approx(np.log1p(len(data) / max(1, df)), rel=1e-5)


def test_an_encoder_with_another_pooling_is_refused(encoders: Path, tmp_path: Path) -> None:
    folder = tmp_path / "max"
    shutil.copytree(encoders / "mean", folder)
    (folder / "1_Pooling" / "config.json").write_text(json.dumps({"pooling_mode_max_tokens": True}))
    with pytest.raises(EmbedError, match="pools by max_tokens, but only the mean"):
        TextEncoder.load(str(folder))


def test_a_decoder_is_refused(export: Path, encoders: Path, tmp_path: Path) -> None:
    with pytest.raises(EmbedError, match="is not a text encoder whose vectors depend on the whole text"):
        train(export, tmp_path / "m", replace(OPTIONS, encoder=str(encoders / "decoder")), workers=0)
