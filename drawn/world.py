"""The drawn world: a small catalogue of pins, boards, saves and a query log, for the demo and for tests.

What people save and search for depends on what the pictures show. So a person can judge the titles and the
queries that are found for a pin by looking at its picture. Nothing comes from a third party, no person and no
address is real, and the same seed gives the same files.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

from ..common.files import whole
from .boards import make_boards
from .pins import LAST_DAY, as_row, image_bytes, make_pins
from .query_log import LOG_DAYS, make_log

MIN_PINS = 12
MARKER = "drawn-by-captioner.txt"  # the file that says that the folder may be written to
_NOTE = (
    "The images and tables in this folder were drawn by captioner and can be deleted. They show nobody and "
    "belong to nobody.\n"
)


def make_world(folder: Path, pins: int = 300, seed: int = 0) -> bool:
    """Draws a catalogue of `pins` pins (at least 12) into `folder`.

    Writes images/, boards.parquet, saves/*.parquet and log/YYYY-MM-DD.parquet. Last it writes pins.parquet,
    which makes the catalogue complete. About a third of the pins have no text, and a few share an image. Two
    images are broken, so that failures can be seen.

    Returns False if the folder holds a complete catalogue already; then it writes nothing. Raises ValueError
    for too few pins, FileExistsError if the folder holds images or tables that captioner did not draw.
    """
    folder = Path(folder)
    if pins < MIN_PINS:
        raise ValueError(f"a world has at least {MIN_PINS} pins")
    if not (folder / MARKER).exists():
        _claim_folder(folder)
    elif (folder / "pins.parquet").exists():
        return False
    (folder / "images").mkdir(exist_ok=True)
    drawn = make_pins(pins, random.Random(f"pins {seed}"))
    for pin in drawn:
        (folder / pin.image).write_bytes(image_bytes(pin, seed))
    boards, saves = make_boards(drawn, random.Random(f"boards {seed}"))
    _write_table(folder / "boards.parquet", boards)
    third = -(-len(saves) // 3)
    for i in range(3):
        _write_table(folder / f"saves/saves-{i + 1}.parquet", saves[i * third : (i + 1) * third], like=saves)
    log = make_log(drawn, random.Random(f"log {seed}"))
    for days_back in range(LOG_DAYS):
        day = LAST_DAY - timedelta(days=days_back)
        _write_table(folder / f"log/{day}.parquet", [row for row in log if row["date"] == day], like=log)
    rows = [as_row(pin, random.Random(f"row {seed} {pin.pin_id}")) for pin in drawn]
    _write_table(folder / "pins.parquet", rows)
    return True


def _claim_folder(folder: Path) -> None:
    """Marks a folder as ours. Raises FileExistsError if it holds files of somebody else."""
    names = ("images", "saves", "log", "boards.parquet", "pins.parquet")
    if existing := [name for name in names if (folder / name).exists()]:
        raise FileExistsError(
            f"{folder} has {' and '.join(existing)} that captioner did not draw: name another folder"
        )
    folder.mkdir(parents=True, exist_ok=True)
    (folder / MARKER).write_text(_NOTE)


def _write_table(path: Path, rows: Sequence[dict[str, Any]], like: Iterable[dict[str, Any]] = ()) -> None:
    """Writes a Parquet file, completely or not at all.

    `like` are rows with the same columns, in case that `rows` is empty.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    types = {str: pa.string(), int: pa.int64(), date: pa.date32(), datetime: pa.timestamp("us")}
    samples = (*rows, *like)
    columns = {
        name: next((types[type(row[name])] for row in samples if row[name] is not None), pa.string())
        for name in samples[0]
    }
    path.parent.mkdir(exist_ok=True)
    with whole(path) as unfinished:
        pq.write_table(pa.Table.from_pylist(list(rows), pa.schema(columns.items())), unfinished)
