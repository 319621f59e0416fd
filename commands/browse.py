"""`captioner browse`: the store in a web browser, and a search over it if there is a model."""

from __future__ import annotations

import json
import sys
import tempfile
import threading
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NotRequired, TypedDict

import click

from ..common.terminal import plural, say, steps, wrapped
from .browse_search import SearchMade, open_comparison
from .options import OPENS, PORT
from .verbs import STORE, command


class Shown(TypedDict):
    """What is served, and where; `--json` prints it."""

    url: str
    pins: int
    pictures: int  # pins with a picture
    search: NotRequired[SearchMade]  # with a model


@command("browse")
@STORE
@PORT
@click.option(
    "--host",
    metavar="NAME",
    default="127.0.0.1",
    show_default=True,
    help="Address of this machine to serve at. The default cannot be reached from other machines.",
)
@click.option(
    "--thumbnails",
    type=click.IntRange(0),
    metavar="N",
    default=2000,
    show_default=True,
    help="Before serving, make at most N of the small pictures that are missing.",
)
@click.option(
    "--model",
    metavar="DIR",
    help="Search by meaning and words with this model of captioner embed train, without and with captions.",
)
@click.option(
    "--export",
    metavar="DIR",
    help="With --model: search the features of this export. [default: the store's, as they are now]",
)
@click.option("--sql", is_flag=True, help="Let visitors query the store in SQL of their own (reading only).")
@OPENS
def browse(store: str, as_json: bool, **options: Any) -> None:
    """Look at a store in a web browser, with Datasette.

    Shows what is covered, and the pins with their pictures, texts and captions. Visitors cannot write
    anything, and a run may continue meanwhile. Small pictures are kept in the store. STORE.browse next to the
    store is a copy for searching; it is kept up to date and may be deleted. Ctrl-C ends the command.

    With --model, the search box shows the same query side by side: over the texts that people wrote alone,
    and over all texts that the model reads. Pins that only their caption made findable are marked. The
    features of the store and the vectors of its pins are kept in STORE.search. They show the store as it was
    at the start of this command; the next start embeds what has changed.

    \b
    captioner browse my.db
    captioner browse my.db --port 8080 --thumbnails 20000 --no-open
    captioner browse my.db --model model/
    """

    def say_where(shown: Shown) -> None:
        click.echo(
            json.dumps(shown)
            if as_json
            else f"{plural(shown['pins'], 'pin')}, {shown['pictures']:,} with a picture: {shown['url']}\n"
            "Ctrl-C ends it"
        )

    opens = options.pop("opens")
    show_store(
        Path(store),
        say_where,
        opens=not as_json and sys.stdout.isatty() if opens is None else opens,
        **options,
    )
    raise click.exceptions.Exit(0)  # with --json, the object was printed above


def show_store(
    store: Path,
    on_start: Callable[[Shown], None],
    *,
    model: str | Path | None = None,
    export: str | Path | None = None,
    port: int = 8001,
    host: str = "127.0.0.1",
    thumbnails: int = 2000,
    sql: bool = False,
    opens: bool = False,
) -> None:
    """Serves a store until Ctrl-C, and calls `on_start` as soon as the server answers.

    With a model, both searches of `open_comparison` are served, too. Raises ClickException if Datasette is
    missing or the port is taken, StoreError, and EmbedError for a model or export that cannot be used.
    """
    if not find_spec("datasette"):
        raise click.ClickException("browsing needs Datasette: pip install 'pincaption[browse]'")
    if export and not model:
        raise click.UsageError("--export is what a model searches: add --model DIR")
    from ..browse import server
    from ..browse.index import keep_current, open_index, pictures_and_pins, refresh
    from ..browse.search import SearchDesk
    from ..browse.thumbnails import make_thumbnails
    from ..store import open_store

    cannot_write = server.reading_mode(store)
    conn = None if cannot_write else open_store(store)  # raises StoreError if it is not a store
    mode = cannot_write or "mode=ro"
    try:
        listening = server.bind(host, port)
    except OSError as error:
        raise click.ClickException(
            f"cannot serve at {host}, port {port} ({error.strerror or error}): "
            "choose another --port or --host"
        ) from error
    if host not in server.LOOPBACK:
        click.echo(
            wrapped(
                f"warning: with --host {host}, everybody who can reach this machine can read the store; "
                "there is no password"
            ),
            err=True,
        )
    with listening, tempfile.TemporaryDirectory(prefix="captioner-browse-") as elsewhere:
        beside = Path(elsewhere) / store.name if cannot_write else store
        copy = beside.with_name(f"{store.name}.browse")
        index = open_index(copy, store, mode)
        if conn is None:
            say(
                f"{store} cannot be written: no pictures are made, and what is made for searching is deleted "
                "at the end"
            )
        else:
            with steps({"pictures": "pictures"}) as on_step:
                make_thumbnails(conn, index, thumbnails, on_step)
            conn.close()
        with steps({"texts to be searched": "pins"}) as on_step:
            refresh(index, on_step)
        pictured, pins = pictures_and_pins(index)
        index.close()

        desk, made = None, None
        if model:
            comparison, made = open_comparison(store, model, export, beside.with_name(f"{store.name}.search"))
            desk = SearchDesk(comparison)

        def announce(url: str) -> None:
            shown = Shown(url=url, pins=pins, pictures=pictured)
            on_start(shown if made is None else {**shown, "search": made})
            if opens:
                click.launch(url if made is None else f"{url}search")

        site = server.make_site(store, copy, mode=mode, host=host, sql=sql, search=desk)
        threading.Thread(target=keep_current, args=(copy, store, mode), daemon=True).start()
        server.serve(site, listening, host, announce)
