"""What `captioner eval` prints for people: what was drawn, and how good the captions are."""

from __future__ import annotations

import math
import shlex
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

import click

from ..common.terminal import duration, plural, short_name, wrapped

if TYPE_CHECKING:
    from ..eval.long_table import TableScore
    from ..eval.results import Measures, SampleResult, Score, ShareResult, StratumResult

MOST_ROWS = 20  # strata or raters that are printed


def print_sample(
    result: SampleResult, store: str, seconds_per_item: float, options: Mapping[str, Any]
) -> None:
    """How many items were drawn, how long judging them takes, and which files were written."""
    from ..eval.sentence import excluded_in_words

    what = "pairs of captions that differ" if result["kind"] == "comparison" else "current captions"
    by = f", by {options['stratify']}:" if options["stratify"] else ""
    click.echo(f"{result['items']:,} of {result['captions']:,} {what}{by}")
    if options["stratify"]:
        for stratum in result["strata"][:MOST_ROWS]:
            click.echo(
                f"  {stratum['items']:>7,} of {stratum['captions']:>11,}  {short_name(stratum['stratum'])}"
            )
        if len(result["strata"]) > MOST_ROWS:
            click.echo(f"  and {plural(len(result['strata']) - MOST_ROWS, 'more stratum', 'more strata')}")
    click.echo(wrapped(f"not part of the sample: {excluded_in_words(result)}"))
    extra = []
    if result["repeats"]:
        extra.append(plural(result["repeats"], "hidden repeat"))
    if result["gold"]:
        extra.append(plural(result["gold"], "gold item"))
    with_extra = f" with {' and '.join(extra)}" if extra else ""
    click.echo(wrapped(f"{plural(result['raters'], 'rater')}, each gets all items{with_extra}"))
    rows = result["items"] + result["gold"] + result["repeats"]
    each = duration(60 * math.ceil(rows * seconds_per_item / 60)).removesuffix(" 00 s")
    hours = f"{result['hours']:,.1f} hours for all raters"
    click.echo(f"about {each} for each at {seconds_per_item:.0f} s an item: {hours}")
    wanted = options["margin"]
    if wanted and result["margin"] > wanted + 1e-4:
        click.echo(
            wrapped(f"note: ± {100 * wanted:g} points need more captions than there are: all are drawn")
        )
    click.echo(wrapped(f"a share is then known to about ± {100 * result['margin']:.1f} points or better"))
    for reason, n in result["without_picture"].items():
        click.echo(wrapped(f"warning: no picture to show for {plural(n, 'item')}: {reason}"), err=True)
    if not result["files"]:
        click.echo("nothing was written, because of --dry-run")
        return
    if options["format"] == "label-studio":
        _print_label_studio(result, store)
        return
    sheets = [name for name in result["files"] if name.endswith(".html") and name != "guidance.html"]
    listed = ", ".join(sheets[:4]) + (f", ... ({len(sheets)} files)" if len(sheets) > 4 else "")
    click.echo(f"sample {result['sample_id']}, written to {result['folder']}:")
    click.echo(wrapped(f"  {listed}, each also as a .csv table, and guidance.html"))
    csv_files = f"{shlex.quote(result['folder'])}/*.csv"
    click.echo(
        "when they are filled in:\n"
        f"  captioner eval score {shlex.quote(store)} {csv_files} --report report.html"
    )


def _print_label_studio(result: SampleResult, store: str) -> None:
    tasks = [name for name in result["files"] if name.endswith(".json")]
    click.echo(f"sample {result['sample_id']}, written to {result['folder']}:")
    click.echo(wrapped(f"  {', '.join(tasks)}, labelling.xml and guidance.html"))
    click.echo(
        wrapped(
            "in Label Studio, make a project, paste labelling.xml as the code of its labelling interface, "
            "and import the tasks; when they are annotated, export them as JSON, JSON-MIN or CSV:"
        )
    )
    click.echo(f"  captioner eval score {shlex.quote(store)} EXPORT --report report.html")
    if result["raters"] > 1:
        click.echo(
            wrapped(
                f"note: for {result['raters']:,} annotators per task, set the project's maximum_annotations: "
                "docs/eval.md shows how"
            )
        )


def print_score(score: Score) -> None:
    """The result of a sample or of a comparison: shares, agreement, raters and strata."""
    from ..eval.sentence import excluded_in_words

    if read := score["read"]:
        earlier = f", {plural(read['earlier'], 'earlier answer')} left out" if read["earlier"] else ""
        click.echo(
            f"answers of {plural(read['new'], 'row')} new, {read['changed']:,} changed, "
            f"{read['unchanged']:,} as before{earlier}"
        )
    for note in score["notes"]:
        click.echo(wrapped(f"note: {note}"), err=True)
    click.echo("\n" + wrapped(score["sentence"]) + "\n")
    _print_shares(_shares(score))
    click.echo(wrapped(f"not part of the sample: {excluded_in_words(score['frame'])}"))
    _print_questions(score)
    _print_raters(score)
    if score["kind"] == "captions" and len(score["strata"]) > 1:
        _print_strata(score["strata"])
    if "builtin" in score["models"].values():
        click.echo(
            "\n"
            + wrapped(
                "The captions come from the built-in checkpoint, which knows drawn pictures only: these "
                "figures say nothing about photographs."
            )
        )


