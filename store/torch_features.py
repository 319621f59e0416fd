"""EnrichedFeatures as an iterable dataset; the only file of store/ that imports torch."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import torch.distributed as dist
from torch.utils.data import IterableDataset, get_worker_info

BLOCK = 512  # rows that are read together


class Rows(Protocol):
    """A map-style dataset of dicts that reads several rows at once, as EnrichedFeatures does."""

    def __len__(self) -> int: ...

    def __getitems__(self, places: Sequence[int]) -> list[dict[str, Any]]: ...


class IterableFeatures(IterableDataset[dict[str, Any]]):
    """Rows of an EnrichedFeatures, split over ranks and workers by blocks; see EnrichedFeatures.iterable."""

    def __init__(
        self,
        features: Rows,
        *,
        shuffle: bool,
        seed: int,
        rank: int | None,
        world_size: int | None,
    ):
        if rank is None or world_size is None:
            if rank is not None or world_size is not None:
                raise ValueError("rank and world_size go together")
            rank, world_size = (
                (dist.get_rank(), dist.get_world_size())
                if dist.is_available() and dist.is_initialized()
                else (0, 1)
            )
        if not 0 <= rank < world_size:
            raise ValueError(f"rank {rank} does not exist: ranks go from 0 to {world_size - 1}")
        self.features, self.shuffle, self.seed = features, shuffle, seed
        self.rank, self.world_size = rank, world_size
        self.epoch = 0
        self._read = 0  # rows of this epoch that this worker has returned
        self._skip = 0  # rows that the next pass leaves out, because they were returned before

    def set_epoch(self, epoch: int) -> None:
        """Begins an epoch from its first row; a shuffled dataset gets another order for each epoch."""
        self.epoch, self._read, self._skip = epoch, 0, 0

    def state_dict(self) -> dict[str, Any]:
        """The position of this worker; torchdata's StatefulDataLoader asks every worker for its own."""
        return {"epoch": self.epoch, "rows": self._read, "of": self._order()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on at a position that `state_dict` returned.

        Raises ValueError unless the number of rows, the seed, the shuffling and the ranks are the same.
        """
        if state["of"] != self._order():
            raise ValueError(
                "the position belongs to other rows or to another order:"
                f" it was kept with {state['of']}, and this is {self._order()}"
            )
        self.epoch, self._read, self._skip = state["epoch"], state["rows"], state["rows"]

    def _order(self) -> dict[str, Any]:
        """Everything that decides which rows this rank reads, in which order."""
        return {
            "rows": len(self.features),
            "seed": self.seed,
            "shuffle": self.shuffle,
            "rank": self.rank,
            "world_size": self.world_size,
        }

    def __len__(self) -> int:
        """Rows of this rank, over all its workers."""
        return sum(len(block) for block in self._blocks()[self.rank :: self.world_size])

    def _blocks(self) -> list[range]:
        # A small store has smaller blocks, so that all ranks and workers get about the same number of rows.
        n = len(self.features)
        size = max(1, min(BLOCK, n // (8 * self.world_size)))
        blocks = [range(start, min(start + size, n)) for start in range(0, n, size)]
        if self.shuffle:
            random.Random(f"{self.seed} {self.epoch}").shuffle(blocks)
        return blocks

    def __iter__(self) -> Iterator[dict[str, Any]]:
        worker = get_worker_info()
        worker_id, workers = (worker.id, worker.num_workers) if worker else (0, 1)
        blocks = self._blocks()[self.rank :: self.world_size][worker_id::workers]
        skip, self._read, self._skip = self._skip, 0, 0
        for number, block in enumerate(blocks):
            places = list(block)
            if self.shuffle:
                random.Random(f"{self.seed} {self.epoch} {self.rank} {block.start} {number}").shuffle(places)
            if skip >= len(places):
                skip -= len(places)
                self._read += len(places)
                continue
            self._read += skip
            for row in self.features.__getitems__(places[skip:]):
                self._read += 1
                yield row
            skip = 0
