"""`captioner stats`: how many pins have text, captions, titles and queries."""

from __future__ import annotations

from typing import Any

import click

from .verbs import STORE, command

# Counts of `coverage`, in the order in which they are printed, and what each is called.
_LABELS = {
    "native_text": "with native text",
    "title": "  title",
    "description": "  description",
    "caption": "with caption",
    "only_caption": "  and no native text",
    "board_titles": "with board titles",
    "engaged_queries": "with engaged queries",
    "any_text": "with any text",
    "waiting": "without description, not yet tried",
}


@command("stats")
@STORE
def stats(store: str, as_json: bool) -> dict[str, Any]:
    """Show how many pins have text, captions, titles and queries.

    \b
    captioner stats my.db
    """
    from ..common.terminal import table
    from ..store import open_store
    from ..store.stats import coverage

    counts = coverage(open_store(store, read_only=True))
    if as_json:
        return counts
    rows: list[tuple[str, int, bool]] = [("pins", counts["pins"], False)]
    if counts["products"]:
        rows.append(("  of these products", counts["products"], False))
    rows += [(label, counts[name], True) for name, label in _LABELS.items()]
    for status in ("rejected", "failed"):
        rows.append((status, counts[status], True))
        rows += [(f"  {reason}", n, False) for reason, n in counts["reasons"][status].items()]
    if counts["stale"]:
        rows.append(("caption of an earlier image", counts["stale"], True))
    rows += [
        ("images shared between pins", counts["shared_images"], False),
        ("  pins that share one", counts["pins_sharing_images"], False),
    ]
    if counts["rejected_rows"]:
        rows.append(("rows rejected at ingest", counts["rejected_rows"], False))
    click.echo(table(rows, counts["pins"]))
    for recipe, model in counts["models"].items():
        click.echo(f"{model['captions']:,} captions by {model['model']} in {model['dtype']}")
        click.echo(f"  recipe {recipe}" + (f", prompt {model['prompt']!r}" if model["prompt"] else ""))
    return counts
