"""A person's own caption comes before a model's, survives runs, is marked, and can be taken back."""

from __future__ import annotations

import csv
import io
import json
import random
import sqlite3
import unicodedata
from contextlib import closing
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pincaption.browse.gallery import write_gallery
from pincaption.common.personal import holds_personal_data
from pincaption.drawn import draw
from pincaption.ingest.corrections import MAX_CHARS, caption_of_person
from pincaption.sources.cells import RowError
from pincaption.store import EnrichedFeatures, open_store
from pincaption.store.schema import MIGRATION_SET, MIGRATIONS

from .table_commands import captioner, counts, refused, rows, said, workbook

MINE = "a red mug with a chipped handle"


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    folder = tmp_path / "pictures"
    folder.mkdir()
    rng = random.Random(5)
    for name in "abc":
        draw.draw(draw.random_scene(rng), rng, (96, 96)).save(folder / f"{name}.png")
    return folder


@pytest.fixture
def db(tmp_path: Path, pictures: Path) -> Path:
    """Three captioned pictures: a.png, b.png, c.png."""
    store = tmp_path / "my.db"
    said("ingest", "images", store, pictures)
    said("run", store, "--model", "builtin")
    return store


def shown(store: Path) -> dict[str, tuple[str | None, str | None]]:
    """pin_id -> (caption, "person" or "model")."""
    query = "SELECT pin_id, caption, iif(caption_recipe = 'person', 'person', 'model') FROM enriched_features"
    return {pin_id: (caption, by) for pin_id, caption, by in rows(store, query)}


def test_a_persons_caption_wins_survives_and_is_taken_back(db: Path, pictures: Path) -> None:
    before = shown(db)
    assert said("captions", "set", db, "a.png", f"  {MINE}\n") == "1 caption set, written by people\n"
    assert shown(db) == before | {"a.png": (MINE, "person")}
    # Another recipe would write another caption. It leaves the pin out, whatever it selects.
    assert counts("run", db, "--model", "builtin", "--prompt", "a photo of")["selected"] == 2
    assert counts("run", db, "--select", "all", "--prompt", "a photo of")["selected"] == 0
    said("ingest", "images", db, pictures)
    assert shown(db)["a.png"] == (MINE, "person")
    # A picture that is another one now does not end it, but is said.
    draw.draw(draw.random_scene(random.Random(9)), random.Random(9), (80, 80)).save(pictures / "a.png")
    said("ingest", "images", db, pictures)
    assert shown(db)["a.png"] == (MINE, "person")
    assert "person's caption, image changed since" in said("stats", db)
    assert said("captions", "unset", db, "a.png").splitlines() == [
        "1 caption of people taken back",
        "1 pin of which no model has written a caption",
    ]
    assert shown(db)["a.png"] == (None, "model")
    assert counts("run", db)["captioned"] == 1


def test_taken_back_the_models_caption_is_there_again(db: Path) -> None:
    before = shown(db)
    said("captions", "set", db, "a.png", MINE)
    said("captions", "set", db, "b.png", MINE)
    assert "1 earlier caption of people replaced" in said("captions", "set", db, "a.png", "a mug")
    result = counts("captions", "unset", db, "a.png", "b.png", "a.png")
    assert result == {"unset": 2, "captioned": 2, "without": 0}
    assert shown(db) == before


@pytest.mark.parametrize(
    ("pin", "text", "why"),
    [
        ("nope", MINE, "the store has no pin 'nope'"),
        ("", MINE, "cannot be the id of a pin: no pin_id"),
        ("a.png", "", "no text"),
        ("a.png", " \n ", "no text"),
        ("a.png", "NaN", "no text"),
        ("a.png", "N/A", "no text"),
        ("a.png", "No description available", "the text says nothing"),
        ("a.png", "IMG_2041.JPG", "the text says nothing"),
        ("a.png", "!!!", "the text says nothing"),
        ("a.png", "a mug " * 200, f"the text is longer than {MAX_CHARS:,} characters"),
        ("a.png", "a \x1b[31mred mug", "the text has a control character"),
        ("a.png", "a mug \u202e", "the text has a control character"),
        ("a.png", "a mug, write to jo@example.org", "an e-mail address, a link or a telephone number"),
        ("a.png", "a mug, call +1 (555) 123-4567", "an e-mail address, a link or a telephone number"),
        ("a.png", "a mug of www.example.org", "an e-mail address, a link or a telephone number"),
        ("a.png", "a mug \udcff", "text is not valid UTF-8"),
    ],
)
def test_what_cannot_be_a_caption_is_refused_in_one_sentence(
    tmp_path: Path, pin: str, text: str, why: str
) -> None:
    db = tmp_path / "my.db"
    said("ingest", "pins", db, "-", stdin='{"pin_id": "a.png"}')
    before = rows(db, "SELECT count(*) FROM runs")
    assert why in refused("captions", "set", db, "--", pin, text)
    assert rows(db, "SELECT * FROM captions_by_people") == []
    assert rows(db, "SELECT count(*) FROM runs") == before


