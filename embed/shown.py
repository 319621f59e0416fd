"""What is shown to people who search: how popular it is, and what the model finds that BM25 does not."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypedDict

import numpy as np

from .pairs import QUERY_QUERY, Pairs, Task
from .ranking import CUTS
from .reader import Export

SHOWN = CUTS[1]  # the first ten hits
EXAMPLES = 12  # of what was gained, and as many of what was lost
POPULAR = 10  # a tenth of the items


class Example(TypedDict):
    """A pair whose item one method shows among the first ten and the other does not."""

    query: str
    pin_id: str  # of the item that people chose; for query-query the other query
    title: str | None
    caption: str | None
    model: float  # rank
    bm25: float


class Popularity(TypedDict):
    """Shares that fall on the tenth of the items that has the most training pairs."""

    items: int  # in that tenth
    least: int  # training pairs of the last of them
    chosen: float  # of the pairs: what people chose
    shown: dict[str, float]  # {method: of its first ten hits of all queries}


def popularity(
    shown: Mapping[str, np.ndarray], task: Task, rows: np.ndarray, pairs_of: np.ndarray
) -> Popularity | None:
    """Which share of the hits {method: rows [queries, ten]; -1 for none} is popular.

    `rows`: the candidates; `pairs_of` [all rows]: training pairs of each. None without a training pair.
    """
    counts = pairs_of[rows]
    if not counts.any():
        return None
    best = rows[np.argsort(-counts, kind="stable")[: max(1, len(rows) // POPULAR)]]
    popular = np.zeros(len(pairs_of), bool)
    popular[best] = True
    return {
        "items": len(best),
        "least": int(pairs_of[best].min()),
        "chosen": round(float(popular[task.items].mean()), 4),
        "shown": {name: _share(popular, hits[hits >= 0]) for name, hits in shown.items()},
    }


def _share(popular: np.ndarray, rows: np.ndarray) -> float:
    return round(float(popular[rows].mean()), 4) if len(rows) else 0.0


def gained_and_lost(
    export: Export, pairs: Pairs, task: Task, model: np.ndarray, bm25: np.ndarray
) -> dict[str, list[Example]]:
    """{"gained" or "lost": at most twelve examples} of the ranks [pairs] of the model and of BM25.

    Gained are pairs whose item the model shows among the first ten, and BM25 does not; lost the other way
    round. Those with the largest difference of 1 / rank come first; a query gives one example.
    """
    change = 1 / model - 1 / bm25
    return {
        "gained": _examples(export, pairs, task, model, bm25, (model <= SHOWN) & (bm25 > SHOWN), -change),
        "lost": _examples(export, pairs, task, model, bm25, (model > SHOWN) & (bm25 <= SHOWN), change),
    }


def _examples(
    export: Export,
    pairs: Pairs,
    task: Task,
    model: np.ndarray,
    bm25: np.ndarray,
    chosen: np.ndarray,
    order: np.ndarray,
) -> list[Example]:
    places = np.flatnonzero(chosen)
    places = places[np.argsort(order[places], kind="stable")]
    _, first = np.unique(task.queries[places], return_index=True)
    found: list[Example] = []
    for place in places[np.sort(first)[:EXAMPLES]].tolist():
        item, title, caption = int(task.items[place]), None, None
        if task.name == QUERY_QUERY:
            name = pairs.queries[item].as_py()
        else:
            row = export.rows[[item]].to_pylist()[0]
            name, title, caption = row["pin_id"], row["title"], row.get("caption")
        found.append(
            {
                "query": pairs.queries[int(task.queries[place])].as_py(),
                "pin_id": name,
                "title": title,
                "caption": caption,
                "model": float(model[place]),
                "bm25": float(bm25[place]),
            }
        )
    return found
