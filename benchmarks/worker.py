"""How fast `captioner run` is, compared with the bare model and with the loop of the model card.

    python benchmarks/worker.py                 speed: about 15 minutes on two cores
    python benchmarks/worker.py --memory        memory: 20,000 small pictures with the built-in checkpoint
    python benchmarks/worker.py --startup       --help, stats, and a run with nothing to do

A BLIP-2 of about 120 million random parameters is saved and loaded like a real one. It never ends a caption
early, so both sides do the same work. The photos are those of ../shared/data if that exists; otherwise
pictures are drawn. The results are ratios within one run, medians over interleaved rounds, because single
times on a shared machine mean little.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    Blip2Config,
    Blip2ForConditionalGeneration,
    Blip2Processor,
    BlipImageProcessor,
    PreTrainedTokenizerFast,
)

from pincaption.captioner.blip2 import Blip2
from pincaption.captioner.find import find_checkpoint
from pincaption.captioner.model import Decoding
from pincaption.captioner.run import Options, run
from pincaption.drawn import draw
from pincaption.images.decode import decode
from pincaption.ingest.images import ingest_images
from pincaption.store import open_store

ROOT = Path(__file__).parent.parent
PHOTOS = ROOT.parent / "shared" / "data" / "clothing_cc0"
TOKENS = 20  # new tokens, the default of `generate` that the model card's example uses


def save_model(folder: Path, queries: int = 32) -> None:
    """Saves a BLIP-2 with random weights, a quarter of them in the vision model as in blip2-opt-2.7b."""
    torch.manual_seed(0)
    tokenizer = word_tokenizer(50_000)
    vision = {
        "hidden_size": 448,
        "intermediate_size": 1792,
        "num_hidden_layers": 12,
        "num_attention_heads": 7,
        "image_size": 224,
        "patch_size": 14,
        "initializer_range": 0.02,
    }
    qformer = {
        "hidden_size": 256,
        "intermediate_size": 1024,
        "num_hidden_layers": 6,
        "num_attention_heads": 4,
        "encoder_hidden_size": 448,
        "vocab_size": 4,
    }
    text = {
        "model_type": "opt",
        "vocab_size": len(tokenizer),
        "hidden_size": 640,
        "word_embed_proj_dim": 640,
        "ffn_dim": 2560,
        "num_hidden_layers": 10,
        "num_attention_heads": 10,
        "max_position_embeddings": 512,
        "bos_token_id": 2,
        "pad_token_id": 1,
        "eos_token_id": 3,
    }
    config = Blip2Config(
        vision_config=vision,
        qformer_config=qformer,
        text_config=text,
        num_query_tokens=queries,
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
    )
    model = Blip2ForConditionalGeneration(config)
    torch.nn.init.normal_(model.query_tokens)
    model.save_pretrained(folder)
    Blip2Processor(
        BlipImageProcessor(size={"height": 224, "width": 224}), tokenizer, num_query_tokens=queries
    ).save_pretrained(folder)


def word_tokenizer(words: int) -> PreTrainedTokenizerFast:
    """A tokenizer with OPT's special tokens, a newline that ends captions, and `words` made-up words.

    With it, the ids that a random model writes read like text.
    """
    vocabulary = {"<s>": 0, "<pad>": 1, "</s>": 2, "\n": 3} | {
        f"▁{word}": i + 4 for i, word in enumerate(_words(words))
    }
    text = Tokenizer(models.WordLevel(vocabulary, unk_token="</s>"))
    text.pre_tokenizer, text.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=text, bos_token="</s>", eos_token="</s>", pad_token="<pad>", unk_token="</s>"
    )
    tokenizer.add_tokens(["<image>"], special_tokens=True)
    return tokenizer


def _words(n: int) -> list[str]:
    syllables = [a + b for a in "bdfgklmnprst" for b in "aeiou"]
    return [
        syllables[i % 60] + syllables[i // 60 % 60] + (syllables[i // 3600] if i >= 3600 else "")
        for i in range(n)
    ]


def copy_photos(folder: Path, n: int) -> None:
    """Writes `n` different JPEG files of the size of a photo."""
    folder.mkdir(parents=True)
    found = sorted(PHOTOS.glob("*.jpg"))[:n]
    for path in found:
        shutil.copy(path, folder / path.name)
    rng = random.Random(0)
    for i in range(n - len(found)):
        draw.draw(draw.random_scene(rng), rng, (736, 564)).save(folder / f"drawn-{i:05}.jpg", quality=90)
    print(f"{n} JPEG files: {len(found)} photos, {n - len(found)} drawn", file=sys.stderr)


def speed(work: Path, n: int, batch: int, rounds: int, dtypes: list[str]) -> dict[str, object]:
    save_model(work / "model")
    copy_photos(work / "photos", n)
    checkpoint = find_checkpoint(str(work / "model"))
    files = sorted((work / "photos").iterdir())
    processor = Blip2Processor.from_pretrained(work / "model")
    decoding = Decoding(min_new_tokens=TOKENS, max_new_tokens=TOKENS)
    loop = Blip2ForConditionalGeneration.from_pretrained(work / "model", dtype=torch.float32).eval()
    found: dict[str, object] = {
        "parameters": sum(p.numel() for p in loop.parameters()),
        "pictures": n,
        "batch": batch,
        "new_tokens": TOKENS,
        "threads": torch.get_num_threads(),
    }

    def model_card() -> float:
        """One picture after the other, as the model card shows it."""
        few = files[: max(4, n // 6)]
        began = time.perf_counter()
        for path in few:
            inputs = processor(images=Image.open(path).convert("RGB"), return_tensors="pt")
            ids = loop.generate(**inputs, min_new_tokens=TOKENS, max_new_tokens=TOKENS)
            processor.batch_decode(ids, skip_special_tokens=True)[0].strip()
        return len(few) / (time.perf_counter() - began)

    for dtype in dtypes:
        blip2 = Blip2(checkpoint, "cpu" if not torch.cuda.is_available() else "cuda:0", dtype)
        pixels = np.stack([np.asarray(decode(p.read_bytes(), (224, 224))) for p in files])
        ready = [blip2.pixel_values(pixels[i : i + batch]).to(blip2.model.dtype) for i in range(0, n, batch)]
        ids, mask = blip2.input_ids([""] * batch)

        def bare(
            blip2: Blip2 = blip2,
            ready: list[torch.Tensor] = ready,
            ids: torch.Tensor = ids,
            mask: torch.Tensor = mask,
        ) -> float:
            """The library's generate on tensors that are ready."""
            began = time.perf_counter()
            with torch.inference_mode():
                for values in ready:
                    rows = len(values)
                    blip2.model.generate(
                        values,
                        input_ids=ids[:rows].to(values.device),
                        attention_mask=mask[:rows].to(values.device),
                        **decoding.parameters(),
                    )
            return n / (time.perf_counter() - began)

        def ours(dtype: str = dtype) -> float:
            """`captioner run` on a fresh store: fetch, decode, caption, check, commit."""
            store = work / "store.db"
            for path in work.glob("store.db*"):
                path.unlink()
            conn = open_store(store, create=True)
            ingest_images(conn, work / "photos")
            options = Options(
                model=str(work / "model"),
                batch_size=batch,
                min_new_tokens=TOKENS,
                max_new_tokens=TOKENS,
                dtype=dtype,
            )
            return run(conn, options).images_per_second

        contenders: dict[str, Callable[[], float]] = {
            "bare generate": bare,
            "captioner run": ours,
            "model card loop": model_card,
        }
        rates: dict[str, list[float]] = {name: [] for name in contenders}
        ids.numpy()  # the model is warm after one batch
        blip2.caption(pixels[:batch], [""] * min(batch, n), decoding)
        for _ in range(rounds):
            for name, measure in contenders.items():
                rates[name].append(measure())
                print(f"  {dtype} {name}: {rates[name][-1]:.2f} pictures/s", file=sys.stderr)
        found[dtype] = {
            "pictures_per_second": {name: round(statistics.median(r), 2) for name, r in rates.items()},
            "run_to_bare_generate": round(
                statistics.median(
                    a / b for a, b in zip(rates["captioner run"], rates["bare generate"], strict=True)
                ),
                3,
            ),
            "run_to_model_card_loop": round(
                statistics.median(
                    a / b for a, b in zip(rates["captioner run"], rates["model card loop"], strict=True)
                ),
                2,
            ),
        }
    return found


