"""BLIP-2 in transformers: loading a checkpoint safely, and captions for a batch of pictures.

What is easy to get wrong here, and is tested: the input ids are built by us; a decoder-only language model
(OPT) returns image tokens and prompt before the new tokens, an encoder-decoder (Flan-T5) the new tokens
alone; prompts of different length are padded between image tokens and prompt for the one, at the end for the
other; `generate` ignores the model's own generation_config, so every decoding parameter is passed.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import torch

# Only the classes that are needed: the package's star import and AutoProcessor print pages of warnings.
os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
from transformers import AutoTokenizer, Blip2ForConditionalGeneration
from transformers.utils import logging as transformers_logging

from .checkpoint import Checkpoint, CheckpointError
from .model import DTYPES, Decoding, Text, out_of_memory


class Blip2:
    """A loaded checkpoint. `caption` is all that the worker needs of it.

    Raises CheckpointError if it cannot be loaded or used as it is, MemoryError if it does not fit into
    memory.
    """

    def __init__(self, checkpoint: Checkpoint, device: str = "cpu", dtype: str = "float32"):
        self.checkpoint, self.device, self.dtype = checkpoint, device, dtype
        self.preprocessing = checkpoint.preprocessing
        self.tokenizer, self.model = _load(checkpoint, device, dtype)
        config, vocabulary = self.model.config, self.model.get_input_embeddings().num_embeddings
        text = config.text_config
        self.decoder_only = bool(config.use_decoder_only_language_model)
        self._image_token, self._queries = int(config.image_token_index), int(config.num_query_tokens)
        if self._image_token >= vocabulary:
            raise CheckpointError(
                f"{checkpoint.path / 'config.json'} has image_token_index {self._image_token}, but the language model has {vocabulary} tokens: correct it"
            )
        if max(self.tokenizer.get_vocab().values()) >= vocabulary:
            raise CheckpointError(
                f"the tokenizer of {checkpoint.path} has more tokens than its language model ({vocabulary}): the files are of two models, take a fresh copy"
            )
        stored = (
            self.model.generation_config.eos_token_id,
            self.model.language_model.generation_config.eos_token_id,
        )
        self._eos = sorted(
            {
                i
                for ids in (*stored, text.eos_token_id, self.tokenizer.eos_token_id)
                if ids is not None
                for i in (ids if isinstance(ids, list) else [ids])
            }
        )
        self._end = _first_id(self.tokenizer.eos_token_id, text.eos_token_id)
        self._bos = _first_id(text.bos_token_id, self.tokenizer.bos_token_id, self._end)
        self._pad = _first_id(text.pad_token_id, self.tokenizer.pad_token_id, self._end)
        # T5 counts relative positions and takes any length; the bound is for memory's sake.
        self._positions = getattr(text, "max_position_embeddings", None) or 2048
        shape = (1, 1, 1, 3)
        self._mean = torch.tensor(self.preprocessing["mean"], dtype=torch.float32, device=device).view(shape)
        self._std = torch.tensor(self.preprocessing["std"], dtype=torch.float32, device=device).view(shape)
        self._prompt_ids = lru_cache(1024)(self._tokenized)
        self._prompt_ids("")  # the tokenizer settles on no padding before threads share it

    def prompt_fits(self, prompt: str, decoding: Decoding) -> bool:
        """False if image tokens, prompt and new tokens are more than the language model has positions for."""
        if len(prompt) > 64 * self._positions:  # not worth the tokenizer's time
            return False
        return self._queries + len(self._prompt_ids(prompt)) + decoding.max_new_tokens <= self._positions

    def _tokenized(self, prompt: str) -> list[int]:
        """The prompt with the token that begins (OPT) or ends (T5) a text, as Blip2Processor has it; without
        a prompt that token alone, as `generate` has it.
        """
        ids = self.tokenizer(prompt, add_special_tokens=False, verbose=False)["input_ids"]
        ids = [i for i in ids if i != self._image_token]  # "<image>" in a pin's prompt is no picture
        return [*ids, self._end] if ids and not self.decoder_only else [self._bos, *ids]

    def input_ids(self, prompts: Sequence[str]) -> tuple[torch.Tensor, torch.Tensor]:
        """Token ids and attention mask, int64 [batch, image tokens + longest prompt], on the CPU."""
        texts = [self._prompt_ids(prompt) for prompt in prompts]
        longest = max(map(len, texts))
        rows, masks = [], []
        for ids in texts:
            pad, image = longest - len(ids), self._queries
            if self.decoder_only:  # the prompt stands next to the new tokens
                rows.append([self._image_token] * image + [self._pad] * pad + ids)
                masks.append([1] * image + [0] * pad + [1] * len(ids))
            else:
                rows.append([self._image_token] * image + ids + [self._pad] * pad)
                masks.append([1] * (image + len(ids)) + [0] * pad)
        return torch.tensor(rows), torch.tensor(masks)

    def pixel_values(self, pictures: np.ndarray) -> torch.Tensor:
        """uint8 [batch, height, width, 3] -> float32 [batch, 3, height, width] on the model's device, as
        BlipImageProcessor has it.
        """
        pixels = torch.from_numpy(pictures).to(self.device, non_blocking=True).to(torch.float32)
        normal: torch.Tensor = (pixels * self.preprocessing["scale"] - self._mean) / self._std
        return normal.permute(0, 3, 1, 2).contiguous()

    @torch.inference_mode()
    def caption(self, pictures: np.ndarray, prompts: Sequence[str], decoding: Decoding) -> list[Text]:
        """What the model says about each of `pictures` (uint8 [batch, height, width, 3], RGB), continuing its
        prompt.
        """
        ids, mask = self.input_ids(prompts)
        generated = self.model.generate(
            pixel_values=self.pixel_values(pictures).to(DTYPES[self.dtype]),
            input_ids=ids.to(self.device),
            attention_mask=mask.to(self.device),
            eos_token_id=self._eos,
            pad_token_id=self._pad,
            **decoding.parameters(),
        )
        # without the prompt, or without the start token
        new = generated[:, ids.shape[1] :] if self.decoder_only else generated[:, 1:]
        ends = torch.isin(new, torch.tensor(self._eos, device=new.device)).any(1).tolist()
        return [
            Text(text, end)
            for text, end in zip(
                self.tokenizer.batch_decode(new, skip_special_tokens=True), ends, strict=True
            )
        ]


def _load(checkpoint: Checkpoint, device: str, dtype: str) -> tuple[Any, Any]:
    """Tokenizer and model, complete and quiet: transformers would fill what is missing with random numbers
    and a warning.
    """
    before = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    safely: dict[str, Any] = {"trust_remote_code": False, "local_files_only": True}
    part = "tokenizer"
    try:
        tokenizer = AutoTokenizer.from_pretrained(checkpoint.path, **safely)
        part = "model"
        model, report = Blip2ForConditionalGeneration.from_pretrained(
            checkpoint.path,
            use_safetensors=True,
            dtype=DTYPES[dtype],
            ignore_mismatched_sizes=True,
            output_loading_info=True,
            **safely,
        )
        model.eval().to(device)
    except Exception as error:
        # of every kind: OSError, ValueError, KeyError, SafetensorError, a bare Exception of tokenizers, ...
        if out_of_memory(error):
            raise MemoryError(
                f"{checkpoint.model} in {dtype} does not fit into the memory of {device}: take --dtype bfloat16, another device or a smaller model"
            ) from error
        reason = f"{type(error).__name__}: {str(error).strip()}".splitlines()[0][:300]
        raise CheckpointError(
            f"the {part} of {checkpoint.path} cannot be loaded ({reason}): take a fresh, complete copy, or the versions that `captioner doctor` names"
        ) from error
    finally:
        transformers_logging.set_verbosity(before)
    mismatched = [key[0] for key in report["mismatched_keys"]]
    for what, keys in (
        ("lack", report["missing_keys"]),
        ("have other shapes than config.json says in", mismatched),
    ):
        if keys:
            raise CheckpointError(
                f"the weights of {checkpoint.path} {what} {len(keys)} tensors (first: {min(keys)}), captions would be random: take a fresh, complete copy"
            )
    return tokenizer, model


def _first_id(*candidates: Any) -> int:
    for candidate in candidates:
        if candidate is not None:
            return int(candidate[0] if isinstance(candidate, list) else candidate)
    raise CheckpointError("the checkpoint names no token that begins or ends a text")
