"""A small catalogue that the project draws itself: pins, boards, saves and a query log, for `captioner demo`
and for tests.

What people save and search for depends on what the pictures show, so that titles and queries found for a pin
can be judged by looking at it. Nothing comes from a third party, no person or address is real, and the same
seed gives the same files.
"""

from __future__ import annotations

import functools
import itertools
import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, time, timedelta
from io import BytesIO
from pathlib import Path
from typing import Any

from ..common.files import whole
from .draw import BACKGROUNDS, COLOURS, THINGS, Scene, draw, random_scene

LAST_DAY = date(2026, 6, 30)
LOG_DAYS = 30
SAVES_PER_PIN, SEARCHES_PER_PIN = 12, 18
MARKER = "drawn-by-captioner.txt"
_NOTE = "The images and tables in this folder were drawn by captioner and can be deleted. They show nobody and belong to nobody.\n"

_JUNK = (
    "N/A",
    "No description available",
    "IMG_{n}.JPG",
    "https://example.com/p/{n}",
    "❤️✨",
    "untitled",
    "DSC0{n}.jpg",
    "...",
    "www.example.org/{n}",
)
_LOCALES = ("en-US", "en-US", "en-US", "en-GB", "en-AU", "de-DE", "es-MX", "fr-FR", "ja-JP", None)
_ROOMS = dict.fromkeys(THINGS, "nursery") | {
    "mug": "kitchen",
    "fish": "bathroom",
    "lamp": "bedroom",
    "book": "study",
    "flower": "hallway",
    "tree": "living room",
}
_CATEGORIES = dict.fromkeys(THINGS, "art") | {
    "mug": "home decor",
    "lamp": "home decor",
    "flower": "gardening",
    "tree": "gardening",
    "car": "vehicles",
    "boat": "vehicles",
}
_ADJECTIVES = ("cheerful", "friendly", "quiet", "simple", "bold", "playful")
_TITLES = (
    "{Name}, hand drawn",
    "{Name} print",
    "{Name}",
    "{name} drawing",
    "Printable {name}",
    "{Name} | Wall Art | {Background}",
    "My {name} ♡",
    "{Name} – poster, 30 x 40 cm",
)
_MORE = (
    "",
    "",
    "Printed on matte paper.",
    "Framed in oak if you like.",
    "I drew this on a rainy Sunday.",
    "Ships in two days.",
    "Makes a lovely gift!",
    "For kids and grown-ups.",
)

