"""The query tower as a file of torch.export, and the code that reads raw queries, for other services."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..common.files import write_whole
from ..filters import text as text_module
from . import folding, query_text
from .errors import EmbedError
from .model import EmbeddingModel
from .query_text import QueryText

MOST_DIFFERENCE = 1e-4  # between the exported encoder and the model, in any number of an embedding
# The two are compared on these: one that is not normalised, a short one, a long one, one that is not ASCII,
# and one without a known word.
TEXTS = [
    "Red Mug!",
    "a",
    "two blue boats, beside a green tree: on a yellow background",
    "Grandma\u2019s Crème  BRÛLÉE & 猫カフェ, حَقِيبة, \u0e41\u0e01\u0e49\u0e27",
    "🎉",
]
# What the exported code has above instead
IMPORTS = (
    "from ..filters.text import normalise\n",
    "from .folding import HAN, PAIRED, folded, within\n",
)


class _Encoder(nn.Module):
    """Padded ids of n-grams and, with an encoder, ids and mask of tokens in; embeddings out."""

    def __init__(self, model: EmbeddingModel):
        super().__init__()
        self.towers = model.towers

    def forward(
        self, grams: torch.Tensor, ids: torch.Tensor | None = None, mask: torch.Tensor | None = None
    ) -> torch.Tensor:
        tokens = None if ids is None or mask is None else (ids, mask)
        return self.towers.padded_queries(grams, tokens)


def export_encoder(model: EmbeddingModel, path: Path) -> float:
    """Writes the query tower, and what turns raw texts into its input. Returns the largest difference.

    Beside `path` are written NAME.py (a class `QueryText` that needs torch and safetensors, and tokenizers
    for a model with an encoder), NAME.vocabulary.safetensors and NAME.tokeniser.json. The difference is that
    to the model's own embeddings of some raw texts.

    Raises EmbedError, and writes nothing, if the difference is above 1e-4.
    """
    reader = _reader(model)
    files: dict[Path, bytes] = {path.with_suffix(".py"): _code(path, model).encode()}
    files[path.with_suffix(".vocabulary.safetensors")] = model.inputs.vocabulary.to_bytes()
    text_encoder = model.towers.encoder
    if text_encoder:
        tokeniser: str = text_encoder.tokeniser.backend_tokenizer.to_str()
        files[path.with_suffix(".tokeniser.json")] = tokeniser.encode()
    queries = torch.export.Dim("queries", min=1, max=65_536)
    shapes: list[Any] = [{0: queries, 1: torch.export.Dim("grams", min=2, max=8_192)}]
    if text_encoder:
        tokens = torch.export.Dim("tokens", min=2, max=text_encoder.most_tokens)
        shapes += [{0: queries, 1: tokens}] * 2
    encoder = _Encoder(model).eval()
    with torch.no_grad():
        written = io.BytesIO()
        program = torch.export.export(encoder, reader(TEXTS), dynamic_shapes=tuple(shapes))
        torch.export.save(program, written)
        exported = load_encoder(io.BytesIO(written.getvalue()))
        difference = max(
            float((exported(*reader(some)) - model.embed_queries(some)).abs().max())
            for some in (TEXTS, TEXTS[:1], TEXTS * 9)
        )
    if not difference <= MOST_DIFFERENCE:
        raise EmbedError(
            f"the exported encoder differs from the model by {difference:.1e}, more than "
            f"{MOST_DIFFERENCE:.0e}: nothing was written"
        )
    for beside, content in files.items():
        write_whole(beside, content)
    write_whole(path, written.getvalue())
    return difference


def _reader(model: EmbeddingModel) -> QueryText:
    """A QueryText of the model, by way of files, as a service has it."""
    import tempfile

    encoder = model.towers.encoder
    with tempfile.TemporaryDirectory() as folder:
        vocabulary, tokeniser = Path(folder) / "vocabulary.safetensors", Path(folder) / "tokeniser.json"
        vocabulary.write_bytes(model.inputs.vocabulary.to_bytes())
        if not encoder:
            return QueryText(str(vocabulary))
        tokeniser.write_text(encoder.tokeniser.backend_tokenizer.to_str(), encoding="utf-8")
        return QueryText(str(vocabulary), str(tokeniser), encoder.most_tokens)


def _code(path: Path, model: EmbeddingModel) -> str:
    """The code of NAME.py: `normalise`, the folding of accents, `QueryText`, and how to use them."""
    future = "from __future__ import annotations\n"
    modules = (text_module, folding, query_text)
    parts = [Path(str(module.__file__)).read_text(encoding="utf-8") for module in modules]
    for line in IMPORTS:
        parts[2] = parts[2].replace(line, "")
    name = path.stem
    files = [f'"{name}.vocabulary.safetensors"']
    if encoder := model.towers.encoder:
        files += [f'"{name}.tokeniser.json"', str(encoder.most_tokens)]
    usage = f'''"""Embeds raw queries with {path.name}. Written by captioner embed export-encoder.

    from {name} import QueryText
    read = QueryText({", ".join(files)})
    encoder = torch.export.load("{path.name}").module()
    vectors = encoder(*read(["Red Mug!"]))  # [queries, {model.dim}], of length 1

The model's digest: {model.digest}
"""

'''
    return usage + future + "\n\n".join(part.replace(future, "") for part in parts)


def load_encoder(source: Path | io.BytesIO) -> Any:
    """The exported encoder: a module (what QueryText gives) -> embeddings [queries, dim]."""
    return torch.export.load(source if isinstance(source, io.BytesIO) else str(source)).module()
