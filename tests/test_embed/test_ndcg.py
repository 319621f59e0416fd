"""The best items of each query, and NDCG, against slow counts in plain Python."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pincaption.embed import ranking
from pincaption.embed.ranking import Candidates, Gains, ndcg, top

QUERIES, ITEMS = 4, 8
SCORE = st.sampled_from([0.0, 1.0, 2.0, -1.0, math.nan])
PAIR = st.tuples(st.integers(0, QUERIES - 1), st.integers(0, ITEMS - 1))


@settings(max_examples=150, deadline=None)
@given(
    table=st.lists(st.lists(SCORE, min_size=ITEMS, max_size=ITEMS), min_size=QUERIES, max_size=QUERIES),
    index=st.sets(st.integers(0, ITEMS - 1), min_size=1),
    known=st.sets(PAIR, max_size=6),
    judged=st.lists(st.tuples(PAIR, st.integers(0, 3)), max_size=12),
    asked=st.sets(st.integers(0, QUERIES - 1), min_size=1),
    k=st.integers(1, 10),
    block=st.integers(1, 3),
)
def test_the_best_items_and_ndcg_equal_a_slow_count(
    table: list[list[float]],
    index: set[int],
    known: set[tuple[int, int]],
    judged: list[tuple[tuple[int, int], int]],
    asked: set[int],
    k: int,
    block: int,
) -> None:
    rows, queries = np.array(sorted(index)), np.array(sorted(asked))
    scores = torch.tensor(table)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ranking, "BLOCK_BYTES", 4 * len(rows) * block)
        found = top(
            lambda places: scores[torch.from_numpy(places)][:, torch.from_numpy(rows)],
            queries,
            Candidates(rows),
            np.array(sorted(q << 32 | i for q, i in known), np.int64),
            k,
        )
    gain_of: dict[tuple[int, int], int] = {}
    for pair, gain in judged:
        gain_of[pair] = gain_of.get(pair, 0) + gain
    columns = [np.array(column, np.int64) for column in zip(*(pair for pair, _ in judged), strict=True)]
    q, i = columns or [np.empty(0, np.int64)] * 2
    values = ndcg(found, queries, Gains.of(q, i, np.array([gain for _, gain in judged], float)))
    for line, query in enumerate(queries.tolist()):
        shown = sorted(
            (i for i in index if (query, i) not in known and not math.isnan(table[query][i])),
            key=lambda i: (-table[query][i], i),
        )[:k]
        assert found[line].tolist() == shown + [-1] * (k - len(shown))
        gains = [gain_of.get((query, i), 0) for i in shown]
        ideal = sorted((gain for (q, _), gain in gain_of.items() if q == query), reverse=True)[:k]
        best = sum(gain / math.log2(2 + place) for place, gain in enumerate(ideal))
        if best:
            dcg = sum(gain / math.log2(2 + place) for place, gain in enumerate(gains))
            assert values[line] == pytest.approx(dcg / best)
        else:
            assert math.isnan(values[line])