# Board titles and what they collect; an empty set collects everything. The words are those of `_words`.
_TOPICS: tuple[tuple[str, str], ...] = (
    ("kitchen", "mug fish lamp"), ("cozy corner", "mug book lamp"), ("reading nook", "book lamp"), ("garden", "flower tree house"), ("by the sea", "boat fish"),
    ("nursery wall", "star ball car heart"), ("christmas", "tree star"), ("valentine's day", "heart flower"), ("road trip", "car tree house"), ("toys", "car ball boat"),
    ("dream home", "house lamp tree"), ("coffee & tea", "mug"), ("books to read", "book"), ("pairs", "pair"), ("rule of three", "three"),
    ("Tazas bonitas", "mug"), ("Rote Sachen", "red"), ("Bateaux", "boat"), ("Blumen", "flower"), ("Bücher", "book"), ("cosas azules", "blue"), ("Häuser", "house"),
    ("Corações", "heart"), ("Sterne", "star"), ("赤いもの", "red"), ("本", "book"), ("цветы", "flower"), ("yeşil şeyler", "green"), ("peces", "fish"), ("Voitures", "car"),
)  # fmt: skip
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
_ABOUT = (
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
_TINTS = (
    "{x}",
    "{x} things",
    "everything {x}",
    "{x} aesthetic",
    "shades of {x}",
    "{x} & co",
    "{x} decor",
    "{x} drawings",
)
_FLOURISHES = ("", "", "", "", " ❤", "!!", " ✨", " :)", "...", " 🌸", " ♡", " ~")
_OFF_TOPIC = (
    "dinner ideas",
    "tattoo",
    "nail art",
    "living room paint",
    "birthday cake",
    "free printables",
    "how to draw",
)
_ACTIONS = {"impression": 0.25, "click": 0.4, "long_click": 0.15, "save": 0.2}


@dataclass
class _Pin:
    pin_id: str
    scene: Scene
    size: tuple[int, int]
    ending: str
    popularity: float
    created_at: datetime
    title: str | None = None
    description: str | None = None
    same_as: _Pin | None = None  # the pin whose image this one shares, byte for byte
    broken: str | None = None
    words: frozenset[str] = field(default=frozenset())

    @property
    def image(self) -> str:
        return f"images/{self.pin_id}.{self.ending}"


def make_world(folder: Path, pins: int = 300, seed: int = 0) -> bool:
    """Draws a catalogue of `pins` pins (at least 12) below `folder`; False, and nothing is done, if one is
    complete there.

    Writes images/, boards.parquet, saves/*.parquet, log/YYYY-MM-DD.parquet and at last pins.parquet, which
    makes it complete. About a third of the pins have no text; a few share an image; two images are broken, so
    that failures can be seen. Raises ValueError for fewer pins, FileExistsError if the folder holds images or
    tables of somebody else.
    """
    folder = Path(folder)
    if pins < 12:
        raise ValueError("a world has at least 12 pins")
    if not (folder / MARKER).exists():
        if taken := [
            name
            for name in ("images", "saves", "log", "boards.parquet", "pins.parquet")
            if (folder / name).exists()
        ]:
            raise FileExistsError(
                f"{folder} has {' and '.join(taken)} that captioner did not draw: name another folder"
            )
        folder.mkdir(parents=True, exist_ok=True)
        (folder / MARKER).write_text(_NOTE)
    elif (folder / "pins.parquet").exists():
        return False
    (folder / "images").mkdir(exist_ok=True)
    drawn = _pins(pins, random.Random(f"pins {seed}"))
    for pin in drawn:
        (folder / pin.image).write_bytes(_image(pin, seed))
    boards, saves = _boards(drawn, random.Random(f"boards {seed}"))
    _write(folder / "boards.parquet", boards)
    third = -(-len(saves) // 3)
    for i in range(3):
        _write(folder / f"saves/saves-{i + 1}.parquet", saves[i * third : (i + 1) * third], like=saves)
    log = _log(drawn, random.Random(f"log {seed}"))
    for back in range(LOG_DAYS):
        day = LAST_DAY - timedelta(days=back)
        _write(folder / f"log/{day}.parquet", [row for row in log if row["date"] == day], like=log)
    _write(folder / "pins.parquet", [_row(pin, random.Random(f"row {seed} {pin.pin_id}")) for pin in drawn])
    return True


def _pins(n: int, rng: random.Random) -> list[_Pin]:
    popularity = [1 / (rank + 3) ** 0.9 for rank in range(n)]
    rng.shuffle(popularity)
    pins = []
    for i in range(n):
        longer, ratio = rng.randint(272, 384), rng.uniform(0.75, 1.0)
        size = (longer, round(longer * ratio)) if rng.random() < 0.4 else (round(longer * ratio), longer)
        ending = rng.choices(("jpg", "png", "webp"), (94, 3, 3))[0]
        pins.append(
            _Pin(
                f"pin-{i + 1:04d}",
                random_scene(rng),
                size,
                ending,
                popularity[i],
                _moment(rng, date(2024, 7, 1), date(2026, 4, 30)),
            )
        )
    order = rng.sample(pins, n)
    silent, titled, told = order[: n // 3], order[n // 3 : n // 2], order[n // 2 :]
    for pin in titled + told:
        pin.title = _title(pin.scene, rng)
    for pin in told:
        pin.description = _description(pin.scene, rng)
    for pin in rng.sample(silent, len(silent) // 3):  # text, but none that says anything
        junk = rng.choice(_JUNK).format(n=rng.randint(1000, 9999))
        pin.title, pin.description = rng.choice(((junk, None), (None, junk), (junk, junk)))
    truncated, text, *rest = silent
    truncated.ending, truncated.broken = "jpg", "truncated"
    text.ending, text.broken = "jpg", "text"
    for i in range(min(len(rest) // 2, max(1, n // 60))):
        original, copy = rest[2 * i], rest[2 * i + 1]
        copy.scene, copy.size, copy.ending, copy.same_as = (
            original.scene,
            original.size,
            original.ending,
            original,
        )
    for pin in pins:
        pin.words = _words(pin.scene)
    return pins


def _image(pin: _Pin, seed: int) -> bytes:
    """The image file's bytes."""
    if pin.broken == "text":
        return b"<html><body>404 Not Found</body></html>\n"
    original = pin.same_as or pin
    picture = draw(original.scene, random.Random(f"image {seed} {original.pin_id}"), original.size)
    file = BytesIO()
    if pin.ending == "jpg":
        picture.save(file, "JPEG", quality=88)
    else:
        picture.save(file, pin.ending.upper(), **({"quality": 88} if pin.ending == "webp" else {}))
    data = file.getvalue()
    return data[: len(data) // 2] if pin.broken == "truncated" else data


def _row(pin: _Pin, rng: random.Random) -> dict[str, Any]:
    category = _CATEGORIES[pin.scene.things[0].noun] if rng.random() < 0.8 else None
    kind = "product" if rng.random() < 0.3 else "pin"
    return {
        "pin_id": pin.pin_id, "title": pin.title, "description": pin.description, "image": pin.image,
        "kind": kind, "category": category, "locale": rng.choice(_LOCALES), "created_at": pin.created_at,
    }  # fmt: skip


def _names(scene: Scene) -> tuple[str, str]:
    """What the picture shows, with and without an article: ("a red mug", "red mug"), ("two blue fish", "two
    blue fish").
    """
    phrase = scene.caption.removesuffix(f" on a {scene.background} background")
    return phrase, " and ".join(map(str, scene.things)) if scene.relation else phrase.split(" ", 1)[
        1
    ] if scene.count == 1 else phrase


def _title(scene: Scene, rng: random.Random) -> str:
    name = _names(scene)[1]
    return rng.choice(_TITLES).format(name=name, Name=name.capitalize(), Background=scene.background.title())


def _description(scene: Scene, rng: random.Random) -> str:
    count, thing = _names(scene)[0].split(" ", 1)
    adjective, room = rng.choice(_ADJECTIVES), _ROOMS[scene.things[0].noun]
    first = rng.choice((
        f"{count.replace('an', 'a').capitalize()} {adjective} {thing} for your {room} wall.",
        f"{count.capitalize()} {thing}, drawn on {scene.background} paper.",
        f"Bring some colour into the {room}: {count} {thing}.",
    ))  # fmt: skip
    return f"{first} {rng.choice(_MORE)}".strip()


def _words(scene: Scene) -> frozenset[str]:
    """What boards can collect it by: colours, nouns, colours with nouns, background, "pair", "three"."""
    found = {scene.background} | {w for t in scene.things for w in (t.colour, t.noun, str(t))}
    return frozenset(
        found | ({"pair"} if scene.count == 2 or scene.relation else {"three"} if scene.count == 3 else set())
    )


def _boards(pins: list[_Pin], rng: random.Random) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Boards, and what was saved to them, in order of time."""
    owners = [f"user-{i:03d}" for i in range(max(20, len(pins) // 2))]
    n = min(1200, max(40, len(pins) * 3 // 2))
    shares = [1 / (rank + 8) for rank in range(n)]
    rng.shuffle(shares)
    boards, saves = list[dict[str, Any]](), list[dict[str, Any]]()
    for i in range(n):
        title, wanted = _theme(rng)
        board: dict[str, Any] = {
            "board_id": f"board-{i + 1:04d}",
            "title": _as_typed(title, rng),
            "owner_id": _zipf(owners, rng),
            "created_at": _moment(rng, date(2023, 1, 1), date(2026, 4, 30)),
        }
        boards.append(board)
        fitting = [pin for pin in pins if not wanted or wanted & pin.words] or pins
        # The popular first, with luck: a weighted sample without replacement (Efraimidis and Spirakis, 2006).
        fitting.sort(key=lambda pin: rng.random() ** (1 / pin.popularity), reverse=True)
        for pin in fitting[: max(1, round(shares[i] / sum(shares) * len(pins) * SAVES_PER_PIN))]:
            if rng.random() < 0.05:
                pin = rng.choice(pins)  # a slip, or a taste of one's own
            user = board["owner_id"] if rng.random() < 0.9 else _zipf(owners, rng)
            for _ in range(2 if rng.random() < 0.02 else 1):
                since = max(pin.created_at, board["created_at"]).date()
                saves.append(
                    {
                        "pin_id": pin.pin_id,
                        "board_id": board["board_id"],
                        "user_id": user,
                        "saved_at": _moment(rng, since + timedelta(days=1), LAST_DAY),
                    }
                )
    return boards, sorted(saves, key=lambda save: (save["saved_at"], save["pin_id"], save["board_id"]))


def _theme(rng: random.Random) -> tuple[str, frozenset[str]]:
    """A board's title and the words it collects pins by."""
    kind, colour, noun = rng.random(), rng.choice(list(COLOURS)), rng.choice(list(THINGS))
    if kind < 0.25:
        title, wanted = rng.choice(_ABOUT).format(x=noun).replace("fishs", "fish"), [noun]
    elif kind < 0.40:
        title, wanted = rng.choice(_TINTS).format(x=colour), [colour]
    elif kind < 0.48:
        title, wanted = f"{colour} {noun}s".replace("fishs", "fish"), [f"{colour} {noun}"]
    elif kind < 0.54:
        background = rng.choice(BACKGROUNDS)
        title, wanted = rng.choice(("{x} backgrounds", "{x} wallpaper")).format(x=background), [background]
    elif kind < 0.85:
        title, collected = rng.choice(_TOPICS)
        wanted = collected.split()
    else:
        title, wanted = rng.choice(_ANYTHING), []
    return title, frozenset(wanted)


def _as_typed(title: str, rng: random.Random) -> str:
    title = rng.choice((str, str, str.title, str.capitalize, str.capitalize, str.lower, str.upper))(title)
    if rng.random() < 0.08:
        title = rng.choice(("♡ {} ♡", " {}", "{}  ", "* {} *", "-{}-", "{} (ask mia@example.org)")).format(
            title
        )
    return title + rng.choice(_FLOURISHES)


def _log(pins: list[_Pin], rng: random.Random) -> list[dict[str, Any]]:
    """Rows of the query log: who looked for what and did what with which pin, and how often on that day."""
    users = [f"user-{i:03d}" for i in range(max(30, len(pins)))]
    queries = {pin.pin_id: _queries(pin.scene) for pin in pins}
    rows = list[dict[str, Any]]()
    for pin in rng.choices(pins, [pin.popularity for pin in pins], k=len(pins) * SEARCHES_PER_PIN):
        asked = queries[pin.pin_id]
        query = (
            rng.choices(list(asked), list(asked.values()))[0]
            if rng.random() > 0.03
            else rng.choice(_OFF_TOPIC)
        )
        if rng.random() < 0.08:
            query = rng.choice(
                (str.upper, str.title, lambda q: f" {q} ", lambda q: f"{q}!", lambda q: q.replace(" ", "  "))
            )(query)
        if not rows or rng.random() < 0.002:
            query = f"mia@example.org {query}"
        action = rng.choices(list(_ACTIONS), list(_ACTIONS.values()))[0]
        count = 1 + min(int(rng.expovariate(1.5 if action != "impression" else 0.4)), 20)
        day = LAST_DAY - timedelta(days=int(LOG_DAYS * rng.random() ** 1.2))
        rows.append(
            {
                "pin_id": pin.pin_id,
                "query": query,
                "action": action,
                "date": day,
                "count": count,
                "user_id": _zipf(users, rng) if rng.random() > 0.02 else None,
            }
        )
    return rows


def _queries(scene: Scene) -> dict[str, float]:
    """Queries that lead to such a picture, with their weights."""
    first, last = scene.things[0], scene.things[-1]
    name = _names(scene)[1]
    found = {
        str(first): 4.0,
        first.noun: 2.0,
        f"{first.noun} drawing": 1.0,
        f"{first} print": 1.0,
        f"{scene.background} background wallpaper": 0.7,
        f"{first.noun} wall art": 0.5,
    }
    found |= {f"{name} {scene.background} background": 0.5, f"cute {first.noun}": 0.5}
    if scene.relation:
        found |= {
            name: 4.0,
            f"{first.noun} {scene.relation} {last.noun}": 3.0,
            f"{first.noun} and {last.noun}": 2.0,
            str(last): 2.0,
            last.noun: 1.0,
        }
    elif scene.count > 1:
        found |= {name: 5.0, name.replace(f" {first.colour}", ""): 3.0}
    return found


def _zipf(values: Sequence[str], rng: random.Random) -> str:
    return rng.choices(values, cum_weights=_cumulated(len(values)))[0]


@functools.cache
def _cumulated(n: int) -> list[float]:
    return list(itertools.accumulate(1 / (rank + 5) for rank in range(n)))


def _moment(rng: random.Random, first: date, last: date) -> datetime:
    """A second between two days, both included (UTC)."""
    return datetime.combine(first, time()) + timedelta(
        seconds=rng.randrange(((last - first).days + 1) * 86400)
    )


def _write(path: Path, rows: Sequence[dict[str, Any]], like: Iterable[dict[str, Any]] = ()) -> None:
    """A Parquet file, there wholly or not at all; `like` are rows that tell the columns when there are none."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    kinds = {str: pa.string(), int: pa.int64(), date: pa.date32(), datetime: pa.timestamp("us")}
    columns = {
        name: next((kinds[type(row[name])] for row in (*rows, *like) if row[name] is not None), pa.string())
        for name in next(iter((*rows, *like)))
    }
    path.parent.mkdir(exist_ok=True)
    with whole(path) as unfinished:
        pq.write_table(pa.Table.from_pylist(list(rows), pa.schema(columns.items())), unfinished)
