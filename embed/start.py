"""The model that a training starts from."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
import torch.nn.functional as F

from .item_tower import ItemTower
from .model import Model
from .ngrams import MAX_CHARACTERS, grams
from .options import TrainOptions
from .pairs import Pairs
from .query_tower import QueryTower
from .reader import Export
from .sizes import SMALL, Sizes, sizes_of
from .text_encoder import _pretrained, _small
from .vocabulary import SIZES, Vocabulary


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
) -> Model:
    """A model to be trained.

    `encoder` is `small`, or a model of transformers; the small one's vocabulary is made of `texts`. Raises
    EmbedError.
    """
    torch.manual_seed(seed)
    tokeniser, network = _small(texts, sizes) if encoder == SMALL else _pretrained(encoder, revision)
    model = Model(
        QueryTower(network, sizes.dim),
        ItemTower(fields, dense, len(vocabulary), sizes),
        vocabulary,
        tokeniser,
        sizes,
        {"encoder": encoder, "revision": revision},
    )
    if encoder == SMALL:
        _begin_with_the_items_words(model)
    return model


@torch.no_grad()
def _begin_with_the_items_words(model: Model) -> None:
    """Sets the small encoder's word vectors to what the item tower makes of the same words: both towers begin
    in one space.
    """
    tokens = pa.array(
        [text.strip() for text in model.tokeniser.batch_decode([[i] for i in range(len(model.tokeniser))])]
    )
    table = model.queries.encoder.get_input_embeddings().weight  # type: ignore[operator,union-attr]
    ids, starts = model.vocabulary.ids(grams(tokens), len(tokens))
    if not len(ids) or table.shape[1] != model.items.ngrams.table.weight.shape[1]:
        return
    vectors = model.items.ngrams(torch.from_numpy(ids), torch.from_numpy(starts))
    known = vectors.norm(dim=1) > 0
    table[known] = F.normalize(vectors[known], dim=1)


VOCABULARY_ITEMS = 200_000  # from whose texts the small encoder's vocabulary is made, at most


def make_model(export: Export, pairs: Pairs, options: TrainOptions) -> Model:
    """The model that a training begins with: its vocabularies are made of the export's texts and the training
    queries.
    """
    sizes = options.sizes or sizes_of(options.encoder)
    vocabulary = (
        Vocabulary({}, dict(SIZES)) if options.hashed else Vocabulary.build(export.grams(pairs.asked))
    )
    return new_model(
        options.fields,
        export.dense,
        vocabulary,
        sizes,
        encoder=options.encoder,
        revision=options.revision,
        texts=_all_texts(export, pairs),
        seed=options.seed,
    )


def _all_texts(export: Export, pairs: Pairs) -> Iterator[str]:
    yield from pairs.asked.to_pylist()
    some = np.arange(len(export))
    if len(some) > VOCABULARY_ITEMS:
        some = np.sort(np.random.default_rng(0).choice(len(export), VOCABULARY_ITEMS, replace=False))
    for rows in export.batches(some):
        for column, _ in export.texts(rows, export.fields).values():
            yield from pc.utf8_slice_codeunits(pc.drop_null(column), 0, MAX_CHARACTERS).to_pylist()