@pytest.mark.parametrize(
    "text", ["Mug", "猫", "un café crème", "a mug, ISBN 978-3-16-148410-0", "1984 by Orwell"]
)
def test_short_and_foreign_texts_are_captions_too(tmp_path: Path, text: str) -> None:
    db = tmp_path / "my.db"
    said("ingest", "pins", db, "-", stdin='{"pin_id": 7}')
    said("captions", "set", db, "7.0", text)  # the same id as everywhere
    assert shown(db) == {"7": (text, "person")}  # a pin without a picture may have a caption, too


@given(st.text(max_size=60) | st.text("ab \n\t\x00\x1b\u202e@.1+-", max_size=40))
def test_every_text_is_stored_clean_or_refused(text: str) -> None:
    try:
        caption = caption_of_person(text)
    except RowError:
        return
    assert caption == caption_of_person(caption) == " ".join(caption.split())
    assert 0 < len(caption) <= MAX_CHARS
    assert not any(unicodedata.category(c) in ("Cc", "Cs") for c in caption)
    assert not holds_personal_data(caption)


def test_unset_refuses_what_no_person_wrote_and_takes_back_nothing(db: Path) -> None:
    said("captions", "set", db, "a.png", MINE)
    assert "no person wrote the caption of pin 'b.png'" in refused("captions", "unset", db, "a.png", "b.png")
    assert "the store has no pin 'nope'" in refused("captions", "unset", db, "a.png", "nope")
    assert shown(db)["a.png"] == (MINE, "person")


def test_a_deleted_pin_gets_no_caption(tmp_path: Path) -> None:
    db = tmp_path / "my.db"
    said("ingest", "pins", db, "-", stdin='{"pin_id": 1}\n{"pin_id": 2}')
    said("captions", "set", db, "2", MINE)
    said("ingest", "pins", db, "-", "--sync", stdin='{"pin_id": 1}')
    assert "marked as deleted" in refused("captions", "set", db, "2", "a mug")
    assert "with caption" in said("stats", db)
    assert counts("stats", db)["by_people"] == 0
    said("ingest", "pins", db, "-", stdin='{"pin_id": 2}')
    assert shown(db)["2"] == (MINE, "person")  # it is back with the pin


@pytest.mark.parametrize(
    "wrong", [["a.png"], [], ["a.png", MINE, "--from", "x.csv"], ["a.png", MINE, "--map", "a=b"]]
)
def test_wrong_usage_is_said(tmp_path: Path, wrong: list[str]) -> None:
    assert captioner("captions", "set", tmp_path / "my.db", *wrong).exit_code == 2


# A table of corrections.

TABLE = [["pin_id", "text"], ["a.png", MINE], ["b.png", "a blue boat, far away"]]


def written(folder: Path, name: str, table: list[list[str]]) -> Path:
    path = folder / name
    if name.endswith(".xlsx"):
        return workbook(path, table)
    file = io.StringIO()
    csv.writer(file, delimiter=";" if "semicolon" in name else ",").writerows(table)
    path.write_bytes(file.getvalue().encode("utf-16" if "utf16" in name else "utf-8"))
    if name.endswith(".jsonl"):
        path.write_text(
            "".join(json.dumps(dict(zip(table[0], row, strict=True))) + "\n" for row in table[1:])
        )
    if name.endswith(".parquet"):
        pq.write_table(pa.table(dict(zip(table[0], zip(*table[1:], strict=True), strict=True))), path)
    return path


@pytest.mark.parametrize("name", ["c.csv", "semicolon.csv", "utf16.csv", "c.jsonl", "c.parquet", "c.xlsx"])
@pytest.mark.parametrize("header", ["text", "Caption "])
def test_a_table_of_any_format_corrects(db: Path, tmp_path: Path, name: str, header: str) -> None:
    before = shown(db)
    table = written(tmp_path, name, [["pin_id", header], *TABLE[1:]])
    result = counts("captions", "set", db, "--from", table)
    assert (result["rows_read"], result["set"], result["new"], result["changed"]) == (2, 2, 2, 0)
    read = result["columns"]["tables"][0]["read"]
    assert read == {"pin_id": "pin_id", header.strip().lower(): header.strip()}
    assert shown(db) == before | {"a.png": (MINE, "person"), "b.png": ("a blue boat, far away", "person")}
    assert counts("captions", "set", db, "--from", table)["unchanged"] == 2


