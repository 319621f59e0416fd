"""The rating sheets: one HTML file per rater that needs neither network nor server, the same as a table, and
a page of guidance.

Nothing in them tells which model or recipe wrote a caption, which rows are repeats or gold, or where a
picture comes from.
"""

from __future__ import annotations

import base64
import csv
import io
import itertools
import json
import math
import os
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..common.files import write_whole
from ..common.pages import STYLE, document, text
from ..images.thumbnails import Picture, Pictures
from .answers import SheetError, holds_answers
from .questions import CANNOT_JUDGE, COLUMNS, FORMULA, QUESTIONS, Question, defused
from .sample import Sample, SheetRow

SIDE, MAX_BYTES = 800, 60_000  # of an embedded picture: pixels of the longer side, bytes
ROWS_PER_FILE = 600  # about 40 MB; a longer sheet comes in parts
_MARK = '<meta name="captioner-sheet">\n'  # tells our pages from others
TITLES = {
    "captions": "Do these captions fit their pictures?",
    "comparison": "Which caption fits the picture better?",
}

OnStep = Callable[[str, int, int], None]  # what is being done, how much of it is done, of how much


@dataclass(frozen=True)
class Written:
    """The files in the folder, and why some items have no picture: {reason: items}."""

    files: list[str]
    without_picture: dict[str, int]


def write_sheets(
    sample: Sample, folder: Path, pictures: Pictures, *, on_step: OnStep = lambda what, done, total: None
) -> Written:
    """Writes the sheets of every rater and the guidance into `folder`, each file whole or not at all.

    The same sample gives the same files. Raises SheetError as `check_folder` does, OSError if the folder
    cannot be written.
    """
    check_folder(sample, folder)
    sheets = _sheets(sample)
    with tempfile.TemporaryFile(dir=folder) as kept:
        # not in memory: ten thousand pictures are half a gigabyte
        places, missing = dict[int, tuple[int, int]](), dict[int, str]()
        shown = pictures((item.image, item.image_sha256) for item in sample.items)
        for done, (item, picture) in enumerate(zip(sample.items, shown, strict=True), 1):
            if isinstance(picture, Picture):
                places[item.item] = kept.tell(), kept.write(base64.b64encode(picture.jpeg))
            else:
                missing[item.item] = picture
            on_step("pictures", done, len(sample.items))

        def picture_of(item: int) -> str | None:
            if item not in places:
                return None
            kept.seek(places[item][0])
            return kept.read(places[item][1]).decode()

        write_whole(
            folder / "guidance.html",
            document(
                "How to judge the captions",
                _style(),
                [f'<div class="page"><h1>How to judge the captions</h1>{_guide(sample)}</div>\n'],
                head=_MARK,
            ),
        )
        for done, (name, rows) in enumerate(sheets.items(), 1):
            others = [other for other, some in sheets.items() if some[0].rater == rows[0].rater]
            write_whole(folder / f"{name}.html", _page(sample, name, rows, others, missing, picture_of))
            write_whole(folder / f"{name}.csv", _table(sample, rows), encoding="utf-8-sig")
            on_step("sheets", done, len(sheets))
    reasons = list(missing.values())
    return Written(
        ["guidance.html", *(f"{name}.{ending}" for name in sheets for ending in ("html", "csv"))],
        {reason: reasons.count(reason) for reason in sorted(set(reasons))},
    )


