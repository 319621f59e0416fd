"""Which checkpoints are accepted. For the others, one sentence names the file and says what to do."""

import contextlib
import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from pincaption.captioner.blip2 import Blip2
from pincaption.captioner.checkpoint import (
    Checkpoint,
    CheckpointError,
    file_sha256,
    weights_digest,
)
from pincaption.captioner.find import find_checkpoint
from pincaption.captioner.model import Decoding
from pincaption.captioner.preprocessing import read_preprocessing

from ..test_cases.hub import COMMIT, Hub

OTHER = "b" * 40


def refusal(folder: Path | str, revision: str | None = None) -> str:
    """The error when the checkpoint is looked for and loaded. It must be one sentence."""
    with pytest.raises(CheckpointError) as error:
        Blip2(find_checkpoint(str(folder), revision))
    sentence = str(error.value)
    assert "\n" not in sentence
    assert 20 < len(sentence) < 800
    return sentence


def change(file: Path, **changes) -> None:
    """Sets keys of a JSON file; None removes one."""
    found = json.loads(file.read_text()) | changes
    file.write_text(json.dumps({key: value for key, value in found.items() if value is not None}))


def test_a_folder_is_found_by_its_path(opt_folder):
    checkpoint = find_checkpoint(str(opt_folder))
    assert (checkpoint.name, checkpoint.path, checkpoint.revision) == ("tiny-opt", opt_folder, None)
    assert len(checkpoint.weight_files) == 3


def test_without_num_query_tokens(folder):
    """If one of the files states it, it is taken from there; tests/test_cases/ has the published cases."""
    change(folder / "config.json", num_query_tokens=None)
    assert Blip2(find_checkpoint(str(folder))).model.config.num_query_tokens == 6
    change(folder / "processor_config.json", num_query_tokens=None)
    sentence = refusal(folder)
    assert f"{folder / 'config.json'} has no num_query_tokens" in sentence
    assert "processor_config.json does not say it either: take a complete copy, or add it" in sentence


def test_a_number_of_image_tokens_that_the_weights_do_not_have(folder):
    change(folder / "config.json", num_query_tokens=32)
    change(folder / "processor_config.json", num_query_tokens=32)
    assert "have other shapes than config.json says in 1 tensors (first: query_tokens)" in refusal(folder)


def test_num_query_tokens_that_disagree(folder):
    change(folder / "processor_config.json", num_query_tokens=32)
    assert "processor_config.json says num_query_tokens 32 and config.json 6" in refusal(folder)


def test_without_image_token_index(model, folder):
    """The id of <image> is taken from the tokenizer."""
    change(folder / "config.json", image_token_index=None)
    found = Blip2(find_checkpoint(str(folder))).model.config.image_token_index
    assert found == model.model.config.image_token_index


def test_image_token_beyond_the_vocabulary(folder):
    change(folder / "config.json", image_token_index=50265)
    assert "has image_token_index 50265, but the language model has" in refusal(folder)


@pytest.mark.parametrize("kind", ["blip", "opt", "instructblip", "clip", None])
def test_another_kind_of_model(opt_folder, tmp_path, kind):
    folder = shutil.copytree(opt_folder, tmp_path / "other")
    change(folder / "config.json", model_type=kind)
    assert f"is not a BLIP-2 checkpoint: its config.json says model_type {kind!r}" in refusal(folder)


def test_a_blip2_that_does_not_write(folder):
    change(folder / "config.json", architectures=["Blip2ForImageTextRetrieval"])
    assert "holds Blip2ForImageTextRetrieval, which does not write captions" in refusal(folder)


def test_pickled_weights_are_never_opened(folder):
    for file in folder.glob("*.safetensors*"):
        file.unlink()
    torch.save({"query_tokens": torch.zeros(1)}, folder / "pytorch_model.bin")
    sentence = refusal(folder)
    assert "no weights in *.safetensors" in sentence
    assert "save_pretrained" in sentence


def test_a_missing_shard(opt_folder, tmp_path):
    folder = shutil.copytree(opt_folder, tmp_path / "copy")
    (folder / "model-00002-of-00003.safetensors").unlink()
    assert "model-00002-of-00003.safetensors of model.safetensors.index.json is missing" in refusal(folder)


@pytest.mark.parametrize("keep", [0, 5, 1000, -100])
def test_a_truncated_weights_file(folder, keep):
    weights = sorted(folder.glob("*.safetensors"))[-1]
    weights.write_bytes(weights.read_bytes()[:keep])
    assert (
        f"{weights} is truncated or no safetensors file ({weights.stat().st_size:,} bytes): download it again"
        in refusal(folder)
    )


