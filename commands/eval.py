"""`captioner eval`: people judge the captions."""

from __future__ import annotations

import math
import shlex
from typing import TYPE_CHECKING, Any

import click

from ..common.terminal import duration, names, plural, steps, wrapped
from .verbs import STORE, Verbs, verb

if TYPE_CHECKING:
    from ..eval.results import SampleResult
    from ..store import Connection

SHARE = click.FloatRange(0, 0.5)
_OPTIONS = [
    click.option(
        "--n", type=click.IntRange(1, 1_000_000), metavar="N", help="Items to judge.  [default: 200]"
    ),
    click.option(
        "--margin",
        type=click.FloatRange(0.002, 0.5),
        metavar="X",
        help="In place of --n: as many items as a 95% interval of ± X takes.",
    ),
    click.option(
        "--raters",
        type=click.IntRange(1, 100),
        metavar="N",
        default=3,
        show_default=True,
        help="Sheets to write; every rater gets all items.",
    ),
    click.option(
        "--stratify", metavar="COLUMN", help="Draw by kind, category, locale, native_text or caption_recipe."
    ),
    click.option(
        "--allocation",
        type=click.Choice(["equal", "proportional"]),
        default="equal",
        show_default=True,
        help="Items per stratum: as many of each, or by its size.",
    ),
    click.option(
        "--duplicates",
        type=SHARE,
        metavar="X",
        default=0.05,
        show_default=True,
        help="Share of items that each rater gets twice.",
    ),
    click.option(
        "--seed",
        type=int,
        metavar="N",
        default=0,
        show_default=True,
        help="The same seed on the same store gives the same sheets.",
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
def sample(store: str, folder: str, gold: str | None, as_json: bool, **options: Any) -> dict[str, Any]:
    """Draw captions to be judged and write a sheet per rater.

    A sheet in OUT_DIR is one HTML file that opens without network or server, and the same as a table for
    spreadsheet programs. Give each rater one of them and guidance.html; score what they send back.

    \b
    captioner eval sample my.db sheets/ --n 300 --raters 3 --stratify category
    captioner eval sample my.db sheets/ --margin 0.02
    """
    from ..eval.sample import sample as draw_sample
    from ..store import open_store

    conn = open_store(store)
    with steps({"pictures": "pictures", "sheets": "files"}) as on_step:
        result = draw_sample(conn, folder, gold=gold, on_step=on_step, **_chosen(options))
    if not as_json:
        _print_sample(result, store, conn, options)
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
    help="Two of them: ids (or how they start) or models of the store's recipes.",
)
@_with_options
def compare(
    store: str, folder: str, recipes: tuple[str, ...], as_json: bool, **options: Any
) -> dict[str, Any]:
    """Write sheets that ask which of two captions is better.

    Nothing tells which recipe wrote which; sides are random for each item and rater.

    \b
    captioner eval compare my.db sheets/ --recipe 3c38d468 --recipe a91f
    """
    from ..eval.sample import compare as draw_comparison
    from ..store import open_store

    if len(recipes) != 2:
        raise click.UsageError("--recipe is given twice: --recipe A --recipe B")
    conn = open_store(store)
    with steps({"pictures": "pictures", "sheets": "files"}) as on_step:
        result = draw_comparison(conn, folder, recipes, on_step=on_step, **_chosen(options))
    if not as_json:
        _print_sample(result, store, conn, options)
    return dict(result)


def _chosen(options: dict[str, Any]) -> dict[str, Any]:
    if options["n"] and options["margin"]:
        raise click.UsageError("--margin takes the place of --n: give one of them")
    return options | {"n": options["n"] or 200}


def _print_sample(result: SampleResult, store: str, conn: Connection, options: dict[str, Any]) -> None:
    from ..eval.sentence import excluded_in_words
    from ..eval.stored import seconds_per_item

    what = "pairs of captions that differ" if result["kind"] == "comparison" else "current captions"
    by = f", by {options['stratify']}:" if options["stratify"] else ""
    click.echo(f"{result['items']:,} of {result['captions']:,} {what}{by}")
    if options["stratify"]:
        for stratum in result["strata"][:20]:
            click.echo(f"  {stratum['items']:>7,} of {stratum['captions']:>11,}  {names(stratum['stratum'])}")
        if len(result["strata"]) > 20:
            click.echo(f"  and {len(result['strata']) - 20:,} more strata")
    click.echo(wrapped(f"not part of the sample: {excluded_in_words(result)}"))
    extra = []
    if result["repeats"]:
        extra.append(plural(result["repeats"], "hidden repeat"))
    if result["gold"]:
        extra.append(plural(result["gold"], "gold item"))
    with_extra = f" with {' and '.join(extra)}" if extra else ""
    click.echo(wrapped(f"{plural(result['raters'], 'rater')}, each gets all items{with_extra}"))
    seconds = seconds_per_item(conn)
    rows = result["items"] + result["gold"] + result["repeats"]
    each = duration(60 * math.ceil(rows * seconds / 60)).removesuffix(" 00 s")
    click.echo(
        f"about {each} for each at {seconds:.0f} s an item: {result['hours']:,.1f} hours for all raters"
    )
    wanted = options["margin"]
    if wanted and result["margin"] > wanted + 1e-4:
        click.echo(
            wrapped(f"note: ± {100 * wanted:g} points need more captions than there are: all are drawn")
        )
    click.echo(wrapped(f"a share is then known to about ± {100 * result['margin']:.1f} points or better"))
    for reason, n in result["without_picture"].items():
        click.echo(wrapped(f"warning: no picture to show for {plural(n, 'item')}: {reason}"), err=True)
    sheets = [name for name in result["files"] if name.endswith(".html") and name != "guidance.html"]
    listed = ", ".join(sheets[:4]) + (f", ... ({len(sheets)} files)" if len(sheets) > 4 else "")
    click.echo(f"sample {result['sample_id']}, written to {result['folder']}:")
    click.echo(wrapped(f"  {listed}, each also as a .csv table, and guidance.html"))
    csv_files = f"{shlex.quote(result['folder'])}/*.csv"
    click.echo(
        "when they are filled in:\n"
        f"  captioner eval score {shlex.quote(store)} {csv_files} --report report.html"
    )


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
    "--ratings",
    type=click.Path(),
    metavar="FILE",
    help="In place of store and sheets: any table item, rater, question, value.",
)
def score(
    store: str | None,
    sheets: tuple[str, ...],
    report: str | None,
    sample_id: str | None,
    ratings: str | None,
    as_json: bool,
) -> dict[str, Any]:
    """Take in filled sheets and say how good the captions are.

    Answers are kept in the store: sheets may come one by one, and the same sheet again changes nothing. The
    result is that of the raters whose sheets are named; without sheets, of everything the store has.

    \b
    captioner eval score my.db sheets/*.csv --report report.html
    captioner eval score --ratings ratings.csv
    """
    if ratings:
        if store or sheets or sample_id:
            raise click.UsageError("--ratings takes the place of store and sheets: give one or the other")
        return _score_table(ratings, report, as_json)
    if sheets and sample_id:
        raise click.UsageError(
            "--sample is for scoring without sheets: the sheets say which sample they are of"
        )
    if not store:
        raise click.UsageError("which store? captioner eval score STORE SHEET..., or --ratings FILE")
    from ..eval.score import score as score_sheets
    from ..store import open_store

    conn = open_store(store, read_only=not sheets)
    result = score_sheets(conn, sheets, sample_id=sample_id, report=report)
    if not as_json:
        _print_score(dict(result))
        if report:
            click.echo(f"report: {report}")
    return dict(result)


