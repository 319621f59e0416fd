"""Filled sheets into rows of `ratings`: CSV as the HTML sheet downloads it, or as spreadsheet programs leave
it behind.

A spreadsheet program may have changed order, delimiter, encoding, dates and decimal points, and people add
columns and leave answers out: all that is fine. What would put an answer to the wrong caption is refused,
with the row named, and nothing is taken in.
"""

from __future__ import annotations

import csv
import io
import math
import re
import sqlite3
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..common.errors import PincaptionError
from ..sources.cells import RowError, moment
from ..store.connection import now, transaction
from .questions import CANNOT_JUDGE, QUESTIONS, restored

MAX_BYTES = 100_000_000  # of a sheet
MAX_COMMENT = 10_000  # characters
_TITLE_ROWS = 10  # above the header, at most
_QUESTIONS = {question.name: question for questions in QUESTIONS.values() for question in questions}
_NAMES = list(_QUESTIONS)


class SheetError(PincaptionError):
    """A sheet that cannot be used; the message names file and row."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a row of a sheet says. `row` counts as spreadsheet programs do: the header is row 1."""

    source: str
    row: int
    sample_id: str
    item_id: str
    values: dict[str, str]  # by question, without the ones that were left out
    comment: str | None
    seconds: float | None
    answered_at: str | None
    number: str = ""
    captions: tuple[str, ...] = ()  # as the sheet shows them now

    @property
    def place(self) -> str:
        return f"{self.source}, row {self.row}"


@dataclass(frozen=True)
class Taken:
    """What `take` found: the sample, the raters whose sheets these are, and how many rows were new, changed
    or as before.
    """

    sample_id: str
    raters: list[str]
    new: int
    changed: int
    unchanged: int


def read_sheet(path: str | Path) -> list[Answer]:
    """The rows of a sheet, those without answers too. Raises SheetError."""
    columns, rows = _cells(Path(path))
    if "item_id" not in columns:
        raise SheetError(
            f"{path} has no column item_id, so it is no sheet; its columns: {_shown(', '.join(filter(None, columns)), 200) or 'none'}"
        )
    found, seen = [], dict[str, int]()
    for number, cells in rows:
        # of two columns of one name the first counts
        row = dict(zip(reversed(columns), reversed(cells), strict=True))
        if not any(cell.strip() for cell in cells):
            continue
        item_id = row["item_id"].strip().lower()
        if not item_id:
            raise SheetError(
                f"{path}, row {number} has no item_id: it was deleted, or the row does not belong there"
            )
        if item_id in seen:
            raise SheetError(
                f"{path}, row {number} has the same item_id as row {seen[item_id]} ({_shown(item_id)}): was it copied?"
            )
        seen[item_id] = number
        values = {
            name: answer
            for name in _NAMES
            if (answer := _answer(row.get(name, ""), name, f"{path}, row {number}"))
        }
        comment = restored(row.get("comment", "")).strip()[:MAX_COMMENT] or None
        captions = tuple(row.get(name, "") for name in ("caption", "first_caption", "second_caption"))
        told: dict[str, Any] = {
            "seconds": _seconds(row.get("seconds", "")),
            "answered_at": _moment(row.get("answered_at", "")),
            "number": row.get("number", "").strip(),
            "captions": captions,
        }
        found.append(
            Answer(str(path), number, row.get("sample", "").strip().lower(), item_id, values, comment, **told)
        )
    return found


def holds_answers(path: str | Path) -> tuple[str | None, bool]:
    """(sample_id, whether anything is answered) of a sheet; (None, False) of a file that is none, (None,
    True) of a sheet that cannot be read.
    """
    try:
        columns, _ = _cells(Path(path))
        if not {"item_id", "sample"} <= set(columns):
            return None, False
        rows = read_sheet(path)
    except SheetError:
        return None, True
    return next((row.sample_id for row in rows if row.sample_id), None), any(
        row.values or row.comment for row in rows
    )


