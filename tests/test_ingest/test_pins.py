"""Pins from tables: which rows become pins, which are rejected and why, what a second ingest changes."""

import hashlib
import json
import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pincaption.images.parquet import ParquetImages
from pincaption.ingest.pins import check_sources, ingest_pins
from pincaption.sources.rows import SourceError
from pincaption.store import open_store

Ingest = Callable[..., dict[str, Any]]


@pytest.fixture
def ingest(store: sqlite3.Connection, tmp_path: Path) -> Ingest:
    """Writes rows as JSON Lines and ingests them."""

    def write(*rows: dict[str, Any], name: str = "pins.jsonl", **options: Any) -> dict[str, Any]:
        (tmp_path / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
        return ingest_pins(store, [str(tmp_path / name)], **options)

    return write


def pins(store: sqlite3.Connection, columns: str = "*") -> list[tuple]:
    return [tuple(row) for row in store.execute(f"SELECT {columns} FROM pins ORDER BY rowid")]


def rejected(store: sqlite3.Connection) -> list[tuple[int, str]]:
    return [tuple(row) for row in store.execute("SELECT line, reason FROM rejected_rows ORDER BY id")]


def test_a_table_becomes_pins_and_the_counts_say_so(store: sqlite3.Connection, ingest: Ingest) -> None:
    counts = ingest(
        {
            "pin_id": "a 1",
            "title": "Oak table",
            "description": "",
            "kind": "product",
            "category": "home",
            "locale": "de-DE",
            "created_at": "2024-05-01",
            "prompt": "a photo of",
        },
        {"pin_id": "ü'\"; DROP TABLE pins", "title": None},
        {"title": "no id"},
    )
    assert counts == {
        "rows_read": 3,
        "pins": 2,
        "new": 2,
        "updated": 0,
        "repeated": 0,
        "rejected": 1,
        "reasons": {"no pin_id": 1},
        "left_empty": {},
        "notes": {},
        "images_not_found": 0,
        "columns": counts["columns"],  # see test_cases/test_column_names.py
    }
    columns = "pin_id, kind, title, description, category, locale, created_at, prompt"
    assert pins(store, columns) == [
        ("a 1", "product", "Oak table", None, "home", "de-DE", "2024-05-01", "a photo of"),
        ("ü'\"; DROP TABLE pins", "pin", *[None] * 6),
    ]
    run = store.execute("SELECT command, counts, finished_at FROM runs").fetchone()
    assert (run["command"], json.loads(run["counts"])) == ("ingest pins", counts)
    assert run["finished_at"]


@pytest.mark.parametrize(
    ("value", "pin_id"),
    [
        ("7", "7"),
        (7, "7"),
        (7.0, "7"),
        (-1, "-1"),
        (2**63, "9223372036854775808"),
        (" 7 ", "7"),  # blanks at the ends belong to no id
        ("00012", "00012"),
        ("猫/1", "猫/1"),
        ("7.0", "7"),  # what a column of floats is in CSV
        ("x" * 4096, "x" * 4096),
    ],
)
def test_an_id_is_text_or_a_whole_number(
    store: sqlite3.Connection, ingest: Ingest, value: Any, pin_id: str
) -> None:
    ingest({"pin_id": value})
    assert pins(store, "pin_id") == [(pin_id,)]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({}, "no pin_id"),
        ({"pin_id": None}, "no pin_id"),
        ({"pin_id": " \t"}, "no pin_id"),
        ({"pin_id": float("nan")}, "no pin_id"),
        ({"pin_id": 1.5}, "pin_id is neither text nor a whole number"),
        ({"pin_id": float("inf")}, "pin_id is neither text nor a whole number"),
        ({"pin_id": 1e17}, "pin_id is a float too large to be exact: write it as text"),
        ({"pin_id": True}, "pin_id is not text"),
        ({"pin_id": ["7"]}, "pin_id is not text"),
        ({"pin_id": "x" * 4097}, "pin_id is longer than 4096 characters"),
        ({"pin_id": "\ud800"}, "pin_id is not valid UTF-8"),
    ],
)
def test_a_bad_row_is_kept_with_its_line_and_reason_and_stops_nothing(
    store: sqlite3.Connection, ingest: Ingest, row: dict, reason: str
) -> None:
    counts = ingest({"pin_id": "before"}, row, {"pin_id": "after"})
    assert pins(store, "pin_id") == [("before",), ("after",)]
    assert rejected(store) == [(2, reason)]
    assert counts["reasons"] == {reason: 1}


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"pin_id": "1", "title": {"en": "mug"}}, "title is not text"),
        ({"pin_id": "1", "description": False}, "description is not text"),
        ({"pin_id": "1", "kind": "board"}, "kind is neither pin nor product"),
        ({"pin_id": "1", "kind": ["pin"]}, "kind is neither pin nor product"),
        (
            {"pin_id": "1", "created_at": "yesterday"},
            "created_at is no date or time such as 2024-05-31T12:00:00Z",
        ),
        ({"pin_id": "1", "created_at": [2024]}, "created_at is no date or time such as 2024-05-31T12:00:00Z"),
        (
            {"pin_id": "1", "image": "data:image/png;base64,xx"},
            "image is an address that captioner does not read",
        ),
        (
            {"pin_id": "1", "image": "parquet:///etc/x?column=a&row=1"},
            "image is an address that captioner does not read",
        ),
        ({"pin_id": "1", "image": "FILE:///etc/passwd"}, "image is a file:// address: give the path alone"),
        ({"pin_id": "1", "image": {"url": "x"}}, "image is not text"),
    ],
)
def test_an_optional_cell_that_makes_no_sense_costs_that_cell_alone(
    store: sqlite3.Connection, ingest: Ingest, row: dict, reason: str
) -> None:
    counts = ingest({"pin_id": "before"}, row, {"pin_id": "after"})
    assert pins(store, "pin_id") == [("before",), ("1",), ("after",)]
    name = next(name for name in row if name != "pin_id")
    assert pins(store, name)[1] == ("pin" if name == "kind" else None,)
    assert (counts["rejected"], counts["left_empty"]) == (0, {reason: 1})
    assert rejected(store) == [(2, f"left empty: {reason}")]


