"""What the worker needs of a captioning model, how a caption is decoded, and the device and number format.

torch is imported inside the functions that need it, so that a plan can be made without it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from .checkpoint import CheckpointError

if TYPE_CHECKING:
    import numpy as np
    from PIL import Image


@dataclass(frozen=True)
class Decoding:
    """How the words of a caption are chosen: greedy search by default. Lengths are in tokens.

    `num_beams` is the width of a beam search. `no_repeat_ngram` forbids to repeat a sequence of that many
    tokens; 0 allows it.
    """

    min_new_tokens: int = 5
    max_new_tokens: int = 30
    num_beams: int = 1
    no_repeat_ngram: int = 0

    @property
    def is_greedy(self) -> bool:
        """Whether each token is the most likely one, whatever was written before."""
        return self.num_beams == 1 and not self.no_repeat_ngram

    def parameters(self) -> dict[str, Any]:
        """The arguments of transformers' `generate`.

        All of them are given, so that none is taken from the checkpoint's own generation_config.json.
        """
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


@dataclass(frozen=True, slots=True)
class Text:
    """What the model wrote about a picture.

    `finished` is False if it ran out of tokens before its end. With a `reason` it could not write anything.
    """

    text: str
    finished: bool = False
    reason: str | None = None


class Begun(Protocol):
    """A batch that a model has begun to caption.

    `start` lets the device write its texts, without waiting for them; it may be called when the texts of the
    batch before have been taken. `texts` takes them, and starts what was not started. Both may raise an error
    for which `out_of_memory` is true.
    """

    def start(self) -> None: ...

    def texts(self) -> list[Text]: ...


class CaptionModel(Protocol):
    """What the worker and `doctor` need of a model that writes captions.

    `name` is how messages call the model, and `details` says in a few words what it is made of. `device` is
    "cpu" or one of torch's names of a GPU, `dtype` the number format that it computes in. `picture_size` is
    the (width, height) in pixels that every picture must have, and `resample` the filter to resize it with.

    `prompt_fits` says whether a prompt and a caption of the longest length fit into the model; the threads
    that read pictures call it. `caption` writes one text for each picture, which continues its prompt.
    Pictures are RGB, uint8 [height, width, 3]. The text for a picture must not depend on the others in the
    batch. `caption` raises an error for which `out_of_memory` is true if a smaller batch may fit.

    `begin` is the first part of `caption`; what it returns has the others. A device that computes by itself
    goes on in between. `ahead` is how many later batches should have begun when one is ended; with 0 each
    batch is ended at once.
    """

    @property
    def name(self) -> str: ...

    @property
    def details(self) -> str: ...

    @property
    def device(self) -> str: ...

    @property
    def dtype(self) -> str: ...

    @property
    def picture_size(self) -> tuple[int, int]: ...

    @property
    def resample(self) -> Image.Resampling: ...

    @property
    def ahead(self) -> int: ...

    def prompt_fits(self, prompt: str, decoding: Decoding) -> bool: ...

    def begin(self, pictures: Sequence[np.ndarray], prompts: Sequence[str], decoding: Decoding) -> Begun: ...

    def caption(
        self, pictures: Sequence[np.ndarray], prompts: Sequence[str], decoding: Decoding
    ) -> list[Text]: ...


def choose_device(wish: str = "auto") -> str:
    """The device to compute on: for "auto" the first GPU, or else the CPU.

    Raises CheckpointError for a GPU that this machine does not have.
    """
    import torch

    if wish == "auto":
        return "cuda:0" if torch.cuda.is_available() else "cpu"
    if wish.startswith("cuda"):
        index = int(wish.partition(":")[2] or 0)
        if not torch.cuda.is_available() or index >= torch.cuda.device_count():
            raise CheckpointError(
                f"there is no device {wish}: this machine has {torch.cuda.device_count()} GPUs that torch "
                "can use; try the device cpu"
            )
        return f"cuda:{index}"
    return wish


def choose_dtype(wish: str, device: str) -> str:
    """The number format to compute in.

    For "auto" this is bfloat16 where the hardware computes in it, float16 on older GPUs, and float32 on other
    CPUs.
    """
    import torch

    if wish != "auto":
        return wish
    if device.startswith("cuda"):
        # Ampere, compute capability 8, is the first generation of GPUs that computes in bfloat16.
        return "bfloat16" if torch.cuda.get_device_capability(device)[0] >= 8 else "float16"
    return "bfloat16" if _cpu_computes_bfloat16() else "float32"


def _cpu_computes_bfloat16() -> bool:
    # Without these instructions torch emulates bfloat16 and is slower than in float32.
    import torch

    checks = (
        getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False),
        getattr(torch.cpu, "_is_amx_tile_supported", lambda: False),
    )
    return any(check() for check in checks)


def out_of_memory(error: Exception) -> bool:
    """Whether an error of a model says that memory ran out, on a GPU or a CPU."""
    import torch

    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    phrases = ("out of memory", "can't allocate memory", "not enough memory", "ALLOC_FAILED")
    return any(phrase in str(error) for phrase in phrases)


def free_unused_memory(device: str) -> None:
    """Gives the memory back that torch keeps in reserve on a GPU."""
    if device.startswith("cuda"):
        import torch

        torch.cuda.empty_cache()
