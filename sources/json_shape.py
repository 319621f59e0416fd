"""JSON that is no table: one object over many lines, or one that holds the rows below a key."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterable
from typing import Any

from .columns import Wanted
from .names import find_columns, listed
from .rows import SourceError

_WORD = re.compile(r"[A-Za-z_]\w*")
_BLANKS = re.compile(r"\s*")
_DEPTH = 5  # objects within one another that are looked into for the rows
_DECODER = json.JSONDecoder()


def check_shape(source: str, head: bytes, wanted: Wanted) -> None:
    """Raises SourceError if the beginning of a JSON file shows that its lines are no rows.

    That is one object with a list of objects in it, as interfaces of the web answer, or objects that are
    written over several lines. The message has the command of jq that makes JSON Lines of it.
    """
    text = head.decode(errors="replace").lstrip("\ufeff \t\r\n")
    if not text.startswith("{"):
        return
    value, rest = _first_value(text)
    keys = list(value) if isinstance(value, dict) else _top_keys(text)
    found = find_columns({field: wanted.column_of(field) for field in wanted.fields}, keys)
    has_id = any(any(found.get(name) for name in group.split("|")) for group in wanted.required)
    alone = value is None or not rest.strip()
    if alone and not has_id and (path := list_of_objects(text)):
        raise SourceError(f"{_name(source)} is one JSON object{_below(path)}: {jq(path, source)}")
    over_lines = value is not None and "\n" in text[: len(text) - len(rest)].strip()
    # An object that is longer than the beginning: its second line begins with a key, not with an object.
    goes_on = value is None and keys and text.partition("\n")[2].lstrip().startswith('"')
    if over_lines or goes_on:
        raise SourceError(
            f"{_name(source)} has a JSON object over several lines, with the keys {listed(keys)}; captioner"
            f" reads an object per line, or one array of objects: {_jq('.', source)}"
        )


def _name(source: str) -> str:
    return "standard input" if source == "-" else source


def _below(path: Iterable[str]) -> str:
    """Where the rows are, in words."""
    return f" whose key {'.'.join(path)!r} holds the rows"


def jq(path: Iterable[str], source: str) -> str:
    """The command that makes JSON Lines of the list at a path of keys."""
    keys = "".join(f".{key}" if _WORD.fullmatch(key) else f"[{json.dumps(key)}]" for key in path)
    keys = keys if keys.startswith(".") else f".{keys}"
    return _jq(f"{keys}[]", source)


def _jq(program: str, source: str) -> str:
    if source == "-":
        return f"send it through jq -c {_quoted(program)}"
    return f"jq -c {_quoted(program)} {shlex.quote(source)} > rows.jsonl"


def _quoted(text: str) -> str:
    return f"'{text}'" if "[" in text and "'" not in text else shlex.quote(text)


def _first_value(text: str) -> tuple[Any, str]:
    """The first value and what follows it; (None, "") if the text ends within it or it is broken."""
    try:
        value, end = _DECODER.raw_decode(text)
    except (ValueError, RecursionError):
        return None, ""
    return value, text[end:]


def _skip(text: str, at: int) -> int:
    match = _BLANKS.match(text, at)
    return match.end() if match else at


def _pairs(text: str, at: int) -> Iterable[tuple[str, int]]:
    """(key, where its value begins) of the object that begins at `at`, as far as the text goes."""
    at = _skip(text, at + 1)
    while text[at : at + 1] == '"':
        try:
            key, at = _DECODER.raw_decode(text, at)
            at = _skip(text, at)
            if text[at : at + 1] != ":":
                return
            at = _skip(text, at + 1)
            yield key, at
            _, at = _DECODER.raw_decode(text, at)
        except (ValueError, RecursionError):
            return
        at = _skip(text, at)
        if text[at : at + 1] != ",":
            return
        at = _skip(text, at + 1)


def _top_keys(text: str) -> list[str]:
    return [key for key, _ in _pairs(text, 0)]


def list_of_objects(text: str, at: int = 0, depth: int = 0) -> list[str] | None:
    """The path of keys to the first list of objects in the object that begins at `at`, or None."""
    for key, value in _pairs(text, at):
        if text[value : value + 1] == "[" and text[_skip(text, value + 1) :][:1] == "{":
            return [key]
        is_object = text[value : value + 1] == "{" and depth < _DEPTH
        if is_object and (path := list_of_objects(text, value, depth + 1)):
            return [key, *path]
    return None
