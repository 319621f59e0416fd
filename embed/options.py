"""The options of a training."""

from __future__ import annotations

from dataclasses import dataclass

from .batches import MIX, OWN_WORDS_WEIGHT
from .controls import Control
from .loss import Correction
from .pairs import OWN_WORDS
from .reader import FIELDS
from .sizes import SMALL, Sizes


@dataclass(frozen=True)
class TrainOptions:
    """The options of `train`. A model depends on nothing but these and the export."""

    # "small" (trained from scratch), or a text encoder of transformers by its folder or its name on the hub
    encoder: str = SMALL
    revision: str | None = None  # of the encoder on the hub
    sizes: Sizes | None = None  # None: small ones for the small encoder, the published ones for others
    fields: tuple[str, ...] = FIELDS  # text fields of the item tower
    # (field, control): fields with replaced texts, for ablations
    controls: tuple[tuple[str, Control], ...] = ()
    hashed: bool = False  # n-grams get their ids by hashing; otherwise the frequent ones are listed
    epochs: float = 10.0  # passes over the pairs
    batch: int = 256  # pairs in a step, of all processes together
    learning_rate: float = 1e-3
    # None: `learning_rate` for the small encoder, 5e-5 for a pretrained one
    encoder_learning_rate: float | None = None
    weight_decay: float = 0.01
    warmup: float = 0.05  # share of the steps during which the learning rate rises
    mix: tuple[tuple[str, float], ...] = ()  # (task, weight in a batch): replaces a default weight
    correction: Correction = "popularity"  # see LossOptions, as is the next one
    mask_known: bool = False
    sketch_width: int | None = None  # None: see objective.sketch_width
    # names of fixed vectors: the dot product of a query's embedding and such a vector gets a meaning
    compatible: tuple[str, ...] = ()
    keep_own_query: bool = False  # see Batches
    validation: float = 0.02  # share of the training queries that are held out
    # steps between checkpoints and between points of the curve; None: a twentieth of all, at most 200
    every: int | None = None
    seed: int = 0

    @property
    def weights(self) -> dict[str, float]:
        """{task: weight in a batch}. A pretrained encoder knows words already, and needs no own-words."""
        own_words = OWN_WORDS_WEIGHT if self.encoder == SMALL else 0.0
        return MIX | {OWN_WORDS: own_words} | dict(self.mix)
