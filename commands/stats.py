"""`captioner stats`: how many pins have text, captions, titles and queries."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from .verbs import STORE, command

if TYPE_CHECKING:
    from ..store.stats import Coverage


@command("stats")
@STORE
def stats(store: str, as_json: bool) -> Coverage:
    """Show how many pins have text, captions, titles and queries.

    \b
    captioner stats my.db
    """
    from ..common.terminal import plural, table
    from ..store import open_store
    from ..store.stats import coverage

    counts = coverage(open_store(store, read_only=True))
    if as_json:
        return counts
    rows: list[tuple[str, int, bool]] = [("pins", counts["pins"], False)]
    if counts["products"]:
        rows.append(("  of these products", counts["products"], False))
    rows += [(label, n, True) for label, n in _labelled(counts)]
    for status, n, reasons in (
        ("rejected", counts["rejected"], counts["reasons"]["rejected"]),
        ("failed", counts["failed"], counts["reasons"]["failed"]),
    ):
        rows.append((status, n, True))
        rows += [(f"  {reason}", pins, False) for reason, pins in reasons.items()]
    if counts["stale"]:
        rows.append(("caption of an earlier image", counts["stale"], True))
    if counts["by_people_image_changed"]:
        rows.append(("person's caption, image changed since", counts["by_people_image_changed"], True))
    rows += [
        ("images shared between pins", counts["shared_images"], False),
        ("  pins that share one", counts["pins_sharing_images"], False),
    ]
    if counts["rejected_rows"]:
        rows.append(("rows rejected at ingest", counts["rejected_rows"], False))
    click.echo(table(rows, counts["pins"]))
    for recipe, model in counts["models"].items():
        click.echo(f"{plural(model['captions'], 'caption')} by {model['model']} in {model['dtype']}")
        click.echo(f"  recipe {recipe}" + (f", prompt {model['prompt']!r}" if model["prompt"] else ""))
    return counts


def _labelled(counts: Coverage) -> list[tuple[str, int]]:
    return [
        ("with native text", counts["native_text"]),
        ("  title", counts["title"]),
        ("  description", counts["description"]),
        ("with caption", counts["caption"]),
        ("  and no native text", counts["only_caption"]),
        *([("  written by a person", counts["by_people"])] if counts["by_people"] else []),
        ("with board titles", counts["board_titles"]),
        ("with engaged queries", counts["engaged_queries"]),
        ("with any text", counts["any_text"]),
        ("without description, not yet tried", counts["waiting"]),
    ]
