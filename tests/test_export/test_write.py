"""`captioner export`: what a trainer gets. It is complete, and the same every time."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import polars
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner, Result

from pincaption.cli import cli
from pincaption.export import features
from pincaption.store import open_store, transaction
from pincaption.store.scan import scan

CAPTIONER = Path(sys.executable).with_name("captioner")
COLUMNS = [
    "pin_id", "kind", "title", "description", "caption", "caption_recipe",
    "board_titles", "board_title_counts", "engaged_queries", "engaged_query_scores",
    "image_sha256", "category", "locale",
]  # fmt: skip
NASTY = [
    'say "hi"',
    "back\\slash",
    "tab\tand\nline",
    "a,b",
    '","',
    "naïve 日本語 🍵",
    "[]",
    "null",
    "\x01",
    " ",
    "a\u2028b",
]


def captioner(*arguments: Any) -> Result:
    return CliRunner().invoke(cli, [str(a) for a in arguments])


def fill(path: Path, pins: int) -> Path:
    """A store in which each column is empty somewhere, and texts have characters that break file formats."""
    conn = open_store(path, create=True)
    with transaction(conn):
        for recipe in ("old", "new"):
            conn.execute(
                "INSERT OR IGNORE INTO recipes VALUES (?, ?, NULL, '', '', '{}', '{}', 'float32')",
                [recipe, f"model-{recipe}"],
            )
        for i in range(pins):
            text = NASTY[i % len(NASTY)]
            conn.execute(
                """INSERT INTO pins (pin_id, kind, title, description, has_description, image, image_sha256,
                    category, locale) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)""",
                [
                    f"pin {i}",
                    "product" if i % 4 == 0 else "pin",
                    text if i % 2 else None,
                    text,
                    i % 3 == 0,
                    f"/i/{i}",
                    f"sha {i}" if i % 5 else None,
                    text if i % 7 else None,
                    None,
                ],
            )
            if i % 5:
                for recipe, moment in (
                    (("old", "2026-01-01"), ("new", "2026-02-01")) if i % 2 else (("old", "2026-01-01"),)
                ):
                    conn.execute(
                        """INSERT INTO captions (pin_id, recipe_id, status, text, image_sha256, updated_at)
                        VALUES (?, ?, 'ok', ?, ?, ?)""",
                        [f"pin {i}", recipe, f"{recipe} {text}x", f"sha {i}", moment],
                    )
            if i % 3:
                texts = [NASTY[(i + k) % len(NASTY)] for k in range(i % 5)]
                numbers = json.dumps([k + 1 for k in range(len(texts))])
                conn.execute(
                    "INSERT INTO board_titles VALUES (?, ?, ?, ?)",
                    [f"pin {i}", json.dumps(texts, ensure_ascii=bool(i % 2)), numbers, numbers],
                )
                scores = json.dumps(
                    [round(0.123456 * (k + 1), 6) for k in range(len(texts))], separators=(",", ":")
                )
                conn.execute(
                    "INSERT INTO engaged_queries VALUES (?, ?, ?, ?, ?, ?)",
                    [f"pin {i}", json.dumps(texts), numbers, scores, numbers, numbers],
                )
        conn.execute("UPDATE pins SET deleted_at = '2026-01-01' WHERE pin_id = 'pin 7'")
    conn.close()
    return path


def expected(path: Path) -> dict[str, dict[str, Any]]:
    """The rows of the view, decoded by Python's own json."""
    conn = sqlite3.connect(path)
    conn.row_factory = sqlite3.Row
    found = {}
    for row in conn.execute(f"SELECT {', '.join(COLUMNS)} FROM enriched_features"):
        values = dict(row)
        for name in ("board_titles", "board_title_counts", "engaged_queries", "engaged_query_scores"):
            values[name] = json.loads(values[name] or "[]")
        found[values["pin_id"]] = values
    return found


def exported(folder: Path) -> list[dict[str, Any]]:
    return [
        row for path in sorted((folder / "features").iterdir()) for row in pq.read_table(path).to_pylist()
    ]


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return fill(tmp_path / "my.db", 100)


