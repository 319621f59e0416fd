"""BLIP-2 in transformers: loads a checkpoint safely and writes captions for a batch of pictures.

These points are easy to get wrong. Tests cover each of them:

- The input ids are built here, not by the processor of transformers.
- A decoder-only language model (OPT) returns the image tokens and the prompt before the new tokens. An
  encoder-decoder (Flan-T5) returns the new tokens only.
- Prompts of different length are padded to the same length: for OPT between the image tokens and the prompt,
  for Flan-T5 at the end.
- `generate` does not use the generation_config of the whole model, so every decoding parameter is passed.

Greedy search is a loop of our own (`greedy.py`, on a GPU `graph.py`); every other way is `generate`'s.
"""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image

os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
# Only the classes that are needed: a star import and AutoProcessor print pages of warnings.
from transformers import AutoTokenizer, Blip2ForConditionalGeneration
from transformers.utils import logging as transformers_logging

from .blip2_layout import filled_in
from .checkpoint import Checkpoint, CheckpointError
from .greedy import BROKEN, DecoderSteps, EncoderDecoderSteps, Ends, write
from .model import Decoding, Text, out_of_memory
from .preprocessing import read_preprocessing

if TYPE_CHECKING:
    from .graph import Graphs

_PROMPTS_KEPT = 1024  # prompts whose tokens are remembered
# T5 has relative positions and takes prompts of any length. This bound only limits the memory.
_T5_POSITIONS = 2048
NO_NUMBERS = "the model computed no numbers (NaN) for it; try the dtype float32"
_LAYER = re.compile(r".*?\.(layers?|block)\.\d+\.")  # what the name of a layer's tensor begins with
_MAX_CHARS_PER_TOKEN = 64  # a prompt with more characters per position is too long for certain


@dataclass(frozen=True)
class Seen:
    """What the language model gets of pictures, [batch, queries, width].

    On a GPU, `event` happens when it has been computed.
    """

    features: torch.Tensor
    event: Any = None