@pytest.mark.parametrize(
    ("value", "stored"),
    [
        ("2024-05-01", "2024-05-01"),
        ("2024-05-01T12:00:00+02:00", "2024-05-01T10:00:00Z"),
        ("2024-05-01 12:00:00", "2024-05-01T12:00:00Z"),
        ("2024-05-01 12:00:00.25 UTC", "2024-05-01T12:00:00.250000Z"),
        (" 2024-05-01T12:00:00Z ", "2024-05-01T12:00:00Z"),
        (1714564800, "2024-05-01T12:00:00Z"),
        (1714564800000, "2024-05-01T12:00:00Z"),
        ("", None),
        (None, None),
    ],
)
def test_times_are_kept_in_utc(
    store: sqlite3.Connection, ingest: Ingest, value: Any, stored: str | None
) -> None:
    ingest({"pin_id": "1", "created_at": value})
    assert pins(store, "created_at") == [(stored,)]


def test_parquet_types_that_databases_write(store: sqlite3.Connection, tmp_path: Path) -> None:
    table = {
        "pin_id": pa.array([Decimal(10**25), Decimal(7)], pa.decimal128(38, 0)),
        "title": pa.array(["a", "b"]).dictionary_encode(),
        "description": pa.array([b"of wood", b"caf\xe9"]),
        "created_at": pa.array([datetime(2024, 5, 1, 12, tzinfo=UTC)] * 2, pa.timestamp("ns", "Asia/Tokyo")),
    }
    pq.write_table(pa.table(table), tmp_path / "a.parquet")
    ingest_pins(store, [str(tmp_path / "a.parquet")])
    assert pins(store, "pin_id, title, description, created_at") == [
        ("1" + "0" * 25, "a", "of wood", "2024-05-01T12:00:00Z"),
        ("7", "b", None, "2024-05-01T12:00:00Z"),
    ]
    assert rejected(store) == [(2, "left empty: description is not valid UTF-8")]


