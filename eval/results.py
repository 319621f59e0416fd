"""The types of what `score` returns: the JSON of `captioner eval score`, key by key.

Shares lie between 0 and 1. A value that cannot be computed, because nobody has judged the items, is None.
"""

from __future__ import annotations

from typing import Literal, NotRequired, TypedDict

Interval = list[float]  # [low, high], 95%


class ShareResult(TypedDict):
    """A share, weighted to the store, with its 95% interval."""

    share: float | None
    low: float | None
    high: float | None
    items: int
    effective_items: float  # the size of a simple random sample that would be as precise


class StratumResult(TypedDict):
    """The share of captions in one stratum that are relevant and good."""

    stratum: str | None
    captions: int  # in the store
    items: int  # drawn
    judged: int
    share: float | None
    low: float | None
    high: float | None


class RaterMean(TypedDict):
    """How many answers a rater gave to a question, and their mean on its scale."""

    ratings: int
    mean: float | None


class Measures(TypedDict):
    """The measures of agreement, as `agreement` computes them."""

    alpha_nominal: float | None
    alpha_ordinal: float | None
    alpha_interval: float | None
    ac1: float | None
    ac2: float | None


class QuestionResult(Measures):
    """The answers to one question, and how far the raters agree."""

    items: int
    ratings: int
    mean: float | None
    intervals: dict[str, Interval | None]  # of the measures
    distribution: dict[str, float | None]  # weighted share of each answer, the best answer first
    answers: dict[str, int]
    cannot_judge: int
    by_rater: dict[str, RaterMean]


class RaterResult(TypedDict):
    """How one rater worked."""

    judged: int
    cannot_judge: int
    repeats: int
    repeats_same: int  # answered the same as the first time
    gold: int  # gold answers given
    gold_right: int
    seconds: float | None  # median for an item
    # by question: mean distance from the others' answers to the same items, in steps of the scale
    deviation: dict[str, float | None]


class ItemResult(TypedDict):
    """An item to look at, with what each rater answered: {"rater", question: answer, ..., ["comment"]}."""

    pin_id: str
    caption: str
    other_caption: NotRequired[str]
    stratum: str | None
    image: str | None
    image_sha256: str | None
    answers: list[dict[str, str]]


class FrameResult(TypedDict):
    """What the sample was drawn from, and what was excluded from it."""

    captions: int
    rejected: NotRequired[int]
    failed: NotRequired[int]
    stale: NotRequired[int]
    by_people: NotRequired[int]  # pins whose caption a person wrote; only if there are any
    equal: NotRequired[int]


class ReadResult(TypedDict):
    """How many rows of the sheets were new, changed or as before.

    `earlier` counts the answers that were left out because a later one is stored.
    """

    new: int
    changed: int
    unchanged: int
    earlier: int


class RecipeResult(TypedDict):
    """A recipe in a comparison; `name` is its model, and its id too if both have the same model."""

    recipe: str
    model: str
    name: str


class AnswersResult(TypedDict):
    """What was answered and by whom: the part that all results have."""

    ratings: int  # rows of sheets in which anything was answered, without repeats and gold
    judgements_per_item: float | None
    frame: FrameResult
    questions: dict[str, QuestionResult]
    by_rater: dict[str, RaterResult]
    models: dict[str, str]  # by recipe_id
    disputed: list[ItemResult]


class _AnyScore(AnswersResult):
    sample_id: str
    sentence: str  # the result for somebody who reads one sentence
    raters: int
    items: int
    judged: int
    read: ReadResult | None  # None: no sheets were read
    notes: list[str]  # sentences on the sheets that were read: what was left out, what may be doubtful


class CaptionScore(_AnyScore):
    """The result of a sample of captions."""

    kind: Literal["captions"]
    relevant_and_good: ShareResult
    irrelevant_and_poor: ShareResult
    strata: list[StratumResult]
    captions_covered: int  # captions of the store in strata of which anything was judged
    worst: list[ItemResult]


class ComparisonScore(_AnyScore):
    """The result of a comparison of two recipes, called "first" and "second"."""

    kind: Literal["comparison"]
    recipes: dict[str, RecipeResult]
    shares: dict[str, ShareResult]  # of "first", "no_difference" and "second"
    preference: ShareResult  # for the first, among the items that were decided
    decided: int
    wins: dict[str, int]
    sign_test: float  # two-sided p


Score = CaptionScore | ComparisonScore


class TableQuestion(Measures):
    """The answers to one question of a long table."""

    items: int
    ratings: int
    mean: float
    by_rater: dict[str, RaterMean]


class StratumDrawn(TypedDict):
    """How a stratum was sampled."""

    stratum: str | None
    captions: int
    items: int
    weight: float


class SampleResult(TypedDict):
    """What `sample` and `compare` return: the JSON of `captioner eval sample`."""

    sample_id: str
    kind: Literal["captions", "comparison"]
    items: int
    gold: int
    repeats: int  # for each rater
    raters: int
    hours: float  # for all raters together
    margin: float
    captions: int  # in the frame
    rejected: NotRequired[int]
    failed: NotRequired[int]
    stale: NotRequired[int]
    by_people: NotRequired[int]  # pins whose caption a person wrote; only if there are any
    equal: NotRequired[int]
    strata: list[StratumDrawn]
    without_picture: dict[str, int]  # items by reason
    folder: str
    files: list[str]
