"""`captioner aggregate`: board titles and engaged queries into the store."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import date
from typing import TYPE_CHECKING, Any

import click

from ..common.terminal import plural, printable, steps, wrapped
from .explain import explain
from .ingest_counts import print_columns, print_left_empty, print_rejected
from .options import DAY
from .table_options import table_options
from .verbs import STORE, Verbs, pairs, verb

if TYPE_CHECKING:
    from ..filters.boards import BoardsResult
    from ..filters.queries import QueriesResult

_MAP = click.option(
    "--map",
    "columns",
    multiple=True,
    metavar="FIELD=COLUMN",
    help="Read FIELD (or TABLE.FIELD) from the source's COLUMN. Repeatable.",
)
_MEMORY = click.option(
    "--memory-limit",
    metavar="SIZE",
    help="Memory for the counting, for instance 500MB or 4GB. What does not fit is written to files beside "
    "the store. [default: 1/16 of the machine's]",
)
_UNITS = {"reading": "sources", "writing": "pins"}
_REBUILD = click.option(
    "--rebuild", is_flag=True, help="Forget what was read before, and read only the sources named now."
)


@click.group(cls=Verbs)
def aggregate() -> None:
    """Gather board titles and engaged queries for every pin."""


def _not_nan(ctx: click.Context, param: click.Parameter, value: float | None) -> float | None:
    if value is not None and math.isnan(value):
        raise click.BadParameter("nan is not a share")
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
    help="Titles to keep for a pin.",
)
@click.option(
    "--min-boards",
    type=click.IntRange(1),
    metavar="N",
    default=1,
    show_default=True,
    help="Keep a title of a pin if at least N boards with this title hold the pin.",
)
@click.option(
    "--max-board-share",
    callback=_not_nan,
    type=click.FloatRange(0, 1),
    metavar="SHARE",
    default=0.02,
    show_default=True,
    help="Drop titles that more than this share of all boards have (applies from 1,000 boards on).",
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
    help="File of titles that say nothing, one per line; replaces the built-in list.",
)
@_MAP
@table_options
@_MEMORY
@_REBUILD
def boards(
    store: str,
    boards: tuple[str, ...],
    saves: tuple[str, ...],
    columns: tuple[str, ...],
    format: str | None,
    encoding: str | None,
    names: list[str] | dict[str, list[str]],
    memory_limit: str | None,
    rebuild: bool,
    as_json: bool,
    **options: Any,
) -> BoardsResult:
    """Find the titles of the boards that hold each pin.

    The most informative titles come first. Sources can be given as they arrive. What was read before is kept
    and not read again. A source that was rewritten replaces what it contributed before. Saves may come before
    their boards. Without sources, everything is ranked again with the options given. "pins ranked anew"
    counts the pins whose titles were put in order in this call; the others are as they were.

    \b
    captioner aggregate boards my.db --boards boards.csv --saves 'saves/*.parquet'
    captioner aggregate boards my.db --saves today.csv.gz --map saves.pin_id=item
    captioner aggregate boards my.db --saves s.csv --columns saves=pin_id,board_id
    captioner aggregate boards my.db --top 5 --min-boards 2
    """
    from .. import api

    if (*boards, *saves).count("-") > 1:
        raise click.UsageError("only one table can come from standard input: name a file for the other")
    mapping = pairs(columns)
    with steps(_UNITS) as on_step:
        counts = api.aggregate_boards(
            store,
            boards=boards,
            saves=saves,
            columns=mapping,
            format=format,
            encoding=encoding,
            names=names,
            memory_limit=memory_limit,
            rebuild=rebuild,
            on_step=on_step,
            **options,
        )
    if not as_json:
        _print(
            counts,
            "board_titles",
            ("titles kept", counts["titles"]),
            [("saves on unknown boards", counts["unknown_boards"], False)],
        )
        _print_read(counts)
    return counts


class WeightType(click.ParamType[tuple[str, float]]):
    """An action and its weight."""

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
            self.fail(f"{value!r} is not ACTION=W, for instance click=0.25", param, ctx)
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
    type=DAY,
    metavar="DATE",
    help="Last day that counts. [default: the newest day in the log that is not after today]",
)
@click.option(
    "--window-days",
    type=click.IntRange(1, 36_500),
    metavar="N",
    help="Days up to --as-of that count. [default: 730, or those of the last call]",
)
@click.option(
    "--top",
    type=click.IntRange(1, 1000),
    metavar="N",
    default=20,
    show_default=True,
    help="Queries to keep for a pin.",
)
@click.option(
    "--weight",
    "weights",
    type=WeightType(),
    multiple=True,
    metavar="ACTION=W",
    help="Weight of an action. Repeatable. [default: save=1, long_click=1, click=0.25, and those of "
    "the last call]",
)
@click.option(
    "--min-engagements",
    type=click.IntRange(1),
    metavar="N",
    default=1,
    show_default=True,
    help="Keep a query of a pin if it has at least N engagements.",
)
@click.option(
    "--min-users",
    type=click.IntRange(1),
    metavar="N",
    default=1,
    show_default=True,
    help="Keep a query of a pin if at least N people used it.",
)
@click.option(
    "--max-per-user",
    type=click.IntRange(1),
    metavar="N",
    help="At most N engagements of one user count for a query of a pin, those of the highest weight first. "
    "[default: all]",
)
@click.option(
    "--max-share-per-user",
    type=click.FloatRange(0, 1, min_open=True),
    callback=_not_nan,
    metavar="X",
    help="One user makes at most this share of the score of a query of a pin. [default: all of it]",
)
@click.option(
    "--defaults",
    is_flag=True,
    help="Weights, window and bounds for users start from their defaults, not from those of the last call.",
)
@_MAP
@table_options
@_MEMORY
@_REBUILD
def queries(
    store: str,
    log: tuple[str, ...],
    as_of: date | None,
    weights: tuple[tuple[str, float], ...],
    columns: tuple[str, ...],
    format: str | None,
    encoding: str | None,
    names: list[str] | dict[str, list[str]],
    memory_limit: str | None,
    rebuild: bool,
    as_json: bool,
    **options: Any,
) -> QueriesResult:
    """Find the queries that led people to each pin.

    The queries with the most engagement come first. Sources can be given as they arrive. What was read before
    is kept and not read again. A source that was rewritten replaces what it contributed before. Without
    sources, everything is ranked again. Weights, the window and the bounds for one user are those of the last
    call for this store until they are named again. "pins ranked anew" counts the pins whose queries were put
    in order in this call; the others are as they were.

    \b
    captioner aggregate queries my.db --log 'log/*.parquet'
    captioner aggregate queries my.db --log today.jsonl.gz --weight add_to_cart=2
    captioner aggregate queries my.db --log 'log/*.tsv.zst' --encoding cp1252
    captioner aggregate queries my.db --as-of 2026-06-01 --min-users 3
    """
    from .. import api

    mapping = pairs(columns)
    with steps(_UNITS) as on_step:
        counts = api.aggregate_queries(
            store,
            log=log,
            as_of=as_of,
            weights=dict(weights),
            columns=mapping,
            format=format,
            encoding=encoding,
            names=names,
            memory_limit=memory_limit,
            rebuild=rebuild,
            on_step=on_step,
            **options,
        )
    if not as_json:
        _print(counts, "engaged_queries", ("queries kept", counts["queries"]), [])
        _print_options(counts["options"])
        if unweighted := counts["unweighted_actions"]:
            some = ", ".join(f'"{action}" ({plural(n, "row")})' for action, n in list(unweighted.items())[:5])
            more = " and more" if len(unweighted) > 5 else ""
            click.echo(
                click.wrap_text(
                    printable(f"actions of no weight (--weight ACTION=W): {some}{more}"), 80, "", "  "
                )
            )
        _print_read(counts)
    return counts


def _print_options(options: Mapping[str, Any]) -> None:
    """Prints what the queries were counted with, which the next call uses again."""
    weights = ", ".join(f'"{action}" {weight:g}' for action, weight in options["weights"].items())
    bounds = [
        f"--{name.replace('_', '-')} {options[name]:g}"
        for name in ("max_per_user", "max_share_per_user")
        if options[name] is not None
    ]
    said = f"{plural(options['window_days'], 'day')} up to {options['as_of']}; weights: {weights}"
    click.echo(wrapped("; ".join([said, *bounds])))


def _print(
    counts: BoardsResult | QueriesResult,
    table_name: str,
    kept: tuple[str, int],
    more: list[tuple[str, int, bool]],
) -> None:
    from ..common.terminal import table

    rows: list[tuple[str, int, bool]] = [("rows read", counts["rows_read"], False)]
    if counts["unchanged"]:
        rows.append(("  sources that were read before", counts["unchanged"], False))
    if counts["rejected"]:
        rows.append(("  rejected, see rejected_rows", counts["rejected"], False))
    rows += [
        ("pins ranked anew", counts["pins"], False),
        (f"  rows written to {table_name}", counts["rows_written"], False),
        (*kept, False),
    ]
    rows += [(f"  dropped: {reason}", n, False) for reason, n in counts["dropped"].items()]
    rows += [*more, ("pins that are not in the store yet", counts["pins_not_in_store"], False)]
    click.echo(table(rows, 0))


def _print_read(counts: BoardsResult | QueriesResult) -> None:
    """Prints what was read of the tables, and what could not be used."""
    print_columns(counts["columns"])
    print_rejected(counts)
    print_left_empty(counts["left_empty"])


aggregate.add_command(explain)
