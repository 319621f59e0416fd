"""Opening a store: what is made, what is refused with which sentence, and what the view shows."""

import os
import sqlite3
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import pytest

from pincaption.store import StoreError, connection, open_store, transaction

TABLES = {"pins", "recipes", "captions", "runs", "board_titles", "engaged_queries", "claims", "rejected_rows"}


def test_a_new_store_has_the_tables_and_views_of_the_contract_in_wal_mode(store: sqlite3.Connection) -> None:
    names = {row["name"] for row in store.execute("SELECT name FROM sqlite_master")}
    assert names >= TABLES | {"enriched_features", "board_title_ranks", "engaged_query_ranks"}
    assert store.execute("PRAGMA journal_mode").fetchone()[0] == "wal"
    assert store.execute("PRAGMA synchronous").fetchone()[0] == 2  # FULL
    assert [row["name"] for row in store.execute("SELECT name FROM pragma_table_info('pins')")][:11] == (
        [
            "pin_id",
            "kind",
            "title",
            "description",
            "image",
            "image_sha256",
            "category",
            "locale",
            "created_at",
            "prompt",
            "deleted_at",
        ]
    )


def test_opening_again_finds_what_was_written(tmp_path: Path) -> None:
    conn = open_store(tmp_path / "a.db", create=True)
    conn.execute("INSERT INTO pins (pin_id) VALUES ('1')")
    conn.close()
    assert open_store(tmp_path / "a.db").execute("SELECT pin_id FROM pins").fetchone()[0] == "1"


def test_a_missing_store_is_refused_and_not_made(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"a\.db does not exist: make a store with `captioner ingest"):
        open_store(tmp_path / "a.db")
    assert not (tmp_path / "a.db").exists()


def _text(path: Path) -> None:
    path.write_text("this is a letter to somebody, not a data base\n" * 100)


def _empty_sqlite(path: Path) -> None:
    sqlite3.connect(path).execute("CREATE TABLE things (a)").connection.close()


def _foreign_pins(path: Path) -> None:
    conn = sqlite3.connect(path)
    conn.execute("CREATE TABLE pins (number, colour)")
    conn.execute("INSERT INTO pins VALUES (7, 'red')")
    conn.commit()
    conn.close()


def _newer(path: Path) -> None:
    conn = open_store(path, create=True)
    conn.execute(
        """
        INSERT INTO _sqlite_migrations (migration_set, name, applied_at)
        VALUES ('pincaption', '0999_teleport', '2030')"""
    )
    conn.close()


@pytest.mark.parametrize(
    ("make", "create", "message"),
    [
        (Path.mkdir, True, "is a folder: name a SQLite file"),
        (_text, True, "is not a SQLite file"),
        (_empty_sqlite, False, "is a SQLite file but not a captioner store"),
        (
            _foreign_pins,
            True,
            r"is a SQLite file of something else \(its tables: pins\), and is left as it is",
        ),
        (_empty_sqlite, True, r"is a SQLite file of something else \(its tables: things\)"),
        (_newer, True, r"was written by a newer version of captioner \(0999_teleport\): upgrade captioner"),
    ],
)
def test_a_file_that_is_not_a_store_is_refused_and_left_as_it_was(
    tmp_path: Path, make, create: bool, message: str
) -> None:
    path = tmp_path / "a.db"
    make(path)
    before = path.read_bytes() if path.is_file() else None
    with pytest.raises(StoreError, match=message) as error:
        open_store(path, create=create)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)
    assert before is None or path.read_bytes() == before


def test_other_programs_may_add_tables_to_a_store(tmp_path: Path) -> None:
    open_store(tmp_path / "a.db", create=True).close()
    _empty_sqlite(tmp_path / "a.db")
    names = {
        row[0] for row in open_store(tmp_path / "a.db", create=True).execute("SELECT name FROM sqlite_master")
    }
    assert names >= TABLES | {"things"}


def test_an_empty_file_of_sqlite_becomes_a_store(tmp_path: Path) -> None:
    (tmp_path / "a.db").touch()
    open_store(tmp_path / "a.db", create=True).close()
    assert open_store(tmp_path / "a.db").execute("SELECT count(*) FROM pins").fetchone()[0] == 0


