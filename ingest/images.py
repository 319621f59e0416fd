"""Pins from folders and tar archives: every picture becomes a pin, with the texts beside it."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from ..common.terminal import OnStep, no_step
from ..sources.rows import SourceError
from ..store import Connection
from ..store.described import captions_of
from ..store.pins import PinsSeen
from .batches import PinBatch, PinCounts, write_batches
from .photo_conflicts import Moved, refuse_conflicts, with_known_digests
from .photo_places import Place, find_places
from .photos import Found, Notes
from .texts_beside import TextsRead, fields_beside, pin_fields


class ImageCounts(PinCounts):
    """What became of the files of folders. `captioner ingest images --json` prints it."""

    skipped: int  # files that do not have an image's ending and stand beside none
    skipped_by_ending: dict[str, int]  # most frequent first
    system: int  # hidden files and folders, and those that systems make, such as @eaDir
    system_examples: list[str]
    linked_folders: int  # links to folders, which are not followed
    archives: int
    texts: dict[str, int]  # "description from .txt" -> pictures
    ignored: dict[str, int]  # key of a .json, or column of a table of metadata -> how often
    moved: int  # pictures that the store knew from another place
    moved_from: list[str]


def ingest_images(
    conn: Connection,
    folders: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
    *,
    prefix: str | None = None,
    sync: bool = False,
    on_step: OnStep = no_step,
) -> ImageCounts:
    """Makes a pin of every file in `folders` whose name ends like an image's, readable or not.

    Each of `folders` is a folder or a tar archive. The pin_id is `prefix`, a slash, and the path below the
    folder; of a picture in an archive the path of the archive and the name in it. Links to files are
    followed, links to folders are not. No picture is opened. Texts beside a picture become fields of its pin.

    With `sync`, pins that came from these folders and whose file is gone are marked as deleted.

    Raises SourceError before anything is written if a folder cannot be read or holds no picture, or if a pin
    of the store would get another picture; with `sync` also after everything was written, if a part of a
    folder could not be read, so that nobody knows what is gone. No pin is marked then.
    """
    paths = [folders] if isinstance(folders, (str, os.PathLike)) else folders
    places = find_places([os.fspath(path) for path in paths], prefix)
    moved = refuse_conflicts(conn, places)
    notes, read = Notes(), TextsRead()
    arguments = {"places": [place.path for place in places], "prefix": prefix, "sync": sync}
    counts = write_batches(
        conn,
        "ingest images",
        arguments,
        [place.path for place in places],
        _batches(conn, places, notes, read, moved),
        on_step,
        sync=sync,
        mark_gone=lambda seen: _mark_gone(seen, places, notes, moved),
    )
    return ImageCounts(
        **counts,
        skipped=notes.skipped.total(),
        skipped_by_ending=dict(notes.skipped.most_common()),
        system=notes.of_system,
        system_examples=notes.examples,
        linked_folders=notes.links,
        archives=notes.archives,
        texts=dict(read.fields.most_common()),
        ignored=dict(read.ignored.most_common()),
        moved=moved.photos,
        moved_from=sorted(moved.folders),
    )


def _batches(
    conn: Connection, places: Sequence[Place], notes: Notes, read: TextsRead, moved: Moved
) -> Iterator[PinBatch]:
    for place in places:
        for found in place.photos(notes, read):
            yield from _pins_of(conn, place, found, read, moved)


def _pins_of(
    conn: Connection, place: Place, found: Found, read: TextsRead, moved: Moved
) -> Iterator[PinBatch]:
    """The pins of some pictures: a batch of those without texts, and one for each set of fields."""
    digests = with_known_digests(conn, found.photos) if moved.photos else {}
    bad, rows = list(found.bad), dict[tuple[str, ...], list[tuple[Any, ...]]]()
    captions: dict[str, set[str]] | None = None
    for photo in found.photos:
        pin = (photo.pin_id, photo.image, digests.get(photo.pin_id), photo.stamp)
        if not photo.sides and not photo.of_table:
            rows.setdefault((), []).append(pin)
            continue
        if captions is None:
            captions = captions_of(conn, [photo.pin_id for photo in found.photos])
        sources, reasons = fields_beside(photo.sides, photo.of_table, place.path, read)
        bad += reasons
        fields = pin_fields(sources, captions.get(photo.pin_id, set()), read)
        rows.setdefault(tuple(fields), []).append((*pin, *fields.values()))
    for names, pins in rows.items():
        yield PinBatch(("pin_id", "image", "image_sha256", "image_stamp", *names), pins)
    if bad:
        yield PinBatch(rejected=bad)


def _mark_gone(seen: PinsSeen, places: Sequence[Place], notes: Notes, moved: Moved) -> int:
    """Marks the pins whose picture is gone. Raises SourceError if a part of the places could not be read."""
    if notes.unread:
        others = f" and {len(notes.unread) - 1:,} more" if len(notes.unread) > 1 else ""
        raise SourceError(
            f"{notes.unread[0]}{others} cannot be read in whole, so captioner cannot tell which pictures are "
            "gone: it took the others in and marked no pin as deleted; mend it and --sync again"
        )
    left = [folder.rstrip("/") for folder in moved.folders if not os.path.isdir(folder)]
    earlier = [Place(folder, place.prefix, is_archive=False) for folder in left for place in places[:1]]
    return sum(place.mark_gone(seen) for place in [*places, *earlier])
