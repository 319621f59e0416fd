"""The boards of the drawn world, and which pins people save to them."""

from __future__ import annotations

import random
from datetime import date, timedelta
from typing import Any

from .chance import random_moment, uneven_choice
from .draw import BACKGROUNDS, COLOURS, THINGS
from .pins import LAST_DAY, DrawnPin

SAVES_PER_PIN = 12

# A board collects pins by words (see `DrawnPin.words`). Titles with the words that they collect:
_TOPICS: tuple[tuple[str, str], ...] = (
    ("kitchen", "mug fish lamp"),
    ("cozy corner", "mug book lamp"),
    ("reading nook", "book lamp"),
    ("garden", "flower tree house"),
    ("by the sea", "boat fish"),
    ("nursery wall", "star ball car heart"),
    ("christmas", "tree star"),
    ("valentine's day", "heart flower"),
    ("road trip", "car tree house"),
    ("toys", "car ball boat"),
    ("dream home", "house lamp tree"),
    ("coffee & tea", "mug"),
    ("books to read", "book"),
    ("pairs", "pair"),
    ("rule of three", "three"),
    ("Tazas bonitas", "mug"),
    ("Rote Sachen", "red"),
    ("Bateaux", "boat"),
    ("Blumen", "flower"),
    ("Bücher", "book"),
    ("cosas azules", "blue"),
    ("Häuser", "house"),
    ("Corações", "heart"),
    ("Sterne", "star"),
    ("赤いもの", "red"),
    ("本", "book"),
    ("цветы", "flower"),
    ("yeşil şeyler", "green"),
    ("peces", "fish"),
    ("Voitures", "car"),
)
# Titles of boards that collect anything.
_ANYTHING = (
    "my stuff",
    "misc",
    "random",
    "favorites",
    "Drawings I like",
    "wall art",
    "for later",
    "ideas",
    "Prints",
    "cute drawings",
    "things i love",
    "Stuff",
    "inspo",
    "art",
)
# Titles about a thing, and titles about a colour.
_ABOUT_THINGS = (
    "{x}",
    "{x}s",
    "{x} ideas",
    "my {x}s",
    "cute {x}s",
    "{x} drawings",
    "all the {x}s",
    "{x} love",
    "{x} art prints",
)
_ABOUT_COLOURS = (
    "{x}",
    "{x} things",
    "everything {x}",
    "{x} aesthetic",
    "shades of {x}",
    "{x} & co",
    "{x} decor",
    "{x} drawings",
)
# What people add at the end of a title.
_FLOURISHES = ("", "", "", "", " ❤", "!!", " ✨", " :)", "...", " 🌸", " ♡", " ~")


def make_boards(
    pins: list[DrawnPin], rng: random.Random
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The rows of boards.parquet, and those of the saves, in order of time."""
    owners = [f"user-{i:03d}" for i in range(max(20, len(pins) // 2))]
    n = min(1200, max(40, len(pins) * 3 // 2))
    weights = [1 / (rank + 8) for rank in range(n)]  # of the boards' sizes
    rng.shuffle(weights)
    boards, saves = list[dict[str, Any]](), list[dict[str, Any]]()
    for i in range(n):
        title, words = _theme(rng)
        board: dict[str, Any] = {
            "board_id": f"board-{i + 1:04d}",
            "title": _as_people_type(title, rng),
            "owner_id": uneven_choice(owners, rng),
            "created_at": random_moment(rng, date(2023, 1, 1), date(2026, 4, 30)),
        }
        boards.append(board)
        size = max(1, round(weights[i] / sum(weights) * len(pins) * SAVES_PER_PIN))
        saves += _saves(board, words, size, pins, owners, rng)
    return boards, sorted(saves, key=lambda save: (save["saved_at"], save["pin_id"], save["board_id"]))


def _saves(
    board: dict[str, Any],
    words: frozenset[str],
    size: int,
    pins: list[DrawnPin],
    owners: list[str],
    rng: random.Random,
) -> list[dict[str, Any]]:
    """Saves of about `size` pins that fit the words of a board."""
    fitting = [pin for pin in pins if not words or words & pin.words] or pins
    # A weighted sample without replacement (Efraimidis and Spirakis, 2006): popular pins come first, with
    # luck.
    fitting.sort(key=lambda pin: rng.random() ** (1 / pin.popularity), reverse=True)
    saves = []
    for pin in fitting[:size]:
        if rng.random() < 0.05:
            pin = rng.choice(pins)  # saved to the wrong board
        user = board["owner_id"] if rng.random() < 0.9 else uneven_choice(owners, rng)
        for _ in range(2 if rng.random() < 0.02 else 1):  # some pins are saved twice
            first_day = max(pin.created_at, board["created_at"]).date() + timedelta(days=1)
            saves.append(
                {
                    "pin_id": pin.pin_id,
                    "board_id": board["board_id"],
                    "user_id": user,
                    "saved_at": random_moment(rng, first_day, LAST_DAY),
                }
            )
    return saves


def _theme(rng: random.Random) -> tuple[str, frozenset[str]]:
    """The title of a board and the words that it collects pins by. Without words it collects anything."""
    kind, colour, noun = rng.random(), rng.choice(list(COLOURS)), rng.choice(list(THINGS))
    words: list[str] = []
    if kind < 0.25:
        title, words = rng.choice(_ABOUT_THINGS).format(x=noun).replace("fishs", "fish"), [noun]
    elif kind < 0.40:
        title, words = rng.choice(_ABOUT_COLOURS).format(x=colour), [colour]
    elif kind < 0.48:
        title, words = f"{colour} {noun}s".replace("fishs", "fish"), [f"{colour} {noun}"]
    elif kind < 0.54:
        background = rng.choice(BACKGROUNDS)
        title, words = rng.choice(("{x} backgrounds", "{x} wallpaper")).format(x=background), [background]
    elif kind < 0.85:
        title, collected = rng.choice(_TOPICS)
        words = collected.split()
    else:
        title = rng.choice(_ANYTHING)
    return title, frozenset(words)


def _as_people_type(title: str, rng: random.Random) -> str:
    """The title in some case, with decoration, now and then with an e-mail address."""
    title = rng.choice((str, str, str.title, str.capitalize, str.capitalize, str.lower, str.upper))(title)
    if rng.random() < 0.08:
        frame = rng.choice(("♡ {} ♡", " {}", "{}  ", "* {} *", "-{}-", "{} (ask mia@example.org)"))
        title = frame.format(title)
    return title + rng.choice(_FLOURISHES)
