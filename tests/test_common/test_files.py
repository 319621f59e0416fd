"""A file is the old one or the new one, whatever happens while it is written."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from pincaption.common.files import whole, write_whole


@pytest.mark.parametrize(
    ("content", "written"),
    [
        (b"\0\xff", b"\0\xff"),
        ("déjà\r\nvu\n", "déjà\r\nvu\n".encode()),
        (["a", "b\n"], b"ab\n"),
        ("half a \ud83c flag", b"half a ? flag"),
        ("", b""),
    ],
)
def test_bytes_texts_and_parts_of_texts_are_written_as_they_are(
    tmp_path: Path, content: str | bytes | list[str], written: bytes
) -> None:
    for _ in range(2):  # nothing there yet, and an earlier one
        write_whole(tmp_path / "a.txt", content)
        assert (tmp_path / "a.txt").read_bytes() == written
        assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]


def test_an_encoding_can_be_named(tmp_path: Path) -> None:
    write_whole(tmp_path / "a.csv", ["é"], encoding="utf-8-sig")
    assert (tmp_path / "a.csv").read_bytes() == b"\xef\xbb\xbf\xc3\xa9"


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
@pytest.mark.parametrize("old", [None, "old"])
def test_a_block_that_raises_changes_nothing_and_leaves_nothing(
    tmp_path: Path, old: str | None, error: type[BaseException]
) -> None:
    path = tmp_path / "a.txt"
    if old is not None:
        path.write_text(old)

    def parts() -> Iterator[str]:
        yield "new" * 100_000
        raise error

    with pytest.raises(error):
        write_whole(path, parts())
    with pytest.raises(error), whole(path):
        raise error  # before anything was written
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == (
        {} if old is None else {"a.txt": old}
    )


def test_a_place_that_cannot_be_taken_is_an_error_and_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(IsADirectoryError):
        write_whole(tmp_path / "folder", "text")
    with pytest.raises(FileNotFoundError):
        write_whole(tmp_path / "none" / "a.txt", "text")
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


def test_a_process_that_is_killed_leaves_the_old_file_and_the_next_one_writes_the_new(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")
    script = f"""import os
from pincaption.common.files import whole
with whole({str(path)!r}) as unfinished, unfinished.open("w") as file:
    file.write("much longer than what comes next " * 1000)
    file.flush()
    os._exit(9)"""
    assert subprocess.run([sys.executable, "-c", script]).returncode == 9
    assert path.read_text() == "old"
    assert len(list(tmp_path.iterdir())) == 2  # what it had written
    write_whole(path, "new")
    assert path.read_text() == "new"
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]
