"""How long it takes to write the sheets of a large sample, and to score them.

    python benchmarks/eval.py [--items 10000] [--raters 3] [--rounds 3]

Draws pictures like catalogue photos (736x552, JPEG, 90 to 130 kB each, with grain), makes a store of
captioned pins, and runs `captioner eval sample` and `captioner eval score --report` in processes of their
own. The answers are invented. Nothing here says anything about a model.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image

from pincaption.drawn import draw
from pincaption.store import open_store, transaction
from pincaption.store.connection import now

CAPTIONER = Path(sys.executable).with_name("captioner")
DRAWN = 250  # different drawings; each pin's picture has grain of its own, so that no two files are alike


def make_store(folder: Path, pins: int) -> Path:
    """A store of captioned pins in twelve categories of uneven sizes, with pictures on the disk."""
    rng, noise = random.Random(0), np.random.default_rng(0)
    scenes = [draw.random_scene(rng) for _ in range(DRAWN)]
    drawings = [np.asarray(draw.draw(scene, rng, (736, 552)), dtype=np.int16) for scene in scenes]
    grain = noise.normal(0, 6, (64 + 552, 64 + 736, 3)).astype(np.int16)
    (folder / "images").mkdir()
    rows, captions = [], []
    for i in range(pins):
        x, y = rng.randrange(64), rng.randrange(64)
        file = BytesIO()
        Image.fromarray(
            np.clip(drawings[i % DRAWN] + grain[y : y + 552, x : x + 736], 0, 255).astype(np.uint8)
        ).save(file, "JPEG", quality=85, comment=str(i).encode())
        path, digest = folder / "images" / f"{i:06}.jpg", hashlib.sha256(file.getvalue()).hexdigest()
        path.write_bytes(file.getvalue())
        category = f"category {min(11, int(rng.expovariate(0.4)))}"
        rows.append((f"pin-{i:06}", category, str(path), digest))
        captions.append((f"pin-{i:06}", scenes[i % DRAWN].caption, digest, now()))
    conn = open_store(folder / "my.db", create=True)
    with transaction(conn):
        conn.execute("INSERT INTO recipes VALUES ('made-up', 'made-up', NULL, '', '', '{}', '{}', 'float32')")
        conn.executemany("INSERT INTO pins (pin_id, category, image, image_sha256) VALUES (?, ?, ?, ?)", rows)
        conn.executemany(
            "INSERT INTO captions (pin_id, recipe_id, status, text, image_sha256, updated_at) VALUES (?, "
            "'made-up', 'ok', ?, ?, ?)",
            captions,
        )
    conn.close()
    return folder / "my.db"


def fill(sheets: Path) -> int:
    """Answers every row; returns how many."""
    n = 0
    for path in sorted(sheets.glob("*.csv")):
        rng = random.Random(path.name)
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = list(csv.DictReader(file))
        for row in rows:
            good = rng.random() < 0.75 or random.Random(row["caption"]).random() < 0.5
            row |= {
                "relevance": "relevant" if good else rng.choice(["partly", "not"]),
                "quality": "good" if good else rng.choice(["acceptable", "poor"]),
                "seconds": f"{rng.uniform(5, 20):.1f}",
            }
        with path.open("w", encoding="utf-8-sig", newline="") as file:
            writer = csv.DictWriter(file, rows[0].keys())
            writer.writeheader()
            writer.writerows(rows)
        n += len(rows)
    return n


def timed(*arguments: str | Path) -> tuple[float, float, dict]:
    """Seconds, peak memory in MB and the JSON of a captioner command."""
    code = (
        "import resource, subprocess, sys; done = subprocess.run(sys.argv[1:], stdout=sys.stdout); "
        "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss, file=sys.stderr); "
        "sys.exit(done.returncode)"
    )
    began = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", code, CAPTIONER, *map(str, arguments), "--json"],
        capture_output=True,
        text=True,
    )
    seconds = time.perf_counter() - began
    if done.returncode:
        sys.exit(done.stderr)
    return seconds, int(done.stderr.split()[-1]) / 1024, json.loads(done.stdout)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--items", type=int, default=10_000)
    parser.add_argument("--raters", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        began = time.perf_counter()
        store = make_store(folder, arguments.items + arguments.items // 5)
        average = statistics.fmean(path.stat().st_size for path in (folder / "images").iterdir())
        print(
            f"made {arguments.items + arguments.items // 5:,} pins with pictures of {average / 1000:.0f} "
            f"kB in {time.perf_counter() - began:.0f} s"
        )
        written, scored = [], []
        for i in range(arguments.rounds):
            shutil.rmtree(folder / "sheets", ignore_errors=True)
            took = timed(
                "eval",
                "sample",
                store,
                folder / "sheets",
                "--n",
                str(arguments.items),
                "--raters",
                str(arguments.raters),
                "--stratify",
                "category",
                "--seed",
                str(i),
            )
            written.append(took)
            html = sum(path.stat().st_size for path in (folder / "sheets").glob("*.html"))
            rows = fill(folder / "sheets")
            scored.append(
                timed(
                    "eval",
                    "score",
                    store,
                    *sorted((folder / "sheets").glob("*.csv")),
                    "--report",
                    folder / "report.html",
                )
            )
            print(
                f"round {i + 1}: written in {took[0]:.1f} s, {took[1]:.0f} MB at the peak, "
                f"{len(took[2]['files'])} files, {html / 1e6:,.0f} MB of HTML; {rows:,} rows scored "
                f"in {scored[-1][0]:.2f} s, {scored[-1][1]:.0f} MB"
            )
        print(
            f"median: {arguments.items:,} items, {arguments.raters} raters: written in "
            f"{statistics.median(t for t, _, _ in written):.1f} s (target 300), scored in "
            f"{statistics.median(t for t, _, _ in scored):.2f} s (target 10)"
        )
        print(scored[-1][2]["sentence"])


if __name__ == "__main__":
    main()
