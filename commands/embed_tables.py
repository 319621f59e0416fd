"""What `captioner embed` prints for people: tables of losses, of recall and of differences."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, cast

import click

from ..common.terminal import plural, printable, say

if TYPE_CHECKING:
    from ..embed.ablate import AblationResult
    from ..embed.checkpoint import TrainResult
    from ..embed.history import CurvePoint
    from ..embed.recall import RecallResult, Summary


def print_training(result: TrainResult) -> None:
    """How many steps were done, how fast, and the recall of the step that is kept."""
    click.echo(
        f"{plural(result['steps'], 'step')}, {plural(result['pairs'], 'pair')}, "
        f"{result['pairs_per_second']:,.0f} pairs/s: {result['model']}"
    )
    if result["validation"]:
        click.echo(f"kept step {result['kept_step']:,}, which ranks held-out training queries best:")
    for name, recall in result["validation"].items():
        click.echo(f"  {name:<14} recall@10 {recall['recall@10']:.3f}, BM25 {recall['bm25 recall@10']:.3f}")
    curve = Path(result["model"]) / "learning_curve.png"
    missing = "no curve was drawn: it takes three points, and pip install 'pincaption[plots]'"
    click.echo(f"curve: {curve}" if curve.exists() else missing)


class TrainingTable:
    """Prints loss and recall of each task, one line for each point of the curve, within 80 columns."""

    def __init__(self) -> None:
        self.tasks: list[str] = []

    def __call__(self, point: CurvePoint) -> None:
        recalls = {name: f"{task['recall@10']:.3f}" for name, task in point["validation"].items()}
        if not self.tasks:
            # Step 0 has no losses yet. Those against fixed vectors ("TASK VECTORS") are in the curve only.
            names = {**point["validation"], **point["loss"]}
            self.tasks = [name for name in names if " " not in name]
            titles = ["    loss   r@10 " if name in recalls else "    loss        " for name in self.tasks]
            say(" " * 9 + "".join(f"  {name:<14}" for name in self.tasks).rstrip())
            say(f"{'step':>9}" + "".join(titles).rstrip())
        losses = {name: f"{value:.3f}" for name, value in point["loss"].items()}
        cells = [f"  {losses.get(name, ''):>6}  {recalls.get(name, ''):>5} " for name in self.tasks]
        say(f"{point['step']:>9,}" + "".join(cells).rstrip())


def print_recall(result: RecallResult) -> None:
    """For each task the recall of each length of embeddings, of BM25 and of both, and that of each group."""
    fusion = result["fusion"]
    kind, weight = fusion["kind"], fusion["weight"]
    tuned = "tuned" if fusion["recall"] is not None else "not tuned"
    click.echo(f"fused: {weight:g} of the model, {1 - weight:g} of BM25 of {kind} ({tuned})")
    for name, task in result["tasks"].items():
        click.echo(
            f"{name}: {plural(task['pairs'], 'pair')} of {plural(task['queries'], 'query')}"
            f" among {task['index']:,}"
        )
        click.echo(f"  {'':<28}recall@10             @1   @100    MRR  NDCG@10")
        lines = {f"{dim} numbers": summary for dim, summary in task["dims"].items()}
        gains = {[*lines][-1]: task["ndcg@10"]["model"]}
        for who, label in (
            ("bm25", f"BM25 of {kind}"),
            ("bm25 of words", "BM25 of words"),
            ("fused", "both fused"),
        ):
            lines[label] = cast("Mapping[str, Summary]", task)[who]
            gains[label] = task["ndcg@10"][who]
        for label, summary in lines.items():
            others = (summary["recall@1"], summary["recall@100"], summary["mrr"])
            cells = "  ".join(f"{mean:.3f}" for mean, _, _ in others)
            last = f"{gains[label][0]:>9.3f}" if label in gains else ""
            click.echo(f"  {label:<28}{_interval(summary)}  {cells}{last}")
        for label, more in cast("Mapping[str, list[float | None]]", task["differences"]).items():
            click.echo(f"  {label.replace('bm25', 'BM25'):<28}{_difference(more)}")
        if task["groups"]:
            click.echo(f"  {'pairs by':<30}{'recall@10':<20}  BM25  fused    pairs")
        for by, groups in task["groups"].items():
            for label, group in groups.items():
                bm25, fused = group["bm25"]["recall@10"][0], group["fused"]["recall@10"][0]
                click.echo(
                    f"  {printable(_SHORT.get(by, by) + ': ' + label):<30.30}{_interval(group['model'])}"
                    f"  {bm25:.3f}  {fused:.3f}{group['pairs']:>9,}"
                )
        if popular := task["popularity"]:
            click.echo("  of the first ten hits, in the tenth of the items with most training pairs:")
            shown = (
                f"{name.replace('bm25', 'BM25')} {share:.0%}" for name, share in popular["shown"].items()
            )
            click.echo(f"    {', '.join(shown)}; people chose {popular['chosen']:.0%}")


# What pairs are grouped by, in a narrow column
_SHORT = {
    "training pairs of the query": "query",
    "training pairs of the item": "item",
    "words of the query": "words",
}


def _interval(summary: Summary) -> str:
    mean, low, high = summary["recall@10"]
    return f"{mean:.3f} ({low:.3f}-{high:.3f})"


def print_ablation(result: AblationResult) -> None:
    """For each group of pairs the recall of each arm, and how much captions add beyond their controls."""
    for group, pairs in result["pairs"].items():
        click.echo(f"{group}: {plural(pairs, 'pair')}")
        click.echo(f"  {'':<28}recall@10   BM25   more than native text (95%)")
        for name, arm in result["arms"].items():
            more = _difference(arm["difference"][group]) if arm["difference"] else ""
            recall, bm25 = arm["recall@10"][group][0], arm["bm25"][group]
            click.echo(f"  {name:<28}{recall:>9.3f}{bm25:>7.3f}   {more}".rstrip())
        for name, differences in result["captions beyond"].items():
            click.echo(f"  captions more than {name.removeprefix('+ '):<28}{_difference(differences[group])}")
    plot = result["plot"]
    click.echo(f"plot: {plot}" if plot else "no plot was drawn: pip install 'pincaption[plots]'")


def _difference(difference: list[float | None]) -> str:
    mean, low, high = difference
    return (
        f"{mean:+.3f} (one seed, no interval)" if low is None else f"{mean:+.3f} ({low:+.3f} to {high:+.3f})"
    )
