"""A BLIP-2 checkpoint on the disk: found, checked and fingerprinted without loading it (no torch here)."""

from __future__ import annotations

import functools
import hashlib
import json
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..common.errors import PincaptionError
from ..store.recipes import BUILTIN

KNOWN = {
    BUILTIN: "knows drawn pictures only",
    "Salesforce/blip2-opt-2.7b": "photos; OPT's licence allows research only",
    "Salesforce/blip2-flan-t5-xl": "photos; Flan-T5's licence is Apache-2.0",
}
# What the library needs; weights only as safetensors, so that nothing is ever unpickled.
_FILES = ["*.json", "*.safetensors", "merges.txt", "vocab.txt", "*.model"]
_TOKENIZERS = ("tokenizer.json", "vocab.json", "spiece.model")
_HUB_NAME = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")
_COMMIT = re.compile(r"[0-9a-f]{40}")
_HUB_SECONDS = 10  # how long the hub may take to answer before the disk has to do
_RESAMPLING = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic", 4: "box", 5: "hamming"}


class CheckpointError(PincaptionError):
    """The checkpoint cannot be used; the message says why and what to do."""


@dataclass(frozen=True)
class Checkpoint:
    """`model` is what a recipe calls it, `path` its folder, `revision` the commit of the hub it came from, if
    any.
    """

    model: str
    path: Path
    revision: str | None = None

    @functools.cached_property
    def config(self) -> dict[str, Any]:
        return _json(self.path / "config.json")

    @functools.cached_property
    def preprocessing(self) -> dict[str, Any]:
        """How pictures become the model's input: {"width", "height", "resample", "scale", "mean", "std"}."""
        for name in ("processor_config.json", "preprocessor_config.json"):
            # newer checkpoints have it inside the former
            if (self.path / name).exists():
                found = _json(self.path / name)
                found = found.get("image_processor", found)
                if "image_mean" in found or "size" in found:
                    return _preprocessing(found, self.path / name)
        raise CheckpointError(
            f"{self.path} has no preprocessor_config.json that says how pictures are scaled: take a complete copy of the checkpoint"
        )

    @property
    def weight_files(self) -> list[Path]:
        return sorted(self.path.glob("*.safetensors"))

    def files(self) -> list[Path]:
        """Every file that decides a caption: weights, configuration, tokenizer."""
        return sorted({p for pattern in _FILES for p in self.path.glob(pattern) if p.is_file()})


def find_checkpoint(model: str, revision: str | None = None) -> Checkpoint:
    """The checkpoint `model`: "builtin", a folder, or a name on the Hugging Face hub (then at `revision`).

    What the hub has is downloaded unless it is on the disk; a full commit is looked for on the disk first,
    and without the hub the disk has to do. Raises CheckpointError with one sentence.
    """
    if model == BUILTIN:
        checkpoint = Checkpoint(BUILTIN, Path(__file__).parent / "builtin")
    elif (path := Path(model).expanduser()).is_dir():
        checkpoint = Checkpoint(path.resolve().name, path.resolve())
    elif path.exists():
        raise CheckpointError(f"{model} is a file: give the folder that it lies in, a checkpoint is a folder")
    elif _HUB_NAME.fullmatch(model):
        return _from_hub(model, revision)
    else:
        raise CheckpointError(
            f"no checkpoint {model!r}: it is neither a folder nor a hub's owner/name; {which()}"
        )
    if revision:
        raise CheckpointError(
            f"--revision is for models on the hub, and {model} is {'part of this package' if model == BUILTIN else 'a folder'}: leave it out"
        )
    _check(checkpoint)
    return checkpoint


def which() -> str:
    """The models that there are, in a sentence."""
    return (
        "--model takes "
        + ", ".join(f"{name} ({what})" for name, what in KNOWN.items())
        + ", or the folder of a BLIP-2 checkpoint"
    )


