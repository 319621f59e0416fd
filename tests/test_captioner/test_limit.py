"""How many pins a run may caption, alone or together with other processes."""

from __future__ import annotations

import itertools
import json
import multiprocessing
from pathlib import Path

from pincaption.captioner.limit import Limit, SharedLimit


def test_a_limit_of_one_run():
    limit = Limit(5)
    assert [limit.take(3), limit.take(3), limit.take(3)] == [3, 2, 0]
    limit.give_back(1)
    assert limit.take(3) == 1
    assert [Limit().take(n) for n in (1, 1000)] == [1, 1000]


def take_all(path: Path) -> int:
    """Takes one, two and three in turn, gives one of each three back, and returns how many it kept."""
    limit, kept = SharedLimit(path), 0
    while taken := limit.take(kept % 3 + 1):
        if taken == 3:
            limit.give_back(1)
            taken -= 1
        kept += taken
    return kept


def test_processes_take_no_more_than_there_is_together(tmp_path):
    limit = SharedLimit(tmp_path / "limit.json")
    limit.set(2000)
    with multiprocessing.get_context("spawn").Pool(4) as pool:
        kept = pool.map(take_all, [limit.path] * 4, chunksize=1)
    assert sum(kept) == 2000
    assert limit.take(1) == 0


def test_it_knows_which_runs_joined_and_can_be_set_again(tmp_path):
    limit = SharedLimit(tmp_path / "limit.json")
    limit.set(3)
    limit.join(7)
    SharedLimit(limit.path).join(8)
    assert (limit.take(5), limit.take(5)) == (3, 0)
    limit.set(2)
    assert limit.runs == [7, 8]
    assert limit.take(5) == 2


def take_and_give_back(path: Path, started) -> None:
    limit = SharedLimit(path)
    for i in itertools.count():
        limit.give_back(limit.take(1))
        if i == 20:
            started.set()


def test_a_process_killed_while_it_writes_leaves_a_whole_file(tmp_path):
    limit = SharedLimit(tmp_path / "limit.json")
    limit.set(1000)
    context = multiprocessing.get_context("fork")
    for _ in range(30):
        started = context.Event()
        process = context.Process(target=take_and_give_back, args=(limit.path, started))
        process.start()
        assert started.wait(60)
        process.kill()
        process.join()
        json.loads(limit.path.read_bytes())
    assert 1000 - 30 <= limit.take(1000) <= 1000