def test_a_page_of_html_instead_of_weights(folder):
    weights = sorted(folder.glob("*.safetensors"))[0]
    weights.write_text("<html><body>Please log in to download this file.</body></html>")
    assert f"{weights} is truncated or no safetensors file" in refusal(folder)


def test_missing_tensors_are_not_made_up(t5_folder, tmp_path):
    """transformers would fill them with random numbers, and a warning among others."""
    folder = shutil.copytree(t5_folder, tmp_path / "copy")
    tensors = load_file(folder / "model.safetensors")
    gone = [name for name in tensors if name.startswith("qformer.encoder.layer.1.crossattention")]
    save_file(
        {name: t for name, t in tensors.items() if name not in gone},
        folder / "model.safetensors",
        {"format": "pt"},
    )
    sentence = refusal(folder)
    assert f"lack {len(gone)} tensors" in sentence
    assert "qformer.encoder.layer.1.crossattention" in sentence


@pytest.mark.parametrize("part", ["text_config", "qformer_config", "vision_config"])
def test_weights_of_more_layers_than_the_configuration_has(model, folder, part):
    config = json.loads((folder / "config.json").read_text())
    layers = "num_layers" if part == "text_config" and not model.decoder_only else "num_hidden_layers"
    config[part][layers] -= 1
    (folder / "config.json").write_text(json.dumps(config))
    assert "tensors of layers that config.json does not have" in refusal(folder)


@pytest.mark.parametrize("text", ["{bad", '{"eos_token_id": "x"}', '{"eos_token_id": [3, null, "x"]}'])
def test_a_broken_generation_config(folder, text):
    (folder / "generation_config.json").write_text(text)
    assert "generation_config.json" in refusal(folder)


def test_architectures_that_are_no_list(folder):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"architectures": 5}))
    assert "architectures that are no list" in refusal(folder)


def test_tensors_of_another_shape(t5_folder, tmp_path):
    folder = shutil.copytree(t5_folder, tmp_path / "copy")
    tensors = load_file(folder / "model.safetensors")
    save_file(
        tensors | {"language_projection.weight": torch.zeros(50, 48)},
        folder / "model.safetensors",
        {"format": "pt"},
    )
    assert (
        "have other shapes than config.json says in 1 tensors (first: language_projection.weight)"
        in refusal(folder)
    )


def test_without_tokenizer(folder):
    for name in ("tokenizer.json", "vocab.json", "merges.txt", "tokenizer_config.json"):
        (folder / name).unlink(missing_ok=True)
    assert f"{folder} has no tokenizer" in refusal(folder)


def test_a_broken_tokenizer(folder):
    (folder / "tokenizer.json").write_text('{"model": {}}')
    assert f"the tokenizer of {folder} cannot be loaded (KeyError" in refusal(folder)


def test_the_tokenizer_of_another_model(opt_folder, t5_folder, tmp_path):
    folder = shutil.copytree(t5_folder, tmp_path / "mixed")
    for file in opt_folder.glob("tokenizer*"):
        shutil.copy(file, folder)
    assert "has more tokens than its language model (103)" in refusal(folder)


@pytest.mark.parametrize("text", ["", "{", "[]", "\xff", "[" * 100_000])
def test_config_that_is_no_json(folder, text):
    (folder / "config.json").write_text(text, encoding="latin-1")
    assert str(folder / "config.json") in refusal(folder)


def test_an_empty_folder(tmp_path):
    assert f"{tmp_path} is not a checkpoint: it has no config.json" in refusal(tmp_path)


def test_a_file(tmp_path, opt_folder):
    assert "is a file: give the folder that it lies in" in refusal(opt_folder / "config.json")


@pytest.mark.parametrize(
    "name",
    [
        "buildin",
        "./missing",
        "/no/such/folder",
        "a/b/c",
        "~/nothing-here",
        "Salesforce blip2",
        "../x",
        "org/",
    ],
)
def test_a_misspelt_name_lists_what_there_is(name):
    sentence = refusal(name)
    assert repr(name) in sentence
    assert "builtin" in sentence
    assert "Salesforce/blip2-flan-t5-xl" in sentence


def test_revision_of_a_folder(opt_folder):
    assert "only a model of the hub has a revision" in refusal(opt_folder, "main")
    assert "builtin is part of this package: leave out the revision 'main'" in refusal("builtin", "main")


