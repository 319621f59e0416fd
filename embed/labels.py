"""Labels of items and of queries, for a probe: the values of a column of an export."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ..common.terminal import plural
from .errors import EmbedError
from .pairs import QUERY_QUERY, Pairs
from .reader import Export

On = Literal["items", "queries"]
MOST_LABELS = 1_000  # that a probe takes
LEAST = 5  # items that a label needs, so that each of the five folds has one


@dataclass
class Labelled:
    """Some items (by row) or queries (by place), and the label of each."""

    places: np.ndarray  # int64 [n], ascending
    labels: np.ndarray  # int64 [n]: numbers of `names`
    names: list[str]  # the most frequent label first


def label_column(export: Export, label: str) -> pa.Array:
    """The label of each item as text [rows]; an empty text and NaN are null. Raises EmbedError."""
    if label not in export.rows.column_names:
        single = [
            field.name
            for field in export.rows.data.table.schema
            if not pa.types.is_nested(field.type) and field.name != "pin_id"
        ]
        raise EmbedError(
            f"{export.folder} has no column {label}: --label is one of {', '.join(single)}, "
            "or another column that you add to it"
        )
    column = export.rows.data.column(label)
    if pa.types.is_nested(column.type):
        raise EmbedError(
            f"{label} holds lists or objects, and a label is one value for each item: choose another --label"
        )
    try:
        texts = pa.concat_arrays([*column.cast(pa.string()).chunks, pa.array([], pa.string())])
    except pa.ArrowException:  # bytes, for instance
        raise EmbedError(
            f"{label} holds values that are no text ({column.type}): choose another --label"
        ) from None
    none = pc.equal(pc.utf8_trim_whitespace(texts), "")
    if pa.types.is_floating(column.type):
        none = pc.or_(none, pc.equal(texts, "nan"))  # what pandas writes for a missing number
    return pc.if_else(none, pa.scalar(None, pa.string()), texts)


def labels_of_queries(
    pairs: Pairs, column: pa.Array, left_out: dict[str, int]
) -> tuple[np.ndarray, pa.Array]:
    """The places of the queries of pairs with items, and the label that most of its items have.

    A query with two labels that are equally frequent is left out, and counted.
    """
    known = np.unique(
        np.concatenate([task.known for name, task in pairs.tasks.items() if name != QUERY_QUERY])
    )
    query, item = known >> 32, known & (2**32 - 1)
    encoded = column.dictionary_encode()
    code = pc.fill_null(encoded.indices, -1).to_numpy(zero_copy_only=False).astype(np.int64)[item]
    counted, counts = np.unique(query[code >= 0] << 32 | code[code >= 0], return_counts=True)
    order = np.lexsort((-counts, counted >> 32))  # by query, its most frequent label first
    of, found, counts = (counted >> 32)[order], (counted & (2**32 - 1))[order], counts[order]
    first = np.append(True, of[1:] != of[:-1]) if len(of) else np.empty(0, bool)
    tied = np.append((of[1:] == of[:-1]) & (counts[1:] == counts[:-1]), False) if len(of) else first
    places = np.unique(query)
    labels = np.full(len(places), -1)
    labels[np.searchsorted(places, of[first])] = found[first]
    kept = ~np.isin(places, of[first & tied])
    left_out["with two labels equally frequent"] = int((~kept).sum())
    texts = encoded.dictionary.take(pa.array(labels[kept], mask=labels[kept] < 0))
    return places[kept], texts


def frequent_labels(
    places: np.ndarray, values: pa.Array, least: int, left_out: dict[str, int], what: str, on: On
) -> Labelled:
    """The items or queries whose label at least `least` have. Raises EmbedError for fewer than two labels."""
    counted = sorted(
        ((entry["counts"], entry["values"]) for entry in pc.value_counts(values).to_pylist()),
        key=lambda entry: (-entry[0], entry[1]),
    )
    names = [name for count, name in counted if count >= least]
    if len(names) < 2:
        raise EmbedError(
            f"{what} has {plural(len(names), 'label')} that at least {least} {on} have, and a probe needs "
            f"two: choose another --label{', or a lower --min' if least > LEAST else ''}"
        )
    if len(names) > MOST_LABELS:
        raise EmbedError(
            f"{what} has {len(names):,} labels that at least {least} {on} have, and "
            f"a probe takes {MOST_LABELS:,}: choose another --label, or a higher --min"
        )
    number = pc.fill_null(pc.index_in(values, value_set=pa.array(names)), -1).to_numpy(zero_copy_only=False)
    kept = number >= 0
    left_out[f"with a label that fewer than {least} have"] = int((~kept).sum())
    return Labelled(places[kept], number[kept].astype(np.int64), names)
