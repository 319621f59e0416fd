"""Work that is spread over several processes: rows of a batch with their gradients, and results."""

from __future__ import annotations

import os
from datetime import timedelta
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


def process_count() -> int:
    """How many processes work together."""
    return torch.distributed.get_world_size() if is_distributed() else 1


def gathered(value: Any) -> list[Any]:
    """The value of each process, in order. Waits until all processes are here."""
    if not is_distributed():
        return [value]
    values: list[Any] = [None] * process_count()
    torch.distributed.all_gather_object(values, value)
    return values


def join_processes(device: str | None = None) -> torch.device:
    """Connects the processes that `accelerate launch` started, for work without gradients.

    Returns the device of this process: a GPU of its own if there are any, unless `device` is "cpu". A process
    that was started alone is connected to nothing.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1 and not torch.distributed.is_initialized():
        # The first process to finish waits for the others, which may take hours.
        torch.distributed.init_process_group("gloo", timeout=timedelta(days=7))
    if device == "cpu" or not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count())
