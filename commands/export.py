"""`captioner export`: the store as files for a trainer."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..common.errors import OptionError
from ..common.terminal import nouns, plural, say, steps
from .options import DAY
from .verbs import command, finish

if TYPE_CHECKING:
    from ..export.manifest import CheckResult
    from ..export.write import ExportResult


@command("export")
@click.argument("arguments", nargs=-1, metavar="STORE OUT_DIR")
@click.option(
    "--format",
    type=click.Choice(["parquet", "jsonl", "sidecar", "imagefolder", "webdataset"]),
    default="parquet",
    show_default=True,
    help="Format of the files. jsonl is for people who want to read them. The last three are for tools that "
    "train on pictures.",
)
@click.option(
    "--shards",
    type=click.IntRange(1, 100_000),
    metavar="N",
    help="Files to write. [default: one per 250,000 pins; of webdataset, one per 10,000 pictures or GB]",
)
@click.option(
    "--seed", type=int, metavar="N", default=0, show_default=True, help="Decides the order of the rows."
)
@click.option(
    "--recipe",
    metavar="ID",
    help="Take the captions of this recipe alone (a model with its prompt and settings; captioner stats "
    "lists them), instead of the current captions.",
)
@click.option(
    "--schema",
    type=click.Choice(["store", "omnisearchsage"]),
    default="store",
    show_default=True,
    help="Names of the text columns: those of the store, or of the OmniSearchSage code.",
)
@click.option("--as-of", type=DAY, metavar="DATE", help="Titles and queries as they were known on this day.")
@click.option(
    "--pairs",
    is_flag=True,
    help="Also write what people did after --as-of: query-pin and query-query pairs.",
)
@click.option("--test-from", type=DAY, metavar="DATE", help="Pairs of this day and later are the test split.")
@click.option(
    "--undated",
    type=click.Choice(["refuse", "include", "drop"]),
    default="refuse",
    show_default=True,
    help="With --as-of: what to do with saves that have no date.",
)
@click.option(
    "--memory-limit", metavar="SIZE", help="With --as-of: memory for the counting, for instance 500MB."
)
@click.option("--check", metavar="OUT_DIR", help="Instead of exporting, compare an export with its manifest.")
def export(
    arguments: tuple[str, ...],
    as_of: date | None,
    test_from: date | None,
    check: str | None,
    as_json: bool,
    **options: Any,
) -> Any:
    """Write features for a trainer, with a row for each pin.

    The rows are shuffled. They are written as Parquet in files of similar size (shards), with a manifest that
    lists them and a data card for people.

    With --as-of and --pairs, nothing that happened after the day is in the features; what happened after it
    is what to learn. The same store, seed and options give the same bytes. An earlier export is replaced once
    the new one is complete.

    With --format sidecar, imagefolder or webdataset, the caption of each pin (or else its own description or
    title) is written as tools for pictures read it: a .txt for each picture; copies of the pictures with
    metadata.jsonl, for load_dataset("imagefolder"); or tar archives with .jpg, .txt and .json.

    \b
    captioner export my.db out/
    captioner export my.db out/ --as-of 2026-06-01 --pairs --test-from 2026-06-24
    captioner export my.db texts/ --format sidecar
    captioner export --check out/
    """
    if check is not None:
        if arguments:
            raise click.UsageError("--check takes only the export: captioner export --check OUT_DIR")
        return _check(check, as_json)
    if len(arguments) != 2:
        raise click.UsageError("name a store and a folder to write into: captioner export STORE OUT_DIR")
    from .. import api
    from ..store import is_writable

    store, folder = arguments
    try:
        with steps({"reading": "pins", "writing": "files"}) as on_step:
            result = api.export_features(
                store, folder, as_of=as_of, test_from=test_from, on_step=on_step, **options
            )
    except OptionError as error:
        raise click.UsageError(str(error)) from None
    if not is_writable(store):
        say(f"{store} cannot be written: this export is not recorded among its runs")
    if not as_json:
        _print(result)
    return result


def _print(result: ExportResult) -> None:
    n = result["bytes"]
    size = f"{n / 1e6:,.1f} MB" if n >= 1e6 else f"{n / 1e3:,.0f} kB"
    pins, files = plural(result["rows"], "pin"), plural(result["files"], "file")
    click.echo(f"{pins} in {files}, {size}: {result['folder']}")
    for reason, n in result.get("left_out", {}).items():
        click.echo(f"  left out: {plural(n, 'pin')}: {reason}")
    if truncated := result.get("truncated"):
        click.echo(f"  {plural(truncated, 'caption')} of images that end early, marked as truncated")
    if by_people := result["recipes"].get("person"):
        click.echo(f"  {plural(by_people, 'caption')} written by people (their caption_recipe is person)")
    if by_people := result.get("captions_by_people_left_out"):
        click.echo(f"  left out: {plural(by_people, 'caption')} written by people, because of --recipe")
    for name, dim in result["embeddings"].items():
        click.echo(f"  {name}: vectors of {plural(dim, 'number')}")
    if later := result.get("then", {}).get("pins_made_later"):
        click.echo(f"  left out: {plural(later, 'pin')} made after the day")
    for name, label in (("pairs", "query-pin pair"), ("query_pairs", "query-query pair")):
        for split, rows in result.get("pairs", {}).get(name, {}).items():
            click.echo(f"  {rows:>12,} {nouns(rows, label)}, {split}")
    for reason, n in result.get("pairs_dropped", {}).items():
        click.echo(f"  {n:>12,} {nouns(n, 'row')} of the log left out: {reason}")


def _check(folder: str, as_json: bool) -> CheckResult:
    from ..export.manifest import check_export

    result = check_export(Path(folder))
    if not as_json:
        for problem in result["problems"]:
            click.echo(problem)
        if result["ok"]:
            files, pins = plural(result["files"], "file"), plural(result["rows"], "pin")
            click.echo(f"{folder} is as it was written: {files}, {pins}")
    if not result["ok"]:
        finish(result, as_json, 1)
    return result