def _shares(score: Score) -> dict[str, ShareResult]:
    """The shares that a score is about, by label."""
    if score["kind"] == "captions":
        return {
            "relevant and good": score["relevant_and_good"],
            "irrelevant and poor": score["irrelevant_and_poor"],
        }
    first, second = (score["recipes"][which]["name"] for which in ("first", "second"))
    return {
        f"{short_name(first, 24)} better": score["shares"]["first"],
        f"{short_name(second, 24)} better": score["shares"]["second"],
        "no difference": score["shares"]["no_difference"],
        f"{short_name(first, 17)} where decided": score["preference"],
    }


def _print_shares(shares: Mapping[str, ShareResult]) -> None:
    from ..eval.sentence import percent

    click.echo(f"{'':<32}{'share':>7}  {'95% interval':>17}{'items':>8}{'effective':>11}")
    for label, share in shares.items():
        interval = f"{percent(share['low'])} to {percent(share['high'])}" if share["items"] else "-"
        click.echo(
            f"{label:<32}{percent(share['share']):>7}  {interval:>17}{share['items']:>8,}"
            f"{share['effective_items']:>11,.1f}"
        )


def _print_questions(score: Score) -> None:
    from ..eval.agreement import LABELS
    from ..eval.sentence import percent

    labels, measures = dict[str, str](), ["alpha_ordinal", "ac1", "ac2"]
    if score["kind"] == "comparison":
        labels = {which: short_name(recipe["name"]) for which, recipe in score["recipes"].items()}
        measures = ["alpha_nominal", "ac1"]
    for name, question in score["questions"].items():
        click.echo(
            f"\n{name}: {plural(question['ratings'], 'answer')} to {plural(question['items'], 'item')}, "
            f"{plural(question['cannot_judge'], 'time')} cannot judge"
        )
        shares = (
            f"{labels.get(answer, answer)} {percent(share)}"
            for answer, share in question["distribution"].items()
        )
        click.echo("  " + ", ".join(shares))
        for measure in measures:
            click.echo(f"  {LABELS[measure]:<31}{_measure(question, measure, question['intervals'])}")


def _print_raters(score: Score) -> None:
    click.echo(
        f"\n{'rater':<14}{'judged':>8}{'repeats alike':>15}{'gold right':>12}{'seconds':>9}  distance in"
    )
    click.echo(" " * 60 + ", ".join(score["questions"]))
    for name, rater in score["by_rater"].items():
        repeats = f"{rater['repeats_same']} of {rater['repeats']}" if rater["repeats"] else "-"
        gold = f"{rater['gold_right']} of {rater['gold']}" if rater["gold"] else "-"
        seconds = "-" if rater["seconds"] is None else f"{rater['seconds']:.1f}"
        distances = ", ".join("-" if d is None else f"{d:+.2f}" for d in rater["deviation"].values())
        click.echo(
            f"{short_name(name):<14}{rater['judged']:>8,}{repeats:>15}{gold:>12}{seconds:>9}  {distances}"
        )


def _print_strata(strata: list[StratumResult]) -> None:
    from ..eval.sentence import percent

    click.echo(f"\n{'stratum':<32}{'good':>7}  {'95% interval':>17}{'judged':>8}{'captions':>13}")
    for stratum in strata[:MOST_ROWS]:
        interval = f"{percent(stratum['low'])} to {percent(stratum['high'])}" if stratum["judged"] else "-"
        click.echo(
            f"{short_name(stratum['stratum'], 30):<32}{percent(stratum['share']):>7}  {interval:>17}"
            f"{stratum['judged']:>8,}{stratum['captions']:>13,}"
        )


def print_table_score(result: TableScore) -> None:
    """The agreement of the raters of a long table, question by question."""
    from ..eval.agreement import LABELS
    from ..eval.long_table import intervals

    for name, question in result.questions.items():
        of_measures = intervals(result.answers[name])
        ratings, items = plural(question["ratings"], "rating"), plural(question["items"], "item")
        raters = plural(len(question["by_rater"]), "rater")
        click.echo(f"{short_name(name)}: {ratings} of {items} by {raters}, mean {question['mean']:.3f}")
        for measure, label in LABELS.items():
            click.echo(f"  {label:<31}{_measure(question, measure, of_measures)}")
        for rater, own in list(question["by_rater"].items())[:MOST_ROWS]:
            click.echo(f"  {short_name(rater)}: {plural(own['ratings'], 'rating')}, mean {own['mean']:.3f}")


def _measure(measures: Measures, name: str, intervals: Mapping[str, list[float] | None]) -> str:
    value, interval = cast(Mapping[str, float | None], measures)[name], intervals[name]
    if value is not None:
        return f"{value:6.3f}" + (f"  ({interval[0]:.3f} to {interval[1]:.3f})" if interval else "")
    if measures["ac1"] is None:
        return "not defined: no item was rated twice"
    return "not defined: all answers are the same"
