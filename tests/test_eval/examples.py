"""Published worked examples of agreement, intervals and the sign test, with their sources.

A comment at each example says how its figures were checked. "Computed twice" means: by `reference.py`, and
once by hand with another package (krippendorff 0.9, irrCAC 0.4.4, statsmodels 0.15), which gave the published
figure.
"""

from typing import NamedTuple

# one list per observer, one place per unit; None where the observer did not rate it
Ratings = list[list[float | None]]


class Agreement(NamedTuple):
    source: str
    ratings: Ratings
    categories: list[float]
    published: dict[str, float]
    decimals: int


def by_table(table: list[list[int]]) -> Ratings:
    """The ratings of two observers, from their contingency table.

    Rows are what the first observer chose, columns what the second chose, counted from 1.
    """
    pairs = [
        (row + 1, column + 1)
        for row, line in enumerate(table)
        for column, count in enumerate(line)
        for _ in range(count)
    ]
    return [[float(a) for a, _ in pairs], [float(b) for _, b in pairs]]


def by_counts(counts: list[list[int]]) -> Ratings:
    """The ratings of unnamed observers, from how many of them chose each category, counted from 1."""
    units = [[float(k + 1) for k, count in enumerate(unit) for _ in range(count)] for unit in counts]
    return [list(observer) for observer in zip(*units, strict=True)]


def letters(text: str) -> list[float | None]:
    return [float("abcde".index(letter) + 1) for letter in text]


_ = None
FOUR_OBSERVERS: Ratings = [
    [1, 2, 3, 3, 2, 1, 4, 1, 2, _, _, _],
    [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, _, 3],
    [_, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, _],
    [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, _],
]
THREE_OBSERVERS: Ratings = [
    [_, _, _, _, _, 3, 4, 1, 2, 1, 1, 3, 3, _, 3],
    [1, _, 2, 1, 3, 3, 4, 3, _, _, _, _, _, _, _],
    [_, _, 2, 1, 3, 4, 4, _, 2, 1, 1, 3, 3, _, 4],
]

