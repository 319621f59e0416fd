"""The rating sheet in a real browser: opened, rated by keyboard, reopened, downloaded, scored."""

from __future__ import annotations

import csv
import hashlib
import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from pincaption.cli import cli

from .shop import HOSTILE, make_shop

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
playwright = pytest.importorskip("playwright.sync_api", reason="no playwright here: pip install '.[browser]'")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here: apt-get install chromium"),
]


@pytest.fixture(scope="module")
def driver() -> Iterator[Any]:
    with playwright.sync_playwright() as running:
        yield running.chromium


@pytest.fixture
def sheets(tmp_path: Path) -> Path:
    make_shop(tmp_path / "my.db", captions=HOSTILE, pictures=tmp_path / "images")
    found = CliRunner().invoke(
        cli,
        [
            "eval",
            "sample",
            str(tmp_path / "my.db"),
            str(tmp_path / "sheets"),
            "--n",
            "100",
            "--raters",
            "2",
            "--duplicates",
            "0.2",
        ],
    )
    assert found.exit_code == 0, found.output
    shutil.rmtree(tmp_path / "images")  # a sheet needs nothing but itself
    return tmp_path / "sheets"


class Rater:
    """Somebody with a browser of their own, whose profile outlives the window."""

    def __init__(self, driver: Any, profile: Path, sheet: Path, **options: Any):
        self.driver, self.profile, self.sheet, self.options = driver, profile, sheet, options
        self.trouble: list[str] = []
        self.open()

    def open(self) -> None:
        self.context = self.driver.launch_persistent_context(
            self.profile, executable_path=CHROMIUM, args=["--no-sandbox"], offline=True, **self.options
        )
        self.page = self.context.new_page()
        self.page.on("console", lambda message: self.trouble.append(message.text))
        self.page.on("pageerror", lambda error: self.trouble.append(str(error)))
        self.page.on("dialog", lambda dialog: self.trouble.append(f"dialog: {dialog.message}"))
        self.page.on(
            "request",
            lambda request: (
                None
                if request.url.startswith(("file:", "data:", "blob:"))
                else self.trouble.append(request.url)
            ),
        )
        self.page.goto(self.sheet.as_uri())

    def press(self, *keys: str) -> None:
        for key in keys:
            self.page.keyboard.press(key)

    def text(self, selector: str) -> str:
        return str(self.page.locator(selector).text_content())

    def download(self) -> Path:
        with self.page.expect_download() as download:
            self.press("d")
        to = self.profile / download.value.suggested_filename
        download.value.save_as(to)
        return to

    def close(self) -> None:
        self.context.close()


@pytest.fixture
def rater(driver: Any, sheets: Path, tmp_path: Path) -> Iterator[Rater]:
    somebody = Rater(
        driver,
        tmp_path / "profile",
        sheets / "rater-1.html",
        viewport={"width": 1280, "height": 800},
        accept_downloads=True,
    )
    yield somebody
    somebody.close()
    # no script of a stranger, no request, nothing against the page's own policy
    assert somebody.trouble == []


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        return list(csv.DictReader(file))


def test_rate_by_keyboard_close_open_go_on_download_score(rater: Rater, sheets: Path, tmp_path: Path) -> None:
    twin = rows_of(sheets / "rater-1.csv")
    assert rater.text("#count") == f"0 of {len(twin)} judged"
    rater.press("1", "4", "ArrowRight", "2", "5", "ArrowRight", "0", "ArrowRight", "3", "6", "c")
    rater.page.keyboard.type("=cmd() says 1 \"quote\", 'g' and d")  # while one types, keys are letters
    rater.press("Escape", "ArrowRight")
    assert rater.text("#count") == f"4 of {len(twin)} judged"
    assert rater.text("#number") == f"5 of {len(twin)}"
    rater.close()
    rater.open()  # another process, the same profile
    assert rater.text("#count") == f"4 of {len(twin)} judged"
    assert rater.text("#number") == f"5 of {len(twin)}"
    rater.press("ArrowLeft")
    assert rater.page.locator("#comment").input_value() == "=cmd() says 1 \"quote\", 'g' and d"
    assert rater.page.get_by_role("radio", name="poor").is_checked()
    for _ in range(4, len(twin)):
        rater.press("n", "1", "4")
    assert rater.text("#count") == f"{len(twin)} of {len(twin)} judged"
    assert rater.page.get_by_text("You have judged all").is_visible()
    filled = rows_of(rater.download())
    assert [row["item_id"] for row in filled] == [row["item_id"] for row in twin]
    assert [(row["relevance"], row["quality"]) for row in filled[:5]] == [
        ("relevant", "good"),
        ("partly", "acceptable"),
        ("cannot judge", "cannot judge"),
        ("not", "poor"),
        ("relevant", "good"),
    ]
    assert all(float(row["seconds"]) >= 0 and row["answered_at"].endswith("Z") for row in filled)
    assert all(row["caption"] == other["caption"] for row, other in zip(filled, twin, strict=True))
    assert not [cell for row in filled for cell in row.values() if cell.startswith(tuple("=+-@"))]

    found = CliRunner().invoke(
        cli,
        [
            "eval",
            "score",
            str(tmp_path / "my.db"),
            str(rater.profile / "rater-1.csv"),
            str(sheets / "rater-1.csv"),
        ],
    )
    assert found.exit_code == 0, found.output
    conn = sqlite3.connect(tmp_path / "my.db")
    assert conn.execute("SELECT count(*) FROM ratings").fetchone() == (len(twin),)
    assert conn.execute("SELECT comment FROM ratings WHERE comment IS NOT NULL").fetchall() == [
        ("=cmd() says 1 \"quote\", 'g' and d",)
    ]


