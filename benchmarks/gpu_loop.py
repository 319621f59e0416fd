"""A prototype of the fast path, to learn what it is worth: BLIP-2 with OPT, greedy, prompts of one length,
batches of one size.

Vision tower and Q-Former are one call; the picture's embeddings are put in place by us; the language model
runs in our own loop with one static cache that is reset; a decode step, choice of the token included, is
captured as a CUDA graph; whether all captions have ended is asked every few steps. With `ahead`, the next
batch's pictures are seen on a stream of their own while this one is decoded. Without a GPU the same loop
runs step by step, which proves that its tokens are `generate`'s.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import torch
from transformers import StaticCache


class Loop:
    """`blip2` is a loaded captioner.blip2.Blip2; `every`: steps between questions whether all captions have
    ended.
    """

    def __init__(
        self, blip2: Any, batch: int, minimum: int, maximum: int, *, graph: bool = True, every: int = 5
    ):
        self.blip2, self.model, self.language = blip2, blip2.model, blip2.model.language_model
        self.device, self.dtype = torch.device(blip2.device), blip2.model.dtype
        self.batch, self.minimum, self.maximum, self.every = batch, minimum, maximum, every
        ids = blip2.input_ids([""] * batch)[0].to(self.device)
        self.prompt = ids.shape[1]
        length = -(-(self.prompt + maximum) // 8) * 8  # attention's masks are fastest in steps of eight
        self.cache = StaticCache(config=self.model.config.text_config, max_cache_len=length)
        with torch.inference_mode():
            self.embeddings = self.model.get_input_embeddings()(ids)
            self.is_image = (ids == self.model.config.image_token_index).unsqueeze(-1)
            self.places = torch.arange(length, device=self.device)
            self.lowest = torch.full((), torch.finfo(self.dtype).min, dtype=self.dtype, device=self.device)
            self.zero = torch.zeros((), dtype=self.dtype, device=self.device)
            self.eos = torch.tensor(blip2.end_tokens, device=self.device)
            self.pad = torch.tensor(blip2.pad_token, device=self.device)
            self.tokens = torch.empty((batch, maximum), dtype=torch.long, device=self.device)
            self.token = torch.zeros((batch, 1), dtype=torch.long, device=self.device)
            self.finished = torch.zeros(batch, dtype=torch.bool, device=self.device)
            self.count = torch.zeros(1, dtype=torch.long, device=self.device)
            self.position = torch.zeros(1, dtype=torch.long, device=self.device)
        self.graph: Any = None
        if graph and self.device.type == "cuda":
            self._capture()

    @torch.inference_mode()
    def see(self, pixels: torch.Tensor) -> torch.Tensor:
        """uint8 [batch, height, width, 3] on the device -> what the language model sees, [batch, queries,
        width].
        """
        values = pixels.to(torch.float32)
        values = (values * self.blip2.preprocessing["scale"] - self.blip2._mean) / self.blip2._std
        values = values.permute(0, 3, 1, 2).contiguous().to(self.dtype)
        seen: torch.Tensor = self.model.get_image_features(values).pooler_output
        return seen

    @torch.inference_mode()
    def start(self, seen: torch.Tensor) -> None:
        """Fills the cache with pictures and prompts and chooses the first tokens."""
        for layer in self.cache.layers:
            if layer.is_initialized:
                layer.cumulative_length.zero_()  # what lies behind it is never looked at
        self.tokens.copy_(self.pad.expand_as(self.tokens))
        for state in (self.finished, self.count):
            state.zero_()
        self.position.fill_(self.prompt)
        places = self.places[: self.prompt]
        mask = torch.where(self.places[None, :] <= places[:, None], self.zero, self.lowest)
        logits = self.language(
            inputs_embeds=self.embeddings.masked_scatter(self.is_image, seen.to(self.dtype)),
            attention_mask=mask[None, None].expand(self.batch, 1, -1, -1),
            position_ids=places[None].expand(self.batch, -1),
            cache=self.cache,
            use_cache=True,
            logits_to_keep=1,
        ).logits
        self._choose(logits[:, -1])

    @torch.inference_mode()
    def step(self) -> None:
        """One more token for each caption; nothing in it waits for the device."""
        mask = torch.where(self.places <= self.position, self.zero, self.lowest)
        logits = self.language(
            input_ids=self.token,
            attention_mask=mask[None, None, None].expand(self.batch, 1, 1, -1),
            position_ids=self.position.expand(self.batch, 1),
            cache=self.cache,
            use_cache=True,
        ).logits
        self.position.add_(1)
        self._choose(logits[:, -1])

    def _choose(self, logits: torch.Tensor) -> None:
        scores = logits.float()
        too_soon = (self.count < self.minimum).expand(len(scores), len(self.eos))
        scores.index_copy_(1, self.eos, scores[:, self.eos].masked_fill(too_soon, -torch.inf))
        token = torch.where(self.finished, self.pad, scores.argmax(-1))
        self.tokens.index_copy_(1, self.count, token[:, None])
        self.finished.logical_or_((token[:, None] == self.eos).any(1))
        self.token.copy_(token[:, None])
        self.count.add_(1)

    @torch.inference_mode()
    def run(self, seen: torch.Tensor) -> torch.Tensor:
        """Token ids [batch, maximum], padded after the end of a caption."""
        self.start(seen)
        for i in range(1, self.maximum):
            if i >= self.minimum and i % self.every == 0 and bool(self.finished.all()):
                break
            self.step() if self.graph is None else self.graph.replay()
        return self.tokens

    @torch.inference_mode()
    def _capture(self) -> None:
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            queries = self.model.config.num_query_tokens
            width = self.model.config.text_config.hidden_size
            self.start(torch.zeros((self.batch, queries, width), dtype=self.dtype, device=self.device))
            for _ in range(3):
                self.step()
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            self.step()
        self.graph = graph


@torch.inference_mode()
def images_per_second(loop: Loop, pixels: Sequence[torch.Tensor], *, ahead: bool = False) -> float:
    """Batches of uint8 pixels on the host (pinned, where there is a GPU) to token ids on the host."""
    cuda = loop.device.type == "cuda"
    copied = [p.to(loop.device) for p in pixels[:1]]
    loop.run(loop.see(copied[0])).cpu()
    if cuda:
        torch.cuda.synchronize()
    began = time.perf_counter()
    if not (cuda and ahead):
        for batch in pixels:
            loop.run(loop.see(batch.to(loop.device, non_blocking=True))).cpu()
        return sum(map(len, pixels)) / (time.perf_counter() - began)
    main, aside = torch.cuda.current_stream(), torch.cuda.Stream()

    def look(batch: torch.Tensor) -> tuple[torch.Tensor, torch.cuda.Event]:
        with torch.cuda.stream(aside):
            seen = loop.see(batch.to(loop.device, non_blocking=True))
            seen.record_stream(main)
            return seen, aside.record_event()

    following = look(pixels[0])
    for i in range(len(pixels)):
        seen, when = following
        main.wait_event(when)
        if i + 1 < len(pixels):
            following = look(pixels[i + 1])
        loop.run(seen).cpu()
    return sum(map(len, pixels)) / (time.perf_counter() - began)
