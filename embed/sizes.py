"""Sizes."""

from __future__ import annotations

from dataclasses import dataclass, replace

DISTILBERT = "distilbert-base-multilingual-cased"  # the paper's query encoder
SMALL = "small"  # a small one of our own, trained from scratch


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
