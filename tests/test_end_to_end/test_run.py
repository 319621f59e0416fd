"""`captioner run` as people use it: real processes, interrupted, killed, and two at a time.

A process of its own takes seconds to import torch and transformers. What is not about processes runs in this
one.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner, Result

from pincaption.captioner.model import choose_dtype
from pincaption.cli import cli
from pincaption.drawn import draw

CAPTIONER = [sys.executable, "-m", "pincaption.cli"]
PICTURES = 120


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of different drawn JPEGs."""
    folder = tmp_path_factory.mktemp("pictures")
    rng = random.Random(11)
    for i in range(PICTURES):
        draw.draw(draw.random_scene(rng), rng, (96, 96)).save(folder / f"{i:03}.jpg", quality=88)
    return folder


@pytest.fixture(scope="module")
def ingested(tmp_path_factory: pytest.TempPathFactory, pictures: Path) -> Path:
    path = tmp_path_factory.mktemp("store") / "my.db"
    captioner("ingest", "images", path, pictures)
    return path


@pytest.fixture
def store(tmp_path: Path, ingested: Path) -> Path:
    """A store of those pictures, without captions."""
    return Path(shutil.copy(ingested, tmp_path / "my.db"))


def here(*words: object, code: int = 0) -> Result:
    """The same as `captioner`, in this process."""
    done = CliRunner().invoke(cli, list(map(str, words)))
    assert done.exit_code == code, done.output
    return done


def captioner(*words: object, code: int = 0) -> subprocess.CompletedProcess[str]:
    done = subprocess.run([*CAPTIONER, *map(str, words)], capture_output=True, text=True, timeout=200)
    assert done.returncode == code, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done


def start(store: Path, *words: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*CAPTIONER, "run", str(store), "--model", "builtin", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def query(store: Path, sql: str) -> list[tuple[object, ...]]:
    conn = sqlite3.connect(store, timeout=60)
    try:
        return conn.execute(sql).fetchall()
    finally:
        conn.close()


def count(store: Path, sql: str = "SELECT count(*) FROM captions") -> int:
    return int(query(store, sql)[0][0])  # type: ignore[call-overload]


def wait_for_captions(store: Path, process: subprocess.Popen[str], n: int) -> None:
    """Returns when `n` captions are committed, or the process has ended. Leaves the core to the process."""
    while count(store) < n:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(0.02)
            return


def test_fills_in_what_is_missing_and_says_so(store: Path) -> None:
    found = json.loads(captioner("run", store, "--model", "builtin", "--json").stdout)
    assert list(found) == [
        "recipe_id",
        "selected",
        "captioned",
        "rejected",
        "failed",
        "shared",
        "remaining",
        "seconds",
        "images_per_second",
    ]
    assert found["selected"] == PICTURES == found["captioned"] + found["rejected"] + found["shared"]
    assert found["remaining"] == found["failed"] == 0
    assert found["images_per_second"] == pytest.approx(PICTURES / found["seconds"], rel=0.01)
    assert (
        count(store, "SELECT count(*) FROM enriched_features WHERE caption LIKE 'a%' OR caption LIKE 't%'")
        == found["captioned"] + found["shared"]
    )
    assert query(store, "SELECT DISTINCT recipe_id, model, dtype FROM recipes") == [
        (found["recipe_id"], "builtin", choose_dtype("auto", "cpu"))
    ]


def test_nothing_to_do_says_so_at_once_and_loads_no_model(tmp_path: Path, pictures: Path) -> None:
    store, folder = tmp_path / "small.db", tmp_path / "small"
    folder.mkdir()
    for picture in sorted(pictures.iterdir())[:3]:
        shutil.copy(picture, folder)
    here("ingest", "images", store, folder)
    here("run", store, "--model", "builtin")
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "pincaption.cli", "run", str(store)],
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.returncode == 0
    assert "nothing to do" in done.stdout
    assert "torch" not in done.stderr


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 130)])
def test_ctrl_c_finishes_the_batch_says_how_to_go_on_and_goes_on(
    store: Path, number: signal.Signals, code: int
) -> None:
    process = start(store, "--batch-size", "4")
    wait_for_captions(store, process, 8)
    process.send_signal(number)
    _, errors = process.communicate(timeout=200)
    assert process.returncode == code
    assert "the same command continues from here: captioner run" in errors
    done = count(store)
    assert 8 <= done < PICTURES
    assert count(store, "SELECT count(*) FROM claims") == 0
    before = query(store, "SELECT pin_id, text, updated_at FROM captions ORDER BY pin_id")
    found = json.loads(here("run", store, "--json").stdout)
    assert found["selected"] == PICTURES - done
    assert found["remaining"] == 0
    after = {row[0]: row for row in query(store, "SELECT pin_id, text, updated_at FROM captions")}
    assert all(after[row[0]] == row for row in before)  # nothing was made twice


