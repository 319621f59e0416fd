"""The result as a page to show around: the answer first, then where it comes from.

One HTML file, no scripts.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from ..common.errors import PincaptionError
from ..common.files import write_whole
from ..common.pages import STYLE, document, text
from ..common.terminal import plural
from ..images.thumbnails import Picture, pictures
from .agreement import MEASURES
from .long_table import TableScore, distribution, intervals
from .plots import PERCENT_AXIS, agreement_plot, plot_row, stacked_bar
from .questions import QUESTIONS
from .results import ItemResult, RaterResult, Score, ShareResult, StratumResult
from .sentence import excluded_in_words, percent

SIDE, MAX_BYTES = 360, 40_000  # of a picture: pixels of the longer side, bytes
MEASURES_SHOWN = {
    "captions": ("alpha_ordinal", "alpha_nominal", "ac1", "ac2"),
    "comparison": ("alpha_nominal", "ac1"),
}
MARK = '<meta name="generator" content="captioner eval score">\n'  # tells that a page is a report
TITLES = {"captions": "How good are the captions?", "comparison": "Which captions are better?"}
TABLE_TITLE = "How far do the raters agree?"
HEAD_BYTES = 4000  # mark and title are within the first so many bytes
VALUES_SHOWN = 30  # of a long table: bars for one question


class ReportError(PincaptionError):
    """The report cannot be written there. The message says why."""


def check_report(path: Path) -> None:
    """Raises ReportError if no page can be written at `path`, or if it would replace something that is no
    report.

    Call it before the work that the report is about.
    """
    if path.is_dir() or not path.name:
        raise ReportError(f"{path} is a folder: name a file, for instance {path / 'report.html'}")
    if not path.parent.is_dir():
        raise ReportError(
            f"the folder {path.parent} does not exist: make it first, or write the report elsewhere"
        )
    if not os.access(path.parent, os.W_OK):
        raise ReportError(f"the folder {path.parent} cannot be written: write the report elsewhere")
    if path.exists() and not _is_report(path):
        raise ReportError(
            f"{path} is there already and no report: it would be lost; name another file for the report"
        )


def _is_report(path: Path) -> bool:
    """Whether a file is a report, which a newer one may replace.

    Older versions wrote no mark: their titles tell.
    """
    with path.open("rb") as file:
        head = file.read(HEAD_BYTES)
    if not head.startswith(b"<!doctype html>"):
        return False
    titles = (f"<title>{title}</title>" for title in (*TITLES.values(), TABLE_TITLE))
    return any(mark.strip().encode() in head for mark in (MARK, *titles))


def write_report(score: Score, path: Path) -> None:
    """Writes a result with pictures of the items that are worth a look. Raises OSError.

    The file is written whole or not at all.
    """
    title = TITLES[score["kind"]]
    write_whole(path, document(title, _style(), _body(title, score), head=MARK))


def write_table_report(score: TableScore, path: Path) -> None:
    """Writes the agreement of a long table of ratings. Raises OSError."""
    parts = [
        f'<header><h1>{TABLE_TITLE}</h1><p class="lead">Ratings in {text(score.name)}.</p></header>\n<main>\n'
    ]
    for question, result in score.questions.items():
        answers = score.answers[question]
        rows = ""
        for value, n in list(distribution(answers).items())[:VALUES_SHOWN]:
            share = n / result["ratings"]
            rows += plot_row(f"{value:g}", share, None, None, f"<b>{percent(share)}</b> ({n:,})")
        plot = agreement_plot(result, intervals(answers), MEASURES)
        parts.append(
            f"<section><h2>{text(question)}</h2>"
            f"<p>{plural(result['ratings'], 'rating')} of {plural(result['items'], 'item')} "
            f"by {plural(len(result['by_rater']), 'rater')}, mean {result['mean']:.3f}.</p>"
            f'<div class="plot">{rows}{PERCENT_AXIS}</div>'
            f"<h3>Agreement beyond chance, with 95% intervals</h3>{plot}</section>\n"
        )
    write_whole(path, document(TABLE_TITLE, _style(), [*parts, "</main>\n"], head=MARK))


def _style() -> str:
    return STYLE + (Path(__file__).parent / "report.css").read_text(encoding="utf-8")


def _body(title: str, score: Score) -> Iterator[str]:
    yield f'<header><h1>{title}</h1><p class="lead">{text(score["sentence"], 1000)}</p>'
    if score["judged"]:
        yield _headline(score)
    yield f'<p class="note">{_note(score)}</p></header>\n<main>\n'
    if score["kind"] == "captions" and score["judged"] and len(score["strata"]) > 1:
        yield _strata(score["strata"])
    yield "<section><h2>Answers</h2><p>All answers. Each item counts for the captions that it stands for.</p>"
    shown_as = {}
    if score["kind"] == "comparison":
        shown_as = {side: recipe["name"] for side, recipe in score["recipes"].items()}
    for question in QUESTIONS[score["kind"]]:
        yield stacked_bar(question.text, score["questions"][question.name], shown_as)
    yield """</section>
