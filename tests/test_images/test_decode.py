"""The model gets what people see on a page: pictures of every kind, and thousands of broken ones."""

import io
import struct
import threading
import time
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms

from pincaption.images import decode as decode_module
from pincaption.images.decode import ImageError, decode

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"
CORNERS = {"red": (255, 0, 0), "green": (0, 128, 0), "blue": (0, 0, 255), "white": (255, 255, 255)}


def encoded(picture: Image.Image, format: str, **options) -> bytes:
    file = io.BytesIO()
    picture.save(file, format, **options)
    return file.getvalue()


def corners(width: int = 48, height: int = 32) -> Image.Image:
    """Red, green, blue and white in the upper left, upper right, lower left and lower right quarter."""
    picture = Image.new("RGB", (width, height))
    for i, colour in enumerate(CORNERS):
        picture.paste(
            colour,
            (i % 2 * width // 2, i // 2 * height // 2, (i % 2 + 1) * width // 2, (i // 2 + 1) * height // 2),
        )
    return picture


def photo(width: int, height: int) -> Image.Image:
    """A smooth picture with some detail, as JPEG is made for."""
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    bands = [
        127 + 80 * np.sin(x / (37 + 9 * i) + i) * np.cos(y / (53 - 7 * i)) + 20 * np.sin((x + y) / 5)
        for i in range(3)
    ]
    return Image.fromarray(np.clip(np.stack(bands, -1), 0, 255).astype(np.uint8))


def png(width: int, height: int, bits: int, colour: int, rows: bytes, extra: bytes = b"") -> bytes:
    """A PNG by hand, for what Pillow cannot write."""
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0))
        + extra
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )


def chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def pixel(data: bytes, at: tuple[int, int] = (0, 0)) -> tuple[int, ...]:
    picture = decode(data)
    assert picture.mode == "RGB"
    return picture.getpixel(at)


def reason(data: bytes, **options) -> str:
    with pytest.raises(ImageError) as error:
        decode(data, **options)
    return str(error.value)


# --- colours


