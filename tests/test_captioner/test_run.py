"""`captioner run` in one process: which model, dtype and revision it uses, and its warnings."""

from __future__ import annotations

import random
import sqlite3
from pathlib import Path

import pytest

from pincaption.captioner.checkpoint import CheckpointError
from pincaption.captioner.run import Options, run, warnings
from pincaption.drawn import draw
from pincaption.ingest.images import ingest_images
from pincaption.store import open_store


@pytest.fixture
def conn(tmp_path: Path) -> sqlite3.Connection:
    """A store of 30 drawn pictures."""
    (tmp_path / "pictures").mkdir()
    rng = random.Random(3)
    for i in range(30):
        draw.draw(draw.random_scene(rng), rng, (96, 96)).save(tmp_path / "pictures" / f"{i:02}.png")
    conn = open_store(tmp_path / "my.db", create=True)
    ingest_images(conn, tmp_path / "pictures")
    return conn


def dtypes(conn: sqlite3.Connection) -> list[str]:
    """Of the captions, in the order in which they were made."""
    return [
        row[0]
        for row in conn.execute(
            "SELECT dtype FROM captions JOIN recipes USING (recipe_id) ORDER BY updated_at, pin_id"
        )
    ]


def test_auto_keeps_to_the_model_and_dtype_that_the_store_used_last(conn: sqlite3.Connection) -> None:
    run(conn, Options("builtin", dtype="bfloat16", limit=1))
    run(conn, Options(limit=1))
    run(conn, Options(dtype="float32", limit=1))
    run(conn, Options(dtype="bfloat16", limit=1))
    run(conn, Options(limit=1))
    assert dtypes(conn) == ["bfloat16", "bfloat16", "float32", "bfloat16", "bfloat16"]


def test_a_folder_is_found_again_from_anywhere(
    conn: sqlite3.Connection, opt_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(opt_folder.parent)
    run(conn, Options(opt_folder.name, limit=1))
    monkeypatch.chdir("/")
    assert run(conn, Options(limit=2)).selected == 2


def test_a_limit_is_kept_and_the_rest_remains(conn: sqlite3.Connection) -> None:
    result = run(conn, Options("builtin", limit=7))
    assert (result.selected, result.captioned + result.rejected, result.remaining) == (7, 7, 23)


def test_one_caption_on_more_than_a_twentieth_of_the_pins_is_warned_of(
    conn: sqlite3.Connection, tmp_path: Path
) -> None:
    result = run(conn, Options("builtin"))
    assert warnings(result) == []
    rng = random.Random(4)
    same = draw.draw(draw.random_scene(rng), rng, (96, 96))
    (tmp_path / "same").mkdir()
    for i in range(30):
        same.save(tmp_path / "same" / f"placeholder-{i}.png")
    ingest_images(conn, tmp_path / "same")
    result = run(conn, Options("builtin"))
    assert (result.captioned, result.shared) == (1, 29)
    assert result.most_common is not None
    assert result.most_common[1] == 1.0
    assert "one caption covers 100% of the pins" in warnings(result)[0]


def test_no_gpu_is_a_sentence(conn: sqlite3.Connection) -> None:
    with pytest.raises(CheckpointError, match="try the device cpu"):
        run(conn, Options("builtin", device="cuda:63"))
    assert conn.execute("SELECT count(*) FROM claims").fetchone()[0] == 0
