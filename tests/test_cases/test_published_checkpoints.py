"""Every published BLIP-2 repository's layout, small: it loads, or is refused before its weights are fetched.

None of the published checkpoints themselves was run: no model hub can be reached from here.
"""

from __future__ import annotations

import hashlib
import json
import os
import pty
import random
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from pincaption.captioner.blip2 import Blip2
from pincaption.captioner.checkpoint import CheckpointError
from pincaption.captioner.find import find_checkpoint
from pincaption.captioner.model import Decoding
from pincaption.cli import cli
from pincaption.drawn import draw

from .hub import COMMIT, Hub
from .published import REPOSITORIES, Repository, add_bin_duplicates, make

WRITING = [name for name, repository in REPOSITORIES.items() if repository.writes]
PROMPTS = ["", "a photo of", "", "a red cup"]


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory):
    """Makes the folder of a repository, once for all tests of this file. Nobody may change it."""
    folders: dict[Repository, Path] = {}

    def folder(repository: Repository | str) -> Path:
        repository = REPOSITORIES[repository] if isinstance(repository, str) else repository
        if repository not in folders:
            folders[repository] = make(repository, tmp_path_factory.mktemp("published") / "checkpoint")
        return folders[repository]

    return folder


@pytest.fixture
def copy(published, tmp_path: Path):
    """The folder of a repository that the test may change."""

    def folder(name: str) -> Path:
        return shutil.copytree(published(name), tmp_path / "copies" / name.replace(" ", "-"))

    return folder


def captions(folder: Path) -> list[str]:
    model, rng = Blip2(find_checkpoint(str(folder))), random.Random(5)
    drawn = [draw.draw(draw.random_scene(rng), rng, (97, 61)) for _ in PROMPTS]
    pictures = [np.asarray(p.resize(model.picture_size, Image.Resampling.BICUBIC)) for p in drawn]
    return [text.text for text in model.caption(pictures, PROMPTS, Decoding(5, 10))]


def digests(folder: Path) -> dict[str, str]:
    files = (file for file in folder.rglob("*") if file.is_file())
    return {str(f.relative_to(folder)): hashlib.sha256(f.read_bytes()).hexdigest() for f in files}


def names_of_tensors(folder: Path) -> set[str]:
    files = folder.glob("*.safetensors")
    return {name for file in files for name in safe_open(file, "pt").keys()}  # noqa: SIM118


def change(file: Path, **changes) -> None:
    """Sets keys of a JSON file; None removes one."""
    found = json.loads(file.read_text()) | changes
    file.write_text(json.dumps({key: value for key, value in found.items() if value is not None}))


def refusal(folder: Path) -> str:
    with pytest.raises(CheckpointError) as error:
        Blip2(find_checkpoint(str(folder)))
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("name", WRITING)
def test_it_loads_and_its_captions_depend_on_the_picture(name, published):
    repository, folder = REPOSITORIES[name], published(name)
    before, language_model = digests(folder), "language_model."
    tensors = {n for n in names_of_tensors(folder) if n.startswith(language_model)}
    heads = {
        n.removeprefix(language_model) for n in tensors if "head" in n or "embed_tokens" in n or "shared" in n
    }
    model = Blip2(find_checkpoint(str(folder)))
    output, table = model.model.language_model.lm_head.weight, model.model.get_input_embeddings().weight
    if repository.language == "opt":
        assert heads == {"model.decoder.embed_tokens.weight"}
        assert torch.equal(output, table)
    else:
        assert heads == {"shared.weight", "lm_head.weight"}
        assert not torch.equal(output, table)
        stored = [load_file(file) for file in folder.glob("*.safetensors")]
        head = next(tensors for tensors in stored if "language_model.lm_head.weight" in tensors)
        assert torch.equal(output, head["language_model.lm_head.weight"])
    tokens = len(model.tokenizer) - (not repository.is_old)  # without <image>
    assert model.model.config.image_token_index == tokens < len(table)
    assert model.picture_size == (repository.side, repository.side)
    assert len(set(captions(folder))) == len(PROMPTS)
    assert digests(folder) == before  # what was filled in, was in memory


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("blip2-opt-2.7b at 51572668", REPOSITORIES["blip2-opt-2.7b"]),
        ("blip2-opt-2.7b-coco", REPOSITORIES["blip2-opt-6.7b-coco"]),  # here they have the same weights
        ("blip2-flan-t5-xl-coco", replace(REPOSITORIES["blip2-flan-t5-xl"], side=364)),
    ],
)
def test_old_and_new_layout_of_the_same_weights_write_the_same(old, new, published):
    assert captions(published(old)) == captions(published(new))


