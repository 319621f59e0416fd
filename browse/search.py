"""The page of `captioner browse --model`: what a query finds without captions and with them, side by side."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..common.errors import PincaptionError
from .overview import TEXTS

if TYPE_CHECKING:
    from ..embed.comparison import Compared, Comparison
    from ..embed.hits import Hit

MAX_QUERY = 200  # characters
MAX_WAITING = 20  # searches: of more, visitors are asked to come back
KEPT = 100  # answers that are not computed again
VIEWS = {"both": "Side by side", "without": "Without captions", "with": "With captions"}
OWN = ("title", "description")
# Fields of an item by the names that people see, each with the CSS class of its colour.
FIELDS = {
    "title": ("own text", TEXTS["own text"]),
    "description": ("own text", TEXTS["own text"]),
    "caption": ("caption", TEXTS["caption"]),
    "board_titles": ("board titles", TEXTS["board titles"]),
    "engaged_queries": ("queries", TEXTS["queries"]),
}
ADDED = {"caption": "captions", "board_titles": "board titles", "engaged_queries": "queries"}  # in headings


class TooManySearchesError(PincaptionError):
    """More searches wait than a visitor would want to wait for."""


class SearchDesk:
    """Answers queries one after the other, in a thread of its own: the server goes on meanwhile."""

    def __init__(self, comparison: Comparison):
        """Also looks for queries to offer, which takes seconds."""
        self.comparison = comparison
        self.examples = comparison.examples()
        self.added = comparison.added
        self._thread = ThreadPoolExecutor(1, "search")
        self._answers: OrderedDict[str, Compared] = OrderedDict()
        self._waiting = 0

    async def ask(self, query: str) -> Compared:
        """The answer to a query.

        Raises PincaptionError for one that is too long or has no words, and if too many searches wait.
        """
        if len(query) > MAX_QUERY:
            raise PincaptionError(f"the query is too long: it may have {MAX_QUERY} characters")
        if query in self._answers:
            self._answers.move_to_end(query)
            return self._answers[query]
        if self._waiting >= MAX_WAITING:
            raise TooManySearchesError("too many people search at this moment: try it again soon")
        self._waiting += 1
        try:
            found = await asyncio.get_running_loop().run_in_executor(
                self._thread, self.comparison.find, query
            )
        finally:
            self._waiting -= 1
        self._answers[query] = found
        while len(self._answers) > KEPT:
            self._answers.popitem(last=False)
        return found


@dataclass(frozen=True)
class Card:
    """A hit as the page shows it."""

    rank: int
    pin_id: str
    known: bool  # False: the store does not have the pin, so there is no page about it
    picture: str | None  # the digest of its thumbnail
    own: str | None  # its title or description, or None for a pin without
    caption: str | None  # if the pin has no text of its own, or was found by its caption alone
    category: str | None
    no_own_text: bool
    by_caption_alone: bool
    why: list[tuple[str, list[tuple[str, str]]]]  # (words of the query, [(CSS class, name) of a field])


@dataclass(frozen=True)
class ShownSide:
    """One side of the page."""

    view: str  # "without" or "with"
    heading: str
    about: str
    found: int
    silent: int
    kinds: dict[str, list[Card]]  # {"Pins": cards, "Products": cards}


def sides(
    found: Compared, view: str, added: Sequence[str], about: Mapping[str, Mapping[str, Any]]
) -> list[ShownSide]:
    """The sides that a view shows.

    `added`: the fields that only the second search reads. `about` {pin_id: row of the query SHOWN} is what
    the copy has of the hits.
    """
    shown = []
    for name, side, heading, said in (
        ("without", found.without, VIEWS["without"], "Only what people wrote: titles and descriptions."),
        ("with", found.enriched, *_headings(added)),
    ):
        if view in ("both", name):
            kinds = {
                f"{kind}s".capitalize(): [
                    _card(hit, about.get(hit.pin_id, {}), hit.pin_id in side.no_own_text, name)
                    for hit in hits
                ]
                for kind, hits in side.hits.items()
            }
            shown.append(ShownSide(name, heading, said, side.found, side.silent, kinds))
    return shown


def _headings(added: Sequence[str]) -> tuple[str, str]:
    """(heading, explanation) of the side with all texts."""
    if not added:
        return "With captions", "The same: this model was trained on what people wrote alone."
    names = [ADDED[field] for field in added]
    listed = f"{', '.join(names[:-1])} and {names[-1]}" if len(names) > 1 else names[0]
    return f"With {listed}", "The same query, the same model, more texts."


def _card(hit: Hit, row: Mapping[str, Any], no_own_text: bool, view: str) -> Card:
    own = row.get("title") or row.get("description")
    if not row and hit.text_from in OWN:  # the pin has left the store
        own = hit.text
    caption = row.get("caption") or (hit.text if hit.text_from == "caption" else None)
    words: dict[tuple[str, ...], list[str]] = {}  # words that are in the same fields stand together
    for word, fields in hit.matches.items():
        words.setdefault(tuple(fields), []).append(word)
    return Card(
        rank=hit.rank,
        pin_id=hit.pin_id,
        known=bool(row),
        picture=row.get("picture"),
        own=None if no_own_text else own,
        caption=caption if view == "with" and (no_own_text or hit.by_caption_alone) else None,
        category=hit.category,
        no_own_text=no_own_text,
        by_caption_alone=hit.by_caption_alone,
        why=[(", ".join(found), _named(fields)) for fields, found in words.items()],
    )


def _named(fields: Sequence[str]) -> list[tuple[str, str]]:
    """(CSS class, name) of each field; title and description are one, the own text."""
    named = (FIELDS.get(field, (field.replace("_", " "), TEXTS["own text"])) for field in fields)
    return list(dict.fromkeys((what, name) for name, what in named))