def _from_hub(model: str, revision: str | None) -> Checkpoint:
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError, RepositoryNotFoundError, RevisionNotFoundError

    def on_disk(revision: str | None) -> Checkpoint | None:
        try:
            path = Path(
                snapshot_download(model, revision=revision, allow_patterns=_FILES, local_files_only=True)
            )
        except LocalEntryNotFoundError:
            return None
        return Checkpoint(model, path, path.name)

    def complete(checkpoint: Checkpoint | None) -> bool:
        if checkpoint is None:
            return False
        try:
            _check(checkpoint)
        except CheckpointError:
            return False
        return True

    found = on_disk(revision) if revision and _COMMIT.fullmatch(revision) else None
    if not complete(found):
        try:
            # Asked for by itself: a download tries again and again for half a minute before it says that
            # there is no network.
            commit = HfApi().model_info(model, revision=revision, timeout=_HUB_SECONDS).sha
            found = on_disk(commit)
            if not complete(found):
                found = Checkpoint(
                    model, Path(snapshot_download(model, revision=commit, allow_patterns=_FILES)), commit
                )
        except RevisionNotFoundError:
            raise CheckpointError(
                f"{model} has no revision {revision!r} on the hub: look at its commits, branches and tags there"
            ) from None
        except RepositoryNotFoundError:
            raise CheckpointError(
                f"the hub has no model {model!r}, or it is private (then log in with `hf auth login`); {which()}"
            ) from None
        except Exception as error:
            # no network, a proxy's page, a full disk, ...: httpx, OSError, HfHubHTTPError, ValueError
            found = found or on_disk(revision)
            if found is None:
                what = f"{model} at revision {revision!r}" if revision else model
                raise CheckpointError(
                    f"{what} is not on this machine and the hub does not give it ({_reason(error)}): check the name and the network, or give --model a folder"
                ) from None
    assert found
    _check(found)
    return found


def _reason(error: Exception) -> str:
    text = (str(error).strip() or type(error).__name__).splitlines()[0]
    if "offline" in text.lower() or "outgoing traffic" in text:
        return "HF_HUB_OFFLINE is set"
    return text if len(text) <= 200 else f"{text[:200]}..."


def _check(checkpoint: Checkpoint) -> None:
    path, config = checkpoint.path, checkpoint.config
    config_path, processor_path = path / "config.json", path / "processor_config.json"
    if config.get("model_type") != "blip-2":
        raise CheckpointError(
            f"{path} is not a BLIP-2 checkpoint: its config.json says model_type {config.get('model_type')!r}, not 'blip-2'; take one such as Salesforce/blip2-flan-t5-xl"
        )
    architectures = config.get("architectures") or ["Blip2ForConditionalGeneration"]
    if "Blip2ForConditionalGeneration" not in architectures:
        raise CheckpointError(
            f"{path} holds {', '.join(architectures)}, which does not write captions: take a checkpoint of Blip2ForConditionalGeneration"
        )
    for part in (config, *(_part(config, name) for name in ("vision", "qformer", "text"))):
        for key in ("auto_map", "attn_implementation", "_attn_implementation"):
            if part.get(key) and (key == "auto_map" or "/" in str(part[key])):
                # a class in a file of the checkpoint, a kernel on the hub
                raise CheckpointError(
                    f"{config_path} names code to be run ({key}), and captioner runs none from checkpoints: remove {key}, or take another checkpoint"
                )
    if not checkpoint.weight_files:
        raise CheckpointError(
            f"{path} has no weights in *.safetensors, and others (pytorch_model.bin) are never opened, for they can run code:"
            " take a revision that has them, a complete copy, or save the model anew with save_pretrained"
        )
    for index in path.glob("*.safetensors.index.json"):
        shards = _json(index).get("weight_map")
        if missing := sorted(
            {str(f) for f in shards.values() if not (path / str(f)).exists()}
            if isinstance(shards, dict)
            else ["weight_map"]
        ):
            raise CheckpointError(
                f"{path} is incomplete: {', '.join(missing)} of {index.name} is missing; download the checkpoint again"
            )
    for file in checkpoint.weight_files:
        if not _is_whole(file):
            raise CheckpointError(
                f"{file} is truncated or no safetensors file ({file.stat().st_size:,} bytes): download it again"
            )
    if not any((path / name).exists() for name in _TOKENIZERS):
        raise CheckpointError(
            f"{path} has no tokenizer ({', '.join(_TOKENIZERS[:-1])} or {_TOKENIZERS[-1]}): take a complete copy of the checkpoint"
        )
    old = "it is older than transformers 4.46, which changed that: take a newer revision"
    if config.get("image_token_index", config.get("image_token_id")) is None:
        raise CheckpointError(
            f"{config_path} has no image_token_index (the id of the <image> token); {old}, or add it"
        )
    queries = config.get("num_query_tokens")
    if queries is None:
        raise CheckpointError(
            f"{config_path} has no num_query_tokens (the number of image tokens, 32 in the published checkpoints); {old}, or add it"
        )
    if not processor_path.exists():
        raise CheckpointError(
            f'{processor_path}, which holds num_query_tokens, is missing; {old}, or write it: {{"num_query_tokens": {queries}}}'
        )
    processor = _json(processor_path)
    if processor.get("num_query_tokens") is None:
        raise CheckpointError(
            f'{processor_path} has no num_query_tokens; {old}, or add "num_query_tokens": {queries}'
        )
    if processor["num_query_tokens"] != queries:
        raise CheckpointError(
            f"{processor_path} says num_query_tokens {processor['num_query_tokens']} and config.json {queries}: correct the one that is wrong"
        )
    side = _part(config, "vision").get("image_size", 224)
    size = checkpoint.preprocessing["height"], checkpoint.preprocessing["width"]
    if size != (tuple(side) if isinstance(side, list) else (side, side)):
        raise CheckpointError(
            f"{path} scales pictures to {size[1]} x {size[0]} pixels, but its vision model takes image_size {side}: correct size in preprocessor_config.json"
        )


