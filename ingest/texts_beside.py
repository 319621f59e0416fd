"""What stands beside a picture: its description in a .txt or .caption, its fields in a .json or a table.

`caption.txt` says it all by itself. A .json and the rows of metadata.jsonl, metadata.csv or metadata.parquet
(an imagefolder of Hugging Face) have fields under names that differ from tool to tool.
"""

from __future__ import annotations

import codecs
import json
import os
import stat
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from ..common.terminal import short_name
from ..sources.cells import RowError, moment, text_of
from ..sources.locations import table_format
from ..sources.rows import BadRow, SourceError, is_missing
from ..sources.tables import READERS, read_tables
from .placeholders import says_nothing

MAX_TEXT_BYTES = 1_000_000  # of a file beside a picture
MAX_IGNORED = 200  # keys that are named after an ingest
MAX_TABLE_ROWS = 2_000_000  # of tables of metadata; they are kept in memory until their picture comes
TABLES = frozenset(["metadata.jsonl", "metadata.csv", "metadata.parquet"])
# In the order in which they are read: what comes later wins.
SIDE_ENDINGS = (".json", ".cls", ".caption", ".txt")
# field of a pin -> the names under which tools keep it; the first that has a value counts
NAMES: Mapping[str, tuple[str, ...]] = {
    "title": ("title", "name"),
    "description": ("description", "caption", "text", "alt", "alt_text"),
    "kind": ("kind",),
    "category": ("category",),
    "locale": ("locale",),
    "created_at": ("created_at",),
}
_KINDS = ("pin", "product")


@dataclass(slots=True)
class TextsRead:
    """What was read as what, to be said after an ingest."""

    fields: Counter[str] = field(default_factory=Counter)  # "description from .txt" -> pictures
    ignored: Counter[str] = field(default_factory=Counter)  # "width" -> files or tables with such a key

    def ignore(self, keys: Iterable[str]) -> None:
        """Notes keys that no field is read from; of strangers' files, so only so many."""
        for key in keys:
            short = short_name(key)
            if short in self.ignored or len(self.ignored) < MAX_IGNORED:
                self.ignored[short] += 1


@dataclass(frozen=True, slots=True)
class Side:
    """A file beside a picture: its ending (of SIDE_ENDINGS), its name for people, how to get its bytes."""

    ending: str
    name: str
    read: Callable[[int], bytes]  # takes how many bytes to read at most; raises OSError


def fields_beside(
    sides: list[Side], of_table: dict[str, Any] | None, source: str, read: TextsRead
) -> tuple[dict[str, Any], list[BadRow]]:
    """The fields of a picture's pin by what stands beside it, and a BadRow for each text that is of no use.

    `of_table` is its row of a table of metadata. Descriptions and titles come with `has_description` and
    `has_title`, as the store wants them.
    """
    fields: dict[str, Any] = dict(of_table or {})
    bad: list[BadRow] = []
    for side in sides:
        try:
            data = side.read(MAX_TEXT_BYTES + 1)
            if len(data) > MAX_TEXT_BYTES:
                raise RowError(f"a text of more than {MAX_TEXT_BYTES:,} bytes beside a picture")
            text = _decoded(data)
            if side.ending == ".json":
                found, reasons = fields_of(_object(text), ".json", read)
                fields |= found
                bad += [BadRow(source, None, reason, side.name) for reason in reasons]
            else:
                name = "category" if side.ending == ".cls" else "description"
                fields[name] = text_of(name, text.strip())
                read.fields[f"{name} from {side.ending}"] += 1
        except RowError as error:
            bad.append(BadRow(source, None, str(error), side.name))
        except OSError:
            bad.append(BadRow(source, None, "a text beside a picture cannot be read", side.name))
    for name in ("title", "description"):
        if name in fields:
            fields[f"has_{name}"] = not says_nothing(fields[name])
    return fields, bad