class Blip2:
    """A loaded BLIP-2 checkpoint; implements `CaptionModel`.

    Raises CheckpointError if the checkpoint cannot be loaded or used, MemoryError if it does not fit into
    memory.
    """

    def __init__(self, checkpoint: Checkpoint, device: str = "cpu", dtype: str = "float32"):
        self.ahead = 0 if device == "cpu" else 2
        self.checkpoint, self.device, self.dtype = checkpoint, device, dtype
        self.name = checkpoint.name
        self.preprocessing = read_preprocessing(checkpoint)
        self.picture_size = self.preprocessing["width"], self.preprocessing["height"]
        self.resample = Image.Resampling[self.preprocessing["resample"].upper()]
        self.tokenizer, self.model = _load(checkpoint, device, dtype)
        config = self.model.config
        self.decoder_only = bool(config.use_decoder_only_language_model)
        self._image_token, self._queries = int(config.image_token_index), int(config.num_query_tokens)
        self._check_vocabulary()
        self._choose_special_tokens()
        self._positions = getattr(config.text_config, "max_position_embeddings", None) or _T5_POSITIONS
        shape = (1, 1, 1, 3)
        self._mean = torch.tensor(self.preprocessing["mean"], dtype=torch.float32, device=device).view(shape)
        self._std = torch.tensor(self.preprocessing["std"], dtype=torch.float32, device=device).view(shape)
        self._prompt_ids = functools.lru_cache(_PROMPTS_KEPT)(self._tokenize)
        # The first call changes the padding settings of the tokenizer. It must happen before threads share
        # it.
        self._prompt_ids("")
        self._graphs: Graphs | None = None
        self._stream: Any = None  # of the words, on a GPU
        if device.startswith("cuda"):
            self._stream = torch.cuda.Stream(device, priority=-1)  # type: ignore[no-untyped-call]
        if device.startswith("cuda") and self.decoder_only:
            from .graph import Graphs

            self._graphs = Graphs(self.model.language_model)

    def _check_vocabulary(self) -> None:
        """Raises CheckpointError if tokens have no row in the table of the language model."""
        vocabulary = self.model.get_input_embeddings().num_embeddings
        path = self.checkpoint.path
        if self._image_token >= vocabulary:
            raise CheckpointError(
                f"{path} has image_token_index {self._image_token} (as its config.json says, or else the "
                f"first id after its tokenizer's), but the language model has {vocabulary} tokens: correct it"
            )
        if max(self.tokenizer.get_vocab().values()) >= vocabulary:
            raise CheckpointError(
                f"the tokenizer of {path} has more tokens than its language model ({vocabulary}): the files "
                "are of two models, take a fresh copy"
            )

    def _choose_special_tokens(self) -> None:
        """The ids of the tokens that begin, end and fill up a text.

        Checkpoints state them in several files. Any of the stated end tokens ends a caption.
        """
        text = self.model.config.text_config
        stated = (
            self.model.generation_config.eos_token_id,
            self.model.language_model.generation_config.eos_token_id,
            text.eos_token_id,
            self.tokenizer.eos_token_id,
        )
        lists = (ids if isinstance(ids, list) else [ids] for ids in stated if ids is not None)
        self.end_tokens = sorted({i for ids in lists for i in ids})
        self._end = _first_id(self.tokenizer.eos_token_id, text.eos_token_id)
        self._begin = _first_id(text.bos_token_id, self.tokenizer.bos_token_id, self._end)
        self.pad_token = _first_id(text.pad_token_id, self.tokenizer.pad_token_id, self._end)

    @property
    def details(self) -> str:
        parameters = sum(parameter.numel() for parameter in self.model.parameters())
        kind = "decoder-only" if self.decoder_only else "encoder-decoder"
        return (
            f"{parameters / 1e6:,.1f} million parameters, {self._queries} image tokens, {kind} language model"
        )

    def prompt_fits(self, prompt: str, decoding: Decoding) -> bool:
        """Whether image tokens, prompt and new tokens fit into the positions of the language model."""
        if len(prompt) > _MAX_CHARS_PER_TOKEN * self._positions:  # saves the tokenizer's time
            return False
        return self._queries + len(self._prompt_ids(prompt)) + decoding.max_new_tokens <= self._positions

    def _tokenize(self, prompt: str) -> list[int]:
        """The ids of a prompt, with the token that begins (OPT) or ends (T5) a text, as in Blip2Processor.

        Without a prompt the result is the beginning token alone, as in `generate`.
        """
        ids = self.tokenizer(prompt, add_special_tokens=False, verbose=False)["input_ids"]
        # A prompt of a pin may contain the word "<image>". It must not count as a picture.
        ids = [i for i in ids if i != self._image_token]
        return [*ids, self._end] if ids and not self.decoder_only else [self._begin, *ids]

    def input_ids(self, prompts: Sequence[str]) -> tuple[torch.Tensor, torch.Tensor]:
        """Token ids and attention mask, int64 [batch, image tokens + longest prompt], on the CPU."""
        texts = [self._prompt_ids(prompt) for prompt in prompts]
        longest = max(map(len, texts))
        rows, masks = [], []
        for ids in texts:
            pad, image = longest - len(ids), self._queries
            if self.decoder_only:  # the prompt must stand next to the new tokens
                rows.append([self._image_token] * image + [self.pad_token] * pad + ids)
                masks.append([1] * image + [0] * pad + [1] * len(ids))
            else:
                rows.append([self._image_token] * image + ids + [self.pad_token] * pad)
                masks.append([1] * (image + len(ids)) + [0] * pad)
        return torch.tensor(rows), torch.tensor(masks)

    def pixel_values(self, pictures: Sequence[np.ndarray] | np.ndarray) -> torch.Tensor:
        """Normalises uint8 pictures [batch, height, width, 3] as BlipImageProcessor does.

        The result is float32 [batch, 3, height, width], on the device of the model.
        """
        pixels = self._on_device(pictures).to(torch.float32)
        normal: torch.Tensor = (pixels * self.preprocessing["scale"] - self._mean) / self._std
        return normal.permute(0, 3, 1, 2).contiguous()

    def _on_device(self, pictures: Sequence[np.ndarray] | np.ndarray) -> torch.Tensor:
        if self.device == "cpu":
            return torch.from_numpy(np.asarray(pictures))
        # A copy from pinned memory does not wait for what the GPU computes at the moment.
        pinned = torch.empty((len(pictures), *pictures[0].shape), dtype=torch.uint8, pin_memory=True)
        np.stack(list(pictures), out=pinned.numpy())
        return pinned.to(self.device, non_blocking=True)

    def begin(
        self, pictures: Sequence[np.ndarray] | np.ndarray, prompts: Sequence[str], decoding: Decoding
    ) -> Batch:
        """Begins to caption `pictures` (RGB, uint8 [height, width, 3]).

        A text continues the prompt of its picture. On a GPU this returns before the pictures are seen.
        """
        return Batch(self, self.see(pictures), prompts, decoding)

    def caption(
        self, pictures: Sequence[np.ndarray] | np.ndarray, prompts: Sequence[str], decoding: Decoding
    ) -> list[Text]:
        """Writes a text about each of `pictures`; see `begin`."""
        return self.begin(pictures, prompts, decoding).texts()

    @torch.inference_mode()
    def see(self, pictures: Sequence[np.ndarray] | np.ndarray) -> Seen:
        """Runs the vision tower and the Q-Former on pictures (RGB, uint8 [height, width, 3])."""
        pixels = self.pixel_values(pictures).to(_torch_dtype(self.dtype))
        features: torch.Tensor = self.model.get_image_features(pixels).pooler_output
        if not features.is_cuda:
            return Seen(features)
        return Seen(features, torch.cuda.current_stream().record_event())

    def write(self, seen: Seen, prompts: Sequence[str], decoding: Decoding) -> torch.Tensor:
        """The new tokens [batch, any] on the CPU; a row that begins with `BROKEN` is no text."""
        return self.start(seen, prompts, decoding)()

    def start(self, seen: Seen, prompts: Sequence[str], decoding: Decoding) -> Callable[[], torch.Tensor]:
        """Starts to `write`, if the device can do that by itself, and returns a function that ends it."""
        with self._words():
            ids, mask = (tensor.to(self.device) for tensor in self.input_ids(prompts))
            if seen.event is not None:
                self._stream.wait_event(seen.event)
            embeddings = self.model.get_input_embeddings()(ids)
            of_pictures = (ids == self._image_token).unsqueeze(-1)
            embeddings = embeddings.masked_scatter(of_pictures, seen.features.to(embeddings.dtype))
            minimum = min(decoding.min_new_tokens, decoding.max_new_tokens)
            ends = Ends(tuple(self.end_tokens), self.pad_token, minimum, decoding.max_new_tokens)
            if not decoding.is_greedy:
                end: Callable[[], torch.Tensor] = functools.partial(
                    self._generate, ids, embeddings, mask, decoding
                )
            elif self._graphs is not None:
                end = self._graphs.begin(embeddings, mask, ends).tokens
            else:
                kind = DecoderSteps if self.decoder_only else EncoderDecoderSteps
                end = functools.partial(_greedy, kind, self.model.language_model, embeddings, mask, ends)

        def in_place() -> torch.Tensor:
            with self._words():
                return end()

        return in_place

    @contextmanager
    def _words(self) -> Iterator[None]:
        """Where words are computed: on a GPU in a stream of their own, before the other in priority.

        So the GPU sees the next pictures whenever it would wait for the host or for memory.
        """
        with torch.inference_mode(), torch.cuda.stream(self._stream) if self._stream else nullcontext():
            yield

    def _generate(
        self, ids: torch.Tensor, embeddings: torch.Tensor, mask: torch.Tensor, decoding: Decoding
    ) -> torch.Tensor:
        """As `write`, by `generate` of transformers, which knows every way to decode."""
        generated = self.model.language_model.generate(
            inputs_embeds=embeddings,
            attention_mask=mask,
            eos_token_id=self.end_tokens,
            pad_token_id=self.pad_token,
            **({"input_ids": ids} if self.decoder_only else {}),
            **decoding.parameters(),
        )
        # OPT returns what it was given before the new tokens, T5 one token that starts the text.
        new: torch.Tensor = generated[:, ids.shape[1] :] if self.decoder_only else generated[:, 1:]
        return new.cpu()

    def texts(self, tokens: torch.Tensor) -> list[Text]:
        """The texts of tokens that `write` returned."""
        finished = torch.isin(tokens, torch.tensor(self.end_tokens)).any(1).tolist()
        broken = (tokens[:, 0] == BROKEN).tolist()
        texts = self.tokenizer.batch_decode(tokens.clamp(min=0), skip_special_tokens=True)
        return [
            Text("", reason=NO_NUMBERS) if is_broken else Text(text, is_finished)
            for text, is_finished, is_broken in zip(texts, finished, broken, strict=True)
        ]


