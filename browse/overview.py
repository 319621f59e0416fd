"""What the front page tells: which texts the pins can be found by, and what was run."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any, NotRequired, TypedDict

from ..common.terminal import plural

# Texts by the names that the copy's column `texts` has for them, each with the CSS class of its bar. The
# order is that of the paper: a pin counts for the first text that it has.
TEXTS = {"own text": "native", "caption": "caption", "board titles": "titles", "queries": "queries"}
CATEGORIES = 15  # bars drawn; the other categories share one bar


class Part(TypedDict):
    """A part of a bar: `n` pins, drawn from `start` on. `what` is a CSS class of TEXTS, or "left"."""

    what: str
    n: int
    start: int


class Bar(TypedDict):
    """Some pins, divided by the first text that each of them has. The last part has no text."""

    name: str | None
    pins: int
    parts: list[Part]
    others: NotRequired[bool]  # the bar of the categories that have none of their own


class Step(TypedDict):
    """What one text adds: `n` pins have it and none of the texts before it; `has` pins have it at all."""

    text: str
    what: str
    n: int
    start: int
    has: int


class Overview(TypedDict):
    """The bars of the front page."""

    all: Bar
    steps: list[Step]
    kinds: list[Bar]
    categories: list[Bar]


class RunShown(TypedDict):
    """A run, with its duration, and its counts in words."""

    run_id: int
    command: str
    started_at: str
    finished_at: str | None
    device: str | None
    seconds: float | None
    counts_in_words: str


def overview(counted: Iterable[tuple[str, str | None, str, int]]) -> Overview:
    """The bars that follow from (kind, category, texts, pins), as the query PINS_BY_TEXTS counts them."""
    everything: Counter[str] = Counter()
    kinds: dict[str, Counter[str]] = {}
    categories: dict[str | None, Counter[str]] = {}
    for kind, category, texts, n in counted:
        everything[texts] += n
        kinds.setdefault(kind, Counter())[texts] += n
        categories.setdefault(category, Counter())[texts] += n
    all_pins = _bar("All pins", everything)
    steps: list[Step] = [
        {
            "text": text,
            "what": what,
            "n": part["n"],
            "start": part["start"],
            "has": sum(n for texts, n in everything.items() if text in texts.split(", ")),
        }
        for (text, what), part in zip(TEXTS.items(), all_pins["parts"], strict=False)
    ]
    return {
        "all": all_pins,
        "steps": steps,
        "kinds": [_bar(kind, kinds[kind]) for kind in sorted(kinds)],
        "categories": _category_bars(categories),
    }


def _category_bars(categories: Mapping[str | None, Counter[str]]) -> list[Bar]:
    largest = sorted(categories, key=lambda name: (name is None, -categories[name].total(), name or ""))
    bars = [_bar(name, categories[name]) for name in largest[:CATEGORIES]]
    if rest := largest[CATEGORIES:]:
        together = _bar(plural(len(rest), "other"), sum((categories[name] for name in rest), Counter()))
        together["others"] = True
        bars.append(together)
    return bars


def _bar(name: str | None, counted: Mapping[str, int]) -> Bar:
    pins: Counter[str] = Counter()
    for texts, n in counted.items():
        first = next((what for text, what in TEXTS.items() if text in texts.split(", ")), "left")
        pins[first] += n
    parts: list[Part] = []
    start = 0
    for what in (*TEXTS.values(), "left"):
        parts.append({"what": what, "n": pins[what], "start": start})
        start += pins[what]
    return {"name": name, "pins": start, "parts": parts}


def run_shown(row: Mapping[str, Any]) -> RunShown:
    """A row of the query RUNS as the page shows it."""
    counts = json.loads(row["counts"] or "{}")
    in_words = [
        f"{n:,} {name.replace('_', ' ')}"
        for name, n in counts.items()
        if isinstance(n, int) and n and name not in ("seconds", "sources")
    ]
    seconds = None
    if row["finished_at"]:
        ended, began = datetime.fromisoformat(row["finished_at"]), datetime.fromisoformat(row["started_at"])
        seconds = (ended - began).total_seconds()
    return {
        "run_id": row["run_id"],
        "command": row["command"],
        "started_at": row["started_at"],
        "finished_at": row["finished_at"],
        "device": row["device"],
        "seconds": seconds,
        "counts_in_words": ", ".join(in_words[:6]),
    }
