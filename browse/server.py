"""Serves a store: keeps the copy that the pages show up to date, and Datasette running."""

from __future__ import annotations

import os
import signal
import socket
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

from ..common.terminal import say
from ..store.connection import (
    Mode,
    StoreError,
    is_writable,
    missing_migrations,
    open_store,
    read_only_mode,
    uri,
)
from .index import open_index, refresh

TEMPLATES = Path(__file__).parent / "templates"
LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
LOOK_EVERY = 3.0  # seconds between looks at whether the store has changed
REST = 10  # times as long as bringing the copy up to date took, nothing is done about it
_SETTINGS = {
    "default_page_size": 50, "default_facet_size": 12, "suggest_facets": False, "allow_download": False, "allow_csv_stream": False, "default_cache_ttl": 0,
    "sql_time_limit_ms": 5_000, "facet_time_limit_ms": 1_000, "cache_size_kb": 32_768,
}  # fmt: skip


def reading_mode(store: Path) -> Mode | None:
    """None for a store that this user may write; otherwise the mode in which SQLite can read it.

    Raises StoreError if it cannot be read either.
    """
    if not store.exists() or store.is_dir() or is_writable(store):
        return None
    with closing(open_store(store, read_only=True)) as conn:
        if missing_migrations(conn, store):
            raise StoreError(
                f"{store} was written by an older version of captioner, and browsing needs it as it is today:"
                " a command that writes to it, for instance `captioner ingest`, brings it up to date"
            )
    return read_only_mode(store)


def make_site(
    store: Path, index: Path, *, mode: Mode = "mode=ro", host: str = "127.0.0.1", sql: bool = False
) -> Any:
    """The Datasette of a store and its copy, which both are only ever read."""
    os.environ.setdefault("DATASETTE_LOAD_PLUGINS", "")  # those that happen to be installed are none of ours
    from datasette.app import Datasette
    from datasette.database import Database
    from datasette.plugins import pm

    from . import plugin
    from .choose import FACETS

    class ReadOnly(Database):  # type: ignore[misc]
        """Datasette's opens a file for writing when a query asks, and stumbles over a name with a question
        mark.
        """

        def connect(self, write: bool = False) -> sqlite3.Connection:
            if write:
                raise sqlite3.OperationalError("attempt to write a readonly database")
            conn = sqlite3.connect(
                uri(Path(self.path), mode if self.name == "store" else "mode=ro"),
                uri=True,
                check_same_thread=False,
            )
            conn.execute("PRAGMA query_only = 1")
            self._all_file_connections.append(conn)
            return conn

    if not pm.is_registered(plugin):
        pm.register(plugin)
        pm.unregister(name="datasette.handle_exception")  # writes variables to standard output
    pins = {"size": 50, "facets": [{"pins": name} for name in FACETS], "sortable_columns": ["pin_id"]}
    site = Datasette(
        [],
        metadata={"databases": {"browse": {"tables": {"pins": pins}}}},
        template_dir=str(TEMPLATES),
        settings=_SETTINGS | {"default_allow_sql": sql},
    )
    site.site = plugin.Site(store.name, LOOPBACK | {host.lower()} if host in LOOPBACK else frozenset(), sql)
    site.remove_database("_memory")
    site.add_database(ReadOnly(site, str(index), is_mutable=True), name="browse")
    site.add_database(ReadOnly(site, str(store), is_mutable=True), name="store")
    return site


def keep_current(index: Path, store: Path, mode: Mode = "mode=ro") -> None:
    """Brings the copy up to date whenever the store has changed, for ever: made for a thread of its own."""
    conn, seen = open_index(index, store, mode), None
    while True:
        began = time.monotonic()
        try:
            version = conn.execute("PRAGMA store.data_version").fetchone()[0]
            if version != seen:
                refresh(conn)
                seen = version
        except sqlite3.Error as error:
            say(f"the pages stay as they are for now: {error}")
        time.sleep(max(LOOK_EVERY, REST * (time.monotonic() - began)))


def bind(host: str, port: int) -> socket.socket:
    """Takes the port (any that is free for 0), so that nothing is prepared in vain.

    Raises OSError if it is not to be had.
    """
    listening = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
    except OSError:
        listening.close()
        raise
    return listening


def serve(site: Any, listening: socket.socket, host: str, on_start: Callable[[str], None]) -> None:
    """Serves until it is stopped by Ctrl-C or SIGTERM; calls `on_start` with the address once it answers."""
    import uvicorn

    class Server(uvicorn.Server):  # type: ignore[misc]
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            on_start(f"http://{f'[{host}]' if ':' in host else host}:{listening.getsockname()[1]}/")

    signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends like Ctrl-C
    try:
        Server(
            uvicorn.Config(site.app(), log_level="warning", access_log=False, timeout_graceful_shutdown=3)
        ).run(sockets=[listening])
    except KeyboardInterrupt:
        say("stopped")
