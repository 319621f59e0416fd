"""Captions where tools read them: beside pictures, in an imagefolder of `datasets`, in tar shards."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Protocol

from ..images.endings import IMAGE_ENDINGS, ending_of_bytes
from ..store.described import DescribedPin
from .manifest import ExportFile, file_of, file_sha256
from .picture_names import PictureNames

PICTURES_PER_SHARD, BYTES_PER_SHARD = 10_000, 1_000_000_000
METADATA = "metadata.jsonl"


class PictureWriter(Protocol):
    """Writes pins one after the other; `needs_picture` says whether `add` wants the bytes of the image."""

    needs_picture: bool
    files: list[ExportFile]  # complete once the writer is closed

    def add(self, pin: DescribedPin, picture: bytes) -> None: ...

    def close(self) -> None: ...


class SidecarWriter:
    """A .txt for each pin under the pin's id, as kohya's scripts and many others read them."""

    needs_picture = False

    def __init__(self, folder: Path) -> None:
        self._folder, self._names = folder, PictureNames()
        self.files: list[ExportFile] = []

    def add(self, pin: DescribedPin, picture: bytes) -> None:
        name = self._names.take(pin.pin_id, IMAGE_ENDINGS, ".txt", instead=True)
        data = (pin.text or "").encode(errors="replace")
        _write(self._folder / name, data)
        self.files.append(file_of(name, 1, data))

    def close(self) -> None: ...


class ImagefolderWriter:
    """Copies of the pictures and metadata.jsonl, for `datasets.load_dataset("imagefolder", data_dir=...)`.

    The columns are `text` (see DescribedPin.text), `pin_id`, `caption`, `title`, `description`, and
    `truncated`.
    """

    needs_picture = True

    def __init__(self, folder: Path) -> None:
        self._folder, self._names = folder, PictureNames(for_datasets=True)
        self.files: list[ExportFile] = []
        self._metadata: IO[str] = (folder / METADATA).open("w", encoding="utf-8")

    def add(self, pin: DescribedPin, picture: bytes) -> None:
        name = self._names.take(pin.pin_id, IMAGE_ENDINGS, ending_of_bytes(picture), instead=False)
        _write(self._folder / name, picture)
        self._metadata.write(json.dumps({"file_name": name, **_fields(pin)}, ensure_ascii=False) + "\n")
        self.files.append(file_of(name, 1, picture))

    def close(self) -> None:
        self._metadata.close()
        path = self._folder / METADATA
        entry = ExportFile(path=METADATA, rows=0, bytes=path.stat().st_size, sha256=file_sha256(path))
        self.files.append(entry)


class WebdatasetWriter:
    """Tar archives shard-00000.tar, ... with KEY.jpg, KEY.txt and KEY.json for each pin; KEY is a number."""

    needs_picture = True

    def __init__(self, folder: Path, per_shard: int | None = None) -> None:
        self._folder, self._per_shard = folder, per_shard
        self.files: list[ExportFile] = []
        self._tar: tarfile.TarFile | None = None
        self._name, self._rows, self._bytes, self._total = "", 0, 0, 0

    def add(self, pin: DescribedPin, picture: bytes) -> None:
        is_full = self._rows >= (self._per_shard or PICTURES_PER_SHARD)
        if is_full or (self._per_shard is None and self._bytes >= BYTES_PER_SHARD):
            self._end_shard()
        if self._tar is None:
            self._name = f"shard-{len(self.files):05}.tar"
            # GNU's format has room for any size, and needs no further header for a short name.
            self._tar = tarfile.open(self._folder / self._name, "w", format=tarfile.GNU_FORMAT)  # noqa: SIM115
        key = f"{self._total:09}"
        _add_member(self._tar, key + ending_of_bytes(picture), picture)
        _add_member(self._tar, f"{key}.txt", (pin.text or "").encode(errors="replace"))
        _add_member(self._tar, f"{key}.json", json.dumps(_fields(pin), ensure_ascii=False).encode())
        self._rows, self._total, self._bytes = self._rows + 1, self._total + 1, self._bytes + len(picture)

    def close(self) -> None:
        self._end_shard()

    def _end_shard(self) -> None:
        if self._tar is None:
            return
        self._tar.close()
        path = self._folder / self._name
        entry = ExportFile(
            path=self._name, rows=self._rows, bytes=path.stat().st_size, sha256=file_sha256(path)
        )
        self.files.append(entry)
        self._tar, self._rows, self._bytes = None, 0, 0


@contextmanager
def picture_writer(format: str, folder: Path, per_shard: int | None) -> Iterator[PictureWriter]:
    """The writer of a format: "sidecar", "imagefolder" or "webdataset"."""
    writer: PictureWriter
    if format == "sidecar":
        writer = SidecarWriter(folder)
    elif format == "imagefolder":
        writer = ImagefolderWriter(folder)
    else:
        writer = WebdatasetWriter(folder, per_shard)
    try:
        yield writer
    finally:
        writer.close()


def _fields(pin: DescribedPin) -> dict[str, Any]:
    return {
        "text": pin.text,
        "pin_id": pin.pin_id,
        "caption": pin.caption,
        "caption_recipe": pin.caption_recipe,
        "title": pin.title,
        "description": pin.description,
        "truncated": pin.truncated,
    }


def _write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("xb") as file:  # never over another file
        file.write(data)


def _add_member(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    member = tarfile.TarInfo(name)  # without a time and an owner: the same bytes every time
    member.size = len(data)
    tar.addfile(member, io.BytesIO(data))
