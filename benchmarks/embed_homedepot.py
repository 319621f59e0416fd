"""What is found on Home Depot by queries that nobody asked before: BM25, ours, sentence-transformers, fused.

    python benchmarks/embed_homedepot.py [--encoder none|FOLDER] [--seeds 3] [--epochs E] [--batch N]
                                         [--fields title] [--peer] [--model FOLDER ...]

Every choice (the step that is kept, the kind of BM25, the weight of a fusion) is made on held-out training
queries. The test queries are looked at once, after the last training. Recall@10 counts products that most of
three people found relevant. NDCG@10 uses all judgements: a product gains its mean relevance, 1 to 3, less 1.
Intervals (95%) resample queries; differences are paired by query. `--model` measures trained models instead
of training. `--peer` fine-tunes the same encoder with sentence-transformers, if that is installed, and keeps
it in the folder of the benchmark; the held-out queries choose its step, too. `--seeds 0 --peer` does only
that.
"""

from __future__ import annotations

import argparse
import csv
import shutil
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
import torch.nn.functional as F
from embed_data import GENTLE, HOMEDEPOT, WORK, describe, homedepot_export

from pincaption.embed.bm25 import KINDS
from pincaption.embed.fusion import Fusion
from pincaption.embed.intervals import mean_and_interval
from pincaption.embed.model import EmbeddingModel
from pincaption.embed.options import TrainOptions
from pincaption.embed.pairs import QUERY_PRODUCT, Pairs
from pincaption.embed.ranking import Gains, Scores, candidates_of, known_positives, measures, ndcg, ranks, top
from pincaption.embed.reader import Export
from pincaption.embed.scores import Embedded, bm25_scores, fused
from pincaption.embed.text_encoder import NONE
from pincaption.embed.training import train
from pincaption.embed.validation import hold_out
from pincaption.filters.text import normalise

PEER_EVERY = 100  # steps of sentence-transformers between two looks at the held-out queries
PEER_PATIENCE = 2  # looks without an improvement, then it stops

HELD_OUT = 0.05  # of the training queries


class Test:
    """The test queries among all products, and how well scores rank them."""

    def __init__(self, export: Export):
        self.export, self.pairs = export, Pairs.load(export, "test")
        self.task = self.pairs.tasks[QUERY_PRODUCT]
        self.candidates = candidates_of(self.task, None)
        train_pairs = Pairs.load(export, "train")
        self.known = known_positives([self.pairs.tasks, self.pairs.tasks_of(train_pairs)], QUERY_PRODUCT)
        self.queries = np.unique(self.task.queries)
        self.gains = graded(export, self.pairs)
        self.hits: dict[str, np.ndarray] = {}

    def bm25(self, kind: Any) -> Scores:
        return bm25_scores(self.export, self.pairs, self.task, self.candidates, ("title",), kind=kind)

    def show(self, name: str, scores: Scores) -> None:
        """Prints one line and keeps the hits for `less`."""
        self.hits[name] = measures(ranks(scores, self.task, self.candidates, self.known))["recall@10"]
        shown = top(scores, self.queries, self.candidates, np.empty(0, np.int64), 10)
        gained = ndcg(shown, self.queries, self.gains)
        print(
            "{:<44} Recall@10 {:.3f} ({:.3f} to {:.3f})".format(
                name, *mean_and_interval(self.hits[name], self.task.queries)
            )
            + f"   NDCG@10 {np.nanmean(gained):.3f}",
            flush=True,
        )

    def less(self, a: str, b: str) -> None:
        """Prints the difference of two lines, paired by query."""
        difference = mean_and_interval(self.hits[a] - self.hits[b], self.task.queries)
        print("{:<60} {:+.3f} ({:+.3f} to {:+.3f})".format(f"{a}, less {b}", *difference), flush=True)


def graded(export: Export, pairs: Pairs) -> Gains:
    """The gains of all judged pairs of the test queries: relevance - 1."""
    queries, pins, gains = [], [], []
    with (HOMEDEPOT / "pairs.csv").open(encoding="utf-8") as lines:
        for row in csv.DictReader(lines):
            queries.append(normalise(row["search_term"]))
            pins.append(row["product_uid"])
            gains.append(float(row["relevance"]) - 1)
    place = pc.fill_null(pc.index_in(pa.array(queries), value_set=pairs.queries), -1).to_numpy()
    item = pc.fill_null(pc.index_in(pa.array(pins), value_set=export.pin_ids), -1).to_numpy()
    kept = (place >= 0) & (item >= 0)
    return Gains.of(place[kept].astype(np.int64), item[kept].astype(np.int64), np.array(gains)[kept])