def memory(work: Path, n: int) -> dict[str, object]:
    """Resident memory while the built-in checkpoint captions `n` small pictures, all different."""
    import psutil

    folder = work / "small"
    folder.mkdir(parents=True)
    rng = random.Random(0)
    base = [draw.draw(draw.random_scene(rng), rng, (96, 96)) for _ in range(100)]
    for i in range(n):
        picture = base[i % 100].copy()
        picture.putpixel((i % 96, i // 96 % 96), (i % 256, i // 256 % 256, 7))
        picture.save(folder / f"{i:06}.jpg", quality=85)
    conn = open_store(work / "memory.db", create=True)
    ingest_images(conn, folder)
    process, seen = psutil.Process(), list[tuple[int, float]]()

    def note(done: int, total: int, batch: int) -> None:
        seen.append((done, process.memory_info().rss / 1e6))

    result = run(conn, Options(model="builtin"), on_batch=note)
    first = next(mb for done, mb in seen if done >= 1000)
    return {
        "pictures": n,
        "captioned": result.captioned,
        "pictures_per_second": result.images_per_second,
        "mb_after_1000": round(first),
        "mb_most_after": round(max(mb for done, mb in seen if done >= 1000)),
        "grown_mb": round(max(mb for done, mb in seen if done >= 1000) - first),
    }


def startup(work: Path, rounds: int) -> dict[str, object]:
    """Median seconds of commands that must feel instant, on a store of 2,000 pins that have captions."""
    captioner = str(Path(sys.executable).parent / "captioner")
    folder = work / "start"
    folder.mkdir(parents=True)
    rng = random.Random(0)
    for i in range(2000):
        draw.draw(draw.random_scene(rng), rng, (64, 64)).save(folder / f"{i}.jpg")
    store = str(work / "start.db")
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "check": True}
    subprocess.run([captioner, "ingest", "images", store, str(folder)], **quiet)
    subprocess.run([captioner, "run", store, "--model", "builtin"], **quiet)
    found: dict[str, object] = {}
    for name, words in {
        "--help": ["--help"],
        "stats": ["stats", store],
        "run with nothing to do": ["run", store],
    }.items():
        times = []
        for _ in range(rounds):
            began = time.perf_counter()
            subprocess.run([captioner, *words], **quiet)
            times.append(time.perf_counter() - began)
        found[name] = round(statistics.median(times), 3)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--memory", action="store_true")
    parser.add_argument("--startup", action="store_true")
    parser.add_argument("--pictures", type=int)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--dtypes",
        default="float32",
        help="comma-separated; bfloat16 pays where the processor computes in it",
    )
    options = parser.parse_args()
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        if options.memory:
            found = memory(work, options.pictures or 20_000)
        elif options.startup:
            found = startup(work, max(5, options.rounds))
        else:
            found = speed(
                work, options.pictures or 128, options.batch, options.rounds, options.dtypes.split(",")
            )
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
