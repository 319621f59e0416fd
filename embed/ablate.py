"""What captions, board titles and engaged queries are worth: trains with some of the fields, and compares.

Each set of fields (an "arm") is trained with several seeds. Arms are compared seed by seed.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypedDict

import numpy as np

from ..common.files import write_whole
from ..common.terminal import OnStep, no_step, plural
from .bm25 import KINDS
from .checkpoint import check_writable
from .controls import Control
from .errors import EmbedError
from .model import EmbeddingModel
from .options import TrainOptions
from .pairs import QUERY_QUERY, Pairs
from .ranking import candidates_of, known_positives, measures, ranks
from .reader import FIELDS, Export
from .scores import Embedded, bm25_scores
from .slices import groups
from .training import train

NATIVE = ("title", "description")
CAPTIONED = (*NATIVE, "caption")
ARMS: dict[str, tuple[tuple[str, ...], dict[str, Control]]] = {  # {arm: (fields, controls)}
    "native text": (NATIVE, {}),
    "+ captions": (CAPTIONED, {}),
    "+ board titles": ((*NATIVE, "board_titles"), {}),
    "+ engaged queries": ((*NATIVE, "engaged_queries"), {}),
    "all": (FIELDS, {}),
    # The caption of another item, a new one each time: nothing can be learned from it.
    "+ captions, reshuffled": (CAPTIONED, {"caption": "reshuffled"}),
    # Always the same other item's: it says nothing about the item, but tells items apart and can be
    # remembered.
    "+ captions, shuffled once": (CAPTIONED, {"caption": "shuffled"}),
    # The same, without the words of other items.
    "+ random words": (CAPTIONED, {"caption": "random words"}),
}
ALL, WITH, WITHOUT = "all pairs", "items with native text", "items without"  # the groups of pairs
# 97.5% quantiles of Student's t distribution, by degrees of freedom
T_95 = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776, 5: 2.571, 6: 2.447, 7: 2.365, 8: 2.306, 9: 2.262}

Difference = list[float | None]  # [mean, low, high]; a single seed has no interval: [mean, None, None]


# Of one arm.
ArmResult = TypedDict(
    "ArmResult",
    {
        "fields": tuple[str, ...],
        "recall@10": dict[str, list[float]],  # {group: [mean over the seeds, then the value of each seed]}
        "bm25": dict[str, float],  # {group: Recall@10 of BM25 with the same fields}
        "difference": dict[str, Difference],  # {group: to the first arm}; empty for the first arm
    },
)

# What `ablate` returns. All but the plot is in OUT/ablation.json.
AblationResult = TypedDict(
    "AblationResult",
    {
        "export": str,
        "seeds": int,
        "pairs": dict[str, int],  # {group: pairs}
        "arms": dict[str, ArmResult],
        "captions beyond": dict[str, dict[str, Difference]],  # {control: {group: captions less the control}}
        "plot": str | None,  # the path of the picture; None without matplotlib
    },
)


class _Measured(TypedDict):
    """Recall@10 after one training. It is kept beside the model as recall.json."""

    model: dict[str, float]  # {group: value}
    bm25: dict[str, float]
    pairs: dict[str, int]


def ablate(
    export: str | Path,
    out: str | Path,
    options: TrainOptions | None = None,
    *,
    seeds: int = 5,
    arms: Sequence[str] | None = None,
    workers: int = 1,
    on_step: OnStep = no_step,
) -> AblationResult:
    """Trains each arm with each seed below `out`, and measures Recall@10 on the split test.

    Query-pin and query-product pairs count together. `arms` are names of ARMS; the others are compared with
    the first one. By default they are all whose fields the export has. Differences are paired by seed and
    have 95% t-intervals. Finished trainings are kept: a call that was stopped goes on after the last one.

    Raises EmbedError, before anything is trained, for an export without test pairs or an `out` that cannot be
    written.
    """
    options, out, data = options or TrainOptions(), Path(out), Export(export)
    if not set(Pairs.load(data, "test").tasks) - {QUERY_QUERY}:
        raise EmbedError(
            f"{export} has no pairs of queries and items in its split test: "
            "export with an earlier --test-from"
        )
    check_writable(out)
    arms = arms_of(data) if arms is None else arms
    results: dict[str, ArmResult] = {}
    for i, arm in enumerate(arms):
        measured = []
        for seed in range(seeds):
            on_step("trainings", i * seeds + seed, len(arms) * seeds)
            measured.append(_train_and_measure(export, out, options, arm, seed, workers))
        recalls = {
            group: [round(one["model"][group], 4) for one in measured] for group in measured[0]["model"]
        }
        first = results[arms[0]]["recall@10"] if i else {}
        results[arm] = {
            "fields": ARMS[arm][0],
            "recall@10": {
                group: [round(float(np.mean(values)), 4), *values] for group, values in recalls.items()
            },
            "bm25": measured[0]["bm25"],
            "difference": {group: difference(recalls[group], values[1:]) for group, values in first.items()},
        }
    on_step("trainings", len(arms) * seeds, len(arms) * seeds)
    result: AblationResult = {
        "export": str(export),
        "seeds": seeds,
        "pairs": measured[0]["pairs"],
        "arms": results,
        "captions beyond": _captions_beyond(results),
        "plot": None,
    }
    stored = {name: value for name, value in result.items() if name != "plot"}
    write_whole(out / "ablation.json", json.dumps(stored, ensure_ascii=False, indent=1) + "\n")
    if draw(result, out / "ablation.png"):
        result["plot"] = str(out / "ablation.png")
    return result


def arms_of(export: Export) -> list[str]:
    """The arms whose fields the export has; "all" needs two of captions, board titles and queries."""
    missing = {name for name in FIELDS if name not in NATIVE and not len(export.rows_with(name))}
    return [
        name
        for name, (fields, _) in ARMS.items()
        if (len(missing) < 2 if name == "all" else not missing.intersection(fields))
    ]


def difference(values: Sequence[float], others: Sequence[float]) -> Difference:
    """[mean, low, high] of values - others, paired, with a 95% t-interval.

    One pair gives [mean, None, None].
    """
    differences = np.array(values) - np.array(others)
    n = len(differences)
    mean = float(differences.mean())
    if n == 1:
        return [round(mean, 4), None, None]
    half = T_95.get(n - 1, 1.96) * float(differences.std(ddof=1)) / math.sqrt(n)
    return [round(mean, 4), round(mean - half, 4), round(mean + half, 4)]


def _captions_beyond(results: Mapping[str, ArmResult]) -> dict[str, dict[str, Difference]]:
    """How much better captions are than each of their controls: what they say, beyond that they are there."""
    if "+ captions" not in results:
        return {}
    captions = results["+ captions"]["recall@10"]
    return {
        arm: {
            group: difference(values[1:], result["recall@10"][group][1:])
            for group, values in captions.items()
        }
        for arm, result in results.items()
        if ARMS[arm][1]
    }


def _train_and_measure(
    export: str | Path, out: Path, options: TrainOptions, arm: str, seed: int, workers: int
) -> _Measured:
    fields, controls = ARMS[arm]
    folder = out / f"{'-'.join(re.findall('[a-z]+', arm.replace('+', 'plus')))}-{seed}"
    own_options = replace(options, fields=fields, controls=tuple(controls.items()), seed=seed)
    train(export, folder, own_options, workers=workers)
    path = folder / "recall.json"
    if not path.exists():
        data = Export(export, fields, controls=controls, seed=seed)
        write_whole(path, json.dumps(_measure(EmbeddingModel.load(folder), data)))
    measured: _Measured = json.loads(path.read_text())
    return measured


def _measure(model: EmbeddingModel, export: Export) -> _Measured:
    pairs = Pairs.load(export, "test")
    both_splits = [pairs.tasks, pairs.tasks_of(Pairs.load(export, "train"))]
    embedded = Embedded(model, export, pairs.queries)
    hits: dict[str, dict[str, list[np.ndarray]]] = {"model": {}, "bm25": {}}
    for name, task in pairs.tasks.items():
        if name == QUERY_QUERY:
            continue
        candidates, known = candidates_of(task, None), known_positives(both_splits, name)
        by_item = groups(export, task, pairs.details[name])["item"]
        masks = {
            ALL: np.ones(len(task), bool),
            WITH: by_item.get("with native text"),
            WITHOUT: by_item.get("without native text"),
        }
        for who, scores in (
            ("model", embedded.scores(task, candidates, model.dim)),
            ("bm25", bm25_scores(export, pairs, task, candidates, kind=KINDS[-1])),
        ):
            hit = measures(ranks(scores, task, candidates, known))["recall@10"]
            for group, mask in masks.items():
                if mask is not None:
                    hits[who].setdefault(group, []).append(hit[mask])

    def means(of_groups: dict[str, list[np.ndarray]]) -> dict[str, float]:
        return {group: round(float(np.concatenate(parts).mean()), 4) for group, parts in of_groups.items()}

    counts = {group: sum(map(len, parts)) for group, parts in hits["model"].items()}
    return {"model": means(hits["model"]), "bm25": means(hits["bm25"]), "pairs": counts}


def draw(result: AblationResult, path: Path) -> bool:
    """Draws Recall@10 of each arm: a bar for the mean, a dot for each seed, a line for BM25.

    Returns False, and draws nothing, if matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return False
    arms, shown = result["arms"], [group for group in (ALL, WITH, WITHOUT) if group in result["pairs"]]
    figure = Figure(figsize=(4 * len(shown), 0.45 * len(arms) + 1.4), layout="constrained")
    for axes, group in zip(figure.subplots(1, len(shown), sharey=True, squeeze=False)[0], shown, strict=True):
        for place, arm in enumerate(arms.values()):
            mean, *values = arm["recall@10"][group]
            axes.barh(place, mean, color="C0", alpha=0.35)
            axes.plot(values, [place] * len(values), "o", color="C0", markersize=3)
            axes.plot([arm["bm25"][group]] * 2, [place - 0.4, place + 0.4], color="black", linewidth=1.2)
        axes.set(
            title=f"{group} ({plural(result['pairs'][group], 'pair')})",
            xlabel="Recall@10 (line: BM25)",
            xlim=(0, 1),
            yticks=range(len(arms)),
            yticklabels=list(arms),
        )
        axes.set_ylim(len(arms) - 0.5, -0.5)
        axes.grid(axis="x", alpha=0.3)
    figure.savefig(path, dpi=110)
    return True
