"""A plan: made from options, pickled, and turned into a worker in another process."""

from __future__ import annotations

import multiprocessing
import pickle
import random
from dataclasses import replace
from pathlib import Path

import pytest

from pincaption.captioner.checkpoint import CheckpointError
from pincaption.captioner.find import find_checkpoint
from pincaption.captioner.model import Decoding
from pincaption.captioner.plan import Options, Plan, make_plan, with_last_model
from pincaption.drawn import draw
from pincaption.store.work import Caption, Pin


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    rng = random.Random(8)
    path = tmp_path / "picture.jpg"
    draw.draw(draw.random_scene(rng), rng, (120, 90)).save(path, quality=90)
    return path


def captions(pickled: bytes, pins: list[Pin]) -> list[Caption]:
    """What a plan's worker makes of these pins. Runs in a process of its own."""
    return list(pickle.loads(pickled).worker()(pins))


def test_a_worker_made_in_another_process_writes_the_same_captions(store, picture):
    plan = make_plan(store, Options("builtin", prompt="a photo of", batch_size=4, dtype="float32"))
    pins = [Pin("1", str(picture), plan.prompt, plan.recipe.recipe_id), Pin("2", None)]
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        elsewhere = pool.apply(captions, [pickle.dumps(plan), pins])
    assert [row.status for row in elsewhere] == ["failed", "ok"]
    assert elsewhere[1].text
    assert elsewhere == captions(pickle.dumps(plan), pins)


def test_what_it_holds_reaches_the_worker():
    decoding = Decoding(num_beams=2, max_new_tokens=9)
    plan = Plan(
        find_checkpoint("builtin"),
        decoding=decoding,
        dtype="bfloat16",
        device="cpu",
        batch_size=3,
        threads=5,
        max_pixels=1000,
        seconds_per_image=7,
    )
    worker = pickle.loads(pickle.dumps(plan)).worker()
    assert (worker.model.name, worker.model.device, worker.model.dtype) == ("builtin", "cpu", "bfloat16")
    assert (worker.decoding, worker.batch_size.current, worker.threads) == (decoding, 3, 5)
    assert (worker.max_pixels, worker.seconds_per_image) == (1000, 7)


def test_a_folder_that_is_elsewhere_on_another_machine_is_looked_for_again(builtin):
    checkpoint = replace(find_checkpoint("builtin"), path=Path("/no/such/folder"))
    assert Plan(checkpoint, dtype="float32").load_model().name == "builtin"


def test_the_recipe_of_the_built_in_checkpoint_is_what_it_was(store):
    """Captions in people's stores keep their recipe: its id must not change by a change of the code."""
    plan = make_plan(store, Options("builtin", dtype="float32"))
    preprocessing = plan.recipe.preprocessing
    assert sorted(preprocessing) == ["decoder", "height", "mean", "resample", "scale", "std", "width"]
    assert preprocessing["decoder"] == 1
    assert plan.recipe.recipe_id == "3c38d468d4e0e7a4"


def test_options_that_name_no_model_take_the_last_one_or_say_which_there_are(store):
    with pytest.raises(CheckpointError, match=r"name a model, .* builtin \(knows drawn pictures only\)"):
        with_last_model(store, Options())
    with pytest.raises(CheckpointError, match="name a model"):
        make_plan(store, Options())