def fields_of(values: Mapping[str, Any], origin: str, read: TextsRead) -> tuple[dict[str, Any], list[str]]:
    """The fields of a pin in an object or a row whose keys are those of some tool, and what was wrong.

    A value that makes no sense leaves its field empty. `origin` is how people know the file.
    """
    by_name = {str(name).strip().lower(): value for name, value in values.items()}
    fields: dict[str, Any] = {}
    reasons: list[str] = []
    used = {"file_name"}
    for name, others in NAMES.items():
        present = [other for other in others if other in by_name]
        if not present:
            continue
        chosen = next((other for other in present if not is_missing(by_name[other])), present[0])
        used.add(chosen)
        try:
            fields[name] = _converted(name, by_name[chosen])
        except RowError as error:
            fields[name] = None
            reasons.append(str(error))
        if fields[name] is not None:
            read.fields[f"{name} from {origin}{'' if chosen == name else f' ({chosen})'}"] += 1
    read.ignore(key for key in by_name if key not in used)
    return fields, reasons


def _converted(name: str, value: Any) -> str | None:
    if name == "created_at":
        return moment(value)
    text = text_of(name, value)
    if name == "kind" and text is not None:
        text = text.strip().lower()
        if text not in _KINDS:
            raise RowError("kind is neither pin nor product")
    return text


def _decoded(data: bytes) -> str:
    encoding = "utf-16" if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) else "utf-8-sig"
    try:
        return data.decode(encoding)
    except UnicodeDecodeError:
        raise RowError("not valid UTF-8") from None


def _object(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        raise RowError("not valid JSON") from None
    if not isinstance(value, dict):
        raise RowError("not a JSON object")
    return value


class MetadataTables:
    """The rows of an imagefolder's tables of metadata, kept until the picture comes that they are about.

    `source` is the folder of the ingest, under which rows that are of no use are kept.
    """

    def __init__(self, source: str, read: TextsRead) -> None:
        self._source, self._read = source, read
        self._rows: dict[str, tuple[str, int, str]] = {}  # path -> (table, line, fields as JSON)

    def add(self, table: str) -> Iterator[BadRow]:
        """Reads a table; its rows name pictures by their path from the table's folder."""
        shown = os.path.relpath(table, os.path.dirname(self._source))
        names = ("file_name", *(name for others in NAMES.values() for name in others))
        folder, origin = os.path.dirname(table), os.path.basename(table)
        try:
            if not stat.S_ISREG(os.stat(table).st_mode):
                raise SourceError("not a regular file")
            columns = READERS[table_format(table)].column_names(table) or ()
            self._read.ignore(name for name in columns if name.strip().lower() not in names)
            for rows in read_tables([table], names, None, ("file_name",)):
                if isinstance(rows, BadRow):
                    yield BadRow(self._source, rows.line, rows.reason, f"{shown}: {rows.content}")
                    continue
                for i, line in enumerate(rows.lines):
                    values = {name: cells[i] for name, cells in rows.columns.items()}
                    for reason in self._add_row(shown, folder, origin, line, values):
                        content = json.dumps(values, ensure_ascii=False, default=lambda v: type(v).__name__)
                        yield BadRow(self._source, line, reason, f"{shown}: {content}")
                    if len(self._rows) > MAX_TABLE_ROWS:
                        raise SourceError(f"it has more than {MAX_TABLE_ROWS:,} rows")
        except (SourceError, OSError) as error:
            yield BadRow(self._source, None, "a table of metadata cannot be read", f"{shown}: {error}")

    def _add_row(
        self, shown: str, folder: str, origin: str, line: int, values: dict[str, Any]
    ) -> Iterator[str]:
        """Keeps a row, and yields what is wrong with it."""
        try:
            name = text_of("file_name", values.get("file_name"))
        except RowError as error:
            yield str(error)
            return
        if name is None or not name.strip():
            yield "no file_name"
            return
        fields, reasons = fields_of(values, origin, self._read)
        # The path is only looked up among the pictures that are found; nothing is opened by it.
        path = os.path.normpath(os.path.join(folder, name.strip()))
        self._rows[path] = shown, line, json.dumps(fields, ensure_ascii=False)
        yield from reasons

    def take(self, path: str) -> dict[str, Any] | None:
        """The fields of the picture at `path`, once."""
        if not self._rows:
            return None
        found = self._rows.pop(path, None)
        fields: dict[str, Any] | None = json.loads(found[2]) if found else None
        return fields

    def left(self) -> Iterator[BadRow]:
        """Rows that name none of the pictures that were found."""
        for path, (shown, line, _) in self._rows.items():
            yield BadRow(self._source, line, "file_name names no picture of the folder", f"{shown}: {path}")
        self._rows = {}
