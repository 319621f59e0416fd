"""`captioner ingest embeddings`: vectors are kept as float16; everything else is a rejected row."""

from __future__ import annotations

import json
import os
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
from pincaption.store import open_store


def captioner(*arguments: Any) -> Result:
    return CliRunner().invoke(cli, [str(a) for a in arguments])


def ingest(store: Path, source: Path, *options: Any) -> dict[str, Any]:
    result = captioner("ingest", "embeddings", store, source, "--name", "pinsage", "--json", *options)
    assert result.exit_code == 0, result.output
    return dict(json.loads(result.stdout))


def vectors(store: Path) -> dict[str, list[float]]:
    rows = (
        sqlite3.connect(store)
        .execute("SELECT pin_id, dim, vector FROM embeddings WHERE name = 'pinsage'")
        .fetchall()
    )
    assert all(len(vector) == 2 * dim for _, dim, vector in rows)
    return {pin_id: np.frombuffer(vector, "<f2").tolist() for pin_id, _, vector in rows}


@pytest.fixture
def store(tmp_path: Path) -> Path:
    conn = open_store(tmp_path / "my.db", create=True)
    conn.execute("INSERT INTO pins (pin_id) VALUES ('a'), ('b')")
    return tmp_path / "my.db"


NUMBERS = [[1.0, 0.5, -2.0], [0.1, 65504.0, 0.0]]


@pytest.mark.parametrize(
    "kind",
    [
        pa.list_(pa.float32()),
        pa.list_(pa.float64(), 3),
        pa.large_list(pa.float16()),
        "jsonl",
        "csv",
        "numbers",
    ],
)
def test_vectors_in_every_format(store: Path, tmp_path: Path, kind: Any) -> None:
    if isinstance(kind, str):
        texts = {"jsonl": lambda v: v, "csv": json.dumps, "numbers": lambda v: " ".join(map(str, v))}
        source = tmp_path / f"v.{'jsonl' if kind == 'jsonl' else 'tsv'}"
        rows = [("a", texts[kind](NUMBERS[0])), ("b", texts[kind](NUMBERS[1]))]
        source.write_text(
            "".join(json.dumps({"pin_id": p, "vector": v}) + "\n" for p, v in rows)
            if kind == "jsonl"
            else "pin_id\tvector\n" + "".join(f"{p}\t{v}\n" for p, v in rows)
        )
    else:
        source = tmp_path / "v.parquet"
        numbers = (
            [np.array(v, dtype=np.float16) for v in NUMBERS]
            if kind == pa.large_list(pa.float16())
            else NUMBERS
        )
        pq.write_table(pa.table({"pin_id": ["a", "b"], "vector": pa.array(numbers, kind)}), source)
    counts = ingest(store, source)
    assert (counts["vectors"], counts["dim"], counts["rejected"], counts["pins_not_in_store"]) == (2, 3, 0, 0)
    assert vectors(store) == {"a": [1.0, 0.5, -2.0], "b": [float(np.float16(0.1)), 65504.0, 0.0]}


