"""How each rater worked: repeats, gold items, seconds, and distance from the answers of the others."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from .judgements import Judgements
from .questions import CANNOT_JUDGE, QUALITY, RELEVANCE, Question
from .ratings import Rating
from .results import RaterMean, RaterResult


def rater_result(rater: str, ratings: Sequence[Rating], judgements: Judgements) -> RaterResult:
    """The figures of one rater, out of all `ratings` of the sample."""
    questions = judgements.questions
    own = [rating for rating in ratings if rating.rater == rater]
    first = {rating.item.item: rating for rating in own if not rating.is_repeat}
    repeats = [(first[r.item.item], r) for r in own if r.is_repeat and r.item.item in first]
    answered_twice = [(a, b) for a, b in repeats if any(_both_answered(a, b, q) for q in questions)]
    gold = [is_right for rating in first.values() for is_right in _gold_answers(rating)]
    drawn = [rating for rating in first.values() if not rating.item.is_gold]
    seconds = [rating.seconds for rating in own if rating.seconds]
    return {
        "judged": sum(any(rating.value(q) is not None for q in questions) for rating in drawn),
        "cannot_judge": sum(CANNOT_JUDGE in rating.values.values() for rating in drawn),
        "repeats": len(answered_twice),
        "repeats_same": sum(all(_same(a, b, q) for q in questions) for a, b in answered_twice),
        "gold": len(gold),
        "gold_right": sum(gold),
        "seconds": statistics.median(seconds) if seconds else None,
        "deviation": {q.name: _deviation(drawn, q, judgements) for q in questions},
    }


def means_by_rater(ratings: Sequence[Rating], question: Question) -> dict[str, RaterMean]:
    """How many answers each rater gave to a question, and their mean."""
    values: dict[str, list[int]] = {}
    for rating in ratings:
        value = rating.value(question)
        values.setdefault(rating.rater, []).extend([] if value is None else [value])
    return {
        rater: {"ratings": len(own), "mean": statistics.fmean(own) if own else None}
        for rater, own in values.items()
    }


def _both_answered(a: Rating, b: Rating, question: Question) -> bool:
    return a.value(question) is not None and b.value(question) is not None


def _same(a: Rating, b: Rating, question: Question) -> bool:
    return not _both_answered(a, b, question) or a.value(question) == b.value(question)


def _gold_answers(rating: Rating) -> list[bool]:
    """For each question that the rater answered about a gold item: whether the answer is right."""
    item = rating.item
    right_answers = ((RELEVANCE, item.gold_relevance), (QUALITY, item.gold_quality)) if item.is_gold else ()
    return [
        rating.values[question.name] == right
        for question, right in right_answers
        if right and rating.values.get(question.name, CANNOT_JUDGE) != CANNOT_JUDGE
    ]


def _deviation(drawn: Sequence[Rating], question: Question, judgements: Judgements) -> float | None:
    """The mean distance from the mean answer of the other raters to the same item."""
    distances = []
    for rating in drawn:
        others = [
            value
            for other in judgements.of_item(rating.item)
            if other.rater != rating.rater and (value := other.value(question)) is not None
        ]
        own = rating.value(question)
        if others and own is not None:
            distances.append(own - statistics.fmean(others))
    return statistics.fmean(distances) if distances else None
