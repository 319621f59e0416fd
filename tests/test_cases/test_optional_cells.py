"""An optional cell that makes no sense costs that cell, is counted with its reason, and can be found."""

import json
import sqlite3
import uuid
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pincaption.cli import cli
from pincaption.filters.queries import aggregate_queries
from pincaption.ingest.pins import ingest_pins
from pincaption.sources.rows import SourceError
from pincaption.store import rejected
from pincaption.store.stats import coverage

from .table_commands import unwrapped


def ingest(store: sqlite3.Connection, path: Path, *rows: dict[str, Any]) -> dict[str, Any]:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return dict(ingest_pins(store, [str(path)]))


@pytest.mark.parametrize(
    ("cell", "kind"),
    [
        *(("Product", "product"), (" pin ", "pin"), ("PRODUCTS", "product"), ("Pins", "pin"), ("PIN", "pin")),
        *(("", "pin"), ("nan", "pin"), ("NULL", "pin"), (None, "pin")),
    ],
)
def test_a_kind_is_understood_without_regard_to_case_and_blanks(
    store: sqlite3.Connection, tmp_path: Path, cell: str | None, kind: str
) -> None:
    counts = ingest(store, tmp_path / "p.jsonl", {"pin_id": "1", "kind": cell})
    assert (counts["pins"], counts["left_empty"]) == (1, {})
    assert store.execute("SELECT kind FROM pins").fetchone()[0] == kind


def test_the_pin_is_kept_and_the_command_says_what_was_left_empty(tmp_path: Path) -> None:
    from click.testing import CliRunner

    (tmp_path / "p.csv").write_text(
        "pin_id,title,created_at,kind\n"
        "1,Blue mug,0000-00-00 00:00:00,Product\n2,Lamp,2026/05/31,house\n"
        "3,Chair,46173,\n4,Vase,05/06/2026,\n"
    )
    result = CliRunner().invoke(cli, ["ingest", "pins", str(tmp_path / "my.db"), str(tmp_path / "p.csv")])
    assert result.exit_code == 0
    assert unwrapped(result.stdout).splitlines()[2:] == [
        "2 cells left empty, their rows kept (see the table rejected_rows):",
        "         1  kind is neither pin nor product",
        "         1  created_at may have the day or the month first, as in 05/06/2026: write 2026-06-05",
    ]
    store = sqlite3.connect(tmp_path / "my.db")
    rows = store.execute("SELECT pin_id, kind, created_at FROM pins ORDER BY pin_id").fetchall()
    assert rows == [
        ("1", "product", None),
        ("2", "pin", "2026-05-31"),
        ("3", "pin", "2026-05-31"),
        ("4", "pin", None),
    ]
    kept = store.execute("SELECT line, reason, content FROM rejected_rows ORDER BY line").fetchall()
    assert [(line, reason.partition(":")[0]) for line, reason, _ in kept] == [
        (3, "left empty"),
        (5, "left empty"),
    ]
    assert json.loads(kept[0][2])["kind"] == "house"
    assert next(iter(json.loads(kept[1][2]))) == "created_at"  # the cell that was the fault comes first


def test_cells_left_empty_are_no_rejected_rows_and_go_with_the_source(
    store: sqlite3.Connection, tmp_path: Path
) -> None:
    ingest(store, tmp_path / "p.jsonl", {"pin_id": "1", "created_at": "soon"}, {"pin_id": ""})
    assert coverage(store)["rejected_rows"] == 1
    ingest(store, tmp_path / "p.jsonl", {"pin_id": "1", "created_at": "2026-05-31"})
    assert store.execute("SELECT count(*) FROM rejected_rows").fetchone()[0] == 0


def test_of_very_many_the_first_are_kept_and_all_are_counted(
    store: sqlite3.Connection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rejected, "MOST_EMPTIED", 10)
    counts = ingest(store, tmp_path / "p.jsonl", *({"pin_id": i, "kind": "x"} for i in range(25)))
    assert counts["left_empty"] == {"kind is neither pin nor product": 25}
    assert store.execute("SELECT count(*) FROM rejected_rows").fetchone()[0] == 10


