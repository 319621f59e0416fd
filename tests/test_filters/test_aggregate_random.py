"""`aggregate boards` and `aggregate queries` compared with the slow reference.

Rows, options, file formats and the order in which sources arrive are random.
"""

import csv
import io
import json
import sqlite3
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import asdict, dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from pincaption.filters.boards import BoardOptions, aggregate_boards
from pincaption.filters.queries import QueryOptions, aggregate_queries
from pincaption.sources.rows import SourceError
from pincaption.store import open_store

from .reference import (
    Board,
    LogRow,
    QueryChoice,
    Save,
    TitleChoice,
    board_titles,
    engaged_queries,
    known_boards,
    passed_boards,
    unknown_boards,
)

Row = Sequence[Any]

RANDOM = settings(
    max_examples=8,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
BOARD_FILES, SAVE_FILES, LOG_FILES = (
    [f"boards-{i}" for i in range(3)],
    [f"saves-{i}" for i in range(3)],
    [f"log-{i}" for i in range(4)],
)
BOARD_COLUMNS, SAVE_COLUMNS, LOG_COLUMNS = (
    ("board_id", "title"),
    ("pin_id", "board_id"),
    ("pin_id", "query", "action", "date", "count", "user_id"),
)
UNSAID = "nobody ever called a board this"

# --- random values ---

WORDS = [
    "tea",
    "Tea",
    "ＴＥＡ",
    "kitchen",
    "ideas",
    "women’s",
    "women's",
    "women\uff07s",
    "women\u02bcs",
    "ﬁne",
    "fine",
    "café",
    "cafe\u0301",
    "ısı",
    "İs",
    "is",
    "straße",
    "STRASSE",
]
WORDS += [
    "80's",
    "rock'n'roll",
    "ΣΑΣ",
    "σας",
    "चाय",
    "ชา",
    "شاي",
    "שָׁלוֹם",
    "お茶",
    "ｶﾞ",
    "차",
    "te\u200da",
    "no\u00adel",
    "①",
    "½",
    "♡",
    "👩\u200d👩\u200d👧",
]
ODD = [
    "",
    " ",
    "!!!",
    "♡ ♡",
    "🍵",
    "☕\ufe0f",
    "☕\ufe0f☕\ufe0f",
    "1\ufe0f\u20e3",
    "\u200d",
    "\u0301",
    "'",
    "a''b",
    "'tis",
    "mothers'",
    "5'7",
    "a'\u02bcb",
    "x'\u0301y",
    "ŉ",
]
ODD += [
    "me@example.com",
    "mail me@example.com now",
    "me example com",
    "me@home",
    "https://example.com/tea",
    "https example com tea",
    "www.tea.com",
    "www tea com",
    "WWW.tea.com",
]
ODD += [
    "call +1-555-123-4567",
    "call 1 555 123 4567",
    "+1 (555) 123-4567",
    "12345678",
    "123456789",
    "1 2 3 4 5 6 7 8 9",
    "٠١٢٣٤٥٦٧٨",
    "2024-05-01",
    "007",
    "7",
    "1e5",
    "NULL",
    "null",
    "true",
    "nan",
]
ODD += [
    "x" * 60,
    "x" * 61,
    "x" * 100,
    "x" * 101,
    "!" * 120 + "tea",
    "ﬁ" * 31,
    "a b c d e f g h i j",
    "a b c d e f g h i j k",
    "My Stuff",
    "my  stuff!!",
    "random",
]
ODD += [
    'tea, "green"',
    "tea\ngreen",
    "tea\tgreen",
    " tea ",
    "tea; green",
    "#tea",
    "\\tea",
    "{tea}",
    "[1]",
    "a",
    "é",
    "e\u0301",
    "茶",
]


def phrase(words: list[str], gap: str) -> str:
    return gap.join(words)


PHRASE = st.builds(
    phrase,
    st.lists(st.sampled_from(WORDS), min_size=1, max_size=3),
    st.sampled_from([" ", "  ", "!! ", "-", "_", "\u00a0", "\u3000", ""]),
)
ANY = st.text(st.characters(exclude_categories=("Cs", "Cc")), max_size=8)
TEXT = st.one_of(PHRASE, PHRASE, st.sampled_from(ODD), ANY)

PINS = st.sampled_from(["p", "q", "1", "01", "é/ü.jpg"])
BOARD_IDS = st.sampled_from(["a", "é", "1", "01", "none", "b"])
# Days from today: the edges of the windows below, seen from each as-of date, and days in the future. Not
# tomorrow, as a test may run over midnight.
DAYS = st.sampled_from([0, -1, -2, -3, -4, -729, -730, -731, -732, 2, 3, 40])
COUNTS = st.sampled_from([1, 1, 1, 2, 3, 5, 40, 0])  # 0: a bad row
USERS = st.sampled_from([None, "", "u", "v", "7", "07"])

TITLE_CHOICES = st.builds(
    TitleChoice,
    top=st.sampled_from([10, 10, 3, 2, 1]),
    min_boards=st.sampled_from([1, 1, 1, 2, 3]),
    max_board_share=st.sampled_from([0.02, 0.5, 0.001]),  # has no effect with fewer than 1,000 boards
    min_chars=st.sampled_from([2, 2, 1, 4]),
    max_chars=st.sampled_from([60, 60, 61, 7]),
    max_words=st.sampled_from([10, 10, 11, 2, 1]),
    generic=st.sets(
        st.sampled_from(["My Stuff!!", "random", "ｔｅａ", "Kitchen  Ideas", "cafe\u0301", "WOMEN’S"])
    ).map(frozenset),
)
WEIGHTS = st.sampled_from(
    [
        {"save": 1.0, "long_click": 1.0, "click": 0.25},
        {"save": 1.0, "long_click": 1.0, "click": 0.25},
        {"save": 0.1, "long_click": 0.2, "click": 0.3},
        {"save": 0.0, "click": 3.0, "view": 0.7},
        {"save": 1.0},
    ]
)


@dataclass(frozen=True)
class Step:
    """What changes before a run of the aggregator, and what it gets: options and files, in order."""

    writes: dict[str, int]  # name -> which of the pool's contents
    passed: list[str]
    gone: set[str]  # removed after the run
    options: Any


@dataclass(frozen=True)
class Plan:
    forms: dict[str, str]
    pools: dict[str, list[list[Row]]]  # kind of file -> contents that its files may have
    steps: list[Step]


def steps(names: list[str], options: st.SearchStrategy[Any]) -> st.SearchStrategy[list[Step]]:
    """The first step writes all files and reads at least one. Later steps may change only the options."""

    removed = st.sets(st.sampled_from(names), max_size=2)
    first = st.builds(
        Step,
        st.fixed_dictionaries(dict.fromkeys(names, st.integers(0, 3))),
        st.lists(st.sampled_from(names), unique=True, min_size=1),
        removed,
        options,
    )
    some = st.lists(st.sampled_from(names), unique=True) | st.permutations(names)
    later = st.builds(
        Step, st.dictionaries(st.sampled_from(names), st.integers(0, 3)), some, removed, options
    )
    return st.tuples(first, st.lists(later, max_size=3)).map(lambda drawn: [drawn[0], *drawn[1]])


@st.composite
def board_plans(draw: st.DrawFn) -> Plan:
    titles = st.sampled_from(
        [*draw(st.lists(PHRASE, min_size=2, max_size=3)), *draw(st.lists(TEXT, max_size=4)), None]
    )
    boards = st.lists(st.lists(st.tuples(BOARD_IDS, titles), max_size=8), min_size=4, max_size=4)
    saves = st.lists(st.lists(st.tuples(PINS, BOARD_IDS), max_size=12), min_size=4, max_size=4)
    forms = draw(
        st.fixed_dictionaries(
            {name: st.sampled_from(["parquet", "csv", "jsonl"]) for name in BOARD_FILES + SAVE_FILES}
        )
    )
    return Plan(
        forms,
        {"boards": draw(boards), "saves": draw(saves)},
        draw(steps(BOARD_FILES + SAVE_FILES, TITLE_CHOICES)),
    )


@st.composite
def log_plans(draw: st.DrawFn) -> Plan:
    today = datetime.now(UTC).date()
    dates = DAYS.map(lambda days: today + timedelta(days=days))
    queries = st.sampled_from(
        [*draw(st.lists(PHRASE, min_size=1, max_size=2)), *draw(st.lists(TEXT, max_size=4))]
    )
    actions = st.sampled_from(
        ["save", "Save", "long_click", "Long-Click", "long click", "click", "click", "view"]
    )
    logs = st.lists(
        st.lists(st.tuples(PINS, queries, actions, dates, COUNTS, USERS), max_size=10), min_size=4, max_size=4
    )
    choices = st.builds(
        QueryChoice,
        as_of=st.none()
        | st.sampled_from([0, -1, -2, -730, 2, 40]).map(lambda days: today + timedelta(days=days)),
        window_days=st.sampled_from([730, 730, 1, 2, 3, 731]),
        top=st.sampled_from([20, 20, 2, 1]),
        weights=WEIGHTS,
        min_engagements=st.sampled_from([1, 1, 2, 5]),
        min_users=st.sampled_from([1, 1, 2, 3]),
        max_per_user=st.sampled_from([None, None, 1, 2, 3, 7]),
        max_share_per_user=st.sampled_from([None, None, 1.0, 0.9, 0.5, 0.4, 0.3, 0.07]),
    )
    forms = st.sampled_from(
        ["parquet", "parquet-day", "parquet-time", "csv", "csv-time", "jsonl", "jsonl-time"]
    )
    return Plan(
        draw(st.fixed_dictionaries(dict.fromkeys(LOG_FILES, forms))),
        {"log": draw(logs)},
        draw(steps(LOG_FILES, choices)),
    )


# --- files ---


def content_of(form: str, columns: Sequence[str], rows: Sequence[Row]) -> bytes:
    """A file in the given format. The same rows give the same bytes.

    A column is left out if it holds nothing but counts of 1, or nothing but unknown users.
    """
    kind, _, dates = form.partition("-")
    table = {name: [row[i] for row in rows] for i, name in enumerate(columns)}
    if rows and all(count == 1 for count in table.get("count", [0])):
        del table["count"]
    if rows and all(user is None for user in table.get("user_id", [""])):
        del table["user_id"]
    if "date" in table and dates == "time":
        late = [datetime.combine(day, time(23, 59, 59), UTC) for day in table["date"]]
        table["date"] = late if kind == "parquet" else [f"{when:%Y-%m-%dT%H:%M:%S}Z" for when in late]
    elif "date" in table and dates == "":
        table["date"] = [day.isoformat() for day in table["date"]]
    if kind == "parquet":
        types = {
            "count": pa.int64(),
            "date": {"": pa.string(), "day": pa.date32(), "time": pa.timestamp("us", "UTC")}[dates],
        }
        sink = io.BytesIO()
        pq.write_table(
            pa.table(
                {name: pa.array(values, types.get(name, pa.string())) for name, values in table.items()}
            ),
            sink,
        )
        return sink.getvalue()
    lines = list(zip(*table.values(), strict=True))
    if kind == "jsonl":
        return "".join(
            json.dumps(dict(zip(table, line, strict=True)), ensure_ascii=False) + "\n" for line in lines
        ).encode()
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerows([tuple(table), *lines])
    return text.getvalue().encode()


@dataclass
class Sources:
    """The files of one kind in a folder, and what was read of each, in the order of first reading."""

    folder: Path
    columns: Sequence[str]
    forms: dict[str, str]
    on_disk: dict[str, Sequence[Row]] = field(default_factory=dict)
    fails: bool = False  # whether one of the files that were given last has no row of use
    read: dict[str, tuple[bytes, Sequence[Row]]] = field(default_factory=dict)

    def path(self, name: str) -> Path:
        return self.folder / f"{name}.{self.forms[name].partition('-')[0]}"

    def write(self, name: str, rows: Sequence[Row]) -> None:
        if rows or not self.forms[name].startswith("jsonl"):  # JSON Lines without a line have no columns
            self.path(name).write_bytes(content_of(self.forms[name], self.columns, rows))
            self.on_disk[name] = rows

    def remove(self, name: str) -> None:
        if name in self.on_disk:
            self.path(name).unlink()
            del self.on_disk[name]

    def give(self, names: Sequence[str]) -> list[str]:
        """The paths of those files that exist. From now on they count as read.

        A file all of whose rows are rejected does not; what it gave before still counts.
        """
        names = [name for name in names if name in self.on_disk]
        useless = {name for name in names if self.on_disk[name] and all(map(self.is_bad, self.on_disk[name]))}
        self.fails = bool(useless)
        for name in names:
            if name not in useless:
                self.read[name] = (self.path(name).read_bytes(), self.on_disk[name])
        return [str(self.path(name)) for name in names]

    def is_bad(self, row: Row) -> bool:
        """Whether a row is rejected. An id of the word NULL is no id."""
        cells = dict(zip(self.columns, row, strict=True))
        return cells.get("board_id") == "NULL" or cells.get("count") == 0

    def rows(self) -> list[Any]:
        """Everything that counts, in reading order. Identical contents count once, in the first place."""
        once: dict[bytes, Sequence[Row]] = {}
        for content, rows in self.read.values():
            once.setdefault(content, rows)
        return [row for rows in once.values() for row in rows if not self.is_bad(row)]

    def copied_to(self, folder: Path) -> list[str]:
        """The paths of new files with everything that counts as read now."""
        folder.mkdir(exist_ok=True)
        paths = [folder / self.path(name).name for name in self.read]
        for path, (content, _) in zip(paths, self.read.values(), strict=True):
            path.write_bytes(content)
        return [str(path) for path in paths]


def new_store(folder: Path, name: str = "pins.db") -> sqlite3.Connection:
    conn = open_store(str(folder / name), create=True)
    conn.execute("PRAGMA synchronous = OFF")
    return conn


def table(conn: sqlite3.Connection, name: str) -> dict[str, list[tuple[Any, ...]]]:
    """pin_id -> a tuple per rank, of one of the tables of JSON arrays."""
    return {
        pin_id: list(zip(*map(json.loads, arrays), strict=True))
        for pin_id, *arrays in conn.execute(f"SELECT * FROM {name}")
    }


def titles_of(conn: sqlite3.Connection) -> dict[str, list[tuple[Any, ...]]]:
    assert columns_of(conn, "board_titles") == ["pin_id", "titles", "boards", "scores"]
    return table(conn, "board_titles")


def queries_of(conn: sqlite3.Connection) -> dict[str, list[tuple[Any, ...]]]:
    assert columns_of(conn, "engaged_queries") == [
        "pin_id",
        "queries",
        "engagements",
        "scores",
        "first_dates",
        "last_dates",
    ]
    return table(conn, "engaged_queries")


def columns_of(conn: sqlite3.Connection, name: str) -> list[str]:
    return [column[0] for column in conn.execute(f"SELECT * FROM {name} LIMIT 0").description]


def board_options(folder: Path, choice: TitleChoice) -> BoardOptions:
    """The list of titles that say nothing is always in the same file, and is never empty."""
    path = folder / "generic.txt"
    path.write_text("".join(f"{title}\n" for title in [UNSAID, *sorted(choice.generic)]), encoding="utf-8")
    values = {name: value for name, value in asdict(choice).items() if name != "generic"}
    return BoardOptions(**values, generic_titles=str(path))


def query_options(choice: QueryChoice) -> QueryOptions:
    return QueryOptions(**asdict(choice))


def play(plan: Plan, sources: dict[str, Sources]) -> Iterator[tuple[Step, dict[str, list[str]]]]:
    """For each step: changes the files, yields what the aggregator gets, and removes files."""
    kind_of = {name: name.partition("-")[0] for name in plan.forms}
    for step in plan.steps:
        for name, which in step.writes.items():
            sources[kind_of[name]].write(name, plan.pools[kind_of[name]][which])
        given = {
            kind: files.give([name for name in step.passed if kind_of[name] == kind])
            for kind, files in sources.items()
        }
        if any(given.values()) or any(files.read for files in sources.values()):
            # until then there is nothing to aggregate, which is an error
            yield step, given
        for name in step.gone:
            sources[kind_of[name]].remove(name)


def said_if_useless(sources: dict[str, Sources]) -> AbstractContextManager[Any]:
    """An error is expected, once everything is written, if a file has rows and none of use."""
    fails = any(files.fails for files in sources.values())
    return pytest.raises(SourceError, match=r"nothing of .* could be used") if fails else nullcontext()


def board_sources(folder: Path, plan: Plan) -> dict[str, Sources]:
    return {
        "boards": Sources(folder, BOARD_COLUMNS, plan.forms),
        "saves": Sources(folder, SAVE_COLUMNS, plan.forms),
    }


# --- board titles ---


@RANDOM
@given(plan=board_plans())
def test_board_titles_are_those_of_the_reference_after_every_step(plan: Plan) -> None:
    with tempfile.TemporaryDirectory() as name, closing(new_store(Path(name))) as conn:
        sources = board_sources(Path(name), plan)
        for step, given_paths in play(plan, sources):
            counts = None
            with said_if_useless(sources):
                counts = aggregate_boards(
                    conn, **given_paths, options=board_options(Path(name), step.options)
                )
            boards, saves = sources["boards"].rows(), sources["saves"].rows()
            assert titles_of(conn) == board_titles(boards, saves, step.options)
            assert counts is None or counts["unknown_boards"] == unknown_boards(boards, saves)


@RANDOM
@given(plan=board_plans())
def test_a_new_store_and_a_rebuilt_one_have_the_same_board_titles(plan: Plan) -> None:
    with (
        tempfile.TemporaryDirectory() as name,
        closing(new_store(Path(name))) as conn,
        closing(new_store(Path(name), "new.db")) as new,
    ):
        sources = board_sources(Path(name), plan)
        for step, given_paths in play(plan, sources):
            with said_if_useless(sources):
                aggregate_boards(conn, **given_paths, options=board_options(Path(name), step.options))
        assume(any(files.read for files in sources.values()))  # a rebuild without sources is an error
        expected = titles_of(conn)
        copies = {kind: files.copied_to(Path(name, "copies")) for kind, files in sources.items()}
        options = board_options(Path(name), plan.steps[-1].options)
        aggregate_boards(new, **copies, options=options)
        assert titles_of(new) == expected
        aggregate_boards(conn, **copies, options=options, rebuild=True)
        assert titles_of(conn) == expected


def give_boards(
    conn: sqlite3.Connection,
    folder: Path,
    name: str,
    boards: list[Board],
    saves: list[Save],
    choice: TitleChoice,
) -> None:
    """Writes one more file of each kind."""
    paths = folder / f"boards-{name}.parquet", folder / f"saves-{name}.parquet"
    paths[0].write_bytes(content_of("parquet", BOARD_COLUMNS, boards))
    paths[1].write_bytes(content_of("parquet", SAVE_COLUMNS, saves))
    aggregate_boards(
        conn, boards=[str(paths[0])], saves=[str(paths[1])], options=board_options(folder, choice)
    )


@pytest.mark.parametrize(
    ("share", "known", "uses", "passes"),
    [
        (0.02, 999, 300, True),  # too few boards are known
        (0.02, 1000, 20, True),
        (0.02, 1000, 21, False),
        (0.02, 1049, 21, False),
        (0.02, 1050, 21, True),
        (0.0192, 1250, 24, True),  # 0.0192 * 1250 is a little less than 24 in floating point
        (0.0192, 1250, 25, False),
        (0.07, 1100, 77, True),  # and 0.07 * 1100 a little more than 77
        (0.07, 1100, 78, False),
    ],
)
def test_a_title_of_too_many_boards_is_dropped(
    tmp_path: Path, store: sqlite3.Connection, share: float, known: int, uses: int, passes: bool
) -> None:
    """A board without a title, or with a dropped one, is a known board too. Its words do not count."""
    common: list[Board] = [(f"c{i}", ["Kitchen Ideas", "kitchen ideas!!"][i % 2]) for i in range(uses)]
    others: list[Board] = [
        (f"o{i}", [None, "♡", f"kitchen {i}", "me@example.com"][i % 4]) for i in range(known - uses)
    ]
    boards = [*common, *others]
    saves: list[Save] = [("p", board_id) for board_id, _ in boards[:: len(boards) // 50]] + [
        ("q", "c0"),
        ("q", "c1"),
        ("r", "o2"),
    ]
    choice = TitleChoice(max_board_share=share)
    assert len(known_boards(boards)) == known
    assert ("kitchen ideas" in passed_boards(boards, choice).values()) == passes
    expected = board_titles(boards, saves, choice)
    give_boards(store, tmp_path, "0", boards, saves, choice)
    assert titles_of(store) == expected
    assert ("q" in expected) == passes
    assert "r" in expected


def test_a_title_comes_and_goes_with_the_number_of_known_boards(
    tmp_path: Path, store: sqlite3.Connection
) -> None:
    boards: list[Board] = [(f"c{i}", "Tea") for i in range(21)] + [(f"o{i}", f"cake {i}") for i in range(978)]
    saves: list[Save] = [("p", "c0"), ("q", "o0"), ("q", "c20")]
    kept = []
    for name, more in [
        ("0", []),
        ("1", [("o978", None)]),
        ("2", [(f"n{i}", None) for i in range(50)]),
        ("3", [("n0", "TEA")]),
        ("4", [("c20", "cup")]),
    ]:
        boards += more
        give_boards(
            store,
            tmp_path,
            name,
            boards if name == "0" else more,
            saves if name == "0" else [],
            TitleChoice(),
        )
        expected = board_titles(boards, saves, TitleChoice())
        assert titles_of(store) == expected
        kept.append("p" in expected)
    assert kept == [True, False, True, False, True]  # 21 of 999, of 1,000, of 1,050; 22 of 1,050; 21 of 1,050


def test_boards_of_the_same_normalised_title_pass_or_not_by_their_raw_title(
    tmp_path: Path, store: sqlite3.Connection
) -> None:
    boards: list[Board] = [
        ("1", "me example com"),
        ("2", "me@example.com"),
        ("3", "Me, example: com"),
        ("4", "tea"),
    ]
    saves: list[Save] = [("p", "1"), ("p", "2"), ("p", "3"), ("p", "4"), ("q", "2")]
    give_boards(store, tmp_path, "0", boards, saves, TitleChoice())
    found = titles_of(store)
    assert found == board_titles(boards, saves, TitleChoice())
    assert [title[:2] for title in found["p"]] == [("me example com", 2), ("tea", 1)]
    assert "q" not in found


def test_a_rewritten_file_keeps_its_place_in_the_order_of_reading(
    tmp_path: Path, store: sqlite3.Connection
) -> None:
    """The last row of a board counts: that of the file that was read later, even if the earlier one changes.

    Of two identical files, only the first has a place.
    """
    sources = Sources(tmp_path, BOARD_COLUMNS, dict.fromkeys(BOARD_FILES, "csv"))
    saves = tmp_path / "saves.csv"
    saves.write_bytes(content_of("csv", SAVE_COLUMNS, [("p", "1"), ("p", "2")]))
    tea, mug, cup, pot = ([("1", title)] for title in ("tea", "mug", "cup", "pot"))
    for writes, expected in [
        ({"boards-1": tea, "boards-0": mug}, "mug"),
        ({"boards-1": cup}, "mug"),
        ({"boards-2": pot}, "pot"),
        ({"boards-2": cup}, "mug"),
        ({"boards-1": pot}, "cup"),
        ({"boards-0": pot, "boards-2": mug}, "mug"),
        ({"boards-2": [("2", "tea")]}, "pot"),
    ]:
        for name, rows in writes.items():
            sources.write(name, rows)
        aggregate_boards(
            store,
            boards=sources.give(list(writes)),
            saves=[str(saves)],
            options=board_options(tmp_path, TitleChoice()),
        )
        found = titles_of(store)
        assert found == board_titles(sources.rows(), [("p", "1"), ("p", "2")], TitleChoice())
        assert expected in [title for title, *_ in found["p"]]


# --- engaged queries ---


@RANDOM
@given(plan=log_plans())
def test_engaged_queries_are_those_of_the_reference_after_every_step(plan: Plan) -> None:
    with tempfile.TemporaryDirectory() as name, closing(new_store(Path(name))) as conn:
        log = Sources(Path(name), LOG_COLUMNS, plan.forms)
        for step, given_paths in play(plan, {"log": log}):
            with said_if_useless({"log": log}):
                aggregate_queries(conn, **given_paths, options=query_options(step.options))
            assert queries_of(conn) == engaged_queries(log.rows(), step.options, datetime.now(UTC).date())


@RANDOM
@given(plan=log_plans())
def test_a_new_store_and_a_rebuilt_one_have_the_same_engaged_queries(plan: Plan) -> None:
    with (
        tempfile.TemporaryDirectory() as name,
        closing(new_store(Path(name))) as conn,
        closing(new_store(Path(name), "new.db")) as new,
    ):
        log = Sources(Path(name), LOG_COLUMNS, plan.forms)
        for step, given_paths in play(plan, {"log": log}):
            with said_if_useless({"log": log}):
                aggregate_queries(conn, **given_paths, options=query_options(step.options))
        assume(log.read)  # a rebuild without sources is an error
        expected = queries_of(conn)
        copies, options = log.copied_to(Path(name, "copies")), query_options(plan.steps[-1].options)
        aggregate_queries(new, log=copies, options=options)
        assert queries_of(new) == expected
        aggregate_queries(conn, log=copies, options=options, rebuild=True)
        assert queries_of(conn) == expected


def entry(query: str, day: int, user: str | None = None) -> LogRow:
    return ("p", query, "save", date(2024, 5, day), 1, user)


def test_an_identical_file_counts_for_itself_once_the_first_has_other_content(
    tmp_path: Path, store: sqlite3.Connection
) -> None:
    first, second = tmp_path / "first.csv", tmp_path / "second.csv"
    tea, mug = (
        content_of("csv", LOG_COLUMNS, [entry("tea", 1)]),
        content_of("csv", LOG_COLUMNS, [entry("mug", 2)]),
    )
    for contents, expected in [
        ((tea, tea), {"tea": 1}),
        ((mug, tea), {"mug": 1, "tea": 1}),
        ((mug, mug), {"mug": 1}),
        ((tea, mug), {"tea": 1, "mug": 1}),
    ]:
        for path, content in zip((first, second), contents, strict=True):
            path.write_bytes(content)
        aggregate_queries(store, log=[str(first), str(second)], options=QueryOptions(as_of=date(2024, 5, 9)))
        assert {query: n for query, n, *_ in queries_of(store)["p"]} == expected


def test_timestamps_become_days_in_utc(tmp_path: Path, store: sqlite3.Connection) -> None:
    log = tmp_path / "log.jsonl"
    times = {
        "late": "2024-05-01T23:30:00-02:00",
        "early": "2024-05-01T00:30:00+02:00",
        "noon": "2024-05-01T12:00:00Z",
        "day": "2024-05-01",
    }
    log.write_text(
        "".join(
            json.dumps({"pin_id": query, "query": query, "action": "save", "date": when}) + "\n"
            for query, when in times.items()
        )
    )
    aggregate_queries(store, log=[str(log)], options=QueryOptions(as_of=date(2024, 5, 2)))
    assert {pin_id: ranks[0][4] for pin_id, ranks in queries_of(store).items()} == {
        "late": "2024-05-02",
        "early": "2024-04-30",
        "noon": "2024-05-01",
        "day": "2024-05-01",
    }


@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_files_without_rows_and_a_rebuild_leave_empty_tables(
    tmp_path: Path, store: sqlite3.Connection, form: str
) -> None:
    full: dict[str, tuple[Sequence[str], list[Row]]]
    full = {
        "boards": (BOARD_COLUMNS, [("1", "Tea")]),
        "saves": (SAVE_COLUMNS, [("p", "1")]),
        "log": (LOG_COLUMNS, [entry("tea", 1)]),
    }
    paths = {kind: [str(tmp_path / f"{kind}.{form}")] for kind in full}
    empty = {kind: [str(tmp_path / f"no-{kind}.{form}")] for kind in full}
    for kind, (columns, rows) in full.items():
        Path(paths[kind][0]).write_bytes(content_of(form, columns, rows))
        Path(empty[kind][0]).write_bytes(content_of(form, columns, []))
    for given_paths, rebuild, found in [
        (empty, False, set()),
        (paths, False, {"p"}),
        (empty, False, {"p"}),
        (empty, True, set()),
    ]:
        aggregate_boards(
            store,
            boards=given_paths["boards"],
            saves=given_paths["saves"],
            options=board_options(tmp_path, TitleChoice()),
            rebuild=rebuild,
        )
        aggregate_queries(
            store, log=given_paths["log"], options=query_options(QueryChoice()), rebuild=rebuild
        )
        assert set(titles_of(store)) == set(queries_of(store)) == found
