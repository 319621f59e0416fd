"""BM25, the opponent of the search embedding: what stems and trigrams are worth, and what an index costs.

python benchmarks/bm25.py kinds              Recall@10 of each kind on Home Depot's test pairs
python benchmarks/bm25.py trigrams           how trigrams join, on 2,000 training queries of Home Depot
python benchmarks/bm25.py index [--pins N]   time and memory of an index of N made-up documents
"""

from __future__ import annotations

import argparse
import resource
import statistics
import time
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from embed_data import homedepot_export, made_up_texts

from pincaption.embed import bm25
from pincaption.embed.bm25 import BM25, KINDS, Batch
from pincaption.embed.intervals import mean_and_interval
from pincaption.embed.ngrams import grams
from pincaption.embed.pairs import QUERY_PRODUCT, Pairs
from pincaption.embed.ranking import candidates_of, known_positives, measures, ranks
from pincaption.embed.reader import Export
from pincaption.embed.scores import bm25_scores

WEIGHTS = (0.0, 0.15, 0.3, 0.5, 0.7, 1.0, 1.5, 2.5)  # of trigrams


def pairs_of(split: str, most: int | None = None) -> tuple[Any, ...]:
    """(export, pairs, task, candidates, known) of Home Depot; at most so many queries."""
    export = Export(homedepot_export())
    pairs = Pairs.load(export, split)
    if most:
        queries = np.unique(pairs.tasks[QUERY_PRODUCT].queries)
        some = np.random.default_rng(0).permutation(queries)[:most]
        pairs = pairs.select(np.isin(np.arange(len(pairs.queries)), some))
    task, other = pairs.tasks[QUERY_PRODUCT], Pairs.load(export, "train" if split == "test" else "test")
    known = known_positives([pairs.tasks, pairs.tasks_of(other)], QUERY_PRODUCT)
    return export, pairs, task, candidates_of(task, None), known


def kinds() -> None:
    export, pairs, task, candidates, known = pairs_of("test")
    for fields in (("title",), ("title", "engaged_queries")):
        for kind in KINDS:
            scores = bm25_scores(export, pairs, task, candidates, fields, kind=kind)
            hits = measures(ranks(scores, task, candidates, known))["recall@10"]
            mean, low, high = mean_and_interval(hits, task.queries)
            print(f"{', '.join(fields):<24}{kind:<20}{mean:.3f} ({low:.3f} to {high:.3f})", flush=True)


def trigrams() -> None:
    export, pairs, task, candidates, known = pairs_of("train", 2_000)

    def recall(name: str, scores: Any) -> None:
        hits = measures(ranks(scores, task, candidates, known))["recall@10"]
        print(f"{name:<40}{hits.mean():.3f}", flush=True)

    for weight in WEIGHTS:
        bm25.TRIGRAMS = weight
        scores = bm25_scores(export, pairs, task, candidates, ("title",), kind="stems and trigrams")
        recall(f"scores added, trigrams {weight:g} times", scores)
    # One bag: words with their trigrams beside them, as if both were terms of one index.
    bag = BM25([], 0, kind="stems")
    index = bm25._Index(len(candidates.rows), None)
    for batch in titles(export, candidates.rows):
        for texts, rows in batch:
            found = grams(texts, rows)
            stems = bag._stemmed(texts, found["unigram"].codes, np.zeros(len(found["unigram"].rows), int))
            index.add(
                np.concatenate([found["unigram"].rows, found["trigram"].rows]),
                np.concatenate([stems, found["trigram"].codes]),
            )
    index.finish()

    def of_bag(places: np.ndarray) -> Any:
        import torch

        queries = pairs.queries.take(pa.array(places))
        table = np.zeros((len(queries), len(candidates.rows)), np.float32)
        rows, codes = bag._words(queries)
        more = grams(queries)["trigram"]
        index.add_scores(
            np.concatenate([rows, more.rows]), np.concatenate([codes, more.codes[None]], 1), table
        )
        return torch.from_numpy(table)

    recall("one bag of terms", of_bag)


def titles(export: Export, rows: np.ndarray) -> Iterator[Batch]:
    done = 0
    for some in export.batches(rows):
        yield [(texts, parents + done) for texts, parents in export.texts(some, ("title",)).values()]
        done += len(some)


def index_costs(n: int, kinds: Sequence[Any]) -> None:
    texts, rng = pa.array(made_up_texts(20_000, words=(20, 40))), np.random.default_rng(0)

    def documents() -> Iterator[Batch]:
        for start in range(0, n, 2_000):
            rows = np.arange(start, min(start + 2_000, n))
            yield [(texts.take(pa.array(rng.integers(0, len(texts), len(rows)))), rows)]

    for kind in kinds:
        began = time.perf_counter()
        made = BM25(documents(), n, kind=kind)
        seconds, times = time.perf_counter() - began, []
        for query in made_up_texts(50, words=(1, 4), seed=5):
            began = time.perf_counter()
            made.scores(pa.array([query]))
            times.append(1000 * (time.perf_counter() - began))
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(
            f"{n:,} documents of 20 to 40 words, {kind}: {seconds:.0f} s, at most {peak:,.0f} MB so far, "
            f"a query {statistics.median(times):.0f} ms",
            flush=True,
        )
        del made


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=["kinds", "trigrams", "index"])
    parser.add_argument("--pins", type=int, default=1_000_000)
    arguments = parser.parse_args()
    if arguments.what == "kinds":
        kinds()
    elif arguments.what == "trigrams":
        trigrams()
    else:
        index_costs(arguments.pins, KINDS)


if __name__ == "__main__":
    main()