@pytest.mark.parametrize("where", [None, "text_config", "vision_config"])
def test_code_in_a_checkpoint_is_never_run(folder, tmp_path, where):
    trap = tmp_path / "was-run"
    (folder / "modeling_trap.py").write_text(f"open({str(trap)!r}, 'w').close()\nclass Trap: pass\n")
    names = dict.fromkeys(
        ("AutoConfig", "AutoModel", "AutoModelForCausalLM", "AutoModelForSeq2SeqLM"), "modeling_trap.Trap"
    )
    config = json.loads((folder / "config.json").read_text())
    (config[where] if where else config)["auto_map"] = names
    (folder / "config.json").write_text(json.dumps(config))
    assert "names code to be run (auto_map), and captioner runs none" in refusal(folder)
    assert not trap.exists()


def test_a_tokenizer_of_its_own_code_is_never_run(folder, tmp_path):
    trap = tmp_path / "was-run"
    (folder / "tokenization_trap.py").write_text(f"open({str(trap)!r}, 'w').close()\nclass Trap: pass\n")
    change(
        folder / "tokenizer_config.json",
        tokenizer_class="Trap",
        auto_map={"AutoTokenizer": [None, "tokenization_trap.Trap"]},
    )
    with contextlib.suppress(CheckpointError):
        # transformers may refuse it, or read it with a class of its own.
        Blip2(find_checkpoint(str(folder)))
    assert not trap.exists()


def test_attention_kernels_from_the_hub_are_not_fetched(folder):
    change(folder / "config.json", attn_implementation="kernels-community/flash-attn")
    assert "names code to be run (attn_implementation)" in refusal(folder)


class TestPreprocessing:
    """How pictures are scaled, as the files say in all the layouts that were published."""

    @pytest.fixture
    def old(self, opt_folder: Path, tmp_path: Path) -> Callable[..., Checkpoint]:
        """Makes a checkpoint with this content of preprocessor_config.json."""

        def make(**content) -> Checkpoint:
            folder = shutil.copytree(opt_folder, tmp_path / "old")
            (folder / "preprocessor_config.json").write_text(json.dumps(content))
            return find_checkpoint(str(folder))

        return make

    def test_size_as_a_number_and_the_rest_left_out(self, old):
        assert read_preprocessing(old(size=32)) == {
            "width": 32,
            "height": 32,
            "resample": "bicubic",
            "scale": 1 / 255,
            "mean": [0.48145466, 0.4578275, 0.40821073],
            "std": [0.26862954, 0.26130258, 0.27577711],
        }

    def test_everything_said(self, old):
        found = read_preprocessing(
            old(
                size={"height": 32, "width": 32},
                resample=2,
                do_rescale=True,
                rescale_factor=0.5,
                image_mean=[1, 2, 3],
                image_std=[4, 5, 6],
            )
        )
        assert (found["resample"], found["scale"], found["mean"], found["std"]) == (
            "bilinear",
            0.5,
            [1, 2, 3],
            [4, 5, 6],
        )

    def test_everything_off(self, old):
        found = read_preprocessing(old(size=32, do_rescale=False, do_normalize=False, image_mean=[1, 2, 3]))
        assert (found["scale"], found["mean"], found["std"]) == (1, [0, 0, 0], [1, 1, 1])

    @pytest.mark.parametrize(
        ("content", "said"),
        [
            ({"size": {"shortest_edge": 32}}, '"size": {"height": 224, "width": 224}'),
            ({"size": 10**9}, "gives no size"),
            ({"size": 64}, "scales pictures to 64 x 64 pixels, but its vision model takes image_size 32"),
            ({"size": 32, "do_center_crop": True}, "do_center_crop"),
            ({"size": 32, "image_std": [0, 1, 1]}, "makes no sense"),
            ({"size": 32, "image_mean": [1]}, "makes no sense"),
            ({"size": 32, "resample": 77}, "makes no sense"),
            ({}, "no preprocessor_config.json that says how pictures are scaled"),
        ],
    )
    def test_what_cannot_be_followed(self, old, content, said):
        with pytest.raises(CheckpointError) as error:
            old(**content)
        assert said in str(error.value)