def check_folder(sample: Sample, folder: Path) -> None:
    """Makes `folder`.

    Raises SheetError where sheets in it would lose answers, get mixed with those of another sample, or
    replace something else.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except FileExistsError:
        raise SheetError(f"{folder} is a file: name a folder for the sheets") from None
    except OSError as error:
        raise SheetError(f"the folder {folder} cannot be made: {error.strerror}") from None
    if not os.access(folder, os.W_OK):
        raise SheetError(f"{folder} cannot be written: name another folder")
    names = _sheets(sample)
    for path in sorted(folder.glob("*.csv")):
        other, answered = holds_answers(path)
        if other and other != sample.sample_id:
            raise SheetError(
                f"{path} is a sheet of another sample ({other}): name an empty folder, so that the two do not get mixed"
            )
        if path.stem in names and (answered or not other):
            what = (
                "holds answers already: they would be lost"
                if other
                else "is no sheet of ours, and would be lost"
            )
            raise SheetError(f"{path} {what}; name another folder, or move the file")
    for path in [folder / f"{name}.html" for name in ("guidance", *names)]:
        if path.exists() and _MARK not in path.read_bytes()[:4096].decode(errors="replace"):
            raise SheetError(
                f"{path} is no page of ours, and would be lost; name another folder, or move the file"
            )


def _sheets(sample: Sample) -> dict[str, list[SheetRow]]:
    """The rows of each sheet by its name; those of a rater with many are in parts."""
    sheets = {}
    for rater, some in itertools.groupby(sample.rows, key=lambda row: row.rater):
        rows = list(some)
        parts = math.ceil(len(rows) / ROWS_PER_FILE)
        size = math.ceil(len(rows) / parts)
        for i in range(parts):
            sheets[rater if parts == 1 else f"{rater}-part-{i + 1:0{len(str(parts))}}"] = rows[
                i * size : (i + 1) * size
            ]
    return sheets


def _page(
    sample: Sample,
    name: str,
    rows: list[SheetRow],
    others: list[str],
    missing: dict[int, str],
    picture_of: Callable[[int], str | None],
) -> Iterator[str]:
    questions = QUESTIONS[sample.kind]
    data: dict[str, Any] = {
        "sample": sample.sample_id, "rater": rows[0].rater, "file": f"{name}.csv", "columns": COLUMNS[sample.kind], "formula": FORMULA, "cannot_judge": CANNOT_JUDGE,
        "caption_columns": [column for column in COLUMNS[sample.kind] if column.endswith("caption")], "questions": {q.name: list(q.answers) for q in questions},
        "rows": [{"item_id": row.item_id, "number": row.position, "captions": captions(sample, row)} | ({"missing": missing[row.item]} if row.item in missing else {}) for row in rows],
    }  # fmt: skip
    yield from document(
        TITLES[sample.kind],
        _style(),
        _body(sample, name, rows, others, data, picture_of),
        script=_file("sheet.js"),
        head=_MARK,
    )


def captions(sample: Sample, row: SheetRow) -> list[str]:
    """The captions of a row in the order in which the sheet shows them."""
    item = sample.items[row.item - 1]
    both = [item.caption] if item.other_caption is None else [item.caption, item.other_caption]
    return both[::-1] if row.swapped else both


def _body(
    sample: Sample,
    name: str,
    rows: list[SheetRow],
    others: list[str],
    data: dict[str, Any],
    picture_of: Callable[[int], str | None],
) -> Iterator[str]:
    part = f", part {others.index(name) + 1} of {len(others)}" if len(others) > 1 else ""
    following = others[others.index(name) + 1] if name != others[-1] else None
    more = (
        f' <a href="{following}.html">Go on with part {others.index(following) + 1}</a>' if following else ""
    )
    shown = '<p class="caption" id="caption-0" dir="auto"></p>'
    if sample.kind == "comparison":
        shown = "".join(
            f'<div class="pair"><span>{which}</span><p class="caption" id="caption-{i}" dir="auto"></p></div>'
            for i, which in enumerate(("first", "second"))
        )
    key, fieldsets = 1, ""
    for question in QUESTIONS[sample.kind]:
        fieldsets += _fieldset(question, key)
        key += len(question.answers)
    yield f"""<header class="top">
