"""`captioner embed items|index|search|related`: item vectors, an index, and what a search finds and why."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from ..common.terminal import no_step, plural, steps, wrapped
from .embed import embed
from .verbs import verb

if TYPE_CHECKING:
    from ..embed.item_writer import ItemsResult

_DEVICE = click.option(
    "--device",
    type=click.Choice(["auto", "cpu"]),
    default="auto",
    show_default=True,
    help="Where the model computes: on a GPU if there is one, or on the CPU.",
)


@verb(embed, "items")
@click.argument("model")
@click.argument("export")
@click.argument("out", type=click.Path(dir_okay=False))
@click.option(
    "--dim",
    type=click.IntRange(1),
    metavar="N",
    help="Only the first N numbers; N is one of the lengths that the model was trained for.",
)
@click.option("--int8", is_flag=True, help="Write int8 numbers, those of the vector times 127.")
@_DEVICE
def items_command(
    model: str, export: str, out: str, dim: int | None, int8: bool, device: str, as_json: bool
) -> ItemsResult:
    """Embed the items of an export, and write their vectors as Parquet.

    The columns are pin_id, kind, category, vector (float16), and text_digest. If OUT exists, only items whose
    texts or dense vectors changed are embedded again, and items that are gone are dropped. After another
    training all are embedded again. For several processes or GPUs: accelerate launch --num_processes 2 -m
    pincaption.cli embed items ...

    \b
    captioner embed items model/ out/ items.parquet
    captioner embed items model/ out/ small.parquet --dim 64 --int8
    """
    from ..embed.distributed import join_processes, process_rank
    from ..embed.item_vectors import export_for
    from ..embed.item_writer import write_item_vectors
    from ..embed.model import EmbeddingModel

    place = join_processes(None if device == "auto" else device)
    is_first = process_rank() == 0  # of several processes only the first one prints anything
    loaded = EmbeddingModel.load(model).to(place)
    with steps({"encoding items": "items"}) as on_step:
        result = write_item_vectors(
            loaded,
            export_for(loaded, export),
            out,
            dim=dim,
            int8=int8,
            on_step=on_step if is_first else no_step,
        )
    if not is_first:
        raise click.exceptions.Exit(0)
    if not as_json:
        _print_items(result)
    return result


def _print_items(result: ItemsResult) -> None:
    again = result["all_again"]
    click.echo(
        wrapped(
            f"{result['out']}: {plural(result['items'], 'item')}, {result['dim']} {result['numbers']} "
            f"numbers each; {result['embedded']:,} embedded, {result['copied']:,} copied, "
            f"{result['dropped']:,} dropped"
        )
    )
    if again and again != "no file before":
        click.echo(f"the file of before had vectors of {again}: all items were embedded again")
