"""The trainer, measured.

    python benchmarks/embed.py tokens                  n-grams/s of one worker, beside plain Python with dictionaries
    python benchmarks/embed.py queries [--model DIR]   latency of single queries and throughput in batches of the exported query encoder
    python benchmarks/embed.py homedepot [--epochs 10] Recall@10 of held-out queries on ../shared/data/homedepot_search: BM25, ours, fused

Everything is made in benchmarks/work, or in the folder that CAPTIONER_BENCH names.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import itertools
import json
import os
import random
import re
import shutil
import statistics
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
from words import WORDS

from pincaption.embed.ngrams import Vocabulary, grams

WORK = Path(os.environ.get("CAPTIONER_BENCH", Path(__file__).parent / "work"))
DATA = Path(__file__).parents[2] / "shared" / "data" / "homedepot_search" / "pairs.csv"
CAPTIONER = Path(sys.executable).with_name("captioner")
FEATURES, ENGAGED, TEST = "2026-01-01", "2026-01-02", "2026-01-03"


def tokens(rounds: int) -> None:
    rng = random.Random(0)
    texts = [" ".join(rng.choices(WORDS, k=rng.randint(2, 12)) + [str(rng.randrange(3000))]) for _ in range(40_000)]
    array = pa.array(texts)
    vocabulary = Vocabulary.build([[grams(array)]], least=1)

    def ours() -> int:
        return sum(len(vocabulary.ids(grams(array.slice(start, 2000)), 2000)[0]) for start in range(0, len(texts), 2000))

    words_of: dict[str, dict[Any, int]] = {"unigram": {}, "bigram": {}, "trigram": {}}

    def plain() -> int:
        found = 0
        for text in texts:
            words = re.findall(r"\w+", text.lower())
            ids = [words_of["unigram"].setdefault(word, len(words_of["unigram"])) for word in words]
            ids += [words_of["bigram"].setdefault(pair, len(words_of["bigram"])) for pair in itertools.pairwise(words)]
            ids += [words_of["trigram"].setdefault(f"^{word}$"[i : i + 3], len(words_of["trigram"])) for word in words for i in range(len(word))]
            found += len(ids)
        return found

    rates: dict[str, list[float]] = {"ours": [], "plain Python": []}
    ours(), plain()
    for _ in range(rounds):
        for name, way in (("ours", ours), ("plain Python", plain)):
            began = time.perf_counter()
            found = way()
            rates[name].append(found / (time.perf_counter() - began))
    ratio = statistics.median(a / b for a, b in zip(*rates.values(), strict=True))
    print(
        f"{statistics.median(rates['ours']):,.0f} n-grams/s of one worker, {ratio:.1f} times plain Python ({statistics.median(rates['plain Python']):,.0f}/s), median of {rounds}"
    )


def queries(folder: Path, rounds: int) -> None:
    import numpy as np
    import torch

    from pincaption.embed.queries import export_encoder, load_encoder
    from pincaption.embed.towers import Model

    model = Model.load(folder)
    gap = export_encoder(model, WORK / "query_encoder.pt2")
    encoder, rng = load_encoder(WORK / "query_encoder.pt2"), random.Random(0)
    texts = [" ".join(rng.choices(WORDS, k=rng.randint(1, 5))) for _ in range(2048)]
    with torch.inference_mode():
        times = []
        for text in texts[:1000]:
            began = time.perf_counter()
            encoder(*model.tokenise([text]))
            times.append(1000 * (time.perf_counter() - began))
        rates = []
        for _ in range(rounds):
            began = time.perf_counter()
            for start in range(0, len(texts), 256):
                encoder(*model.tokenise(texts[start : start + 256]))
            rates.append(len(texts) / (time.perf_counter() - began))
    p50, p99 = np.percentile(times[50:], [50, 99])
    print(f"exported encoder within {gap:.1e} of the model; single queries p50 {p50:.2f} ms, p99 {p99:.2f} ms; in batches of 256 {statistics.median(rates):,.0f} queries/s")


def homedepot_export() -> Path:
    """Products, and what people found relevant for 70% of the queries, as an export: those queries are known of the products and learned from, the others are the test."""
    work, out = WORK / "homedepot", WORK / "homedepot" / "out"
    if (out / "manifest.json").exists():
        return out
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    products: dict[str, str] = {}
    log = []
    with DATA.open(encoding="utf-8") as lines:
        for row in csv.DictReader(lines):
            products[row["product_uid"]] = row["product_title"]
            if float(row["relevance"]) >= 2.33:
                test = hashlib.sha256(row["search_term"].strip().lower().encode()).digest()[0] < 256 * 0.3
                for day in (TEST,) if test else (FEATURES, ENGAGED):
                    log.append({"pin_id": row["product_uid"], "query": row["search_term"], "action": "save", "date": day})
    for name, rows in (("pins", [{"pin_id": i, "title": title, "kind": "product"} for i, title in products.items()]), ("log", log)):
        (work / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    store = work / "my.db"
    for command in (
        ["ingest", "pins", store, work / "pins.jsonl"],
        ["aggregate", "queries", store, "--log", work / "log.jsonl"],
        ["export", store, out, "--as-of", FEATURES, "--pairs", "--test-from", TEST],
    ):
        subprocess.run([CAPTIONER, *map(str, command)], check=True, stdout=subprocess.DEVNULL)
    print(f"{len(products):,} products, {Counter(row['date'] for row in log)[ENGAGED]:,} pairs to learn from, {Counter(row['date'] for row in log)[TEST]:,} of held-out queries")
    return out


def homedepot(epochs: float) -> None:
    if not DATA.exists():
        sys.exit(f"{DATA} is not there: this benchmark reads it")
    export, model = homedepot_export(), WORK / "homedepot" / f"model-{epochs:g}"
    trained = json.loads(subprocess.run([CAPTIONER, "embed", "train", export, model, "--epochs", str(epochs), "--json"], check=True, stdout=subprocess.PIPE).stdout)
    print(f"{trained['pairs']:,} pairs seen, {trained['pairs_per_second']:,.0f} pairs/s")
    told = json.loads(subprocess.run([CAPTIONER, "embed", "recall", model, export, "--json"], check=True, stdout=subprocess.PIPE).stdout)["tasks"]["query-product"]
    whole = max(told["dims"], key=int)
    for name, measured in (("BM25", told["bm25"]), ("ours", told["dims"][whole]), ("BM25 + ours", told["fused"])):
        mean, low, high = measured["recall@10"]
        print(f"{name:<12} Recall@10 {mean:.3f} ({low:.3f} to {high:.3f})")
    print(f"{told['pairs']:,} pairs of {told['queries']:,} held-out queries among {told['index']:,} products")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["tokens", "queries", "homedepot"])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--epochs", type=float, default=10)
    parser.add_argument("--model", type=Path)
    arguments = parser.parse_args()
    WORK.mkdir(exist_ok=True)
    if arguments.what == "tokens":
        tokens(arguments.rounds)
    elif arguments.what == "queries":
        queries(arguments.model or WORK / "homedepot" / "model-10", arguments.rounds)
    else:
        homedepot(arguments.epochs)


if __name__ == "__main__":
    main()
