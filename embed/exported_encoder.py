"""Exported encoder."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..common.files import write_whole
from ..filters.text import normalise
from .errors import EmbedError
from .model import Model
from .sizes import SMALL

MOST_DIFFERENCE = 1e-4  # of an exported encoder, in any number of an embedding


class _Encoder(nn.Module):
    """Ids and mask in, embeddings out."""

    def __init__(self, model: Model):
        super().__init__()
        self.tower = model.queries

    def forward(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        return torch.as_tensor(self.tower(ids, mask))


def export_encoder(model: Model, path: Path) -> float:
    """Writes the query tower by torch.export, for any number of queries of up to 64 tokens, and returns the
    largest difference to the model on some texts.

    It takes what the tokeniser of MODEL/encoder makes of texts in the form of `filters.text.normalise`. The
    small encoder's brings raw texts into that form by itself: with it the difference is measured on raw
    texts. Raises EmbedError, and writes nothing, where that is above 1e-4.
    """
    texts = [
        "Red Mug!",
        "a",
        "two blue boats, beside a green tree: on a yellow background",
        "Grandma\u2019s Crème  BRÛLÉE & 猫カフェ",
    ]
    texts = texts if model.about.get("encoder") == SMALL else [normalise(text) for text in texts]
    ids, mask = _ids(model, texts)
    n, length = (
        torch.export.Dim("queries", min=1, max=65_536),
        torch.export.Dim("tokens", min=2, max=model.most_tokens),
    )
    written = io.BytesIO()
    with torch.no_grad():
        program = torch.export.export(
            _Encoder(model).eval(), (ids, mask), dynamic_shapes=({0: n, 1: length}, {0: n, 1: length})
        )
        torch.export.save(program, written)
        encoder = load_encoder(io.BytesIO(written.getvalue()))
        gap = max(
            float((encoder(*_ids(model, some)) - model.queries(*model.tokenise(some))).abs().max())
            for some in (texts, texts[:1], texts * 9)
        )
        if not gap <= MOST_DIFFERENCE:
            raise EmbedError(
                f"the exported encoder differs from the model by {gap:.1e}, more than {MOST_DIFFERENCE:.0e}: nothing was written"
            )
    write_whole(path, written.getvalue())
    return gap


def _ids(model: Model, texts: list[str]) -> tuple[torch.Tensor, torch.Tensor]:
    """What a service gives to the encoder: ids and mask by the tokeniser alone."""
    found = model.tokeniser(
        texts, padding=True, truncation=True, max_length=model.most_tokens, return_tensors="pt"
    )
    return found["input_ids"], found["attention_mask"]


def load_encoder(source: Path | io.BytesIO) -> Any:
    """The exported encoder: (ids, mask) -> [queries, dim]."""
    return torch.export.load(source if isinstance(source, io.BytesIO) else str(source)).module()
