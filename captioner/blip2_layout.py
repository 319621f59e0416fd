"""What only concerns BLIP-2: what the files of such a checkpoint must say, and what is filled in.

Checkpoints that were published before transformers 4.46, and some that still are (the -coco ones), do not say
which token stands for the picture (`image_token_index` in config.json) and how many of them there are
(`num_query_tokens` in processor_config.json). Both follow from the other files, so they are filled in when
the model is loaded. The files stay as they are. Needs no torch.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from .checkpoint import (
    Checkpoint,
    CheckpointError,
    check_no_code,
    check_tokenizer,
    check_weight_names,
    check_weights,
    listed_tensors,
    read_json,
    stored_tensors,
)
from .preprocessing import read_preprocessing

ARCHITECTURE = "Blip2ForConditionalGeneration"  # the class of transformers that writes captions


def check_layout(checkpoint: Checkpoint) -> None:
    """Raises CheckpointError if the files are not those of a complete BLIP-2 checkpoint."""
    _check_config(checkpoint)
    check_weights(checkpoint)
    _check_settings(checkpoint)
    _check_generation(checkpoint)
    _check_language_model(checkpoint, stored_tensors(checkpoint))


def check_before_weights(checkpoint: Checkpoint, names: Collection[str]) -> None:
    """Raises CheckpointError if the checkpoint cannot work, as far as all files but the weights tell.

    `names` are the files that the hub has. Published weights are up to 49 GB, the other files a few MB.
    """
    _check_config(checkpoint)
    check_weight_names(checkpoint, names)
    _check_settings(checkpoint)
    if tensors := listed_tensors(checkpoint):
        _check_language_model(checkpoint, tensors)
    _check_room_for_image_token(checkpoint)


def filled_in(checkpoint: Checkpoint, image_token: int) -> dict[str, int]:
    """The keys that config.json lacks, with what is taken for them when the model is loaded.

    `image_token` is an id that no text contains: that of <image> if the tokenizer has it, else the number of
    its tokens, which is the first id after them.
    """
    lacking = {}
    if _image_token(checkpoint) is None:
        lacking["image_token_index"] = image_token
    if (queries := checkpoint.config.get("num_query_tokens")) is None:
        queries = _processor_queries(checkpoint)
        lacking["num_query_tokens"] = int(queries or 0)
    return lacking


def remarks_on_what_is_filled_in(checkpoint: Checkpoint, image_token: int) -> list[str]:
    """A sentence for each key that the files lack and that is filled in. They are for people."""
    filled, remarks = filled_in(checkpoint, image_token), []
    if "image_token_index" in filled:
        remarks.append(
            f"config.json has no image_token_index: {image_token} is taken, an id that no text contains"
        )
    if "num_query_tokens" in filled:
        remarks.append(
            f"config.json has no num_query_tokens: {filled['num_query_tokens']} of processor_config.json is "
            "taken"
        )
    elif _processor_queries(checkpoint) is None:
        lacking = (
            "processor_config.json has no num_query_tokens"
            if (checkpoint.path / "processor_config.json").exists()
            else "there is no processor_config.json with num_query_tokens"
        )
        remarks.append(f"{lacking}: {checkpoint.config['num_query_tokens']} of config.json is taken")
    return remarks


def _check_config(checkpoint: Checkpoint) -> None:
    """Is it a BLIP-2 that writes captions, with a language model, and without code of its own?"""
    config = checkpoint.config
    if config.get("model_type") != "blip-2":
        raise CheckpointError(
            f"{checkpoint.title} is not a BLIP-2 checkpoint: its config.json says model_type "
            f"{config.get('model_type')!r}, not 'blip-2'; take one such as Salesforce/blip2-flan-t5-xl"
        )
    architectures = config.get("architectures") or [ARCHITECTURE]
    if not isinstance(architectures, list):
        raise CheckpointError(
            f"{checkpoint.path / 'config.json'} has architectures that are no list: take a fresh copy of it"
        )
    if ARCHITECTURE not in architectures:
        raise CheckpointError(
            f"{checkpoint.title} holds {', '.join(map(str, architectures))}, which does not write captions: "
            f"take a checkpoint of {ARCHITECTURE}, such as Salesforce/blip2-flan-t5-xl"
        )
    check_no_code(checkpoint, config, *(_part(config, name) for name in ("vision", "qformer", "text")))
    if not _part(config, "text"):
        raise CheckpointError(
            f"{checkpoint.title} has no language model, so it cannot write captions: its config.json has no "
            "text_config; take a checkpoint such as Salesforce/blip2-flan-t5-xl"
        )


def _check_settings(checkpoint: Checkpoint) -> None:
    check_tokenizer(checkpoint)
    _check_image_tokens(checkpoint)
    _check_picture_size(checkpoint)


def _check_image_tokens(checkpoint: Checkpoint) -> None:
    """The image token must be one of the language model's; the number of them the same in both files.

    What is not stated is filled in later.
    """
    config_path = checkpoint.path / "config.json"
    token, vocabulary = _image_token(checkpoint), _part(checkpoint.config, "text").get("vocab_size")
    if token is not None and not _is_count(token):
        raise CheckpointError(
            f"{config_path} has image_token_index {token!r}, which is no id of a token: correct it"
        )
    if token is not None and _is_count(vocabulary) and token >= vocabulary:
        raise CheckpointError(
            f"{config_path} has image_token_index {token}, but the language model has {vocabulary} tokens: "
            "correct it"
        )
    queries, processor_queries = checkpoint.config.get("num_query_tokens"), _processor_queries(checkpoint)
    for file, number in (("config.json", queries), ("processor_config.json", processor_queries)):
        if number is not None and not (_is_count(number) and number):
            raise CheckpointError(
                f"{checkpoint.path / file} has num_query_tokens {number!r}, which is no number of tokens: "
                "correct it"
            )
    if queries is None and processor_queries is None:
        raise CheckpointError(
            f"{config_path} has no num_query_tokens (the number of image tokens, 32 in the published "
            "checkpoints), and processor_config.json does not say it either: take a complete copy, or add it"
        )
    if queries is not None and processor_queries not in (None, queries):
        raise CheckpointError(
            f"{checkpoint.path / 'processor_config.json'} says num_query_tokens {processor_queries} and "
            f"config.json {queries}: correct the one that is wrong"
        )


def _check_room_for_image_token(checkpoint: Checkpoint) -> None:
    """If no image token is stated, the table of the language model must have one more row than tokens.

    This only saves a download. Loading checks it in any case, and also knows tokenizers of other formats.
    """
    path, vocabulary = checkpoint.path / "tokenizer.json", _part(checkpoint.config, "text").get("vocab_size")
    if _image_token(checkpoint) is not None or not path.exists() or not _is_count(vocabulary):
        return
    content = read_json(path)
    model, added = content.get("model"), content.get("added_tokens")
    words = model.get("vocab") if isinstance(model, dict) else None
    tokens = [token for token in added if isinstance(token, dict)] if isinstance(added, list) else []
    if "<image>" in (token.get("content") for token in tokens) or not isinstance(words, (dict, list)):
        return
    used = 1 + max([len(words) - 1, *(token["id"] for token in tokens if _is_count(token.get("id")))])
    if used >= vocabulary:
        raise CheckpointError(
            f"{checkpoint.path / 'config.json'} has no image_token_index (the id of the <image> token), and "
            f"the {used} tokens of its tokenizer leave none of the language model's {vocabulary} for it: "
            "take a newer revision"
        )


def _check_language_model(checkpoint: Checkpoint, tensors: Collection[str]) -> None:
    """The weights must hold a language model, and that of a T5 its output layer, lm_head.

    transformers would take the table of the input words for a missing lm_head, without a word. Flan-T5 has an
    lm_head of its own, so the captions would be wrong. OPT really has only one table.
    """
    language_model = [name for name in tensors if "language_model." in name]
    if not language_model:
        raise CheckpointError(
            f"the weights of {checkpoint.title} hold no language model, so it cannot write captions: take a "
            "complete checkpoint such as Salesforce/blip2-flan-t5-xl"
        )
    kind = str(_part(checkpoint.config, "text").get("model_type", ""))
    if "t5" in kind and not any(name.endswith("lm_head.weight") for name in language_model):
        raise CheckpointError(
            f"the weights of {checkpoint.title} lack language_model.lm_head.weight, the output layer of "
            f"{kind.upper()}: captions would be wrong; take a complete copy, or save the model anew with its "
            "lm_head"
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


def _image_token(checkpoint: Checkpoint) -> Any:
    """The id of the token <image> as config.json states it, or None."""
    token = checkpoint.config.get("image_token_index")
    return checkpoint.config.get("image_token_id") if token is None else token


def _processor_queries(checkpoint: Checkpoint) -> Any:
    """The number of image tokens as processor_config.json states it, or None."""
    path = checkpoint.path / "processor_config.json"
    return read_json(path).get("num_query_tokens") if path.exists() else None


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _check_generation(checkpoint: Checkpoint) -> None:
    """Are the end tokens that generation_config.json states ids?"""
    path = checkpoint.path / "generation_config.json"
    if not path.exists():
        return
    ends = read_json(path).get("eos_token_id")
    if not all(_is_count(end) for end in (ends if isinstance(ends, list) else [ends]) if end is not None):
        raise CheckpointError(
            f"{path} has an eos_token_id that is no id and no list of ids: take a fresh copy of it"
        )


def _part(config: dict[str, Any], name: str) -> dict[str, Any]:
    """The configuration of one of the three models that a BLIP-2 consists of: vision, qformer or text."""
    part = config.get(f"{name}_config")
    return part if isinstance(part, dict) else {}
