"""Rows of a batch that is spread over several processes."""

from __future__ import annotations

from typing import Any

import torch


class Gather(torch.autograd.Function):
    """Concatenates the rows of all processes. Gradients flow back from the losses of all processes."""

    @staticmethod
    def forward(ctx: Any, rows: torch.Tensor) -> torch.Tensor:  # type: ignore[override]
        parts = [torch.empty_like(rows) for _ in range(torch.distributed.get_world_size())]
        torch.distributed.all_gather(parts, rows.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> torch.Tensor:  # type: ignore[override]
        gradient = gradient.contiguous()
        torch.distributed.all_reduce(gradient)
        return gradient.chunk(torch.distributed.get_world_size())[torch.distributed.get_rank()]


def gather_rows(rows: torch.Tensor) -> torch.Tensor:
    """[n, ...] of this process -> [processes * n, ...] of all, with gradients if `rows` have them."""
    if not is_distributed():
        return rows
    if rows.requires_grad:
        return Gather.apply(rows)  # type: ignore[no-any-return,no-untyped-call]
    return Gather.forward(None, rows)


def process_rank() -> int:
    """The number of this process, from 0."""
    return torch.distributed.get_rank() if is_distributed() else 0


def is_distributed() -> bool:
    """Whether more than one process trains."""
    return (
        torch.distributed.is_available()
        and torch.distributed.is_initialized()
        and torch.distributed.get_world_size() > 1
    )
