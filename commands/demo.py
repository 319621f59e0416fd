"""`captioner demo`: everything once, on drawn pins, offline and with the built-in checkpoint."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable
from contextlib import closing
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn, TypedDict

import click

from ..common.terminal import plural, progress, say, steps, wrapped
from .options import OPENS, PORT
from .verbs import command, finish

if TYPE_CHECKING:
    from ..captioner.run import RunCounts
    from ..store import Connection
    from ..store.stats import Coverage

TITLE = "What captioner filled in"


class DemoResult(TypedDict):
    """What `make_demo` did; `--json` prints it."""

    folder: str
    store: str
    gallery: str
    sheets: str
    drew: bool  # False: an earlier call had drawn the pictures
    ingested: int  # rows of the table of pins that were read now
    run: RunCounts  # the counts of `captioner run --json`
    coverage: Coverage  # the counts of `captioner stats --json`
    stopped: bool  # by Ctrl-C
    warnings: list[str]
    examples: list[tuple[str, str]]  # (pin_id, caption)


@command("demo")
@click.argument("folder", default="demo", metavar="[DIR]")
@click.option(
    "--pins",
    type=click.IntRange(12, 100_000),
    default=300,
    show_default=True,
    help="How many pins to draw, if there are none yet.",
)
@click.option(
    "--search",
    is_flag=True,
    help="Then train a search embedding on the drawn queries, and show what captions add to a search.",
)
@PORT
@OPENS
def demo(folder: str, pins: int, search: bool, port: int, opens: bool | None, as_json: bool) -> DemoResult:
    """Try everything on a small catalogue of drawn pins.

    Draws the catalogue into DIR, captions the pins without a description, and writes a page to look at. Works
    offline. With --search it also trains a small search embedding, in up to a minute on two cores, and
    serves the site of captioner browse --model until Ctrl-C (--port, --open). A model that is there from
    before is used again.

    \b
    captioner demo
    captioner demo --search
    """
    if search:
        _check_search(port)
    with progress("captioning", "pins") as shown:
        result = make_demo(
            Path(folder),
            say,
            on_progress=lambda done, total, batch: shown.update(done, total, f"batch {batch}"),
            pins=pins,
        )
    if not as_json:
        _print_result(folder, result)
    for warning in result["warnings"]:
        say(f"warning: {warning}")
    if result["stopped"]:
        say(f"stopped; the same command continues from here: captioner demo {folder}")
        finish(result, as_json, 130)
    if search:
        _search(Path(folder), result, port, opens, as_json)
    return result


def _check_search(port: int) -> None:
    """Raises ClickException at once for what would be wrong after the training."""
    from ..browse.server import bind

    if not find_spec("datasette"):
        raise click.ClickException("--search needs Datasette: pip install 'pincaption[browse]'")
    try:
        bind("127.0.0.1", port).close()
    except OSError as error:
        raise click.ClickException(
            f"cannot serve at port {port} ({error.strerror}): choose another --port"
        ) from error


def _search(folder: Path, result: DemoResult, port: int, opens: bool | None, as_json: bool) -> NoReturn:
    """Trains, prints what came of it, and serves the search until Ctrl-C."""
    from .browse import Shown, show_store
    from .demo_search import make_demo_search, print_search

    store = Path(result["store"])
    with steps({"training": "steps"}) as on_step:
        made = make_demo_search(store, folder / "search", say, on_step)
    if not as_json:
        print_search(made)

    def say_where(shown: Shown) -> None:
        if as_json:
            click.echo(json.dumps({**result, "search": made, "shown": shown}, ensure_ascii=False))
        else:
            click.echo(f"The same search without and with captions: {shown['url']}search\nCtrl-C ends it")

    opens = not as_json and sys.stdout.isatty() if opens is None else opens
    show_store(store, say_where, model=made["model"], port=port, opens=opens)
    raise click.exceptions.Exit(0)  # with --json, the object was printed above


def make_demo(
    folder: Path,
    say: Callable[[str], None] = lambda text: None,
    on_progress: Callable[[int, int, int], None] = lambda done, total, batch: None,
    *,
    pins: int = 300,
    limit: int | None = None,
) -> DemoResult:
    """Draws pins into `folder`, ingests them into demo.db and captions those without a description.

    Then it aggregates board titles and queries, and writes gallery.html and sheets/. What an earlier call did
    is not done again, so that a call after an interruption does the rest. `limit` is the largest number of
    pins to caption. `say` gets lines for people; `on_progress` is called with (done, total, batch size) after
    each batch. Raises what the steps raise: CheckpointError, StoreError, SourceError, and FileExistsError for
    a folder with other people's images.
    """
    from .. import api
    from ..browse.gallery import is_current, write_gallery
    from ..captioner.run import warnings
    from ..drawn.world import make_world
    from ..store import open_store
    from ..store.aggregates import last_run
    from ..store.recipes import BUILTIN

    folder = Path(folder)
    store, gallery, sheets = folder / "demo.db", folder / "gallery.html", folder / "sheets"
    drew = make_world(folder, pins)
    if drew:
        say(f"drew {plural(pins, 'pin')}, boards, saves and a query log into {folder}")
    with closing(open_store(store, create=True)) as conn:
        table = folder / "pins.parquet"
        ingested = 0 if _has_all(conn, table) else api.ingest_pins(conn, table)["pins"]
        if ingested:
            say(f"ingested {plural(ingested, 'pin')} into {store}")
        result = api.run(conn, model=BUILTIN, limit=limit, say=say, on_batch=on_progress)
        if last_run(conn, "boards") is None:
            boards = api.aggregate_boards(conn, boards=folder / "boards.parquet", saves=folder / "saves")
            say(
                f"{boards['rows_read']:,} boards and saves gave "
                f"{plural(boards['titles'], 'board title')} for {plural(boards['rows_written'], 'pin')}"
            )
        if last_run(conn, "queries") is None:
            queries = api.aggregate_queries(conn, log=folder / "log")
            say(
                f"{plural(queries['rows_read'], 'row')} of the query log gave "
                f"{plural(queries['queries'], 'query')} for {plural(queries['rows_written'], 'pin')}"
            )
        covered = api.coverage(conn)
        if not sheets.exists() and covered["caption"]:
            drawn = api.sample(conn, sheets, n=40, raters=2, stratify="kind")
            say(f"wrote sheets on which two people can judge {plural(drawn['items'], 'caption')} to {sheets}")
        if not is_current(conn, gallery):
            shown = write_gallery(conn, gallery, title=TITLE)
            say(f"wrote {plural(shown, 'picture')} with their captions to {gallery}")
    return DemoResult(
        folder=str(folder),
        store=str(store),
        gallery=str(gallery),
        sheets=str(sheets),
        drew=drew,
        ingested=ingested,
        run=result.counts(),
        coverage=covered,
        stopped=result.stopped,
        warnings=warnings(result),
        examples=result.examples,
    )


def _has_all(conn: Connection, table: Path) -> bool:
    """Whether the store has all pins of `table`, with their images where they are now."""
    import pyarrow.parquet as pq

    from ..store.pins import images_of_pins

    rows = pq.read_table(table, columns=["pin_id", "image"]).to_pylist()
    images, base = images_of_pins(conn), table.absolute().parent
    return all(images.get(row["pin_id"]) == os.path.normpath(base / row["image"]) for row in rows)


def _print_result(folder: str, result: DemoResult) -> None:
    run, covered, examples = result["run"], result["coverage"], result["examples"]
    pins = covered["pins"] or 1
    if run["selected"]:
        click.echo(
            wrapped(
                f"{run['captioned']} pins captioned, {run['shared']} more share a picture with one of them; "
                f"{run['rejected']} rejected, {run['failed']} failed"
            )
        )
    else:
        click.echo("nothing to do: everything was done before")
    if covered["failed"]:
        reasons = "; ".join(covered["reasons"]["failed"])
        click.echo(
            wrapped(
                f"{covered['failed']} images are broken on purpose, to show what becomes of them: {reasons}"
            )
        )
    for pin_id, caption in examples:
        click.echo(f"  {pin_id}: {caption}")
    captioned = covered["native_text"] + covered["only_caption"]
    click.echo(
        wrapped(
            f"{covered['native_text'] / pins:.0%} of {covered['pins']} pins had text of their own; with "
            f"captions it is {captioned / pins:.0%}, with board titles and queries "
            f"{covered['any_text'] / pins:.0%}."
        )
    )
    # After `make demo` the command is only in .venv, not on the path.
    captioner = "captioner" if shutil.which("captioner") else os.path.relpath(sys.argv[0])
    store, pin_id = f"{folder}/demo.db", examples[0][0] if examples else "pin-0001"
    # The search is shown by Datasette, which `make demo` does not install.
    search = f"\n        {captioner} demo {folder} --search" if find_spec("datasette") else ""
    click.echo(f"""\
The captions come from the built-in checkpoint, which knows drawn pictures only.

Look:   {result["gallery"]} in a browser
Judge:  {result["sheets"]}/rater-1.html in a browser, and download your answers; then
        {captioner} eval score {store} ~/Downloads/rater-1.csv --report report.html
Try:    {captioner} stats {store}
        {captioner} aggregate explain {store} {pin_id}
        {captioner} export {store} {folder}/export{search}
        sqlite3 {store} 'select pin_id, caption from enriched_features limit 5'
Yours:  {captioner} ingest images my.db ~/photos
        {captioner} run my.db --model Salesforce/blip2-flan-t5-xl""")
