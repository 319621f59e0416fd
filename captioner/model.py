"""What the worker needs of a captioning model, and on what it runs."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass
from typing import Any

import torch

# Only the classes that are needed: the package's star import and AutoProcessor print pages of warnings.
os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

from .checkpoint import CheckpointError

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True)
class Decoding:
    """How a caption is searched for: plain greedy by default. Lengths are in tokens."""

    min_new_tokens: int = 5
    max_new_tokens: int = 30
    num_beams: int = 1
    no_repeat_ngram: int = 0

    def parameters(self) -> dict[str, Any]:
        """Everything that `generate` might else take from somewhere."""
        return {
            "min_new_tokens": min(self.min_new_tokens, self.max_new_tokens),
            "max_new_tokens": self.max_new_tokens,
            "num_beams": self.num_beams,
            "no_repeat_ngram_size": self.no_repeat_ngram,
            "do_sample": False,
            "repetition_penalty": 1.0,
            "length_penalty": 1.0,
            "num_return_sequences": 1,
        }

    def row(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Text:
    """What the model wrote; `finished` is False where it ran out of tokens."""

    text: str
    finished: bool


def choose_device(wanted: str = "auto") -> str:
    """ "auto" -> the first GPU, else the CPU. Raises CheckpointError for a GPU that is not there."""
    if wanted == "auto":
        return "cuda:0" if torch.cuda.is_available() else "cpu"
    if wanted.startswith("cuda"):
        index = int(wanted.partition(":")[2] or 0)
        if not torch.cuda.is_available() or index >= torch.cuda.device_count():
            raise CheckpointError(
                f"--device {wanted}: this machine has {torch.cuda.device_count()} GPUs that torch can use; try --device cpu"
            )
        return f"cuda:{index}"
    return wanted


def choose_dtype(wanted: str, device: str) -> str:
    """ "auto" -> bfloat16 where the hardware computes in it, float16 on older GPUs, float32 on other CPUs."""
    if wanted != "auto":
        return wanted
    if device.startswith("cuda"):
        return "bfloat16" if torch.cuda.get_device_capability(device)[0] >= 8 else "float16"
    return "bfloat16" if _cpu_computes_bfloat16() else "float32"


def _cpu_computes_bfloat16() -> bool:
    # Without these instructions torch emulates bfloat16 and is slower than float32.
    check = (
        getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False),
        getattr(torch.cpu, "_is_amx_tile_supported", lambda: False),
    )
    return any(f() for f in check)


def out_of_memory(error: Exception) -> bool:
    """True for what torch raises when memory runs out, on GPUs and CPUs."""
    return isinstance(error, (MemoryError, torch.OutOfMemoryError)) or any(
        s in str(error)
        for s in ("out of memory", "can't allocate memory", "not enough memory", "ALLOC_FAILED")
    )
