"""Measures the trainer: speed, memory, and what it finds.

    python benchmarks/embed.py tokens [--rounds 5]
        n-grams/s of one worker and of two, beside plain Python with dictionaries; German, Japanese
    python benchmarks/embed.py train [--rounds 3]
        pairs/s of a short training at the default sizes, and of one worker that makes its batches
    python benchmarks/embed.py memory [--pins 1000000]
        the peak memory of a few dozen steps on made-up pins
    python benchmarks/embed.py queries [--model DIR] [--rounds 5]
        the latency of single queries and the throughput of batches, with the exported query encoder
    python benchmarks/embed.py ablate --data drawn|homedepot|movielens [--seeds 5] [--epochs E] [--pins 3000]
        what captions, titles and queries add
    python benchmarks/embed.py probe --data drawn|movielens
        how well the category follows from the vectors of a short training: genres, what a drawing shows

embed_homedepot.py compares what is found with BM25 and sentence-transformers. Both read ../shared/data
(embed_data.py says how). Everything is made in benchmarks/work, or in the folder that CAPTIONER_BENCH names.
Exports stay there for the next time.
"""

from __future__ import annotations

import argparse
import itertools
import json
import multiprocessing
import os
import random
import re
import shutil
import statistics
import subprocess
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
from embed_data import (
    CAPTIONER,
    GENTLE,
    WORK,
    captioner,
    describe,
    drawn_export,
    homedepot_export,
    made_up_export,
    made_up_texts,
    movielens_export,
    usual_export,
)
from words import WORDS

from pincaption.embed.ngrams import grams
from pincaption.embed.vocabulary import Vocabulary

STEPS = 60  # of trainings that only measure speed or memory
SAMPLED_EVERY = 0.5  # seconds between two measurements of memory
# Options of each training of an ablation.
ABLATIONS: dict[str, dict[str, Any]] = {
    "drawn": {"epochs": 1.5},
    "homedepot": {"epochs": 2, **GENTLE},
    "movielens": {"epochs": 5, **GENTLE},
}


def tokens(rounds: int) -> None:
    rng = random.Random(0)
    few = [
        " ".join(rng.choices(WORDS, k=rng.randint(2, 12)) + [str(rng.randrange(3000))]) for _ in range(40_000)
    ]
    for name, texts in (("few words", few), ("30,000 words", made_up_texts(40_000))):
        ours, plain = reader(texts), plain_reader(texts)
        if ours() != plain():
            raise AssertionError("the two find different n-grams")
        rates: dict[str, list[float]] = defaultdict(list)
        for _ in range(rounds):
            for way, run, workers in (
                ("one", ours, 1),
                ("plain", plain, 1),
                ("two", ours, 2),
                ("two plain", plain, 2),
            ):
                rates[way].append(together(run, workers))
        one, plain_one, two, plain_two = (
            statistics.median(rates[way]) for way in ("one", "plain", "two", "two plain")
        )
        ratio, ratio_of_two = (
            statistics.median(a / b for a, b in zip(rates[x], rates[y], strict=True))
            for x, y in (("one", "plain"), ("two", "two plain"))
        )
        print(f"{name}: one worker {one:,.0f} n-grams/s, {ratio:.1f} times plain Python ({plain_one:,.0f}/s)")
        print(
            f"{name}: two workers {two:,.0f} n-grams/s, "
            f"{ratio_of_two:.1f} times plain Python in two ({plain_two:,.0f}/s)",
            flush=True,
        )
    for language in ("German", "Japanese"):
        ours = reader(made_up_texts(40_000, language))
        ours()
        rate = statistics.median(together(ours, 1) for _ in range(rounds))
        print(f"{language}: one worker {rate:,.0f} n-grams/s")
    print(f"medians of {rounds}; each time 40,000 texts")


def reader(texts: Sequence[str]) -> Callable[[], int]:
    """A function that turns the texts into ids as the trainer does, and returns how many ids there are."""
    array = pa.array(texts)
    vocabulary = Vocabulary.build([[grams(array)]], least=1)
    return lambda: sum(
        len(vocabulary.ids(grams(array.slice(start, 2000)), len(array[start : start + 2000]))[0])
        for start in range(0, len(texts), 2000)
    )


def plain_reader(texts: Sequence[str]) -> Callable[[], int]:
    """The same in plain Python, without arrays."""
    known: dict[str, dict[Any, int]] = {"unigram": {}, "bigram": {}, "trigram": {}}

    def read() -> int:
        found = 0
        for text in texts:
            words = re.findall(r"\w+", text.lower())
            ids = [known["unigram"].setdefault(word, len(known["unigram"])) for word in words]
            ids += [
                known["bigram"].setdefault(pair, len(known["bigram"])) for pair in itertools.pairwise(words)
            ]
            ids += [
                known["trigram"].setdefault(f"^{word}$"[i : i + 3], len(known["trigram"]))
                for word in words
                for i in range(len(word))
            ]
            found += len(ids)
        return found

    return read


