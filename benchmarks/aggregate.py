"""What the aggregations cost, compared with what people would write by hand.

    python benchmarks/aggregate.py boards [--saves 20000000] [--rounds 3]
        the same job in turn by captioner, DuckDB by hand, Polars and pandas
    python benchmarks/aggregate.py memory
        20 million saves with --memory-limit 500MB
    python benchmarks/aggregate.py scale
        5, 20 and 80 million saves
    python benchmarks/aggregate.py days [--rounds 3]
        two years of log; then one day more

The data are made below benchmarks/work (up to 2 GB), with a fixed seed. Each job runs in a process of its
own, from Parquet files to the table in SQLite. The time is that of the whole process, and the memory its
peak. Polars and pandas take part where they are installed.
"""

from __future__ import annotations

import argparse
import importlib.util
import itertools
import json
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

WORK = Path(__file__).parent / "work"
MEASURED = """import resource, subprocess, sys
code = subprocess.call(sys.argv[1:])
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss // 1024)
sys.exit(code)"""
DAYS, PINS_OF_LOG = 731, 1_000_000
FIRST_DAY = np.datetime64("2024-07-01")


# --- data ---


def zipf(rng: np.random.Generator, n: int, size: Any, flat: float = 100.0) -> np.ndarray:
    """Ranks below n, rank r with probability in proportion to 1 / (r + flat): the inverse of that
    distribution's logarithmic sum.
    """
    return np.minimum((flat * ((n + flat) / flat) ** rng.random(size) - flat).astype(np.int64), n - 1)


def ids(prefix: str, n: int) -> pa.Array:
    """Text ids in random order, so that popular ones do not stand together."""
    return pa.array([f"{prefix}-{i:09}" for i in np.random.default_rng(n).permutation(n).tolist()])


def titles(n: int, seed: int) -> pa.Array:
    """Titles of one to four made-up words, popular words in many of them, spelt as people do."""
    rng = np.random.default_rng(seed)
    syllables = np.array(
        [
            "ka",
            "re",
            "mi",
            "to",
            "la",
            "su",
            "ne",
            "vo",
            "di",
            "pa",
            "gu",
            "lo",
            "fi",
            "ma",
            "shi",
            "ba",
            "te",
            "ro",
            "zu",
            "ny",
        ]
    )
    words = np.array(
        list(dict.fromkeys("".join(rng.choice(syllables, rng.integers(1, 5))) for _ in range(60_000)))
    )
    picked, lengths = (
        words[zipf(rng, len(words), (n, 4), 30)],
        rng.choice([1, 2, 3, 4], n, p=[0.45, 0.3, 0.17, 0.08]),
    )
    spelt: list[Callable[[str], str]] = [str, str.title, str.capitalize, lambda t: f"{t}!"]
    return pa.array(
        [
            spelt[i % 4](" ".join(row[:length]))
            for i, (row, length) in enumerate(zip(picked.tolist(), lengths.tolist(), strict=True))
        ]
    )


def make_saves(saves: int) -> Path:
    """boards.parquet and saves/: a board for 20 saves, a pin for 10."""
    folder = WORK / f"saves-{saves}"
    if not (folder / "complete").exists():
        shutil.rmtree(folder, ignore_errors=True)
        (folder / "saves").mkdir(parents=True)
        rng, boards, pins = np.random.default_rng(saves), saves // 20, saves // 10
        board_ids, pin_ids = ids("board", boards), ids("pin", pins)
        pq.write_table(
            pa.table({"board_id": board_ids, "title": titles(boards, 1)}), folder / "boards.parquet"
        )
        for part in range(0, saves, 5_000_000):
            n = min(5_000_000, saves - part)
            columns = {
                "pin_id": pin_ids.take(pa.array(zipf(rng, pins, n))),
                "board_id": board_ids.take(pa.array(zipf(rng, boards, n))),
            }
            pq.write_table(
                pa.table(columns | {"saved_at": FIRST_DAY + rng.integers(0, 730, n)}),
                folder / f"saves/{part // 5_000_000:03}.parquet",
            )
        (folder / "complete").touch()
    return folder


