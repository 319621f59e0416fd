"""A checkpoint on the disk: its files, the checks for all families of models, and its digest.

Needs no torch.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..common.errors import PincaptionError
from ..store.recipes import BUILTIN

# The files that a model is loaded from. Weights are read from safetensors only, so nothing is ever unpickled.
FILES = ("*.json", "*.safetensors", "merges.txt", "vocab.txt", "*.model")
_TOKENIZERS = ("tokenizer.json", "vocab.json", "spiece.model")  # one of these must be there
_MAX_HEADER = 100_000_000  # bytes; the limit of the safetensors format for its header
MAX_TEXT = 100_000_000  # bytes of a file other than weights; the published ones have 4 MB at most


class CheckpointError(PincaptionError):
    """The checkpoint or the device cannot be used. The message says why and what to do."""


@dataclass(frozen=True)
class Checkpoint:
    """A folder with the files of a model.

    `name` is what a recipe calls the model. `revision` is the commit on the Hugging Face hub that the files
    come from, or None if they do not come from there.
    """

    name: str
    path: Path
    revision: str | None = None

    @functools.cached_property
    def config(self) -> dict[str, Any]:
        """The content of config.json. Raises CheckpointError."""
        return read_json(self.path / "config.json")

    @property
    def title(self) -> str:
        """What messages call the checkpoint as a whole: its name on the hub, or its folder."""
        return f"{self.name} at {self.revision[:12]}" if self.revision else str(self.path)

    @property
    def reference(self) -> str:
        """What `find_checkpoint` finds this checkpoint by. For a folder this is its full path."""
        return self.name if self.name == BUILTIN or self.revision else str(self.path)

    @property
    def weight_files(self) -> list[Path]:
        return sorted(self.path.glob("*.safetensors"))

    @property
    def weight_bytes(self) -> int:
        return sum(path.stat().st_size for path in self.weight_files)

    def files(self) -> list[Path]:
        """Every file that influences a caption: weights, configuration and tokenizer."""
        return sorted({path for pattern in FILES for path in self.path.glob(pattern) if path.is_file()})


def check_no_code(checkpoint: Checkpoint, *parts: dict[str, Any]) -> None:
    """Raises CheckpointError if a part of config.json asks for code of the checkpoint to be run."""
    for part in parts:
        for key in ("auto_map", "attn_implementation", "_attn_implementation"):
            # `auto_map` names a class in a file of the checkpoint. An attention implementation with a slash
            # in its name is a kernel on the hub.
            if part.get(key) and (key == "auto_map" or "/" in str(part[key])):
                raise CheckpointError(
                    f"{checkpoint.path / 'config.json'} names code to be run ({key}), and captioner runs "
                    f"none from checkpoints: remove {key}, or take another checkpoint"
                )


def check_weights(checkpoint: Checkpoint) -> None:
    """Raises CheckpointError if weights are missing, truncated, or in another format than safetensors."""
    check_weight_names(checkpoint, {path.name for path in checkpoint.weight_files})
    for file in checkpoint.weight_files:
        if tensors_in(file) is None:
            raise CheckpointError(
                f"{file} is truncated or no safetensors file ({file.stat().st_size:,} bytes): "
                "download it again"
            )


def check_weight_names(checkpoint: Checkpoint, names: Collection[str]) -> None:
    """Raises CheckpointError if these are not all the files of weights that the checkpoint needs.

    `names` are the files of the folder, or those that the hub has.
    """
    if not any(name.endswith(".safetensors") for name in names):
        raise CheckpointError(
            f"{checkpoint.title} has no weights in *.safetensors, and other files (pytorch_model.bin) are "
            "never opened because they can run code: take a revision that has them, a complete copy, or save "
            "the model anew with save_pretrained"
        )
    for index in _indexes(checkpoint):
        if missing := sorted(set(_weight_map(index).values()) - set(names)):
            raise CheckpointError(
                f"{checkpoint.title} is incomplete: {', '.join(missing)} of {index.name} is missing; "
                "download the checkpoint again, or take a complete revision"
            )


def listed_tensors(checkpoint: Checkpoint) -> set[str]:
    """The names of the tensors by the index of the weights; none if the weights are one file without index.

    The index is a small JSON file, so this can be known before the weights are downloaded.
    """
    return {name for index in _indexes(checkpoint) for name in _weight_map(index)}


def stored_tensors(checkpoint: Checkpoint) -> set[str]:
    """The names of the tensors that the files of weights hold. Only their headers are read."""
    return {name for file in checkpoint.weight_files for name in tensors_in(file) or ()}


def _indexes(checkpoint: Checkpoint) -> list[Path]:
    return sorted(checkpoint.path.glob("*.safetensors.index.json"))


def _weight_map(index: Path) -> dict[str, str]:
    """Which file each tensor is in, by the index of the weights."""
    weight_map = read_json(index).get("weight_map")
    if not isinstance(weight_map, dict):
        raise CheckpointError(f"{index} has no weight_map: take a fresh copy of the file")
    return {str(name): str(file) for name, file in weight_map.items()}


def check_tokenizer(checkpoint: Checkpoint) -> None:
    """Raises CheckpointError if the checkpoint has no file of a tokenizer."""
    if not any((checkpoint.path / name).exists() for name in _TOKENIZERS):
        raise CheckpointError(
            f"{checkpoint.title} has no tokenizer ({', '.join(_TOKENIZERS[:-1])} or {_TOKENIZERS[-1]}): "
            "take a complete copy of the checkpoint"
        )


def tensors_in(file: Path) -> set[str] | None:
    """The names of the tensors in a safetensors file, or None if it is no whole file of that format.

    Only the header is read. A file is whole if it is as long as its header says.
    """
    try:
        with file.open("rb") as opened:
            length = int.from_bytes(opened.read(8), "little")
            if length > _MAX_HEADER:
                return None
            tensors = json.loads(opened.read(length))
        tensors.pop("__metadata__", None)
        end = max((tensor["data_offsets"][1] for tensor in tensors.values()), default=0)
        return set(tensors) if file.stat().st_size == 8 + length + end else None
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return None


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in a file of a checkpoint. Raises CheckpointError."""
    try:
        if path.stat().st_size > MAX_TEXT:
            raise CheckpointError(
                f"{path} has {path.stat().st_size:,} bytes, too many for a file of settings: take a fresh "
                "copy of the file"
            )
        content = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise CheckpointError(
            f"{path.parent} is not a checkpoint: it has no {path.name}; give the folder that save_pretrained "
            "wrote"
        ) from None
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(
            f"{path} cannot be read as JSON ({error}): take a fresh copy of the file"
        ) from None
    if not isinstance(content, dict):
        raise CheckpointError(f"{path} is not a JSON object: take a fresh copy of the file")
    return content


def file_sha256(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal.

    The cache of the hub names large files by their SHA-256. There the name is taken, so that gigabytes need
    not be read.
    """
    target = path.resolve()
    if target != path and target.parent.name == "blobs" and len(target.name) == 64:
        return target.name
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def weights_digest(checkpoint: Checkpoint, known_digests: dict[str, tuple[str, str]]) -> str:
    """One SHA-256 over the names and contents of all files of the checkpoint.

    `known_digests` maps a path to (stamp, SHA-256), as earlier runs left it. A stamp is size and modification
    time. A file is read only if its stamp is another one now, and its new digest is added to the mapping.
    """
    total = hashlib.sha256()
    for path in checkpoint.files():
        state = os.stat(path)
        stamp = f"{state.st_size}-{state.st_mtime_ns}"
        if known_digests.get(str(path), ("", ""))[0] != stamp:
            known_digests[str(path)] = (stamp, file_sha256(path))
        total.update(f"{path.name} {known_digests[str(path)][1]}\n".encode())
    return total.hexdigest()
