"""Pins from a folder of images: every image file becomes a pin."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..common.terminal import OnStep, no_step
from ..sources.cells import is_unicode
from ..sources.locations import absolute, file_stamp
from ..sources.rows import BadRow, SourceError
from ..store import Connection
from .batches import PinBatch, PinCounts, write_batches

# In lower case. Some of these formats cannot be decoded, such as HEIC: `run` then says so for each pin.
IMAGE_ENDINGS = frozenset(
    [
        ".jpg",
        ".jpeg",
        ".jpe",
        ".jfif",
        ".mpo",
        ".jp2",
        ".j2k",
        ".jpx",
        ".png",
        ".apng",
        ".gif",
        ".webp",
        ".avif",
        ".avifs",
        ".heic",
        ".heif",
        ".bmp",
        ".dib",
        ".tif",
        ".tiff",
        ".ico",
        ".ppm",
        ".pgm",
        ".pbm",
        ".pnm",
        ".tga",
        ".qoi",
    ]
)


class ImageCounts(PinCounts):
    """What became of the files of a folder. `captioner ingest images --json` prints it."""

    skipped: int  # files that do not have an image's ending


def ingest_images(conn: Connection, folder: str | Path, *, on_step: OnStep = no_step) -> ImageCounts:
    """Makes a pin of every file below `folder` whose name ends like an image's, readable or not.

    The pin_id is the path below the folder. Links to files are followed, links to folders are not. No file is
    opened. Raises SourceError if `folder` is not a folder.
    """
    top = absolute(folder)
    if not os.path.isdir(top):
        raise SourceError(f"{folder} is not a folder")
    skipped = Counter[str]()
    counts = write_batches(conn, "ingest images", {"folder": top}, [top], _batches(top, skipped), on_step)
    return ImageCounts(**counts, skipped=skipped.total())


def _batches(top: str, skipped: Counter[str]) -> Iterator[PinBatch]:
    """A batch for each folder, and one of the folders that cannot be read.

    Adds the files that are not images to `skipped`, by their ending.
    """
    errors: list[OSError] = []
    for folder, subfolders, files in os.walk(top, onerror=errors.append):
        subfolders.sort()
        pins: list[tuple[Any, ...]] = []
        rejected: list[BadRow] = []
        for name in sorted(files):
            path = os.path.join(folder, name)
            ending = os.path.splitext(name)[1].lower()
            if ending not in IMAGE_ENDINGS:
                skipped[ending] += 1
            elif is_unicode(path):
                pins.append((os.path.relpath(path, top), path, None, file_stamp(path)))
            else:
                rejected.append(BadRow(top, None, "the file's name is not valid UTF-8", path))
        yield PinBatch(("pin_id", "image", "image_sha256", "image_stamp"), pins, rejected)
    yield PinBatch(
        rejected=[BadRow(top, None, "the folder cannot be read", str(error.filename)) for error in errors]
    )
