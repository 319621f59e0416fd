"""A rating sheet as an HTML page, and the page of guidance.

`sheet.js` shows the rows and keeps the answers.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from ..common.pages import STYLE, document, text
from .items import Sample, SheetRow
from .questions import CANNOT_JUDGE, COLUMNS, FORMULA, QUESTIONS, Kind, Question

MARK = '<meta name="captioner-sheet">\n'  # in the head of our pages: a file without it is not ours
TITLES: dict[Kind, str] = {
    "captions": "Do these captions fit their pictures?",
    "comparison": "Which caption fits the picture better?",
}
_KEYS = {
    "←": "previous",
    "→": "or",
    "Enter": "next",
    "n": "next unanswered one",
    "0": CANNOT_JUDGE,
    "c": "comment",
    "d": "download",
    "g": "these guidelines",
}


def sheet_page(
    sample: Sample,
    name: str,
    parts: list[str],
    rows: list[SheetRow],
    missing: dict[int, str],
    picture_of: Callable[[int], str | None],
) -> Iterator[str]:
    """The sheet called `name`, one of the `parts` of its rater, as pieces of HTML.

    `picture_of` gives the JPEG of an item as base64, or None; `missing` says why an item has no picture.
    """
    yield from document(
        TITLES[sample.kind],
        _style(),
        _body(sample, name, parts, rows, missing, picture_of),
        script=_file("sheet.js"),
        head=MARK,
    )


def guidance_page(sample: Sample, *, with_keys: bool = True) -> Iterator[str]:
    """The guidelines as a page of their own, to be read before the sheet; `with_keys`: of our own sheets."""
    title = "How to judge the captions"
    guide = _guide(sample) if with_keys else f'<div class="guide">{_guidance(sample)}</div>'
    body = f'<div class="page"><h1>{title}</h1>{guide}</div>\n'
    yield from document(title, _style(), [body], head=MARK)


def _body(
    sample: Sample,
    name: str,
    parts: list[str],
    rows: list[SheetRow],
    missing: dict[int, str],
    picture_of: Callable[[int], str | None],
) -> Iterator[str]:
    number = parts.index(name) + 1
    part = f", part {number} of {len(parts)}" if len(parts) > 1 else ""
    more = f' <a href="{parts[number]}.html">Go on with part {number + 1}</a>' if number < len(parts) else ""
    yield f"""<header class="top">