def test_a_store_in_a_missing_folder_names_the_folder(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=f"the folder {tmp_path}/none does not exist: make it first"):
        open_store(tmp_path / "none" / "a.db", create=True)


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become somebody without permissions")
@pytest.mark.parametrize(
    ("folder_mode", "file_mode", "message"),
    [
        (0o555, 0o444, "must be writable to you"),
        (0o755, 0o000, "cannot be read: you lack the permission"),
        (0o000, 0o644, "you may not look into the folder"),
    ],
)
def test_a_store_without_permissions_is_refused_and_the_sentence_says_what_to_do(
    tmp_path: Path, folder_mode: int, file_mode: int, message: str
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "a.db")
        open_store(path, create=True).close()
        path.chmod(file_mode)
        Path(folder).chmod(folder_mode)
        script = (
            "import os, sys; from pincaption.store import StoreError, open_store\n"
            # imports everything while it may still read the code
            f"open_store({str(tmp_path / 'other.db')!r}, create=True)\n"
            "try: os.setgid(65534), os.setuid(65534)\n"
            "except OSError: sys.exit(77)\n"
            f"try: open_store({str(path)!r}).execute('SELECT count(*) FROM pins')\n"
            "except StoreError as error: print(error)"
        )
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
        if done.returncode == 77:
            pytest.skip("root of this container cannot become somebody else")
        assert done.returncode == 0, done.stderr
        assert message in done.stdout


def test_many_processes_may_make_the_same_store_at_once(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    script = (
        "import sys; from pincaption.store import open_store; import sqlite_utils\n"
        "sys.stdin.readline()\n"
        f"conn = open_store({str(path)!r}, create=True)\n"
        "conn.execute('INSERT INTO pins (pin_id) VALUES (?)', [sys.argv[1]])\n"
    )
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", script, str(i)], stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        for i in range(6)
    ]
    for process in processes:
        assert process.stdin
        process.stdin.write("go\n")
        process.stdin.flush()
    errors = [process.communicate()[1] for process in processes]
    assert errors == [""] * 6
    assert open_store(path).execute("SELECT count(*) FROM pins").fetchone()[0] == 6