def take(conn: sqlite3.Connection, paths: Sequence[str | Path]) -> Taken:
    """Takes the answers of some sheets of one sample into `ratings`; taken again, they change nothing.

    Where two sheets answer one row, now or in an earlier call, the later answer counts, if both say when. A
    row that says nothing leaves what was answered before. Raises SheetError, and then takes nothing, for rows
    that are not of the sample and for answers that contradict.
    """
    answers = [
        answer
        for path in {Path(path).absolute(): path for path in paths}.values()
        for answer in read_sheet(path)
    ]
    if not answers:
        raise SheetError(f"no rows in {', '.join(map(str, paths))}: an empty sheet?")
    sample_id, known = _rows_of(conn, answers)
    kind = conn.execute("SELECT kind FROM samples WHERE sample_id = ?", [sample_id]).fetchone()[0]
    asked = {question.name for question in QUESTIONS[kind]}
    merged: dict[str, Answer] = {}
    for answer in answers:
        if wrong := set(answer.values) - asked:
            raise SheetError(
                f"{answer.place} answers {', '.join(sorted(wrong))}, which this sample does not ask ({', '.join(sorted(asked))})"
            )
        merged[answer.item_id] = (
            _merge(merged[answer.item_id], answer) if answer.item_id in merged else answer
        )
    raters = list(dict.fromkeys(known[answer.item_id]["rater"] for answer in answers))
    counts = {"new": 0, "changed": 0, "unchanged": 0}
    with transaction(conn):
        before = {
            row["item_id"]: dict(row)
            for row in conn.execute("SELECT * FROM ratings WHERE sample_id = ?", [sample_id])
        }
        upserts = []
        for item_id, answer in merged.items():
            if not answer.values and not answer.comment:
                continue
            said = {name: answer.values.get(name) for name in _NAMES} | {
                "comment": answer.comment,
                "seconds": answer.seconds,
                "answered_at": answer.answered_at,
            }
            old = before.get(item_id)
            if old and (old["answered_at"] or "") > (answer.answered_at or old["answered_at"] or ""):
                counts["unchanged"] += 1  # an earlier state of what was read before
                continue
            row = {
                name: value if value is not None or old is None else old[name] for name, value in said.items()
            }
            same = old is not None and all(old[name] == value for name, value in row.items())
            counts["unchanged" if same else "changed" if old else "new"] += 1
            if not same:
                upserts.append(
                    {
                        "item_id": item_id,
                        "sample_id": sample_id,
                        "rater": known[item_id]["rater"],
                        "pin_id": known[item_id]["pin_id"],
                        **row,
                        "read_at": now(),
                    }
                )
        if upserts:
            names = list(upserts[0])
            conn.executemany(
                f"INSERT OR REPLACE INTO ratings ({', '.join(names)}) VALUES ({', '.join(f':{name}' for name in names)})",
                upserts,
            )
    return Taken(sample_id, raters, **counts)


def _rows_of(conn: sqlite3.Connection, answers: list[Answer]) -> tuple[str, dict[str, sqlite3.Row]]:
    """The sample that all these rows are of, and its rows by item_id. Raises SheetError."""
    sql = "SELECT s.*, i.pin_id, i.caption, i.other_caption FROM sheet_rows s JOIN sample_items i USING (sample_id, item) WHERE"
    ids = [answer.item_id for answer in answers]
    first = next(
        (
            row["sample_id"]
            for item_id in ids
            if (row := conn.execute(f"{sql} s.item_id = ?", [item_id]).fetchone())
        ),
        None,
    )
    if first is None:
        samples = [row[0] for row in conn.execute("SELECT sample_id FROM samples ORDER BY created_at")]
        theirs = (
            f"its sample {_shown(answers[0].sample_id)}"
            if answers[0].sample_id
            else f"its item {_shown(ids[0])}"
        )
        raise SheetError(
            f"{answers[0].place}: {theirs} is not in this store ({'samples here: ' + ', '.join(samples) if samples else 'no sample was drawn here'}): is it the right store?"
        )
    known = {row["item_id"]: row for row in conn.execute(f"{sql} s.sample_id = ?", [first])}
    for answer in answers:
        if answer.sample_id and answer.sample_id != first:
            raise SheetError(
                f"{answer.place} is of another sample ({_shown(answer.sample_id)}) than the rest ({first}): score each sample by itself"
            )
        if answer.item_id not in known:
            other = conn.execute(f"{sql} s.item_id = ?", [answer.item_id]).fetchone()
            raise SheetError(
                f"{answer.place} is of another sample ({other['sample_id']}) than the rest ({first}): score each sample by itself"
                if other
                else f"{answer.place}: {_shown(answer.item_id)} is no item_id of sample {first}: was it edited? The sheet as it was written has the right one"
            )
    _check_place(answers, known)
    return first, known


