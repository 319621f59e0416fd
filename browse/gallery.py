"""The gallery: the store's pictures with their captions on one HTML page that needs no network.

Everything on it was written by strangers or by a model. So all text is escaped, pictures are decoded and
encoded again (which drops EXIF), and the page forbids itself scripts, forms and every request.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..common.files import write_whole
from ..common.pages import STYLE, document, text
from ..common.terminal import plural
from ..images.thumbnails import Picture, pictures
from ..store import Connection, one_moment
from ..store.recipes import BUILTIN
from ..store.stats import coverage
from . import stored
from .stored import GalleryPin

SIDE = 240  # pixels of a picture's longer side
EVIDENCE = 3  # board titles and queries shown of a pin
TITLE = "Pins and their captions"

_LANGUAGE = re.compile(r"[A-Za-z]{2,3}(?:[-_][A-Za-z0-9]{2,8}){0,3}")
_SECTIONS = {  # name in the navigation, heading, explanation
    "filled": (
        "Filled in",
        "Filled in by captioner",
        "Captions made from the picture alone, unless a person wrote them. Below them: text that the pin had"
        " already.",
    ),
    "native": ("Had text", "Had text already", "What people wrote themselves."),
    "failed": (
        "Failed",
        "Rejected or failed",
        "Captions that did not pass the checks, and pictures that could not be read.",
    ),
    "waiting": (
        "To do",
        "Still to do",
        "These pins have no text and no caption yet. The next run captions them.",
    ),
}


def write_gallery(conn: Connection, path: Path, *, limit: int = 400, title: str = TITLE) -> int:
    """Writes the page of the store's pins to `path`, and returns how many pins it shows.

    The file is written whole or not at all. It has at most `limit` pins, some of every section, with pictures
    of at most 240 pixels: about 4 MB for 400 pins. A picture that cannot be read is shown as missing. Raises
    OSError if the file cannot be written.
    """
    path, style = Path(path), _style()
    with one_moment(conn):
        state = stored.state_digest(conn, style)
        covered: dict[str, Any] = {**coverage(conn)}
        covered["title_captioned"] = stored.pins_with_title_captioned(conn)
        counts = stored.section_counts(conn)
        pins = {
            section: stored.gallery_pins(conn, section, n, sampled=n < counts[section])
            for section, n in _quotas(counts, limit).items()
        }
    head = f'<meta name="captioner-state" content="{state}">\n'
    write_whole(path, document(title, style, _body(title, covered, counts, pins), head=head))
    return sum(map(len, pins.values()))


def is_current(conn: Connection, path: Path) -> bool:
    """Whether `path` is a gallery of the store as it is now."""
    try:
        with Path(path).open("rb") as file:
            return stored.state_digest(conn, _style()).encode() in file.read(4096)
    except OSError:
        return False


def _style() -> str:
    return STYLE + (Path(__file__).parent / "gallery.css").read_text(encoding="utf-8")


def _quotas(counts: dict[str, int], limit: int) -> dict[str, int]:
    """How many pins to show of each section that has any.

    Each section gets a fifth of the page. The rest of the page goes to the sections in their order.
    """
    quotas = {
        section: min(counts[section], max(0, limit) // 5) for section in _SECTIONS if counts.get(section)
    }
    for section in quotas:
        quotas[section] += min(counts[section] - quotas[section], max(0, limit) - sum(quotas.values()))
    return quotas


def _body(
    title: str, covered: dict[str, Any], counts: dict[str, int], pins: dict[str, list[GalleryPin]]
) -> Iterator[str]:
    yield f"""<header>
<h1>{text(title)}</h1>
<p class="lead">{_summary(covered)}</p>
{_bar(covered)}{_models(covered)}</header>
"""
    if not pins:
        return
    links = "".join(
        f'<li><a href="#{section}">{_SECTIONS[section][0]}'
        f' <span class="number">{counts[section]:,}</span></a></li>'
        for section in pins
    )
    yield f'<nav aria-label="Sections"><ul>{links}</ul></nav>\n<main>\n'
    images = ((pin.image, None) for some in pins.values() for pin in some)
    shown = pictures(images, SIDE)
    for section, some in pins.items():
        _, heading, explanation = _SECTIONS[section]
        if len(some) < counts[section]:
            explanation += f" A sample of {len(some):,} out of {counts[section]:,}."
        yield f"""<section id="{section}" aria-labelledby="{section}-heading">
