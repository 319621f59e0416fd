"""Reads images that are files in a tar archive (a shard of webdataset, for instance). Nothing is unpacked.

The store keeps a reference such as `tar:///data/0.tar?offset=1536&size=20311&stamp=...#000.jpg`. The place in
the archive is part of it, so that reading an image is one step however large the archive is. The stamp is the
archive's size and modification time at ingest: an archive that was written anew is noticed.
"""

from __future__ import annotations

import os
import re
from typing import NamedTuple
from urllib.parse import quote, unquote_to_bytes

from ..common.files import NotAFile, open_regular, stamp_of
from .decode import ImageError
from .tar_index import Member
from .web import too_large

_REFERENCE = re.compile(
    r"tar://(/[^?#&\s]*)\?offset=([0-9]{1,18})&size=([0-9]{1,18})&stamp=([0-9]{1,20}--?[0-9]{1,20})#([^?#&\s]+)",
    re.ASCII,
)


class TarReference(NamedTuple):
    """What a reference says; `offset` and `size` in bytes."""

    path: str
    offset: int
    size: int
    stamp: str
    member: str


def reference(path: str, member: Member, stamp: str) -> str:
    """The reference to a file in the archive at an absolute `path`, as `pins.image` holds it."""
    return (
        f"{beginning_of_references(path)}?offset={member.offset}&size={member.size}&stamp={stamp}"
        f"#{quote(os.fsencode(member.name))}"
    )


def beginning_of_references(path: str) -> str:
    """How references to files of the archive at `path`, or of archives below that folder, begin."""
    return f"tar://{quote(os.fsencode(path))}"


def parse(text: str) -> TarReference:
    """What a reference says. Raises ValueError on anything else."""
    match = _REFERENCE.fullmatch(text)
    if not match:
        raise ValueError("not a reference to an image in a tar archive")
    path, offset, size, stamp, member = match.groups()
    return TarReference(
        os.fsdecode(unquote_to_bytes(path)),
        int(offset),
        int(size),
        stamp,
        os.fsdecode(unquote_to_bytes(member)),
    )


def place_of(image: str) -> str:
    """Where an image is: the path of a file as it is, and PATH/MEMBER for a file in an archive."""
    if not image.startswith("tar://"):
        return image
    try:
        found = parse(image)
    except ValueError:
        return image
    return f"{found.path}/{name_in_archive(found.member)}"


def name_in_archive(name: str) -> str:
    """The name of a member without "./" at its beginning, as `tar -C folder -cf x.tar .` writes it."""
    while name.startswith("./"):
        name = name[2:].lstrip("/")
    return name


def read_member(text: str, max_bytes: int) -> bytes:
    """The bytes of an image by its reference. Raises ImageError."""
    try:
        found = parse(text)
    except ValueError as error:
        raise ImageError("a kind of address that is not supported") from error
    if found.size > max_bytes:
        raise ImageError(too_large(max_bytes))
    try:
        with open_regular(found.path) as archive:
            if stamp_of(os.fstat(archive.fileno())) != found.stamp:
                raise ImageError("the tar archive was changed since it was ingested: ingest it again")
            data = os.pread(archive.fileno(), found.size, found.offset)
    except NotAFile as error:
        raise ImageError("not a regular file") from error
    except (FileNotFoundError, NotADirectoryError, ValueError) as error:
        raise ImageError("the tar archive is not there") from error
    except PermissionError as error:
        raise ImageError("no permission to read the tar archive") from error
    except OSError as error:
        raise ImageError("the tar archive cannot be read") from error
    if len(data) < found.size:
        raise ImageError("the tar archive cannot be read")
    return data
