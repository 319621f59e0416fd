"""The drawn world: its tables fit together, and the same seed gives the same files."""

import hashlib
import re
from collections import Counter
from datetime import date
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from pincaption.drawn.world import make_world
from pincaption.images.decode import ImageError, decode
from pincaption.ingest.placeholders import says_nothing

PINS = 60


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("world") / "demo"
    assert make_world(folder, PINS) is True
    return folder


def rows(path: Path) -> list[dict]:
    return pq.read_table(path).to_pylist()


def files(folder: Path) -> dict[str, str]:
    return {
        str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest()
        for p in sorted(folder.rglob("*"))
        if p.is_file()
    }


def test_the_same_seed_gives_the_same_files_and_another_seed_others(world, tmp_path):
    make_world(tmp_path / "again", PINS)
    make_world(tmp_path / "other", PINS, seed=1)
    assert files(tmp_path / "again") == files(world)
    assert files(tmp_path / "other")["pins.parquet"] != files(world)["pins.parquet"]


def test_a_complete_world_is_left_alone(world):
    before = {p: p.stat().st_mtime_ns for p in world.rglob("*")}
    assert make_world(world, PINS) is False
    assert {p: p.stat().st_mtime_ns for p in world.rglob("*")} == before


def test_a_world_that_was_not_finished_is_drawn_again(world, tmp_path):
    make_world(tmp_path, 12)
    whole = files(tmp_path)
    (tmp_path / "pins.parquet").unlink()
    (tmp_path / "images/pin-0003.jpg").write_bytes(b"half")
    assert make_world(tmp_path, 12) is True
    assert files(tmp_path) == whole


def test_images_and_tables_of_somebody_else_are_not_touched(tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "pins.parquet").write_bytes(b"mine")
    with pytest.raises(FileExistsError, match=r"images and pins\.parquet that captioner did not draw"):
        make_world(tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["images", "pins.parquet"]


def test_about_a_third_of_the_pins_say_nothing_some_of_them_with_junk(world):
    pins = rows(world / "pins.parquet")
    assert len(pins) == len({pin["pin_id"] for pin in pins}) == PINS
    silent = [pin for pin in pins if says_nothing(pin["title"]) and says_nothing(pin["description"])]
    assert len(silent) == PINS // 3
    assert 0 < sum(bool(pin["title"] or pin["description"]) for pin in silent) < len(silent) / 2
    told = [pin for pin in pins if not says_nothing(pin["title"]) and not says_nothing(pin["description"])]
    assert len(told) == PINS // 2
    assert {pin["kind"] for pin in pins} == {"pin", "product"}
    assert all(
        not Path(pin["image"]).is_absolute() and pin["created_at"].date() <= date(2026, 6, 30) for pin in pins
    )


def test_every_image_decodes_but_two_and_some_pins_share_one(world):
    broken, digests, endings = [], Counter(), Counter()
    for pin in rows(world / "pins.parquet"):
        data = (world / pin["image"]).read_bytes()
        digests[hashlib.sha256(data).hexdigest()] += 1
        endings[Path(pin["image"]).suffix] += 1
        try:
            width, height = decode(data).size
            assert min(width, height) >= 200
            assert max(width, height) <= 400
            assert 0.74 < width / height < 1.34
        except ImageError as error:
            broken.append(str(error))
    assert sorted(broken) == ["not an image, or a format that is not supported", "truncated image"]
    assert max(digests.values()) > 1
    assert endings.most_common()[0][0] == ".jpg"
    assert len(endings) > 1


def test_saves_name_pins_and_boards_that_exist_and_are_not_before_them(world):
    pins = {pin["pin_id"]: pin for pin in rows(world / "pins.parquet")}
    boards = {board["board_id"]: board for board in rows(world / "boards.parquet")}
    saves = rows(world / "saves")
    assert len(list((world / "saves").iterdir())) == 3
    assert PINS * 3 < len(saves) <= 10_000
    for save in saves:
        assert (
            max(pins[save["pin_id"]]["created_at"], boards[save["board_id"]]["created_at"]) < save["saved_at"]
        )
        assert save["saved_at"].date() <= date(2026, 6, 30)


def test_boards_collect_what_their_titles_say(world):
    shown = {
        pin["pin_id"]: f"{pin['title']} {pin['description']}".lower()
        for pin in rows(world / "pins.parquet")
        if pin["description"] and pin["title"]
    }
    titles = {board["board_id"]: board["title"].lower() for board in rows(world / "boards.parquet")}
    hits = [
        re.search(r"boat", shown[s["pin_id"]]) is not None
        for s in rows(world / "saves")
        if s["pin_id"] in shown and "boat" in titles[s["board_id"]]
    ]
    assert len(hits) > 5
    assert sum(hits) / len(hits) > 0.7


def test_queries_fit_what_the_pins_show_over_thirty_days(world):
    pins = {pin["pin_id"]: pin for pin in rows(world / "pins.parquet")}
    days = sorted(p.stem for p in (world / "log").iterdir())
    assert (days[0], days[-1], len(days)) == ("2026-06-01", "2026-06-30", 30)
    log = rows(world / "log")
    assert PINS * 10 < len(log) <= 10_000
    assert all(row["pin_id"] in pins and row["count"] >= 1 for row in log)
    assert {row["action"] for row in log} == {"save", "long_click", "click", "impression"}
    assert 0 < sum("@" in row["query"] for row in log) < len(log) / 50
    told = [row for row in log if pins[row["pin_id"]]["description"] and pins[row["pin_id"]]["title"]]
    fitting = sum(
        any(w in pins[r["pin_id"]]["title"].lower() for w in r["query"].lower().split()) for r in told
    )
    assert fitting / len(told) > 0.75
    for path in (world / "log").iterdir():
        assert {str(row["date"]) for row in rows(path)} <= {path.stem}


def test_popularity_is_uneven(world):
    counts = sorted(Counter(row["pin_id"] for row in rows(world / "log")).values(), reverse=True)
    assert sum(counts[: PINS // 10]) > 0.25 * sum(counts)
