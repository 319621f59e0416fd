"""Finds pictures in folders and tar archives, with the texts beside them. No picture is opened."""

from __future__ import annotations

import functools
import itertools
import os
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from ..common.files import open_regular, stamp_of
from ..images.endings import IMAGE_ENDINGS
from ..images.tar import name_in_archive, reference
from ..images.tar_index import BadMember, Member, read_index
from ..sources.cells import is_unicode
from ..sources.locations import file_stamp
from ..sources.rows import BadRow
from ..sources.system_files import is_of_system
from .metadata_tables import TABLES, MetadataTables
from .texts_beside import SIDE_ENDINGS, Fields, Side

PHOTOS_AT_ONCE = 5000  # of an archive
PACKED_ENDINGS = (".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz", ".tar.zst", ".tzst")
_EXAMPLES = 4


@dataclass(frozen=True, slots=True)
class Photo:
    """A picture that becomes a pin, and what stands beside it. `image` is as in the table `pins`."""

    pin_id: str
    image: str
    stamp: str | None
    sides: list[Side]
    path: str  # of the file; of a file in an archive, ARCHIVE/MEMBER
    of_table: Fields = field(default_factory=dict)  # its fields in a table of metadata


@dataclass(slots=True)
class Found:
    """Pictures, and what is of no use, from one folder or a part of an archive."""

    photos: list[Photo] = field(default_factory=list)
    bad: list[BadRow] = field(default_factory=list)


@dataclass(slots=True)
class Notes:
    """What was seen besides pictures, to be said after an ingest."""

    skipped: Counter[str] = field(default_factory=Counter)  # ending -> files that are no pictures
    of_system: int = 0  # hidden files and folders, and those that systems make
    examples: list[str] = field(default_factory=list)  # names of some of them
    links: int = 0  # links to folders, which are not followed
    archives: int = 0
    unread: list[str] = field(default_factory=list)  # folders and archives that could not be read in whole

    def add_of_system(self, name: str) -> None:
        self.of_system += 1
        if len(self.examples) < _EXAMPLES and name not in self.examples:
            self.examples.append(name)


def photos_of_folder(
    top: str, prefix: str, notes: Notes, tables: MetadataTables | None = None, *, bare: bool = False
) -> Iterator[Found]:
    """The pictures of the folder `top`, folder by folder; the pin_id is `prefix` and the path below `top`.

    Links to files are followed, links to folders are not. Tables of metadata go to `tables`. `bare` gives
    names alone, without stamps and what stands beside a picture.
    """
    errors: list[OSError] = []
    for folder, subfolders, files in os.walk(top, onerror=errors.append):
        subfolders[:] = _own(sorted(subfolders), notes)
        links = [name for name in subfolders if os.path.islink(os.path.join(folder, name))]
        notes.links += len(links)
        found = Found()
        images: list[tuple[str, str]] = []  # (name, ending)
        texts: dict[str, str] = {}  # name with the ending in lower case -> name
        archives: list[str] = []
        for name in _own(sorted(files), notes):
            stem, ending = os.path.splitext(name)
            ending = ending.lower()
            if ending in IMAGE_ENDINGS:
                images.append((name, ending))
            elif ending in SIDE_ENDINGS:
                texts[stem + ending] = name
            elif ending == ".tar" or name.lower().endswith(PACKED_ENDINGS):
                archives.append(name)
            elif name in TABLES:
                if tables:
                    found.bad += tables.add(os.path.join(folder, name))
            else:
                notes.skipped[ending] += 1
        used: set[str] = set()
        for name, ending in images:
            path = os.path.join(folder, name)
            if not is_unicode(path):
                found.bad.append(BadRow(top, None, "the file's name is not valid UTF-8", path))
                continue
            sides = []
            if texts and not bare:
                for text in _names_beside(texts, name, ending):
                    used.add(text)
                    sides.append(_side_file(folder, texts[text]))
            pin_id = prefix + (path[len(top) + 1 :] if top != "/" else path[1:])
            row = tables.take(path) if tables else {}
            stamp = None if bare else file_stamp(path)
            found.photos.append(Photo(pin_id, path, stamp, sides, path, row))
        notes.skipped.update(os.path.splitext(text)[1] for text in texts if text not in used)
        yield found
        for name in archives:
            path = os.path.join(folder, name)
            below = f"{prefix}{os.path.relpath(path, top)}/"
            yield from photos_of_archive(path, below, top, notes, bare=bare)
    for error in errors:
        notes.unread.append(str(error.filename))
        yield Found(bad=[BadRow(top, None, "the folder cannot be read", str(error.filename))])
    if tables:
        yield Found(bad=list(tables.left()))


