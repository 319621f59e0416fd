"""The SQL of the aggregations gives the same rows in Spark, once it is transpiled, as in DuckDB."""

import sqlite3
import sys
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from pincaption.drawn.world import make_world
from pincaption.filters.boards import BoardOptions, aggregate_boards, generic_titles
from pincaption.filters.duck import sql
from pincaption.filters.evidence import open_evidence
from pincaption.filters.queries import WEIGHTS, QueryOptions, aggregate_queries, whole_weights
from pincaption.filters.query_window import Window

sqlglot = pytest.importorskip("sqlglot", reason="sqlglot is not installed: pip install 'pincaption[spark]'")
TEXTS = sorted(path.stem for path in (Path(__file__).parents[2] / "filters/sql").glob("*.sql"))


def test_there_are_texts() -> None:
    assert len(TEXTS) > 5


@pytest.mark.parametrize("name", TEXTS)
def test_every_text_is_one_select_that_spark_can_parse(name: str) -> None:
    (text,) = sqlglot.transpile(sql(name), read="duckdb", write="spark")
    (parsed,) = sqlglot.parse(text, read="spark")
    assert isinstance(parsed, sqlglot.exp.Select)


@pytest.fixture(scope="module")
def spark() -> Iterator[Any]:
    pyspark = pytest.importorskip(
        "pyspark.sql",
        reason="Spark is not installed: pip install 'pincaption[spark]', and a Java 17 or newer",
    )
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("PYSPARK_PYTHON", sys.executable)
        patched.setenv("SPARK_LOCAL_IP", "127.0.0.1")
        try:
            session = (
                pyspark.SparkSession.builder.master("local[2]")
                .config("spark.ui.enabled", "false")
                .config("spark.sql.shuffle.partitions", "4")
                .getOrCreate()
            )
        except Exception as error:
            pytest.skip(f"Spark does not start here, which takes Java 17 or newer: {type(error).__name__}")
        session.conf.set("spark.sql.session.timeZone", "UTC")
        yield session
        session.stop()


def make(spark: Any, name: str, parameters: dict[str, Any] | None = None) -> Any:
    """The rows of a SQL text. Later texts find them under its name."""
    frame = spark.sql(sqlglot.transpile(sql(name), read="duckdb", write="spark")[0], args=parameters)
    frame.cache().createOrReplaceTempView(name)
    return frame


@pytest.fixture
def world(tmp_path: Path) -> Path:
    make_world(tmp_path / "world", 60)
    return tmp_path / "world"


@pytest.mark.slow
def test_board_titles_are_the_same(spark: Any, store: sqlite3.Connection, world: Path) -> None:
    options = BoardOptions(top=5, min_boards=1)
    aggregate_boards(
        store, boards=[str(world / "boards.parquet")], saves=[str(world / "saves")], options=options
    )
    with open_evidence(store, "boards") as evidence:
        for name, rows in (
            ("board_rows", evidence.view("boards")),
            ("saves", evidence.view("saves")),
            ("pins", evidence.codes("pins")),
        ):
            evidence.db.execute(f"COPY (SELECT * FROM {rows}) TO '{world}/{name}.copy' (FORMAT parquet)")
            spark.read.parquet(f"{world}/{name}.copy").createOrReplaceTempView(name)
    spark.createDataFrame([(title,) for title in generic_titles()], "title string").createOrReplaceTempView(
        "generic"
    )
    make(spark, "current_boards")
    make(spark, "titles", {"min_chars": 2, "max_chars": 60, "max_words": 10, "most_boards": 10**6})
    make(spark, "title_weights")
    spark.sql(
        "SELECT b.board, w.place FROM current_boards b JOIN title_weights w ON w.title = b.title"
    ).createOrReplaceTempView("title_of")
    make(spark, "board_counts")
    make(spark, "board_ranks", {"top": 5, "min_boards": 1})
    rows = spark.sql(
        """SELECT p.text, r.rank, w.title, r.boards, r.score
        FROM board_ranks r JOIN title_weights w ON w.place = r.place JOIN pins p ON p.code = r.pin"""
    ).collect()
    found = [(pin, rank, title, boards, float(f"{score:.6g}")) for pin, rank, title, boards, score in rows]
    assert sorted(found) == sorted(
        tuple(row)
        for row in store.execute("SELECT pin_id, rank, title, boards, score FROM board_title_ranks")
    )
    assert len(found) > 100


@pytest.mark.slow
def test_engaged_queries_are_the_same(spark: Any, store: sqlite3.Connection, world: Path) -> None:
    window = Window.up_to(date(2026, 6, 20), 14)
    options = QueryOptions(as_of=window.as_of, window_days=14, top=7, min_engagements=2)
    aggregate_queries(store, log=[str(world / "log")], options=options)
    weights, scale = whole_weights(WEIGHTS)
    with open_evidence(store, "queries") as evidence:
        for name, rows in (
            ("log", evidence.view("log")),
            ("queries", evidence.codes("queries")),
            ("pins", evidence.codes("pins")),
        ):
            evidence.db.execute(f"COPY (SELECT * FROM {rows}) TO '{world}/{name}.copy' (FORMAT parquet)")
            spark.read.parquet(f"{world}/{name}.copy").createOrReplaceTempView(name)
    spark.createDataFrame(
        [(action, float(weight)) for action, weight in weights.items()], "action string, weight double"
    ).createOrReplaceTempView("weights")
    make(spark, "query_counts", window.parameters()).createOrReplaceTempView("parts")
    make(spark, "query_sums").createOrReplaceTempView("counted")
    make(spark, "query_ranks", {"top": 7, "min_engagements": 2, "scale": scale})
    rows = spark.sql(
        """SELECT p.text, r.rank, r.text, r.engagements, r.score, r.first_day, r.last_day
        FROM query_ranks r JOIN pins p ON p.code = r.pin"""
    ).collect()
    found = [
        (pin, rank, query, engagements, float(f"{score:.6g}"), str(first), str(last))
        for pin, rank, query, engagements, score, first, last in rows
    ]
    columns = "pin_id, rank, query, engagements, score, first_date, last_date"
    assert sorted(found) == sorted(
        tuple(row) for row in store.execute(f"SELECT {columns} FROM engaged_query_ranks")
    )
    assert len(found) > 30