def shares(model: EmbeddingModel, export: Export, items: torch.Tensor) -> None:
    """Prints what other shares of the n-grams find for held-out *training* queries among all products."""
    assert model.towers.encoder
    width = model.towers.encoder.width
    _, held_out, _ = hold_out(Pairs.load(export, "train"), HELD_OUT)
    task = held_out.tasks[QUERY_PRODUCT]
    candidates, known = candidates_of(task, None), known_positives([held_out.tasks], QUERY_PRODUCT)
    queries = model.embed_queries(held_out.queries.to_pylist())
    asked, found = (
        [F.normalize(part, dim=1) for part in (vectors[:, :width], vectors[:, width:])]
        for vectors in (queries, items[torch.from_numpy(candidates.rows)])
    )

    def recall(share: float) -> str:
        def scores(some: np.ndarray) -> torch.Tensor:
            meaning, words = (q[torch.from_numpy(some)] @ i.T for q, i in zip(asked, found, strict=True))
            return (1 - share) * meaning + share * words

        return f"{share:g}: {measures(ranks(scores, task, candidates, known))['recall@10'].mean():.3f}"

    print(
        f"  held-out training queries ({len(task):,} pairs), by the share of the n-grams; the model has "
        f"{model.towers.share_of_words:.2f}:"
    )
    print("  " + ", ".join(recall(share) for share in (0, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 1)), flush=True)