def test_of_the_older_layouts_each_key_may_be_missing_alone(published, copy):
    expected = captions(published("blip2-opt-2.7b"))
    without_token = copy("blip2-opt-2.7b")
    change(without_token / "config.json", image_token_index=None)  # the tokenizer has <image>: that is taken
    model = Blip2(find_checkpoint(str(without_token)))
    assert model.model.config.image_token_index == model.tokenizer.convert_tokens_to_ids("<image>")
    assert captions(without_token) == expected
    without_number = copy("blip2-flan-t5-xl")
    change(without_number / "config.json", num_query_tokens=None)  # processor_config.json says it
    assert captions(without_number) == captions(published("blip2-flan-t5-xl"))


def test_doctor_says_what_was_filled_in(published, copy):
    def findings(folder: Path) -> dict[str, str]:
        done = CliRunner().invoke(cli, ["doctor", "--model", str(folder), "--dtype", "float32", "--json"])
        return json.loads(done.stdout)["findings"]

    old = published("blip2-opt-2.7b at 51572668")
    token = len(json.loads((old / "vocab.json").read_text()))
    assert findings(old)["filled in"] == (
        f"config.json has no image_token_index: {token} is taken, an id that no text contains; there is no "
        "processor_config.json with num_query_tokens: 32 of config.json is taken; the files stay as they are"
    )
    assert "filled in" not in findings(published("blip2-opt-2.7b"))
    folder = copy("blip2-opt-2.7b")
    change(folder / "processor_config.json", num_query_tokens=None)
    assert findings(folder)["filled in"].startswith("processor_config.json has no num_query_tokens: 32 of")


def test_the_model_that_compares_pictures_with_texts_is_refused(published):
    folder = published("blip2-itm-vit-g")
    assert refusal(folder) == (
        f"{folder} holds Blip2ForImageTextRetrieval, which does not write captions: take a checkpoint of "
        "Blip2ForConditionalGeneration, such as Salesforce/blip2-flan-t5-xl"
    )


class TestRefused:
    def test_a_t5_without_its_output_layer(self, copy):
        """transformers takes the table of the input words for it, without a word."""
        folder = copy("blip2-flan-t5-xl")
        head = "language_model.lm_head.weight"
        file = next(file for file in folder.glob("*.safetensors") if head in load_file(file))
        tensors = load_file(file)
        del tensors[head]
        save_file(tensors, file, {"format": "pt"})
        said = refusal(folder)  # though the index still names it
        assert "lack language_model.lm_head.weight, the output layer of T5: captions would be wrong" in said
        index = folder / "model.safetensors.index.json"
        weight_map = json.loads(index.read_text())["weight_map"]
        del weight_map[head]
        change(index, weight_map=weight_map)
        assert refusal(folder) == said

    def test_a_tokenizer_that_leaves_no_id_for_the_picture(self, copy):
        folder = copy("blip2-opt-2.7b-coco")
        config = json.loads((folder / "config.json").read_text())
        tokens = len(json.loads((folder / "vocab.json").read_text()))
        change(folder / "config.json", text_config=config["text_config"] | {"vocab_size": tokens})
        name = "language_model.model.decoder.embed_tokens.weight"
        file = next(file for file in folder.glob("*.safetensors") if name in load_file(file))
        tensors = load_file(file)
        save_file(tensors | {name: tensors[name][:tokens].clone()}, file, {"format": "pt"})
        said = refusal(folder)
        assert f"image_token_index {tokens} (as its config.json says, or else the first id after" in said
        assert f"the language model has {tokens} tokens" in said

    @pytest.mark.parametrize("value", [-1, "50265", 1.5, True, 10**6])
    def test_an_image_token_that_makes_no_sense(self, copy, value):
        folder = copy("blip2-opt-2.7b")
        change(folder / "config.json", image_token_index=value)
        assert f"{folder / 'config.json'} has image_token_index {value!r}, " in refusal(folder)

    @pytest.mark.parametrize("value", [0, -32, "32", 32.0, True])
    @pytest.mark.parametrize("file", ["config.json", "processor_config.json"])
    def test_a_number_of_image_tokens_that_makes_no_sense(self, copy, file, value):
        folder = copy("blip2-opt-2.7b")
        change(folder / file, num_query_tokens=value)
        assert f"{folder / file} has num_query_tokens {value!r}, which is no number" in refusal(folder)


