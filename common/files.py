"""Writes files so that a reader finds the old file or the whole new one, even if the process is killed.

Only one process at a time may write a file.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path


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
