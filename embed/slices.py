"""Groups of pairs whose recall is worth a look of its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from .ngrams import grams
from .pairs import QUERY_QUERY, Pairs, Task
from .reader import Export

HEAD = 10  # training pairs of a query of the head; the torso has fewer, the tail has none


def groups(export: Export, task: Task, details: pa.Table) -> dict[str, dict[str, np.ndarray]]:
    """{by what: {group: bool [pairs]}}; groups without a pair are left out.

    By the action, by the item's language, by whether the item has native text, and by whether the query is
    one of the item's engaged queries. There are none for query-query.
    """
    if task.name == QUERY_QUERY:
        return {}
    rows = export.rows[task.items]
    native = (
        pc.fill_null(pc.utf8_length(rows.column("title")), 0).to_numpy()
        + pc.fill_null(pc.utf8_length(rows.column("description")), 0).to_numpy()
    ) > 0
    locale_parts = pc.split_pattern(pc.fill_null(rows.column("locale"), "unknown"), "-")
    language = pc.fill_null(pc.list_element(locale_parts, 0), "unknown").to_numpy(zero_copy_only=False)
    in_features = details["in_features"].to_numpy(zero_copy_only=False)
    action = details["action"].to_numpy(zero_copy_only=False)
    return _without_empty(
        {
            "action": {str(name): action == name for name in np.unique(action.astype(str))},
            "language": {str(name): language == name for name in np.unique(language.astype(str))},
            "item": {"with native text": native, "without native text": ~native},
            "query": {"known of the item": in_features, "new to the item": ~in_features},
        }
    )


@dataclass
class Training:
    """What the training pairs and the items of an export say about some queries and items."""

    query_pairs: np.ndarray  # [queries] the training pairs of each query
    item_pairs: np.ndarray  # [rows] the training pairs of each item, of all queries
    unseen_word: np.ndarray  # bool [queries]: has a word that no training query and no item has

    @classmethod
    def of(cls, export: Export, queries: pa.Array, training: Pairs | None, fields: Sequence[str]) -> Training:
        """Counts for `queries`; `fields`: those of the items whose words count as seen.

        `training`: the pairs of the split train, None if there are none.
        """
        per_query, per_item = np.zeros(len(queries), np.int64), np.zeros(len(export), np.int64)
        words = grams(queries)["unigram"]
        wanted = np.unique(words.codes)
        seen = np.zeros(len(wanted), bool)
        if training is not None:
            place = pc.fill_null(pc.index_in(training.queries, value_set=queries), -1)
            places = place.to_numpy(zero_copy_only=False)
            for name, task in training.tasks.items():
                own = places[task.queries]
                per_query += np.bincount(own[own >= 0], minlength=len(queries))
                if name != QUERY_QUERY:
                    per_item += np.bincount(task.items, minlength=len(export))
            seen |= np.isin(wanted, grams(training.queries)["unigram"].codes)
        for rows in export.batches():
            for column, parents in export.texts(rows, fields).values():
                seen |= np.isin(wanted, grams(column, parents)["unigram"].codes)
        unseen = np.zeros(len(queries), bool)
        unseen[words.rows[~seen[np.searchsorted(wanted, words.codes)]]] = True
        return cls(per_query, per_item, unseen)

    def groups(self, task: Task) -> dict[str, dict[str, np.ndarray]]:
        """{by what: {group: bool [pairs]}}, like the function `groups`, of the pairs of a task."""
        pairs, unseen = self.query_pairs[task.queries], self.unseen_word[task.queries]
        found = {
            "training pairs of the query": {
                f"head: {HEAD} pairs or more": pairs >= HEAD,
                f"torso: 1 to {HEAD - 1} pairs": (pairs > 0) & (pairs < HEAD),
                "tail: no pairs": pairs == 0,
            },
            "words of the query": {"all seen before": ~unseen, "one never seen": unseen},
        }
        if task.name != QUERY_QUERY:
            new = self.item_pairs[task.items] == 0
            found["training pairs of the item"] = {"with pairs": ~new, "new: no pairs": new}
        return _without_empty(found)


def _without_empty(all_groups: dict[str, dict[str, np.ndarray]]) -> dict[str, dict[str, np.ndarray]]:
    return {
        by: {name: mask for name, mask in masks.items() if mask.any()} for by, masks in all_groups.items()
    }
