"""Distributed."""

from __future__ import annotations

from typing import Any

import torch


class Gather(torch.autograd.Function):
    """Rows of all ranks, one rank after the other, with gradients: each rank gets what all ranks' losses say
    about its rows.
    """

    @staticmethod
    def forward(ctx: Any, rows: torch.Tensor) -> torch.Tensor:  # type: ignore[override]
        found = [torch.empty_like(rows) for _ in range(torch.distributed.get_world_size())]
        torch.distributed.all_gather(found, rows.contiguous())
        return torch.cat(found)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> torch.Tensor:  # type: ignore[override]
        gradient = gradient.contiguous()
        torch.distributed.all_reduce(gradient)
        return gradient.chunk(torch.distributed.get_world_size())[torch.distributed.get_rank()]


def of_all_ranks(rows: torch.Tensor) -> torch.Tensor:
    """[n, ...] of this rank -> [ranks * n, ...], with gradients where there are any."""
    if not _distributed():
        return rows
    if rows.requires_grad:
        return Gather.apply(rows)  # type: ignore[no-any-return,no-untyped-call]
    return Gather.forward(None, rows)


def own_rank() -> int:
    """Which rank this is."""
    return torch.distributed.get_rank() if _distributed() else 0


def _distributed() -> bool:
    return (
        torch.distributed.is_available()
        and torch.distributed.is_initialized()
        and torch.distributed.get_world_size() > 1
    )
