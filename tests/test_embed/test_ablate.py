"""`captioner embed ablate`: arms, seeds, differences, and that a call goes on where it was."""

from __future__ import annotations

import json
import statistics
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from pincaption.cli import cli
from pincaption.embed.ablate import ALL, ARMS, WITH, WITHOUT, difference
from pincaption.embed.data import Export


def test_a_difference_is_the_paired_t_interval() -> None:
    values, others = [0.5, 0.6, 0.55, 0.65, 0.7], [0.4, 0.42, 0.41, 0.44, 0.39]
    gaps = [a - b for a, b in zip(values, others, strict=True)]
    half = 2.776 * statistics.stdev(gaps) / 5**0.5
    assert difference(values, others) == pytest.approx([statistics.mean(gaps), statistics.mean(gaps) - half, statistics.mean(gaps) + half], abs=1e-4)


def test_shuffled_fields_are_those_of_other_items(export: Path) -> None:
    rows = np.arange(len(Export(export)))
    own, _ = Export(export).texts(rows, ["caption"])["caption"]
    others, _ = Export(export, shuffled=["caption"]).texts(rows, ["caption"])["caption"]
    assert sorted(map(str, own.to_pylist())) == sorted(map(str, others.to_pylist()))
    assert own.to_pylist() != others.to_pylist()


def test_every_arm_and_seed_once(export: Path, tmp_path: Path) -> None:
    command = ["embed", "ablate", str(export), str(tmp_path / "a"), "--seeds", "2", "--epochs", "0.1", "--workers", "0"]
    done = CliRunner().invoke(cli, [*command, "--json"])
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    assert list(told["arms"]) == list(ARMS)
    assert set(told["pairs"]) == {ALL, WITH, WITHOUT}
    assert told["pairs"][ALL] == told["pairs"][WITH] + told["pairs"][WITHOUT]
    for arm, found in told["arms"].items():
        for group, (mean, *values) in found["recall@10"].items():
            assert mean == pytest.approx(statistics.mean(values), abs=1e-4)
            assert arm == "native text" or found["difference"][group] == difference(values, told["arms"]["native text"]["recall@10"][group][1:])
    assert (tmp_path / "a" / "ablation.png").stat().st_size > 1000
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("towers.safetensors")}
    assert len(before) == 2 * len(ARMS)
    again = CliRunner().invoke(cli, command)
    assert "more than native text (95%)" in again.stdout
    assert {path: path.stat().st_mtime_ns for path in before} == before
