"""The result of a score in words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..common.terminal import plural
from .results import CaptionScore, ComparisonScore, Score


def sentence_of(score: Score) -> str:
    """The result for somebody who reads one sentence."""
    return _of_comparison(score) if score["kind"] == "comparison" else _of_captions(score)


def _of_captions(score: CaptionScore) -> str:
    good, bad = score["relevant_and_good"], score["irrelevant_and_poor"]
    captions, covered = score["frame"]["captions"], score["captions_covered"]
    if good["share"] is None:
        return (
            f"Of {plural(score['items'], 'caption')}, none was judged on both questions yet, "
            "so there is no share to state."
        )
    subject = f"Of the {plural(captions, 'caption')} in this store"
    if covered != captions:
        rest = f"the other {captions - covered:,} are in strata that nobody has judged"
        subject = f"Of {plural(covered, 'caption')} ({rest})"
    return (
        f"{subject} about {percent(good['share'])} are both relevant and well written "
        f"(95% interval {percent(good['low'])} to {percent(good['high'])}), "
        f"and {percent(bad['share'])} are irrelevant and poor "
        f"({percent(bad['low'])} to {percent(bad['high'])}); {_judged(score, 'of them')}."
    )


def _judged(score: Score, what: str) -> str:
    each = score["judgements_per_item"] or 0
    people = f"{score['raters']} {'person' if score['raters'] == 1 else 'people'}"
    if each > score["raters"] - 0.05:
        return f"{people} judged {score['judged']:,} {what}"
    return f"{score['judged']:,} {what} were judged, by {each:.1f} of {people} on average"


def _of_comparison(score: ComparisonScore) -> str:
    """States a preference only if both the interval and the sign test, which ignores weights, are clear."""
    wins, p = score["wins"], score["sign_test"]
    first, second = score["recipes"]["first"]["name"], score["recipes"]["second"]["name"]
    if not score["judged"]:
        return "No pair of captions was judged yet, so there is no preference to state."
    people = _judged(score, "pictures")
    if not score["decided"]:
        return f"{people} and saw no difference between {first} and {second}."
    preference = score["preference"]
    share, low, high = preference["share"] or 0.0, preference["low"] or 0.0, preference["high"] or 0.0
    better, worse = first, second
    first_is_ahead = share >= 0.5
    if not first_is_ahead:
        better, worse = second, first
        share, low, high = 1 - share, 1 - high, 1 - low
    clear = low > 0.5 and p < 0.05 and (wins["first"] > wins["second"]) == first_is_ahead
    verdict = f"there is no clear preference: those of {better} are ahead of {worse}"
    if clear:
        verdict = f"the captions of {better} are preferred to those of {worse}"
    return (
        f"Where raters saw a difference, {verdict} for {percent(share)} of the pictures "
        f"(95% interval {percent(low)} to {percent(high)}; "
        f"sign test on {wins['first']:,} to {plural(wins['second'], 'item')}: "
        f"p {'< 0.001' if p < 0.001 else f'= {p:.2g}'}); "
        f"{wins['no_difference']:,} of {score['judged']:,} showed none. {people[0].upper()}{people[1:]}."
    )


def excluded_in_words(frame: Mapping[str, Any]) -> str:
    """What a sample could not be drawn from, each with its share. `frame`: a FrameResult or SampleResult."""
    captions = frame["captions"]
    if "equal" in frame:
        share = frame["equal"] / (captions + frame["equal"])
        return f"{plural(frame['equal'], 'equal pair')} ({percent(share)} of all pairs)"
    kinds = {
        "rejected": "whose caption was rejected",
        "failed": "that could not be captioned",
        "stale": "whose caption is of an earlier image",
    }
    by_people = frame.get("by_people", 0)
    tried = captions + by_people + sum(frame[name] for name in kinds)
    parts = [
        f"{plural(frame[name], 'pin')} {what} ({percent(frame[name] / tried)})"
        for name, what in kinds.items()
        if frame[name] or name != "stale"
    ]
    if by_people:
        parts.append(
            f"{plural(by_people, 'pin')} whose caption a person wrote ({percent(by_people / tried)})"
        )
    return ", ".join(parts)


def percent(share: float | None) -> str:
    """A share with one decimal. Only an exact 0 or 1 is shown as 0% or 100%."""
    if share is None:
        return "-"
    return f"{share:.0%}" if share in (0, 1) else f"{min(99.9, max(0.1, 100 * share)):.1f}%"
