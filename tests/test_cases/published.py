"""Folders like the repositories that were published: their configuration, file names and names of tensors.

The keys of config.json are those of opt-2.7b and flan-t5-xl as people printed them in public; the others
follow them. The older ones listed every default of their time, as public copies of their Q-Former's part
show. Only sizes are smaller: hidden sizes, layers, heads and vocabulary. The size of the pictures and of the
patches and the 32 image tokens are the real ones. Weights are random, and T5 has no spiece.model beside its
tokenizer.json. No file of a published repository is copied here.
"""

from __future__ import annotations

import json
import zlib
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from tokenizers import (
    ByteLevelBPETokenizer,
    Tokenizer,
    processors,
)
from transformers import Blip2Config, Blip2ForConditionalGeneration

from ..unigram import trained_unigram

WORDS = [f"a {colour} {thing} on a {place}" for colour in ("red", "green", "pale blue", "grey") for thing in
         ("cup", "house", "bird", "boat", "tree") for place in ("table", "hill", "lake")]  # fmt: skip
WIDTH = 48  # of all three models, instead of 1,408 (vision), 768 (Q-Former) and 2,048 to 4,096 (language)


@dataclass(frozen=True)
class Repository:
    """What is known of a published repository. `shards` is the number of its safetensors files."""

    name: str
    language: str  # "opt" or "t5"
    side: int = 224  # pixels
    shards: int = 2
    is_old: bool = False  # no image_token_index, no processor_config.json, no <image> in the tokenizer
    writes: bool = True  # else its architecture is Blip2ForImageTextRetrieval


REPOSITORIES = {
    repository.name: repository
    for repository in (
        Repository("blip2-opt-2.7b", "opt"),
        Repository("blip2-opt-6.7b", "opt", shards=4),
        Repository("blip2-opt-6.7b-coco", "opt", side=364, shards=4),
        Repository("blip2-flan-t5-xl", "t5"),
        Repository("blip2-flan-t5-xxl", "t5", shards=5),
        Repository("blip2-opt-2.7b-coco", "opt", side=364, is_old=True),
        Repository("blip2-flan-t5-xl-coco", "t5", side=364, is_old=True),
        Repository("blip2-opt-2.7b at 51572668", "opt", is_old=True),
        Repository("blip2-itm-vit-g", "opt", shards=1, writes=False),
    )
}

# What a configuration of transformers 4.27 listed besides the keys of its own model. The older repositories
# have all of it, in each of the three parts.
_OLD_DEFAULTS: dict[str, Any] = {
    "_name_or_path": "",
    "add_cross_attention": False,
    "architectures": None,
    "bad_words_ids": None,
    "begin_suppress_tokens": None,
    "chunk_size_feed_forward": 0,
    "cross_attention_hidden_size": None,
    "diversity_penalty": 0.0,
    "do_sample": False,
    "early_stopping": False,
    "encoder_no_repeat_ngram_size": 0,
    "exponential_decay_length_penalty": None,
    "finetuning_task": None,
    "forced_bos_token_id": None,
    "forced_eos_token_id": None,
    "id2label": {"0": "LABEL_0", "1": "LABEL_1"},
    "is_decoder": False,
    "is_encoder_decoder": False,
    "label2id": {"LABEL_0": 0, "LABEL_1": 1},
    "length_penalty": 1.0,
    "max_length": 20,
    "min_length": 0,
    "no_repeat_ngram_size": 0,
    "num_beam_groups": 1,
    "num_beams": 1,
    "num_return_sequences": 1,
    "output_attentions": False,
    "output_hidden_states": False,
    "output_scores": False,
    "prefix": None,
    "problem_type": None,
    "pruned_heads": {},
    "remove_invalid_values": False,
    "repetition_penalty": 1.0,
    "return_dict": True,
    "return_dict_in_generate": False,
    "sep_token_id": None,
    "suppress_tokens": None,
    "task_specific_params": None,
    "temperature": 1.0,
    "tf_legacy_loss": False,
    "tie_encoder_decoder": False,
    "tie_word_embeddings": True,
    "tokenizer_class": None,
    "top_k": 50,
    "top_p": 1.0,
    "torch_dtype": None,
    "torchscript": False,
    "transformers_version": "4.27.0.dev0",
    "typical_p": 1.0,
    "use_bfloat16": False,
}
_OLD_VISION = {"attention_dropout": 0.0, "hidden_act": "gelu", "layer_norm_eps": 1e-05, "qkv_bias": True}
_OLD_QFORMER = {
    "attention_probs_dropout_prob": 0.1,
    "bos_token_id": None,
    "cross_attention_frequency": 2,
    "decoder_start_token_id": None,
    "encoder_hidden_size": WIDTH,
    "eos_token_id": None,
    "hidden_act": "gelu",
    "hidden_dropout_prob": 0.1,
    "initializer_range": 0.02,
    "layer_norm_eps": 1e-12,
    "max_position_embeddings": 512,
    "pad_token_id": 0,
    "position_embedding_type": "absolute",
    "vocab_size": 30522,
}


