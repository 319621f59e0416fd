"""Our own greedy search writes the tokens that `generate` of transformers writes; on a GPU's path, too.

That path runs here without a GPU: the same steps and memory, without graphs and without the kernel.
"""

import os
import subprocess
import sys
from collections.abc import Callable

import numpy as np
import pytest
import torch

from pincaption.captioner.blip2 import NO_NUMBERS, Blip2
from pincaption.captioner.graph import Graphs
from pincaption.captioner.model import Decoding
from pincaption.captioner.worker import Worker
from pincaption.store.work import Pin

from .pins import Crowded

PROMPTS = ["", "a photo of", "a red ball on a grey background", "x"]
DECODINGS = [
    Decoding(),
    Decoding(min_new_tokens=0, max_new_tokens=7),
    Decoding(min_new_tokens=12, max_new_tokens=12),
    Decoding(min_new_tokens=0, max_new_tokens=1),
    Decoding(min_new_tokens=3, max_new_tokens=20),
]


def generated(model: Blip2, pixels: np.ndarray, prompts: list[str], decoding: Decoding) -> list[list[int]]:
    """The new tokens by `generate` of the whole model, filled up with its padding."""
    ids, mask = model.input_ids(prompts)
    ends = {"eos_token_id": model.end_tokens, "pad_token_id": model.pad_token}
    new = model.model.generate(
        model.pixel_values(pixels), input_ids=ids, attention_mask=mask, **decoding.parameters(), **ends
    )[:, ids.shape[1] if model.decoder_only else 1 :]
    missing = decoding.max_new_tokens - new.shape[1]
    return torch.nn.functional.pad(new, (0, missing), value=model.pad_token).tolist()


@pytest.fixture
def as_on_a_gpu() -> Callable[[Blip2], Blip2]:
    """Makes a copy of a model take the path of a GPU."""

    def change(model: Blip2) -> Blip2:
        copy = Blip2(model.checkpoint)
        copy._graphs, copy.ahead = Graphs(copy.model.language_model), 2
        return copy

    return change


@pytest.mark.parametrize("decoding", DECODINGS)
@pytest.mark.parametrize("prompts", [[""], PROMPTS], ids=["without prompts", "mixed prompts"])
class TestTokens:
    def test_are_those_of_generate(self, model, pixels, prompts, decoding):
        some = [prompts[i % len(prompts)] for i in range(len(pixels))]
        found = model.write(model.see(pixels), some, decoding).tolist()
        assert found == generated(model, pixels, some, decoding)

    def test_also_on_the_path_of_a_gpu(self, opt, builtin, pixels, prompts, decoding, as_on_a_gpu):
        for model in (opt, builtin):
            larger = np.stack([np.resize(picture, (*model.picture_size, 3)) for picture in pixels])
            some = [prompts[i % len(prompts)] for i in range(len(pixels))]
            changed = as_on_a_gpu(model)
            for n in (8, 3, 8):  # one memory serves them all, and is full of the batch before
                found = changed.write(changed.see(larger[:n]), some[:n], decoding).tolist()
                assert found == generated(model, larger[:n], some[:n], decoding)


def test_batches_that_begin_before_others_end_do_not_mix(opt, pixels, as_on_a_gpu):
    model = as_on_a_gpu(opt)
    batches = [(pixels[:5], PROMPTS[:1] * 5), (pixels[5:9], PROMPTS), (pixels[9:], PROMPTS[:1] * 3)]
    wanted = [opt.caption(*batch, Decoding()) for batch in batches]
    begun = [model.begin(*batch, Decoding()) for batch in batches]
    assert [batch.texts() for batch in begun] == wanted
    first, second = (model.begin(*batch, Decoding()) for batch in batches[:2])
    assert first.texts() == wanted[0]
    second.start()
    assert model.caption(*batches[2], Decoding()) == wanted[2]  # ends what is being written
    assert second.texts() == wanted[1]
    abandoned, kept = (model.begin(*batch, Decoding()) for batch in batches[:2])
    abandoned.start()
    del abandoned
    assert kept.texts() == wanted[1]


