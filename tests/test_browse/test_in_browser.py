"""`captioner browse` as a person meets it: the command in a process of its own, its pages in a real browser,
a run beside it.
"""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from pincaption.drawn import world
from pincaption.ingest.pins import ingest_pins
from pincaption.store import open_store, transaction

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytest.importorskip("datasette", reason="no Datasette here: pip install '.[browse]'")
playwright = pytest.importorskip("playwright.sync_api", reason="no playwright here: pip install '.[browser]'")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here: apt-get install chromium"),
]

RUN = "from pincaption.cli import cli; cli()"


@pytest.fixture
def store(tmp_path: Path) -> Path:
    world.make_world(tmp_path / "world", pins=120)
    conn = open_store(tmp_path / "my.db", create=True)
    ingest_pins(conn, [str(tmp_path / "world" / "pins.parquet")])
    with transaction(conn):
        conn.execute("INSERT INTO recipes VALUES ('r', 'a model', NULL, '', '', '{}', '{}', 'float32')")
        conn.execute(
            "INSERT INTO board_titles SELECT pin_id, '[\"reading nook\"]', '[1]', '[2]' FROM pins LIMIT 7"
        )
        conn.execute(
            "INSERT INTO captions (pin_id, recipe_id, status, text, reason, updated_at) SELECT pin_id, "
            "'r', 'rejected', 'zigzag zigzag', 'repeats itself', '' FROM pins LIMIT 9"
        )
        conn.execute(
            "UPDATE pins SET description = '<img src=http://evil.example/x.png onerror=alert(1)>' WHERE "
            "rowid = 1"
        )
    conn.close()
    return tmp_path / "my.db"


@pytest.fixture
def server(store: Path) -> Iterator[tuple[subprocess.Popen[str], dict[str, Any]]]:
    command = [sys.executable, "-c", RUN, "browse", str(store), "--port", "0", "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield process, json.loads(process.stdout.readline())
        finally:
            process.kill()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_look_search_choose_and_open_a_pin(
    server: tuple[subprocess.Popen[str], dict[str, Any]], store: Path, scheme: Any
) -> None:
    process, said = server
    url, trouble = said["url"], []
    assert said["pins"] == 120
    assert said["pictures"] >= 110  # a few are broken on purpose
    with playwright.sync_playwright() as running:
        browser = running.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1200, "height": 900}, color_scheme=scheme)
        page.on("console", lambda message: trouble.append(message.text))
        page.on("pageerror", lambda error: trouble.append(str(error)))
        page.on("dialog", lambda dialog: trouble.append(dialog.message))
        page.on(
            "request", lambda request: None if request.url.startswith(url) else trouble.append(request.url)
        )

        page.goto(url)
        assert "of 120 pins can be found by words" in page.inner_text("h1")
        assert colours(page) > 30
        page.get_by_role("navigation").get_by_role("link", name="Pins").click()
        assert page.inner_text("h1") == "120 pins"
        assert page.locator(".pins tbody tr").count() == 50
        page.wait_for_function(
            "[...document.images].slice(0, 4).every(image => image.complete && image.naturalWidth)"
        )
        assert colours(page) > 300
        page.get_by_role("link", name="reading nook").first.click()
        assert page.inner_text("h1") == "7 pins"
        page.get_by_role("link", name="Remove the filter reading nook").click()
        page.locator("aside").get_by_role("link", name="repeats itself").click()
        assert page.inner_text("h1") == "9 pins"
        assert "zigzag zigzag" in page.locator(".pins").inner_text()
        page.goto(f"{url}browse/pins")
        page.get_by_role("link", name="Next page").click()
        assert page.locator(".pins tbody tr").count() == 50
        page.set_viewport_size({"width": 390, "height": 844})
        for path in ("", "browse/pins", "browse/pins/pin-0001", "store/captions", "store/runs"):
            page.goto(url + path)
            assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), path
        page.set_viewport_size({"width": 1200, "height": 900})

        conn = open_store(store)  # a run beside it
        with transaction(conn):
            conn.execute("INSERT INTO pins (pin_id, title) VALUES ('late/comer.jpg', 'quokka')")
        for _ in range(60):
            page.get_by_role("searchbox").fill("quokka")
            page.get_by_role("searchbox").press("Enter")
            if page.inner_text("h1") == "1 pin":
                break
            page.wait_for_timeout(250)
        page.get_by_role("link", name="late/comer.jpg").click()
        assert page.inner_text("h1") == "quokka"
        assert "Not captioned yet." in page.inner_text("main")
        assert colours(page) > 10
        browser.close()
    assert trouble == []
    process.send_signal(signal.SIGINT if scheme == "light" else signal.SIGTERM)
    out, err = process.communicate(timeout=120)
    assert (process.returncode, out) == (0, ""), err
    assert "Traceback" not in err


