"""What the ratings of a sample say: shares weighted to the store, agreement, raters, strata, and the items
worth a look.
"""

from __future__ import annotations

import itertools
import sqlite3
import statistics
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..common.terminal import plural
from .agreement import MEASURES, agreement, bootstrap
from .questions import BETTER, CANNOT_JUDGE, QUALITY, QUESTIONS, RELEVANCE, Question
from .sample import Item, Sample, SampleError, stored
from .shares import Share, share_of, sign_test, wilson

SHOWN = 12  # most disputed and worst items
GOOD, BAD = ("relevant", "good"), ("not", "poor")


@dataclass(frozen=True)
class Rating:
    """What one rater said of one item, the first time or in a repeat."""

    rater: str
    item: Item
    is_repeat: bool
    values: dict[str, str]  # by question; "cannot judge" as such, what was left out is not in it
    comment: str | None
    seconds: float | None

    def value(self, question: Question) -> int | None:
        """The answer as a number of the question's scale; None: missing, or cannot judge."""
        return question.values.get(self.values.get(question.name, ""))


def newest_sample(conn: sqlite3.Connection) -> str:
    """The sample that was drawn last. Raises SampleError where there is none."""
    row = conn.execute(
        "SELECT sample_id FROM samples ORDER BY created_at DESC, run_id DESC LIMIT 1"
    ).fetchone()
    if row is None:
        raise SampleError("no sample was drawn from this store: `captioner eval sample` draws one")
    return str(row[0])


def score(conn: sqlite3.Connection, sample_id: str, raters: Sequence[str] | None = None) -> dict[str, Any]:
    """Everything that the ratings of a sample say, of some raters or of all, as plain values; the same
    ratings give the same.

    Of captions: {"sample_id", "kind", "sentence", "raters", "items", "judged", "ratings",
    "relevant_and_good", "irrelevant_and_poor", "frame", "questions", "by_rater", "strata", "disputed",
    "worst"}; of a comparison "first", "second", "preference", "wins" and "sign_test" in place of the two
    shares. Shares are {"share", "low", "high", "items", "effective_items"}. Raises SampleError.
    """
    sample = stored(conn, sample_id)
    ratings = _ratings(conn, sample, raters)
    first = [rating for rating in ratings if not rating.is_repeat and rating.item.weight is not None]
    if not any(rating.values for rating in first):
        raise SampleError("no answers yet: fill in some sheets, and give them")
    questions = QUESTIONS[sample.kind]
    of_item: dict[int, list[Rating]] = defaultdict(list)
    for rating in first:
        of_item[rating.item.item].append(rating)
    drawn = [item for item in sample.items if item.weight is not None]
    names = list(dict.fromkeys(rating.rater for rating in ratings))
    found: dict[str, Any] = {
        "sample_id": sample_id,
        "kind": sample.kind,
        "sentence": "",
        "raters": len(
            {rating.rater for rating in first if any(rating.value(q) is not None for q in questions)}
        ),
        "items": len(drawn),
    }
    if sample.kind == "captions":
        good = _share(sample, drawn, lambda item: _majority(of_item[item.item], GOOD))
        bad = _share(sample, drawn, lambda item: _majority(of_item[item.item], BAD))
        found |= {
            "judged": good.items,
            "relevant_and_good": _as_dict(good),
            "irrelevant_and_poor": _as_dict(bad),
        }
        found["strata"] = _strata(sample, drawn, of_item)
        found["captions_covered"] = sum(
            stratum["captions"] for stratum in found["strata"] if stratum["judged"]
        )
    else:
        found |= _comparison(conn, sample, drawn, of_item)
    found["ratings"] = sum(bool(rating.values) for rating in first)
    valid = sum(all(rating.value(q) is not None for q in questions) for rating in first)
    found["judgements_per_item"] = valid / found["judged"] if found["judged"] else None
    found["frame"] = {"captions": sum(stratum.captions for stratum in sample.strata), **sample.beside}
    found["questions"] = {
        question.name: _question(question, sample, drawn, of_item) for question in questions
    }
    found["by_rater"] = {name: _rater(name, ratings, questions, of_item) for name in names}
    found["models"] = _models(
        conn, {recipe for item in drawn for recipe in (item.recipe_id, item.other_recipe_id) if recipe}
    )
    ranked = [(item, [rating for rating in of_item[item.item] if rating.values]) for item in drawn]
    disputed = sorted(
        ((_dispute(some, questions), item, some) for item, some in ranked),
        key=lambda found: (-found[0], found[1].item),
    )
    found["disputed"] = [_shown(item, some) for dispute, item, some in disputed[:SHOWN] if dispute > 0]
    if sample.kind == "captions":
        worst = sorted(
            ((mean, item, some) for item, some in ranked if (mean := _mean(some, questions)) is not None),
            key=lambda found: (found[0], found[1].item),
        )
        found["worst"] = [_shown(item, some) for mean, item, some in worst[:SHOWN] if mean < 1]
    found["sentence"] = _sentence(found)
    return found


