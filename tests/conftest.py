"""What tests share: two small random BLIP-2 checkpoints in the published layout, drawn pictures, a store."""

import contextlib
import json
import math
import os
import random
import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch
from hypothesis import HealthCheck, settings
from PIL import Image
from safetensors.torch import load_file, save_file
from tokenizers import (
    ByteLevelBPETokenizer,
)
from transformers import (
    Blip2Config,
    Blip2ForConditionalGeneration,
    Blip2Processor,
    BlipImageProcessor,
    GPT2Tokenizer,
    T5Tokenizer,
)

from pincaption.captioner.blip2 import Blip2
from pincaption.captioner.find import find_checkpoint
from pincaption.drawn import draw
from pincaption.store import open_store

from .unigram import trained_unigram

# The same examples everywhere and no time limit: what passed on one machine must not fail on the next by
# chance, or because that one is busy. To look for new examples: HYPOTHESIS_PROFILE=random make test. What
# that finds is kept in .hypothesis/ and tried first from then on.
settings.register_profile(
    "same", derandomize=True, deadline=None, print_blob=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile("random", settings.get_profile("same"), derandomize=False)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "same"))

SIDE, QUERIES = 32, 6
SENTENCES = [draw.random_scene(random.Random(i)).caption for i in range(300)] + [
    "a photo of",
    "Question: what is this? Answer:",
    "a picture of",
]


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int | None:
    """`-n auto`: a worker per core that this process may use, as far as there is memory for it.

    A container may have only some of the cores of its machine.
    """
    if "PYTEST_XDIST_AUTO_NUM_WORKERS" in os.environ:
        return None  # xdist itself uses that
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    memory = psutil.virtual_memory().available
    with contextlib.suppress(OSError, ValueError):
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        cores = min(cores, math.ceil(int(quota) / int(period)))
    with contextlib.suppress(OSError, ValueError):
        memory = min(
            memory,
            int(Path("/sys/fs/cgroup/memory.max").read_text())
            - int(Path("/sys/fs/cgroup/memory.current").read_text()),
        )
    # 1 GB for a worker, and half a GB for the processes that it starts.
    return max(1, min(cores, memory // 1_500_000_000))


@pytest.fixture(scope="session", autouse=True)
def _threads() -> None:
    """One thread: the models are so small that more would be slower. Processes of tests inherit it."""
    os.environ["OMP_NUM_THREADS"] = "1"
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def opt_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Like Salesforce/blip2-opt-2.7b: byte-level BPE, and captions end with a newline.

    The weights are in several files, and the image processor has a file of its own.
    """
    folder = tmp_path_factory.mktemp("checkpoints") / "tiny-opt"
    folder.mkdir()
    bpe = ByteLevelBPETokenizer()
    bpe.train_from_iterator(
        [f"{s}\n" for s in SENTENCES] + [f" {s}\n" for s in SENTENCES],
        vocab_size=400,
        special_tokens=["<s>", "<pad>", "</s>", "<unk>"],
        show_progress=False,
    )
    bpe.save_model(str(folder))
    tokenizer = GPT2Tokenizer.from_pretrained(
        folder, bos_token="</s>", eos_token="</s>", unk_token="</s>", pad_token="<pad>", add_bos_token=True
    )
    tokenizer.add_tokens(["<image>"], special_tokens=True)
    newline = tokenizer("\n", add_special_tokens=False)["input_ids"][-1]
    language = {
        "model_type": "opt",
        "word_embed_proj_dim": 48,
        "hidden_size": 48,
        "ffn_dim": 96,
        "num_attention_heads": 2,
        "num_hidden_layers": 2,
        "max_position_embeddings": 96,
    }
    language |= {
        "bos_token_id": 2,
        "pad_token_id": 1,
        "eos_token_id": newline,
        "vocab_size": len(tokenizer),
        "dropout": 0.0,
        "init_std": 0.25,
    }
    model = random_model(language, tokenizer.convert_tokens_to_ids("<image>"))
    model.save_pretrained(folder, max_shard_size="300KB")
    tokenizer.save_pretrained(folder)
    image_processor().save_pretrained(folder)
    (folder / "processor_config.json").write_text(
        json.dumps({"num_query_tokens": QUERIES, "processor_class": "Blip2Processor"})
    )
    return folder


@pytest.fixture(scope="session")
def t5_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Like Salesforce/blip2-flan-t5-xl: a unigram tokenizer with T5's special tokens, an encoder-decoder.

    The weights are in one file.
    """
    folder = tmp_path_factory.mktemp("checkpoints") / "tiny-t5"
    folder.mkdir()
    unigram = trained_unigram(SENTENCES, 200)
    vocabulary = [tuple(piece) for piece in json.loads(unigram.to_str())["model"]["vocab"]]
    tokenizer = T5Tokenizer(vocab=vocabulary, extra_ids=10)
    tokenizer.add_tokens(["<image>"], special_tokens=True)
    language = {
        "model_type": "t5",
        "d_model": 48,
        "d_kv": 24,
        "d_ff": 96,
        "num_heads": 2,
        "num_layers": 2,
        "num_decoder_layers": 2,
        "feed_forward_proj": "gated-gelu",
        "dropout_rate": 0.0,
    }
    language |= {
        "vocab_size": len(tokenizer),
        "decoder_start_token_id": 0,
        "pad_token_id": 0,
        "eos_token_id": 1,
        "bos_token_id": 1,
        "initializer_factor": 1.0,
        "tie_word_embeddings": False,
    }
    model = random_model(language, tokenizer.convert_tokens_to_ids("<image>"))
    with torch.no_grad():
        for name, weight in model.language_model.named_parameters():
            if "DenseReluDense" in name or name.endswith((".k.weight", ".v.weight", ".o.weight")):
                weight *= 4  # otherwise it repeats its first token, whatever the picture
        model.language_projection.weight *= 4
    head = model.language_model.lm_head.weight.detach().clone()
    head[[0, 2, *range(len(vocabulary), len(tokenizer))]] = 0  # it writes no special token but the end
    model.save_pretrained(folder)
    # Flan-T5 has an output layer of its own; transformers 5 does not save one, but loads it.
    save_file(
        load_file(folder / "model.safetensors") | {"language_model.lm_head.weight": head.roll(1, 1)},
        folder / "model.safetensors",
        {"format": "pt"},
    )
    config = json.loads((folder / "config.json").read_text())
    config["text_config"]["tie_word_embeddings"] = False
    (folder / "config.json").write_text(json.dumps(config))
    Blip2Processor(image_processor(), tokenizer, num_query_tokens=QUERIES).save_pretrained(folder)
    return folder


def image_processor() -> BlipImageProcessor:
    return BlipImageProcessor(size={"height": SIDE, "width": SIDE})


def random_model(language: dict, image_token: int) -> Blip2ForConditionalGeneration:
    """A BLIP-2 with random weights, large enough that every picture and prompt gets a different text."""
    torch.manual_seed(0)
    bridge = {
        "hidden_size": 48,
        "intermediate_size": 96,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "encoder_hidden_size": 48,
        "vocab_size": 4,
        "cross_attention_frequency": 1,
    }
    config = Blip2Config(
        vision_config={
            "hidden_size": 48,
            "intermediate_size": 96,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "image_size": SIDE,
            "patch_size": 8,
            "initializer_range": 0.2,
        },
        qformer_config=bridge
        | {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0, "initializer_range": 0.2},
        text_config=language,
        num_query_tokens=QUERIES,
        image_token_index=image_token,
    )
    model = Blip2ForConditionalGeneration(config)
    with torch.no_grad():
        model.query_tokens.normal_()
        model.language_projection.weight.normal_(std=0.5)
    return model.eval()


@pytest.fixture(scope="session")
def opt(opt_folder: Path) -> Blip2:
    return Blip2(find_checkpoint(str(opt_folder)))


@pytest.fixture(scope="session")
def t5(t5_folder: Path) -> Blip2:
    return Blip2(find_checkpoint(str(t5_folder)))


@pytest.fixture(scope="session")
def builtin() -> Blip2:
    return Blip2(find_checkpoint("builtin"))


@pytest.fixture(params=["opt", "t5"])
def model(request: pytest.FixtureRequest) -> Blip2:
    """Both model families, one after the other."""
    return request.getfixturevalue(request.param)


@pytest.fixture
def folder(model: Blip2, tmp_path: Path) -> Path:
    """A copy of the model's checkpoint, which the test may change."""
    return shutil.copytree(model.checkpoint.path, tmp_path / "copy")


@pytest.fixture(scope="session")
def pictures() -> list[Image.Image]:
    """Twelve drawn pictures, wide, tall and square."""
    rng = random.Random(5)
    return [
        draw.draw(draw.random_scene(rng), rng, size)
        for size in [(64, 64), (97, 61), (60, 101), (SIDE, SIDE)] * 3
    ]


@pytest.fixture(scope="session")
def pixels(pictures: list[Image.Image]) -> np.ndarray:
    """The same pictures in the small models' size, uint8 [12, height, width, 3]."""
    return np.stack([np.asarray(p.resize((SIDE, SIDE), Image.Resampling.BICUBIC)) for p in pictures])


@pytest.fixture
def store(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    conn = open_store(str(tmp_path / "pins.db"), create=True)
    yield conn
    conn.close()
