"""`captioner embed`: the trainer that reads an export, and what its embeddings find."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import click

from ..common.terminal import plural, printable, say, steps
from .verbs import Verbs, verb

FIELD_NAMES = "title,description,caption,board_titles,engaged_queries"


@click.group(cls=Verbs)
def embed() -> None:
    """Train a search embedding on an export, and measure what it finds."""


def _fields(text: str) -> tuple[str, ...]:
    names = tuple(name.strip() for name in text.split(",") if name.strip())
    if not names or (unknown := set(names) - set(FIELD_NAMES.split(","))):
        raise click.UsageError(
            f"--fields takes names out of {FIELD_NAMES}"
            + (f", not {', '.join(sorted(unknown))}" if names else "")
        )
    return names


def _mix(entries: tuple[str, ...]) -> tuple[tuple[str, float], ...]:
    from ..embed.batches import MIX
    from ..embed.pairs import OWN_WORDS

    mix, tasks = {}, (*MIX, OWN_WORDS)
    for entry in entries:
        name, _, weight = entry.partition("=")
        try:
            if name not in tasks or not 0 <= float(weight) < 1e6:
                raise ValueError
        except ValueError:
            raise click.UsageError(
                f"--mix takes TASK=WEIGHT with a task out of {', '.join(tasks)}; it got {entry!r}"
            ) from None
        mix[name] = float(weight)
    return tuple(mix.items())


@verb(embed, "train")
@click.argument("export")
@click.argument("model")
@click.option(
    "--encoder",
    default="small",
    show_default=True,
    metavar="small|NAME|PATH",
    help="Query encoder: a small one from scratch, or one of transformers.",
)
@click.option("--revision", metavar="R", help="Of the encoder.")
@click.option(
    "--fields", default=FIELD_NAMES, metavar="NAME,...", help="Text fields of the item tower. [default: all]"
)
@click.option(
    "--epochs",
    type=click.FloatRange(0, 10_000, min_open=True),
    default=10,
    show_default=True,
    help="Times that as many pairs are seen as there are.",
)
@click.option(
    "--batch",
    type=click.IntRange(2, 1_000_000),
    default=256,
    show_default=True,
    help="Pairs of a step over all processes, own-words included; at least one of each task.",
)
@click.option(
    "--learning-rate",
    type=click.FloatRange(0, 10, min_open=True),
    default=1e-3,
    show_default=True,
    help="Of the towers, at its highest.",
)
@click.option(
    "--mix",
    multiple=True,
    metavar="TASK=WEIGHT",
    help="Weight of a task in a batch. [default: query-pin=8 query-product=4 query-query=2, of the small encoder own-words=4]",
)
@click.option(
    "--correction", type=click.Choice(["popularity", "conditional", "none"]), default="popularity", show_default=True,
    help="logQ: what is taken from the logits: log of an item's share of the draws, of positives that given the query, or nothing.",
)  # fmt: skip
@click.option(
    "--mask-known", is_flag=True, help="Leave a query's other known positives out of its candidates."
)
@click.option(
    "--compatible",
    multiple=True,
    metavar="NAME",
    help="Fixed vectors that queries are to be comparable with.",
)
@click.option("--hashed", is_flag=True, help="Ids of n-grams by hashing, without a vocabulary.")
@click.option(
    "--width",
    type=click.IntRange(32, 4096),
    metavar="N",
    help="Numbers of an n-gram's embedding, and of the small encoder: a multiple of 32. [default: 128; 256 with another encoder]",
)
@click.option(
    "--dims",
    metavar="N,...",
    help="Numbers of an embedding, and how many of its first are one too. [default: 16,32,64,128; to 256 with another encoder]",
)
@click.option(
    "--workers",
    type=click.IntRange(0, 256),
    default=1,
    show_default=True,
    help="Processes that make batches.",
)
@click.option("--device", type=click.Choice(["auto", "cpu"]), default="auto", show_default=True)
@click.option(
    "--every",
    type=click.IntRange(1),
    metavar="STEPS",
    help="Between checkpoints, with recall on held-out queries. [default: a twentieth of all, at most 200]",
)
@click.option(
    "--seed",
    type=click.IntRange(0, 2**31 - 1),
    default=0,
    show_default=True,
    help="Of weights, order and negatives.",
)
def train_command(
    export: str,
    model: str,
    workers: int,
    device: str,
    fields: str,
    mix: tuple[str, ...],
    width: int | None,
    dims: str | None,
    as_json: bool,
    **options: Any,
) -> dict[str, Any]:
    """Train query and item tower on the pairs of an export.

    The pairs' split train is learned from; 2% of its queries are held out, for the learning curve and to keep
    the step that does best on them. The small encoder also learns to find an item by a few words of its own
    texts. A training that was stopped goes on where its last checkpoint was, exactly; the same command again
    on a model that is done does nothing. For several GPUs: accelerate launch --multi_gpu -m pincaption.cli
    embed train ...

    \b
    captioner export my.db out/ --as-of 2026-06-01 --pairs --test-from 2026-06-24
    captioner embed train out/ model/
    captioner embed train out/ model/ --encoder distilbert-base-multilingual-cased
    """
    chosen, mixed, numbers = _fields(fields), _mix(mix), _dims(dims)
    if width is not None and width % 32:
        raise click.UsageError(
            f"--width takes a multiple of 32, for instance {-(-width // 32) * 32}; it got {width}"
        )
    from ..embed.errors import EmbedError
    from ..embed.options import TrainOptions
    from ..embed.sizes import sizes_of
    from ..embed.training import train

    rank = os.environ.get("RANK", "0")
    first = rank == "0"  # of several processes one speaks for all
    sizes = sizes_of(options["encoder"], width, numbers)
    try:
        with steps({"training": "steps"}) as on_step:
            found = train(
                export,
                model,
                TrainOptions(fields=chosen, mix=mixed, sizes=sizes, **options),
                workers=workers,
                device=None if device == "auto" else device,
                # elsewhere the lines of the table tell
                on_step=on_step if first and sys.stderr.isatty() else lambda what, done, total: None,
                on_point=_Table(),
            )
    except Exception as error:
        if first:
            raise
        if isinstance(error, EmbedError):  # which the first process has as well
            raise click.exceptions.Exit(1) from None
        raise RuntimeError(f"process {rank}: {type(error).__name__}: {error}") from error
    if not first:
        raise click.exceptions.Exit(0)
    if not as_json:
        click.echo(
            f"{plural(found['steps'], 'step')}, {plural(found['pairs'], 'pair')}, {found['pairs_per_second']:,.0f} pairs/s: {found['model']}"
        )
        if found["validation"]:
            click.echo(f"kept step {found['kept_step']:,}, which does best on held-out training queries:")
        for name, told in found["validation"].items():
            click.echo(f"  {name:<14} recall@10 {told['recall@10']:.3f}, BM25 {told['bm25 recall@10']:.3f}")
        curve = Path(found["model"]) / "learning_curve.png"
        click.echo(
            f"curve: {curve}" if curve.exists() else "no curve was drawn: pip install 'pincaption[plots]'"
        )
    return found


class _Table:
    """Losses and recalls of each task as they come, a line for each point of the curve, within 80 columns."""

    def __init__(self) -> None:
        self.tasks: list[str] = []

    def __call__(self, point: dict[str, Any]) -> None:
        if not self.tasks:
            # those of fixed vectors stand in the curve alone
            self.tasks = [name for name in point["loss"] if " " not in name]
            say(" " * 9 + "".join(f"  {name:<14}" for name in self.tasks).rstrip())
            say(
                f"{'step':>9}"
                + "".join(
                    "    loss   r@10 " if name in point["validation"] else "    loss        "
                    for name in self.tasks
                ).rstrip()
            )
        cells = [
            f"  {point['loss'][name]:>6.3f}  {_of(point['validation'], name):>5} " for name in self.tasks
        ]
        say(f"{point['step']:>9,}" + "".join(cells).rstrip())


def _of(validation: dict[str, Any], name: str) -> str:
    return f"{validation[name]['recall@10']:.3f}" if name in validation else ""


def _dims(text: str | None) -> tuple[int, ...] | None:
    if text is None:
        return None
    try:
        numbers = tuple(sorted({int(part) for part in text.split(",")}))
        if not 1 <= numbers[0] <= numbers[-1] <= 8192:
            raise ValueError
    except ValueError:
        raise click.UsageError(
            f"--dims takes numbers from 1 to 8192 with commas between them, for instance 64,128,256; it got {text!r}"
        ) from None
    return numbers


@verb(embed, "recall")
@click.argument("model")
@click.argument("export")
@click.option(
    "--split",
    type=click.Choice(["test", "train"]),
    default="test",
    show_default=True,
    help="Whose pairs are ranked.",
)
@click.option(
    "--index",
    type=click.IntRange(1),
    metavar="N",
    help="Rank among N random items and those of the pairs. [default: all]",
)
def recall_command(model: str, export: str, split: str, index: int | None, as_json: bool) -> dict[str, Any]:
    """How often the item that somebody took is among the first ten: Recall@10, @1, @100 and MRR, with BM25
    and both fused beside.

    Per task, and within it by action, language, native text of the item, and whether the query was known to
    lead to it. Other known positives of a query are left out of its ranking, equals share their ranks,
    intervals (95%) resample queries.

    \b
    captioner embed recall model/ out/
    """
    from ..embed.model import Model
    from ..embed.reader import Export
    from ..embed.recall import recall

    with steps({"encoding items": "items", "ranking": "tasks"}) as on_step:
        items = Export(export)
        loaded = Model.load(model)
        items.fields = tuple(loaded.items.fields)
        found = recall(loaded, items, split=split, index=index, on_step=on_step)
    if not as_json:
        for name, told in found["tasks"].items():
            click.echo(
                f"{name}: {plural(told['pairs'], 'pair')} of {told['queries']:,} queries among {told['index']:,}"
            )
            click.echo(f"  {'':<36}recall@10             @1   @100    MRR")
            rows = [(f"{dim} numbers", measured) for dim, measured in told["dims"].items()] + [
                ("BM25", told["bm25"]),
                ("both fused", told["fused"]),
            ]
            for label, measured in rows:
                click.echo(
                    f"  {label:<36}{_interval(measured)}  "
                    + "  ".join(f"{measured[what][0]:.3f}" for what in ("recall@1", "recall@100", "mrr"))
                )
            if told["groups"]:
                click.echo(f"  {'pairs by':<36}{'recall@10':<20}BM25     pairs")
            for by, groups in told["groups"].items():
                for group, measured in groups.items():
                    click.echo(
                        f"  {printable(by + ': ' + group):<36.36}{_interval(measured['model'])}  {measured['bm25']['recall@10'][0]:.3f}{measured['pairs']:>9,}"
                    )
    return found


def _interval(measured: dict[str, Any]) -> str:
    mean, low, high = measured["recall@10"]
    return f"{mean:.3f} ({low:.3f}-{high:.3f})"


@verb(embed, "ablate")
@click.argument("export")
@click.argument("out")
@click.option(
    "--seeds",
    type=click.IntRange(1, 10),
    default=5,
    show_default=True,
    help="Trainings of each set of fields.",
)
@click.option(
    "--epochs",
    type=click.FloatRange(0, 10_000, min_open=True),
    default=5,
    show_default=True,
    help="Of each training.",
)
@click.option(
    "--batch", type=click.IntRange(2, 1_000_000), default=256, show_default=True, help="Pairs of a step."
)
@click.option(
    "--encoder",
    default="small",
    show_default=True,
    metavar="small|NAME|PATH",
    help="Query encoder, as of train.",
)
@click.option(
    "--workers",
    type=click.IntRange(0, 256),
    default=1,
    show_default=True,
    help="Processes that make batches.",
)
def ablate_command(
    export: str, out: str, seeds: int, workers: int, as_json: bool, **options: Any
) -> dict[str, Any]:
    """What captions, board titles and queries add: one training for each set of fields and seed, and
    Recall@10 of each.

    Native text alone, with captions, with board titles, with engaged queries, with all, as far as the export
    has them; and three controls of the captions: another item's in every batch, another item's for good, and
    random words. Differences are paired by seed, with 95% intervals. The table is kept as OUT/ablation.json
    and drawn as OUT/ablation.png; a call that was stopped goes on after the last training that was done.

    \b
    captioner embed ablate out/ ablation/
    """
    from ..embed.ablate import ablate
    from ..embed.options import TrainOptions

    with steps({"trainings": "trainings"}) as on_step:
        found = ablate(
            export,
            out,
            TrainOptions(every=1_000_000, **options),
            seeds=seeds,
            workers=workers,
            on_step=on_step,
        )
    if not as_json:
        for group, pairs in found["pairs"].items():
            click.echo(f"{group}: {plural(pairs, 'pair')}")
            click.echo(f"  {'':<28}recall@10   BM25   more than native text (95%)")
            for arm, told in found["arms"].items():
                shown = _difference(told["difference"][group]) if told["difference"] else ""
                click.echo(
                    f"  {arm:<28}{told['recall@10'][group][0]:>9.3f}{told['bm25'][group]:>7.3f}   {shown}".rstrip()
                )
            for arm, gaps in found["captions beyond"].items():
                click.echo(f"  captions more than {arm.removeprefix('+ '):<28}{_difference(gaps[group])}")
        click.echo(
            f"plot: {found['plot']}"
            if found["plot"]
            else "no plot was drawn: pip install 'pincaption[plots]'"
        )
    return found


def _difference(gap: list[float | None]) -> str:
    mean, low, high = gap
    return (
        f"{mean:+.3f} (one seed, no interval)" if low is None else f"{mean:+.3f} ({low:+.3f} to {high:+.3f})"
    )


@verb(embed, "queries")
@click.argument("model")
@click.argument("queries", type=click.File("r", encoding="utf-8", errors="replace"), default="-")
@click.option(
    "--out",
    type=click.Path(dir_okay=False),
    metavar="FILE",
    help="Parquet to write. [default: standard output]",
)
@click.option(
    "--dim",
    type=click.IntRange(1),
    metavar="N",
    help="Only the first N numbers, one of the sizes that the model was trained for.",
)
def queries_command(
    model: str, queries: Any, out: str | None, dim: int | None, as_json: bool
) -> dict[str, Any]:
    """Embed queries, one a line, as Parquet with query and vector.

    \b
    captioner embed queries model/ < queries.txt > vectors.parquet
    captioner embed queries model/ queries.txt --out vectors.parquet
    """
    if out is None and (as_json or sys.stdout.isatty()):
        raise click.UsageError("Parquet is nothing to look at: add --out FILE, or > vectors.parquet")
    from ..embed.model import Model
    from ..embed.queries import write

    n = write(Model.load(model), queries, out or sys.stdout.buffer, dim)
    say(plural(n, "query") if n == 1 else f"{n:,} queries")
    return {"queries": n, "out": out}


@verb(embed, "export-encoder")
@click.argument("model")
@click.argument("out", type=click.Path(dir_okay=False))
def export_encoder_command(model: str, out: str, as_json: bool) -> dict[str, Any]:
    """Write the query encoder by torch.export, for services that have no code of ours; refused if it differs
    by more than 1e-4.

    It takes ids and mask [queries, at most 64 tokens] of MODEL/encoder's tokeniser and gives embeddings
    [queries, numbers]. Texts are to be in the form of pincaption.filters.text.normalise before: lower case,
    NFKC, without punctuation. The small encoder's tokeniser brings raw texts into that form by itself, but
    for a few rare letters; that of another encoder does not, so that the service has to.

    \b
    captioner embed export-encoder model/ query_encoder.pt2
    """
    from ..embed.exported_encoder import export_encoder
    from ..embed.model import Model

    gap = export_encoder(Model.load(model), Path(out))
    if not as_json:
        click.echo(f"{out}: at most {gap:.0e} from the model's own numbers")
    return {"encoder": out, "difference": gap}