def _score_table(path: str, report: str | None, as_json: bool) -> dict[str, Any]:
    from ..eval.agreement import LABELS
    from ..eval.long_table import intervals
    from ..eval.score import score_table

    result = score_table(path, report=report)
    if not as_json:
        for question, of in result.questions.items():
            between = intervals(result.answers[question])
            click.echo(
                f"{names(question)}: {plural(of['ratings'], 'rating')} of {plural(of['items'], 'item')} "
                f"by {plural(len(of['by_rater']), 'rater')}, mean {of['mean']:.3f}"
            )
            for name, label in LABELS.items():
                click.echo(f"  {label:<31}{_measure(dict(of), name, between)}")
            for rater, own in list(of["by_rater"].items())[:20]:
                click.echo(f"  {names(rater)}: {plural(own['ratings'], 'rating')}, mean {own['mean']:.3f}")
        if report:
            click.echo(f"report: {report}")
    return {"questions": result.questions}


def _measure(of: dict[str, Any], name: str, intervals: dict[str, Any]) -> str:
    value, interval = of[name], intervals[name]
    if value is None:
        return (
            "not defined: no item was rated twice"
            if of["ac1"] is None
            else "not defined: all answers are the same"
        )
    return f"{value:6.3f}" + (f"  ({interval[0]:.3f} to {interval[1]:.3f})" if interval else "")