def test_texts_that_say_nothing_count_as_missing_and_are_kept(
    store: sqlite3.Connection, ingest: Ingest
) -> None:
    ingest(
        {"pin_id": "1", "title": "IMG_2041.JPG", "description": "No description available"},
        {"pin_id": "2", "title": "Zara", "description": "♡♡"},
        {"pin_id": "3"},
    )
    assert pins(store, "title, description") == [
        ("IMG_2041.JPG", "No description available"),
        ("Zara", "♡♡"),
        (None, None),
    ]
    shown = store.execute("SELECT title, description FROM enriched_features").fetchall()
    assert [tuple(row) for row in shown] == [(None, None), ("Zara", None), (None, None)]


def test_nul_characters_are_removed_from_texts(store: sqlite3.Connection, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(b"pin_id,title\n1,m\x00ug\n2,\x00\n")
    ingest_pins(store, [str(tmp_path / "a.csv")])
    assert pins(store, "title, has_title") == [("mug", 1), (None, 0)]


def test_personal_data_is_redacted_in_rejected_rows(
    store: sqlite3.Connection, ingest: Ingest, tmp_path: Path
) -> None:
    ingest(
        {
            "title": "write to joe.doe@example.org or +49 (170) 123 45-67",
            "description": "see https://joe.example/me?x=1 or WWW.joe.de",
        },
        {"pin_id": "1"},
    )
    (tmp_path / "a.csv").write_text("pin_id,title\n1,joe@example.org,0170 123 45 67\n2,mug\n")
    ingest_pins(store, [str(tmp_path / "a.csv")])
    contents = [row["content"] for row in store.execute("SELECT content FROM rejected_rows")]
    assert len(contents) == 2
    for content in contents:
        assert "[redacted]" in content
        assert not any(word in content.lower() for word in ("joe", "170", "67", "example"))


def test_a_huge_rejected_row_is_kept_as_its_start(store: sqlite3.Connection, ingest: Ingest) -> None:
    ingest({"title": "x" * 5_000_000}, {"pin_id": "1"})
    assert store.execute("SELECT length(content) FROM rejected_rows").fetchone()[0] == 300


def test_ingesting_a_source_again_replaces_its_rejected_rows_alone(
    store: sqlite3.Connection, ingest: Ingest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ingest({"title": "a"}, {"pin_id": "1"}, name="other.jsonl")
    ingest({"title": "a"}, {"title": "b"}, {"pin_id": "1"})
    ingest({"title": "a"}, {"pin_id": "1"})
    assert store.execute("SELECT count(*) FROM rejected_rows").fetchone()[0] == 2
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pins.jsonl").write_text('{"pin_id": "1"}\n')
    ingest_pins(store, ["pins.jsonl"])
    assert [row[0] for row in store.execute("SELECT source FROM rejected_rows")] == [
        str(tmp_path / "other.jsonl")
    ]


def test_a_pin_that_is_there_is_updated_in_the_columns_that_the_source_has(
    store: sqlite3.Connection, ingest: Ingest
) -> None:
    ingest({"pin_id": "1", "title": "mug", "description": "blue", "kind": "product", "locale": "de"})
    counts = ingest({"pin_id": "1", "title": None, "locale": "fr"}, {"pin_id": "2"})
    assert (counts["new"], counts["updated"]) == (1, 1)
    assert pins(store, "title, has_title, description, has_description, kind, locale")[0] == (
        None,
        0,
        "blue",
        1,
        "product",
        "fr",
    )


def test_if_a_source_has_a_pin_twice_the_last_row_counts(store: sqlite3.Connection, ingest: Ingest) -> None:
    ingest(
        {"pin_id": "1", "title": "a"},
        {"pin_id": "1", "title": "b", "locale": "de"},
        {"pin_id": "1", "title": "z"},
    )
    assert pins(store, "title, locale") == [("z", "de")]


def test_kind_is_for_rows_that_name_none(store: sqlite3.Connection, ingest: Ingest) -> None:
    ingest({"pin_id": "1", "kind": "pin"}, {"pin_id": "2", "kind": ""}, {"pin_id": "3"}, kind="product")
    ingest({"pin_id": "3", "kind": None})
    assert pins(store, "kind") == [("pin",), ("product",), ("product",)]


def test_evidence_and_captions_survive_a_second_ingest(store: sqlite3.Connection, ingest: Ingest) -> None:
    store.execute("""INSERT INTO board_titles VALUES ('1', '["tea"]', '[1]', '[1.0]')""")
    ingest({"pin_id": "1", "image": "https://example.org/1.jpg"})
    store.execute("UPDATE pins SET image_sha256 = 'x'")
    store.execute("INSERT INTO recipes VALUES ('r', 'm', NULL, 'w', '', '{}', '{}', 'float32')")
    store.execute(
        """INSERT INTO captions (pin_id, recipe_id, status, text, image_sha256, updated_at)
        VALUES ('1', 'r', 'ok', 'a dog', 'x', '2026')"""
    )
    ingest({"pin_id": "1", "title": "new", "image": "https://example.org/1.jpg"})
    assert tuple(store.execute("SELECT title, caption, board_titles FROM enriched_features").fetchone()) == (
        "new",
        "a dog",
        '["tea"]',
    )
    ingest({"pin_id": "1", "image": "https://example.org/2.jpg"})
    assert tuple(store.execute("SELECT caption, image_sha256 FROM enriched_features").fetchone()) == (
        None,
        None,
    )


@pytest.mark.parametrize(
    ("change", "known"),
    [
        (lambda path: None, "x"),
        (lambda path: path.write_bytes(b"other bytes"), None),
        (lambda path: os.utime(path, (1, 1)), None),
        (lambda path: path.unlink(), None),
    ],
    ids=["unchanged", "rewritten", "touched", "gone"],
)
def test_the_sha256_of_a_file_is_kept_as_long_as_size_and_time_are_the_same(
    store: sqlite3.Connection, ingest: Ingest, tmp_path: Path, change, known: str | None
) -> None:
    (tmp_path / "1.jpg").write_bytes(b"bytes")
    ingest({"pin_id": "1", "image": "1.jpg"})
    store.execute("UPDATE pins SET image_sha256 = 'x'")
    store.execute(
        """INSERT INTO captions (pin_id, recipe_id, status, reason, updated_at)
        VALUES ('1', 'r', 'failed', 'truncated', '2026')"""
    )
    change(tmp_path / "1.jpg")
    ingest({"pin_id": "1", "image": "1.jpg"})
    assert pins(store, "image_sha256") == [(known,)]
    # A failure says nothing about the file that replaces it.
    assert store.execute("SELECT count(*) FROM captions").fetchone()[0] == (1 if known else 0)


@pytest.mark.parametrize(
    ("image", "root", "stored"),
    [
        ("a/1.jpg", None, "{table}/a/1.jpg"),
        ("../1.jpg", None, "{parent}/1.jpg"),
        ("/x//y/../1.jpg", None, "/x/1.jpg"),
        (" 1.jpg ", None, "{table}/1.jpg"),
        ("a:b.jpg", None, "{table}/a:b.jpg"),
        ("ü 'x'.jpg", "images", "{table}/images/ü 'x'.jpg"),
        ("a/../1.jpg", "images", "{table}/images/1.jpg"),
        ("1.jpg", "images/../images", "{table}/images/1.jpg"),
        ("https://h/1.jpg", "images", "https://h/1.jpg"),
        ("s3://b/1.jpg", None, "s3://b/1.jpg"),
        ("", None, None),
    ],
)
def test_relative_images_start_at_the_table_or_at_the_image_root(
    store: sqlite3.Connection,
    ingest: Ingest,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    image: str,
    root: str | None,
    stored: str | None,
) -> None:
    (tmp_path / "images").mkdir()
    monkeypatch.chdir(tmp_path)
    ingest({"pin_id": "1", "image": image}, image_root=root)
    assert pins(store, "image") == [(stored and stored.format(table=tmp_path, parent=tmp_path.parent),)]


@pytest.mark.parametrize(
    "image", ["../secret.jpg", "/etc/passwd", "a/../../x.jpg", "../images-of-others/1.jpg"]
)
def test_no_image_lies_outside_the_image_root(
    store: sqlite3.Connection, ingest: Ingest, tmp_path: Path, image: str
) -> None:
    (tmp_path / "images").mkdir()
    ingest({"pin_id": "1", "image": image}, image_root=str(tmp_path / "images"))
    assert pins(store, "image") == [(None,)]
    assert rejected(store) == [(1, "left empty: image lies outside --image-root")]


def test_images_in_parquet_stay_there_and_have_their_sha256(
    store: sqlite3.Connection, tmp_path: Path
) -> None:
    kind = pa.struct({"bytes": pa.binary(), "path": pa.string()})
    table = pa.table(
        {
            "pin_id": ["1", "2", "3"],
            "image": pa.array([{"bytes": b"one", "path": "1.jpg"}, None, {"bytes": b"", "path": None}], kind),
        }
    )
    pq.write_table(table, tmp_path / "a.parquet")
    ingest_pins(store, [str(tmp_path / "a.parquet")])
    (first, digest), nothing, empty = pins(store, "image, image_sha256")
    assert ParquetImages().read(first) == b"one"
    assert digest == hashlib.sha256(b"one").hexdigest()
    assert nothing == (None, None)
    assert empty[0] is not None  # a pin with a broken image, not a pin without one


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"columns": {"titel": "title"}},
            "--map names no field of a pin: titel; the fields are pin_id, title",
        ),
        ({"columns": {"title": "name"}}, "no column 'name'"),
        ({"image_root": "nowhere"}, "--image-root nowhere is not a folder"),
    ],
)
def test_options_that_cannot_work_are_errors_before_anything_is_written(
    store: sqlite3.Connection, tmp_path: Path, options: dict, message: str
) -> None:
    (tmp_path / "good.csv").write_text("pin_id,name\n1,a\n")
    (tmp_path / "last.csv").write_text("pin_id,title\n1,a\n")
    with pytest.raises(SourceError, match=message):
        ingest_pins(store, [str(tmp_path / "good.csv"), str(tmp_path / "last.csv")], **options)
    assert [store.execute(f"SELECT count(*) FROM {table}").fetchone()[0] for table in ("pins", "runs")] == [
        0,
        0,
    ]
    with pytest.raises(SourceError, match=message):
        check_sources([str(tmp_path / "last.csv")], **options)