AGREEMENT = {
    # Figures: krippendorff's documentation (which cites p. 8) and three public test suites that cite the
    # paper; computed twice.
    "krippendorff-2011-four-observers": Agreement(
        "Krippendorff 2011, Computing Krippendorff's Alpha-Reliability, example C, pp. 4-8, "
        "https://repository.upenn.edu/asc_papers/43",
        FOUR_OBSERVERS,
        [1, 2, 3, 4, 5],
        {"alpha_nominal": 0.743, "alpha_ordinal": 0.815, "alpha_interval": 0.849},
        3,
    ),
    # Figure: a public test suite that cites the page; computed twice. Of two categories all three metrics
    # make the same.
    "krippendorff-2011-meg-and-owen": Agreement(
        "Krippendorff 2011, as above, example A (two observers, binary), pp. 2-3",
        [[0, 1, 0, 0, 0, 0, 0, 0, 1, 0], [1, 1, 1, 0, 0, 1, 0, 0, 0, 0]],
        [0, 1],
        {"alpha_nominal": 0.095, "alpha_ordinal": 0.095, "alpha_interval": 0.095},
        3,
    ),
    # Figure: a public test suite that cites the page; computed twice.
    "krippendorff-2011-ben-and-gerry": Agreement(
        "Krippendorff 2011, as above, example B (two observers, five letters), pp. 3-4",
        [letters("aabbdcccedda"), letters("babbbccceddd")],
        [1, 2, 3, 4, 5],
        {"alpha_nominal": 0.692},
        3,
    ),
    # Figures: krippendorff's documentation prints both to six places. One unit has no rating and one has a
    # single rating.
    "wikipedia-three-observers": Agreement(
        "Wikipedia, Krippendorff's alpha, A computational example, "
        "https://en.wikipedia.org/wiki/Krippendorff%27s_alpha",
        THREE_OBSERVERS,
        [1, 2, 3, 4],
        {"alpha_nominal": 0.691358, "alpha_interval": 0.810845},
        6,
    ),
    # Figures: the vignette prints AC1 0.77544 and alpha 0.74342. One unit has a single rating: it counts for
    # chance, not for agreement.
    "irrcac-raw4raters": Agreement(
        "Gwet 2019, irrCAC vignette Calculating Chance-corrected Agreement Coefficients, cac.raw4raters, "
        "https://cran.r-project.org/package=irrCAC",
        FOUR_OBSERVERS,
        [1, 2, 3, 4, 5],
        {"ac1": 0.77544, "alpha_nominal": 0.74342},
        5,
    ),
    # Figures: the vignette prints all four to seven places; its interval alpha is "Krippendorff's alpha"
    # under quadratic weights.
    "simplyagree-raw4raters": Agreement(
        "Caldwell, SimplyAgree, vignette on reliability, agree_coef on the same ratings with quadratic "
        "weights, https://aaroncaldwell.us/SimplyAgree/",
        FOUR_OBSERVERS,
        [1, 2, 3, 4, 5],
        {"ac1": 0.7754441, "ac2": 0.9140007, "alpha_nominal": 0.7434211, "alpha_interval": 0.8491071},
        7,
    ),
    # Figures: the vignette prints both. Six psychiatrists, 15 patients.
    "irrcac-distrib6raters": Agreement(
        "Gwet 2019, irrCAC vignette as above, distrib.6raters",
        by_counts(
            [
                [0, 0, 0, 6, 0],
                [0, 3, 0, 0, 3],
                [0, 1, 4, 0, 1],
                [0, 0, 0, 0, 6],
                [0, 3, 0, 3, 0],
                [2, 0, 4, 0, 0],
                [0, 0, 4, 0, 2],
                [2, 0, 3, 1, 0],
                [2, 0, 0, 4, 0],
                [0, 0, 0, 0, 6],
                [1, 0, 0, 5, 0],
                [1, 1, 0, 4, 0],
                [0, 3, 3, 0, 0],
                [1, 0, 0, 5, 0],
                [0, 2, 0, 3, 1],
            ]
        ),
        [1, 2, 3, 4, 5],
        {"ac1": 0.4448007, "alpha_nominal": 0.4204384},
        7,
    ),
    # Figures: the vignette prints both (Cohen's kappa there: 0.7964094).
    "irrcac-abstractors": Agreement(
        "Gwet 2019, irrCAC vignette as above, cont3x3abstractors",
        by_table([[13, 0, 0], [0, 20, 7], [0, 4, 56]]),
        [1, 2, 3],
        {"ac1": 0.8493305, "alpha_nominal": 0.7972585},
        7,
    ),
    # The paradox that AC1 is for: 67.5% agree, Cohen's kappa is 0.022 (printed in the paper). AC1 and alpha:
    # computed twice, not read in the paper.
    "kappa-paradox-spine-surgeons": Agreement(
        "Table 1 of https://pmc.ncbi.nlm.nih.gov/articles/PMC7222679 (kappa and its limitation, AC1), "
        "hypothetical: 200 MRIs, two surgeons",
        by_table([[130, 56], [9, 5]]),
        [1, 2],
        {"ac1": 0.53258, "alpha_nominal": -0.064},
        5,
    ),
    # Nearly all captions good looks like this: 94.4% agree, kappa is below zero. Computed twice: no
    # publication of AC1 for it was found.
    "nearly-all-of-one-kind": Agreement(
        "two raters, 125 items, 118 and 0 on the diagonal",
        by_table([[118, 5], [2, 0]]),
        [1, 2],
        {"ac1": 0.94078, "alpha_nominal": -0.02469},
        5,
    ),
}

# Newcombe 1998, Two-sided confidence intervals for the single proportion, Statistics in Medicine 17:857-872,
# Table I, method 3: hits, items, low, high. Figures: six public test suites that cite the table; computed
# twice.
WILSON = [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)]

# wins, losses, two-sided p.
SIGN_TEST = [
    # Zar 1999, Biostatistical Analysis (deer: hind leg longer than foreleg in 8 of 10), as told in Wikipedia,
    # Sign test; 2 * 56 / 1024.
    (8, 2, 0.109375),
    # Lane, HyperStat, https://davidmlane.com/hyperstat/B168076.html: 7 of 8, one-tailed 0.03516. Its doubled
    # figure there, 0.0732, is a slip for 0.0703.
    (7, 1, 2 * 0.03515625),
]
