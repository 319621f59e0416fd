"""Helpers for tests of `captioner aggregate`: run a command, write a table, read the results."""

import csv
import gzip
import io
import json
import re
import sqlite3
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from click.testing import CliRunner, Result

from pincaption.cli import cli

CAPTIONER = Path(sys.executable).with_name("captioner")
COUNTS = {"rows_read", "pins", "rows_written", "unknown_boards", "dropped"}
NO_DAY = "date is no date or time such as 2024-05-31T12:00:00Z"

USER_COLUMNS = ("pin_id", "query", "action", "date", "user_id")

Columns = dict[str, Any]  # column -> its values: a list, or an Arrow array where the type matters


def captioner(*arguments: object, stdin: str | bytes | None = None) -> Result:
    return CliRunner().invoke(cli, [str(a) for a in arguments], input=stdin)


def process(
    *arguments: Any, stdin: bytes | None = None, cwd: Path | None = None
) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run([CAPTIONER, *arguments], input=stdin, capture_output=True, cwd=cwd)


def counts(*arguments: object, stdin: str | bytes | None = None) -> dict[str, Any]:
    """The one JSON object of a command that did its work."""
    result = captioner(*arguments, "--json", stdin=stdin)
    assert (result.exit_code, result.stderr) == (0, "")
    assert len(result.stdout.splitlines()) == 1
    return dict(json.loads(result.stdout))


def refused(*arguments: object, code: int = 1, stdin: str | bytes | None = None) -> str:
    """The one sentence on standard error of a command that could do nothing."""
    result = captioner(*arguments, stdin=stdin)
    assert (result.exit_code, result.stdout) == (code, ""), result.stderr
    *usage, said = result.stderr.splitlines()
    assert said.startswith("Error: ")
    assert bool(usage) == (code == 2)
    return said.removeprefix("Error: ")


def write(path: Path, columns: Columns) -> Path:
    """A table in the format of the file's name."""
    if path.suffix == ".parquet":
        pq.write_table(pa.table(columns), path)
        return path
    lines = list(zip(*columns.values(), strict=True))
    kind = path.name.removesuffix(".gz").rpartition(".")[2]
    if kind in ("csv", "tsv"):
        text = io.StringIO(newline="")
        csv.writer(text, delimiter="\t" if kind == "tsv" else ",", lineterminator="\n").writerows(
            [tuple(columns), *lines]
        )
        content = text.getvalue()
    else:
        rows = [dict(zip(columns, line, strict=True)) for line in lines]
        content = (
            json.dumps(rows)
            if kind == "json"
            else "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        )
    path.write_bytes(gzip.compress(content.encode()) if path.suffix == ".gz" else content.encode())
    return path


def boards_table(titles: Mapping[Any, str | None]) -> Columns:
    """board_id -> title"""
    return {"board_id": list(titles), "title": list(titles.values())}


def saves_table(*saves: tuple[Any, Any]) -> Columns:
    """(pin_id, board_id), ..."""
    return {"pin_id": [pin for pin, _ in saves], "board_id": [board for _, board in saves]}


def log_table(
    *rows: tuple[Any, ...], names: Sequence[str] = ("pin_id", "query", "action", "date")
) -> Columns:
    return {name: [row[i] for row in rows] for i, name in enumerate(names)}


def titles(store: Path) -> dict[str, list[str]]:
    with closing(sqlite3.connect(store)) as conn:
        return {
            pin: json.loads(found)
            for pin, found in conn.execute("SELECT pin_id, titles FROM board_titles ORDER BY pin_id")
        }


def queries(store: Path) -> dict[str, list[str]]:
    with closing(sqlite3.connect(store)) as conn:
        return {
            pin: json.loads(found)
            for pin, found in conn.execute("SELECT pin_id, queries FROM engaged_queries ORDER BY pin_id")
        }


def engagements(store: Path) -> dict[str, dict[str, int]]:
    with closing(sqlite3.connect(store)) as conn:
        rows = conn.execute(
            "SELECT pin_id, queries, engagements FROM engaged_queries ORDER BY pin_id"
        ).fetchall()
    return {
        pin: dict(zip(json.loads(texts), json.loads(numbers), strict=True)) for pin, texts, numbers in rows
    }


def rejected(store: Path) -> list[tuple[str, int, str]]:
    with closing(sqlite3.connect(store)) as conn:
        return conn.execute(
            "SELECT source, line, reason FROM rejected_rows ORDER BY run_id, source, line"
        ).fetchall()


def shown(output: str) -> dict[str, str]:
    """label -> number, of a printed table of counts."""
    return {
        match[1].strip(): match[2]
        for line in output.splitlines()
        if (match := re.fullmatch(r"(.*\S)\s+([\d,]+)", line))
    }


def fits(output: str) -> bool:
    return all(len(line) <= 80 for line in output.splitlines())
