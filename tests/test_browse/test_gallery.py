"""The gallery: what it shows, that texts of strangers stay text, and that it needs nothing from outside."""

import base64
import hashlib
import html
import re
from html.parser import HTMLParser
from io import BytesIO
from pathlib import Path

import pytest
from PIL import Image

from pincaption.browse.gallery import is_current, write_gallery
from pincaption.ingest.images import ingest_images
from pincaption.store import open_store
from pincaption.store.claims import Claims
from pincaption.store.recipes import Recipe
from pincaption.store.work import Caption

EVIL = (
    "<script>alert(1)</script> \"><img src=x onerror='alert(2)'> javascript:alert(3) {{7*7}} &lt; \x01\u202e"
)

TAGS = frozenset(
    re.findall(
        r"\w+",
        "html head meta title style body header h1 h2 p b strong code svg rect ul li nav a span main "
        "section figure img figcaption",
    )
)


class Page(HTMLParser):
    """Tags with their attributes, and the text below each card."""

    def __init__(self, text: str):
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def shows(path) -> Page:
    return Page(path.read_text(encoding="utf-8"))


def section(path, name: str) -> str:
    found = re.search(rf'<section id="{name}".*?</section>', path.read_text(encoding="utf-8"), re.DOTALL)
    return found[0] if found else ""


@pytest.fixture
def store(tmp_path):
    """Six pins: two captioned (one with a title), one with text, one rejected, one failed, one waiting."""
    photos = tmp_path / "photos"
    photos.mkdir()
    for i, name in enumerate(["captioned", "titled", "native", "rejected", "waiting"]):
        picture = Image.new("RGB", (800, 600), (40 * i, 90, 160))
        exif = picture.getexif()
        exif[0x010E] = "taken at home"
        picture.save(photos / f"{name}.jpg", exif=exif)
    (photos / "failed.jpg").write_bytes(b"not an image")
    conn = open_store(tmp_path / "my.db", create=True)
    ingest_images(conn, photos)
    conn.execute("UPDATE pins SET title = 'A title alone' WHERE pin_id = 'titled.jpg'")
    conn.execute(
        "UPDATE pins SET title = 'Blue thing', description = 'As written by a person', locale = 'en_GB' "
        "WHERE pin_id = 'native.jpg'"
    )
    yield conn
    conn.close()


def commit(conn, model="builtin", **texts):
    work = Claims(conn, Recipe(model, None, "0", "", {}, {}, "float32"), "all")
    images = dict(conn.execute("SELECT pin_id, image FROM pins"))
    captions = []
    for name, (status, text, reason) in texts.items():
        digest = hashlib.sha256(Path(images[f"{name}.jpg"]).read_bytes()).hexdigest()
        captions.append(Caption(f"{name}.jpg", work.recipe.recipe_id, status, text, reason, digest))
    work.commit(captions)


FILLED = {
    "captioned": ("ok", "a red mug on a grey background", None),
    "titled": ("ok", "two blue fish", None),
    "rejected": ("rejected", "mug mug mug mug", "repetition"),
    "failed": ("failed", None, "not an image"),
}


def test_every_pin_is_shown_in_its_section(store, tmp_path):
    commit(store, **FILLED)
    path = tmp_path / "gallery.html"
    assert write_gallery(store, path) == 6
    filled = section(path, "filled")
    assert "a red mug on a grey background" in filled
    assert 'alt="two blue fish"' in filled
    assert "A title alone" in filled
    assert "As written by a person" in section(path, "native")
    assert 'lang="en-GB"' in section(path, "native")
    failed = section(path, "failed")
    assert "Rejected: repetition" in failed
    assert "mug mug mug mug" in failed
    assert "Failed: not an image" in failed
    assert "waiting.jpg" in section(path, "waiting")
    order = re.findall(r'<section id="(\w+)"', path.read_text())
    assert order == ["filled", "native", "failed", "waiting"]


def test_the_header_tells_coverage_and_the_model(store, tmp_path):
    commit(store, **FILLED)
    write_gallery(store, tmp_path / "gallery.html", title="My pins")
    text = " ".join(shows(tmp_path / "gallery.html").text.split())
    assert "My pins" in text
    assert (
        "2 of 6 pins (33%) came with text of their own; captioner described 1 of the other 4, so 50% can "
        "now be found by words." in text
    )
    assert "It also captioned 1 pin that had only a title." in text
    assert "33% with text of their own (2)" in text
    assert "17% filled in by captioner (1)" in text
    assert "50% without any text (3)" in text
    assert "written by builtin" in text
    assert "knows drawn pictures like these only" in text


