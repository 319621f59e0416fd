"""Small JPEGs for pages: within their limits, without the metadata of a photo, and never an error."""

import hashlib
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pincaption.images.thumbnails import Picture, pictures


def saved(path: Path, picture: Image.Image, **options: object) -> tuple[str, None]:
    picture.save(path, **options)
    return str(path), None


@pytest.fixture
def noise() -> Image.Image:
    """The picture that is hardest to compress."""
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (1500, 2000, 3), dtype=np.uint8))


@pytest.mark.parametrize("ending", ["jpg", "png"])
def test_a_picture_keeps_to_its_sides_and_bytes(tmp_path: Path, noise: Image.Image, ending: str) -> None:
    (thumbnail,) = pictures([saved(tmp_path / f"a.{ending}", noise)], 800, max_bytes=60_000)
    assert isinstance(thumbnail, Picture)
    assert len(thumbnail.jpeg) <= 60_000
    assert max(thumbnail.width, thumbnail.height) <= 800
    assert thumbnail.width / thumbnail.height == pytest.approx(4 / 3, rel=0.01)
    assert Image.open(BytesIO(thumbnail.jpeg)).size == (thumbnail.width, thumbnail.height)


def test_a_small_picture_is_not_enlarged(tmp_path: Path) -> None:
    (thumbnail,) = pictures([saved(tmp_path / "a.png", Image.new("RGB", (30, 20)))], 800)
    assert isinstance(thumbnail, Picture)
    assert (thumbnail.width, thumbnail.height) == (30, 20)


def test_it_is_upright_and_has_no_metadata(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x112], exif[0x10F] = 6, "a camera"  # the picture lies on its side
    exif.get_ifd(0x8825)[1] = "N"
    picture = Image.new("RGB", (60, 40), "red")
    picture.paste("blue", (0, 0, 30, 40))
    (thumbnail,) = pictures(
        [saved(tmp_path / "a.jpg", picture, exif=exif, comment=b"by me", icc_profile=b"x" * 200)], 800
    )
    assert isinstance(thumbnail, Picture)
    shown = Image.open(BytesIO(thumbnail.jpeg))
    assert shown.size == (40, 60)
    assert shown.convert("RGB").getpixel((20, 5)) == pytest.approx((0, 0, 255), abs=30)
    assert not shown.getexif()
    assert not {"comment", "icc_profile", "exif"} & set(shown.info)
    assert b"camera" not in thumbnail.jpeg


def test_a_picture_that_cannot_be_made_is_replaced_by_the_reason(tmp_path: Path) -> None:
    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 nothing more")
    good = saved(tmp_path / "a.png", Image.new("RGB", (8, 8)))
    digest = hashlib.sha256((tmp_path / "a.png").read_bytes()).hexdigest()
    wanted = [
        good,
        (None, None),
        (str(tmp_path / "b.png"), None),
        (str(tmp_path / "broken.jpg"), None),
        (good[0], digest),
        (good[0], "0" * 64),
        ("http://127.0.0.1/a.png", None),
    ]
    results = list(pictures(wanted, 100))
    assert [isinstance(picture, Picture) for picture in results] == [
        True,
        False,
        False,
        False,
        True,
        False,
        False,
    ]
    assert results[1:3] == ["no image", "image file not found"]
    assert results[5] == "the image has changed since it was captioned"


def test_pictures_come_in_order_and_images_are_read_only_a_few_ahead(tmp_path: Path) -> None:
    read = []

    def images():
        for i in range(500):
            read.append(i)
            yield saved(tmp_path / f"{i}.png", Image.new("RGB", (1 + i % 97, 3)))

    thumbnails = pictures(images(), 100)
    widths = [next(thumbnails).width for _ in range(50)]
    assert widths == [1 + i % 97 for i in range(50)]
    assert len(read) < 100
