"""The weight of the fusion, tuned on held-out queries."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pincaption.embed import fusion
from pincaption.embed.errors import EmbedError
from pincaption.embed.fusion import UNTUNED, WEIGHTS, Fusion, tune_fusion
from pincaption.embed.pairs import QUERY_PIN, Task
from pincaption.embed.ranking import Candidates, Scores, measures, ranks
from pincaption.embed.scores import fused

N_QUERIES, N_ITEMS = 30, 60
RNG = np.random.default_rng(3)
RIGHT = RNG.integers(0, N_ITEMS, N_QUERIES)
TASK = Task(QUERY_PIN, np.arange(N_QUERIES), RIGHT, np.ones(N_QUERIES), np.arange(N_ITEMS))
INDEX = Candidates(np.arange(N_ITEMS))


def noisy(signal: float, seed: int) -> Scores:
    table = torch.from_numpy(np.random.default_rng(seed).normal(size=(N_QUERIES, N_ITEMS)))
    table[torch.arange(N_QUERIES), torch.from_numpy(RIGHT)] += signal
    return lambda places: table[torch.from_numpy(places)]


def recall(scores: Scores) -> float:
    return float(measures(ranks(scores, TASK, INDEX, TASK.known))["recall@10"].mean())


def test_the_weight_is_the_best_of_the_grid(monkeypatch: pytest.MonkeyPatch) -> None:
    model, words, stems = noisy(1.2, 0), noisy(0.5, 1), noisy(1.5, 2)
    found = tune_fusion(model, {"words": words, "stems": stems}, TASK, INDEX, TASK.known)
    assert found.kind == "stems"
    recalls = [recall(fused(model, stems, weight)) for weight in WEIGHTS]
    best = [weight for weight, value in zip(WEIGHTS, recalls, strict=True) if value == max(recalls)]
    assert found.weight == min(best, key=lambda weight: (round(abs(weight - 0.5), 6), weight))
    assert found.recall == pytest.approx(max(recalls), abs=1e-4)
    assert found.recall > max(recall(model), recall(stems))
    # In blocks of seven queries the result is the same.
    monkeypatch.setattr(fusion, "BLOCK_BYTES", 4 * N_ITEMS * 7)
    assert tune_fusion(model, {"words": words, "stems": stems}, TASK, INDEX, TASK.known) == found


def test_ties_go_to_the_middle_and_to_the_later_kind() -> None:
    perfect = noisy(100, 0)
    kinds: dict[fusion.Kind, Scores] = {"words": perfect, "stems and trigrams": perfect, "stems": perfect}
    assert tune_fusion(perfect, kinds, TASK, INDEX, TASK.known) == Fusion("stems and trigrams", 0.5, 1.0)


def test_nothing_held_out_gives_the_usual_weight() -> None:
    nothing = Task(QUERY_PIN, *(np.empty(0, np.int64),) * 2, np.empty(0), np.arange(N_ITEMS))
    assert tune_fusion(noisy(1, 0), {"words": noisy(1, 1)}, nothing, INDEX, nothing.known) == UNTUNED


def test_a_model_keeps_its_fusion() -> None:
    tuned = Fusion("stems", 0.35, 0.5)
    assert Fusion.of({"fusion": tuned.as_dict()}) == tuned
    assert Fusion.of({}) == UNTUNED


@pytest.mark.parametrize(
    "saved",
    [
        {"kind": "guesses", "weight": 0.5, "recall": None},
        {"kind": "words", "weight": 2, "recall": None},
        {"kind": "words", "weight": "much", "recall": None},
        {"kind": "words", "weight": float("nan"), "recall": None},
        {"weight": 0.5},
        "half",
    ],
)
def test_a_fusion_that_no_training_wrote_is_refused(saved: object) -> None:
    with pytest.raises(EmbedError, match="train it again"):
        Fusion.of({"fusion": saved})
