"""How many pins a run may caption, also where several processes share one limit."""

from __future__ import annotations

import fcntl
import json
import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypedDict

from ..common.files import write_whole


class Limit:
    """A number of pins that may still be claimed. Without a number there is no limit."""

    def __init__(self, pins: int | None = None):
        self._left = math.inf if pins is None else pins

    def join(self, run_id: int) -> None:
        """Says which run claims pins under this limit."""

    def take(self, n: int) -> int:
        """Takes up to `n` pins off the limit, and returns how many that are."""
        taken = int(min(n, self._left))
        self._left -= taken
        return taken

    def give_back(self, n: int) -> None:
        """Gives `n` pins back that were taken and could not be claimed."""
        self._left += n


class _State(TypedDict):
    left: int  # pins that may still be claimed
    runs: list[int]  # run_id of every process that joined


class SharedLimit(Limit):
    """A limit that several processes of one machine share, kept in a file, with a lock beside it.

    A process may be killed at any moment: the file always holds a whole state. A process that is killed does
    not give back what it took. Once all processes have ended, `runs` says which captions were made under the
    limit, and the limit can be set anew.
    """

    def __init__(self, path: Path):
        self.path = path

    def set(self, pins: int) -> None:
        """Allows `pins` pins from now on. No other process may use the limit at the same time."""
        runs = self.runs if self.path.exists() else []
        write_whole(self.path, json.dumps(_State(left=pins, runs=runs)))

    @property
    def runs(self) -> list[int]:
        """The run_id of every process that joined so far."""
        with self._locked() as state:
            return list(state["runs"])

    def join(self, run_id: int) -> None:
        with self._locked() as state:
            state["runs"].append(run_id)

    def take(self, n: int) -> int:
        with self._locked() as state:
            taken = min(n, state["left"])
            state["left"] -= taken
        return taken

    def give_back(self, n: int) -> None:
        with self._locked() as state:
            state["left"] += n

    @contextmanager
    def _locked(self) -> Iterator[_State]:
        """The state, which no other process can use until it is written back."""
        with self.path.with_suffix(".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            state: _State = json.loads(self.path.read_bytes())
            yield state
            write_whole(self.path, json.dumps(state))