def test_kill_nine_again_and_again_loses_and_repeats_nothing(store: Path) -> None:
    seen: dict[object, tuple[object, ...]] = {}
    for target in (10, 60):
        process = start(store, "--batch-size", "4")
        wait_for_captions(store, process, target)
        process.kill()
        process.communicate()
        assert query(store, "PRAGMA integrity_check") == [("ok",)]
        rows = {
            row[0]: row for row in query(store, "SELECT pin_id, text, updated_at, attempts FROM captions")
        }
        assert all(rows[pin_id] == row for pin_id, row in seen.items())
        seen = rows
    assert len(seen) < PICTURES
    found = json.loads(here("run", store, "--json").stdout)
    assert found["remaining"] == 0
    assert count(store) == PICTURES
    assert count(store, "SELECT max(attempts) FROM captions") == 1
    assert count(store, "SELECT count(*) FROM claims") == 0


@pytest.mark.slow
def test_two_processes_share_the_work_from_the_first_batches_on(store: Path) -> None:
    processes = [start(store, "--batch-size", "4", "--json") for _ in range(2)]
    results = [json.loads(process.communicate(timeout=200)[0]) for process in processes]
    made = [r["captioned"] + r["rejected"] + r["shared"] for r in results]
    assert sum(made) == PICTURES == count(store)
    assert count(store, "SELECT max(attempts) FROM captions") == 1
    by_run = query(store, "SELECT run_id, count(*) FROM captions GROUP BY run_id")
    assert sorted(n for _, n in by_run) == sorted(n for n in made if n)  # type: ignore[type-var]
    assert query(store, "SELECT count(*) FROM claims") == [(0,)]


@pytest.mark.slow
def test_a_device_list_runs_a_process_each(store: Path) -> None:
    found = json.loads(
        captioner(
            "run", store, "--model", "builtin", "--device", "cpu,cpu", "--batch-size", "4", "--json"
        ).stdout
    )
    assert found["captioned"] + found["rejected"] + found["shared"] == PICTURES
    assert found["remaining"] == 0
    assert count(store, "SELECT count(*) FROM runs WHERE command = 'run'") >= 1


@pytest.mark.slow
def test_a_limit_is_one_for_all_devices_together(store: Path) -> None:
    words = ("--model", "builtin", "--device", "cpu,cpu", "--batch-size", "4", "--limit", "5", "--json")
    found = json.loads(captioner("run", store, *words).stdout)
    assert (found["selected"], found["captioned"] + found["rejected"] + found["shared"]) == (5, 5)
    assert (count(store), found["remaining"]) == (5, PICTURES - 5)


@pytest.mark.slow
def test_a_limit_is_reached_although_a_process_is_killed(store: Path) -> None:
    """The process that is killed had taken pins. The other device captions them in a second round."""
    words = ["--device", "cpu,cpu", "--batch-size", "4", "--limit", "60", "--json"]
    both = start(store, *words)
    wait_for_captions(store, both, 8)
    children = psutil.Process(both.pid).children()
    assert len(children) == 2
    children[0].kill()
    output, errors = both.communicate(timeout=200)
    assert both.returncode == 0, errors
    assert count(store) == 60
    assert count(store, "SELECT max(attempts) FROM captions") == 1
    assert json.loads(output)["remaining"] == PICTURES - 60


