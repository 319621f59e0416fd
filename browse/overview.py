"""What the front page tells: how many pins can be found by words, and which texts they owe that to; what was
run.
"""

from __future__ import annotations

import json
import sqlite3
from collections import Counter
from collections.abc import Iterable
from datetime import datetime
from typing import Any

# In the order in which the paper tells it. The names are those of the copy's column `texts`.
TEXTS = {"own text": "native", "caption": "caption", "board titles": "titles", "queries": "queries"}
CATEGORIES = 15  # bars drawn; the other categories are one bar together
COUNTED = "SELECT kind, category, texts, count(*) FROM pins GROUP BY kind, category, texts"
RUNS = (
    "SELECT run_id, command, started_at, finished_at, counts, device FROM runs ORDER BY run_id DESC LIMIT 20"
)
TABLES = {
    "rejected_rows": "rejected rows",
    "samples": "samples",
    "ratings": "ratings",
    "captions": "captions",
    "recipes": "recipes",
    "runs": "runs",
}
SIZES = "SELECT " + ", ".join(f"(SELECT count(*) FROM {table}) AS {table}" for table in TABLES)


def coverage(counted: Iterable[tuple[str, str | None, str, int]]) -> dict[str, Any]:
    """From rows of `COUNTED`: {"all": bar, "steps", "kinds": [bar], "categories": [bar]}.

    A bar is {"name", "pins", "parts": [{"what", "n", "start"}]}: how many pins have the text `what` and none
    of those before it, from `start` on; the last part, "left", has no text. A step says of each text how many
    pins have it ("has"), how many it adds, and what it comes to.
    """
    everything: Counter[str] = Counter()
    kinds: dict[Any, Counter[str]] = {}
    categories: dict[Any, Counter[str]] = {}
    for kind, category, texts, n in counted:
        for counter in (
            everything,
            kinds.setdefault(kind, Counter()),
            categories.setdefault(category, Counter()),
        ):
            counter[texts] += n
    whole = _bar("All pins", everything)
    steps = []
    for (text, what), part in zip(TEXTS.items(), whole["parts"], strict=False):
        steps.append(
            {
                "text": text,
                "what": what,
                **part,
                "has": sum(n for texts, n in everything.items() if text in texts.split(", ")),
            }
        )
    largest = sorted(categories, key=lambda name: (name is None, -categories[name].total(), name))
    shown = [_bar(name, categories[name]) for name in largest[:CATEGORIES]]
    if rest := largest[CATEGORIES:]:
        shown.append(
            _bar(f"{len(rest):,} others", sum((categories[name] for name in rest), Counter()))
            | {"others": True}
        )
    return {
        "all": whole,
        "steps": steps,
        "kinds": [_bar(kind, kinds[kind]) for kind in sorted(kinds)],
        "categories": shown,
    }


def _bar(name: str | None, counted: Counter[str]) -> dict[str, Any]:
    told: Counter[str] = Counter()
    for texts, n in counted.items():
        told[next((what for text, what in TEXTS.items() if text in texts.split(", ")), "left")] += n
    parts, start = [], 0
    for what in (*TEXTS.values(), "left"):
        parts.append({"what": what, "n": told[what], "start": start})
        start += told[what]
    return {"name": name, "pins": start, "parts": parts}


def run(row: sqlite3.Row) -> dict[str, Any]:
    """A run as the page shows it: with its seconds, and its counts in words."""
    counts = json.loads(row["counts"] or "{}")
    said = [
        f"{n:,} {name.replace('_', ' ')}"
        for name, n in counts.items()
        if isinstance(n, int) and n and name not in ("seconds", "sources")
    ]
    seconds = None
    if row["finished_at"]:
        seconds = (
            datetime.fromisoformat(row["finished_at"]) - datetime.fromisoformat(row["started_at"])
        ).total_seconds()
    return {**dict(row), "seconds": seconds, "said": ", ".join(said[:6])}
