"""Controls."""

from __future__ import annotations

from typing import Literal

MOST_OWN_WORDS = 5  # of a query that is made of an item's own words
RANDOM_WORDS = 1_000  # that there are
# another item's text: always the same one's, or another one's each time; words that say nothing
Control = Literal["shuffled", "reshuffled", "random words"]