def test_a_table_with_paths_or_bytes_or_text_of_its_own(tmp_path: Path, pictures: Path) -> None:
    files = sorted(pictures.iterdir())
    shutil.copytree(pictures, tmp_path / "images")
    rows = [
        {
            "pin_id": "1",
            "title": "Red mug",
            "description": "A mug that is red.",
            "image": f"images/{files[0].name}",
        },
        {
            "pin_id": "2",
            "title": "IMG_2041.JPG",
            "description": "No description available",
            "image": f"images/{files[1].name}",
        },
        {"pin_id": "3", "title": "Only a title", "description": None, "image": f"images/{files[2].name}"},
        {"pin_id": "4", "title": None, "description": " ", "image": "images/gone.jpg"},
        {"pin_id": "5", "title": None, "description": "🎉", "image": f"images/{files[1].name}"},
    ]
    (tmp_path / "pins.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    store = tmp_path / "table.db"
    here("ingest", "pins", store, tmp_path / "pins.jsonl")
    found = json.loads(here("run", store, "--model", "builtin", "--json").stdout)
    assert {k: found[k] for k in ("selected", "captioned", "shared", "failed", "remaining")} == {
        "selected": 4,
        "captioned": 2,
        "shared": 1,
        "failed": 1,
        "remaining": 0,
    }
    assert query(store, "SELECT pin_id, reason FROM captions WHERE status = 'failed'") == [
        ("4", "image file not found")
    ]
    assert query(store, "SELECT pin_id FROM enriched_features WHERE caption IS NULL ORDER BY 1") == [
        ("1",),
        ("4",),
    ]

    in_bytes = pa.table({"sku": [7, 8], "photo": [f.read_bytes() for f in files[1:3]]})
    pq.write_table(in_bytes, tmp_path / "bytes.parquet")
    here(
        "ingest",
        "pins",
        store,
        tmp_path / "bytes.parquet",
        "--map",
        "pin_id=sku",
        "--map",
        "image=photo",
        "--kind",
        "product",
    )
    found = json.loads(here("run", store, "--json").stdout)
    assert found["shared"] == 2  # the same bytes had their captions from the files
    captions = dict(query(store, "SELECT pin_id, caption FROM enriched_features"))  # type: ignore[arg-type]
    assert captions["7"] == captions["2"] == captions["5"]
    assert captions["8"] == captions["3"]


def test_failures_are_rows_and_can_be_tried_again(tmp_path: Path, pictures: Path) -> None:
    folder = tmp_path / "broken"
    folder.mkdir()
    good = sorted(pictures.iterdir())[0].read_bytes()
    (folder / "cut.jpg").write_bytes(good[: len(good) // 2])
    (folder / "text.png").write_text("no picture")
    (folder / "empty.gif").touch()
    store = tmp_path / "broken.db"
    here("ingest", "images", store, folder)
    done = here("run", store, "--model", "builtin", "--json", code=1)
    assert json.loads(done.stdout)["failed"] == 3
    assert "every pin failed" in done.stderr
    assert json.loads(here("run", store, "--json").stdout)["selected"] == 0
    (folder / "cut.jpg").write_bytes(good)
    found = json.loads(here("run", store, "--retry-failed", "--json").stdout)
    assert (found["captioned"], found["failed"], found["remaining"]) == (1, 2, 0)
    assert query(store, "SELECT attempts FROM captions WHERE status = 'failed'") == [(2,), (2,)]


def test_a_picture_that_changed_is_captioned_anew(tmp_path: Path, pictures: Path) -> None:
    files = sorted(pictures.iterdir())
    folder = tmp_path / "changing"
    folder.mkdir()
    shutil.copy(files[0], folder / "a.jpg")
    store = tmp_path / "changing.db"
    here("ingest", "images", store, folder)
    here("run", store, "--model", "builtin")
    first = query(store, "SELECT caption FROM enriched_features")
    shutil.copy(files[5], folder / "a.jpg")
    here("ingest", "images", store, folder)
    assert query(store, "SELECT caption FROM enriched_features") == [(None,)]  # stale, hidden
    assert json.loads(here("run", store, "--json").stdout)["captioned"] == 1
    assert query(store, "SELECT caption FROM enriched_features") != first


def test_prompts_per_run_and_per_row(tmp_path: Path, pictures: Path) -> None:
    files = sorted(pictures.iterdir())
    rows = [
        {"pin_id": "plain", "image": str(files[0])},
        {"pin_id": "own", "image": str(files[0]), "prompt": "a photo of"},
        {"pin_id": "long", "image": str(files[0]), "prompt": "word " * 400},
    ]
    (tmp_path / "pins.jsonl").write_text("\n".join(map(json.dumps, rows)))
    store = tmp_path / "prompts.db"
    here("ingest", "pins", store, tmp_path / "pins.jsonl")
    found = json.loads(here("run", store, "--model", "builtin", "--json").stdout)
    assert (found["captioned"], found["failed"]) == (2, 1)  # the same picture, but another prompt
    prompts = dict(query(store, "SELECT pin_id, prompt FROM captions JOIN recipes USING (recipe_id)"))  # type: ignore[arg-type]
    assert prompts["plain"] == ""
    assert prompts["own"] == "a photo of"
    texts = dict(query(store, "SELECT pin_id, caption FROM enriched_features"))  # type: ignore[arg-type]
    assert texts["plain"]
    assert not str(texts["own"]).startswith("a photo of")
    assert query(store, "SELECT reason FROM captions WHERE pin_id = 'long'") == [
        ("the prompt is too long for the model",)
    ]


def test_the_first_run_must_name_a_model_and_learns_which_there_are(store: Path, tmp_path: Path) -> None:
    errors = here("run", store, code=1).stderr
    assert "builtin" in errors
    assert "Salesforce/blip2-flan-t5-xl" in errors
    assert "does not exist" in here("run", tmp_path / "none.db", "--model", "builtin", code=1).stderr
    assert not (tmp_path / "none.db").exists()


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
@pytest.mark.parametrize("options", [[], ["--json"]])
def test_output_that_cannot_be_written_is_no_traceback(store: Path, options: list[str]) -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [*CAPTIONER, "stats", str(store), *options],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=200,
        )
    assert done.returncode != 0
