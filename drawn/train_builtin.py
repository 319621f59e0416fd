"""Trains the built-in checkpoint: a genuine, small BLIP-2 that knows only the pictures of `draw.py`.

    python -m pincaption.drawn.train_builtin OUT_DIR --minutes 90
    python -m pincaption.drawn.train_builtin captioner/builtin --evaluate 1000

It has the classes, files and conventions of Salesforce/blip2-opt-2.7b: a vision transformer, a Q-Former with
query tokens, an OPT language model with a byte-level BPE tokenizer, and captions that end with a newline.
Only the sizes differ.

The loss is the usual captioning loss, end to end, and two more that are possible because we know what covers
which patch of a drawn picture. Linear heads on the vision tower predict the noun, the colour and the role
(one of two, the left one, ...) of every patch, and the layout of the picture. Without noun and colour,
learning takes hours. Without the role, the model still confused "left of" and "above" after 5,000 steps. The
heads are thrown away after training. Combinations with `Scene.held_out` are never shown.
"""

from __future__ import annotations

import argparse
import copy
import json
import random
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from tokenizers import ByteLevelBPETokenizer
from torch import nn
from transformers import (
    Blip2Config,
    Blip2ForConditionalGeneration,
    Blip2Processor,
    BlipImageProcessor,
    GPT2Tokenizer,
)

from . import draw
from .labelled import (
    COLOURS,
    IGNORE,
    IMAGE,
    LAYOUTS,
    NOUNS,
    PATCH,
    PROMPTS,
    ROLES,
    LabelledPicture,
    labelled_picture,
)

QUERIES, VOCABULARY = 12, 448
WIDTH = 128  # of all three models
AVERAGED = 0.998  # how much of the averaged weights is kept at each step


def train_tokenizer(folder: Path) -> GPT2Tokenizer:
    """Byte-level BPE with OPT's special tokens at OPT's ids, learned from captions."""
    rng = random.Random(0)
    captions = [draw.random_scene(rng).caption for _ in range(4000)]
    bpe = ByteLevelBPETokenizer()
    bpe.train_from_iterator(
        [f"{prompt} {c}\n" for c in captions for prompt in (*PROMPTS, "")] + [f"{c}\n" for c in captions],
        vocab_size=VOCABULARY - 1,
        special_tokens=["<s>", "<pad>", "</s>", "<unk>"],
        show_progress=False,
    )
    folder.mkdir(parents=True, exist_ok=True)
    bpe.save_model(str(folder))
    tokenizer = GPT2Tokenizer.from_pretrained(
        folder, bos_token="</s>", eos_token="</s>", unk_token="</s>", pad_token="<pad>", add_bos_token=True
    )
    tokenizer.add_tokens(["<image>"], special_tokens=True)
    return tokenizer


def build(tokenizer: GPT2Tokenizer) -> Blip2ForConditionalGeneration:
    """A model with random weights."""
    newline = tokenizer("\n", add_special_tokens=False)["input_ids"][-1]
    special = {"bos_token_id": 2, "pad_token_id": 1, "eos_token_id": newline}
    vision = {
        "hidden_size": WIDTH,
        "intermediate_size": 384,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "image_size": IMAGE,
        "patch_size": PATCH,
        "initializer_range": 0.02,
    }
    qformer = {
        "hidden_size": WIDTH,
        "intermediate_size": 256,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "cross_attention_frequency": 1,
        "encoder_hidden_size": WIDTH,
        "vocab_size": 4,
        "max_position_embeddings": 64,
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
    }
    text = {
        "model_type": "opt",
        "vocab_size": len(tokenizer),
        "hidden_size": WIDTH,
        "word_embed_proj_dim": WIDTH,
        "ffn_dim": 384,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "max_position_embeddings": 96,
        "dropout": 0.0,
        "attention_dropout": 0.0,
        "prefix": "</s>",
        **special,
    }
    config = Blip2Config(
        vision_config=vision,
        qformer_config=qformer,
        text_config=text,
        num_query_tokens=QUERIES,
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
    )
    model = Blip2ForConditionalGeneration(config)
    model.language_model.generation_config.eos_token_id = newline
    model.generation_config.eos_token_id = newline
    with torch.no_grad():
        # The class leaves them at zero, and queries that are equal at first would stay equal.
        model.query_tokens.normal_(std=0.5)
        model.vision_model.embeddings.position_embedding.normal_(std=0.1)
    return model


