"""The gallery in a real browser: what it shows from disk, without a network."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from pincaption.browse.gallery import write_gallery
from pincaption.drawn import world
from pincaption.ingest.pins import ingest_pins
from pincaption.store import open_store

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here: apt-get install chromium"),
]


def test_every_picture_loads_from_the_page_itself(tmp_path: Path) -> None:
    world.make_world(tmp_path / "world", pins=24)
    conn = open_store(tmp_path / "my.db", create=True)
    ingest_pins(conn, [str(tmp_path / "world" / "pins.parquet")])
    page = tmp_path / "gallery.html"
    shown = write_gallery(conn, page)
    shutil.rmtree(tmp_path / "world")  # the page needs nothing but itself
    done = subprocess.run(
        [str(CHROMIUM), *FLAGS, f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom", page.as_uri()],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.stdout.count("data:image/jpeg;base64,") >= shown - 2  # two images are broken on purpose
    assert "Refused to" not in done.stderr  # nothing ran into the page's own policy
    picture = tmp_path / "page.png"
    subprocess.run(
        [
            str(CHROMIUM),
            *FLAGS,
            f"--user-data-dir={tmp_path / 'profile'}",
            "--window-size=1000,1400",
            f"--screenshot={picture}",
            page.as_uri(),
        ],
        capture_output=True,
        timeout=120,
        check=True,
    )
    from PIL import Image

    colours = Image.open(picture).convert("RGB").resize((100, 140)).getcolors(14_000)
    assert colours is not None
    assert len(colours) > 500  # pictures, not an empty page
