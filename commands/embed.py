"""`captioner embed`: trains a search embedding on an export, and measures what it finds."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..common.terminal import no_step, plural, say, steps
from .embed_tables import TrainingTable, print_ablation, print_training
from .verbs import Verbs, verb

if TYPE_CHECKING:
    from ..embed.ablate import AblationResult
    from ..embed.checkpoint import TrainResult

FIELD_NAMES = "title,description,caption,board_titles,engaged_queries"

_BATCH = click.option(
    "--batch",
    type=click.IntRange(2, 1_000_000),
    default=256,
    show_default=True,
    help="Pairs in a step, of all processes and tasks together; each task has at least one.",
)
_ENCODER = click.option(
    "--encoder",
    default="none",
    show_default=True,
    metavar="none|NAME|PATH",
    help="A pretrained text encoder of transformers, for queries and items. Without one the model is made of "
    "words and character trigrams alone, and needs no download.",
)
_LEARNING_RATE = click.option(
    "--learning-rate",
    type=click.FloatRange(0, 10, min_open=True),
    default=2e-4,
    show_default=True,
    help="The highest learning rate of the layers of the towers. If most queries are new, try 1e-5.",
)
_TABLE_LEARNING_RATE = click.option(
    "--table-learning-rate",
    type=click.FloatRange(0, 10),
    default=1e-3,
    show_default=True,
    help="That of the table of n-grams. If most queries are new, try 2e-4. 0 keeps it as it is.",
)
_ENCODER_LEARNING_RATE = click.option(
    "--encoder-learning-rate",
    type=click.FloatRange(0, 10),
    default=3e-5,
    show_default=True,
    help="That of a pretrained encoder. 0 keeps it as it is, and makes training much faster.",
)
_CORRECTION = click.option(
    "--correction",
    type=click.Choice(["popularity", "conditional", "none"]),
    default="popularity",
    show_default=True,
    help="logQ correction: what is subtracted from the logits, the log of how often an item is drawn; "
    "with 'conditional', for positives, of how often it is drawn for this query.",
)
_WORKERS = click.option(
    "--workers",
    type=click.IntRange(0, 256),
    default=1,
    show_default=True,
    help="Processes that make batches.",
)


@click.group(cls=Verbs)
def embed() -> None:
    """Train a search embedding on an export, and measure it."""


def _fields(ctx: click.Context, param: click.Parameter, text: str) -> tuple[str, ...]:
    names = tuple(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))
    if not names:
        raise click.UsageError(f"--fields takes names of text columns, for instance {FIELD_NAMES}")
    return names


def _mix(
    ctx: click.Context, param: click.Parameter, entries: tuple[str, ...]
) -> tuple[tuple[str, float], ...]:
    if not entries:
        return ()
    from ..embed.batches import MIX

    mix, tasks = {}, tuple(MIX)
    for entry in entries:
        name, _, weight = entry.partition("=")
        try:
            if name not in tasks or not 0 <= float(weight) < 1e6:
                raise ValueError
        except ValueError:
            raise click.UsageError(
                f"--mix takes TASK=WEIGHT, where TASK is one of {', '.join(tasks)}; it got {entry!r}"
            ) from None
        mix[name] = float(weight)
    return tuple(mix.items())


def _dims(ctx: click.Context, param: click.Parameter, text: str) -> tuple[int, ...]:
    try:
        numbers = tuple(sorted({int(part) for part in text.split(",")}))
        if not 1 <= numbers[0] <= numbers[-1] <= 8192:
            raise ValueError
    except ValueError:
        raise click.UsageError(
            "--dims takes numbers from 1 to 8192, separated by commas, for instance 64,128,256; "
            f"it got {text!r}"
        ) from None
    return numbers


@verb(embed, "train")
@click.argument("export")
@click.argument("model")
@_ENCODER
@click.option("--revision", metavar="R", help="The revision of the encoder on the Hugging Face Hub.")
@click.option(
    "--fields",
    callback=_fields,
    default=FIELD_NAMES,
    metavar="NAME,...",
    show_default=True,
    help="Text columns of the export that the item tower reads; category, for instance, is another one.",
)
@click.option(
    "--epochs",
    type=click.FloatRange(0, 10_000, min_open=True),
    default=3,
    show_default=True,
    help="Passes over all pairs.",
)
@_BATCH
@_LEARNING_RATE
@_TABLE_LEARNING_RATE
@_ENCODER_LEARNING_RATE
@click.option(
    "--hard-negatives",
    type=click.IntRange(0, 16),
    default=0,
    show_default=True,
    help="For each pair so many items that the query's words find and that nobody chose for it.",
)
@click.option(
    "--mix",
    callback=_mix,
    multiple=True,
    metavar="TASK=WEIGHT",
    help="The weight of a task in a batch. [default: query-pin=8 query-product=4 query-query=2]",
)
@_CORRECTION
@click.option("--mask-known", is_flag=True, help="Do not use a query's other known positives as negatives.")
@click.option(
    "--compatible",
    multiple=True,
    metavar="NAME",
    help="Also make queries comparable with the fixed vectors NAME of the items. Repeatable.",
)
@click.option("--hashed", is_flag=True, help="Give n-grams their ids by hashing, without a vocabulary.")
@click.option(
    "--width",
    type=click.IntRange(8, 4096),
    default=512,
    show_default=True,
    metavar="N",
    help="Numbers of the n-grams in an embedding. Those of an encoder come before them.",
)
@click.option(
    "--dims",
    callback=_dims,
    default="64,128,256",
    show_default=True,
    metavar="N,...",
    help="Lengths of prefixes of an embedding that can be used alone.",
)
@_WORKERS
@click.option("--device", type=click.Choice(["auto", "cpu"]), default="auto", show_default=True)
@click.option(
    "--every",
    type=click.IntRange(1),
    metavar="STEPS",
    help="Steps between checkpoints; each time held-out queries are ranked. "
    "[default: a twentieth of all, at most 200]",
)
@click.option(
    "--seed",
    type=click.IntRange(0, 2**31 - 1),
    default=0,
    show_default=True,
    help="Seed of weights, order and negatives.",
)
def train_command(
    export: str,
    model: str,
    workers: int,
    device: str,
    width: int,
    dims: tuple[int, ...],
    as_json: bool,
    **options: Any,
) -> TrainResult:
    """Train a query tower and an item tower on an export.

    A tower is a network that makes a vector of a query, or of an item's texts. Learns from the pairs of the
    split train. 2% of its queries are held out: they give the learning curve, and the step that ranks them
    best is kept. Step 0, before anything is learned, competes too. A training that was stopped goes on from
    its last checkpoint, exactly. A finished one is left alone. For several GPUs: accelerate launch
    --multi_gpu -m pincaption.cli embed train ...

    \b
    captioner export my.db out/ --as-of 2026-06-01 --pairs --test-from 2026-06-24
    captioner embed train out/ model/
    captioner embed train out/ model/ --encoder FOLDER_OR_NAME
    """
    from ..embed.errors import EmbedError
    from ..embed.options import TrainOptions
    from ..embed.sizes import Sizes
    from ..embed.training import train

    process = os.environ.get("RANK", "0")
    is_first = process == "0"  # of several processes only the first one prints anything
    try:
        with steps({"training": "steps"}) as on_step:
            result = train(
                export,
                model,
                TrainOptions(sizes=Sizes(width=width, prefixes=dims), **options),
                workers=workers,
                device=None if device == "auto" else device,
                # Without a terminal the lines of the table show how far it is.
                on_step=on_step if is_first and sys.stderr.isatty() else no_step,
                on_point=TrainingTable(),
            )
    except Exception as error:
        if is_first:
            raise
        if isinstance(error, EmbedError):  # the first process has the same error, and prints it
            raise click.exceptions.Exit(1) from None
        raise RuntimeError(f"process {process}: {type(error).__name__}: {error}") from error
    if not is_first:
        raise click.exceptions.Exit(0)
    if not as_json:
        print_training(result)
    return result


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
    help="Passes over all pairs in each training.",
)
@_BATCH
@_ENCODER
@_LEARNING_RATE
@_TABLE_LEARNING_RATE
@_ENCODER_LEARNING_RATE
@_CORRECTION
@_WORKERS
def ablate_command(
    export: str, out: str, seeds: int, workers: int, as_json: bool, **options: Any
) -> AblationResult:
    """Measure what captions, board titles and queries add.

    Compares Recall@10 after trainings with and without them. Trains with native text alone, with captions,
    with board titles, with engaged queries, and with all of them, as far as the export has them. Three
    controls replace the captions: with those of other items that change in every batch, with those of other
    items that stay, and with random words. Differences are paired by seed and have 95% intervals.
    OUT/ablation.json has the table, OUT/ablation.png the picture. A call that was stopped goes on after the
    last finished training.

    \b
    captioner embed ablate out/ ablation/
    """
    from ..embed.ablate import ablate
    from ..embed.options import TrainOptions

    with steps({"trainings": "trainings"}) as on_step:
        # Checkpoints and points of the curve are not needed: `every` is beyond the last step.
        train_options = TrainOptions(every=1_000_000, **options)
        result = ablate(export, out, train_options, seeds=seeds, workers=workers, on_step=on_step)
    if not as_json:
        print_ablation(result)
    return result


@verb(embed, "queries")
@click.argument("model")
@click.argument("queries", type=click.File("r", encoding="utf-8", errors="replace"), default="-")
@click.option(
    "--out",
    type=click.Path(dir_okay=False),
    metavar="FILE",
    help="The Parquet file to write. [default: standard output]",
)
@click.option(
    "--dim",
    type=click.IntRange(1),
    metavar="N",
    help="Only the first N numbers; N is one of the lengths that the model was trained for.",
)
def queries_command(
    model: str, queries: Any, out: str | None, dim: int | None, as_json: bool
) -> dict[str, Any]:
    """Embed queries, one a line, and write them as Parquet.

    The columns are query and vector.

    \b
    captioner embed queries model/ < queries.txt > vectors.parquet
    captioner embed queries model/ queries.txt --out vectors.parquet
    """
    if out is None and (as_json or sys.stdout.isatty()):
        raise click.UsageError("Parquet cannot be shown on a terminal: add --out FILE, or > vectors.parquet")
    from ..embed.model import EmbeddingModel
    from ..embed.queries import write_query_vectors

    n = write_query_vectors(EmbeddingModel.load(model), queries, out or sys.stdout.buffer, dim)
    say(plural(n, "query"))
    return {"queries": n, "out": out}


@verb(embed, "export-encoder")
@click.argument("model")
@click.argument("out", type=click.Path(dir_okay=False))
def export_encoder_command(model: str, out: str, as_json: bool) -> dict[str, Any]:
    """Write the query encoder for a service without our code.

    OUT is a file of torch.export, for instance query_encoder.pt2. Beside it are written query_encoder.py,
    which turns raw texts into the encoder's input, the vocabulary and, for a model with a pretrained encoder,
    the tokeniser. Nothing is written if the embeddings differ from the model's by more than 1e-4.

    \b
    captioner embed export-encoder model/ query_encoder.pt2
    """
    from ..embed.exported_encoder import export_encoder
    from ..embed.model import EmbeddingModel

    difference = export_encoder(EmbeddingModel.load(model), Path(out))
    if not as_json:
        click.echo(f"{out}: at most {difference:.0e} from the model's own numbers")
    return {"encoder": out, "difference": difference}
