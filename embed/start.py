"""The model that a training starts from."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
import torch.nn.functional as F

from .item_tower import ItemTower
from .model import EmbeddingModel
from .ngrams import MAX_CHARACTERS, grams
from .options import TrainOptions
from .pairs import Pairs
from .query_tower import QueryTower
from .reader import Export
from .sizes import SMALL, Sizes, sizes_of
from .text_encoder import pretrained_encoder, small_encoder
from .vocabulary import SIZES, Vocabulary

VOCABULARY_ITEMS = 200_000  # at most so many items give their texts for the small encoder's vocabulary


def initial_model(export: Export, pairs: Pairs, options: TrainOptions) -> EmbeddingModel:
    """A new model for a training.

    Its vocabularies are made from the export's texts and the pairs' queries.
    """
    vocabulary = (
        Vocabulary({}, dict(SIZES)) if options.hashed else Vocabulary.build(export.grams(pairs.used_queries))
    )
    return new_model(
        options.fields,
        export.dense,
        vocabulary,
        options.sizes or sizes_of(options.encoder),
        encoder=options.encoder,
        revision=options.revision,
        texts=_all_texts(export, pairs),
        seed=options.seed,
    )


def new_model(
    fields: Sequence[str],
    dense: dict[str, int],
    vocabulary: Vocabulary,
    sizes: Sizes,
    *,
    encoder: str = SMALL,
    revision: str | None = None,
    texts: Iterable[str] = (),
    seed: int = 0,
) -> EmbeddingModel:
    """A model with random weights, except for those of a pretrained encoder.

    `encoder` is "small" or a model of transformers. The vocabulary of the small one is made from `texts`.
    Raises EmbedError for an encoder that cannot be used.
    """
    torch.manual_seed(seed)
    tokeniser, network = (
        small_encoder(texts, sizes) if encoder == SMALL else pretrained_encoder(encoder, revision)
    )
    model = EmbeddingModel(
        QueryTower(network, sizes.dim),
        ItemTower(fields, dense, len(vocabulary), sizes),
        vocabulary,
        tokeniser,
        sizes,
        {"encoder": encoder, "revision": revision},
    )
    if encoder == SMALL:
        _copy_word_vectors(model)
    return model


@torch.no_grad()
def _copy_word_vectors(model: EmbeddingModel) -> None:
    """Sets the small encoder's token vectors to the item tower's embeddings of the same words.

    Then both towers start in the same space.
    """
    tokens = pa.array(
        [text.strip() for text in model.tokeniser.batch_decode([[i] for i in range(len(model.tokeniser))])]
    )
    encoder, ngrams = model.query_tower.encoder, model.item_tower.ngrams
    table = encoder.get_input_embeddings().weight  # type: ignore[operator,union-attr]
    ids, starts = model.vocabulary.ids(grams(tokens), len(tokens))
    if not len(ids) or table.shape[1] != ngrams.table.weight.shape[1]:
        return
    vectors = ngrams(torch.from_numpy(ids), torch.from_numpy(starts))
    known = vectors.norm(dim=1) > 0
    table[known] = F.normalize(vectors[known], dim=1)


def _all_texts(export: Export, pairs: Pairs) -> Iterator[str]:
    """The queries of the pairs, and the texts of all items, or of 200,000 random ones."""
    yield from pairs.used_queries.to_pylist()
    rows = np.arange(len(export))
    if len(rows) > VOCABULARY_ITEMS:
        rows = np.sort(np.random.default_rng(0).choice(len(export), VOCABULARY_ITEMS, replace=False))
    for some_rows in export.batches(rows):
        for column, _ in export.texts(some_rows, export.fields).values():
            yield from pc.utf8_slice_codeunits(pc.drop_null(column), 0, MAX_CHARACTERS).to_pylist()
