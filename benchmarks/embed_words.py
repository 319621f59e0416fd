"""What the parts of the n-grams are worth before any training: Recall@10 on held-out training queries.

    python benchmarks/embed_words.py [parts | fields]

Home Depot's titles. A tenth of the training queries is held out and ranked among all products; the test
queries are not looked at. Each line changes one thing of the untrained model.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
import torch.nn.functional as F
from embed_data import drawn_export, homedepot_export, movielens_export

from pincaption.embed.bm25 import KINDS
from pincaption.embed.model import EmbeddingModel
from pincaption.embed.ngrams import grams
from pincaption.embed.options import TrainOptions
from pincaption.embed.pairs import QUERY_PRODUCT, QUERY_QUERY, Pairs
from pincaption.embed.ranking import candidates_of, known_positives, measures, ranks
from pincaption.embed.reader import Export
from pincaption.embed.scores import Embedded, bm25_scores
from pincaption.embed.sizes import Sizes
from pincaption.embed.start import initial_model
from pincaption.embed.validation import hold_out

TEXTS_AT_ONCE = 5_000


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=["parts", "fields"], nargs="?", default="parts")
    if parser.parse_args().what == "fields":
        for folder in (drawn_export(), movielens_export()):
            fields(folder)
    else:
        parts()


def fields(folder: Path) -> None:
    """Prints what equal weights of the fields find, and what a title of double weight does."""
    data = Export(folder)
    pairs, held_out, data.hidden_queries = hold_out(Pairs.load(data, "train"), 0.2)
    model = initial_model(data, pairs, TrainOptions())
    double = torch.tensor([0.0 if name == "title" else -1.0 for name in data.fields]) * np.log(2)
    for name, task in held_out.tasks.items():
        if name == QUERY_QUERY:
            continue
        candidates, known = candidates_of(task, None), known_positives([held_out.tasks], name)
        found = []
        for weights in (torch.zeros(len(data.fields)), double):
            with torch.no_grad():
                model.towers.field_weights[-1] = weights
                model.towers.set_pivot(model.inputs.items(data, np.arange(0, len(data), 5)))
            scores = Embedded(model, data, held_out.queries).scores(task, candidates, model.dim)
            found.append(measures(ranks(scores, task, candidates, known))["recall@10"].mean())
        print(
            f"{folder.parent.name}, {name}, {len(task):,} pairs: equal weights {found[0]:.3f}, "
            f"a title twice {found[1]:.3f}",
            flush=True,
        )


def parts() -> None:
    """Prints what each part of the n-grams is worth on Home Depot."""
    data = Export(homedepot_export(), ("title",))
    pairs, held_out, data.hidden_queries = hold_out(Pairs.load(data, "train"), 0.1)
    task = held_out.tasks[QUERY_PRODUCT]
    candidates, known = candidates_of(task, None), known_positives([held_out.tasks], QUERY_PRODUCT)
    titles = data.rows.data.column("title").combine_chunks().take(pa.array(candidates.rows))
    print(f"{len(task):,} pairs of {len(np.unique(task.queries)):,} queries, {len(titles):,} products")

    def show(name: str, scores: Callable[[np.ndarray], torch.Tensor]) -> None:
        recall = measures(ranks(scores, task, candidates, known))["recall@10"].mean()
        print(f"{name:<50} {recall:.3f}", flush=True)

    for kind in KINDS:
        show(f"BM25 of {kind}", bm25_scores(data, held_out, task, candidates, ("title",), kind=kind))
    for width in (512, 1_024):
        model = initial_model(data, pairs, TrainOptions(fields=("title",), sizes=Sizes(width=width)))
        for name, once, beginnings, pivot in (
            ("as it is", True, True, True),
            ("an n-gram counts as often as it occurs", False, True, True),
            ("without the beginnings of words", True, False, True),
            ("directions alone: no pivot", True, True, False),
            ("none of the three", False, False, False),
        ):
            items, queries = (
                sums(model, texts, once=once, beginnings=beginnings) for texts in (titles, held_out.queries)
            )
            lengths = items.norm(dim=1, keepdim=True)
            items = items / (lengths + lengths.mean()) if pivot else F.normalize(items, dim=1)
            show(f"{width} numbers, {name}", lambda some, q=queries, i=items: q[some] @ i.T)


@torch.no_grad()
def sums(model: EmbeddingModel, texts: pa.Array, *, once: bool, beginnings: bool) -> torch.Tensor:
    """The sums [texts, numbers] of the n-grams of texts.

    `once`: each n-gram counts once in a text. `beginnings`: those of words count, too.
    """
    vocabulary, done = model.inputs.vocabulary, []
    for start in range(0, len(texts), TEXTS_AT_ONCE):
        found = grams(texts[start : start + TEXTS_AT_ONCE])
        rows, ids, base = [], [], 0
        for kind, size in vocabulary.sizes.items():
            number = vocabulary._ids_of_kind(kind, found[kind].codes, size)
            kept = (number >= 0) & (beginnings or kind != "beginning")
            rows.append(found[kind].rows[kept])
            ids.append(number[kept] + base)
            base += size
        keys = np.sort(np.concatenate(rows) * base + np.concatenate(ids))
        keys = np.unique(keys) if once else keys
        starts = np.searchsorted(keys, np.arange(len(texts[start : start + TEXTS_AT_ONCE])) * base)
        done.append(model.towers.ngrams(torch.from_numpy(keys % base), torch.from_numpy(starts)))
    return torch.cat(done)


if __name__ == "__main__":
    main()
