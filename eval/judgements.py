"""The ratings that count in a result, by item, and the weighted shares that follow from them."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from .items import Item, Sample
from .questions import BETTER, QUALITY, QUESTIONS, RELEVANCE, Question
from .ratings import Rating
from .results import ShareResult
from .shares import Share, share_of

GOOD, BAD = ("relevant", "good"), ("not", "poor")  # answers to relevance and quality


@dataclass(frozen=True)
class Judgements:
    """The first answers of each rater to the drawn items: no repeats, no gold items."""

    sample: Sample
    items: list[Item]
    by_item: dict[int, list[Rating]]  # by `Item.item`; without the items that nobody rated

    @classmethod
    def of(cls, sample: Sample, ratings: Iterable[Rating]) -> Judgements:
        by_item: dict[int, list[Rating]] = {}
        for rating in ratings:
            if not rating.is_repeat and not rating.item.is_gold:
                by_item.setdefault(rating.item.item, []).append(rating)
        return cls(sample, [item for item in sample.items if not item.is_gold], by_item)

    @property
    def questions(self) -> tuple[Question, ...]:
        return QUESTIONS[self.sample.kind]

    def of_item(self, item: Item) -> list[Rating]:
        return self.by_item.get(item.item, [])

    def all(self) -> list[Rating]:
        """All ratings, in the order of the items."""
        return [rating for item in self.items for rating in self.of_item(item)]

    def majority_chose(self, item: Item, wanted: tuple[str, str]) -> bool | None:
        """Whether more than half of the raters chose these answers to relevance and quality.

        Only raters who judged both questions count; None if there is none.
        """
        valid = [
            rating
            for rating in self.of_item(item)
            if rating.value(RELEVANCE) is not None and rating.value(QUALITY) is not None
        ]
        chose = sum((rating.values["relevance"], rating.values["quality"]) == wanted for rating in valid)
        return 2 * chose > len(valid) if valid else None

    def preferred(self, item: Item) -> int | None:
        """1: more raters preferred the first caption; -1: the second; 0: as many; None: nobody judged it."""
        # answers are 2 for the first, 1 for no difference, 0 for the second
        sides = [value - 1 for rating in self.of_item(item) if (value := rating.value(BETTER)) is not None]
        return (sum(sides) > 0) - (sum(sides) < 0) if sides else None

    def share(self, verdict: Callable[[Item], bool | None]) -> Share:
        """The weighted share of the items for which `verdict` is True.

        Items for which it is None are left out.
        """
        verdicts = [(item, hit) for item in self.items if (hit := verdict(item)) is not None]
        judged = [item for item, _ in verdicts]
        return share_of([hit for _, hit in verdicts], self.weights(judged), [item.stratum for item in judged])

    def weights(self, judged: Sequence[Item]) -> list[float]:
        """How many captions each of these items stands for.

        That is the captions of its stratum, divided by the items of the stratum that were judged. So an item
        that nobody could judge does not reduce the weight of its stratum.
        """
        captions = {stratum.name: stratum.captions for stratum in self.sample.strata}
        items = Counter(item.stratum for item in judged)
        return [captions[item.stratum] / items[item.stratum] for item in judged]

    def counts(self, question: Question) -> np.ndarray:
        """How many raters gave each answer: [items, answers], the worst answer first."""
        counts = np.zeros((len(self.items), len(question.answers)))
        for row, item in enumerate(self.items):
            for rating in self.of_item(item):
                if (value := rating.value(question)) is not None:
                    counts[row, value] += 1
        return counts

    def mean(self, item: Item) -> float | None:
        """The mean of all answers to an item, from 0 (the worst) to 1; None without any."""
        values = [
            value / (len(question.answers) - 1)
            for rating in self.of_item(item)
            for question in self.questions
            if (value := rating.value(question)) is not None
        ]
        return statistics.fmean(values) if values else None


def share_result(share: Share) -> ShareResult:
    """A share as the result has it."""
    return {
        "share": share.share,
        "low": share.low,
        "high": share.high,
        "items": share.items,
        "effective_items": round(share.effective, 1),
    }
