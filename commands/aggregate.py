"""`captioner aggregate`: board titles and engaged queries into the store, and why a pin has those that it
has.
"""

from __future__ import annotations

import math
from datetime import datetime
from typing import Any

import click

from ..common.terminal import printable, steps
from .verbs import STORE, Verbs, pair, verb

_MAP = click.option(
    "--map",
    "columns",
    multiple=True,
    metavar="FIELD=COLUMN",
    help="Read FIELD (or TABLE.FIELD) from the source's COLUMN.",
)
_MEMORY = click.option(
    "--memory-limit",
    metavar="SIZE",
    help="For instance 500MB or 4GB; what does not fit is spilled beside the store. [default: 1/16 of the machine's]",
)
_UNITS = {"reading": "sources", "writing": "pins"}
_REBUILD = click.option(
    "--rebuild", is_flag=True, help="Forget what was read before and start afresh from the sources named."
)


@click.group(cls=Verbs)
def aggregate() -> None:
    """Gather board titles and engaged queries for every pin."""


def _share(ctx: click.Context, param: click.Parameter, value: float) -> float:
    if math.isnan(value):
        raise click.BadParameter("nan is no share")
    return value


@verb(aggregate, "boards")
@STORE
@click.option(
    "--boards",
    multiple=True,
    metavar="SRC",
    help="A table of boards: board_id, title, [created_at]. Repeatable.",
)
@click.option(
    "--saves",
    multiple=True,
    metavar="SRC",
    help="A table of saves: pin_id, board_id, [saved_at]. Repeatable.",
)
@click.option(
    "--top",
    type=click.IntRange(1, 1000),
    metavar="N",
    default=10,
    show_default=True,
    help="Titles kept for a pin.",
)
@click.option(
    "--min-boards",
    type=click.IntRange(1),
    metavar="N",
    default=1,
    show_default=True,
    help="Boards of a title that must hold the pin.",
)
@click.option(
    "--max-board-share",
    callback=_share,
    type=click.FloatRange(0, 1),
    metavar="SHARE",
    default=0.02,
    show_default=True,
    help="A title on a larger share of boards is dropped (from 1,000 boards on).",
)
@click.option(
    "--min-chars",
    type=click.IntRange(1, 10_000),
    metavar="N",
    default=2,
    show_default=True,
    help="Shortest title in characters.",
)
@click.option(
    "--max-chars",
    type=click.IntRange(1, 10_000),
    metavar="N",
    default=60,
    show_default=True,
    help="Longest title in characters.",
)
@click.option(
    "--max-words",
    type=click.IntRange(1, 1000),
    metavar="N",
    default=10,
    show_default=True,
    help="Longest title in words.",
)
@click.option(
    "--generic-titles",
    metavar="FILE",
    help="Titles that say nothing, one a line, instead of the list that comes along.",
)
@_MAP
@_MEMORY
@_REBUILD
def boards(
    store: str,
    boards: tuple[str, ...],
    saves: tuple[str, ...],
    columns: tuple[str, ...],
    memory_limit: str | None,
    rebuild: bool,
    as_json: bool,
    **options: Any,
) -> dict[str, Any]:
    """Find the titles under which people filed each pin, the most telling first.

    Name sources as they come: what was read before is kept and not read again, a source that was rewritten
    replaces what it gave, and saves may come before their boards. Without sources, everything is ranked anew
    with the options given.

    \b
    captioner aggregate boards my.db --boards boards.parquet --saves 'saves/*.parquet'
    captioner aggregate boards my.db --saves today.csv.gz --map saves.pin_id=item
    captioner aggregate boards my.db --top 5 --min-boards 2
    """
    from ..filters.boards import BoardOptions, aggregate_boards
    from ..store import open_store

    if (*boards, *saves).count("-") > 1:
        raise click.UsageError("standard input can be one table only: name a file for the other")
    conn = open_store(store)
    mapping = dict(map(pair, columns))
    with steps(_UNITS) as on_step:
        found = aggregate_boards(
            conn,
            boards=boards,
            saves=saves,
            options=BoardOptions(**options),
            columns=mapping,
            memory_limit=memory_limit,
            rebuild=rebuild,
            on_step=on_step,
        )
    if not as_json:
        _print(
            found,
            "board_titles",
            ("titles kept", found["titles"]),
            [("saves on unknown boards", found["unknown_boards"], False)],
        )
    return found


