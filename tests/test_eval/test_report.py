"""What `captioner eval score` prints and the page that it writes."""

from __future__ import annotations

import csv
import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from pincaption.cli import cli

from .shop import HOSTILE, make_shop

CAPTIONER = Path(sys.executable).with_name("captioner")


def captioner(*arguments: Any) -> Result:
    return CliRunner().invoke(cli, [str(a) for a in arguments])


def answer(sheets: Path, relevance: dict[str, list[str]], **more: str) -> None:
    """Fills in all sheets: `relevance` of a caption by each rater, "relevant" else; quality follows."""
    for number, path in enumerate(sorted(sheets.glob("rater-*.csv"))):
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = list(csv.DictReader(file))
        for row in rows:
            said = relevance.get(row["caption"].lstrip("'"), ["relevant"] * 9)[number]
            row |= {
                "relevance": said,
                "quality": {"relevant": "good", "partly": "acceptable", "not": "poor"}.get(said, said),
                "seconds": "7.5",
            } | more
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    """Twelve hostile captions, judged by three: one is bad, one disputed, one cannot be judged."""
    make_shop(
        tmp_path / "my.db", HOSTILE, pictures=tmp_path / "images", categories=["mugs", "mugs", "<i>lamps</i>"]
    )
    (tmp_path / "gold.csv").write_text("pin_id,caption,relevance,quality\npin-1,a plane,not,poor\n")
    done = captioner(
        "eval",
        "sample",
        tmp_path / "my.db",
        tmp_path / "sheets",
        "--stratify",
        "category",
        "--duplicates",
        0.2,
        "--gold",
        tmp_path / "gold.csv",
    )
    assert done.exit_code == 0, done.output
    answers = {
        HOSTILE[1]: ["not"] * 3,
        HOSTILE[2]: ["relevant", "partly", "not"],
        HOSTILE[0]: ["cannot judge"] * 3,
        "a plane": ["not", "not", "relevant"],
    }
    answer(tmp_path / "sheets", answers, comment='<script>alert("c")</script>')
    return tmp_path / "my.db"


def test_what_is_printed(shop: Path) -> None:
    result = captioner("eval", "score", shop, *sorted((shop.parent / "sheets").glob("*.csv")))
    assert result.exit_code == 0, result.output
    assert max(map(len, result.stdout.splitlines())) <= 80
    said = " ".join(result.stdout.split())
    assert (
        "Of the 12 captions in this store about 82.1% are both relevant and well written (95% interval"
        in said
    )
    assert "9.5% are irrelevant and poor" in said
    assert "3 people judged 11 of them." in said
    assert "relevance: 33 answers to 11 items, 3 times cannot judge" in said
    rows = {line.split()[0]: line.split() for line in result.stdout.splitlines() if line.startswith("rater-")}
    assert re.fullmatch(r"rater-1 11 ([12]) of \1 2 of 2 7.5 .*", " ".join(rows["rater-1"]))
    assert rows["rater-3"][5:8] == ["0", "of", "2"]  # gold that was not seen to be wrong