def photos_of_archive(
    path: str, prefix: str, source: str, notes: Notes, *, bare: bool = False
) -> Iterator[Found]:
    """The pictures of a tar archive; the pin_id is `prefix` and the name in the archive.

    `source` is the name under which what is of no use is kept in `rejected_rows`.
    """
    if not is_unicode(path):
        yield Found(bad=[BadRow(source, None, "the file's name is not valid UTF-8", path)])
        return
    try:
        with open_regular(path) as archive:
            yield from _photos_of_open_archive(path, archive.fileno(), prefix, source, notes, bare)
    except OSError:
        notes.unread.append(path)
        yield Found(bad=[BadRow(source, None, "the archive cannot be read", path)])


def _photos_of_open_archive(
    path: str, fd: int, prefix: str, source: str, notes: Notes, bare: bool
) -> Iterator[Found]:
    stamp = stamp_of(os.fstat(fd))
    members: dict[str, Member] = {}
    bad: list[BadRow] = []
    is_read = False
    for entry in read_index(fd):
        name, reason = name_in_archive(entry.name), ""
        parts = name.split("/")
        leads_out = name.startswith("/") or ".." in parts
        ending = _ending(name)
        is_end = isinstance(entry, BadMember) and entry.is_end
        if not is_read and not is_end:
            is_read = True
            notes.archives += 1
        if is_end and not path.lower().endswith(PACKED_ENDINGS):
            notes.unread.append(path)
        if is_end:
            pass
        elif not leads_out and any(map(is_of_system, parts)):
            notes.add_of_system(next(filter(is_of_system, parts)))
            continue
        elif ending not in IMAGE_ENDINGS and ending not in SIDE_ENDINGS:
            notes.skipped[ending] += 1
            continue
        if isinstance(entry, BadMember):
            reason = entry.reason
        elif leads_out:
            reason = "a name in an archive that leads out of it"
        elif not is_unicode(name):
            reason = "the file's name is not valid UTF-8"
        elif name in members:
            reason = "a name that an archive has twice: the last one counts"
        if reason:
            bad.append(BadRow(source, None, reason, f"{path}/{name}".rstrip("/")))
        if isinstance(entry, Member) and (not reason or name in members):
            members[name] = entry
    yield Found(bad=bad)
    texts = {_with_lower_ending(name): name for name in members if _ending(name) in SIDE_ENDINGS}
    if bare:
        texts = {}
    used: set[str] = set()

    def photo(name: str) -> Photo:
        sides = []
        for text in _names_beside(texts, name, _ending(name), is_sample=True) if texts else ():
            used.add(text)
            sides.append(_side_member(path, fd, members[texts[text]]))
        image = reference(path, members[name], stamp)
        return Photo(prefix + name, image, stamp, sides, f"{path}/{name}")

    images = (name for name in members if _ending(name) in IMAGE_ENDINGS)
    while names := list(itertools.islice(images, PHOTOS_AT_ONCE)):
        yield Found(photos=[photo(name) for name in names])
    notes.skipped.update(_ending(text) for text in texts if text not in used)


def _own(names: Iterable[str], notes: Notes) -> list[str]:
    """The names that are the user's; the others are noted."""
    own = []
    for name in names:
        if is_of_system(name):
            notes.add_of_system(name)
        else:
            own.append(name)
    return own


def _names_beside(texts: dict[str, str], name: str, ending: str, *, is_sample: bool = False) -> Iterator[str]:
    """Names of texts beside a picture, as in `texts`: "a.txt" and "a.jpg.txt" for "a.jpg".

    `is_sample`: in an archive, the files of a webdataset sample share the name up to the first dot, so that
    "a.txt" is beside "a.left.jpg" too.
    """
    stem = name[: -len(ending)]
    stems = [stem, name]
    if is_sample:
        folder, slash, base = name.rpartition("/")
        stems.insert(0, folder + slash + base.partition(".")[0])
    for side_ending in SIDE_ENDINGS:
        for candidate in dict.fromkeys(stems):
            if candidate + side_ending in texts:
                yield candidate + side_ending


def _side_file(folder: str, name: str) -> Side:
    def read(limit: int) -> bytes:
        with open_regular(os.path.join(folder, name)) as file:
            return file.read(limit)

    return Side(os.path.splitext(name)[1].lower(), os.path.join(folder, name), read)


def _side_member(path: str, fd: int, member: Member) -> Side:
    read = functools.partial(_pread, fd, member)
    return Side(_ending(member.name), f"{path}/{member.name}", read)


def _pread(fd: int, member: Member, limit: int) -> bytes:
    return os.pread(fd, min(limit, member.size), member.offset)


def _ending(name: str) -> str:
    """As os.path.splitext in lower case, for names that are not hidden; an archive has millions."""
    dot = name.rfind(".")
    return name[dot:].lower() if dot > name.rfind("/") + 1 else ""


def _with_lower_ending(name: str) -> str:
    stem, ending = os.path.splitext(name)
    return stem + ending.lower()
