"""Objective."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import nn

from .batches import TaskBatch
from .loss import Loss, LossOptions
from .model import Model
from .options import TrainOptions
from .pairs import OWN_WORDS, QUERY_QUERY, Pairs
from .ranking import known_positives
from .sizes import SMALL
from .sketch import WIDTH


class Objective(nn.Module):
    """Towers and losses as one module: a batch in, a loss for each task out.

    It is what DistributedDataParallel wraps.
    """

    def __init__(self, model: Model, options: TrainOptions, pairs: Pairs, items: int):
        super().__init__()
        self.queries, self.items = model.queries, model.items
        dims = dict.fromkeys(model.sizes.dims, 1.0)
        keys = max(items, *(len(task.pool) for task in pairs.tasks.values()))
        loss_options = LossOptions(
            dims, options.correction, options.mask_known, options.sketch_width or sketch_width(keys)
        )
        self.losses = nn.ModuleDict()
        for name, task in pairs.tasks.items():
            if options.weights[name]:
                known = torch.from_numpy(
                    known_positives([pairs.tasks], name) if name == QUERY_QUERY else task.known
                )
                self.losses[name] = own = Loss(loss_options, known)
                for vectors in options.compatible if name != QUERY_QUERY else ():
                    # the same items, counted once
                    self.losses[f"{name} {vectors}"] = Loss(loss_options, known, own.counts)
        if options.weights[OWN_WORDS]:  # of items that are drawn evenly: nothing to correct
            self.losses[OWN_WORDS] = Loss(replace(loss_options, correction="none", mask_known=False))

    def forward(self, batch: dict[str, TaskBatch]) -> dict[str, torch.Tensor]:
        """{task: loss}, and {"task vectors": loss} for fixed vectors as candidates."""
        found = {}
        for name, part in batch.items():
            queries = self.queries(*part.queries)
            of_queries = name == QUERY_QUERY
            positives = self.queries(*part.positives) if of_queries else self.items(part.positives)
            negatives = self.queries(*part.negatives) if of_queries else self.items(part.negatives)
            for what, loss in self.losses.items():
                if what.split(" ")[0] == name:
                    assert isinstance(loss, Loss)
                    if what == name:
                        loss.counts.add(part.query_keys, part.positive_keys)
                    with torch.autocast(queries.device.type, enabled=False):
                        # towers may count in 16 bits; a softmax over a large batch may not
                        if what == name:
                            found[what] = loss(
                                queries,
                                part.query_keys,
                                positives,
                                part.positive_keys,
                                negatives,
                                part.negative_keys,
                            )
                        else:
                            (own, has), (others, have) = (
                                part.positives.dense[what.split(" ", 1)[1]],
                                part.negatives.dense[what.split(" ", 1)[1]],
                            )
                            found[what] = loss(
                                queries,
                                part.query_keys,
                                own,
                                part.positive_keys,
                                others,
                                part.negative_keys,
                                has=(has, have),
                                dims=[own.shape[1]],
                            )
        return found


def sketch_width(items: int) -> int:
    """A power of two of some sixteen cells for each item, so that its error stays far below the share of any;
    at most that of the published code.
    """
    return min(WIDTH, 1 << max(10, (16 * items - 1).bit_length()))


def _groups(objective: nn.Module, options: TrainOptions) -> list[dict[str, Any]]:
    """Parameters with their learning rates: a pretrained encoder is changed less; what is one number per
    feature does not decay.
    """
    slow = options.encoder_learning_rate or (options.learning_rate if options.encoder == SMALL else 5e-5)
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in objective.named_parameters():
        decay = options.weight_decay if parameter.ndim > 1 and "ngrams" not in name else 0.0
        groups.setdefault((slow if ".encoder." in name else options.learning_rate, decay), []).append(
            parameter
        )
    return [
        {"params": parameters, "lr": rate, "weight_decay": decay}
        for (rate, decay), parameters in groups.items()
    ]
