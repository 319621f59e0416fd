"""Folders as people have them: files of systems, pictures that are gone, two folders with the same names."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from pincaption.cli import cli
from pincaption.ingest.images import ingest_images
from pincaption.sources.rows import SourceError
from pincaption.store import Connection, open_store


def captioner(*arguments: Any) -> Result:
    return CliRunner().invoke(cli, [str(argument) for argument in arguments])


def shown(store: Connection) -> list[str]:
    return [row[0] for row in store.execute("SELECT pin_id FROM enriched_features ORDER BY 1")]


def put(folder: Path, *names: str, content: str = "") -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content or f"not decoded at ingest {name}")


def test_files_of_systems_are_skipped_and_counted(tmp_path: Path) -> None:
    """f10: a folder from a Mac and two kinds of network disks."""
    junk = ["._a.jpg", "__MACOSX/._a.jpg", "@eaDir/a.jpg/SYNOPHOTO_THUMB.jpg", ".thumbs/t.jpg", ".DS_Store"]
    put(tmp_path / "ph", "a.jpg", "sub/b.jpg", "sub/Thumbs.db", "#recycle/gone.jpg", *junk)
    result = captioner("ingest", "images", tmp_path / "s.db", tmp_path / "ph")
    assert result.stdout.splitlines() == [
        f"2 pins into {tmp_path}/s.db: 2 new, 0 updated",
        "7 files and folders skipped, hidden or of systems (#recycle, .thumbs, @eaDir,",
        "  __MACOSX)",
    ]
    with closing(open_store(tmp_path / "s.db")) as store:
        assert shown(store) == ["a.jpg", "sub/b.jpg"]


def test_the_folder_itself_may_be_hidden(store: Connection, tmp_path: Path) -> None:
    put(tmp_path / ".cache/@eaDir", "a.jpg")
    assert ingest_images(store, tmp_path / ".cache/@eaDir")["pins"] == 1


def test_links_to_folders_are_counted(store: Connection, tmp_path: Path) -> None:
    put(tmp_path / "ph", "a.jpg")
    (tmp_path / "ph/loop").symlink_to(tmp_path / "ph")
    counts = ingest_images(store, tmp_path / "ph")
    assert (counts["pins"], counts["linked_folders"]) == (1, 1)


def test_sync_marks_pictures_that_are_gone_until_they_are_there_again(tmp_path: Path) -> None:
    """f15. Pins of other folders and of tables stay, even if their picture is in this folder."""
    put(tmp_path / "ph", "a.jpg", "sub/b.jpg", "c.jpg")
    put(tmp_path / "other", "x.jpg")
    put(tmp_path, "pins.csv", content="pin_id,image\nt1,ph/c.jpg\nt2,ph/never.jpg\nc,ph/c.jpg\n")
    db = tmp_path / "s.db"
    for words in (["images", db, tmp_path / "ph"], ["images", db, tmp_path / "other"]):
        assert captioner("ingest", *words).exit_code == 0
    captioner("ingest", "pins", db, tmp_path / "pins.csv")
    (tmp_path / "ph/sub/b.jpg").rename(tmp_path / "b.jpg")
    (tmp_path / "ph/c.jpg").unlink()
    with closing(open_store(db)) as store:
        captioner("ingest", "images", db, tmp_path / "ph")
        assert {"sub/b.jpg", "c.jpg"} < set(shown(store))  # without --sync they stay
        result = captioner("ingest", "images", db, tmp_path / "ph", "--sync")
        assert "2 pins marked as deleted whose picture is gone from here" in result.stdout
        assert shown(store) == ["a.jpg", "c", "t1", "t2", "x.jpg"]
        (tmp_path / "b.jpg").rename(tmp_path / "ph/sub/b.jpg")
        again = json.loads(captioner("ingest", "images", db, tmp_path / "ph", "--sync", "--json").stdout)
        assert again["deleted"] == 0
        assert "sub/b.jpg" in shown(store)


def test_sync_knows_the_prefix_and_the_folder_above(store: Connection, tmp_path: Path) -> None:
    put(tmp_path / "ph", "sub/b.jpg", "sub/c.jpg")
    ingest_images(store, tmp_path / "ph")
    ingest_images(store, tmp_path / "ph/sub", prefix="deep")
    (tmp_path / "ph/sub/b.jpg").unlink()
    assert ingest_images(store, tmp_path / "ph/sub", prefix="deep", sync=True)["deleted"] == 1
    assert shown(store) == ["deep/c.jpg", "sub/b.jpg", "sub/c.jpg"]


def test_what_an_earlier_version_took_from_a_folder_of_a_system_is_marked(
    store: Connection, tmp_path: Path
) -> None:
    put(tmp_path / "ph", "a.jpg", "@eaDir/t.jpg")
    ingest_images(store, tmp_path / "ph")
    store.execute(
        "INSERT INTO pins (pin_id, image) VALUES ('@eaDir/t.jpg', ?)", [f"{tmp_path}/ph/@eaDir/t.jpg"]
    )
    ingest_images(store, tmp_path / "ph", sync=True)
    assert shown(store) == ["a.jpg"]


def test_a_folder_that_is_empty_now_marks_nothing(store: Connection, tmp_path: Path) -> None:
    """A disk that is not there looks like an empty folder."""
    put(tmp_path / "ph", "a.jpg")
    ingest_images(store, tmp_path / "ph")
    (tmp_path / "ph/a.jpg").unlink()
    with pytest.raises(SourceError, match="holds no picture; it is empty"):
        ingest_images(store, tmp_path / "ph", sync=True)
    assert shown(store) == ["a.jpg"]


def test_what_cannot_be_read_in_whole_stops_the_marking(tmp_path: Path) -> None:
    """Here an archive; a folder without permission goes the same way, but not for root, who runs tests."""
    put(tmp_path / "ph", "a.jpg", "b.jpg")
    captioner("ingest", "images", tmp_path / "s.db", tmp_path / "ph")
    (tmp_path / "ph/b.jpg").unlink()
    (tmp_path / "ph/broken.tar").write_bytes(b"no archive" * 100)
    result = captioner("ingest", "images", tmp_path / "s.db", tmp_path / "ph", "--sync")
    assert result.exit_code == 1
    assert (
        "broken.tar cannot be read in whole, so captioner cannot tell which pictures are gone"
        in result.stderr
    )
    with closing(open_store(tmp_path / "s.db")) as store:
        assert shown(store) == ["a.jpg", "b.jpg"]


def test_a_second_folder_of_the_same_names_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    put(tmp_path / "one", "a.jpg", "b.jpg")
    put(tmp_path / "two", "0.jpg", "b.jpg", content="another")
    db = tmp_path / "s.db"
    captioner("ingest", "images", db, tmp_path / "one")
    with closing(open_store(db)) as store:
        before = list(store.iterdump())
        result = captioner("ingest", "images", db, tmp_path / "two")
        assert result.exit_code == 1
        assert f"b.jpg is {tmp_path}/one/b.jpg there" in result.stderr
        assert "--prefix two" in result.stderr
        assert list(store.iterdump()) == before
        assert captioner("ingest", "images", db, tmp_path / "two", "--prefix", "two").exit_code == 0
        assert shown(store) == ["a.jpg", "b.jpg", "two/0.jpg", "two/b.jpg"]
        assert captioner("ingest", "images", db, tmp_path / "one").exit_code == 0
        assert captioner("ingest", "images", db, tmp_path / "two", "--prefix", "two/").exit_code == 0
        assert len(shown(store)) == 4


def test_pictures_of_a_table_are_not_replaced_either(store: Connection, tmp_path: Path) -> None:
    put(tmp_path / "ph", "a.jpg", "b.jpg")
    store.execute("INSERT INTO pins (pin_id, image) VALUES ('a.jpg', 'https://shop.example/a.jpg')")
    with pytest.raises(SourceError, match=r"a\.jpg is https://shop\.example/a\.jpg there"):
        ingest_images(store, tmp_path / "ph")
    store.execute("UPDATE pins SET image = NULL, title = 'kept'")
    ingest_images(store, tmp_path / "ph")
    assert store.execute("SELECT title, image FROM pins WHERE pin_id = 'a.jpg'").fetchone()[:] == (
        "kept",
        f"{tmp_path}/ph/a.jpg",
    )


def test_two_folders_of_one_command_are_compared_too(store: Connection, tmp_path: Path) -> None:
    put(tmp_path / "one", "a.jpg")
    put(tmp_path / "two", "a.jpg", content="another")
    with pytest.raises(SourceError, match=r"both have a picture a\.jpg"):
        ingest_images(store, [tmp_path / "one", tmp_path / "two"])
    assert shown(store) == []


def test_a_changed_picture_of_the_same_folder_is_no_conflict(store: Connection, tmp_path: Path) -> None:
    put(tmp_path / "ph", "a.jpg")
    ingest_images(store, tmp_path / "ph")
    put(tmp_path / "ph", "a.jpg", content="edited since")
    assert ingest_images(store, tmp_path / "ph")["updated"] == 1


@pytest.mark.parametrize("how", ["moved", "copied", "copied and captioned"])
def test_a_folder_that_moved_keeps_its_pins_and_their_captions(
    store: Connection, tmp_path: Path, how: str
) -> None:
    put(tmp_path / "old", "a.jpg", "sub/b.jpg")
    ingest_images(store, tmp_path / "old")
    store.execute("UPDATE pins SET image_sha256 = 'known'")
    if how == "copied and captioned":
        for name in ("a.jpg", "sub/b.jpg"):
            digest = hashlib.sha256((tmp_path / "old" / name).read_bytes()).hexdigest()
            store.execute("UPDATE pins SET image_sha256 = ? WHERE pin_id = ?", [digest, name])
    if how == "moved":
        (tmp_path / "old").rename(tmp_path / "new")
    else:
        shutil.copytree(tmp_path / "old", tmp_path / "new", copy_function=shutil.copy)
    if how == "copied and captioned":
        shutil.rmtree(tmp_path / "old")
    known = [row[0] for row in store.execute("SELECT image_sha256 FROM pins")]
    counts = ingest_images(store, tmp_path / "new")
    assert (counts["moved"], counts["updated"]) == (2, 2)
    assert [row[0] for row in store.execute("SELECT image_sha256 FROM pins")] == known
    assert {row[0] for row in store.execute("SELECT image FROM pins")} == {
        f"{tmp_path}/new/a.jpg",
        f"{tmp_path}/new/sub/b.jpg",
    }


def test_what_was_lost_in_a_move_is_marked(store: Connection, tmp_path: Path) -> None:
    put(tmp_path / "old", "a.jpg", "b.jpg")
    ingest_images(store, tmp_path / "old")
    (tmp_path / "old").rename(tmp_path / "new")
    (tmp_path / "new/b.jpg").unlink()
    assert ingest_images(store, tmp_path / "new", sync=True)["deleted"] == 1
    assert shown(store) == ["a.jpg"]


def test_same_size_and_time_do_not_make_two_pictures_the_same(store: Connection, tmp_path: Path) -> None:
    """Archives often give all files one time, and all bitmaps of a camera have one size."""
    for folder, content in (("one", "AAAA"), ("two", "BBBB")):
        put(tmp_path / folder, "a.bmp", content=content)
        os.utime(tmp_path / folder / "a.bmp", (0, 0))
    ingest_images(store, tmp_path / "one")
    with pytest.raises(SourceError, match="--prefix two"):
        ingest_images(store, tmp_path / "two")


def test_a_folder_without_pictures_is_an_error_and_makes_no_store(tmp_path: Path) -> None:
    put(tmp_path / "ph", "movie.mp4", "a.pdf", "b.pdf", ".DS_Store")
    result = captioner("ingest", "images", tmp_path / "s.db", tmp_path / "ph")
    assert result.exit_code == 1
    assert "holds no picture; there are other files: 2 .pdf, 1 .mp4, 1 hidden" in result.stderr
    assert not (tmp_path / "s.db").exists()


@pytest.mark.parametrize("prefix", ["", "/", " ", "a\0b"])
def test_a_prefix_must_be_a_name(store: Connection, tmp_path: Path, prefix: str) -> None:
    put(tmp_path / "ph", "a.jpg")
    with pytest.raises(SourceError, match="--prefix"):
        ingest_images(store, tmp_path / "ph", prefix=prefix)


def test_an_empty_store_says_so_and_what_to_type(tmp_path: Path) -> None:
    open_store(tmp_path / "s.db", create=True).close()
    result = captioner("run", tmp_path / "s.db")
    assert result.exit_code == 0
    assert result.stdout.startswith("the store has no pins: bring some in with `captioner ingest images ")
    counted = captioner("run", tmp_path / "s.db", "--model", "builtin", "--json")
    assert json.loads(counted.stdout)["selected"] == 0
    assert "the store has no pins" in counted.stderr
    with closing(sqlite3.connect(tmp_path / "s.db")) as conn, conn:
        conn.execute("INSERT INTO pins (pin_id, deleted_at) VALUES ('a', '2026')")
    assert "(1 are marked as deleted)" in captioner("run", tmp_path / "s.db").stdout
