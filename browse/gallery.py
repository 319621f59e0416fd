"""A page to look at: the store's pictures with their captions, in one HTML file that needs no network.

Everything in it was written by strangers or by a model: all text is escaped, pictures are decoded and encoded
anew (which drops EXIF), and the page forbids itself scripts, forms and every request.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import re
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..common.files import write_whole
from ..common.pages import MAX_TEXT, STYLE, document, text
from ..images.thumbnails import Picture, pictures
from ..store import rules
from ..store.connection import one_moment
from ..store.recipes import BUILTIN
from ..store.stats import coverage

SIDE = 240  # pixels of a picture's longer side
EVIDENCE = 3  # board titles and queries shown of a pin
TITLE = "Pins and their captions"

_LANGUAGE = re.compile(r"[A-Za-z]{2,3}(?:[-_][A-Za-z0-9]{2,8}){0,3}")
_SECTIONS = {  # name in the navigation, heading, what it is
    "filled": (
        "Filled in",
        "Filled in by captioner",
        "Captions made from the picture alone. Where a pin had some text of its own, it stands below.",
    ),
    "native": ("Had text", "Had text already", "What people wrote themselves."),
    "failed": (
        "Failed",
        "Rejected or failed",
        "Captions that did not pass the checks, and pictures that could not be read.",
    ),
    "waiting": ("To do", "Still to do", "Nothing is known of these pins yet: the next run takes them up."),
}

# One row per pin, with its section and, where it has no caption that holds, its newest row that is not ok.
_SHOWN = f"""
WITH shown AS (
    SELECT e.pin_id, substr(e.title, 1, :chars) AS title, substr(e.description, 1, :chars) AS description, substr(e.caption, 1, :chars) AS caption,
        e.board_titles, e.engaged_queries, e.image, e.image_sha256, e.locale, c.status, c.reason, substr(c.text, 1, :chars) AS rejected,
        CASE WHEN e.caption IS NOT NULL THEN 'filled' WHEN c.status IS NOT NULL THEN 'failed'
            WHEN e.title IS NOT NULL OR e.description IS NOT NULL THEN 'native' ELSE 'waiting' END AS section
    FROM enriched_features e
    LEFT JOIN captions c ON e.caption IS NULL AND c.pin_id = e.pin_id AND c.status <> 'ok'
        AND c.recipe_id = {rules.newest_recipe("e", where="n.status <> 'ok'")})
"""
# Of a section that is not shown whole, the digests of the images draw a sample.
_ROWS = f"""{_SHOWN} SELECT * FROM shown WHERE section = :section
ORDER BY CASE WHEN :sampled THEN image_sha256 ELSE title IS NOT NULL OR description IS NOT NULL END, pin_id LIMIT :n"""
_TITLE_CAPTIONED = "SELECT count(*) FROM enriched_features WHERE title IS NOT NULL AND description IS NULL AND caption IS NOT NULL"

_STYLE = (
    STYLE
    + """
