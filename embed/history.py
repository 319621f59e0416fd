"""What a training records about itself: its losses, its learning curve and the best step so far."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any, NotRequired, TypedDict

import numpy as np
import torch
from torch import nn

from .validation import TaskValidation


class CurvePoint(TypedDict):
    """A point of the learning curve."""

    step: int
    pairs: int  # seen so far
    loss: dict[str, float]  # {task: mean since the last point}
    validation: NotRequired[dict[str, TaskValidation]]  # the first process has it


@dataclass
class Best:
    """The step that ranked the held-out queries best so far."""

    step: int
    score: float  # Recall@10, the mean over the tasks
    weights: dict[str, torch.Tensor]  # of the towers, and the temperatures


@dataclass
class History:
    """How far a training is, and what happened on the way."""

    step: int = 0
    seconds: float = 0.0  # of all calls together
    points: list[CurvePoint] = field(default_factory=list)
    losses: dict[str, list[float]] = field(default_factory=dict)  # of each step since the last point
    best: Best | None = None

    def add_losses(self, losses: dict[str, torch.Tensor]) -> None:
        """Records the losses {task: value} of a step."""
        for name, value in losses.items():
            self.losses.setdefault(name, []).append(float(value.detach()))

    def add_point(self, pairs: int, accelerator: Any) -> CurvePoint:
        """A new point of the curve, with the mean losses of all processes since the last point."""

        def mean(values: list[float]) -> float:
            own = torch.tensor(np.mean(values), device=accelerator.device)
            return float(accelerator.reduce(own, "mean"))

        loss = {name: round(mean(values), 5) for name, values in self.losses.items()}
        self.points.append({"step": self.step, "pairs": pairs, "loss": loss})
        self.losses = {}
        return self.points[-1]

    def keep_if_best(self, point: CurvePoint, objective: nn.Module) -> None:
        """Copies the weights if no earlier step has a better recall. Of equal ones the last step is kept.

        Without held-out queries every recall counts as 0, so that the last step of all is kept.
        """
        recalls = [task["recall@10"] for task in point["validation"].values()]
        score = float(np.mean(recalls)) if recalls else 0.0
        if self.best is None or score >= self.best.score:
            weights = {
                name: value.detach().to("cpu", copy=True)
                for name, value in objective.state_dict().items()
                if _belongs_to_model(name)
            }
            self.best = Best(point["step"], score, weights)

    @property
    def best_point(self) -> CurvePoint | None:
        """The point of the best step."""
        step = self.best and self.best.step
        return next((point for point in self.points if point["step"] == step), None)

    def state_dict(self) -> dict[str, Any]:
        """The history as a part of a checkpoint."""
        best = self.best and {"step": self.best.step, "score": self.best.score, "towers": self.best.weights}
        return {
            "step": self.step,
            "seconds": self.seconds,
            "history": json.dumps([self.points, self.losses]),
            "best": best or {},
        }

    @classmethod
    def from_state_dict(cls, state: dict[str, Any]) -> History:
        """Reads what `state_dict` gave."""
        points, losses = json.loads(state["history"])
        best = state["best"] and Best(state["best"]["step"], state["best"]["score"], state["best"]["towers"])
        return cls(state["step"], state["seconds"], points, losses, best or None)


def _belongs_to_model(name: str) -> bool:
    """Whether a part of the objective's state belongs to the model.

    The sketches do not, and they are large.
    """
    return name.startswith("towers.") or name.endswith("log_temperature")
