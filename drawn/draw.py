"""Draws pictures, each with the one caption that is exactly right.

They are used to train and test the built-in checkpoint, and for `captioner demo`. So no image of a third
party is needed, and there is no doubt whether a caption is wrong. A scene is what a picture shows. The same
scene is drawn differently each time: position, size, rotation, light and texture change.
"""

from __future__ import annotations

import math
import random
import zlib
from dataclasses import dataclass
from typing import Literal

import numpy as np
from PIL import Image, ImageDraw

Colour = tuple[int, int, int]
Points = list[tuple[float, float]]

COLOURS: dict[str, Colour] = {
    "red": (205, 40, 40),
    "orange": (240, 135, 30),
    "yellow": (246, 218, 50),
    "green": (45, 150, 65),
    "blue": (45, 95, 215),
    "purple": (125, 55, 170),
    "pink": (243, 145, 190),
    "brown": (115, 70, 40),
    "black": (36, 36, 39),
    "white": (246, 246, 246),
}
BACKGROUNDS = ("grey", "white", "beige", "navy", "striped", "dotted")
_PLAIN: dict[str, Colour] = {
    "grey": (148, 149, 152),
    "white": (238, 239, 240),
    "beige": (226, 206, 172),
    "navy": (24, 34, 84),
}
_TEXTURE: tuple[tuple[Colour, Colour], ...] = (
    ((198, 206, 214), (152, 166, 180)),
    ((212, 200, 190), (172, 156, 144)),
    ((196, 210, 196), (150, 172, 152)),
)


def _oval(
    x: float, y: float, rx: float, ry: float, start: float = 0, end: float = 360, steps: int = 20
) -> Points:
    angles = [math.radians(start + (end - start) * i / steps) for i in range(steps + 1)]
    return [(x + rx * math.cos(a), y + ry * math.sin(a)) for a in angles]


def _box(left: float, top: float, right: float, bottom: float) -> Points:
    return [(left, top), (right, top), (right, bottom), (left, bottom)]


def _star(points: int, inner: float) -> Points:
    radii = [1.0 if i % 2 == 0 else inner for i in range(2 * points)]
    return [
        (r * math.sin(math.pi * i / points), -r * math.cos(math.pi * i / points)) for i, r in enumerate(radii)
    ]


def _heart() -> Points:
    ts = [2 * math.pi * i / 28 for i in range(28)]
    return [
        (
            math.sin(t) ** 3,
            -(13 * math.cos(t) - 5 * math.cos(2 * t) - 2 * math.cos(3 * t) - math.cos(4 * t)) / 16 + 0.1,
        )
        for t in ts
    ]


# Each thing is a list of polygons (shade, corners), which are painted in this order. Coordinates go from -1
# to 1, y downwards. The colour of the thing is multiplied by the shade. So a thing has one colour only, and
# its caption is beyond dispute.
THINGS: dict[str, list[tuple[float, Points]]] = {
    "ball": [
        (1.0, _oval(0, 0, 0.95, 0.95)),
        (0.72, _oval(0, 0, 0.95, 0.3)),
        (1.35, _oval(-0.35, -0.5, 0.2, 0.15)),
    ],
    "boat": [
        (0.6, _box(-0.06, -0.95, 0.06, 0.4)),
        (1.3, [(0.1, -0.9), (0.85, 0.2), (0.1, 0.2)]),
        (1.15, [(-0.1, -0.7), (-0.7, 0.2), (-0.1, 0.2)]),
        (1.0, [(-1, 0.35), (1, 0.35), (0.62, 0.85), (-0.62, 0.85)]),
    ],
    "book": [
        (1.0, _box(-0.72, -0.95, 0.72, 0.95)),
        (0.6, _box(-0.72, -0.95, -0.45, 0.95)),
        (1.4, _box(-0.22, -0.62, 0.5, -0.35)),
        (1.4, _box(-0.22, -0.2, 0.5, -0.05)),
    ],
    "car": [
        (1.0, [(-0.55, -0.05), (-0.35, -0.5), (0.35, -0.5), (0.6, -0.05)]),
        (1.45, [(-0.4, -0.05), (-0.27, -0.38), (0.27, -0.38), (0.43, -0.05)]),
        (1.0, _box(-1, -0.08, 1, 0.4)),
        (0.4, _oval(-0.52, 0.42, 0.25, 0.25)),
        (0.4, _oval(0.52, 0.42, 0.25, 0.25)),
    ],
    "fish": [
        (0.8, [(0.4, 0), (1, -0.55), (1, 0.55)]),
        (1.0, _oval(-0.18, 0, 0.8, 0.5)),
        (0.7, [(-0.2, -0.05), (0.25, 0.0), (-0.1, 0.25)]),
        (0.3, _oval(-0.62, -0.12, 0.1, 0.1)),
    ],
    "flower": [
        (1.0, _oval(0.6 * math.cos(a), 0.6 * math.sin(a), 0.38, 0.38, steps=12))
        for a in (i * math.pi / 3 for i in range(6))
    ]
    + [(0.5, _oval(0, 0, 0.3, 0.3))],
    "heart": [(1.0, _heart()), (1.35, _oval(-0.45, -0.42, 0.17, 0.13))],
    "house": [
        (1.0, _box(-0.72, -0.1, 0.72, 0.95)),
        (0.65, [(-1, -0.1), (0, -0.95), (1, -0.1)]),
        (0.45, _box(-0.15, 0.35, 0.2, 0.95)),
        (1.4, _box(-0.55, 0.1, -0.25, 0.42)),
    ],
    "lamp": [
        (0.7, _box(-0.08, -0.1, 0.08, 0.85)),
        (1.0, [(-0.38, -0.95), (0.38, -0.95), (0.78, 0.02), (-0.78, 0.02)]),
        (0.7, _box(-0.5, 0.78, 0.5, 0.95)),
    ],
    "mug": [
        (0.8, _oval(0.5, 0.05, 0.5, 0.52, -85, 85) + _oval(0.5, 0.05, 0.27, 0.29, 85, -85)),
        (1.0, _box(-0.75, -0.7, 0.5, 0.85)),
        (0.55, _oval(-0.125, -0.7, 0.625, 0.18)),
    ],
    "star": [(1.0, _star(5, 0.42))],
    "tree": [
        (0.5, _box(-0.13, 0.5, 0.13, 0.98)),
        (0.9, [(-0.8, 0.6), (0, -0.2), (0.8, 0.6)]),
        (1.0, [(-0.65, 0.15), (0, -0.6), (0.65, 0.15)]),
        (1.1, [(-0.48, -0.3), (0, -0.98), (0.48, -0.3)]),
    ],
}
_COUNTS = {1: "a", 2: "two", 3: "three"}
_PLURALS = {"fish": "fish"}


