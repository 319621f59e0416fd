"""Files: written so that a reader finds the old one or the whole new one, and opened with care.

Only one process at a time may write a file.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO


@contextmanager
def whole(path: str | Path) -> Iterator[Path]:
    """Yields a path next to `path` to write to. It replaces `path` at the end of the block.

    If the block raises, the new file is removed and `path` stays as it was. What a killed process has left
    there is overwritten by the next one. Raises OSError.
    """
    path = Path(path)
    unfinished = path.with_name(f".{path.name}.unfinished")
    try:
        yield unfinished
        os.replace(unfinished, path)
    except BaseException:
        unfinished.unlink(missing_ok=True)
        raise


def write_whole(path: str | Path, content: str | bytes | Iterable[str], *, encoding: str = "utf-8") -> None:
    """Writes bytes, a text, or the parts of a text, by way of `whole`. Raises OSError.

    Half of a surrogate pair cannot be encoded; it is written as `?`.
    """
    with whole(path) as unfinished:
        if isinstance(content, bytes):
            unfinished.write_bytes(content)
        else:
            with unfinished.open("w", encoding=encoding, errors="replace", newline="") as file:
                file.writelines([content] if isinstance(content, str) else content)


class NotAFile(OSError):
    """A path leads to a folder, a device, a pipe or the like."""


def open_regular(path: str | Path) -> BinaryIO:
    """Opens a file that strangers may have put there, for reading.

    Opening a pipe would wait, and opening a device may have effects; neither is opened. Raises NotAFile and
    other OSErrors, and ValueError for a path with a NUL character.
    """
    if not stat.S_ISREG(os.stat(path).st_mode):  # asked first, because opening a device has effects
        raise NotAFile("not a regular file")
    file = open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC), "rb")  # noqa: SIM115
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise NotAFile("not a regular file")
    return file


def stamp_of(status: os.stat_result) -> str:
    """Size and modification time of a file as one text. A file with the same stamp counts as unchanged."""
    return f"{status.st_size}-{status.st_mtime_ns}"