class Pictures(torch.utils.data.IterableDataset[dict[str, torch.Tensor]]):
    """Endless batches of fresh pictures.

    A batch holds "pixels" (uint8 [batch, height, width, 3]), "ids" and "labels" (int64 [batch, length]; the
    prompt has the label IGNORE), the labels of every patch "nouns", "colours" and "roles" (int64 [batch,
    patches]), and "layout" (int64 [batch]).
    """

    def __init__(self, tokenizer: GPT2Tokenizer, batch: int, seed: int):
        self.tokenizer, self.batch, self.seed = tokenizer, batch, seed

    def __iter__(self) -> Iterator[dict[str, torch.Tensor]]:
        info = torch.utils.data.get_worker_info()
        rng = random.Random(f"{self.seed}-{info.id if info else 0}")
        torch.set_num_threads(1)
        while True:
            yield self._collate([labelled_picture(rng) for _ in range(self.batch)])

    def _ids(self, text: str) -> list[int]:
        return list(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def _collate(self, pictures: list[LabelledPicture]) -> dict[str, torch.Tensor]:
        texts = [
            (self._ids(picture.prompt), self._ids(f"{picture.prompt} {picture.caption}\n".lstrip(" ")))
            for picture in pictures
        ]
        shape = (len(pictures), max(len(text) for _, text in texts) + 1)
        ids, labels = torch.full(shape, 1), torch.full(shape, IGNORE)
        for i, (prompt, text) in enumerate(texts):
            ids[i, 0], ids[i, 1 : 1 + len(text)] = 2, torch.tensor(text)
            labels[i, 1 + len(prompt) : 1 + len(text)] = torch.tensor(text[len(prompt) :])
        return {
            "pixels": torch.from_numpy(np.stack([picture.pixels for picture in pictures])),
            "ids": ids,
            "labels": labels,
            "nouns": torch.from_numpy(np.stack([picture.nouns for picture in pictures])),
            "colours": torch.from_numpy(np.stack([picture.colours for picture in pictures])),
            "roles": torch.from_numpy(np.stack([picture.roles for picture in pictures])),
            "layout": torch.tensor([picture.layout for picture in pictures]),
        }


def normalise(pixels: torch.Tensor, processor: BlipImageProcessor) -> torch.Tensor:
    """uint8 [batch, height, width, 3] -> float32 [batch, 3, height, width], as the processor does it."""
    mean, std = torch.tensor(processor.image_mean), torch.tensor(processor.image_std)
    return ((pixels.float() / 255 - mean) / std).permute(0, 3, 1, 2)


def losses(
    model: Blip2ForConditionalGeneration,
    heads: nn.ModuleDict,
    pixels: torch.Tensor,
    batch: dict[str, torch.Tensor],
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Captioning loss per token, patch loss per patch, layout loss per picture."""
    vision = model.vision_model(pixels).last_hidden_state
    queries = model.qformer(
        query_embeds=model.query_tokens.expand(len(pixels), -1, -1), encoder_hidden_states=vision
    ).last_hidden_state
    text = model.language_model.get_input_embeddings()(batch["ids"])
    inputs = torch.cat([model.language_projection(queries), text], 1)
    hidden = model.language_model.model(inputs_embeds=inputs).last_hidden_state[:, QUERIES:-1]
    wanted = batch["labels"][:, 1:]
    keep = wanted != IGNORE
    caption = F.cross_entropy(model.language_model.lm_head(hidden[keep]), wanted[keep])
    patches = vision[:, 1:].flatten(0, 1)
    patch = F.cross_entropy(
        heads["noun"](patches), batch["nouns"].flatten(), ignore_index=IGNORE
    ) + F.cross_entropy(heads["colour"](patches), batch["colours"].flatten(), ignore_index=IGNORE)
    patch = patch + F.cross_entropy(heads["role"](patches), batch["roles"].flatten(), ignore_index=IGNORE)
    layout = F.cross_entropy(heads["layout"](vision[:, 0]), batch["layout"]) + F.cross_entropy(
        heads["seen"](queries.mean(1)), batch["layout"]
    )
    return caption, patch, layout


@torch.no_grad()
def exact(
    model: Blip2ForConditionalGeneration,
    tokenizer: GPT2Tokenizer,
    processor: BlipImageProcessor,
    n: int,
    seed: int = 1,
    held_out: bool = True,
    show: int = 0,
) -> float:
    """Share of `n` freshly drawn pictures whose greedy caption is exactly right."""
    model.eval()
    rng, right = random.Random(seed), 0
    for start in range(0, n, 100):
        scenes = [draw.random_scene(rng, held_out) for _ in range(min(100, n - start))]
        pixels = torch.from_numpy(
            np.stack(
                [
                    np.asarray(draw.draw(s, rng).resize((IMAGE, IMAGE), Image.Resampling.BICUBIC))
                    for s in scenes
                ]
            )
        )
        prompt = torch.tensor([[model.config.image_token_index] * QUERIES + [2]]).expand(len(scenes), -1)
        ids = model.generate(
            normalise(pixels, processor),
            input_ids=prompt,
            max_new_tokens=24,
            do_sample=False,
            eos_token_id=model.config.text_config.eos_token_id,
            pad_token_id=1,
        )
        for scene, text in zip(
            scenes, tokenizer.batch_decode(ids[:, prompt.shape[1] :], skip_special_tokens=True), strict=True
        ):
            right += text.strip() == scene.caption
            if text.strip() != scene.caption and show > 0:
                show -= 1
                print(f"  wrong: {text.strip()!r}, right: {scene.caption!r}", flush=True)
    model.train()
    return right / n


def train(folder: Path, minutes: float, batch: int, rate: float, seed: int, resume: bool) -> None:
    """Trains for `minutes` with batches of `batch` pictures, and saves the checkpoint into `folder`."""
    torch.manual_seed(seed)
    tokenizer = train_tokenizer(folder)
    processor = BlipImageProcessor(size={"height": IMAGE, "width": IMAGE})
    model = build(tokenizer)
    if resume:
        model = Blip2ForConditionalGeneration.from_pretrained(folder, dtype=torch.float32)
    heads = nn.ModuleDict(
        {
            "noun": nn.Linear(WIDTH, len(NOUNS) + 1),
            "colour": nn.Linear(WIDTH, len(COLOURS) + len(draw.BACKGROUNDS)),
            "role": nn.Linear(WIDTH, len(ROLES)),
            "layout": nn.Linear(WIDTH, len(LAYOUTS)),
            "seen": nn.Linear(WIDTH, len(LAYOUTS)),
        }
    )
    parameters = [*model.parameters(), *heads.parameters()]
    millions = sum(p.numel() for p in model.parameters()) / 1e6
    print(f"{millions:.2f} million parameters, vocabulary {len(tokenizer)}", flush=True)
    decay = [p for p in parameters if p.ndim >= 2]
    optimiser = torch.optim.AdamW(
        [
            {"params": decay, "weight_decay": 0.05},
            {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
        ],
        lr=rate,
        betas=(0.9, 0.98),
    )
    data = torch.utils.data.DataLoader(
        Pictures(tokenizer, batch, seed), batch_size=None, num_workers=1, prefetch_factor=4
    )
    model.train()
    start = checked = time.monotonic()
    means: dict[str, float] = {}
    # The average of the weights over the last steps is what is evaluated and saved.
    average = copy.deepcopy(model).requires_grad_(False)
    for step, rows in enumerate(data):
        # The schedule follows the clock and not the steps, so that the rate has decayed at the end on a slow
        # machine too.
        done = (time.monotonic() - start) / (60 * minutes)
        if done >= 1:
            break
        for group in optimiser.param_groups:
            group["lr"] = rate * min(1, (step + 1) / 200) * (min(1.0, (1 - done) / 0.5) ** 1.5 * 0.99 + 0.01)
        caption, patch, layout = losses(model, heads, normalise(rows["pixels"], processor), rows)
        optimiser.zero_grad()
        (caption + 0.3 * patch + 0.3 * layout).backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimiser.step()
        with torch.no_grad():
            for kept, new in zip(average.parameters(), model.parameters(), strict=True):
                kept.lerp_(new, max(1 - AVERAGED, 1 / (step + 1)))
        for name, loss in (("caption", caption), ("patch", patch), ("layout", layout)):
            means[name] = 0.98 * means.get(name, loss.item()) + 0.02 * loss.item()
        if step % 100 == 0:
            shown = ", ".join(f"{name} {mean:.3f}" for name, mean in means.items())
            seconds = (time.monotonic() - start) / (step + 1)
            print(f"{done:6.1%} step {step}: {shown}, {seconds:.3f} s/step", flush=True)
        if time.monotonic() - checked > 300:
            share = exact(average, tokenizer, processor, 200, show=3)
            print(f"{done:6.1%} step {step}: exact {share:.1%} of unseen combinations", flush=True)
            save(average, tokenizer, processor, folder)
            checked = time.monotonic()
    save(average, tokenizer, processor, folder)
    share = exact(average, tokenizer, processor, 1000, seed=2, show=10)
    print(f"{step} steps of {batch} in {minutes} minutes")
    print(f"{share:.1%} of 1,000 unseen combinations exactly right")


def save(
    model: Blip2ForConditionalGeneration,
    tokenizer: GPT2Tokenizer,
    processor: BlipImageProcessor,
    folder: Path,
) -> None:
    """Saves the checkpoint as transformers does, without the files of the tokenizer that it does not need."""
    for name in ("vocab.json", "merges.txt"):
        (folder / name).unlink(missing_ok=True)
    Blip2Processor(processor, tokenizer, num_query_tokens=QUERIES).save_pretrained(folder)
    model.save_pretrained(folder)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--minutes", type=float, default=90)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--resume", action="store_true", help="continue from the weights in FOLDER")
    parser.add_argument("--evaluate", type=int, metavar="N", help="only caption N unseen combinations")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if not options.evaluate:
        train(options.folder, options.minutes, options.batch, options.rate, options.seed, options.resume)
        return
    processor = Blip2Processor.from_pretrained(options.folder)
    model = Blip2ForConditionalGeneration.from_pretrained(options.folder, dtype=torch.float32)
    share = exact(model, processor.tokenizer, processor.image_processor, options.evaluate, seed=2, show=20)
    print(json.dumps({"pictures": options.evaluate, "exact": share}))


if __name__ == "__main__":
    main()
