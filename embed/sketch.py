"""Counts of many keys in little memory."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

DEPTH, WIDTH = 2, 2**26  # of the published OmniSearchSage code


class CountMinSketch(nn.Module):
    """Estimates how often each key (int64) was seen (Cormode and Muthukrishnan 2005).

    An estimate is never too low. With probability 1 - exp(-depth) it is too high by at most e / width times
    the number of all keys seen. `width` must be a power of two. The counts are buffers: they are moved, saved
    and loaded with the module.
    """

    def __init__(self, width: int = WIDTH, depth: int = DEPTH, seed: int = 0):
        super().__init__()
        if width < 2 or width & (width - 1):
            raise ValueError(f"the width of a sketch must be a power of two, not {width}")
        generator = torch.Generator().manual_seed(seed)
        numbers = torch.randint(-(2**63), 2**63 - 1, (2, depth, 1), generator=generator, dtype=torch.int64)
        self.bits = width.bit_length() - 1
        self.register_buffer("factors", torch.stack([numbers[0] | 1, numbers[1]]), persistent=False)
        self.register_buffer("counts", torch.zeros(depth, width, dtype=torch.int64))
        self.register_buffer("total", torch.zeros((), dtype=torch.int64))

    def _cells(self, keys: torch.Tensor) -> torch.Tensor:
        # Multiply-shift hashing (Dietzfelbinger 1996). Overflow takes the product modulo 2^64. The shift
        # keeps the sign bit, and the mask removes it.
        factors: Any = self.factors
        return torch.as_tensor(
            ((keys[None] * factors[0] + factors[1]) >> (64 - self.bits)) & ((1 << self.bits) - 1)
        )

    def add(self, keys: torch.Tensor) -> None:
        """Counts keys [n]."""
        counts: Any = self.counts
        for row, cells in zip(counts, self._cells(keys), strict=True):
            row.index_add_(0, cells, torch.ones_like(cells))
        total: Any = self.total
        total += len(keys)

    def count(self, keys: torch.Tensor) -> torch.Tensor:
        """[n] estimated counts of keys [n]."""
        counts: Any = self.counts
        return torch.as_tensor(counts.gather(1, self._cells(keys)).amin(0))

    def log_inclusion(self, keys: torch.Tensor, draws: int) -> torch.Tensor:
        """[n] logs of the probability that `draws` draws contain each key [n] at least once.

        The probability of one draw is the key's share of all keys seen. A key that was never seen counts as
        seen once.
        """
        total: Any = self.total
        share = self.count(keys).clamp(min=1).double() / total.clamp(min=1)
        return (-torch.expm1(draws * torch.log1p(-share.clamp(max=1 - 1e-9)))).log().float()