def together(way: Callable[[], int], workers: int) -> float:
    """N-grams/s of several processes together. All are started before any of them begins."""
    context = multiprocessing.get_context("fork")
    ready, rates = context.Barrier(workers), context.SimpleQueue()

    def work() -> None:
        ready.wait()
        began = time.perf_counter()
        found = way()
        rates.put(found / (time.perf_counter() - began))

    processes = [context.Process(target=work) for _ in range(workers)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    return sum(rates.get() for _ in processes)


def train(rounds: int) -> None:
    from torch.utils.data import DataLoader

    from pincaption.embed.batches import Batches, batch_shares, pairs_per_step
    from pincaption.embed.options import TrainOptions
    from pincaption.embed.pairs import Pairs
    from pincaption.embed.reader import Export
    from pincaption.embed.start import initial_model
    from pincaption.embed.training import train as train_model
    from pincaption.embed.validation import hold_out

    folder, options = usual_export(), TrainOptions(every=1_000_000)
    print(describe(folder))
    export = Export(folder)
    pairs, _, _ = hold_out(Pairs.load(export, "train"), options.validation)
    shares = batch_shares(pairs, options.batch, 1, options.weights)
    per_step = pairs_per_step(shares)
    all_pairs = sum(len(pairs.tasks[name]) for name in shares)
    options = replace(options, epochs=STEPS * per_step / all_pairs)
    model = initial_model(export, pairs, options)
    batches = Batches(export, pairs, model.inputs, shares=shares, steps=STEPS)
    whole, steps_alone, made = [], [], []
    for _ in range(rounds):
        shutil.rmtree(WORK / "measured", ignore_errors=True)
        moments: dict[int, float] = {}

        def on_step(what: str, done: int, total: int, moments: dict[int, float] = moments) -> None:
            if what == "training":
                moments.setdefault(done, time.perf_counter())

        found = train_model(folder, WORK / "measured", options, on_step=on_step)
        first, last = min(done for done in moments if done >= 5), max(moments)
        whole.append(found["pairs_per_second"])
        steps_alone.append((last - first) * per_step / (moments[last] - moments[first]))
        loader = iter(
            DataLoader(batches, batch_size=None, sampler=range(STEPS), num_workers=1, prefetch_factor=4)
        )
        next(loader)
        began = time.perf_counter()
        n = sum(1 for _ in loader)
        made.append(n * per_step / (time.perf_counter() - began))
    print(f"a step: {', '.join(f'{size} {name}' for name, size in shares.items())}")
    print(
        f"training with one worker: {statistics.median(steps_alone):,.0f} pairs/s, "
        f"{statistics.median(whole):,.0f} with the start and one validation; {found['steps']} steps"
    )
    print(
        f"one worker alone makes the batches of {statistics.median(made):,.0f} pairs/s; medians of {rounds}"
    )


def memory(pins: int) -> None:
    """The peak memory of a training: of its largest process, and of all with their workers."""
    import psutil

    folder = made_up_export(pins)
    print(describe(folder), flush=True)
    counts = json.loads((folder / "manifest.json").read_text())["pairs"]
    epochs = STEPS * 256 / sum(split["train"] for split in counts.values())
    out = WORK / "measured"
    shutil.rmtree(out, ignore_errors=True)
    began, together_most = time.perf_counter(), 0
    command = subprocess.Popen(
        [
            CAPTIONER,
            "embed",
            "train",
            folder,
            out,
            "--epochs",
            f"{epochs:.6f}",
            "--every",
            str(STEPS // 2),
            "--json",
        ],
        stdout=subprocess.PIPE,
        text=True,
    )
    process, ended = psutil.Process(command.pid), 0
    while not ended:
        held = 0
        try:
            for one in (process, *process.children(recursive=True)):
                held += one.memory_full_info().pss
        except psutil.Error:  # one that has just ended
            held = 0
        together_most = max(together_most, held)
        time.sleep(SAMPLED_EVERY)
        ended, status, usage = os.wait4(command.pid, os.WNOHANG)
    command.returncode = os.waitstatus_to_exitcode(status)
    if command.returncode:
        raise SystemExit("captioner embed train failed")
    assert command.stdout is not None
    found = json.loads(command.stdout.read())
    history = json.loads((out / "config.json").read_text())["history"]
    print(
        f"{pins:,} pins: at most {usage.ru_maxrss / 1024:,.0f} MB of the largest process (ru_maxrss), "
        f"{together_most / 2**20:,.0f} MB of all together (PSS, measured every {SAMPLED_EVERY} s); "
        f"{time.perf_counter() - began:.0f} s, of which {found['seconds']:.0f} s of {found['steps']} steps "
        f"and {len(history)} validations"
    )


def queries(folder: Path | None, rounds: int) -> None:
    import numpy as np
    import torch

    from pincaption.embed.exported_encoder import export_encoder, load_encoder
    from pincaption.embed.model import EmbeddingModel
    from pincaption.embed.query_text import QueryText

    if folder is None:
        export, folder = usual_export(), WORK / "tiny-model"
        shutil.rmtree(folder, ignore_errors=True)
        captioner("embed", "train", export, folder, "--epochs", 0.2)
    model = EmbeddingModel.load(folder)
    parameters = sum(parameter.numel() for parameter in model.towers.parameters())
    print(f"{folder}: {parameters / 1e6:,.1f} million parameters, encoder {model.about['encoder']}")
    path = WORK / "query_encoder.pt2"
    gap = export_encoder(model, path)
    tokeniser = path.with_suffix(".tokeniser.json")
    vocabulary = str(path.with_suffix(".vocabulary.safetensors"))
    read = QueryText(vocabulary, str(tokeniser) if model.towers.encoder else None)
    encoder, singles, many = load_encoder(path), 1000, 4096
    asked = queries_of(usual_export(), many)
    with torch.inference_mode():
        times, rates = [], []
        for text in asked[:20] + asked[:singles]:
            began = time.perf_counter()
            encoder(*read([text]))
            times.append(1000 * (time.perf_counter() - began))
        for _ in range(rounds):
            began = time.perf_counter()
            for start in range(0, len(asked), 256):
                encoder(*read(asked[start : start + 256]))
            rates.append(len(asked) / (time.perf_counter() - began))
    p50, p99 = np.percentile(times[20:], [50, 99])
    print(
        f"exported within {gap:.1e} of the model; {torch.get_num_threads()} threads; "
        "raw texts in, reading them included"
    )
    print(
        f"single queries p50 {p50:.2f} ms, p99 {p99:.2f} ms, of {singles}; in batches of 256 "
        f"{statistics.median(rates):,.0f} queries/s, median of {rounds} times {len(asked):,}"
    )


def queries_of(folder: Path, n: int) -> list[str]:
    """`n` queries of an export, in random order; repeated if there are fewer."""
    from pincaption.embed.pairs import Pairs
    from pincaption.embed.reader import Export

    found: list[str] = Pairs.load(Export(folder), "train").queries.to_pylist()
    random.Random(0).shuffle(found)
    return list(itertools.islice(itertools.cycle(found), n))


def ablate(data: str, seeds: int, epochs: float | None, pins: int) -> None:
    export = (
        drawn_export(pins)
        if data == "drawn"
        else homedepot_export()
        if data == "homedepot"
        else movielens_export()
    )
    options = ABLATIONS[data] | ({"epochs": epochs} if epochs else {})
    out = WORK / f"ablation-{export.parent.name}-{options['epochs']:g}"
    print(
        f"{data}: {describe(export)}; {seeds} seeds, {options}"
        + (f"; finished trainings in {out} are not repeated" if out.exists() else ""),
        flush=True,
    )
    given = [f"--{name.replace('_', '-')}={value}" for name, value in options.items()]
    captioner("embed", "ablate", export, out, "--seeds", seeds, *given, shown=True)


def probe(data: str) -> None:
    export = drawn_export() if data == "drawn" else movielens_export()
    model = WORK / f"probe-{export.parent.name}"
    captioner("embed", "train", export, model, "--epochs", 1 if data == "drawn" else 3)
    for on in ("items", "queries") if data == "drawn" else ("items",):
        captioner("embed", "probe", model, export, "--label", "category", "--on", on, shown=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=["tokens", "train", "memory", "queries", "ablate", "probe"])
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--pins", type=int)
    parser.add_argument("--epochs", type=float)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--data", choices=list(ABLATIONS), default="drawn")
    parser.add_argument("--model", type=Path)
    arguments = parser.parse_args()
    WORK.mkdir(exist_ok=True, parents=True)
    if arguments.what == "tokens":
        tokens(arguments.rounds or 5)
    elif arguments.what == "train":
        train(arguments.rounds or 3)
    elif arguments.what == "memory":
        memory(arguments.pins or 1_000_000)
    elif arguments.what == "queries":
        queries(arguments.model, arguments.rounds or 5)
    elif arguments.what == "probe":
        probe(arguments.data)
    else:
        ablate(
            arguments.data,
            arguments.seeds,
            arguments.epochs,
            arguments.pins or 3_000,
        )


if __name__ == "__main__":
    main()
