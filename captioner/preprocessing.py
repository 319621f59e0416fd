"""How pictures become the input of a model, as the files of its checkpoint say. Needs no torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypedDict

from .checkpoint import Checkpoint, CheckpointError, read_json

_MAX_SIDE = 4096  # pixels; no model that captions pictures takes larger ones
# The numbers by which the files name Pillow's filters.
_RESAMPLING = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic", 4: "box", 5: "hamming"}
# What BlipImageProcessor of transformers assumes where the file says nothing; mean and deviation are CLIP's.
_DEFAULT_SIDE = 384
_DEFAULT_MEAN = [0.48145466, 0.4578275, 0.40821073]
_DEFAULT_STD = [0.26862954, 0.26130258, 0.27577711]


class Preprocessing(TypedDict):
    """A picture is resized to `width` x `height` pixels with the filter `resample`, without keeping its
    aspect ratio. Each value v of a colour channel, 0 to 255, then becomes (v * scale - mean) / std.
    """

    width: int
    height: int
    resample: str  # the name of one of Pillow's filters, in lower case
    scale: float
    mean: list[float]  # for red, green and blue
    std: list[float]


def read_preprocessing(checkpoint: Checkpoint) -> Preprocessing:
    """Reads the settings of the image processor. Raises CheckpointError."""
    # Newer checkpoints keep them inside processor_config.json, older ones in a file of their own.
    for name in ("processor_config.json", "preprocessor_config.json"):
        if (checkpoint.path / name).exists():
            content = read_json(checkpoint.path / name)
            settings = content.get("image_processor", content)
            if "image_mean" in settings or "size" in settings:
                return _from_settings(settings, checkpoint.path / name)
    raise CheckpointError(
        f"{checkpoint.path} has no preprocessor_config.json that says how pictures are scaled: take a "
        "complete copy of the checkpoint"
    )


def _from_settings(settings: dict[str, Any], source: Path) -> Preprocessing:
    if settings.get("do_center_crop"):
        raise CheckpointError(
            f"{source} asks for a centre crop (do_center_crop), which BLIP-2's own processor does not do: "
            "set it to false"
        )
    size = settings.get("size", _DEFAULT_SIDE)
    height, width = (size.get("height"), size.get("width")) if isinstance(size, dict) else (size, size)
    if not isinstance(height, int) or not isinstance(width, int) or not _are_sides(height, width):
        raise CheckpointError(
            f'{source} gives no size that BLIP-2 can use: write "size": {{"height": 224, "width": 224}}'
        )
    resample = _RESAMPLING.get(settings.get("resample", 3))
    scale = settings.get("rescale_factor", 1 / 255) if settings.get("do_rescale", True) else 1.0
    mean, std = [0.0] * 3, [1.0] * 3
    if settings.get("do_normalize", True):
        mean = settings.get("image_mean", _DEFAULT_MEAN)
        std = settings.get("image_std", _DEFAULT_STD)
    is_usable = resample and isinstance(scale, (int, float)) and _is_colour(mean) and _is_colour(std)
    if not is_usable or 0 in std:
        raise CheckpointError(
            f"{source} has a resample, rescale_factor, image_mean or image_std that makes no sense: "
            "take a fresh copy of the file"
        )
    return {
        "width": width,
        "height": height,
        "resample": str(resample),
        "scale": scale,
        "mean": mean,
        "std": std,
    }


def _are_sides(*sides: int) -> bool:
    return all(0 < side <= _MAX_SIDE for side in sides)


def _is_colour(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 3 and all(isinstance(c, (int, float)) for c in value)