def _ratings(conn: sqlite3.Connection, sample: Sample, raters: Sequence[str] | None) -> list[Rating]:
    rows = conn.execute(
        "SELECT r.*, s.item, s.is_repeat, s.swapped FROM ratings r JOIN sheet_rows s USING (item_id) WHERE r.sample_id = ? ORDER BY s.rowid",
        [sample.sample_id],
    )
    names = [question.name for question in QUESTIONS[sample.kind]]
    found = []
    for row in rows:
        if raters is None or row["rater"] in raters:
            values = {name: row[name] for name in names if row[name] is not None}
            if row["swapped"] and "better" in values:  # from the side on which it stood to the caption
                values["better"] = {"first": "second", "second": "first"}.get(
                    values["better"], values["better"]
                )
            found.append(
                Rating(
                    row["rater"],
                    sample.items[row["item"] - 1],
                    bool(row["is_repeat"]),
                    values,
                    row["comment"],
                    row["seconds"],
                )
            )
    return found


def _majority(ratings: Iterable[Rating], wanted: tuple[str, str]) -> bool | None:
    """Whether more than half of the valid raters chose both answers; None without any rater who judged both
    questions.
    """
    valid = [
        rating
        for rating in ratings
        if rating.value(RELEVANCE) is not None and rating.value(QUALITY) is not None
    ]
    chose = sum((rating.values["relevance"], rating.values["quality"]) == wanted for rating in valid)
    return 2 * chose > len(valid) if valid else None


def _share(sample: Sample, drawn: Sequence[Item], verdict: Callable[[Item], bool | None]) -> Share:
    """The share of the items that are so, weighted to the store."""
    judged = [(hit, item) for item in drawn if (hit := verdict(item)) is not None]
    return share_of(
        [hit for hit, _ in judged],
        _weights(sample, [item for _, item in judged]),
        [item.stratum for _, item in judged],
    )


def _weights(sample: Sample, judged: Sequence[Item]) -> list[float]:
    """How many captions each item stands for: those of its stratum by the items judged of it.

    What nobody could judge takes no stratum's weight away.
    """
    captions = {stratum.name: stratum.captions for stratum in sample.strata}
    items = Counter(item.stratum for item in judged)
    return [captions[item.stratum] / items[item.stratum] for item in judged]


def _as_dict(share: Share) -> dict[str, Any]:
    return {
        "share": share.share,
        "low": share.low,
        "high": share.high,
        "items": share.items,
        "effective_items": round(share.effective, 1),
    }


def _strata(
    sample: Sample, drawn: Sequence[Item], of_item: Mapping[int, list[Rating]]
) -> list[dict[str, Any]]:
    """{"stratum", "captions", "items", "judged", "share", "low", "high"} of each: within one all weigh the
    same.
    """
    found = []
    for stratum in sample.strata:
        verdicts = [_majority(of_item[item.item], GOOD) for item in drawn if item.stratum == stratum.name]
        judged = [verdict for verdict in verdicts if verdict is not None]
        share = sum(judged) / len(judged) if judged else None
        low, high = wilson(share, len(judged)) if share is not None else (None, None)
        found.append(
            {
                "stratum": stratum.name,
                "captions": stratum.captions,
                "items": stratum.items,
                "judged": len(judged),
                "share": share,
                "low": low,
                "high": high,
            }
        )
    return found