<div class="title"><h1>{TITLES[sample.kind]}</h1><span class="who">{rows[0].rater}{part}</span></div>
<div class="how-far"><progress id="progress" max="{len(rows)}" value="0" aria-label="Captions judged"></progress><span id="count" role="status"></span></div>
<div class="tools"><button type="button" id="guide-open">Guidelines <kbd>g</kbd></button><button type="button" id="download">Download<span class="wide"> answers</span> <kbd>d</kbd></button></div>
</header>
<p class="notice" id="not-kept" role="alert" hidden>This browser does not keep your answers: do not close the page before you have downloaded them.</p>
<p class="notice" id="said" role="status" hidden></p>
<p class="notice" id="all-done" role="status" hidden>All are judged, thank you. <button type="button" class="main" id="download-all">Download answers</button>{more}</p>
<noscript><p class="notice">This page needs JavaScript. Or fill in the table {name}.csv.</p></noscript>
<main>
<figure><img id="picture" alt="" hidden><p id="no-picture" hidden></p></figure>
<form autocomplete="off">
<div aria-live="polite"><span class="number" id="number"></span>{shown}</div>
{fieldsets}<label class="cannot"><input type="checkbox" id="cannot"> {CANNOT_JUDGE} <kbd>0</kbd></label>
<label class="comment"><span>Comment, if you like <kbd>c</kbd></span><textarea id="comment" rows="2" maxlength="2000" dir="auto"></textarea></label>
<div class="move"><button type="button" id="back" aria-label="Back">← Back</button><button type="button" class="main" id="next" aria-label="Next">Next →</button>
<button type="button" id="open">Next open one <kbd>n</kbd></button></div>
<label class="by-itself"><input type="checkbox" id="by-itself"> go on by itself when all is answered</label>
</form>
</main>
<dialog id="guide" aria-label="Guidelines"><button type="button" class="close" id="guide-close">Close <kbd>Esc</kbd></button>{_guide(sample)}</dialog>
"""
    for i, row in enumerate(rows):
        if (picture := picture_of(row.item)) is not None:
            yield f'<script type="text/plain" id="picture-{i}">{picture}</script>\n'
    as_json = json.dumps(data).replace("<", "\\u003c")  # nothing in it ends the element
    yield f'<script type="application/json" id="sheet">{as_json}</script>\n'


def _fieldset(question: Question, key: int) -> str:
    answers = "".join(
        f'<label class="answer"><input type="radio" name="{question.name}" value="{answer}"><b>{answer} <kbd>{key + i}</kbd></b><small>{text(hint)}</small></label>'
        for i, (answer, hint) in enumerate(question.answers.items())
    )
    return f'<fieldset id="{question.name}"><legend>{text(question.text)}</legend><div class="answers">{answers}</div></fieldset>\n'


def _guide(sample: Sample) -> str:
    keys = " ".join(
        f"<kbd>{key}</kbd> {what}"
        for key, what in (
            ("←", "back,"),
            ("→", "or"),
            ("Enter", "next,"),
            ("n", "the next one that is open,"),
            ("0", "cannot judge,"),
            ("c", "comment,"),
            ("d", "download,"),
            ("g", "this page."),
        )
    )
    end = sum(len(question.answers) for question in QUESTIONS[sample.kind])
    kept = "Your answers are kept in this browser as you give them: close the page and open it again whenever you like. When you are done, download them and send the file to whoever asked you."
    tables = f"Who prefers a spreadsheet program fills in the table beside the sheet: {_words(sample)}. Leave the other columns as they are."
    return f'<div class="guide">{_file("guidance_pairs.html" if sample.kind == "comparison" else "guidance.html")}<h2>Keys</h2><p><kbd>1</kbd> to <kbd>{end}</kbd> the answers in their order, {keys}</p><p>{kept}</p><p>{tables}</p></div>'


def _words(sample: Sample) -> str:
    return "; ".join(
        f"<code>{question.name}</code> is {', '.join(question.answers)} or {CANNOT_JUDGE}"
        for question in QUESTIONS[sample.kind]
    )


def _table(sample: Sample, rows: list[SheetRow]) -> Iterator[str]:
    columns = COLUMNS[sample.kind]
    file = io.StringIO()
    writer = csv.writer(file, quoting=csv.QUOTE_ALL)
    writer.writerow(columns)
    for row in rows:
        known = dict(
            zip(
                [column for column in columns if column.endswith("caption")],
                captions(sample, row),
                strict=True,
            )
        )
        known |= {
            "sample": sample.sample_id,
            "rater": row.rater,
            "number": str(row.position),
            "item_id": row.item_id,
        }
        writer.writerow([defused(known.get(column, "")) for column in columns])
    yield file.getvalue()


def _style() -> str:
    return STYLE + _file("sheet.css")


def _file(name: str) -> str:
    return (Path(__file__).parent / name).read_text(encoding="utf-8")
