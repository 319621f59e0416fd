"""Our plugin for Datasette: pages of our own, what visitors may see, facets, and safety.

Everything that is shown was written by strangers. So templates escape it, the content security policy forbids
scripts, and styles, pictures and forms from elsewhere, and all links lead to pages of this server.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datasette import hookimpl
from datasette.database import QueryInterrupted
from datasette.filters import FilterArguments
from datasette.utils import path_with_removed_args, tilde_encode, urlsafe_components
from datasette.utils.asgi import Base400, NotFound, Response
from datasette.views.base import DatasetteError
from markupsafe import Markup

from ..common.errors import PincaptionError
from ..common.pages import MAX_TEXT, STYLE, text
from ..common.terminal import duration, say
from .choose import ARRAYS, FACETS, PinFacet, filters
from .overview import overview, run_shown
from .pin import about_pin
from .search import MAX_QUERY, VIEWS, SearchDesk, TooManySearchesError, sides
from .stored import PINS_BY_TEXTS, RUNS, SHOWN, SIZES, TABLES, THUMBNAIL

VISIBLE = {("browse", "pins"), *(("store", table) for table in (*TABLES, "sample_items"))}

_STYLE = STYLE + (Path(__file__).parent / "browse.css").read_text(encoding="utf-8")
_STYLE_DIGEST = hashlib.sha256(_STYLE.encode()).hexdigest()[:16]
_PATHS = re.compile(
    r"/|/search|/favicon\.ico|/-/(style\.css|thumbnail/[0-9a-f]{64}\.jpg)|/(browse|store)(/[^/.]+){1,2}(\.json)?|/store(\.json)?"
)
_HEADERS = {
    "content-security-policy": "default-src 'none'; img-src 'self'; style-src 'self'; form-action 'self'; "
    "base-uri 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
}


@dataclass(frozen=True)
class Site:
    """What all pages of a store know, as `datasette.site`.

    The server answers only to the names `hosts`; if there are none, to any name. Without `search` the search
    box finds pins by their words alone.
    """

    name: str
    hosts: frozenset[str] = frozenset()
    sql: bool = False
    search: SearchDesk | None = None


@hookimpl  # type: ignore[untyped-decorator]
def permission_allowed(datasette: Any, action: str, resource: Any) -> bool | None:
    if action == "execute-sql":
        return bool(datasette.site.sql and resource == "store")
    if action == "view-table":
        return tuple(resource) in VISIBLE or (datasette.site.sql and resource[0] == "store")
    if action == "view-database":
        return bool(datasette.site.sql and resource == "store")
    return action in ("view-instance", "view-query")


@hookimpl  # type: ignore[untyped-decorator]
def asgi_wrapper(datasette: Any) -> Callable[[Any], Any]:
    """Refuses requests for other pages or another host name, and adds our headers to each answer."""

    def refused(scope: Any) -> Response | None:
        asked = dict(scope["headers"]).get(b"host", b"").decode("latin-1")
        if (
            datasette.site.hosts
            and re.sub(r":\d+$", "", asked).strip("[]").lower() not in datasette.site.hosts
        ):
            # DNS rebinding: the page of a stranger whose name was made to point to this machine.
            return Response.text("This server answers only to its own name.", status=403)
        if scope["method"] not in ("GET", "HEAD"):
            return Response.text("This server can only be read.", status=405)
        if not _PATHS.fullmatch(scope["raw_path"].decode("latin-1").partition("?")[0]):
            return Response.text("There is no such page.", status=404)
        return None

    def wrap(app: Any) -> Any:
        async def guarded(scope: Any, receive: Any, send: Any) -> None:
            async def answer(message: Any) -> None:
                if message["type"] == "http.response.start":
                    message = {
                        **message,
                        "headers": [
                            *message["headers"],
                            *((name.encode(), value.encode()) for name, value in _HEADERS.items()),
                        ],
                    }
                await send(message)

            if scope["type"] != "http":
                await app(scope, receive, send)
            elif response := refused(scope):
                await response.asgi_send(answer)
            else:
                await app(scope, receive, answer)

        return guarded

    return wrap


@hookimpl  # type: ignore[untyped-decorator]
def register_routes() -> list[tuple[str, Any]]:
    return [
        ("^/$", _front),
        ("^/search$", _search),
        (r"^/-/style\.css$", _style),
        (r"^/-/thumbnail/(?P<digest>[0-9a-f]{64})\.jpg$", _thumbnail),
    ]


async def _front(datasette: Any, request: Any) -> Response:
    store = datasette.get_database("store")
    covered = overview(map(tuple, await datasette.get_database("browse").execute(PINS_BY_TEXTS)))
    runs = list(map(run_shown, await store.execute(RUNS)))
    sizes = dict((await store.execute(SIZES)).first())
    return Response.html(
        await datasette.render_template(
            "front.html",
            {"covered": covered, "runs": runs, "sizes": sizes, "tables": TABLES},
            request=request,
        )
    )


async def _search(datasette: Any, request: Any) -> Response:
    desk = datasette.site.search
    if desk is None:
        raise NotFound("This site was started without a model to search with.")
    query, view = request.args.get("q", "").strip(), request.args.get("view", "both")
    page: dict[str, Any] = {"query": query[:MAX_QUERY], "view": view if view in VIEWS else "both"}
    status = 200
    if query:
        try:
            found = await desk.ask(query)
        except PincaptionError as error:
            status = 503 if isinstance(error, TooManySearchesError) else 400
            page["error"] = str(error)
        else:
            hits = [
                hit for side in (found.without, found.enriched) for of in side.hits.values() for hit in of
            ]
            pin_ids = json.dumps([hit.pin_id for hit in hits])
            rows = (await datasette.get_database("browse").execute(SHOWN, {"pin_ids": pin_ids})).rows
            about = {row["pin_id"]: dict(row) for row in rows}
            page |= {"found": found, "sides": sides(found, page["view"], desk.added, about)}
    return Response.html(await datasette.render_template("search.html", page, request=request), status=status)


async def _style() -> Response:
    return Response(
        _STYLE,
        content_type="text/css; charset=utf-8",
        headers={"cache-control": "public, max-age=31536000, immutable"},
    )


async def _thumbnail(datasette: Any, request: Any) -> Response:
    rows = (await datasette.get_database("store").execute(THUMBNAIL, [request.url_vars["digest"]])).rows
    if not rows:
        raise NotFound("There is no such picture.")
    return Response(
        rows[0][0],
        content_type="image/jpeg",
        headers={"cache-control": "public, max-age=31536000, immutable"},
    )


@hookimpl  # type: ignore[untyped-decorator]
def extra_template_vars(datasette: Any, database: str, table: str, view_name: str, request: Any) -> Any:
    async def variables() -> dict[str, Any]:
        return await about_pin(
            datasette.get_database("store"),
            datasette.get_database("browse"),
            urlsafe_components(request.url_vars["pks"])[0],
        )

    return variables if (database, table, view_name) == ("browse", "pins", "row") else {}


@hookimpl  # type: ignore[untyped-decorator]
def prepare_jinja2_environment(env: Any, datasette: Any) -> None:
    env.globals.update(site=datasette.site, style_digest=_STYLE_DIGEST, facet_names=FACETS, arrays=ARRAYS)
    env.globals.update(views=VIEWS, max_query=MAX_QUERY)
    env.filters.update(
        said=lambda value, limit=MAX_TEXT: Markup(text(str(value), limit)),
        list=_texts,
        pin=lambda pin_id: f"/browse/pins/{tilde_encode(pin_id)}",
        number=lambda n: f"{n:,}",
        moment=lambda value: (value or "")[:16].replace("T", " "),
        duration=duration,
        share=lambda n, total: (
            f"{min(99.9, max(0.1, 100 * n / total)):.1f}%"
            if 0 < n < total
            else f"{100 * n // max(total, 1)}%"
        ),
        without=lambda request, names: path_with_removed_args(request, set(names)),
    )


def _texts(value: str | None) -> list[str]:
    try:
        texts = json.loads(value or "[]")
    except ValueError:
        return []
    return list(map(str, texts)) if isinstance(texts, list) else []


@hookimpl  # type: ignore[untyped-decorator]
def render_cell(value: Any, column: str) -> Any:
    """A cell of the plain tables, as text. Datasette would make links of URLs that strangers wrote."""
    if isinstance(value, dict):  # a reference, with a label
        value = value["value"]
    if isinstance(value, bytes):
        return f"({len(value):,} bytes)"
    if column == "pin_id" and isinstance(value, str):
        return Markup('<a href="/browse/pins/{}">{}</a>').format(tilde_encode(value), text(value, 80))
    return Markup(text(str(value), MAX_TEXT)) if value not in (None, "") else None


@hookimpl  # type: ignore[untyped-decorator]
def filters_from_request(request: Any, database: str, table: str) -> FilterArguments | None:
    return filters(request) if (database, table) == ("browse", "pins") else None


@hookimpl  # type: ignore[untyped-decorator]
def register_facet_classes() -> list[type]:
    return [PinFacet]


@hookimpl(tryfirst=True)  # type: ignore[untyped-decorator]
def handle_exception(datasette: Any, request: Any, exception: Exception) -> Any:
    """A page that says what is wrong, and a line in the log. Datasette's own handler prints variables."""

    async def page() -> Response:
        status = getattr(exception, "status", 500)
        said = "This page could not be made. The log of the server says why."
        if isinstance(exception, (Base400, DatasetteError)):
            said = getattr(exception, "message", None) or str(exception)
        if isinstance(exception, QueryInterrupted) or getattr(exception, "title", None) == "SQL Interrupted":
            status, said = 503, "This took too long. Search for something, or filter the pins first."
        elif status == 500:
            say(f"{request.path}: {type(exception).__name__}: {exception}")
        if request.path.endswith(".json"):
            return Response.json({"ok": False, "error": said, "status": status}, status=status)
        return Response.html(
            await datasette.render_template("error.html", {"error": said, "status": status}, request=request),
            status=status,
        )

    return page
