"""Curve."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any


def draw_curve(history: list[dict[str, Any]], kept: int, path: Path) -> bool:
    """The learning curve as a picture: loss and recall of each task over pairs seen, and which step is kept.

    False where matplotlib is missing.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return False
    figure = Figure(figsize=(9, 4.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    pairs = [point["pairs"] for point in history]
    for name in history[-1]["loss"]:
        left.plot(pairs, [point["loss"].get(name, math.nan) for point in history], label=name, marker=".")
    for i, name in enumerate(sorted({name for point in history for name in point["validation"]})):
        told = [point["validation"].get(name, {}) for point in history]
        right.plot(
            pairs, [one.get("recall@10", math.nan) for one in told], color=f"C{i}", label=name, marker="."
        )
        right.plot(
            pairs,
            [one.get("bm25 recall@10", math.nan) for one in told],
            color=f"C{i}",
            linestyle=":",
            label=f"{name}, BM25",
        )
    left.set(title="Loss", xlabel="pairs seen")
    right.set(title="Recall@10, held-out training queries", xlabel="pairs seen", ylim=(0, 1))
    for axes in (left, right):
        axes.axvline(
            next(point["pairs"] for point in history if point["step"] == kept),
            color="black",
            linewidth=0.8,
            label="the step that is kept",
        )
        axes.grid(alpha=0.3)
        axes.legend(frameon=False, fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.15), ncols=2)
    figure.savefig(path, dpi=110)
    return True
