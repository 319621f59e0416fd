"""The two towers: a query is a transformer's [CLS], an item the sum of its hashed n-grams beside the vectors
that it has; both of length 1.

Sizes are those of the published OmniSearchSage code unless `Sizes` says otherwise.
"""

from __future__ import annotations

import functools
import itertools
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch
import torch.nn.functional as F
from torch import nn

from ..common.files import write_whole
from ..filters.text import normalise
from .data import ExportError, Items
from .ngrams import Vocabulary, grams

DISTILBERT = "distilbert-base-multilingual-cased"  # the paper's query encoder
SMALL = "small"  # a small one of our own, trained from scratch
QUERY_TOKENS = 64
PRIME = 2**31 - 1
FORMAT = "pincaption embedding 2"
PARTS = ("encoder", "vocabulary.safetensors", "towers.safetensors")  # of a model beside its config.json
TEMPERATURE, LEAST_TEMPERATURE, MOST_TEMPERATURE = 0.07, 0.01, 1.0


@dataclass(frozen=True)
class Sizes:
    """`rows` x `width` hash embeddings; `hidden` layers of the item's MLP; `dims` numbers of an embedding, of
    which each first so many are an embedding too (Matryoshka).
    """

    rows: int = 100_000
    width: int = 256
    hidden: tuple[int, ...] = (1024, 1024)
    dims: tuple[int, ...] = (16, 32, 64, 128, 256)
    encoder_width: int = 256  # of the small query encoder, as are the next two
    encoder_layers: int = 2
    encoder_vocabulary: int = 16_000

    @property
    def dim(self) -> int:
        """Numbers of a whole embedding."""
        return max(self.dims)


# Enough for some ten thousand pairs, and trained on two cores in minutes.
SMALL_SIZES = Sizes(
    rows=20_000,
    width=128,
    hidden=(256,),
    dims=(16, 32, 64, 128),
    encoder_width=128,
    encoder_layers=2,
    encoder_vocabulary=8_000,
)


def sizes_of(encoder: str, width: int | None = None, dims: tuple[int, ...] | None = None) -> Sizes:
    """Small sizes with the small encoder, the published ones with another; `width` (a multiple of 32, the
    size of the small encoder's heads) and `dims` in place of theirs.
    """
    sizes = SMALL_SIZES if encoder == SMALL else Sizes()
    if width is not None:
        sizes = replace(sizes, width=width, encoder_width=width)
    return sizes if dims is None else replace(sizes, dims=dims)


class HashEmbeddings(nn.Module):
    """Sums of the embeddings of ids; an id's embedding is two rows of one table, weighted by two learned
    numbers of its own (Svenstrup et al. 2017).
    """

    def __init__(self, ids: int, rows: int, width: int, hashes: int = 2):
        super().__init__()
        self.table = nn.Embedding(rows, width)
        nn.init.normal_(self.table.weight, std=width**-0.5)
        self.importance = nn.Embedding(max(1, ids), hashes)
        nn.init.ones_(self.importance.weight)
        generator = torch.Generator().manual_seed(0)  # the hashes are part of the model's definition
        self.register_buffer(
            "factors", torch.randint(1, PRIME, (2, hashes), generator=generator), persistent=False
        )

    def forward(self, ids: torch.Tensor, starts: torch.Tensor) -> torch.Tensor:
        """[n] ids and where each of the [rows] begins in them -> [rows, width]."""
        factors: Any = self.factors
        hashed = (ids[:, None] * factors[0] + factors[1]) % PRIME % self.table.num_embeddings
        weights = self.importance(ids).to(self.table.weight.dtype)
        return F.embedding_bag(
            hashed.reshape(-1),
            self.table.weight,
            starts * hashed.shape[1],
            mode="sum",
            per_sample_weights=weights.reshape(-1),
        )


class ItemTower(nn.Module):
    """Pins and products alike.

    Any pattern of missing fields works: what an item does not have adds nothing.
    """

    def __init__(self, fields: Sequence[str], dense: dict[str, int], ids: int, sizes: Sizes):
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
        """-> [items, dim] of length 1."""
        parts = []
        for name in self.fields:
            ids, starts = items.texts[name]
            ends = torch.cat([starts[1:], starts.new_tensor([len(ids)])])
            parts.append(self.norms[name](self.ngrams(ids, starts)) * (ends > starts)[:, None])
        together = [torch.stack(parts).sum(0)]
        for name in self.dense:
            vectors, has = items.dense[name]
            together += [vectors * has[:, None], has[:, None].to(vectors.dtype)]
        return F.normalize(self.mlp(torch.cat(together, 1)).float(), dim=1)