# ---- the hub: its real client against a small server on this machine, over real sockets ----


def environment(hub: Hub | None, home: Path, **more: str) -> dict[str, str]:
    kept = {name: os.environ[name] for name in ("PATH", "PYTHONPATH") if name in os.environ}
    address = {"HF_ENDPOINT": hub.address} if hub else {"HF_HUB_OFFLINE": "1"}
    return kept | address | {"HOME": str(home), "HF_HOME": str(home), "OMP_NUM_THREADS": "1"} | more


def captioner(hub: Hub | None, home: Path, *words: object, **more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "pincaption.cli", *map(str, words)],
        env=environment(hub, home, **more),
        capture_output=True,
        text=True,
        timeout=250,
    )


def find(hub: Hub | None, home: Path, *models: str) -> list[str]:
    """For each model where it was found, or the error, and then what was said about it."""
    code = """
import json, sys
from pincaption.captioner.checkpoint import CheckpointError
from pincaption.captioner.find import find_checkpoint
results = []
for model in sys.argv[1:]:
    lines = []
    try:
        results.append(str(find_checkpoint(model, say=lines.append).title))
    except CheckpointError as error:
        results.append(str(error))
    results[-1] = "\\n".join([results[-1], *lines])
assert "torch" not in sys.modules
print(json.dumps(results))
"""
    done = subprocess.run(
        [sys.executable, "-c", code, *models],
        env=environment(hub, home),
        capture_output=True,
        text=True,
        timeout=250,
        check=True,
    )
    return json.loads(done.stdout)


def with_large_shard(folder: Path) -> str:
    """Makes the last file of weights 23 MB long, with a tensor that the model ignores; returns its name."""
    file = sorted(folder.glob("*.safetensors"))[-1]
    tensors = load_file(file) | {"filler": torch.zeros(5_500_000)}
    save_file(tensors, file, {"format": "pt"})
    return file.name


