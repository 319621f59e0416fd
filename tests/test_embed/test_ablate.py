"""`captioner embed ablate`: its arms, seeds and differences, and that a stopped call goes on."""

from __future__ import annotations

import json
import shutil
import statistics
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from pincaption.cli import cli
from pincaption.embed.ablate import ALL, ARMS, WITH, WITHOUT, difference
from pincaption.embed.reader import Export


def test_a_difference_is_the_paired_t_interval() -> None:
    values, others = [0.5, 0.6, 0.55, 0.65, 0.7], [0.4, 0.42, 0.41, 0.44, 0.39]
    gaps = [a - b for a, b in zip(values, others, strict=True)]
    half = 2.776 * statistics.stdev(gaps) / 5**0.5
    assert difference(values, others) == pytest.approx(
        [statistics.mean(gaps), statistics.mean(gaps) - half, statistics.mean(gaps) + half], abs=1e-4
    )


def test_a_single_seed_has_no_interval() -> None:
    assert difference([0.5], [0.25]) == [0.25, None, None]


def test_a_shuffled_field_is_always_that_of_the_same_other_item(export: Path) -> None:
    rows = np.arange(len(Export(export)))
    own, shuffled = (
        captions(Export(export), rows),
        captions(Export(export, controls={"caption": "shuffled"}), rows),
    )
    assert sorted(map(str, own)) == sorted(map(str, shuffled))
    assert own != shuffled
    assert captions(Export(export, controls={"caption": "shuffled"}), rows[5:9]) == shuffled[5:9]
    assert captions(Export(export, controls={"caption": "shuffled"}, seed=1), rows) != shuffled


def test_a_reshuffled_field_changes_with_the_batch_but_not_when_a_batch_is_made_again(
    export: Path,
) -> None:
    data, rows = Export(export, controls={"caption": "reshuffled"}), np.arange(len(Export(export)))
    once = captions(data, rows)
    assert captions(data, rows) == once
    assert captions(data, rows[10:60]) != once[10:60]
    assert set(once) <= set(captions(Export(export), rows))


def test_random_words_differ_between_items_and_say_nothing(export: Path) -> None:
    data, rows = Export(export, controls={"caption": "random words"}), np.arange(len(Export(export)))
    replaced = captions(data, rows)
    assert captions(data, rows[3:20]) == replaced[3:20]
    texts = [text for text in replaced if text]
    assert len(set(texts)) == len(texts)
    assert all(word.startswith("word") for text in texts for word in text.split())


@pytest.mark.parametrize("control", ["shuffled", "reshuffled", "random words"])
def test_every_control_gives_texts_to_the_items_that_have_one(export: Path, control: str) -> None:
    rows = np.arange(len(Export(export)))
    assert [text is None for text in captions(Export(export, controls={"caption": control}), rows)] == [
        text is None for text in captions(Export(export), rows)
    ]
    lists = Export(export, controls={"engaged_queries": control})
    own, replaced = (
        set(some.texts(rows, ["engaged_queries"])["engaged_queries"][1].tolist())
        for some in (Export(export), lists)
    )
    assert replaced == own


def captions(data: Export, rows: np.ndarray) -> list[str | None]:
    return data.texts(rows, ["caption"])["caption"][0].to_pylist()


def test_every_arm_is_trained_with_every_seed_once(export: Path, tmp_path: Path) -> None:
    command = [
        "embed",
        "ablate",
        str(export),
        str(tmp_path / "a"),
        "--seeds",
        "2",
        "--epochs",
        "0.1",
        "--workers",
        "0",
    ]
    done = CliRunner().invoke(cli, [*command, "--json"])
    assert done.exit_code == 0, done.output
    result = json.loads(done.stdout)
    # no item of this export has one
    assert list(result["arms"]) == [arm for arm in ARMS if arm != "+ board titles"]
    captions = result["arms"]["+ captions"]["recall@10"]
    for arm, gaps in result["captions beyond"].items():
        assert ARMS[arm][1]
        assert gaps == {
            group: difference(captions[group][1:], values[1:])
            for group, values in result["arms"][arm]["recall@10"].items()
        }
    assert set(result["pairs"]) == {ALL, WITH, WITHOUT}
    assert result["pairs"][ALL] == result["pairs"][WITH] + result["pairs"][WITHOUT]
    for arm, found in result["arms"].items():
        for group, (mean, *values) in found["recall@10"].items():
            assert mean == pytest.approx(statistics.mean(values), abs=1e-4)
            assert arm == "native text" or found["difference"][group] == difference(
                values, result["arms"]["native text"]["recall@10"][group][1:]
            )
    assert (tmp_path / "a" / "ablation.png").stat().st_size > 1000
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("towers.safetensors")}
    assert len(before) == 2 * len(result["arms"])
    again = CliRunner().invoke(cli, command)
    assert max(len(line) for line in again.stdout.splitlines() if str(tmp_path) not in line) <= 80
    assert "more than native text (95%)" in again.stdout
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_a_table_of_one_seed_has_no_intervals(export: Path, tmp_path: Path) -> None:
    bare = tmp_path / "without captions"  # two sets of fields are left, and no controls
    shutil.copytree(export, bare)
    (path,) = (bare / "features").glob("*.parquet")
    table = pq.read_table(path)
    captions = table.column_names.index("caption")
    pq.write_table(table.set_column(captions, "caption", pa.nulls(len(table), pa.string())), path)
    command = [
        "embed",
        "ablate",
        str(bare),
        str(tmp_path / "a"),
        "--seeds",
        "1",
        "--epochs",
        "0.05",
        "--workers",
        "0",
    ]
    shown = CliRunner().invoke(cli, command)
    assert shown.exit_code == 0, shown.output
    assert "(one seed, no interval)" in shown.stdout
    assert max(len(line) for line in shown.stdout.splitlines() if str(tmp_path) not in line) <= 80
    assert f"plot: {tmp_path / 'a' / 'ablation.png'}" in shown.stdout
    for text in (
        (tmp_path / "a" / "ablation.json").read_text(),
        CliRunner().invoke(cli, [*command, "--json"]).stdout,
    ):
        result = json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
        assert result["arms"]["+ engaged queries"]["difference"][ALL][1:] == [None, None]


def test_what_cannot_be_measured_or_written_fails_before_anything_is_trained(
    export: Path, tmp_path: Path
) -> None:
    done = CliRunner().invoke(
        cli,
        ["export", str(export.parent / "my.db"), str(tmp_path / "out"), "--as-of", "2026-06-01", "--pairs"],
    )
    assert done.exit_code == 0, done.output
    done = CliRunner().invoke(cli, ["embed", "ablate", str(tmp_path / "out"), str(tmp_path / "a")])
    assert done.exit_code == 1
    assert "no pairs of the split test: export with --test-from DATE" in done.stderr
    assert not (tmp_path / "a").exists()
    (tmp_path / "a").write_text("mine")
    done = CliRunner().invoke(cli, ["embed", "ablate", str(export), str(tmp_path / "a")])
    assert done.exit_code == 1
    assert "a cannot be written (File exists): name another folder" in done.stderr
