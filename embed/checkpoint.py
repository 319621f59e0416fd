"""Checkpoint."""

from __future__ import annotations

import hashlib
import json
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from ..common.files import whole
from .errors import EmbedError
from .model import FORMAT
from .options import TrainOptions

CHECKPOINT, CURVE = "checkpoint.pt", "learning_curve.png"


def digest_of(folder: str | Path, options: TrainOptions) -> str:
    """What a training depends on: the export and the options."""
    try:
        manifest = (Path(folder) / "manifest.json").read_bytes()
    except OSError:
        manifest = b""
    return hashlib.sha256(manifest + json.dumps(asdict(options), sort_keys=True).encode()).hexdigest()


def check_writable(folder: Path) -> None:
    """Raises EmbedError unless files can be written to a folder: before anything that takes long.

    A folder that was not there is not there after it either.
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


def _save_checkpoint(out: Path, state: dict[str, Any]) -> None:
    out.mkdir(parents=True, exist_ok=True)
    with whole(out / CHECKPOINT) as unfinished:
        torch.save(state, unfinished)


def _checkpoint(out: Path, digest: str) -> dict[str, Any] | None:
    if not (out / CHECKPOINT).exists():
        return None
    state: dict[str, Any] = torch.load(out / CHECKPOINT, map_location="cpu", weights_only=True)
    if state["digest"] != digest:
        raise EmbedError(
            f"{out} holds an unfinished training on another export or with other options: repeat those, name another folder, or delete it"
        )
    return state


def _finished(out: Path, digest: str) -> dict[str, Any] | None:
    if not out.exists():
        return None
    try:
        config = json.loads((out / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        if any(
            path.name not in (CHECKPOINT, CURVE, "encoder", "vocabulary.safetensors", "towers.safetensors")
            and path.suffix != ".unfinished"
            for path in out.iterdir()
        ):
            raise EmbedError(
                f"{out} is there already and holds something else than a training: name another folder"
            ) from None
        return None
    if not isinstance(config, dict) or "digest" not in config:
        raise EmbedError(
            f"{out} is there already and holds something else than a training: name another folder"
        )
    if config["digest"] != digest or config.get("format") != FORMAT:
        raise EmbedError(
            f"{out} holds a model that was trained on another export, with other options or by another version: name another folder, or delete it"
        )
    return dict(config["result"])
