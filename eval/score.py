"""Scores a sample: how good the captions are, how far the raters agree, and which items are worth a look."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import cast

import numpy as np

from ..common.terminal import plural
from ..store import Connection
from . import stored
from .agreement import MEASURES, agreement, bootstrap
from .items import Item, SampleError
from .judgements import BAD, GOOD, Judgements, share_result
from .long_table import TableScore, describe, read_ratings
from .questions import CANNOT_JUDGE, Question
from .raters import means_by_rater, rater_result
from .ratings import Rating, ratings_of, read_answers
from .report import check_report, write_report, write_table_report
from .results import (
    AnswersResult,
    CaptionScore,
    ComparisonScore,
    FrameResult,
    ItemResult,
    QuestionResult,
    RecipeResult,
    Score,
    StratumResult,
)
from .sentence import sentence_of
from .shares import share_of, sign_test, wilson

SHOWN = 12  # at most so many disputed items, and so many of the worst


def score(
    conn: Connection,
    sheets: Sequence[str | Path] = (),
    *,
    rater: str | None = None,
    sample_id: str | None = None,
    report: str | Path | None = None,
) -> Score:
    """Reads filled sheets, or exports of Label Studio, into the store and says how good the captions are.

    `rater` says who filled them in, if that is not the one whom a sheet was written for. The result is that
    of the raters whose sheets are given. Without sheets it is the result of all answers
    that the store has for `sample_id`, or for the newest sample. `report` names an HTML file to write as
    well. Raises SheetError, SampleError or ReportError; OSError if the report cannot be written.
    """
    if report is not None:
        check_report(Path(report))
    if sheets:
        read = read_answers(conn, sheets, rater=rater)
        result = score_sample(conn, read.sample_id, read.raters)
        result["read"] = {
            "new": read.new,
            "changed": read.changed,
            "unchanged": read.unchanged,
            "earlier": read.earlier,
        }
        result["notes"] = read.notes
    else:
        result = score_sample(conn, sample_id or stored.newest_sample(conn))
    if report is not None:
        write_report(result, Path(report))
    return result


def score_table(path: str | Path, *, report: str | Path | None = None) -> TableScore:
    """The agreement of the raters in a long table item, rater, question, value, of whatever tool.

    `report` names an HTML file to write as well. Raises SourceError, with the line named, for a table that
    cannot be used; ReportError or OSError if the report cannot be written.
    """
    if report is not None:
        check_report(Path(report))
    answers = read_ratings(path)
    questions = {question: describe(own) for question, own in answers.items()}
    result = TableScore(Path(path).name, answers, questions)
    if report is not None:
        write_table_report(result, Path(report))
    return result


def score_sample(conn: Connection, sample_id: str, raters: Sequence[str] | None = None) -> Score:
    """What the ratings of a sample in the store say, those of some raters or of all.

    The same ratings give the same result. Raises SampleError.
    """
    sample = stored.load_sample(conn, sample_id)
    ratings = ratings_of(conn, sample, raters)
    judgements = Judgements.of(sample, ratings)
    if not any(rating.values for rating in judgements.all()):
        if comments := sum(bool(rating.comment) for rating in ratings):
            raise SampleError(
                f"no answers yet, only {plural(comments, 'comment')}, which the store keeps: answer the "
                "questions of some sheets, and give them"
            )
        raise SampleError("no answers yet: fill in some sheets, and give them")
    result = (
        _comparison(conn, judgements, ratings)
        if sample.kind == "comparison"
        else _captions(conn, judgements, ratings)
    )
    result["sentence"] = sentence_of(result)
    return result


def _captions(conn: Connection, judgements: Judgements, ratings: Sequence[Rating]) -> CaptionScore:
    good = judgements.share(lambda item: judgements.majority_chose(item, GOOD))
    bad = judgements.share(lambda item: judgements.majority_chose(item, BAD))
    strata = _strata(judgements)
    return {
        "sample_id": judgements.sample.sample_id,
        "kind": "captions",
        "sentence": "",
        "raters": _raters(judgements),
        "items": len(judgements.items),
        "judged": good.items,
        "relevant_and_good": share_result(good),
        "irrelevant_and_poor": share_result(bad),
        "strata": strata,
        "captions_covered": sum(stratum["captions"] for stratum in strata if stratum["judged"]),
        **_answers(conn, judgements, ratings, good.items),
        "worst": _worst(judgements),
        "read": None,
        "notes": [],
    }


def _comparison(conn: Connection, judgements: Judgements, ratings: Sequence[Rating]) -> ComparisonScore:
    verdicts = {item.item: judgements.preferred(item) for item in judgements.items}
    shares = {}
    for name, sign in (("first", 1), ("no_difference", 0), ("second", -1)):
        says_so = {item: None if v is None else v == sign for item, v in verdicts.items()}
        shares[name] = judgements.share(lambda item, says_so=says_so: says_so[item.item])  # type: ignore[misc]
    # The weights count all judged items: an item without a preference was judged, too.
    judged = [item for item in judgements.items if verdicts[item.item] is not None]
    weighted = zip(judged, judgements.weights(judged), strict=True)
    decided = [(item, weight) for item, weight in weighted if verdicts[item.item]]
    preference = share_of(
        [verdicts[item.item] == 1 for item, _ in decided],
        [weight for _, weight in decided],
        [item.stratum for item, _ in decided],
    )
    first, ties, second = (sum(v == sign for v in verdicts.values()) for sign in (1, 0, -1))
    return {
        "sample_id": judgements.sample.sample_id,
        "kind": "comparison",
        "sentence": "",
        "raters": _raters(judgements),
        "items": len(judgements.items),
        "judged": shares["first"].items,
        "recipes": _recipes(conn, judgements),
        "shares": {name: share_result(share) for name, share in shares.items()},
        "preference": share_result(preference),
        "decided": preference.items,
        "wins": {"first": first, "no_difference": ties, "second": second},
        "sign_test": sign_test(first, second),
        **_answers(conn, judgements, ratings, shares["first"].items),
        "read": None,
        "notes": [],
    }


def _recipes(conn: Connection, judgements: Judgements) -> dict[str, RecipeResult]:
    recipes = {"first": judgements.sample.options["a"], "second": judgements.sample.options["b"]}
    models = stored.models_of(conn, set(recipes.values()))
    same_model = len(set(models.values())) < 2
    return {
        name: {
            "recipe": recipe,
            "model": models[recipe],
            "name": f"{models[recipe]} ({recipe})" if same_model else models[recipe],
        }
        for name, recipe in recipes.items()
    }


def _raters(judgements: Judgements) -> int:
    """How many raters judged anything."""
    questions = judgements.questions
    return len({r.rater for r in judgements.all() if any(r.value(q) is not None for q in questions)})


def _answers(
    conn: Connection, judgements: Judgements, ratings: Sequence[Rating], judged: int
) -> AnswersResult:
    sample, questions, counted = judgements.sample, judgements.questions, judgements.all()
    complete = sum(all(rating.value(q) is not None for q in questions) for rating in counted)
    raters = list(dict.fromkeys(rating.rater for rating in ratings))
    recipes = {r for item in judgements.items for r in (item.recipe_id, item.other_recipe_id) if r}
    frame = {"captions": sum(stratum.captions for stratum in sample.strata), **sample.excluded}
    return {
        "ratings": sum(bool(rating.values) for rating in counted),
        "judgements_per_item": complete / judged if judged else None,
        "frame": cast(FrameResult, frame),
        "questions": {question.name: _question(question, judgements) for question in questions},
        "by_rater": {rater: rater_result(rater, ratings, judgements) for rater in raters},
        "models": stored.models_of(conn, recipes),
        "disputed": _disputed(judgements),
    }


def _strata(judgements: Judgements) -> list[StratumResult]:
    """The share of each stratum. Within a stratum all items weigh the same."""
    results: list[StratumResult] = []
    for stratum in judgements.sample.strata:
        items = [item for item in judgements.items if item.stratum == stratum.name]
        verdicts = [hit for item in items if (hit := judgements.majority_chose(item, GOOD)) is not None]
        share = sum(verdicts) / len(verdicts) if verdicts else None
        low, high = wilson(share, len(verdicts)) if share is not None else (None, None)
        results.append(
            {
                "stratum": stratum.name,
                "captions": stratum.captions,
                "items": stratum.items,
                "judged": len(verdicts),
                "share": share,
                "low": low,
                "high": high,
            }
        )
    return results


def _question(question: Question, judgements: Judgements) -> QuestionResult:
    """The distribution, mean and agreement of one question.

    In the distribution each item has its weight, however many raters judged it.
    """
    counts = judgements.counts(question)
    values = sorted(question.values.values())
    judged = counts.sum(axis=1)
    items = [item for item, n in zip(judgements.items, judged, strict=True) if n]
    weights = np.array(judgements.weights(items))
    shares = counts[judged > 0] / judged[judged > 0, None]
    distribution = (weights @ shares / weights.sum()).tolist() if items else [None] * len(values)
    ratings = judgements.all()
    best_first = [(answer, value) for answer, value in question.values.items()]
    intervals = bootstrap(counts, values, seed=abs(judgements.sample.options["seed"]))
    return {
        "items": len(items),
        "ratings": int(judged.sum()),
        "mean": float((counts @ values).sum() / judged.sum()) if judged.sum() else None,
        **agreement(counts, values),
        "intervals": {name: list(interval) if (interval := intervals[name]) else None for name in MEASURES},
        "distribution": {answer: distribution[value] for answer, value in best_first},
        "answers": {answer: int(counts[:, value].sum()) for answer, value in best_first},
        "cannot_judge": sum(rating.values.get(question.name) == CANNOT_JUDGE for rating in ratings),
        "by_rater": means_by_rater(ratings, question),
    }


def _disputed(judgements: Judgements) -> list[ItemResult]:
    """The items on which the raters differ most, the most disputed first."""
    disputes = [(_dispute(judgements, item), item) for item in judgements.items]
    disputes.sort(key=lambda disputed: (-disputed[0], disputed[1].item))
    return [_item_result(judgements, item) for dispute, item in disputes[:SHOWN] if dispute > 0]


def _dispute(judgements: Judgements, item: Item) -> float:
    """The squared distance between two raters, a mean over pairs of raters and over questions."""
    total = 0.0
    for question in judgements.questions:
        values = [v for r in judgements.of_item(item) if (v := r.value(question)) is not None]
        distances = [(a - b) ** 2 for a, b in itertools.combinations(values, 2)]
        total += statistics.fmean(distances) / len(judgements.questions) if distances else 0
    return total


def _worst(judgements: Judgements) -> list[ItemResult]:
    """The items with the lowest answers, the worst first; none whose answers are all the best ones."""
    means = [(mean, item) for item in judgements.items if (mean := judgements.mean(item)) is not None]
    means.sort(key=lambda judged: (judged[0], judged[1].item))
    return [_item_result(judgements, item) for mean, item in means[:SHOWN] if mean < 1]


def _item_result(judgements: Judgements, item: Item) -> ItemResult:
    answers = [
        {"rater": rating.rater, **rating.values} | ({"comment": rating.comment} if rating.comment else {})
        for rating in judgements.of_item(item)
        if rating.values
    ]
    result: ItemResult = {"pin_id": item.pin_id, "caption": item.caption}  # type: ignore[typeddict-item]
    if item.other_caption is not None:
        result["other_caption"] = item.other_caption
    result["stratum"] = item.stratum
    result["image"], result["image_sha256"] = item.image, item.image_sha256
    result["answers"] = answers
    return result