def test_the_page_shows_what_strangers_wrote_as_text(shop: Path, tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    result = captioner(
        "eval", "score", shop, *sorted((shop.parent / "sheets").glob("*.csv")), "--report", page
    )
    assert result.exit_code == 0, result.output
    html = page.read_text(encoding="utf-8")
    tags: list[str] = []
    parser = HTMLParser()
    parser.handle_starttag = lambda tag, attributes: tags.append(tag)  # type: ignore[method-assign]
    parser.feed(html)
    assert "script" not in tags  # none of ours either
    # one disputed, two that are not all good
    assert tags.count("img") == html.count('src="data:image/jpeg;base64,') == 3
    assert "&lt;script&gt;alert(&quot;c&quot;)&lt;/script&gt;" in html
    assert "&lt;i&gt;lamps&lt;/i&gt;" in html
    assert "default-src 'none'" in html
    assert not re.search(r'(?:src|href)="(?!data:)', html)
    assert (
        html.index("How good are the captions?")
        < html.index("82.1%")
        < html.index("Agreement of the raters")
        < html.index("Most disputed")
        < html.index("The worst")
    )


def test_a_picture_that_has_changed_since_is_not_shown(shop: Path, tmp_path: Path) -> None:
    for image in (shop.parent / "images").iterdir():
        image.write_bytes((shop.parent / "images" / "0.png").read_bytes() + b"!")
    captioner(
        "eval",
        "score",
        shop,
        *sorted((shop.parent / "sheets").glob("*.csv")),
        "--report",
        tmp_path / "report.html",
    )
    assert "the image has changed since it was captioned" in (tmp_path / "report.html").read_text()


def test_the_same_answers_give_the_same_page_and_json(shop: Path, tmp_path: Path) -> None:
    sheets = sorted((shop.parent / "sheets").glob("*.csv"))
    found = []
    for name in ("a.html", "b.html"):
        result = captioner("eval", "score", shop, *sheets, "--report", tmp_path / name, "--json")
        assert result.stdout.count("\n") == 1
        found.append(json.loads(result.stdout) | {"read": None})
    assert found[0] == found[1]
    assert (tmp_path / "a.html").read_bytes() == (tmp_path / "b.html").read_bytes()


def test_the_built_in_checkpoint_is_said_to_know_drawn_pictures_only(shop: Path, tmp_path: Path) -> None:
    conn = sqlite3.connect(shop)
    conn.execute("UPDATE recipes SET model = 'builtin' WHERE recipe_id = 'recipe-a'")
    conn.commit()
    result = captioner(
        "eval",
        "score",
        shop,
        *sorted((shop.parent / "sheets").glob("*.csv")),
        "--report",
        tmp_path / "report.html",
    )
    assert "knows drawn pictures only" in result.stdout
    assert "knows drawn pictures only" in (tmp_path / "report.html").read_text()


@pytest.mark.parametrize("title", ["How good are the captions?", "How far do the raters agree?"])
def test_a_report_replaces_a_report(tmp_path: Path, title: str) -> None:
    path, table = tmp_path / "report.html", tmp_path / "ratings.csv"
    path.write_text(f"<!doctype html>\n<html><head><title>{title}</title>")  # of a version without a mark
    table.write_text("item,rater,question,value\na,x,fit,1\na,y,fit,2\nb,x,fit,2\nb,y,fit,2\n")
    for _ in range(2):
        assert captioner("eval", "score", "--ratings", table, "--report", path).exit_code == 0
        assert '<meta name="generator" content="captioner eval score">' in path.read_text()


def test_errors_of_score(shop: Path, tmp_path: Path) -> None:
    assert "no answers yet" in captioner("eval", "score", shop).stderr
    assert captioner("eval", "score").exit_code == 2
    assert captioner("eval", "score", shop, "--ratings", shop).exit_code == 2
    assert "is a folder: name a file" in captioner("eval", "score", shop, "--report", tmp_path).stderr
    sheets = sorted((shop.parent / "sheets").glob("*.csv"))
    result = captioner("eval", "score", shop, *sheets, "--report", tmp_path / "no" / "report.html")
    assert (result.exit_code, result.stderr) == (
        1,
        f"Error: the folder {tmp_path}/no does not exist: make it first, or write the report elsewhere\n",
    )
    with closing(sqlite3.connect(shop)) as conn:
        # else a connection that Python closes late writes what it has left into the file
        conn.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    index = tmp_path / "index.html"
    index.write_text("<!doctype html><title>My shop</title><p>captioner eval score</p>")
    for precious in (shop, sheets[0], sheets[0].with_suffix(".html"), index, tmp_path / "gold.csv"):
        # a slip of the hand is not to cost the store or a sheet
        before = precious.read_bytes()
        assert (
            "is there already and no report"
            in captioner("eval", "score", shop, *sheets, "--report", precious).stderr
        )
        assert precious.read_bytes() == before
    assert sqlite3.connect(shop).execute("SELECT count(*) FROM ratings").fetchone() == (0,)
    make_shop(tmp_path / "other.db", ["a"])
    assert (
        captioner("eval", "score", tmp_path / "other.db").stderr
        == "Error: no sample was drawn from this store: `captioner eval sample` draws one\n"
    )
    assert (
        captioner("eval", "score", shop, "--sample", "nonsense").stderr
        == "Error: the store has no sample nonsense\n"
    )


def test_what_could_not_be_judged_takes_no_stratum_its_weight(tmp_path: Path) -> None:
    """60 mugs are bad, 20 lamps good; of the mugs nearly none could be judged."""
    make_shop(
        tmp_path / "my.db",
        [f"{'lamp' if i % 4 == 3 else 'mug'} {i}" for i in range(80)],
        categories=["mugs", "mugs", "mugs", "lamps"],
    )
    assert (
        captioner(
            "eval",
            "sample",
            tmp_path / "my.db",
            tmp_path / "sheets",
            "--n",
            40,
            "--stratify",
            "category",
            "--raters",
            1,
            "--duplicates",
            0,
        ).exit_code
        == 0
    )
    rows = list(csv.DictReader((tmp_path / "sheets" / "rater-1.csv").open(encoding="utf-8-sig", newline="")))
    mugs = [row["caption"] for row in rows if row["caption"].startswith("mug")]
    answer(
        tmp_path / "sheets", {caption: ["not" if i < 2 else "cannot judge"] for i, caption in enumerate(mugs)}
    )
    found = json.loads(
        captioner("eval", "score", tmp_path / "my.db", tmp_path / "sheets" / "rater-1.csv", "--json").stdout
    )
    assert found["relevant_and_good"]["share"] == pytest.approx(20 / 80)
    assert found["irrelevant_and_poor"]["share"] == pytest.approx(60 / 80)
    answer(tmp_path / "sheets", {caption: ["cannot judge"] for caption in mugs})
    said = " ".join(
        captioner(
            "eval",
            "score",
            tmp_path / "my.db",
            tmp_path / "sheets" / "rater-1.csv",
            "--rater",
            "rater-1",  # the answers say no times: so they might be another person's
        ).stdout.split()
    )
    assert "Of 20 captions (the other 60 are in strata that nobody has judged) about 100%" in said


def test_a_comparison(tmp_path: Path) -> None:
    make_shop(
        tmp_path / "my.db", [f"caption {i}" for i in range(30)], others=[f"other {i}" for i in range(30)]
    )
    done = captioner(
        "eval",
        "compare",
        tmp_path / "my.db",
        tmp_path / "sheets",
        "--recipe",
        "recipe-a",
        "--recipe",
        "recipe-b",
        "--duplicates",
        0,
    )
    assert done.exit_code == 0, done.output
    for number, path in enumerate(sorted((tmp_path / "sheets").glob("rater-*.csv"))):
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = list(csv.DictReader(file))
        for row in rows:
            # all prefer recipe-a for 20 pins, two of three recipe-b for 4, and there is no difference for 6
            pin = int(row["first_caption"].split()[1])
            a = "first" if row["first_caption"].startswith("caption") else "second"
            b = {"first": "second", "second": "first"}[a]
            row["better"] = (
                a if pin < 20 or (pin < 24 and number == 0) else b if pin < 24 else "no difference"
            )
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    result = captioner(
        "eval",
        "score",
        tmp_path / "my.db",
        *sorted((tmp_path / "sheets").glob("*.csv")),
        "--report",
        tmp_path / "report.html",
        "--json",
    )
    found = json.loads(result.stdout)
    assert found["wins"] == {"first": 20, "no_difference": 6, "second": 4}
    assert found["recipes"]["first"] == {
        "recipe": "recipe-a",
        "model": "model of recipe-a",
        "name": "model of recipe-a",
    }
    assert found["preference"]["share"] == pytest.approx(20 / 24)
    assert found["sign_test"] == pytest.approx(0.0015439, abs=1e-6)
    assert found["shares"]["first"]["share"] == pytest.approx(20 / 30)
    assert found["sentence"] == (
        "Where raters saw a difference, the captions of model of recipe-a are preferred to those of "
        "model of recipe-b for 83.3% of the pictures (95% interval 64.1% to 93.3%;"
        " sign test on 20 to 4 items: p = 0.0015); 6 of 30 showed none. 3 people judged 30 pictures."
    )
    assert "Which captions are better?" in (tmp_path / "report.html").read_text()
    assert max(map(len, captioner("eval", "score", tmp_path / "my.db").stdout.splitlines())) <= 80


@pytest.mark.parametrize("moment", ["rater-1.html", "rater-3.html", "rater-8.csv"])
def test_killed_in_the_middle_the_same_command_goes_on(tmp_path: Path, moment: str) -> None:
    make_shop(tmp_path / "my.db", [f"caption {i}" for i in range(300)], pictures=tmp_path / "images")
    command = [
        CAPTIONER,
        "eval",
        "sample",
        tmp_path / "my.db",
        tmp_path / "sheets",
        "--n",
        "300",
        "--raters",
        "8",
        "--json",
    ]
    killed = subprocess.Popen(list(map(str, command)), stdout=subprocess.DEVNULL)
    while not (tmp_path / "sheets" / moment).exists() and killed.poll() is None:
        os.sched_yield()
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    other = captioner(
        "eval", "sample", tmp_path / "my.db", tmp_path / "others", "--n", "300", "--raters", "8"
    )
    assert other.exit_code == 0
    for name in found["files"]:
        assert (tmp_path / "sheets" / name).read_bytes() == (tmp_path / "others" / name).read_bytes()
    assert sqlite3.connect(tmp_path / "my.db").execute("SELECT count(*) FROM samples").fetchone() == (1,)
