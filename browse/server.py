"""Serves the pages of a store with Datasette."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..common.terminal import say
from ..store import Connection, StoreError, open_store
from ..store.connection import Mode, is_writable, missing_migrations, read_only_mode
from .index import connect_read_only

if TYPE_CHECKING:
    from .search import SearchDesk

TEMPLATES = Path(__file__).parent / "templates"
LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
PAGE_SIZE = 50  # pins
_SETTINGS = {
    "default_page_size": PAGE_SIZE,
    "default_facet_size": 12,
    "suggest_facets": False,
    "allow_download": False,
    "allow_csv_stream": False,
    "default_cache_ttl": 0,
    "sql_time_limit_ms": 5_000,
    "facet_time_limit_ms": 1_000,
    "cache_size_kb": 32_768,
}


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
    store: Path,
    index: Path,
    *,
    mode: Mode = "mode=ro",
    host: str = "127.0.0.1",
    sql: bool = False,
    search: SearchDesk | None = None,
) -> Any:
    """The Datasette application that shows a store and its copy `index`. It only reads both of them.

    `sql` lets visitors write queries of their own. `search` answers what is typed into the search box;
    without it the box finds pins by their words.
    """
    # Plugins of Datasette that happen to be installed are not loaded.
    os.environ.setdefault("DATASETTE_LOAD_PLUGINS", "")
    from datasette.app import Datasette
    from datasette.database import Database
    from datasette.plugins import pm

    from . import plugin
    from .choose import FACETS

    class ReadOnly(Database):  # type: ignore[misc]
        """Datasette's own class opens a file for writing if asked to, and fails at a "?" in a file name."""

        def connect(self, write: bool = False) -> Connection:
            conn = connect_read_only(Path(self.path), mode if self.name == "store" else "mode=ro")
            self._all_file_connections.append(conn)
            return conn

    if not pm.is_registered(plugin):
        pm.register(plugin)
        pm.unregister(name="datasette.handle_exception")  # it prints variables to standard output
    pins = {"size": PAGE_SIZE, "facets": [{"pins": name} for name in FACETS], "sortable_columns": ["pin_id"]}
    site = Datasette(
        [],
        metadata={"databases": {"browse": {"tables": {"pins": pins}}}},
        template_dir=str(TEMPLATES),
        settings=_SETTINGS | {"default_allow_sql": sql},
    )
    hosts = LOOPBACK | {host.lower()} if host in LOOPBACK else frozenset()
    site.site = plugin.Site(store.name, hosts, sql, search)
    site.remove_database("_memory")
    site.add_database(ReadOnly(site, str(index), is_mutable=True), name="browse")
    site.add_database(ReadOnly(site, str(store), is_mutable=True), name="store")
    return site


def bind(host: str, port: int) -> socket.socket:
    """A socket that holds the port; port 0 means any free one. Raises OSError if the port is taken.

    Call it before the work that serving needs, so that no work is wasted if the port is taken.
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
    """Serves until Ctrl-C or SIGTERM. Calls `on_start` with the URL as soon as the server answers."""
    import uvicorn

    class Server(uvicorn.Server):  # type: ignore[misc]
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            on_start(f"http://{f'[{host}]' if ':' in host else host}:{listening.getsockname()[1]}/")

    signal.signal(signal.SIGTERM, signal.default_int_handler)  # SIGTERM works like Ctrl-C
    try:
        Server(
            uvicorn.Config(site.app(), log_level="warning", access_log=False, timeout_graceful_shutdown=3)
        ).run(sockets=[listening])
    except KeyboardInterrupt:
        say("stopped")