@pytest.mark.parametrize("word", ["nan", "NULL", "None", "<NA>", "\\N"])
def test_what_programs_write_for_nothing_is_nothing(
    store: sqlite3.Connection, tmp_path: Path, word: str
) -> None:
    names = ("title", "description", "category", "locale", "prompt", "kind", "created_at", "image")
    counts = ingest(
        store, tmp_path / "p.jsonl", {"pin_id": "1"} | dict.fromkeys(names, word), {"pin_id": word}
    )
    assert (counts["left_empty"], counts["reasons"]) == ({}, {"no pin_id": 1})
    shown = "title, description, category, locale, created_at, image"
    assert set(store.execute(f"SELECT {shown} FROM enriched_features").fetchone()) == {None}
    assert store.execute("SELECT prompt FROM pins").fetchone()[0] is None


def test_of_several_titles_the_first_is_taken_and_descriptions_are_joined(
    store: sqlite3.Connection, tmp_path: Path
) -> None:
    kind = pa.list_(pa.string())
    table = {
        "pin_id": [1, 2, 3],
        "title": pa.array([["Blue mug", "Mug", "Cup"], [], None], kind),
        "description": pa.array([["Of clay.", "By hand."], [None, "Of wood."], []], kind),
    }
    pq.write_table(pa.table(table), tmp_path / "p.parquet")
    counts = ingest_pins(store, [str(tmp_path / "p.parquet")])
    assert counts["notes"] == {
        "titles left out: of several in a cell the first is taken": 2,
        "descriptions joined: several in a cell": 1,
    }
    rows = store.execute("SELECT title, description FROM pins ORDER BY pin_id").fetchall()
    assert [tuple(row) for row in rows] == [
        ("Blue mug", "Of clay. By hand."),
        (None, "Of wood."),
        (None, None),
    ]
    (tmp_path / "p.csv").write_text("pin_id,title\n1,\"['Red mug', 'Mug']\"\n2,\"[new] Lamp\"\n")
    ingest_pins(store, [str(tmp_path / "p.csv")])
    titles = [row[0] for row in store.execute("SELECT title FROM pins ORDER BY pin_id")]
    assert titles == ["Red mug", "[new] Lamp", None]


def test_uuids_are_text_and_other_bytes_no_id(store: sqlite3.Connection, tmp_path: Path) -> None:
    ids = [uuid.uuid4() for _ in range(3)]
    pq.write_table(pa.table({"pin_id": pa.array([i.bytes for i in ids], pa.uuid())}), tmp_path / "u.parquet")
    assert ingest_pins(store, [str(tmp_path / "u.parquet")])["pins"] == 3
    assert {row[0] for row in store.execute("SELECT pin_id FROM pins")} == {str(i) for i in ids}
    for kind in (pa.binary(16), pa.binary(), pa.large_binary()):
        table = {"pin_id": pa.array([b"ABCDEFGHIJKLMNOP", bytes(16)], kind)}
        pq.write_table(pa.table(table), tmp_path / "b.parquet")
        reason = "pin_id is bytes and not text: write it as text, for instance in hexadecimal"
        with pytest.raises(SourceError, match=f"all 2 rows were rejected, .* [(]{reason}[)]"):
            ingest_pins(store, [str(tmp_path / "b.parquet")])
        assert {row[0] for row in store.execute("SELECT reason FROM rejected_rows")} == {reason}
    content = store.execute("SELECT content FROM rejected_rows").fetchone()[0]
    assert json.loads(content) == {"pin_id": "0x4142434445464748494a4b4c4d4e4f50"}


