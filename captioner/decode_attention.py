"""Attention of one new token to the tokens before it, as one kernel for a GPU.

torch's own kernels are made for many new tokens at a time: for one, they read keys and values three times
slower. The model calls this by the name `NAME`, and any other attention goes to torch as usual.
"""

from typing import Any

import torch
import triton
import triton.language as tl
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, sdpa_mask
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

NAME = "captioner_decode"
# Of the sizes tried on an H200 (16, 32 and 64 places, 1, 2 and 4 warps), these were the fastest or within 5%
# of it, at 64 to 512 captions and 56 to 152 places.
_PLACES, _WARPS = 16, 1


# Triton compiles it, and reads the annotations; so it has no others, and this file no postponed ones.
@triton.jit  # type: ignore[untyped-decorator]
def _kernel(  # type: ignore[no-untyped-def]
    query, keys, values, visible, out, heads, length, scaling,
    width: tl.constexpr, padded: tl.constexpr, block: tl.constexpr,
):  # fmt: skip
    """One program for each head of each caption: `block` places at a time, with the softmax so far.

    `padded` is `width` rounded up to a power of two, as Triton wants it.
    """
    row = tl.program_id(0)
    numbers = tl.arange(0, padded)
    some = tl.arange(0, block)
    inside = numbers < width
    asked = tl.load(query + row * width + numbers, mask=inside, other=0.0).to(tl.float32) * scaling
    highest = -1e30  # finite, so that a block without any visible place gives no NaN
    total = 0.0
    mixed = tl.zeros([padded], dtype=tl.float32)
    begin = row.to(tl.int64) * length
    for first in range(0, length, block):
        places = first + some
        seen = tl.load(visible + (row // heads) * length + places, mask=places < length, other=0) != 0
        wanted = seen[:, None] & inside[None, :]
        where = (begin + places)[:, None] * width + numbers[None, :]
        key = tl.load(keys + where, mask=wanted, other=0.0).to(tl.float32)
        value = tl.load(values + where, mask=wanted, other=0.0).to(tl.float32)
        scores = tl.where(seen, tl.sum(key * asked[None, :], 1), -1e30)
        higher = tl.maximum(highest, tl.max(scores, 0))
        weights = tl.where(seen, tl.exp(scores - higher), 0.0)
        before = tl.exp(highest - higher)
        total = total * before + tl.sum(weights, 0)
        mixed = mixed * before + tl.sum(weights[:, None] * value, 0)
        highest = higher
    tl.store(out + row * width + numbers, (mixed / total).to(out.dtype.element_ty), mask=inside)


def attend(
    query: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, visible: torch.Tensor, scaling: float
) -> torch.Tensor:
    """The values [captions, heads, 1, width] that `query` (of the same shape) finds.

    `keys` and `values` are [captions, heads, places, width] and contiguous, `visible` is boolean [captions,
    places], with a visible place in each row. Sums are in float32.
    """
    captions, heads, places, width = keys.shape
    query = query.contiguous()
    out = torch.empty_like(query)
    _kernel[(captions * heads,)](
        query, keys, values, visible, out, heads, places, scaling,
        width=width, padded=triton.next_power_of_2(width), block=_PLACES, num_warps=_WARPS,
    )  # fmt: skip
    return out


def _attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    visible: torch.Tensor | None = None,
    scaling: float | None = None,
    **others: Any,
) -> tuple[torch.Tensor, None]:
    """An attention function of transformers. `visible` is what a caller gives the whole model."""
    if visible is None or query.shape[2] != 1 or scaling is None:
        found: tuple[torch.Tensor, None] = sdpa_attention_forward(
            module, query, key, value, attention_mask, scaling=scaling, **others
        )
        return found
    return attend(query, key, value, visible, scaling).transpose(1, 2), None


def use(language_model: Any) -> None:
    """Makes a language model of transformers compute its attention here."""
    ALL_ATTENTION_FUNCTIONS.register(NAME, _attention)
    ALL_MASK_ATTENTION_FUNCTIONS.register(NAME, sdpa_mask)
    language_model.set_attn_implementation(NAME)