def make_log(rows: int) -> Path:
    """731 daily files with `rows` rows on 730 days; each pin has queries of its own, some much more common
    than others.
    """
    folder = WORK / f"log-{rows}"
    if not (folder / "complete").exists():
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        rng, n = np.random.default_rng(rows), rows // (DAYS - 1)
        pin_ids, texts, users = ids("pin", PINS_OF_LOG), titles(400_000, 2), ids("user", 3_000_000)
        actions = pa.array(["impression", "click", "long_click", "save"])
        for day in range(DAYS):
            pins = zipf(rng, PINS_OF_LOG, n)
            queries = (pins * 7919 + zipf(rng, 2000, n, 1) ** 2) % len(texts)
            table = {
                "pin_id": pin_ids.take(pa.array(pins)),
                "query": texts.take(pa.array(queries)),
                "action": actions.take(pa.array(rng.choice(4, n, p=[0.3, 0.4, 0.15, 0.15]))),
            }
            table |= {
                "date": pa.array(np.full(n, FIRST_DAY + day)),
                "count": pa.array(rng.geometric(0.7, n)),
                "user_id": users.take(pa.array(rng.integers(0, 3_000_000, n))),
            }
            pq.write_table(pa.table(table), folder / f"{FIRST_DAY + day}.parquet")
        (folder / "complete").touch()
    return folder


# --- the same job by hand: board titles by the formulas, grouped and written by executemany ---


def write(store: str, rows: Iterable[tuple[str, str, int, float]]) -> None:
    """Rows (pin_id, title, boards, score) in rank order, those of a pin together, as JSON arrays into
    board_titles.
    """
    from pincaption.store import open_store, transaction

    conn = open_store(store, create=True)
    grouped = itertools.groupby(rows, key=lambda row: row[0])
    arrays = (
        (
            pin,
            *(
                json.dumps(list(c), ensure_ascii=False)
                for c in list(zip(*((t, n, float(f"{s:.6g}")) for _, t, n, s in group), strict=True))
            ),
        )
        for pin, group in grouped
    )
    with transaction(conn):
        conn.executemany("INSERT INTO board_titles VALUES (?, ?, ?, ?)", arrays)


def by_duckdb(folder: str, store: str) -> None:
    import duckdb

    db = duckdb.connect()
    result = db.execute(f"""
        WITH b AS (
            SELECT board_id,
                trim(regexp_replace(lower(title), '[^\\p{{L}}\\p{{M}}\\p{{N}}]+', ' ', 'g')) AS title
            FROM '{folder}/boards.parquet'),
        t AS (
            SELECT title, count(*) AS boards FROM b WHERE length(title) BETWEEN 2 AND 60
            GROUP BY 1 HAVING count(*) <= 0.02 * (SELECT count(*) FROM b)),
        w AS (SELECT DISTINCT title, boards, unnest(string_split(title, ' ')) AS word FROM t),
        df AS (SELECT word, sum(boards) AS df FROM w GROUP BY 1),
        idf AS (
            SELECT title, avg(ln(1 + (SELECT sum(boards) FROM t) / df)) AS idf
            FROM w JOIN df USING (word) GROUP BY 1),
        n AS (
            SELECT pin_id, title, count(DISTINCT board_id) AS n FROM '{folder}/saves/*.parquet'
            JOIN b USING (board_id) JOIN t USING (title) GROUP BY 1, 2),
        s AS (
            SELECT pin_id, title, n, n * idf * boards / (boards + 2) AS score
            FROM n JOIN t USING (title) JOIN idf USING (title)),
        r AS (
            SELECT *, row_number() OVER (
                PARTITION BY pin_id
                ORDER BY round(score, 9) DESC, length(title) - length(replace(title, ' ', '')) DESC,
                    length(title) DESC, title) AS rank
            FROM s)
        SELECT pin_id, title, n, score FROM r WHERE rank <= 10 ORDER BY pin_id, rank""")
    write(store, itertools.chain.from_iterable(iter(lambda: result.fetchmany(100_000), [])))


