"""`captioner embed`: the trainer that reads an export, and what its embeddings find."""

from __future__ import annotations

import sys
from typing import Any

import click

from .terminal import plural, progress, say, steps
from .verbs import Verbs, verb

FIELD_NAMES = "title,description,caption,board_titles,engaged_queries"


@click.group(cls=Verbs)
def embed() -> None:
    """Train a search embedding on an export, and measure what it finds."""


def _fields(text: str) -> tuple[str, ...]:
    names = tuple(name.strip() for name in text.split(",") if name.strip())
    if not names or (unknown := set(names) - set(FIELD_NAMES.split(","))):
        raise click.UsageError(f"--fields takes names out of {FIELD_NAMES}" + (f", not {', '.join(sorted(unknown))}" if names else ""))
    return names


def _mix(entries: tuple[str, ...]) -> tuple[tuple[str, float], ...]:
    from .embed.data import MIX

    mix = dict(MIX)
    for entry in entries:
        name, _, weight = entry.partition("=")
        try:
            if name not in MIX or not 0 <= float(weight) < 1e6:
                raise ValueError
        except ValueError:
            raise click.UsageError(f"--mix takes TASK=WEIGHT with a task out of {', '.join(MIX)}; it got {entry!r}") from None
        mix[name] = float(weight)
    return tuple(mix.items())


@verb(embed, "train")
@click.argument("export")
@click.argument("model")
@click.option("--encoder", default="small", show_default=True, metavar="small|NAME|PATH", help="Query encoder: a small one from scratch, or one of transformers.")
@click.option("--revision", metavar="R", help="Of the encoder.")
@click.option("--fields", default=FIELD_NAMES, metavar="NAME,...", help="Text fields of the item tower. [default: all]")
@click.option("--epochs", type=click.FloatRange(0, 10_000, min_open=True), default=10, show_default=True, help="Times that as many pairs are seen as there are.")
@click.option("--batch", type=click.IntRange(2, 1_000_000), default=256, show_default=True, help="Pairs of a step, over all processes.")
@click.option("--learning-rate", type=click.FloatRange(0, 10, min_open=True), default=1e-3, show_default=True, help="Of the towers, at its highest.")
@click.option("--mix", multiple=True, metavar="TASK=WEIGHT", help="Share of a task in a batch. [default: query-pin=8 query-product=4 query-query=2]")
@click.option("--correction", type=click.Choice(["popularity", "conditional", "none"]), default="popularity", show_default=True, help="logQ of the positives.")
@click.option("--mask-known", is_flag=True, help="Leave a query's other known positives out of its candidates.")
@click.option("--compatible", multiple=True, metavar="NAME", help="Fixed vectors that queries are to be comparable with.")
@click.option("--hashed", is_flag=True, help="Ids of n-grams by hashing, without a vocabulary.")
@click.option("--workers", type=click.IntRange(0, 256), default=1, show_default=True, help="Processes that make batches.")
@click.option("--device", type=click.Choice(["auto", "cpu"]), default="auto", show_default=True)
@click.option("--every", type=click.IntRange(1), metavar="STEPS", help="Between checkpoints, with recall on held-out queries. [default: a twentieth of all, at most 200]")
@click.option("--seed", type=int, default=0, show_default=True, help="Of weights, order and negatives.")
def train_command(export: str, model: str, workers: int, device: str, fields: str, mix: tuple[str, ...], as_json: bool, **options: Any) -> dict[str, Any]:
    """Train query and item tower on the pairs of an export.

    The pairs' split train is learned from; 2% of its queries are held out for the learning curve. A training that was stopped goes
    on where its last checkpoint was, exactly; the same command again on a model that is done does nothing. For several GPUs:
    accelerate launch --multi_gpu -m pincaption.cli embed train ...

    \b
    captioner export my.db out/ --as-of 2026-06-01 --pairs --test-from 2026-06-24
    captioner embed train out/ model/
    captioner embed train out/ model/ --encoder distilbert-base-multilingual-cased --batch 4096
    """
    chosen = _fields(fields)
    mixed = _mix(mix)
    from .embed.training import TrainOptions, train

    with progress("training", "steps") as shown:
        found = train(
            export,
            model,
            TrainOptions(fields=chosen, mix=mixed, **options),
            workers=workers,
            device=None if device == "auto" else device,
            on_step=lambda what, done, total, note: shown.update(done, total, note),
        )
    if not as_json:
        click.echo(f"{plural(found['steps'], 'step')}, {plural(found['pairs'], 'pair')}, {found['pairs_per_second']:,.0f} pairs/s: {found['model']}")
        for name, told in found["validation"].items():
            click.echo(f"  {name:<14} recall@10 {told['recall@10']:.3f} of held-out training queries, BM25 {told['bm25 recall@10']:.3f}")
    return found


