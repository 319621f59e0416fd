"""The query tower as a file of torch.export, for services that do not have our code."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..common.files import write_whole
from ..filters.text import normalise
from .errors import EmbedError
from .model import EmbeddingModel
from .sizes import SMALL

MOST_DIFFERENCE = 1e-4  # between the exported encoder and the model, in any number of an embedding
# The two are compared on these: one that is not normalised, a short one, a long one, and one that is not
# ASCII.
TEXTS = [
    "Red Mug!",
    "a",
    "two blue boats, beside a green tree: on a yellow background",
    "Grandma\u2019s Crème  BRÛLÉE & 猫カフェ",
]


class _Encoder(nn.Module):
    """Ids and mask in, embeddings out."""

    def __init__(self, model: EmbeddingModel):
        super().__init__()
        self.tower = model.query_tower

    def forward(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        return torch.as_tensor(self.tower(ids, mask))


def export_encoder(model: EmbeddingModel, path: Path) -> float:
    """Writes the query tower with torch.export. Returns the largest difference to the model on some texts.

    The encoder takes the ids and the mask [queries, tokens] that the tokeniser in MODEL/encoder gives, for
    any number of queries of up to 64 tokens. Texts must be normalised before (`filters.text.normalise`). The
    tokeniser of the small encoder does that itself, and the difference is measured on raw texts.

    Raises EmbedError, and writes nothing, if the difference is above 1e-4.
    """
    is_small = model.about.get("encoder") == SMALL
    texts = TEXTS if is_small else [normalise(text) for text in TEXTS]
    queries = torch.export.Dim("queries", min=1, max=65_536)
    tokens = torch.export.Dim("tokens", min=2, max=model.most_tokens)
    shapes = ({0: queries, 1: tokens}, {0: queries, 1: tokens})
    written = io.BytesIO()
    with torch.no_grad():
        program = torch.export.export(_Encoder(model).eval(), _ids(model, texts), dynamic_shapes=shapes)
        torch.export.save(program, written)
        encoder = load_encoder(io.BytesIO(written.getvalue()))
        difference = max(
            float((encoder(*_ids(model, some)) - model.query_tower(*model.tokenise(some))).abs().max())
            for some in (texts, texts[:1], texts * 9)
        )
        if not difference <= MOST_DIFFERENCE:
            raise EmbedError(
                f"the exported encoder differs from the model by {difference:.1e}, more than "
                f"{MOST_DIFFERENCE:.0e}: nothing was written"
            )
    write_whole(path, written.getvalue())
    return difference


def _ids(model: EmbeddingModel, texts: list[str]) -> tuple[torch.Tensor, torch.Tensor]:
    """What a service gives to the encoder: the ids and the mask of the tokeniser alone."""
    tokens = model.tokeniser(
        texts, padding=True, truncation=True, max_length=model.most_tokens, return_tensors="pt"
    )
    return tokens["input_ids"], tokens["attention_mask"]


def load_encoder(source: Path | io.BytesIO) -> Any:
    """The exported encoder: a module (ids, mask) -> embeddings [queries, dim]."""
    return torch.export.load(source if isinstance(source, io.BytesIO) else str(source)).module()
