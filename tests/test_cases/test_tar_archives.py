"""Tar archives of pictures (webdataset): read as they are, by place, and hostile ones do no harm."""

from __future__ import annotations

import gzip
import io
import itertools
import os
import sqlite3
import tarfile
import zipfile
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from pincaption.cli import cli
from pincaption.images.decode import ImageError
from pincaption.images.fetch import Fetcher
from pincaption.images.tar import parse, place_of, reference
from pincaption.images.tar_index import MAX_NAME_BYTES, BadMember, Member, read_index
from pincaption.ingest.images import ingest_images
from pincaption.sources.rows import SourceError
from pincaption.store import Connection, open_store


def captioner(*arguments: Any) -> Result:
    return CliRunner().invoke(cli, [str(argument) for argument in arguments])


def make_tar(path: Path, *members: tuple[str, bytes], format: int = tarfile.PAX_FORMAT) -> Path:
    with tarfile.open(path, "w", format=format) as tar:
        for name, data in members:
            add(tar, name, data)
    return path


def add(tar: tarfile.TarFile, name: str, data: bytes = b"", **fields: Any) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(data)
    for field, value in fields.items():
        setattr(member, field, value)
    tar.addfile(member, io.BytesIO(data))


def index(path: Path) -> list[Member | BadMember]:
    with path.open("rb") as file:
        return list(read_index(file.fileno()))


def picture(seed: int = 0) -> bytes:
    file = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 255, (24, 24, 3)).astype("uint8")
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def test_a_shard_in_a_folder_is_read_and_captioned(tmp_path: Path) -> None:
    """f18."""
    (tmp_path / "t").mkdir()
    make_tar(tmp_path / "t/0.tar", ("0.png", picture()), ("0.txt", b"a caption\n"), ("1.png", picture(1)))
    result = captioner("ingest", "images", tmp_path / "s.db", tmp_path / "t")
    assert result.stdout.splitlines() == [
        f"2 pins into {tmp_path}/s.db: 2 new, 0 updated",
        "1 tar archive read; the pictures stay in there",
        "texts beside pictures: 1 description from .txt",
    ]
    ran = captioner("run", tmp_path / "s.db", "--model", "builtin", "--select", "all")
    assert ran.exit_code == 0, ran.output
    with closing(open_store(tmp_path / "s.db")) as store:
        pins = [tuple(row) for row in store.execute("SELECT pin_id, description, image_sha256 FROM pins")]
        assert [pin[:2] for pin in pins] == [("0.tar/0.png", "a caption"), ("0.tar/1.png", None)]
        assert all(pin[2] for pin in pins)
        statuses = {row[0] for row in store.execute("SELECT status FROM captions")}
        assert statuses <= {"ok", "rejected"}


def test_what_stands_beside_a_picture_in_a_sample(store: Connection, tmp_path: Path) -> None:
    """The files of a sample share the name up to the first dot; they may lie anywhere in the archive."""
    make_tar(
        tmp_path / "0.tar",
        ("./a.json", b'{"title": "Mug", "caption": "from json", "url": "u"}'),
        ("./a.left.jpg", b"1"),
        ("./sub/b.jpg", b"2"),
        ("./a.right.jpg", b"3"),
        ("./sub/b.cls", b"7"),
        ("./._a.left.jpg", b"resource fork"),
        ("./a.txt", b"from txt"),
        ("./a.npy", b"numbers"),
        ("./alone.txt", b"of no picture"),
    )
    counts = ingest_images(store, tmp_path / "0.tar", prefix="p")
    rows = store.execute("SELECT pin_id, title, description, category FROM pins ORDER BY 1")
    assert [tuple(row) for row in rows] == [
        ("p/0.tar/a.left.jpg", "Mug", "from txt", None),
        ("p/0.tar/a.right.jpg", "Mug", "from txt", None),
        ("p/0.tar/sub/b.jpg", None, None, "7"),
    ]
    assert (counts["system"], counts["skipped_by_ending"]) == (1, {".npy": 1, ".txt": 1})


def test_a_picture_is_read_by_its_place_alone(tmp_path: Path) -> None:
    """A gigabyte of holes before it costs nothing: the archive is not gone through."""
    path = tmp_path / "large.tar"
    with path.open("wb") as file:
        hole = tarfile.TarInfo("hole.bin")
        hole.size = 1 << 40
        file.write(hole.tobuf(tarfile.GNU_FORMAT))
        file.seek(hole.size, os.SEEK_CUR)
        last = tarfile.TarInfo("a.jpg")
        last.size = 3
        file.write(last.tobuf(tarfile.GNU_FORMAT) + b"abc".ljust(512, b"\0") + bytes(1024))
    members = [entry for entry in index(path) if isinstance(entry, Member)]
    assert [member.name for member in members] == ["hole.bin", "a.jpg"]
    status = path.stat()
    image = reference(str(path), members[1], f"{status.st_size}-{status.st_mtime_ns}")
    assert Fetcher().fetch(image) == b"abc"


