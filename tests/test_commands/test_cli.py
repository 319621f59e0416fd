"""The command line as people and scripts meet it: what is printed where, exit codes, errors."""

import json
import re
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner, Result

from pincaption.cli import cli
from pincaption.commands.verbs import sentence_of
from pincaption.store import open_store

CAPTIONER = Path(sys.executable).with_name("captioner")


def captioner(*arguments: str | Path, stdin: str | bytes | None = None) -> Result:
    return CliRunner().invoke(cli, [str(a) for a in arguments], input=stdin)


def process(*arguments: str | Path, stdin: bytes | None = None) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run([CAPTIONER, *arguments], input=stdin, capture_output=True)


@pytest.fixture
def table(tmp_path: Path) -> Path:
    path = tmp_path / "pins.csv"
    path.write_text(
        "pin_id,title,description,kind\n1,Oak table,,product\n2,IMG_1.JPG,N/A,pin\n3,Mug,A blue mug,pin\n"
        ",no id,,pin\n4,too,many,pin,cells\n"
    )
    return path


def test_ingest_says_what_came_in_and_what_was_rejected(tmp_path: Path, table: Path) -> None:
    result = captioner("ingest", "pins", tmp_path / "my.db", table)
    assert (result.exit_code, result.stderr) == (0, "")
    path = str(table) if len(str(table)) <= 60 else f"…{str(table)[-59:]}"
    assert re.sub(r"\n {2}(?=\S)", " ", result.stdout).splitlines() == [
        f"3 pins into {tmp_path}/my.db: 3 new, 0 updated",
        f"columns of {path}: pin_id, title, description, kind",
        "2 rows rejected (see the table rejected_rows):",
        "         1  more cells than the header has columns",
        "         1  no pin_id",
    ]
    rows = (
        sqlite3.connect(tmp_path / "my.db")
        .execute("SELECT source, line, reason FROM rejected_rows ORDER BY line")
        .fetchall()
    )
    assert rows == [(str(table), 5, "no pin_id"), (str(table), 6, "more cells than the header has columns")]


def test_json_is_exactly_one_object_on_standard_output(tmp_path: Path, table: Path) -> None:
    done = process("ingest", "pins", tmp_path / "my.db", table, "--json")
    counts = json.loads(done.stdout)
    assert (done.returncode, done.stdout.count(b"\n")) == (0, 1)
    assert counts == {
        "rows_read": 5,
        "pins": 3,
        "new": 3,
        "updated": 0,
        "repeated": 0,
        "rejected": 2,
        "reasons": {"more cells than the header has columns": 1, "no pin_id": 1},
        "left_empty": {},
        "notes": {},
        "images_not_found": 0,
        "columns": {
            "tables": [
                {
                    "files": 1,
                    "source": str(table),
                    "read": {name: name for name in ("pin_id", "title", "description", "kind")},
                    "ignored": [],
                }
            ],
            "remarks": [],
        },
    }
    assert json.loads(process("stats", tmp_path / "my.db", "--json").stdout)["pins"] == 3


def test_options_of_ingest_pins_arrive(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "items.jsonl").write_text('{"sku": 7, "photo": "a.jpg", "name": "Mug"}\n')
    options = [
        "--map",
        "pin_id=sku",
        "--map",
        "image=photo",
        "--map",
        "title=name",
        "--kind",
        "product",
        "--image-root",
        tmp_path / "images",
    ]
    assert captioner("ingest", "pins", tmp_path / "my.db", tmp_path / "items.jsonl", *options).exit_code == 0
    rows = open_store(tmp_path / "my.db").execute("SELECT pin_id, kind, title, image FROM pins")
    assert [tuple(row) for row in rows] == [("7", "product", "Mug", f"{tmp_path}/images/a.jpg")]


def test_ingest_reads_standard_input(tmp_path: Path) -> None:
    done = process(
        "ingest", "pins", tmp_path / "my.db", "-", "--json", stdin=b'{"pin_id": "1"}\n{"pin_id": "2"}'
    )
    assert json.loads(done.stdout)["pins"] == 2


def test_ingest_images_makes_a_pin_of_every_image(tmp_path: Path) -> None:
    for name in ("photos/a.jpg", "photos/b/c.PNG", "photos/notes.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    result = captioner("ingest", "images", tmp_path / "my.db", tmp_path / "photos")
    assert result.stdout.splitlines() == [
        f"2 pins into {tmp_path}/my.db: 2 new, 0 updated",
        "1 file skipped, with no image's extension (1 .txt)",
    ]
    assert (
        json.loads(captioner("ingest", "images", tmp_path / "my.db", tmp_path / "photos", "--json").stdout)[
            "skipped"
        ]
        == 1
    )


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["ingest", "pins", "{store}", "none.csv"], 1, "no such file: none.csv"),
        (
            ["ingest", "pins", "{store}", "{table}", "--map", "pin_id=sku"],
            1,
            "has no column 'sku' (--map pin_id=sku); its columns: pin_id, title",
        ),
        (
            ["ingest", "pins", "{store}", "{table}", "--map", "name=title"],
            1,
            "--map names no field of a pin: name; the fields are pin_id, title",
        ),
        (
            ["ingest", "pins", "{store}", "{table}", "--map", "title"],
            2,
            "--map takes FIELD=COLUMN, for instance --map title=name",
        ),
        (
            ["ingest", "pins", "{store}", "{table}", "--kind", "board"],
            2,
            "'board' is not one of 'pin', 'product'",
        ),
        (
            ["ingest", "pins", "{store}", "{table}", "--image-root", "nowhere"],
            1,
            "--image-root nowhere is not a folder",
        ),
        (["ingest", "pins", "{store}"], 2, "Missing argument 'SOURCE...'"),
        (["ingest", "images", "{store}", "nowhere"], 1, "nowhere is not a folder"),
        (["ingest", "images", "{store}", "{table}"], 1, "pins.csv is not a folder"),
        (["stats", "{store}"], 1, "my.db does not exist: make a store with `captioner ingest"),
        (
            ["run", "{store}", "--model", "builtin"],
            1,
            "my.db does not exist: make a store with `captioner ingest",
        ),
    ],
)
def test_an_error_is_a_sentence_on_standard_error_and_leaves_no_store(
    tmp_path: Path, table: Path, arguments: list[str], code: int, message: str
) -> None:
    result = captioner(*(a.format(store=tmp_path / "my.db", table=table) for a in arguments))
    assert (result.exit_code, result.stdout) == (code, "")
    assert message in result.stderr
    assert "Traceback" not in result.stderr
    assert not (tmp_path / "my.db").exists()


