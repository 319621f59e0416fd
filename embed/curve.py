"""The picture of a learning curve."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from .history import CurvePoint


def draw_curve(points: Sequence[CurvePoint], kept_step: int, path: Path) -> bool:
    """Draws loss and recall of each task over the pairs seen, and marks the step that is kept.

    Returns False, and draws nothing, if matplotlib is not installed, or if there are fewer than three points:
    the trainings of an ablation have the first and the last one alone.
    """
    if len(points) < 3:
        return False
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return False
    figure = Figure(figsize=(9, 4.2), dpi=110)
    left, right = figure.subplots(1, 2)
    pairs = [point["pairs"] for point in points]
    for name in points[-1]["loss"]:
        left.plot(pairs, [point["loss"].get(name, math.nan) for point in points], label=name, marker=".")
    validations = [point.get("validation", {}) for point in points]
    for i, name in enumerate(sorted({name for validation in validations for name in validation})):
        ours = [v[name]["recall@10"] if name in v else math.nan for v in validations]
        bm25 = [v[name]["bm25 recall@10"] if name in v else math.nan for v in validations]
        right.plot(pairs, ours, color=f"C{i}", label=name, marker=".")
        right.plot(pairs, bm25, color=f"C{i}", linestyle=":", label=f"{name}, BM25")
    left.set(title="Loss", xlabel="pairs seen")
    right.set(title="Recall@10, held-out training queries", xlabel="pairs seen", ylim=(0, 1))
    kept_pairs = next(point["pairs"] for point in points if point["step"] == kept_step)
    # A layout="constrained" would take half of the time.
    figure.subplots_adjust(left=0.07, right=0.98, top=0.9, bottom=0.32, wspace=0.18)
    for axes in (left, right):
        axes.axvline(kept_pairs, color="black", linewidth=0.8, label="the step that is kept")
        axes.grid(alpha=0.3)
        axes.legend(frameon=False, fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.15), ncols=2)
    figure.savefig(path, dpi=110)
    return True