def test_every_pin_of_the_view_once_with_all_that_it_has(store: Path, tmp_path: Path) -> None:
    result = captioner("export", store, tmp_path / "out", "--shards", 3)
    assert result.exit_code == 0, result.output
    rows = exported(tmp_path / "out")
    assert list(rows[0]) == COLUMNS
    assert len(rows) == 99
    wanted = expected(store)
    for row in rows:
        scores = row.pop("engaged_query_scores")
        assert scores == pytest.approx(wanted[row["pin_id"]].pop("engaged_query_scores"), rel=1e-6)
        # A text that is "\x01" alone becomes null in the export. Nobody writes such a text.
        assert row == {
            name: value for name, value in wanted[row["pin_id"]].items() if name != "engaged_query_scores"
        }


def test_texts_that_hold_nul_are_kept(tmp_path: Path) -> None:
    conn = open_store(tmp_path / "my.db", create=True)
    conn.execute(
        "INSERT INTO pins (pin_id, title) VALUES ('a', 'x' || char(0) || 'y'), ('b', NULL), ('c', 'z')"
    )
    assert captioner("export", tmp_path / "my.db", tmp_path / "out").exit_code == 0
    assert {row["pin_id"]: row["title"] for row in exported(tmp_path / "out")} == {
        "a": "x\0y",
        "b": None,
        "c": "z",
    }


def test_an_empty_store_gives_an_empty_export(tmp_path: Path) -> None:
    open_store(tmp_path / "my.db", create=True).close()
    assert captioner("export", tmp_path / "my.db", tmp_path / "out").exit_code == 0
    assert exported(tmp_path / "out") == []
    assert captioner("export", "--check", tmp_path / "out").exit_code == 0


def test_datasets_pandas_polars_and_duckdb_load_it_in_one_line(store: Path, tmp_path: Path) -> None:
    captioner("export", store, tmp_path / "out", "--shards", 2)
    out = str(tmp_path / "out")
    import datasets

    by_datasets = datasets.load_dataset(out, cache_dir=str(tmp_path / "cache"))["train"]
    by_pandas = pd.read_parquet(f"{out}/features")
    by_duckdb = duckdb.sql(f"FROM '{out}/features/*.parquet'").fetchall()
    assert len(by_datasets) == len(by_pandas) == len(by_duckdb) == 99
    assert by_datasets.column_names == list(by_pandas.columns) == COLUMNS
    assert polars.read_parquet(f"{out}/features/*.parquet").height == 99


def test_check_compares_every_file_with_the_manifest(store: Path, tmp_path: Path) -> None:
    captioner("export", store, tmp_path / "out", "--shards", 4, "--seed", 5)
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert (manifest["rows"], manifest["seed"], manifest["as_of"], manifest["recipe"]) == (
        99,
        5,
        None,
        "current",
    )
    assert [f["rows"] for f in manifest["files"]] == [24, 25, 25, 25]
    assert [c["name"] for c in manifest["columns"]] == COLUMNS
    assert manifest["recipes"] == {"new": 39, "old": 40}
    assert manifest["store_schema_version"] == len(manifest["store_migrations"])
    assert manifest["versions"]["pyarrow"]
    assert captioner("export", "--check", tmp_path / "out").stdout.endswith(
        "is as it was written: 4 files, 99 pins\n"
    )
    part = tmp_path / "out" / "features" / "part-00002.parquet"
    part.write_bytes(part.read_bytes()[:-1] + b"x")
    (tmp_path / "out" / "features" / "part-00001.parquet").unlink()
    (tmp_path / "out" / "features" / "more.parquet").write_bytes(b"")
    result = captioner("export", "--check", tmp_path / "out")
    assert (result.exit_code, result.stdout.splitlines()) == (
        1,
        [
            "features/part-00001.parquet is missing",
            "features/part-00002.parquet has other content than was written (SHA-256)",
            "features/more.parquet is not named in the manifest",
        ],
    )
    assert (
        captioner("export", "--check", tmp_path).stderr
        == f"Error: {tmp_path} is not an export: it has no complete manifest.json of captioner\n"
    )