def by_polars(folder: str, store: str) -> None:
    import polars as pl

    b = pl.scan_parquet(f"{folder}/boards.parquet").with_columns(
        pl.col("title").str.to_lowercase().str.replace_all(r"[^\p{L}\p{M}\p{N}]+", " ").str.strip_chars()
    )
    known = b.select(pl.len()).collect().item()
    t = (
        b.group_by("title")
        .agg(boards=pl.len())
        .filter(pl.col("title").str.len_chars().is_between(2, 60), pl.col("boards") <= 0.02 * known)
    )
    t = t.with_columns(words=pl.col("title").str.split(" "), chars=pl.col("title").str.len_chars())
    w = t.select("title", "boards", word=pl.col("words").list.unique()).explode("word")
    total = t.select(pl.col("boards").sum()).collect().item()
    idf = (
        w.join(w.group_by("word").agg(df=pl.col("boards").sum()), on="word")
        .group_by("title")
        .agg(idf=(1 + total / pl.col("df")).log().mean())
    )
    t = t.join(idf, on="title").with_columns(
        weight=pl.col("idf") * pl.col("boards") / (pl.col("boards") + 2), words=pl.col("words").list.len()
    )
    n = (
        pl.scan_parquet(f"{folder}/saves/*.parquet")
        .join(b, on="board_id")
        .group_by("pin_id", "title")
        .agg(n=pl.col("board_id").n_unique())
    )
    s = (
        n.join(t, on="title")
        .with_columns(score=pl.col("n") * pl.col("weight"))
        .with_columns(rounded=pl.col("score").round(9))
    )
    s = s.sort("pin_id", "rounded", "words", "chars", "title", descending=[False, True, True, True, False])
    write(
        store,
        s.group_by("pin_id", maintain_order=True)
        .head(10)
        .select("pin_id", "title", "n", "score")
        .collect(engine="streaming")
        .iter_rows(),
    )


def by_pandas(folder: str, store: str) -> None:
    import pandas as pd

    b = pd.read_parquet(f"{folder}/boards.parquet")
    b["title"] = b["title"].str.lower().str.replace(r"[\W_]+", " ", regex=True).str.strip()
    t = b.groupby("title").size().rename("boards").reset_index()
    t = t[t["title"].str.len().between(2, 60) & (t["boards"] <= 0.02 * len(b))]
    w = t.assign(word=t["title"].str.split(" ").map(lambda words: list(dict.fromkeys(words)))).explode("word")
    df = w.groupby("word")["boards"].sum()
    t = t.merge(
        np.log(1 + t["boards"].sum() / w["word"].map(df)).groupby(w["title"]).mean().rename("idf"), on="title"
    )
    t["weight"], t["words"], t["chars"] = (
        t["idf"] * t["boards"] / (t["boards"] + 2),
        t["title"].str.count(" "),
        t["title"].str.len(),
    )
    t["place"] = (
        t.sort_values(["words", "chars", "title"], ascending=[False, False, True])
        .reset_index()
        .reset_index()
        .set_index("index")["level_0"]
    )
    b = b.merge(t[["title", "place", "weight"]], on="title")
    saves = (
        pd.read_parquet(f"{folder}/saves", columns=["pin_id", "board_id"])
        .drop_duplicates()
        .merge(b[["board_id", "place", "weight"]], on="board_id")
    )
    n = saves.groupby(["pin_id", "place", "weight"], sort=False).size().rename("n").reset_index()
    n["score"] = n["n"] * n["weight"]
    n = (
        n.assign(rounded=-n["score"].round(9))
        .sort_values(["pin_id", "rounded", "place"])
        .groupby("pin_id", sort=False)
        .head(10)
    )
    n["title"] = n["place"].map(t.set_index("place")["title"])
    write(store, n[["pin_id", "title", "n", "score"]].itertuples(index=False, name=None))


BY_HAND = {"duckdb": by_duckdb, "polars": by_polars, "pandas": by_pandas}


# --- measuring ---


def measured(*command: str) -> tuple[float, int]:
    """Seconds and peak megabytes of a command."""
    began = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", MEASURED, *command], check=True, capture_output=True, text=True
    )
    return time.perf_counter() - began, int(done.stdout.split()[-1])


def captioner(*arguments: str) -> tuple[float, int]:
    return measured(str(Path(sys.executable).with_name("captioner")), *arguments)


def fresh(name: str) -> str:
    """The path of a store that has nothing in it yet."""
    store = WORK / name
    for path in WORK.glob(f"{name}*"):
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    from pincaption.store import open_store

    open_store(store, create=True).close()
    return str(store)


