"""The iterable form of EnrichedFeatures; imports torch, which nothing else in the store does."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch.distributed as dist
from torch.utils.data import IterableDataset, get_worker_info

if TYPE_CHECKING:
    from .features import EnrichedFeatures

BLOCK = 512  # rows that are read together


class IterableFeatures(IterableDataset[dict[str, Any]]):
    """Rows of an EnrichedFeatures, split over ranks and workers by blocks; see EnrichedFeatures.iterable."""

    def __init__(
        self,
        features: EnrichedFeatures,
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
            raise ValueError(f"rank {rank} is none of {world_size}")
        self.features, self.shuffle, self.seed, self.rank, self.world_size = (
            features,
            shuffle,
            seed,
            rank,
            world_size,
        )
        self.epoch = 0
        self._read = 0  # rows of this epoch that this worker has given out
        # rows that are to be left out once, as they were given out before the position was kept
        self._skip = 0

    def set_epoch(self, epoch: int) -> None:
        """Another order, if shuffled; from the start."""
        self.epoch, self._read, self._skip = epoch, 0, 0

    def state_dict(self) -> dict[str, Any]:
        """The position of this worker; torchdata's StatefulDataLoader asks every worker for its own."""
        return {"epoch": self.epoch, "rows": self._read, "of": self._parts()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on where a position was kept.

        Raises ValueError unless store, seed and number of ranks are the same.
        """
        if state["of"] != self._parts():
            raise ValueError(
                f"the position belongs to other rows or another order: it was kept with {state['of']}, and this is {self._parts()}"
            )
        self.epoch, self._read, self._skip = state["epoch"], state["rows"], state["rows"]

    def _parts(self) -> dict[str, Any]:
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
        # ranks and workers of a small store get much the same, too
        size = max(1, min(BLOCK, len(self.features) // (8 * self.world_size)))
        blocks = [
            range(start, min(start + size, len(self.features)))
            for start in range(0, len(self.features), size)
        ]
        if self.shuffle:
            random.Random(f"{self.seed} {self.epoch}").shuffle(blocks)
        return blocks

    def __iter__(self) -> Iterator[dict[str, Any]]:
        worker = get_worker_info()
        mine = self._blocks()[self.rank :: self.world_size][
            worker.id if worker else 0 :: worker.num_workers if worker else 1
        ]
        self._read, skip = 0, self._skip
        self._skip = 0
        for number, block in enumerate(mine):
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
