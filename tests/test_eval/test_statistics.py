"""Agreement, intervals and the sign test against published examples and against the slow reference."""

import math
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pincaption.eval.agreement import agreement, bootstrap
from pincaption.eval.shares import FEW, effective_size, share_of, sign_test, size_for_margin, wilson

from . import reference
from .examples import AGREEMENT, SIGN_TEST, WILSON, Agreement

KEYS = ["alpha_nominal", "alpha_ordinal", "alpha_interval", "ac1", "ac2"]
quick = settings(max_examples=100, deadline=None)


def counts_of(table: reference.Table, categories: Sequence[float]) -> np.ndarray:
    return np.array([[list(item).count(k) for k in categories] for item in table], dtype=int).reshape(
        len(table), len(categories)
    )


def slowly(table: reference.Table, categories: Sequence[float]) -> dict[str, float | None]:
    return {
        "alpha_nominal": reference.alpha(table, "nominal"),
        "alpha_ordinal": reference.alpha(table, "ordinal"),
        "alpha_interval": reference.alpha(table, "interval"),
        "ac1": reference.ac(table, categories, quadratic=False),
        "ac2": reference.ac(table, categories, quadratic=True),
    }


def units(example: Agreement) -> list[list[float]]:
    return [[value for value in unit if value is not None] for unit in zip(*example.ratings, strict=True)]


@st.composite
def judgements(draw: st.DrawFn) -> tuple[list[list[float]], list[float]]:
    """Items with none to five ratings each, on scales with steps of any size.

    Some categories of the scale may never be chosen.
    """
    categories = draw(
        st.sampled_from(
            [[1.0], [0.0, 1.0], [1.0, 2.0, 3.0], [1.0, 2.0, 3.0, 4.0, 5.0], [-2.0, 0.0, 0.5, 10.0]]
        )
    )
    return draw(st.lists(st.lists(st.sampled_from(categories), max_size=5), max_size=12)), categories


# Agreement: published examples


@pytest.mark.parametrize("name", AGREEMENT)
def test_agreement_as_published(name: str) -> None:
    example = AGREEMENT[name]
    ours = agreement(counts_of(units(example), example.categories), np.array(example.categories))
    for key, figure in example.published.items():
        assert ours[key] == pytest.approx(figure, abs=0.5001 * 10**-example.decimals), (key, example.source)


@pytest.mark.parametrize("name", AGREEMENT)
def test_the_reference_as_published(name: str) -> None:
    example = AGREEMENT[name]
    slow = slowly(units(example), example.categories)
    for key, figure in example.published.items():
        assert slow[key] == pytest.approx(figure, abs=0.5001 * 10**-example.decimals), (key, example.source)


# Agreement: any judgements


@quick
@given(judgements())
def test_agreement_is_that_of_the_reference(judged: tuple[list[list[float]], list[float]]) -> None:
    table, categories = judged
    ours = agreement(counts_of(table, categories), np.array(categories))
    assert sorted(ours) == sorted(KEYS)
    for key, slow in slowly(table, categories).items():
        assert ours[key] == (None if slow is None else pytest.approx(slow, abs=1e-9)), key


@quick
@given(judgements(), st.randoms(use_true_random=False))
def test_neither_order_nor_unrated_items_nor_the_unit_of_the_scale_matter(
    judged: tuple[list[list[float]], list[float]], random: object
) -> None:
    table, categories = judged
    before = agreement(counts_of(table, categories), np.array(categories))
    shuffled = [*table, [], []]
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    after = agreement(counts_of(shuffled, categories), 100 + 20 * np.array(categories))
    for key in KEYS:
        assert after[key] == (None if before[key] is None else pytest.approx(before[key], abs=1e-9)), key


def test_items_with_a_single_rating_tell_nothing_about_alpha_but_count_for_the_chance_of_ac() -> None:
    twice = np.array([[2, 0], [1, 1], [0, 2]])
    with_single = np.vstack([twice, [[1, 0], [1, 0], [1, 0]]])
    before, after = agreement(twice, np.array([0.0, 1.0])), agreement(with_single, np.array([0.0, 1.0]))
    assert after["alpha_nominal"] == before["alpha_nominal"]
    # By hand: p_a 2/3; shares 1/2 and 1/2 before, so chance 1/2; 3/4 and 1/4 after, so chance 3/8.
    assert before["ac1"] == pytest.approx((2 / 3 - 1 / 2) / (1 / 2))
    assert after["ac1"] == pytest.approx((2 / 3 - 3 / 8) / (5 / 8))


def test_everybody_chose_the_same_category() -> None:
    """Alpha is not defined if nothing varies; AC1 says that all agree."""
    ours = agreement(np.array([[0, 3, 0], [0, 2, 0]]), np.array([1.0, 2.0, 3.0]))
    assert ours == {
        "alpha_nominal": None,
        "alpha_ordinal": None,
        "alpha_interval": None,
        "ac1": 1.0,
        "ac2": 1.0,
    }


