"""Embeddings of n-grams, by hashing: any number of ids share one table of limited size."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

PRIME = 2**31 - 1


class HashEmbeddings(nn.Module):
    """Sums of the embeddings of ids (Svenstrup et al. 2017).

    The embedding of an id is the weighted sum of two rows of one table. Two hash functions choose the rows.
    The two weights are learned for each id ("importance").
    """

    def __init__(self, ids: int, rows: int, width: int, hashes: int = 2):
        super().__init__()
        self.table = nn.Embedding(rows, width)
        nn.init.normal_(self.table.weight, std=width**-0.5)
        self.importance = nn.Embedding(max(1, ids), hashes)
        nn.init.ones_(self.importance.weight)
        # The hash functions are part of the model's definition: their seed must never change.
        generator = torch.Generator().manual_seed(0)
        self.register_buffer(
            "factors", torch.randint(1, PRIME, (2, hashes), generator=generator), persistent=False
        )

    def forward(self, ids: torch.Tensor, starts: torch.Tensor) -> torch.Tensor:
        """ids [n], and where each of the [rows] starts among them -> sums [rows, width]."""
        factors: Any = self.factors
        hashed = (ids[:, None] * factors[0] + factors[1]) % PRIME % self.table.num_embeddings
        weights = self.importance(ids).to(self.table.weight.dtype)
        return F.embedding_bag(
            hashed.reshape(-1),
            self.table.weight,
            starts * hashed.shape[1],
            mode="sum",
            per_sample_weights=weights.reshape(-1),
        )