def test_relative_images_below_a_folder_whose_name_is_not_utf_8_are_left_out(
    store: sqlite3.Connection, tmp_path: Path
) -> None:
    folder = tmp_path / os.fsdecode(b"caf\xe9")
    folder.mkdir()
    (folder / "a.csv").write_text("pin_id,image\n1,https://h/1.jpg\n2,1.jpg\n")
    counts = ingest_pins(store, [str(folder / "a.csv")])
    assert (counts["pins"], counts["left_empty"]) == (
        2,
        {"the image's folder has a name that is not valid UTF-8": 1},
    )


@pytest.mark.slow
def test_memory_does_not_grow_with_the_number_of_rows(tmp_path: Path) -> None:
    def peak(rows: int) -> int:
        with pq.ParquetWriter(
            tmp_path / f"{rows}.parquet", pa.schema({"pin_id": pa.string(), "description": pa.string()})
        ) as writer:
            for start in range(0, rows, 10_000):
                ids = [str(start + i) for i in range(10_000)]
                writer.write_table(
                    pa.table(
                        {
                            "pin_id": ids,
                            "description": [
                                f"{i} is a lovely wooden table for the kitchen " * 8 for i in ids
                            ],
                        }
                    )
                )
        script = (
            "import re\n"
            "from pincaption.store import open_store\n"
            "from pincaption.ingest.pins import ingest_pins\n"
            f"store = open_store({str(tmp_path / f'{rows}.db')!r}, create=True)\n"
            f"ingest_pins(store, [{str(tmp_path / f'{rows}.parquet')!r}])\n"
            # not ru_maxrss, which also counts the memory of the process that forked this one
            "print(re.search(r'VmHWM:\\s+(\\d+) kB', open('/proc/self/status').read())[1])"
        )
        return int(
            subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
        )

    # 160,000 rows fill every buffer, also SQLite's of 64 MB. As many rows more have 56 MB of text, which are
    # several times that as Python objects.
    assert peak(320_000) < peak(160_000) + 40_000


