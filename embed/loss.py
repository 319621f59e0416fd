"""The loss of OmniSearchSage: sampled softmax over in-batch and over random negatives, corrected for how
often an item is drawn.

In a batch an item is as frequent as it is popular. Without correction the model learns how much more likely
an item is for this query than for any, log P(item | query) / P(item); with log Q subtracted from every logit,
the positive's too, it learns log P(item | query) (logQ correction: Yi et al. 2019). How popular items are is
counted as they pass by, in a count-min sketch (Cormode and Muthukrishnan 2005).

An item counts once among the candidates however often the batch has it, and Q is the probability that the
batch has it at all: for rare items that is their popularity times a constant, for popular ones it alone makes
the loss exact. Had each occurrence counted and the right item's others been left out, a popular right item
would weigh too little (tests/test_embed/test_loss.py simulates it).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import nn

from .distributed import of_all_ranks, own_rank
from .sketch import CountMinSketch

TEMPERATURE, LEAST_TEMPERATURE, MOST_TEMPERATURE = 0.07, 0.01, 1.0


def sampled_softmax(
    logits: torch.Tensor,
    positive: torch.Tensor,
    *,
    log_q: torch.Tensor | None = None,
    log_q_positive: torch.Tensor | None = None,
    left_out: torch.Tensor | None = None,
) -> torch.Tensor:
    """[queries] losses of logits [queries, candidates] whose right candidate is number `positive` [queries].

    `log_q` [candidates] are logs of sampling probabilities and are subtracted, `log_q_positive` [queries]
    stands in place of the right candidates' own. `left_out` [queries, candidates] are candidates that do not
    count; the right one always does.
    """
    if log_q is not None:
        logits = logits - log_q
        if log_q_positive is not None:
            logits = logits.scatter_add(1, positive[:, None], (log_q[positive] - log_q_positive)[:, None])
    if left_out is not None:
        logits = logits.masked_fill(left_out.scatter(1, positive[:, None], False), -torch.inf)
    return F.cross_entropy(logits, positive, reduction="none")


def repeated(keys: torch.Tensor) -> torch.Tensor:
    """[n] whether a key stands before in keys [n] already."""
    _, number = torch.unique(keys, return_inverse=True)
    place = torch.arange(len(keys), device=keys.device)
    first = torch.full_like(place, len(keys)).scatter_reduce(0, number, place, "amin")
    return first[number] != place


@dataclass(frozen=True)
class LossOptions:
    """`dims` {numbers: weight} of the Matryoshka losses. `correction` of a positive: the item's own
    popularity, or P(item | query), which the paper takes.

    `mask_known` leaves a query's other known positives out of its candidates. Both were worse in a simulation
    (docs/embed.md), and are off.
    """

    dims: dict[int, float]
    correction: Literal["popularity", "conditional", "none"] = "popularity"
    mask_known: bool = False
    sketch_width: int = 2**22


class Counts(nn.Module):
    """How often a task's items, with "conditional" its queries and pairs too, were drawn so far; with "none"
    nothing is counted.
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
        """Counts the pairs of a step (of all ranks): once a step, before its losses."""
        if self.sketches:
            positive_keys, query_keys = of_all_ranks(positive_keys), of_all_ranks(query_keys)
            keys = {"item": positive_keys, "query": query_keys, "pair": pair_keys(query_keys, positive_keys)}
            for kind, sketch in self.sketches.items():
                sketch.add(keys[kind])  # type: ignore[operator]

    def of(self, kind: str) -> CountMinSketch:
        """The sketch of an "item", "query" or "pair"."""
        sketch = self.sketches[kind]
        assert isinstance(sketch, CountMinSketch)
        return sketch