class WeightType(click.ParamType[tuple[str, float]]):
    name = "ACTION=W"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, float]:
        action, equals, weight = str(value).partition("=")
        try:
            number = float(weight)
        except ValueError:
            equals = ""
        if not equals or not action:
            self.fail(f"{value!r} is no ACTION=W such as click=0.25", param, ctx)
        from ..filters.queries import whole_weights

        try:
            whole_weights({action: number})
        except ValueError as error:
            self.fail(str(error), param, ctx)
        return action, number


@verb(aggregate, "queries")
@STORE
@click.option(
    "--log",
    multiple=True,
    metavar="SRC",
    help="A query log: pin_id, query, action, date (or timestamp), [count], [user_id]. Repeatable.",
)
@click.option(
    "--as-of",
    type=click.DateTime(["%Y-%m-%d"]),
    metavar="DATE",
    help="Last day that counts. [default: the newest day in the log]",
)
@click.option(
    "--window-days",
    type=click.IntRange(1, 36_500),
    metavar="N",
    default=730,
    show_default=True,
    help="Days up to --as-of that count.",
)
@click.option(
    "--top",
    type=click.IntRange(1, 1000),
    metavar="N",
    default=20,
    show_default=True,
    help="Queries kept for a pin.",
)
@click.option(
    "--weight",
    "weights",
    type=WeightType(),
    multiple=True,
    metavar="ACTION=W",
    help="What an action counts. [default: save=1, long_click=1, click=0.25]",
)
@click.option(
    "--min-engagements",
    type=click.IntRange(1),
    metavar="N",
    default=1,
    show_default=True,
    help="Fewest engagements of a query with a pin.",
)
@click.option(
    "--min-users",
    type=click.IntRange(1),
    metavar="N",
    default=1,
    show_default=True,
    help="Fewest people behind a query of a pin.",
)
@_MAP
@_MEMORY
@_REBUILD
def queries(
    store: str,
    log: tuple[str, ...],
    as_of: datetime | None,
    weights: tuple[tuple[str, float], ...],
    columns: tuple[str, ...],
    memory_limit: str | None,
    rebuild: bool,
    as_json: bool,
    **options: Any,
) -> dict[str, Any]:
    """Find the queries that led people to each pin, those with the most engagement first.

    Name sources as they come: what was read before is kept and not read again, and a source that was
    rewritten replaces what it gave. Without sources, everything is ranked anew with the options given.

    \b
    captioner aggregate queries my.db --log 'log/*.parquet'
    captioner aggregate queries my.db --log today.jsonl.gz --map pin_id=item --weight add_to_cart=2
    captioner aggregate queries my.db --as-of 2026-06-01 --min-users 3
    """
    from ..filters.queries import WEIGHTS, QueryOptions, aggregate_queries
    from ..store import open_store

    conn = open_store(store)
    chosen = QueryOptions(as_of=as_of.date() if as_of else None, weights=WEIGHTS | dict(weights), **options)
    with steps(_UNITS) as on_step:
        found = aggregate_queries(
            conn,
            log=log,
            options=chosen,
            columns=dict(map(pair, columns)),
            memory_limit=memory_limit,
            rebuild=rebuild,
            on_step=on_step,
        )
    if not as_json:
        _print(found, "engaged_queries", ("queries kept", found["queries"]), [])
        click.echo(f"{options['window_days']} days up to {found['as_of']}")
        if unweighted := found["unweighted_actions"]:
            some = ", ".join(f"{action} ({n:,} rows)" for action, n in list(unweighted.items())[:5])
            more = " and more" if len(unweighted) > 5 else ""
            click.echo(
                click.wrap_text(
                    printable(f"actions of no weight (--weight ACTION=W): {some}{more}"), 80, "", "  "
                )
            )
    return found


