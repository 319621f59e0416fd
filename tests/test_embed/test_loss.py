"""The loss against closed forms, and learned probabilities against those that the pairs were drawn by."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from pincaption.embed.loss import Loss, LossOptions, repeated, sampled_softmax
from pincaption.embed.sketch import CountMinSketch


def test_over_all_items_with_even_sampling_it_is_cross_entropy() -> None:
    torch.manual_seed(0)
    logits, positive = torch.randn(50, 30), torch.randint(30, (50,))
    expected = F.cross_entropy(logits, positive, reduction="none")
    torch.testing.assert_close(sampled_softmax(logits, positive), expected)
    torch.testing.assert_close(
        sampled_softmax(logits, positive, log_q=torch.full((30,), -math.log(30))), expected
    )


def test_a_correction_subtracts_log_q_from_every_logit_and_for_positives_their_own() -> None:
    torch.manual_seed(0)
    logits, positive, log_q, own = torch.randn(8, 5), torch.randint(5, (8,)), torch.randn(5), torch.randn(8)
    for i in range(8):
        z = [float(logits[i, j] - log_q[j]) for j in range(5)]
        assert float(sampled_softmax(logits, positive, log_q=log_q)[i]) == pytest.approx(
            math.log(sum(map(math.exp, z))) - z[positive[i]], abs=1e-5
        )
        z[positive[i]] = float(logits[i, positive[i]] - own[i])
        assert float(sampled_softmax(logits, positive, log_q=log_q, log_q_positive=own)[i]) == pytest.approx(
            math.log(sum(map(math.exp, z))) - z[positive[i]], abs=1e-5
        )


def test_left_out_candidates_do_not_count_but_the_right_one_always_does() -> None:
    logits, positive = torch.tensor([[1.0, 2.0, 3.0]]), torch.tensor([0])
    assert float(
        sampled_softmax(logits, positive, left_out=torch.tensor([[True, False, True]]))
    ) == pytest.approx(math.log(1 + math.e))
    assert float(sampled_softmax(logits, positive, left_out=torch.tensor([[True, True, True]]))) == 0


def test_one_task_loss_is_the_mean_of_the_two_terms_over_the_dimensions() -> None:
    torch.manual_seed(0)
    queries, positives, negatives = (F.normalize(torch.randn(n, 8), dim=1) for n in (4, 4, 6))
    keys, others = torch.tensor([1, 2, 2, 3]), torch.tensor([4, 1, 5, 6, 7, 3])
    loss = Loss(LossOptions({4: 1.0, 8: 3.0}, sketch_width=1024))
    loss.counts.add(torch.arange(4), keys)
    share = {1: 0.25, 2: 0.5, 3: 0.25}
    total = 0.0
    for dim, weight in ((4, 1.0), (8, 3.0)):
        q, p, n = (F.normalize(x[:, :dim], dim=1).tolist() for x in (queries, positives, negatives))
        for i in range(4):
            once = [j for j in range(4) if j == i or (keys[j] != keys[i] and keys[j] not in keys[:j])]
            batch = {
                j: sum(a * b for a, b in zip(q[i], p[j], strict=True)) / 0.07
                - math.log(1 - (1 - share[int(keys[j])]) ** 4)
                for j in once
            }
            random = [
                sum(a * b for a, b in zip(q[i], n[j], strict=True)) / 0.07
                for j in range(6)
                if others[j] != keys[i]
            ]
            own = sum(a * b for a, b in zip(q[i], p[i], strict=True)) / 0.07
            total += weight * (
                math.log(sum(math.exp(z) for z in batch.values()))
                - batch[i]
                + math.log(sum(math.exp(z) for z in [own, *random]))
                - own
            )
    assert float(loss(queries, torch.arange(4), positives, keys, negatives, others)) == pytest.approx(
        total / 4 / 4, rel=1e-5
    )


def test_items_without_a_fixed_vector_are_no_candidates_and_their_pairs_do_not_count() -> None:
    torch.manual_seed(0)
    queries, positives, negatives = (F.normalize(torch.randn(n, 8), dim=1) for n in (3, 3, 4))
    loss = Loss(LossOptions({8: 1.0}, sketch_width=64))
    loss.counts.add(torch.arange(3), torch.arange(3))
    has = torch.tensor([True, False, True]), torch.tensor([True, True, False, True])
    found = loss(
        queries, torch.arange(3), positives, torch.arange(3), negatives, torch.arange(10, 14), has=has
    )
    positives[1], negatives[2] = torch.nan, 77.0
    positives[1] = 0.0
    assert torch.equal(
        found,
        loss(queries, torch.arange(3), positives, torch.arange(3), negatives, torch.arange(10, 14), has=has),
    )


def test_the_temperature_is_learned_within_its_bounds() -> None:
    loss = Loss(LossOptions({8: 1.0}, sketch_width=64))
    assert float(loss.temperature.detach()) == pytest.approx(0.07)
    with torch.no_grad():
        loss.log_temperature.fill_(9)
        assert float(loss.temperature) == 1
        loss.log_temperature.fill_(-9)
        assert float(loss.temperature) == pytest.approx(0.01)


def test_a_sketch_never_counts_too_few_and_too_many_only_within_its_bound() -> None:
    rng = np.random.default_rng(0)
    stream = rng.zipf(1.3, 200_000) % 50_000
    sketch = CountMinSketch(width=4096, depth=2)
    for part in np.array_split(stream, 20):
        sketch.add(torch.from_numpy(part))
    true = np.bincount(stream, minlength=50_000)
    error = sketch.count(torch.arange(50_000)).numpy() - true
    assert error.min() >= 0
    assert (error > math.e / 4096 * len(stream)).mean() <= math.exp(-2)
    again = CountMinSketch(width=4096, depth=2)
    again.load_state_dict(sketch.state_dict())
    assert torch.equal(
        again.log_inclusion(torch.arange(100), 10), sketch.log_inclusion(torch.arange(100), 10)
    )


def learned(correction: str, *, mask_known: bool = False, steps: int = 3000, batch: int = 128) -> float:
    """Draws pairs by a known P(item | query), learns free logits, and returns the mean total variation.

    `correction` "share": every occurrence of an item counts, and the log of its share is subtracted.
    """
    rng = np.random.default_rng(0)
    n_queries, n_items = 20, 60
    popularity = 1 / np.arange(1, n_items + 1) ** 1.5
    true = rng.dirichlet(np.full(n_items, 0.5), n_queries) * popularity
    true /= true.sum(1, keepdims=True)
    torch.manual_seed(0)
    table = torch.zeros(n_queries, n_items, requires_grad=True)
    sketch, pairs, asked = CountMinSketch(2**16), CountMinSketch(2**16, seed=1), CountMinSketch(2**16, seed=2)
    optimizer = torch.optim.Adam([table], lr=0.05)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    cumulated = np.cumsum(true, 1)
    known = torch.from_numpy(true > 1e-3)
    average, averaged = torch.zeros_like(table), 0
    for step in range(steps):
        queries = rng.integers(n_queries, size=batch)
        items = np.minimum((cumulated[queries] < rng.random((batch, 1))).sum(1), n_items - 1)
        q, i = torch.from_numpy(queries), torch.from_numpy(items)
        sketch.add(i)
        pairs.add(q << 32 | i)
        asked.add(q)
        left_out = i[None] == i[:, None]
        if correction != "share":
            left_out = left_out | repeated(i)
        if mask_known:
            left_out = left_out | known[q][:, i]
        own = pairs.count(q << 32 | i).log() - asked.count(q).log() if correction == "conditional" else None
        loss = sampled_softmax(
            table[q][:, i],
            torch.arange(batch),
            log_q=None
            if correction == "none"
            else sketch.log_inclusion(i, 1 if correction == "share" else batch),
            log_q_positive=own,
            left_out=left_out,
        ).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if step > steps // 2:
            average, averaged = average + table.detach(), averaged + 1
    return float((torch.softmax(average / averaged, 1) - torch.from_numpy(true)).abs().sum(1).mean() / 2)


def test_the_corrected_loss_learns_the_true_probabilities_and_the_uncorrected_one_does_not() -> None:
    # The figures of docs/embed.md are those after three times as many steps.
    corrected, uncorrected = learned("popularity", steps=1000), learned("none", steps=1000)
    assert learned("share", steps=1000) > 2 * corrected  # why an item counts once
    assert corrected < 0.07, corrected
    assert uncorrected > 0.15
