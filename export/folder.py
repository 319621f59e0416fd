"""The folder of an export: readers see the earlier export or the new one, and never a part of one."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..store.connection import StoreError
from .manifest import FORMAT, PICTURES, edited_texts, read_manifest, unlisted_files

MANY_FILES = 1000


@contextmanager
def new_folder(target: Path) -> Iterator[Path]:
    """An empty folder beside `target` to write into; on leaving, it takes the place of `target`.

    Raises StoreError if `target` is something else than an earlier export, or cannot be replaced.
    """
    target = target.resolve()  # if `target` is a link, the export goes to where it points
    _check(target)
    _clean_up(target)
    folder = target.parent / f".{target.name}.{os.getpid()}.unfinished"
    try:
        folder.mkdir()
    except OSError as error:
        raise StoreError(f"{target.parent} cannot be written: {error.strerror}") from None
    try:
        yield folder
        _flush(folder)
        _move(folder, target)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _check(target: Path) -> None:
    """Raises StoreError if a new export cannot take the place of `target`."""
    is_export = read_manifest(target, (FORMAT, PICTURES)) is not None
    if target.exists() and not is_export and (not target.is_dir() or any(target.iterdir())):
        raise StoreError(f"{target} exists already and is not an export: name another folder")
    if os.path.ismount(target) or target == Path.cwd() or target in Path.cwd().parents:
        raise StoreError(
            f"{target} is in use as a working folder or a mount, so it cannot be replaced:"
            " name a folder inside it"
        )
    if not target.parent.is_dir():
        raise StoreError(f"the folder {target.parent} does not exist: make it first, or export elsewhere")
    if target.exists() and (others := unlisted_files(target)):
        raise StoreError(
            f"{target} also holds files that no export wrote ({', '.join(others[:3])}), which would be lost:"
            " move them, or name another folder"
        )
    if target.exists() and (edited := edited_texts(target)):
        raise StoreError(
            f"{target} has texts that were changed since they were exported ({', '.join(edited[:3])}),"
            " and the changes would be lost: move them, or name another folder"
        )


def _clean_up(target: Path) -> None:
    """Deletes what killed processes left behind.

    If one of them was killed while it replaced an export, that export is put back.
    """
    import psutil

    for name in os.listdir(target.parent):
        ours = re.fullmatch(re.escape(f".{target.name}.") + r"(\d+)\.(unfinished|replaced)", name)
        if ours and not psutil.pid_exists(int(ours[1])):
            path = target.parent / name
            if ours[2] == "replaced" and not target.exists():
                os.rename(path, target)
            else:
                shutil.rmtree(path, ignore_errors=True)


def _flush(folder: Path) -> None:
    """Brings all files to the disk before the folder gets its name, in case of a power cut."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    if len(files) > MANY_FILES:
        os.sync()  # one by one, a million small files would take an hour
    else:
        for path in sorted(files):
            with path.open("rb") as file:
                os.fsync(file.fileno())


def _move(folder: Path, target: Path) -> None:
    """Gives `folder` the name `target`; what had that name before is deleted."""
    if not target.exists():
        os.rename(folder, target)
    elif not _exchange(folder, target):
        replaced = target.parent / f".{target.name}.{os.getpid()}.replaced"
        os.rename(target, replaced)
        os.rename(folder, target)
        shutil.rmtree(replaced)


def _exchange(a: Path, b: Path) -> bool:
    """Swaps the names of two folders in one step; False where the system cannot do it (Linux can)."""
    import ctypes

    try:
        # AT_FDCWD, RENAME_EXCHANGE
        return int(ctypes.CDLL(None).renameat2(-100, os.fsencode(a), -100, os.fsencode(b), 2)) == 0
    except (OSError, AttributeError):
        return False
