"""The slow reference, compared with the words of the design and with results computed by hand."""

import math
from datetime import date
from fractions import Fraction

import pytest

from .reference import (
    Board,
    LogRow,
    QueryChoice,
    TitleChoice,
    board_titles,
    engaged_queries,
    normalise,
    passed_boards,
    personal,
    title_reason,
    unknown_boards,
)

TODAY = date(2026, 5, 10)


@pytest.mark.parametrize(
    ("raw", "normal"),
    [
        ("Kitchen!!  IDEAS", "kitchen ideas"),
        ("Women’s Shoes", "women's shoes"),
        ("80's", "80's"),
        ("♡ Tea Time! ♡", "tea time"),
        ("women\uff07s", "women's"),
        ("o\u02bcclock", "o'clock"),
        ("'tis the mothers' day", "tis the mothers day"),
        ("5'7", "5 7"),
        ("a''b", "a b"),
        ("a'\u02bcb", "a b"),
        ("cafe\u0301's", "café's"),
        ("CAFÉ", "café"),
        ("te\u200da\u00ad", "tea"),
        ("ﬁne ＴＥＡ", "fine tea"),
        ("Straße", "strasse"),
        ("ΣΑΣ", "σασ"),
        ("Isı", "isı"),
        ("İs", "i\u0307s"),
        ("snake_case-word", "snake case word"),
        ("चाय, शाम", "चाय शाम"),
        ("👩\u200d👩\u200d👧 ♡", ""),
        ("", ""),
    ],
)
def test_normalising(raw: str, normal: str) -> None:
    assert normalise(raw) == normal
    assert normalise(normal) == normal


@pytest.mark.parametrize(
    "text",
    [
        "me@example.com",
        "see https://x",
        "http://",
        "my www.tea",
        "call +1-555-123-4567",
        "123456789",
        "٠١٢٣٤٥٦٧٨",
        "1-2-3-4-5-6-7-8-9",
        "WWW.tea",
        "+1 (555) 123-4567",
        "12345\u200b6789",
    ],
)
def test_personal_data(text: str) -> None:
    assert personal(text)


@pytest.mark.parametrize(
    "text",
    [
        "me @ home",
        "me@home",
        "12345678",
        "2024-05-01",
        "1234, 56789",
        "https example com",
    ],
)
def test_no_personal_data(text: str) -> None:
    assert not personal(text)


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (None, "empty"),
        ("♡", "empty"),
        ("me@example.com", "personal"),
        ("a!", "short"),
        ("ab", None),
        ("x" * 60, None),
        ("x" * 61, "long"),
        ("a b c d e f g h i j", None),
        ("a b c d e f g h i j k", "words"),
        ("MY stuff", "generic"),
    ],
)
def test_reasons(raw: str | None, reason: str | None) -> None:
    assert title_reason(raw, TitleChoice(generic=frozenset({"My Stuff!"}))) == reason


def test_three_boards_with_two_titles() -> None:
    boards: list[Board] = [("1", "Kitchen Ideas"), ("2", "kitchen ideas!!"), ("3", "Tea")]
    saves = [
        ("p", "1"),
        ("p", "2"),
        ("p", "3"),
        ("p", "3"),
        ("q", "2"),
        ("q", "3"),
        ("r", "4"),
        ("r", "4"),
        ("p", "4"),
    ]
    # B = 3; df(kitchen) = df(ideas) = 2, df(tea) = 1; idf: ln 2.5 = 0.9162907, ln 4 = 1.3862944; boards /
    # (boards + 2): 2/4, 1/3
    assert board_titles(boards, saves, TitleChoice()) == {
        "p": [("kitchen ideas", 2, 0.916291), ("tea", 1, 0.462098)],
        "q": [("tea", 1, 0.462098), ("kitchen ideas", 1, 0.458145)],
    }
    assert board_titles(boards, saves, TitleChoice(top=1)) == {
        "p": [("kitchen ideas", 2, 0.916291)],
        "q": [("tea", 1, 0.462098)],
    }
    assert board_titles(boards, saves, TitleChoice(min_boards=2)) == {"p": [("kitchen ideas", 2, 0.916291)]}
    assert unknown_boards(boards, saves) == 2
    # Without "tea" only two boards pass, so B = 2 and idf = ln 2 = 0.6931472; n is 2 for p, 1 for q.
    assert board_titles(boards, saves, TitleChoice(generic=frozenset({"TEA"}))) == {
        "p": [("kitchen ideas", 2, 0.693147)],
        "q": [("kitchen ideas", 1, 0.346574)],
    }


