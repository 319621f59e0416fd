"""Pins from a folder of images: which files become pins, and what a second ingest changes."""

import os
from pathlib import Path

import pytest

from pincaption.images.endings import IMAGE_ENDINGS
from pincaption.ingest.images import ingest_images
from pincaption.store import Connection


def pins(store: Connection, columns: str) -> list[tuple]:
    return [tuple(row) for row in store.execute(f"SELECT {columns} FROM pins ORDER BY rowid")]


def test_every_file_with_an_images_ending_becomes_a_pin(store: Connection, tmp_path: Path) -> None:
    top = tmp_path / "photos"
    names = [
        "a.jpg",
        "B.JPEG",
        "sub/c.PnG",
        "sub/deep er/d.webp",
        "ünï 'quoted' \"x\"\n.gif",
        " lead.jpg",
        "broken.jpg",
    ]
    others = ["notes.txt", "jpg", "movie.mp4"]
    for name in names + others:
        (top / name).parent.mkdir(parents=True, exist_ok=True)
        (top / name).write_bytes(b"no image at all")
    (top / "loop").symlink_to(top)
    (top / "lost.png").symlink_to(top / "nowhere")
    (top / "folder.jpg").mkdir()
    counts = ingest_images(store, top)
    assert {row[0] for row in pins(store, "pin_id")} == {*names, "lost.png"}
    assert all(image == f"{top}/{pin_id}" for pin_id, image in pins(store, "pin_id, image"))
    assert (counts["pins"], counts["skipped"], counts["rejected"]) == (len(names) + 1, len(others), 0)


@pytest.mark.parametrize(
    "ending", [".jpg", ".jpeg", ".png", ".gif", ".webp", ".bmp", ".tif", ".tiff", ".avif", ".heic"]
)
def test_the_usual_endings_are_images(ending: str) -> None:
    assert ending in IMAGE_ENDINGS


def test_a_name_that_is_not_utf_8_is_a_rejected_row(store: Connection, tmp_path: Path) -> None:
    top = tmp_path / "photos"
    top.mkdir()
    (top / os.fsdecode(b"caf\xe9.jpg")).touch()
    (top / os.fsdecode(b"caf\xe9.txt")).touch()
    (top / "good.jpg").touch()
    counts = ingest_images(store, top)
    assert (counts["pins"], counts["skipped"], counts["reasons"]) == (
        1,
        1,
        {"the file's name is not valid UTF-8": 1},
    )
    assert store.execute("SELECT content FROM rejected_rows").fetchone()[0].endswith("caf?.jpg")


def test_a_second_ingest_of_a_folder_adds_new_files_and_keeps_the_rest(
    store: Connection, tmp_path: Path
) -> None:
    (tmp_path / "a.jpg").write_bytes(b"1")
    ingest_images(store, tmp_path)
    store.execute("UPDATE pins SET image_sha256 = 'x', title = 'kept'")
    (tmp_path / "b.jpg").write_bytes(b"1")
    counts = ingest_images(store, tmp_path)
    assert (counts["new"], counts["updated"]) == (1, 1)
    assert pins(store, "pin_id, image_sha256, title") == [("a.jpg", "x", "kept"), ("b.jpg", None, None)]