def aggregate(folder: Path, *options: str) -> tuple[float, int]:
    return captioner(
        "aggregate",
        "boards",
        fresh("captioner.db"),
        "--boards",
        f"{folder}/boards.parquet",
        "--saves",
        f"{folder}/saves",
        *options,
    )


def say(name: str, seconds: float, megabytes: int, more: str = "") -> None:
    print(f"{name:<28}{seconds:>8.1f} s{megabytes:>8,} MB  {more}", flush=True)


def boards(saves: int, rounds: int) -> None:
    """All in turn, so that what disturbs one round disturbs all of them."""
    folder = make_saves(saves)
    others = [name for name in BY_HAND if importlib.util.find_spec(name)]
    results: dict[str, list[tuple[float, int]]] = {name: [] for name in ("captioner", *others)}
    for _ in range(rounds):
        results["captioner"].append(aggregate(folder))
        for name in others:
            results[name].append(
                measured(sys.executable, __file__, "by-hand", name, str(folder), fresh(f"{name}.db"))
            )
            say(
                name,
                *results[name][-1],
                f"captioner takes {results['captioner'][-1][0] / results[name][-1][0]:.2f} of it"
                f" ({results['captioner'][-1][0]:.1f} s)",
            )
    print(f"\n{saves:,} saves, medians of {rounds}:")
    for name, measures in results.items():
        ratio = statistics.median(
            a / b for (a, _), (b, _) in zip(results["captioner"], measures, strict=True)
        )
        say(
            name,
            statistics.median(seconds for seconds, _ in measures),
            max(megabytes for _, megabytes in measures),
            f"captioner / {name}: {ratio:.2f}",
        )
    if "duckdb" in others:
        compare("captioner.db", "duckdb.db")


def compare(one: str, other: str) -> None:
    """How many pins have the same titles in both stores. Not all do: the normaliser by hand is simpler."""
    import sqlite3

    conn = sqlite3.connect(WORK / one)
    conn.execute("ATTACH ? AS other", [str(WORK / other)])
    pins, same = conn.execute(
        """SELECT count(*), sum(a.titles = replace(b.titles, ', ', ','))
        FROM board_titles a LEFT JOIN other.board_titles b USING (pin_id)"""
    ).fetchone()
    print(f"the same titles for {same:,} of {pins:,} pins ({same / pins:.2%})")


def days(rows: int, rounds: int) -> None:
    folder = make_log(rows)
    files = sorted(map(str, folder.glob("*.parquet")))
    ratios = []
    for _ in range(rounds):
        store = fresh("captioner.db")
        first, last = WORK / "first", WORK / "last"
        for linked, names in ((first, files[:-1]), (last, files)):
            shutil.rmtree(linked, ignore_errors=True)
            linked.mkdir()
            for name in names:
                (linked / Path(name).name).symlink_to(name)
        whole = captioner("aggregate", "queries", store, "--log", str(first))
        more = captioner("aggregate", "queries", store, "--log", str(first), "--log", files[-1])
        ratios.append(whole[0] / more[0])
        say(f"{len(files) - 1} days, {rows:,} rows", *whole)
        say("one day more", *more, f"1/{ratios[-1]:.1f} of it")
    print(f"\none day more costs 1/{statistics.median(ratios):.1f} of a rebuild, median of {rounds}")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=["boards", "memory", "scale", "days", "by-hand"])
    parser.add_argument("arguments", nargs="*", help=argparse.SUPPRESS)
    parser.add_argument("--saves", type=int, default=20_000_000)
    parser.add_argument("--rows", type=int, default=30_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    WORK.mkdir(exist_ok=True)
    if given.what == "by-hand":
        name, folder, store = given.arguments
        BY_HAND[name](folder, store)
    elif given.what == "boards":
        boards(given.saves, given.rounds)
    elif given.what == "memory":
        folder = make_saves(given.saves)
        say("default", *aggregate(folder))
        say("--memory-limit 500MB", *aggregate(folder, "--memory-limit", "500MB"))
    elif given.what == "scale":
        for saves in (5_000_000, 20_000_000, 80_000_000):
            seconds, megabytes = aggregate(make_saves(saves))
            say(f"{saves:,} saves", seconds, megabytes, f"{1e6 * seconds / saves:.2f} s a million")
    else:
        days(given.rows, given.rounds)


if __name__ == "__main__":
    main()
