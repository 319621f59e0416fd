"""`captioner doctor`: a dozen lines that say whether captioning will work, and if not, what to do."""

import hashlib
import json
import random
import re
import shutil
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner, Result
from safetensors.torch import load_file, save_file

from pincaption.captioner.doctor import TESTED, Finding, examine
from pincaption.captioner.golden import ASTRONAUT, PICTURE_ADDRESS, Golden, find_picture
from pincaption.cli import cli
from pincaption.drawn import draw
from pincaption.store.recipes import BUILTIN


def doctor(*words: object) -> Result:
    return CliRunner().invoke(cli, ["doctor", *map(str, words)])


def names(output: str) -> list[str]:
    return [line[4:14].strip() for line in output.splitlines() if line[:2].strip()]


def failing(output: str) -> list[str]:
    return [line[4:14].strip() for line in output.splitlines() if line.startswith("NO")]


def one_line(output: str) -> str:
    return " ".join(output.split())


LINES = [
    "machine",
    "disk",
    "libraries",
    "checkpoint",
    "device",
    "memory",
    "loading",
    "pictures",
    "batching",
    "captions",
]


@pytest.mark.parametrize("family", ["opt", "t5"])
def test_a_checkpoint_that_fits(family, opt_folder, t5_folder):
    # float32, whatever this processor is best at: in bfloat16 rounding may give a picture another caption in
    # a batch
    done = doctor("--model", opt_folder if family == "opt" else t5_folder, "--dtype", "float32")
    assert done.exit_code == 0
    assert names(done.output) == LINES
    assert failing(done.output) == []
    assert f"tiny-{family}," in done.output
    assert {
        "opt": "6 image tokens, decoder-only language model",
        "t5": "6 image tokens, encoder-decoder language model",
    }[family] in one_line(done.output)
    assert "6 of 6 pictures get the same caption alone and in a batch" in done.output


def test_the_builtin_checkpoint():
    done = doctor()
    assert done.exit_code == 0, done.output
    assert names(done.output) == [*LINES, "builtin"]
    assert " of 6 drawn pictures exactly right; for photos name a real model" in done.output


def test_its_lines_fit_a_terminal(opt_folder):
    for line in doctor("--model", opt_folder).output.splitlines():
        assert len(line) <= 80, line


def test_as_json(opt_folder):
    found = json.loads(doctor("--model", opt_folder, "--json").stdout)
    assert found["ok"] is True
    assert list(found["findings"]) == LINES


def test_bench_says_how_fast(opt_folder):
    done = doctor("--model", opt_folder, "--bench")
    assert names(done.output) == [*LINES, "batch 1", "batch 4", "batch 16", "batch 64"]
    assert all(line.endswith("pictures/s") for line in done.output.splitlines()[-4:])


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_is_said(opt_folder, dtype):
    done = doctor("--model", opt_folder, "--dtype", dtype)
    assert f"computing in {dtype}" in done.output
    assert "get the same caption alone and in a batch" in done.output


def test_an_unknown_name_ends_the_report():
    done = doctor("--model", "buildin")
    assert done.exit_code == 1
    assert failing(done.output) == ["checkpoint"]
    assert names(done.output) == LINES[:4]
    assert "no checkpoint 'buildin'" in one_line(done.output)


@pytest.mark.parametrize(
    ("file", "change", "said"),
    [
        ("config.json", {"image_token_index": 10**6}, "config.json has image_token_index 1000000, but the"),
        ("config.json", {"model_type": "blip"}, "is not a BLIP-2 checkpoint"),
        ("config.json", {"text_config": None}, "has no language model"),
        (
            "processor_config.json",
            {"num_query_tokens": 7},
            "processor_config.json says num_query_tokens 7 and config.json 6",
        ),
    ],
)
def test_a_checkpoint_that_does_not_fit(opt_folder, tmp_path, file, change, said):
    folder = shutil.copytree(opt_folder, tmp_path / "copy")
    found = json.loads((folder / file).read_text()) | change
    (folder / file).write_text(json.dumps({key: value for key, value in found.items() if value is not None}))
    done = doctor("--model", folder)
    assert done.exit_code == 1
    assert failing(done.output) == ["checkpoint"]
    assert said in one_line(done.output)
    found = json.loads(doctor("--model", folder, "--json").stdout)
    assert found["ok"] is False
    assert said in found["findings"]["checkpoint"]


def test_pickled_weights(opt_folder, tmp_path):
    folder = shutil.copytree(opt_folder, tmp_path / "copy", ignore=shutil.ignore_patterns("*.safetensors*"))
    done = doctor("--model", folder)
    assert done.exit_code == 1
    assert "no weights in *.safetensors" in one_line(done.output)


def test_weights_that_lack_a_tensor(t5_folder, tmp_path):
    folder = shutil.copytree(t5_folder, tmp_path / "copy")
    tensors = load_file(folder / "model.safetensors")
    del tensors["query_tokens"]
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    done = doctor("--model", folder)
    assert done.exit_code == 1
    assert failing(done.output) == ["loading"]
    assert "lack 1 tensors (first: query_tokens), captions would be random" in one_line(done.output)