def test_a_full_disk_is_a_sentence_also_from_arrow() -> None:
    table = pa.table({"a": np.random.default_rng(0).integers(0, 2**60, 100_000)})
    with pytest.raises(OSError, match="No space") as caught, open("/dev/full", "wb") as full:
        pq.write_table(table, full)
    assert sentence_of(caught.value) == "the disk is full: make room, and run the same command again"
    # Never by its path: Arrow removes a file that it could not write.
    with open("/dev/full", "wb", buffering=0) as full, pytest.raises(OSError, match="No space") as caught:
        full.write(b"text")
    named = OSError(caught.value.errno, caught.value.strerror, "out/part.parquet")
    assert sentence_of(named).startswith("the disk is full, in the folder of out/part.parquet: make room")


def test_errors_look_the_same_with_json_and_a_traceback_comes_with_debug(tmp_path: Path) -> None:
    done = process("stats", tmp_path / "my.db", "--json")
    assert (done.returncode, done.stdout) == (1, b"")
    assert done.stderr.startswith(b"Error: ")
    assert b"Traceback" in process("stats", tmp_path / "my.db", "--debug").stderr


def test_a_store_that_somebody_writes_to_can_be_read(tmp_path: Path, table: Path) -> None:
    captioner("ingest", "pins", tmp_path / "my.db", table)
    writer = open_store(tmp_path / "my.db")
    writer.execute("BEGIN IMMEDIATE")
    assert captioner("stats", tmp_path / "my.db").exit_code == 0


def test_stats_is_a_table_that_fits_into_80_columns(tmp_path: Path, table: Path) -> None:
    captioner("ingest", "pins", tmp_path / "my.db", table)
    conn = open_store(tmp_path / "my.db")
    conn.execute("UPDATE pins SET image = 'a.jpg', image_sha256 = 'x' WHERE pin_id <> '3'")
    conn.execute(
        "INSERT INTO recipes VALUES ('0123456789abcdef', 'Salesforce/blip2-flan-t5-xl', NULL, 'w', "
        "'a photo of', '{}', '{}', 'bfloat16')"
    )
    insert = """
        INSERT INTO captions (pin_id, recipe_id, status, text, reason, image_sha256, updated_at)
        VALUES (?, '0123456789abcdef', ?, ?, ?, 'x', '2026')"""
    conn.execute(insert, ["1", "ok", "a table", None])
    conn.execute(insert, ["2", "rejected", "", "a reason that is told in a great many words, more than fit"])
    lines = captioner("stats", tmp_path / "my.db").stdout.splitlines()
    shown: dict[str, Any] = {line[:34].strip(): line[34:].split()[:2] for line in lines[:-2]}
    assert shown["pins"] == ["3"]
    assert shown["with native text"] == ["2", "66.7%"]
    assert shown["description"] == ["1", "33.3%"]
    assert shown["with caption"] == ["1", "33.3%"]
    assert shown["with any text"] == ["2", "66.7%"]
    assert shown["rejected"] == ["1", "33.3%"]
    assert shown["images shared between pins"] == ["1"]
    assert shown["rows rejected at ingest"] == ["2"]
    assert lines[-2:] == [
        "1 caption by Salesforce/blip2-flan-t5-xl in bfloat16",
        "  recipe 0123456789abcdef, prompt 'a photo of'",
    ]
    assert max(map(len, lines)) <= 80


def test_stats_can_be_piped_into_a_program_that_stops_reading(tmp_path: Path, table: Path) -> None:
    captioner("ingest", "pins", tmp_path / "my.db", table)
    done = subprocess.run(["bash", "-c", f"{CAPTIONER} stats {tmp_path}/my.db | true"], capture_output=True)
    assert done.stderr == b""


@pytest.mark.parametrize(
    "command",
    [[], ["ingest"], ["ingest", "pins"], ["ingest", "images"], ["run"], ["stats"], ["demo"], ["doctor"]],
)
def test_every_command_explains_itself_with_an_example(command: list[str]) -> None:
    result = captioner(*command, "--help")
    assert result.exit_code == 0
    assert command == ["ingest"] or "  captioner " in result.stdout
    assert max(map(len, result.stdout.splitlines())) <= 100
    if command not in ([], ["ingest"]):
        assert "--json" in result.stdout


def test_help_and_stats_load_no_heavy_library(tmp_path: Path, table: Path) -> None:
    captioner("ingest", "pins", tmp_path / "my.db", table)
    for arguments in (["--help"], ["stats", str(tmp_path / "my.db")]):
        script = (
            "import sys; from pincaption.cli import cli; "
            f"cli({arguments!r}, standalone_mode=False); print(*sys.modules, file=sys.stderr)"
        )
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
        loaded = set(done.stderr.split())
        assert loaded.isdisjoint(
            {"torch", "transformers", "numpy", "pandas", "pyarrow", "sqlite_utils", "rich", "PIL"}
        )
