"""A source in which every row fails is an error that names what it has, and the mend."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from .table_commands import captioner, counts, refused, rows, said, workbook


@pytest.mark.parametrize("name", ["p.csv", "p.parquet", "p.xlsx", "p.jsonl", "p.json"])
def test_a_table_without_ids_names_the_column_to_map(tmp_path: Path, name: str) -> None:
    table = tmp_path / name
    if name == "p.csv":
        table.write_text("id,title\n1,A lamp\n")
    elif name == "p.parquet":
        pq.write_table(pa.table({"id": [1], "title": ["A lamp"]}), table)
    elif name == "p.xlsx":
        workbook(table, [["id", "title"], [1, "A lamp"]])
    else:
        table.write_text(
            json.dumps({"id": 1, "title": "A lamp"} if name == "p.jsonl" else [{"id": 1, "title": 2}])
        )
    sentence = refused("ingest", "pins", tmp_path / "s.db", table)
    assert "its columns: id, title" in sentence
    assert "say which one it is with --map pin_id=id" in sentence
    assert counts("ingest", "pins", tmp_path / "s.db", table, "--map", "pin_id=ID")["pins"] == 1


def test_the_columns_of_folders_are_named_and_proposed(tmp_path: Path) -> None:
    said("ingest", "pins", tmp_path / "s.db", "-", stdin='{"pin_id": "1"}\n')
    for name, log in (
        ("l.csv", "pin_id,query,action\n1,mug,save\n"),
        ("l.jsonl", '{"pin_id": 1, "query": "mug", "action": "save"}\n'),
    ):
        path = tmp_path / "dt=2026-05-30" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(log)
        sentence = refused("aggregate", "queries", tmp_path / "s.db", "--log", path)
        assert "its columns: pin_id, query, action, dt= (folder)" in sentence
        assert "--map date=dt" in sentence
        found = counts("aggregate", "queries", tmp_path / "s.db", "--log", path, "--map", "date=dt")
        assert found["rows_read"] == 1


@pytest.mark.parametrize(
    ("name", "content", "mend"),
    [
        ("-", "pin_id,title\n1,Mug\n", "if it is CSV, say so with --format csv"),
        ("p.jsonl", "pin_id,title\n1,Mug\n", "if it is CSV, say so with --format csv"),
        ("p.csv", '{"pin_id": 1, "title": "Mug"}\n', "if it is JSON Lines, say so with --format jsonl"),
        ("p.csv", "1001,Mug,mug.jpg\n1002,Cup,c.jpg\n", "--columns pin_id,NAME,..."),
        ("p.csv", "mug-1,A mug,photos/mug.JPG\n", "--columns pin_id,NAME,..."),
        ("p.tsv", "mug-1\t2026-05-31\n", "--columns pin_id,NAME,..."),
    ],
)
def test_a_table_that_is_written_in_another_way_names_the_option(
    tmp_path: Path, name: str, content: str, mend: str
) -> None:
    path = name if name == "-" else tmp_path / name
    if name != "-":
        (tmp_path / name).write_text(content)
    sentence = refused("ingest", "pins", tmp_path / "s.db", path, stdin=content)
    assert mend in sentence
    assert "--map" not in sentence


def test_names_with_blanks_are_proposed_as_a_shell_reads_them(tmp_path: Path) -> None:
    (tmp_path / "p.csv").write_text("Pin ID,Title\n1,Mug\n")
    sentence = refused("ingest", "pins", tmp_path / "s.db", tmp_path / "p.csv")
    assert "with --map pin_id='Pin ID'; its columns" in sentence


def test_a_mapped_key_that_no_row_has_is_said_with_the_file(tmp_path: Path) -> None:
    path = tmp_path / "p.jsonl"
    path.write_text('{"sku": {"id": 1}, "name": "Mug"}\n')
    sentence = refused("ingest", "pins", tmp_path / "s.db", path, "--map", "pin_id=sku.id")
    assert f"nothing of {path} could be used" in sentence
    assert "no row has 'sku.id' (--map pin_id=sku.id)" in sentence
    path.write_text('{"pin_id": 1, "name": "Mug"}\n')
    sentence = refused("ingest", "pins", tmp_path / "s.db", path, "--map", "title=headline")
    assert sentence.startswith(f"no row of {path} has 'headline' (--map title=headline)")


def test_a_field_that_is_mapped_twice_is_wrong_usage(tmp_path: Path) -> None:
    (tmp_path / "p.csv").write_text("sku,name\n1,Mug\n")
    twice = ("--map", "pin_id=sku", "--map", "pin_id=name")
    for arguments in (
        ("ingest", "pins", tmp_path / "s.db", tmp_path / "p.csv"),
        ("aggregate", "queries", tmp_path / "s.db", "--log", tmp_path / "p.csv"),
    ):
        result = captioner(*arguments, *twice)
        assert result.exit_code == 2
        assert "--map gives pin_id two columns, 'sku' and 'name'" in result.stderr


def test_rejected_rows_are_kept_and_other_sources_are_taken_in(tmp_path: Path) -> None:
    (tmp_path / "good.jsonl").write_text('{"pin_id": "1"}\n')
    (tmp_path / "bad.jsonl").write_text('{"sku": "1"}\n{"sku": "2"}\n')
    sentence = refused("ingest", "pins", tmp_path / "s.db", tmp_path / "good.jsonl", tmp_path / "bad.jsonl")
    assert "all 2 rows were rejected" in sentence
    assert "--map pin_id=sku; the rows of the other sources were taken in" in sentence
    assert rows(tmp_path / "s.db", "SELECT pin_id FROM pins") == [("1",)]
    assert rows(tmp_path / "s.db", "SELECT line, reason FROM rejected_rows") == [
        (1, "no pin_id"),
        (2, "no pin_id"),
    ]


def test_sync_deletes_nothing_if_a_source_was_not_understood(tmp_path: Path) -> None:
    store = tmp_path / "s.db"
    said("ingest", "pins", store, "-", stdin='{"pin_id": "1"}\n')
    refused("ingest", "pins", store, "-", "--sync", stdin='{"id": "2"}\n')
    assert rows(store, "SELECT deleted_at FROM pins") == [(None,)]


def test_vectors_that_are_none_are_an_error(tmp_path: Path) -> None:
    store = tmp_path / "s.db"
    said("ingest", "pins", store, "-", stdin='{"pin_id": "1"}\n')
    sentence = refused(
        "ingest", "embeddings", store, "-", "--name", "v", stdin='{"pin_id": 1, "emb": [1, 2]}\n'
    )
    assert "nothing of standard input could be used" in sentence
    assert "--map vector=emb" in sentence


LOG = "pin_id,query,action,date\n1,mug,save,2026-05-31\n"


@pytest.mark.parametrize("name", ["bad.csv", "bad.parquet"])
def test_a_log_of_which_no_row_counts_is_an_error_each_time(tmp_path: Path, name: str) -> None:
    store, good, bad = tmp_path / "s.db", tmp_path / "good.csv", tmp_path / name
    said("ingest", "pins", store, "-", stdin='{"pin_id": "1"}\n')
    good.write_text(LOG)
    if name == "bad.csv":
        bad.write_text("pin_id,query,action,date\n1,mug,save,yesterday\n")
    else:
        pq.write_table(
            pa.table({"pin_id": [""], "query": ["x"], "action": ["s"], "date": ["2026-05-31"]}), bad
        )
    for _ in range(2):
        assert f"nothing of {bad} could be used" in refused(
            "aggregate", "queries", store, "--log", good, "--log", bad
        )
        assert rows(store, "SELECT count(*) FROM engaged_queries") == [(1,)]
        assert rows(store, "SELECT source, line FROM rejected_rows") == [
            (str(bad), 1 if "parq" in name else 2)
        ]
    bad.write_text(LOG.replace("mug", "lamp")) if name == "bad.csv" else pq.write_table(
        pa.table({"pin_id": ["1"], "query": ["lamp"], "action": ["save"], "date": ["2026-05-31"]}), bad
    )
    said("aggregate", "queries", store, "--log", good, "--log", bad)
    assert rows(store, "SELECT count(*) FROM rejected_rows") == [(0,)]
    assert rows(store, "SELECT count(*) FROM engaged_query_ranks") == [(2,)]


def test_a_rebuild_from_a_log_that_is_not_understood_keeps_what_was_there(tmp_path: Path) -> None:
    store = tmp_path / "s.db"
    said("ingest", "pins", store, "-", stdin='{"pin_id": "1"}\n')
    (tmp_path / "good.csv").write_text(LOG)
    (tmp_path / "bad.csv").write_text("pin_id,query,action,date\n1,mug,save,yesterday\n")
    said("aggregate", "queries", store, "--log", tmp_path / "good.csv")
    refused("aggregate", "queries", store, "--log", tmp_path / "bad.csv", "--rebuild")
    assert rows(store, "SELECT count(*) FROM engaged_queries") == [(1,)]


def test_aggregate_prints_the_reasons_of_rejected_rows(tmp_path: Path) -> None:
    store = tmp_path / "s.db"
    said("ingest", "pins", store, "-", stdin='{"pin_id": "1"}\n')
    (tmp_path / "l.csv").write_text(
        LOG + "1,mug,save,2026-05-31,x\n,mug,save,2026-05-31\n,cup,save,2026-05-31\n"
    )
    printed = said("aggregate", "queries", store, "--log", tmp_path / "l.csv")
    assert "3 rows rejected (see the table rejected_rows):" in printed
    assert "         2  no pin_id\n" in printed
    assert counts("aggregate", "queries", store, "--log", tmp_path / "l.csv", "--rebuild")["reasons"] == {
        "no pin_id": 2,
        "more cells than the header has columns": 1,
    }


@pytest.mark.parametrize(
    ("content", "command"),
    [
        ('{\n "items": [\n  {"pin_id": 1, "title": "Lamp"}\n ]\n}\n', "jq -c '.items[]' p.json"),
        ('{"items": [{"pin_id": 1}], "total": 1}', "jq -c '.items[]' p.json"),
        ('{"n": 1, "hits": {"max": 2, "hits": [{"id": 1}]}}', "jq -c '.hits.hits[]' p.json"),
        ('{"my items": [{"id": 1}]}', "jq -c '.[\"my items\"][]' p.json"),
        ('{"items": [{"pin_id": 1}]}\n{"items": [{"pin_id": 2}]}\n', "jq -c '.items[]' p.json"),
        ('{"pages": {}, "items": [\n' + '{"pin_id": 1, "title": "x"},\n' * 60_000, "jq -c '.items[]' p.json"),
        ('{\n "pin_id": 1\n}\n{\n "pin_id": 2\n}\n', "jq -c . p.json"),
        ('\ufeff{\n "a": "' + "x" * 2_000_000 + '",\n "b": 1\n}', "jq -c . p.json"),
    ],
    ids=[
        "over lines",
        "on one line",
        "deep",
        "a key of two words",
        "pages",
        "large",
        "written out",
        "one large",
    ],
)
def test_json_that_holds_the_rows_below_a_key_names_it_and_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str, command: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("p.json").write_text(content)
    assert command in refused("ingest", "pins", "s.db", "p.json")


def test_a_row_may_hold_a_list_of_objects_and_a_broken_first_line_costs_only_itself(tmp_path: Path) -> None:
    store = tmp_path / "s.db"
    assert counts("ingest", "pins", store, "-", stdin='{"pin_id": 1, "variants": [{"sku": 2}]}')["pins"] == 1
    broken = '{"pin_id": 1, "title": \n{"pin_id": 2}\n'
    assert counts("ingest", "pins", store, "-", stdin=broken)["reasons"] == {"not valid JSON": 1}
    pages = '[{"pin_id": 3}]\n[{"pin_id": 4},\n{"pin_id": 5}]\n'
    assert counts("ingest", "pins", store, "-", stdin=pages)["pins"] == 3


def test_an_empty_table_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "p.csv").write_text("pin_id,title\n")
    assert captioner("ingest", "pins", tmp_path / "s.db", tmp_path / "p.csv").exit_code == 0


def test_an_empty_name_is_no_source_and_no_model(tmp_path: Path) -> None:
    """As a variable of the shell that is not set gives. It would be the current folder."""
    store, empty = tmp_path / "my.db", "a source has an empty name: is a variable of the shell not set?"
    said("ingest", "pins", store, "-", stdin='{"pin_id": "p", "image": "/x.jpg"}')
    assert refused("ingest", "pins", store, "") == empty
    assert refused("ingest", "images", store, "") == empty
    assert refused("captions", "set", store, "--from", "") == empty
    assert refused("run", store, "--model", "").startswith("the name of the model is empty")
