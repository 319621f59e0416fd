"""How the files of each kind of table are written, as far as the user says it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..common.errors import OptionError
from ..sources.read_as import ReadAs


@dataclass(frozen=True)
class Files:
    """--format, --encoding and --columns; `names` may have a list for each kind of table."""

    format: str | None = None
    encoding: str | None = None
    names: Sequence[str] | Mapping[str, Sequence[str]] = field(default_factory=tuple)

    def of(self, kind: str, kinds: Sequence[str]) -> ReadAs:
        """How the tables of one kind are written, of the kinds that a command reads. Raises OptionError."""
        if not isinstance(self.names, Mapping):
            return ReadAs(self.format, self.encoding, tuple(self.names))
        if unknown := sorted(set(self.names) - {*kinds, ""}):
            raise OptionError(
                f"--columns names no table of this command: {unknown[0]}; write for instance"
                f" {kinds[0]}=NAME,NAME"
            )
        return ReadAs(self.format, self.encoding, tuple(self.names.get(kind, self.names.get("", ()))))

    def as_json(self) -> dict[str, Any]:
        """What was said, for the table `runs`."""
        said = {"format": self.format, "encoding": self.encoding, "columns": self.names}
        return {name: value for name, value in said.items() if value}


AS_NAMED = Files()  # as the names and the first bytes of files say