<section><h2>Agreement of the raters</h2>
<p>1 is perfect agreement, 0 is no more than chance. The bands are 95% intervals (bootstrap over items).
If nearly all captions are good, there is little to agree on: α is then low although the raters hardly differ.
AC1 and AC2 do not have this weakness.</p>"""
    for question in QUESTIONS[score["kind"]]:
        result = score["questions"][question.name]
        plot = agreement_plot(result, result["intervals"], MEASURES_SHOWN[score["kind"]])
        yield f"<h3>{text(question.text)}</h3>{plot}"
    yield "</section>\n" + _raters(score["by_rater"])
    yield from _items(score)
    yield f"{_method(score)}</main>\n"


def _note(score: Score) -> str:
    models = list(dict.fromkeys(score["models"].values()))
    note = f"Not part of the sample: {text(excluded_in_words(score['frame']), 1000)}."
    if models:
        note += f" Captions by {', '.join(f'<code>{text(model)}</code>' for model in models)}."
    if "builtin" in models:
        note += (
            " The built-in model <strong>knows drawn pictures only</strong>: "
            "these figures say nothing about photographs."
        )
    return note


def _headline(score: Score) -> str:
    parts: list[tuple[str, ShareResult, str]]
    if score["kind"] == "comparison":
        first, second = score["recipes"]["first"], score["recipes"]["second"]
        parts = [
            ("good", score["shares"]["first"], f"prefer {first['recipe']}"),
            ("", score["shares"]["no_difference"], "no difference"),
            ("bad", score["shares"]["second"], f"prefer {second['recipe']}"),
        ]
    else:
        parts = [
            ("good", score["relevant_and_good"], "relevant and good"),
            ("bad", score["irrelevant_and_poor"], "irrelevant and poor"),
        ]
    figures = rows = ""
    for kind, share, label in parts:
        between = f"{percent(share['low'])} to {percent(share['high'])}"
        figures += (
            f'<div class="{kind}"><b>{percent(share["share"])}</b>'
            f"<span>{text(label)}<br>{between}</span></div>"
        )
        size = f"{plural(share['items'], 'item')}, {share['effective_items']:,.0f} effective"
        rows += plot_row(label, share["share"], share["low"], share["high"], size, kind=kind)
    return f'<div class="headline">{figures}</div><div class="plot">{rows}{PERCENT_AXIS}</div>'


def _strata(strata: list[StratumResult]) -> str:
    rows = ""
    for stratum in strata:
        rows += plot_row(
            "(none)" if stratum["stratum"] is None else stratum["stratum"],
            stratum["share"],
            stratum["low"],
            stratum["high"],
            f"<b>{percent(stratum['share'])}</b> of {stratum['judged']:,}",
            note=plural(stratum["captions"], "caption"),
        )
    return (
        "<section><h2>By stratum</h2><p>Relevant and good, with 95% intervals. "
        "Each stratum stands for its captions in the store.</p>"
        f'<div class="plot">{rows}{PERCENT_AXIS}</div></section>\n'
    )


def _raters(by_rater: Mapping[str, RaterResult]) -> str:
    questions = next((list(result["deviation"]) for result in by_rater.values()), [])
    names = [
        "rater",
        "judged",
        "cannot judge",
        "same answer again",
        "gold answers right",
        "seconds per item",
        *(f"{question}, vs. others" for question in questions),
    ]
    body = ""
    for rater, result in by_rater.items():
        deviations = [result["deviation"][question] for question in questions]
        cells = [
            f"{result['judged']:,}",
            f"{result['cannot_judge']:,}",
            _of(result["repeats_same"], result["repeats"]),
            _of(result["gold_right"], result["gold"]),
            "–" if result["seconds"] is None else f"{result['seconds']:.1f}",
            *("–" if deviation is None else f"{deviation:+.2f}" for deviation in deviations),
        ]
        body += f"<tr><td>{text(rater)}</td>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>"
    return f"""<section><h2>The raters</h2>
