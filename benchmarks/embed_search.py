"""Measures what a served search needs: item vectors, indexes, and answers.

    python benchmarks/embed_search.py [--model DIR] [--write]
        items/s and memory of `embed items`, its second call; size, time and recall of the kinds of index;
        ms of a search; queries/s of the query tower. --model: a trained model of Home Depot's export, in
        place of one that is trained for 0.2 epochs. --write: puts the table into docs/serving.md

Home Depot's export is read from ../shared/data (embed_data.py says how). Everything is made in
benchmarks/work, or in the folder that CAPTIONER_BENCH names.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from embed_data import WORK, captioner, homedepot_export

PAGE = Path(__file__).parents[1] / "docs" / "serving.md"
START, END = "<!-- figures -->\n", "<!-- end of figures -->"
SEARCHES = 100
BATCH = 256  # queries of a batch
REQUESTS = 300_000  # a second, of the paper


def measure(model: Path, export: Path, work: Path) -> list[tuple[str, str]]:
    """(what, figure) of each line of the table."""
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    items, lines = work / "items.parquet", []
    began = time.perf_counter()
    first = json.loads(captioner("embed", "items", model, export, items, "--json"))
    whole = time.perf_counter() - began
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1e6
    seconds = [time_of_writing(model, export, work / "again.parquet", times) for times in (0, 1)]
    n = first["items"]
    lines.append((f"`embed items`, {n:,} items", f"{n / seconds[0]:,.0f} items/s"))
    lines.append(("a million items at this rate", f"{1e6 / n * seconds[0] / 60:.0f} min"))
    lines.append(("the whole command, with its start", f"{whole:.0f} s"))
    lines.append(("memory of its process", f"{peak:.1f} GB"))
    lines.append(("a second call, nothing changed", f"{n / seconds[1]:,.0f} items/s"))
    lines.append(
        (f"size of the file, {first['dim']} float16 numbers", f"{items.stat().st_size / 1e6:.0f} MB")
    )
    for kind in ("exact", "hnsw", "ivf"):
        index = work / kind
        made = json.loads(
            captioner("embed", "index", model, items, index, "--kind", kind, "--queries", export, "--json")
        )
        lost = "" if made["recall"] is None else f", recall@10 {made['recall']:.4f} (effort {made['effort']})"
        time_and_size = (
            f"{made['ms_per_query']:.2f} ms, {made['bytes'] / 1e6:.0f} MB, made in {made['seconds']:.0f} s"
        )
        lines.append((f"index {kind}: a query", time_and_size + lost))
    return lines + searches(model, export, items, work)


def time_of_writing(model: Path, export: Path, out: Path, times: int) -> float:
    """Seconds of writing the vectors, after so many calls before it, with a model that is loaded already."""
    from pincaption.embed.item_vectors import export_for
    from pincaption.embed.item_writer import write_item_vectors
    from pincaption.embed.model import EmbeddingModel

    loaded = EmbeddingModel.load(model)
    out.unlink(missing_ok=True)
    for _ in range(times):
        write_item_vectors(loaded, export_for(loaded, export), out)
    data, began = export_for(loaded, export), time.perf_counter()
    write_item_vectors(loaded, data, out)
    return time.perf_counter() - began


def searches(model: Path, export: Path, items: Path, work: Path) -> list[tuple[str, str]]:
    """The time of searches after loading, and the throughput of the query tower."""
    from pincaption.embed.index_writer import measuring_queries
    from pincaption.embed.search import Search

    texts, lines = measuring_queries(export)[0][:SEARCHES], []
    began = time.perf_counter()
    search = Search.open(model, export, items)
    lines.append(("loading a search", f"{time.perf_counter() - began:.1f} s"))
    for what, load in (("its words", lambda: search.words), ("its related queries", search.embed_queries)):
        began = time.perf_counter()
        load()
        lines.append((what, f"{time.perf_counter() - began:.1f} s"))
    lines.append(("a query's embedding", milliseconds(texts, search.vector)))
    for by in ("both", "meaning", "words"):
        times = milliseconds(texts, lambda text, by=by: search.find(text, by=by, related=0))
        lines.append((f"a search by {by}, with its reasons", times))
    times = milliseconds(texts, lambda text: search.find(text))
    lines.append(("a search by both and related queries", times))
    approximate = Search.open(search.model, export, index=work / "hnsw")
    approximate._words = search.words
    approximate.find(texts[0], related=0)
    times = milliseconds(texts, lambda text: approximate.find(text, related=0))
    lines.append(("a search by both, index hnsw", times))
    many = (texts * (BATCH // len(texts) + 1))[:BATCH]
    began = time.perf_counter()
    for _ in range(4):
        search.model.embed_queries(many)
    rate = 4 * BATCH / (time.perf_counter() - began)
    lines.append((f"queries embedded, batches of {BATCH}", f"{rate:,.0f} queries/s"))
    for share in (0.99, 0.9, 0.0):
        machines = -(-REQUESTS * (1 - share) // rate)
        name = f"machines for {REQUESTS:,} requests/s, a cache answers {share:.0%}"
        lines.append((name, f"{machines:,.0f}"))
    return lines


def milliseconds(texts: Sequence[str], answer: Callable[[str], object]) -> str:
    """The median time of an answer, and the time that 99 of 100 answers do not exceed."""
    times = []
    for text in texts:
        began = time.perf_counter()
        answer(text)
        times.append(1000 * (time.perf_counter() - began))
    return f"p50 {statistics.median(times):.1f} ms, p99 {statistics.quantiles(times, n=100)[98]:.1f} ms"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--model", type=Path, help="a trained model")
    parser.add_argument("--write", action="store_true", help="put the table into docs/serving.md")
    options = parser.parse_args()
    export, work = homedepot_export(), WORK / "search"
    model = options.model or WORK / "search-model"
    if not options.model:
        captioner("embed", "train", export, model, "--epochs", "0.2")
    config = json.loads((model / "config.json").read_text())
    from pincaption.embed.model import EmbeddingModel

    about = f"encoder {config['training']['encoder']}, {EmbeddingModel.load(model).dim} numbers"
    lines = [
        ("model, machine", f"{about}; {os.cpu_count()} cores, {torch.get_num_threads()} threads"),
        *measure(model, export, work),
    ]
    table = "| | |\n|---|---|\n" + "".join(f"| {name} | {figure} |\n" for name, figure in lines)
    print(table)
    if options.write:
        before, rest = PAGE.read_text(encoding="utf-8").split(START)
        PAGE.write_text(before + START + table + END + rest.split(END)[1], encoding="utf-8")


if __name__ == "__main__":
    main()
