"""What a user says about tables whose names and first lines do not say it."""

from __future__ import annotations

import codecs
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ..common.errors import OptionError

FORMATS = ("csv", "tsv", "jsonl", "json", "parquet", "xlsx")


@dataclass(frozen=True, slots=True)
class ReadAs:
    """How sources are to be read: --format, --encoding and --columns of the command line.

    `format` is for every source whose first bytes do not show that it is Parquet or Excel. `encoding` is by
    Python's name, for text without a byte order mark. `names` are the columns of CSV and TSV files that have
    no header. Raises OptionError for a format or an encoding that does not exist, and for a name that comes
    twice.
    """

    format: str | None = None
    encoding: str | None = None
    names: Sequence[str] = ()
    # Whether folders such as date=2026-05-31/ are columns. They are not for a copy of standard input.
    folders: bool = True

    def __post_init__(self) -> None:
        if self.format is not None and self.format not in FORMATS:
            raise OptionError(f"{self.format!r} is no format of tables: take one of {', '.join(FORMATS)}")
        if self.encoding is not None and not is_text_encoding(self.encoding):
            raise OptionError(f"{self.encoding!r} is no encoding: take for instance utf-8, cp1252 or utf-16")
        if twice := sorted({name for name in self.names if self.names.count(name) > 1}):
            raise OptionError(f"--columns has {twice[0]!r} twice")

    def as_json(self) -> dict[str, Any]:
        """What was said, for the table `runs` and for the digest of a source; empty if nothing was."""
        said = {"format": self.format, "encoding": self.encoding, "columns": list(self.names)}
        return {name: value for name, value in said.items() if value}


def is_text_encoding(name: str) -> bool:
    """Whether Python decodes text by this name. False for codecs such as `zip`, which unpack bytes."""
    try:
        b"".decode(name)
        return isinstance(codecs.getincrementaldecoder(name)().decode(b"a", True), str)
    except (LookupError, ValueError, TypeError):  # ValueError: utf-16 of one byte, or a NUL in the name
        return name.lower().replace("-", "_").startswith(("utf_16", "utf16", "utf_32", "utf32"))


AS_NAMED = ReadAs()  # as the names and the first bytes of files say
