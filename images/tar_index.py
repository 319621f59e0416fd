"""What is in a tar archive: the name, place and size of each file, without unpacking anything.

The headers are read here and not by `tarfile`, because that reads what a header claims into memory. A name
or an extended header has a limit here, a size is compared with that of the archive, and links, devices and
sparse files are named and not followed. An archive that ends early or is damaged gives what stands before.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass

BLOCK = 512  # bytes; headers and files begin at multiples of it
MAX_NAME_BYTES = 1_000_000  # of a long name or an extended header
MAX_MEMBERS = 2_000_000  # of one archive; its names are kept in memory while it is ingested
_FILES = (b"0", b"\0", b"7")
_WITHOUT_DATA = (b"1", b"2", b"3", b"4", b"5", b"6")
_LINKS = (b"1", b"2")
_PACKED = {
    b"\x1f\x8b": "gunzip",
    b"BZh": "bunzip2",
    b"\xfd7zXZ\0": "unxz",
    b"\x28\xb5\x2f\xfd": "unzstd",
}


@dataclass(frozen=True, slots=True)
class Member:
    """A file in an archive. `offset` is where its bytes begin; `size` is in bytes."""

    name: str
    offset: int
    size: int


@dataclass(frozen=True, slots=True)
class BadMember:
    """A member that is not used, or the reason why the rest of the archive is not. `name` may be empty.

    `is_end`: what stands behind it in the archive is unknown.
    """

    name: str
    reason: str
    is_end: bool = False


class _Damaged(Exception):
    """A header makes no sense."""


def unpacker_of(first_bytes: bytes) -> str | None:
    """The program that unpacks a file that begins with these bytes; None if it is not packed."""
    return next((program for start, program in _PACKED.items() if first_bytes.startswith(start)), None)


def read_index(fd: int) -> Iterator[Member | BadMember]:
    """The files of the archive that is open as `fd`, in order. Raises OSError."""
    end = os.fstat(fd).st_size
    if program := unpacker_of(os.pread(fd, 8, 0)):
        yield BadMember("", f"a packed archive: unpack it with {program}, then ingest it again", is_end=True)
        return
    try:
        yield from _members(fd, end)
    except _Damaged:
        yield BadMember("", "the archive is damaged; nothing after the damage was read", is_end=True)


def _members(fd: int, end: int) -> Iterator[Member | BadMember]:
    at, members = 0, 0
    long_name: bytes | None = None
    for_all: dict[bytes, bytes] = {}
    for_next: dict[bytes, bytes] = {}
    while True:
        header = os.pread(fd, BLOCK, at)
        if len(header) < BLOCK:
            reason = "not a tar archive" if at == 0 else "the archive ends early"
            yield BadMember("", reason, is_end=True)
            return
        if header == bytes(BLOCK):
            if _another_follows(fd, at):
                yield BadMember("", "another archive follows in the same file; it was not read", is_end=True)
            return
        if not _checksum_fits(header):
            if at == 0:
                yield BadMember("", "not a tar archive", is_end=True)
                return
            raise _Damaged
        kind, size = header[156:157], _number(header[124:136])
        at += BLOCK
        if kind in (b"L", b"K", b"x", b"g"):
            if size > MAX_NAME_BYTES:
                raise _Damaged
            text = os.pread(fd, size, at)
            if len(text) < size:
                yield BadMember("", "the archive ends early", is_end=True)
                return
            at += _blocks(size)
            if kind == b"L":
                long_name = text.rstrip(b"\0")
            elif kind == b"x":
                for_next = _extended(text)
            elif kind == b"g":
                for_all |= _extended(text)
            continue
        settings = {**for_all, **for_next}
        raw = settings.get(b"path") or long_name or _short_name(header)
        long_name, for_next = None, {}
        if b"size" in settings:
            if not settings[b"size"].isdigit() or len(settings[b"size"]) > 18:
                raise _Damaged
            size = int(settings[b"size"])
        if kind == b"S":
            at = _end_of_sparse_map(fd, header, at)
        name = os.fsdecode(raw)
        offset, at = at, at + (0 if kind in _WITHOUT_DATA else _blocks(size))
        if offset + (0 if kind in _WITHOUT_DATA else size) > end:
            yield BadMember(name, "the archive ends early", is_end=True)
            return
        members += 1
        if members > MAX_MEMBERS:
            reason = f"more than {MAX_MEMBERS:,} files in one archive: split it"
            yield BadMember("", reason, is_end=True)
            return
        is_sparse = kind == b"S" or any(key.startswith(b"GNU.sparse.") for key in settings)
        if kind == b"5" or (kind in _FILES and name.endswith("/")):
            continue
        if is_sparse:
            yield BadMember(name, "a sparse file in an archive")
        elif kind in _LINKS:
            yield BadMember(name, "a link in an archive")
        elif kind not in _FILES:
            yield BadMember(name, "neither a file nor a folder in an archive")
        else:
            yield Member(name, offset, size)


def _end_of_sparse_map(fd: int, header: bytes, at: int) -> int:
    """Where the data of a sparse file begin: its map may go on in further blocks behind the header."""
    more = header[482]
    while more:
        block = os.pread(fd, BLOCK, at)
        at += BLOCK
        more = block[504] if len(block) == BLOCK else 0
    return at


def _blocks(size: int) -> int:
    return -(-size // BLOCK) * BLOCK


def _number(field: bytes) -> int:
    """A number of a header: octal digits, or binary if the first bit is set. Raises _Damaged."""
    if field[0] == 0x80:
        return int.from_bytes(field[1:], "big")
    digits = field.strip(b" \0")
    if not digits:
        return 0
    try:
        number = int(digits, 8)
    except ValueError:
        raise _Damaged from None
    if number < 0:
        raise _Damaged
    return number


def _checksum_fits(header: bytes) -> bool:
    """Whether the bytes add up to what the header says; some old programs add signed bytes."""
    try:
        expected = _number(header[148:156])
    except _Damaged:
        return False
    total = sum(header) - sum(header[148:156]) + 8 * 32
    if total == expected:
        return True
    signed = sum(byte - 256 if byte > 127 else byte for byte in header[:148] + header[156:]) + 8 * 32
    return signed == expected


def _short_name(header: bytes) -> bytes:
    name = header[:100].split(b"\0", 1)[0]
    if header[257:263] == b"ustar\0" and header[345]:  # GNU's "ustar  " uses these bytes for something else
        name = header[345:500].split(b"\0", 1)[0] + b"/" + name
    return name


def _extended(text: bytes) -> dict[bytes, bytes]:
    """The records of an extended header, "30 path=...\\n" each. Raises _Damaged."""
    records, at = {}, 0
    while at < len(text) and text[at]:
        length, blank, _ = text[at : at + 20].partition(b" ")
        if not blank or not length.isdigit():
            raise _Damaged
        end = at + int(length)
        if end > len(text) or end <= at + len(length) + 1 or text[end - 1 : end] != b"\n":
            raise _Damaged
        key, _, value = text[at + len(length) + 1 : end - 1].partition(b"=")
        records[key] = value
        at = end
    return records


def _another_follows(fd: int, at: int) -> bool:
    """Whether a header comes after the empty blocks that end an archive, as in archives put together."""
    following = os.pread(fd, 64 * BLOCK, at)
    for start in range(0, len(following), BLOCK):
        block = following[start : start + BLOCK]
        if block.strip(b"\0"):
            return len(block) == BLOCK and _checksum_fits(block)
    return False
