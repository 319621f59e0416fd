"""A source of evidence: a file (or standard input) with a table of boards, saves or a query log."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..sources.locations import absolute, file_stamp

# A file that changed less than 2 s before it is read may change again without getting another time stamp.
SETTLED_NS = 2_000_000_000


@dataclass
class Source:
    """A source that is to be read, and what became of it."""

    kind: str  # of TABLE_KINDS
    path: str  # `-` for standard input
    columns: Mapping[str, str]  # field -> column, where they differ
    # Filled in by `identify`:
    name: str = (
        ""  # the path; for standard input `-#` and a digest, so that each input is a source of its own
    )
    digest: str = ""  # of the bytes and of `columns`
    file_stamp: str | None = None  # size and time of the file before it was read
    stamp: str | None = None  # what tells later that the file is unchanged; None where only its bytes can
    # Filled in by `read_batch`:
    evidence_id: int = 0
    rows_read: int = 0
    rejected: int = 0
    # Of a query log only: {"readable": {day: rows}, "kept": {day: rows}, "actions": {action: rows},
    # "dropped": {reason: rows}}
    counts: dict[str, Any] = field(default_factory=dict)

    def identify(self, scratch: Path) -> None:
        """Reads the bytes of the source for its digest. Standard input goes into a file in `scratch`."""
        from_stdin = self.path == "-"
        if from_stdin:
            self.path = str(scratch / "stdin.jsonl")
            with open(self.path, "wb") as file:
                shutil.copyfileobj(sys.stdin.buffer, file)
        self.file_stamp = file_stamp(self.path)
        with open(self.path, "rb") as file:
            digest = hashlib.file_digest(file, "sha256")
        digest.update(_as_text(self.columns).encode())
        self.digest = digest.hexdigest()
        self.name = f"-#{self.digest[:16]}" if from_stdin else self.path
        has_settled = time.time_ns() - os.stat(self.path).st_mtime_ns > SETTLED_NS
        self.stamp = f"{self.file_stamp} {_as_text(self.columns)}" if has_settled else None

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


def current_stamp(path: str, columns: Mapping[str, str]) -> str | None:
    """The `stamp` that the source would get if it were read now; None for what is not a file."""
    stamp = file_stamp(path)
    return stamp and f"{stamp} {_as_text(columns)}"


def _as_text(columns: Mapping[str, str]) -> str:
    return json.dumps(columns, sort_keys=True)