def test_captions_of_strangers_are_shown_as_they_are(rater: Rater, sheets: Path) -> None:
    shown = []
    for _ in rows_of(sheets / "rater-1.csv"):
        shown.append(rater.text("#caption-0"))
        assert rater.page.locator("#caption-0 *").count() == 0
        assert rater.page.evaluate(
            "document.getElementById('picture').complete && "
            "document.getElementById('picture').naturalWidth > 0"
        )
        rater.press("ArrowRight")
    assert sorted(set(shown)) == sorted(HOSTILE)


def test_mouse_cannot_judge_and_second_thoughts(rater: Rater, sheets: Path) -> None:
    page = rater.page
    page.get_by_text("cannot judge", exact=False).first.click()
    assert rater.text("#count").startswith("1 of")
    # who can answer after all has not said "cannot judge" of the other question
    page.locator("label.answer", has_text="partly").click()
    assert not page.get_by_label("cannot judge").is_checked()
    assert rater.text("#count").startswith("0 of")
    page.locator("label.answer", has_text="good").click()
    page.get_by_role("button", name="Next", exact=True).click()
    page.get_by_role("button", name="Back").click()
    assert page.get_by_role("radio", name="partly").is_checked()
    assert page.get_by_role("radio", name="good").is_checked()
    page.get_by_label("Go to the next one").check()
    page.get_by_role("button", name="Next", exact=True).click()
    rater.press("1", "4")
    assert rater.text("#number").startswith("3 of")


def test_two_windows_on_one_sheet_do_not_undo_each_other(rater: Rater, sheets: Path) -> None:
    other = rater.context.new_page()
    other.goto((sheets / "rater-1.html").as_uri())
    rater.press("1", "4")
    other.locator("#count").filter(has_text="1 of").wait_for()
    for key in ("ArrowRight", "3", "6"):
        other.keyboard.press(key)
    rater.page.locator("#count").filter(has_text="2 of").wait_for()
    assert [row["relevance"] for row in rows_of(rater.download())[:3]] == ["relevant", "not", ""]


def test_guidelines_are_one_key_away_and_names_are_there_for_screen_readers(rater: Rater) -> None:
    rater.press("g")
    assert rater.page.get_by_role("dialog", name="Guidelines").is_visible()
    assert rater.page.get_by_role("dialog").get_by_role("table").is_visible()
    rater.press("1", "Escape")
    assert not rater.page.get_by_role("dialog").is_visible()
    assert rater.text("#count").startswith("0 of")  # keys rate nothing while one reads
    page = rater.page
    assert (
        page.get_by_role("group", name="Is the caption relevant to the picture?").get_by_role("radio").count()
        == 3
    )
    assert (
        page.get_by_role("group", name="Is it well written and specific?").get_by_role("radio").count() == 3
    )
    assert page.get_by_role("progressbar", name="Captions judged").is_visible()
    assert page.get_by_role("img", name="Picture 1 of").is_visible()
    assert page.get_by_role("textbox", name="Comment").is_visible()
    unnamed = page.evaluate(
        "[...document.querySelectorAll('button, input, textarea')].filter(e => !(e.labels?.length || "
        "e.textContent.trim() || e.ariaLabel)).map(e => e.outerHTML)"
    )
    assert unnamed == []


