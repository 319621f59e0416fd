"""A source of evidence: a file (or standard input) with a table of boards, saves or a query log."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
import time
from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ..sources.columns import ColumnsRead, Wanted
from ..sources.locations import absolute, file_stamp

# A file that changed less than 2 s before it is read may change again without getting another time stamp.
SETTLED_NS = 2_000_000_000


@dataclass
class Source:
    """A source that is to be read, and what became of it."""

    kind: str  # of TABLE_KINDS
    path: str  # `-` for standard input
    wanted: Wanted  # its fields, from which columns they are read, and how the file is written
    from_stdin: bool = field(init=False)
    # Filled in by `identify`:
    name: str = (
        ""  # the path; for standard input `-#` and a digest, so that each input is a source of its own
    )
    digest: str = ""  # of the bytes, and of all else that decides what is read
    file_stamp: str | None = None  # size and time of the file before it was read
    stamp: str | None = None  # what tells later that the file is unchanged; None where only its bytes can
    # Filled in by `read_batch`:
    evidence_id: int = 0
    rows_read: int = 0
    rejected: int = 0
    reasons: Counter[str] = field(default_factory=Counter)  # why rows were rejected, once they are stored
    columns: ColumnsRead | None = None
    of_folders: dict[str, str] = field(default_factory=dict)  # field -> SQL of its value in all rows
    # Of a query log only: {"readable": {day: rows}, "kept": {day: rows}, "actions": {action: rows},
    # "dropped": {reason: rows}}
    counts: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.from_stdin = self.path == "-"

    def identify(self, scratch: Path) -> None:
        """Reads the bytes of the source for its digest. Standard input goes into a file in `scratch`."""
        said = what_is_said(self.path, self.wanted)
        if self.from_stdin:
            # The folders of the store say nothing about what comes by standard input.
            read_as = replace(
                self.wanted.read_as, folders=False, format=self.wanted.read_as.format or "jsonl"
            )
            self.wanted = replace(self.wanted, read_as=read_as)
            self.path = str(scratch / "stdin.jsonl")
            with open(self.path, "wb") as file:
                shutil.copyfileobj(sys.stdin.buffer, file)
        self.file_stamp = file_stamp(self.path)
        with open(self.path, "rb") as file:
            digest = hashlib.file_digest(file, "sha256")
        digest.update(said.encode())
        self.digest = digest.hexdigest()
        self.name = f"-#{self.digest[:16]}" if self.from_stdin else self.path
        has_settled = time.time_ns() - os.stat(self.path).st_mtime_ns > SETTLED_NS
        self.stamp = f"{self.file_stamp} {said}" if has_settled else None

    @property
    def has_no_good_row(self) -> bool:
        """Whether there were rows, and all were rejected."""
        return 0 < self.rows_read == self.rejected

    def has_changed(self) -> bool:
        """Whether the file has changed since `identify`."""
        return file_stamp(self.path) != self.file_stamp

    @property
    def key(self) -> str:
        """The name under which the store knows the source."""
        return source_key(self.name)


def source_key(path: str) -> str:
    """The name under which the store knows a source: an absolute path, even if a name is not UTF-8."""
    return path if path.startswith("-#") else os.fsencode(absolute(path)).decode(errors="backslashreplace")


def current_stamp(path: str, wanted: Wanted) -> str | None:
    """The `stamp` that the source would get if it were read now; None for what is not a file."""
    stamp = file_stamp(path)
    return stamp and f"{stamp} {what_is_said(path, wanted)}"


def what_is_said(path: str, wanted: Wanted) -> str:
    """What decides besides the bytes of a source what is read of it: --map, --columns and its folders.

    Two days with the same bytes in date=2026-05-30/ and date=2026-05-31/ are two contents.
    """
    said: dict[str, Any] = dict(wanted.columns or {})
    if more := wanted.read_as.as_json():
        said["read as"] = more
    if folders := wanted.of_folders(path):
        said["folders"] = folders
    return json.dumps(said, sort_keys=True)