@pytest.mark.parametrize(
    ("row", "field", "shown"),
    [
        (
            {"pin_id": "1", "created_at": "1780245000000000000000000"},
            "created_at",
            "1780245000000000000000000",
        ),
        ({"pin_id": "1", "created_at": 12345678901234567890123}, "created_at", 12345678901234567890123),
        ({"pin_id": "1", "created_at": "2026-13-31 16:30:00"}, "created_at", "2026-13-31 16:30:00"),
        ({"pin_id": 12345678901234567.0}, "pin_id", 12345678901234568.0),
        ({"pin_id": "1.23457E+14", "title": "x" * 5000}, "pin_id", "1.23457E+14"),
        ({"pin_id": "1", "image": "file:///a/1780245000123.jpg"}, "image", "file:///a/1780245000123.jpg"),
        ({"pin_id": "1", "kind": ["pin"]}, "kind", ["pin"]),
        ({"pin_id": "1", "created_at": "+1 (555) 123-4567"}, "created_at", "[redacted]"),
        ({"pin_id": "1", "created_at": "me@mail.example"}, "created_at", "[redacted]"),
        ({"pin_id": "1", "kind": "0151 234 56789"}, "kind", "[redacted]"),
    ],
)
def test_the_cell_that_was_the_fault_is_shown_unless_it_is_personal_data(
    store: sqlite3.Connection, tmp_path: Path, row: dict[str, Any], field: str, shown: Any
) -> None:
    ingest(store, tmp_path / "p.jsonl", row, {"pin_id": "a good row"})
    content = store.execute("SELECT content FROM rejected_rows").fetchone()[0]
    assert content.startswith("{" + json.dumps({field: shown})[1:-1])


def test_a_log_without_a_date_is_rejected_for_its_date_and_not_for_its_user(
    store: sqlite3.Connection, tmp_path: Path
) -> None:
    """Where a row has two faults, the reason is that of a field which the row cannot do without."""
    row = {"pin_id": "1", "query": "mug", "action": "save", "user_id": "1.00123E+12"}
    log = tmp_path / "log.jsonl"
    rows = [{"date": "soon"}, {"date": "2026-05-31"}, {"date": None, "timestamp": None}]
    log.write_text("".join(json.dumps(row | dates) + "\n" for dates in rows))
    counts = aggregate_queries(store, log=[str(log)])
    assert counts["reasons"] == {
        "date is no date or time such as 2024-05-31T12:00:00Z": 1,
        "no date": 1,
    }


@pytest.mark.parametrize("encoding", [None, "cp1252"])
def test_texts_in_another_encoding_cost_their_cells_and_the_mend_is_said(
    tmp_path: Path, encoding: str | None
) -> None:
    from click.testing import CliRunner

    (tmp_path / "p.csv").write_bytes("pin_id,title\n1,Käse\n2,Brot\n".encode("cp1252"))
    options = ["--encoding", encoding] if encoding else []
    result = CliRunner().invoke(
        cli, ["ingest", "pins", str(tmp_path / "my.db"), str(tmp_path / "p.csv"), *options]
    )
    assert result.exit_code == 0
    reason = "title is not valid UTF-8 (is it another encoding? --encoding cp1252)"
    assert (reason in result.stdout) == (encoding is None)
    with sqlite3.connect(tmp_path / "my.db") as conn:
        assert [row[0] for row in conn.execute("SELECT title FROM pins ORDER BY pin_id")] == [
            "Käse" if encoding else None,
            "Brot",
        ]


def test_a_row_without_a_kind_that_makes_sense_has_the_kind_of_the_option(
    store: sqlite3.Connection, tmp_path: Path
) -> None:
    rows = [{"pin_id": str(i), "kind": kind} for i, kind in enumerate(["offer", "", None, "pin", 7])]
    (tmp_path / "p.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    counts = ingest_pins(store, [str(tmp_path / "p.jsonl")], kind="product")
    assert counts["left_empty"] == {"kind is neither pin nor product": 2}
    kinds = [row[0] for row in store.execute("SELECT kind FROM pins ORDER BY pin_id")]
    assert kinds == ["product", "product", "product", "pin", "product"]
