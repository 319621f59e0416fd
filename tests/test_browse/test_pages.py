"""What the pages of `captioner browse` show, asked in the process itself."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
import re
import sqlite3
import time
from collections.abc import Iterator
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from click.testing import CliRunner
from PIL import Image

pytest.importorskip("datasette", reason="no Datasette here: pip install '.[browse]'")

from pincaption.browse.index import open_index, refresh
from pincaption.browse.overview import overview
from pincaption.browse.server import make_site, reading_mode
from pincaption.browse.stored import PINS_BY_TEXTS
from pincaption.browse.thumbnails import make_thumbnails
from pincaption.cli import cli
from pincaption.store import open_store, transaction
from pincaption.store.connection import StoreError
from pincaption.store.stats import coverage

HOSTILE = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "javascript:alert(1)",
    "http://evil.example/x.png",
    "{{ 7 * 7 }} {% raw %}",
    "'; DROP TABLE pins; --",
    "\u202ereversed\u202c",
    "絵文字 🍵 カップ",
]


def attributes(page: str) -> list[tuple[str, str, str]]:
    """(tag, name, value) of every attribute, as a browser reads them."""
    found = []

    class Reader(HTMLParser):
        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            found.extend((tag, name, value or "") for name, value in attrs or [("", "")])

    Reader().feed(page)
    return found


def insert(conn: sqlite3.Connection, table: str, **values: Any) -> None:
    conn.execute(
        f"INSERT INTO {table} ({', '.join(values)}) VALUES ({', '.join('?' * len(values))})",
        list(values.values()),
    )


def caption(
    conn: sqlite3.Connection,
    pin_id: str,
    status: str,
    text: str | None,
    reason: str | None = None,
    digest: str | None = None,
    recipe: str = "r",
    at: str = "2026-01-01",
) -> None:
    insert(
        conn,
        "captions",
        pin_id=pin_id,
        recipe_id=recipe,
        status=status,
        text=text,
        reason=reason,
        image_sha256=digest,
        updated_at=at,
    )


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    """Eight pins, one of each state; their names say which."""
    path = tmp_path / "what?&#.db"  # a file may be called anything
    conn = open_store(path, create=True)
    with transaction(conn):
        for recipe in ("r", "older"):
            conn.execute(
                "INSERT INTO recipes VALUES (?, ?, NULL, '', '', '{}', '{}', 'float32')",
                [recipe, f"model {recipe}"],
            )
        digests = {}
        for i, name in enumerate(
            ["own", "good/pic.jpg", "rejected", "failed", "stale", "waiting", "gone", "silent"]
        ):
            image = tmp_path / f"{i}.png"
            Image.new("RGB", (500, 300), (30 * i, 90, 120)).save(image)
            digests[name] = hashlib.sha256(image.read_bytes()).hexdigest()
            kind = "product" if name == "own" else "pin"
            insert(
                conn,
                "pins",
                pin_id=name,
                image=str(image),
                kind=kind,
                category=None if name == "silent" else "mugs",
                image_sha256=None if name == "waiting" else digests[name],
            )
        conn.execute("UPDATE pins SET title = 'Café mug', description = 'for tea' WHERE pin_id = 'own'")
        conn.execute(
            "UPDATE pins SET title = 'IMG_1.JPG', has_title = 0, image = '/nowhere.jpg', image_sha256 = "
            "NULL WHERE pin_id = 'failed'"
        )
        conn.execute(
            "UPDATE pins SET deleted_at = '2026-01-01', title = 'a deleted pin' WHERE pin_id = 'gone'"
        )
        caption(conn, "good/pic.jpg", "ok", "a red mug on a table", None, digests["good/pic.jpg"])
        caption(
            conn,
            "good/pic.jpg",
            "ok",
            "an older caption",
            None,
            digests["good/pic.jpg"],
            "older",
            "2025-01-01",
        )
        caption(conn, "rejected", "rejected", "mug mug mug mug", "repeats itself", digests["rejected"])
        caption(conn, "failed", "failed", None, "image file not found")
        caption(conn, "stale", "ok", "of an earlier image", None, "other digest")
        caption(conn, "gone", "ok", "a caption of a deleted pin", None, digests["gone"])
        evidence(conn, "stale", ["tea time", "mugs"], ["red tea mug"])
        evidence(conn, "own", ["tea time"], [])
        evidence(conn, "good/pic.jpg", ["time tea", "𞤀𞤣𞤤𞤢𞤥"], ["a b", 'with "quotes"'])
        evidence(conn, "gone", ["tea time"], ["red tea mug"])
        insert(
            conn,
            "runs",
            command="run",
            arguments="{}",
            started_at="2026-01-01T10:00:00Z",
            finished_at="2026-01-01T10:03:20Z",
            counts='{"captioned": 1234, "failed": 0, "by": {"x": 1}}',
        )
        insert(
            conn,
            "rejected_rows",
            source="http://evil.example/<b>",
            line=3,
            reason="no id",
            content='{"title": "<script>alert(1)</script>"}',
        )
    conn.close()
    return path


def evidence(conn: sqlite3.Connection, pin_id: str, titles: list[str], queries: list[str]) -> None:
    numbers = {name: json.dumps([3] * len(titles)) for name in ("boards", "scores")}
    insert(conn, "board_titles", pin_id=pin_id, titles=json.dumps(titles, ensure_ascii=False), **numbers)
    numbers = {
        name: json.dumps([7] * len(queries))
        for name in ("engagements", "scores", "first_dates", "last_dates")
    }
    insert(conn, "engaged_queries", pin_id=pin_id, queries=json.dumps(queries, ensure_ascii=False), **numbers)


class Visitor:
    """Somebody who looks at the pages of a store."""

    def __init__(self, store: Path, **options: Any):
        self.store, self.copy = store, store.with_name(store.name + ".browse")
        self.index = open_index(self.copy, store)
        refresh(self.index)
        self.site = make_site(store, self.copy, **options)

    def ask(self, path: str, method: str = "get", **options: Any) -> Any:
        return asyncio.run(self.site.client.request(method, path, **options))

    def pins(self, query: str = "") -> list[str]:
        return [row[0] for row in self.ask(f"/browse/pins.json?{query}").json()["rows"]]

    def facet(self, name: str, query: str = "") -> dict[str, int]:
        found = self.ask(f"/browse/pins.json?{query}").json()["facet_results"]
        return {one["value"]: one["count"] for one in found[name]["results"]}


@pytest.fixture
def visitor(shop: Path) -> Iterator[Visitor]:
    somebody = Visitor(shop)
    yield somebody
    somebody.index.close()


def make_pictures(store: Path, index: sqlite3.Connection, n: int = 100) -> int:
    conn = open_store(store)
    try:
        made = make_thumbnails(conn, index, n)
    finally:
        conn.close()
    refresh(index)
    return made


def test_each_pin_has_one_status_and_deleted_ones_are_not_shown(visitor: Visitor) -> None:
    assert visitor.pins() == ["failed", "good/pic.jpg", "own", "rejected", "silent", "stale", "waiting"]
    assert visitor.facet("status") == {"none": 3, "failed": 1, "ok": 1, "rejected": 1, "stale": 1}
    assert visitor.pins("status=stale") == ["stale"]
    assert visitor.facet("reason") == {"image file not found": 1, "repeats itself": 1}
    assert visitor.facet("category", "status=none") == {"mugs": 2}
    assert visitor.facet("texts") == {
        "none": 4,
        "board titles, queries": 1,
        "caption, board titles, queries": 1,
        "own text, board titles": 1,
    }
    assert visitor.ask("/browse/pins/gone").status_code == 404
    page = visitor.ask("/browse/pins").text
    assert "deleted" not in page
    assert "Rejected: repeats itself" in page
    assert "“mug mug mug mug”" in page
    assert "Stale: made from an earlier picture" in page
    assert "IMG_1.JPG" not in page  # says nothing


def test_the_front_page_counts_as_stats_does(visitor: Visitor) -> None:
    counted = coverage(open_store(visitor.store))
    found = overview(map(tuple, visitor.index.execute(PINS_BY_TEXTS)))
    whole, steps = found["all"], {step["text"]: step for step in found["steps"]}
    assert whole["pins"] == counted["pins"] == 7
    assert steps["own text"]["n"] == counted["native_text"] == 1
    assert steps["caption"]["n"] == counted["only_caption"] == 1
    assert steps["caption"]["has"] == counted["caption"] == 1
    assert steps["board titles"]["has"] == counted["board_titles"] == 3
    assert steps["queries"]["has"] == counted["engaged_queries"] == 2
    assert whole["pins"] - whole["parts"][-1]["n"] == counted["any_text"] == 3
    assert [(bar["name"], bar["pins"]) for bar in found["kinds"]] == [("pin", 6), ("product", 1)]
    assert [(bar["name"], bar["pins"]) for bar in found["categories"]] == [("mugs", 6), (None, 1)]
    page = " ".join(re.sub("<[^>]+>", " ", unescape(visitor.ask("/").text)).split())
    assert "42.9% of 7 pins can be found by words" in page
    assert "run 2026-01-01 10:00 3 min 20 s 1,234 captioned" in page
    assert "1 rejected row " in page


def test_a_store_without_pins_has_a_front_page(tmp_path: Path) -> None:
    open_store(tmp_path / "new.db", create=True).close()
    visitor = Visitor(tmp_path / "new.db")
    assert "no pins yet" in visitor.ask("/").text
    assert visitor.ask("/browse/pins").status_code == 200


def test_search_finds_every_text_of_a_pin(visitor: Visitor) -> None:
    for words, found in {
        "cafe": ["own"],
        "TEA": ["good/pic.jpg", "own", "stale"],
        "red tab": ["good/pic.jpg"],  # words may be begun
        "earlier": [],
        "deleted": [],
        'a"b': ["good/pic.jpg"],
        "good/pic.jpg": ["good/pic.jpg"],  # its id
        "tea NOT time": [],
        '"': [],
        "*": [],
        "NEAR(": [],
        "tea\0": ["good/pic.jpg", "own", "stale"],
    }.items():
        assert visitor.pins(f"_search={quote(words)}") == found, words
    assert "1 pin<" in visitor.ask("/browse/pins?_search=cafe").text


def test_titles_and_queries_are_facets_and_mean_exactly_themselves(visitor: Visitor) -> None:
    assert visitor.facet("board_titles") == {"tea time": 2, "mugs": 1, "time tea": 1, "𞤀𞤣𞤤𞤢𞤥": 1}
    assert visitor.facet("engaged_queries", "_title=mugs") == {"red tea mug": 1}
    for asked, found in {
        "_title=tea time": ["own", "stale"],
        "_title=tea": [],
        "_title=𞤀𞤣𞤤𞤢𞤥": ["good/pic.jpg"],
        '_query=with "quotes"': ["good/pic.jpg"],
        "_title=tea time&_title=mugs": ["stale"],
        "_query=": [],
    }.items():
        assert visitor.pins(quote(asked, safe="=&")) == found, asked


def test_texts_of_too_many_pins_are_not_counted(visitor: Visitor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pincaption.browse.choose.MANY", 2)
    assert "Too many pins to count: board titles, queries." in visitor.ask("/browse/pins").text
    assert visitor.facet("board_titles", "status=ok") == {"time tea": 1, "𞤀𞤣𞤤𞤢𞤥": 1}


def test_facets_of_a_later_page_count_all_pages(shop: Path) -> None:
    conn = open_store(shop)
    with transaction(conn):
        conn.executemany(
            "INSERT INTO pins (pin_id, category) VALUES (?, 'many')", [[f"x{i:03}"] for i in range(120)]
        )
    visitor = Visitor(shop)
    first = visitor.ask("/browse/pins.json?category=many").json()
    assert len(first["rows"]) == 50
    second = visitor.ask(f"/browse/pins.json?category=many&_next={first['next']}").json()
    assert [row[0] for row in second["rows"]] == [f"x{i:03}" for i in range(50, 100)]
    assert second["facet_results"]["category"]["results"][0]["count"] == 120
    assert "_next" not in json.dumps(second["facet_results"])


def test_a_pin_has_a_page_with_all_that_is_known(visitor: Visitor) -> None:
    page = unescape(visitor.ask("/browse/pins/good~2Fpic~2Ejpg").text)
    for known in (
        "a red mug on a table",
        "an older caption",
        "model older",
        "time tea",
        'with "quotes"',
        "current",
        "mugs",
    ):
        assert known in page, known
    assert "made from an earlier picture" in visitor.ask("/browse/pins/stale").text
    assert "image file not found" in visitor.ask("/browse/pins/failed").text
    assert "IMG_1.JPG (a placeholder, counts as missing)" in visitor.ask("/browse/pins/failed").text


def test_ratings_stand_on_the_page_of_their_pin(shop: Path) -> None:
    conn = open_store(shop)
    insert(
        conn,
        "samples",
        sample_id="s1",
        kind="captions",
        options="{}",
        strata="[]",
        beside="{}",
        created_at="",
    )
    insert(conn, "sample_items", sample_id="s1", item=1, pin_id="own", caption="the judged <caption>")
    insert(
        conn,
        "sheet_rows",
        item_id="i1",
        sample_id="s1",
        rater="rater-1",
        position=1,
        item=1,
        is_repeat=0,
        swapped=0,
    )
    insert(
        conn,
        "ratings",
        item_id="i1",
        sample_id="s1",
        rater="rater-1",
        pin_id="own",
        relevance="partly",
        quality="good",
        comment="<b>so so</b>",
        read_at="",
    )
    page = Visitor(shop).ask("/browse/pins/own").text
    assert "partly, good" in page
    assert "the judged &lt;caption&gt;" in page
    assert "&lt;b&gt;so so&lt;/b&gt;" in page


def test_what_strangers_wrote_is_text_and_links_stay_here(shop: Path) -> None:
    conn = open_store(shop)
    for i, text in enumerate(HOSTILE):
        with transaction(conn):
            insert(
                conn,
                "pins",
                pin_id=f"{text}/{i}",
                title=text,
                description=text,
                category=text,
                locale=text,
                image=text,
                prompt=text,
                image_sha256=text,
            )
            caption(conn, f"{text}/{i}", *(("ok", text, None) if i % 2 else ("rejected", text, text)), text)
            evidence(conn, f"{text}/{i}", [text], [text])
            insert(conn, "thumbnails", image_sha256=text, jpeg=b"<script>", width=1, height=1)
            insert(conn, "rejected_rows", source=text, reason=text, content=text)
            insert(
                conn,
                "runs",
                command=text,
                arguments=json.dumps(text),
                started_at=text,
                counts=json.dumps({text: 1}),
            )
    visitor = Visitor(shop)
    pages = [
        "/",
        "/browse/pins",
        "/store/rejected_rows",
        "/store/runs",
        "/store/captions",
        f"/browse/pins?_search={quote(HOSTILE[1])}",
        f"/browse/pins?category={quote(HOSTILE[0])}",
    ]
    for pin in re.findall(r'href="(/browse/pins/[^"]+)"', visitor.ask("/browse/pins").text):
        if pin not in pages:
            pages.append(pin)
    assert len(pages) > 20
    for path in pages:
        answer = visitor.ask(path)
        assert answer.status_code == 200, path
        assert "<script" not in answer.text
        assert "onerror=alert(1)>" not in answer.text
        assert "49 " not in answer.text
        for tag, name, value in attributes(answer.text):
            assert tag not in ("script", "style", "iframe", "object")
            assert name != "style", (path, tag)
            assert not name.startswith("on"), (path, tag, name)
            assert name not in ("href", "src", "action") or re.match(r"[/#](?!/)", value), (path, name, value)
    for text in HOSTILE:
        assert visitor.pins(f"_title={quote(text)}"), text


def test_every_answer_forbids_what_is_not_from_here(visitor: Visitor) -> None:
    for path in (
        "/",
        "/browse/pins",
        "/browse/pins.json",
        "/-/style.css",
        "/nothing",
        "/store/rejected_rows",
        "/browse/pins/nope",
        "/-/thumbnail/" + "0" * 64 + ".jpg",
    ):
        headers = visitor.ask(path).headers
        policy = headers["content-security-policy"]
        assert policy.startswith("default-src 'none'; img-src 'self'; style-src 'self';")
        assert "unsafe" not in policy
        assert headers["x-content-type-options"] == "nosniff"
        assert "access-control-allow-origin" not in headers
        assert "set-cookie" not in headers


@pytest.mark.parametrize(
    "path",
    [
        "/store/pins",
        "/store/file_digests",
        "/store/evidence_sources",
        "/store",
        "/browse",
        "/store?sql=select+1",
        "/_internal",
        "/_internal/databases",
        "/browse/pins_fts",
        "/browse/no_picture",
        "/store/thumbnails",
        "/-/databases",
        "/-/versions",
        "/store.db",
        "/browse/pins.csv",
        "/-/static/app.css",
        "/store/captions?_where=1",
        "/etc/passwd",
        "/-/thumbnail/../../etc/passwd.jpg",
        "/-/thumbnail/%2Fetc%2Fpasswd.jpg",
    ],
)  # fmt: skip
def test_nothing_else_is_shown(visitor: Visitor, path: str) -> None:
    assert visitor.ask(path).status_code in (403, 404)


def test_sql_of_visitors_is_off_until_it_is_asked_for(shop: Path) -> None:
    visitor = Visitor(shop, sql=True)
    answer = visitor.ask("/store.json?sql=select+count(*)+from+pins&_shape=array")
    assert answer.json() == [{"count(*)": 8}]
    assert "<td" in visitor.ask("/store?sql=select+title+from+pins").text
    assert visitor.ask("/store").status_code == 200
    assert visitor.ask("/store.json?sql=delete+from+pins").status_code == 400
    assert visitor.ask("/browse?sql=select+1").status_code in (403, 404)


def test_nothing_can_be_written(visitor: Visitor) -> None:
    before = visitor.store.read_bytes()
    for method in ("post", "put", "delete", "patch", "options"):
        assert visitor.ask("/store/pins", method).status_code == 405
    for name in ("store", "browse"):
        database = visitor.site.get_database(name)
        with pytest.raises(sqlite3.OperationalError, match="readonly"):
            asyncio.run(database.execute_write("DELETE FROM pins"))
        with pytest.raises(sqlite3.OperationalError, match="readonly"):
            asyncio.run(database.execute("DELETE FROM pins"))
    assert visitor.store.read_bytes() == before


def test_only_its_own_name_is_answered_to(shop: Path) -> None:
    visitor = Visitor(shop)
    assert visitor.ask("/", headers={"host": "evil.example:8001"}).status_code == 403
    for name in ("localhost:8001", "127.0.0.1:8001", "[::1]:8001", "LOCALHOST"):
        assert visitor.ask("/", headers={"host": name}).status_code == 200
    assert Visitor(shop, host="0.0.0.0").ask("/", headers={"host": "shop.lan:8001"}).status_code == 200


def test_pictures_are_made_once_captioned_pins_first(visitor: Visitor, tmp_path: Path) -> None:
    assert make_pictures(visitor.store, visitor.index, 3) == 2  # of the third, which failed, there is none
    conn = open_store(visitor.store)
    assert [
        tuple(row)
        for row in conn.execute(
            "SELECT p.pin_id, t.width, t.height FROM thumbnails t JOIN pins p USING (image_sha256) ORDER BY 1"
        )
    ] == [
        ("good/pic.jpg", 360, 216),
        ("rejected", 360, 216),
    ]
    assert make_pictures(visitor.store, visitor.index) == 4
    assert make_pictures(visitor.store, visitor.index) == 0
    digest = hashlib.sha256((tmp_path / "5.png").read_bytes()).hexdigest()
    # as a run would have noted it
    assert conn.execute("SELECT image_sha256 FROM pins WHERE pin_id = 'waiting'").fetchone()[0] == digest
    answer = visitor.ask(f"/-/thumbnail/{digest}.jpg")
    assert (answer.headers["content-type"], answer.headers["cache-control"]) == (
        "image/jpeg",
        "public, max-age=31536000, immutable",
    )
    assert len(answer.content) <= 40_000
    assert answer.content.startswith(b"\xff\xd8")
    assert f'src="/-/thumbnail/{digest}.jpg"' in visitor.ask("/browse/pins").text
    assert f'src="/-/thumbnail/{digest}.jpg"' in visitor.ask("/browse/pins/waiting").text
    assert "No picture: image file not found" in visitor.ask("/browse/pins/failed").text


def test_an_image_that_changed_has_no_picture_of_the_old_one(visitor: Visitor, tmp_path: Path) -> None:
    Image.new("RGB", (9, 9)).save(tmp_path / "0.png")
    make_pictures(visitor.store, visitor.index)
    assert "the image has changed since it was captioned" in visitor.ask("/browse/pins/own").text


def test_pages_follow_the_store(visitor: Visitor) -> None:
    conn = open_store(visitor.store)
    assert refresh(visitor.index) == 0
    with transaction(conn):
        conn.execute("UPDATE pins SET deleted_at = NULL WHERE pin_id = 'gone'")
        conn.execute("UPDATE pins SET deleted_at = 'now', title = 'zebra' WHERE pin_id = 'own'")
        conn.execute("UPDATE board_titles SET titles = '[\"zebra\"]' WHERE pin_id = 'stale'")
        caption(conn, "waiting", "rejected", "x", "too short")
    assert visitor.pins("_search=zebra") == []
    # a pin's page is always as the store is
    assert visitor.ask("/browse/pins/waiting").text.count("too short") == 1
    refresh(visitor.index)
    assert visitor.pins("_search=zebra") == ["stale"]
    assert visitor.pins("_search=cafe") == []
    assert "gone" in visitor.pins()
    assert visitor.facet("status") == {"ok": 2, "none": 1, "rejected": 2, "failed": 1, "stale": 1}
    visitor.index.execute("INSERT INTO pins_fts (pins_fts, rank) VALUES ('integrity-check', 1)")


def test_pages_are_read_while_somebody_writes(visitor: Visitor) -> None:
    conn = open_store(visitor.store)
    conn.execute("BEGIN IMMEDIATE")
    insert(conn, "pins", pin_id="not yet")
    began = time.monotonic()
    refresh(visitor.index)
    assert "not yet" not in visitor.pins()
    assert visitor.ask("/").status_code == visitor.ask("/browse/pins/own").status_code == 200
    assert time.monotonic() - began < 60  # of the 300 that a writer would wait
    conn.execute("COMMIT")
    refresh(visitor.index)
    assert "not yet" in visitor.pins()


@pytest.mark.parametrize("content", [b"not a database, whatever its name says" * 100, b""])
def test_a_copy_that_is_damaged_is_made_anew(shop: Path, content: bytes) -> None:
    shop.with_name(shop.name + ".browse").write_bytes(content)
    assert len(Visitor(shop).pins()) == 7


def test_the_copy_is_as_private_as_the_store(shop: Path) -> None:
    shop.chmod(0o600)
    assert Visitor(shop).copy.stat().st_mode & 0o777 == 0o600


def test_the_copy_of_a_read_only_store_can_be_written(shop: Path, tmp_path: Path) -> None:
    shop.chmod(0o400)
    open_index(tmp_path / "copy", shop).close()
    assert (tmp_path / "copy").stat().st_mode & 0o777 == 0o600


def test_a_store_that_cannot_be_written_is_read(
    shop: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert reading_mode(shop) is None
    # tests may run as root, to whom nothing is forbidden
    monkeypatch.setattr(os, "access", lambda path, mode: not mode & os.W_OK)
    assert reading_mode(shop) == "mode=ro"
    (tmp_path / "none.db").write_bytes(b"no store" * 1000)
    with pytest.raises(StoreError, match="is not a SQLite file: name another one"):
        reading_mode(tmp_path / "none.db")
    conn = open_store(shop)
    conn.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    conn.close()
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    refresh(open_index(elsewhere / "copy", shop, "immutable=1"))
    site = make_site(shop, elsewhere / "copy", mode="immutable=1")
    assert asyncio.run(site.client.get("/browse/pins/own")).status_code == 200


def test_the_command_says_what_is_wrong_in_a_sentence(
    tmp_path: Path, shop: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    missing = CliRunner().invoke(cli, ["browse", str(tmp_path / "missing.db")])
    assert missing.exit_code == 1
    assert "does not exist: make a store with `captioner ingest" in missing.stderr
    assert not list(tmp_path.glob("missing*"))
    with contextlib.closing(__import__("socket").create_server(("127.0.0.1", 0))) as taken:
        found = CliRunner().invoke(
            cli, ["browse", str(shop), "--port", str(taken.getsockname()[1]), "--no-open", "--json"]
        )
    assert found.exit_code == 1
    assert "choose another --port" in found.stderr
    monkeypatch.setattr("pincaption.commands.browse.find_spec", lambda name: None)
    absent = CliRunner().invoke(cli, ["browse", str(shop)])
    assert absent.exit_code == 1
    assert "pip install 'pincaption[browse]'" in absent.stderr


def test_a_caption_by_a_person_is_marked_on_every_page(shop: Path) -> None:
    conn = open_store(shop)
    insert(
        conn,
        "captions_by_people",
        pin_id="good/pic.jpg",
        text="the <b>best</b> mug",
        image_sha256="another",
        updated_at="2026-02-03T04:05",
    )
    conn.close()
    visitor = Visitor(shop)
    assert visitor.facet("status")["by a person"] == 1
    assert visitor.pins("status=by+a+person") == visitor.pins("_search=best") == ["good/pic.jpg"]
    assert "written by a person" in visitor.ask("/browse/pins").text
    page = visitor.ask("/browse/pins/good~2Fpic~2Ejpg").text
    assert "the &lt;b&gt;best&lt;/b&gt; mug" in page
    assert "written by a person" in page
    assert "the picture may have changed since" in page
    assert "a red mug on a table" in page  # the model's, which counts again when the person's is taken back
    assert page.count("<b>current</b>") == 1
    front = " ".join(re.sub("<[^>]+>", " ", unescape(visitor.ask("/").text)).split())
    assert "1 people's caption " in front
    assert visitor.ask("/store/captions_by_people").status_code == 200
    visitor.index.close()
