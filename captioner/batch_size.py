"""A batch size that grows while that makes the model faster, and is halved when memory runs out."""

from __future__ import annotations

# The largest batch that `auto` tries, by device; on a CPU larger batches gain little.
MAX_BATCH = {"cpu": 64, "cuda": 512}
FIRST_BATCH = {"cpu": 8, "cuda": 64}  # pictures in the first batch of `auto`
_FASTER = 1.05  # a size must be this much faster than the one before to go on growing
_SLOWER = 0.95  # a size that is slower than this gives way to the one before


class BatchSize:
    """The number of pictures in a batch, `current`.

    It is `fixed`, or it is doubled as long as that makes the model faster, up to `largest`. In both cases it
    is halved when memory runs out.
    """

    def __init__(self, fixed: int | None, largest: int, first: int = FIRST_BATCH["cpu"]):
        self.current = fixed or min(first, largest)
        self._largest, self._growing = largest, fixed is None
        self._best = 0.0  # pictures per second of the best size so far
        self._rates = list[float]()  # pictures per second of the batches of the current size

    def record(self, n: int, seconds: float) -> None:
        """Notes that a batch of `n` pictures took `seconds`, and grows if that pays."""
        if not self._growing or n != self.current:
            return
        self._rates.append(n / seconds)
        if len(self._rates) < 2:  # the first batch of a size is slow, because the device warms up
            return
        rate = max(self._rates)
        self._rates = []
        if rate < _FASTER * self._best or 2 * self.current > self._largest:
            self._growing = False
            if rate < _SLOWER * self._best:
                self.current //= 2
        else:
            self._best, self.current = rate, 2 * self.current

    def shrink(self, n: int) -> None:
        """Notes that a batch of `n` pictures did not fit into memory, and halves the size.

        Raises MemoryError if not even one picture fits.
        """
        if n == 1:
            raise MemoryError(
                "not even one picture at a time fits into memory: take a smaller dtype such as bfloat16, "
                "another device or a smaller model"
            )
        self.current, self._growing = max(1, min(self.current, n) // 2), False
