"""Greedy search: the most likely token, again and again, until each caption has ended.

`generate` of transformers does the same. This loop is faster: it stops computing captions that have ended,
and does little between two steps. Tests compare both, token for token. On a GPU, `graph.py` goes further.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import torch
from transformers import DynamicCache, EncoderDecoderCache

BROKEN = -1  # the first token of a caption whose scores are no numbers
# The share of the captions that must have ended before they are dropped, which costs a copy of the cache.
WORTH_DROPPING = 1 / 8


@dataclass(frozen=True)
class Ends:
    """When a caption ends: at one of `tokens`, but not before `minimum` and not after `maximum` new tokens.

    `pad` is the token that stands after the end.
    """

    tokens: tuple[int, ...]
    pad: int
    minimum: int
    maximum: int


class Steps(Protocol):
    """A language model that writes several captions at once, one token of each at a time.

    `first` and `next` return the scores of the next token, [captions, vocabulary]. After `keep`, only the
    captions of these indices are left.
    """

    def first(self) -> torch.Tensor: ...

    def next(self, tokens: torch.Tensor) -> torch.Tensor: ...

    def keep(self, indices: torch.Tensor) -> None: ...


def choose(
    scores: torch.Tensor, ends: torch.Tensor, may_end: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """The most likely tokens [captions], and whether a score is no number [captions].

    `scores` are [captions, vocabulary]. Where `may_end` (one boolean) is false, no token of `ends` is chosen.
    The scores are compared in float32, as `generate` does.
    """
    scores = scores.float()
    scores.index_copy_(1, ends, scores[:, ends].masked_fill(~may_end, -torch.inf))
    best, tokens = scores.max(-1)
    return tokens, best.isnan()


def positions(mask: torch.Tensor) -> torch.Tensor:
    """The position of each token among those that are no filling, whose own is 0; [captions, length]."""
    return (mask.cumsum(1) - 1).masked_fill(mask == 0, 0)


def write(steps: Steps, captions: int, ends: Ends) -> torch.Tensor:
    """The captions' tokens, int64 [captions, ends.maximum], on the CPU.

    A caption whose scores are no numbers begins with `BROKEN`.
    """
    written = torch.full((captions, ends.maximum), ends.pad)
    rows = torch.arange(captions)  # of `written`, which `steps` computes
    scores = steps.first()
    end_tokens = torch.tensor(ends.tokens, device=scores.device)
    open_ = torch.ones(captions, dtype=torch.bool)  # of these rows
    for i in range(ends.maximum):
        may_end = torch.tensor(i >= ends.minimum, device=scores.device)
        tokens, broken = (found.cpu() for found in choose(scores, end_tokens, may_end))
        written[rows[open_], i] = tokens[open_]
        written[rows[open_ & broken], 0] = BROKEN
        open_ &= ~(torch.isin(tokens, end_tokens.cpu()) | broken)
        if i + 1 == ends.maximum or not open_.any():
            break
        if (~open_).float().mean() >= WORTH_DROPPING:
            steps.keep(open_.nonzero().squeeze(1).to(scores.device))
            rows, tokens, open_ = rows[open_], tokens[open_], open_[open_]
        scores = steps.next(tokens.to(scores.device))
    return written


class DecoderSteps:
    """A language model that only has a decoder (OPT): pictures and prompts, then the new tokens.

    `embeddings` are [captions, length, width], `mask` is [captions, length], 0 where a prompt is filled up.
    """

    def __init__(self, model: Any, embeddings: torch.Tensor, mask: torch.Tensor):
        self._model, self._embeddings = model, embeddings
        self._positions = positions(mask)
        # Without a mask, the attention is faster.
        self._mask = None if bool(mask.all()) else mask
        self._cache = DynamicCache(config=model.config)

    def first(self) -> torch.Tensor:
        scores = self._scores(inputs_embeds=self._embeddings)
        self._positions = self._positions[:, -1:]
        return scores

    def next(self, tokens: torch.Tensor) -> torch.Tensor:
        self._positions = self._positions + 1
        if self._mask is not None:
            self._mask = torch.cat([self._mask, self._mask.new_ones(len(self._mask), 1)], 1)
        return self._scores(input_ids=tokens[:, None])

    def keep(self, indices: torch.Tensor) -> None:
        self._cache.batch_select_indices(indices)
        self._positions = self._positions[indices]
        self._mask = None if self._mask is None else self._mask[indices]

    def _scores(self, **given: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self._model(
            **given,
            attention_mask=self._mask,
            position_ids=self._positions,
            cache=self._cache,
            use_cache=True,
            logits_to_keep=1,
        ).logits
        return logits[:, -1]


class EncoderDecoderSteps:
    """A language model with an encoder (Flan-T5), which reads pictures and prompts, and a decoder.

    `embeddings` are [captions, length, width], `mask` is [captions, length], 0 where a prompt is filled up.
    """

    def __init__(self, model: Any, embeddings: torch.Tensor, mask: torch.Tensor):
        self._model, self._mask = model, mask
        self._read = model.encoder(inputs_embeds=embeddings, attention_mask=mask).last_hidden_state
        self._cache = EncoderDecoderCache(
            DynamicCache(config=model.config), DynamicCache(config=model.config)
        )

    def first(self) -> torch.Tensor:
        start = self._model.generation_config.decoder_start_token_id
        return self.next(torch.full((len(self._mask),), start, device=self._mask.device))

    def next(self, tokens: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self._model(
            encoder_outputs=(self._read,),
            attention_mask=self._mask,
            decoder_input_ids=tokens[:, None],
            cache=self._cache,
            use_cache=True,
        ).logits
        return logits[:, -1]

    def keep(self, indices: torch.Tensor) -> None:
        self._cache.batch_select_indices(indices)
        self._mask, self._read = self._mask[indices], self._read[indices]