def test_rows_without_a_usable_vector_are_rejected_with_a_reason(store: Path, tmp_path: Path) -> None:
    rows = [
        {"pin_id": "a", "vector": [1, 2]},
        {"pin_id": "b", "vector": [1, 2, 3]},
        {"pin_id": "c", "vector": [float("nan"), 1]},
        {"pin_id": "d", "vector": [1e6, 1]},
        {"pin_id": "e", "vector": None},
        {"pin_id": None, "vector": [1, 2]},
        {"pin_id": "f", "vector": ["x", 1]},
        {"pin_id": "g", "vector": []},
        {"pin_id": "h", "vector": [3, 4]},
        {"pin_id": "i", "vector": [None, 1]},
    ]
    (tmp_path / "v.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    counts = ingest(store, tmp_path / "v.jsonl")
    assert vectors(store) == {"a": [1, 2], "h": [3, 4]}
    assert counts["reasons"] == {
        "the vector has a number that is NaN, infinite or beyond float16": 3,
        "the vector has another size than the 2 numbers of the others": 2,
        "no vector": 1,
        "no pin_id": 1,
        "the vector is no list of numbers": 1,
    }
    kept = sqlite3.connect(store).execute("SELECT line, reason FROM rejected_rows ORDER BY line").fetchall()
    assert kept[0] == (2, "the vector has another size than the 2 numbers of the others")
    assert len(kept) == 8
    assert ingest(store, tmp_path / "v.jsonl")["rejected"] == 8
    # the rows of the second ingest replace those of the first
    assert sqlite3.connect(store).execute("SELECT count(*) FROM rejected_rows").fetchone() == (8,)


def test_a_name_has_one_dimension_and_later_vectors_replace_earlier_ones(store: Path, tmp_path: Path) -> None:
    (tmp_path / "1.jsonl").write_text('{"pin_id": "a", "vector": [1, 2]}\n')
    (tmp_path / "2.jsonl").write_text(
        '{"pin_id": "a", "vector": [5, 6]}\n{"id": 1}\n'
        '{"pin_id": "b", "vector": [1, 2, 3]}\n{"pin_id": "later", "vector": [7, 8]}\n'
    )
    ingest(store, tmp_path / "1.jsonl")
    counts = ingest(store, tmp_path / "2.jsonl")
    assert vectors(store) == {"a": [5, 6], "later": [7, 8]}
    assert (counts["dim"], counts["rejected"], counts["pins_not_in_store"]) == (2, 2, 1)


def test_columns_of_other_names_and_errors(store: Path, tmp_path: Path) -> None:
    pq.write_table(pa.table({"id": ["a"], "clip": [[1.0, 2.0]]}), tmp_path / "v.parquet")
    assert (
        "has no column 'pin_id'; say which one it is with --map pin_id=id"
        in captioner("ingest", "embeddings", store, tmp_path / "v.parquet", "--name", "x").stderr
    )
    assert ingest(store, tmp_path / "v.parquet", "--map", "pin_id=id", "--map", "vector=clip")["vectors"] == 1
    for name in ("title", "my name", "", "1st"):
        assert (
            "cannot be the name of an embedding"
            in captioner("ingest", "embeddings", store, tmp_path / "v.parquet", "--name", name).stderr
        )
    assert (
        "does not exist"
        in captioner(
            "ingest", "embeddings", tmp_path / "none.db", tmp_path / "v.parquet", "--name", "x"
        ).stderr
    )


def test_the_first_of_two_processes_decides_the_dimension_of_a_name(store: Path, tmp_path: Path) -> None:
    command = ["captioner", "ingest", "embeddings", str(store), "-", "--name", "pinsage", "--json"]
    code = f"import sys; from pincaption.cli import main; sys.argv = {command!r}; main()"
    waiting = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert waiting.stdin
    while not sqlite3.connect(store).execute("SELECT count(*) FROM runs").fetchone()[0]:
        os.sched_yield()  # until it has begun and waits for its input
    source = tmp_path / "v.jsonl"
    source.write_text('{"pin_id": "a", "vector": [1, 2, 3]}\n')
    ingest(store, source)
    output, _ = waiting.communicate(
        '{"pin_id": "b", "vector": [1, 2, 3, 4, 5]}\n{"pin_id": "c", "vector": [3, 2, 1]}\n'
    )
    assert json.loads(output)["rejected"] == 1
    assert vectors(store) == {"a": [1.0, 2.0, 3.0], "c": [3.0, 2.0, 1.0]}


@pytest.mark.parametrize("name", ["navboost", "board_title", "Title", "caption"])
def test_names_of_other_columns_of_an_export_are_refused(store: Path, tmp_path: Path, name: str) -> None:
    assert (
        "cannot be the name of an embedding"
        in captioner("ingest", "embeddings", store, tmp_path / "none.jsonl", "--name", name).stderr
    )
