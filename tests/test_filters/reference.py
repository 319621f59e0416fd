"""Board titles and engaged queries in plain Python: a slow reference, straight from the formulas.

The tests compare the aggregations with it.
"""

import math
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta
from fractions import Fraction

APOSTROPHES = "\u0027\u2019\uff07\u02bc"
PERSONAL = r"\S+@\S+\.\S+|(?i:https?://|www\.)|\+?\d(?:[\s()./\u2010-\u2015\u2212-]{0,3}\+?\d){8,}"

Board = tuple[str, str | None]  # board_id, title
Save = tuple[str, str]  # pin_id, board_id
LogRow = tuple[str, str, str, date, int, str | None]  # pin_id, query, action, date, count, user_id
RankedTitle = tuple[str, int, float]  # title, boards, score
RankedQuery = tuple[str, int, float, str, str]  # query, engagements, score, first date, last date


@dataclass(frozen=True)
class TitleChoice:
    top: int = 10
    min_boards: int = 1
    max_board_share: float = 0.02
    min_chars: int = 2
    max_chars: int = 60
    max_words: int = 10
    generic: frozenset[str] = frozenset()


@dataclass(frozen=True)
class QueryChoice:
    as_of: date | None = None
    window_days: int = 730
    top: int = 20
    weights: dict[str, float] = field(default_factory=lambda: {"save": 1.0, "long_click": 1.0, "click": 0.25})
    min_engagements: int = 1
    min_users: int = 1
    max_per_user: int | None = None
    max_share_per_user: float | None = None


def normalise(text: str) -> str:
    text = "".join(c for c in text if unicodedata.category(c) != "Cf")
    text = unicodedata.normalize("NFKC", text)
    text = unicodedata.normalize("NFKC", text.casefold())
    kept = ""
    for i, c in enumerate(text):
        if c in APOSTROPHES:
            before = text[i - 1] if i > 0 else " "
            after = text[i + 1] if i + 1 < len(text) else " "
            inside = (
                _is(before, "LMN")
                and before not in APOSTROPHES
                and _is(after, "L")
                and after not in APOSTROPHES
            )
            kept += "'" if inside else " "
        elif _is(c, "LMN"):
            kept += c
        else:
            kept += " "
    while "  " in kept:
        kept = kept.replace("  ", " ")
    return kept.strip(" ")


def _is(character: str, classes: str) -> bool:
    return unicodedata.category(character)[0] in classes


def personal(text: str) -> bool:
    """Without the numbers of goods that common/personal.py lets pass: no text here is one."""
    seen = "".join(c for c in text if unicodedata.category(c) != "Cf")
    return any(re.search(PERSONAL, t) for t in (text, unicodedata.normalize("NFKC", seen)))


def title_reason(raw: str | None, options: TitleChoice) -> str | None:
    """Why a title is dropped, whatever other boards are called; None if it is not."""
    title = normalise(raw or "")
    if title == "" or all(character in "\ufe0e\ufe0f\u20e3 " for character in title):
        # a title of emoji alone counts as empty, which the formula does not say
        return "empty"
    if personal(raw or ""):
        return "personal"
    if len(title) < options.min_chars:
        return "short"
    if len(title) > options.max_chars:
        return "long"
    if len(title.split(" ")) > options.max_words:
        return "words"
    if title in {normalise(entry) for entry in options.generic}:
        return "generic"
    return None


def known_boards(boards: Iterable[Board]) -> dict[str, str | None]:
    """board_id -> raw title. The last row of a board counts."""
    known: dict[str, str | None] = {}
    for board_id, raw in boards:
        known[board_id] = raw
    return known


def passed_boards(boards: Iterable[Board], options: TitleChoice) -> dict[str, str]:
    """board_id -> normalised title, of the boards whose title passed every filter."""
    known = known_boards(boards)
    passed = {
        board_id: normalise(raw or "")
        for board_id, raw in known.items()
        if title_reason(raw, options) is None
    }
    if len(known) < 1000:
        return passed
    limit = Fraction(str(options.max_board_share)) * len(known)
    uses = Counter(passed.values())
    return {board_id: title for board_id, title in passed.items() if uses[title] <= limit}


