"""Where `ingest images` takes pictures from: folders and tar archives, and which pins came from them."""

from __future__ import annotations

import itertools
import os
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from ..common.files import open_regular
from ..images.endings import IMAGE_ENDINGS
from ..images.tar import beginning_of_references, place_of
from ..images.tar_index import BadMember, Member, read_index, unpacker_of
from ..sources.cells import is_unicode
from ..sources.locations import absolute, refuse_empty_name
from ..sources.rows import SourceError
from ..store.pins import PinsSeen
from .metadata_tables import MetadataTables
from .photos import Found, Notes, photos_of_archive, photos_of_folder
from .texts_beside import TextsRead

_ZIP = (b"PK\x03\x04", b"PK\x05\x06")  # how a zip archive begins, and an empty one


@dataclass(frozen=True, slots=True)
class Place:
    """A folder or a tar archive. Its pins have the id `prefix` + NAME, and the picture `folder` + NAME."""

    path: str  # absolute
    prefix: str  # empty, or ends with a slash
    is_archive: bool

    @property
    def folder(self) -> str:
        """The folder that names begin in, with a slash at the end; of an archive the one that it lies in."""
        return (os.path.dirname(self.path) if self.is_archive else self.path).rstrip("/") + "/"

    def photos(self, notes: Notes, read: TextsRead | None = None) -> Iterator[Found]:
        """The pictures. What stands beside them is looked for if `read` is given, to note what was read.

        Otherwise the pictures come without stamps, too, which is faster.
        """
        bare = read is None
        if self.is_archive:
            prefix = f"{self.prefix}{os.path.basename(self.path)}/"
            return photos_of_archive(self.path, prefix, self.path, notes, bare=bare)
        tables = MetadataTables(self.path, read) if read is not None else None
        return photos_of_folder(self.path, self.prefix, notes, tables, bare=bare)

    def is_from_here(self, pin_id: str, image: str) -> bool:
        """Whether a pin with this id and this image is one that this place made."""
        return pin_id.startswith(self.prefix) and place_of(image) == self.folder + pin_id[len(self.prefix) :]

    def mark_gone(self, seen: PinsSeen) -> int:
        """Marks pins of this place that were not seen as deleted, and returns how many."""
        if self.is_archive:
            return seen.mark_deleted(f"{beginning_of_references(self.path)}?", self.is_from_here)
        beginnings = (self.folder, beginning_of_references(self.folder))
        return sum(seen.mark_deleted(beginning, self.is_from_here) for beginning in beginnings)


def find_places(paths: Iterable[str], prefix: str | None = None) -> list[Place]:
    """The places behind paths of folders and archives. Raises SourceError for anything else.

    Every place must have a picture: a folder without one is a mistake, or a disk that is not there. Needs no
    store, so that a mistyped name does not create one.
    """
    start = ""
    if prefix is not None:
        start = prefix.strip("/") + "/"
        if not start.strip("/ ") or not is_unicode(start) or "\0" in start:
            raise SourceError(f"--prefix {prefix!r} is no name: give a word, for instance --prefix holiday")
    places = [_place(path, start) for path in dict.fromkeys(paths)]
    for place in places:
        _refuse_empty(place)
    return places


def _place(path: str, prefix: str) -> Place:
    refuse_empty_name(path)
    full = absolute(path)
    if os.path.isdir(full):
        try:
            os.scandir(full).close()
        except OSError as error:
            raise SourceError(f"the folder {path} cannot be read: {error.strerror}") from None
        return Place(full, prefix, is_archive=False)
    if not os.path.exists(full):
        raise SourceError(f"{path} is not a folder: there is nothing of that name")
    try:
        with open_regular(full) as file:
            start = file.read(8)
            if program := unpacker_of(start):
                raise SourceError(
                    f"{path} is packed, and pictures are read from an archive by their place in it: unpack "
                    f"it with `{program} {path}`, then ingest the .tar"
                )
            if start.startswith(_ZIP) and not full.lower().endswith(".xlsx"):
                raise SourceError(f"{path} is a zip archive: unzip it, then ingest the folder that it makes")
            first = next(read_index(file.fileno()), None)
    except OSError as error:
        raise SourceError(f"{path} cannot be read: {error.strerror or error}") from None
    if first is None or (isinstance(first, BadMember) and first.reason == "not a tar archive"):
        raise SourceError(
            f"{path} is not a folder and not a tar archive with pictures: name a folder of pictures, or for "
            f"a table use `captioner ingest pins`"
        )
    return Place(full, prefix, is_archive=True)


def _has_picture(archive: str) -> bool:
    with open_regular(archive) as file:
        return any(
            isinstance(entry, Member) and os.path.splitext(entry.name)[1].lower() in IMAGE_ENDINGS
            for entry in itertools.islice(read_index(file.fileno()), 100)
        )


def _refuse_empty(place: Place) -> None:
    if place.is_archive and _has_picture(place.path):
        return  # asked first, because the whole index of a large archive takes seconds
    notes, reasons = Notes(), Counter[str]()
    for found in place.photos(notes):
        if found.photos:
            return
        reasons.update(bad.reason for bad in found.bad)
    what = [f"{n:,} {ending or 'without ending'}" for ending, n in notes.skipped.most_common(5)]
    what += [f"{notes.of_system:,} hidden or of the system"] if notes.of_system else []
    what += [f"{n:,} of which: {reason}" for reason, n in reasons.most_common(5)]
    there = f"; there are other files: {', '.join(what)}" if what else "; it is empty"
    raise SourceError(
        f"{place.path} holds no picture{there}. Names of pictures end in .jpg, .png, .webp and the like"
    )
