"""Greedy search on a GPU: memory that stays in its place, and each step as one CUDA graph.

A step of a language model is hundreds of small kernels. To start them one by one takes the interpreter longer
than the GPU needs to compute them. A CUDA graph starts all of them at once, but computes with the same
addresses and shapes each time: so there is one cache for each shape of a batch, and a batch that is too small
is filled up. The host never waits for the step that runs: it asks whether all captions have ended two chunks
later.
"""

from __future__ import annotations

from collections import deque
from typing import Any

import torch
from transformers import StaticCache

from .greedy import BROKEN, Ends, choose, positions

_CHUNK = 2  # steps between two questions whether all captions have ended
_KEPT = 2  # shapes whose memory is kept
_ROUND = 8  # attention's masks are fastest in steps of eight places


class Graphs:
    """Writes captions with a language model that only has a decoder (OPT), by graphs of one shape each."""

    def __init__(self, model: Any):
        self._model = model
        self._shapes: dict[tuple[int, int, int], _Shape] = {}  # the shape that was used last stands last
        self._current: Writing | None = None  # what was begun last
        self.attention_is_ours = _use_our_attention(model)

    def begin(self, embeddings: torch.Tensor, mask: torch.Tensor, ends: Ends) -> Writing:
        """Begins to write captions; `Writing.tokens` has them, as `greedy.write` returns them.

        `embeddings` are [captions, length, width], `mask` is [captions, length], 0 where a prompt is filled
        up.
        """
        if self._current is not None:
            self._current.end()  # two batches of one shape share its memory
        captions = len(embeddings)
        try:
            shape = self._shape(captions, embeddings.shape[1], ends)
            if missing := shape.captions - captions:
                embeddings = torch.cat([embeddings, embeddings[-1:].expand(missing, -1, -1)])
                mask = torch.cat([mask, mask[-1:].expand(missing, -1)])
            shape.begin(embeddings, mask, ends)
        except (RuntimeError, MemoryError):
            self.forget()  # if memory ran out, a smaller shape needs this memory
            raise
        self._current = Writing(self, shape, captions)
        return self._current

    def forget(self) -> None:
        """Frees the memory of all shapes."""
        self._shapes.clear()
        self._current = None

    def _shape(self, captions: int, prompt: int, ends: Ends) -> _Shape:
        """The smallest shape that there is and that has room, or a new one."""
        asked = captions, prompt, ends.maximum
        fitting = [key for key in self._shapes if key[0] >= captions and key[1:] == asked[1:]]
        # A batch that is smaller than the one before is the last one, or one of many prompts.
        key = min(fitting, default=asked) if asked not in self._shapes else asked
        shape = self._shapes.pop(key, None)
        if shape is None:
            while len(self._shapes) >= _KEPT:
                self._shapes.pop(next(iter(self._shapes)))
            shape = _Shape(self._model, *key, self.attention_is_ours)
        self._shapes[key] = shape
        return shape


def _use_our_attention(model: Any) -> bool:
    if next(model.parameters()).device.type != "cuda":
        return False
    try:
        from .decode_attention import use
    except ImportError:  # torch comes with triton on Linux alone
        return False
    use(model)
    return True


class Writing:
    """Captions of one batch that are being written."""

    def __init__(self, graphs: Graphs, shape: _Shape, captions: int):
        self._graphs, self._shape, self._captions = graphs, shape, captions
        self._tokens: torch.Tensor | None = None
        self._error: Exception | None = None

    def end(self) -> None:
        """Waits until all captions have ended. An error is raised by `tokens`."""
        if self._tokens is not None or self._error is not None:
            return
        try:
            self._tokens = self._shape.end()[: self._captions]
        except (RuntimeError, MemoryError) as error:
            self._error = error
            self._graphs.forget()

    def tokens(self) -> torch.Tensor:
        """Int64 [captions, longest], on the CPU; see `greedy.write`."""
        self.end()
        if self._tokens is None:
            assert self._error is not None
            raise self._error
        return self._tokens