def _check_place(answers: Iterable[Answer], known: dict[str, sqlite3.Row]) -> None:
    """Raises SheetError where ids and captions were moved apart, as when a part of a table is sorted.

    Captions may have been mended, numbers not.
    """
    others = {
        key
        for row in known.values()
        for caption in (row["caption"], row["other_caption"])
        if (key := _key(caption))
    }
    for answer in answers:
        row = known[answer.item_id]
        own = {_key(row["caption"]), _key(row["other_caption"])}
        moved = any(key in others and key not in own for key in map(_key, answer.captions))
        if moved or (answer.number.isdecimal() and int(answer.number) != row["position"]):
            raise SheetError(
                f"{answer.place}: item_id {answer.item_id} does not belong to the {'caption' if moved else 'number'} beside it: were cells moved or sorted apart?"
            )


def _key(caption: str | None) -> str:
    """What of a caption survives every spreadsheet program."""
    return re.sub(r"[^a-z0-9]+", "", (caption or "").lower())


def _merge(a: Answer, b: Answer) -> Answer:
    """One row out of two sheets.

    Raises SheetError where they contradict and it cannot be told which one is later.
    """
    early, late = (a, b) if (a.answered_at or "") <= (b.answered_at or "") else (b, a)
    if early.answered_at is None or early.answered_at == late.answered_at:
        for name in early.values.keys() & late.values.keys():
            if early.values[name] != late.values[name]:
                raise SheetError(
                    f"{a.place} says {a.values[name]!r} and {b.place} says {b.values[name]!r} for the same item, and neither says that it is later: leave out one of the two"
                )
    return replace(
        late,
        values=early.values | late.values,
        comment=late.comment or early.comment,
        seconds=early.seconds if late.seconds is None else late.seconds,
        answered_at=late.answered_at or early.answered_at,
    )


def _answer(cell: str, question: str, place: str) -> str | None:
    answers = _QUESTIONS[question].answers
    if not cell or cell in answers:
        return cell or None
    said = (
        re.sub(r"[\s_-]+", " ", cell)
        .strip(" .'\"")
        .lower()
        .replace("’", "'")
        .replace("can't", "cannot")
        .replace("can not", "cannot")
    )
    if not said or said in (*answers, CANNOT_JUDGE):
        return said or None
    raise SheetError(
        f"{place}: {question} is {_shown(cell)!r}; it takes {', '.join(answers)} or {CANNOT_JUDGE}"
    )


def _seconds(cell: str) -> float | None:
    try:
        seconds = float(cell.strip().replace(",", "."))
    except ValueError:
        return None
    return seconds if math.isfinite(seconds) and 0 <= seconds < 1e6 else None


def _moment(cell: str) -> str | None:
    """A time as text, or None where a spreadsheet program wrote it in a way of its own."""
    try:
        return moment(cell.strip() or None)
    except RowError:
        return None


def _cells(path: Path) -> tuple[list[str], list[tuple[int, list[str]]]]:
    """The names of the columns in small letters, and (row number, a cell for each) of the rows."""
    try:
        if path.stat().st_size > MAX_BYTES:
            raise SheetError(f"{path} has more than {MAX_BYTES:,} bytes: that is no sheet")
        data = path.read_bytes()
    except OSError as error:
        raise SheetError(f"{path} cannot be read: {error.strerror}") from None
    if data.startswith((b"PK\x03\x04", b"\xd0\xcf\x11\xe0")):
        raise SheetError(f"{path} is a workbook: save it as CSV and give that file")
    text = _decoded(data)
    # a line that Excel understands, and some programs write
    separator = re.match(r'"?sep=(.)"?\r?\n', text, re.IGNORECASE)
    text = text[separator.end() :] if separator else text
    header = next((line for line in text.splitlines()[:_TITLE_ROWS] if "item_id" in line.lower()), "")
    delimiter = separator[1] if separator else max(",;\t|", key=header.count)
    try:
        rows = list(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter))
    except csv.Error as error:
        raise SheetError(f"{path} is no CSV: {error}") from None
    start = next(
        (
            i
            for i, row in enumerate(rows[:_TITLE_ROWS])
            if any(cell.strip().lower() == "item_id" for cell in row)
        ),
        0,
    )
    names = [name.strip().lower() for name in rows[start]] if start < len(rows) else []
    width = len(names)
    return names, [
        (i + 1, (row + [""] * width)[:width]) for i, row in enumerate(rows[start + 1 :], start + 1)
    ]


def _decoded(data: bytes) -> str:
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return data.decode("utf-16", errors="replace")
    if data[1:200:2].count(0) > len(data[1:200:2]) // 2:
        return data.decode("utf-16-le", errors="replace")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return data.decode("cp1252", errors="replace")  # what Excel in Western countries saves as CSV


def _shown(cell: Any, width: int = 40) -> str:
    """The start of what a cell holds."""
    text = str(cell).strip()
    return text if len(text) <= width else text[:width] + "…"
