"""What only concerns BLIP-2: the keys that the files of such a checkpoint must have. Needs no torch."""

from __future__ import annotations

from typing import Any

from .checkpoint import (
    Checkpoint,
    CheckpointError,
    check_no_code,
    check_tokenizer,
    check_weights,
    read_json,
)
from .preprocessing import read_preprocessing

ARCHITECTURE = "Blip2ForConditionalGeneration"  # the class of transformers that writes captions


def check_layout(checkpoint: Checkpoint) -> None:
    """Raises CheckpointError if the files are not those of a complete BLIP-2 checkpoint."""
    path, config = checkpoint.path, checkpoint.config
    if config.get("model_type") != "blip-2":
        raise CheckpointError(
            f"{path} is not a BLIP-2 checkpoint: its config.json says model_type "
            f"{config.get('model_type')!r}, not 'blip-2'; take one such as Salesforce/blip2-flan-t5-xl"
        )
    architectures = config.get("architectures") or [ARCHITECTURE]
    if ARCHITECTURE not in architectures:
        raise CheckpointError(
            f"{path} holds {', '.join(architectures)}, which does not write captions: take a checkpoint of "
            f"{ARCHITECTURE}"
        )
    check_no_code(checkpoint, config, *(_part(config, name) for name in ("vision", "qformer", "text")))
    check_weights(checkpoint)
    check_tokenizer(checkpoint)
    _check_image_tokens(checkpoint)
    _check_picture_size(checkpoint)


def _check_image_tokens(checkpoint: Checkpoint) -> None:
    """The token <image> and the number of image tokens must be stated, and the same in both files."""
    config, config_path = checkpoint.config, checkpoint.path / "config.json"
    processor_path = checkpoint.path / "processor_config.json"
    old = "it is older than transformers 4.46, which changed that: take a newer revision"
    if config.get("image_token_index", config.get("image_token_id")) is None:
        raise CheckpointError(
            f"{config_path} has no image_token_index (the id of the <image> token); {old}, or add it"
        )
    queries = config.get("num_query_tokens")
    if queries is None:
        raise CheckpointError(
            f"{config_path} has no num_query_tokens (the number of image tokens, 32 in the published "
            f"checkpoints); {old}, or add it"
        )
    if not processor_path.exists():
        raise CheckpointError(
            f"{processor_path}, which holds num_query_tokens, is missing; {old}, or write it: "
            f'{{"num_query_tokens": {queries}}}'
        )
    processor_queries = read_json(processor_path).get("num_query_tokens")
    if processor_queries is None:
        raise CheckpointError(
            f'{processor_path} has no num_query_tokens; {old}, or add "num_query_tokens": {queries}'
        )
    if processor_queries != queries:
        raise CheckpointError(
            f"{processor_path} says num_query_tokens {processor_queries} and config.json {queries}: "
            "correct the one that is wrong"
        )


def _check_picture_size(checkpoint: Checkpoint) -> None:
    """Pictures must be scaled to the size that the vision model takes."""
    side = _part(checkpoint.config, "vision").get("image_size", 224)
    preprocessing = read_preprocessing(checkpoint)
    size = preprocessing["height"], preprocessing["width"]
    if size != (tuple(side) if isinstance(side, list) else (side, side)):
        raise CheckpointError(
            f"{checkpoint.path} scales pictures to {size[1]} x {size[0]} pixels, but its vision model takes "
            f"image_size {side}: correct size in preprocessor_config.json"
        )


def _part(config: dict[str, Any], name: str) -> dict[str, Any]:
    """The configuration of one of the three models that a BLIP-2 consists of: vision, qformer or text."""
    part = config.get(f"{name}_config")
    return part if isinstance(part, dict) else {}
