"""The query tower: a text encoder and a projection."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import nn


class QueryTower(nn.Module):
    """The encoder's output at its first token ([CLS]), then a projection and a layer norm."""

    def __init__(self, encoder: nn.Module, dim: int):
        super().__init__()
        self.encoder = encoder
        config: Any = encoder.config
        self.projection = nn.Sequential(nn.Linear(config.hidden_size, dim), nn.LayerNorm(dim))

    def forward(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """ids and mask [queries, tokens] -> embeddings [queries, dim], float32, of length 1."""
        first = self.encoder(input_ids=ids, attention_mask=mask).last_hidden_state[:, 0]
        return F.normalize(self.projection(first).float(), dim=1)
