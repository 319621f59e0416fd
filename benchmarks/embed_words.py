"""What the parts of the n-grams are worth before any training: Recall@10 on held-out training queries.

    python benchmarks/embed_words.py

Home Depot's titles. A tenth of the training queries is held out and ranked among all products; the test
queries are not looked at. Each line changes one thing of the untrained model.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pyarrow as pa
import torch
import torch.nn.functional as F
from embed_data import homedepot_export

from pincaption.embed.bm25 import KINDS
from pincaption.embed.model import EmbeddingModel
from pincaption.embed.ngrams import grams
from pincaption.embed.options import TrainOptions
from pincaption.embed.pairs import QUERY_PRODUCT, Pairs
from pincaption.embed.ranking import candidates_of, known_positives, measures, ranks
from pincaption.embed.reader import Export
from pincaption.embed.scores import bm25_scores
from pincaption.embed.sizes import Sizes
from pincaption.embed.start import initial_model
from pincaption.embed.validation import hold_out

TEXTS_AT_ONCE = 5_000


def main() -> None:
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
    vocabulary, parts = model.inputs.vocabulary, []
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
        parts.append(model.towers.ngrams(torch.from_numpy(keys % base), torch.from_numpy(starts)))
    return torch.cat(parts)


if __name__ == "__main__":
    main()