class TestDigest:
    """The digest of the files belongs to the recipe, because other files may give other captions."""

    def test_it_follows_the_content_not_the_place(self, opt_folder, folder, tmp_path):
        copy = shutil.copytree(opt_folder, tmp_path / "elsewhere")
        digest = weights_digest(find_checkpoint(str(opt_folder)), {})
        assert weights_digest(find_checkpoint(str(copy)), {}) == digest
        change(copy / "generation_config.json", eos_token_id=7)
        assert weights_digest(find_checkpoint(str(copy)), {}) != digest

    def test_files_are_read_once(self, opt_folder):
        checkpoint, remembered = find_checkpoint(str(opt_folder)), {}
        digest = weights_digest(checkpoint, remembered)
        assert set(remembered) == set(map(str, checkpoint.files()))
        assert {Path(path).name for path in remembered} >= {
            "config.json",
            "tokenizer.json",
            "merges.txt",
            "model-00001-of-00003.safetensors",
        }
        forged = {path: (stamp, "0" * 64) for path, (stamp, _) in remembered.items()}
        assert weights_digest(checkpoint, forged) != digest  # the known digests were used
        stale = dict.fromkeys(remembered, ("another time", "0" * 64))
        assert weights_digest(checkpoint, stale) == digest

    def test_large_files_of_the_hub_carry_their_digest_as_name(self, tmp_path):
        (tmp_path / "blobs").mkdir()
        content = b"weights"
        blob = tmp_path / "blobs" / hashlib.sha256(content).hexdigest()
        blob.write_bytes(content)
        (tmp_path / "model.safetensors").symlink_to(blob)
        assert file_sha256(tmp_path / "model.safetensors") == blob.name == file_sha256(blob)


def lookup(home: Path, *arguments: str | None, **environment: str) -> tuple[list[str], float]:
    """Looks for pairs of model and revision in a process of its own.

    Returns for each what was found or the error, and how many seconds all of it took.
    """
    code = """
import json, sys, time
from pincaption.captioner import checkpoint, find
if len(sys.argv) > 2: find.HUB_SECONDS = float(sys.argv[2])
import huggingface_hub, httpx  # before the clock starts
began, said = time.monotonic(), []
for model, revision in json.loads(sys.argv[1]):
    try:
        found = find.find_checkpoint(model, revision)
        said.append(f"{found.name} {found.revision} {found.path}")
    except checkpoint.CheckpointError as error:
        said.append(str(error))
assert "torch" not in sys.modules
print(json.dumps([said, time.monotonic() - began]))
"""
    pairs = [list(pair) for pair in zip(arguments[::2], arguments[1::2], strict=True)]
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(home),
        "HF_HOME": str(home),
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "PYTHONPATH": os.environ.get("PYTHONPATH", ""),
    } | environment
    seconds = [environment.pop("seconds")] if "seconds" in environment else []
    done = subprocess.run(
        [sys.executable, "-c", code, json.dumps(pairs), *seconds],
        env=environment,
        capture_output=True,
        text=True,
        timeout=200,
        check=True,
    )
    assert done.stderr == ""
    said, took = json.loads(done.stdout)
    return said, took


def cached(home: Path, checkpoint: Path, commit: str = COMMIT) -> Path:
    """A folder of the hub's cache with `checkpoint` as org/name at `commit`, the head of its main branch."""
    repo = home / "hub" / "models--org--name"
    snapshot = repo / "snapshots" / commit
    snapshot.mkdir(parents=True)
    (repo / "blobs").mkdir(exist_ok=True)
    for file in checkpoint.iterdir():
        blob = repo / "blobs" / hashlib.sha256(file.read_bytes()).hexdigest()
        shutil.copy(file, blob)
        (snapshot / file.name).symlink_to(Path("../../blobs") / blob.name)
    (repo / "refs").mkdir(exist_ok=True)
    (repo / "refs" / "main").write_text(commit)
    return snapshot


