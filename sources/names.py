"""Names of columns: when two are the same, which one is meant, and how they are shown."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from shlex import quote

SHOWN = 20  # columns that an error names at most
_NOT_A_LETTER = re.compile(r"[\W_]+")
# What the columns of other systems are called, best first. They are proposed for --map, never taken.
_OTHER_NAMES = {
    "pin_id": ("id", "pin", "sku", "item_id", "product_id", "item", "product", "asin", "gtin", "uid", "key"),
    "board_id": ("id", "board", "collection_id", "list_id"),
    "title": ("name", "headline", "product_title", "product_name"),
    "query": ("search_term", "search_query", "term", "keyword", "q", "search"),
    "action": ("event", "event_type", "action_type", "engagement", "type"),
    "date": ("day", "dt", "ds", "time", "ts", "event_time", "created_at", "datetime"),
    "vector": ("embedding", "embeddings", "emb", "values", "features"),
    "item": ("item_id", "id", "pin_id"),
    "rater": ("rater_id", "annotator", "user", "user_id", "worker"),
    "value": ("rating", "score", "label", "answer"),
}


def plain(name: str) -> str:
    """A column's name as it is compared: without regard to case, blanks and marks at its ends."""
    return name.strip().strip("\ufeff\u200b").strip().casefold()


def find_columns(columns: Mapping[str, str], names: Sequence[str]) -> dict[str, list[str]]:
    """field -> the names that could be its column, for fields with the columns that they are read from.

    More than one means that the table does not say which one it is.
    """
    by_name: dict[str, list[str]] = {}
    for name in names:
        by_name.setdefault(plain(name), []).append(name)
    found = {}
    for field, column in columns.items():
        candidates = by_name.get(plain(column), [])
        found[field] = [name for name in candidates if name == column] or candidates
    return found


def ambiguity(columns: Sequence[str], field: str, has_map: bool) -> str:
    """That two columns could be a field's, and what to do."""
    if len(set(columns)) == 1:
        times = "twice" if len(columns) == 2 else f"{len(columns)} times"
        return f"the column {columns[0]!r} {times}: rename all but one of them"
    advice = (
        f"say which one counts with --map {field}={quote(columns[0].strip())}"
        if has_map
        else "rename one of them"
    )
    if len({name.strip() for name in columns}) == 1:
        advice = "rename one of them"
    both = " and ".join(map(repr, columns[:SHOWN]))
    return f"the columns {both}, which differ only by case or blanks: {advice}"


def listed(names: Iterable[str], shown: int = SHOWN) -> str:
    """Names of columns for an error or a remark: each once, the first `shown` of them."""
    counts = Counter(name.strip() for name in names)
    unnamed = counts.pop("", 0)
    words = [_short(name) + (f" ({n} times)" if n > 1 else "") for name, n in list(counts.items())[:shown]]
    if len(counts) > shown:
        words.append(f"and {len(counts) - shown:,} more")
    if unnamed:
        words.append(f"{unnamed:,} without a name")
    return ", ".join(words) or "none"


def _short(name: str) -> str:
    text = " ".join(name.split())
    return text if len(text) <= 60 else text[:59] + "…"


def proposed_column(field: str, names: Sequence[str]) -> str | None:
    """The column that is likely to be the field under another name, or None."""
    by_letters: dict[str, str] = {}
    for name in reversed(names):
        by_letters[_letters(name)] = name.strip()
    for candidate in (field, *_OTHER_NAMES.get(field, ())):
        if column := by_letters.get(_letters(candidate)):
            return column
    return None


def _letters(name: str) -> str:
    return _NOT_A_LETTER.sub("", name.casefold())
