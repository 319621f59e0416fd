"""`captioner captions`: captions that people write themselves."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click

from ..common.terminal import plural, steps
from .table_options import MAP, one_list, table_options
from .verbs import STORE, Verbs, pairs, verb

if TYPE_CHECKING:
    from ..ingest.corrections import CorrectionCounts


@click.group(cls=Verbs)
def captions() -> None:
    """Write captions yourself, in place of those of a model."""


@verb(captions, "set")
@STORE
@click.argument("pin_id", required=False, metavar="[PIN_ID]")
@click.argument("text", required=False, metavar="[TEXT]")
@click.option("--from", "table", metavar="TABLE", help="Read pins and their captions from a table instead.")
@MAP
@table_options
def set_(
    store: str,
    pin_id: str | None,
    text: str | None,
    table: str | None,
    columns: tuple[str, ...],
    format: str | None,
    encoding: str | None,
    names: list[str],
    as_json: bool,
) -> Mapping[str, Any]:
    """Write the caption of a pin yourself, or the captions of a table.

    Your caption comes before those of all models: in exports, in the view enriched_features and in browse.
    It stays when pins are captioned or ingested again, until `captioner captions unset` takes it back. Runs
    leave a pin with such a caption out. Exports mark it: its caption_recipe is "person".

    A table has the columns pin_id, and text or caption; it may be of any kind that `captioner ingest pins`
    reads. If one of its rows cannot be used, nothing is set, and the table rejected_rows says why.

    \b
    captioner captions set my.db pin-0042 "a red mug with a chipped handle"
    captioner captions set my.db --from corrections.csv
    captioner captions set my.db --from checked.xlsx --map text="better caption"
    """
    one = pin_id is not None and text is not None
    if one == (table is not None) or (table is not None and pin_id is not None):
        raise click.UsageError("give a pin and its caption in quotes, or --from TABLE")
    if one and (columns or format or encoding or names):
        raise click.UsageError("--map, --format, --encoding and --columns are for --from TABLE")
    from ..ingest.corrections import set_caption, set_captions
    from ..sources.read_as import ReadAs
    from ..store import open_store

    if table is None:
        assert pin_id is not None
        assert text is not None
        counts = set_caption(open_store(store), pin_id, text)
    else:
        read_as = ReadAs(format, encoding, tuple(one_list(names)))
        mapping = pairs(columns)
        with steps({"reading": "rows"}) as on_step:
            counts = set_captions(
                open_store(store), [table], columns=mapping, read_as=read_as, on_step=on_step
            )
    if not as_json:
        _print(counts)
    return counts


@verb(captions, "unset")
@STORE
@click.argument("pin_ids", nargs=-1, required=True, metavar="PIN_ID...")
def unset(store: str, pin_ids: tuple[str, ...], as_json: bool) -> Mapping[str, Any]:
    """Take back captions that people wrote.

    A model's caption counts again, if there is one. If there is none, `captioner run` may write one.

    \b
    captioner captions unset my.db pin-0042
    """
    from ..ingest.corrections import unset_captions
    from ..store import open_store

    counts = unset_captions(open_store(store), pin_ids)
    if not as_json:
        click.echo(f"{plural(counts['unset'], 'caption')} of people taken back")
        if counts["captioned"]:
            click.echo(f"{plural(counts['captioned'], 'pin')} with the caption of a model again")
        if counts["without"]:
            click.echo(f"{plural(counts['without'], 'pin')} of which no model has written a caption")
    return counts


def _print(counts: CorrectionCounts) -> None:
    from .ingest_counts import print_columns

    click.echo(f"{plural(counts['set'], 'caption')} set, written by people")
    if counts["changed"]:
        click.echo(f"{plural(counts['changed'], 'earlier caption')} of people replaced")
    if "columns" in counts:
        print_columns(counts["columns"])
