"""The `captioner` command: thin verbs over the packages. Results on standard output, everything else on
standard error.

Imports of libraries that take long to load stand inside the verbs: `captioner --help` and `captioner stats`
are to feel instant.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from typing import Any

import click

from . import __version__
from .commands.aggregate import aggregate
from .commands.browse import add_browse
from .commands.embed import embed
from .commands.eval import evaluate
from .commands.export import add_export
from .commands.verbs import STORE, Verbs, pair, verb


@click.group(cls=Verbs, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="captioner")
def cli() -> None:
    """Makes pins and products findable: fills in missing descriptions with BLIP-2 captions, in one store.

    \b
    captioner demo                                  try everything on drawn pictures, offline
    captioner ingest images my.db ~/photos          a folder of images becomes a store
    captioner run my.db --model Salesforce/blip2-opt-2.7b
    captioner aggregate boards my.db --boards boards.parquet --saves saves.parquet
    captioner eval sample my.db sheets/             let people judge the captions
    captioner stats my.db                           what is covered now
    captioner browse my.db                          look at it in a browser
    captioner export my.db out/                     features for a trainer
    captioner embed train out/ model/               a search embedding of them
    """


@cli.group(cls=Verbs)
def ingest() -> None:
    """Bring pins and images into a store."""


@verb(ingest, "pins")
@STORE
@click.argument("sources", nargs=-1, required=True, metavar="SOURCE...")
@click.option("--kind", type=click.Choice(["pin", "product"]), help="Kind of the rows that name none.")
@click.option(
    "--image-root",
    metavar="DIR",
    help="Folder that relative image paths count from (default: the table's own).",
)
@click.option(
    "--map", "columns", multiple=True, metavar="FIELD=COLUMN", help="Read FIELD from the source's COLUMN."
)
@click.option("--sync", is_flag=True, help="Mark pins that are in none of the sources as deleted.")
def ingest_pins(
    store: str,
    sources: tuple[str, ...],
    kind: str | None,
    image_root: str | None,
    columns: tuple[str, ...],
    sync: bool,
    as_json: bool,
) -> dict[str, Any]:
    """Read a table of pins: Parquet, CSV, TSV or JSON Lines (also .gz), globs, folders, or - for JSON Lines
    on standard input.

    Columns: pin_id, and any of title, description, image (path, URL, or bytes in Parquet), kind, category,
    locale, created_at, prompt. A pin that is there already is updated in the columns that the source has. Bad
    rows are kept in the table rejected_rows with their line and the reason. With --sync the sources are all
    there is: pins that are gone from them leave the view, samples and exports, and are back when they come
    back.

    \b
    captioner ingest pins my.db pins.parquet
    captioner ingest pins my.db 'dump/*.parquet' --sync
    captioner ingest pins my.db 'items/*.csv.gz' --map pin_id=sku --map image=photo --kind product
    """
    from .common.terminal import progress
    from .ingest import pins as tables
    from .store import open_store

    mapping = dict(pair(text) for text in columns)
    tables.check_sources(sources, image_root=image_root, columns=mapping)  # a mistyped name makes no store
    conn = open_store(store, create=True)
    with progress("reading", "rows") as shown:
        counts = tables.ingest_pins(
            conn, sources, kind=kind, image_root=image_root, columns=mapping, sync=sync, on_rows=shown.advance
        )
    return _ingested(counts, store, as_json)


@verb(ingest, "images")
@STORE
@click.argument("folder", metavar="DIR")
def ingest_images(store: str, folder: str, as_json: bool) -> dict[str, Any]:
    """Make a pin of every image file below DIR; its pin_id is the path below DIR.

    \b
    captioner ingest images my.db ~/photos
    """
    from .common.terminal import progress
    from .ingest import pins as tables
    from .store import open_store

    if not os.path.isdir(os.path.expanduser(folder)):
        raise click.ClickException(f"{folder} is not a folder")
    conn = open_store(store, create=True)
    with progress("looking", "files") as shown:
        counts = tables.ingest_images(conn, folder, on_rows=shown.advance)
    return _ingested(counts, store, as_json)


@verb(ingest, "embeddings")
@STORE
@click.argument("sources", nargs=-1, required=True, metavar="SOURCE...")
@click.option(
    "--name", required=True, help="What they are called in the store and in exports, for instance pinsage."
)
@click.option(
    "--map", "columns", multiple=True, metavar="FIELD=COLUMN", help="Read FIELD from the source's COLUMN."
)
def ingest_vectors(
    store: str, sources: tuple[str, ...], name: str, columns: tuple[str, ...], as_json: bool
) -> dict[str, Any]:
    """Keep a vector per pin, to be exported with it: tables with pin_id and vector, a list of numbers.

    Vectors are kept as float16, all of a name have one size. Wrong sizes and NaN are kept out, in the table
    rejected_rows.

    \b
    captioner ingest embeddings my.db vectors.parquet --name pinsage
    captioner ingest embeddings my.db clip.jsonl.gz --name clip --map pin_id=id --map vector=embedding
    """
    from .common.terminal import progress
    from .ingest.embeddings import ingest_embeddings
    from .store import open_store

    conn = open_store(store)
    with progress("reading", "rows") as shown:
        counts = ingest_embeddings(
            conn, sources, name, columns=dict(pair(text) for text in columns), on_rows=shown.advance
        )
    if not as_json:
        click.echo(f"{counts['vectors']:,} vectors of {counts['dim'] or 0} numbers into {store} as {name}")
        if counts["pins_not_in_store"]:
            click.echo(f"{counts['pins_not_in_store']:,} of pins that are not in the store yet")
        _print_rejected(counts)
    return counts


def _ingested(counts: dict[str, Any], store: str, as_json: bool) -> dict[str, Any]:
    if not as_json:
        click.echo(
            f"{counts['pins']:,} pins into {store}: {counts['new']:,} new, {counts['updated']:,} updated"
        )
        if "deleted" in counts:
            click.echo(f"{counts['deleted']:,} pins marked as deleted that are gone from the sources")
        if counts.get("skipped"):
            click.echo(f"{counts['skipped']:,} files skipped that have no image's extension")
        _print_rejected(counts)
    return counts


def _print_rejected(counts: dict[str, Any]) -> None:
    if counts["rejected"]:
        click.echo(f"{counts['rejected']:,} rows rejected (see the table rejected_rows):")
        for reason, n in counts["reasons"].items():
            click.echo(f"  {n:>8,}  {reason}")


class BatchSizeType(click.ParamType[int | None]):
    name = "auto|N"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int | None:
        if value is None or value == "auto":
            return None
        try:
            size = int(value)
        except ValueError:
            size = 0
        if not 1 <= size <= 4096:
            self.fail(f"{value!r} is neither auto nor a number from 1 to 4096", param, ctx)
        return size


class DeviceType(click.ParamType[str]):
    name = "auto|all|cpu|cuda:N"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        parts = str(value).split(",")
        if value not in ("auto", "all") and not all(
            p == "cpu" or p == "cuda" or (p.startswith("cuda:") and p[5:].isdigit()) for p in parts
        ):
            self.fail(
                f"{value!r} is none of auto, all, cpu, cuda, cuda:0, or several as in cuda:0,cuda:1",
                param,
                ctx,
            )
        return str(value)


_DTYPE = click.option(
    "--dtype",
    type=click.Choice(["auto", "float32", "bfloat16", "float16"]),
    default="auto",
    show_default=True,
    help="Numbers to compute with; auto: as before, or what the device is best at.",
)


@verb(cli, "run")
@STORE
@click.option(
    "--model",
    metavar="builtin|NAME|PATH",
    help="BLIP-2 checkpoint: a name on the hub, a folder, or builtin (drawn pictures only). Default: the store's last.",
)
@click.option("--revision", help="Commit, tag or branch of the model on the hub.")
@click.option(
    "--select",
    type=click.Choice(["missing-description", "missing-text", "all"]),
    default="missing-description",
    show_default=True,
    help="Which pins get a caption.",
)
@click.option(
    "--prompt", default="", help="Text that the caption continues; a pin's own prompt wins over it."
)
@click.option(
    "--batch-size",
    type=BatchSizeType(),
    metavar="auto|N",
    default="auto",
    show_default=True,
    help="Pictures per batch.",
)
@click.option(
    "--min-new-tokens",
    type=click.IntRange(0, 512),
    metavar="N",
    default=5,
    show_default=True,
    help="Shortest caption in tokens.",
)
@click.option(
    "--max-new-tokens",
    type=click.IntRange(1, 512),
    metavar="N",
    default=30,
    show_default=True,
    help="Longest caption in tokens.",
)
@click.option(
    "--num-beams",
    type=click.IntRange(1, 32),
    metavar="N",
    default=1,
    show_default=True,
    help="Width of the beam search; 1 is greedy.",
)
@click.option(
    "--no-repeat-ngram",
    type=click.IntRange(0, 32),
    metavar="N",
    default=0,
    show_default=True,
    help="Forbid repeating so many tokens; 0 is off.",
)
@click.option(
    "--device",
    type=DeviceType(),
    metavar="auto|all|cpu|cuda:N",
    default="auto",
    show_default=True,
    help="all: a process per GPU.",
)
@_DTYPE
@click.option("--workers", type=click.IntRange(1, 256), metavar="N", help="Threads that fetch and decode.")
@click.option("--limit", type=click.IntRange(1), metavar="N", help="Stop after so many pins.")
@click.option("--retry-failed", is_flag=True, help="Take pins up again that failed before.")
def run(store: str, as_json: bool, **choices: Any) -> dict[str, Any]:
    """Write a caption for every pin that needs one, and go on where an earlier run stopped.

    Several runs on one store share the work. Ctrl-C finishes the batch in hand.

    \b
    captioner run my.db --model Salesforce/blip2-flan-t5-xl
    captioner run my.db --model builtin --limit 100
    captioner run my.db --select all --prompt "a photo of"
    """
    from .captioner.run import Options, warnings
    from .captioner.run import run as run_store
    from .commands.devices import all_devices
    from .common.terminal import progress, say
    from .store import open_store

    conn = open_store(store)
    devices = all_devices() if choices["device"] == "all" else choices["device"].split(",")
    if len(devices) > 1:
        return _run_on_each(store, devices, choices, as_json)
    with progress("captioning", "pins") as shown:
        result = run_store(
            conn,
            Options(**choices),
            say=say,
            on_batch=lambda done, total, batch: shown.update(done, total, f"batch {batch}"),
        )
    attempted = result.captioned + result.rejected + result.failed + result.shared
    if not as_json:
        _print_result(result)
    for warning in warnings(result):
        say(f"warning: {warning}")
    if result.stopped:
        say(
            f"stopped; {result.remaining:,} pins are left, the same command goes on from here: captioner run {store}"
        )
        _end(result.counts(), as_json, 130)
    if attempted and result.failed == attempted:
        say(
            "every pin failed; the reasons are above and in the table captions; `captioner run --retry-failed` tries again"
        )
        _end(result.counts(), as_json, 1)
    return result.counts()


def _end(found: dict[str, Any], as_json: bool, code: int) -> None:
    if as_json:
        click.echo(json.dumps(found, ensure_ascii=False))
    sys.exit(code)


def _print_result(result: Any) -> None:
    if not result.selected:
        click.echo(
            "nothing to do: every selected pin has its caption, or failed before and waits for --retry-failed"
        )
        return
    from .common.terminal import duration

    click.echo(
        f"{result.captioned:,} captioned, {result.shared:,} shared, {result.rejected:,} rejected, {result.failed:,} failed; {result.remaining:,} left"
    )
    click.echo(f"{duration(result.seconds)}, {result.images_per_second:,.1f} pins/s")
    for reason, n in sorted(result.reasons.items(), key=lambda item: -item[1]):
        click.echo(f"  {n:>8,}  {reason}")
    if result.most_common:
        click.echo(
            f"{result.distinct:,} distinct captions; the most common is on {result.most_common[1]:.1%} of the pins"
        )
    for pin_id, caption in result.examples:
        click.echo(f"  {pin_id}: {caption}")


def _run_on_each(store: str, devices: list[str], choices: dict[str, Any], as_json: bool) -> dict[str, Any]:
    """One process per device on the same store: the claims share the work.

    Signals reach every process of the terminal.
    """
    from .commands.devices import run_processes

    found, code = run_processes(store, devices, choices)
    if not as_json:
        click.echo(
            f"{found['captioned']:,} captioned, {found['shared']:,} shared, {found['rejected']:,} rejected, {found['failed']:,} failed on {len(devices)} devices;"
            f" {found['remaining']:,} left ({found['images_per_second']:,.1f} pins/s)"
        )
    if code:
        _end(found, as_json, code)
    return found


cli.add_command(aggregate)
cli.add_command(evaluate)
add_export(cli)

_COVERAGE = {
    "native_text": "with native text",
    "title": "  title",
    "description": "  description",
    "caption": "with caption",
    "only_caption": "  and no native text",
    "board_titles": "with board titles",
    "engaged_queries": "with engaged queries",
    "any_text": "with any text",
    "waiting": "without description, not yet tried",
}


@verb(cli, "stats")
@STORE
def stats(store: str, as_json: bool) -> dict[str, Any]:
    """Show how many pins have text, captions, titles and queries.

    \b
    captioner stats my.db
    """
    from .common.terminal import table
    from .store import open_store
    from .store.stats import coverage

    found = coverage(open_store(store))
    if as_json:
        return found
    rows: list[tuple[str, int, bool]] = [("pins", found["pins"], False)]
    if found["products"]:
        rows.append(("  of these products", found["products"], False))
    rows += [(label, found[name], True) for name, label in _COVERAGE.items()]
    for status in ("rejected", "failed"):
        rows.append((status, found[status], True))
        rows += [(f"  {reason}", n, False) for reason, n in found["reasons"][status].items()]
    if found["stale"]:
        rows.append(("caption of an earlier image", found["stale"], True))
    rows += [
        ("images shared between pins", found["shared_images"], False),
        ("  pins that share one", found["pins_sharing_images"], False),
    ]
    if found["rejected_rows"]:
        rows.append(("rows rejected at ingest", found["rejected_rows"], False))
    click.echo(table(rows, found["pins"]))
    for recipe, model in found["models"].items():
        click.echo(f"{model['captions']:,} captions by {model['model']} in {model['dtype']}")
        click.echo(f"  recipe {recipe}" + (f", prompt {model['prompt']!r}" if model["prompt"] else ""))
    return found


add_browse(cli)
cli.add_command(embed)


@verb(cli, "demo")
@click.argument("folder", default="demo", metavar="[DIR]")
@click.option(
    "--pins",
    type=click.IntRange(12, 100_000),
    default=300,
    show_default=True,
    help="How many are drawn, where none are yet.",
)
def demo(folder: str, pins: int, as_json: bool) -> dict[str, Any]:
    """Draw a small catalogue into DIR, caption what has no description, and write a page to look at; offline.

    \b
    captioner demo
    """
    from pathlib import Path

    from .commands.demo import demo as make_demo
    from .common.terminal import progress, say

    with progress("captioning", "pins") as shown:
        found = make_demo(
            Path(folder),
            say,
            on_progress=lambda done, total, batch: shown.update(done, total, f"batch {batch}"),
            pins=pins,
        )
    if not as_json:
        _print_demo(folder, found)
    for warning in found["warnings"]:
        say(f"warning: {warning}")
    if found["stopped"]:
        say(f"stopped; the same command goes on from here: captioner demo {folder}")
        _end(found, as_json, 130)
    return found


def _print_demo(folder: str, found: dict[str, Any]) -> None:
    run, covered = found["run"], found["coverage"]
    pins = covered["pins"] or 1
    if run["selected"]:
        click.echo(
            f"{run['captioned']} pins captioned, {run['shared']} more share a picture with one of them; {run['rejected']} rejected, {run['failed']} failed"
        )
    else:
        click.echo("nothing to do: everything was done before")
    if covered["failed"]:
        click.echo(
            f"{covered['failed']} images are broken on purpose, to show how failures are kept: {'; '.join(covered['reasons']['failed'])}"
        )
    for pin_id, caption in found["examples"]:
        click.echo(f"  {pin_id}: {caption}")
    # After `make demo` the command is in .venv alone, not on the path.
    command = "captioner" if shutil.which("captioner") else os.path.relpath(sys.argv[0])
    captioned = covered["native_text"] + covered["only_caption"]
    shares = f"with captions it is {captioned / pins:.0%}, with board titles and queries {covered['any_text'] / pins:.0%}"
    click.echo(
        f"{covered['native_text'] / pins:.0%} of {covered['pins']} pins had text of their own; {shares}."
    )
    click.echo(
        "The captions come from the built-in checkpoint, which knows drawn pictures only.\n\n"
        f"Look:   {found['gallery']} in a browser\n"
        f"Judge:  {found['sheets']}/rater-1.html in a browser, and download your answers; then\n"
        f"        {command} eval score {folder}/demo.db ~/Downloads/rater-1.csv --report report.html\n"
        f"Try:    {command} stats {folder}/demo.db\n"
        f"        {command} aggregate explain {folder}/demo.db {found['examples'][0][0] if found['examples'] else 'pin-0001'}\n"
        f"        {command} export {folder}/demo.db {folder}/export\n"
        f"        sqlite3 {folder}/demo.db 'select pin_id, caption from enriched_features limit 5'\n"
        f"Yours:  {command} ingest images my.db ~/photos\n"
        f"        {command} run my.db --model Salesforce/blip2-flan-t5-xl"
    )


@verb(cli, "doctor")
@click.option(
    "--model",
    default="builtin",
    show_default=True,
    metavar="builtin|NAME|PATH",
    help="The checkpoint to look at.",
)
@click.option("--revision", help="Commit, tag or branch of the model on the hub.")
@click.option(
    "--device",
    type=DeviceType(),
    metavar="auto|cpu|cuda:N",
    default="auto",
    show_default=True,
    help="Where to try it; auto: a GPU if there is one.",
)
@_DTYPE
@click.option("--bench", is_flag=True, help="Also measure pictures per second at several batch sizes.")
def doctor(
    model: str, revision: str | None, device: str, dtype: str, bench: bool, as_json: bool
) -> dict[str, Any]:
    """Say whether machine, library versions and checkpoint fit, by captioning built-in pictures.

    \b
    captioner doctor --model Salesforce/blip2-flan-t5-xl
    """
    from .captioner.doctor import examine

    lines: dict[str, Any] = {}
    ok = True
    for finding in examine(model, revision=revision, device=device, dtype=dtype, bench=bench):
        ok = ok and finding.ok
        lines[finding.name] = finding.text
        if not as_json:
            click.echo(finding.shown())
    found = {"ok": ok, "findings": lines}
    if not ok:
        _end(found, as_json, 1)
    return found


def main() -> None:
    """The console script."""
    cli(prog_name="captioner")


if __name__ == "__main__":
    main()
