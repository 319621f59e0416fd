"""Drawn pictures with a label for every patch, to train the built-in checkpoint with. Needs no torch."""

from __future__ import annotations

import io
import random
from dataclasses import dataclass

import numpy as np
from PIL import Image

from . import draw

IMAGE, PATCH = 64, 8  # sides in pixels
GRID = IMAGE // PATCH  # patches along a side
PROMPTS = ("a photo of", "a picture of")
NOUNS, COLOURS = list(draw.THINGS), list(draw.COLOURS)
LAYOUTS = ("1", "2", "3", "left of", "above")
# What a patch belongs to: 0 is the thing that the caption names first.
ROLES = ("1", "2", "3", "left of 0", "left of 1", "above 0", "above 1", "background")
IGNORE = -100  # the label that torch's cross_entropy leaves out
# A patch belongs to the thing that covers more than this share of it, and to the background if nothing covers
# more than the second share. Other patches have the label IGNORE.
_COVERED, _BARE = 0.35, 0.05


@dataclass(frozen=True)
class LabelledPicture:
    """A picture of the training: `pixels` (uint8 [IMAGE, IMAGE, 3]), its `prompt` and its `caption`.

    `nouns`, `colours` and `roles` have a label for every patch (int64 [GRID * GRID]): an index of NOUNS,
    COLOURS or ROLES, or one for the background, or IGNORE. `layout` is an index of LAYOUTS.
    """

    pixels: np.ndarray
    prompt: str
    caption: str
    nouns: np.ndarray
    colours: np.ndarray
    roles: np.ndarray
    layout: int


def labelled_picture(rng: random.Random) -> LabelledPicture:
    """Draws a picture of a combination that is not held out, in some size, sometimes as a JPEG."""
    scene = draw.random_scene(rng, held_out=False)
    side = rng.choice((72, 96, 112, 128))
    is_wide = rng.random() < 0.5
    longer = round(side * rng.uniform(1, 1.34))
    picture, masks = draw.draw_with_masks(scene, rng, (side, longer) if is_wide else (longer, side))
    if rng.random() < 0.3:
        picture = _as_jpeg(picture, rng.randint(60, 95))
    shares = [
        np.asarray(mask.resize((GRID, GRID), Image.Resampling.BOX), np.float32).ravel() / 255
        for mask in masks
    ]
    cover = np.stack(shares)  # [things, patches]: how much of a patch a thing covers
    largest, most = cover.argmax(0), cover.max(0)

    def labels(of_things: list[int], of_background: int) -> np.ndarray:
        other = np.where(most < _BARE, of_background, IGNORE)
        return np.where(most > _COVERED, np.array(of_things)[largest], other)

    things = scene.things if scene.relation else scene.things * scene.count
    roles = [
        ROLES.index(f"{scene.relation} {i}" if scene.relation else str(scene.count))
        for i in range(len(things))
    ]
    background = len(COLOURS) + draw.BACKGROUNDS.index(scene.background)
    return LabelledPicture(
        pixels=np.asarray(picture.resize((IMAGE, IMAGE), Image.Resampling.BICUBIC)),
        prompt=rng.choice(PROMPTS) if rng.random() < 0.15 else "",
        caption=scene.caption,
        nouns=labels([NOUNS.index(thing.noun) for thing in things], len(NOUNS)),
        colours=labels([COLOURS.index(thing.colour) for thing in things], background),
        roles=labels(roles, len(ROLES) - 1),
        layout=LAYOUTS.index(scene.relation or str(scene.count)),
    )


def _as_jpeg(picture: Image.Image, quality: int) -> Image.Image:
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=quality)
    return Image.open(file)
