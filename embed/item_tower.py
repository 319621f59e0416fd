"""The item tower: embeddings of pins and products."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import nn

from .hash_embeddings import HashEmbeddings
from .reader import Items
from .sizes import Sizes


class ItemTower(nn.Module):
    """N-grams of the text fields, summed, beside the item's vectors, through an MLP.

    An item may lack any of its fields and vectors: what is missing adds nothing.
    """

    def __init__(self, fields: Sequence[str], dense: dict[str, int], ids: int, sizes: Sizes):
        """`fields`: names of text fields.

        `dense` {name: numbers}: vectors. `ids`: how many ids n-grams have.
        """
        super().__init__()
        self.fields, self.dense = list(fields), dense
        self.ngrams = HashEmbeddings(ids, sizes.rows, sizes.width)
        self.norms = nn.ModuleDict({name: nn.LayerNorm(sizes.width) for name in fields})
        widths = [sizes.width + sum(dense.values()) + len(dense), *sizes.hidden]
        layers: list[nn.Module] = []
        for a, b in itertools.pairwise(widths):
            layers += [nn.Linear(a, b), nn.LayerNorm(b), nn.GELU()]
        self.mlp = nn.Sequential(*layers, nn.Linear(widths[-1], sizes.dim))

    def forward(self, items: Items) -> torch.Tensor:
        """items -> embeddings [items, dim], float32, of length 1."""
        texts = []
        for name in self.fields:
            ids, starts = items.texts[name]
            ends = torch.cat([starts[1:], starts.new_tensor([len(ids)])])
            texts.append(self.norms[name](self.ngrams(ids, starts)) * (ends > starts)[:, None])
        parts = [torch.stack(texts).sum(0)]
        for name in self.dense:
            vectors, has = items.dense[name]
            parts += [vectors * has[:, None], has[:, None].to(vectors.dtype)]
        return F.normalize(self.mlp(torch.cat(parts, 1)).float(), dim=1)
