"""The model that a training starts from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch

from .inputs import Inputs
from .model import EmbeddingModel
from .ngrams import grams
from .options import TrainOptions
from .pairs import Pairs
from .reader import Export
from .sizes import Sizes
from .text_encoder import NONE, TextEncoder
from .towers import Towers
from .vocabulary import SIZES, Vocabulary

PIVOT_ITEMS = 2_000  # whose mean length is the pivot of an untrained model


def initial_model(export: Export, pairs: Pairs, options: TrainOptions) -> EmbeddingModel:
    """A new model for a training: similarity by the encoder, and by common n-grams.

    Its vocabulary is made from the export's texts and the pairs' queries. The importance of an n-gram is the
    square root of its idf, so that a common n-gram adds its idf to the dot product of a query and an item.
    Raises EmbedError for an encoder that cannot be used.
    """
    vocabulary = (
        Vocabulary({}, dict(SIZES)) if options.hashed else Vocabulary.build(export.grams(pairs.used_queries))
    )
    model = new_model(
        options.fields,
        export.dense,
        vocabulary,
        options.sizes,
        encoder=options.encoder,
        revision=options.revision,
        seed=options.seed,
    )
    counts = document_frequencies(export, vocabulary)
    idf = np.log1p(len(export) / np.maximum(1, counts))
    model.towers.ngrams.set_importance(torch.from_numpy(np.sqrt(idf)).float())
    some = np.unique(np.linspace(0, len(export) - 1, PIVOT_ITEMS).astype(np.int64))
    model.towers.set_pivot(Inputs(vocabulary, None).items(export, some))
    return model


def new_model(
    fields: Sequence[str],
    dense: dict[str, int],
    vocabulary: Vocabulary,
    sizes: Sizes,
    *,
    encoder: str = NONE,
    revision: str | None = None,
    seed: int = 0,
) -> EmbeddingModel:
    """A model with random rows for n-grams and, unless `encoder` is "none", a pretrained text encoder.

    Raises EmbedError for an encoder that cannot be used.
    """
    network = None if encoder == NONE else TextEncoder.load(encoder, revision)
    torch.manual_seed(seed)
    # More rows than n-grams would only cost memory and time.
    sizes = replace(sizes, rows=min(sizes.rows, max(1, len(vocabulary))))
    towers = Towers(network, fields, dense, len(vocabulary), sizes)
    about = {"encoder": encoder, "revision": revision}
    return EmbeddingModel(towers, Inputs(vocabulary, network), sizes, about)


def document_frequencies(export: Export, vocabulary: Vocabulary) -> np.ndarray:
    """int64 [ids]: how many items of an export have each n-gram, in any of its fields."""
    counts = np.zeros(max(1, len(vocabulary)), np.int64)
    for rows in export.batches():
        seen = []
        for column, parents in export.texts(rows, export.fields).values():
            ids, starts = vocabulary.ids(grams(column, parents), len(rows))
            row = np.repeat(np.arange(len(rows)), np.diff(starts, append=len(ids)))
            seen.append(row * len(counts) + ids)
        counts += np.bincount(np.unique(np.concatenate(seen)) % len(counts), minlength=len(counts))
    return counts
