"""Ranks and intervals against slow counts in plain Python."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pincaption.embed.bm25 import KINDS, Kind
from pincaption.embed.intervals import mean_and_interval
from pincaption.embed.pairs import QUERY_PIN, QUERY_QUERY, Pairs, Task
from pincaption.embed.ranking import Candidates, known_positives, measures, ranks
from pincaption.embed.reader import Export
from pincaption.embed.recall import summaries
from pincaption.embed.scores import bm25_scores, fused, item_index
from pincaption.embed.slices import groups


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_ranks_equal_a_slow_count(data: st.DataObject) -> None:
    n_queries, n_items = 4, 7
    pairs = data.draw(
        st.lists(
            st.tuples(st.integers(0, n_queries - 1), st.integers(0, n_items - 1)), min_size=1, max_size=12
        )
    )
    table = np.array(
        data.draw(
            st.lists(
                st.lists(st.integers(0, 3), min_size=n_items, max_size=n_items),
                min_size=n_queries,
                max_size=n_queries,
            )
        ),
        float,
    )
    more = data.draw(st.sets(st.tuples(st.integers(0, n_queries - 1), st.integers(0, n_items - 1))))
    index = sorted({item for _, item in pairs} | data.draw(st.sets(st.integers(0, n_items - 1))))
    task = Task(
        QUERY_PIN, *(np.array(x) for x in zip(*pairs, strict=True)), np.ones(len(pairs)), np.arange(n_items)
    )
    known = np.array(sorted({q << 32 | i for q, i in [*pairs, *more]}))
    found = ranks(
        lambda some: torch.from_numpy(table[some][:, index]), task, Candidates(np.array(index)), known
    )
    for (query, item), rank in zip(pairs, found, strict=True):
        others = [i for i in index if i != item and (query, i) not in {*pairs, *more}]
        higher, equal = (
            sum(table[query, i] > table[query, item] for i in others),
            sum(table[query, i] == table[query, item] for i in others),
        )
        assert rank == 1 + higher + equal / 2


def test_a_score_that_is_not_a_number_ranks_last() -> None:
    task = Task(QUERY_PIN, np.array([0, 0]), np.array([0, 1]), np.ones(2), np.arange(5))
    found = ranks(
        lambda some: torch.tensor([[torch.nan, 3.0, 2.0, torch.nan, 9.0]]),
        task,
        Candidates(np.arange(5)),
        task.known,
    )
    # The others are 2, 3 and 4. The score of 3 is not a number either.
    assert found.tolist() == [1 + 2 + 1 / 2, 1 + 1]


def test_measures_of_ranks() -> None:
    found = {
        name: value.tolist() for name, value in measures(np.array([1.0, 1.5, 10.0, 10.5, 100.0])).items()
    }
    assert found["recall@1"] == [1, 0, 0, 0, 0]
    assert found["recall@10"] == [1, 1, 1, 0, 0]
    assert found["recall@100"] == [1, 1, 1, 1, 1]
    assert found["mrr"] == pytest.approx([1, 2 / 3, 0.1, 1 / 10.5, 0.01])


def test_intervals_resample_queries_not_pairs() -> None:
    values, queries = np.repeat([1.0, 0.0, 1.0, 1.0], 250), np.repeat([0, 1, 2, 3], 250)
    mean, low, high = mean_and_interval(values, queries)
    assert (mean, low, high) == pytest.approx((0.75, 0.25, 1.0), abs=0.01)
    _, low, high = mean_and_interval(values, np.arange(1000))
    assert high - low < 0.06
    summary_of = summaries({"a": 1 + 99 * (1 - values), "b": np.full(1000, 5.0)}, queries)
    assert summary_of["a"]["recall@1"] == [round(number, 4) for number in mean_and_interval(values, queries)]
    assert summary_of["b"]["recall@10"] == [1, 1, 1]
    assert summary_of["b"]["mrr"] == [0.2, 0.2, 0.2]


def test_bm25_reads_every_field_and_only_those(export: Path) -> None:
    pairs = Pairs.load(Export(export), "test")
    task = pairs.tasks[QUERY_PIN]
    index = Candidates(task.pool)
    some = task.queries[:5]
    every = bm25_scores(Export(export), pairs, task, index)(some)
    titles = bm25_scores(Export(export, ["title"]), pairs, task, index)(some)
    assert (every > 0).sum() > (titles > 0).sum() > 0
    without_title = torch.from_numpy(
        np.array([row["title"] is None for row in Export(export).rows[index.rows].to_pylist()])
    )
    assert titles[:, without_title].sum() == 0


@pytest.mark.parametrize("kind", KINDS)
def test_an_index_for_any_query_gives_the_scores_of_one_for_these_queries(export: Path, kind: Kind) -> None:
    data = Export(export)
    pairs = Pairs.load(data, "test")
    task = pairs.tasks[QUERY_PIN]
    whole = item_index(data, task.pool, kind=kind)
    some = task.queries[:5]
    asked = pairs.queries.take(pa.array(some))
    found = bm25_scores(data, pairs, task, Candidates(task.pool), kind=kind)(some)
    torch.testing.assert_close(whole.scores(asked), found)
    best = found.argmax(1).numpy()
    for query, document in zip(asked.to_pylist(), best, strict=True):
        assert set(whole.matches(query, np.array([document]))[0]) <= set(query.split())
        assert whole.matches(query, np.array([document]))[0]


def test_fused_is_the_mean_of_both_standardised_scores() -> None:
    a, b = torch.tensor([[1.0, 2.0, 3.0]]), torch.tensor([[100.0, 0.0, 200.0]])
    found = fused(lambda some: a, lambda some: b)(np.array([0]))
    assert found.tolist()[0] == pytest.approx([(-(1.5**0.5) + 0) / 2, (0 - 1.5**0.5) / 2, 1.5**0.5])
    assert fused(lambda some: a[:, :1], lambda some: b[:, :1])(np.array([0])).tolist() == [[0.0]]


def test_pairs_of_queries_are_known_in_both_directions_and_no_query_finds_itself(export: Path) -> None:
    pairs = Pairs.load(Export(export), "test")
    task = pairs.tasks[QUERY_QUERY]
    known = set(known_positives([pairs.tasks], QUERY_QUERY).tolist())
    for a, b in zip(task.queries.tolist(), task.items.tolist(), strict=True):
        assert {a << 32 | b, b << 32 | a, a << 32 | a, b << 32 | b} <= known


def test_each_pair_is_in_one_group_of_each_kind(export: Path) -> None:
    data = Export(export)
    pairs = Pairs.load(data, "test")
    task = pairs.tasks[QUERY_PIN]
    found = groups(data, task, pairs.details[QUERY_PIN])
    assert {by: set(some) for by, some in found.items()} == {
        "action": {"save", "click"},
        "language": {"en", "de", "unknown"},
        "item": {"with native text", "without native text"},
        "query": {"known of the item", "new to the item"},
    }
    for some in found.values():
        assert (sum(mask.astype(int) for mask in some.values()) == 1).all()
    rows = data.rows[task.items].to_pylist()
    assert found["item"]["with native text"].tolist() == [row["title"] is not None for row in rows]