def test_the_same_store_and_seed_give_the_same_bytes(store: Path, tmp_path: Path) -> None:
    copy = shutil.copy(store, tmp_path / "copy.db")
    conn = sqlite3.connect(copy)
    conn.execute("PRAGMA journal_mode = DELETE")
    conn.execute("VACUUM")
    conn.close()
    for number, (path, seed) in enumerate([(store, 1), (store, 1), (copy, 1), (store, 2)]):
        captioner("export", path, tmp_path / f"out{number}", "--seed", seed, "--shards", 2)
    trees = [
        {
            str(p.relative_to(tmp_path / f"out{n}")): p.read_bytes()
            for p in (tmp_path / f"out{n}").rglob("*")
            if p.is_file()
        }
        for n in range(4)
    ]
    assert trees[0] == trees[1] == trees[2] != trees[3]
    orders = [[row["pin_id"] for row in exported(tmp_path / f"out{n}")] for n in (0, 3)]
    assert sorted(orders[0]) == sorted(orders[1])
    assert orders[0] != orders[1]


def test_rows_are_shuffled_well_and_files_and_row_groups_are_even(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(features, "ROWS_PER_BUCKET", 100)
    monkeypatch.setattr(features, "ROWS_PER_GROUP", 150)
    fill(tmp_path / "my.db", 2001)
    assert captioner("export", tmp_path / "my.db", tmp_path / "out", "--shards", 3).exit_code == 0
    files = sorted((tmp_path / "out" / "features").iterdir())
    groups = [
        [pq.ParquetFile(f).metadata.row_group(i).num_rows for i in range(pq.ParquetFile(f).num_row_groups)]
        for f in files
    ]
    assert [sum(some) for some in groups] == [666, 667, 667]
    assert {n for some in groups for n in some} <= {133, 134}
    numbers = np.array([int(row["pin_id"].split()[1]) for row in exported(tmp_path / "out")])
    assert len(set(numbers)) == 2000
    assert abs(np.corrcoef(np.arange(2000), numbers)[0, 1]) < 0.07
    assert abs(np.corrcoef(numbers[:-1], numbers[1:])[0, 1]) < 0.07


def test_json_lines_hold_the_same(store: Path, tmp_path: Path) -> None:
    captioner("export", store, tmp_path / "a")
    captioner("export", store, tmp_path / "b", "--format", "jsonl")
    lines = [
        json.loads(line)
        for line in (tmp_path / "b" / "features" / "part-00000.jsonl").read_text().split("\n")
        if line
    ]
    rows = exported(tmp_path / "a")
    assert [row["pin_id"] for row in lines] == [row["pin_id"] for row in rows]
    assert [row["board_titles"] for row in lines] == [row["board_titles"] for row in rows]
    assert captioner("export", "--check", tmp_path / "b").exit_code == 0


def test_one_recipe_in_place_of_the_current_captions(store: Path, tmp_path: Path) -> None:
    captioner("export", store, tmp_path / "out", "--recipe", "model-old")
    captions = {row["pin_id"]: (row["caption_recipe"], row["caption"]) for row in exported(tmp_path / "out")}
    assert {recipe for recipe, _ in captions.values()} == {"old", None}
    assert captions["pin 1"] == ("old", "old back\\slashx")
    assert (
        "no recipe is called 'none'"
        in captioner("export", store, tmp_path / "out", "--recipe", "none").stderr
    )


def test_columns_may_have_the_names_of_omnisearchsage(store: Path, tmp_path: Path) -> None:
    captioner("export", store, tmp_path / "out", "--schema", "omnisearchsage")
    assert set(exported(tmp_path / "out")[0]) >= {
        "title",
        "description",
        "board_title",
        "navboost",
        "image_caption",
    }


def test_vectors_are_exported_as_lists_of_fixed_size(store: Path, tmp_path: Path) -> None:
    (tmp_path / "v.jsonl").write_text(
        "".join(json.dumps({"pin_id": f"pin {i}", "vector": [i, 0.5, -1]}) + "\n" for i in range(0, 100, 2))
    )
    assert captioner("ingest", "embeddings", store, tmp_path / "v.jsonl", "--name", "pinsage").exit_code == 0
    assert captioner("export", store, tmp_path / "out").exit_code == 0
    table = pq.read_table(tmp_path / "out" / "features" / "part-00000.parquet")
    assert str(table.schema.field("pinsage").type) == "fixed_size_list<element: halffloat>[3]"
    found = {row["pin_id"]: row["pinsage"] for row in table.to_pylist()}
    assert found["pin 4"] == [4, 0.5, -1]
    assert found["pin 5"] is None
    assert captioner("export", store, tmp_path / "lines", "--format", "jsonl").exit_code == 0
    lines = [
        json.loads(line)
        for line in (tmp_path / "lines" / "features" / "part-00000.jsonl").read_text().split("\n")
        if line
    ]
    assert {row["pin_id"]: row["pinsage"] for row in lines} == found


def test_a_folder_that_is_not_an_export_is_never_replaced(store: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    result = captioner("export", store, tmp_path / "mine")
    assert (
        result.stderr == f"Error: {tmp_path}/mine exists already and is not an export: name another folder\n"
    )
    assert (tmp_path / "mine" / "thesis.txt").exists()
    assert captioner("export", store, tmp_path / "mine" / "thesis.txt").exit_code == 1
    assert "does not exist: make it first" in captioner("export", store, tmp_path / "no" / "out").stderr
    assert captioner("export", store).exit_code == 2
    assert captioner("export", store, tmp_path / "out", "--pairs").exit_code == 2
    assert sorted(p.name for p in tmp_path.iterdir() if p.name.startswith(".")) == []


@pytest.mark.parametrize("moment", ["scratch", "part-00000.parquet", "README.md"])
def test_killed_at_any_moment_a_reader_sees_the_old_export_or_the_new_one(
    tmp_path: Path, moment: str
) -> None:
    store, out = fill(tmp_path / "my.db", 3000), tmp_path / "out"
    assert captioner("export", store, out, "--seed", 1).exit_code == 0
    before = {str(p.relative_to(out)): p.read_bytes() for p in out.rglob("*") if p.is_file()}
    process = subprocess.Popen(
        [str(CAPTIONER), "export", str(store), str(out), "--seed", "2"], stdout=subprocess.DEVNULL
    )
    while process.poll() is None and not any(
        name.startswith(moment)
        for folder, folders, files in os.walk(tmp_path)
        if folder != str(out)
        for name in (*folders, *files)
    ):
        os.sched_yield()
    process.send_signal(signal.SIGKILL)
    process.wait()
    now = (
        {str(p.relative_to(out)): p.read_bytes() for p in out.rglob("*") if p.is_file()}
        if out.exists()
        else None
    )
    done = captioner("export", store, out, "--seed", 2)
    assert done.exit_code == 0, done.output
    after = {str(p.relative_to(out)): p.read_bytes() for p in out.rglob("*") if p.is_file()}
    assert now in (before, after)
    assert not list(tmp_path.glob(".*"))  # the folder of the killed process is gone
    assert captioner("export", "--check", out).exit_code == 0


def test_only_leftovers_of_the_same_target_are_cleared_away(tmp_path: Path) -> None:
    store = fill(tmp_path / "my.db", 20)
    kept = [
        ".out.2024.notes",
        ".out.v1.99999.keep",
        ".out.more.99999999.unfinished",
        ".other.99999999.unfinished",
    ]
    for name in (*kept, ".out.99999999.unfinished"):
        (tmp_path / name).mkdir()
    assert captioner("export", store, tmp_path / "out").exit_code == 0
    assert sorted(path.name for path in tmp_path.glob(".*")) == sorted(kept)


def test_an_export_behind_a_link_stays_behind_it(tmp_path: Path) -> None:
    store = fill(tmp_path / "my.db", 20)
    (tmp_path / "link").symlink_to("real")
    for _ in range(2):  # first without an earlier export, then with one
        assert captioner("export", store, tmp_path / "link").exit_code == 0
        assert (tmp_path / "link").is_symlink()
        assert (tmp_path / "real" / "manifest.json").exists()


def test_files_that_somebody_added_to_an_export_are_not_lost(tmp_path: Path) -> None:
    store, out = fill(tmp_path / "my.db", 20), tmp_path / "out"
    assert captioner("export", store, out).exit_code == 0
    (out / "notes.txt").write_text("mine")
    refused = captioner("export", store, out)
    assert refused.exit_code == 1
    assert "also holds files that no export wrote (notes.txt)" in refused.stderr
    assert (out / "notes.txt").read_text() == "mine"
    assert [
        row[0]
        for row in sqlite3.connect(store).execute("SELECT count(*) FROM runs WHERE finished_at IS NULL")
    ] == [0]


def test_the_working_folder_is_not_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = fill(tmp_path / "my.db", 20)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    assert "name a folder inside it" in captioner("export", store, ".").stderr


def test_an_export_works_where_few_files_may_be_open(tmp_path: Path) -> None:
    store = fill(tmp_path / "my.db", 600)
    code = f"""
import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (80, 80))
from pincaption.export import features; features.ROWS_PER_BUCKET = 5
from pincaption.cli import main; import sys
sys.argv = ["captioner", "export", {str(store)!r}, {str(tmp_path / "out")!r}]; main()"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert len(pd.read_parquet(tmp_path / "out" / "features")) == 599


def test_texts_that_are_together_longer_than_sqlite_allows_are_read_in_parts(store: Path) -> None:
    conn = open_store(store)
    whole = [
        row
        for table in scan(conn, "pins", {"pin_id": "pin_id", "description": "description"})
        for row in table.to_pylist()
    ]
    conn.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, 1000)
    assert [
        row
        for table in scan(conn, "pins", {"pin_id": "pin_id", "description": "description"})
        for row in table.to_pylist()
    ] == whole


def test_vectors_of_two_sizes_under_one_name_are_refused(store: Path, tmp_path: Path) -> None:
    conn = open_store(store)
    conn.executemany(
        "INSERT INTO embeddings (pin_id, name, dim, vector) VALUES (?, 'e', ?, ?)",
        [("pin 1", 2, bytes(4)), ("pin 2", 3, bytes(6))],
    )
    refused = captioner("export", store, tmp_path / "out")
    assert refused.exit_code == 1
    assert "the store has vectors of other sizes than" in refused.stderr
    assert not (tmp_path / "out").exists()


def test_check_finds_a_missing_card_and_counts_the_rows(store: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert captioner("export", store, out).exit_code == 0
    (out / "README.md").unlink()
    manifest = json.loads((out / "manifest.json").read_text())
    (out / "manifest.json").write_text(json.dumps(manifest | {"rows": 5}))
    found = captioner("export", "--check", out)
    assert found.exit_code == 1
    assert found.stdout.splitlines() == [
        "README.md is missing or changed: datasets finds the files by it",
        "manifest.json says 5 rows, but its files of features add up to 99",
    ]
    for broken in (
        {"format": manifest["format"]},
        manifest | {"files": 5},
        manifest | {"format": "pincaption features 9"},
    ):
        (out / "manifest.json").write_text(json.dumps(broken))
        assert captioner("export", "--check", out).stderr.startswith("Error: ")


def test_datasets_never_takes_an_earlier_export_of_the_same_name_for_this_one(
    store: Path, tmp_path: Path
) -> None:
    import datasets

    found = []
    for folder, seed in ((tmp_path / "a", 0), (tmp_path / "b", 1)):
        folder.mkdir()
        assert captioner("export", store, folder / "out", "--seed", seed).exit_code == 0
        found.append(
            datasets.load_dataset(str(folder / "out"), cache_dir=str(tmp_path / "cache"))["train"]["pin_id"][
                :
            ]
        )
        assert found[-1] == pd.read_parquet(folder / "out" / "features")["pin_id"].tolist()
    assert found[0] != found[1]