@pytest.mark.parametrize(
    "format", ["PNG", "GIF", "BMP", "TIFF", "PPM", "WEBP", "JPEG2000", "QOI", "ICO", "AVIF"]
)
def test_common_formats_show_the_colours_they_were_given(format):
    options = (
        {"lossless": True}
        if format == "WEBP"
        else {"quality": 100, "subsampling": "4:4:4"}
        if format == "AVIF"
        else {}
    )
    picture = decode(encoded(corners(48, 48) if format == "ICO" else corners(), format, **options))
    width, height = picture.size
    for i, colour in enumerate(CORNERS.values()):
        seen = picture.getpixel((width // 4 + i % 2 * width // 2, height // 4 + i // 2 * height // 2))
        assert np.abs(np.subtract(seen, colour)).max() <= 2


def test_the_result_has_no_orientation_by_which_it_could_be_turned_again():
    exif = Image.Exif()
    exif[0x112] = 6
    for size in (None, (32, 48), (24, 24)):
        picture = decode(encoded(corners(), "JPEG", exif=exif), size)
        assert type(picture) is Image.Image
        assert picture.info == {}
        assert picture.getexif().get(0x112) is None


@pytest.mark.parametrize("mode", ["RGBA", "LA", "PA"])
def test_alpha_is_composed_on_white(mode):
    picture = (
        Image.new("RGBA", (4, 4), (255, 0, 0, 128)) if mode == "RGBA" else Image.new("LA", (4, 4), (0, 128))
    )
    if mode == "PA":
        picture = picture.convert("RGBA").convert("PA")
    expected = (255, 127, 127) if mode == "RGBA" else (127, 127, 127)
    assert pixel(encoded(picture, "TIFF" if mode == "PA" else "PNG")) == expected


def test_invisible_pixels_are_white_whatever_colour_they_hide():
    assert pixel(encoded(Image.new("RGBA", (4, 4), (255, 0, 0, 0)), "PNG")) == (255, 255, 255)
    assert pixel(encoded(Image.new("RGBA", (4, 4), (255, 0, 0, 0)), "WEBP", lossless=True, exact=True)) == (
        255,
        255,
        255,
    )


@pytest.mark.parametrize(
    ("transparency", "expected"),
    [(1, (255, 255, 255)), (bytes([255, 128]), (127, 127, 255)), (None, (0, 0, 255))],
)
def test_palettes_with_and_without_transparency(transparency, expected):
    picture = Image.new("P", (2, 1), 1)
    picture.putpalette([255, 0, 0, 0, 0, 255, 0, 255, 0])
    picture.putpixel((1, 0), 2)
    data = encoded(picture, "PNG", **({} if transparency is None else {"transparency": transparency}))
    assert pixel(data) == expected
    assert pixel(data, (1, 0)) == (0, 255, 0)


def test_transparent_colour_of_grey_and_rgb_at_every_depth():
    for mode, value, colours in [("L", 7, (7, 8)), ("RGB", (1, 2, 3), ((1, 2, 3), (1, 2, 4)))]:
        picture = Image.new(mode, (2, 1), colours[0])
        picture.putpixel((1, 0), colours[1])
        data = encoded(picture, "PNG", transparency=value)
        shown = colours[1] if isinstance(colours[1], tuple) else (colours[1],) * 3
        assert pixel(data) == (255, 255, 255)
        assert pixel(data, (1, 0)) == shown
    # 2 and 4 bits: values 1 and 2, of which 1 is transparent; 1 bit: 0 is transparent
    for bits, row, shown in [(2, 0b01100000, 170), (4, 0b00010010, 34), (1, 0b01000000, 255)]:
        data = png(2, 1, bits, 0, bytes([0, row]), chunk(b"tRNS", struct.pack(">H", 0 if bits == 1 else 1)))
        assert pixel(data) == (255, 255, 255)
        assert pixel(data, (1, 0)) == (shown,) * 3
    # 16 bits, grey and colour
    data = png(
        2, 1, 16, 0, b"\0" + struct.pack(">HH", 0x1234, 0x1235), chunk(b"tRNS", struct.pack(">H", 0x1234))
    )
    assert pixel(data) == (255, 255, 255)
    assert pixel(data, (1, 0)) == (0x12,) * 3
    data = png(
        2,
        1,
        16,
        2,
        b"\0" + struct.pack(">6H", 0x1000, 0x2000, 0x3000, 0, 0, 0xFFFF),
        chunk(b"tRNS", struct.pack(">3H", 0x1000, 0x2000, 0x3000)),
    )
    assert pixel(data) == (255, 255, 255)
    assert pixel(data, (1, 0)) == (0, 0, 255)


RAMP = np.arange(65536, dtype=np.uint16).reshape(256, 256)


@pytest.mark.parametrize(
    "data",
    [
        encoded(Image.fromarray(RAMP), "PNG"),
        encoded(Image.fromarray(RAMP), "TIFF"),
        encoded(Image.fromarray(RAMP), "JPEG2000"),
        encoded(Image.frombytes("I;16B", (256, 256), RAMP.astype(">u2").tobytes()), "TIFF"),
        b"P5 256 256 65535\n" + RAMP.astype(">u2").tobytes(),
        encoded(Image.fromarray(RAMP.astype(np.int32)), "TIFF"),
    ],
    ids=["png", "tiff", "jpeg2000", "tiff big-endian", "pgm", "tiff 32 bits"],
)
def test_16_bits_of_grey_become_8(data):
    grey = np.asarray(decode(data))
    assert (grey == (RAMP >> 8).astype(np.uint8)[..., None]).all()


@pytest.mark.parametrize("top", [1.0, 255.0, 5000.0])
def test_floating_point_shows_its_whole_range(top):
    values = np.linspace(0, top, 256, dtype=np.float32).reshape(16, 16)
    grey = np.asarray(decode(encoded(Image.fromarray(values), "TIFF")))[..., 0].ravel()
    assert np.abs(grey.astype(int) - np.arange(256)).max() <= 1
    values[0, :3] = np.nan, np.inf, -np.inf
    assert decode(encoded(Image.fromarray(values), "TIFF")).getpixel((0, 0)) == (0, 0, 0)


def test_32_bits_of_grey_are_scaled_by_their_maximum():
    values = np.array([[-5, 0, 500_000, 1_000_000]], np.int32)
    assert np.asarray(decode(encoded(Image.fromarray(values), "TIFF")))[0, :, 0].tolist() == [0, 0, 127, 255]


def test_cmyk_of_jpeg_which_is_inverted_and_of_tiff_which_is_not():
    picture = Image.new("CMYK", (16, 16), (255, 0, 255, 0))  # green
    assert np.abs(np.subtract(pixel(encoded(picture, "JPEG", quality=100)), (0, 255, 0))).max() <= 2
    assert pixel(encoded(picture, "TIFF")) == (0, 255, 0)


def test_one_bit_lab_and_ycbcr():
    assert pixel(encoded(Image.new("1", (3, 3), 1), "PNG")) == (255, 255, 255)
    assert pixel(encoded(Image.new("1", (3, 3), 0), "TIFF", compression="group4")) == (0, 0, 0)
    rgb = Image.new("RGB", (8, 8), (200, 60, 30))
    to_lab = ImageCms.buildTransform(
        ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), "RGB", "LAB"
    )
    assert (
        np.abs(np.subtract(pixel(encoded(ImageCms.applyTransform(rgb, to_lab), "TIFF")), (200, 60, 30))).max()
        <= 3
    )
    assert np.abs(np.subtract(pixel(encoded(rgb.convert("YCbCr"), "TIFF")), (200, 60, 30))).max() <= 2


@pytest.mark.parametrize("format", ["GIF", "WEBP", "PNG", "TIFF"])
def test_first_frame_of_an_animation(format):
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue", "lime")]
    options = {"lossless": True} if format == "WEBP" else {}
    assert pixel(encoded(frames[0], format, save_all=True, append_images=frames[1:], **options)) == (
        255,
        0,
        0,
    )


# --- which way up


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_orientation_equals_the_upright_original(format, orientation):
    upright = corners()
    undo = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # the transposition that the camera did
    stored = upright.transpose(undo[orientation]) if orientation > 1 else upright
    exif = Image.Exif()
    exif[0x112] = orientation
    options = {
        "JPEG": {"quality": 100, "subsampling": 0},
        "WEBP": {"lossless": True},
        "AVIF": {"quality": 100, "subsampling": "4:4:4"},
    }.get(format, {})
    data = encoded(stored, format, exif=exif, **options)
    for size in (None, (24, 40)):
        picture = decode(data, size)
        expected = upright.resize(size, Image.Resampling.BICUBIC) if size else upright
        assert picture.size == expected.size
        assert np.abs(np.asarray(picture, int) - np.asarray(expected, int)).max() <= 4


def test_corrupt_exif_fails_no_image():
    plain = encoded(corners(), "JPEG", quality=100)
    good = Image.Exif()
    good[0x112] = 6
    block = good.tobytes()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's warnings: it looks for the resolution
        for exif in [
            b"",
            b"Exif\0\0",
            b"Exif\0\0II*\0\xff\xff\xff\x7f",
            b"Exif\0\0XX",
            *(block[:n] for n in range(len(block))),
        ]:
            segment = b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif
            assert decode(plain[:2] + segment + plain[2:]).size in ((48, 32), (32, 48))


def test_orientation_in_xmp_counts_when_exif_says_nothing():
    xmp = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'
    assert decode(encoded(corners(), "JPEG", xmp=xmp)).size == (32, 48)


# --- size


def test_resized_as_the_image_processor_does_it():
    original = photo(500, 300)
    for data in (encoded(original, "PNG"), encoded(original, "JPEG", quality=95)):
        upright = Image.open(io.BytesIO(data)).convert("RGB")
        assert (
            decode(data, (224, 224)).tobytes()
            == upright.resize((224, 224), Image.Resampling.BICUBIC).tobytes()
        )
        assert decode(data, (64, 64), resample=Image.Resampling.LANCZOS).size == (64, 64)


def test_huge_photos_are_decoded_small_and_look_the_same():
    data = encoded(photo(4000, 3000), "JPEG", quality=95)
    exact = decode(data).resize((224, 224), Image.Resampling.BICUBIC)
    quick = decode(data, (224, 224))
    assert np.abs(np.asarray(exact, int) - np.asarray(quick, int)).mean() < 1
    began = time.process_time()
    decode(data)
    whole = time.process_time() - began
    began = time.process_time()
    decode(data, (224, 224))
    assert time.process_time() - began < whole


@pytest.mark.parametrize("size", [(1, 1), (1, 3000), (3000, 1), (2, 65000), (65000, 2)])
def test_odd_shapes(size):
    for format in ("PNG", "JPEG"):
        data = encoded(Image.new("RGB", size, "red"), format)
        assert decode(data).size == size
        assert decode(data, (224, 224)).size == (224, 224)


# --- hostile bytes


def bomb(width: int, height: int) -> bytes:
    return png(width, height, 8, 2, bytes(1000))


@pytest.mark.parametrize(
    "data",
    [
        bomb(60_000, 60_000),
        bomb(2**31 - 1, 2**31 - 1),
        b"GIF89a"
        + struct.pack("<HHBBB", 65535, 65535, 0, 0, 0)
        + b",\0\0\0\0"
        + struct.pack("<HHB", 65535, 65535, 0)
        + b"\x08\x01\0\0;",
        b"P6 50000 50000 255\n" + bytes(100),
        b"BM"
        + struct.pack("<IIIIiiHHIIIIII", 154, 0, 54, 40, 40_000, 40_000, 1, 24, 0, 0, 0, 0, 0, 0)
        + bytes(100),
        # an icon whose directory claims 16 x 16
        b"\0\0\1\0\1\0"
        + struct.pack("<BBBBHHII", 16, 16, 0, 0, 1, 32, len(bomb(30_000, 30_000)), 22)
        + bomb(30_000, 30_000),
        b"\0\0\1\0\1\0"
        + struct.pack("<BBBBHHII", 16, 16, 0, 0, 1, 32, 140, 22)
        + struct.pack("<IiiHHIIIIII", 40, 30_000, 30_000, 1, 32, 0, 0, 0, 0, 0, 0)
        + bytes(100),
    ],
    ids=["png", "larger png", "gif", "ppm", "bmp", "png in ico", "bmp in ico"],
)
def test_bombs_are_refused_before_decoding_and_without_a_warning(data):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        began = time.process_time()
        assert reason(data) == "more pixels than the limit of 100,000,000"
        assert time.process_time() - began < 0.5


def test_the_limit_of_pixels_does_not_depend_on_that_of_pillow():
    data = encoded(Image.new("1", (9_600, 9_600)), "PNG")  # above Pillow's warning at 89 million
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert decode(data, (8, 8)).size == (8, 8)
    assert reason(data, max_pixels=92_159_999) == "more pixels than the limit of 92,159,999"
    assert Image.MAX_IMAGE_PIXELS == 89_478_485


def test_a_very_long_side_is_refused():
    assert (
        reason(encoded(Image.new("1", (100_001, 1)), "PNG"))
        == "a side longer than the limit of 100,000 pixels"
    )


def test_large_pictures_of_a_slow_format_are_refused():
    assert "this slow" in reason(b"P6 2001 2000 100\n" + bytes(3 * 2001 * 2000))


def test_progressive_jpeg_with_a_thousand_scans_is_refused():
    data = encoded(Image.new("L", (8000, 8000)), "JPEG", progressive=True)
    head, last = data[: data.rindex(b"\xff\xda")], data[data.rindex(b"\xff\xda") : -2]
    assert decode(head + last + b"\xff\xd9", (8, 8))
    assert reason(head + last * 1000 + b"\xff\xd9") == "a progressive JPEG with too many scans"


@pytest.mark.parametrize(
    "format", ["JPEG", "PNG", "GIF", "WEBP", "TIFF", "BMP", "QOI", "PPM", "JPEG2000", "AVIF"]
)
def test_a_file_cut_anywhere_is_refused_or_whole(format):
    data = encoded(photo(96, 64), format)
    whole, reasons = decode(data).tobytes(), set()
    for end in {*range(0, len(data), max(1, len(data) // 150)), *range(len(data) - 30, len(data))}:
        try:
            assert decode(data[:end]).tobytes() == whole, f"cut at {end} of {len(data)}"
        except ImageError as error:
            reasons.add(str(error))
    assert reasons <= {
        "truncated image",
        "broken image",
        "image file is empty",
        "not an image, or a format that is not supported",
    }


def test_reasons():
    assert reason(b"") == "image file is empty"
    for data in (
        b"<!DOCTYPE html><html>404</html>",
        b"<svg/>",
        b"%!PS-Adobe-3.0 EPSF-3.0\n",
        b"%PDF-1.7",
        b"\x80\x04K\x01.",
        bytes(100),
    ):
        assert reason(data) == "not an image, or a format that is not supported"
    jpeg = encoded(photo(96, 64), "JPEG")
    assert reason(jpeg[: len(jpeg) // 2]) == "truncated image"
    with pytest.raises(ImageError) as error:
        decode(jpeg[: len(jpeg) // 2])
    assert isinstance(error.value.__cause__, OSError)


def test_random_damage_never_raises_anything_else():
    chance = np.random.default_rng(0)
    for format in ("JPEG", "PNG", "GIF", "WEBP", "TIFF", "BMP", "ICO", "JPEG2000", "AVIF"):
        data = encoded(photo(64, 64), format)
        for _ in range(60):
            damaged = bytearray(data)
            for at in chance.integers(0, len(data), 4):
                damaged[at] = chance.integers(256)
            decode_or_reason(bytes(damaged))


def decode_or_reason(data: bytes, **options) -> str:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            picture = decode(data, **options)
        except ImageError as error:
            return str(error)
    assert picture.mode == "RGB"
    assert min(picture.size) > 0
    return "picture"


def test_large_pictures_are_decoded_one_at_a_time(monkeypatch):
    monkeypatch.setattr(decode_module, "LARGE", 1000)
    data = encoded(photo(96, 64), "PNG")
    assert decode_module._large_lock.acquire(timeout=60)
    done = threading.Event()
    thread = threading.Thread(target=lambda: (decode(data), done.set()))
    try:
        thread.start()
        assert decode(encoded(photo(20, 20), "PNG")).size == (20, 20)
        assert not done.wait(0.2)
    finally:
        decode_module._large_lock.release()
    assert done.wait(60)
    thread.join()


@pytest.mark.parametrize("folder", ["bad_images", "stamps_gpl2", "clothing_cc0"])
def test_every_file_of_the_torture_suites_ends_as_a_picture_or_a_reason(folder):
    if not (DATA / folder).is_dir():
        pytest.skip(f"{DATA / folder} is not on this machine")
    reasons = set()
    for path in sorted(p for p in (DATA / folder).rglob("*") if p.is_file()):
        began = time.process_time()
        reasons.add(decode_or_reason(path.read_bytes(), size=(224, 224), max_pixels=20_000_000))
        assert time.process_time() - began < 10, path
    assert "picture" in reasons
    assert len(reasons) < 15