def test_an_ingest_that_is_killed_leaves_what_was_committed(tmp_path: Path) -> None:
    script = (
        "import os, sys\n"
        "from pincaption.store import open_store\n"
        "from pincaption.ingest.pins import ingest_pins\n"
        f"conn = open_store({str(tmp_path / 'a.db')!r}, create=True)\n"
        "def on_step(what, done, total):\n"
        "    if done > 30_000: os.kill(os.getpid(), 9)\n"
        f"ingest_pins(conn, [{str(tmp_path / 'a.csv')!r}], on_step=on_step)\n"
    )
    (tmp_path / "a.csv").write_text("pin_id\n" + "".join(f"{i}\n" for i in range(50_000)))
    assert subprocess.run([sys.executable, "-c", script]).returncode == -9
    conn = open_store(tmp_path / "a.db")
    assert conn.execute("PRAGMA integrity_check").fetchone()[0] == "ok"
    assert conn.execute("SELECT count(*) FROM pins").fetchone()[0] == 20_000
    assert ingest_pins(conn, [str(tmp_path / "a.csv")])["new"] == 30_000


def ids(store: sqlite3.Connection) -> list[str]:
    return [row[0] for row in store.execute("SELECT pin_id FROM enriched_features ORDER BY pin_id")]


def test_sync_marks_what_is_gone_and_brings_back_what_returns(
    store: sqlite3.Connection, tmp_path: Path
) -> None:
    def write(*pins: str) -> list[str]:
        (tmp_path / "pins.csv").write_text(
            "pin_id,title,kind\n" + "".join(f"{pin},Title of {pin},pin\n" for pin in pins)
        )
        return [str(tmp_path / "pins.csv")]

    assert ingest_pins(store, write("a", "b", "c"), sync=True)["deleted"] == 0
    assert ingest_pins(store, write("b", "d"), sync=True)["deleted"] == 2
    assert ids(store) == ["b", "d"]
    assert ingest_pins(store, write("a", "e")).get("deleted") is None  # without --sync no pin is deleted
    assert ids(store) == ["a", "b", "d", "e"]
    assert ingest_pins(store, write("a", "b"), sync=True)["deleted"] == 2
    assert ids(store) == ["a", "b"]
    # marked, not lost
    assert store.execute("SELECT title FROM pins WHERE pin_id = 'd'").fetchone()[0] == "Title of d"


def test_sync_does_not_delete_a_pin_whose_row_is_rejected(store: sqlite3.Connection, ingest: Ingest) -> None:
    ingest({"pin_id": "a"}, {"pin_id": "b"})
    assert ingest({"pin_id": "a"}, {"pin_id": "b", "kind": "house"}, sync=True)["deleted"] == 0
    assert ids(store) == ["a", "b"]


@pytest.mark.parametrize(
    "text", ["", '{"pin_id": "a"}\n{"pin_id": "b", "titl', '{"pin_id": null}\n{"pin_id": "a"}\n']
)  # an empty file is no table
def test_sync_deletes_nothing_when_the_source_is_damaged(
    store: sqlite3.Connection, ingest: Ingest, tmp_path: Path, text: str
) -> None:
    ingest({"pin_id": "a"}, {"pin_id": "b"})
    (tmp_path / "2.jsonl").write_text(text)
    with pytest.raises(
        SourceError,
        match="cannot tell which pins are gone: it took the other rows in and marked no pin as deleted"
        if text
        else "2.jsonl is empty",
    ):
        ingest_pins(store, [str(tmp_path / "2.jsonl")], sync=True)
    assert ids(store) == ["a", "b"]