def colours(page: Any) -> int:
    found = Image.open(BytesIO(page.screenshot())).convert("RGB").resize((240, 180)).getcolors(50_000)
    return len(found or [])


def test_search_without_and_with_captions(tmp_path: Path) -> None:
    """The command with a small model: by keyboard, without JavaScript, at the width of a phone."""
    from pincaption.commands.demo import make_demo
    from pincaption.commands.demo_search import make_demo_search

    made = make_demo(tmp_path / "demo", pins=60)
    search = make_demo_search(Path(made["store"]), tmp_path / "demo" / "search", print, epochs=0.3)
    arguments = ["browse", made["store"], "--model", search["model"], "--port", "0", "--json"]
    with subprocess.Popen(
        [sys.executable, "-c", RUN, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            said = json.loads(process.stdout.readline())
            assert said["search"]["items"] == 60
            look_at_search(said["url"])
            process.send_signal(signal.SIGINT)
            _, err = process.communicate(timeout=120)
            assert process.returncode == 0
            assert "Traceback" not in err
        finally:
            process.kill()


def look_at_search(url: str) -> None:
    trouble: list[str] = []
    with playwright.sync_playwright() as running:
        browser = running.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        page.on("console", lambda message: trouble.append(message.text))
        page.on("dialog", lambda dialog: trouble.append(dialog.message))
        page.on(
            "request", lambda request: None if request.url.startswith(url) else trouble.append(request.url)
        )
        page.goto(url)
        page.get_by_role("searchbox").fill("lamp")
        page.keyboard.press("Enter")
        page.wait_for_url("**/search?q=lamp")
        assert page.inner_text("h1") == "“lamp”"
        left, right = (page.locator(f".side.{view}") for view in ("without", "with"))
        assert left.locator(".hit").count() == right.locator(".hit").count() == 18
        assert left.locator(".mark").count() == 0
        assert right.locator(".mark").count() > 0
        assert right.get_by_text("of 18").inner_text() != left.get_by_text("of 18").inner_text()
        sides = [side.bounding_box() for side in (left, right)]
        assert sides[0]["x"] + sides[0]["width"] < sides[1]["x"]  # side by side
        page.wait_for_function(
            "[...document.images].slice(0, 6).every(image => image.complete && image.naturalWidth)"
        )
        assert colours(page) > 300
        switch = page.get_by_role("navigation", name="What the search reads")
        switch.get_by_role("link", name="With captions").focus()
        page.keyboard.press("Enter")
        page.wait_for_url("**view=with")
        assert page.locator(".side").count() == 1
        assert switch.locator("[aria-current]").inner_text() == "With captions"
        page.locator("#related ~ p a").first.click()
        assert page.locator(".side").count() == 1  # the view stays
        browser.close()

        browser = running.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        phone = browser.new_page(viewport={"width": 390, "height": 844}, java_script_enabled=False)
        phone.goto(f"{url}search?q=lamp")
        boxes = [phone.locator(f".side.{view}").bounding_box() for view in ("without", "with")]
        assert boxes[0]["x"] + boxes[0]["width"] < boxes[1]["x"] < 390 - boxes[1]["width"]
        assert phone.locator(".hit").first.bounding_box()["width"] > 150
        for path in ("search", "search?q=lamp&view=with", "search?q=" + "m" * 150):
            phone.goto(url + path)
            wide = Image.open(BytesIO(phone.screenshot(full_page=True))).width
            assert wide == 390, path  # nothing stands out at the side
        phone.get_by_role("link", name="Search", exact=True).click()
        phone.locator(".examples a").first.click()
        assert phone.locator(".hit").count() == 36
        browser.close()
    assert trouble == []
