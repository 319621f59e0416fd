"""`captioner browse --model`: what the search page shows, and what it keeps for the next start."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import hashlib
import io
import json
import os
import random
import re
import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import date, timedelta
from html import unescape
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from click.testing import CliRunner
from PIL import Image

pytest.importorskip("datasette", reason="no Datasette here: pip install '.[browse]'")

from pincaption.browse.index import open_index, refresh
from pincaption.browse.search import MAX_QUERY, MAX_WAITING, SearchDesk, sides
from pincaption.browse.server import make_site
from pincaption.browse.thumbnails import make_thumbnails
from pincaption.cli import cli
from pincaption.commands.browse_search import open_comparison
from pincaption.embed.comparison import Comparison, own_fields
from pincaption.embed.errors import EmbedError
from pincaption.embed.model import EmbeddingModel
from pincaption.embed.options import TrainOptions
from pincaption.embed.sizes import Sizes
from pincaption.embed.training import train
from pincaption.store import open_store, transaction

COLOURS, THINGS = ("red", "blue", "green", "purple"), ("mug", "boat", "lamp", "tree", "book")
EVIL = '<script>alert(1)</script>"><img src=x onerror=alert(2)> quokka'
SMALL = Sizes(rows=5_000, width=64, hidden=16, prefixes=(32,))


def captioner(*arguments: Any) -> Any:
    return CliRunner().invoke(cli, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """90 pins with captions, a third without text of their own; one whose texts are hostile."""
    folder, rng, day = tmp_path_factory.mktemp("shop"), random.Random(0), date(2026, 6, 1)
    pins, log, names = [], [], {}
    for i in range(90):
        pin_id = f"p{i}"
        names[pin_id] = f"{rng.choice(COLOURS)} {rng.choice(THINGS)}"
        title = EVIL if i == 3 else names[pin_id] if i % 3 else None
        Image.new("RGB", (40, 30), (2 * i, 90, 120)).save(folder / f"{i}.png")
        kind = "product" if i % 5 == 0 else "pin"
        pins.append({"pin_id": pin_id, "kind": kind, "title": title, "image": f"{i}.png"})
        for _ in range(10):
            query = rng.choice([names[pin_id], names[pin_id].split()[1]])
            moment = str(day + timedelta(rng.randint(-9, 9)))
            log.append({"pin_id": pin_id, "query": query, "action": "save", "date": moment})
    for name, rows in (("pins", pins), ("log", log)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    store = folder / "my.db"
    for command in (
        ["ingest", "pins", store, folder / "pins.jsonl"],
        ["aggregate", "queries", store, "--log", folder / "log.jsonl"],
    ):
        assert captioner(*command).exit_code == 0
    with open_store(store) as conn, transaction(conn):
        digests = {f"p{i}": hashlib.sha256((folder / f"{i}.png").read_bytes()).hexdigest() for i in range(90)}
        conn.executemany(
            "UPDATE pins SET image_sha256 = ? WHERE pin_id = ?",
            [(digest, pin_id) for pin_id, digest in digests.items()],
        )
        conn.execute("INSERT INTO recipes VALUES ('r', 'made-up', NULL, '', '', '{}', '{}', 'float32')")
        conn.executemany(
            "INSERT INTO captions (pin_id, recipe_id, status, text, image_sha256, updated_at) "
            "VALUES (?, 'r', 'ok', ?, ?, '2026-01-01')",
            [(pin_id, f"a drawing of a {name}", digests[pin_id]) for pin_id, name in names.items()],
        )
    done = captioner("export", store, folder / "out", "--as-of", day, "--pairs")
    assert done.exit_code == 0, done.output
    return store


@pytest.fixture(scope="module")
def model(shop: Path) -> Path:
    """A model of titles, descriptions and captions: what pins without text are found by is their caption."""
    folder, fields = shop.parent / "model", ("title", "description", "caption")
    options = TrainOptions(epochs=2, batch=64, sizes=SMALL, fields=fields, random_negatives=0)
    train(shop.parent / "out", folder, options, workers=0)
    return folder


@pytest.fixture(scope="module")
def comparison(shop: Path, model: Path) -> Comparison:
    return open_comparison(shop, model, None, shop.with_name("my.db.search"))[0]


class Visitor:
    """Somebody who looks at the pages of a store that has a search."""

    def __init__(self, store: Path, comparison: Comparison | None):
        copy = store.with_name(store.name + ".browse")
        index = open_index(copy, store)
        with open_store(store) as conn:
            make_thumbnails(conn, index, 100)
        refresh(index)
        index.close()
        self.desk = SearchDesk(comparison) if comparison else None
        self.site = make_site(store, copy, search=self.desk)

    def ask(self, path: str) -> Any:
        return asyncio.run(self.site.client.get(path))

    def words(self, path: str) -> str:
        """The text of a page, in one line."""
        return " ".join(re.sub("<[^>]+>", " ", unescape(self.ask(path).text)).split())


@pytest.fixture(scope="module")
def visitor(shop: Path, comparison: Comparison) -> Visitor:
    return Visitor(shop, comparison)


def test_pins_without_text_are_found_with_captions_alone(comparison: Comparison) -> None:
    found = comparison.find("red mug")
    own = {f"p{i}" for i in range(90) if i % 3}  # p3 is among those that have none, but it has a title
    for side in (found.without, found.enriched):
        pin_ids = {hit.pin_id for hits in side.hits.values() for hit in hits}
        assert side.no_own_text == pin_ids - own - {"p3"}
        assert side.found == len(pin_ids) == 18
    with_words = [hit for hits in found.without.hits.values() for hit in hits if hit.matches]
    assert with_words
    assert not {hit.pin_id for hit in with_words} & found.without.no_own_text
    assert found.enriched.silent == found.enriched.by_caption >= found.enriched.silent_with_words >= 2
    assert found.enriched.hits["pin"][0].matches.keys() == {"red", "mug"}
    assert 0 < len(found.related) <= 8


def test_the_page_shows_both_sides(visitor: Visitor, comparison: Comparison) -> None:
    found = comparison.find("red mug")
    page = visitor.words("/search?q=red+mug")
    assert f"{found.without.silent} of 18 pins found here have no text of their own" in page
    assert f"{found.enriched.silent} of 18 pins found here have no text of their own" in page
    assert "Without captions Only what people wrote" in page
    assert "With captions and queries" not in page  # this model does not read the queries
    html = visitor.ask("/search?q=red+mug").text
    left, right = html.split('<section class="side with"')
    assert left.count('<li class="hit') == right.count('<li class="hit') == 18
    marked = sum(hit.by_caption_alone for hits in found.enriched.hits.values() for hit in hits)
    assert (left.count("By its caption alone"), right.count("By its caption alone")) == (0, marked)
    assert '<span class="caption"' not in left
    assert "red, mug" in right
    assert right.index("Pins</h3>") < right.index("Products</h3>")
    assert f'href="/search?q={quote(found.related[0])}"' in html
    digests = re.findall(r'src="(/-/thumbnail/[0-9a-f]{64}\.jpg)"', html)
    assert len(digests) == 36
    assert visitor.ask(digests[0]).headers["content-type"] == "image/jpeg"


def test_the_switch_shows_one_side(visitor: Visitor) -> None:
    for view, heading, other in (
        ("without", "Without captions Only", "With captions The same query"),
        ("with", "With captions The same query", "Without captions Only"),
    ):
        page = visitor.words(f"/search?q=boat&view={view}")
        assert heading in page
        assert other not in page
        assert f'view={view}" aria-current="page"' in visitor.ask(f"/search?q=boat&view={view}").text
    assert visitor.ask("/search?q=boat&view=nonsense").text.count('<li class="hit') == 36


def test_examples_are_frequent_queries_and_lead_to_their_numbers(visitor: Visitor) -> None:
    page = visitor.ask("/search").text
    assert visitor.desk is not None
    assert 1 < len(visitor.desk.examples) <= 6
    for example in visitor.desk.examples:
        assert f'href="/search?q={quote(example.query)}"' in page
        shown = f"{example.silent} of {example.found} pins found here have no text of their own"
        assert shown in visitor.words(f"/search?q={quote(example.query)}")
    assert visitor.desk.examples[0].silent > 0
    assert f'href="/search?q={quote(visitor.desk.examples[0].query)}"' in visitor.ask("/").text
    assert 'action="/search"' in visitor.ask("/browse/pins").text


@pytest.mark.parametrize(
    "query", [EVIL, "'; DROP TABLE pins; --", "{{ 7 * 7 }}", "絵文字 🍵", "a" * MAX_QUERY]
)
def test_what_strangers_write_is_text(visitor: Visitor, query: str) -> None:
    answer = visitor.ask(f"/search?q={quote(query)}")
    assert answer.status_code == 200
    assert "<script" not in answer.text
    assert "<img src=x" not in answer.text
    assert "49" not in re.sub(r"\d+ of|p49|[0-9a-f]{64}", "", answer.text) if "7 * 7" in query else True
    if "quokka" in query:  # the words of the pin whose title is hostile
        assert "&lt;script&gt;alert(1)&lt;/script&gt;" in answer.text
        assert 'href="/browse/pins/p3"' in answer.text
    assert answer.headers["content-security-policy"].startswith("default-src 'none'")


def test_a_query_that_cannot_be_answered_gets_a_sentence(visitor: Visitor) -> None:
    too_long = visitor.ask("/search?q=" + "a" * (MAX_QUERY + 1))
    assert too_long.status_code == 400
    assert "The query is too long: it may have 200 characters" in too_long.text
    empty = visitor.ask("/search?q=%21%21%21")
    assert empty.status_code == 400
    assert "The query has no word and no number: give it one" in empty.text
    assert visitor.ask("/search?q=+").status_code == 200
    assert "No pin found here has a word of this query" in visitor.words("/search?q=zzz")


def test_the_server_answers_while_it_searches_and_does_not_queue_without_end(visitor: Visitor) -> None:
    finished: list[str] = []

    async def ask(path: str) -> int:
        answer = await visitor.site.client.get(path)
        finished.append(path)
        return int(answer.status_code)

    async def crowd() -> list[int]:
        searches = [f"/search?q=red+thing+{i}" for i in range(MAX_WAITING + 5)]
        return await asyncio.gather(*map(ask, searches), ask("/-/style.css"))

    statuses = asyncio.run(crowd())
    assert sorted(statuses) == [200] * (MAX_WAITING + 1) + [503] * 5
    answered = [path for path in finished if path.endswith("css") or path in finished[-MAX_WAITING:]]
    assert answered.index("/-/style.css") < len(answered) - 1  # it did not wait for the last search
    assert visitor.ask("/search?q=red+thing+0").status_code == 200


def test_a_site_without_a_model_has_no_such_page(shop: Path) -> None:
    visitor = Visitor(shop, None)
    assert visitor.ask("/search?q=red").status_code == 404
    assert 'action="/browse/pins"' in visitor.ask("/").text


def test_the_next_start_embeds_only_what_changed(
    shop: Path, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store, folder = tmp_path / "my.db", tmp_path / "my.db.search"
    with open_store(shop) as conn:
        conn.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    shutil.copy(shop, store)
    store.chmod(0o600)
    _, first = open_comparison(store, model, None, folder)
    assert (first["items"], first["embedded"]) == (90, 180)
    assert folder.stat().st_mode & 0o777 == 0o700  # as private as the store
    before = (folder / "items.parquet").stat().st_mtime_ns
    _, again = open_comparison(store, model, None, folder)
    assert again["embedded"] == 0
    assert (folder / "items.parquet").stat().st_mtime_ns == before
    assert "the vectors of 90 pins are there from before" in capsys.readouterr().err
    with open_store(store) as conn, transaction(conn):
        conn.execute("UPDATE captions SET text = 'a drawing of a quagga' WHERE pin_id = 'p0'")
        conn.execute("UPDATE pins SET title = 'an okapi', has_title = 1 WHERE pin_id = 'p1'")
    changed, third = open_comparison(store, model, None, folder)
    assert third["embedded"] == 3  # p0 with its caption, p1 on both sides
    best = next(iter(changed.find("quagga").enriched.hits["product"]))
    assert (best.pin_id, best.by_caption_alone) == ("p0", True)
    (folder / "native.parquet").write_bytes(b"")
    with pytest.raises(EmbedError, match="does not hold item vectors: delete it, and the next start"):
        open_comparison(store, model, None, folder)


def test_an_export_can_be_named_and_the_store_may_be_read_only(
    shop: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    comparison, made = open_comparison(shop, model, shop.parent / "out", tmp_path / "kept")
    assert made["export"] == str(shop.parent / "out")
    assert not (tmp_path / "kept" / "export").exists()
    assert comparison.find("boat").enriched.found == 18
    monkeypatch.setattr(os, "access", lambda path, mode: not mode & os.W_OK)
    _, made = open_comparison(shop, model, None, tmp_path / "elsewhere")
    assert made["items"] == 90
    assert not list(tmp_path.glob("*.db*"))


def test_an_export_of_another_store_and_a_store_without_captions_are_said(
    shop: Path, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "pins.jsonl").write_text('{"pin_id": "q1", "title": "red mug"}\n')
    store = tmp_path / "other.db"
    assert captioner("ingest", "pins", store, tmp_path / "pins.jsonl").exit_code == 0
    open_comparison(store, model, None, tmp_path / "kept")
    said = " ".join(capsys.readouterr().err.split())
    assert "no pin has a caption yet, so captions add nothing: `captioner run` makes them" in said
    assert "not in" not in said
    comparison, _ = open_comparison(store, model, shop.parent / "out", tmp_path / "kept")
    said = " ".join(capsys.readouterr().err.split())
    assert re.search(r"90 of the 90 pins of \S+ are not in \S+, and shown without a picture: is it", said)
    assert "no pin has a caption" not in said
    page = Visitor(store, comparison).ask("/search?q=red+mug")
    assert page.status_code == 200
    assert "no picture" in page.text
    assert "/browse/pins/p" not in page.text  # the store has no page about them


def test_a_second_start_waits_for_the_first_and_says_so(shop: Path, model: Path, tmp_path: Path) -> None:
    folder, said = tmp_path / "kept", io.StringIO()
    folder.mkdir()
    with ThreadPoolExecutor(1) as thread, contextlib.redirect_stderr(said):
        with (folder / "lock").open("w") as held:
            fcntl.flock(held, fcntl.LOCK_EX)
            second = thread.submit(open_comparison, shop, model, None, folder)
            until = time.monotonic() + 30
            while "waiting for another captioner" not in said.getvalue() and time.monotonic() < until:
                time.sleep(0.01)
            assert "waiting for another captioner" in said.getvalue()
            assert not second.done()
            assert [path.name for path in folder.iterdir()] == ["lock"]
        assert second.result()[1]["items"] == 90  # closing the file has given the lock away


def test_a_model_that_reads_more_texts_says_so(shop: Path, tmp_path: Path) -> None:
    train(shop.parent / "out", tmp_path / "m", TrainOptions(epochs=0.1, sizes=SMALL), workers=0)
    comparison, _ = open_comparison(shop, tmp_path / "m", None, tmp_path / "kept")
    assert comparison.added == ("caption", "board_titles", "engaged_queries")
    shown = sides(comparison.find("boat"), "with", comparison.added, {})
    assert [side.heading for side in shown] == ["With captions, board titles and queries"]
    with_queries = [card for card in shown[0].kinds["Pins"] if any(f for _, f in card.why if len(f) > 1)]
    assert with_queries
    assert with_queries[0].own or with_queries[0].caption  # without the copy, a hit shows its own text


def test_a_model_without_native_text_cannot_be_compared(shop: Path, tmp_path: Path) -> None:
    options = TrainOptions(epochs=0.1, sizes=SMALL, fields=("caption",))
    train(shop.parent / "out", tmp_path / "m", options, workers=0)
    with pytest.raises(EmbedError, match="the model reads caption alone"):
        own_fields(EmbeddingModel.load(tmp_path / "m"))


def test_the_command_says_what_is_wrong_in_a_sentence(shop: Path, model: Path, tmp_path: Path) -> None:
    def sentence(*arguments: Any) -> str:
        done = captioner("browse", *arguments, "--port", 0, "--no-open")
        assert done.exit_code in (1, 2), done.output
        assert "Traceback" not in done.output
        return " ".join(done.stderr.replace("│", " ").split())

    assert "does not hold a trained model: make one with captioner embed train" in sentence(
        shop, "--model", tmp_path
    )
    assert "--export is what a model searches: add --model DIR" in sentence(shop, "--export", tmp_path)
    assert "is not an export: write one with" in sentence(shop, "--model", model, "--export", tmp_path)
    old = tmp_path / "old"
    shutil.copytree(model, old)
    config = json.loads((old / "config.json").read_text())
    (old / "config.json").write_text(json.dumps(config | {"format": "pincaption embedding 2"}))
    assert "but this version reads" in sentence(shop, "--model", old)
    empty = tmp_path / "empty.db"
    open_store(empty, create=True).close()
    assert "has no pins, so there is nothing to search" in sentence(empty, "--model", model)
    (tmp_path / "empty.db.search").rename(tmp_path / "moved")
    (tmp_path / "empty.db.search").write_text("mine")
    assert "cannot hold what the search needs (File exists): move it away" in sentence(
        empty, "--model", model
    )
    assert (tmp_path / "empty.db.search").read_text() == "mine"
