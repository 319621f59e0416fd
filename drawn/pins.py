"""The pins of the drawn world: what their pictures show, their texts and their image files."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from datetime import date, datetime
from io import BytesIO
from typing import Any

from .chance import random_moment
from .draw import THINGS, Scene, draw, random_scene

LAST_DAY = date(2026, 6, 30)  # of everything that happens in the drawn world

# Titles and descriptions that are there and say nothing about the picture.
_PLACEHOLDERS = (
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
_ROOM_OF = dict.fromkeys(THINGS, "nursery") | {
    "mug": "kitchen",
    "fish": "bathroom",
    "lamp": "bedroom",
    "book": "study",
    "flower": "hallway",
    "tree": "living room",
}
_CATEGORY_OF = dict.fromkeys(THINGS, "art") | {
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
_SECOND_SENTENCES = (
    "",
    "",
    "Printed on matte paper.",
    "Framed in oak if you like.",
    "I drew this on a rainy Sunday.",
    "Ships in two days.",
    "Makes a lovely gift!",
    "For kids and grown-ups.",
)


@dataclass
class DrawnPin:
    """A pin before it becomes a row.

    `size` is that of the picture in pixels, `ending` the one of its file. `popularity` is the weight with
    which people save the pin and find it. `same_as` is the pin whose image this pin shares, byte for byte.
    `broken` says how the image file is broken: "truncated", or "text" for one that is no image at all.
    `words` are what boards can collect the pin by.
    """

    pin_id: str
    scene: Scene
    size: tuple[int, int]
    ending: str
    popularity: float
    created_at: datetime
    title: str | None = None
    description: str | None = None
    same_as: DrawnPin | None = None
    broken: str | None = None
    words: frozenset[str] = field(default=frozenset())

    @property
    def image(self) -> str:
        """The path of its image file below the folder of the world."""
        return f"images/{self.pin_id}.{self.ending}"


def make_pins(n: int, rng: random.Random) -> list[DrawnPin]:
    """Makes `n` pins: a third has no text, a sixth only a title, the others title and description."""
    popularity = [1 / (rank + 3) ** 0.9 for rank in range(n)]
    rng.shuffle(popularity)
    pins = [_without_text(f"pin-{i + 1:04d}", popularity[i], rng) for i in range(n)]
    order = rng.sample(pins, n)
    silent, titled, described = order[: n // 3], order[n // 3 : n // 2], order[n // 2 :]
    for pin in titled + described:
        pin.title = _title(pin.scene, rng)
    for pin in described:
        pin.description = _description(pin.scene, rng)
    for pin in rng.sample(silent, len(silent) // 3):
        text = rng.choice(_PLACEHOLDERS).format(n=rng.randint(1000, 9999))
        pin.title, pin.description = rng.choice(((text, None), (None, text), (text, text)))
    truncated, no_image, *others = silent
    truncated.ending, truncated.broken = "jpg", "truncated"
    no_image.ending, no_image.broken = "jpg", "text"
    for i in range(min(len(others) // 2, max(1, n // 60))):
        original, copy = others[2 * i], others[2 * i + 1]
        copy.scene, copy.size, copy.ending = original.scene, original.size, original.ending
        copy.same_as = original
    for pin in pins:
        pin.words = _words(pin.scene)
    return pins


def _without_text(pin_id: str, popularity: float, rng: random.Random) -> DrawnPin:
    longer, ratio = rng.randint(272, 384), rng.uniform(0.75, 1.0)
    shorter = round(longer * ratio)
    size = (longer, shorter) if rng.random() < 0.4 else (shorter, longer)
    ending = rng.choices(("jpg", "png", "webp"), (94, 3, 3))[0]
    scene = random_scene(rng)
    created_at = random_moment(rng, date(2024, 7, 1), date(2026, 4, 30))
    return DrawnPin(pin_id, scene, size, ending, popularity, created_at)


def image_bytes(pin: DrawnPin, seed: int) -> bytes:
    """The content of the image file of a pin, broken if the pin is to have a broken one."""
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


def as_row(pin: DrawnPin, rng: random.Random) -> dict[str, Any]:
    """The row of a pin in pins.parquet."""
    category = _CATEGORY_OF[pin.scene.things[0].noun] if rng.random() < 0.8 else None
    kind = "product" if rng.random() < 0.3 else "pin"
    return {
        "pin_id": pin.pin_id,
        "title": pin.title,
        "description": pin.description,
        "image": pin.image,
        "kind": kind,
        "category": category,
        "locale": rng.choice(_LOCALES),
        "created_at": pin.created_at,
    }


def phrase_of(scene: Scene) -> str:
    """What the picture shows, with an article or a number: "a red mug", "two blue fish"."""
    return scene.caption.removesuffix(f" on a {scene.background} background")


def name_of(scene: Scene) -> str:
    """What the picture shows, without an article: "red mug", "two blue fish", "red mug and blue fish"."""
    if scene.relation:
        return " and ".join(map(str, scene.things))
    phrase = phrase_of(scene)
    return phrase.split(" ", 1)[1] if scene.count == 1 else phrase


def _title(scene: Scene, rng: random.Random) -> str:
    name = name_of(scene)
    return rng.choice(_TITLES).format(name=name, Name=name.capitalize(), Background=scene.background.title())


def _description(scene: Scene, rng: random.Random) -> str:
    count, thing = phrase_of(scene).split(" ", 1)
    adjective, room = rng.choice(_ADJECTIVES), _ROOM_OF[scene.things[0].noun]
    first = rng.choice(
        (
            f"{count.replace('an', 'a').capitalize()} {adjective} {thing} for your {room} wall.",
            f"{count.capitalize()} {thing}, drawn on {scene.background} paper.",
            f"Bring some colour into the {room}: {count} {thing}.",
        )
    )
    return f"{first} {rng.choice(_SECOND_SENTENCES)}".strip()


def _words(scene: Scene) -> frozenset[str]:
    """What boards can collect it by: colours, nouns, colours with nouns, background, "pair", "three"."""
    words = {scene.background}
    for thing in scene.things:
        words |= {thing.colour, thing.noun, str(thing)}
    if scene.count == 2 or scene.relation:
        words.add("pair")
    elif scene.count == 3:
        words.add("three")
    return frozenset(words)
