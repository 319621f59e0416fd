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
        # Rows of about length 1, and at right angles to each other, as far as random directions are.
        nn.init.normal_(self.table.weight, std=width**-0.5)
        self.importance = nn.Embedding(max(1, ids), hashes)
        nn.init.ones_(self.importance.weight)
        # The hash functions are part of the model's definition: their seed must never change.
        generator = torch.Generator().manual_seed(0)
        self.register_buffer(
            "factors", torch.randint(1, PRIME, (2, hashes), generator=generator), persistent=False
        )

    @torch.no_grad()
    def set_importance(self, values: torch.Tensor) -> None:
        """Sets the importance of each id to one of `values` [ids]."""
        self.importance.weight.copy_(values[:, None].expand_as(self.importance.weight))

    def forward(self, ids: torch.Tensor, starts: torch.Tensor) -> torch.Tensor:
        """ids [n], and where each of the [rows] starts among them -> sums [rows, width]."""
        hashed, weights = self._rows_and_weights(ids)
        return F.embedding_bag(
            hashed.reshape(-1),
            self.table.weight,
            starts * hashed.shape[1],
            mode="sum",
            per_sample_weights=weights.reshape(-1),
        )

    def padded(self, ids: torch.Tensor) -> torch.Tensor:
        """ids [rows, n], -1 where a row has fewer -> sums [rows, width]: the same as `forward`."""
        hashed, weights = self._rows_and_weights(ids.clamp(min=0))
        weights = weights * (ids >= 0).unsqueeze(-1)
        return torch.as_tensor((self.table(hashed) * weights.unsqueeze(-1)).sum((1, 2)))

    def _rows_and_weights(self, ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The rows of the table [..., hashes] that ids [...] hash to, and their importance."""
        factors: Any = self.factors
        hashed = (ids.unsqueeze(-1) * factors[0] + factors[1]) % PRIME % self.table.num_embeddings
        return hashed, self.importance(ids).to(self.table.weight.dtype)
