"""Where tables are: finds the files behind paths, globs and folders, and opens them.

Sources are local files and standard input. A source by address (`s3://`, `gs://`, `https://`, `hf://`) would
come in here: `find_sources` would list its files and `open_source` would open them. `file_stamp` would give
the version that the server reports. The readers of Parquet and Excel open their files by path, as they do not
read them from the start. What folders such as `date=2026-05-31/` say is read off the path (folders.py), so it
is the same for an address.
"""

from __future__ import annotations

import bz2
import glob
import gzip
import io
import os
import sys
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..common.files import stamp_of
from ..common.redact import redact_credentials
from .formats import READABLE, table_format
from .rows import SourceError

# The first bytes of packed files.
_GZIP, _BZIP2, _ZSTD = b"\x1f\x8b", b"BZh", b"\x28\xb5\x2f\xfd"
_PEEKED = 1 << 20  # bytes of a file that can be looked at before they are read


def find_sources(sources: Iterable[str], *, any_name: bool = False) -> list[str]:
    """The files behind paths, globs and folders, in order and each once. `-` (standard input) stays as it is.

    A folder stands for all tables below it. With `any_name`, files whose name does not say that they are
    tables count, too. Raises SourceError for a source without any table.
    """
    files: dict[str, None] = {}  # used as an ordered set
    for source in sources:
        if not source.strip():  # a path without a name is the current folder
            raise SourceError("a source has an empty name: is a variable of the shell not set?")
        files.update(dict.fromkeys([source] if source == "-" else _files_of(source, any_name)))
    return list(files)


def _files_of(source: str, any_name: bool) -> list[str]:
    path = Path(source).expanduser()
    if path.is_dir():
        tables = sorted(
            str(file) for file in path.rglob("*") if file.is_file() and _is_table_of(path, file, any_name)
        )
        if not tables:
            raise SourceError(f"no table below the folder {source}: {READABLE}")
    elif path.exists():  # asked before the glob, because a file's name may hold brackets
        if not any_name and not table_format(path.name):
            raise SourceError(f"{source} does not have the name of a table: {READABLE}")
        tables = [str(path)]
    else:
        matches = [match for match in glob.glob(str(path), recursive=True) if Path(match).is_file()]
        tables = sorted(match for match in matches if any_name or table_format(match))
        if not tables and matches:
            raise SourceError(f"{source} matches no file with the name of a table: {READABLE}")
        if not tables:
            raise SourceError(f"no such file: {source}")
    return tables


def _is_table_of(folder: Path, file: Path, any_name: bool) -> bool:
    """Whether a file below a folder is one of the user's tables.

    Hidden files (`._a.csv` of a Mac) are not, nor is what Spark, Delta and a Mac's zip archives put beside
    tables (`_SUCCESS`, `_delta_log/`, `__MACOSX/`), nor what `aggregate` keeps in STORE.partials.
    """
    parts = file.relative_to(folder).parts
    if any(part.startswith(".") or part in _NOT_TABLES or part.endswith(".partials") for part in parts):
        return False
    if any_name:
        return not (file.name.startswith("_") or file.name.endswith(".crc"))
    return bool(table_format(file.name))


_NOT_TABLES = {"_delta_log", "_temporary", "_spark_metadata", "__MACOSX", "_metadata", "_common_metadata"}


@contextmanager
def open_source(source: str) -> Iterator[io.BufferedReader]:
    """The bytes of a file or of standard input, unpacked where they are gzip, bzip2 or Zstandard.

    Unpacking takes a bounded amount of memory, however much comes out. Up to a megabyte can be peeked at.
    """
    if source == "-":
        yield _unpacked(sys.stdin.buffer)
        return
    with open(source, "rb", buffering=_PEEKED) as file:
        yield _unpacked(file)


def _unpacked(file: Any) -> io.BufferedReader:
    # The content decides, not the name: browsers unpack .gz files and keep the name.
    if not hasattr(file, "peek"):
        file = io.BufferedReader(file, _PEEKED)
    head = file.peek(4)[:4]
    if head.startswith(_GZIP):
        return io.BufferedReader(gzip.GzipFile(fileobj=file), _PEEKED)  # type: ignore[arg-type]
    if head.startswith(_BZIP2):
        return io.BufferedReader(bz2.BZ2File(file), _PEEKED)  # type: ignore[arg-type]
    if head == _ZSTD:
        import pyarrow as pa

        return io.BufferedReader(pa.input_stream(file, compression="zstd"), _PEEKED)
    opened: io.BufferedReader = file
    return opened


@contextmanager
def errors_name(source: str) -> Iterator[None]:
    """Turns errors of the disk and of gzip into a SourceError that names the source."""
    try:
        yield
    except BrokenPipeError:
        raise
    except (OSError, EOFError, zlib.error) as error:
        reason = getattr(error, "strerror", None) or str(error).partition("\n")[0]
        raise SourceError(f"{source} cannot be read: {reason}") from error


def absolute(path: str | Path) -> str:
    """The path from the root, with `~` replaced by the home folder."""
    return os.path.abspath(os.path.expanduser(path))


def file_stamp(path: str | Path) -> str | None:
    """Size and modification time of a file as one text, or None if there is no such file.

    A file whose stamp is still the same is taken to be unchanged.
    """
    try:
        status = os.stat(path)
    except (OSError, ValueError):
        return None
    return stamp_of(status)


def source_name(source: str) -> str:
    """The name of a source in the table `rejected_rows`: one name, however the command line wrote it.

    `-` and the names `-#...` that `aggregate` gives to standard input stay as they are.
    """
    name = source if source == "-" or source.startswith("-#") else absolute(source)
    return redact_credentials(os.fsencode(name).decode(errors="replace"))
