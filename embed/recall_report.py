"""Recall as a page to show around: the answer first, then by slice, then examples. One file, no scripts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from ..common.files import write_whole
from ..common.pages import STYLE, document, text
from ..common.terminal import plural
from .pairs import QUERY_QUERY
from .recall import GroupRecall, RecallResult, TaskRecall
from .shown import Example, Popularity
from .slices import HEAD

GROUPS_SHOWN = 20  # of one kind, for instance languages: those with the most pairs
NAMES = {"model": "the model", "bm25": "BM25", "fused": "both fused", "bm25 of words": "BM25 of words"}
METHODS = ("model", "bm25", "fused")
BAR = 9  # height of the mark of one method in a plot


def write_report(result: RecallResult, path: Path, pictures: Mapping[str, str] | None = None) -> None:
    """Writes a result as one HTML page. Raises OSError. The file is written whole or not at all.

    `pictures` {pin_id: a picture as a data: URI, or the reason why there is none}.
    """
    style = STYLE + Path(__file__).with_suffix(".css").read_text(encoding="utf-8")
    write_whole(path, document("What does search find?", style, _body(result, pictures or {})))


def _body(result: RecallResult, pictures: Mapping[str, str]) -> Iterator[str]:
    yield (
        '<header><h1>What does search find?</h1><p class="lead">How often the item that people chose is '
        "among the first ten hits for their query: Recall@10, with 95% intervals.</p></header>\n<main>\n"
    )
    for name, task in result["tasks"].items():
        yield f"<section><h2>{text(name)}</h2><p>{_size(task)}</p>{_headline(task, result)}"
        yield _measures(task, result)
        yield "</section>\n"
        if task["groups"]:
            yield _slices(name, task)
        yield from _examples(name, task, pictures)
    yield f"{_method(result)}</main>\n"


def _size(task: TaskRecall) -> str:
    return (
        f"{plural(task['pairs'], 'pair')} of {plural(task['queries'], 'query')}, ranked among "
        f"{plural(task['index'], 'candidate')}."
    )


def _headline(task: TaskRecall, result: RecallResult) -> str:
    kind, weight = result["fusion"]["kind"], result["fusion"]["weight"]
    *_, longest = task["dims"].values()
    labels = {
        "model": (longest["recall@10"], "the model"),
        "bm25": (task["bm25"]["recall@10"], f"BM25 of {kind}"),
        "fused": (task["fused"]["recall@10"], f"both fused, {weight:g} of the model"),
    }
    return (
        '<div class="headline">'
        + "".join(
            f'<div class="{who}"><b>{mean:.3f}</b><span>{text(label)}<br>{low:.3f} to {high:.3f}</span></div>'
            for who, ((mean, low, high), label) in labels.items()
        )
        + "</div>"
        + _less_bm25(task)
    )


def _less_bm25(task: TaskRecall) -> str:
    model, both = (
        "{:+.3f} ({:+.3f} to {:+.3f})".format(*difference)
        for difference in (task["differences"]["model less bm25"], task["differences"]["fused less bm25"])
    )
    return f"<p>Difference to BM25: the model {model}, both fused {both}.</p>"


def _measures(task: TaskRecall, result: RecallResult) -> str:
    *_, longest = task["dims"]
    lines = {f"the model, {dim} numbers": summary for dim, summary in reversed(task["dims"].items())}
    gains = {f"the model, {longest} numbers": task["ndcg@10"]["model"]}
    for name, label in (
        ("bm25", f"BM25 of {result['fusion']['kind']}"),
        ("bm25 of words", "BM25 of words"),
        ("fused", "both fused"),
    ):
        lines[label] = task[name]  # type: ignore[literal-required]
        gains[label] = task["ndcg@10"][name]
    popular = _popular(task["popularity"])
    head = "".join(f"<th>{name}</th>" for name in ("", "Recall@1", "@10", "@100", "MRR", "NDCG@10", *popular))
    body = ""
    share_of = {
        f"the model, {longest} numbers": "model",
        f"BM25 of {result['fusion']['kind']}": "bm25",
        "BM25 of words": "bm25 of words",
        "both fused": "fused",
    }
    for label, summary in lines.items():
        values = [summary["recall@1"], summary["recall@10"], summary["recall@100"], summary["mrr"]]
        cells = "".join(_cell(value) for value in [*values, gains.get(label)])
        if task["popularity"]:
            share = task["popularity"]["shown"].get(share_of.get(label, ""))
            cells += f"<td>{'' if share is None else f'{share:.0%}'}</td>"
        body += f"<tr><td>{text(label)}</td>{cells}</tr>"
    note = ""
    if task["popularity"]:
        note = (
            f"<p>Popular hits: the share of the first ten that is among the {task['popularity']['items']:,} "
            f"items with most training pairs, a tenth of all. {task['popularity']['chosen']:.0%} of what "
            "people chose is popular in this sense.</p>"
        )
    return (
        f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>{note}'
    )


def _popular(popularity: Popularity | None) -> tuple[str, ...]:
    return ("popular hits",) if popularity else ()


def _cell(interval: Sequence[float] | None) -> str:
    if not interval:
        return "<td></td>"
    mean, low, high = interval
    return f"<td>{mean:.3f}<small>{low:.3f} to {high:.3f}</small></td>"


def _slices(of_task: str, task: TaskRecall) -> str:
    legend = "".join(f'<li class="{who}">{NAMES[who]}</li>' for who in METHODS)
    body = ""
    for by, groups in task["groups"].items():
        body += f'<tr class="by"><td colspan="8">by {text(by)}</td></tr>'
        most = sorted(groups.items(), key=lambda item: -item[1]["pairs"])[:GROUPS_SHOWN]
        kept = {name for name, _ in most}
        body += "".join(_slice(name, group) for name, group in groups.items() if name in kept)
        if len(groups) > len(most):
            body += f"<tr><td>({len(groups) - len(most):,} with fewer pairs: see --json)</td></tr>"
    head = "".join(
        f"<th>{name}</th>"
        for name in ("", "pairs", "0 to 1", "model", "BM25", "fused", "model less BM25", "fused less BM25")
    )
    return (
        f"<section><h2>By slice: {text(of_task)}</h2><p>Recall@10. Differences are paired by query. "
        "They are coloured where "
        f'the interval leaves out 0.</p><ul class="legend">{legend}</ul><div class="scroll"><table>'
        f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div></section>\n"
    )


def _slice(name: str, group: GroupRecall) -> str:
    marks = ""
    for line, who in enumerate(METHODS):
        mean, low, high = group[who]["recall@10"]  # type: ignore[literal-required]
        top = line * BAR
        marks += (
            f'<g class="{who}"><rect class="range" x="{1000 * low:.0f}" y="{top + 1}" '
            f'width="{1000 * (high - low):.0f}" height="{BAR - 2}"/>'
            f'<rect x="{max(0, 1000 * mean - 5):.0f}" y="{top}" width="10" height="{BAR}"/></g>'
        )
    plot = (
        f'<svg viewBox="0 0 1000 {3 * BAR}" preserveAspectRatio="none" aria-hidden="true">'
        f'<rect class="track" y="0" width="1000" height="{3 * BAR}"/>{marks}</svg>'
    )
    values = "".join(_cell(group[who]["recall@10"]) for who in METHODS)  # type: ignore[literal-required]
    return (
        f"<tr><td><bdi>{text(name)}</bdi></td><td>{group['pairs']:,}</td><td>{plot}</td>{values}"
        f"{_difference(group['differences']['model less bm25'])}"
        f"{_difference(group['differences']['fused less bm25'])}</tr>"
    )


def _difference(interval: Sequence[float]) -> str:
    mean, low, high = interval
    kind = "better" if low > 0 else "worse" if high < 0 else ""
    return f'<td class="{kind}">{mean:+.3f}<small>{low:+.3f} to {high:+.3f}</small></td>'


def _examples(name: str, task: TaskRecall, pictures: Mapping[str, str]) -> Iterator[str]:
    for which, heading, explanation in (
        ("gained", "Gained", "The model shows these among the first ten, and BM25 does not."),
        ("lost", "Lost", "BM25 shows these among the first ten, and the model does not."),
    ):
        if task["examples"][which]:
            yield f"<section><h2>{heading}: {text(name)}</h2><p>{explanation} The largest differences.</p>"
            yield '<ul class="cards">'
            for example in task["examples"][which]:
                picture = None if name == QUERY_QUERY else pictures.get(example["pin_id"])
                yield _card(example, picture)
            yield "</ul></section>\n"


def _card(example: Example, picture: str | None) -> str:
    shown = ""
    if picture is not None and picture.startswith("data:image/"):
        shown = f'<img src="{text(picture, len(picture))}" alt="" decoding="async">'
    elif picture is not None:
        shown = f'<p class="none">no picture: {text(picture)}</p>'
    if example["title"]:
        shown_title = f'<p class="title" dir="auto">{text(example["title"])}</p>'
    else:
        shown_title = '<p class="none">no title</p>' if example["caption"] else ""
    caption = f'<p class="caption" dir="auto">{text(example["caption"])}</p>' if example["caption"] else ""
    return (
        f'<li>{shown}<p class="query" dir="auto">{text(example["query"])}</p>{shown_title}{caption}'
        f'<p class="ranks">rank {example["model"]:,.6g} by the model, {example["bm25"]:,.6g} by BM25</p>'
        f'<p class="id" dir="auto">{text(example["pin_id"])}</p></li>\n'
    )


def _method(result: RecallResult) -> str:
    fusion = result["fusion"]
    tuned = (
        "Nobody tuned this weight for the model."
        if fusion["recall"] is None
        else f"Kind and weight were the best on held-out training queries (Recall@10 {fusion['recall']:.3f})."
    )
    lines = [
        f"The pairs are those of the split {text(result['split'])}. "
        f"The model and BM25 read these texts of the items: {text(', '.join(result['fields']))}.",
        "Each pair's item is ranked among all candidates, exactly. Other known positives of the query are "
        "left out. Items with equal scores share their ranks.",
        f"BM25 is Lucene's formula over {text(fusion['kind'])}. Both fused: {fusion['weight']:g} times "
        f"the model's scores plus {1 - fusion['weight']:g} times BM25's, both standardised for each query. "
        + tuned,
        f"Head, torso and tail: queries with {HEAD} training pairs or more, with 1 to {HEAD - 1}, and "
        "without any. A new item is in no training pair. A word was never seen if no training query and no "
        "item has it.",
        "NDCG@10: the gain of an item is the weight of its pairs with the query. An item without such a pair "
        "gains 0.",
        "Intervals resample queries 1,000 times, because the pairs of one query are not independent.",
    ]
    items = "".join(f"<li>{line}</li>" for line in lines)
    return f'<section><h2>How this was computed</h2><ul class="method">{items}</ul></section>\n'
