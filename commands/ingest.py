"""`captioner ingest`: pins, pictures and vectors into a store."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import click

from ..common.terminal import plural, steps, wrapped
from .ingest_counts import print_columns, print_images, print_pins, print_rejected, print_repeated
from .table_options import MAP, one_list, table_options
from .verbs import STORE, Verbs, pairs, verb


@click.group(cls=Verbs)
def ingest() -> None:
    """Bring pins, images and vectors into a store."""


@verb(ingest, "pins")
@STORE
@click.argument("sources", nargs=-1, required=True, metavar="SOURCE...")
@click.option("--kind", type=click.Choice(["pin", "product"]), help="Kind of the rows that name none.")
@click.option(
    "--image-root",
    metavar="DIR",
    help="Folder that relative image paths start from (default: the folder of the table).",
)
@MAP
@table_options
@click.option("--sync", is_flag=True, help="Mark pins that are in none of the sources as deleted.")
def ingest_pins(
    store: str,
    sources: tuple[str, ...],
    kind: Literal["pin", "product"] | None,
    image_root: str | None,
    columns: tuple[str, ...],
    format: str | None,
    encoding: str | None,
    names: list[str],
    sync: bool,
    as_json: bool,
) -> Mapping[str, Any]:
    """Read tables of pins into a store.

    A source is a file of Parquet, CSV, TSV, JSON Lines or Excel (text also as .gz, .bz2, .zst), a folder of
    these, a glob, or - for JSON Lines on standard input. Folders such as date=2026-05-31/ are columns.

    Columns: pin_id, and any of title, description, image (path, URL, or bytes in Parquet), kind, category,
    locale, created_at, prompt. A pin that the store has already is updated in the columns that the source
    has. A cell that makes no sense is left empty and counted. Rows without a usable pin_id are kept in the
    table rejected_rows with their line and the reason. With --sync, pins that are in none of the sources are
    marked as deleted: they leave the view, samples and exports, until a later ingest brings them back.

    \b
    captioner ingest pins my.db pins.parquet
    captioner ingest pins my.db 'dump/*.parquet' --sync
    captioner ingest pins my.db 'items/*.csv.gz' --map pin_id=sku --kind product
    """
    from .. import api

    mapping = pairs(columns)
    with steps({"reading": "rows"}) as on_step:
        counts = api.ingest_pins(
            store,
            sources,
            kind=kind,
            image_root=image_root,
            columns=mapping,
            format=format,
            encoding=encoding,
            names=one_list(names),
            sync=sync,
            on_step=on_step,
        )
    if not as_json:
        print_pins(counts, store)
    return counts


@verb(ingest, "images")
@STORE
@click.argument("folders", nargs=-1, required=True, metavar="DIR|TAR...")
@click.option("--prefix", metavar="NAME", help="Begin each pin_id with NAME and a slash.")
@click.option("--sync", is_flag=True, help="Mark pins of these folders whose file is gone as deleted.")
def ingest_images(
    store: str, folders: tuple[str, ...], prefix: str | None, sync: bool, as_json: bool
) -> Mapping[str, Any]:
    """Make a pin of every picture below a folder or in a tar archive.

    The pin_id is the path below DIR. In archives, which may also be in DIR, it is the archive's path and the
    name in it; nothing is unpacked. Hidden files and those of systems, such as @eaDir, are skipped.

    A .txt or .caption of the same name as a picture is its description. A .json of the same name, or a row of
    metadata.jsonl or metadata.csv with the column file_name, gives title, description and other fields.

    A folder whose pictures have the names of other pictures in the store is refused: give it a --prefix.

    \b
    captioner ingest images my.db ~/photos
    captioner ingest images my.db ~/photos --sync
    captioner ingest images my.db /mnt/holiday --prefix holiday
    captioner ingest images my.db shards/*.tar
    """
    from .. import api

    with steps({"reading": "files"}) as on_step:
        counts = api.ingest_images(store, folders, prefix=prefix, sync=sync, on_step=on_step)
    if not as_json:
        print_images(counts, store)
    return counts


@verb(ingest, "embeddings")
@STORE
@click.argument("sources", nargs=-1, required=True, metavar="SOURCE...")
@click.option(
    "--name", required=True, help="Name of the vectors in the store and in exports, for instance pinsage."
)
@MAP
@table_options
def ingest_vectors(
    store: str,
    sources: tuple[str, ...],
    name: str,
    columns: tuple[str, ...],
    format: str | None,
    encoding: str | None,
    names: list[str],
    as_json: bool,
) -> Mapping[str, Any]:
    """Keep a vector for each pin, to be exported with it.

    The tables have the columns pin_id and vector, a list of numbers. Vectors are kept as float16, and all
    vectors of one name have the same size. Rows with another size or with NaN are kept in the table
    rejected_rows.

    \b
    captioner ingest embeddings my.db vectors.parquet --name pinsage
    captioner ingest embeddings my.db clip.jsonl.gz --name clip --map vector=v
    """
    from .. import api

    mapping = pairs(columns)
    with steps({"reading": "rows"}) as on_step:
        counts = api.ingest_embeddings(
            store,
            sources,
            name=name,
            columns=mapping,
            format=format,
            encoding=encoding,
            names=one_list(names),
            on_step=on_step,
        )
    if not as_json:
        vectors, numbers = plural(counts["vectors"], "vector"), plural(counts["dim"] or 0, "number")
        click.echo(wrapped(f"{vectors} of {numbers} into {store} as {name}"))
        print_repeated(counts)
        if counts["pins_not_in_store"]:
            click.echo(f"{counts['pins_not_in_store']:,} without a pin in the store yet")
        print_columns(counts["columns"])
        print_rejected(counts)
    return counts