def peer(export: Export, options: TrainOptions, test: Test, titles: pa.Array) -> Scores | None:
    """sentence-transformers: one encoder for queries and titles, fine-tuned until it gets no better.

    It starts from the same pretrained encoder, and learns from the same query-product pairs. None if it is
    not installed.
    """
    try:
        from sentence_transformers import (
            SentenceTransformer,
            SentenceTransformerTrainer,
            SentenceTransformerTrainingArguments,
        )
        from sentence_transformers.sentence_transformer import losses
    except ImportError:
        print("sentence-transformers is left out: pip install sentence-transformers")
        return None
    import datasets
    from transformers import PrinterCallback, TrainerCallback

    learned = Export(export.folder, export.fields)
    kept, held_out, _ = hold_out(Pairs.load(learned, "train"), options.validation)
    task, held = kept.tasks[QUERY_PRODUCT], held_out.tasks[QUERY_PRODUCT]
    few, known = candidates_of(held, 5_000, 0), known_positives([held_out.tasks], QUERY_PRODUCT)
    rows = datasets.Dataset.from_dict(
        {
            "query": kept.queries.take(pa.array(task.queries)).to_pylist(),
            "product": titles.take(pa.array(task.items)).to_pylist(),
        }
    )
    model = SentenceTransformer(options.encoder)
    model.max_seq_length = 64
    folder = WORK / "sentence-transformers"
    best: dict[str, Any] = {"recall": -1.0, "step": 0}

    def scores_of(queries: pa.Array, products: np.ndarray) -> Scores:
        asked, found = (
            model.encode(texts, batch_size=128, convert_to_tensor=True, show_progress_bar=False).cpu()
            for texts in (queries.to_pylist(), titles.take(pa.array(products)).to_pylist())
        )
        return lambda some: asked[torch.from_numpy(some)] @ found.T

    class Look(TrainerCallback):  # type: ignore[misc]
        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            if state.global_step % PEER_EVERY == 0:
                self.look(state.global_step, control)

        def look(self, step: int, control: Any = None) -> None:
            rank = ranks(scores_of(held_out.queries, few.rows), held, few, known)
            recall = float(measures(rank)["recall@10"].mean())
            print(f"  sentence-transformers, step {step}: {recall:.3f} on held-out queries", flush=True)
            if recall > best["recall"]:
                weights = {name: value.clone() for name, value in model.state_dict().items()}
                best.update(recall=recall, step=step, weights=weights)
            elif control is not None and step - best["step"] >= PEER_PATIENCE * PEER_EVERY:
                control.should_training_stop = True

    if folder.exists():
        print(f"  sentence-transformers: the model in {folder} is measured")
        model = SentenceTransformer(str(folder))
        model.max_seq_length = 64
        return scores_of(test.pairs.queries, test.candidates.rows)
    arguments = SentenceTransformerTrainingArguments(
        str(folder.with_name("sentence-transformers-unfinished")),
        num_train_epochs=options.epochs,
        per_device_train_batch_size=options.batch,
        learning_rate=4e-5,
        warmup_ratio=options.warmup,
        batch_sampler="no_duplicates",
        save_strategy="no",
        logging_strategy="no",
        report_to="none",
        disable_tqdm=True,
        dataloader_pin_memory=False,
        seed=options.seed,
    )
    look = Look()
    trainer = SentenceTransformerTrainer(
        model,
        arguments,
        train_dataset=rows,
        loss=losses.MultipleNegativesRankingLoss(model),
        callbacks=[look],
    )
    trainer.remove_callback(PrinterCallback)
    began = time.perf_counter()
    look.look(0)
    trainer.train()
    model.load_state_dict(best["weights"])
    model.eval()
    model.save(str(folder))
    print(f"  sentence-transformers: step {best['step']} is kept; {time.perf_counter() - began:.0f} s")
    return scores_of(test.pairs.queries, test.candidates.rows)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--encoder", default=NONE)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=float)
    parser.add_argument("--batch", type=int)
    parser.add_argument("--fields", default="title")
    parser.add_argument("--hard-negatives", type=int, default=0)
    parser.add_argument("--peer", action="store_true")
    parser.add_argument("--model", type=Path, nargs="+")
    chosen = parser.parse_args()
    WORK.mkdir(exist_ok=True, parents=True)
    folder = homedepot_export()
    print(describe(folder), flush=True)
    with_encoder = chosen.encoder != NONE
    options = TrainOptions(
        encoder=chosen.encoder,
        fields=tuple(chosen.fields.split(",")),
        epochs=chosen.epochs or (1.0 if with_encoder else 3.0),
        batch=chosen.batch or (64 if with_encoder else 256),
        hard_negatives=chosen.hard_negatives,
        validation=HELD_OUT,
        **GENTLE,
        encoder_learning_rate=4e-5,
        mix=(("query-query", 0.0),),
    )
    models = chosen.model or []
    if not models:
        for seed in range(chosen.seeds):
            out = WORK / "homedepot" / f"{'encoder' if with_encoder else 'none'}-{options.epochs:g}-{seed}"
            if (out / "config.json").exists():  # else a training that was stopped goes on
                shutil.rmtree(out)
            result = train(folder, out, replace(options, seed=seed))
            print(
                f"seed {seed}: {result['steps']:,} steps in {result['seconds']:.0f} s, step "
                f"{result['kept_step']} is kept: {result['validation']}",
                flush=True,
            )
            models.append(out)
    test = Test(Export(folder, options.fields))
    for kind in KINDS:
        test.show(f"BM25 of {kind}", test.bm25(kind))
    for number, path in enumerate(models):
        model = EmbeddingModel.load(path)
        export = Export(folder, model.fields)
        embedded = Embedded(model, export, test.pairs.queries)
        for dim in model.dims:
            name = f"ours {number}" if dim == model.dim else f"ours {number}, the first {dim} numbers"
            test.show(name, embedded.scores(test.task, test.candidates, dim))
        if model.towers.encoder:
            shares(model, export, embedded.items)
        fusion = Fusion.of(model.about)
        print(f"  fusion: {fusion.weight:g} of the model, the rest BM25 of {fusion.kind}")
        ours = embedded.scores(test.task, test.candidates, model.dim)
        test.show(f"ours {number}, fused", fused(ours, test.bm25(fusion.kind), fusion.weight))
        test.less(f"ours {number}", f"BM25 of {KINDS[-1]}")
        test.less(f"ours {number}, fused", f"BM25 of {KINDS[-1]}")
    if chosen.peer and with_encoder:
        titles = test.export.rows.data.column("title").combine_chunks()
        scores = peer(test.export, options, test, titles)
        if scores is not None:
            test.show("sentence-transformers", scores)
            for number in range(len(models)):
                test.less(f"ours {number}", "sentence-transformers")
    print(
        f"{len(test.task):,} pairs of {len(test.queries):,} held-out queries among "
        f"{len(test.candidates.rows):,} products"
    )


if __name__ == "__main__":
    main()