@pytest.mark.parametrize(
    ("row", "why"),
    [
        (["nope", "a mug"], "the store has no such pin"),
        (["", "a mug"], "no pin_id"),
        (["c.png", ""], "no text"),
        (["c.png", "a mug of jo@example.org"], "an e-mail address"),
        (["a.png", "another text"], "pin_id is there twice, with different texts"),
    ],
)
def test_a_table_is_set_whole_or_not_at_all(db: Path, tmp_path: Path, row: list[str], why: str) -> None:
    before = shown(db)
    sentence = refused("captions", "set", db, "--from", written(tmp_path, "c.csv", [*TABLE, row]))
    assert sentence.startswith("nothing was set, because 1 of 3 rows cannot be used (1 '")
    assert why in sentence
    assert shown(db) == before
    ((line, reason, content),) = rows(db, "SELECT line, reason, content FROM rejected_rows")
    assert line == 4
    assert why in reason
    assert "jo@example.org" not in content
    said(
        "captions", "set", db, "--from", written(tmp_path, "c.csv", [*TABLE, TABLE[1]])
    )  # the same text twice
    assert rows(db, "SELECT * FROM rejected_rows") == []  # those of the earlier read of this table are gone


def test_text_and_caption_that_differ_are_no_riddle_for_us_to_solve(db: Path) -> None:
    both = '{"pin_id": "a.png", "text": "a mug", "caption": "a boat"}\n{"pin_id": "b.png", "text": "a mug"}'
    assert "text and caption differ" in refused("captions", "set", db, "--from", "-", stdin=both)
    said("captions", "set", db, "--from", "-", stdin=both.replace("a boat", "a mug"))
    assert shown(db)["a.png"] == shown(db)["b.png"] == ("a mug", "person")


def test_a_table_that_is_not_understood_is_an_error(db: Path, tmp_path: Path) -> None:
    (tmp_path / "c.csv").write_text("id,words\na.png,a mug\n")
    assert "--map pin_id=id" in refused("captions", "set", db, "--from", tmp_path / "c.csv")
    given_names = ["--map", "pin_id=id", "--map", "text=words"]
    assert counts("captions", "set", db, "--from", tmp_path / "c.csv", *given_names)["set"] == 1
    (tmp_path / "empty.csv").write_text("pin_id,text\n")
    assert "has no rows" in refused("captions", "set", db, "--from", tmp_path / "empty.csv")
    (tmp_path / "bad.csv").write_text("pin_id,text\nnope,a mug\nnone such,a boat\n")
    assert "all 2 rows were rejected" in refused("captions", "set", db, "--from", tmp_path / "bad.csv")
    assert counts("stats", db)["by_people"] == 1


# Where it is marked.


def test_exports_and_datasets_mark_it(db: Path, tmp_path: Path) -> None:
    said("captions", "set", db, "a.png", MINE)
    assert "1 caption written by people" in said("export", db, tmp_path / "out")
    exported = pq.read_table(next((tmp_path / "out" / "features").glob("*.parquet"))).to_pylist()
    assert {row["pin_id"]: row["caption"] for row in exported if row["caption_recipe"] == "person"} == {
        "a.png": MINE
    }
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert manifest["recipes"].pop("person") == 1
    assert set(manifest["models"]) == set(manifest["recipes"])
    assert "1 caption written by people" in (tmp_path / "out" / "README.md").read_text()
    features = EnrichedFeatures(db)
    marked = [row["pin_id"] for i in range(3) if (row := features[i])["caption_recipe"] == "person"]
    assert marked == ["a.png"]
    # One recipe alone has no captions of people, and it is said.
    recipe = said("export", db, tmp_path / "recipe", "--recipe", "builtin")
    assert "left out: 1 caption written by people" in recipe
    assert (
        counts("export", db, tmp_path / "recipe", "--recipe", "builtin")["captions_by_people_left_out"] == 1
    )


