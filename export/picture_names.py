"""Names of files for pins whose ids strangers chose: they stay in the folder, and no two are the same."""

from __future__ import annotations

import hashlib
import os
import re
import unicodedata

MAX_PART, MAX_NAME = 200, 1000  # bytes of a part between slashes, and of the whole
_CONTROL = re.compile(r"[\x00-\x1f\x7f\\]")
# `datasets` makes splits of files with such words in their path, and leaves out all others.
_SPLITS = re.compile(r"train|valid|val|dev|test|eval", re.IGNORECASE)


class PictureNames:
    """Gives each pin a name that is its id where possible. Two names never differ by case alone.

    `for_datasets` also avoids words that `datasets` takes for the name of a split.
    """

    def __init__(self, *, for_datasets: bool = False) -> None:
        self._for_datasets = for_datasets
        self._files: set[str] = set()
        self._folders: set[str] = set()

    def take(self, pin_id: str, image_endings: frozenset[str], ending: str, *, instead: bool) -> str:
        """A relative path that was not given before.

        Without `instead` the ending of an image in the id stays, and `ending` is added where there is none.
        With it, `ending` takes its place, or follows it where another pin has that name.
        """
        stem, own = os.path.splitext(pin_id)
        if own.lower() not in image_endings:
            stem, own = pin_id, ""
        wanted = [stem + ending, pin_id + ending] if instead else [pin_id if own else pin_id + ending]
        for name in wanted:
            if self._is_safe(name) and self._claim(name):
                return name
        ending = ending if instead else own or ending
        digest = hashlib.sha256(pin_id.encode()).hexdigest()
        safe = "" if self._for_datasets else _safe_stem(stem)
        for length in (12, 64):
            name = f"{safe or 'picture'}-{digest[:length]}{ending}"
            if self._claim(name):
                return name
        raise AssertionError("two pins have one id")

    def _is_safe(self, name: str) -> bool:
        if _CONTROL.search(name) or len(name.encode()) > MAX_NAME:
            return False
        if self._for_datasets and _SPLITS.search(name):
            return False
        return all(
            part and not part.startswith((".", "__")) and len(part.encode()) <= MAX_PART
            for part in name.split("/")
        )

    def _claim(self, name: str) -> bool:
        """Whether the name is free; then it is taken. A file cannot have the name of a folder."""
        key = unicodedata.normalize("NFC", name).casefold()
        parts = key.split("/")
        folders = {"/".join(parts[:n]) for n in range(1, len(parts))}
        if key in self._files or key in self._folders or folders & self._files:
            return False
        self._files.add(key)
        self._folders |= folders
        return True


def _safe_stem(stem: str) -> str:
    """The last part of an id without what could lead somewhere else; may be empty."""
    last = _CONTROL.sub("_", stem).replace("/", "_").lstrip("._ ")
    return last.encode()[:100].decode(errors="ignore")
