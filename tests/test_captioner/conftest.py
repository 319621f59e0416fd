"""Pictures for a worker."""

import random
import shutil
from pathlib import Path

import pytest

from pincaption.drawn import draw


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """0.png to 39.png are drawn, copy.png has the bytes of 0.png.

    broken.jpg, cut.png, empty.png and text.png cannot be read.
    """
    folder, rng = tmp_path_factory.mktemp("images"), random.Random(3)
    for i in range(40):
        draw.draw(draw.random_scene(rng), rng, (80, 60)).save(folder / f"{i}.png")
    shutil.copy(folder / "0.png", folder / "copy.png")
    whole = (folder / "1.png").read_bytes()
    (folder / "cut.png").write_bytes(whole[: len(whole) // 2])
    (folder / "broken.jpg").write_bytes(b"\xff\xd8\xff" + bytes(200))
    (folder / "empty.png").touch()
    (folder / "text.png").write_text("this is no image")
    return folder
