"""A store of two pins, and boards, saves and a log for it."""

import shutil
from contextlib import closing
from pathlib import Path

import pytest

from pincaption.store import open_store

from .tables import boards_table, log_table, saves_table, write


@pytest.fixture(scope="module")
def two_pins(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("store") / "two_pins.db"
    with closing(open_store(path, create=True)) as conn:
        conn.execute("INSERT INTO pins (pin_id, title) VALUES ('1', 'Mug'), ('2', NULL)")
    return path


@pytest.fixture
def db(tmp_path: Path, two_pins: Path) -> Path:
    """A store with the pins 1 and 2."""
    return Path(shutil.copy(two_pins, tmp_path / "my.db"))


@pytest.fixture
def boards(tmp_path: Path) -> Path:
    return write(
        tmp_path / "boards.csv",
        boards_table(
            {
                "a": "Kitchen!!  IDEAS",
                "b": "kitchen ideas",
                "c": "Tea Time",
                "d": "♡♡",
                "e": "My Stuff",
                "f": "mail me@example.com",
            }
        ),
    )


@pytest.fixture
def saves(tmp_path: Path) -> Path:
    return write(
        tmp_path / "saves.csv",
        saves_table(
            ("1", "a"),
            ("1", "b"),
            ("1", "c"),
            ("1", "d"),
            ("1", "e"),
            ("1", "f"),
            ("9", "c"),
            ("9", "unknown"),
            ("", "c"),
        ),
    )


@pytest.fixture
def log(tmp_path: Path) -> Path:
    rows = [
        ("1", "Red Mug!", "save", "2024-05-01", 2),
        ("1", "red mug", "click", "2024-05-02", 1),
        ("1", "mug", "view", "2024-05-02", 7),
        ("1", "mug", "click", "2020-05-02", 1),
        ("1", "me@example.com", "save", "2024-05-01", 1),
        ("9", "cup", "long_click", "2024-05-01", 1),
        ("9", "cup", "long_click", "2024-05-01", 0),
    ]
    return write(tmp_path / "log.csv", log_table(*rows, names=("pin_id", "query", "action", "date", "count")))
