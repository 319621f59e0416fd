"""docs/schema.md: made from the migrations, so that it cannot be wrong; its examples run."""

import re
import runpy
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from pincaption.store import open_store

DOCS = Path(__file__).parents[2] / "docs"
generate = SimpleNamespace(**runpy.run_path(str(DOCS / "generate.py")))

PAGE = (DOCS / "schema.md").read_text(encoding="utf-8")


@pytest.fixture
def store(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    conn = open_store(tmp_path / "my.db", create=True)
    yield conn
    conn.close()


def tables_and_views(conn: sqlite3.Connection) -> list[str]:
    """What a reader may meet: neither SQLite's own tables nor those behind a full-text index."""
    names = conn.execute("SELECT name FROM pragma_table_list WHERE schema = 'main' AND type <> 'shadow'")
    return [name for (name,) in names if not name.startswith(("sqlite_", "_sqlite_"))]


def test_the_page_is_what_the_migrations_make(store: sqlite3.Connection) -> None:
    assert generate.schema_page(store) == PAGE, (
        "docs/schema.md is not up to date: run `python docs/generate.py`"
    )


def test_every_table_and_view_has_a_sentence_and_its_columns(store: sqlite3.Connection) -> None:
    for name in tables_and_views(store):
        assert generate.purpose(name), (
            f"say what {name} is for: in a comment above its CREATE statement, or in docs/generate.py"
        )
        part = PAGE.partition(f"### {name}\n")[2].partition("\n### ")[0]
        for column in store.execute(f"PRAGMA table_info({name})"):
            assert re.search(rf"\| {column['name']} \||`{column['name']}`", part), f"{name}.{column['name']}"


def test_what_is_explained_by_hand_is_there(store: sqlite3.Connection) -> None:
    there = set(tables_and_views(store))
    assert set(generate.PURPOSES) <= there
    columns = {
        f"{name}.{row['name']}" for name in there for row in store.execute(f"PRAGMA table_info({name})")
    }
    assert set(generate.MEANINGS) <= columns


def test_comments_of_the_migrations_are_on_the_page() -> None:
    assert "| image | text | null |  | a path, a URL, or a reference into a Parquet file |" in PAGE
    assert "| status | text |  |  | `ok`, `rejected`, `failed` |" in PAGE
    assert "| pin_id | text |  | primary → [pins](#pins) |" in PAGE
    assert "Small pictures for pages that people look at" in PAGE


def test_the_three_examples_answer_what_they_say(store: sqlite3.Connection) -> None:
    store.executescript("""
        INSERT INTO pins (pin_id, title, has_title, image_sha256)
            VALUES ('1', NULL, 0, 'a'), ('2', 'IMG_1.JPG', 0, 'b'), ('3', 'Mug', 1, 'c');
        UPDATE pins SET has_description = 0;
        INSERT INTO recipes VALUES ('r', 'm', NULL, 'w', '', '{}', '{}', 'float32');
        INSERT INTO captions (pin_id, recipe_id, status, text, image_sha256, updated_at)
            VALUES ('1', 'r', 'ok', 'a red mug', 'a', '2026'),
                ('2', 'r', 'ok', 'an old picture', 'x', '2026'),
                ('3', 'r', 'ok', 'a mug', 'c', '2026');
        INSERT INTO board_titles
            VALUES ('1', '["kitchen", "red"]', '[3, 1]', '[2.5, 1]'), ('3', '["kitchen"]', '[4]', '[3]');
        INSERT INTO engaged_queries VALUES ('3', '["mug", "red mug"]', '[9, 4]', '[9, 2]',
            '["2026-01-01", "2026-01-02"]', '["2026-02-01", "2026-02-02"]');
    """)
    top = PAGE.partition("\n## ")[0]
    without_text, best_titles, found_by = re.findall(r"```sql\n(.*?)```", top, re.DOTALL)
    assert [tuple(row) for row in store.execute(without_text)] == [("1", "a red mug")]
    assert [tuple(row) for row in store.execute(best_titles)] == [("kitchen", 2, 7)]
    assert [tuple(row) for row in store.execute(found_by)] == [("3", 2, 4, "2026-02-02", "Mug", "a mug")]
