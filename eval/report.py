"""The result as a page to show around: the answer first, then where it comes from, in one HTML file without
scripts.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..common.errors import PincaptionError
from ..common.files import write_whole
from ..common.pages import STYLE, document, text
from ..images.thumbnails import Picture, Pictures
from .agreement import LABELS
from .long_table import distribution, intervals
from .questions import QUESTIONS
from .score import beside, percent

_SHADES = ("best", "fair", "worst")


class ReportError(PincaptionError):
    """The report cannot be written there; the message says why."""


def check_report(path: Path) -> None:
    """Raises ReportError where no page can be written, or where it would replace something that is none:
    before anything else is done.
    """
    if path.is_dir() or not path.name:
        raise ReportError(f"{path} is a folder: name a file, for instance {path / 'report.html'}")
    if not path.parent.is_dir():
        raise ReportError(
            f"the folder {path.parent} does not exist: make it first, or write the report elsewhere"
        )
    if not os.access(path.parent, os.W_OK):
        raise ReportError(f"the folder {path.parent} cannot be written: write the report elsewhere")
    if path.exists() and not path.read_bytes()[:100].lstrip().lower().startswith(
        (b"<!doctype html", b"<html")
    ):
        raise ReportError(
            f"{path} is there already and no page: it would be lost; name another file for the report"
        )


def write_report(found: Mapping[str, Any], path: Path, pictures: Pictures) -> None:
    """Writes what `score` found, with pictures of the items worth a look; whole or not at all.

    Raises OSError.
    """
    title = "How good are the captions?" if found["kind"] == "captions" else "Which captions are better?"
    write_whole(path, document(title, _style(), _body(title, found, pictures)))


def write_table_report(
    name: str, answers: Mapping[str, dict[tuple[str, str], float]], found: Mapping[str, Any], path: Path
) -> None:
    """Writes what `describe` found in a long table of ratings. Raises OSError."""
    parts = [
        f'<header><h1>How far do the raters agree?</h1><p class="lead">Ratings in {text(name)}.</p></header>\n<main>\n'
    ]
    for question, of in found.items():
        counts = distribution(answers[question])
        rows = "".join(
            _row(f"{value:g}", n / of["ratings"], None, None, f"<b>{percent(n / of['ratings'])}</b> ({n:,})")
            for value, n in list(counts.items())[:30]
        )
        parts.append(
            f"<section><h2>{text(question)}</h2><p>{of['ratings']:,} ratings of {of['items']:,} items by {len(of['by_rater']):,} raters, mean {of['mean']:.3f}.</p>"
            f'<div class="plot">{rows}{_PERCENT}</div><h3>Agreement beyond chance, with 95% intervals</h3>{_agreement(of, intervals(answers[question]), list(LABELS))}</section>\n'
        )
    write_whole(path, document("How far do the raters agree?", _style(), [*parts, "</main>\n"]))


def _style() -> str:
    return STYLE + (Path(__file__).parent / "report.css").read_text(encoding="utf-8")


def _body(title: str, found: Mapping[str, Any], pictures: Pictures) -> Iterator[str]:
    builtin = "builtin" in found["models"].values()
    yield f'<header><h1>{title}</h1><p class="lead">{text(found["sentence"], 1000)}</p>'
    if found["judged"]:
        yield _headline(found)
    models = ", ".join(f"<code>{text(model)}</code>" for model in dict.fromkeys(found["models"].values()))
    only = (
        " The built-in checkpoint <strong>knows drawn pictures only</strong>: its figures say nothing about photographs."
        if builtin
        else ""
    )
    yield f'<p class="note">Beside these captions: {text(beside(found["frame"]), 1000)}.{f" Captions by {models}." if models else ""}{only}</p></header>\n<main>\n'
    if found["judged"] and len(found.get("strata", [])) > 1:
        rows = "".join(
            _row(
                _stratum(of["stratum"]),
                of["share"],
                of["low"],
                of["high"],
                f"<b>{percent(of['share'])}</b> of {of['judged']:,}",
                small=f"{of['captions']:,} captions",
            )
            for of in found["strata"]
        )
        yield f'<section><h2>By stratum</h2><p>Relevant and good, with 95% intervals. Each stratum stands for its captions in the store.</p><div class="plot">{rows}{_PERCENT}</div></section>\n'
    yield "<section><h2>Answers</h2><p>All answers, weighted to the store.</p>"
    for question in QUESTIONS[found["kind"]]:
        yield _distribution(
            question.text,
            found["questions"][question.name],
            {name: of["name"] for name, of in found.get("recipes", {}).items()},
        )
    yield "</section>\n<section><h2>Agreement of the raters</h2><p>1 is perfect, 0 is chance, with 95% intervals by item bootstrap. Where nearly all captions are good there is little to agree on: α is then low although raters hardly differ, AC1 and AC2 are not.</p>"
    for question in QUESTIONS[found["kind"]]:
        of = found["questions"][question.name]
        names = (
            ["alpha_ordinal", "alpha_nominal", "ac1", "ac2"]
            if found["kind"] == "captions"
            else ["alpha_nominal", "ac1"]
        )
        yield f"<h3>{text(question.text)}</h3>{_agreement(of, of['intervals'], names)}"
    yield "</section>\n" + _raters(found["by_rater"])
    shown = [
        ("disputed", "Most disputed", "Where raters differ most: look here to sharpen the guidelines."),
        ("worst", "The worst", "The lowest answers on average: look here for what the model gets wrong."),
    ]
    items = [item for name, _, _ in shown for item in found.get(name, [])]
    images = dict(
        zip(
            (item["pin_id"] for item in items),
            pictures((item["image"], item["image_sha256"]) for item in items),
            strict=True,
        )
    )
    for name, heading, what in shown:
        if found.get(name):
            yield f'<section><h2>{heading}</h2><p>{what}</p><ul class="pins">'
            yield from (_card(item, images[item["pin_id"]]) for item in found[name])
            yield "</ul></section>\n"
    yield f"{_method(found)}</main>\n"


def _headline(found: Mapping[str, Any]) -> str:
    if found["kind"] == "comparison":
        recipes = found["recipes"]
        parts = [
            ("good", found["shares"]["first"], f"prefer {recipes['first']['recipe']}"),
            ("", found["shares"]["no_difference"], "no difference"),
            ("bad", found["shares"]["second"], f"prefer {recipes['second']['recipe']}"),
        ]
    else:
        parts = [
            ("good", found["relevant_and_good"], "relevant and good"),
            ("bad", found["irrelevant_and_poor"], "irrelevant and poor"),
        ]
    figures = "".join(
        f'<div class="{kind}"><b>{percent(share["share"])}</b><span>{text(label)}<br>{percent(share["low"])} to {percent(share["high"])}</span></div>'
        for kind, share, label in parts
    )
    rows = "".join(
        _row(
            label,
            share["share"],
            share["low"],
            share["high"],
            f"{share['items']:,} items, {share['effective_items']:,.0f} effective",
            kind=kind,
        )
        for kind, share, label in parts
    )
    return f'<div class="headline">{figures}</div><div class="plot">{rows}{_PERCENT}</div>'


def _row(
    label: str,
    share: float | None,
    low: float | None,
    high: float | None,
    value: str,
    *,
    small: str = "",
    kind: str = "",
    begin: float = 0.0,
) -> str:
    """A figure between `begin` and 1 as a mark, its interval as a band, or as a bar where it has none."""
    drawn = '<rect class="track" y="7" width="1000" height="4"/>'
    if share is not None:
        at = [
            1000 * (min(1.0, max(begin, x)) - begin) / (1 - begin)
            for x in (begin if low is None else low, share, share if high is None else high)
        ]
        drawn += f'<rect class="range" x="{at[0]:.1f}" y="3" width="{max(0.0, at[2] - at[0]):.1f}" height="12" rx="3"/><rect class="point" x="{max(0.0, at[1] - 3):.1f}" width="6" height="18"/>'
    note = f" <small>{text(small)}</small>" if small else ""
    return (
        f'<div class="row {kind}"><span class="label"><bdi>{text(label)}</bdi>{note}</span>'
        f'<svg viewBox="0 0 1000 18" preserveAspectRatio="none" aria-hidden="true">{drawn}</svg><span class="value">{value}</span></div>'
    )


def _axis(*marks: str) -> str:
    return f'<div class="row axis"><span class="label"></span><span class="marks">{"".join(f"<span>{mark}</span>" for mark in marks)}</span><span class="value"></span></div>'


_PERCENT = _axis("0%", "25%", "50%", "75%", "100%")


def _stratum(name: str | None) -> str:
    return "(none)" if name is None else name


def _distribution(question: str, of: Mapping[str, Any], names: Mapping[str, str]) -> str:
    rects, start, legend = "", 0.0, ""
    for shade, (answer, share) in zip(_SHADES, of["distribution"].items(), strict=True):
        width = 1000 * (share or 0)
        rects += f'<rect class="{shade}" x="{start:.1f}" width="{width:.1f}" height="22"/>'
        legend += f'<li class="{shade}"><b>{percent(share)}</b> {text(names.get(answer, answer))}</li>'
        start += width
    cannot = f"<li><b>{of['cannot_judge']:,}</b> times cannot judge</li>" if of["cannot_judge"] else ""
    said = ", ".join(f"{percent(share)} {answer}" for answer, share in of["distribution"].items())
    return f'<h3>{text(question)}</h3><ul class="legend">{legend}{cannot}</ul><svg class="stack" viewBox="0 0 1000 22" preserveAspectRatio="none" role="img" aria-label="{text(said)}">{rects}</svg>'


def _agreement(of: Mapping[str, Any], between: Mapping[str, Any], names: Sequence[str]) -> str:
    begin = (
        -0.5
        if any(x is not None and x < 0 for name in names for x in (of[name], *(between[name] or ())))
        else 0.0
    )
    rows = ""
    for name in names:
        value, interval = of[name], between[name] or (None, None)
        said = (
            f"<b>{value:.3f}</b>"
            + (f" ({interval[0]:.3f} to {interval[1]:.3f})" if interval[0] is not None else "")
            if value is not None
            else "not defined"
        )
        rows += _row(LABELS[name], value, interval[0], interval[1], said, begin=begin)
    return f'<div class="plot">{rows}{_axis("-0.5", "0", "0.5", "1") if begin else _axis("0", "0.25", "0.5", "0.75", "1")}</div>'


def _raters(by_rater: Mapping[str, Any]) -> str:
    questions = next((list(of["deviation"]) for of in by_rater.values()), [])
    head = "".join(
        f"<th>{name}</th>"
        for name in (
            "rater",
            "judged",
            "cannot judge",
            "repeats alike",
            "gold answers right",
            "seconds an item",
            *(f"{q}, apart" for q in questions),
        )
    )
    body = ""
    for rater, of in by_rater.items():
        cells = [
            f"{of['judged']:,}",
            f"{of['cannot_judge']:,}",
            _of(of["repeats_same"], of["repeats"]),
            _of(of["gold_right"], of["gold"]),
            "–" if of["seconds"] is None else f"{of['seconds']:.1f}",
        ]
        cells += ["–" if of["deviation"][q] is None else f"{of['deviation'][q]:+.2f}" for q in questions]
        body += f"<tr><td>{text(rater)}</td>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>"
    what = "Repeats are captions that came a second time, gold those whose answers are known. Apart: the mean distance from the others’ answers to the same items, in steps of the scale; above 0 is milder."
    return f'<section><h2>The raters</h2><p>{what}</p><div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div></section>\n'


def _of(part: int, whole: int) -> str:
    return f"{part:,} of {whole:,}" if whole else "–"


def _card(item: Mapping[str, Any], picture: Picture | str) -> str:
    if isinstance(picture, str):
        shown = f'<p class="none">{text(picture)}</p>'
    else:
        shown = f'<img src="{picture.uri}" width="{picture.width}" height="{picture.height}" alt="{text(item["caption"])}" decoding="async">'
    said = ""
    for answer in item["answers"]:
        values = ", ".join(text(value) for name, value in answer.items() if name not in ("rater", "comment"))
        comment = f" “<bdi>{text(answer['comment'])}</bdi>”" if answer.get("comment") else ""
        said += f"<li><b>{text(answer['rater'])}</b> {values}{comment}</li>"
    captions = [item["caption"], *([item["other_caption"]] if "other_caption" in item else [])]
    lines = "".join(f'<p class="caption" dir="auto">{text(caption)}</p>' for caption in captions)
    return f'<li>{shown}{lines}<ul class="said">{said}</ul><p class="id" dir="auto">{text(item["pin_id"])}</p></li>\n'


def _method(found: Mapping[str, Any]) -> str:
    lines = [
        f"Sample <code>{found['sample_id']}</code>: {found['items']:,} items drawn at random, {found['judged']:,} judged, {found['ratings']:,} sheet rows answered by {found['raters']:,} raters who saw neither model nor recipe."
    ]
    if found["kind"] == "captions":
        lines.append(
            "A caption counts as relevant and good when more than half of its valid raters chose both; a tie does not count. “Cannot judge” and missing answers are left out, and so are repeats and gold."
        )
    else:
        lines.append(
            "A picture goes to the caption that more of its raters preferred. Sides were random for each item and rater. The sign test takes the items on which there was a choice: how likely so uneven a result is, were both equally good."
        )
    lines.append(
        "Each item weighs as many captions as it stands for: captions of its stratum in the store, divided by the items judged of it."
    )
    lines.append(
        "Intervals of shares are Wilson’s on the effective sample size; where uneven weights leave few hits, with half an item added to either side. Those of agreement are percentiles of 1,000 bootstrap samples of items."
    )
    return f'<section><h2>How this was computed</h2><ul class="method">{"".join(f"<li>{line}</li>" for line in lines)}</ul></section>\n'