<div class="title"><h1>{TITLES[sample.kind]}</h1><span class="who">{rows[0].rater}{part}</span></div>
<div class="how-far">
<progress id="progress" max="{len(rows)}" value="0" aria-label="Captions judged"></progress>
<span id="count" role="status"></span></div>
<div class="tools"><button type="button" id="guide-open">Guidelines <kbd>g</kbd></button>
<button type="button" id="download">Download<span class="wide"> answers</span> <kbd>d</kbd></button></div>
</header>
<p class="notice" id="not-kept" role="alert" hidden>This browser does not keep your answers:
download them before you close the page.</p>
<p class="notice" id="said" role="status" hidden></p>
<p class="notice" id="all-done" role="status" hidden>You have judged all of them. Thank you!
<button type="button" class="main" id="download-all">Download answers</button>{more}</p>
<noscript><p class="notice">This page needs JavaScript.
You can fill in the table {name}.csv instead.</p></noscript>
<main>
<figure><img id="picture" alt="" hidden><p id="no-picture" hidden></p></figure>
<form autocomplete="off">
<div aria-live="polite"><span class="number" id="number"></span>{_captions(sample.kind)}</div>
{_fieldsets(sample.kind)}<label class="cannot"><input type="checkbox" id="cannot">
{CANNOT_JUDGE} <kbd>0</kbd></label>
<label class="comment"><span>Comment (optional) <kbd>c</kbd></span>
<textarea id="comment" rows="2" maxlength="2000" dir="auto"></textarea></label>
<div class="move"><button type="button" id="back" aria-label="Back">← Back</button>
<button type="button" class="main" id="next" aria-label="Next">Next →</button>
<button type="button" id="open">Next unanswered <kbd>n</kbd></button></div>
<label class="by-itself"><input type="checkbox" id="by-itself">
Go to the next one when I have answered</label>
</form>
</main>
<dialog id="guide" aria-label="Guidelines">
<button type="button" class="close" id="guide-close">Close <kbd>Esc</kbd></button>{_guide(sample)}</dialog>
"""
    for i, row in enumerate(rows):
        if (picture := picture_of(row.item)) is not None:
            yield f'<script type="text/plain" id="picture-{i}">{picture}</script>\n'
    # Without "<", nothing in the JSON can end the element.
    as_json = json.dumps(_data(sample, name, rows, missing)).replace("<", "\\u003c")
    yield f'<script type="application/json" id="sheet">{as_json}</script>\n'


def _data(sample: Sample, name: str, rows: list[SheetRow], missing: dict[int, str]) -> dict[str, Any]:
    """What sheet.js works with."""
    columns = COLUMNS[sample.kind]
    return {
        "sample": sample.sample_id,
        "rater": rows[0].rater,
        "file": f"{name}.csv",
        "columns": columns,
        "formula": FORMULA,
        "cannot_judge": CANNOT_JUDGE,
        "caption_columns": [column for column in columns if column.endswith("caption")],
        "questions": {question.name: list(question.answers) for question in QUESTIONS[sample.kind]},
        "rows": [
            {"item_id": row.item_id, "number": row.position, "captions": sample.captions_of(row)}
            | ({"missing": missing[row.item]} if row.item in missing else {})
            for row in rows
        ],
    }


def _captions(kind: Kind) -> str:
    if kind == "captions":
        return '<p class="caption" id="caption-0" dir="auto"></p>'
    return "".join(
        f'<div class="pair"><span>{side}</span><p class="caption" id="caption-{i}" dir="auto"></p></div>'
        for i, side in enumerate(("first", "second"))
    )


def _fieldsets(kind: Kind) -> str:
    fieldsets, key = "", 1
    for question in QUESTIONS[kind]:
        fieldsets += _fieldset(question, key)
        key += len(question.answers)
    return fieldsets


def _fieldset(question: Question, first_key: int) -> str:
    answers = "".join(
        f'<label class="answer"><input type="radio" name="{question.name}" value="{answer}">'
        f"<b>{answer} <kbd>{key}</kbd></b><small>{text(hint)}</small></label>"
        for key, (answer, hint) in enumerate(question.answers.items(), first_key)
    )
    return (
        f'<fieldset id="{question.name}"><legend>{text(question.text)}</legend>'
        f'<div class="answers">{answers}</div></fieldset>\n'
    )


def _guide(sample: Sample) -> str:
    questions = QUESTIONS[sample.kind]
    last_key = sum(len(question.answers) for question in questions)
    keys = ", ".join(f"<kbd>{key}</kbd> {what}" for key, what in _KEYS.items()).replace(" or,", " or")
    cells = "; ".join(
        f"<code>{question.name}</code> is {', '.join(question.answers)} or {CANNOT_JUDGE}"
        for question in questions
    )
    return f"""<div class="guide">{_guidance(sample)}<h2>Keys</h2>
<p><kbd>1</kbd> to <kbd>{last_key}</kbd> choose the answers in their order, {keys}.</p>
<h2>Your answers</h2>
<p>This browser keeps your answers as you give them. You can close the page and open it again at any time.
When you are done, download your answers and send the file to the person who asked you.</p>
<p>If you prefer a spreadsheet program, fill in the CSV table with the name of your sheet: {cells}.
Leave the other columns as they are.</p></div>"""


def _guidance(sample: Sample) -> str:
    return _file("guidance_pairs.html" if sample.kind == "comparison" else "guidance.html")


def _style() -> str:
    return STYLE + _file("sheet.css")


def _file(name: str) -> str:
    return (Path(__file__).parent / name).read_text(encoding="utf-8")