class _Shape:
    """Memory and graph for batches of one shape."""

    def __init__(self, model: Any, captions: int, prompt: int, maximum: int, ours: bool):
        self.captions, self._prompt, self._maximum = captions, prompt, maximum
        self._model, self._ours = model, ours
        self._device = next(model.parameters()).device
        self._places = -(-(prompt + maximum) // _ROUND) * _ROUND
        self._cache = StaticCache(config=model.config, max_cache_len=self._places)
        self._graph: Any = None
        self._batches, self._steps = 0, 0
        self._questions: deque[_Question] = deque()
        of = {"device": self._device}
        self._visible = torch.zeros((captions, self._places), dtype=torch.bool, **of)
        self._positions = torch.zeros((captions, 1), dtype=torch.long, **of)
        self._place = torch.zeros(1, dtype=torch.long, **of)
        self._minimum = torch.zeros((), dtype=torch.long, **of)
        self._written = torch.zeros(1, dtype=torch.long, **of)  # tokens so far
        self._token = torch.zeros(captions, dtype=torch.long, **of)
        self._tokens = torch.zeros((captions, maximum), dtype=torch.long, **of)
        self._ended = torch.zeros(captions, dtype=torch.bool, **of)
        self._broken = torch.zeros(captions, dtype=torch.bool, **of)
        self._pad = torch.zeros((), dtype=torch.long, **of)
        self._end_tokens: torch.Tensor | None = None

    def begin(self, embeddings: torch.Tensor, mask: torch.Tensor, ends: Ends) -> None:
        """Gives the device the prompts and the first steps, at least to where captions may end.

        It waits for nothing.
        """
        if self._end_tokens is None:  # a model has the same ones always
            self._end_tokens = torch.tensor(ends.tokens, device=self._device)
        self._minimum.fill_(ends.minimum)
        self._pad.fill_(ends.pad)
        self._begin(embeddings, mask)
        # The first batch of a shape warms it up; a shape that is used again is worth a graph.
        if self._batches == 1 and self._device.type == "cuda":
            self._record()
        self._batches += 1
        self._steps = 1
        self._questions.clear()
        self._step_on(min(max(ends.minimum, 1 + _CHUNK), self._maximum) - 1)

    def end(self) -> torch.Tensor:
        """Goes on until all captions have ended; their tokens."""
        while self._steps < self._maximum:
            self._questions.append(_Question(self._ended))
            self._step_on(min(_CHUNK, self._maximum - self._steps))
            # The device has a chunk to do while the host waits for the answer to an earlier question.
            if len(self._questions) > 1 and self._questions.popleft().answer():
                break
        tokens = self._tokens.masked_fill(self._broken[:, None], BROKEN).cpu()
        if bool((tokens == BROKEN).any()):
            # What is no number stays one, even where nobody may look: the next batch would get it.
            for layer in self._cache.layers:
                layer.keys.zero_()
                layer.values.zero_()
        return tokens

    def _step_on(self, steps: int) -> None:
        for _ in range(steps):
            self._step() if self._graph is None else self._graph.replay()
        self._steps += steps

    def _begin(self, embeddings: torch.Tensor, mask: torch.Tensor) -> None:
        """Fills the cache with pictures and prompts, and chooses the first tokens."""
        for layer in self._cache.layers:
            if layer.is_initialized:
                layer.cumulative_length.zero_()  # what lies behind it is not visible
        for state in (self._written, self._ended, self._broken, self._visible):
            state.zero_()
        self._visible[:, : self._prompt] = mask.bool()
        self._tokens.copy_(self._pad.expand_as(self._tokens))
        self._place.fill_(self._prompt)
        at = positions(mask)
        self._positions.copy_(at[:, -1:] + 1)
        places = torch.arange(self._places, device=self._device)
        earlier = places[None, :] <= places[: self._prompt, None]
        # A place that is filled up sees itself, because a row without any visible place gives NaN.
        itself = places[None, :] == places[: self._prompt, None]
        look = (self._visible[:, None, :] & earlier) | itself
        logits = self._model(
            inputs_embeds=embeddings,
            attention_mask=look[:, None],
            position_ids=at,
            cache=self._cache,
            use_cache=True,
            logits_to_keep=1,
        ).logits
        self._take(logits[:, -1])

    def _step(self) -> None:
        """One more token of each caption; nothing in it waits for the device, and no address changes."""
        self._visible.index_fill_(1, self._place, True)
        logits = self._model(
            input_ids=self._token[:, None],
            attention_mask=self._visible[:, None, None],
            position_ids=self._positions,
            cache=self._cache,
            use_cache=True,
            **({"visible": self._visible} if self._ours else {}),
        ).logits
        self._place.add_(1)
        self._positions.add_(1)
        self._take(logits[:, -1])

    def _take(self, scores: torch.Tensor) -> None:
        assert self._end_tokens is not None
        tokens, broken = choose(scores, self._end_tokens, self._written >= self._minimum)
        tokens = torch.where(self._ended, self._pad, tokens)
        self._broken.logical_or_(broken & ~self._ended)
        self._tokens.index_copy_(1, self._written, tokens[:, None])
        self._ended.logical_or_((tokens[:, None] == self._end_tokens).any(1)).logical_or_(broken)
        self._token.copy_(tokens)
        self._written.add_(1)

    def _record(self) -> None:
        """Records a step as a graph. Its states are those after the prompt, and are put back."""
        states = (
            self._visible, self._positions, self._place, self._written,
            self._token, self._tokens, self._ended, self._broken,
            *(layer.cumulative_length for layer in self._cache.layers),
        )  # fmt: skip
        before = [state.clone() for state in states]
        self._step()
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=torch.cuda.current_stream()):
            self._step()
        self._graph = graph
        for state, old in zip(states, before, strict=True):
            state.copy_(old)


class _Question:
    """Whether all captions have ended, asked without waiting for the device."""

    def __init__(self, ended: torch.Tensor):
        everything = ended.all()
        self._event: Any = None
        if not everything.is_cuda:
            self._answer = everything
            return
        self._answer = torch.empty((), dtype=torch.bool, pin_memory=True)
        self._answer.copy_(everything, non_blocking=True)
        self._event = torch.cuda.Event()  # type: ignore[no-untyped-call]
        self._event.record()

    def answer(self) -> bool:
        if self._event is not None:
            self._event.synchronize()
        return bool(self._answer)