@dataclass(frozen=True)
class Thing:
    colour: str
    noun: str

    def __str__(self) -> str:
        return f"{self.colour} {self.noun}"

    @property
    def one(self) -> str:
        return f"{'an' if self.colour == 'orange' else 'a'} {self}"


@dataclass(frozen=True)
class Scene:
    """What a picture shows: `count` times the same thing, or two things and how they stand.

    Of two things, the left or upper one comes first.
    """

    things: tuple[Thing, ...]
    background: str
    count: int = 1
    relation: Literal["left of", "above"] | None = None

    @property
    def caption(self) -> str:
        first = self.things[0]
        if self.relation:
            what = f"{first.one} {self.relation} {self.things[1].one}"
        elif self.count == 1:
            what = first.one
        else:
            what = f"{_COUNTS[self.count]} {first.colour} {_PLURALS.get(first.noun, first.noun + 's')}"
        return f"{what} on a {self.background} background"

    @property
    def combination(self) -> str:
        """The things and their number, without their order and the background.

        Combinations, not scenes, are held out of training.
        """
        return f"{self.count} " + " + ".join(sorted(map(str, self.things)))

    @property
    def held_out(self) -> bool:
        """Whether this is one of the tenth of all combinations that the training never used."""
        return zlib.crc32(self.combination.encode()) % 10 == 0


def random_scene(rng: random.Random, held_out: bool | None = None) -> Scene:
    """A random scene: half of them show two things, the others one, two or three of the same kind.

    With `held_out` True, it is a combination that the training never used; with False, one that it may use.
    """
    while True:
        background = rng.choice(BACKGROUNDS)
        colours = [c for c in COLOURS if c != background]
        related = rng.random() < 0.5
        things = tuple(
            Thing(rng.choice(colours), rng.choice(list(THINGS))) for _ in range(2 if related else 1)
        )
        if related and things[0] == things[1]:
            continue
        scene = Scene(
            things,
            background,
            1 if related else rng.choice((1, 2, 3)),
            rng.choice(("left of", "above")) if related else None,
        )
        if held_out is None or scene.held_out == held_out:
            return scene


def draw(scene: Scene, rng: random.Random, size: tuple[int, int] = (224, 224)) -> Image.Image:
    """Draws `scene` as an RGB picture of `size` (width, height) in pixels.

    The same state of `rng` gives the same picture.
    """
    return draw_with_masks(scene, rng, size)[0]


