"""Both towers: queries and items through one text encoder and one table of n-grams.

An embedding consists of two parts, and each part is a direction: first the numbers of the text encoder, then
those of the n-grams. A query and an item that share words share the n-grams of these words, and so their
second parts are similar before anything is learned.

A long text has few of its words in common with any query. If only directions counted, it would hardly be
found; if the sum of its n-grams counted as it is, too easily. As in BM25 the truth lies between: if this sum
has the length n, an item's n-grams count n / (n + pivot) times. The last number of its embedding makes the
length 1 again. A query has 0 there, and so that number changes no score.

Each tower corrects its parts by a small network. Its last layer is zero at first, so that a training starts
from what the encoder and the words already know.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import nn

from .hash_embeddings import HashEmbeddings
from .inputs import EncoderInput, Items, Queries
from .sizes import Sizes
from .text_encoder import TextEncoder, Tokens

# Of the n-grams in a score, at first; the encoder has the rest. A training learns it, and held-out queries
# choose it in the end (validation.py). An item of mean length uses half of it.
# Held-out training queries of Home Depot chose it (benchmarks/embed_homedepot.py prints other shares).
WORDS_SHARE = 0.6
# Of the encoder's vectors of an item's fields, at first; every other field has OTHER_WEIGHT. The n-grams of
# all fields count the same at first, as in BM25: that was better than these weights on drawn pins and on
# MovieLens (benchmarks/embed_words.py fields).
FIRST_WEIGHTS = {"title": 1.0}
OTHER_WEIGHT = 0.5
DENSE_WEIGHT = 0.1  # of an item's vectors at first: enough to have a direction, too little to disturb words
TINY = 1e-6


class Correction(nn.Module):
    """A network whose output is zero until it has learned something."""

    def __init__(self, inputs: int, hidden: int, outputs: int):
        super().__init__()
        self.first, self.norm = nn.Linear(inputs, hidden), nn.LayerNorm(hidden)
        self.last = nn.Linear(hidden, outputs)
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)

    def forward(self, parts: torch.Tensor) -> torch.Tensor:
        """[n, inputs] -> [n, outputs]."""
        return torch.as_tensor(self.last(F.gelu(self.norm(self.first(parts)))))


class Towers(nn.Module):
    """The query tower and the item tower. They share the encoder and the table of n-grams.

    An item may lack any of its fields and vectors: what is missing adds nothing.
    """

    def __init__(
        self,
        encoder: TextEncoder | None,
        fields: Sequence[str],
        dense: dict[str, int],
        ids: int,
        sizes: Sizes,
    ):
        """`fields`: names of an item's text fields. `dense` {name: numbers}: its vectors.

        `ids`: how many ids n-grams have.
        """
        super().__init__()
        self.encoder, self.fields, self.dense = encoder, list(fields), dict(dense)
        self.ngrams = HashEmbeddings(ids, sizes.rows, sizes.width - 1)
        self.log_pivot = nn.Parameter(torch.zeros(()))  # see `set_pivot`
        self.widths = [*([encoder.width] if encoder else []), sizes.width]  # of the parts
        dim = sum(self.widths)
        first = torch.tensor([FIRST_WEIGHTS.get(name, OTHER_WEIGHT) for name in fields]).log()
        weights = [*([first] if encoder else []), torch.zeros(len(self.fields))]
        self.field_weights = nn.Parameter(torch.stack(weights))  # logs [parts, fields]
        if encoder:
            self.words_share = nn.Parameter(torch.tensor(WORDS_SHARE).logit())
        self.query_correction = Correction(dim, sizes.hidden, dim)
        extra = sum(dense.values()) + len(dense)
        self.item_correction = Correction(dim + extra, sizes.hidden, dim)
        self.from_dense = nn.ModuleDict({name: nn.Linear(n, dim, bias=False) for name, n in dense.items()})
        for layer in self.from_dense.values():
            nn.init.normal_(layer.weight, std=DENSE_WEIGHT * dim**-0.5)  # type: ignore[arg-type]

    @property
    def dim(self) -> int:
        """How many numbers an embedding has."""
        return sum(self.widths)

    @property
    def share_of_words(self) -> float:
        """The share that the n-grams have of a score; 1 without an encoder. It can be set with one."""
        return float(self.words_share.detach().sigmoid()) if self.encoder else 1.0

    @share_of_words.setter
    def share_of_words(self, share: float) -> None:
        with torch.no_grad():
            self.words_share.copy_(torch.tensor(share).logit())

    def queries(self, queries: Queries) -> torch.Tensor:
        """Queries -> embeddings [queries, dim], float32, of length 1.

        One without a known word or trigram has the encoder's part alone, or is all zeros without an encoder.
        """
        return self._query_embeddings(self.ngrams(*queries.grams), queries.texts)

    def padded_queries(self, grams: torch.Tensor, tokens: Tokens | None) -> torch.Tensor:
        """Like `queries`, with n-grams as a table [queries, most of them], -1 where there are fewer."""
        return self._query_embeddings(self.ngrams.padded(grams), tokens)

    @torch.no_grad()
    def set_pivot(self, items: Items) -> None:
        """Makes the mean length of some items' n-grams the pivot: an item of that length counts one half."""
        lengths = self._sums(items).norm(dim=1)
        self.log_pivot.copy_(lengths[lengths > 0].mean().log() if lengths.any() else torch.zeros(()))

    def _sums(self, items: Items) -> torch.Tensor:
        """The weighted sums [items, width - 1] of the n-grams of all fields."""
        sums = [self.ngrams(*items.grams[name]).float() for name in self.fields]
        return torch.einsum("f,fnw->nw", self.field_weights[-1].exp(), torch.stack(sums))

    def _query_embeddings(self, sums: torch.Tensor, texts: EncoderInput | None) -> torch.Tensor:
        parts = [_with_last(_directions(sums.float()))]
        if self.encoder:
            parts.insert(0, self._encoded(texts))
        start = torch.cat(parts, 1)
        return self._embedding(start, start + self.query_correction(start))

    def items(self, items: Items) -> torch.Tensor:
        """Items -> embeddings [items, dim], float32, of length 1. An item without anything is all zeros."""
        if not len(items.grams[self.fields[0]][1]):
            return self.field_weights.new_zeros(0, self.dim)
        sums = self._sums(items)
        lengths = sums.norm(dim=1, keepdim=True)
        # An item without any n-grams may have vectors that stand for them: it counts like one of mean length.
        pivot = self.log_pivot.exp()
        counts = torch.where(lengths > 0, lengths / (lengths + pivot), 0.5)
        parts = [_with_last(_directions(sums))]
        if self.encoder:
            vectors = self._encoded(items.texts)
            means = [_mean(vectors, *items.places[name]) for name in self.fields]
            weights = self.field_weights[0].exp()
            parts.insert(0, _directions(torch.einsum("f,fnw->nw", weights, torch.stack(means))))
        start, extra = torch.cat(parts, 1), []
        for name in self.dense:
            dense, has = items.dense[name]
            extra += [dense * has[:, None], has[:, None].to(dense.dtype)]
            start = start + self.from_dense[name](extra[-2])
        corrected = start + self.item_correction(torch.cat([start, *extra], 1))
        return self._embedding(start, corrected, counts)

    def _encoded(self, texts: EncoderInput | None) -> torch.Tensor:
        """The encoder's vectors [texts, width] of texts, unless they are given."""
        assert self.encoder
        assert texts is not None
        return texts if isinstance(texts, torch.Tensor) else torch.as_tensor(self.encoder(*texts))

    def _embedding(
        self, start: torch.Tensor, corrected: torch.Tensor, counts: torch.Tensor | None = None
    ) -> torch.Tensor:
        """The parts of `corrected`, each as a direction, weighted by their shares of a score.

        A part that is missing in `start` stays missing. `counts` [n, 1]: how much the n-grams count, 1 for
        queries.
        """
        was, parts = torch.split(start, self.widths, 1), []
        for before, part in zip(was, torch.split(corrected.float(), self.widths, 1), strict=True):
            has = before.detach().abs().amax(1, keepdim=True) > 0
            parts.append(part * has)
        words = _directions(parts[-1][:, :-1])
        if counts is None:
            words = _with_last(words)
        else:
            has_words = words.detach().abs().amax(1, keepdim=True) > 0
            words = torch.cat([words * counts, (1 - counts**2).sqrt() * has_words], 1)
        if not self.encoder:
            return _directions(words)
        share = self.words_share.sigmoid()
        return _directions(torch.cat([(1 - share).sqrt() * _directions(parts[0]), share.sqrt() * words], 1))


def _with_last(rows: torch.Tensor) -> torch.Tensor:
    """Rows [n, width - 1] with a last number, which is 0."""
    return F.pad(rows, (0, 1))


def _mean(vectors: torch.Tensor, numbers: torch.Tensor, starts: torch.Tensor) -> torch.Tensor:
    """The means [rows, width] of those of the vectors [n, width] that `numbers` names, row after row."""
    if not len(numbers):
        return vectors.new_zeros(len(starts), vectors.shape[1])
    return F.embedding_bag(numbers, vectors, starts, mode="mean")


def _directions(rows: torch.Tensor) -> torch.Tensor:
    """Rows [n, ...], each scaled to length 1; a row of zeros stays as it is."""
    return F.normalize(rows, dim=1, eps=TINY)
