"""Vectors in cells of text: JSON, as numpy and Postgres print them, plain numbers; and cut ones."""

import csv
import json
import sqlite3
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pincaption.ingest.embeddings import _numbers, ingest_embeddings


@pytest.mark.parametrize(
    "cell",
    [
        *(
            "[ 0.5   0.25 -1.  ]",
            "[0.5, 0.25, -1]",
            "{0.5,0.25,-1}",
            "0.5,0.25,-1",
            "0.5 0.25 -1",
            "(0.5, 0.25, -1)",
        ),
        *("[0.5\n  0.25\n -1. ]", "0.5;0.25;-1", "array([ 0.5 ,  0.25, -1.  ])", " [5e-1 2.5e-1 -1.e+00] "),
        *("np.array([0.5, 0.25, -1.], dtype=float32)", "tensor([ 0.5000,  0.2500, -1.0000])"),
        "[np.float32(0.5), np.float32(0.25), np.float32(-1.0)]",
    ],
)
def test_a_vector_is_read_as_it_was_printed(cell: str) -> None:
    numbers = _numbers(cell)
    assert not isinstance(numbers, str), numbers
    assert numbers.tolist() == [0.5, 0.25, -1]


@given(st.lists(st.floats(-1000, 1000, width=32), min_size=1, max_size=300))
def test_what_numpy_prints_is_what_is_read(numbers: list[float]) -> None:
    vector = np.array(numbers, dtype=np.float32)
    text = np.array2string(vector, threshold=1000, floatmode="unique")
    read = _numbers(text)
    assert not isinstance(read, str)
    assert np.array_equal(np.asarray(read, np.float32), vector)


CUT = "the vector was cut when it was printed (it has ...): write out all its numbers"
NO_LIST, NAN = (
    "the vector is no list of numbers",
    "the vector has a number that is NaN, infinite or beyond float16",
)


@pytest.mark.parametrize(
    ("cell", "reason"),
    [
        (str(np.arange(2000.0)), CUT),
        ("[0.1, 0.2, …, 0.9]", CUT),
        *(
            (cell, NAN)
            for cell in ("[nan 1 2]", "NaN,1,2", "[inf, 1, 2]", "[1 2 -Infinity]", "{1,NaN,2}", "1e999 1 2")
        ),
        *(
            (cell, NO_LIST)
            for cell in ("1,,2", "[1 2", "1_0 2 3", "[[1 2 3]]", "1, 2 3", "[]]", "a b c", "{1,NULL,2}")
        ),
        *((cell, NO_LIST) for cell in ('["1", "2", "3"]', "0,5;0,25;1")),
        *((cell, "no vector") for cell in ("", " ", "nan", "NULL", "None", "\\N")),
        ("[]", "the vector has another size than the 3 numbers of the others"),
    ],
)
def test_other_cells_are_refused_with_a_reason(
    store: sqlite3.Connection, tmp_path: Path, cell: str, reason: str
) -> None:
    with open(tmp_path / "v.csv", "w", newline="") as file:
        csv.writer(file).writerows([["pin_id", "vector"], ["a", "1 2 3"], ["b", cell]])
    counts = ingest_embeddings(store, [str(tmp_path / "v.csv")], "v")
    assert (counts["vectors"], counts["reasons"]) == (1, {reason: 1})


def test_a_refused_vector_is_shown(store: sqlite3.Connection, tmp_path: Path) -> None:
    (tmp_path / "v.csv").write_text('pin_id,vector\na,1 2 3\n12345678901,"[1780245000 0.25 123456789 x]"\n')
    ingest_embeddings(store, [str(tmp_path / "v.csv")], "v")
    content = json.loads(store.execute("SELECT content FROM rejected_rows").fetchone()[0])
    assert content["pin_id"] == "12345678901"
    assert content["vector"] == "[1780245000 0.25 123456789 x]"