def _counts(question: Question, ratings: Iterable[Iterable[Rating]]) -> np.ndarray:
    """[items, answers], the worst answer first: how many raters gave it."""
    counts: list[list[int]] = []
    for some in ratings:
        counts.append([0] * len(question.answers))
        for rating in some:
            if (value := rating.value(question)) is not None:
                counts[-1][value] += 1
    return np.array(counts, dtype=float).reshape(-1, len(question.answers))


def _question(
    question: Question, sample: Sample, drawn: Sequence[Item], of_item: Mapping[int, list[Rating]]
) -> dict[str, Any]:
    """Distribution, mean and agreement of one question.

    In the distribution an item counts the same, however many raters judged it, times the captions that it
    stands for.
    """
    counts = _counts(question, (of_item[item.item] for item in drawn))
    values = sorted(question.values.values())
    judged = counts.sum(axis=1)
    weights = np.array(_weights(sample, [item for item, n in zip(drawn, judged, strict=True) if n]))
    shares = counts[judged > 0] / judged[judged > 0, None]
    distribution = (weights @ shares / weights.sum()).tolist() if len(weights) else [None] * len(values)
    all_of = [rating for item in drawn for rating in of_item[item.item]]
    by_value = {value: answer for answer, value in question.values.items()}
    intervals = bootstrap(counts, values, seed=abs(sample.options["seed"]))
    return {
        "items": int((judged > 0).sum()), "ratings": int(judged.sum()),
        "mean": float((counts @ values).sum() / judged.sum()) if judged.sum() else None,
        **agreement(counts, values),
        "intervals": {name: list(interval) if (interval := intervals[name]) else None for name in MEASURES},
        "distribution": {by_value[value]: distribution[value] for value in reversed(values)},
        "answers": {by_value[value]: int(counts[:, value].sum()) for value in reversed(values)},
        "cannot_judge": sum(rating.values.get(question.name) == CANNOT_JUDGE for rating in all_of),
        "by_rater": {
            name: {"ratings": len(some), "mean": statistics.fmean(some) if some else None}
            for name, some in _by_rater(all_of, lambda rating: rating.value(question)).items()
        },
    }  # fmt: skip


def _by_rater(ratings: Iterable[Rating], value: Callable[[Rating], int | None]) -> dict[str, list[int]]:
    found: dict[str, list[int]] = {}
    for rating in ratings:
        said = value(rating)
        found.setdefault(rating.rater, []).extend([] if said is None else [said])
    return found


def _rater(
    name: str, ratings: Sequence[Rating], questions: Sequence[Question], of_item: Mapping[int, list[Rating]]
) -> dict[str, Any]:
    """How one rater worked: repeats answered alike, gold answered right, seconds, and how far the answers lie
    from those of the others.
    """
    own = [rating for rating in ratings if rating.rater == name]
    first = {rating.item.item: rating for rating in own if not rating.is_repeat}
    pairs = [(first[again.item.item], again) for again in own if again.is_repeat and again.item.item in first]
    both = [
        (a, b) for a, b in pairs if any(a.value(q) is not None and b.value(q) is not None for q in questions)
    ]
    same = sum(
        all(a.value(q) == b.value(q) for q in questions if a.value(q) is not None and b.value(q) is not None)
        for a, b in both
    )
    right = [
        rating.values[q.name] == wanted
        for rating in first.values()
        for q, wanted in ((RELEVANCE, rating.item.gold_relevance), (QUALITY, rating.item.gold_quality))
        if rating.item.weight is None and wanted and rating.values.get(q.name, CANNOT_JUDGE) != CANNOT_JUDGE
    ]
    drawn = [rating for rating in first.values() if rating.item.weight is not None]
    seconds = [rating.seconds for rating in own if rating.seconds]
    deviation = {}
    for q in questions:
        apart = []
        for rating in drawn:
            others = [
                value
                for other in of_item[rating.item.item]
                if other.rater != name and (value := other.value(q)) is not None
            ]
            if others and (mine := rating.value(q)) is not None:
                apart.append(mine - statistics.fmean(others))
        deviation[q.name] = statistics.fmean(apart) if apart else None
    return {
        "judged": sum(any(rating.value(q) is not None for q in questions) for rating in drawn),
        "cannot_judge": sum(CANNOT_JUDGE in rating.values.values() for rating in drawn),
        "repeats": len(both), "repeats_same": same,
        "gold": len(right), "gold_right": sum(right),
        "seconds": statistics.median(seconds) if seconds else None,
        "deviation": deviation,
    }  # fmt: skip


