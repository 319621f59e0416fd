"""Where tables are: finds the files behind paths, globs and folders, and opens them.

Sources are local files and standard input. A source by address (`s3://`, `gs://`, `https://`, `hf://`) would
come in here: `find_sources` would list its files and `open_source` would open them. `file_stamp` would give
the version that the server reports. Only the Parquet reader opens its files by path and not by `open_source`.
"""

from __future__ import annotations

import glob
import gzip
import os
import sys
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from ..common.files import stamp_of
from ..common.redact import redact_credentials
from .rows import SourceError

ENDINGS = (".parquet", ".csv", ".tsv", ".jsonl", ".ndjson", ".json")
_GZIP = b"\x1f\x8b"  # the first bytes of every gzip file
_READABLE = f"captioner reads {', '.join(ENDINGS)}, all but Parquet also as .gz"


def find_sources(sources: Iterable[str]) -> list[str]:
    """The files behind paths, globs and folders, in order and each once. `-` (standard input) stays as it is.

    A folder stands for all tables below it. Raises SourceError for a source without any table.
    """
    files: dict[str, None] = {}  # used as an ordered set
    for source in sources:
        files.update(dict.fromkeys([source] if source == "-" else _files_of(source)))
    return list(files)


def _files_of(source: str) -> list[str]:
    path = Path(source).expanduser()
    if path.is_dir():
        tables = sorted(str(file) for file in path.rglob("*") if file.is_file() and _is_table_of(path, file))
        if not tables:
            raise SourceError(f"no table below the folder {source}: {_READABLE}")
    elif path.exists():  # asked before the glob, because a file's name may hold brackets
        if not table_format(path.name):
            raise SourceError(f"{source} does not have the name of a table: {_READABLE}")
        tables = [str(path)]
    else:
        matches = glob.glob(str(path), recursive=True)
        tables = sorted(match for match in matches if Path(match).is_file() and table_format(match))
        if not tables:
            raise SourceError(f"no such file: {source}")
    return tables


def _is_table_of(folder: Path, file: Path) -> bool:
    """False for the Parquet files that `aggregate` keeps in STORE.partials: not the user's tables."""
    partials = any(part.endswith(".partials") for part in file.relative_to(folder).parts)
    return bool(table_format(file.name)) and not partials


def table_format(name: str) -> str:
    """The format of a table by its file name, for instance "csv" for "a.CSV.gz"; "" for all other files."""
    name = name.lower()
    if name.endswith(".parquet"):
        return "parquet"
    return next((e[1:] for e in ENDINGS[1:] if name.removesuffix(".gz").endswith(e)), "")


@contextmanager
def open_source(source: str) -> Iterator[IO[bytes]]:
    """The bytes of a file or of standard input, unpacked where they are gzip."""
    if source == "-":
        yield sys.stdin.buffer
        return
    with open(source, "rb") as file:
        # The content decides, not the name: browsers unpack .gz files and keep the name.
        packed = file.peek(2)[:2] == _GZIP
        yield gzip.GzipFile(fileobj=file) if packed else file  # type: ignore[misc]


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
