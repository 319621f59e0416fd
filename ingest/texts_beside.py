"""What stands beside a picture: its description in a .txt or .caption, its fields in a .json or a table.

A .txt says it all by itself. A .json, and a row of a table of metadata, has fields under names that differ
from tool to tool.
"""

from __future__ import annotations

import codecs
import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ..common.terminal import short_name
from ..sources.cells import RowError, text_of
from ..sources.dates import moment
from ..sources.rows import BadRow, is_missing
from .kinds import kind_of
from .placeholders import says_nothing

MAX_TEXT_BYTES = 1_000_000  # of a file beside a picture
MAX_IGNORED = 200  # keys that are named after an ingest
# In the order in which they are read: what comes later wins, and all of them over a table of metadata.
SIDE_ENDINGS = (".json", ".cls", ".caption", ".txt")
# field of a pin -> the names under which tools keep it; the first that has a value counts
NAMES: Mapping[str, tuple[str, ...]] = {
    "title": ("title", "name"),
    "description": ("description", "caption", "text", "captions", "alt", "alt_text"),
    "kind": ("kind",),
    "category": ("category",),
    "locale": ("locale",),
    "created_at": ("created_at",),
}


@dataclass(slots=True)
class TextsRead:
    """What was read as what, to be said after an ingest."""

    fields: Counter[str] = field(default_factory=Counter)  # "description from .txt" -> pictures
    ignored: Counter[str] = field(default_factory=Counter)  # "width" -> files or tables with such a key

    def ignore(self, keys: Iterable[str]) -> None:
        """Notes keys that no field is read from; of strangers' files, so only so many."""
        for key in keys:
            short = short_name(key, 80)
            if short in self.ignored or len(self.ignored) < MAX_IGNORED:
                self.ignored[short] += 1


@dataclass(frozen=True, slots=True)
class Side:
    """A file beside a picture: its ending (of SIDE_ENDINGS), its name for people, how to get its bytes."""

    ending: str
    name: str
    read: Callable[[int], bytes]  # takes how many bytes to read at most; raises OSError


# Field of a pin -> (value, where it is from, such as ".json (text)")
Fields = dict[str, tuple[str | None, str]]


def fields_beside(
    sides: list[Side], of_table: Fields, source: str, read: TextsRead
) -> tuple[list[Fields], list[BadRow]]:
    """The fields that stand beside a picture, the weakest source first, and a BadRow for each broken file.

    `of_table` is its row of a table of metadata, `source` the folder of the ingest. `read` gets the keys that
    are of no use.
    """
    found = [of_table] if of_table else []
    bad: list[BadRow] = []
    for side in sides:
        try:
            data = side.read(MAX_TEXT_BYTES + 1)
            if len(data) > MAX_TEXT_BYTES:
                raise RowError(f"a text of more than {MAX_TEXT_BYTES:,} bytes beside a picture")
            text = _decoded(data)
            if side.ending == ".json":
                values = _object(text)
                fields, reasons = fields_of(values, ".json")
                found.append(fields)
                read.ignore(unread_keys(values))
                bad += [BadRow(source, None, reason, side.name) for reason in reasons]
            else:
                name = "category" if side.ending == ".cls" else "description"
                found.append({name: (text_of(name, text.strip()), side.ending)})
        except RowError as error:
            bad.append(BadRow(source, None, str(error), side.name))
        except OSError:
            bad.append(BadRow(source, None, "a text beside a picture cannot be read", side.name))
    return found, bad


def pin_fields(found: list[Fields], captions: set[str], read: TextsRead) -> dict[str, Any]:
    """The columns of `pins` for what stands beside a picture. A value of a later source wins.

    A description that is one of the pin's `captions` is left out: captioner wrote it, no person. `read` gets
    what was read and what was not. Titles and descriptions come with `has_title` and `has_description`.
    """
    chosen: Fields = {}
    for fields in found:
        for name, (value, origin) in fields.items():
            before, earlier = chosen.get(name, (None, ""))
            if name == "description" and value in captions:
                read.ignore([f"{origin} with a caption of this store"])
            elif value is None and before is not None:
                continue
            else:
                if before is not None and before != value:
                    read.ignore([f"{name} from {earlier}, as {origin} has another"])
                chosen[name] = value, origin
    columns: dict[str, Any] = {}
    for name, (value, origin) in chosen.items():
        columns[name] = value
        if name in ("title", "description"):
            columns[f"has_{name}"] = not says_nothing(value)
        if value is not None:
            read.fields[f"{name} from {origin}"] += 1
    return columns


def fields_of(values: Mapping[str, Any], origin: str) -> tuple[Fields, list[str]]:
    """The fields of a pin in an object or a row whose keys are those of some tool, and what was wrong.

    A value that makes no sense leaves its field empty, and of a list of texts the first counts. `origin` is
    how people know the file.
    """
    by_name = {str(name).strip().lower(): value for name, value in values.items()}
    fields: Fields = {}
    reasons: list[str] = []
    for name, others in NAMES.items():
        present = [other for other in others if other in by_name]
        if not present:
            continue
        chosen = next((other for other in present if not is_missing(by_name[other])), present[0])
        where = origin if chosen == name else f"{origin} ({chosen})"
        value = by_name[chosen]
        if isinstance(value, list) and value and all(isinstance(item, str) for item in value):
            where += ", the first of a list" if len(value) > 1 else ""
            value = next((item for item in value if item.strip()), None)
        try:
            fields[name] = _converted(name, value), where
        except RowError as error:
            fields[name] = None, where
            reasons.append(str(error))
    return fields, reasons


def unread_keys(values: Mapping[str, Any]) -> list[str]:
    """The keys of an object that are read as no field, those without a value left out.

    Of several keys for one field, those are named with the one that was taken, unless they say the same.
    """
    given = {str(name).strip().lower(): (str(name), v) for name, v in values.items() if not is_missing(v)}
    unread = {key: name for key, (name, _) in given.items() if key != "file_name"}
    for others in NAMES.values():
        chosen, *left = [other for other in others if other in given] or [""]
        unread.pop(chosen, None)
        for other in left:
            name, value = given[other]
            if value == given[chosen][1]:
                del unread[other]
            else:
                unread[other] = f"{name}, as {given[chosen][0]} is there too"
    return list(unread.values())


def _converted(name: str, value: Any) -> str | None:
    if name == "created_at":
        return moment(value)
    return kind_of(value) if name == "kind" else text_of(name, value)


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
