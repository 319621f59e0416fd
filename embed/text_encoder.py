"""Text encoders."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch

from ..filters.text import normalise
from .errors import EmbedError
from .sizes import DISTILBERT, SMALL, Sizes

QUERY_TOKENS = 64


def _quiet() -> None:
    """No progress bars of transformers: what takes long shows ours."""
    from transformers.utils import logging

    logging.disable_progress_bar()


def _pretrained(name: str, revision: str | None, *, local: bool = False) -> tuple[Any, Any]:
    """Tokeniser and encoder of transformers; `local`: never from the hub. Raises EmbedError."""
    from transformers import AutoModel, AutoTokenizer

    _quiet()
    try:
        tokeniser = AutoTokenizer.from_pretrained(
            name, revision=revision, trust_remote_code=False, local_files_only=local
        )
        encoder = AutoModel.from_pretrained(
            name,
            revision=revision,
            trust_remote_code=False,
            local_files_only=local,
            use_safetensors=True,
            dtype=torch.float32,
        ).eval()
    except (OSError, ValueError, KeyError) as error:
        why = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        if local:
            raise EmbedError(
                f"{name} cannot be loaded ({why}): copy the whole model again, or train it again"
            ) from error
        raise EmbedError(
            f"{name} cannot be loaded as a text encoder ({why}): name a folder or a model that transformers knows, or --encoder {SMALL}"
        ) from error
    if not _first_token_reads_all(tokeniser, encoder):
        raise EmbedError(
            f"{name} is no text encoder whose first token reads the whole text (a decoder, or no padding token): name one such as {DISTILBERT}, or --encoder {SMALL}"
        )
    return tokeniser, encoder


@torch.no_grad()
def _first_token_reads_all(tokeniser: Any, encoder: Any) -> bool:
    """Whether an encoder's [CLS] depends on the words after it: that of a decoder does not."""
    try:
        found = tokeniser(["red mug", "red boat"], padding=True, return_tensors="pt")
        first, second = encoder(
            input_ids=found["input_ids"], attention_mask=found["attention_mask"]
        ).last_hidden_state[:, 0]
    except (ValueError, TypeError, AttributeError):
        return False
    ids = found["input_ids"]
    # to a vocabulary without these words they are the same text
    return torch.equal(ids[0], ids[1]) or not torch.equal(first, second)


def _small(texts: Iterable[str], sizes: Sizes) -> tuple[Any, Any]:
    """A DistilBERT of small size whose vocabulary of byte pairs is made of `texts`: they give the same one
    every time, WordPiece's trainer does not.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import DistilBertConfig, DistilBertModel, PreTrainedTokenizerFast

    tokeniser = Tokenizer(models.BPE())
    tokeniser.normalizer = _normaliser()
    tokeniser.pre_tokenizer, tokeniser.decoder = (
        pre_tokenizers.ByteLevel(add_prefix_space=True),
        decoders.ByteLevel(),
    )
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=sizes.encoder_vocabulary,
        special_tokens=["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"],
        initial_alphabet=alphabet,
        show_progress=False,
    )
    tokeniser.train_from_iterator((normalise(text) for text in texts), trainer)
    tokeniser.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B [SEP]",
        special_tokens=[(name, tokeniser.token_to_id(name)) for name in ("[CLS]", "[SEP]")],
    )
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=tokeniser, model_max_length=QUERY_TOKENS, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]", mask_token="[MASK]",
        split_special_tokens=True,  # who types "[SEP]" means letters
    )  # fmt: skip
    config = DistilBertConfig(
        vocab_size=len(wrapped), max_position_embeddings=QUERY_TOKENS, dim=sizes.encoder_width, hidden_dim=4 * sizes.encoder_width, n_layers=sizes.encoder_layers,
        n_heads=max(1, sizes.encoder_width // 32), dropout=0.0, attention_dropout=0.0, pad_token_id=wrapped.pad_token_id,
        # a narrow network: with the usual 0.02, [CLS] hears next to nothing of the words at first
        initializer_range=sizes.encoder_width**-0.5,
    )  # fmt: skip
    return wrapped, DistilBertModel(config)


def _normaliser() -> Any:
    """What `normalise` does, in the words of `tokenizers`, for services that have the saved tokeniser alone.

    Of case folding it has lower case, `ß` and `ς`: Greek iota subscripts and some historical letters stay
    other ones.
    """
    from tokenizers import Regex, normalizers

    apostrophe, letter, mark_or_number = "['\u2019\u02bc]", r"[\p{L}&&[^\u02bc]]", r"\p{M}\p{N}"
    return normalizers.Sequence(
        [
            normalizers.Replace(Regex(r"\p{Cf}"), ""), normalizers.NFKC(), normalizers.Lowercase(), normalizers.Replace("ß", "ss"), normalizers.Replace("ς", "σ"),
            normalizers.NFKC(), normalizers.Replace(Regex(f"(?<!{letter}|[{mark_or_number}]){apostrophe}|{apostrophe}(?!{letter})"), " "),
            normalizers.Replace(Regex(apostrophe), "'"), normalizers.Replace(Regex(r"[^\p{L}\p{M}\p{N}']+"), " "), normalizers.Strip(),
        ]
    )  # fmt: skip
