"""EnrichedFeatures: the store as a PyTorch dataset, while others write, split over workers and ranks, and
continued where it stopped.
"""

from __future__ import annotations

import pickle
import threading
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from torch.utils.data import DataLoader

from pincaption.store import EnrichedFeatures, StoreError, open_store, transaction

from ..test_export.test_write import COLUMNS, expected, fill


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return fill(tmp_path / "my.db", 2000)


def unchanged(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return rows


def test_rows_are_those_of_the_view(store: Path) -> None:
    features, wanted = EnrichedFeatures(store), expected(store)
    assert len(features) == len(wanted) == 1999
    for i in (0, 5, 1998):
        row = features[i]
        assert list(row) == COLUMNS
        own = wanted[row["pin_id"]]
        assert row["board_titles"] == own["board_titles"]
        assert (row["caption"], row["caption_recipe"], row["engaged_queries"]) == (
            own["caption"],
            own["caption_recipe"],
            own["engaged_queries"],
        )
    assert [row["pin_id"] for row in features.__getitems__([3, 1, 3])] == ["pin 3", "pin 1", "pin 3"]


def test_some_columns_and_one_recipe(store: Path) -> None:
    features = EnrichedFeatures(store, columns=["caption", "board_titles"], recipe="old")
    assert features[1] == {"caption": "old back\\slashx", "board_titles": features[1]["board_titles"]}
    with pytest.raises(StoreError, match="enriched_features has no column colour"):
        EnrichedFeatures(store, columns=["colour"])
    with pytest.raises(StoreError, match="does not exist"):
        EnrichedFeatures(store.with_name("none.db"))


@pytest.mark.parametrize("workers", [0, 2])
def test_map_style_through_a_data_loader(store: Path, workers: int) -> None:
    loader = DataLoader(
        EnrichedFeatures(store, columns=["pin_id"]),
        batch_size=64,
        shuffle=True,
        num_workers=workers,
        collate_fn=unchanged,
    )
    assert Counter(row["pin_id"] for batch in loader for row in batch) == Counter(expected(store).keys())


@pytest.mark.parametrize("shuffle", [False, True])
@pytest.mark.parametrize(("ranks", "workers"), [(1, 0), (1, 2), (3, 0), (2, 2)])
def test_iterable_every_row_once_over_ranks_and_workers(
    store: Path, ranks: int, workers: int, shuffle: bool
) -> None:
    pin_ids: Counter[str] = Counter()
    for rank in range(ranks):
        part = EnrichedFeatures(store, columns=["pin_id"]).iterable(
            shuffle=shuffle, rank=rank, world_size=ranks
        )
        rows = [row["pin_id"] for row in DataLoader(part, batch_size=None, num_workers=workers)]
        assert len(rows) == len(part)
        pin_ids.update(rows)
    assert pin_ids == Counter(expected(store).keys())


def test_reading_continues_at_a_saved_position(store: Path) -> None:
    def make() -> Any:
        return EnrichedFeatures(store, columns=["pin_id"]).iterable(shuffle=True, seed=3)

    whole = [row["pin_id"] for row in make()]
    for stop in (0, 1, 511, 512, 513, 1999):
        reading, first = make(), []
        rows = iter(reading)
        for _ in range(stop):
            first.append(next(rows)["pin_id"])
        state = pickle.loads(pickle.dumps(reading.state_dict()))
        again = make()
        again.load_state_dict(state)
        assert first + [row["pin_id"] for row in again] == whole
        assert [row["pin_id"] for row in again] == whole  # the next pass reads all rows


def test_epochs_differ_and_seeds_agree(store: Path) -> None:
    features = EnrichedFeatures(store, columns=["pin_id"])
    a, b = features.iterable(shuffle=True, seed=1), features.iterable(shuffle=True, seed=1)
    first = [row["pin_id"] for row in a]
    assert first == [row["pin_id"] for row in b]
    a.set_epoch(1)
    assert [row["pin_id"] for row in a] != first
    with pytest.raises(ValueError, match="rank 2 does not exist: ranks go from 0 to 1"):
        features.iterable(rank=2, world_size=2)


def test_captioning_may_go_on_meanwhile(store: Path) -> None:
    features = EnrichedFeatures(store, columns=["pin_id", "caption"])
    writer, stop = open_store(store), threading.Event()

    def write() -> None:
        n = 0
        while not stop.is_set():
            n += 1
            with transaction(writer):
                writer.execute("UPDATE captions SET text = ? WHERE pin_id = 'pin 1'", [f"caption {n}"])
                writer.execute("INSERT INTO pins (pin_id) VALUES (?)", [f"later {n}"])

    thread = threading.Thread(target=write)
    thread.start()
    try:
        rows = [row for _ in range(5) for row in features.iterable()]
    finally:
        stop.set()
        thread.join()
    assert len(rows) == 5 * 1999  # the pins that the store had when the dataset was made
    with transaction(writer):
        writer.execute("DELETE FROM captions WHERE pin_id = 'pin 2'")
        writer.execute("UPDATE pins SET deleted_at = '2026-01-01' WHERE pin_id = 'pin 2'")
    assert features[2] == {"pin_id": "pin 2", "caption": None}  # a deleted pin keeps its place


def test_ranks_of_a_small_store_get_about_the_same_number_of_rows(tmp_path: Path) -> None:
    features = EnrichedFeatures(fill(tmp_path / "small.db", 601), columns=["pin_id"])
    parts = [len(features.iterable(rank=rank, world_size=4)) for rank in range(4)]
    assert sum(parts) == 600
    assert max(parts) - min(parts) <= 20


def test_a_loaded_position_is_saved_unchanged_and_fits_its_own_rows_only(store: Path) -> None:
    features = EnrichedFeatures(store, columns=["pin_id"])
    reading = features.iterable(shuffle=True, seed=1)
    rows = iter(reading)
    next(rows), next(rows)
    state = reading.state_dict()
    again = features.iterable(shuffle=True, seed=1)
    again.load_state_dict(state)
    assert again.state_dict() == state
    with pytest.raises(ValueError, match="belongs to other rows or to another order"):
        features.iterable(shuffle=True, seed=2).load_state_dict(state)
    with pytest.raises(ValueError, match="go together"):
        features.iterable(rank=1)


def test_wrong_columns_and_unknown_recipes_are_refused(store: Path) -> None:
    for columns in ("title", []):
        with pytest.raises(StoreError, match="columns is a list of names"):
            EnrichedFeatures(store, columns=columns)
    with pytest.raises(StoreError):
        EnrichedFeatures(store, recipe="nonexistent")
