"""docs/glossary.md: one line a word, in order, and the words that newcomers stumble over are there."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ROWS = re.findall(
    r"^\| (.+?) \| (.+) \|$", (ROOT / "docs" / "glossary.md").read_text(encoding="utf-8"), re.M
)[1:]
WORDS = {word for words, _ in ROWS for word in re.split(r", | \(|\)", words)}


def test_words_are_in_order_and_each_stands_once() -> None:
    first = [words.lower() for words, _ in ROWS if not words.startswith("---")]
    assert first == sorted(first)
    assert len(first) == len(set(first))


@pytest.mark.parametrize(
    "word",
    [
        "recipe",
        "partials",
        "logQ correction",
        "AC1",
        "ranked anew",
        "slice",
        "shard",
        "tower",
        "strata",
        "dtype",
        "token",
        "prompt",
        "n-gram",
        "epoch",
    ],
)
def test_jargon_of_help_and_readme_is_explained(word: str) -> None:
    assert word in WORDS


def test_the_readme_leads_there() -> None:
    assert "(docs/glossary.md)" in (ROOT / "README.md").read_text(encoding="utf-8")