<h2 id="{section}-heading">{heading}</h2>
<p>{explanation}</p>
<ul class="pins">
"""
        yield from map(_card, some, itertools.islice(shown, len(some)))
        yield "</ul>\n</section>\n"
    yield "</main>\n"


def _summary(covered: dict[str, Any]) -> str:
    """Coverage in one sentence, or in two if pins that had only a title got a caption, too."""
    pins, native, filled = covered["pins"], covered["native_text"], covered["only_caption"]
    if not pins:
        return "This store has no pins yet."
    without = pins - native
    sentence = f"{native:,} of {plural(pins, 'pin')} ({_percent(native, pins)}) came with text of their own"
    if not without:
        sentence = f"All {plural(pins, 'pin')} came with text of their own"
    elif not filled:
        sentence += f", and the other {without:,} have no caption yet"
    else:
        described = f"the other {without:,}" if filled == without else f"{filled:,} of the other {without:,}"
        findable = _percent(native + filled, pins)
        sentence += f"; captioner described {described}, so {findable} can now be found by words"
    if covered["title_captioned"]:
        sentence += f". It also captioned {plural(covered['title_captioned'], 'pin')} that had only a title"
    return f"{sentence}."


def _bar(covered: dict[str, Any]) -> str:
    pins, native, filled = covered["pins"], covered["native_text"], covered["only_caption"]
    if not pins:
        return ""
    parts = {
        "native": ("with text of their own", native),
        "filled": ("filled in by captioner", filled),
        "left": ("without any text", pins - native - filled),
    }
    rects = legend = ""
    start = 0
    for name, (label, n) in parts.items():
        x, width = 1000 * start / pins, 1000 * n / pins
        rects += f'<rect class="{name}" x="{x:.1f}" width="{width:.1f}" height="10"/>'
        legend += (
            f'<li class="{name}"><b>{_percent(n, pins)}</b> {label} <span class="number">({n:,})</span></li>'
        )
        start += n
    in_words = ", ".join(f"{_percent(n, pins)} {label}" for label, n in parts.values())
    return (
        '<svg class="bar" viewBox="0 0 1000 10" preserveAspectRatio="none" role="img" '
        f'aria-label="{in_words}">{rects}</svg>\n<ul class="legend">{legend}</ul>\n'
    )


def _models(covered: dict[str, Any]) -> str:
    totals: dict[str, int] = {}
    for recipe in covered["models"].values():
        totals[recipe["model"]] = totals.get(recipe["model"], 0) + recipe["captions"]
    by_people = covered["by_people"]
    if not totals:
        return f'<p class="note">{_written_by_people(by_people)}</p>\n' if by_people else ""
    models = ", ".join(
        f"<code>{text(model)}</code>" + (f" ({n:,})" if len(totals) > 1 else "")
        for model, n in totals.items()
    )
    note = f"Captions written by {models}."
    if by_people:
        note += f" {_written_by_people(by_people)}"
    if BUILTIN in totals:
        note += (
            f" The {BUILTIN} model is small and <strong>knows drawn pictures like these only</strong>. "
            "For photographs, give <code>captioner run</code> a full BLIP-2 model, for instance "
            "<code>--model Salesforce/blip2-flan-t5-xl</code>."
        )
    return f'<p class="note">{note}</p>\n'


def _written_by_people(captions: int) -> str:
    return f"People wrote {plural(captions, 'caption')} themselves."


def _card(pin: GalleryPin, picture: Picture | str) -> str:
    alt = pin.caption or pin.title or pin.description or "a picture without a description"
    if isinstance(picture, str):
        shown = f'<p class="none">{"no picture" if pin.status == "failed" else text(picture)}</p>'
    else:
        shown = (
            f'<img src="{picture.uri}" width="{picture.width}" height="{picture.height}" '
            f'alt="{text(alt)}" decoding="async">'
        )
    lines = "".join([*_texts(pin), *_evidence(pin)])
    return (
        f"<li><figure>{shown}<figcaption>{lines}"
        f'<p class="id" dir="auto">{text(pin.pin_id)}</p></figcaption></figure></li>\n'
    )


def _texts(pin: GalleryPin) -> Iterator[str]:
    """The caption, or why there is none, and the pin's own title and description."""
    own = {"title": pin.title, "description": pin.description}
    language = (
        f' lang="{(pin.locale or "").replace("_", "-")}"' if _LANGUAGE.fullmatch(pin.locale or "") else ""
    )
    if pin.section == "native":
        written = [value for value in own.values() if value]
        for i, sentence in enumerate(written):
            yield f'<p class="{"own" if i else "main"}" dir="auto"{language}>{text(sentence)}</p>'
        return
    if pin.caption:
        yield f'<p class="main" dir="auto">{text(pin.caption)}</p>'
        if pin.by_person:
            yield '<p class="own">Written by a person.</p>'
    elif pin.status:
        yield f'<p class="bad">{pin.status.capitalize()}: {text(pin.reason or "")}</p>'
        if pin.rejected_text:
            yield f'<p dir="auto">“{text(pin.rejected_text)}”</p>'
    for name, value in own.items():
        if value:
            yield f'<p class="own" dir="auto">Its {name}: <span{language}>{text(value)}</span></p>'


def _evidence(pin: GalleryPin) -> Iterator[str]:
    for label, texts in (("Saved to boards", pin.board_titles), ("Found by", pin.engaged_queries)):
        if texts:
            best = ", ".join(f"<bdi>{text(one)}</bdi>" for one in texts[:EVIDENCE])
            yield f'<p class="own">{label}: {best}</p>'


def _percent(n: int, total: int) -> str:
    """A share in whole per cent. Only none and all of them are shown as 0% and 100%."""
    return f"{min(99, max(1, round(100 * n / total))) if 0 < n < total else 100 * n // total}%"