def test_the_words_of_a_title_count_once_for_its_idf_and_the_last_row_of_a_board_wins() -> None:
    boards: list[Board] = [("1", "Old"), ("2", "tea"), ("1", "tea tea cake")]
    # B = 2; df(tea) = 2, df(cake) = 1; idf = (ln 2 + ln 3) / 2 = ln(6) / 2 = 0.8958797, times 1 * 1/3
    assert board_titles(boards, [("p", "1")], TitleChoice()) == {"p": [("tea tea cake", 1, 0.298627)]}
    assert board_titles([*boards, ("1", None)], [("p", "1")], TitleChoice()) == {}
    assert unknown_boards([*boards, ("1", None)], [("p", "1")]) == 0


def test_equal_scores_go_by_words_then_length_then_title() -> None:
    boards: list[Board] = [("1", "teapot"), ("2", "tea pot"), ("3", "bb"), ("4", "aa"), ("5", "z z")]
    saves = [("p", board_id) for board_id, _ in boards]
    score = float(f"{math.log(6) / 3:.6g}")
    assert score == 0.597253
    assert board_titles(boards, saves, TitleChoice()) == {
        "p": [(title, 1, score) for title in ("tea pot", "z z", "teapot", "aa", "bb")]
    }


@pytest.mark.parametrize(
    ("known", "uses", "passes"),
    [(999, 21, True), (1000, 20, True), (1000, 21, False), (1050, 21, True), (1049, 21, False)],
)
def test_the_share_of_boards(known: int, uses: int, passes: bool) -> None:
    assert Fraction("0.02") * 1050 == 21
    boards: list[Board] = [(str(i), "Tea") for i in range(uses)] + [
        (str(i), None) for i in range(uses, known)
    ]
    assert len(passed_boards(boards, TitleChoice())) == (uses if passes else 0)


def row(query: str, action: str, day: int, count: int = 1, user: str | None = None) -> LogRow:
    return ("p", query, action, date(2026, 5, day), count, user)


def test_queries_by_hand() -> None:
    rows = [
        row("Tea!", "save", 1, 2, "u"),
        row("tea", "click", 5, 3, "v"),
        row("tea", "view", 6, 50),
        row("mug", "long_click", 3),
        row("cup", "click", 4, 4),
        row("♡", "save", 9),
    ]
    # The newest readable row is of the 9th, whose query is empty. tea: 2 * 1 + 3 * 0.25; mug: 1; cup: 4 *
    # 0.25, later than mug.
    tea, cup, mug = (
        ("tea", 5, 2.75, "2026-05-01", "2026-05-05"),
        ("cup", 4, 1.0, "2026-05-04", "2026-05-04"),
        ("mug", 1, 1.0, "2026-05-03", "2026-05-03"),
    )
    assert engaged_queries(rows, QueryChoice(), TODAY) == {"p": [tea, cup, mug]}
    assert engaged_queries(rows, QueryChoice(top=2), TODAY) == {"p": [tea, cup]}
    assert engaged_queries(rows, QueryChoice(min_engagements=5), TODAY) == {"p": [tea]}
    assert engaged_queries(rows, QueryChoice(min_users=2), TODAY) == {"p": [tea]}
    assert engaged_queries(rows, QueryChoice(min_users=3), TODAY) == {}
    assert engaged_queries(rows, QueryChoice(weights={"view": 0.1}), TODAY) == {
        "p": [("tea", 50, 5.0, "2026-05-06", "2026-05-06")]
    }


def test_the_window_has_its_last_day_and_not_the_day_before_its_first() -> None:
    rows = [row("tea", "save", day) for day in (1, 2, 3, 4, 5)]
    assert engaged_queries(rows, QueryChoice(as_of=date(2026, 5, 4), window_days=2), TODAY) == {
        "p": [("tea", 2, 2.0, "2026-05-03", "2026-05-04")]
    }
    assert engaged_queries(rows, QueryChoice(window_days=1), TODAY) == {
        "p": [("tea", 1, 1.0, "2026-05-05", "2026-05-05")]
    }
    assert engaged_queries(rows, QueryChoice(window_days=1), date(2026, 5, 3)) == {
        "p": [("tea", 1, 1.0, "2026-05-03", "2026-05-03")]
    }
    assert engaged_queries(rows, QueryChoice(), date(2026, 4, 30)) == {}


def test_rows_without_use() -> None:
    rows = [
        row("x" * 100, "save", 1),
        row("x" * 101, "save", 1),
        row("me@example.com", "save", 1),
        row("tea", "save", 2, 0),
    ]
    assert engaged_queries(rows, QueryChoice(window_days=1), TODAY) == {
        "p": [("x" * 100, 1, 1.0, "2026-05-01", "2026-05-01")]
    }
