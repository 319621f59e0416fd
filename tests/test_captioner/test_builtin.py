"""The built-in checkpoint: small, genuine, and right about pictures that it never saw.

When a step between file and caption is wrong, its captions are wrong too.
"""

import json
import random
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import Blip2ForConditionalGeneration, Blip2Processor

from pincaption.captioner.blip2 import Blip2
from pincaption.captioner.find import find_checkpoint
from pincaption.captioner.model import Decoding
from pincaption.captioner.worker import Worker
from pincaption.drawn import draw
from pincaption.store.work import Pin

PICTURES = 1000


@pytest.fixture(scope="module")
def scenes() -> list[draw.Scene]:
    """Combinations of things, colours and counts that training never saw."""
    rng = random.Random(20_261_122)
    return [draw.random_scene(rng, held_out=True) for _ in range(PICTURES)]


@pytest.fixture(scope="module")
def gallery(scenes, tmp_path_factory) -> Path:
    """JPEG files of these scenes in the sizes of a feed."""
    folder, rng = tmp_path_factory.mktemp("gallery"), random.Random(1)
    for i, scene in enumerate(scenes):
        picture = draw.draw(scene, rng, rng.choice([(128, 128), (160, 120), (120, 160), (236, 236)]))
        picture.save(folder / f"{i}.jpg", quality=90)
    return folder


@pytest.fixture(scope="module")
def pixels(scenes) -> np.ndarray:
    """200 of the scenes in the model's size, uint8 [200, 64, 64, 3]."""
    rng = random.Random(2)
    return np.stack(
        [draw.draw(s, rng, (128, 128)).resize((64, 64), Image.Resampling.BICUBIC) for s in scenes[:200]]
    )


def accuracy(
    model: Blip2,
    pixels: np.ndarray,
    scenes: list[draw.Scene],
    prompts: list[str] | None = None,
    decoding: Decoding | None = None,
) -> float:
    found = model.caption(pixels, prompts or [""] * len(pixels), decoding or Decoding())
    return sum(t.text.strip() == s.caption for t, s in zip(found, scenes, strict=False)) / len(pixels)


def test_it_is_small_and_genuine():
    folder = find_checkpoint("builtin").path
    assert sum(file.stat().st_size for file in folder.iterdir()) <= 8_000_000
    assert {file.name for file in folder.iterdir()} >= {
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "processor_config.json",
        "tokenizer.json",
    }
    assert json.loads((folder / "config.json").read_text())["architectures"] == [
        "Blip2ForConditionalGeneration"
    ]
    assert isinstance(Blip2Processor.from_pretrained(folder), Blip2Processor)
    assert isinstance(Blip2ForConditionalGeneration.from_pretrained(folder), Blip2ForConditionalGeneration)


def test_what_it_knows():
    assert len(draw.THINGS) >= 12
    assert len(draw.COLOURS) >= 10
    assert len(draw.BACKGROUNDS) >= 4
    rng = random.Random(0)
    scenes = [draw.random_scene(rng) for _ in range(2000)]
    assert {s.count for s in scenes} == {1, 2, 3}
    assert {s.relation for s in scenes} == {None, "left of", "above"}
    assert 0.07 < sum(s.held_out for s in scenes) / 2000 < 0.13


def test_unseen_combinations_are_described_exactly(builtin, scenes, gallery):
    """The whole path: files, decoder, batches, model, caption checks."""
    assert all(s.held_out for s in scenes)
    assert len({s.caption for s in scenes}) > 600
    worker = Worker(builtin, batch_size=50)
    rows = {
        row.pin_id: row for row in worker([Pin(str(i), str(gallery / f"{i}.jpg")) for i in range(PICTURES)])
    }
    assert len(rows) == PICTURES
    wrong = [
        (s.caption, rows[str(i)].text, rows[str(i)].reason)
        for i, s in enumerate(scenes)
        if (rows[str(i)].status, rows[str(i)].text) != ("ok", s.caption)
    ]
    kinds = Counter(
        caption.split(" ")[0] if " of " not in caption and " above " not in caption else "two things"
        for caption, _, _ in wrong
    )
    assert len(wrong) <= 0.05 * PICTURES, (
        f"{1 - len(wrong) / PICTURES:.1%} exactly right; wrong by kind: {kinds}; "
        f"the first (right caption, written caption, reason): {wrong[:5]}"
    )