def _print(
    found: dict[str, Any], table_name: str, kept: tuple[str, int], more: list[tuple[str, int, bool]]
) -> None:
    from ..common.terminal import table

    rows: list[tuple[str, int, bool]] = [("rows read", found["rows_read"], False)]
    if found["unchanged"]:
        rows.append(("  sources that were read before", found["unchanged"], False))
    if found["rejected"]:
        rows.append(("  rejected, see rejected_rows", found["rejected"], False))
    rows += [
        ("pins ranked anew", found["pins"], False),
        (f"  rows written to {table_name}", found["rows_written"], False),
        (*kept, False),
    ]
    rows += [(f"  dropped: {reason}", n, False) for reason, n in found["dropped"].items()]
    rows += [*more, ("pins with some, not in the store yet", found["pins_not_in_store"], False)]
    click.echo(table(rows, 0))


@verb(aggregate, "explain")
@STORE
@click.argument("pin_id", metavar="PIN_ID")
def explain(store: str, pin_id: str, as_json: bool) -> dict[str, Any]:
    """Show every title and query that was considered for a pin, with its numbers, and why it was kept or
    dropped.

    \b
    captioner aggregate explain my.db pin-0042
    """
    from ..filters.explain import explain as explain_pin
    from ..store import open_store

    found = explain_pin(open_store(store), pin_id)
    if not as_json:
        click.echo(f"pin {pin_id}" + ("" if found["in_store"] else " (not in the store yet)"))
        if found["boards"]:
            _print_titles(found["boards"])
        if found["queries"]:
            _print_queries(found["queries"])
    return found


def _print_titles(found: dict[str, Any]) -> None:
    kept = sum(title["rank"] is not None for title in found["titles"])
    click.echo(
        f"\n{kept} of {len(found['titles'])} board titles kept"
        + (
            f"; on {found['unknown_boards']:,} boards that are not known yet"
            if found["unknown_boards"]
            else ""
        )
    )
    if found["outdated"]:
        click.echo("rows were read since: run `captioner aggregate boards` to rank anew")
    if found["titles"]:
        click.echo(
            "score = boards with the pin x idf of the words x all/(all+2)\n"
            + _columns("rank", "score", "boards", "all", "title")
        )
    for title in found["titles"]:
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
        why = [
            f"dropped: {title['reason']}" if title["reason"] else "",
            f"idf {title['idf']:.4g} of {words}" if title["idf"] else "",
        ]
        _print_below("; ".join(filter(None, why)))


def _print_queries(found: dict[str, Any]) -> None:
    options = found["options"]
    kept = sum(query["rank"] is not None for query in found["queries"])
    click.echo(
        f"\n{kept} of {len(found['queries'])} engaged queries kept, {options['window_days']} days up to {options['as_of']}"
    )
    if found["outdated"]:
        click.echo("rows were read since: run `captioner aggregate queries` to rank anew")
    if found["queries"]:
        weights = ", ".join(f"{action} {weight:g}" for action, weight in options["weights"].items() if weight)
        click.echo(
            f"score = sum of weights: {weights}\n" + _columns("rank", "score", "engaged", "users", "query")
        )
    for query in found["queries"]:
        click.echo(
            _columns(
                query["rank"] or "-",
                _number(query["score"]),
                query["engagements"],
                query["users"] or "",
                query["query"] or f"({query['reason']})",
            )
        )
        dates = f"{query['first_date']} to {query['last_date']}" if query["first_date"] else ""
        actions = ", ".join(f"{n:,} {action}" for action, n in query["actions"].items())
        _print_below(
            "; ".join(
                filter(None, [f"dropped: {query['reason']}" if query["reason"] else "", actions, dates])
            )
        )


def _print_below(text: str) -> None:
    if text:
        click.echo(click.wrap_text(printable(text), 80, " " * 34, " " * 34))


def _columns(rank: Any, score: Any, count: Any, whole: Any, text: str) -> str:
    return click.wrap_text(text, 80, f"{rank:>4}  {score:>9}{count:>9}{whole:>8}  ", " " * 34)


def _number(number: float | None) -> str:
    return "" if number is None else f"{number:,}" if isinstance(number, int) else f"{number:.6g}"
