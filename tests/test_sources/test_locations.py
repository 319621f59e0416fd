"""Files behind paths, folders and globs."""

from pathlib import Path

from pincaption.sources.locations import find_sources

from .examples import TWO_PINS, read, write


def test_folders_and_globs_give_each_file_once_and_in_order(tmp_path: Path) -> None:
    for name in ("b.csv", "a.csv", "notes.txt", "sub/c.jsonl"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("x")
    files = find_sources([str(tmp_path), f"{tmp_path}/*.csv", f"{tmp_path}/**/*.jsonl", "-"])
    assert files == [f"{tmp_path}/a.csv", f"{tmp_path}/b.csv", f"{tmp_path}/sub/c.jsonl", "-"]


def test_a_file_with_brackets_in_its_name_is_not_taken_for_a_glob(tmp_path: Path) -> None:
    assert len(read(write(tmp_path / "pins[1].csv", TWO_PINS))[0]) == 2


def test_an_unpacked_table_that_is_still_called_gz_is_read(tmp_path: Path) -> None:
    packed = write(tmp_path / "a.csv", TWO_PINS).rename(tmp_path / "a.csv.gz")
    assert len(read(packed)[0]) == 2
