"""`captioner export --format sidecar|imagefolder|webdataset`: captions back where tools read them."""

from __future__ import annotations

import io
import json
import os
import tarfile
from contextlib import closing
from pathlib import Path
from typing import Any

import datasets
import pytest
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from pincaption.cli import cli
from pincaption.export.picture_names import PictureNames
from pincaption.images.endings import IMAGE_ENDINGS
from pincaption.store import open_store, transaction

FORMATS = ("sidecar", "imagefolder", "webdataset")


def captioner(*arguments: Any) -> Result:
    return CliRunner().invoke(cli, [str(argument) for argument in arguments])


def jpeg(colour: str) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (20, 20), colour).save(file, "JPEG")
    return file.getvalue()


@pytest.fixture
def db(tmp_path: Path) -> Path:
    """Pins of a folder, with captions but for one that has a description of its own and one without text."""
    names = ["a.jpg", "sub/b.jpg", "train/test-1.jpg", "own.jpg", "silent.jpg", "changed.jpg"]
    for i, name in enumerate(names):
        (tmp_path / "ph" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "ph" / name).write_bytes(jpeg(f"#{i * 40:02x}4080"))
    (tmp_path / "ph/own.txt").write_text("own words")
    captioner("ingest", "images", tmp_path / "s.db", tmp_path / "ph")
    result = captioner("run", tmp_path / "s.db", "--model", "builtin", "--select", "all")
    assert result.exit_code == 0, result.output
    with closing(open_store(tmp_path / "s.db")) as store, transaction(store):
        store.execute("UPDATE captions SET status = 'ok', reason = NULL, text = 'caption of ' || pin_id")
        store.execute("DELETE FROM captions WHERE pin_id IN ('own.jpg', 'silent.jpg')")
    (tmp_path / "ph/changed.jpg").write_bytes(jpeg("white"))
    return tmp_path / "s.db"


def files(folder: Path) -> dict[str, bytes]:
    paths = (path for path in folder.rglob("*") if path.is_file() and path.name != "manifest.json")
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


def test_sidecar_has_a_text_under_the_name_of_each_picture(db: Path, tmp_path: Path) -> None:
    result = captioner("export", db, tmp_path / "out", "--format", "sidecar")
    assert files(tmp_path / "out") == {
        "a.txt": b"caption of a.jpg",
        "sub/b.txt": b"caption of sub/b.jpg",
        "train/test-1.txt": b"caption of train/test-1.jpg",
        "own.txt": b"own words",
        "changed.txt": b"caption of changed.jpg",
    }
    assert "left out: 1 pin: neither a caption nor a text of its own" in result.stdout


def test_datasets_reads_an_imagefolder_with_every_picture(db: Path, tmp_path: Path) -> None:
    result = captioner("export", db, tmp_path / "out", "--format", "imagefolder")
    assert "left out: 1 pin: the image has changed since it was captioned" in result.stdout
    read = datasets.load_dataset("imagefolder", data_dir=str(tmp_path / "out"), cache_dir=str(tmp_path / "c"))
    assert list(read) == ["train"]  # a picture named test-1.jpg makes no split
    rows = {row["pin_id"]: row for row in read["train"]}
    assert {pin_id: row["text"] for pin_id, row in rows.items()} == {
        "a.jpg": "caption of a.jpg",
        "sub/b.jpg": "caption of sub/b.jpg",
        "train/test-1.jpg": "caption of train/test-1.jpg",
        "own.jpg": "own words",
    }
    assert rows["own.jpg"]["caption"] is None
    assert (tmp_path / "out/sub/b.jpg").read_bytes() == (tmp_path / "ph/sub/b.jpg").read_bytes()
    assert rows["a.jpg"]["image"].size == (20, 20)


def test_webdataset_is_read_back_by_ingest(db: Path, tmp_path: Path) -> None:
    result = captioner("export", db, tmp_path / "out", "--format", "webdataset", "--shards", 2)
    assert "4 pins in 2 files" in result.stdout
    with tarfile.open(tmp_path / "out/shard-00000.tar") as tar:
        assert [member.name for member in tar][:3] == ["000000000.jpg", "000000000.txt", "000000000.json"]
        about = json.load(tar.extractfile("000000000.json"))  # type: ignore[arg-type]
    assert (about["pin_id"], about["truncated"]) == ("a.jpg", False)
    assert captioner("ingest", "images", tmp_path / "back.db", tmp_path / "out").exit_code == 0
    with closing(open_store(tmp_path / "back.db")) as store:
        texts = [row[0] for row in store.execute("SELECT description FROM pins ORDER BY pin_id")]
    assert sorted(texts) == [
        "caption of a.jpg",
        "caption of sub/b.jpg",
        "caption of train/test-1.jpg",
        "own words",
    ]


@pytest.mark.parametrize("format", FORMATS)
def test_the_same_store_gives_the_same_bytes_and_they_can_be_checked(
    db: Path, tmp_path: Path, format: str
) -> None:
    for out in ("one", "two", "two"):  # the second time it replaces the first
        assert captioner("export", db, tmp_path / out, "--format", format).exit_code == 0
    assert files(tmp_path / "one") == files(tmp_path / "two")
    assert captioner("export", "--check", tmp_path / "one").exit_code == 0
    name = next(iter(files(tmp_path / "one")))
    (tmp_path / "one" / name).write_bytes(b"other")
    assert captioner("export", "--check", tmp_path / "one").exit_code == 1
    assert not [path for path in tmp_path.iterdir() if "unfinished" in path.name]


