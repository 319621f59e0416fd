"""Measures how fast `captioner ingest pins` is, and how much memory it takes.

    python benchmarks/store.py [--pins 200000]

Writes a Parquet table of invented pins and ingests it in a process of its own: into an empty store, then
again as an update, then from gzipped JSON Lines. Last it ingests five times as many pins, to show that memory
does not grow with them.
"""

from __future__ import annotations

import argparse
import gzip
import json
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from words import WORDS

# Runs a command and prints the peak of its memory in MB.
MEASURED = """
import resource, subprocess, sys
code = subprocess.call(sys.argv[1:])
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss // 1024)
sys.exit(code)
"""


def pins(n: int, seed: int = 0) -> pa.Table:
    rng = random.Random(seed)
    text = lambda words: " ".join(rng.choices(WORDS, k=words))  # noqa: E731
    return pa.table(
        {
            "pin_id": [f"pin-{i:09}" for i in range(n)],
            "title": [text(6) if rng.random() < 0.6 else None for _ in range(n)],
            "description": [
                text(30)
                if rng.random() < 0.5
                else rng.choice(("", None, "N/A", "IMG_2041.JPG", "No description available"))
                for _ in range(n)
            ],
            "image": [f"images/{i % 1000:03}/{i}.jpg" for i in range(n)],
            "kind": [rng.choice(("pin", "product")) for _ in range(n)],
            "category": [rng.choice(WORDS) for _ in range(n)],
            "locale": ["en-US"] * n,
            "created_at": ["2026-01-01T00:00:00Z"] * n,
        }
    )


def ingest(store: Path, source: Path) -> tuple[float, int]:
    """Seconds and peak of memory in MB."""
    captioner = str(Path(sys.executable).parent / "captioner")
    began = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", MEASURED, captioner, "ingest", "pins", str(store), str(source)],
        check=True,
        capture_output=True,
        text=True,
    )
    return time.perf_counter() - began, int(done.stdout.split()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pins", type=int, default=200_000)
    n = parser.parse_args().pins
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        table = pins(n)
        pq.write_table(table, work / "pins.parquet")
        with gzip.open(work / "pins.jsonl.gz", "wt", compresslevel=1) as file:
            file.writelines(json.dumps(row) + "\n" for row in table.to_pylist())
        with pq.ParquetWriter(work / "five.parquet", table.schema) as writer:
            for part in range(5):
                writer.write_table(table.set_column(0, "pin_id", pa.array([f"{part}-{i}" for i in range(n)])))
        del table
        results = {}
        for name, store, source in (
            ("parquet", "a.db", "pins.parquet"),
            ("parquet again", "a.db", "pins.parquet"),
            ("jsonl.gz", "b.db", "pins.jsonl.gz"),
            ("parquet, five times", "c.db", "five.parquet"),
        ):
            seconds, megabytes = ingest(work / store, work / source)
            results[name] = {
                "pins": 5 * n if "five" in name else n,
                "seconds": round(seconds, 2),
                "pins_per_second": round((5 * n if "five" in name else n) / seconds),
                "peak_mb": megabytes,
            }
            print(name, results[name], file=sys.stderr)
        print(json.dumps(results, indent=2))


if __name__ == "__main__":
    main()