@pytest.mark.parametrize("on_a_gpu", [False, True])
def test_a_caption_without_numbers_is_a_failure_and_the_others_are_not(
    builtin, on_a_gpu, as_on_a_gpu, images
):
    """A broken row in the table of words breaks the captions whose prompt has that word."""
    model = as_on_a_gpu(builtin) if on_a_gpu else Blip2(builtin.checkpoint)
    (word,) = set(model._prompt_ids("a photo of")) - set(model._prompt_ids("a of"))
    table = model.model.get_input_embeddings()
    lookup = table.forward
    table.forward = lambda ids: lookup(ids).masked_fill((ids == word)[..., None], torch.nan)
    pins = [Pin(f"{i}", str(images / f"{i}.png"), "a photo of" if i % 3 == 0 else "") for i in range(9)]
    rows = {row.pin_id: row for row in Worker(model, batch_size=4)(pins)}
    assert {pin_id for pin_id, row in rows.items() if row.status == "failed"} == {"0", "3", "6"}
    assert {row.reason for row in rows.values()} == {None, NO_NUMBERS}
    assert rows["0"].image_sha256
    assert rows["0"].text is None
    right = {row.pin_id: row for row in Worker(builtin, batch_size=4)(pins)}
    assert all(rows[pin_id] == right[pin_id] for pin_id in rows if int(pin_id) % 3)


@pytest.mark.parametrize("part", ["begin", "start", "texts"])
@pytest.mark.parametrize("fits", [40, 3])
def test_a_worker_that_works_ahead_writes_the_same_rows(builtin, images, as_on_a_gpu, part, fits):
    names = [*[f"{i}.png" for i in range(14)], "copy.png", "cut.png", "text.png", "0.png"]
    pins = [Pin(f"{i}", str(images / name), PROMPTS[i % 2]) for i, name in enumerate(names)]
    wanted = sorted(Worker(builtin)(pins), key=lambda row: row.pin_id)
    model = Crowded(as_on_a_gpu(builtin), fits, part)
    for size in (4, None):
        found = sorted(Worker(model, batch_size=size, threads=3)(pins), key=lambda row: row.pin_id)
        assert [(r.pin_id, r.status, r.text, r.reason) for r in found] == [
            (r.pin_id, r.status, r.text, r.reason) for r in wanted
        ]


def test_a_worker_that_works_ahead_stops_and_keeps_what_has_begun(builtin, images, as_on_a_gpu):
    worker = Worker(as_on_a_gpu(builtin), batch_size=4, threads=2)
    pins = [Pin(f"{i}", str(images / f"{i}.png")) for i in range(40)]
    rows = worker.batches(pins)
    assert len(next(rows)) == 4
    worker.stop.set()
    assert 4 <= len([row for batch in rows for row in batch]) <= 12


def test_the_kernel_attends_as_torch_does() -> None:
    """By Triton's interpreter, where Triton is installed: torch brings it with its builds for a GPU."""
    pytest.importorskip("triton", reason="triton is not installed: torch's build for CPUs does not bring it")
    code = """
import torch
from pincaption.captioner.decode_attention import attend
torch.manual_seed(0)
for captions, heads, places, width in ((3, 2, 56, 80), (1, 1, 5, 16), (2, 3, 33, 64)):
    query = torch.randn(captions, heads, 1, width)
    keys, values = torch.randn(2, captions, heads, places, width)
    visible = torch.rand(captions, places) < 0.6
    visible[:, -1] = True
    wanted = torch.nn.functional.scaled_dot_product_attention(
        query, keys, values, attn_mask=visible[:, None, None], scale=0.3)
    print(float((attend(query, keys, values, visible, 0.3) - wanted).abs().max()) < 1e-5)
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env={**os.environ, "TRITON_INTERPRET": "1"},
        timeout=300,
        check=False,
    )
    assert done.stdout == "True\n" * 3, done.stderr[-2000:]