def _print_score(found: dict[str, Any]) -> None:
    from ..eval.agreement import LABELS
    from ..eval.sentence import excluded_in_words, percent

    if found["read"]:
        click.echo(
            f"answers of {plural(found['read']['new'], 'row')} new, {found['read']['changed']:,} changed, {found['read']['unchanged']:,} as before"
        )
    click.echo("\n" + wrapped(found["sentence"]) + "\n")
    shares = {
        "relevant and good": found.get("relevant_and_good"),
        "irrelevant and poor": found.get("irrelevant_and_poor"),
    }
    if found["kind"] == "comparison":
        recipes = found["recipes"]
        shares = {
            f"{names(recipes[n]['name'], 24)} better": found["shares"][n] for n in ("first", "second")
        } | {"no difference": found["shares"]["no_difference"]}
        shares[f"{names(recipes['first']['name'], 17)} where decided"] = found["preference"]
    click.echo(f"{'':<32}{'share':>7}  {'95% interval':>17}{'items':>8}{'effective':>11}")
    for label, share in shares.items():
        if share is not None:
            between = f"{percent(share['low'])} to {percent(share['high'])}" if share["items"] else "-"
            click.echo(
                f"{label:<32}{percent(share['share']):>7}  {between:>17}{share['items']:>8,}{share['effective_items']:>11,.1f}"
            )
    click.echo(wrapped(f"not part of the sample: {excluded_in_words(found['frame'])}"))
    called = {name: names(of["name"]) for name, of in found.get("recipes", {}).items()}
    for question, of in found["questions"].items():
        click.echo(
            f"\n{question}: {plural(of['ratings'], 'answer')} to {plural(of['items'], 'item')}, {of['cannot_judge']:,} times cannot judge"
        )
        click.echo(
            "  "
            + ", ".join(
                f"{called.get(answer, answer)} {percent(share)}"
                for answer, share in of["distribution"].items()
            )
        )
        for name in (
            ("alpha_ordinal", "ac1", "ac2") if found["kind"] == "captions" else ("alpha_nominal", "ac1")
        ):
            click.echo(f"  {LABELS[name]:<31}{_measure(of, name, of['intervals'])}")
    click.echo(f"\n{'rater':<14}{'judged':>8}{'repeats alike':>15}{'gold right':>12}{'seconds':>9}  apart in")
    click.echo(" " * 60 + ", ".join(found["questions"]))
    for rater, of in found["by_rater"].items():
        repeats = f"{of['repeats_same']} of {of['repeats']}" if of["repeats"] else "-"
        gold = f"{of['gold_right']} of {of['gold']}" if of["gold"] else "-"
        seconds = f"{of['seconds']:.1f}" if of["seconds"] is not None else "-"
        apart = ", ".join("-" if value is None else f"{value:+.2f}" for value in of["deviation"].values())
        click.echo(f"{names(rater):<14}{of['judged']:>8,}{repeats:>15}{gold:>12}{seconds:>9}  {apart}")
    strata = found.get("strata", [])
    if len(strata) > 1:
        click.echo(f"\n{'stratum':<32}{'good':>7}  {'95% interval':>17}{'judged':>8}{'captions':>13}")
        for of in strata[:20]:
            between = f"{percent(of['low'])} to {percent(of['high'])}" if of["judged"] else "-"
            click.echo(
                f"{names(of['stratum'], 30):<32}{percent(of['share']):>7}  {between:>17}{of['judged']:>8,}{of['captions']:>13,}"
            )
    if "builtin" in found["models"].values():
        click.echo(
            "\n"
            + wrapped(
                "The captions of the built-in checkpoint, which knows drawn pictures only: its figures say nothing about photographs."
            )
        )
