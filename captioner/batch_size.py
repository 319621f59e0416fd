"""A batch size that grows while that makes the model faster, and is halved when memory runs out."""

from __future__ import annotations

# where --batch-size auto stops growing; beyond, larger batches gain little
MAX_BATCH = {"cpu": 64, "cuda": 512}


class BatchSize:
    """How many pictures go into a batch: fixed, or growing while that pays, and halved when memory runs out."""

    def __init__(self, fixed: int | None, largest: int):
        self.current = fixed or min(8, largest)
        self._largest, self._growing = largest, fixed is None
        self._best, self._rates = 0.0, list[float]()

    def ran(self, n: int, seconds: float) -> None:
        """Notes that a batch of `n` took `seconds`."""
        if not self._growing or n != self.current:
            return
        self._rates.append(n / seconds)
        if len(self._rates) < 2:  # the first batch of a size pays for warming up
            return
        rate = max(self._rates)
        self._rates = []
        if rate < 1.05 * self._best or 2 * self.current > self._largest:
            self._growing = False
            if rate < 0.95 * self._best:
                self.current //= 2
        else:
            self._best, self.current = rate, 2 * self.current

    def shrink(self, n: int) -> None:
        """Notes that a batch of `n` did not fit. Raises MemoryError when a single picture does not."""
        if n == 1:
            raise MemoryError(
                "not even one picture at a time fits into memory: take a smaller --dtype, another --device or a smaller model"
            )
        self.current, self._growing = max(1, min(self.current, n) // 2), False
