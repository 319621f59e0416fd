"""`captioner aggregate explain`: why a pin has the board titles and queries that it has."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import click

from ..common.terminal import plural, printable, wrapped
from .verbs import STORE, command

if TYPE_CHECKING:
    from ..filters.explain import ExplainedBoards, ExplainedQueries, ExplainedQuery
    from ..store.people import AuthoredCaption

INDENT = " " * 34  # the column in which titles and queries begin


@command("explain")
@STORE
@click.argument("pin_id", metavar="PIN_ID")
def explain(store: str, pin_id: str, as_json: bool) -> Mapping[str, Any]:
    """Show why a pin has its board titles and queries.

    Shows every title and query that was considered, with its numbers, and why it was kept or dropped. Says
    also who wrote the caption: a model, or a person.

    \b
    captioner aggregate explain my.db pin-0042
    """
    from ..filters.explain import explain as explain_pin
    from ..sources.cells import RowError, identifier
    from ..store import open_store
    from ..store.people import caption_with_author

    with suppress(RowError):  # tables are read in the same way
        pin_id = identifier(pin_id)
    conn = open_store(store, read_only=True)
    explanation = explain_pin(conn, pin_id)
    caption = caption_with_author(conn, pin_id)
    if not as_json:
        click.echo(f"pin {pin_id}" + ("" if explanation["in_store"] else " (not in the store yet)"))
        if caption:
            _print_caption(caption)
        if explanation["boards"]:
            _print_titles(explanation["boards"])
        if explanation["queries"]:
            _print_queries(explanation["queries"])
    return {**explanation, "caption": caption}


def _print_caption(caption: AuthoredCaption) -> None:
    by_person = caption["by"] == "person"
    by = f"written by a person, {caption['written_at'][:10]}" if by_person else f"by {caption['by']}"
    click.echo(wrapped(f"caption: {caption['text']} ({by})"))
    if by_person and caption["instead_of"]:
        click.echo(wrapped(f"  in place of a model's: {caption['instead_of']}"))
    if caption["image_changed"]:
        click.echo("  the picture may have changed since")


def _print_titles(boards: ExplainedBoards) -> None:
    titles, unknown = boards["titles"], boards["unknown_boards"]
    kept = sum(title["rank"] is not None for title in titles)
    click.echo(
        f"\n{kept} of {plural(len(titles), 'board title')} kept"
        + (f"; also on {plural(unknown, 'board')} not known yet" if unknown else "")
    )
    if boards["outdated"]:
        click.echo("rows were read after the last ranking: `captioner aggregate boards` ranks again")
    if titles:
        click.echo("score = boards with the pin x idf of the words x all/(all+2)")
        click.echo(_columns("rank", "score", "boards", "all", "title"))
    for title in titles:
        click.echo(
            _columns(
                title["rank"] or "-",
                _number(title["score"]),
                title["boards"],
                _number(title["boards_with_title"]),
                title["title"] or f"({title['reason']})",
            )
        )
        words = ", ".join(f"{word} on {n:,}" for word, n in title["words"].items() if n)
        _print_below(
            f"dropped: {title['reason']}" if title["reason"] else "",
            f"idf {title['idf']:.4g} of {words}" if title["idf"] else "",
        )


def _print_queries(engaged: ExplainedQueries) -> None:
    options, queries = engaged["options"], engaged["queries"]
    kept = sum(query["rank"] is not None for query in queries)
    click.echo(
        f"\n{kept} of {plural(len(queries), 'engaged query')} kept, "
        f"{plural(options['window_days'], 'day')} up to "
        f"{options['as_of']}"
    )
    if engaged["outdated"]:
        click.echo("rows were read after the last ranking: `captioner aggregate queries` ranks again")
    if queries:
        weights = ", ".join(
            f'"{action}" {weight:g}' for action, weight in options["weights"].items() if weight
        )
        click.echo(f"score = sum of weights: {weights}")
        click.echo(_columns("rank", "score", "engaged", "users", "query"))
    for query in queries:
        click.echo(
            _columns(
                query["rank"] or "-",
                _number(query["score"]),
                query["engagements"],
                query["users"] or "",
                query["query"] or f"({query['reason']})",
            )
        )
        _print_below(
            f"dropped: {query['reason']}" if query["reason"] else "",
            ", ".join(f'{n:,} "{action}"' for action, n in query["actions"].items()),
            f"{query['first_date']} to {query['last_date']}" if query["first_date"] else "",
            _dominating(query),
        )


def _dominating(query: ExplainedQuery) -> str:
    """Who made most of a query's engagements, if one user made more than half of several."""
    if query["top_user_engagements"] < 3 or query["top_user_share"] <= 0.5:
        return ""
    return (
        f"{query['top_user_engagements']:,} of them, {query['top_user_share']:.0%}, by one user, "
        f"{query['top_user']}"
    )


def _print_below(*notes: str) -> None:
    """Prints the notes that are not empty under a title or query."""
    if text := "; ".join(filter(None, notes)):
        lines = textwrap.wrap(printable(text), 80 - len(INDENT), break_on_hyphens=False)
        click.echo("\n".join(INDENT + line for line in lines))


def _columns(rank: Any, score: Any, count: Any, total: Any, text: str) -> str:
    return click.wrap_text(text, 80, f"{rank:>4}  {score:>9}{count:>9}{total:>8}  ", INDENT)


def _number(number: float | None) -> str:
    return "" if number is None else f"{number:,}" if isinstance(number, int) else f"{number:.6g}"
