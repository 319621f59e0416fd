"""A trained model: both towers, and what turns texts into their input."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from ..common.files import write_whole
from ..common.terminal import OnStep, no_step
from ..export.manifest import file_sha256
from .errors import EmbedError
from .inputs import Inputs
from .loss import shortened
from .reader import Export
from .sizes import Sizes
from .text_encoder import NONE, TextEncoder
from .towers import Towers
from .vocabulary import Vocabulary

FORMAT = "pincaption embedding 4"  # its number grows when models of before cannot be read any more
PARTS = ("vocabulary.safetensors", "towers.safetensors")  # of a model, beside config.json and encoder/
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

    towers: Towers
    inputs: Inputs
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
        format, or if a file of it cannot be read.
        """

        folder = Path(folder)
        config = _read_config(folder)
        stored_sizes: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value
            for name, value in config.pop("sizes").items()
        }
        sizes = Sizes(**stored_sizes)
        with _readable(folder):
            vocabulary = Vocabulary.load(folder / "vocabulary.safetensors")
            weights = load_file(folder / "towers.safetensors")
        encoder = None if config["encoder"] == NONE else TextEncoder.load(str(folder / "encoder"), local=True)
        towers = Towers(encoder, config.pop("fields"), config.pop("dense"), len(vocabulary), sizes)
        expected = {name: value.shape for name, value in towers.state_dict().items()}
        own = {name: shape for name, shape in expected.items() if not name.startswith("encoder.")}
        if {name: value.shape for name, value in weights.items()} != own:
            raise EmbedError(f"{folder} holds parts of different models: copy the whole folder again")
        towers.load_state_dict(weights, strict=False)
        return cls(towers.eval(), Inputs(vocabulary, encoder), sizes, config)

    def save(self, folder: Path) -> None:
        """Writes the model. config.json comes last: a half-written model is not taken for a whole one."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "config.json").unlink(missing_ok=True)
        if self.towers.encoder:
            self.towers.encoder.save(folder / "encoder")
        self.inputs.vocabulary.save(folder / "vocabulary.safetensors")
        weights = {
            name: value.contiguous()
            for name, value in self.towers.state_dict().items()
            if not name.startswith("encoder.")
        }
        save_file(weights, folder / "towers.safetensors")
        self.about["weights_digest"] = _digest(folder)
        config = {
            "format": FORMAT,
            "fields": self.towers.fields,
            "dense": self.towers.dense,
            "sizes": asdict(self.sizes),
            **self.about,
        }
        write_whole(folder / "config.json", json.dumps(config, ensure_ascii=False, indent=1) + "\n")

    def to(self, device: torch.device | str) -> EmbeddingModel:
        """Moves the towers to a device. Returns the model."""
        self.towers.to(device)
        return self

    @property
    def fields(self) -> tuple[str, ...]:
        """The columns of an export that the item tower reads."""
        return tuple(self.towers.fields)

    @property
    def dense(self) -> dict[str, int]:
        """{name: numbers} of the vectors of an item that the item tower reads."""
        return dict(self.towers.dense)

    @property
    def dims(self) -> tuple[int, ...]:
        """The lengths of embeddings, ascending: the last one is the full length."""
        return self.sizes.dims(self.towers.encoder.width if self.towers.encoder else 0)

    @property
    def dim(self) -> int:
        """The full length of an embedding."""
        return self.towers.dim

    @property
    def device(self) -> torch.device:
        """Where the towers are."""
        return next(self.towers.parameters()).device

    @torch.no_grad()
    def embed_queries(self, texts: Iterable[str], *, dim: int | None = None) -> torch.Tensor:
        """Embeddings of queries: [queries, dim], float32, of length 1, on the model's device.

        `dim`: only the first `dim` numbers, one of `dims`. Raises EmbedError for another `dim`.
        """
        dim = self.check_dim(dim)
        waiting, parts = iter(texts), []
        while batch := list(itertools.islice(waiting, QUERIES_AT_ONCE)):
            parts.append(self.towers.queries(self.inputs.queries(batch).to(self.device)))
        return shortened(torch.cat(parts) if parts else torch.empty(0, self.dim), dim)

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
            export = Export(export, self.towers.fields)
        export.expect_vectors(self.towers.dense)
        parts, done, total = [], 0, len(export) if rows is None else len(rows)
        for some_rows in export.batches(rows):
            parts.append(self.towers.items(self.inputs.items(export, some_rows).to(self.device)))
            done += len(some_rows)
            on_step("encoding items", done, total)
        return shortened(torch.cat(parts) if parts else torch.empty(0, self.dim), dim)

    def check_dim(self, dim: int | None) -> int:
        """`dim`, or the full length for None.

        Raises EmbedError if the model has no embeddings of that length.
        """
        dim = self.dim if dim is None else dim
        if dim not in self.dims:
            lengths = ", ".join(map(str, self.dims))
            raise EmbedError(f"the model has embeddings of {lengths} numbers, not of {dim}")
        return dim


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
    parts = PARTS if config.get("encoder") == NONE else ("encoder", *PARTS)
    if missing := [name for name in parts if not (folder / name).exists()]:
        raise EmbedError(
            f"{folder} holds a model without its {', '.join(missing)}: "
            "copy the whole folder, or train it again"
        )
    return config


@contextmanager
def _readable(folder: Path) -> Iterator[None]:
    """Raises EmbedError if the block cannot read a file of a model."""
    try:
        yield
    except (OSError, SafetensorError, LookupError) as error:
        raise EmbedError(
            f"a file of the model {folder} is damaged, or you may not read it "
            f"({getattr(error, 'strerror', None) or error}): copy the whole folder again, or train it again"
        ) from None


def _digest(folder: Path) -> str:
    """A hash of all weights of a model in a folder, also of an encoder that is kept in several files."""
    digests = [file_sha256(path) for path in sorted(folder.rglob("*.safetensors"))]
    return hashlib.sha256("".join(digests).encode()).hexdigest()[:16]