def test_on_a_phone_everything_fits_beside_a_thumb(driver: Any, sheets: Path, tmp_path: Path) -> None:
    phone = Rater(
        driver,
        tmp_path / "phone",
        sheets / "rater-2.html",
        viewport={"width": 360, "height": 740},
        has_touch=True,
        is_mobile=True,
        device_scale_factor=3,
    )
    page = phone.page
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    for answer in page.locator("label.answer").all():
        box = answer.bounding_box()
        assert box["height"] >= 40
        assert box["width"] >= 90
        assert box["y"] + box["height"] < 740
    page.locator("label.answer", has_text="relevant").first.tap()
    page.locator("label.answer", has_text="good").tap()
    page.get_by_role("button", name="Next", exact=True).tap()
    assert phone.text("#number").startswith("2 of")
    assert phone.text("#count").startswith("1 of")
    phone.close()
    assert phone.trouble == []


def test_it_works_with_five_hundred_pictures_as_large_as_they_get(driver: Any, tmp_path: Path) -> None:
    make_shop(tmp_path / "my.db", captions=[f"caption {i}" for i in range(500)])
    grain = np.random.default_rng(0)
    conn = sqlite3.connect(tmp_path / "my.db")
    for i in range(500):  # noise is what JPEG makes least of
        image = tmp_path / f"{i}.jpg"
        Image.fromarray(grain.integers(0, 256, (300, 400, 3), dtype=np.uint8)).save(image, quality=80)
        digest = hashlib.sha256(image.read_bytes()).hexdigest()
        conn.execute(
            "UPDATE pins SET image = ?, image_sha256 = ? WHERE pin_id = ?", [str(image), digest, f"pin-{i}"]
        )
        conn.execute("UPDATE captions SET image_sha256 = ? WHERE pin_id = ?", [digest, f"pin-{i}"])
    conn.commit()
    found = CliRunner().invoke(
        cli,
        ["eval", "sample", str(tmp_path / "my.db"), str(tmp_path / "sheets"), "--n", "500", "--raters", "1"],
    )
    assert found.exit_code == 0, found.output
    sheet = tmp_path / "sheets" / "rater-1.html"
    assert 25_000_000 < sheet.stat().st_size < 525 * 60_000 * 4 / 3 + 1_000_000
    rater = Rater(driver, tmp_path / "profile", sheet, viewport={"width": 1280, "height": 800})
    for _ in range(525):
        rater.press("1", "4", "ArrowRight")
    assert rater.text("#count") == "525 of 525 judged"
    rater.close()
    rater.open()
    assert rater.text("#count") == "525 of 525 judged"
    rater.close()
    assert rater.trouble == []


def test_a_comparison_shows_both_captions_and_tells_nobodys(driver: Any, tmp_path: Path) -> None:
    make_shop(
        tmp_path / "my.db",
        captions=HOSTILE,
        others=[f"other {i}" for i in range(len(HOSTILE))],
        pictures=tmp_path / "images",
    )
    found = CliRunner().invoke(
        cli,
        [
            "eval",
            "compare",
            str(tmp_path / "my.db"),
            str(tmp_path / "pairs"),
            "--recipe",
            "recipe-a",
            "--recipe",
            "recipe-b",
            "--raters",
            "1",
            "--duplicates",
            "0",
        ],
    )
    assert found.exit_code == 0, found.output
    assert "recipe" not in (tmp_path / "pairs" / "rater-1.html").read_text()
    rater = Rater(driver, tmp_path / "profile", tmp_path / "pairs" / "rater-1.html", accept_downloads=True)
    first_is_a = []
    for _ in HOSTILE:
        first_is_a.append(rater.text("#caption-0") in HOSTILE)
        # the caption of recipe-a, on whichever side it stands
        rater.press("1" if first_is_a[-1] else "3", "ArrowRight")
    assert len(set(first_is_a)) == 2
    rater.download()
    scored = CliRunner().invoke(
        cli, ["eval", "score", str(tmp_path / "my.db"), str(tmp_path / "profile" / "rater-1.csv")]
    )
    assert scored.exit_code == 0, scored.output
    assert (
        "the captions of model of recipe-a are preferred to those of model of recipe-b for 100%"
        in " ".join(scored.output.split())
    )
    rater.close()
    assert rater.trouble == []
