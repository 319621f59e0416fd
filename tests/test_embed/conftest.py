"""A small export. Its queries name colours and things, as the titles and captions of its pins do."""

from __future__ import annotations

import json
import random
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from click.testing import CliRunner
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import BertConfig, BertModel, GPT2Config, GPT2Model, PreTrainedTokenizerFast

from pincaption.cli import cli
from pincaption.store import open_store, transaction

DAY = date(2026, 6, 1)
COLOURS, THINGS = (
    ["red", "blue", "green", "yellow", "purple"],
    ["mug", "boat", "lamp", "tree", "fish", "book"],
)


@pytest.fixture(scope="session")
def export(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """120 pins: a third are products, a third have no native text. Some have captions and vectors."""
    folder, rng = tmp_path_factory.mktemp("embed"), random.Random(0)
    pins, log = [], []
    for i in range(120):
        name = f"{rng.choice(COLOURS)} {rng.choice(THINGS)}"
        pins.append(
            {
                "pin_id": f"p{i}",
                "kind": "product" if i % 3 == 0 else "pin",
                "title": name if i % 3 != 1 else None,
                "locale": rng.choice(["en-US", "de-DE", None]),
                "name": name,
            }
        )
        for _ in range(12):
            query = rng.choice([name, name.split()[1], f"{name} drawing"])
            log.append(
                {
                    "pin_id": f"p{i}",
                    "query": query,
                    "action": rng.choice(["save", "click"]),
                    "date": str(DAY + timedelta(rng.randint(-10, 10))),
                }
            )
    for name, rows in (("pins", pins), ("log", log)):
        (folder / f"{name}.jsonl").write_text(
            "".join(json.dumps({k: v for k, v in row.items() if k != "name"}) + "\n" for row in rows)
        )
    numbers = np.random.default_rng(0).normal(size=(100, 16)).tolist()
    pq.write_table(
        pa.table({"pin_id": [f"p{i}" for i in range(100)], "vector": numbers}), folder / "vectors.parquet"
    )
    store = folder / "my.db"
    for command in (
        ["ingest", "pins", store, folder / "pins.jsonl"],
        ["ingest", "embeddings", store, folder / "vectors.parquet", "--name", "pinsage"],
        ["aggregate", "queries", store, "--log", folder / "log.jsonl"],
    ):
        assert CliRunner().invoke(cli, [str(a) for a in command]).exit_code == 0
    conn = open_store(store)
    with transaction(conn):
        conn.execute("UPDATE pins SET image_sha256 = 'x'")
        conn.execute("INSERT INTO recipes VALUES ('r', 'made-up', NULL, '', '', '{}', '{}', 'float32')")
        captions = [(pin["pin_id"], f"a drawing of a {pin['name']}") for i, pin in enumerate(pins) if i % 2]
        conn.executemany(
            "INSERT INTO captions (pin_id, recipe_id, status, text, image_sha256, updated_at) "
            "VALUES (?, 'r', 'ok', ?, 'x', '2026-01-01')",
            captions,
        )
    conn.close()
    done = CliRunner().invoke(
        cli,
        [
            "export",
            str(store),
            str(folder / "out"),
            "--as-of",
            str(DAY),
            "--pairs",
            "--test-from",
            str(DAY + timedelta(6)),
        ],
    )
    assert done.exit_code == 0, done.output
    return folder / "out"


@pytest.fixture(scope="session")
def encoders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders in the published layout: small BERTs with random weights, and a decoder.

    "bert" pools by its first token, "mean" says that it pools by the mean of all tokens, "short" has only
    twelve positions.
    """
    folder = tmp_path_factory.mktemp("encoders")
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *COLOURS, *THINGS, "a", "drawing", "of", "tea", "large"]
    tokeniser = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, "[UNK]"))
    tokeniser.pre_tokenizer = pre_tokenizers.Whitespace()
    tokeniser.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=tokeniser,
        model_max_length=64,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
    )
    common = {
        "vocab_size": len(words),
        "hidden_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 32,
    }
    torch.manual_seed(0)
    for name, model in (
        ("bert", BertModel(BertConfig(**common))),
        ("mean", BertModel(BertConfig(**common))),
        ("short", BertModel(BertConfig(**common, max_position_embeddings=12))),
        (
            "decoder",
            GPT2Model(GPT2Config(vocab_size=len(words), n_embd=32, n_layer=1, n_head=2, n_positions=64)),
        ),
    ):
        model.save_pretrained(folder / name)
        wrapped.save_pretrained(folder / name)
    (folder / "mean" / "1_Pooling").mkdir()
    pooling = {
        "word_embedding_dimension": 32,
        "pooling_mode_mean_tokens": True,
        "pooling_mode_cls_token": False,
    }
    (folder / "mean" / "1_Pooling" / "config.json").write_text(json.dumps(pooling))
    return folder
