"""What `captioner embed` prints for people: tables of losses, of recall and of differences."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

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
    click.echo(f"curve: {curve}" if curve.exists() else "no curve was drawn: pip install 'pincaption[plots]'")


class TrainingTable:
    """Prints loss and recall of each task, one line for each point of the curve, within 80 columns."""

    def __init__(self) -> None:
        self.tasks: list[str] = []

    def __call__(self, point: CurvePoint) -> None:
        recalls = {name: f"{task['recall@10']:.3f}" for name, task in point["validation"].items()}
        if not self.tasks:
            # Losses against fixed vectors ("TASK VECTORS") are in the curve only.
            self.tasks = [name for name in point["loss"] if " " not in name]
            titles = ["    loss   r@10 " if name in recalls else "    loss        " for name in self.tasks]
            say(" " * 9 + "".join(f"  {name:<14}" for name in self.tasks).rstrip())
            say(f"{'step':>9}" + "".join(titles).rstrip())
        cells = [f"  {point['loss'][name]:>6.3f}  {recalls.get(name, ''):>5} " for name in self.tasks]
        say(f"{point['step']:>9,}" + "".join(cells).rstrip())


def print_recall(result: RecallResult) -> None:
    """For each task the recall of each length of embeddings, of BM25 and of both, and that of each group."""
    for name, task in result["tasks"].items():
        click.echo(
            f"{name}: {plural(task['pairs'], 'pair')} of {task['queries']:,} queries among {task['index']:,}"
        )
        click.echo(f"  {'':<36}recall@10             @1   @100    MRR")
        lines = [(f"{dim} numbers", summary) for dim, summary in task["dims"].items()]
        for label, summary in [*lines, ("BM25", task["bm25"]), ("both fused", task["fused"])]:
            others = (summary["recall@1"], summary["recall@100"], summary["mrr"])
            cells = "  ".join(f"{mean:.3f}" for mean, _, _ in others)
            click.echo(f"  {label:<36}{_interval(summary)}  {cells}")
        if task["groups"]:
            click.echo(f"  {'pairs by':<36}{'recall@10':<20}BM25     pairs")
        for by, groups in task["groups"].items():
            for label, group in groups.items():
                click.echo(
                    f"  {printable(by + ': ' + label):<36.36}{_interval(group['model'])}"
                    f"  {group['bm25']['recall@10'][0]:.3f}{group['pairs']:>9,}"
                )


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
