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
import itertools
import os
import sys
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..common.files import stamp_of
from ..common.redact import redact_credentials
from .formats import READABLE, table_format
from .rows import SourceError
from .system_files import is_of_system

# The first bytes of packed files.
_GZIP, _BZIP2, _ZSTD = b"\x1f\x8b", b"BZh", b"\x28\xb5\x2f\xfd"
_PEEKED = 1 << 20  # bytes of a file that can be looked at before they are read


@dataclass(slots=True)
class Found:
    """The files behind the sources of a command, and what in their folders and globs is left out."""

    files: list[str] = field(default_factory=list)  # in order and each once
    named: set[str] = field(default_factory=set)  # those that were named themselves, and `-`
    skipped: Counter[str] = field(default_factory=Counter)  # ending -> files that are no tables by name
    system: list[str] = field(default_factory=list)  # names of tables that are hidden or of a system


def find_sources(sources: Iterable[str], *, any_name: bool = False) -> list[str]:
    """The files of `look_for`."""
    return look_for(sources, any_name=any_name).files


def look_for(sources: Iterable[str], *, any_name: bool = False) -> Found:
    """The files behind paths, globs and folders. `-` (standard input) stays as it is.

    A folder stands for all tables below it. With `any_name`, files whose name does not say that they are
    tables count, too. Raises SourceError for a source without any table.
    """
    found = Found()
    files: dict[str, None] = {}  # used as an ordered set
    for source in sources:
        refuse_empty_name(source)
        if source == "-":
            files[source] = None
            found.named.add(source)
        else:
            files.update(dict.fromkeys(_files_of(source, any_name, found)))
    found.files = list(files)
    return found


def refuse_empty_name(source: str) -> None:
    """Raises SourceError: as a path, an empty name would be the current folder."""
    if not source.strip():
        raise SourceError("a source has an empty name: is a variable of the shell not set?")


def _files_of(source: str, any_name: bool, found: Found) -> list[str]:
    path = Path(source).expanduser()
    if path.is_dir():
        tables = sorted(
            str(file)
            for file in path.rglob("*")
            if file.is_file() and _is_table(file.relative_to(path).parts, any_name, found)
        )
        if not tables:
            raise SourceError(f"no table below the folder {source}: {READABLE}")
    elif path.exists():  # asked before the glob, because a file's name may hold brackets
        if not any_name and not table_format(path.name):
            raise SourceError(f"{source} does not have the name of a table: {READABLE}")
        tables = [str(path)]
        found.named.add(str(path))
    else:
        matches = [match for match in glob.glob(str(path), recursive=True) if Path(match).is_file()]
        fixed = len(list(itertools.takewhile(lambda part: not glob.has_magic(part), path.parts)))
        tables = sorted(match for match in matches if _is_match(Path(match).parts[fixed:], any_name, found))
        if not tables and matches:
            raise SourceError(f"{source} matches no file with the name of a table: {READABLE}")
        if not tables:
            raise SourceError(f"no such file: {source}")
    return tables


def _is_table(parts: Sequence[str], any_name: bool, found: Found) -> bool:
    """Whether a file below a folder is one of the user's tables, by the parts of its path in there.

    Hidden files (`._a.csv` of a Mac) and those of systems (`~$a.xlsx`, `@eaDir/`) are not, nor is what Spark
    and Delta put beside tables (`_SUCCESS`, `_delta_log/`), nor what `aggregate` keeps in STORE.partials.
    """
    if any(part in _NOT_TABLES or part.endswith(".partials") for part in parts):
        return False
    if any(map(is_of_system, parts)):
        if table_format(parts[-1]):
            found.system.append(parts[-1])
        return False
    if parts[-1].startswith("_") and not table_format(parts[-1]):
        return False
    if any_name:
        return not parts[-1].startswith("_") and not parts[-1].endswith(".crc")
    return _is_by_name(parts[-1], found)


def _is_match(parts: Sequence[str], any_name: bool, found: Found) -> bool:
    """The same for a file that a glob matches. Hidden files match only globs that mean them."""
    if any(part in _NOT_TABLES or part.endswith(".partials") for part in parts[:-1]):
        return False
    if any(is_of_system(part) and not part.startswith(".") for part in parts):
        found.system.append(parts[-1])
        return False
    return any_name or _is_by_name(parts[-1], found)


def _is_by_name(name: str, found: Found) -> bool:
    if table_format(name):
        return True
    found.skipped[Path(name).suffix.lower()] += 1
    return False


_NOT_TABLES = {"_delta_log", "_temporary", "_spark_metadata", "_metadata", "_common_metadata"}


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