class Loss(nn.Module):
    """The losses of one task; the learned temperature and the counts are its state.

    `counts` of another loss over the same pairs are shared, and added to by their owner alone.
    """

    def __init__(self, options: LossOptions, known: torch.Tensor | None = None, counts: Counts | None = None):
        super().__init__()
        self.options = options
        self.log_temperature = nn.Parameter(torch.tensor(TEMPERATURE).log())
        self.counts = counts or Counts(options)
        self.register_buffer("known", known if options.mask_known else None, persistent=False)

    @property
    def temperature(self) -> torch.Tensor:
        """Learned, between 0.01 and 1."""
        return self.log_temperature.exp().clamp(LEAST_TEMPERATURE, MOST_TEMPERATURE)

    def forward(
        self, queries: torch.Tensor, query_keys: torch.Tensor, positives: torch.Tensor, positive_keys: torch.Tensor, negatives: torch.Tensor, negative_keys: torch.Tensor,
        *, has: tuple[torch.Tensor, torch.Tensor] | None = None, dims: Sequence[int] | None = None,
    ) -> torch.Tensor:  # fmt: skip
        """The mean over this rank's pairs of in-batch and random-negatives loss, over the dimensions by their
        weights.

        Embeddings [n, dim] of length 1, keys [n]. `has`: which positives and negatives exist at all (fixed
        vectors: not every item has one). `dims`: in place of those of the options.
        """
        n, start = len(queries), own_rank() * len(queries)
        positive = torch.arange(start, start + n, device=queries.device)
        keys, negative_keys = of_all_ranks(positive_keys), of_all_ranks(negative_keys)
        everything = of_all_ranks(positives), of_all_ranks(negatives)
        same = (keys[None] == positive_keys[:, None]) | repeated(keys)[None]
        random_keys = torch.cat([positive_keys[:, None], negative_keys[None].expand(n, -1)], 1)
        random_same = (random_keys == positive_keys[:, None]) | torch.cat(
            [keys.new_zeros(1, dtype=torch.bool), repeated(negative_keys)]
        )[None]
        if self.known is not None:
            same = same | self._is_known(query_keys[:, None], keys[None])
            random_same = random_same | self._is_known(query_keys[:, None], random_keys)
        counted = queries.new_ones(n)
        if has is not None:
            counted = has[0].to(queries.dtype)
            same = same | ~of_all_ranks(has[0])[None]
            random_same = torch.cat([random_same[:, :1], random_same[:, 1:] | ~of_all_ranks(has[1])[None]], 1)
        log_q = (
            None
            if self.options.correction == "none"
            else self.counts.of("item").log_inclusion(keys, len(keys))
        )
        log_q_positive = None
        if self.options.correction == "conditional":  # P(item | query) in draws of a batch, as the others are
            log_q_positive = (
                math.log(len(keys))
                + self.counts.of("pair")
                .count(pair_keys(query_keys, positive_keys))
                .clamp(min=1)
                .float()
                .log()
                - self.counts.of("query").count(query_keys).clamp(min=1).float().log()
            )
        first = torch.zeros_like(positive)
        weights = {dim: self.options.dims.get(dim, 1.0) for dim in dims or self.options.dims}
        total = queries.new_zeros(n)
        for dim, weight in weights.items():
            query, own, (batch, drawn) = (
                shortened(queries, dim),
                shortened(positives, dim),
                (shortened(some, dim) for some in everything),
            )
            in_batch = sampled_softmax(
                query @ batch.T / self.temperature,
                positive,
                log_q=log_q,
                log_q_positive=log_q_positive,
                left_out=same,
            )
            # Random negatives are drawn evenly: Q is the same for all candidates of this term, and softmax
            # does not see it.
            logits = torch.cat([(query * own).sum(1, keepdim=True), query @ drawn.T], 1) / self.temperature
            total = total + weight * (in_batch + sampled_softmax(logits, first, left_out=random_same))
        return (total * counted).mean() / sum(weights.values())

    def _is_known(self, queries: torch.Tensor, items: torch.Tensor) -> torch.Tensor:
        wanted: Any = queries << 32 | items
        known: Any = self.known
        place = torch.searchsorted(known, wanted).clamp(max=len(known) - 1)
        return torch.as_tensor(known[place] == wanted)


def shortened(embeddings: torch.Tensor, dim: int) -> torch.Tensor:
    """The first `dim` numbers, of length 1 again."""
    return embeddings if dim == embeddings.shape[1] else F.normalize(embeddings[:, :dim], dim=1)


def pair_keys(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """One key for two."""
    return a << 32 | b
