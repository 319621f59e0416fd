"""What benchmarks/gpu.py works on, made by processes of their own while torch is being imported.

    python benchmarks/gpu_data.py FOLDER --plain 400 --pictures 16000 --export 20000

FOLDER/plain: drawn pictures of 224 px, named by what they show; FOLDER/pictures: JPEG files of 700 px, all
different, with noise, so that they take as many bytes as a photo; FOLDER/export: an export of made-up
pins, to train on. Each folder gets its name when it is complete.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
from PIL import Image

from pincaption.drawn.draw import draw, random_scene

SIZE = (700, 525)  # pixels
BASES = 32  # drawn pictures that the large ones are variations of
NOISE = 7.0  # of 255, standard deviation: 700 x 525 pixels take some 105 kB at quality 90, as photos do


def plain(folder: Path, numbers: range) -> None:
    for i in numbers:
        rng = random.Random(i)
        scene = random_scene(rng)
        draw(scene, rng).save(folder / f"{i:05} {scene.caption}.jpg", quality=95)


def pictures(folder: Path, numbers: range) -> None:
    rng = random.Random(0)
    bases = [np.asarray(draw(random_scene(rng), rng, SIZE), np.int16) for _ in range(BASES)]
    noise = np.random.default_rng(0).normal(0, NOISE, (2 * SIZE[1], 2 * SIZE[0], 1)).astype(np.int16)
    for i in numbers:
        rng = random.Random(i)
        y, x, light = rng.randrange(SIZE[1]), rng.randrange(SIZE[0]), rng.randint(-20, 20)
        picture = bases[i % BASES] + noise[y : y + SIZE[1], x : x + SIZE[0]] + light
        picture[:8, : 8 * 16] = np.repeat([255 * (i >> bit & 1) for bit in range(16)], 8)[
            None, :, None
        ]  # no two are equal
        Image.fromarray(np.clip(picture, 0, 255).astype(np.uint8)).save(folder / f"{i:06}.jpg", quality=90)


def export(folder: Path, pins: int) -> None:
    """In FOLDER/export/out; by the command, as `python -m`, for the console script is not installed
    everywhere.
    """
    import embed_data

    def captioner(*arguments: object) -> str:
        command = [sys.executable, "-m", "pincaption.cli", *map(str, arguments)]
        return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout

    embed_data.WORK, embed_data.captioner = folder, captioner
    made = embed_data.made_up_export(pins)
    made.parent.rename(folder / "export")


def together(make: object, folder: Path, n: int) -> None:
    """`make(folder, numbers)` in as many processes as there are cores."""
    unfinished = folder.with_name(f"{folder.name}.unfinished")
    unfinished.mkdir(parents=True)
    cores = min(os.cpu_count() or 1, 1 + n // 8)
    context = multiprocessing.get_context("fork")
    processes = [
        context.Process(target=make, args=(unfinished, range(i, n, cores)))
        for i in range(cores)  # type: ignore[arg-type]
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    if any(process.exitcode for process in processes):
        sys.exit(f"{folder} could not be made")
    unfinished.rename(folder)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    for name in ("plain", "pictures", "export"):
        parser.add_argument(f"--{name}", type=int, default=0)
    chosen = parser.parse_args()
    if chosen.plain:
        together(plain, chosen.folder / "plain", chosen.plain)
    if chosen.pictures:
        together(pictures, chosen.folder / "pictures", chosen.pictures)
    if chosen.export:
        export(chosen.folder, chosen.export)


if __name__ == "__main__":
    main()
