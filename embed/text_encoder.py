"""A pretrained text encoder with its own pooling: one vector for each text."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import nn

from .errors import EmbedError

TOKENS = 64  # of a text that are read
# Texts that are computed together. They are of similar length, because padding costs as much as words.
AT_ONCE = {"cpu": 16}
AT_ONCE_ELSEWHERE = 256
NONE = "none"  # the encoder of a model that has none
EXAMPLE = "sentence-transformers/all-MiniLM-L6-v2"  # that error messages name
POOLING = Path("1_Pooling") / "config.json"  # where sentence-transformers writes how to pool

Tokens = tuple[torch.Tensor, torch.Tensor]  # ids and attention mask [texts, tokens]
Pooling = Literal["mean", "first"]  # the mean of the outputs at all tokens, or the output at the first one


class TextEncoder(nn.Module):
    """A text encoder of transformers, and its pooling."""

    def __init__(self, network: nn.Module, tokeniser: Any, pooling: Pooling = "first"):
        super().__init__()
        self.network, self.tokeniser, self.pooling = network, tokeniser, pooling
        tokeniser.padding_side = "right"  # `forward` cuts the padding off there

    @classmethod
    def load(cls, name: str, revision: str | None = None, *, local: bool = False) -> TextEncoder:
        """Loads the encoder of a folder, or of a model on the Hugging Face Hub unless `local`.

        The pooling is the model's own (`1_Pooling/config.json`); a model without that file gives the output
        at its first token ([CLS]). Raises EmbedError if it cannot be loaded, if it is no text encoder, and
        for a pooling other than these two.
        """
        tokeniser, network = _load(name, revision, local)
        pooling = _read_pooling(name, revision, local)
        encoder = cls(network, tokeniser, pooling).eval()
        if not encoder._reads_all():
            raise EmbedError(
                f"{name} is not a text encoder whose vectors depend on the whole text "
                f"(it is a decoder, or it has no padding token): name one such as {EXAMPLE}, "
                f"or --encoder {NONE}"
            )
        return encoder

    def save(self, folder: Path) -> None:
        """Writes network, tokeniser and pooling. `load` and sentence-transformers' layout agree."""
        hide_progress_bars()
        network: Any = self.network
        network.save_pretrained(folder)
        self.tokeniser.save_pretrained(folder)
        path = folder / POOLING
        path.parent.mkdir(exist_ok=True)
        content = {
            "word_embedding_dimension": self.width,
            "pooling_mode_cls_token": self.pooling == "first",
            "pooling_mode_mean_tokens": self.pooling == "mean",
        }
        path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")

    @property
    def width(self) -> int:
        """How many numbers a vector has."""
        config: Any = self.network.config
        return int(config.hidden_size)

    @property
    def most_tokens(self) -> int:
        """How many tokens of a text are read: 64, or fewer if the encoder has fewer positions."""
        network: Any = self.network
        positions = getattr(network.config, "max_position_embeddings", TOKENS)
        # RoBERTa and its relatives start counting positions after the padding index.
        padding = getattr(getattr(network, "embeddings", None), "padding_idx", None)
        return min(
            TOKENS,
            int(self.tokeniser.model_max_length),
            int(positions) - (0 if padding is None else padding + 1),
        )

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        return next(self.parameters()).device

    def tokenise(self, texts: Sequence[str]) -> Tokens:
        """Ids and attention mask [texts, tokens], for `forward`."""
        if not texts:
            return torch.zeros(0, 1, dtype=torch.int64), torch.zeros(0, 1, dtype=torch.int64)
        tokens = self.tokeniser(
            list(texts), padding=True, truncation=True, max_length=self.most_tokens, return_tensors="pt"
        )
        return tokens["input_ids"], tokens["attention_mask"]

    def digest(self) -> str:
        """Names the weights, the tokeniser and the pooling: with the same ones a text has the same vector."""
        made = hashlib.sha256(f"{self.pooling} {self.most_tokens} ".encode())
        tokeniser = json.loads(self.tokeniser.backend_tokenizer.to_str())
        # Set by each call of `tokenise`: before the first one the digest would be another.
        del tokeniser["padding"], tokeniser["truncation"]
        made.update(f"{self.tokeniser.padding_side} {self.tokeniser.truncation_side} ".encode())
        made.update(json.dumps(tokeniser).encode())
        for name, value in sorted(self.network.state_dict().items()):
            made.update(name.encode() + value.detach().cpu().contiguous().numpy().tobytes())
        return made.hexdigest()[:16]

    def forward(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """ids and mask [texts, tokens] -> vectors [texts, width], of length 1."""
        if torch.compiler.is_compiling():
            return self._encode(ids, mask)
        if not len(ids):
            return torch.zeros(0, self.width, device=ids.device)
        lengths = mask.sum(1)
        order = lengths.argsort(stable=True)
        groups = []
        for some in torch.split(order, AT_ONCE.get(ids.device.type, AT_ONCE_ELSEWHERE)):
            most = int(lengths[some[-1]])
            groups.append(self._encode(ids[some, :most], mask[some, :most]))
        return torch.cat(groups)[order.argsort()]

    def _encode(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        outputs = self.network(input_ids=ids, attention_mask=mask).last_hidden_state
        if self.pooling == "first":
            pooled = outputs[:, 0]
        else:
            weights = mask.unsqueeze(-1).to(outputs.dtype)
            pooled = (outputs * weights).sum(1) / weights.sum(1).clamp(min=1)
        return F.normalize(pooled.float(), dim=1)

    @torch.no_grad()
    def _reads_all(self) -> bool:
        """Whether the output at the first token depends on later words. That of a decoder does not."""
        try:
            tokens = self.tokeniser(["red mug", "red boat"], padding=True, return_tensors="pt")
            ids = tokens["input_ids"]
            outputs = self.network(input_ids=ids, attention_mask=tokens["attention_mask"]).last_hidden_state
            first, second = outputs[:, 0]
        except (ValueError, TypeError, AttributeError):
            return False
        # A vocabulary without these words may give both texts the same ids.
        return torch.equal(ids[0], ids[1]) or not torch.equal(first, second)


def hide_progress_bars() -> None:
    """Turns off the progress bars of transformers. We show our own."""
    from transformers.utils import logging

    logging.disable_progress_bar()


def _load(name: str, revision: str | None, local: bool) -> tuple[Any, Any]:
    """The tokeniser and the network of a model."""
    from transformers import AutoModel, AutoTokenizer

    hide_progress_bars()
    where: dict[str, Any] = {
        "revision": revision,
        "trust_remote_code": False,
        "local_files_only": local or Path(name).is_dir(),
    }
    try:
        tokeniser = AutoTokenizer.from_pretrained(name, **where)
        network = AutoModel.from_pretrained(name, use_safetensors=True, dtype=torch.float32, **where)
    except (OSError, ValueError, KeyError) as error:
        why = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        if local:
            raise EmbedError(
                f"{name} cannot be loaded ({why}): copy the whole model again, or train it again"
            ) from error
        raise EmbedError(
            f"{name} cannot be loaded as a text encoder ({why}): "
            f"name a folder or a model that transformers knows, or --encoder {NONE}"
        ) from error
    if getattr(network.config, "is_encoder_decoder", False):
        raise EmbedError(f"{name} has a decoder: name a text encoder such as {EXAMPLE}, or --encoder {NONE}")
    return tokeniser, network


def _read_pooling(name: str, revision: str | None, local: bool) -> Pooling:
    """How a model pools, by its file 1_Pooling/config.json."""
    from transformers.utils import cached_file

    try:
        path = cached_file(
            name,
            POOLING.as_posix(),
            revision=revision,
            local_files_only=local,
            _raise_exceptions_for_missing_entries=False,
            _raise_exceptions_for_connection_errors=False,
        )
        if path is None:
            return "first"
        config = json.loads(Path(path).read_text(encoding="utf-8"))
        if "pooling_mode" in config:  # the form since sentence-transformers 5
            modes = [config["pooling_mode"]] if isinstance(config["pooling_mode"], str) else []
        else:
            modes = [key.removeprefix("pooling_mode_") for key, value in config.items() if value is True]
    except (OSError, ValueError, AttributeError, TypeError) as error:
        raise EmbedError(f"{name}/{POOLING} cannot be read ({error}): repair it, or delete it") from error
    known: dict[str, Pooling] = {"cls_token": "first", "cls": "first", "mean_tokens": "mean", "mean": "mean"}
    kinds = {known[mode] for mode in modes if mode in known}
    other = [mode for mode in modes if mode not in known and mode != "include_prompt"]
    if len(kinds) != 1 or other:
        raise EmbedError(
            f"{name} pools by {' and '.join(modes) or 'nothing'}, but only the mean of all tokens and the "
            "first token are known here: name another encoder"
        )
    return kinds.pop()
