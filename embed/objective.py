"""What a training minimises: the losses of all tasks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from .batches import TaskBatch
from .loss import Loss, LossOptions
from .model import EmbeddingModel
from .options import TrainOptions
from .pairs import QUERY_QUERY, Pairs
from .ranking import known_positives
from .sketch import WIDTH

# A handful of numbers: the weights of fields, the share of words, the pivot of lengths, the temperatures.
# Each of them is learned from every pair, and may change faster than the rest.
SCALARS = {"field_weights", "words_share", "log_pivot", "log_temperature"}
SCALAR_LEARNING_RATE = 5e-3


class Objective(nn.Module):
    """The towers and all losses in one module, which DistributedDataParallel can wrap.

    `losses` has one loss for each task, and one named "TASK VECTORS" for each name of `options.compatible`.
    """

    def __init__(self, model: EmbeddingModel, options: TrainOptions, pairs: Pairs, items: int):
        """`items`: how many rows the export has."""
        super().__init__()
        self.towers = model.towers
        keys = max(items, *(len(task.pool) for task in pairs.tasks.values()))
        loss_options = LossOptions(
            matryoshka_weights(model.dims),
            options.correction,
            options.mask_known,
            options.sketch_width or sketch_width(keys),
        )
        self.losses = nn.ModuleDict()
        for name, task in pairs.tasks.items():
            if options.weights[name]:
                known = torch.from_numpy(
                    known_positives([pairs.tasks], name) if name == QUERY_QUERY else task.known
                )
                self.losses[name] = own = Loss(loss_options, known)
                for vectors in options.compatible if name != QUERY_QUERY else ():
                    # The items are the same, and are counted once.
                    self.losses[f"{name} {vectors}"] = Loss(loss_options, known, own.counts)

    def forward(self, batch: dict[str, TaskBatch]) -> dict[str, torch.Tensor]:
        """{name of a loss: its value} for the tasks of a batch."""
        values = {}
        for task, part in batch.items():
            queries = self.towers.queries(part.queries)
            embed = self.towers.queries if task == QUERY_QUERY else self.towers.items
            positives, negatives = embed(part.positives), embed(part.negatives)
            for name, loss in self.losses.items():
                loss_task, _, vectors = name.partition(" ")
                if loss_task != task:
                    continue
                assert isinstance(loss, Loss)
                if not vectors:
                    loss.counts.add(part.query_keys, part.positive_keys)
                # The towers may compute in 16 bits. A softmax over a large batch may not.
                with torch.autocast(queries.device.type, enabled=False):
                    values[name] = (
                        self._against_vectors(loss, queries, part, vectors)
                        if vectors
                        else loss(
                            queries,
                            part.query_keys,
                            positives,
                            part.positive_keys,
                            negatives,
                            part.negative_keys,
                        )
                    )
        return values

    def _against_vectors(
        self, loss: Loss, queries: torch.Tensor, part: TaskBatch, vectors: str
    ) -> torch.Tensor:
        """The loss of queries with the fixed vectors of items as candidates, in place of their embeddings."""
        positives, has_positive = part.positives.dense[vectors]
        negatives, has_negative = part.negatives.dense[vectors]
        value: torch.Tensor = loss(
            queries,
            part.query_keys,
            positives,
            part.positive_keys,
            negatives,
            part.negative_keys,
            has=(has_positive, has_negative),
            dims=[positives.shape[1]],
        )
        return value


def sketch_width(keys: int) -> int:
    """The width of the sketches: a power of two, with some sixteen cells for each key.

    It is at most the published one.
    Then the error of a count stays far below the share of any item.
    """
    return min(WIDTH, 1 << max(10, (16 * keys - 1).bit_length()))


def matryoshka_weights(dims: Sequence[int]) -> dict[int, float]:
    """{length: weight of its loss}: 0.05 up to 128 numbers, then 1, as published."""
    return {dim: 0.05 if dim <= 128 and dim < max(dims) else 1.0 for dim in dims}


def parameter_groups(objective: nn.Module, options: TrainOptions) -> list[dict[str, Any]]:
    """The parameters for the optimizer, grouped by learning rate and weight decay.

    The encoder, the n-grams and the rest have rates of their own. N-grams, biases, norms and the weights of
    fields do not decay. An encoder with the rate 0 is not trained at all.
    """
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in objective.named_parameters():
        if ".encoder." in name:
            rate = options.encoder_learning_rate
        elif ".ngrams." in name:
            rate = options.table_learning_rate
        elif name.rpartition(".")[2] in SCALARS:
            rate = SCALAR_LEARNING_RATE
        else:
            rate = options.learning_rate
        if not rate:
            parameter.requires_grad_(False)
            continue
        is_matrix = parameter.ndim > 1 and ".ngrams." not in name and "field_weights" not in name
        groups.setdefault((rate, options.weight_decay if is_matrix else 0.0), []).append(parameter)
    return [
        {"params": parameters, "lr": rate, "weight_decay": decay}
        for (rate, decay), parameters in groups.items()
    ]
