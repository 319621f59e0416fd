"""Vectors that another model made of pins (PinSage, ItemSage, CLIP, ...), to be exported with their texts."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any, TypedDict

import numpy as np

from ..common.terminal import OnStep, no_step
from ..sources.cells import RowError, identifier, is_placeholder, row_as_json
from ..sources.columns import ColumnsRead, Wanted
from ..sources.read_as import AS_NAMED, ReadAs
from ..sources.report import Reading, ReadReport
from ..sources.rows import BadRow, Rows, Unreadable, is_missing
from ..sources.tables import check_columns, read_wanted, tables_of
from ..store import Connection
from ..store.columns import COLUMNS, OMNISEARCHSAGE
from ..store.connection import StoreError, transaction
from ..store.embeddings import count_without_pin, dimension_of, upsert_vectors
from ..store.rejected import forget_rejected, keep_rejected
from ..store.runs import finish_run, start_run
from .repeated_ids import IdsRead

FIELDS = ("pin_id", "vector")
MAX_DIM = 65_536
# Columns of an export. In lower case, because readers such as DuckDB do not tell columns apart by case.
RESERVED = {*COLUMNS, *OMNISEARCHSAGE.values()}
_BRACKETS = {("[", "]"), ("(", ")"), ("{", "}")}
_NUMPY_NUMBER = re.compile(r"np\.float\d+\(([^()]*)\)")  # in a list that numpy 2 prints
_PRINTED_ARRAY = re.compile(  # as numpy and torch print an array within others
    r"(?:np\.|numpy\.|torch\.)?(?:array|tensor)\((\[[^\[\]]*\])(?:,\s*(?:dtype|device)=[\w.:\'\"]*)*\)"
)
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,62}")


class VectorCounts(TypedDict):
    """What became of the rows of an ingest of vectors. `captioner ingest embeddings --json` prints it."""

    rows_read: int
    vectors: int  # of as many pins; a pin of several rows has the vector of the last one
    dim: int | None  # numbers in a vector; None if there is no vector of this name
    repeated: int  # rows whose pin another row has, too, without the last one, which counts
    rejected: int
    reasons: dict[str, int]  # reason -> rejected rows, most frequent first
    pins_not_in_store: int  # vectors of this name whose pin is not in the store
    columns: ReadReport  # what was read as what, and what was ignored


def ingest_embeddings(
    conn: Connection,
    sources: Iterable[str],
    name: str,
    *,
    columns: Mapping[str, str] | None = None,
    read_as: ReadAs = AS_NAMED,
    on_step: OnStep = no_step,
) -> VectorCounts:
    """Reads tables of pin_id and vector (a list of numbers) into the table `embeddings` under `name`.

    A vector that is there already is replaced. All vectors of a name have one dimension: that of the store's
    vectors, or else the most frequent one of the first few thousand rows. Vectors of another dimension, with
    NaN or with numbers beyond float16 (65,504) are rejected rows. `columns` maps fields to columns of other
    names, and `read_as` says how files are written.

    Raises StoreError if `name` cannot be the name of an embedding, and SourceError, at the end also for a
    source all of whose rows were rejected.
    """
    sources, columns = list(sources), dict(columns or {})
    if not _NAME.fullmatch(name) or name.lower() in RESERVED:
        raise StoreError(
            f"{name!r} cannot be the name of an embedding: take letters, digits and _, "
            "and no column of the features, for instance pinsage"
        )
    reading = Reading(Wanted(FIELDS, columns, FIELDS, read_as))
    check_columns(sources, reading.wanted)
    arguments = {"sources": sources, "name": name, "map": columns} | read_as.as_json()
    run_id = start_run(conn, "ingest embeddings", arguments)
    with transaction(conn):
        forget_rejected(conn, tables_of(sources, read_as))
    dim: int | None = None
    ids, reasons = IdsRead(), Counter[str]()
    on_step("reading", 0, None)
    for rows in read_wanted(sources, reading.wanted, reading.report):
        if isinstance(rows, ColumnsRead):
            reading.columns(rows)
            continue
        with transaction(conn):  # the dimension is read within it, so that no other process decides it too
            dim = dimension_of(conn, name)
            vectors: list[tuple[str, bytes]] = []
            rejected = [rows] if isinstance(rows, BadRow) else []
            if isinstance(rows, Rows):
                dim, vectors, rejected = _vectors_of(rows, dim)
            if dim:
                upsert_vectors(conn, name, dim, vectors)
            keep_rejected(conn, rejected, run_id)
        reading.rows(rows.source, len(vectors), (row.reason for row in rejected))
        ids.add(pin_id for pin_id, _ in vectors)
        reasons.update(row.reason for row in rejected)
        on_step("reading", len(ids) + reasons.total(), None)
    repeated = ids.repeated()
    counts = VectorCounts(
        rows_read=len(ids) + reasons.total(),
        vectors=len(ids) - repeated,
        dim=dim,
        repeated=repeated,
        rejected=reasons.total(),
        reasons=dict(reasons.most_common()),
        pins_not_in_store=count_without_pin(conn, name),
        columns=reading.report.as_json(),
    )
    finish_run(conn, run_id, counts)
    if failure := reading.failure():
        raise failure
    return counts


def _vectors_of(rows: Rows, dim: int | None) -> tuple[int | None, list[tuple[str, bytes]], list[BadRow]]:
    """The dimension, (pin_id, float16 bytes) of good rows, and bad rows. Without `dim` the rows decide it."""
    missing = [None] * len(rows.lines)
    pin_ids = rows.columns.get("pin_id", missing)
    vectors = [_numbers(cell) for cell in rows.columns.get("vector", missing)]
    if dim is None:
        sizes = Counter(
            len(vector) for vector in vectors if isinstance(vector, np.ndarray) and 0 < len(vector) <= MAX_DIM
        )
        dim = sizes.most_common(1)[0][0] if sizes else None
    good, bad = [], []
    for i, (line, pin_id, vector) in enumerate(zip(rows.lines, pin_ids, vectors, strict=True)):
        try:
            good.append((identifier(pin_id), _half_precision(vector, dim)))
        except RowError as error:
            bad.append(BadRow(rows.source, line, str(error), row_as_json(rows.columns, i)))
    return dim, good, bad


def _numbers(cell: Any) -> np.ndarray | str:
    """The numbers of a cell, or why it has none."""
    if isinstance(cell, np.ndarray):
        return cell
    if isinstance(cell, Unreadable):
        return f"vector is {cell.reason}"
    if is_missing(cell) or (isinstance(cell, str) and is_placeholder(cell)):
        return "no vector"
    try:
        if isinstance(cell, str):
            cell = _numbers_of_text(cell.strip())
        if not isinstance(cell, (list, tuple)) or any(
            isinstance(number, (str, bool, list, dict)) for number in cell
        ):
            raise TypeError
        return np.array([np.nan if number is None else number for number in cell], dtype=float)
    except RowError as error:
        return str(error)
    except (ValueError, TypeError, OverflowError, RecursionError):
        return "the vector is no list of numbers"


def _numbers_of_text(text: str) -> Any:
    """The list that a text writes: JSON, numpy's `[ 0.5   0.25 -1.  ]`, `{1,2}` of Postgres, `1,2` or `1 2`.

    Raises RowError for a vector that was cut when it was printed, ValueError for other texts.
    """
    if "..." in text or "\u2026" in text:
        raise RowError("the vector was cut when it was printed (it has ...): write out all its numbers")
    if text.startswith("["):
        try:
            return json.loads(text)
        except ValueError:
            pass
    text = _NUMPY_NUMBER.sub(r"\1", text)
    if match := _PRINTED_ARRAY.fullmatch(text):
        text = match[1]
    if (text[0], text[-1]) in _BRACKETS:
        text = text[1:-1]
    if "_" in text:  # which Python takes for a digit's neighbour
        raise ValueError
    separator = "," if "," in text else ";" if ";" in text else None
    return [float(number) for number in text.split(separator)]


def _half_precision(vector: np.ndarray | str, dim: int | None) -> bytes:
    """The vector as float16 numbers, little-endian. Raises RowError, also for a text, which is the reason."""
    if isinstance(vector, str):
        raise RowError(vector)
    if not dim:
        raise RowError(f"the vector has no numbers, or more than {MAX_DIM:,}")
    if len(vector) != dim:
        raise RowError(f"the vector has another size than the {dim} numbers of the others")
    with np.errstate(over="ignore"):
        half = vector.astype("<f2")
    if not np.isfinite(half).all():
        raise RowError("the vector has a number that is NaN, infinite or beyond float16")
    return half.tobytes()
