"""What the pages have in common that people open in a browser: one file that needs no network, its looks, and
its safety.

Everything in them was written by strangers or by a model: text is escaped, pictures were decoded and encoded
anew (which drops EXIF), and each page forbids itself every request and all scripts but its own.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterable, Iterator
from html import escape

MAX_TEXT = 300  # characters shown of a text

STYLE = """
:root { color-scheme: light dark; --paper: #faf9f7; --card: #fff; --ink: #1c1b19; --soft: #625e57; --line: #e3dfd8; --well: #efece7;
  --filled: #0c7565; --native: #8492a6; --left: #dcd7cf; --bad: #a8371f; --middle: #c99a3f; }
@media (prefers-color-scheme: dark) { :root { --paper: #141413; --card: #1d1c1b; --ink: #eceae6; --soft: #a8a49c; --line: #32302d; --well: #232220;
  --filled: #45b8a3; --native: #76859b; --left: #3b3936; --bad: #f2937d; --middle: #d9b266; } }
* { box-sizing: border-box; }
html { scroll-behavior: smooth; scroll-padding-top: 4rem; -webkit-text-size-adjust: 100%; }
@media (prefers-reduced-motion: reduce) { html { scroll-behavior: auto; } }
body { margin: 0 auto; max-width: 84rem; padding: clamp(1.5rem, 4vw, 3.5rem) clamp(1rem, 4vw, 3rem) 4rem; background: var(--paper); color: var(--ink);
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }
h1 { margin: 0 0 .75rem; font-size: clamp(1.5rem, 1.2rem + 1.6vw, 2.25rem); font-weight: 650; line-height: 1.15; letter-spacing: -.02em; text-wrap: balance; }
h2 { margin: 0; font-size: 1.25rem; font-weight: 650; letter-spacing: -.01em; }
p { margin: 0; }
.lead { max-width: 46rem; font-size: clamp(1rem, .95rem + .3vw, 1.15rem); text-wrap: pretty; }
code { font: .9em/1.4 ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; overflow-wrap: anywhere; color: var(--ink); }
"""


def document(
    title: str, style: str, body: Iterable[str], *, script: str = "", head: str = ""
) -> Iterator[str]:
    """The parts of an HTML page.

    `style` and `script` are ours, and the only ones that the page lets run; `title` is escaped, `head` and
    `body` are HTML.
    """
    scripts = f" script-src 'sha256-{_digest(script)}';" if script else ""
    yield f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
{head}<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'sha256-{_digest(style)}';{scripts} base-uri 'none'; form-action 'none'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="referrer" content="no-referrer">
<title>{text(title)}</title>
<style>{style}</style>
</head>
<body>
"""
    yield from body
    yield (f"<script>{script}</script>\n" if script else "") + "</body>\n</html>\n"


def text(value: str, limit: int = MAX_TEXT) -> str:
    """Text for HTML content and quoted attributes: one line, of bounded length, nothing in it means anything."""
    line = " ".join(re.sub(r"[\x00-\x1f\x7f-\x9f]", " ", value).split())
    return escape(line if len(line) <= limit else line[:limit].rstrip() + "…")


def _digest(content: str) -> str:
    return base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