class Batch:
    """A batch that has begun: its pictures are seen, its words are not written yet. Implements `Begun`."""

    def __init__(self, model: Blip2, seen: Seen, prompts: Sequence[str], decoding: Decoding):
        self._model, self._given = model, (seen, prompts, decoding)
        self._tokens: Callable[[], torch.Tensor] | None = None  # waits for them

    def start(self) -> None:
        if self._tokens is None:
            self._tokens = self._model.start(*self._given)

    def texts(self) -> list[Text]:
        self.start()
        assert self._tokens is not None
        return self._model.texts(self._tokens())


def _greedy(kind: Any, model: Any, embeddings: torch.Tensor, mask: torch.Tensor, ends: Ends) -> torch.Tensor:
    return write(kind(model, embeddings, mask), len(embeddings), ends)


def _torch_dtype(name: str) -> torch.dtype:
    return {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}[name]


def _load(checkpoint: Checkpoint, device: str, dtype: str) -> tuple[Any, Any]:
    """Loads tokenizer and model without a word on the terminal, and makes sure that no weight is missing.

    For a missing weight, transformers would take random numbers and print a warning.
    """
    before = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    safely: dict[str, Any] = {"trust_remote_code": False, "local_files_only": True}
    part = "tokenizer"
    try:
        tokenizer = AutoTokenizer.from_pretrained(checkpoint.path, **safely)
        part = "model"
        # The id of <image>, or the first one that no token has; only older checkpoints need it.
        image_token = tokenizer.get_vocab().get("<image>", len(tokenizer))
        model, report = Blip2ForConditionalGeneration.from_pretrained(
            checkpoint.path,
            use_safetensors=True,
            dtype=_torch_dtype(dtype),
            ignore_mismatched_sizes=True,
            output_loading_info=True,
            **filled_in(checkpoint, image_token),
            **safely,
        )
        model.eval().to(device)
    except Exception as error:
        # Broken files raise errors of many kinds: OSError, ValueError, KeyError, SafetensorError, and from
        # the tokenizers a bare Exception.
        if out_of_memory(error):
            raise MemoryError(
                f"{checkpoint.name} in {dtype} does not fit into the memory of {device}: take the dtype "
                "bfloat16, another device or a smaller model"
            ) from error
        reason = f"{type(error).__name__}: {str(error).strip()}".splitlines()[0][:300]
        raise CheckpointError(
            f"the {part} of {checkpoint.path} cannot be loaded ({reason}): take a fresh, complete copy, or "
            "the versions that `captioner doctor` names"
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
                f"the weights of {checkpoint.path} {what} {len(keys)} tensors (first: {min(keys)}), captions "
                "would be random: take a fresh, complete copy"
            )
    # Parts that config.json does not ask for: the captions would be those of a smaller model.
    built = {found[0] for key in model.state_dict() if (found := _LAYER.match(key))}
    layers = [
        key for key in report["unexpected_keys"] if (found := _LAYER.match(key)) and found[0] not in built
    ]
    if layers:
        raise CheckpointError(
            f"the weights of {checkpoint.path} have {len(layers)} tensors of layers that config.json does "
            f"not have (first: {min(layers)}): the files are of two models, take a fresh, complete copy"
        )
    return tokenizer, model


def _first_id(*candidates: Any) -> int:
    """The first of the candidates that is an id, or a list of ids, and not None."""
    for candidate in candidates:
        if candidate is not None:
            return int(candidate[0] if isinstance(candidate, list) else candidate)
    raise CheckpointError("the checkpoint names no token that begins or ends a text")