def test_a_model_that_does_not_see(opt_folder, t5_folder, tmp_path):
    """Its picture never reaches the language model: every caption is the same."""
    folder = shutil.copytree(t5_folder, tmp_path / "blind")
    tensors = load_file(folder / "model.safetensors")
    for name in ("language_projection.weight", "language_model.lm_head.weight"):
        tensors[name] = torch.zeros_like(tensors[name])
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    done = doctor("--model", folder)
    assert done.exit_code == 1
    assert failing(done.output) == ["captions"]
    assert "the model does not see" in one_line(done.output)


@pytest.fixture
def known(tmp_path: Path) -> tuple[Golden, Path]:
    """A drawn picture and its caption, as the built-in checkpoint writes it."""
    rng = random.Random(3)
    scene = draw.random_scene(rng)
    draw.draw(scene, rng, (200, 160)).save(tmp_path / "drawn.png")
    digest = hashlib.sha256((tmp_path / "drawn.png").read_bytes()).hexdigest()
    return Golden(scene.caption, digest, model=BUILTIN, revision=None), tmp_path / "drawn.png"


class TestGolden:
    """A known caption of a known picture. The published one needs the hub; here are others, of our own."""

    def test_the_expected_caption(self, known):
        golden, _ = known
        findings = list(examine(BUILTIN, device="cpu", golden=known))
        assert all(finding.ok for finding in findings)
        assert findings[-1] == Finding("golden", f"{golden.caption!r}, as expected")
        assert (
            "computing in float32" in {f.name: f.text for f in findings}["device"]
        )  # whatever suits the CPU

    def test_another_caption(self, known):
        golden, picture = known
        other = replace(golden, caption="a woman in an orange space suit with a space helmet")
        finding = list(examine(BUILTIN, device="cpu", golden=(other, picture)))[-1]
        assert not finding.ok
        assert f"{golden.caption!r}, but {other.caption!r} was expected" in finding.text

    def test_the_caption_has_as_many_tokens_as_said(self, known):
        golden, picture = known
        short = replace(golden, max_new_tokens=3)
        finding = list(examine(BUILTIN, device="cpu", golden=(short, picture)))[-1]
        begun = finding.text.split("'")[1]
        assert golden.caption.startswith(begun)
        assert 0 < len(begun.split()) < len(golden.caption.split())

    def test_another_picture_ends_the_report_before_anything_is_downloaded(self, known):
        _, picture = known
        done = doctor("--golden", picture, "--model", "owner/never-asked-for")
        assert done.exit_code == 1
        assert failing(done.output) == ["golden"]
        assert "is not the picture whose caption is known" in one_line(done.output)
        assert names(done.output) == ["machine", "disk", "libraries", "golden"]

    def test_no_picture(self, tmp_path):
        done = doctor("--golden", tmp_path / "astronaut.png")
        assert done.exit_code == 1
        assert "Error: there is no file" in done.output
        assert PICTURE_ADDRESS in done.output

    def test_the_picture_of_an_installed_scikit_image(self, tmp_path, monkeypatch):
        """Its folder on the path is enough: scikit-image is not imported."""
        if not find_spec("skimage"):
            done = doctor("--golden")
            assert done.exit_code == 1
            assert "comes with scikit-image, which is not installed here: download " in done.output
        picture = tmp_path / "skimage" / "data" / "astronaut.png"
        picture.parent.mkdir(parents=True)
        picture.write_bytes(b"a picture")
        (tmp_path / "skimage" / "__init__.py").write_text("raise ImportError")
        monkeypatch.syspath_prepend(tmp_path)
        assert find_picture(None) == picture

    def test_the_published_one_names_a_whole_commit(self):
        assert ASTRONAUT.model == "Salesforce/blip2-opt-2.7b"
        assert re.fullmatch("59a1ef6c[0-9a-f]{32}", ASTRONAUT.revision or "")
        assert (ASTRONAUT.dtype_on("cpu"), ASTRONAUT.dtype_on("cuda:0")) == ("float32", "float16")


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_a_device_that_is_not_there(opt_folder):
    done = doctor("--model", opt_folder, "--device", "cuda:3")
    assert done.exit_code == 1
    assert failing(done.output) == ["device"]
    assert "this machine has 0 GPUs that torch can use; try the device cpu" in one_line(done.output)


def test_the_versions_that_it_calls_tested_are_those_of_the_constraints():
    lines = (Path(__file__).parents[2] / "constraints.txt").read_text().splitlines()
    pinned = dict(line.split("==") for line in lines if "==" in line)
    assert {name: ".".join(pinned[name].split(".")[:2]) for name in TESTED} == TESTED


def test_long_findings_are_wrapped_and_paths_kept_whole():
    path = "/a/rather/long/path/" + "x" * 70
    shown = Finding(
        "checkpoint",
        f"{path} has no weights in *.safetensors, and others are never opened: take a complete copy",
        ok=False,
    ).shown()
    assert path in shown
    assert shown.startswith("NO  checkpoint")
    assert all(len(line) <= 80 or path in line for line in shown.splitlines())