def _preprocessing(found: dict[str, Any], source: Path) -> dict[str, Any]:
    if found.get("do_center_crop"):
        raise CheckpointError(
            f"{source} asks for a centre crop (do_center_crop), which BLIP-2's own processor does not do: set it to false"
        )
    # Where it says nothing, the defaults of BlipImageProcessor hold: 384 pixels, and mean and deviation of
    # CLIP.
    size = found.get("size", 384)
    height, width = (size.get("height"), size.get("width")) if isinstance(size, dict) else (size, size)
    if (
        not isinstance(height, int)
        or not isinstance(width, int)
        or not (0 < height <= 4096 and 0 < width <= 4096)
    ):
        raise CheckpointError(
            f'{source} gives no size that BLIP-2 can use: write "size": {{"height": 224, "width": 224}}'
        )
    resample = _RESAMPLING.get(found.get("resample", 3))
    scale = found.get("rescale_factor", 1 / 255) if found.get("do_rescale", True) else 1.0
    mean = (
        found.get("image_mean", [0.48145466, 0.4578275, 0.40821073])
        if found.get("do_normalize", True)
        else [0.0] * 3
    )
    std = (
        found.get("image_std", [0.26862954, 0.26130258, 0.27577711])
        if found.get("do_normalize", True)
        else [1.0] * 3
    )
    if (
        not resample
        or not isinstance(scale, (int, float))
        or not all(_is_colour(c) for c in (mean, std))
        or 0 in std
    ):
        raise CheckpointError(
            f"{source} has a resample, rescale_factor, image_mean or image_std that makes no sense: take a fresh copy of the file"
        )
    return {"width": width, "height": height, "resample": resample, "scale": scale, "mean": mean, "std": std}


def _part(config: dict[str, Any], name: str) -> dict[str, Any]:
    found = config.get(f"{name}_config")
    return found if isinstance(found, dict) else {}


def _is_colour(found: Any) -> bool:
    return isinstance(found, list) and len(found) == 3 and all(isinstance(c, (int, float)) for c in found)


def _is_whole(file: Path) -> bool:
    """Whether a safetensors file is as long as its header says; reads the header only."""
    try:
        with file.open("rb") as opened:
            length = int.from_bytes(opened.read(8), "little")
            if length > 100_000_000:  # the format's own limit
                return False
            tensors = json.loads(opened.read(length))
        return file.stat().st_size == 8 + length + max(
            (t["data_offsets"][1] for name, t in tensors.items() if name != "__metadata__"), default=0
        )
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return False


def _json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise CheckpointError(
            f"{path.parent} is not a checkpoint: it has no {path.name}; give the folder that save_pretrained wrote"
        ) from None
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(
            f"{path} cannot be read as JSON ({error}): take a fresh copy of the file"
        ) from None
    if not isinstance(found, dict):
        raise CheckpointError(f"{path} is not a JSON object: take a fresh copy of the file")
    return found


def file_sha256(path: Path) -> str:
    """SHA-256 of a file. The hub's cache names large files by it, which saves reading gigabytes."""
    target = path.resolve()
    if target != path and target.parent.name == "blobs" and len(target.name) == 64:
        return target.name
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def weights_digest(checkpoint: Checkpoint, remembered: dict[str, tuple[str, str]]) -> str:
    """One digest over the checkpoint's files, by name and content.

    `remembered` maps path -> (stamp, sha256) from earlier runs; what is new is added to it.
    """
    total = hashlib.sha256()
    for path in checkpoint.files():
        state = os.stat(path)
        stamp = f"{state.st_size}-{state.st_mtime_ns}"
        if remembered.get(str(path), ("", ""))[0] != stamp:
            remembered[str(path)] = (stamp, file_sha256(path))
        total.update(f"{path.name} {remembered[str(path)][1]}\n".encode())
    return total.hexdigest()
