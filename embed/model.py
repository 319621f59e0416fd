"""A trained model: both towers, and what turns texts into their input."""

from __future__ import annotations

import functools
import hashlib
import itertools
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..common.files import write_whole
from ..common.terminal import OnStep, no_step
from ..export.manifest import file_sha256
from ..filters.text import normalise
from .errors import EmbedError
from .item_tower import ItemTower
from .loss import shortened
from .query_tower import QueryTower
from .reader import Export
from .sizes import Sizes
from .text_encoder import QUERY_TOKENS, hide_progress_bars, pretrained_encoder
from .vocabulary import Vocabulary

FORMAT = "pincaption embedding 2"  # its number grows when models of before cannot be read any more
PARTS = ("encoder", "vocabulary.safetensors", "towers.safetensors")  # of a model, beside its config.json
QUERIES_AT_ONCE = 1_024


@dataclass
class EmbeddingModel:
    """Embeds queries and items in one space: the dot product of two embeddings says how well they fit.

    ```
    model = EmbeddingModel.load("model/")
    queries = model.embed_queries(["red mug", "kitchen ideas"])
    export = Export("out/")
    items = model.embed_items(export)  # row i belongs to export.pin_ids[i]
    best = (queries @ items.T).topk(10)
    ```
    """

    query_tower: QueryTower
    item_tower: ItemTower
    vocabulary: Vocabulary
    tokeniser: Any  # of transformers
    sizes: Sizes
    about: dict[str, Any] = field(default_factory=dict)  # how it was made: the other entries of config.json

    @property
    def digest(self) -> str:
        """Names the weights: item vectors and an index say which model they belong to. Empty before `save`.

        Models with the same weights have the same digest, wherever they lie.
        """
        return str(self.about.get("weights_digest", ""))

    @classmethod
    def load(cls, folder: str | Path) -> EmbeddingModel:
        """Loads the model that a training wrote, from its folder alone; the CPU holds it (see `to`).

        Raises EmbedError if the folder does not hold a model, or only a part of one, or one of another
        format.
        """
        from safetensors.torch import load_file

        folder = Path(folder)
        config = _read_config(folder)
        stored_sizes: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value
            for name, value in config.pop("sizes").items()
        }
        sizes = Sizes(**stored_sizes)
        vocabulary = Vocabulary.load(folder / "vocabulary.safetensors")
        tokeniser, encoder = pretrained_encoder(str(folder / "encoder"), None, local=True)
        query_tower = QueryTower(encoder, sizes.dim)
        item_tower = ItemTower(config.pop("fields"), config.pop("dense"), len(vocabulary), sizes)
        weights = load_file(folder / "towers.safetensors")
        item_tower.load_state_dict(_without_prefix(weights, "items."))
        query_tower.projection.load_state_dict(_without_prefix(weights, "projection."))
        return cls(query_tower.eval(), item_tower.eval(), vocabulary, tokeniser, sizes, config)

    def save(self, folder: Path) -> None:
        """Writes the model. config.json comes last: a half-written model is not taken for a whole one."""
        from safetensors.torch import save_file

        folder.mkdir(parents=True, exist_ok=True)
        (folder / "config.json").unlink(missing_ok=True)
        hide_progress_bars()
        encoder: Any = self.query_tower.encoder
        encoder.save_pretrained(folder / "encoder")
        self.tokeniser.save_pretrained(folder / "encoder")
        self.vocabulary.save(folder / "vocabulary.safetensors")
        weights = {
            **self.item_tower.state_dict(prefix="items."),
            **self.query_tower.projection.state_dict(prefix="projection."),
        }
        save_file(
            {name: value.contiguous() for name, value in weights.items()}, folder / "towers.safetensors"
        )
        self.about["weights_digest"] = _digest(folder)
        config = {
            "format": FORMAT,
            "fields": self.item_tower.fields,
            "dense": self.item_tower.dense,
            "sizes": asdict(self.sizes),
            **self.about,
        }
        write_whole(folder / "config.json", json.dumps(config, ensure_ascii=False, indent=1) + "\n")

    def to(self, device: torch.device | str) -> EmbeddingModel:
        """Moves the towers to a device. Returns the model."""
        self.query_tower.to(device)
        self.item_tower.to(device)
        return self

    @torch.no_grad()
    def embed_queries(self, texts: Iterable[str], *, dim: int | None = None) -> torch.Tensor:
        """Embeddings of queries: [queries, dim], float32, of length 1, on the model's device.

        `dim`: only the first `dim` numbers, one of `sizes.dims`. Raises EmbedError for another `dim`.
        """
        dim = self.check_dim(dim)
        device = next(self.query_tower.parameters()).device
        waiting, parts = iter(texts), []
        while batch := list(itertools.islice(waiting, QUERIES_AT_ONCE)):
            parts.append(self.query_tower(*(part.to(device) for part in self.tokenise(batch))))
        return shortened(torch.cat(parts) if parts else torch.empty(0, self.sizes.dim), dim)

    @torch.no_grad()
    def embed_items(
        self,
        export: Export | str | Path,
        rows: np.ndarray | None = None,
        *,
        dim: int | None = None,
        on_step: OnStep = no_step,
    ) -> torch.Tensor:
        """Embeddings of an export's items: [items, dim], float32, of length 1, on the model's device.

        They are in the order of the export's rows, or of `rows`. `dim` is that of `embed_queries`. Raises
        EmbedError for another `dim`, a folder that is not an export, and vectors of another size than the
        model was trained on.
        """
        dim = self.check_dim(dim)
        if not isinstance(export, Export):
            export = Export(export, self.item_tower.fields)
        export.expect_vectors(self.item_tower.dense)
        device = next(self.item_tower.parameters()).device
        parts, done, total = [], 0, len(export) if rows is None else len(rows)
        for some_rows in export.batches(rows):
            parts.append(self.item_tower(export.items(some_rows, self.vocabulary).to(device)))
            done += len(some_rows)
            on_step("encoding items", done, total)
        return shortened(torch.cat(parts) if parts else torch.empty(0, self.sizes.dim), dim)

    def check_dim(self, dim: int | None) -> int:
        """`dim`, or the full length for None.

        Raises EmbedError if the model has no embeddings of that length.
        """
        dim = self.sizes.dim if dim is None else dim
        if dim not in self.sizes.dims:
            lengths = ", ".join(map(str, self.sizes.dims))
            raise EmbedError(f"the model has embeddings of {lengths} numbers, not of {dim}")
        return dim

    @functools.cached_property
    def most_tokens(self) -> int:
        """How many tokens of a query are read: 64, or fewer if the encoder has fewer positions."""
        encoder: Any = self.query_tower.encoder
        positions = getattr(encoder.config, "max_position_embeddings", QUERY_TOKENS)
        # RoBERTa and its relatives start counting positions after the padding index.
        padding = getattr(getattr(encoder, "embeddings", None), "padding_idx", None)
        return min(
            QUERY_TOKENS,
            int(self.tokeniser.model_max_length),
            int(positions) - (0 if padding is None else padding + 1),
        )

    def tokenise(self, texts: Sequence[str]) -> tuple[torch.Tensor, torch.Tensor]:
        """Ids and attention mask [queries, tokens] of queries, which are normalised as in the store."""
        tokens = self.tokeniser(
            [normalise(text) for text in texts],
            padding=True,
            truncation=True,
            max_length=self.most_tokens,
            return_tensors="pt",
        )
        return tokens["input_ids"], tokens["attention_mask"]


