"""How large a model is."""

from __future__ import annotations

from dataclasses import dataclass, replace

DISTILBERT = "distilbert-base-multilingual-cased"  # the query encoder of the paper
SMALL = "small"  # names the small encoder that is trained from scratch


@dataclass(frozen=True)
class Sizes:
    """The sizes of a model. The defaults are those of the published OmniSearchSage code."""

    rows: int = 100_000  # of the table of hash embeddings
    width: int = 256  # numbers in a row of that table
    hidden: tuple[int, ...] = (1024, 1024)  # hidden layers of the item tower's MLP
    dims: tuple[int, ...] = (16, 32, 64, 128, 256)  # Matryoshka: each prefix of these lengths is an embedding
    # of the small query encoder only:
    encoder_width: int = 256
    encoder_layers: int = 2
    encoder_vocabulary: int = 16_000  # tokens

    @property
    def dim(self) -> int:
        """How many numbers a full embedding has."""
        return max(self.dims)


# Enough for some ten thousand pairs, and trained in minutes on two cores.
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
    """SMALL_SIZES for the small encoder, the published sizes for every other encoder.

    `width` replaces the width of the hash embeddings and of the small encoder. It must be a multiple of 32,
    which is the size of an attention head of the small encoder. `dims` replaces the lengths of embeddings.
    """
    sizes = SMALL_SIZES if encoder == SMALL else Sizes()
    if width is not None:
        sizes = replace(sizes, width=width, encoder_width=width)
    return sizes if dims is None else replace(sizes, dims=dims)