@verb(embed, "recall")
@click.argument("model")
@click.argument("export")
@click.option("--split", type=click.Choice(["test", "train"]), default="test", show_default=True, help="Whose pairs are ranked.")
@click.option("--index", type=click.IntRange(1), metavar="N", help="Rank among N random items and those of the pairs. [default: all]")
def recall_command(model: str, export: str, split: str, index: int | None, as_json: bool) -> dict[str, Any]:
    """How often the item that somebody took is among the first ten: Recall@10, @1, @100 and MRR, with BM25 and both fused beside.

    Per task, and within it by action, language, native text of the item, and whether the query was known to lead to it. Other known
    positives of a query are left out of its ranking, equals share their ranks, intervals (95%) resample queries.

    \b
    captioner embed recall model/ out/
    """
    from .embed.data import Export
    from .embed.recall import recall
    from .embed.towers import Model

    with steps({"encoding items": "items", "ranking": "tasks"}) as on_step:
        loaded = Model.load(model)
        found = recall(loaded, Export(export, loaded.items.fields), split=split, index=index, on_step=on_step)
    if not as_json:
        for name, told in found["tasks"].items():
            click.echo(f"{name}: {plural(told['pairs'], 'pair')} of {told['queries']:,} queries among {told['index']:,}")
            click.echo(f"  {'':<36}{'pairs':>8}  recall@10           BM25")
            for dim, measured in told["dims"].items():
                click.echo(f"  {dim + ' numbers':<36}{told['pairs']:>8,}  {_interval(measured)}  {told['bm25']['recall@10'][0]:.3f}")
            click.echo(f"  {'fused with BM25':<36}{told['pairs']:>8,}  {_interval(told['fused'])}")
            for by, groups in told["groups"].items():
                for group, measured in groups.items():
                    click.echo(f"  {by + ': ' + group:<36.36}{measured['pairs']:>8,}  {_interval(measured['model'])}  {measured['bm25']['recall@10'][0]:.3f}")
    return found


def _interval(measured: dict[str, Any]) -> str:
    mean, low, high = measured["recall@10"]
    return f"{mean:.3f} ({low:.3f}-{high:.3f})"


@verb(embed, "ablate")
@click.argument("export")
@click.argument("out")
@click.option("--seeds", type=click.IntRange(1, 10), default=5, show_default=True, help="Trainings of each set of fields.")
@click.option("--epochs", type=click.FloatRange(0, 10_000, min_open=True), default=5, show_default=True, help="Of each training.")
@click.option("--batch", type=click.IntRange(2, 1_000_000), default=256, show_default=True, help="Pairs of a step.")
@click.option("--encoder", default="small", show_default=True, metavar="small|NAME|PATH", help="Query encoder, as of train.")
@click.option("--workers", type=click.IntRange(0, 256), default=1, show_default=True, help="Processes that make batches.")
def ablate_command(export: str, out: str, seeds: int, workers: int, as_json: bool, **options: Any) -> dict[str, Any]:
    """What captions, board titles and queries add: one training for each set of fields and seed, and Recall@10 of each.

    Native text alone, with captions, with board titles, with engaged queries, with all, and, as a control, with the captions of other
    items. Differences to native text are paired by seed, with 95% intervals. The table is kept as OUT/ablation.json and drawn as
    OUT/ablation.png; a call that was stopped goes on where it was.

    \b
    captioner embed ablate out/ ablation/
    """
    from .embed.ablate import ablate
    from .embed.training import TrainOptions

    with steps({"trainings": "trainings"}) as on_step:
        found = ablate(export, out, TrainOptions(every=1_000_000, **options), seeds=seeds, workers=workers, on_step=on_step)
    if not as_json:
        for group, pairs in found["pairs"].items():
            click.echo(f"{group}: {plural(pairs, 'pair')}")
            click.echo(f"  {'':<28}recall@10   BM25   more than native text (95%)")
            for arm, told in found["arms"].items():
                gap = told["difference"].get(group)
                shown = f"{gap[0]:+.3f} ({gap[1]:+.3f} to {gap[2]:+.3f})" if gap else ""
                click.echo(f"  {arm:<28}{told['recall@10'][group][0]:>9.3f}{told['bm25'][group]:>7.3f}   {shown}".rstrip())
    return found


@verb(embed, "queries")
@click.argument("model")
@click.argument("queries", type=click.File("r", encoding="utf-8", errors="replace"), default="-")
@click.option("--out", type=click.Path(dir_okay=False), metavar="FILE", help="Parquet to write. [default: standard output]")
@click.option("--dim", type=click.IntRange(1), metavar="N", help="Only the first N numbers, one of the sizes that the model was trained for.")
def queries_command(model: str, queries: Any, out: str | None, dim: int | None, as_json: bool) -> dict[str, Any]:
    """Embed queries, one a line, as Parquet with query and vector.

    \b
    captioner embed queries model/ < queries.txt > vectors.parquet
    captioner embed queries model/ queries.txt --out vectors.parquet
    """
    if out is None and (as_json or sys.stdout.isatty()):
        raise click.UsageError("Parquet is nothing to look at: add --out FILE, or > vectors.parquet")
    from .embed.queries import write
    from .embed.towers import Model

    n = write(Model.load(model), queries, out or sys.stdout.buffer, dim)
    say(plural(n, "query") if n == 1 else f"{n:,} queries")
    return {"queries": n, "out": out}
