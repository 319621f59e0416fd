"""`captioner eval`: people judge the captions."""

from __future__ import annotations

from typing import Any

import click

from ..common.terminal import steps
from .eval_tables import print_sample, print_score, print_table_score
from .verbs import STORE, Verbs, verb

SHARE = click.FloatRange(0, 0.5)
_OPTIONS = [
    click.option(
        "--n", type=click.IntRange(1, 1_000_000), metavar="N", help="Items to judge.  [default: 200]"
    ),
    click.option(
        "--margin",
        type=click.FloatRange(0.002, 0.5),
        metavar="X",
        help="Replaces --n: as many items as a 95% interval of ± X needs.",
    ),
    click.option(
        "--raters",
        type=click.IntRange(1, 100),
        metavar="N",
        default=3,
        show_default=True,
        help="Sheets to write, one per rater. Every rater gets all items.",
    ),
    click.option(
        "--stratify",
        metavar="COLUMN",
        help="Divide the captions into groups (strata) and draw from each: kind, category, locale, "
        "native_text or caption_recipe.",
    ),
    click.option(
        "--allocation",
        type=click.Choice(["equal", "proportional"]),
        default="equal",
        show_default=True,
        help="Items per stratum: equally many, or in proportion to its size.",
    ),
    click.option(
        "--duplicates",
        type=SHARE,
        metavar="X",
        default=0.05,
        show_default=True,
        help="Share of the items that each rater gets twice.",
    ),
    click.option(
        "--seed",
        type=int,
        metavar="N",
        default=0,
        show_default=True,
        help="The same seed on the same store gives the same sheets.",
    ),
    click.option(
        "--format",
        type=click.Choice(["sheets", "label-studio"]),
        default="sheets",
        show_default=True,
        help="Sheets that need no program, or tasks to import into Label Studio.",
    ),
]


def _with_options(command: Any) -> Any:
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


@click.group("eval", cls=Verbs)
def evaluate() -> None:
    """Let people judge the captions, and say how good they are."""


@verb(evaluate, "sample")
@STORE
@click.argument("folder", metavar="OUT_DIR")
@_with_options
@click.option(
    "--gold",
    type=click.Path(),
    metavar="FILE",
    help="Table of items whose answers are known: pin_id, [caption], relevance, quality.",
)
@click.option("--dry-run", is_flag=True, help="Only say what would be drawn. The store may be read-only.")
def sample(
    store: str, folder: str, gold: str | None, dry_run: bool, as_json: bool, **options: Any
) -> dict[str, Any]:
    """Draw captions for people to judge, and write a sheet per rater.

    A sheet in OUT_DIR is one HTML file that opens without network or server, and the same as a table for
    spreadsheet programs. Give each rater one of these and guidance.html, and score what they send back.

    \b
    captioner eval sample my.db sheets/ --n 300 --raters 3 --stratify category
    captioner eval sample my.db sheets/ --margin 0.02
    """
    from ..eval.sample import sample as draw_sample
    from ..eval.stored import seconds_per_item
    from ..store import open_store

    conn = open_store(store, read_only=dry_run)
    with steps({"pictures": "pictures", "sheets": "files"}) as on_step:
        result = draw_sample(conn, folder, gold=gold, dry_run=dry_run, on_step=on_step, **_chosen(options))
    if not as_json:
        print_sample(result, store, seconds_per_item(conn), options)
    return dict(result)


@verb(evaluate, "compare")
@STORE
@click.argument("folder", metavar="OUT_DIR")
@click.option(
    "--recipe",
    "recipes",
    multiple=True,
    required=True,
    metavar="A",
    help="Given twice: a recipe (a model with its prompt and settings) by its id, the start of that, or the "
    "model. captioner stats lists them.",
)
@_with_options
def compare(
    store: str, folder: str, recipes: tuple[str, ...], as_json: bool, **options: Any
) -> dict[str, Any]:
    """Write sheets that ask which of two captions is better.

    The sheets do not show which recipe wrote which caption. Sides are random for each item and rater.

    \b
    captioner eval compare my.db sheets/ --recipe 3c38d468 --recipe a91f
    """
    from ..eval.sample import compare as draw_comparison
    from ..eval.stored import seconds_per_item
    from ..store import open_store

    if len(recipes) != 2:
        raise click.UsageError("give --recipe exactly twice: --recipe A --recipe B")
    conn = open_store(store)
    with steps({"pictures": "pictures", "sheets": "files"}) as on_step:
        result = draw_comparison(conn, folder, recipes, on_step=on_step, **_chosen(options))
    if not as_json:
        print_sample(result, store, seconds_per_item(conn), options)
    return dict(result)


def _chosen(options: dict[str, Any]) -> dict[str, Any]:
    if options["n"] and options["margin"]:
        raise click.UsageError("--margin replaces --n: give only one of them")
    return options | {"n": options["n"] or 200}


@verb(evaluate, "score")
@click.argument("store", type=click.Path(), required=False)
@click.argument("sheets", nargs=-1, type=click.Path(), metavar="[SHEET]...")
@click.option("--report", type=click.Path(), metavar="FILE", help="Also write a page to look at.")
@click.option(
    "--sample",
    "sample_id",
    metavar="ID",
    help="Without sheets: the sample to score (default: the one drawn last).",
)
@click.option(
    "--rater",
    metavar="NAME",
    help="Who filled these sheets in. Needed if several people filled in copies of one sheet.",
)
@click.option(
    "--ratings",
    type=click.Path(),
    metavar="FILE",
    help="Replaces store and sheets: any table of item, rater, question, value.",
)
def score(
    store: str | None,
    sheets: tuple[str, ...],
    report: str | None,
    sample_id: str | None,
    rater: str | None,
    ratings: str | None,
    as_json: bool,
) -> dict[str, Any]:
    """Read filled sheets and say how good the captions are.

    Answers are kept in the store: sheets may come one by one, and reading a sheet again changes nothing. The
    result is that of the raters whose sheets are given, or without sheets, of all answers in the store.

    How far raters agree beyond chance is given as Krippendorff's alpha and as Gwet's AC1 and AC2: 1 is
    perfect, 0 is no more than chance.

    \b
    captioner eval score my.db sheets/*.csv --report report.html
    captioner eval score my.db from-ben.csv --rater ben
    captioner eval score --ratings ratings.csv
    """
    if ratings:
        if store or sheets or sample_id or rater is not None:
            raise click.UsageError("--ratings replaces store and sheets: give one or the other")
        return _score_table(ratings, report, as_json)
    if sheets and sample_id:
        raise click.UsageError("--sample is for scoring without sheets: the sheets name their sample")
    if rater is not None and not sheets:
        raise click.UsageError("--rater says who filled in the sheets: name them, too")
    if not store:
        raise click.UsageError("name a store: captioner eval score STORE SHEET..., or give --ratings FILE")
    from ..eval.score import score as score_sheets
    from ..store import open_store

    conn = open_store(store, read_only=not sheets)
    result = score_sheets(conn, sheets, rater=rater, sample_id=sample_id, report=report)
    if not as_json:
        print_score(result)
        if report:
            click.echo(f"report: {report}")
    return dict(result)


def _score_table(path: str, report: str | None, as_json: bool) -> dict[str, Any]:
    from ..eval.score import score_table

    result = score_table(path, report=report)
    if not as_json:
        print_table_score(result)
        if report:
            click.echo(f"report: {report}")
    return {"questions": result.questions}