def test_a_store_that_another_process_makes_just_now_is_not_taken_for_a_strangers_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other one makes its tables between the two reads that decide what the file is."""
    open_store(tmp_path / "first.db", create=True).close()  # imports what making a store needs
    path, applied, others = tmp_path / "a.db", connection._applied, list[threading.Thread]()

    def then_another_makes_it(conn: sqlite3.Connection) -> set[str]:
        names = applied(conn)
        if not others:
            others.append(threading.Thread(target=lambda: open_store(path, create=True).close()))
            others[0].start()
            others[0].join(60)
            assert not others[0].is_alive()
        return names

    monkeypatch.setattr(connection, "_applied", then_another_makes_it)
    conn = open_store(path, create=True)
    assert others
    assert conn.execute("SELECT count(*) FROM pins").fetchone()[0] == 0


def test_a_transaction_is_all_or_nothing(store: sqlite3.Connection) -> None:
    def write() -> None:
        with transaction(store):
            store.execute("INSERT INTO pins (pin_id) VALUES ('1')")
            store.execute("INSERT INTO pins (pin_id, kind) VALUES ('2', 'cat')")

    with pytest.raises(sqlite3.IntegrityError):
        write()
    assert store.execute("SELECT count(*) FROM pins").fetchone()[0] == 0


def add(store: sqlite3.Connection, *captions: tuple[str, str, str, str | None, str]) -> None:
    """Captions as (recipe_id, status, text or reason, image_sha256, updated_at) of pin 1."""
    for recipe_id, status, text, image_sha256, moment in captions:
        store.execute(
            "INSERT OR IGNORE INTO recipes VALUES (?, 'm', NULL, 'w', '', '{}', '{}', 'float32')", [recipe_id]
        )
        store.execute(
            """
            INSERT INTO captions (pin_id, recipe_id, status, text, reason, image_sha256, updated_at)
            VALUES ('1', ?, ?, ?, ?, ?, ?)""",
            [
                recipe_id,
                status,
                text if status == "ok" else None,
                None if status == "ok" else text,
                image_sha256,
                moment,
            ],
        )


@pytest.mark.parametrize(
    ("captions", "shown"),
    [
        ([], (None, None)),
        ([("a", "ok", "a dog", "new", "2026-01-01")], ("a dog", "a")),
        (
            [("a", "ok", "a dog", "new", "2026-01-01"), ("b", "ok", "a brown dog", "new", "2026-01-02")],
            ("a brown dog", "b"),
        ),
        ([("a", "ok", "a dog", "old", "2026-01-01")], (None, None)),
        (
            [("a", "ok", "a dog", "new", "2026-01-01"), ("b", "ok", "a cat", "old", "2026-01-02")],
            ("a dog", "a"),
        ),
        (
            [
                ("a", "ok", "a dog", "new", "2026-01-01"),
                ("b", "rejected", "empty", "new", "2026-01-02"),
                ("c", "failed", "no image", None, "2026-01-03"),
            ],
            ("a dog", "a"),
        ),
        (
            [("b", "ok", "second", "new", "2026-01-01"), ("a", "ok", "first", "new", "2026-01-01")],
            ("first", "a"),
        ),
    ],
    ids=[
        "none",
        "one",
        "the newest",
        "of an earlier image",
        "the newest valid one",
        "rejected and failed do not count",
        "a tie has one answer",
    ],
)
def test_the_view_shows_the_newest_caption_of_the_image_that_the_pin_has(
    store: sqlite3.Connection, captions: list, shown: tuple
) -> None:
    store.execute("INSERT INTO pins (pin_id, image_sha256) VALUES ('1', 'new')")
    add(store, *captions)
    assert [tuple(row) for row in store.execute("SELECT caption, caption_recipe FROM enriched_features")] == [
        shown
    ]


def test_the_view_hides_deleted_pins_and_placeholder_texts(store: sqlite3.Connection) -> None:
    store.execute("INSERT INTO pins (pin_id, deleted_at) VALUES ('gone', '2026-01-01')")
    store.execute(
        """
        INSERT INTO pins (pin_id, title, description, has_title, has_description)
        VALUES ('1', 'Oak table', 'N/A', 1, 0)"""
    )
    assert [
        tuple(row) for row in store.execute("SELECT pin_id, title, description FROM enriched_features")
    ] == [("1", "Oak table", None)]


def test_board_titles_and_queries_are_shown_in_long_form_too(store: sqlite3.Connection) -> None:
    store.execute(
        """
        INSERT INTO board_titles
        VALUES ('not a pin yet', '["tea", "tea time"]', '[5, 2]', '[1.5, 0.25]')"""
    )
    store.execute(
        """
        INSERT INTO engaged_queries
        VALUES ('1', '["mug"]', '[3]', '[2.5]', '["2026-01-01"]', '["2026-02-01"]')"""
    )
    assert [tuple(row) for row in store.execute("SELECT * FROM board_title_ranks ORDER BY rank")] == [
        ("not a pin yet", 1, "tea", 5, 1.5),
        ("not a pin yet", 2, "tea time", 2, 0.25),
    ]
    assert [tuple(row) for row in store.execute("SELECT * FROM engaged_query_ranks")] == [
        ("1", 1, "mug", 3, 2.5, "2026-01-01", "2026-02-01")
    ]


@pytest.mark.parametrize(
    "statement",
    [
        "INSERT INTO pins (pin_id) VALUES ('')",
        "INSERT INTO pins (pin_id) VALUES (NULL)",
        # a caption without the digest of its image, and an empty one
        """
        INSERT INTO captions (pin_id, recipe_id, status, text, updated_at)
        VALUES ('1', 'r', 'ok', 'a dog', 'now')""",
        """
        INSERT INTO captions (pin_id, recipe_id, status, text, image_sha256, updated_at)
        VALUES ('1', 'r', 'ok', '', 'x', 'now')""",
        "INSERT INTO captions (pin_id, recipe_id, status, updated_at) VALUES ('1', 'r', 'failed', 'now')",
        """
        INSERT INTO captions (pin_id, recipe_id, status, reason, updated_at)
        VALUES ('1', 'r', 'lost', 'why', 'now')""",
        "INSERT INTO board_titles VALUES ('1', 'tea', '[]', '[]')",
    ],
)
def test_the_store_itself_refuses_rows_that_make_no_sense(store: sqlite3.Connection, statement: str) -> None:
    with pytest.raises(sqlite3.IntegrityError):
        store.execute(statement)
