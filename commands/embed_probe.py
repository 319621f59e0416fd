"""`captioner embed probe`: how well a label is predicted from the vectors alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from ..common.terminal import plural, printable, say, short_name, steps, wrapped
from .embed import embed
from .verbs import verb

if TYPE_CHECKING:
    from ..embed.probe import ProbeResult


@verb(embed, "probe")
@click.argument("model")
@click.argument("export")
@click.option(
    "--label",
    required=True,
    metavar="COLUMN",
    help="The column of the export that is predicted, for instance category or locale.",
)
@click.option(
    "--on",
    type=click.Choice(["items", "queries"]),
    default="items",
    show_default=True,
    help="Whose vectors predict it. The label of a query is the most frequent one among its test pairs.",
)
@click.option(
    "--min",
    "least",
    type=click.IntRange(5),
    default=10,
    show_default=True,
    metavar="N",
    help="Labels that fewer than N items have are left out.",
)
@click.option(
    "--limit",
    type=click.IntRange(20),
    default=20_000,
    show_default=True,
    metavar="N",
    help="Probe a random sample of N items or queries, if there are more.",
)
@click.option(
    "--seed",
    type=click.IntRange(0, 2**31 - 1),
    default=0,
    show_default=True,
    help="Seed of the sample and of the folds.",
)
def probe_command(
    model: str, export: str, label: str, on: Any, least: int, limit: int, seed: int, as_json: bool
) -> ProbeResult:
    """Measure how well a label follows from the vectors alone.

    A linear probe: logistic regression learns the label from the vectors of four fifths of the items, and
    predicts it for the others, five times. Beside it stand TF-IDF of the same words with the same classifier,
    and the most frequent label. For items, native text (title, description) and all text of the model are
    compared. Macro-F1 is the mean over labels, so rare labels count as much as frequent ones. Intervals (95%)
    resample items; differences are paired.

    \b
    captioner embed probe model/ out/ --label category
    captioner embed probe model/ out/ --label category --on queries
    """
    from ..embed.model import EmbeddingModel
    from ..embed.probe import probe

    units = {"encoding items": "items", "encoding queries": "queries", "probing": "folds"}
    loaded = EmbeddingModel.load(model)
    with steps(units) as on_step:
        result = probe(loaded, export, label, on=on, least=least, limit=limit, seed=seed, on_step=on_step)
    if not as_json:
        print_probe(result)
        for note in result["notes"]:
            say(wrapped(note))
    return result


def print_probe(result: ProbeResult) -> None:
    """The labels, what was left out, and a table within 80 columns."""
    labels = result["labels"]
    usual = ", ".join(f"{short_name(name, 20)} {n:,}" for name, n in list(labels.items())[:5])
    click.echo(
        wrapped(
            f"{printable(result['label'])} of {result['count']:,} {result['on']}: "
            f"{plural(len(labels), 'label')}{', the most frequent' if len(labels) > 5 else ''}: {usual}"
        )
    )
    if result["left_out"]:
        reasons = ", ".join(f"{n:,} {reason}" for reason, n in result["left_out"].items())
        click.echo(wrapped(f"left out: {reasons}"))
    part = f"{'part':>10}" if result["part"] else ""
    click.echo(f"  {'':<26}{'accuracy':<21}{'macro-F1':<19}{part}".rstrip())
    for name, row in result["rows"].items():
        of_part = row["accuracy of the part"]
        last = f"{of_part[0]:>10.3f}" if of_part else ""
        click.echo(f"  {name:<24}  {_interval(row['accuracy'])}  {_interval(row['macro-F1'])}{last}")
    if result["part"]:
        click.echo(f"  part: accuracy of the {result['part_count']:,} {result['part']}")
    click.echo("difference, paired")
    for name, difference in result["differences"].items():
        one, two = _signed(difference["accuracy"]), _signed(difference["macro-F1"])
        click.echo(f"  {_short(name):<26}{one}  {two}")


def _short(name: str) -> str:
    """The name of a difference in a narrow column."""
    one, _, other = name.partition(" less ")
    before, of, text = one.partition(" of ")
    if other.startswith(before):
        return f"{before}: all less native"
    return f"{text.removesuffix(' text')}: vectors - TF-IDF" if of else "vectors - TF-IDF"


def _interval(numbers: list[float]) -> str:
    mean, low, high = numbers
    return f"{mean:.3f} ({low:.3f}-{high:.3f})"


def _signed(numbers: list[float]) -> str:
    mean, low, high = numbers
    return f"{mean:+.3f} ({low:+.3f} to {high:+.3f})"
