"""How fast `captioner export` writes, how fast a trainer reads, and up to what size SQLite serves.

    python benchmarks/export.py export [--pins 1000000] [--rounds 3]
        compared with datasets.Dataset.from_sql, JSON decoding and to_parquet
    python benchmarks/export.py read [--pins 200000]
        rows/s of one worker: from the export, from the store, with datasets, with pyarrow
    python benchmarks/export.py scale [--pins 100000 500000 1000000 2000000]
        seconds and memory by size
    python benchmarks/export.py size [--pins 1000000 5000000]
        ingest, bookkeeping of runs, reads of the view and export, by size

The stores have made-up pins: 70% with a title, half with a description, half with a caption, each with ten
board titles and twenty queries. They are kept in benchmarks/work, or in the folder that CAPTIONER_BENCH
names.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import sqlite3
import statistics
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from words import WORDS

from pincaption.store import EnrichedFeatures, open_store, transaction
from pincaption.store.columns import COLUMNS, LISTS

WORK = Path(os.environ.get("CAPTIONER_BENCH", Path(__file__).parent / "work"))
CAPTIONER = Path(sys.executable).with_name("captioner")


def make_store(pins: int) -> Path:
    """A store with `pins` pins, their ids in no order."""
    path = WORK / f"export-{pins}.db"
    if (WORK / f"export-{pins}.complete").exists():
        return path
    for old in WORK.glob(f"export-{pins}.db*"):
        old.unlink()
    WORK.mkdir(exist_ok=True)
    rng = random.Random(0)

    def text(words: int) -> str:
        return " ".join(rng.choices(WORDS, k=words))

    def numbers(n: int) -> str:
        return json.dumps([rng.randint(1, 50) for _ in range(n)], separators=(",", ":"))

    def scores(n: int) -> str:
        return json.dumps([round(rng.random() * 9, 4) for _ in range(n)], separators=(",", ":"))

    def texts(n: int) -> str:
        return json.dumps(
            [f"{text(rng.randint(1, 4))} {rng.randrange(30_000)}" for _ in range(n)], separators=(",", ":")
        )

    boards = [(texts(10), numbers(10), scores(10)) for _ in range(20_000)]
    queries = [(texts(20), numbers(20), scores(20)) for _ in range(20_000)]
    own = [(text(5), text(15), text(9)) for _ in range(20_000)]
    order = np.random.default_rng(0).permutation(pins)
    conn = open_store(path, create=True)
    conn.execute("PRAGMA synchronous = OFF")
    conn.execute("INSERT INTO recipes VALUES ('made-up', 'made-up', NULL, '', '', '{}', '{}', 'float32')")
    for start in range(0, pins, 50_000):
        some = [(f"pin-{number:010}", number) for number in order[start : start + 50_000].tolist()]
        with transaction(conn):
            conn.executemany(
                """INSERT INTO pins (pin_id, title, description, image, image_sha256, category, locale)
                VALUES (?, ?, ?, ?, ?, ?, 'en-US')""",
                [
                    (
                        i,
                        rng.choice(own)[0] if n % 10 < 7 else None,
                        rng.choice(own)[1] if n % 10 < 5 else None,
                        f"/i/{n}.jpg",
                        f"{n:064x}",
                        WORDS[n % len(WORDS)],
                    )
                    for i, n in some
                ],
            )
            captions = [(i, rng.choice(own)[2], f"{n:064x}") for i, n in some if n % 10 >= 5]
            conn.executemany(
                """INSERT INTO captions (pin_id, recipe_id, status, text, image_sha256, updated_at)
                VALUES (?, 'made-up', 'ok', ?, ?, '2026-01-01')""",
                captions,
            )
            conn.executemany(
                "INSERT INTO board_titles VALUES (?, ?, ?, ?)", [(i, *rng.choice(boards)) for i, _ in some]
            )
            conn.executemany(
                "INSERT INTO engaged_queries VALUES (?, ?, ?, ?, '[]', '[]')",
                [(i, *rng.choice(queries)) for i, _ in some],
            )
    conn.close()
    (WORK / f"export-{pins}.complete").touch()
    return path


def measured(*command: str | Path) -> tuple[float, float]:
    """Seconds and peak memory in MB of a command."""
    code = """import resource, subprocess, sys
done = subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
sys.exit(done.returncode)"""
    began = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", code, *map(str, command)], capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stderr)
    return time.perf_counter() - began, int(done.stdout) / 1024


def from_sql(store: str, out: str) -> None:
    """What one would write with `datasets`: the view, its JSON decoded, Parquet."""
    import datasets

    datasets.disable_progress_bars()
    shutil.rmtree(f"{out}.cache", ignore_errors=True)
    found = datasets.Dataset.from_sql(
        f"SELECT {', '.join(COLUMNS)} FROM enriched_features",
        sqlite3.connect(store),
        cache_dir=f"{out}.cache",
    )
    decoded = found.map(
        lambda batch: {name: [json.loads(cell) if cell else [] for cell in batch[name]] for name in LISTS},
        batched=True,
    )
    decoded.to_parquet(out)
    shutil.rmtree(f"{out}.cache", ignore_errors=True)


def export(pins: int, rounds: int) -> None:
    store, times = make_store(pins), {"captioner export": [], "datasets from_sql": []}
    peaks: dict[str, float] = {}
    for i in range(rounds):
        shutil.rmtree(WORK / "out", ignore_errors=True)
        for name, command in (
            ("captioner export", [CAPTIONER, "export", store, WORK / "out"]),
            ("datasets from_sql", [sys.executable, __file__, "from_sql", store, WORK / "out.parquet"]),
        ):
            seconds, peak = measured(*command)
            times[name].append(seconds)
            peaks[name] = max(peak, peaks.get(name, 0))
            print(f"round {i + 1}: {name}: {seconds:.1f} s, {peak:,.0f} MB", flush=True)
    ratio = statistics.median(theirs / ours for ours, theirs in zip(*times.values(), strict=True))
    print(
        f"{pins:,} pins: {statistics.median(times['captioner export']):.1f} s,"
        f" {peaks['captioner export']:,.0f} MB (target 1,000);"
        f" {ratio:.2f} times as fast as datasets (target 3), median of {rounds}"
    )


def scale(sizes: list[int]) -> None:
    for pins in sizes:
        store = make_store(pins)
        shutil.rmtree(WORK / "out", ignore_errors=True)
        seconds, peak = measured(CAPTIONER, "export", store, WORK / "out")
        stats, _ = measured(CAPTIONER, "stats", store)
        print(
            f"{pins:>11,} pins, store of {store.stat().st_size / 1e9:.1f} GB:"
            f" export {seconds:.1f} s ({1e6 * seconds / pins:.1f} s a million), {peak:,.0f} MB;"
            f" stats {stats:.1f} s",
            flush=True,
        )


def size(sizes: list[int]) -> None:
    """Up to what size SQLite serves: everything that is done to a store, less the model."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from pincaption.store.claims import Claims
    from pincaption.store.recipes import Recipe
    from pincaption.store.work import Caption

    for pins in sizes:
        table, fresh = WORK / f"pins-{pins}.parquet", WORK / "fresh.db"
        for old in WORK.glob("fresh.db*"):
            old.unlink()
        numbers = np.random.default_rng(0).permutation(pins)
        with pq.ParquetWriter(
            table, pa.schema([("pin_id", pa.string()), ("title", pa.string()), ("image", pa.string())])
        ) as writer:
            for some in np.array_split(numbers, max(1, pins // 500_000)):
                ids = [f"pin-{n:010}" for n in some.tolist()]
                writer.write_table(
                    pa.table(
                        {
                            "pin_id": ids,
                            "title": [f"title of {i}" for i in ids],
                            "image": [f"/i/{i}.jpg" for i in ids],
                        },
                        writer.schema,
                    )
                )
        ingested, peak = measured(CAPTIONER, "ingest", "pins", fresh, table)
        print(f"{pins:,} pins: ingest {ingested:.0f} s, {peak:,.0f} MB", flush=True)
        table.unlink()

        conn = open_store(fresh)
        work = Claims(conn, Recipe("made-up", None, "", "", {}, {}, "float32"), "all")
        began, done = time.perf_counter(), 0
        while time.perf_counter() - began < 20:
            claimed = work.claim(64)
            work.commit(
                [
                    Caption(pin.pin_id, pin.recipe_id, "ok", "a caption", image_sha256=pin.pin_id)
                    for pin in claimed
                ]
            )
            done += len(claimed)
        print(f"    bookkeeping of a run {done / (time.perf_counter() - began):,.0f} captions/s", flush=True)
        conn.close()
        for old in WORK.glob("fresh.db*"):
            old.unlink()

        store = make_store(pins)
        print(
            f"    a store of {store.stat().st_size / 1e9:.1f} GB, with captions, titles and queries",
            flush=True,
        )
        features, some = EnrichedFeatures(store), random.Random(0).sample(range(pins), 20_000)
        began = time.perf_counter()
        for i in range(0, len(some), 200):
            features.__getitems__(some[i : i + 200])
        print(f"    {len(some) / (time.perf_counter() - began):,.0f} random pins/s from the view", flush=True)
        shutil.rmtree(WORK / "out", ignore_errors=True)
        exported, out_peak = measured(CAPTIONER, "export", store, WORK / "out")
        print(f"    export {exported:.0f} s, {out_peak:,.0f} MB", flush=True)
        stats, _ = measured(CAPTIONER, "stats", store)
        print(f"    stats {stats:.0f} s", flush=True)


def read(pins: int) -> None:
    import datasets
    import pyarrow.parquet as pq
    from torch.utils.data import DataLoader

    store = make_store(pins)
    out = WORK / "read"
    shutil.rmtree(out, ignore_errors=True)
    subprocess.run([CAPTIONER, "export", store, out], check=True, stdout=subprocess.DEVNULL)
    datasets.disable_progress_bars()
    loaded = datasets.load_dataset(str(out), cache_dir=str(WORK / "cache"))["train"]

    def by_pyarrow() -> int:
        return sum(
            len(batch.to_pylist())
            for f in sorted((out / "features").iterdir())
            for batch in pq.ParquetFile(f).iter_batches(1000)
        )

    def through(dataset: object) -> int:
        return sum(len(batch) for batch in DataLoader(dataset, batch_size=256, collate_fn=lambda rows: rows))  # type: ignore[arg-type]

    features = EnrichedFeatures(store)
    ways = {
        "export, pyarrow to dicts": by_pyarrow,
        "export, datasets map-style in order": lambda: through(loaded),
        "export, datasets streamed": lambda: through(loaded.to_iterable_dataset()),
        "store, EnrichedFeatures map-style in order": lambda: through(features),
        "store, EnrichedFeatures.iterable(shuffle=True)": lambda: through(features.iterable(shuffle=True)),
    }
    for name, way in ways.items():
        rates = []
        for _ in range(3):
            began = time.perf_counter()
            rows = way()
            rates.append(rows / (time.perf_counter() - began))
        print(f"{name:<50}{statistics.median(rates):>10,.0f} rows/s", flush=True)
    shutil.rmtree(WORK / "cache", ignore_errors=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=["export", "read", "scale", "size", "from_sql"])
    parser.add_argument("paths", nargs="*", help=argparse.SUPPRESS)
    parser.add_argument("--pins", type=int, nargs="+")
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    if arguments.what == "from_sql":
        from_sql(*arguments.paths)
    elif arguments.what == "export":
        export((arguments.pins or [1_000_000])[0], arguments.rounds)
    elif arguments.what == "read":
        read((arguments.pins or [200_000])[0])
    elif arguments.what == "size":
        size(arguments.pins or [1_000_000, 5_000_000])
    else:
        scale(arguments.pins or [100_000, 500_000, 1_000_000, 2_000_000])


if __name__ == "__main__":
    main()