def make(repository: Repository, folder: Path) -> Path:
    """Writes the repository into `folder`. The same weights for each language and size of pictures."""
    folder.mkdir(parents=True)
    words, newline = (_opt_tokenizer if repository.language == "opt" else _t5_tokenizer)(repository, folder)
    config = _config(repository, words, newline)
    _write(folder / "config.json", config)
    _write(folder / "generation_config.json", {"_from_model_config": True, "transformers_version": "4.27.0"})
    _write(
        folder / "preprocessor_config.json",
        {
            "do_convert_rgb": True,
            "do_normalize": True,
            "do_rescale": True,
            "do_resize": True,
            "image_mean": [0.48145466, 0.4578275, 0.40821073],
            "image_processor_type": "BlipImageProcessor",
            "image_std": [0.26862954, 0.26130258, 0.27577711],
            "processor_class": "Blip2Processor",
            "resample": 3,
            "rescale_factor": 0.00392156862745098,
            "size": {"height": repository.side, "width": repository.side},
        },
    )
    if not repository.is_old:
        _write(
            folder / "processor_config.json",
            {"num_query_tokens": 32, "processor_class": "Blip2Processor"},
        )
    _save(_weights(config, words), folder, repository.shards)
    return folder


def add_bin_duplicates(folder: Path) -> None:
    """The weights once more as pickles, as all published repositories have them."""
    shards = sorted(folder.glob("*.safetensors"))
    names = {f"pytorch_model-{i:05d}-of-{len(shards):05d}.bin": p for i, p in enumerate(shards, 1)}
    for name, shard in names.items():
        (folder / name).write_bytes(b"pickle " * (shard.stat().st_size // 7))
    _write(folder / "pytorch_model.bin.index.json", {"weight_map": {"query_tokens": next(iter(names))}})


def _config(repository: Repository, words: int, newline: int) -> dict[str, Any]:
    sizes = {"hidden_size": WIDTH, "num_attention_heads": 2, "num_hidden_layers": 2}
    vision = {
        "dropout": 0.0,
        "initializer_factor": 1.0,
        "model_type": "blip_2_vision_model",
        "num_channels": 3,
        "projection_dim": 512,
    }
    qformer = {"classifier_dropout": None, "model_type": "blip_2_qformer"}
    if repository.language == "opt":
        # 50,265 tokens, <image> is the next, and the table has 50,304 rows (50,272 in the older ones)
        text: dict[str, Any] = {
            "_name_or_path": "facebook/opt-2.7b",
            "activation_dropout": 0.0,
            "architectures": ["OPTForCausalLM"],
            "eos_token_id": newline,
            "ffn_dim": 2 * WIDTH,
            "model_type": "opt",
            "prefix": "</s>",
            "torch_dtype": "float16",
            "vocab_size": words + (7 if repository.is_old else 39),
            "word_embed_proj_dim": WIDTH,
        } | sizes
        old_text: dict[str, Any] = {
            "_remove_final_layer_norm": False,
            "activation_function": "relu",
            "attention_dropout": 0.0,
            "bos_token_id": 2,
            "decoder_start_token_id": None,
            "do_layer_norm_before": True,
            "dropout": 0.1,
            "enable_bias": True,
            "init_std": 0.02,
            "layer_norm_elementwise_affine": True,
            "layerdrop": 0.0,
            "max_position_embeddings": 2048,
            "pad_token_id": 1,
            "use_cache": True,
        }
    else:
        # 32,100 tokens, <image> is the next, and the table has 32,128 rows
        text = {
            "architectures": ["T5ForConditionalGeneration"],
            "bos_token_id": 1,
            "classifier_dropout": 0.0,
            "d_ff": 2 * WIDTH,
            "d_kv": WIDTH // 2,
            "d_model": WIDTH,
            "decoder_start_token_id": 0,
            "dense_act_fn": "gelu",
            "dropout_rate": 0.1,
            "eos_token_id": 1,
            "feed_forward_proj": "gated-gelu",
            "initializer_factor": 1.0,
            "is_encoder_decoder": True,
            "is_gated_act": True,
            "layer_norm_epsilon": 1e-06,
            "model_type": "t5",
            "n_positions": 512,
            "num_decoder_layers": 2,
            "num_heads": 2,
            "num_layers": 2,
            "output_past": True,
            "pad_token_id": 0,
            "relative_attention_max_distance": 128,
            "relative_attention_num_buckets": 32,
            "task_specific_params": {"summarization": {"num_beams": 4, "prefix": "summarize: "}},
            "tie_word_embeddings": False,
            "torch_dtype": "float32",
            "vocab_size": words + 28,
        }
        old_text = {"_name_or_path": "google/flan-t5-xl", "use_cache": True}
    vision |= sizes | {"intermediate_size": 2 * WIDTH}
    qformer |= sizes | {"intermediate_size": 2 * WIDTH}
    if repository.side != 224:  # the default of the class
        vision["image_size"] = repository.side
    config = {
        "architectures": ["Blip2ForConditionalGeneration"],
        "image_text_hidden_size": 256,
        "image_token_index": words,
        "initializer_factor": 1.0,
        "initializer_range": 0.02,
        "model_type": "blip-2",
        "num_query_tokens": 32,
        "torch_dtype": "float32",
        "transformers_version": "4.47.0.dev0",
        "use_decoder_only_language_model": repository.language == "opt",
    }
    if repository.is_old:
        for key in ("image_text_hidden_size", "image_token_index"):
            del config[key]
        config |= {"transformers_version": None, "_commit_hash": None}
        patches = {"image_size": repository.side, "patch_size": 14, "initializer_range": 1e-10}
        vision = _OLD_DEFAULTS | _OLD_VISION | patches | vision
        qformer = _OLD_DEFAULTS | _OLD_QFORMER | qformer
        text = _OLD_DEFAULTS | old_text | text
    if not repository.writes:
        config["architectures"] = ["Blip2ForImageTextRetrieval"]
        config["image_token_index"] = None
    return config | {"vision_config": vision, "qformer_config": qformer, "text_config": text}


def _weights(config: dict[str, Any], words: int) -> dict[str, torch.Tensor]:
    """Random tensors with the published names, large enough that captions depend on the picture.

    They only depend on the language and on the size of the pictures: rows of the tables that no token has are
    zero, so that an older layout with fewer of them writes the same captions.
    """
    model = Blip2ForConditionalGeneration(Blip2Config.from_dict(json.loads(json.dumps(config))))
    is_opt = config["use_decoder_only_language_model"]
    tensors = {}
    for name, tensor in sorted(model.state_dict().items()):
        if is_opt and name.endswith("lm_head.weight"):
            continue  # OPT has one table for both; the published files hold it once, as embed_tokens
        if name.startswith("language_model") and name.endswith("coder.embed_tokens.weight") and not is_opt:
            continue  # T5's table is held as `shared` alone
        generator = torch.Generator().manual_seed(zlib.crc32(name.encode()))
        if name.endswith(
            ("norm.weight", "norm1.weight", "norm2.weight", "LayerNorm.weight", "layernorm.weight")
        ):
            tensors[name] = torch.ones_like(tensor)
        elif tensor.dim() == 1:
            tensors[name] = torch.zeros_like(tensor)
        else:
            rows = words if tensor.shape[0] > words else tensor.shape[0]
            new = torch.zeros(tensor.shape)
            new[:rows] = torch.randn((rows, *tensor.shape[1:]), generator=generator) * _spread(name)
            if name == "language_model.lm_head.weight":  # T5 writes words and the end, no other special token
                new[[0, 2, *range(words - 100, words)]] = 0
            tensors[name] = new
    return tensors


def _spread(name: str) -> float:
    """The standard deviation of a tensor. Found by trying: pictures get captions of different words."""
    if name == "query_tokens":
        return 1.0
    if name.startswith("language_projection"):
        return 0.5
    return 0.5 if name.startswith("language_model") else 0.2


def _save(tensors: dict[str, torch.Tensor], folder: Path, shards: int) -> None:
    if shards == 1:
        save_file(tensors, folder / "model.safetensors", {"format": "pt"})
        return
    names = sorted(tensors)
    weight_map = {}
    for i in range(shards):
        file = f"model-{i + 1:05d}-of-{shards:05d}.safetensors"
        part = names[i * len(names) // shards : (i + 1) * len(names) // shards]
        save_file({name: tensors[name] for name in part}, folder / file, {"format": "pt"})
        weight_map |= dict.fromkeys(part, file)
    size = sum(tensor.numel() * 4 for tensor in tensors.values())
    _write(
        folder / "model.safetensors.index.json", {"metadata": {"total_size": size}, "weight_map": weight_map}
    )


def _opt_tokenizer(repository: Repository, folder: Path) -> tuple[int, int]:
    """Writes a tokenizer like OPT's; returns how many tokens it has without <image>, and the newline's id."""
    bpe = _trained_opt_tokenizer()
    bpe.save_model(str(folder))  # vocab.json and merges.txt
    size = bpe.get_vocab_size()
    tokenizer = Tokenizer.from_str(bpe.to_str())
    tokenizer.post_processor = processors.TemplateProcessing(
        single="</s> $A", pair="</s> $A </s> $B", special_tokens=[("</s>", 2)]
    )
    special = {"bos_token": "</s>", "eos_token": "</s>", "pad_token": "<pad>", "unk_token": "</s>"}
    settings = {"add_bos_token": True, "errors": "replace", "tokenizer_class": "GPT2Tokenizer", **special}
    _write_tokenizer(repository, folder, tokenizer, size, settings, special)
    return size, bpe.encode("\n").ids[-1]


def _t5_tokenizer(repository: Repository, folder: Path) -> tuple[int, int]:
    """Writes a tokenizer like T5's; returns how many tokens it has without <image>, and that of the end."""
    unigram = Tokenizer.from_str(_trained_t5_tokenizer())
    unigram.add_special_tokens([f"<extra_id_{i}>" for i in range(99, -1, -1)])
    unigram.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    special = {"eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"}
    settings = {"extra_ids": 100, "tokenizer_class": "T5Tokenizer", **special}
    size = unigram.get_vocab_size()
    _write_tokenizer(repository, folder, unigram, size, settings, special)
    return size, 1


@cache
def _trained_opt_tokenizer() -> ByteLevelBPETokenizer:
    bpe = ByteLevelBPETokenizer()
    bpe.train_from_iterator(
        [f"{words}\n" for words in WORDS],
        vocab_size=330,
        special_tokens=["<s>", "<pad>", "</s>", "<unk>"],
        show_progress=False,
    )
    return bpe


@cache
def _trained_t5_tokenizer() -> str:
    """The tokenizer as JSON."""
    return trained_unigram(WORDS, 120).to_str()


def _write_tokenizer(
    repository: Repository,
    folder: Path,
    tokenizer: Tokenizer,
    size: int,
    settings: dict[str, Any],
    special: dict[str, str],
) -> None:
    if not repository.is_old:
        tokenizer.add_special_tokens(["<image>"])
        _write(folder / "added_tokens.json", {"<image>": size})
        settings = settings | {"additional_special_tokens": ["<image>"]}
    tokenizer.save(str(folder / "tokenizer.json"))
    _write(folder / "tokenizer_config.json", settings | {"model_max_length": 10**30})
    _write(folder / "special_tokens_map.json", special)


def _write(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2))