class TestHub:
    def test_offline_the_cache_has_to_do(self, opt_folder, tmp_path):
        snapshot = cached(tmp_path, opt_folder)
        found = f"org/name {COMMIT} {snapshot}"
        said, _ = lookup(
            tmp_path,
            "org/name",
            None,
            "org/name",
            "main",
            "org/name",
            COMMIT,
            "org/name",
            OTHER,
            "org/name",
            "v2",
            "org/other",
            None,
            HF_HUB_OFFLINE="1",
        )
        assert said[:3] == [found] * 3
        end = (
            "is not on this machine and the hub does not give it (HF_HUB_OFFLINE is set): "
            "check the name and the network, or name a folder as the model"
        )
        assert said[3:] == [
            f"org/name at revision {OTHER!r} {end}",
            f"org/name at revision 'v2' {end}",
            f"org/other {end}",
        ]

    def test_without_a_network_the_answer_comes_at_once(self, opt_folder, tmp_path):
        cached(tmp_path, opt_folder)
        said, seconds = lookup(
            tmp_path,
            "org/name",
            None,
            "org/name",
            COMMIT,
            "org/other",
            None,
            "org/other",
            OTHER,
            HF_ENDPOINT="http://127.0.0.1:9",
        )
        assert [COMMIT in s for s in said] == [True, True, False, False]
        assert "not on this machine and the hub does not give it ([Errno 111] Connection refused)" in said[2]
        assert seconds < 20  # its own retries would take 23 s

    def test_a_hub_that_does_not_answer(self, opt_folder, tmp_path):
        cached(tmp_path, opt_folder)
        with Hub({}, silent=True) as hub:
            said, seconds = lookup(
                tmp_path,
                "org/name",
                None,
                "org/name",
                COMMIT,
                "org/other",
                None,
                HF_ENDPOINT=hub.address,
                seconds="0.5",
            )
        assert [COMMIT in s for s in said] == [True, True, False]
        assert "the hub does not give it" in said[2]
        assert seconds < 20  # its own retries would take 23 s

    def test_an_interrupted_download_is_named(self, opt_folder, tmp_path):
        snapshot = cached(tmp_path, opt_folder)
        (snapshot / "model-00002-of-00003.safetensors").unlink()
        said, _ = lookup(tmp_path, "org/name", COMMIT, HF_HUB_OFFLINE="1")
        assert "model-00002-of-00003.safetensors of model.safetensors.index.json is missing" in said[0]

    def test_a_download_takes_no_pickles_and_resumes(self, opt_folder, tmp_path):
        folder = shutil.copytree(opt_folder, tmp_path / "repository")
        for name in ("pytorch_model.bin", "modeling.py", "README.md"):
            (folder / name).write_text("import os")
        with Hub({"org/name": folder}) as hub:
            address = hub.address
            said, _ = lookup(
                tmp_path, "org/name", None, "org/name", "v2", "org/gone", None, HF_ENDPOINT=address
            )
            snapshot = tmp_path / "hub" / "models--org--name" / "snapshots" / COMMIT
            assert said[0] == f"org/name {COMMIT} {snapshot}"
            assert (
                said[1]
                == "org/name has no revision 'v2' on the hub: look at its commits, branches and tags there"
            )
            assert (
                "the hub has no model 'org/gone', or it is private (then log in with `hf auth login`)"
                in said[2]
            )
            assert sorted(p.name for p in snapshot.iterdir()) == sorted(p.name for p in opt_folder.iterdir())
            (snapshot / "model-00002-of-00003.safetensors").unlink()
            said, _ = lookup(tmp_path, "org/name", COMMIT, HF_ENDPOINT=address)
            assert said == [f"org/name {COMMIT} {snapshot}"]
        assert (snapshot / "model-00002-of-00003.safetensors").exists()
        assert find_checkpoint(str(snapshot)).config["model_type"] == "blip-2"


def test_loading_says_nothing_and_needs_no_torchvision(opt_folder, t5_folder):
    code = """
import sys
import numpy as np
from pincaption.captioner.blip2 import Blip2
from pincaption.captioner.find import find_checkpoint
from pincaption.captioner.model import Decoding
for folder in sys.argv[1:]:
    for dtype in ("float32", "bfloat16"):
        model = Blip2(find_checkpoint(folder), dtype=dtype)
        side = model.preprocessing["width"]
        pictures, decoding = np.zeros((2, side, side, 3), np.uint8), Decoding(num_beams=2, no_repeat_ngram=2)
        texts = model.caption(pictures, ["a photo of", ""], decoding)
        assert len(texts) == 2
assert not {"torchvision", "datasets", "pandas", "pyarrow"} & set(sys.modules)
"""
    done = subprocess.run(
        [sys.executable, "-c", code, "builtin", str(opt_folder), str(t5_folder)],
        capture_output=True,
        text=True,
        timeout=250,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_the_folder_is_all_that_is_needed(model, folder):
    """A copy elsewhere gives the same captions: nothing is taken from a cache or from the network."""
    import numpy as np

    picture = np.random.default_rng(0).integers(0, 256, (1, 32, 32, 3)).astype(np.uint8)
    assert Blip2(find_checkpoint(str(folder))).caption(picture, [""], Decoding()) == model.caption(
        picture, [""], Decoding()
    )