def board_titles(
    boards: Sequence[Board], saves: Sequence[Save], options: TitleChoice
) -> dict[str, list[RankedTitle]]:
    passed = passed_boards(boards, options)
    uses = Counter(passed.values())  # boards(t)
    df = Counter(word for title in passed.values() for word in set(title.split(" ")))
    holding: dict[str, dict[str, set[str]]] = {}  # pin -> title -> boards
    for pin_id, board_id in saves:
        if board_id in passed:
            holding.setdefault(pin_id, {}).setdefault(passed[board_id], set()).add(board_id)
    result = {}
    for pin_id, titles in holding.items():
        found = []
        for title, board_ids in titles.items():
            n = len(board_ids)
            if n < options.min_boards:
                continue
            words = set(title.split(" "))
            idf = math.fsum(math.log(1 + len(passed) / df[word]) for word in words) / len(words)
            found.append((title, n, n * idf * uses[title] / (uses[title] + 2)))
        found.sort(key=lambda item: (-rank(item[2]), -len(item[0].split(" ")), -len(item[0]), item[0]))
        if found:
            result[pin_id] = [(title, n, six_digits(score)) for title, n, score in found[: options.top]]
    return result


def rank(score: float) -> int:
    return round(math.log(score) * 1e9)


def six_digits(score: float) -> float:
    return float(f"{score:.6g}")


def unknown_boards(boards: Sequence[Board], saves: Sequence[Save]) -> int:
    known = known_boards(boards)
    return len({(pin_id, board_id) for pin_id, board_id in saves if board_id not in known})


def engaged_queries(
    rows: Sequence[LogRow], options: QueryChoice, today: date
) -> dict[str, list[RankedQuery]]:
    readable = [row for row in rows if row[4] >= 1]  # "a bad row (... count below 1)"
    as_of = options.as_of
    if as_of is None:
        as_of = max((row[3] for row in readable if row[3] <= today), default=None)
    if as_of is None:
        return {}
    groups: dict[tuple[str, str], list[LogRow]] = {}
    for row in readable:
        pin_id, raw, action, day, _, _ = row
        query = normalise(raw)
        if query == "" or len(query) > 100 or personal(raw):
            continue
        if as_of - timedelta(days=options.window_days) < day <= as_of and weight_of(action, options) > 0:
            groups.setdefault((pin_id, query), []).append(row)
    found: dict[str, list[tuple[str, int, Fraction, date, date]]] = {}
    for (pin_id, query), group in groups.items():
        score, engagements = capped(group, options)
        days = [day for _, _, _, day, _, _ in group]
        users = {user for _, _, _, _, _, user in group if user}
        if engagements < options.min_engagements or (
            options.min_users > 1 and len(users) < options.min_users
        ):
            continue
        if score > 0:
            found.setdefault(pin_id, []).append((query, engagements, score, min(days), max(days)))
    result = {}
    for pin_id, queries in found.items():
        queries.sort(key=lambda item: (-rank(float(item[2])), -item[4].toordinal(), item[0]))
        result[pin_id] = [
            (query, n, six_digits(float(score)), first.isoformat(), last.isoformat())
            for query, n, score, first, last in queries[: options.top]
        ]
    return result


def weight_of(action: str, options: QueryChoice) -> Fraction:
    """The weight of an action, in whatever way it is spelled."""
    plain = "".join(c for c in action.lower() if c.isalnum())
    for name, weight in options.weights.items():
        if name.replace("_", "") == plain:
            return Fraction(str(weight))
    return Fraction(0)


def capped(group: Sequence[LogRow], options: QueryChoice) -> tuple[Fraction, int]:
    """Score and engagements of a query of a pin, after what one user can do was bounded."""
    of_user: dict[str, list[Fraction]] = {}  # user -> the weight of each engagement
    for _, _, action, _, count, user in group:
        of_user.setdefault(user or "", []).extend([weight_of(action, options)] * count)
    for user, weights in of_user.items():
        if user and options.max_per_user is not None:
            of_user[user] = sorted(weights, reverse=True)[: options.max_per_user]
    scores = {user: sum(weights, Fraction(0)) for user, weights in of_user.items()}
    engagements = sum(map(len, of_user.values()))
    if options.max_share_per_user is not None:
        share = Fraction(str(options.max_share_per_user))
        unknown = scores.pop("", Fraction(0))
        limit = max(scores.values(), default=Fraction(0))
        # Users are cut to a share of what is left, again and again, until nobody has more.
        for _ in range(2000):
            smaller = share * (unknown + sum((min(score, limit) for score in scores.values()), Fraction(0)))
            if smaller >= limit:
                break
            limit = Fraction(float(smaller))
        decimals = [len(str(weight).partition(".")[2].rstrip("0")) for weight in options.weights.values()]
        unit = Fraction(1, 10 ** max(decimals))  # scores are whole numbers of it; a cut is rounded down
        whole_limit = Fraction(math.floor(float(limit / unit) + 1e-6)) * unit
        cut = [min(score, whole_limit) if score > limit else score for score in scores.values()]
        return unknown + sum(cut, Fraction(0)), engagements
    return sum(scores.values(), Fraction(0)), engagements
