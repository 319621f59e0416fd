"""`caption`: pictures of any kind, without a store."""

from __future__ import annotations

import io
import random
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pincaption.captioner.caption import Picture, PictureCaption, caption
from pincaption.captioner.checkpoint import CheckpointError
from pincaption.captioner.model import Decoding
from pincaption.captioner.worker import Worker
from pincaption.drawn import draw
from pincaption.store.work import Pin


@pytest.fixture(scope="module")
def scenes() -> list[draw.Scene]:
    rng = random.Random(21)
    return [draw.random_scene(rng) for _ in range(8)]


@pytest.fixture(scope="module")
def images(scenes: list[draw.Scene]) -> list[Image.Image]:
    rng = random.Random(22)
    return [draw.draw(scene, rng, (128, 112)) for scene in scenes]


@pytest.fixture(scope="module")
def files(images: list[Image.Image], tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("pictures")
    paths = [folder / f"{i}.png" for i in range(len(images))]
    for image, path in zip(images, paths, strict=True):
        image.save(path)
    return paths


@pytest.fixture(scope="module")
def texts(builtin, files: list[Path]) -> list[str]:
    """What the worker says about the files."""
    rows = {row.pin_id: row.text for row in Worker(builtin)(Pin(str(path), str(path)) for path in files)}
    return [str(rows[str(path)]) for path in files]


def said(pictures: list[Picture], **options: object) -> list[str | None]:
    options = {"model": "builtin", "dtype": "float32"} | options
    return [result.text or result.reason for result in caption(pictures, **options)]


def as_bytes(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


@pytest.mark.parametrize(
    "kind",
    [
        lambda image, path: path,
        lambda image, path: str(path),
        lambda image, path: path.read_bytes(),
        lambda image, path: image,
        lambda image, path: np.asarray(image),
        lambda image, path: np.asarray(image.convert("RGBA")),
        lambda image, path: Image.open(path),
        lambda image, path: image.convert("RGBA"),
    ],
    ids=["path", "str", "bytes", "pillow", "array", "array-with-alpha", "opened", "with-alpha"],
)
def test_every_kind_of_picture_gets_the_caption_of_its_file(images, files, texts, kind):
    assert said([kind(image, path) for image, path in zip(images, files, strict=True)]) == texts


def test_kinds_may_be_mixed_and_come_back_in_the_order_given(images, files, texts):
    mixed = [files[0], files[1].read_bytes(), images[2], np.asarray(images[3]), str(files[4]), images[0]]
    assert said(mixed, batch_size=2, threads=4) == [*texts[:5], texts[0]]


def test_a_relative_path_is_one_in_the_current_folder(files, texts, monkeypatch):
    monkeypatch.chdir(files[0].parent)
    assert said([files[0].name, Path(files[1].name)]) == texts[:2]


def test_a_picture_that_cannot_be_captioned_has_a_reason_and_stops_nothing(files, texts):
    broken = [
        b"no image",
        b"",
        "missing.jpg",
        "ftp://example.org/a.jpg",
        "memory:0",
        np.zeros((4, 4, 7), np.uint8),
        np.zeros((4, 4, 3), np.float32),
        np.zeros((0, 4, 3), np.uint8),
        None,
        7,
    ]
    results = list(caption([*broken, files[0]], model="builtin", dtype="float32"))
    assert results[-1] == PictureCaption("ok", texts[0])
    assert {result.status for result in results[:-1]} == {"failed"}
    array = "an array that is not uint8 with the shape [height, width] or [height, width, 3 or 4]"
    other = "neither a path, an address, bytes, an image of Pillow nor a numpy array"
    assert [result.reason for result in results[:-1]] == [
        "not an image, or a format that is not supported",
        "image file is empty",
        "image file not found",
        "a kind of address that is not supported",
        "a kind of address that is not supported",
        array,
        array,
        "an image without pixels",
        other,
        other,
    ]


def test_a_caption_that_is_rejected_keeps_its_text(files):
    results = list(caption(files[:2], model="builtin", decoding=Decoding(min_new_tokens=0, max_new_tokens=1)))
    assert {(result.status, result.text) for result in results} == {("rejected", None)}
    assert all(result.reason for result in results)


def test_the_prompt_is_continued_and_not_repeated(files, texts):
    prompted = said(files, prompt="a photo of")
    assert sum(a == b for a, b in zip(prompted, texts, strict=True)) >= 6


def test_pictures_are_read_as_they_are_needed(files, texts):
    asked: list[int] = []

    def endless() -> Iterator[Path]:
        for i in range(1_000_000):
            asked.append(i)
            yield files[i % len(files)]

    results = caption(endless(), model="builtin", dtype="float32", batch_size=2, threads=2)
    assert asked == []
    assert next(results).text == texts[0]
    assert len(asked) < 30


def test_no_pictures() -> None:
    assert list(caption([], model="builtin")) == []


def test_grey_palette_and_other_modes_of_pillow(images):
    modes = ["L", "P", "CMYK", "YCbCr", "HSV", "LA", "1", "I", "F", "RGBa", "La"]
    through = {"I": "L", "F": "L", "La": "LA", "RGBa": "RGBA"}  # Pillow has no direct way from RGB
    pictures = [images[0].convert(through.get(mode, "RGB")).convert(mode) for mode in modes]
    assert [picture.mode for picture in pictures] == modes
    results = caption(pictures, model="builtin", dtype="float32")
    assert "failed" not in {result.status for result in results}


def test_a_photo_that_lies_on_its_side_is_turned_upright(images, texts):
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: rotate by 270 degrees to see it upright
    file = io.BytesIO()
    images[0].transpose(Image.Transpose.ROTATE_90).save(file, "PNG", exif=exif)
    assert said([file.getvalue(), Image.open(io.BytesIO(file.getvalue()))]) == [texts[0]] * 2


def test_what_makes_it_pointless_is_an_error_at_once(files):
    with pytest.raises(CheckpointError, match="no checkpoint 'buildin'"):
        caption(files, model="buildin")
    with pytest.raises(CheckpointError, match="builtin has no room for captions of 500 new tokens"):
        caption(files, model="builtin", decoding=Decoding(max_new_tokens=500))
