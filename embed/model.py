"""The two towers: a query is a transformer's [CLS], an item the sum of its hashed n-grams beside the vectors
that it has; both of length 1.

Sizes are those of the published OmniSearchSage code unless `Sizes` says otherwise.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from ..common.files import write_whole
from ..filters.text import normalise
from .errors import EmbedError
from .item_tower import ItemTower
from .query_tower import QueryTower
from .sizes import Sizes
from .text_encoder import QUERY_TOKENS, _pretrained, _quiet
from .vocabulary import Vocabulary

FORMAT = "pincaption embedding 2"
PARTS = ("encoder", "vocabulary.safetensors", "towers.safetensors")  # of a model beside its config.json


@dataclass
class Model:
    """Towers, what turns texts into their ids, and how they were made; `temperature` belongs to training
    alone.
    """

    queries: QueryTower
    items: ItemTower
    vocabulary: Vocabulary
    tokeniser: Any
    sizes: Sizes
    about: dict[str, Any] = field(default_factory=dict)

    @functools.cached_property
    def most_tokens(self) -> int:
        """Of a query that count: 64, or as many as the encoder has positions for."""
        encoder: Any = self.queries.encoder
        positions = getattr(encoder.config, "max_position_embeddings", QUERY_TOKENS)
        # RoBERTa and its kin count positions from there on
        padding = getattr(getattr(encoder, "embeddings", None), "padding_idx", None)
        return min(
            QUERY_TOKENS,
            int(self.tokeniser.model_max_length),
            int(positions) - (0 if padding is None else padding + 1),
        )

    def tokenise(self, texts: Sequence[str]) -> tuple[torch.Tensor, torch.Tensor]:
        """Queries to ids and mask, [queries, tokens], in the one form in which the store has queries
        (`normalise`).
        """
        found = self.tokeniser(
            [normalise(text) for text in texts],
            padding=True,
            truncation=True,
            max_length=self.most_tokens,
            return_tensors="pt",
        )
        return found["input_ids"], found["attention_mask"]

    def save(self, folder: Path) -> None:
        """Writes the model, whole or not at all as far as readers see: config.json comes last."""
        from safetensors.torch import save_file

        folder.mkdir(parents=True, exist_ok=True)
        (folder / "config.json").unlink(missing_ok=True)
        _quiet()
        encoder: Any = self.queries.encoder
        encoder.save_pretrained(folder / "encoder")
        self.tokeniser.save_pretrained(folder / "encoder")
        self.vocabulary.save(folder / "vocabulary.safetensors")
        save_file(
            {
                name: value.contiguous()
                for name, value in {
                    **self.items.state_dict(prefix="items."),
                    **self.queries.projection.state_dict(prefix="projection."),
                }.items()
            },
            folder / "towers.safetensors",
        )
        config = {
            "format": FORMAT,
            "fields": self.items.fields,
            "dense": self.items.dense,
            "sizes": asdict(self.sizes),
            **self.about,
        }
        write_whole(folder / "config.json", json.dumps(config, ensure_ascii=False, indent=1) + "\n")

    @classmethod
    def load(cls, folder: str | Path) -> Model:
        """Reads what `save` wrote, from the folder alone.

        Raises EmbedError for a folder that holds no model, one of another format, or a part of one.
        """
        from safetensors.torch import load_file

        folder = Path(folder)
        try:
            config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
            stored_format = config.pop("format")
            if not stored_format.startswith(FORMAT.rstrip("0123456789")):
                raise ValueError
        except (OSError, ValueError, LookupError, TypeError, AttributeError):
            raise EmbedError(
                f"{folder} holds no trained model: make one with captioner embed train EXPORT {folder}"
            ) from None
        if stored_format != FORMAT:
            raise EmbedError(
                f"{folder} holds a model of the format '{stored_format}', this version reads '{FORMAT}': train it again, into another folder"
            )
        if missing := [name for name in PARTS if not (folder / name).exists()]:
            raise EmbedError(
                f"{folder} holds a model without its {', '.join(missing)}: copy the whole folder, or train it again"
            )
        stored_sizes: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value
            for name, value in config.pop("sizes").items()
        }
        sizes = Sizes(**stored_sizes)
        vocabulary = Vocabulary.load(folder / "vocabulary.safetensors")
        tokeniser, encoder = _pretrained(str(folder / "encoder"), None, local=True)
        queries, items = (
            QueryTower(encoder, sizes.dim),
            ItemTower(config.pop("fields"), config.pop("dense"), len(vocabulary), sizes),
        )
        stored = load_file(folder / "towers.safetensors")
        items.load_state_dict(
            {
                name.removeprefix("items."): value
                for name, value in stored.items()
                if name.startswith("items.")
            }
        )
        queries.projection.load_state_dict(
            {
                name.removeprefix("projection."): value
                for name, value in stored.items()
                if name.startswith("projection.")
            }
        )
        return cls(queries.eval(), items.eval(), vocabulary, tokeniser, sizes, config)
