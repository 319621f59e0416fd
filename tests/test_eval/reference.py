"""The statistics of eval/, computed slowly in plain Python, with explicit pairs and exact fractions.

It was written from the literature, not from our code. Krippendorff's alpha: Krippendorff 2011, "Computing
Krippendorff's Alpha-Reliability". AC1 and AC2 with missing ratings: Gwet 2014, "Handbook of Inter-Rater
Reliability", 4th edition.
"""

import math
from collections.abc import Sequence
from fractions import Fraction

Table = Sequence[Sequence[float]]  # items; each the ratings it got, in any order, missing ones left out
# one rater's relevance and quality; None where missing or "cannot judge"
Answer = tuple[str | None, str | None]


def alpha(table: Table, metric: str) -> float | None:
    """Krippendorff's alpha; None if there is no pair of ratings, or if all ratings are the same.

    The only rating of an item has no pair, so it does not count.
    """
    items = [[Fraction(value) for value in item] for item in table if len(item) >= 2]
    pool = [value for item in items for value in item]

    def difference(a: Fraction, b: Fraction) -> Fraction:
        if a == b:
            return Fraction(0)
        if metric == "nominal":
            return Fraction(1)
        if metric == "interval":
            return (a - b) ** 2
        if metric == "ordinal":  # the ranks between the two, half of each end's ties
            between = sum(1 for value in pool if min(a, b) <= value <= max(a, b))
            return (between - Fraction(pool.count(a) + pool.count(b), 2)) ** 2
        raise ValueError(metric)

    table_of_differences = {(a, b): difference(a, b) for a in set(pool) for b in set(pool)}

    observed = Fraction(0)
    for item in items:
        for i, a in enumerate(item):
            for j, b in enumerate(item):
                if i != j:
                    observed += table_of_differences[a, b] / (len(item) - 1)
    expected = Fraction(0)
    for i, a in enumerate(pool):
        for j, b in enumerate(pool):
            if i != j:
                expected += table_of_differences[a, b]
    if expected == 0:
        return None
    n = len(pool)
    return float(1 - (observed / n) / (expected / (n * (n - 1))))


def ac(table: Table, categories: Sequence[float], quadratic: bool) -> float | None:
    """Gwet's AC1 (identity weights) or AC2 (quadratic weights); None if no item has two ratings.

    `categories` are all answers that could be chosen.
    """
    paired = [item for item in table if len(item) >= 2]
    if not paired:
        return None
    if len(categories) == 1:
        return 1.0

    def weight(a: float, b: float) -> Fraction:
        if not quadratic:
            return Fraction(a == b)
        return (
            1
            - (Fraction(a) - Fraction(b)) ** 2 / (Fraction(max(categories)) - Fraction(min(categories))) ** 2
        )

    agreement = Fraction(0)
    for item in paired:
        pairs = [weight(a, b) for i, a in enumerate(item) for j, b in enumerate(item) if i != j]
        agreement += Fraction(sum(pairs), len(pairs))
    agreement /= len(paired)

    rated = [item for item in table if item]
    shares = [
        sum((Fraction(list(item).count(k), len(item)) for item in rated), Fraction(0)) / len(rated)
        for k in categories
    ]
    total_weight = sum(weight(a, b) for a in categories for b in categories)
    q = len(categories)
    chance = Fraction(total_weight, q * (q - 1)) * sum(share * (1 - share) for share in shares)
    return float((agreement - chance) / (1 - chance))


def wilson(share: float, n: float) -> tuple[float, float]:
    """Wilson's 95% interval: all shares p that a z-test does not reject, given the observed share.

    These are the solutions for p of (share - p)^2 = z^2 p (1 - p) / n.
    """
    z = 1.959963984540054
    a, b, c = 1 + z * z / n, -(2 * share + z * z / n), share * share
    root = math.sqrt(max(0.0, b * b - 4 * a * c))
    return (-b - root) / (2 * a), (-b + root) / (2 * a)


def kish(weights: Sequence[float]) -> float:
    """Kish 1965, "Survey Sampling": how many items of equal weight would be as precise."""
    return sum(weights) ** 2 / sum(weight * weight for weight in weights)


def stratified_share(
    hits: Sequence[bool], weights: Sequence[float], strata: Sequence[str]
) -> tuple[float, float]:
    """A weighted share and its effective size: the smaller one of Kish's and of p(1-p)/V.

    V is the textbook variance of a stratified share (Cochran 1977, "Sampling Techniques", chapter 5), without
    the correction for finite strata and with n instead of n - 1, so that one stratum gives n itself.
    """
    total = sum(weights)
    share = sum(weight for hit, weight in zip(hits, weights, strict=True) if hit) / total
    variance = 0.0
    for stratum in set(strata):
        members = [i for i, label in enumerate(strata) if label == stratum]
        part = sum(weights[i] for i in members) / total
        p = sum(hits[i] for i in members) / len(members)
        variance += part * part * p * (1 - p) / len(members)
    size = kish(weights)
    return share, min(size, share * (1 - share) / variance) if variance > 0 else size


def sign_test(wins: int, losses: int) -> Fraction:
    """The exact two-sided p of the sign test.

    It is twice the probability that a fair coin falls on the rarer side so few times or fewer.
    """
    n = wins + losses
    tail = sum(Fraction(math.comb(n, x), 2**n) for x in range(min(wins, losses) + 1))
    return min(Fraction(1), 2 * tail)


def verdict(answers: Sequence[Answer], wanted: tuple[str, str]) -> bool | None:
    """Whether more than half of the raters who answered both questions gave the wanted pair of answers.

    None if nobody answered both.
    """
    valid = [answer for answer in answers if answer[0] is not None and answer[1] is not None]
    return 2 * sum(answer == wanted for answer in valid) > len(valid) if valid else None
