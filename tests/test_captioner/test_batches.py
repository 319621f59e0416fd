"""The sizes of a worker's batches: halved when memory runs out, grown while that pays."""

import subprocess
import sys

import pytest
import torch

from pincaption.captioner.batch_size import MAX_BATCH, BatchSize
from pincaption.captioner.model import Decoding, Text, out_of_memory
from pincaption.captioner.worker import Worker

from .pins import Crowded, by_pin, pins, tiny


class TestMemory:
    @pytest.mark.parametrize("error", [torch.OutOfMemoryError, RuntimeError, MemoryError])
    def test_batches_are_halved_until_they_fit(self, builtin, images, error):
        everything = pins(images, *[f"{i}.png" for i in range(40)])
        small = Crowded(builtin, 3, error=error)
        worker = Worker(small, batch_size=16)
        assert by_pin(worker(everything)) == by_pin(Worker(builtin)(everything))
        assert worker.batch_size.current <= 3
        assert small.sizes[:3] == [16, 8, 4]
        assert small.sizes[3:] == [2] * 20  # what was too much once is not tried again

    def test_also_while_the_size_is_found_out(self, builtin, images):
        worker = Worker(Crowded(builtin, 11))
        assert len(by_pin(worker(pins(images, *[f"{i}.png" for i in range(40)])))) == 40
        assert worker.batch_size.current <= 11

    def test_not_even_one_fits(self, builtin, images):
        with pytest.raises(
            MemoryError, match="not even one picture at a time fits into memory: take a smaller dtype"
        ):
            list(Worker(Crowded(builtin, 0), batch_size=4)(pins(images, "0.png", "1.png")))

    @pytest.mark.parametrize("part", ["see", "start", "texts"])
    def test_other_errors_of_the_model_are_not_hidden(self, builtin, images, monkeypatch, part):
        def broken(*arguments: object) -> list[Text]:
            raise RuntimeError("a bug")

        monkeypatch.setattr(builtin, part, broken)
        with pytest.raises(RuntimeError, match="a bug"):
            list(Worker(builtin)(pins(images, "0.png")))

    def test_what_torch_says_when_the_memory_of_the_machine_runs_out(self):
        with pytest.raises(RuntimeError) as error:
            torch.empty(2**46, dtype=torch.float32)
        assert out_of_memory(error.value)
        assert not out_of_memory(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))

    def test_a_checkpoint_that_does_not_fit_is_said_in_a_sentence(self, tmp_path):
        code = """
import resource
from pincaption.captioner.blip2 import Blip2
from pincaption.captioner.find import find_checkpoint
import psutil
checkpoint = find_checkpoint("builtin")
used = psutil.Process().memory_info().vms
resource.setrlimit(resource.RLIMIT_AS, (used + 4_000_000, used + 4_000_000))
try:
    Blip2(checkpoint)
except MemoryError as error:
    print(error)
"""
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=250)
        assert done.stdout.startswith(
            "builtin in float32 does not fit into the memory of cpu: take the dtype bfloat16"
        ), done.stderr


class TestBatchSize:
    """A batch size of auto grows as long as that is faster; `speed` is pictures per second by batch size."""

    def settled(self, speed, largest: int = 512) -> list[int]:
        size, seen = BatchSize(None, largest), []
        for _ in range(60):
            seen.append(size.current)
            size.record(size.current, size.current / speed(size.current))
        return list(dict.fromkeys(seen))

    def test_it_grows_to_the_end_where_that_always_pays(self):
        assert self.settled(lambda n: n) == [8, 16, 32, 64, 128, 256, 512]
        assert self.settled(lambda n: n, largest=32) == [8, 16, 32]

    def test_it_stops_where_larger_is_no_faster(self):
        assert self.settled(lambda n: min(n, 30)) == [8, 16, 32, 64]

    def test_it_goes_back_where_larger_is_slower(self):
        sizes = self.settled(lambda n: n if n <= 32 else 10)
        assert sizes == [8, 16, 32, 64]
        size = BatchSize(None, 512)
        for _ in range(60):
            size.record(size.current, size.current / (size.current if size.current <= 32 else 10))
        assert size.current == 32

    def test_a_fixed_size_stays(self):
        size = BatchSize(7, 512)
        for _ in range(9):
            size.record(7, 0.001)
        assert size.current == 7

    def test_the_last_batch_which_is_smaller_decides_nothing(self):
        size = BatchSize(None, 512)
        for _ in range(9):
            size.record(3, 0.000_001)
        assert size.current == 8

    def test_a_real_run_settles(self, opt, images, tmp_path):
        worker = Worker(opt, Decoding(max_new_tokens=3))
        sizes = [worker.batch_size.current for _ in worker.batches(tiny(1200))]
        assert sizes[0] == 8
        assert max(sizes) <= MAX_BATCH["cpu"]
        assert len(set(sizes[-5:])) == 1
