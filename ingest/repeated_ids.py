"""Ids that an ingest reads several times: the last row of a pin counts, and the others are counted."""

from __future__ import annotations

from array import array
from collections.abc import Iterable

import numpy as np


class IdsRead:
    """The ids of the rows that were read. It keeps 8 bytes for each row, however long the ids are.

    Two ids of one hash count as one. In a billion rows that happens with a probability of 3 percent.
    """

    def __init__(self) -> None:
        self._hashes = array("q")

    def __len__(self) -> int:
        return len(self._hashes)

    def add(self, ids: Iterable[str]) -> None:
        self._hashes.extend(map(hash, ids))

    def repeated(self) -> int:
        """How many rows have an id that another row has, without one row of each id. Sorts in place."""
        if len(self._hashes) < 2:
            return 0
        hashes = np.frombuffer(self._hashes, dtype=np.int64)
        hashes.sort()
        return int(np.count_nonzero(hashes[1:] == hashes[:-1]))
