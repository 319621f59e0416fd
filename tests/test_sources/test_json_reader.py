"""JSON Lines and arrays: which rows come out, and which line a bad row names."""

import io
import json
from pathlib import Path

import pytest

from pincaption.sources import json_reader

from .examples import read, write


def test_bad_json_lines_are_named_by_their_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_reader, "MAX_LINE", 100)
    lines = [
        b'\xef\xbb\xbf{"pin_id": 1, "title": "mug"}',
        b"",
        b"{broken",
        b"[1, 2]",
        b"  ",
        b'{"pin_id": "caf\xe9"}',
        b'{"pin_id": "' + b"x" * 300 + b'"}',
        b'{"pin_id": 7, "other": {}}',
    ]
    (tmp_path / "a.jsonl").write_bytes(b"\r\n".join(lines))
    rows, bad = read(tmp_path / "a.jsonl")
    assert rows == [(1, {"pin_id": 1, "title": "mug"}), (8, {"pin_id": 7})]
    assert bad == [
        (3, "not valid JSON"),
        (4, "not a JSON object"),
        (6, "not valid UTF-8"),
        (7, "the line is too long"),
    ]


def test_a_json_array_is_read_up_to_its_broken_part(tmp_path: Path) -> None:
    # larger than the piece that is read at once
    many = [{"pin_id": i, "title": "x" * 2000, "image": None} for i in range(2000)]
    (tmp_path / "a.json").write_text(json.dumps(many)[:-1] + ", 5, {broken]")
    rows, bad = read(tmp_path / "a.json")
    assert [values for _, values in rows] == many
    assert rows[-1][0] == 2000
    assert bad == [(2001, "not a JSON object"), (2002, "not valid JSON; nothing after it was read")]


def test_rows_with_different_fields_stay_in_order(tmp_path: Path) -> None:
    rows = [
        {"pin_id": 1, "title": "a"},
        {"pin_id": 1, "title": "b", "image": "c"},
        {"pin_id": 1, "title": "z"},
    ]
    assert read(write(tmp_path / "a.jsonl", rows))[0] == list(enumerate(rows, 1))


def test_standard_input_is_json_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b'{"pin_id": "1"}\nnonsense\n')))
    assert read("-") == ([(1, {"pin_id": "1"})], [(2, "not valid JSON")])