def test_an_archive_that_changed_is_a_failure_until_it_is_ingested_again(tmp_path: Path) -> None:
    make_tar(tmp_path / "0.tar", ("0.png", picture()))
    db = tmp_path / "s.db"
    captioner("ingest", "images", db, tmp_path / "0.tar")
    make_tar(tmp_path / "0.tar", ("more.txt", b"x" * 5000), ("0.png", picture(1)))
    result = captioner("run", db, "--model", "builtin")
    assert result.exit_code == 1
    assert "1  the tar archive was changed since it was ingested: ingest it again" in result.stdout
    captioner("ingest", "images", db, tmp_path / "0.tar")
    assert captioner("run", db).exit_code == 0
    (tmp_path / "0.tar").unlink()
    assert "the tar archive is not there" in captioner("run", db, "--select", "all", "--prompt", "a").stdout


@pytest.mark.parametrize("format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
@given(
    names=st.lists(
        st.text(st.characters(exclude_characters="\0/", exclude_categories=["Cs"]), min_size=1, max_size=120),
        max_size=6,
        unique=True,
    ),
    sizes=st.lists(st.integers(0, 2000), min_size=6, max_size=6),
)
def test_the_index_is_that_of_tarfile(format: int, names: list[str], sizes: list[int]) -> None:
    names = [name for name in names if format != tarfile.USTAR_FORMAT or len(name.encode()) < 100]
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w", format=format, encoding="utf-8") as tar:
        for name, size in zip(names, sizes, strict=False):
            add(tar, f"folder/{name}", bytes(size))
    with tarfile.open(fileobj=io.BytesIO(data.getvalue()), encoding="utf-8") as tar:
        expected = [Member(member.name, member.offset_data, member.size) for member in tar]
    fd = os.memfd_create("tar")
    try:
        os.write(fd, data.getvalue())
        assert list(read_index(fd)) == expected
    finally:
        os.close(fd)


@given(st.data())
def test_a_damaged_archive_never_raises_and_never_points_outside(data: st.DataObject) -> None:
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w", format=tarfile.PAX_FORMAT) as tar:
        add(tar, "é" * 80 + ".jpg", b"1" * 700)
        add(tar, "b.jpg", b"2", type=tarfile.SYMTYPE, linkname="/etc/passwd")
        add(tar, "c.txt", b"3")
    content = bytearray(archive.getvalue()[: data.draw(st.integers(0, 8000))])
    for _ in range(data.draw(st.integers(0, 4))):
        if content:
            content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    fd = os.memfd_create("tar")
    try:
        os.write(fd, content)
        for entry in read_index(fd):
            if isinstance(entry, Member):
                assert 0 < entry.offset <= entry.offset + entry.size <= len(content)
    finally:
        os.close(fd)


def test_hostile_members_cost_only_themselves(store: Connection, tmp_path: Path) -> None:
    (tmp_path / "t").mkdir()
    path = tmp_path / "t/bad.tar"
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as tar:
        add(tar, "good.jpg", b"good")
        add(tar, "/etc/a.jpg", b"1")
        add(tar, "../../b.jpg", b"2")
        add(tar, "link.jpg", type=tarfile.SYMTYPE, linkname="/etc/passwd")
        add(tar, "hard.jpg", type=tarfile.LNKTYPE, linkname="good.jpg")
        add(tar, "device.jpg", type=tarfile.CHRTYPE)
        add(tar, "sparse.jpg", b"3", pax_headers={"GNU.sparse.major": "1"})
        add(tar, "twice.jpg", b"4")
        add(tar, "twice.jpg", b"other")
        add(tar, "folder.jpg", type=tarfile.DIRTYPE)
    counts = ingest_images(store, path)
    assert list((tmp_path / "t").iterdir()) == [path]
    assert counts["reasons"] == {
        "a name in an archive that leads out of it": 2,
        "a link in an archive": 2,
        "neither a file nor a folder in an archive": 1,
        "a sparse file in an archive": 1,
        "a name that an archive has twice: the last one counts": 1,
    }
    images = dict(store.execute("SELECT pin_id, image FROM pins").fetchall())
    assert {pin_id: Fetcher().fetch(image) for pin_id, image in images.items()} == {
        "bad.tar/good.jpg": b"good",
        "bad.tar/twice.jpg": b"other",
    }


def test_a_header_cannot_make_captioner_read_a_huge_name(tmp_path: Path) -> None:
    header = tarfile.TarInfo("././@LongLink")
    header.type, header.size = tarfile.GNUTYPE_LONGNAME, MAX_NAME_BYTES + 1
    path = tmp_path / "a.tar"
    path.write_bytes(tarfile.TarInfo("a.jpg").tobuf() + header.tobuf(tarfile.GNU_FORMAT))
    os.truncate(path, 1 << 40)
    assert index(path) == [
        Member("a.jpg", 512, 0),
        BadMember("", "the archive is damaged; nothing after the damage was read", is_end=True),
    ]


def test_a_truncated_end_costs_what_is_missing(store: Connection, tmp_path: Path) -> None:
    path = make_tar(tmp_path / "0.tar", *((f"{i}.jpg", bytes([i]) * 1000) for i in range(5)))
    data = path.read_bytes()
    path.write_bytes(data[: 3 * 1536 + 600])  # in the middle of the fourth
    counts = ingest_images(store, path)
    assert (counts["pins"], counts["reasons"]) == (3, {"the archive ends early": 1})
    with pytest.raises(SourceError, match="cannot be read in whole"):
        ingest_images(store, path, sync=True)
    assert store.execute("SELECT count(*) FROM enriched_features").fetchone()[0] == 3
    path.write_bytes(data + data)  # two archives, one behind the other
    counts = ingest_images(store, path)
    assert counts["reasons"] == {"another archive follows in the same file; it was not read": 1}
    assert counts["pins"] == 5


def test_sync_marks_what_an_archive_no_longer_has(store: Connection, tmp_path: Path) -> None:
    (tmp_path / "t").mkdir()
    make_tar(tmp_path / "t/0 &.tar", ("a#1.jpg", b"1"), ("b.jpg", b"2"))
    make_tar(tmp_path / "t/1.tar", ("c.jpg", b"1"))
    ingest_images(store, tmp_path / "t")
    make_tar(tmp_path / "t/0 &.tar", ("a#1.jpg", b"1"))
    (tmp_path / "t/1.tar").unlink()
    assert ingest_images(store, tmp_path / "t", sync=True)["deleted"] == 2
    assert [row[0] for row in store.execute("SELECT pin_id FROM enriched_features")] == ["0 &.tar/a#1.jpg"]


def test_names_that_begin_with_a_dot_and_a_slash_are_the_same_names(
    store: Connection, tmp_path: Path
) -> None:
    archive = tmp_path / "t" / "0.tar"
    archive.parent.mkdir()
    make_tar(archive, ("./1.png", picture(1)), ("./2.png", picture(2)))
    assert ingest_images(store, archive.parent)["new"] == 2
    assert ingest_images(store, archive)["moved"] == 0
    make_tar(archive, ("./2.png", picture(2)))
    counts = ingest_images(store, archive.parent, sync=True)
    assert (counts["updated"], counts["deleted"], counts["moved"]) == (1, 1, 0)
    kept = store.execute("SELECT pin_id FROM pins WHERE deleted_at IS NULL").fetchall()
    assert [row[0] for row in kept] == ["0.tar/2.png"]
    make_tar(archive.with_name("1.tar"), ("2.png", picture(2)))
    ingest_images(store, archive.parent)
    assert ingest_images(store, archive)["moved"] == 0


def test_archives_of_the_same_name_are_not_mixed(store: Connection, tmp_path: Path) -> None:
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        make_tar(tmp_path / folder / "0.tar", ("0.jpg", folder.encode()))
    ingest_images(store, tmp_path / "one/0.tar")
    with pytest.raises(SourceError, match="--prefix"):
        ingest_images(store, tmp_path / "two/0.tar")
    ingest_images(store, tmp_path / "two/0.tar", prefix="two")
    assert store.execute("SELECT count(*) FROM pins").fetchone()[0] == 2


@pytest.mark.parametrize("packed", ["gz", "bz2", "xz"])
def test_a_packed_archive_is_refused_with_the_mend(tmp_path: Path, packed: str) -> None:
    (tmp_path / "t").mkdir()
    (tmp_path / "t/a.jpg").touch()
    with tarfile.open(tmp_path / f"t/0.tar.{packed}", f"w:{packed}") as tar:
        add(tar, "0.jpg", b"1")
    direct = captioner("ingest", "images", tmp_path / "s.db", tmp_path / f"t/0.tar.{packed}")
    assert direct.exit_code == 1
    assert "is packed" in direct.stderr
    assert f"0.tar.{packed}`, then ingest the .tar" in direct.stderr
    assert not (tmp_path / "s.db").exists()
    in_folder = captioner("ingest", "images", tmp_path / "s.db", tmp_path / "t", "--sync")
    assert in_folder.exit_code == 0
    assert "a packed archive: unpack it with" in in_folder.stdout


@pytest.mark.parametrize("content", [b"", b"no archive at all", bytes(10240)])
def test_a_file_that_is_no_archive_is_an_error(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.tar").write_bytes(content)
    result = captioner("ingest", "images", tmp_path / "s.db", tmp_path / "a.tar")
    assert result.exit_code == 1
    assert "is not a folder and not a tar archive with pictures" in result.stderr


def test_a_row_of_a_table_cannot_point_into_an_archive(tmp_path: Path) -> None:
    (tmp_path / "p.jsonl").write_text(
        '{"pin_id": 1, "image": "tar:///etc/passwd?offset=0&size=9&stamp=1-1#a.jpg"}\n{"pin_id": 2}\n'
    )
    result = captioner("ingest", "pins", tmp_path / "s.db", tmp_path / "p.jsonl")
    assert "image is an address that captioner does not read" in result.stdout
    with closing(sqlite3.connect(tmp_path / "s.db")) as conn:
        assert conn.execute("SELECT image FROM pins WHERE image IS NOT NULL").fetchall() == []


def test_a_reference_can_be_parsed() -> None:
    path, stamp = os.fsdecode(b"/a b/\xc3\xbc?#%&=\xff.tar"), "12-1700000000000000000"
    member = Member("x#?&/ü\udcff.jpg", 512, 7)
    found = parse(reference(path, member, stamp))
    assert found == (path, 512, 7, stamp, member.name)
    assert place_of(reference(path, member, stamp)) == f"{path}/{member.name}"
    assert place_of("/a.jpg") == "/a.jpg"


@pytest.mark.parametrize(
    "text",
    [
        "tar:///a.tar",
        "tar:///a.tar#a.jpg",
        "tar:///a.tar?offset=-1&size=1&stamp=1-1#a.jpg",
        "tar:///a.tar?offset=1&size=1&stamp=#a.jpg",
        "tar://host/a.tar?offset=1&size=1&stamp=1-1#a.jpg",
        "tar:///a.tar?offset=1&size=1&stamp=1-1#a.jpg\n",
        "tar:///a.tar?offset=1&size=1&stamp=1-1&x=1#a.jpg",
    ],
)
def test_anything_else_is_no_reference(text: str) -> None:
    with pytest.raises(ValueError, match="not a reference"):
        parse(text)
    with pytest.raises(ImageError, match="a kind of address that is not supported"):
        Fetcher().fetch(text)


def test_a_large_member_is_refused_before_it_is_read(tmp_path: Path) -> None:
    make_tar(tmp_path / "0.tar", ("a.jpg", b"1" * 600))
    (member,) = (entry for entry in index(tmp_path / "0.tar") if isinstance(entry, Member))
    status = (tmp_path / "0.tar").stat()
    image = reference(str(tmp_path / "0.tar"), member, f"{status.st_size}-{status.st_mtime_ns}")
    with pytest.raises(ImageError, match="more bytes than the limit of 500"):
        Fetcher(max_bytes=500).fetch(image)


def test_many_members_come_in_parts(store: Connection, tmp_path: Path) -> None:
    make_tar(tmp_path / "0.tar", *((f"{i:05}.jpg", b"") for i in range(5001)))
    assert ingest_images(store, tmp_path / "0.tar")["pins"] == 5001
    ids = [row[0] for row in store.execute("SELECT pin_id FROM pins ORDER BY rowid")]
    assert ids == [f"0.tar/{i:05}.jpg" for i in itertools.islice(itertools.count(), 5001)]


def test_what_is_no_archive_is_not_counted_as_read(store: Connection, tmp_path: Path) -> None:
    (tmp_path / "t").mkdir()
    make_tar(tmp_path / "t/a.tar", ("__MACOSX/1.png", b"1"), ("1.png", picture()))
    (tmp_path / "t/b.tar").write_text("this is a text and no archive\n" * 40)
    (tmp_path / "t/c.tar.gz").write_bytes(gzip.compress((tmp_path / "t/a.tar").read_bytes()))
    counts = ingest_images(store, tmp_path / "t")
    assert (counts["archives"], counts["rejected"], counts["pins"]) == (1, 2, 1)
    assert counts["system_examples"] == ["__MACOSX"]


def test_a_zip_is_refused_with_the_mend(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "z.zip", "w") as file:
        file.writestr("1.png", picture())
    result = captioner("ingest", "images", tmp_path / "s.db", tmp_path / "z.zip")
    assert result.exit_code == 1
    assert "z.zip is a zip archive: unzip it, then ingest the folder that it makes" in result.output
    assert not (tmp_path / "s.db").exists()
