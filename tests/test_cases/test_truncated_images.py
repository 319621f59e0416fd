"""Images that end early: refused, or captioned from what is there and marked. HEIC, by its extra."""

from __future__ import annotations

import io
import subprocess
import sys
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner, Result
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from pincaption.cli import cli
from pincaption.images.decode import TRUNCATED, ImageError, decode
from pincaption.images.thumbnails import Picture, pictures
from pincaption.images.truncated import completed
from pincaption.store import open_store


def captioner(*arguments: Any) -> Result:
    return CliRunner().invoke(cli, [str(argument) for argument in arguments])


def gradient(mode: str = "RGB", size: tuple[int, int] = (160, 120)) -> Image.Image:
    x, y = np.meshgrid(np.linspace(0, 255, size[0]), np.linspace(0, 255, size[1]))
    pixels = np.stack([x, y, np.random.default_rng(0).integers(0, 40, x.shape)], -1).astype("uint8")
    return Image.fromarray(pixels).convert(mode)


def file_of(picture: Image.Image, format: str, **options: Any) -> bytes:
    file = io.BytesIO()
    picture.save(file, format, **options)
    return file.getvalue()


@pytest.mark.parametrize(
    ("format", "mode", "options"),
    [
        ("JPEG", "RGB", {}),
        ("JPEG", "L", {}),
        ("JPEG", "RGB", {"progressive": True}),
        ("PNG", "RGB", {}),
        ("PNG", "RGBA", {}),
        ("PNG", "P", {}),
        ("PNG", "1", {}),
        ("PNG", "I;16", {}),
    ],
)
def test_what_is_there_of_an_image_is_as_in_the_whole(format: str, mode: str, options: dict) -> None:
    picture = gradient() if mode != "I;16" else Image.fromarray(np.full((120, 160), 40_000, np.uint16))
    data = file_of(picture if mode == "I;16" else picture.convert(mode), format, **options)
    cut = data[: len(data) * 2 // 3]
    with pytest.raises(ImageError, match=TRUNCATED):
        decode(cut)
    with_end = completed(cut)
    assert with_end is not None
    whole, part = np.asarray(decode(data)).astype(int), np.asarray(decode(with_end)).astype(int)
    assert part.shape == whole.shape
    if not options:
        assert np.abs(whole - part)[:50].mean() < 3
    assert np.abs(whole - part).mean() < 90


def test_other_formats_and_images_without_pixels_are_refused() -> None:
    jpeg, png = file_of(gradient(), "JPEG"), file_of(gradient(), "PNG")
    for data in (b"", b"text", jpeg[:30], png[:40], file_of(gradient(), "WEBP")[:500]):
        assert completed(data) is None


def test_a_png_that_claims_to_be_huge_is_not_filled_up() -> None:
    data = bytearray(file_of(gradient(), "PNG"))
    data[16:24] = (100_000).to_bytes(4, "big") * 2
    assert completed(bytes(data[:2000])) is None


@settings(max_examples=50)
@given(st.data())
def test_damaged_bytes_never_raise_anything_else(data: st.DataObject) -> None:
    original = data.draw(st.sampled_from([file_of(gradient(), "PNG"), file_of(gradient(), "JPEG")]))
    content = bytearray(original[: data.draw(st.integers(0, len(original)))])
    for _ in range(data.draw(st.integers(0, 5))):
        if content:
            content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    with_end = completed(bytes(content))
    if with_end is not None:
        with suppress(ImageError):
            decode(with_end)


def test_a_run_refuses_and_a_run_that_accepts_marks(tmp_path: Path) -> None:
    (tmp_path / "ph").mkdir()
    data = file_of(gradient(), "JPEG")
    (tmp_path / "ph/cut.jpg").write_bytes(data[: len(data) // 2])
    (tmp_path / "ph/same.jpg").write_bytes(data[: len(data) // 2])
    (tmp_path / "ph/head.jpg").write_bytes(data[:30])
    (tmp_path / "ph/whole.jpg").write_bytes(data)
    db = tmp_path / "s.db"
    captioner("ingest", "images", db, tmp_path / "ph")
    refused = captioner("run", db, "--model", "builtin", "--min-new-tokens", 1)
    assert "3  truncated image" in refused.stdout
    # No --retry-failed: who accepts truncated images wants those that failed for it.
    accepted = captioner("run", db, "--truncated", "accept", "--min-new-tokens", 1)
    assert "from what is there of an image that ends early" in accepted.stdout
    again = captioner("run", db, "--truncated", "accept", "--min-new-tokens", 1)
    assert "0 captioned, 0 shared, 0 rejected, 1 failed" in again.stdout
    assert captioner("run", db, "--min-new-tokens", 1).stdout.startswith("nothing to do")
    with closing(open_store(db)) as store:
        query = "SELECT pin_id FROM pins JOIN truncated_images USING (image_sha256) ORDER BY 1"
        assert [row[0] for row in store.execute(query)] == ["cut.jpg", "same.jpg"]
        statuses = dict(store.execute("SELECT pin_id, status FROM captions").fetchall())
        assert statuses["head.jpg"] == "failed"
    captioner("export", db, tmp_path / "out")
    table = pq.read_table(tmp_path / "out/features").to_pylist()
    marked = {row["pin_id"]: row["caption_truncated"] for row in table}
    assert marked == {
        name: statuses[name] == "ok" and name != "whole.jpg"
        for name in ("cut.jpg", "same.jpg", "head.jpg", "whole.jpg")
    }
    assert captioner("export", "--check", tmp_path / "out").exit_code == 0


def test_people_see_what_was_captioned(tmp_path: Path) -> None:
    data = file_of(gradient(), "JPEG")
    (tmp_path / "cut.jpg").write_bytes(data[: len(data) // 2])
    (shown,) = pictures([(str(tmp_path / "cut.jpg"), None)], 64)
    assert isinstance(shown, Picture)


def test_heic_is_read_with_its_extra(tmp_path: Path) -> None:
    pillow_heif = pytest.importorskip("pillow_heif")
    pillow_heif.register_heif_opener()
    picture = gradient()
    data = file_of(picture, "HEIF", quality=95)
    decoded = decode(data, side=160)
    assert decoded.size == picture.size
    assert np.abs(np.asarray(decoded).astype(int) - np.asarray(picture)).mean() < 10
    with pytest.raises(ImageError):
        decode(data[: len(data) // 2])
    with pytest.raises(ImageError, match="more pixels than the limit of 100"):
        decode(data, max_pixels=100)


def test_heic_without_its_extra_fails_with_a_reason_that_names_it(tmp_path: Path) -> None:
    script = """
import sys
sys.modules["pillow_heif"] = None  # an import of it fails, as if it were not installed
from pincaption.images.decode import decode, ImageError
try:
    decode(bytes(4) + b"ftypheic" + bytes(100))
except ImageError as error:
    print(error)
"""
    printed = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert printed.stdout == "HEIC images need: pip install 'pincaption[heic]'\n"