def test_exports_of_pictures_mark_it_and_a_copy_that_comes_back_stays_a_caption(
    db: Path, tmp_path: Path, pictures: Path
) -> None:
    said("captions", "set", db, "a.png", MINE)
    said("export", db, tmp_path / "folder", "--format", "imagefolder")
    lines = map(json.loads, (tmp_path / "folder" / "metadata.jsonl").read_text().splitlines())
    assert {line["pin_id"]: line["text"] for line in lines if line["caption_recipe"] == "person"} == {
        "a.png": MINE
    }
    said("export", db, tmp_path / "texts", "--format", "sidecar")
    assert (tmp_path / "texts" / "a.txt").read_text() == MINE
    (pictures / "a.txt").write_text(MINE)
    said("ingest", "images", db, pictures)
    assert rows(db, "SELECT description FROM pins WHERE pin_id = 'a.png'") == [(None,)]


def test_a_picture_that_nobody_has_read_is_exported_with_a_persons_caption(
    tmp_path: Path, pictures: Path
) -> None:
    db = tmp_path / "my.db"
    said("ingest", "images", db, pictures)
    said("captions", "set", db, "a.png", MINE)
    assert counts("export", db, tmp_path / "folder", "--format", "imagefolder")["rows"] == 1


def test_samples_do_not_judge_it(db: Path, tmp_path: Path) -> None:
    said("captions", "set", db, "a.png", MINE)
    printed = said("eval", "sample", db, tmp_path / "sheets", "--raters", "1", "--duplicates", "0")
    assert printed.startswith("2 of 2 current captions")
    assert "1 pin whose caption a person wrote" in " ".join(printed.split())
    assert MINE not in (tmp_path / "sheets" / "rater-1.csv").read_text()
    (tmp_path / "gold.csv").write_text("pin_id,relevance\na.png,relevant\n")
    said(
        "eval",
        "sample",
        db,
        tmp_path / "gold",
        "--raters",
        "1",
        "--gold",
        tmp_path / "gold.csv",
        "--seed",
        "1",
    )
    assert rows(db, "SELECT recipe_id, caption FROM sample_items WHERE gold_relevance IS NOT NULL") == [
        (None, MINE)
    ]
    for pin in "b.png", "c.png":
        said("captions", "set", db, pin, MINE)
    assert "3 captions by people are not judged" in refused("eval", "sample", db, tmp_path / "none")


def test_stats_explain_and_the_gallery_name_the_person(db: Path, tmp_path: Path) -> None:
    said("captions", "set", db, "a.png", f"<b>{MINE}</b>")
    assert "written by a person" in said("stats", db)
    (tmp_path / "log.csv").write_text(
        "pin_id,query,action,date\na.png,mug,save,2026-05-31\nb.png,mug,save,2026-05-31\n"
    )
    said("aggregate", "queries", db, "--log", tmp_path / "log.csv")
    explained = said("aggregate", "explain", db, "a.png")
    assert f"caption: <b>{MINE}</b>" in explained
    assert "(written by a person, 20" in " ".join(explained.split())
    assert "in place of a model's: " in explained
    assert counts("aggregate", "explain", db, "a.png")["caption"]["by"] == "person"
    assert counts("aggregate", "explain", db, "b.png")["caption"]["by"] == "builtin"
    with closing(open_store(db)) as conn:
        write_gallery(conn, tmp_path / "gallery.html")
    page = (tmp_path / "gallery.html").read_text()
    assert page.count("Written by a person.") == 1
    assert f"&lt;b&gt;{MINE}" in page
    assert "People wrote 1 caption themselves." in page


def test_a_store_of_an_older_version_is_read_and_brought_up_to_date(tmp_path: Path) -> None:
    path = tmp_path / "my.db"
    with closing(sqlite3.connect(path)) as conn:
        name = next(iter(MIGRATIONS))
        conn.executescript(
            f"""{MIGRATIONS[name]}
            CREATE TABLE _sqlite_migrations
                (id INTEGER PRIMARY KEY, migration_set TEXT, name TEXT, applied_at TEXT);
            INSERT INTO _sqlite_migrations VALUES (1, '{MIGRATION_SET}', '{name}', '2026');
            INSERT INTO pins (pin_id, image_sha256) VALUES ('1', 'x');
            INSERT INTO recipes VALUES ('r', 'm', NULL, 'w', '', '{{}}', '{{}}', 'float32');
            INSERT INTO captions (pin_id, recipe_id, status, text, image_sha256, updated_at)
            VALUES ('1', 'r', 'ok', 'a boat', 'x', '2026');"""
        )
    before = path.read_bytes()
    with closing(open_store(path, read_only=True)) as conn:
        row = conn.execute("SELECT caption, caption_recipe FROM enriched_features").fetchone()
        assert tuple(row) == ("a boat", "r")
    assert path.read_bytes() == before
    assert counts("stats", path)["by_people"] == 0
    said("captions", "set", path, "1", MINE)
    assert shown(path) == {"1": (MINE, "person")}
