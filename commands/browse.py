"""`captioner browse`: the store in a web browser."""

from __future__ import annotations

import json
import sys
import tempfile
import threading
from importlib.util import find_spec
from pathlib import Path

import click

from ..common.terminal import plural, say, steps, wrapped
from .verbs import STORE, command


@command("browse")
@STORE
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    metavar="N",
    default=8001,
    show_default=True,
    help="Port to serve at; 0 takes any free port.",
)
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
@click.option("--sql", is_flag=True, help="Let visitors query the store in SQL of their own (reading only).")
@click.option(
    "--open/--no-open", "opens", default=None, help="Open the page in a browser.  [default: on a terminal]"
)
def browse(
    store: str, port: int, host: str, thumbnails: int, sql: bool, opens: bool | None, as_json: bool
) -> None:
    """Look at a store in a web browser, with Datasette.

    Shows what is covered, and the pins with their pictures, texts and captions. Visitors cannot write
    anything, and a run may continue meanwhile. Small pictures are kept in the store. STORE.browse next to the
    store is a copy for searching; it is kept up to date and may be deleted. Ctrl-C ends the command.

    \b
    captioner browse my.db
    captioner browse my.db --port 8080 --thumbnails 20000 --no-open
    """
    if not find_spec("datasette"):
        raise click.ClickException("browsing needs Datasette: pip install 'pincaption[browse]'")
    from ..browse import server
    from ..browse.index import keep_current, open_index, pictures_and_pins, refresh
    from ..browse.thumbnails import make_thumbnails
    from ..store import open_store

    path = Path(store)
    cannot_write = server.reading_mode(path)
    conn = None if cannot_write else open_store(path)  # raises StoreError if it is not a store
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
        copy = Path(elsewhere) / "copy.browse" if cannot_write else path.with_name(f"{path.name}.browse")
        index = open_index(copy, path, mode)
        if conn is None:
            say(
                f"{store} cannot be written: no pictures are made, and the copy for searching is deleted "
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

        def announce(url: str) -> None:
            click.echo(
                json.dumps({"url": url, "pins": pins, "pictures": pictured})
                if as_json
                else f"{plural(pins, 'pin')}, {pictured:,} with a picture: {url}\nCtrl-C ends it"
            )
            if opens or (opens is None and not as_json and sys.stdout.isatty()):
                click.launch(url)

        site = server.make_site(path, copy, mode=mode, host=host, sql=sql)
        threading.Thread(target=keep_current, args=(copy, path, mode), daemon=True).start()
        server.serve(site, listening, host, announce)
    raise click.exceptions.Exit(0)  # with --json, the object was printed above
