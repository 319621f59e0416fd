"""What `captioner embed search` and `related` print for people, in 80 columns."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from ..common.terminal import printable, short_name

if TYPE_CHECKING:
    from ..embed.frequent_queries import RelatedQuery
    from ..embed.hits import Hit
    from ..embed.related import RelatedItem
    from ..embed.search import Answer

# Fields whose names are not those that people use.
FIELD_NAMES = {"board_titles": "board titles", "engaged_queries": "queries"}
WIDTH, INDENT, ID_WIDTH = 80, 5, 14
PLURALS = {"pin": "pins", "product": "products"}


def print_answer(answer: Answer) -> None:
    """Pins, products and related queries; under each hit why it was found."""
    for kind, hits in answer.hits.items():
        if hits:
            click.echo(f"{PLURALS[kind]:<72}   score")
        for hit in hits:
            _print_hit(hit)
        if hits:
            click.echo()
    if answer.queries:
        click.echo(f"{'related queries':<72}   score")
        for query in answer.queries:
            _print_line(query.rank, "", query.query, query.score)


def print_related(found: Sequence[RelatedQuery | RelatedItem]) -> None:
    """Queries or items, a line each."""
    for one in found:
        if hasattr(one, "query"):
            _print_line(one.rank, "", one.query, one.score)
        else:
            _print_line(one.rank, one.pin_id, _text(one.text, one.text_from), one.score)


def _print_hit(hit: Hit) -> None:
    _print_line(hit.rank, hit.pin_id, _text(hit.text, hit.text_from), hit.score)
    shares = f"words {hit.share_of_words:.0%}, meaning {hit.share_of_meaning:.0%}"
    found = f"{shares}: {_matches(hit)}" if hit.matches else f"{shares}: no word of the query"
    for line in _wrapped(found):
        click.echo(" " * INDENT + line)
    if hit.by_caption_alone:
        click.echo(" " * INDENT + click.style("found by its caption alone", bold=True))


def _print_line(rank: int, pin_id: str, text: str, score: float) -> None:
    name = f"{short_name(pin_id, ID_WIDTH):<{ID_WIDTH}}  " if pin_id else ""
    width = WIDTH - INDENT - len(name) - 8
    click.echo(f"{rank:>3}  {name}{short_name(text, width):<{width}}{score:>8.3f}")


def _text(text: str | None, text_from: str | None) -> str:
    """The text of an item; the field that it is from, unless that is the title."""
    if text is None:
        return "(no text)"
    return text if text_from == "title" else f"[{FIELD_NAMES.get(text_from or '', text_from)}] {text}"


def _matches(hit: Hit) -> str:
    """ "red, mug (title, caption); cup (queries)": words that are in the same fields stand together."""
    words: dict[tuple[str, ...], list[str]] = {}
    for word, fields in hit.matches.items():
        words.setdefault(tuple(fields), []).append(word)
    return "; ".join(
        f"{', '.join(own)} ({', '.join(FIELD_NAMES.get(name, name) for name in fields)})"
        for fields, own in words.items()
    )


def _wrapped(text: str) -> list[str]:
    import textwrap

    return textwrap.wrap(printable(text), WIDTH - INDENT)
