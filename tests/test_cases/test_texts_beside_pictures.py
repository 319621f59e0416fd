"""Texts that stand beside pictures: .txt, .caption, .json, and tables of metadata of an imagefolder."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from pincaption.cli import cli
from pincaption.ingest.images import ingest_images
from pincaption.ingest.texts_beside import MAX_TEXT_BYTES, NAMES, TextsRead, fields_of, unread_keys
from pincaption.store import Connection

from .table_commands import unwrapped


def put(folder: Path, **files: str | bytes) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())


def texts(store: Connection, columns: str = "pin_id, title, description") -> list[tuple]:
    return [tuple(row) for row in store.execute(f"SELECT {columns} FROM pins ORDER BY pin_id")]


@pytest.mark.parametrize(
    ("name", "content", "description"),
    [
        ("a.txt", "a red mug\n", "a red mug"),
        ("a.caption", "a red mug", "a red mug"),
        ("a.jpg.txt", "a red mug", "a red mug"),
        ("a.TXT", "a red mug", "a red mug"),
        ("a.txt", "\ufeffa mug\r\n", "a mug"),
        ("a.txt", "ein Krug".encode("utf-16"), "ein Krug"),
        ("a.txt", "two\nlines\n", "two\nlines"),
        ("a.txt", "", None),
        ("a.json", '{"caption": "a red mug", "width": 3}', "a red mug"),
        ("a.json", '{"Text ": "a red mug"}', "a red mug"),
        ("a.json", '{"description": "", "text": "a red mug"}', "a red mug"),
        ("a.json", '{"captions": ["", "a red mug", "a cup"]}', "a red mug"),
        ("metadata.csv", "File_Name , TEXT\na.jpg,a red mug\n", "a red mug"),
        ("a.jpg.json", '{"description": "a red mug"}', "a red mug"),
        ("b.txt", "of another", None),
    ],
)
def test_a_text_beside_a_picture_is_its_description(
    store: Connection, tmp_path: Path, name: str, content: str | bytes, description: str | None
) -> None:
    put(tmp_path / "ph", **{"a.jpg": "", name: content})
    ingest_images(store, tmp_path / "ph")
    assert texts(store, "description") == [(description,)]


def test_fields_of_a_json(store: Connection, tmp_path: Path) -> None:
    fields = {
        "title": "IMG_1.JPG",
        "description": "A mug",
        "category": "kitchen",
        "kind": "Product",
        "locale": "en",
        "created_at": "2026-05-31",
        "prompt": "masterpiece",
        "url": "https://a.example",
    }
    put(tmp_path / "ph", **{"a.jpg": "", "a.json": json.dumps(fields)})
    counts = ingest_images(store, tmp_path / "ph")
    columns = "title, has_title, description, has_description, category, kind, locale, created_at, prompt"
    assert texts(store, columns) == [
        ("IMG_1.JPG", 0, "A mug", 1, "kitchen", "product", "en", "2026-05-31", None)
    ]
    assert counts["texts"] == {f"{name} from .json": 1 for name in NAMES}
    assert counts["ignored"] == {"prompt": 1, "url": 1}


def test_the_text_wins_over_the_json_over_the_table_and_it_is_said(store: Connection, tmp_path: Path) -> None:
    put(
        tmp_path / "ph",
        **{
            "a.jpg": "",
            "a.txt": "from txt",
            "a.json": '{"text": "from json", "title": "Mug"}',
            "metadata.csv": "file_name,text,title,category\na.jpg,from table,T,kitchen\n",
        },
    )
    counts = ingest_images(store, tmp_path / "ph")
    assert texts(store, "title, description, category") == [("Mug", "from txt", "kitchen")]
    assert set(counts["ignored"]) == {
        "description from metadata.csv (text), as .json (text) has another",
        "description from .json (text), as .txt has another",
        "title from metadata.csv, as .json has another",
    }


def test_without_texts_an_ingest_leaves_the_texts_of_the_store_alone(
    store: Connection, tmp_path: Path
) -> None:
    put(tmp_path / "ph", **{"a.jpg": "", "a.txt": "a mug", "b.jpg": ""})
    ingest_images(store, tmp_path / "ph")
    store.execute("UPDATE pins SET title = 'kept'")
    (tmp_path / "ph/a.txt").unlink()
    ingest_images(store, tmp_path / "ph")
    assert texts(store) == [("a.jpg", "kept", "a mug"), ("b.jpg", "kept", None)]


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("a.txt", b"caf\xe9", "not valid UTF-8"),
        ("a.txt", b"x" * (MAX_TEXT_BYTES + 1), "a text of more than 1,000,000 bytes beside a picture"),
        ("a.json", b"{", "not valid JSON"),
        ("a.json", b"[" * 100_000, "not valid JSON"),
        ("a.json", b"9" * 100_000, "not valid JSON"),
        ("a.json", b"[1]", "not a JSON object"),
        ("a.json", b'{"kind": "offer", "title": "Mug"}', "kind is neither pin nor product"),
        ("a.json", b'{"description": {"en": "Mug"}, "title": "Mug"}', "description is not text"),
    ],
)
def test_a_broken_text_costs_only_itself(
    store: Connection, tmp_path: Path, name: str, content: bytes, reason: str
) -> None:
    put(tmp_path / "ph", **{"a.jpg": "", name: content, "b.jpg": "", "b.txt": "fine"})
    for _ in range(2):  # the second ingest replaces what the first kept
        counts = ingest_images(store, tmp_path / "ph")
    assert (counts["pins"], counts["reasons"]) == (2, {reason: 1})
    title = "Mug" if b"Mug" in content else None
    assert texts(store) == [("a.jpg", title, None), ("b.jpg", None, "fine")]
    rejected = store.execute("SELECT reason, content FROM rejected_rows").fetchall()
    assert [row[0] for row in rejected] == [reason]
    assert name in rejected[0][1]


def test_a_pipe_beside_a_picture_does_not_stop_anything(store: Connection, tmp_path: Path) -> None:
    put(tmp_path / "ph", **{"a.jpg": ""})
    os.mkfifo(tmp_path / "ph/a.txt")
    os.mkfifo(tmp_path / "ph/metadata.csv")
    os.mkfifo(tmp_path / "ph/b.tar")
    counts = ingest_images(store, tmp_path / "ph")
    assert counts["reasons"] == {
        "a text beside a picture cannot be read": 1,
        "a table of metadata cannot be read": 1,
        "the archive cannot be read": 1,
    }


@pytest.mark.parametrize("ending", ["csv", "jsonl", "parquet"])
def test_a_table_of_an_imagefolder(store: Connection, tmp_path: Path, ending: str) -> None:
    rows = [
        {"file_name": "a.jpg", "title": "Mug", "text": "a red mug", "width": "3"},
        {"file_name": "sub/b.jpg", "title": None, "text": "a lamp", "width": "3"},
        {"file_name": "../../etc/passwd", "title": "no", "text": "no", "width": "3"},
        {"file_name": "gone.jpg", "title": "no", "text": "no", "width": "3"},
        {"file_name": None, "title": "no", "text": "no", "width": "3"},
    ]
    put(tmp_path / "ph", **{"a.jpg": "", "c.jpg": ""})
    put(tmp_path / "ph/sub", **{"b.jpg": ""})
    table = tmp_path / f"ph/metadata.{ending}"
    if ending == "parquet":
        pq.write_table(pa.Table.from_pylist(rows), table)
    elif ending == "csv":
        lines = [",".join(value or "" for value in row.values()) for row in rows]
        table.write_text("\n".join([",".join(rows[0]), *lines]) + "\n")
    else:
        table.write_text("".join(json.dumps(row) + "\n" for row in rows))
    counts = ingest_images(store, tmp_path / "ph")
    assert texts(store) == [
        ("a.jpg", "Mug", "a red mug"),
        ("c.jpg", None, None),
        ("sub/b.jpg", None, "a lamp"),
    ]
    assert counts["reasons"] == {"file_name names no picture of the folder": 2, "no file_name": 1}
    assert counts["texts"][f"description from metadata.{ending} (text)"] == 2
    assert counts["ignored"] == {"width": 1}
    lines_kept = [row[0] for row in store.execute("SELECT line FROM rejected_rows ORDER BY 1")]
    assert lines_kept == ([4, 5, 6] if ending == "csv" else [3, 4, 5])


def test_a_table_that_is_no_table_of_metadata_costs_only_itself(store: Connection, tmp_path: Path) -> None:
    put(tmp_path / "ph", **{"a.jpg": "", "metadata.csv": "id,text\n1,mug\n"})
    counts = ingest_images(store, tmp_path / "ph")
    assert (counts["pins"], counts["reasons"]) == (1, {"a table of metadata cannot be read": 1})


@pytest.mark.parametrize("ending", ["csv", "jsonl"])
def test_names_of_columns_of_metadata_match_as_those_of_tables(
    store: Connection, tmp_path: Path, ending: str
) -> None:
    """In any case; two that are alike are said. Folders such as category=mugs/ are no columns."""
    cells = {"File_Name": "a.jpg", " TEXT ": "a red mug"}
    twice = {"file_name": "b.jpg", "TEXT": "a lamp", "Text": "a cup"}
    for folder, row in (("category=mugs", cells), ("twice", twice)):
        table = f"{','.join(row)}\n{','.join(row.values())}\n" if ending == "csv" else json.dumps(row) + "\n"
        put(tmp_path / "ph" / folder, **{row.get("File_Name", "b.jpg"): "", f"metadata.{ending}": table})
    counts = ingest_images(store, tmp_path / "ph")
    assert texts(store, "description, category") == [("a red mug", None), (None, None)]
    why = "several keys are text: they differ only by case or blanks"
    assert counts["reasons"] == {"a table of metadata cannot be read" if ending == "csv" else why: 1}


def test_a_caption_that_captioner_wrote_does_not_become_a_persons_text(
    store: Connection, tmp_path: Path
) -> None:
    """Captions exported as .txt and copied beside the pictures come back with the next ingest."""
    put(tmp_path / "ph", **{"a.jpg": "", "b.jpg": ""})
    ingest_images(store, tmp_path / "ph")
    store.execute("INSERT INTO recipes VALUES ('r', 'm', NULL, 'w', '', '{}', '{}', 'float32')")
    store.execute(
        "INSERT INTO captions (pin_id, recipe_id, status, text, image_sha256, updated_at)"
        " VALUES ('a.jpg', 'r', 'ok', 'a red mug', 'x', '2026')"
    )
    put(tmp_path / "ph", **{"a.txt": "a red mug\n", "b.txt": "a red mug\n"})
    counts = ingest_images(store, tmp_path / "ph")
    assert texts(store, "pin_id, description") == [("a.jpg", None), ("b.jpg", "a red mug")]
    assert counts["ignored"] == {".txt with a caption of this store": 1}


@settings(max_examples=50)
@given(
    st.dictionaries(
        st.sampled_from(["title", "Text", " caption", "kind", "created_at", "x"]) | st.text(),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
            lambda values: st.lists(values, max_size=2),
            max_leaves=3,
        ),
        max_size=4,
    )
)
def test_any_json_gives_fields_that_the_store_takes(values: dict) -> None:
    fields, reasons = fields_of(values, ".json")
    assert set(fields) <= set(NAMES)
    assert all(value is None or (value and "\0" not in value) for value, _ in fields.values())
    assert all(reasons)
    read = TextsRead()
    read.ignore(unread_keys(values))
    assert len(read.ignored) <= len(values)


@pytest.mark.parametrize(
    "names", [("metadata.jsonl", "metadata.jsonl"), ("metadata.csv", "metadata.jsonl")], ids=["one", "two"]
)
def test_of_two_rows_for_one_picture_the_last_counts_and_it_is_said(
    store: Connection, tmp_path: Path, names: tuple[str, str]
) -> None:
    put(tmp_path / "ph", **{"a.jpg": ""})
    rows = ['{"file_name": "a.jpg", "text": "first"}\n', '{"file_name": "./a.jpg", "text": "second"}\n']
    if names[0] == "metadata.csv":
        rows[0] = "file_name,text\na.jpg,first\n"
    for name, row in zip(names, rows, strict=True):
        with (tmp_path / "ph" / name).open("a") as file:
            file.write(row)
    counts = ingest_images(store, tmp_path / "ph")
    assert counts["reasons"] == {"file_name is there twice: the last row counts": 1}
    assert texts(store, "description") == [("second",)]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("metadata.csv", "file_name,text,caption\na.jpg,one,two\n"),
        ("metadata.jsonl", '{"file_name": "a.jpg", "text": "one", "caption": "two"}'),
        ("a.json", '{"text": "one", "caption": "two"}'),
    ],
)
def test_of_a_text_and_a_caption_it_is_said_which_was_taken(
    store: Connection, tmp_path: Path, name: str, content: str
) -> None:
    put(tmp_path / "ph", **{"a.jpg": "", name: content})
    counts = ingest_images(store, tmp_path / "ph")
    origin = ".json" if name == "a.json" else name
    assert counts["texts"] == {f"description from {origin} (caption)": 1}
    assert counts["ignored"] == {"text, as caption is there too": 1}
    assert texts(store, "description") == [("two",)]


@pytest.mark.parametrize("name", ["a.txt", "metadata.csv"])
def test_a_text_of_another_encoding_gets_an_advice_that_can_be_followed(tmp_path: Path, name: str) -> None:
    content = "file_name,text\na.jpg,Caf\xe9\n" if name == "metadata.csv" else "Caf\xe9"
    put(tmp_path / "ph", **{"a.jpg": "", name: content.encode("latin-1")})
    said = CliRunner().invoke(cli, ["ingest", "images", str(tmp_path / "s.db"), str(tmp_path / "ph")])
    assert "not valid UTF-8 (is it another encoding? save it as UTF-8)" in unwrapped(said.stdout)


def test_a_table_may_name_pictures_as_windows_writes_paths(store: Connection, tmp_path: Path) -> None:
    put(
        tmp_path / "ph",
        **{"metadata.csv": "file_name,text\ntrain\\3.jpg,a mug\nd\\4.jpg,a cup\n", "d\\4.jpg": ""},
    )
    put(tmp_path / "ph/train", **{"3.jpg": ""})
    counts = ingest_images(store, tmp_path / "ph")
    assert counts["rejected"] == 0
    assert texts(store, "pin_id, description") == [("d\\4.jpg", "a cup"), ("train/3.jpg", "a mug")]