.bar { display: block; width: 100%; height: 10px; margin: 1.75rem 0 .75rem; border-radius: 5px; }
.bar .native { fill: var(--native); } .bar .filled { fill: var(--filled); } .bar .left { fill: var(--left); }
.legend { display: flex; flex-wrap: wrap; gap: .25rem 1.75rem; margin: 0; padding: 0; list-style: none; color: var(--soft); font-size: .925rem; }
.legend b { color: var(--ink); font-weight: 600; font-variant-numeric: tabular-nums; }
.legend li::before { content: ""; display: inline-block; width: .65em; height: .65em; margin-right: .5em; border-radius: 50%; background: var(--left); }
.legend .native::before { background: var(--native); } .legend .filled::before { background: var(--filled); }
.note { max-width: 46rem; margin-top: 1.75rem; padding-left: 1rem; border-left: 2px solid var(--line); color: var(--soft); font-size: .925rem; }
code { font: .9em/1.4 ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; overflow-wrap: anywhere; color: var(--ink); }
nav { position: sticky; top: 0; z-index: 1; margin: 2.25rem 0 0; background: var(--paper); border-bottom: 1px solid var(--line); }
nav ul { display: flex; gap: 1.5rem; margin: 0; padding: 0; list-style: none; overflow-x: auto; scrollbar-width: none; }
nav a { display: block; padding: .8rem 0; color: var(--ink); font-size: .925rem; font-weight: 550; text-decoration: none; white-space: nowrap; }
nav a:hover, nav a:focus-visible { text-decoration: underline; text-underline-offset: .3em; }
.number { margin-left: .15rem; color: var(--soft); font-weight: 400; font-variant-numeric: tabular-nums; }
section { padding-top: 2.25rem; }
section > p { max-width: 46rem; margin-bottom: 1.5rem; color: var(--soft); font-size: .925rem; }
.pins { columns: 12.5rem; column-gap: 1.25rem; margin: 0; padding: 0; list-style: none; }
.pins > li { break-inside: avoid; padding-bottom: 1.75rem; }
figure { margin: 0; }
img, .none { display: block; width: 100%; height: auto; border-radius: 10px; background: var(--well); }
.none { padding: 3rem 1rem; color: var(--soft); font-size: .875rem; text-align: center; }
figcaption { padding-top: .6rem; font-size: .95rem; line-height: 1.4; overflow-wrap: anywhere; }
figcaption > p + p { margin-top: .3rem; }
.main { font-weight: 500; }
.own, .id { color: var(--soft); font-size: .85rem; }
.id { font-size: .75rem; font-variant-numeric: tabular-nums; }
.bad { color: var(--bad); font-weight: 500; }
@media (max-width: 30rem) { .pins { columns: 2; column-gap: .875rem; } .pins > li { padding-bottom: 1.25rem; } figcaption { font-size: .875rem; } .own { font-size: .8rem; } }
@media print { nav { display: none; } }
"""
)


def write_gallery(conn: sqlite3.Connection, path: Path, *, limit: int = 400, title: str = TITLE) -> int:
    """Writes the page of the store's pins to `path`, whole or not at all, and returns how many pins it shows.

    At most `limit` pins, of every section some, pictures of at most 240 pixels: about 4 MB for 400. Pictures
    that cannot be had are shown as such, never an error. Raises OSError if the file cannot be written.
    """
    path = Path(path)
    with one_moment(conn):
        state, covered = _state(conn), coverage(conn)
        covered["title_captioned"] = conn.execute(_TITLE_CAPTIONED).fetchone()[0]
        counts = {
            row["section"]: row["n"]
            for row in conn.execute(
                f"{_SHOWN} SELECT section, count(*) AS n FROM shown GROUP BY section", {"chars": MAX_TEXT + 1}
            )
        }
        rows = {}
        for section, n in _quotas(counts, limit).items():
            parameters = {"section": section, "n": n, "sampled": n < counts[section], "chars": MAX_TEXT + 1}
            rows[section] = conn.execute(_ROWS, parameters).fetchall()
    write_whole(path, _page(title, state, covered, counts, rows))
    return sum(map(len, rows.values()))


def is_current(conn: sqlite3.Connection, path: Path) -> bool:
    """True when `path` is a gallery that was written from the store as it is now."""
    try:
        with Path(path).open("rb") as file:
            return _state(conn).encode() in file.read(4096)
    except OSError:
        return False


def _state(conn: sqlite3.Connection) -> str:
    """A digest that changes with every ingest, run and batch."""
    row = conn.execute(
        """SELECT (SELECT count(*) || ' ' || count(deleted_at) FROM pins), (SELECT max(run_id) || ' ' || count(finished_at) FROM runs),
        (SELECT count(*) || ' ' || max(updated_at) FROM captions)"""
    ).fetchone()
    return hashlib.sha256(json.dumps([tuple(row), _STYLE]).encode()).hexdigest()[:32]


def _quotas(counts: dict[str, int], limit: int) -> dict[str, int]:
    """How many pins to show of each section that has any: a fifth of the page each, what is left to the first
    ones.
    """
    quotas = {
        section: min(counts[section], max(0, limit) // 5) for section in _SECTIONS if counts.get(section)
    }
    for section in quotas:
        quotas[section] += min(counts[section] - quotas[section], max(0, limit) - sum(quotas.values()))
    return quotas


def _page(
    title: str,
    state: str,
    covered: dict[str, Any],
    counts: dict[str, int],
    rows: dict[str, list[sqlite3.Row]],
) -> Iterator[str]:
    yield from document(
        title,
        _STYLE,
        _body(title, covered, counts, rows),
        head=f'<meta name="captioner-state" content="{state}">\n',
    )


def _body(
    title: str, covered: dict[str, Any], counts: dict[str, int], rows: dict[str, list[sqlite3.Row]]
) -> Iterator[str]:
    yield f"""<header>
