"""Numbers with their nouns, and lines of 80 columns."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pincaption.common.terminal import TIED, nouns, plural, wrapped

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("n", "noun", "shown"),
    [
        (0, "row", "0 rows"),
        (1, "row", "1 row"),
        (2, "row", "2 rows"),
        (2401, "engaged query", "2,401 engaged queries"),
        (1, "query", "1 query"),
        (3, "day", "3 days"),
    ],
)
def test_a_number_goes_with_its_noun(n: int, noun: str, shown: str) -> None:
    assert plural(n, noun) == shown
    assert shown.endswith(nouns(n, noun))
    assert plural(2, "stratum", "strata") == "2 strata"


# `{n:,} rows` says "1 rows" one day. Limits, sums over many, and sentences that begin with "all" may.
_COUNTED = re.compile(
    r"""f["'].*\{[^{}]*:,\} (?:[a-z]+ )?(?:rows|pins|files|images|cells|captions|queries)\b"""
)
_MANY = re.compile(r"more than|MAX_|all \{n:,\} rows|of \{n:,\} rows")


def test_no_sentence_counts_without_the_helper() -> None:
    lines = [
        f"{path.relative_to(ROOT)}: {line.strip()}"
        for room in ROOT.glob("*/__init__.py")
        for path in room.parent.glob("*.py")
        for line in path.read_text(encoding="utf-8").splitlines()
        if _COUNTED.search(line) and not _MANY.search(line)
    ]
    assert lines == [], "use plural of common/terminal.py"


@given(st.lists(st.text("abc-/", min_size=1, max_size=30), min_size=1))
def test_lines_are_at_most_80_wide_where_blanks_allow_it(words: list[str]) -> None:
    text = " ".join(" ".join(words).split())
    lines = wrapped(text).splitlines()
    assert " ".join(line.removeprefix("  ") if i else line for i, line in enumerate(lines)) == text
    assert all(len(line) <= 80 or " " not in line.strip() for line in lines)


def test_tied_words_stay_together() -> None:
    tied = TIED.join(["title", "from", "Name"])
    lines = wrapped(", ".join([tied] * 20)).splitlines()
    assert len(lines) > 3
    assert all(
        line.strip().rstrip(",").split(", ") == ["title from Name"] * line.count("title") for line in lines
    )
    assert max(map(len, lines)) <= 80
