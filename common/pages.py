"""What all HTML pages that people open in a browser share: looks, safety, and no need of a network.

Texts and pictures come from strangers or from a model. Text is therefore escaped, pictures are decoded and
encoded again (which removes EXIF), and each page forbids every request, and every script but its own.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterable, Iterator
from html import escape

MAX_TEXT = 300  # the most characters of a text that are shown

STYLE = """
:root {
  color-scheme: light dark;
  --paper: #faf9f7; --card: #fff; --ink: #1c1b19; --soft: #625e57; --line: #e3dfd8; --well: #efece7;
  --filled: #0c7565; --native: #8492a6; --left: #dcd7cf; --bad: #a8371f; --middle: #c99a3f;
}
@media (prefers-color-scheme: dark) {
  :root {
    --paper: #141413; --card: #1d1c1b; --ink: #eceae6; --soft: #a8a49c; --line: #32302d; --well: #232220;
    --filled: #45b8a3; --native: #76859b; --left: #3b3936; --bad: #f2937d; --middle: #d9b266;
  }
}
* { box-sizing: border-box; }
html { scroll-behavior: smooth; scroll-padding-top: 4rem; -webkit-text-size-adjust: 100%; }
@media (prefers-reduced-motion: reduce) { html { scroll-behavior: auto; } }
body {
  margin: 0 auto; max-width: 84rem; padding: clamp(1.5rem, 4vw, 3.5rem) clamp(1rem, 4vw, 3rem) 4rem;
  background: var(--paper); color: var(--ink);
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif;
}
h1 {
  margin: 0 0 .75rem; font-size: clamp(1.5rem, 1.2rem + 1.6vw, 2.25rem); font-weight: 650;
  line-height: 1.15; letter-spacing: -.02em; text-wrap: balance;
}
h2 { margin: 0; font-size: 1.25rem; font-weight: 650; letter-spacing: -.01em; }
p { margin: 0; }
.lead { max-width: 46rem; font-size: clamp(1rem, .95rem + .3vw, 1.15rem); text-wrap: pretty; }
code {
  font: .9em/1.4 ui-monospace, SFMono-Regular, Menlo, Consolas, monospace;
  overflow-wrap: anywhere; color: var(--ink);
}
"""


def document(
    title: str, style: str, body: Iterable[str], *, script: str = "", head: str = ""
) -> Iterator[str]:
    """Yields an HTML page in parts.

    `title` is text and gets escaped; `head` and `body` are HTML. `style` and `script` must be our own: they
    are the only ones that the page's content security policy allows.
    """
    policy = f"default-src 'none'; img-src data:; style-src 'sha256-{_digest(style)}';"
    if script:
        policy += f" script-src 'sha256-{_digest(script)}';"
    yield f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
{head}<meta http-equiv="Content-Security-Policy" content="{policy} base-uri 'none'; form-action 'none'">
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
    """Escapes a text for HTML content and quoted attributes, as one line of at most `limit` characters."""
    line = " ".join(re.sub(r"[\x00-\x1f\x7f-\x9f]", " ", value).split())
    return escape(line if len(line) <= limit else line[:limit].rstrip() + "…")


def _digest(content: str) -> str:
    return base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
