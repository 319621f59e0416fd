"""Measures the trainer: speed, memory, and what it finds.

    python benchmarks/embed.py tokens [--rounds 5]
        n-grams/s of one worker and of two, beside plain Python with dictionaries; German, Japanese
    python benchmarks/embed.py train [--rounds 3]
        pairs/s of a short training at the default sizes, and of one worker that makes its batches
    python benchmarks/embed.py memory [--pins 1000000]
        the peak memory of a few dozen steps on made-up pins
    python benchmarks/embed.py queries [--model DIR] [--full] [--rounds 5]
        the latency of single queries and the throughput of batches, with the exported query encoder;
        --full: an encoder of the published size, with random weights
    python benchmarks/embed.py homedepot [--epochs 10]
        Recall@10 of held-out queries: BM25, ours, sentence-transformers, fused
    python benchmarks/embed.py ablate --data drawn|homedepot|movielens [--seeds 5] [--epochs E] [--pins 3000]
        what captions, titles and queries add

homedepot and movielens read ../shared/data (embed_data.py says how). Everything is made in benchmarks/work,
or in the folder that CAPTIONER_BENCH names. Exports stay there for the next time.
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
MINUTES = 10  # at most, for the training of sentence-transformers
SAMPLED_EVERY = 0.5  # seconds between two measurements of memory
EPOCHS = {"drawn": 1.5, "homedepot": 2, "movielens": 5}  # of each training of an ablation


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
    from pincaption.embed.pairs import OWN_WORDS, Pairs
    from pincaption.embed.reader import Export
    from pincaption.embed.sizes import SMALL
    from pincaption.embed.start import initial_model
    from pincaption.embed.training import train as train_model
    from pincaption.embed.validation import hold_out

    folder, options = usual_export(), TrainOptions(encoder=SMALL, every=1_000_000)
    print(describe(folder))
    export = Export(folder)
    pairs, _, _ = hold_out(Pairs.load(export, "train"), options.validation)
    shares = batch_shares(pairs, options.batch, 1, options.weights)
    per_step = pairs_per_step(shares)
    all_pairs = sum(len(pairs.tasks[name]) for name in shares if name != OWN_WORDS)
    options = replace(options, epochs=STEPS * per_step / all_pairs)
    model = initial_model(export, pairs, options)
    batches = Batches(export, pairs, model.vocabulary, model.tokenise, shares=shares, steps=STEPS)
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
    print(
        f"a step: {', '.join(f'{size} {name}' for name, size in shares.items())}; pairs/s leave out own-words"
    )
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
    # of 256 pairs of a step some 56 are own words
    epochs = STEPS * 200 / sum(split["train"] for split in counts.values())
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


def queries(folder: Path | None, full: bool, rounds: int) -> None:
    import numpy as np
    import torch
    from transformers import DistilBertConfig, DistilBertModel

    from pincaption.embed.exported_encoder import export_encoder, load_encoder
    from pincaption.embed.model import EmbeddingModel
    from pincaption.embed.query_tower import QueryTower

    if folder is None:
        export, folder = usual_export(), WORK / "tiny-model"
        shutil.rmtree(folder, ignore_errors=True)
        captioner("embed", "train", export, folder, "--epochs", 0.2)
    model = EmbeddingModel.load(folder)
    if full:
        config = DistilBertConfig(
            vocab_size=119_547,
            max_position_embeddings=512,
            dim=768,
            hidden_dim=3072,
            n_layers=6,
            n_heads=12,
            dropout=0.0,
            attention_dropout=0.0,
        )
        model = replace(model, query_tower=QueryTower(DistilBertModel(config), 256).eval())
    parameters = sum(parameter.numel() for parameter in model.query_tower.parameters())
    published = "size of distilbert-base-multilingual-cased, random weights, tokeniser of the small model"
    print(f"{published if full else folder}: {parameters / 1e6:,.1f} million parameters")
    path = WORK / "query_encoder.pt2"
    gap = export_encoder(model, path)
    encoder, singles, many = load_encoder(path), 200 if full else 1000, 512 if full else 4096
    asked = queries_of(usual_export(), many)
    lengths = model.tokenise(asked)[1].sum(1).float()
    with torch.inference_mode():
        times, rates = [], []
        for text in asked[:20] + asked[:singles]:
            began = time.perf_counter()
            encoder(*model.tokenise([text]))
            times.append(1000 * (time.perf_counter() - began))
        for _ in range(rounds):
            began = time.perf_counter()
            for start in range(0, len(asked), 256):
                encoder(*model.tokenise(asked[start : start + 256]))
            rates.append(len(asked) / (time.perf_counter() - began))
    path.unlink()
    p50, p99 = np.percentile(times[20:], [50, 99])
    print(
        f"exported within {gap:.1e} of the model; {torch.get_num_threads()} threads, "
        f"queries of {lengths.mean():.1f} tokens, tokenising included"
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


def homedepot(epochs: float) -> None:
    from pincaption.embed.intervals import mean_and_interval
    from pincaption.embed.model import EmbeddingModel
    from pincaption.embed.options import TrainOptions
    from pincaption.embed.pairs import QUERY_PRODUCT, Pairs
    from pincaption.embed.ranking import candidates_of, known_positives, measures, ranks
    from pincaption.embed.reader import Export
    from pincaption.embed.scores import Embedded, bm25_scores, fused
    from pincaption.embed.sizes import SMALL

    folder, out, options = (
        homedepot_export(),
        WORK / "homedepot" / f"model-{epochs:g}",
        TrainOptions(encoder=SMALL, epochs=epochs),
    )
    print(describe(folder), flush=True)
    shutil.rmtree(out, ignore_errors=True)
    trained = json.loads(captioner("embed", "train", folder, out, "--epochs", epochs, "--json"))
    print(
        f"ours: {trained['steps']:,} steps, {trained['pairs']:,} pairs in {trained['seconds']:.0f} s",
        flush=True,
    )
    model = EmbeddingModel.load(out)
    export = Export(folder, model.item_tower.fields)
    pairs = Pairs.load(export, "test")
    task = pairs.tasks[QUERY_PRODUCT]
    candidates, known = (
        candidates_of(task, None),
        known_positives([pairs.tasks, pairs.tasks_of(Pairs.load(export, "train"))], QUERY_PRODUCT),
    )
    titles = bm25_scores(export, pairs, task, candidates, ("title",))
    words, ours = (
        bm25_scores(export, pairs, task, candidates),
        Embedded(model, export, pairs.queries).scores(task, candidates, model.sizes.dim),
    )
    scores = {
        "BM25 of titles alone": titles,
        "BM25": words,
        "ours": ours,
        "BM25 + ours": fused(ours, words),
        "BM25 of titles alone + ours": fused(ours, titles),
    }
    theirs = by_sentence_transformers(export, options, trained["steps"], model, pairs, candidates)
    if theirs is not None:
        scores |= {
            "sentence-transformers": theirs,
            "BM25 of titles alone + sentence-transformers": fused(theirs, titles),
        }
    hits = {name: measures(ranks(one, task, candidates, known))["recall@10"] for name, one in scores.items()}
    for name, hit in hits.items():
        print(
            "{:<46} Recall@10 {:.3f} ({:.3f} to {:.3f})".format(name, *mean_and_interval(hit, task.queries))
        )
    # The engaged queries of other searches do not help BM25.
    best, both = "BM25 of titles alone", "BM25 of titles alone + ours"
    compared = [
        ("BM25 + ours", "BM25"),
        (both, best),
        (f"{best} + sentence-transformers", best),
        ("ours", "sentence-transformers"),
        (both, f"{best} + sentence-transformers"),
    ]
    for a, b in compared:
        if a in hits and b in hits:
            print(
                "{:<76} {:+.3f} ({:+.3f} to {:+.3f})".format(
                    f"{a}, less {b}", *mean_and_interval(hits[a] - hits[b], task.queries)
                )
            )
    print(
        f"{len(task):,} pairs of {len(set(task.queries.tolist())):,} held-out queries among "
        f"{len(candidates.rows):,} products; one training each; intervals (95%) resample queries"
    )


def by_sentence_transformers(
    export: Any, options: Any, steps: int, ours: Any, pairs: Any, candidates: Any
) -> Any:
    """Scores of sentence-transformers: one encoder for queries and titles. None if it is not installed.

    It starts from the encoder that our training started from, and sees as many of the same query-product
    pairs.
    """
    try:
        from sentence_transformers import (
            SentenceTransformer,
            SentenceTransformerTrainer,
            SentenceTransformerTrainingArguments,
        )
        from sentence_transformers.sentence_transformer import losses, modules
    except ImportError:
        print("sentence-transformers is left out: pip install sentence-transformers")
        return None
    import datasets
    import torch
    from transformers import PrinterCallback

    from pincaption.embed.batches import batch_shares
    from pincaption.embed.pairs import QUERY_PRODUCT, Pairs
    from pincaption.embed.reader import Export
    from pincaption.embed.start import initial_model
    from pincaption.embed.validation import hold_out

    learned = Export(export.folder, export.fields)
    kept, _, learned.hidden_queries = hold_out(Pairs.load(learned, "train"), options.validation)
    begun = initial_model(learned, kept, options)
    if begun.tokeniser.get_vocab() != ours.tokeniser.get_vocab():
        raise AssertionError("our training began with another encoder")
    folder, task, batch = WORK / "sentence-transformers", kept.tasks[QUERY_PRODUCT], options.batch
    shutil.rmtree(folder, ignore_errors=True)
    encoder: Any = begun.query_tower.encoder
    encoder.save_pretrained(folder / "start")
    begun.tokeniser.save_pretrained(folder / "start")
    titles = export.rows.data.column("title").combine_chunks()
    rows = datasets.Dataset.from_dict(
        {
            "query": kept.queries.take(pa.array(task.queries)).to_pylist(),
            "product": titles.take(pa.array(task.items)).to_pylist(),
        }
    )

    def trained(steps: int) -> tuple[Any, float]:
        read = modules.Transformer(str(folder / "start"), max_seq_length=64)
        model = SentenceTransformer(
            modules=[read, modules.Pooling(read.get_embedding_dimension(), "mean"), modules.Normalize()]
        )
        arguments = SentenceTransformerTrainingArguments(
            str(folder / "trainer"),
            max_steps=steps,
            per_device_train_batch_size=batch,
            learning_rate=options.learning_rate,
            warmup_steps=round(options.warmup * steps),
            weight_decay=options.weight_decay,
            batch_sampler="no_duplicates",
            save_strategy="no",
            logging_strategy="no",
            report_to="none",
            disable_tqdm=True,
            dataloader_pin_memory=False,
            seed=options.seed,
        )
        trainer = SentenceTransformerTrainer(
            model, arguments, train_dataset=rows, loss=losses.MultipleNegativesRankingLoss(model)
        )
        trainer.remove_callback(PrinterCallback)
        began = time.perf_counter()
        trainer.train()
        return model.eval(), time.perf_counter() - began

    _, seconds = trained(10)
    wanted, most = (
        max(1, round(steps * batch_shares(kept, batch, 1, options.weights)[QUERY_PRODUCT] / batch)),
        round(10 * 60 * MINUTES / seconds),
    )
    model, seconds = trained(min(wanted, most))
    print(
        f"sentence-transformers: {min(wanted, most):,} steps of {batch} query-product pairs "
        f"in {seconds:.0f} s, "
        + (f"cut from {wanted:,}" if most < wanted else "as many of these as ours")
        + "; MultipleNegativesRankingLoss, no duplicates in a batch, mean pooling, "
        "one encoder for queries and titles"
    )
    asked, found = (
        model.encode(texts.to_pylist(), batch_size=256, convert_to_tensor=True, show_progress_bar=False).cpu()
        for texts in (pairs.queries, titles.take(pa.array(candidates.rows)))
    )
    return lambda some: asked[torch.from_numpy(some)] @ found.T


def ablate(data: str, seeds: int, epochs: float, pins: int) -> None:
    export = (
        drawn_export(pins)
        if data == "drawn"
        else homedepot_export()
        if data == "homedepot"
        else movielens_export()
    )
    out = WORK / f"ablation-{export.parent.name}-{epochs:g}"
    print(
        f"{data}: {describe(export)}; {seeds} seeds, {epochs:g} epochs"
        + (f"; finished trainings in {out} are not repeated" if out.exists() else ""),
        flush=True,
    )
    captioner("embed", "ablate", export, out, "--seeds", seeds, "--epochs", epochs, shown=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=["tokens", "train", "memory", "queries", "homedepot", "ablate"])
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--pins", type=int)
    parser.add_argument("--epochs", type=float)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--data", choices=list(EPOCHS), default="drawn")
    parser.add_argument("--model", type=Path)
    parser.add_argument("--full", action="store_true")
    arguments = parser.parse_args()
    WORK.mkdir(exist_ok=True, parents=True)
    if arguments.what == "tokens":
        tokens(arguments.rounds or 5)
    elif arguments.what == "train":
        train(arguments.rounds or 3)
    elif arguments.what == "memory":
        memory(arguments.pins or 1_000_000)
    elif arguments.what == "queries":
        queries(arguments.model, arguments.full, arguments.rounds or 5)
    elif arguments.what == "homedepot":
        homedepot(arguments.epochs or 10)
    else:
        ablate(
            arguments.data,
            arguments.seeds,
            arguments.epochs or EPOCHS[arguments.data],
            arguments.pins or 3_000,
        )


if __name__ == "__main__":
    main()
