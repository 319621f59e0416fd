"""A probe: how well a label, such as the category, is predicted from the vectors alone.

The classifier is the same for all (logistic.py). Vectors and TF-IDF of the same words stand side by side;
for items, of their native text and of all text. OmniSearchSage (Agarwal et al., WWW '24 Companion) shows such
a classification as a use of its vectors beyond search.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TypedDict

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ..common.terminal import OnStep, no_step
from .bm25 import Batch
from .item_vectors import export_for, shown_fields
from .labels import Labelled, On, frequent_labels, label_column, labels_of_queries
from .logistic import FOLDS, Dense, Matrix, folds_of, most_frequent, out_of_fold
from .model import EmbeddingModel
from .pairs import Pairs
from .probe_scores import Samples, interval
from .reader import Export
from .search import NATIVE
from .tf_idf import tf_idf

LIMIT, LEAST = 20_000, 10  # items that are probed, and items that a label needs
MAJORITY = "most frequent label"

Row = TypedDict(
    "Row",
    {
        "accuracy": list[float],  # [mean, low, high]
        "macro-F1": list[float],
        "accuracy of the part": list[float] | None,  # None if there is no part
    },
)
Difference = TypedDict("Difference", {"accuracy": list[float], "macro-F1": list[float]})


class ProbeResult(TypedDict):
    """What `probe` returns. Intervals are 95%."""

    label: str
    on: On
    count: int  # of the items or queries that were probed
    labels: dict[str, int]  # {label: how many have it}, the most frequent one first
    left_out: dict[str, int]  # {reason: items or queries}
    part: str | None  # which part of the items or queries has an accuracy of its own
    part_count: int
    rows: dict[str, Row]  # {what predicts: how well}
    differences: dict[str, Difference]  # {"one less another": paired}
    notes: list[str]  # sentences for people


def probe(
    model: EmbeddingModel,
    export: str | Path,
    label: str,
    *,
    on: On = "items",
    least: int = LEAST,
    limit: int = LIMIT,
    seed: int = 0,
    on_step: OnStep = no_step,
) -> ProbeResult:
    """How well a column of an export is predicted from the vectors of its items, or of its queries.

    Logistic regression in five folds. The label of a query is the most frequent one among the items of its
    test pairs. Labels that fewer than `least` items (or queries) have are left out. More than `limit` are
    sampled. Raises EmbedError if the export has no such column, or fewer than two labels remain.
    """
    data = export_for(model, export)
    column, left_out, notes = label_column(data, label), dict[str, int](), list[str]()
    if on == "items":
        places, values = np.arange(len(data)), column
        reason = "without a label"
    else:
        pairs = Pairs.load(data, "test")
        places, values = labels_of_queries(pairs, column, left_out)
        reason = "whose items have no label"
    has = values.is_valid().to_numpy(zero_copy_only=False)
    left_out[reason] = int((~has).sum())
    places, values = places[has], values.filter(pa.array(has))
    if len(places) > limit:
        left_out["not sampled"] = len(places) - limit
        chosen = np.sort(np.random.default_rng(seed).choice(len(places), limit, replace=False))
        places, values = places[chosen], values.take(pa.array(chosen))
    labelled = frequent_labels(places, values, least, left_out, f"the column {label} of {data.folder}", on)
    if on == "items":
        if label in model.fields:
            notes.append(f"the model reads {label}, which is the label: this field was left out")
        matrices, part = _of_items(model, data, labelled.places, label, on_step)
        part_name = "items without native text"
    else:
        matrices, part = _of_queries(model, data, pairs, labelled.places, on_step)
        part_name = "queries without training pairs"
    if model.dense and on == "items":
        notes.append(
            f"the vectors also have what the model reads of {', '.join(model.dense)}; TF-IDF has not"
        )
    return _measured(label, on, labelled, matrices, part, part_name, left_out, notes, seed, on_step)


def _of_items(
    model: EmbeddingModel, data: Export, rows: np.ndarray, label: str, on_step: OnStep
) -> tuple[dict[str, Matrix], np.ndarray]:
    """{what predicts: its numbers}, and which of the rows have no native text, bool [rows]."""
    read = [name for name in model.fields if name != label]
    native = [name for name in read if name in NATIVE]
    matrices: dict[str, Matrix] = {}
    for name, fields in (("native text", native), ("all text", read)):
        if not fields or (name == "all text" and fields == native):
            continue
        shown = export_for(model, data.folder, fields)
        vectors = model.embed_items(shown, rows, on_step=on_step).cpu()
        matrices[f"vectors of {name}"] = Dense(vectors)
        matrices[f"TF-IDF of {name}"] = tf_idf(_documents(shown, rows), len(rows))
    with_native = np.concatenate([np.empty(0, np.int64), *(data.rows_with(name) for name in native)])
    return matrices, ~np.isin(rows, with_native)


def _documents(export: Export, rows: np.ndarray) -> list[Batch]:
    """The texts of some rows, as `tf_idf` takes them."""
    batches, done = list[Batch](), 0
    for some in export.batches(rows):
        texts = export.texts(some, shown_fields(export))
        batches.append([(column, parents + done) for column, parents in texts.values()])
        done += len(some)
    return batches


def _of_queries(
    model: EmbeddingModel, data: Export, pairs: Pairs, places: np.ndarray, on_step: OnStep
) -> tuple[dict[str, Matrix], np.ndarray]:
    """{what predicts: its numbers}, and which queries have no training pair, bool [queries]."""
    queries = pairs.queries.take(pa.array(places))
    if isinstance(queries, pa.ChunkedArray):
        queries = queries.combine_chunks()
    on_step("encoding queries", 0, len(queries))
    vectors = model.embed_queries(queries.to_pylist()).cpu()
    new = np.ones(len(queries), bool)
    if data.manifest["pairs"]["pairs"].get("train"):
        new = ~pc.is_in(queries, value_set=Pairs.load(data, "train").queries).to_numpy(zero_copy_only=False)
    documents: list[Batch] = [[(queries, np.arange(len(queries)))]]
    return {"vectors": Dense(vectors), "TF-IDF": tf_idf(documents, len(queries))}, new


def _measured(
    label: str,
    on: On,
    labelled: Labelled,
    matrices: dict[str, Matrix],
    part: np.ndarray,
    part_name: str,
    left_out: dict[str, int],
    notes: Sequence[str],
    seed: int,
    on_step: OnStep,
) -> ProbeResult:
    labels, folds = labelled.labels, folds_of(labelled.labels, seed)
    done, total = 0, FOLDS * len(matrices)

    def on_fold() -> None:
        nonlocal done
        done += 1
        on_step("probing", done, total)

    on_step("probing", 0, total)
    answers = {name: out_of_fold(matrix, labels, folds, on_fold) for name, matrix in matrices.items()}
    answers[MAJORITY] = most_frequent(labels, folds)
    samples = {name: Samples.of(labels, answer, part) for name, answer in answers.items()}
    has_part = LEAST <= part.sum() < len(part)  # of fewer an accuracy says little
    counts = np.bincount(labels, minlength=len(labelled.names)).tolist()
    return {
        "label": label,
        "on": on,
        "count": len(labels),
        "labels": dict(zip(labelled.names, counts, strict=True)),
        "left_out": {reason: n for reason, n in left_out.items() if n},
        "part": part_name if has_part else None,
        "part_count": int(part.sum()) if has_part else 0,
        "rows": {
            name: {
                "accuracy": interval(sample.accuracy),
                "macro-F1": interval(sample.macro_f1),
                "accuracy of the part": interval(sample.part_accuracy) if has_part else None,
            }
            for name, sample in samples.items()
        },
        "differences": {
            f"{one} less {other}": {
                "accuracy": interval(samples[one].accuracy - samples[other].accuracy),
                "macro-F1": interval(samples[one].macro_f1 - samples[other].macro_f1),
            }
            for one, other in _compared(list(matrices))
        },
        "notes": list(notes),
    }


def _compared(names: Sequence[str]) -> list[tuple[str, str]]:
    """Which rows are compared: all text with native text, and vectors with TF-IDF of the same words."""
    wanted = [
        ("vectors of all text", "vectors of native text"),
        ("TF-IDF of all text", "TF-IDF of native text"),
        *((name, name.replace("vectors", "TF-IDF")) for name in names if name.startswith("vectors")),
    ]
    return [(one, other) for one, other in wanted if one in names and other in names]