<h1>{text(title)}</h1>
<p class="lead">{_summary(covered)}</p>
{_bar(covered)}{_models(covered)}</header>
"""
    if rows:
        links = "".join(
            f'<li><a href="#{s}">{_SECTIONS[s][0]} <span class="number">{counts[s]:,}</span></a></li>'
            for s in rows
        )
        yield f'<nav aria-label="Sections"><ul>{links}</ul></nav>\n<main>\n'
        shown = pictures(((pin["image"], None) for pins in rows.values() for pin in pins), SIDE)
        for section, pins in rows.items():
            _, heading, what = _SECTIONS[section]
            part = (
                f" A sample of {len(pins):,} out of {counts[section]:,}."
                if len(pins) < counts[section]
                else ""
            )
            yield f'<section id="{section}" aria-labelledby="{section}-heading">\n<h2 id="{section}-heading">{heading}</h2>\n<p>{what}{part}</p>\n<ul class="pins">\n'
            yield from map(_card, pins, itertools.islice(shown, len(pins)))
            yield "</ul>\n</section>\n"
        yield "</main>\n"


def _summary(covered: dict[str, Any]) -> str:
    """Coverage in one sentence, or two where pins with a title alone got a caption too."""
    pins, native, filled = covered["pins"], covered["native_text"], covered["only_caption"]
    if not pins:
        return "This store has no pins yet."
    silent = pins - native
    said = f"{native:,} of {_n(pins, 'pin')} ({_percent(native, pins)}) came with text of their own"
    if not silent:
        said = f"All {_n(pins, 'pin')} came with text of their own"
    elif not filled:
        said += f", and the other {silent:,} have no caption yet"
    else:
        rest = f"the other {silent:,}" if filled == silent else f"{filled:,} of the other {silent:,}"
        said += (
            f"; captioner described {rest}, so {_percent(native + filled, pins)} can now be found by words"
        )
    return f"{said}." + (
        f" It also captioned {_n(covered['title_captioned'], 'pin')} with a title alone."
        if covered["title_captioned"]
        else ""
    )


def _bar(covered: dict[str, Any]) -> str:
    pins, native, filled = covered["pins"], covered["native_text"], covered["only_caption"]
    if not pins:
        return ""
    parts = {
        "native": ("with text of their own", native),
        "filled": ("filled in by captioner", filled),
        "left": ("without any text", pins - native - filled),
    }
    rects, start = "", 0.0
    for name, (_, n) in parts.items():
        rects += (
            f'<rect class="{name}" x="{1000 * start / pins:.1f}" width="{1000 * n / pins:.1f}" height="10"/>'
        )
        start += n
    legend = "".join(
        f'<li class="{name}"><b>{_percent(n, pins)}</b> {what} <span class="number">({n:,})</span></li>'
        for name, (what, n) in parts.items()
    )
    said = ", ".join(f"{_percent(n, pins)} {what}" for what, n in parts.values())
    return f'<svg class="bar" viewBox="0 0 1000 10" preserveAspectRatio="none" role="img" aria-label="{said}">{rects}</svg>\n<ul class="legend">{legend}</ul>\n'


def _models(covered: dict[str, Any]) -> str:
    totals: dict[str, int] = {}
    for recipe in covered["models"].values():
        totals[recipe["model"]] = totals.get(recipe["model"], 0) + recipe["captions"]
    if not totals:
        return ""
    names = ", ".join(
        f"<code>{text(name)}</code> ({n:,})" if len(totals) > 1 else f"<code>{text(name)}</code>"
        for name, n in totals.items()
    )
    builtin = (
        f" The {BUILTIN} model is small and <strong>knows drawn pictures like these only</strong>; for photographs, give"
        " <code>captioner run</code> a full BLIP-2 model, for instance <code>--model Salesforce/blip2-flan-t5-xl</code>."
    )
    return f'<p class="note">Captions written by {names}.{builtin if BUILTIN in totals else ""}</p>\n'


def _card(pin: sqlite3.Row, picture: Picture | str) -> str:
    own = [(name, pin[name]) for name in ("title", "description") if pin[name]]
    language = (
        f' lang="{pin["locale"].replace("_", "-")}"' if _LANGUAGE.fullmatch(pin["locale"] or "") else ""
    )
    alt = pin["caption"] or pin["title"] or pin["description"] or "a picture without a description"
    lines = []
    if pin["section"] == "native":
        lines += [
            f'<p class="{"own" if i else "main"}" dir="auto"{language}>{text(said)}</p>'
            for i, (_, said) in enumerate(own)
        ]
    else:
        if pin["caption"]:
            lines.append(f'<p class="main" dir="auto">{text(pin["caption"])}</p>')
        elif pin["status"]:
            lines.append(f'<p class="bad">{pin["status"].capitalize()}: {text(pin["reason"])}</p>')
            lines += [f'<p dir="auto">“{text(pin["rejected"])}”</p>'] if pin["rejected"] else []
        lines += [
            f'<p class="own" dir="auto">Its {name}: <span{language}>{text(said)}</span></p>'
            for name, said in own
        ]
    for label, found in (("Filed under", pin["board_titles"]), ("Found by", pin["engaged_queries"])):
        if best := json.loads(found or "[]")[:EVIDENCE]:
            lines.append(
                f'<p class="own">{label}: {", ".join(f"<bdi>{text(said)}</bdi>" for said in best)}</p>'
            )
    if isinstance(picture, str):
        shown = f'<p class="none">{"no picture" if pin["status"] == "failed" else text(picture)}</p>'
    else:
        shown = f'<img src="{picture.uri}" width="{picture.width}" height="{picture.height}" alt="{text(alt)}" decoding="async">'
    return f'<li><figure>{shown}<figcaption>{"".join(lines)}<p class="id" dir="auto">{text(pin["pin_id"])}</p></figcaption></figure></li>\n'


def _n(n: int, noun: str) -> str:
    return f"{n:,} {noun}{'' if n == 1 else 's'}"


def _percent(n: int, total: int) -> str:
    """A share in whole per cent; neither none nor all unless it is."""
    return f"{min(99, max(1, round(100 * n / total))) if 0 < n < total else 100 * n // total}%"