<p>Some captions came a second time: did the rater give the same answer again? For gold items the right
answers are known. The last columns are the mean distance from the other raters’ answers to the same items,
in steps of the scale: above 0 the rater is milder than the others.</p>
<div class="scroll"><table><thead><tr>{"".join(f"<th>{name}</th>" for name in names)}</tr></thead>
<tbody>{body}</tbody></table></div></section>
"""


def _of(part: int, whole: int) -> str:
    return f"{part:,} of {whole:,}" if whole else "–"


def _items(score: Score) -> Iterator[str]:
    sections = [
        (
            "Most disputed",
            "The raters differ most on these. Look here to make the guidelines clearer.",
            score["disputed"],
        )
    ]
    if score["kind"] == "captions":
        sections.append(
            (
                "The worst",
                "These got the lowest answers on average. Look here for what the model gets wrong.",
                score["worst"],
            )
        )
    items = [item for _, _, some in sections for item in some]
    images = ((item["image"], item["image_sha256"]) for item in items)
    shown = zip(items, pictures(images, side=SIDE, max_bytes=MAX_BYTES), strict=True)
    picture_of = {item["pin_id"]: picture for item, picture in shown}
    for heading, explanation, some in sections:
        if some:
            yield f'<section><h2>{heading}</h2><p>{explanation}</p><ul class="pins">'
            yield from (_card(item, picture_of[item["pin_id"]]) for item in some)
            yield "</ul></section>\n"


def _card(item: ItemResult, picture: Picture | str) -> str:
    if isinstance(picture, str):
        shown = f'<p class="none">{text(picture)}</p>'
    else:
        shown = (
            f'<img src="{picture.uri}" width="{picture.width}" height="{picture.height}" '
            f'alt="{text(item["caption"])}" decoding="async">'
        )
    answers = ""
    for answer in item["answers"]:
        values = ", ".join(text(value) for name, value in answer.items() if name not in ("rater", "comment"))
        comment = f" “<bdi>{text(answer['comment'])}</bdi>”" if answer.get("comment") else ""
        answers += f"<li><b>{text(answer['rater'])}</b> {values}{comment}</li>"
    captions = [item["caption"], *([item["other_caption"]] if "other_caption" in item else [])]
    lines = "".join(f'<p class="caption" dir="auto">{text(caption)}</p>' for caption in captions)
    return (
        f'<li>{shown}{lines}<ul class="said">{answers}</ul>'
        f'<p class="id" dir="auto">{text(item["pin_id"])}</p></li>\n'
    )


def _method(score: Score) -> str:
    lines = [
        f"Sample <code>{score['sample_id']}</code>: {plural(score['items'], 'item')} drawn at random, "
        f"{score['judged']:,} judged. {plural(score['raters'], 'rater')} answered "
        f"{plural(score['ratings'], 'row')} of the sheets. The sheets named neither model nor recipe."
    ]
    if score["kind"] == "captions":
        lines.append(
            "A caption counts as relevant and good if more than half of its raters chose both answers; "
            "half is not enough. Only raters who answered both questions count: “cannot judge” is no "
            "answer. Repeats and gold items are left out."
        )
    else:
        lines.append(
            "A picture goes to the caption that more of its raters preferred. Which caption came first was "
            "random for each item and rater. The sign test uses the items on which one caption was "
            "preferred: p is the probability of a result at least this uneven if both recipes were equally "
            "good."
        )
    lines.append(
        "Each item stands for several captions of the store: the captions of its stratum, divided by the "
        "items of the stratum that were judged."
    )
    lines.append(
        "Intervals of shares are Wilson’s, on the effective sample size. If uneven weights leave few hits, "
        "half an item is added to either side. Intervals of agreement are percentiles of 1,000 bootstrap "
        "samples of items."
    )
    items = "".join(f"<li>{line}</li>" for line in lines)
    return f'<section><h2>How this was computed</h2><ul class="method">{items}</ul></section>\n'