@pytest.fixture(scope="module")
def right(builtin, pixels, scenes) -> float:
    """The share of exact captions for these 200 pictures when nothing is wrong."""
    return accuracy(builtin, pixels, scenes)


class TestWhatMustFail:
    """Any mistake between picture and caption makes far more captions wrong."""

    def test_the_straight_path_is_right(self, builtin, pixels, scenes, right):
        assert right >= 0.93
        # of different length, in one batch
        assert accuracy(builtin, pixels, scenes, (["a photo of", "", "a picture of"] * 67)[:200]) >= 0.9

    def test_channels_swapped(self, builtin, pixels, scenes, right):
        assert accuracy(builtin, np.ascontiguousarray(pixels[..., ::-1]), scenes) < 0.5 * right

    def test_upside_down(self, builtin, pixels, scenes, right):
        assert accuracy(builtin, np.ascontiguousarray(pixels[:, ::-1]), scenes) < 0.7 * right

    def test_height_and_width_swapped(self, builtin, pixels, scenes, right):
        assert accuracy(builtin, np.ascontiguousarray(pixels.transpose(0, 2, 1, 3)), scenes) < 0.7 * right

    @pytest.mark.parametrize(
        "settings",
        [
            {"scale": 1.0},
            {"mean": [0, 0, 0], "std": [1, 1, 1]},
            {"mean": [0.5] * 3, "std": [1] * 3},
            {"scale": 1 / 127.5},
            {"mean": [0, 0, 0]},
        ],
        ids=["not-rescaled", "not-normalised", "wrong-deviation", "rescaled-by-half", "not-centred"],
    )
    def test_normalised_wrongly(self, builtin, pixels, scenes, right, settings):
        bent = Blip2(builtin.checkpoint)
        bent.preprocessing = builtin.preprocessing | settings
        bent._mean, bent._std = (
            torch.tensor(bent.preprocessing[name], dtype=torch.float32).view(1, 1, 1, 3)
            for name in ("mean", "std")
        )
        assert accuracy(bent, pixels, scenes) < 0.7 * right

    @pytest.mark.parametrize("shift", [-1, 1])
    def test_the_answer_cut_out_one_token_off(self, builtin, pixels, scenes, right, monkeypatch, shift):
        language, prompts = builtin.model.language_model, ["a photo of"] * len(pixels)
        beams, generate = Decoding(num_beams=2), language.generate
        assert accuracy(builtin, pixels, scenes, prompts, beams) > 0.9 * right
        with monkeypatch.context() as patch:
            # What a slice one token off would see: a token of the prompt in front, or the first new one lost.
            patch.setattr(
                language, "generate", lambda **inputs: torch.roll(generate(**inputs), -shift, dims=1)
            )
            assert accuracy(builtin, pixels, scenes, prompts, beams) < 0.1 * right

    def test_padded_on_the_wrong_side(self, builtin, pixels, scenes, right, monkeypatch):
        build, queries = builtin.input_ids, builtin.model.config.num_query_tokens

        def padded_right(prompts):
            ids, mask = build(prompts)
            order = torch.argsort(1 - mask[:, queries:], dim=1, stable=True)
            return tuple(torch.cat([t[:, :queries], t[:, queries:].gather(1, order)], 1) for t in (ids, mask))

        prompts = ["", "a photo of a thing on"] * (len(pixels) // 2)
        short = slice(0, None, 2)

        def of_the_short() -> float:
            found = builtin.caption(pixels, prompts, Decoding())
            return sum(
                t.text.strip() == s.caption
                for t, s in zip(found[short], scenes[: len(pixels)][short], strict=True)
            ) / len(found[short])

        assert of_the_short() >= 0.9 * right
        with monkeypatch.context() as patch:
            patch.setattr(builtin, "input_ids", padded_right)
            assert of_the_short() < 0.5 * right

    def test_the_image_tokens_left_out(self, builtin, pixels, scenes, right, monkeypatch):
        build = builtin.input_ids
        with monkeypatch.context() as patch:
            # the token that begins, before the picture
            patch.setattr(builtin, "input_ids", lambda prompts: tuple(t.roll(1, 1) for t in build(prompts)))
            assert accuracy(builtin, pixels, scenes) < 0.5 * right


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_says_nearly_the_same(builtin, pixels, dtype):
    whole = builtin.caption(pixels, [""] * 200, Decoding())
    half = Blip2(builtin.checkpoint, dtype=dtype).caption(pixels, [""] * 200, Decoding())
    assert sum(a == b for a, b in zip(whole, half, strict=True)) >= 180
