"""Files that are there whole or not at all, whenever the process is killed.

One process at a time writes a file.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def whole(path: str | Path) -> Iterator[Path]:
    """A path beside `path` to write to; it takes the place of `path` when the block ends well, and is gone
    when it does not.

    What a killed process left there is written over by the next one. Raises OSError.
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
    """Writes bytes, or text or parts of it as they come; half a surrogate, which no encoding has, becomes
    `?`. Raises OSError.
    """
    with whole(path) as unfinished:
        if isinstance(content, bytes):
            unfinished.write_bytes(content)
        else:
            with unfinished.open("w", encoding=encoding, errors="replace", newline="") as file:
                file.writelines([content] if isinstance(content, str) else content)
