"""The folder that a training writes to: its checkpoint, and whether it is done."""

from __future__ import annotations

import hashlib
import json
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypedDict, cast

import torch

from ..common.files import whole
from .errors import EmbedError
from .model import FORMAT, PARTS
from .options import TrainOptions
from .validation import TaskValidation

CHECKPOINT, CURVE = "checkpoint.pt", "learning_curve.png"


class TrainResult(TypedDict):
    """What `train` returns. `embed train --json` prints it, and config.json has it as "result"."""

    model: str  # the folder
    steps: int  # done so far
    of: int  # steps of the whole training
    kept_step: int | None  # that ranked the held-out queries best so far; the model has its weights
    pairs: int  # seen so far
    seconds: float  # of all calls together
    pairs_per_second: float
    loss: dict[str, float]  # {task: mean loss before the kept step}
    validation: dict[str, TaskValidation]  # {task: recall at the kept step}
    done: bool  # whether the model is written


def training_digest(export: str | Path, options: TrainOptions) -> str:
    """A hash of all that a training depends on: the manifest of the export, and the options."""
    try:
        manifest = (Path(export) / "manifest.json").read_bytes()
    except OSError:
        manifest = b""
    return hashlib.sha256(manifest + json.dumps(asdict(options), sort_keys=True).encode()).hexdigest()


def finished_result(folder: Path, digest: str) -> TrainResult | None:
    """The result of the training `digest` if it is done, or None.

    Raises EmbedError if the folder holds another training, or anything else.
    """
    if not folder.exists():
        return None
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        ours = (CHECKPOINT, CURVE, *PARTS)
        if any(path.name not in ours and path.suffix != ".unfinished" for path in folder.iterdir()):
            raise _something_else(folder) from None
        return None
    if not isinstance(config, dict) or "digest" not in config:
        raise _something_else(folder)
    if config["digest"] != digest or config.get("format") != FORMAT:
        raise EmbedError(
            f"{folder} holds a model that was trained on another export, with other options or by another "
            "version: name another folder, or delete it"
        )
    return cast(TrainResult, config["result"])


def _something_else(folder: Path) -> EmbedError:
    return EmbedError(f"{folder} exists and holds something else than a training: name another folder")


def check_writable(folder: Path) -> None:
    """Raises EmbedError if no file can be written to a folder. Call it before anything that takes long.

    A folder that does not exist does not exist afterwards either.
    """
    new = not folder.exists()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
        if new:
            folder.rmdir()
    except OSError as error:
        raise EmbedError(f"{folder} cannot be written ({error.strerror}): name another folder") from error


def save_checkpoint(folder: Path, state: dict[str, Any]) -> None:
    """Writes a checkpoint, whole or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    with whole(folder / CHECKPOINT) as unfinished:
        torch.save(state, unfinished)


def load_checkpoint(folder: Path, digest: str) -> dict[str, Any] | None:
    """The last checkpoint, or None. Raises EmbedError if it belongs to another training than `digest`."""
    if not (folder / CHECKPOINT).exists():
        return None
    state: dict[str, Any] = torch.load(folder / CHECKPOINT, map_location="cpu", weights_only=True)
    if state["digest"] != digest:
        raise EmbedError(
            f"{folder} holds an unfinished training on another export or with other options: "
            "repeat those, name another folder, or delete it"
        )
    return state