def test_what_a_person_wrote_is_never_replaced(db: Path, tmp_path: Path) -> None:
    photos = captioner("export", db, tmp_path / "ph", "--format", "sidecar")
    assert photos.exit_code == 1
    assert "exists already and is not an export" in photos.stderr
    assert (tmp_path / "ph/own.txt").read_text() == "own words"
    out = tmp_path / "out"
    captioner("export", db, out, "--format", "sidecar")
    (out / "a.txt").write_text("a person's correction")
    edited = captioner("export", db, out, "--format", "sidecar")
    assert edited.exit_code == 1
    assert "has texts that were changed since they were exported (a.txt)" in edited.stderr
    assert (out / "a.txt").read_text() == "a person's correction"
    (out / "a.txt").write_text("caption of a.jpg")
    (out / "README.md").write_text("notes of a person")
    assert (
        "also holds files that no export wrote (README.md)"
        in captioner("export", db, out, "--format", "sidecar").stderr
    )


@pytest.mark.parametrize("format", FORMATS)
def test_names_of_strangers_stay_in_the_folder(tmp_path: Path, format: str) -> None:
    picture = tmp_path / "p.jpg"
    picture.write_bytes(jpeg("red"))
    ids = ["../../out", "/etc/passwd", "a/../../b", "..", ".", ".hidden", "x\ny", "a\\b", "A.jpg", "a.jpg"]
    ids += ["a", "a.jpg/b", "manifest.json", "metadata.jsonl", "n" * 3000, "é" * 200, "", "CON"]
    rows = [{"pin_id": pin_id, "title": "red mug", "image": str(picture)} for pin_id in ids if pin_id]
    (tmp_path / "p.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    captioner("ingest", "pins", tmp_path / "s.db", tmp_path / "p.jsonl")
    before = sorted(os.listdir(tmp_path))
    result = captioner("export", tmp_path / "s.db", tmp_path / "out", "--format", format, "--json")
    assert json.loads(result.stdout)["rows"] == len(rows)
    assert sorted(os.listdir(tmp_path)) == sorted([*before, "out"])
    assert captioner("export", "--check", tmp_path / "out").exit_code == 0
    if format == "sidecar":
        assert len(files(tmp_path / "out")) == len(rows)


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]), min_size=1), unique=True), st.booleans())
def test_each_pin_has_a_name_of_its_own_below_the_folder(ids: list[str], instead: bool) -> None:
    names = PictureNames(for_datasets=not instead)
    taken = [names.take(pin_id, IMAGE_ENDINGS, ".txt", instead=instead) for pin_id in ids]
    assert len({name.casefold() for name in taken}) == len(ids)
    for name in taken:
        assert os.path.normpath(f"/out/{name}") == f"/out/{name}"
        assert "\0" not in name
        assert not any(part.startswith(".") for part in name.split("/"))


def test_pictures_that_share_a_stem_have_texts_of_their_own() -> None:
    names = PictureNames()
    take = [names.take(pin_id, IMAGE_ENDINGS, ".txt", instead=True) for pin_id in ("a.jpg", "a.png", "a")]
    assert take[:2] == ["a.txt", "a.png.txt"]
    assert take[2].startswith("a-")


def test_what_cannot_be_exported_is_said(tmp_path: Path) -> None:
    (tmp_path / "p.jsonl").write_text('{"pin_id": 1}\n{"pin_id": 2, "title": "Mug", "image": "gone.jpg"}\n')
    captioner("ingest", "pins", tmp_path / "s.db", tmp_path / "p.jsonl")
    result = captioner("export", tmp_path / "s.db", tmp_path / "out", "--format", "imagefolder")
    assert result.exit_code == 1
    assert "1 neither a caption nor a text of its own, 1 image file not found" in result.stderr
    assert not (tmp_path / "out").exists()
    wrong = captioner("export", tmp_path / "s.db", tmp_path / "o", "--format", "sidecar", "--seed", 1)
    assert wrong.exit_code == 2
    assert "--seed concern features for a trainer" in wrong.stderr


def test_an_export_without_pictures_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "ph").mkdir()
    (tmp_path / "ph/a.jpg").write_bytes(jpeg("red"))
    captioner("ingest", "images", tmp_path / "s.db", tmp_path / "ph")
    export = ("export", tmp_path / "s.db", tmp_path / "out", "--format", "imagefolder")
    without_text = captioner(*export)
    assert without_text.exit_code == 1
    assert "of its own; caption the pins with `captioner run`\n" in without_text.output
    captioner("run", tmp_path / "s.db", "--model", "builtin")
    with closing(open_store(tmp_path / "s.db")) as store, transaction(store):
        store.execute("UPDATE captions SET status = 'ok', reason = NULL, text = 'a caption'")
    (tmp_path / "ph/a.jpg").unlink()
    without_picture = captioner(*export)
    assert without_picture.exit_code == 1
    assert "1 image file not found; put the pictures back, or ingest" in without_picture.output
    assert "captioner run" not in without_picture.output