@pytest.mark.parametrize(
    "counts",
    [np.zeros((0, 3), dtype=int), np.zeros((4, 3), dtype=int), np.eye(3, dtype=int)],
    ids=["no items", "no ratings", "one rating each"],
)
def test_without_any_item_rated_twice_there_is_no_agreement(counts: np.ndarray) -> None:
    values = np.array([1.0, 2.0, 3.0])
    assert agreement(counts, values) == dict.fromkeys(KEYS)
    assert bootstrap(counts, values, replicates=20) == dict.fromkeys(KEYS)


@pytest.mark.parametrize("metric", ["nominal", "ordinal", "interval"])
def test_alpha_is_that_of_the_krippendorff_package(metric: str) -> None:
    """The package is GPL, so we do not depend on it. The test runs where it is installed."""
    package = pytest.importorskip("krippendorff")
    random = np.random.default_rng(0)
    for values in (np.array([0.0, 1.0]), np.array([1.0, 2.0, 3.0, 4.0, 5.0]), np.array([1.0, 2.0, 4.0, 8.0])):
        for _ in range(20):
            counts = np.array(
                [
                    random.multinomial(raters, np.full(len(values), 1 / len(values)))
                    for raters in random.integers(0, 5, 40)
                ]
            )
            theirs = package.alpha(value_counts=counts, value_domain=values, level_of_measurement=metric)
            assert agreement(counts, values)[f"alpha_{metric}"] == pytest.approx(float(theirs), abs=1e-9)


# Agreement: how sure


def noisy(items: int, seed: int) -> np.ndarray:
    """Three raters on a scale of three, who see the truth in four cases of five."""
    random = np.random.default_rng(seed)
    truth = random.choice(3, size=(items, 1), p=[0.1, 0.2, 0.7])
    seen = np.where(random.random((items, 3)) < 0.8, truth, random.integers(0, 3, (items, 3)))
    return (seen[:, :, None] == np.arange(3)).sum(axis=1)


def test_the_bootstrap_resamples_items() -> None:
    """The reference draws items, one study at a time.

    Drawing single ratings would treat the raters as independent, and the intervals would be too narrow.
    """
    counts, values = noisy(80, seed=1), np.array([1.0, 2.0, 3.0])
    random = np.random.default_rng(2)
    studies = [agreement(counts[random.integers(0, 80, 80)], values) for _ in range(1000)]
    ours = bootstrap(counts, values, replicates=1000, seed=0)
    for key in KEYS:
        expected = np.percentile([study[key] for study in studies], [2.5, 97.5])  # type: ignore[arg-type]
        assert ours[key] == pytest.approx(tuple(expected), abs=0.03), key


def test_the_bootstrap_brackets_the_estimate_narrows_with_items_and_repeats_with_its_seed() -> None:
    values = np.array([1.0, 2.0, 3.0])
    small, large = noisy(50, seed=3), noisy(800, seed=3)
    for key in KEYS:
        low, high = bootstrap(small, values)[key]  # type: ignore[misc]
        assert low < agreement(small, values)[key] < high  # type: ignore[operator]
        low_of_many, high_of_many = bootstrap(large, values)[key]  # type: ignore[misc]
        assert high_of_many - low_of_many < (high - low) / 2
    assert (
        bootstrap(small, values, seed=5)
        == bootstrap(small, values, seed=5)
        != bootstrap(small, values, seed=6)
    )


# Shares


@pytest.mark.parametrize(("hits", "items", "low", "high"), WILSON)
def test_wilson_as_published(hits: int, items: int, low: float, high: float) -> None:
    assert wilson(hits / items, items) == pytest.approx((low, high), abs=5.1e-5)
    assert reference.wilson(hits / items, items) == pytest.approx((low, high), abs=5.1e-5)


@quick
@given(st.floats(0, 1), st.floats(1, 1e6))
def test_wilson_is_that_of_the_reference(share: float, n: float) -> None:
    low, high = wilson(share, n)
    assert (low, high) == pytest.approx(reference.wilson(share, n), abs=1e-7)
    assert 0 <= low <= share + 1e-12
    assert share - 1e-12 <= high <= 1


@quick
@given(st.lists(st.floats(1e-3, 1e3), min_size=1, max_size=50))
def test_effective_size_is_that_of_kish(weights: list[float]) -> None:
    ours = effective_size(np.array(weights))
    assert ours == pytest.approx(reference.kish(weights))
    assert ours == pytest.approx(effective_size(7 * np.array(weights)))
    assert 1 - 1e-9 <= ours <= len(weights) + 1e-9