class QueryTower(nn.Module):
    """A text encoder of transformers; [CLS] -> projection -> layer norm -> length 1."""

    def __init__(self, encoder: nn.Module, dim: int):
        super().__init__()
        self.encoder = encoder
        config: Any = encoder.config
        self.projection = nn.Sequential(nn.Linear(config.hidden_size, dim), nn.LayerNorm(dim))

    def forward(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """[queries, tokens] ids and mask -> [queries, dim] of length 1."""
        first = self.encoder(input_ids=ids, attention_mask=mask).last_hidden_state[:, 0]
        return F.normalize(self.projection(first).float(), dim=1)


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

        Raises ExportError for a folder that holds no model, one of another format, or a part of one.
        """
        from safetensors.torch import load_file

        folder = Path(folder)
        try:
            config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
            stored_format = config.pop("format")
            if not stored_format.startswith(FORMAT.rstrip("0123456789")):
                raise ValueError
        except (OSError, ValueError, LookupError, TypeError, AttributeError):
            raise ExportError(
                f"{folder} holds no trained model: make one with captioner embed train EXPORT {folder}"
            ) from None
        if stored_format != FORMAT:
            raise ExportError(
                f"{folder} holds a model of the format '{stored_format}', this version reads '{FORMAT}': train it again, into another folder"
            )
        if missing := [name for name in PARTS if not (folder / name).exists()]:
            raise ExportError(
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


def new_model(
    fields: Sequence[str],
    dense: dict[str, int],
    vocabulary: Vocabulary,
    sizes: Sizes,
    *,
    encoder: str = SMALL,
    revision: str | None = None,
    texts: Iterable[str] = (),
    seed: int = 0,
) -> Model:
    """A model to be trained.

    `encoder` is `small`, or a model of transformers; the small one's vocabulary is made of `texts`. Raises
    ExportError.
    """
    torch.manual_seed(seed)
    tokeniser, network = _small(texts, sizes) if encoder == SMALL else _pretrained(encoder, revision)
    model = Model(
        QueryTower(network, sizes.dim),
        ItemTower(fields, dense, len(vocabulary), sizes),
        vocabulary,
        tokeniser,
        sizes,
        {"encoder": encoder, "revision": revision},
    )
    if encoder == SMALL:
        _begin_with_the_items_words(model)
    return model


def _quiet() -> None:
    """No progress bars of transformers: what takes long shows ours."""
    from transformers.utils import logging

    logging.disable_progress_bar()


def _pretrained(name: str, revision: str | None, *, local: bool = False) -> tuple[Any, Any]:
    """Tokeniser and encoder of transformers; `local`: never from the hub. Raises ExportError."""
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
            raise ExportError(
                f"{name} cannot be loaded ({why}): copy the whole model again, or train it again"
            ) from error
        raise ExportError(
            f"{name} cannot be loaded as a text encoder ({why}): name a folder or a model that transformers knows, or --encoder {SMALL}"
        ) from error
    if not _first_token_reads_all(tokeniser, encoder):
        raise ExportError(
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


@torch.no_grad()
def _begin_with_the_items_words(model: Model) -> None:
    """Sets the small encoder's word vectors to what the item tower makes of the same words: both towers begin
    in one space.
    """
    tokens = pa.array(
        [text.strip() for text in model.tokeniser.batch_decode([[i] for i in range(len(model.tokeniser))])]
    )
    table = model.queries.encoder.get_input_embeddings().weight  # type: ignore[operator,union-attr]
    ids, starts = model.vocabulary.ids(grams(tokens), len(tokens))
    if not len(ids) or table.shape[1] != model.items.ngrams.table.weight.shape[1]:
        return
    vectors = model.items.ngrams(torch.from_numpy(ids), torch.from_numpy(starts))
    known = vectors.norm(dim=1) > 0
    table[known] = F.normalize(vectors[known], dim=1)
