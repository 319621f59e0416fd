"""Hash embeddings."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

PRIME = 2**31 - 1


class HashEmbeddings(nn.Module):
    """Sums of the embeddings of ids; an id's embedding is two rows of one table, weighted by two learned
    numbers of its own (Svenstrup et al. 2017).
    """

    def __init__(self, ids: int, rows: int, width: int, hashes: int = 2):
        super().__init__()
        self.table = nn.Embedding(rows, width)
        nn.init.normal_(self.table.weight, std=width**-0.5)
        self.importance = nn.Embedding(max(1, ids), hashes)
        nn.init.ones_(self.importance.weight)
        generator = torch.Generator().manual_seed(0)  # the hashes are part of the model's definition
        self.register_buffer(
            "factors", torch.randint(1, PRIME, (2, hashes), generator=generator), persistent=False
        )

    def forward(self, ids: torch.Tensor, starts: torch.Tensor) -> torch.Tensor:
        """[n] ids and where each of the [rows] begins in them -> [rows, width]."""
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
