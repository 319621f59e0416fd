"""`captioner doctor --golden`: does a published model write the caption that it wrote for somebody else?

No published checkpoint could be run where this project is built. Whoever has the hub can compare with this.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from ..common.errors import PincaptionError
from .model import CaptionModel, Decoding

PICTURE_ADDRESS = (
    "https://raw.githubusercontent.com/scikit-image/scikit-image/v0.24.0/skimage/data/astronaut.png"
)
_MAX_PICTURE = 100_000_000  # bytes


@dataclass(frozen=True)
class Golden:
    """A caption that is known: of this picture, by this model, decoded greedily to `max_new_tokens` at most.

    `dtype` is the number format on a GPU; on a CPU it is float32. `picture_sha256` is that of the file.
    """

    caption: str
    picture_sha256: str
    model: str
    revision: str | None
    max_new_tokens: int = 20
    dtype: str = "float16"

    def dtype_on(self, device: str) -> str:
        return "float32" if device == "cpu" else self.dtype


# Written with transformers 5.19. The picture is a photograph by NASA, in the public domain, as scikit-image
# ships it; the digest is that of scikit-image's own registry.
ASTRONAUT = Golden(
    caption="a woman in an orange space suit with a space helmet",
    picture_sha256="88431cd9653ccd539741b555fb0a46b61558b301d4110412b5bc28b5e3ea6cb5",
    model="Salesforce/blip2-opt-2.7b",
    revision="59a1ef6c1e5117b3f65523d1c6066825bcf315e3",
)


def find_picture(path: str | None) -> Path:
    """The file of the picture: `path`, or that of scikit-image if it is installed. Raises PincaptionError."""
    if path is None:
        skimage = find_spec("skimage")  # it is not imported
        place = Path(skimage.origin).parent / "data" / "astronaut.png" if skimage and skimage.origin else None
        if place is None or not place.is_file():
            raise PincaptionError(
                "the picture astronaut.png comes with scikit-image, which is not installed here: download "
                f"{PICTURE_ADDRESS} and give the file, --golden astronaut.png"
            )
        return place
    if not Path(path).is_file():
        raise PincaptionError(f"there is no file {path}: download {PICTURE_ADDRESS} and give that file")
    return Path(path)


def read_picture(path: Path, golden: Golden) -> bytes:
    """The bytes of the picture. Raises PincaptionError if they are those of another file."""
    if path.stat().st_size > _MAX_PICTURE:
        raise PincaptionError(f"{path} is larger than any astronaut.png: download {PICTURE_ADDRESS}")
    data = path.read_bytes()
    if hashlib.sha256(data).hexdigest() != golden.picture_sha256:
        raise PincaptionError(
            f"{path} is not the picture whose caption is known (its SHA-256 is not "
            f"{golden.picture_sha256[:12]}...): download {PICTURE_ADDRESS}"
        )
    return data


def write_caption(model: CaptionModel, data: bytes, golden: Golden) -> str:
    """What `model` writes about the picture. It is read and resized as every picture of a run is."""
    import numpy as np

    from ..images.decode import decode

    picture = decode(data, model.picture_size, resample=model.resample)
    decoding = Decoding(min_new_tokens=0, max_new_tokens=golden.max_new_tokens)
    return model.caption([np.asarray(picture)], [""], decoding)[0].text.strip()
