"""Plots of shares and agreement for the report: HTML and SVG without scripts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import cast

from ..common.pages import text
from .agreement import LABELS
from .results import Measures, QuestionResult
from .sentence import percent

_SHADES = ("best", "fair", "worst")  # of the answers to a question, the best answer first


def plot_row(
    label: str,
    share: float | None,
    low: float | None,
    high: float | None,
    value: str,
    *,
    note: str = "",
    kind: str = "",
    begin: float = 0.0,
) -> str:
    """A line of a plot: a mark for `share`, and a band for its interval. Without an interval: a bar.

    The axis goes from `begin` to 1. `value` is HTML.
    """
    shapes = '<rect class="track" y="7" width="1000" height="4"/>'
    if share is not None:
        start, mark, end = (
            1000 * (min(1.0, max(begin, x)) - begin) / (1 - begin)
            for x in (begin if low is None else low, share, share if high is None else high)
        )
        shapes += (
            f'<rect class="range" x="{start:.1f}" y="3" width="{max(0.0, end - start):.1f}" '
            'height="12" rx="3"/>'
            f'<rect class="point" x="{max(0.0, mark - 3):.1f}" width="6" height="18"/>'
        )
    small = f" <small>{text(note)}</small>" if note else ""
    return (
        f'<div class="row {kind}"><span class="label"><bdi>{text(label)}</bdi>{small}</span>'
        f'<svg viewBox="0 0 1000 18" preserveAspectRatio="none" aria-hidden="true">{shapes}</svg>'
        f'<span class="value">{value}</span></div>'
    )


def axis(*marks: str) -> str:
    """The line below a plot with the values of its axis."""
    spans = "".join(f"<span>{mark}</span>" for mark in marks)
    return (
        f'<div class="row axis"><span class="label"></span><span class="marks">{spans}</span>'
        '<span class="value"></span></div>'
    )


PERCENT_AXIS = axis("0%", "25%", "50%", "75%", "100%")


def stacked_bar(question: str, result: QuestionResult, shown_as: Mapping[str, str]) -> str:
    """The distribution of the answers to a question. `shown_as` gives some answers another name."""
    rects, start, legend = "", 0.0, ""
    for shade, (answer, share) in zip(_SHADES, result["distribution"].items(), strict=True):
        width = 1000 * (share or 0)
        rects += f'<rect class="{shade}" x="{start:.1f}" width="{width:.1f}" height="22"/>'
        legend += f'<li class="{shade}"><b>{percent(share)}</b> {text(shown_as.get(answer, answer))}</li>'
        start += width
    if result["cannot_judge"]:
        legend += f"<li><b>{result['cannot_judge']:,}</b> times cannot judge</li>"
    in_words = ", ".join(f"{percent(share)} {answer}" for answer, share in result["distribution"].items())
    return (
        f'<h3>{text(question)}</h3><ul class="legend">{legend}</ul>'
        f'<svg class="stack" viewBox="0 0 1000 22" preserveAspectRatio="none" role="img" '
        f'aria-label="{text(in_words)}">{rects}</svg>'
    )


def agreement_plot(
    measures: Measures, intervals: Mapping[str, list[float] | None], names: Sequence[str]
) -> str:
    """The measures of agreement called `names`, with their intervals."""
    values = cast(Mapping[str, float | None], measures)
    drawn = [x for name in names for x in (values[name], *(intervals[name] or ()))]
    begin = -0.5 if any(x is not None and x < 0 for x in drawn) else 0.0
    rows = ""
    for name in names:
        value, interval = values[name], intervals[name]
        low, high = interval or (None, None)
        in_words = "not defined" if value is None else f"<b>{value:.3f}</b>"
        if value is not None and interval:
            in_words += f" ({interval[0]:.3f} to {interval[1]:.3f})"
        rows += plot_row(LABELS[name], value, low, high, in_words, begin=begin)
    marks = axis("-0.5", "0", "0.5", "1") if begin else axis("0", "0.25", "0.5", "0.75", "1")
    return f'<div class="plot">{rows}{marks}</div>'
