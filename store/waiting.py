"""A connection that says so when it waits for a lock, and who holds it."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import unquote, urlsplit

from ..common.terminal import printable, say

SILENT_SECONDS = 2  # a writer rarely holds the lock for longer
# How long to wait for another process: writing the result of 80 million saves takes a minute.
BUSY_SECONDS = 300
_COMMAND = 60  # characters of another process's command that are shown

T = TypeVar("T")


class PatientConnection(sqlite3.Connection):
    """Waits up to BUSY_SECONDS for a lock. After SILENT_SECONDS it prints one line to standard error.

    A transaction that has read and wants to write after another process wrote fails at once: waiting would
    not help it.
    """

    def __init__(self, path: str | Path, *arguments: Any, **options: Any):
        name, is_uri = str(path), options.get("uri")
        self.file = Path(unquote(urlsplit(name).path) if is_uri else name)
        super().__init__(path, *arguments, **options | {"timeout": SILENT_SECONDS})

    def execute(self, *arguments: Any) -> sqlite3.Cursor:  # type: ignore[override]
        return self._wait(lambda: super(PatientConnection, self).execute(*arguments))

    def executemany(self, *arguments: Any) -> sqlite3.Cursor:  # type: ignore[override]
        return self._wait(lambda: super(PatientConnection, self).executemany(*arguments))

    def _wait(self, run: Callable[[], T]) -> T:
        began, said = time.monotonic(), False
        while True:
            try:
                return run()
            except sqlite3.OperationalError as error:
                code = getattr(error, "sqlite_errorcode", 0)  # its low byte is the kind of error
                helps = code & 0xFF == sqlite3.SQLITE_BUSY and code != sqlite3.SQLITE_BUSY_SNAPSHOT
                waited = time.monotonic() - began
                if not helps or waited > BUSY_SECONDS:
                    raise
                if waited >= SILENT_SECONDS and not said:
                    said = True
                    say(f"waiting: {self.file} is locked{_by_whom(self.file)}; Ctrl-C stops waiting")
                time.sleep(0.05)  # some steps, such as the switch to WAL mode, fail at once


def _by_whom(store: Path) -> str:
    """ " by process 17 (captioner run my.db)", or nothing where that cannot be known."""
    pids = lock_holders(store)
    if not pids:
        return " by another process"
    return f" by {'process' if len(pids) == 1 else 'processes'} " + ", ".join(map(_named, pids[:3]))


def lock_holders(store: Path) -> list[int]:
    """The other processes of this machine that hold a lock for writing on a store. Linux alone knows them."""
    inodes = set()
    for path in (store, store.with_name(f"{store.name}-shm")):
        with contextlib.suppress(OSError):
            inodes.add(path.stat().st_ino)
    try:
        lines = Path("/proc/locks").read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return []
    holders = set()
    for line in lines:
        # 1: POSIX  ADVISORY  WRITE 4711 fe:00:1234 120 120
        fields = line.split()
        if len(fields) == 8 and fields[1] in ("POSIX", "OFDLCK") and fields[3] == "WRITE":
            pid, inode = int(fields[4]), int(fields[5].rpartition(":")[2])
            if inode in inodes and pid not in (-1, 0, os.getpid()):
                holders.add(pid)
    return sorted(holders)


def _named(pid: int) -> str:
    try:
        words = Path(f"/proc/{pid}/cmdline").read_text(encoding="utf-8", errors="replace").split("\0")
    except OSError:
        return str(pid)
    if "python" in Path(words[0]).name and len(words) > 1:
        words = words[1:]
    command = printable(" ".join([Path(words[0]).name, *words[1:]]).strip())
    return f"{pid} ({command[:_COMMAND]}{'…' if len(command) > _COMMAND else ''})" if command else str(pid)