def _dispute(ratings: Sequence[Rating], questions: Sequence[Question]) -> float:
    """How far apart the raters of an item are: the mean over questions of the squared distance of two raters."""
    found = 0.0
    for q in questions:
        values = [value for rating in ratings if (value := rating.value(q)) is not None]
        distances = [(a - b) ** 2 for a, b in itertools.combinations(values, 2)]
        found += statistics.fmean(distances) / len(questions) if distances else 0
    return found


def _mean(ratings: Sequence[Rating], questions: Sequence[Question]) -> float | None:
    """The mean of all answers to an item, from 0 (the worst) to 1; None without any."""
    values = [
        value / (len(q.answers) - 1)
        for rating in ratings
        for q in questions
        if (value := rating.value(q)) is not None
    ]
    return statistics.fmean(values) if values else None


def _shown(item: Item, ratings: Sequence[Rating]) -> dict[str, Any]:
    answers = [
        {"rater": rating.rater, **rating.values} | ({"comment": rating.comment} if rating.comment else {})
        for rating in ratings
    ]
    other = {"other_caption": item.other_caption} if item.other_caption is not None else {}
    return {
        "pin_id": item.pin_id,
        "caption": item.caption,
        **other,
        "stratum": item.stratum,
        "image": item.image,
        "image_sha256": item.image_sha256,
        "answers": answers,
    }


def _comparison(
    conn: sqlite3.Connection, sample: Sample, drawn: Sequence[Item], of_item: Mapping[int, list[Rating]]
) -> dict[str, Any]:
    """An item prefers the caption that more of its raters chose; "no difference" counts for neither."""
    verdicts: dict[int, int | None] = {}
    for item in drawn:
        # 1 first, 0 no difference, -1 second
        values = [value - 1 for rating in of_item[item.item] if (value := rating.value(BETTER)) is not None]
        verdicts[item.item] = (sum(values) > 0) - (sum(values) < 0) if values else None
    shares = {}
    for name, sign in (("first", 1), ("no_difference", 0), ("second", -1)):

        def says_so(item: Item, sign: int = sign) -> bool | None:
            verdict = verdicts[item.item]
            return None if verdict is None else verdict == sign

        shares[name] = _share(sample, drawn, says_so)
    judged = [item for item in drawn if verdicts[item.item] is not None]
    weighed = [
        (verdicts[item.item] == 1, weight, item.stratum)
        for item, weight in zip(judged, _weights(sample, judged), strict=True)
        if verdicts[item.item] != 0
    ]
    preference = share_of(
        [hit for hit, _, _ in weighed],
        [weight for _, weight, _ in weighed],
        [stratum for _, _, stratum in weighed],
    )  # what is no difference is judged all the same
    wins = [sum(v == sign for v in verdicts.values()) for sign in (1, 0, -1)]
    recipes = {name: sample.options[key] for name, key in (("first", "a"), ("second", "b"))}
    models = _models(conn, set(recipes.values()))
    same = len(set(models.values())) < 2
    return {
        "judged": shares["first"].items,
        "recipes": {name: {"recipe": recipe, "model": models[recipe], "name": f"{models[recipe]} ({recipe})" if same else models[recipe]} for name, recipe in recipes.items()},
        "shares": {name: _as_dict(share) for name, share in shares.items()}, "preference": _as_dict(preference), "decided": preference.items,
        "wins": {"first": wins[0], "no_difference": wins[1], "second": wins[2]}, "sign_test": sign_test(wins[0], wins[2]),
    }  # fmt: skip


