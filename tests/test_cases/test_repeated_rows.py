"""A pin or a picture that several rows name: the last row counts, and the command says so."""

import json
from pathlib import Path
from typing import Any

from click.testing import CliRunner

from pincaption.cli import cli

from .table_commands import unwrapped

SAID = "2 rows name a pin that another row has: the last one counts"


def captioner(*arguments: Any) -> str:
    result = CliRunner().invoke(cli, [str(argument) for argument in arguments])
    assert result.exit_code == 0, result.output
    return unwrapped(result.stdout)


def test_rows_of_one_pin_are_one_pin(tmp_path: Path) -> None:
    table, store = tmp_path / "p.csv", tmp_path / "s.db"
    table.write_text("pin_id,title\n1,A\n1,B\n2,D\n1.0,C\n")
    assert captioner("ingest", "pins", store, table).splitlines()[:2] == [
        f"2 pins into {store}: 2 new, 0 updated",
        SAID,
    ]
    table.write_text("pin_id,title\n1,A\n1,B\n2,D\n3,E\n1.0,C\n")
    counts = json.loads(captioner("ingest", "pins", store, table, "--json"))
    numbers = {name: counts[name] for name in ("rows_read", "pins", "new", "updated", "repeated")}
    assert numbers == {"rows_read": 5, "pins": 3, "new": 1, "updated": 2, "repeated": 2}


def test_rows_of_one_pin_in_two_tables_far_from_each_other(tmp_path: Path) -> None:
    ids = "".join(f"{i}\n" for i in range(30_000))
    for name in ("a.csv", "b.csv"):
        (tmp_path / name).write_text("pin_id\n" + ids)
    tables = [tmp_path / "a.csv", tmp_path / "b.csv"]
    counts = json.loads(captioner("ingest", "pins", tmp_path / "s.db", *tables, "--json"))
    assert (counts["rows_read"], counts["new"], counts["updated"]) == (60_000, 30_000, 0)
    assert (counts["pins"], counts["repeated"]) == (30_000, 30_000)


def test_vectors_of_one_pin_are_one_vector(tmp_path: Path) -> None:
    table, store = tmp_path / "v.jsonl", tmp_path / "s.db"
    table.write_text("".join(json.dumps({"pin_id": i, "vector": [1, i]}) + "\n" for i in (1, 2, 1, 1)))
    captioner("ingest", "pins", store, "--json", "--columns", "pin_id", _ids(tmp_path))
    lines = captioner("ingest", "embeddings", store, table, "--name", "v").splitlines()
    assert lines[:2] == [f"2 vectors of 2 numbers into {store} as v", SAID]
    counts = json.loads(captioner("ingest", "embeddings", store, table, "--name", "v", "--json"))
    assert (counts["rows_read"], counts["vectors"], counts["repeated"]) == (4, 2, 2)


def _ids(folder: Path) -> Path:
    (folder / "ids.csv").write_text("1\n2\n")
    return folder / "ids.csv"