@st.composite
def samples(draw: st.DrawFn) -> tuple[list[bool], list[float], list[str]]:
    """Samples with strata of at least two items, in any order.

    The weight of an item is the size of its stratum by the number of its sampled items.
    """
    rows = []
    for stratum in range(draw(st.integers(1, 5))):
        hits = draw(st.lists(st.booleans(), min_size=2, max_size=12))
        weight = draw(st.floats(0.1, 100)) / len(hits)
        rows += [(hit, weight, f"board {stratum}") for hit in hits]
    rows = draw(st.permutations(rows))
    return [row[0] for row in rows], [row[1] for row in rows], [row[2] for row in rows]


@quick
@given(samples())
def test_a_weighted_share_and_its_effective_size(sample: tuple[list[bool], list[float], list[str]]) -> None:
    hits, weights, strata = sample
    ours = share_of(np.array(hits), np.array(weights), strata)
    share, size = reference.stratified_share(hits, weights, strata)
    assert ours.items == len(hits)
    assert ours.share == pytest.approx(share, abs=1e-12)
    assert ours.effective == pytest.approx(size, rel=1e-6)


@quick
@given(samples())
def test_the_interval_of_a_share_is_wilsons_on_the_effective_size(
    sample: tuple[list[bool], list[float], list[str]],
) -> None:
    hits, weights, strata = sample
    ours = share_of(np.array(hits), np.array(weights), strata)
    share, effective = reference.stratified_share(hits, weights, strata)
    few = effective < 0.999 * len(hits) and effective * min(share, 1 - share) < FEW
    # half an item to either side
    low, high = (max(share - 0.5 / effective, 0), min(share + 0.5 / effective, 1)) if few else (share, share)
    assert (ours.low, ours.high) == pytest.approx(
        (reference.wilson(low, effective)[0], reference.wilson(high, effective)[1]), abs=1e-6
    )


def test_a_plain_sample_gets_the_plain_interval_of_wilson() -> None:
    for hits in (0, 1, 7, 199, 200):
        ours = share_of(np.arange(200) < hits, np.full(200, 12.5), ["all"] * 200)
        assert (ours.low, ours.high) == pytest.approx(reference.wilson(hits / 200, 200), abs=1e-9)


def test_a_stratum_with_a_single_item_is_no_reason_to_fail() -> None:
    hits, weights = np.array([True, False, True, True]), np.array([1.0, 1.0, 1.0, 5.0])
    ours = share_of(hits, weights, ["a", "a", "a", "rare"])
    assert ours.share == pytest.approx(7 / 8)
    assert 0 < ours.effective <= effective_size(weights) + 1e-9
    assert 0 <= ours.low < ours.share < ours.high <= 1


@pytest.mark.parametrize(("margin", "items"), [(0.02, 2401), (0.05, 385), (0.1, 97), (0.01, 9604)])
def test_items_for_a_margin_at_the_worst_share(margin: float, items: int) -> None:
    assert math.ceil(size_for_margin(margin)) == items
    # The smallest number whose interval around one half is as narrow as asked.
    half_width = [1.959963984540054 * math.sqrt(0.25 / n) for n in (items - 1, items)]
    assert half_width[1] <= margin < half_width[0]


# A against B


@pytest.mark.parametrize(("wins", "losses", "p"), SIGN_TEST)
def test_sign_test_as_published(wins: int, losses: int, p: float) -> None:
    assert sign_test(wins, losses) == pytest.approx(p, abs=1e-9)
    assert float(reference.sign_test(wins, losses)) == pytest.approx(p, abs=1e-9)


@quick
@given(st.integers(0, 400), st.integers(0, 400))
def test_sign_test_is_exact_and_takes_no_side(wins: int, losses: int) -> None:
    p = float(reference.sign_test(wins, losses))
    assert sign_test(wins, losses) == pytest.approx(p, rel=1e-9)
    assert sign_test(losses, wins) == sign_test(wins, losses) <= 1


def test_sign_test_without_a_preference() -> None:
    assert sign_test(0, 0) == 1.0
    assert sign_test(5, 5) == 1.0
    assert sign_test(1, 0) == 1.0


# The reference itself: what makes a caption good


@pytest.mark.parametrize(
    ("answers", "good"),
    [
        ([("relevant", "good")], True),
        ([("relevant", "good"), ("relevant", "poor")], False),  # half is not more than half
        ([("relevant", "good"), ("relevant", "good"), ("irrelevant", "poor")], True),
        ([("relevant", "good"), (None, "good"), ("relevant", None)], True),  # half an answer is none
        ([("relevant", None), (None, None)], None),
        ([], None),
    ],
)
def test_the_verdict_of_a_majority(answers: list[reference.Answer], good: bool | None) -> None:
    assert reference.verdict(answers, ("relevant", "good")) is good