def draw_with_masks(
    scene: Scene, rng: random.Random, size: tuple[int, int]
) -> tuple[Image.Image, list[Image.Image]]:
    """Like `draw`, with a greyscale mask per thing for the training: 255 where the thing is, else 0."""
    width, height = size[0] * 2, size[1] * 2  # drawn at twice the size and reduced, so that edges are smooth
    canvas = _background(scene.background, rng, width, height)
    pen = ImageDraw.Draw(canvas)
    masks = []
    drawn = scene.things if scene.relation else scene.things * scene.count
    for thing, (x, y, radius) in zip(drawn, _places(scene, rng), strict=True):
        mask = Image.new("L", canvas.size)
        mask_pen = ImageDraw.Draw(mask)
        angle, tint = math.radians(rng.uniform(-22, 22)), [rng.uniform(0.94, 1.06) for _ in range(3)]
        r = radius * min(width, height)
        cos, sin = r * math.cos(angle), r * math.sin(angle)
        base = [c * t for c, t in zip(COLOURS[thing.colour], tint, strict=True)]
        edge = tuple(int(c * 0.45) for c in base)
        for shade, points in THINGS[thing.noun]:
            path = [(x * width + px * cos - py * sin, y * height + px * sin + py * cos) for px, py in points]
            pen.polygon(path, fill=_shaded(base, shade), outline=edge, width=max(1, round(r / 24)))
            mask_pen.polygon(path, fill=255)
        masks.append(mask)
    return _lit(canvas.reduce(2), rng), masks


def _shaded(colour: list[float], shade: float) -> Colour:
    # Shades above 1 are moved towards white, because a multiplied colour would be clipped.
    lift = max(0.0, shade - 1) * 120
    return tuple(max(0, min(255, int(c * min(shade, 1.0) + lift))) for c in colour)  # type: ignore[return-value]


def _places(scene: Scene, rng: random.Random) -> list[tuple[float, float, float]]:
    """Centres and radii of the things, which do not overlap.

    x and y are shares of width and height, the radius is a share of the shorter side.
    """
    if scene.relation:
        while True:
            r1, r2 = rng.uniform(0.14, 0.23), rng.uniform(0.14, 0.23)
            gap = r1 + r2 + rng.uniform(0.02, 0.12)
            if gap + r1 + r2 > 0.97:
                continue
            along = rng.uniform(r1, 1 - gap - r2)
            a1 = rng.uniform(0.26, 0.74)
            a2 = min(0.76, max(0.24, a1 + rng.uniform(-0.12, 0.12)))
            first, second = (along, a1, r1), (along + gap, a2, r2)
            if scene.relation == "above":
                first, second = (first[1], first[0], r1), (second[1], second[0], r2)
            return [first, second]
    if scene.count == 1:
        r = rng.uniform(0.2, 0.42)
        return [(rng.uniform(r, 1 - r), rng.uniform(r, 1 - r), r)]
    while True:
        r = rng.uniform(0.14, 0.22)
        places = [(rng.uniform(r, 1 - r), rng.uniform(r, 1 - r), r) for _ in range(scene.count)]
        if all(math.dist(a[:2], b[:2]) > 2.05 * r for i, a in enumerate(places) for b in places[:i]):
            return places


def _background(name: str, rng: random.Random, width: int, height: int) -> Image.Image:
    if name in _PLAIN:
        return Image.new(
            "RGB", (width, height), tuple(max(0, min(255, c + rng.randint(-7, 7))) for c in _PLAIN[name])
        )  # type: ignore[arg-type]
    light, dark = rng.choice(_TEXTURE)
    canvas = Image.new("RGB", (width, height), light)
    pen = ImageDraw.Draw(canvas)
    step = min(width, height) * rng.uniform(0.12, 0.18)
    if name == "striped":
        slant = rng.choice((0.0, 0.5, 1.0)) * height
        x = -slant - rng.uniform(0, step)
        while x < width:
            pen.polygon(
                [(x + slant, 0), (x + slant + step / 2, 0), (x + step / 2, height), (x, height)], fill=dark
            )
            x += step
    else:
        r, row = step * 0.24, 0
        y = rng.uniform(0, step)
        while y < height + r:
            x = (step / 2 if row % 2 else 0) + rng.uniform(-0.05, 0.05) * step
            while x < width + r:
                pen.ellipse((x - r, y - r, x + r, y + r), fill=dark)
                x += step
            y, row = y + step * 0.8, row + 1
    return canvas


def _lit(picture: Image.Image, rng: random.Random) -> Image.Image:
    """Light that falls from one side, brighter or darker as a whole."""
    width, height = picture.size
    level, tilt_x, tilt_y = rng.uniform(0.84, 1.06), rng.uniform(-0.1, 0.1), rng.uniform(-0.1, 0.1)
    light = (
        level
        + tilt_x * np.linspace(-1, 1, width, dtype=np.float32)[None, :]
        + tilt_y * np.linspace(-1, 1, height, dtype=np.float32)[:, None]
    )
    return Image.fromarray(
        np.clip(np.asarray(picture, np.float32) * light[..., None], 0, 255).astype(np.uint8)
    )
