"""The query tower's text encoder and its tokeniser: a pretrained one, or a small one trained from scratch."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch

from ..filters.text import normalise
from .errors import EmbedError
from .sizes import DISTILBERT, SMALL, Sizes

QUERY_TOKENS = 64  # that are read of a query


def hide_progress_bars() -> None:
    """Turns off the progress bars of transformers. We show our own."""
    from transformers.utils import logging

    logging.disable_progress_bar()


def pretrained_encoder(name: str, revision: str | None, *, local: bool = False) -> tuple[Any, Any]:
    """The tokeniser and the encoder of a folder, or of a model on the Hugging Face Hub unless `local`.

    Raises EmbedError if it cannot be loaded, or if it is not a text encoder whose first token reads the text.
    """
    from transformers import AutoModel, AutoTokenizer

    hide_progress_bars()
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
            f"{name} cannot be loaded as a text encoder ({why}): "
            f"name a folder or a model that transformers knows, or --encoder {SMALL}"
        ) from error
    if not _first_token_reads_all(tokeniser, encoder):
        raise EmbedError(
            f"{name} is not a text encoder whose first token reads the whole text "
            "(it is a decoder, or it has no padding token): "
            f"name one such as {DISTILBERT}, or --encoder {SMALL}"
        )
    return tokeniser, encoder


@torch.no_grad()
def _first_token_reads_all(tokeniser: Any, encoder: Any) -> bool:
    """Whether the output at the first token depends on later words. That of a decoder does not."""
    try:
        tokens = tokeniser(["red mug", "red boat"], padding=True, return_tensors="pt")
        first, second = encoder(
            input_ids=tokens["input_ids"], attention_mask=tokens["attention_mask"]
        ).last_hidden_state[:, 0]
    except (ValueError, TypeError, AttributeError):
        return False
    ids = tokens["input_ids"]
    # A vocabulary without these words may give both texts the same ids.
    return torch.equal(ids[0], ids[1]) or not torch.equal(first, second)


def small_encoder(texts: Iterable[str], sizes: Sizes) -> tuple[Any, Any]:
    """A tokeniser whose vocabulary is made from `texts`, and a small DistilBERT with random weights.

    The vocabulary consists of byte pairs: the same texts always give the same one. WordPiece's trainer does
    not guarantee that.
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
        tokenizer_object=tokeniser,
        model_max_length=QUERY_TOKENS,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
        split_special_tokens=True,  # a user who types "[SEP]" means these letters
    )
    config = DistilBertConfig(
        vocab_size=len(wrapped),
        max_position_embeddings=QUERY_TOKENS,
        dim=sizes.encoder_width,
        hidden_dim=4 * sizes.encoder_width,
        n_layers=sizes.encoder_layers,
        n_heads=max(1, sizes.encoder_width // 32),
        dropout=0.0,
        attention_dropout=0.0,
        pad_token_id=wrapped.pad_token_id,
        # In a network this narrow the usual 0.02 is too little: at first [CLS] would hardly depend on the
        # words.
        initializer_range=sizes.encoder_width**-0.5,
    )
    return wrapped, DistilBertModel(config)


def _normaliser() -> Any:
    """What `normalise` does, as a normaliser of `tokenizers`.

    A service that has the saved tokeniser needs none of our code. Case folding is incomplete: lower case, `ß`
    and `ς` only. Greek iota subscripts and some historical letters keep their case.
    """
    from tokenizers import Regex, normalizers

    apostrophe, letter, mark_or_number = "['\u2019\u02bc]", r"[\p{L}&&[^\u02bc]]", r"\p{M}\p{N}"
    not_in_word = f"(?<!{letter}|[{mark_or_number}]){apostrophe}|{apostrophe}(?!{letter})"
    return normalizers.Sequence(
        [
            normalizers.Replace(Regex(r"\p{Cf}"), ""),
            normalizers.NFKC(),
            normalizers.Lowercase(),
            normalizers.Replace("ß", "ss"),
            normalizers.Replace("ς", "σ"),
            normalizers.NFKC(),
            normalizers.Replace(Regex(not_in_word), " "),
            normalizers.Replace(Regex(apostrophe), "'"),
            normalizers.Replace(Regex(r"[^\p{L}\p{M}\p{N}']+"), " "),
            normalizers.Strip(),
        ]
    )
