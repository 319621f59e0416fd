"""The loss of OmniSearchSage: sampled softmax over in-batch and random negatives, with logQ correction.

The more popular an item is, the more often it is in a batch. Without a correction the model would learn log
P(item | query) / P(item). The correction subtracts log Q from every logit, that of the positive too, and the
model learns log P(item | query) (Yi et al. 2019). A count-min sketch counts how popular items are, batch by
batch.

An item counts once among the candidates, however often the batch has it. So Q is the probability that the
batch contains the item at all. For rare items that is their popularity times a constant. For popular items
only this Q makes the loss exact. If each occurrence counted, and the other occurrences of the positive were
left out, popular positives would get too little weight (tests/test_embed/test_loss.py simulates it).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import nn

from .distributed import gather_rows, process_rank
from .sketch import CountMinSketch

TEMPERATURE, LEAST_TEMPERATURE, MOST_TEMPERATURE = 0.07, 0.01, 1.0  # at the start, and its bounds

Correction = Literal["popularity", "conditional", "none"]


@dataclass(frozen=True)
class LossOptions:
    """Options of a Loss. `conditional` and `mask_known` were worse in a simulation (docs/embed.md)."""

    dims: dict[int, float]  # {length of an embedding: weight of its loss} (Matryoshka)
    # What is subtracted from the logit of a positive: the log of the item's own Q, or log P(item | query) as
    # in the paper, or nothing. "none" turns the correction off for the negatives, too.
    correction: Correction = "popularity"
    mask_known: bool = False  # leaves the other known positives of a query out of its candidates
    sketch_width: int = 2**22


def sampled_softmax(
    logits: torch.Tensor,
    positive: torch.Tensor,
    *,
    log_q: torch.Tensor | None = None,
    log_q_positive: torch.Tensor | None = None,
    left_out: torch.Tensor | None = None,
) -> torch.Tensor:
    """Losses [queries] of logits [queries, candidates].

    `positive` [queries] is the number of the right candidate.
    `log_q` [candidates], logs of sampling probabilities, is subtracted from the logits. `log_q_positive`
    [queries] replaces it for the right candidates. `left_out` [queries, candidates] says which candidates do
    not count. The right one always counts.
    """
    if log_q is not None:
        logits = logits - log_q
        if log_q_positive is not None:
            logits = logits.scatter_add(1, positive[:, None], (log_q[positive] - log_q_positive)[:, None])
    if left_out is not None:
        logits = logits.masked_fill(left_out.scatter(1, positive[:, None], False), -torch.inf)
    return F.cross_entropy(logits, positive, reduction="none")


def repeated(keys: torch.Tensor) -> torch.Tensor:
    """[n] whether each of the keys [n] occurs earlier in `keys` as well."""
    _, number = torch.unique(keys, return_inverse=True)
    place = torch.arange(len(keys), device=keys.device)
    first = torch.full_like(place, len(keys)).scatter_reduce(0, number, place, "amin")
    return first[number] != place


class Counts(nn.Module):
    """How often the items of a task were drawn so far.

    With the correction "conditional" its queries and pairs are counted, too. With "none" nothing is counted.
    """

    def __init__(self, options: LossOptions):
        super().__init__()
        kinds = {"none": (), "popularity": ("item",), "conditional": ("item", "query", "pair")}[
            options.correction
        ]
        self.sketches = nn.ModuleDict(
            {kind: CountMinSketch(options.sketch_width, seed=seed) for seed, kind in enumerate(kinds)}
        )

    def add(self, query_keys: torch.Tensor, positive_keys: torch.Tensor) -> None:
        """Counts the pairs of one step, those of all processes. Call it once a step, before the loss."""
        if self.sketches:
            positive_keys, query_keys = gather_rows(positive_keys), gather_rows(query_keys)
            keys = {"item": positive_keys, "query": query_keys, "pair": pair_keys(query_keys, positive_keys)}
            for kind, sketch in self.sketches.items():
                sketch.add(keys[kind])  # type: ignore[operator]

    def of(self, kind: str) -> CountMinSketch:
        """The sketch of one kind: "item", "query" or "pair"."""
        sketch = self.sketches[kind]
        assert isinstance(sketch, CountMinSketch)
        return sketch


class Loss(nn.Module):
    """The loss of one task. Its state is the learned temperature and the counts."""

    def __init__(self, options: LossOptions, known: torch.Tensor | None = None, counts: Counts | None = None):
        """`known`: query * 2^32 + item of all positives, ascending; needed for `mask_known`.

        `counts`: those of another loss on the same pairs, to share them. Then only that loss's owner adds to
        them.
        """
        super().__init__()
        self.options = options
        self.log_temperature = nn.Parameter(torch.tensor(TEMPERATURE).log())
        self.counts = counts or Counts(options)
        self.register_buffer("known", known if options.mask_known else None, persistent=False)

    @property
    def temperature(self) -> torch.Tensor:
        """Logits are divided by it. It is learned, between 0.01 and 1."""
        return self.log_temperature.exp().clamp(LEAST_TEMPERATURE, MOST_TEMPERATURE)

    def forward(
        self,
        queries: torch.Tensor,
        query_keys: torch.Tensor,
        positives: torch.Tensor,
        positive_keys: torch.Tensor,
        negatives: torch.Tensor,
        negative_keys: torch.Tensor,
        *,
        has: tuple[torch.Tensor, torch.Tensor] | None = None,
        dims: Sequence[int] | None = None,
    ) -> torch.Tensor:
        """The mean loss of this process's pairs: in-batch plus random negatives, over all lengths.

        Embeddings are [n, dim], of length 1; keys are int64 [n]. `has` says which positives [n] and negatives
        [n] have an embedding at all: not every item has a fixed vector. `dims` replaces the lengths of the
        options.
        """
        n, start = len(queries), process_rank() * len(queries)
        positive = torch.arange(start, start + n, device=queries.device)
        keys, negative_keys = gather_rows(positive_keys), gather_rows(negative_keys)
        all_positives, all_negatives = gather_rows(positives), gather_rows(negatives)

        # Which candidates do not count: other occurrences of the positive, repetitions, ...
        batch_left_out = (keys[None] == positive_keys[:, None]) | repeated(keys)[None]
        random_keys = torch.cat([positive_keys[:, None], negative_keys[None].expand(n, -1)], 1)
        random_left_out = (random_keys == positive_keys[:, None]) | torch.cat(
            [keys.new_zeros(1, dtype=torch.bool), repeated(negative_keys)]
        )[None]
        if self.known is not None:  # ... other known positives, ...
            batch_left_out = batch_left_out | self._is_known(query_keys[:, None], keys[None])
            random_left_out = random_left_out | self._is_known(query_keys[:, None], random_keys)
        counted = queries.new_ones(n)
        if has is not None:  # ... and items without an embedding.
            counted = has[0].to(queries.dtype)
            batch_left_out = batch_left_out | ~gather_rows(has[0])[None]
            random_left_out = torch.cat(
                [random_left_out[:, :1], random_left_out[:, 1:] | ~gather_rows(has[1])[None]], 1
            )

        log_q, log_q_positive = self._log_q(query_keys, positive_keys, keys)
        first = torch.zeros_like(positive)
        weights = {dim: self.options.dims.get(dim, 1.0) for dim in dims or self.options.dims}
        total = queries.new_zeros(n)
        for dim, weight in weights.items():
            query, own = shortened(queries, dim), shortened(positives, dim)
            batch, drawn = shortened(all_positives, dim), shortened(all_negatives, dim)
            in_batch = sampled_softmax(
                query @ batch.T / self.temperature,
                positive,
                log_q=log_q,
                log_q_positive=log_q_positive,
                left_out=batch_left_out,
            )
            # Random negatives are drawn evenly: their Q is the same for all, and softmax ignores a constant.
            logits = torch.cat([(query * own).sum(1, keepdim=True), query @ drawn.T], 1) / self.temperature
            total = total + weight * (in_batch + sampled_softmax(logits, first, left_out=random_left_out))
        return (total * counted).mean() / sum(weights.values())

    def _log_q(
        self, query_keys: torch.Tensor, positive_keys: torch.Tensor, keys: torch.Tensor
    ) -> tuple[torch.Tensor | None, torch.Tensor | None]:
        """`log_q` and `log_q_positive` of `sampled_softmax`; `keys` are the positives of all processes."""
        if self.options.correction == "none":
            return None, None
        log_q = self.counts.of("item").log_inclusion(keys, len(keys))
        if self.options.correction == "popularity":
            return log_q, None
        pairs = self.counts.of("pair").count(pair_keys(query_keys, positive_keys)).clamp(min=1).float()
        queries = self.counts.of("query").count(query_keys).clamp(min=1).float()
        return log_q, pairs.log() - queries.log()

    def _is_known(self, queries: torch.Tensor, items: torch.Tensor) -> torch.Tensor:
        wanted: Any = queries << 32 | items
        known: Any = self.known
        place = torch.searchsorted(known, wanted).clamp(max=len(known) - 1)
        return torch.as_tensor(known[place] == wanted)


def shortened(embeddings: torch.Tensor, dim: int) -> torch.Tensor:
    """The first `dim` numbers of embeddings [n, ...], scaled to length 1."""
    return embeddings if dim == embeddings.shape[1] else F.normalize(embeddings[:, :dim], dim=1)


def pair_keys(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """One key for each pair of keys below 2^32."""
    return a << 32 | b
