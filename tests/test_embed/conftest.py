"""A small export. Its queries name colours and things, as the titles and captions of its pins do."""

from __future__ import annotations

import json
import random
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from pincaption.cli import cli
from pincaption.store import open_store, transaction

DAY = date(2026, 6, 1)
COLOURS, THINGS = (
    ["red", "blue", "green", "yellow", "purple"],
    ["mug", "boat", "lamp", "tree", "fish", "book"],
)


@pytest.fixture(scope="session")
def export(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """120 pins: a third are products, a third have no native text. Some have captions and vectors."""
    folder, rng = tmp_path_factory.mktemp("embed"), random.Random(0)
    pins, log = [], []
    for i in range(120):
        name = f"{rng.choice(COLOURS)} {rng.choice(THINGS)}"
        pins.append(
            {
                "pin_id": f"p{i}",
                "kind": "product" if i % 3 == 0 else "pin",
                "title": name if i % 3 != 1 else None,
                "locale": rng.choice(["en-US", "de-DE", None]),
                "name": name,
            }
        )
        for _ in range(12):
            query = rng.choice([name, name.split()[1], f"{name} drawing"])
            log.append(
                {
                    "pin_id": f"p{i}",
                    "query": query,
                    "action": rng.choice(["save", "click"]),
                    "date": str(DAY + timedelta(rng.randint(-10, 10))),
                }
            )
    for name, rows in (("pins", pins), ("log", log)):
        (folder / f"{name}.jsonl").write_text(
            "".join(json.dumps({k: v for k, v in row.items() if k != "name"}) + "\n" for row in rows)
        )
    numbers = np.random.default_rng(0).normal(size=(100, 16)).tolist()
    pq.write_table(
        pa.table({"pin_id": [f"p{i}" for i in range(100)], "vector": numbers}), folder / "vectors.parquet"
    )
    store = folder / "my.db"
    for command in (
        ["ingest", "pins", store, folder / "pins.jsonl"],
        ["ingest", "embeddings", store, folder / "vectors.parquet", "--name", "pinsage"],
        ["aggregate", "queries", store, "--log", folder / "log.jsonl"],
    ):
        assert CliRunner().invoke(cli, [str(a) for a in command]).exit_code == 0
    conn = open_store(store)
    with transaction(conn):
        conn.execute("UPDATE pins SET image_sha256 = 'x'")
        conn.execute("INSERT INTO recipes VALUES ('r', 'made-up', NULL, '', '', '{}', '{}', 'float32')")
        captions = [(pin["pin_id"], f"a drawing of a {pin['name']}") for i, pin in enumerate(pins) if i % 2]
        conn.executemany(
            "INSERT INTO captions (pin_id, recipe_id, status, text, image_sha256, updated_at) "
            "VALUES (?, 'r', 'ok', ?, 'x', '2026-01-01')",
            captions,
        )
    conn.close()
    done = CliRunner().invoke(
        cli,
        [
            "export",
            str(store),
            str(folder / "out"),
            "--as-of",
            str(DAY),
            "--pairs",
            "--test-from",
            str(DAY + timedelta(6)),
        ],
    )
    assert done.exit_code == 0, done.output
    return folder / "out"