def test_another_model_is_named_without_the_warning(store, tmp_path):
    commit(store, "Salesforce/blip2-opt-2.7b", **FILLED)
    write_gallery(store, tmp_path / "gallery.html")
    text = shows(tmp_path / "gallery.html").text
    assert "Salesforce/blip2-opt-2.7b" in text
    assert "drawn pictures" not in text


@pytest.mark.parametrize(
    "place", ["title", "description", "caption", "reason", "locale", "pin_id", "image", "model", "page"]
)
def test_what_strangers_wrote_stays_text(store, tmp_path, place):
    texts = dict(FILLED)
    if place == "caption":
        texts["captioned"] = ("ok", EVIL, None)
    if place == "reason":
        texts["rejected"] = ("rejected", EVIL, EVIL)
    commit(store, EVIL if place == "model" else "builtin", **texts)
    if place in ("title", "description", "locale", "image"):
        store.execute(f"UPDATE pins SET {place} = ?", [EVIL])
    if place == "pin_id":
        store.execute("UPDATE pins SET pin_id = ? WHERE pin_id = 'native.jpg'", [EVIL])
    path = tmp_path / "gallery.html"
    write_gallery(store, path, **({"title": EVIL} if place == "page" else {}))
    page = shows(path)
    assert "<script" not in path.read_text()
    assert "\x01" not in path.read_text()
    assert {name for name, _ in page.tags} <= TAGS
    for tag, attributes in page.tags:
        assert not any(name.startswith("on") or name == "style" for name in attributes)
        for name in ("src", "href", "srcset", "action"):
            assert attributes.get(name) is None or attributes[name].startswith(
                "data:image/jpeg;base64," if tag == "img" else "#"
            )
    if place not in ("locale", "image"):
        assert html.escape("<script>alert(1)</script>") in path.read_text()


def test_the_page_allows_itself_nothing_but_its_own_style_and_pictures(store, tmp_path):
    write_gallery(store, tmp_path / "gallery.html")
    text = (tmp_path / "gallery.html").read_text()
    policy = next(
        m["content"]
        for m in shows(tmp_path / "gallery.html").all("meta")
        if m.get("http-equiv") == "Content-Security-Policy"
    )
    style = re.search(r"<style>(.*?)</style>", text, re.DOTALL)[1]
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert (
        policy == f"default-src 'none'; img-src data:; style-src 'sha256-{digest}'; base-uri 'none'; "
        "form-action 'none'"
    )
    assert "@import" not in style
    assert "url(" not in style


def test_pictures_are_small_without_exif_and_have_a_text(store, tmp_path):
    commit(store, **FILLED)
    write_gallery(store, tmp_path / "gallery.html")
    images = shows(tmp_path / "gallery.html").all("img")
    assert len(images) == 5
    assert all(image["alt"] for image in images)
    for image in images:
        data = base64.b64decode(image["src"].split(",", 1)[1])
        assert Image.open(BytesIO(data)).size == (240, 180) == (int(image["width"]), int(image["height"]))
        assert not Image.open(BytesIO(data)).getexif()
        assert b"taken at home" not in data


def test_a_limit_shows_some_of_every_section_and_says_so(store, tmp_path):
    commit(store, **FILLED)
    assert write_gallery(store, tmp_path / "gallery.html", limit=5) == 5
    assert "A sample of 1 out of 2." in (tmp_path / "gallery.html").read_text()
    assert write_gallery(store, tmp_path / "gallery.html", limit=2) == 2
    assert write_gallery(store, tmp_path / "gallery.html", limit=0) == 0


def test_an_empty_store_gives_a_page(tmp_path):
    conn = open_store(tmp_path / "my.db", create=True)
    assert write_gallery(conn, tmp_path / "gallery.html") == 0
    assert "This store has no pins yet." in (tmp_path / "gallery.html").read_text()


def test_a_page_is_current_until_the_store_changes(store, tmp_path):
    path = tmp_path / "gallery.html"
    assert not is_current(store, path)
    write_gallery(store, path)
    assert is_current(store, path)
    commit(store, **FILLED)
    assert not is_current(store, path)


def test_a_page_that_cannot_be_written_leaves_the_old_one(store, tmp_path):
    path = tmp_path / "gallery.html"
    path.mkdir()
    with pytest.raises(OSError):
        write_gallery(store, path)
    assert path.is_dir()
    assert not list(tmp_path.glob(".*unfinished"))