def _models(conn: sqlite3.Connection, recipes: set[str]) -> dict[str, str]:
    return {
        recipe: row[0]
        for recipe in sorted(recipes)
        if (row := conn.execute("SELECT model FROM recipes WHERE recipe_id = ?", [recipe]).fetchone())
    }


def _sentence(found: Mapping[str, Any]) -> str:
    """The result for somebody who reads one sentence."""
    return _of_comparison(found) if found["kind"] == "comparison" else _of_captions(found)


def _of_captions(found: Mapping[str, Any]) -> str:
    good, bad, captions, covered = (
        found["relevant_and_good"],
        found["irrelevant_and_poor"],
        found["frame"]["captions"],
        found["captions_covered"],
    )
    if good["share"] is None:
        return f"None of the {found['items']:,} captions was judged on both questions yet, so there is no share to state."
    those = (
        f"Of the {captions:,} captions in this store"
        if covered == captions
        else f"Of {covered:,} captions (the other {captions - covered:,} are in strata that nobody has judged)"
    )
    return (
        f"{those} about {percent(good['share'])} are both relevant and well written (95% interval {percent(good['low'])} to {percent(good['high'])}),"
        f" and {percent(bad['share'])} are irrelevant and poor ({percent(bad['low'])} to {percent(bad['high'])}); {_judged(found, 'of them')}."
    )


def _judged(found: Mapping[str, Any], what: str) -> str:
    each = found["judgements_per_item"]
    people = f"{found['raters']} {'person' if found['raters'] == 1 else 'people'}"
    if each > found["raters"] - 0.05:
        return f"{people} judged {found['judged']:,} {what}"
    return f"{found['judged']:,} {what} were judged, by {each:.1f} of {people} on average"


def _of_comparison(found: Mapping[str, Any]) -> str:
    """A preference is stated where both the interval and the sign test, which knows no weights, leave no
    doubt.
    """
    wins, preference, p = found["wins"], found["preference"], found["sign_test"]
    first, second = found["recipes"]["first"]["name"], found["recipes"]["second"]["name"]
    if not found["judged"]:
        return "No pair of captions was judged yet, so there is no preference to state."
    people = _judged(found, "pictures")
    if not found["decided"]:
        return f"{people} and saw no difference between {first} and {second}."
    ahead = preference["share"] >= 0.5
    better, worse = (first, second) if ahead else (second, first)
    share, low, high = (
        [preference[name] for name in ("share", "low", "high")]
        if ahead
        else [1 - preference[name] for name in ("share", "high", "low")]
    )
    clear = low > 0.5 and p < 0.05 and (wins["first"] > wins["second"]) == ahead
    verdict = (
        f"the captions of {better} are preferred to those of {worse}"
        if clear
        else f"there is no clear preference: those of {better} are ahead of {worse}"
    )
    return (
        f"Where raters saw a difference, {verdict} for {percent(share)} of the pictures (95% interval {percent(low)} to {percent(high)}; sign test on {wins['first']:,} to {wins['second']:,} items:"
        f" p {'< 0.001' if p < 0.001 else f'= {p:.2g}'}); {wins['no_difference']:,} of {found['judged']:,} showed none. {people[0].upper()}{people[1:]}."
    )


def beside(frame: Mapping[str, int]) -> str:
    """What is not in the frame of a sample, as shares of what was tried."""
    if "equal" in frame:
        return f"{frame['equal']:,} pairs that are equal ({percent(frame['equal'] / (frame['captions'] + frame['equal']))} of all pairs)"
    kinds = {
        "rejected": "whose caption was rejected",
        "failed": "that failed",
        "stale": "with a caption of an earlier image",
    }
    tried = sum(frame[name] for name in ("captions", *kinds))
    return ", ".join(
        f"{plural(frame[name], 'pin')} {what} ({percent(frame[name] / tried)})"
        for name, what in kinds.items()
        if frame[name] or name != "stale"
    )


def percent(share: float | None) -> str:
    """A share in per cent with one digit after the point; neither none nor all unless it is."""
    if share is None:
        return "-"
    return f"{share:.0%}" if share in (0, 1) else f"{min(99.9, max(0.1, 100 * share)):.1f}%"