class TestHub:
    def test_small_files_come_first_and_pickles_never(self, copy, tmp_path):
        folder = copy("blip2-flan-t5-xl-coco")
        add_bin_duplicates(folder)
        (folder / "README.md").write_text("read me")
        (folder / "fp16").mkdir()
        shutil.copy(next(folder.glob("*.safetensors")), folder / "fp16" / "model.safetensors")
        size = sum(file.stat().st_size for file in folder.glob("*.safetensors"))
        with Hub({"org/t5-coco": folder}) as hub:
            said = find(hub, tmp_path, "org/t5-coco")[0].split("\n")
            served = [line.split()[0] for line in hub.served]
            assert said[0] == f"org/t5-coco at {COMMIT[:12]}"
            assert said[1].startswith(
                f"downloading org/t5-coco at {COMMIT[:12]}: 2 files of weights, {size / 1e6:.0f} MB, to "
                f"{tmp_path / 'hub'} ("
            )
            assert said[2].startswith(f"downloaded {size / 1e6:.0f} MB in ")
            weights = sorted(file.name for file in folder.glob("*.safetensors"))
            texts = sorted(file.name for file in folder.glob("*.json"))
            assert served == [*texts, *weights]
            assert "pytorch_model.bin.index.json" in texts
            find(hub, tmp_path, "org/t5-coco")
            assert len(hub.served) == len(served)  # everything is there
        assert find(None, tmp_path, "org/t5-coco")[0].startswith(
            f"org/t5-coco at {COMMIT[:12]}\nthe hub does"
        )

    def test_what_cannot_work_is_refused_before_its_weights(self, published, copy, tmp_path):
        def broken(name: str, **changes) -> Path:
            folder = copy(name)
            change(folder / "config.json", **changes)
            return folder.rename(folder.with_name(f"{name}-{len(cases)}"))

        cases: dict[str, tuple[Path, str]] = {}
        cases["itm"] = published("blip2-itm-vit-g"), "holds Blip2ForImageTextRetrieval, which does not write"
        cases["blip"] = broken("blip2-opt-2.7b", model_type="blip"), "is not a BLIP-2 checkpoint"
        cases["no-text"] = broken("blip2-opt-2.7b", text_config=None), "has no language model"
        cases["no-number"] = (
            broken("blip2-opt-2.7b-coco", num_query_tokens=None),
            "has no num_query_tokens (",
        )
        cases["code"] = broken("blip2-opt-2.7b", auto_map={"AutoModel": "x.Y"}), "names code to be run"
        config = json.loads((published("blip2-opt-2.7b-coco") / "config.json").read_text())
        full = config["text_config"] | {"vocab_size": config["text_config"]["vocab_size"] - 7}
        cases["full"] = broken("blip2-opt-2.7b-coco", text_config=full), "leave none of the language model's"
        for name, prefix, said in (
            (
                "no-head",
                "language_model.lm_head",
                "lack language_model.lm_head.weight, the output layer of T5",
            ),
            ("no-language-model", "language_model", "hold no language model"),
        ):
            folder = broken("blip2-flan-t5-xl")
            weight_map = json.loads((folder / "model.safetensors.index.json").read_text())["weight_map"]
            left = {name: file for name, file in weight_map.items() if not name.startswith(prefix)}
            change(folder / "model.safetensors.index.json", weight_map=left)
            cases[name] = folder, said
        for name, pattern, said in (
            ("no-shard", "model-00002*", "is incomplete: model-00002-of-00002.safetensors of model.safeten"),
            (
                "pickles",
                "*.safetensors*",
                "has no weights in *.safetensors, and other files (pytorch",
            ),
            ("no-tokenizer", "[tv]o*", "has no tokenizer"),
            ("no-config", "config.json", "it has no config.json on the hub"),
            ("no-pictures", "preprocessor_config.json", "has no preprocessor_config.json that says how"),
        ):
            folder = broken("blip2-opt-2.7b-coco")
            add_bin_duplicates(folder)
            for file in folder.glob(pattern):
                file.unlink()
            cases[name] = folder, said
        with Hub({f"org/{name}": folder for name, (folder, _) in cases.items()}) as hub:
            results = find(hub, tmp_path, *(f"org/{name}" for name in cases))
            assert hub.downloads(".safetensors") == hub.downloads(".bin") == []
        for result, (name, (_, said)) in zip(results, cases.items(), strict=True):
            assert said in result, name
            assert "\n" not in result, name

    def test_a_disk_without_room(self, published, tmp_path):
        folder = published("blip2-opt-2.7b")
        claimed = {file.name: 10**15 for file in folder.glob("*.safetensors")}
        with Hub({"org/opt": folder}, claimed=claimed) as hub:
            store = tmp_path / "pins.db"
            drawn(store, tmp_path)
            done = captioner(hub, tmp_path, "run", store, "--model", "org/opt")
            assert hub.downloads(".safetensors") == []
        assert done.returncode == 1
        assert done.stderr.startswith(
            f"Error: org/opt at {COMMIT[:12]} needs 2,000,000.0 GB more on the disk of {tmp_path / 'hub'}, "
        )
        assert "make room there, or name a folder on another disk in the variable HF_HOME" in done.stderr

    def test_a_connection_that_ends_goes_on_where_it_ended(self, copy, tmp_path):
        folder = copy("blip2-opt-2.7b")
        name = with_large_shard(folder)
        with Hub({"org/opt": folder}, breaks={name: [("fin", 12_000_000), ("fin", 11_000_000)]}) as hub:
            assert find(hub, tmp_path, "org/opt")[0].startswith(f"org/opt at {COMMIT[:12]}\n")
            # the library keeps what came in pieces of 10 MiB
            assert hub.downloads(name) == [f"{name} 0", f"{name} {10 * 2**20}", f"{name} {20 * 2**20}"]

    def test_a_connection_that_is_reset(self, copy, tmp_path):
        folder = copy("blip2-opt-2.7b")
        first, last = sorted(file.name for file in folder.glob("*.safetensors"))
        with Hub({"org/opt": folder}, breaks={last: [("rst", 1000), ("rst", 5000)]}, says_sizes=False) as hub:
            said = find(hub, tmp_path, "org/opt")[0]
            assert said.count(f"the connection broke off at {last} (") == 2
            assert said.startswith(f"org/opt at {COMMIT[:12]}\n")
            assert hub.downloads(".safetensors") == [f"{first} 0", *[f"{last} 0"] * 3]

    def test_a_download_that_fails_keeps_what_is_complete(self, copy, tmp_path):
        folder = copy("blip2-opt-2.7b")
        first, last = sorted(file.name for file in folder.glob("*.safetensors"))
        with Hub({"org/opt": folder}, breaks={last: [("rst", 1000)] * 5}) as hub:
            said = find(hub, tmp_path, "org/opt")[0]
            assert f"the download of org/opt at {COMMIT[:12]} broke off at {last} (" in said
            assert "files that are complete are kept, and the same command downloads the others" in said
            offline = find(None, tmp_path, "org/opt")[0]
            assert "is not on this machine" in offline or "is on this machine in part" in offline
            hub.served.clear()
            said = find(hub, tmp_path, "org/opt")[0]
            assert ": 1 file of weights, " in said
            assert hub.served == [f"{last} 0"]
        assert first != last

    @pytest.mark.slow
    def test_run_says_what_it_downloads_and_shows_how_far_it_is(self, copy, tmp_path):
        folder, store = copy("blip2-opt-2.7b-coco"), tmp_path / "pins.db"
        name = with_large_shard(folder)
        drawn(store, tmp_path)
        with Hub({"org/opt-coco": folder}, breaks={name: [("fin", 12_000_000)]}) as hub:
            master, slave = pty.openpty()
            done = subprocess.Popen(
                [sys.executable, "-m", "pincaption.cli", "run", str(store), "--model", "org/opt-coco"],
                env=environment(hub, tmp_path, TERM="xterm", COLUMNS="120"),
                stdout=subprocess.PIPE,
                stderr=slave,
            )
            os.close(slave)
            shown = b""
            while piece := read(master):
                shown += piece
            os.close(master)
            assert done.wait() == 0
        text = shown.decode()
        assert f"downloading org/opt-coco at {COMMIT[:12]}: 2 files of weights, 2" in text
        bar = re.search(r"\b(11|21) of 23 MB, [\d,.]+/s", text)
        assert bar
        assert text.index("2 files of weights") < bar.start() < text.index("\nloading org/opt-coco (")
        assert b"2 rejected, 0 failed; 0 left" in done.stdout.read()  # what random weights write is no words

    @pytest.mark.slow
    def test_with_json_there_is_no_bar_and_one_object(self, published, tmp_path):
        store = tmp_path / "pins.db"
        drawn(store, tmp_path)
        with Hub({"org/opt": published("blip2-opt-2.7b at 51572668")}) as hub:
            done = captioner(hub, tmp_path, "run", store, "--model", "org/opt", "--json")
        assert json.loads(done.stdout)["selected"] == 2
        lines = done.stderr.splitlines()
        assert lines[0].startswith(f"downloading org/opt at {COMMIT[:12]}: 2 files of weights")
        assert lines[1].startswith("downloaded ")
        assert lines[2].startswith("loading org/opt (")


def drawn(store: Path, folder: Path) -> None:
    """A store with two pictures."""
    rng = random.Random(1)
    for i in range(2):
        (folder / "pictures").mkdir(exist_ok=True)
        draw.draw(draw.random_scene(rng), rng, (64, 64)).save(folder / "pictures" / f"{i}.png")
    done = CliRunner().invoke(cli, ["ingest", "images", str(store), str(folder / "pictures")])
    assert done.exit_code == 0, done.output


def read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 65536)
    except OSError:  # the other end is closed
        return b""