def _read_config(folder: Path) -> dict[str, Any]:
    """The content of config.json, without its format.

    Raises EmbedError unless all parts of a model are there.
    """
    try:
        config: dict[str, Any] = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        stored_format = config.pop("format")
        if not stored_format.startswith(FORMAT.rstrip("0123456789")):
            raise ValueError
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        raise EmbedError(
            f"{folder} does not hold a trained model: make one with captioner embed train EXPORT {folder}"
        ) from None
    if stored_format != FORMAT:
        raise EmbedError(
            f"{folder} holds a model of the format '{stored_format}', but this version reads '{FORMAT}': "
            "train it again, into another folder"
        )
    if missing := [name for name in PARTS if not (folder / name).exists()]:
        raise EmbedError(
            f"{folder} holds a model without its {', '.join(missing)}: "
            "copy the whole folder, or train it again"
        )
    return config


def _digest(folder: Path) -> str:
    """A hash of all weights of a model in a folder, also of an encoder that is kept in several files."""
    digests = [file_sha256(path) for path in sorted(folder.rglob("*.safetensors"))]
    return hashlib.sha256("".join(digests).encode()).hexdigest()[:16]


def _without_prefix(weights: dict[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    return {name.removeprefix(prefix): value for name, value in weights.items() if name.startswith(prefix)}
