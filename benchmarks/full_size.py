"""The real size with random weights: blip2-opt-2.7b in bfloat16 through `captioner run`.

    python benchmarks/full_size.py [FOLDER]

It needs 8 GB of disk, 10 GB of memory, and about half an hour on two cores. It shows that a checkpoint with
the configuration of Salesforce/blip2-opt-2.7b (sharded safetensors, 3.7 billion parameters) loads and
captions. It shows nothing about quality: the weights are random, and no published checkpoint was run.
"""

from __future__ import annotations

import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from transformers import Blip2Config, Blip2ForConditionalGeneration, Blip2Processor, BlipImageProcessor
from worker import word_tokenizer

from pincaption.drawn import draw

# Runs the command of its arguments and prints the most memory that the command took.
WITH_PEAK_MEMORY = """
import resource, subprocess, sys
code = subprocess.call(sys.argv[1:])
print(f"peak memory {resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1e6:.1f} GB", flush=True)
sys.exit(code)
"""


def save(folder: Path, device: str = "cpu", *, small: bool = False) -> None:
    """Writes the checkpoint; its weights are drawn on `device`. `small`: of the same layout, but tiny."""
    # The published configuration: the classes' defaults for vision and Q-Former are its values.
    tokenizer = word_tokenizer(50_261)
    text = {
        "model_type": "opt",
        "vocab_size": 50304,
        "hidden_size": 2560,
        "word_embed_proj_dim": 2560,
        "ffn_dim": 10240,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "max_position_embeddings": 2048,
        "bos_token_id": 2,
        "pad_token_id": 1,
        "eos_token_id": 3,
        "prefix": "</s>",
    }
    others = {}
    if small:
        narrow = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
        text |= narrow | {"word_embed_proj_dim": 64, "ffn_dim": 128}
        narrow["intermediate_size"] = 128
        others = {"vision_config": narrow, "qformer_config": narrow | {"encoder_hidden_size": 64}}
    config = Blip2Config(
        text_config=text,
        **others,
        num_query_tokens=32,
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
    )
    assert config.image_token_index == 50265
    with torch.device("meta"):
        model = Blip2ForConditionalGeneration(config).to(torch.bfloat16)
    model = model.to_empty(device=device)
    generator = torch.Generator(device).manual_seed(0)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "norm" in name and weight.ndim == 1:
                weight.fill_(float(name.endswith("weight")))
            else:
                weight.normal_(std=0.02, generator=generator)
    model.tie_weights()
    print(f"{sum(p.numel() for p in model.parameters()) / 1e9:.2f} billion parameters", flush=True)
    model.save_pretrained(folder, max_shard_size="2GB")
    Blip2Processor(
        BlipImageProcessor(size={"height": 224, "width": 224}), tokenizer, num_query_tokens=32
    ).save_pretrained(folder)


def main() -> None:
    with tempfile.TemporaryDirectory() as scratch:
        work = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(scratch)
        work.mkdir(parents=True, exist_ok=True)
        began = time.monotonic()
        save(work / "blip2-opt-2.7b-random")
        shards = sorted((work / "blip2-opt-2.7b-random").glob("*.safetensors"))
        gigabytes = sum(path.stat().st_size for path in shards) / 1e9
        print(
            f"saved {len(shards)} shards, {gigabytes:.2f} GB, in {time.monotonic() - began:.0f} s", flush=True
        )
        rng = random.Random(0)
        (work / "pictures").mkdir(exist_ok=True)
        for i in range(4):
            draw.draw(draw.random_scene(rng), rng, (640, 480)).save(work / "pictures" / f"{i}.jpg")
        captioner = str(Path(sys.executable).parent / "captioner")
        store = str(work / "full.db")
        for words in (
            ["ingest", "images", store, str(work / "pictures")],
            [
                "run",
                store,
                "--model",
                str(work / "blip2-opt-2.7b-random"),
                "--dtype",
                "bfloat16",
                "--batch-size",
                "4",
                "--max-new-tokens",
                "8",
            ],
            ["stats", store],
        ):
            print("$ captioner " + " ".join(w.replace(str(work), "WORK") for w in words), flush=True)
            began = time.monotonic()
            subprocess.run(
                [sys.executable, "-c", WITH_PEAK_MEMORY, captioner, *words],
                check=True,
                stderr=subprocess.STDOUT,
            )
            print(f"({time.monotonic() - began:.0f} s)", flush=True)


if __name__ == "__main__":
    main()
