"""What captions, board titles and engaged queries are worth: the same training with some of the fields, over
several seeds, compared pair by pair.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ..common.files import write_whole
from .checkpoint import check_writable
from .controls import Control
from .errors import EmbedError
from .model import Model
from .options import TrainOptions
from .pairs import QUERY_QUERY, Pairs
from .ranking import index_of, known_positives, measures, ranks
from .reader import FIELDS, Export
from .recall import groups
from .scores import Encoded, bm25_scores
from .training import train

NATIVE = ("title", "description")
CAPTIONED = (*NATIVE, "caption")
ARMS: dict[str, tuple[tuple[str, ...], dict[str, Control]]] = {  # name: (fields, controls)
    "native text": (NATIVE, {}),
    "+ captions": (CAPTIONED, {}),
    "+ board titles": ((*NATIVE, "board_titles"), {}),
    "+ engaged queries": ((*NATIVE, "engaged_queries"), {}),
    "all": (FIELDS, {}),
    # what a field adds that says nothing: another item's, another one each time
    "+ captions, reshuffled": (CAPTIONED, {"caption": "reshuffled"}),
    # says nothing, but tells items apart, and can be remembered
    "+ captions, shuffled once": (CAPTIONED, {"caption": "shuffled"}),
    "+ random words": (CAPTIONED, {"caption": "random words"}),  # the same, without the words of other items
}
ALL, WITH, WITHOUT = "all pairs", "items with native text", "items without"
# Student's t, 97.5%, by degrees of freedom
T_95 = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776, 5: 2.571, 6: 2.447, 7: 2.365, 8: 2.306, 9: 2.262}

OnStep = Callable[[str, int, int], None]


def ablate(
    folder: str | Path,
    out: str | Path,
    options: TrainOptions,
    *,
    seeds: int = 5,
    arms: Sequence[str] | None = None,
    workers: int = 1,
    on_step: OnStep = lambda what, done, total: None,
) -> dict[str, Any]:
    """Trains every arm with every seed below `out`, and measures Recall@10 of query-pin and query-product
    pairs of the split test together.

    `arms`: names of ARMS, the first of them is what the others are compared with; without them all whose
    fields the export has. Returns {"seeds", "arms": {arm: {"fields", "recall@10": {group: [mean over seeds,
    ...by seed]}, "bm25": {group: value}, "difference": {group: [mean, low, high]}}}, "captions beyond":
    {control: {group: [mean, low, high]}}, "plot": path, or None without matplotlib}: differences to native
    text alone, and of captions to their controls, paired by seed, with a 95% t-interval. What is done is
    kept: a call that was stopped goes on after the last training that was done. Raises EmbedError, for what
    cannot be measured or written before anything is trained.
    """
    out, found, export = Path(out), dict[str, Any](), Export(folder)
    if not set(Pairs.load(export, "test").tasks) - {QUERY_QUERY}:
        raise EmbedError(
            f"{folder} has no pairs of queries and items in its split test: export with an earlier --test-from"
        )
    check_writable(out)
    arms = arms_of(export) if arms is None else arms
    for i, arm in enumerate(arms):
        fields, controls = ARMS[arm]
        measured = []
        for seed in range(seeds):
            on_step("trainings", i * seeds + seed, len(arms) * seeds)
            name = f"{'-'.join(re.findall('[a-z]+', arm.replace('+', 'plus')))}-{seed}"
            own = replace(options, fields=fields, controls=tuple(controls.items()), seed=seed)
            train(folder, out / name, own, workers=workers)
            kept = out / name / "recall.json"
            if not kept.exists():
                told = _measure(Model.load(out / name), Export(folder, fields, controls=controls, seed=seed))
                write_whole(kept, json.dumps(told))
            measured.append(json.loads(kept.read_text()))
        values = {
            group: [round(one["model"][group], 4) for one in measured] for group in measured[0]["model"]
        }
        found[arm] = {
            "fields": fields,
            "recall@10": {group: [round(float(np.mean(some)), 4), *some] for group, some in values.items()},
            "bm25": measured[0]["bm25"],
        }
        found[arm]["difference"] = (
            {
                group: difference(some, found[arms[0]]["recall@10"][group][1:])
                for group, some in values.items()
            }
            if i
            else {}
        )
    on_step("trainings", len(arms) * seeds, len(arms) * seeds)
    controls_of = [arm for arm in arms if ARMS[arm][1]]
    beyond = {
        arm: {
            group: difference(some[1:], found[arm]["recall@10"][group][1:])
            for group, some in found["+ captions"]["recall@10"].items()
        }
        for arm in controls_of
        if "+ captions" in found
    }
    result = {
        "export": str(folder),
        "seeds": seeds,
        "pairs": measured[0]["pairs"],
        "arms": found,
        "captions beyond": beyond,
    }
    write_whole(out / "ablation.json", json.dumps(result, ensure_ascii=False, indent=1) + "\n")
    return result | {"plot": str(out / "ablation.png") if draw(result, out / "ablation.png") else None}


def arms_of(export: Export) -> list[str]:
    """The arms whose fields some item of the export has; "all" where it is more than one of them."""
    missing = {name for name in FIELDS if name not in NATIVE and not export.has(name)}
    having = [name for name, (fields, _) in ARMS.items() if name == "all" or not missing.intersection(fields)]
    return [name for name in having if name != "all" or len(missing) < 2]


def difference(values: Sequence[float], others: Sequence[float]) -> list[float | None]:
    """[mean, low, high] of values - others, paired, with a 95% t-interval; of one pair there is none: [mean,
    None, None].
    """
    gaps = np.array(values) - np.array(others)
    n = len(gaps)
    mean = float(gaps.mean())
    if n == 1:
        return [round(mean, 4), None, None]
    half = T_95.get(n - 1, 1.96) * float(gaps.std(ddof=1)) / math.sqrt(n)
    return [round(mean, 4), round(mean - half, 4), round(mean + half, 4)]


def _measure(model: Model, export: Export) -> dict[str, Any]:
    pairs = Pairs.load(export, "test")
    both = [pairs.tasks, pairs.with_queries_of(Pairs.load(export, "train"))]
    encoded = Encoded(model, export, pairs.queries)
    hits: dict[str, dict[str, list[np.ndarray]]] = {"model": {}, "bm25": {}}
    for name, task in pairs.tasks.items():
        if name == QUERY_QUERY:
            continue
        index, known = index_of(task, None), known_positives(both, name)
        by_item = groups(export, task, pairs.details[name])["item"]
        masks = {
            ALL: np.ones(len(task), bool),
            WITH: by_item.get("with native text"),
            WITHOUT: by_item.get("without native text"),
        }
        for who, scores in (
            ("model", encoded.scores(task, index, model.sizes.dim)),
            ("bm25", bm25_scores(export, pairs, task, index)),
        ):
            hit = measures(ranks(scores, task, index, known))["recall@10"]
            for group, mask in masks.items():
                if mask is not None:
                    hits[who].setdefault(group, []).append(hit[mask])
    told: dict[str, Any] = {
        who: {group: round(float(np.concatenate(some).mean()), 4) for group, some in by.items()}
        for who, by in hits.items()
    }
    return told | {"pairs": {group: sum(map(len, some)) for group, some in hits["model"].items()}}


def draw(result: Mapping[str, Any], path: Path) -> bool:
    """Recall of every arm, a dot for each seed, a bar at the mean, a line where BM25 is.

    False where matplotlib is missing.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return False
    arms, shown = result["arms"], [group for group in (ALL, WITH, WITHOUT) if group in result["pairs"]]
    figure = Figure(figsize=(4 * len(shown), 0.45 * len(arms) + 1.4), layout="constrained")
    for axes, group in zip(figure.subplots(1, len(shown), sharey=True, squeeze=False)[0], shown, strict=True):
        for place, told in enumerate(arms.values()):
            mean, *values = told["recall@10"][group]
            axes.barh(place, mean, color="C0", alpha=0.35)
            axes.plot(values, [place] * len(values), "o", color="C0", markersize=3)
            axes.plot([told["bm25"][group]] * 2, [place - 0.4, place + 0.4], color="black", linewidth=1.2)
        axes.set(
            title=f"{group} ({result['pairs'][group]:,} pairs)",
            xlabel="Recall@10 (line: BM25)",
            xlim=(0, 1),
            yticks=range(len(arms)),
            yticklabels=list(arms),
        )
        axes.set_ylim(len(arms) - 0.5, -0.5)
        axes.grid(axis="x", alpha=0.3)
    figure.savefig(path, dpi=110)
    return True
