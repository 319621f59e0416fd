"""What the table `runs` keeps about each command."""

import json
import sqlite3

import pytest

from pincaption.common.redact import redact_credentials
from pincaption.store.runs import finish_run, last_arguments, start_run


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("https://user:pass@host/x.csv", "https://***@host/x.csv"),
        ("https://user:p@ss@host/x.csv", "https://***@host/x.csv"),
        ("https://host/x?a=1&token=abc&b=2", "https://host/x?a=1&token=***&b=2"),
        ("https://blob/x?sv=1&sig=abc%2F", "https://blob/x?sv=1&sig=***"),
        ("s3://b/x?X-Amz-Signature=abc&X-Amz-Date=1", "s3://b/x?X-Amz-Signature=***&X-Amz-Date=1"),
        ("https://host/@someone/photo.jpg", "https://host/@someone/photo.jpg"),
        ("https://host/x?design=oak", "https://host/x?design=oak"),
        ("write to a@b.org", "write to a@b.org"),
    ],
)
def test_credentials_in_addresses_are_redacted_and_nothing_else(given: str, kept: str) -> None:
    assert redact_credentials(given) == kept


def test_a_run_keeps_its_arguments_as_json_without_credentials(store: sqlite3.Connection) -> None:
    run_id = start_run(
        store,
        "ingest pins",
        {"sources": ["https://h/x?key=abc", "caf\u00e9.csv", "bad\udcff.csv"], "kind": None},
        device="cpu",
        batch_size=4,
    )
    finish_run(store, run_id, {"pins": 3}, batch_size=8)
    row = store.execute("SELECT * FROM runs").fetchone()
    assert json.loads(row["arguments"]) == {
        "sources": ["https://h/x?key=***", "caf\u00e9.csv", "bad?.csv"],
        "kind": None,
    }
    assert json.loads(row["counts"]) == {"pins": 3}
    assert (row["command"], row["device"], row["batch_size"]) == ("ingest pins", "cpu", 8)
    assert row["started_at"] < row["finished_at"]
    assert json.loads(row["versions"])["torch"]


def test_the_last_arguments_are_those_of_the_newest_run_of_that_command(store: sqlite3.Connection) -> None:
    assert last_arguments(store, "run") is None
    for command, model in (("run", "a"), ("run", "b"), ("other", "c")):
        start_run(store, command, {"model": model})
    assert last_arguments(store, "run") == {"model": "b"}
