"""The options of a training."""

from __future__ import annotations

from dataclasses import dataclass, field

from .batches import MIX
from .controls import Control
from .loss import Correction
from .reader import FIELDS
from .sizes import Sizes
from .text_encoder import NONE


@dataclass(frozen=True)
class TrainOptions:
    """The options of `train`. A model depends on nothing but these and the export."""

    # "none", or a text encoder of transformers by its folder or its name on the hub
    encoder: str = NONE
    revision: str | None = None  # of the encoder on the hub
    sizes: Sizes = field(default_factory=Sizes)
    fields: tuple[str, ...] = FIELDS  # text columns of the export that the item tower reads
    # (field, control): fields with replaced texts, for ablations
    controls: tuple[tuple[str, Control], ...] = ()
    hashed: bool = False  # n-grams get their ids by hashing; otherwise the frequent ones are listed
    epochs: float = 3.0  # passes over the pairs
    batch: int = 256  # pairs in a step, of all processes together
    learning_rate: float = 2e-4  # of the corrections, and of what vectors of items add
    table_learning_rate: float = 1e-3  # of the n-grams
    encoder_learning_rate: float = 3e-5  # of a pretrained encoder; 0 keeps it as it is
    weight_decay: float = 0.01
    warmup: float = 0.1  # share of the steps during which the learning rate rises
    mix: tuple[tuple[str, float], ...] = ()  # (task, weight in a batch): replaces a default weight
    random_negatives: int | None = None  # for each pair; None: 4 as published, 0 with an encoder
    hard_negatives: int = 0  # for each pair: items that words alone find, and that nobody chose
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
        """{task: weight in a batch}."""
        return MIX | dict(self.mix)

    @property
    def trains_encoder(self) -> bool:
        """Whether there is an encoder that learns; otherwise its vectors of texts never change."""
        return self.encoder != NONE and self.encoder_learning_rate > 0

    @property
    def negatives(self) -> int:
        """Random negatives for each pair. With an encoder each of them costs as much as a pair."""
        if self.random_negatives is not None:
            return self.random_negatives
        return RANDOM_NEGATIVES if self.encoder == NONE else 0


RANDOM_NEGATIVES = 4  # for each pair of a batch, as published
