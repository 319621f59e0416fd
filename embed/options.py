"""Options of a training."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from .batches import MIX, OWN_WORDS_SHARE
from .controls import Control
from .pairs import OWN_WORDS
from .reader import FIELDS
from .sizes import DISTILBERT, SMALL, Sizes


@dataclass(frozen=True)
class TrainOptions:
    """`epochs`: how often as many pairs are seen as there are.

    `compatible`: names of fixed vectors that queries are to be comparable with by a dot product.
    """

    encoder: str = DISTILBERT
    revision: str | None = None
    sizes: Sizes | None = None  # None: small ones with the small encoder, the published ones else
    fields: tuple[str, ...] = FIELDS
    # fields with another text in place of their own, as of Export
    controls: tuple[tuple[str, Control], ...] = ()
    hashed: bool = False  # n-grams get their ids by hashing, in place of a vocabulary of the frequent ones
    epochs: float = 10.0
    batch: int = 256
    learning_rate: float = 1e-3
    # None: that of the towers for the small encoder, 5e-5 for one that was trained before
    encoder_learning_rate: float | None = None
    weight_decay: float = 0.01
    warmup: float = 0.05
    mix: tuple[tuple[str, float], ...] = ()  # weights of tasks in place of those of MIX
    correction: Literal["popularity", "conditional", "none"] = "popularity"
    mask_known: bool = False
    sketch_width: int | None = None  # None: sixteen cells for each item, at most the published 2^26
    compatible: tuple[str, ...] = ()
    keep_own_query: bool = False
    validation: float = 0.02  # share of the training queries that are held out for the curve
    # steps between checkpoints, and between points of the curve; None: a twentieth of the training, at most
    # 200
    every: int | None = None
    seed: int = 0

    @property
    def weights(self) -> dict[str, float]:
        """Of the tasks in a batch; an encoder that was trained before knows words, and needs no items' own
        words.
        """
        return MIX | {OWN_WORDS: OWN_WORDS_SHARE if self.encoder == SMALL else 0.0} | dict(self.mix)
