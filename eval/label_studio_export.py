"""Reads what Label Studio exports, JSON, JSON_MIN, CSV and TSV, as rows of a sheet: one for each annotation.

JSON has tasks with their annotations. The other formats have a row for each annotation, in which the data of
the task and the answers stand side by side. What is skipped, a draft or a prediction is no answer.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ..common.terminal import plural
from ..sources.json_reader import read_values
from ..sources.rows import BadRow, SourceError
from .questions import PICTURE, QUESTIONS

_QUESTIONS = tuple(question.name for questions in QUESTIONS.values() for question in questions)
_UNKNOWN = "unknown"  # the annotator of an annotation whose user was deleted


@dataclass(frozen=True)
class Annotations:
    """The annotations of an export: (place, a row as a sheet has it), and how many were left out, by kind."""

    rows: list[tuple[str, dict[str, str]]]
    left_out: Counter[str]

    @property
    def notes(self) -> list[str]:
        """What was left out, in words."""
        counts = ", ".join(plural(n, kind) for kind, n in self.left_out.items() if n)
        return [f"left out, because they are no answers: {counts}"] if counts else []


def is_export(columns: Iterable[str]) -> bool:
    """Whether a table with these columns was exported by Label Studio."""
    return {"annotation_id", "annotator"} <= set(columns)


def annotations_of_table(
    source: str, columns: list[str], rows: Iterable[tuple[int, list[str]]]
) -> Annotations:
    """The annotations of an export with one row each. Raises SourceError for one of another project."""
    found = Annotations([], Counter())
    if "item_id" not in columns:
        raise _another_project(source, "it")
    for number, cells in rows:
        _add(found, source, f"{source}, row {number}", dict(zip(columns, cells, strict=True)))
    return found


def annotations_of_json(source: str) -> Annotations:
    """The annotations of JSON or JSON_MIN. Raises SourceError for other JSON, and for another project."""
    found = Annotations([], Counter())
    for number, task in read_values(source):
        place = f"{source}, task {number}"
        if isinstance(task, BadRow):
            raise SourceError(f"{source} is no export of Label Studio, value {number}: {task.reason}")
        if not isinstance(task, dict) or not ("data" in task or "annotation_id" in task):
            raise SourceError(
                f"{source} is JSON, but no export of Label Studio: value {number} is none of its tasks"
            )
        if "annotation_id" in task:
            _add(found, source, place, task)
            continue
        data, annotations = task["data"], task.get("annotations") or task.get("completions") or []
        if not isinstance(data, dict) or not _are_objects(annotations):
            raise SourceError(f"{place} is no task of Label Studio that has its data and annotations in it")
        for kind in ("drafts", "predictions"):
            left_out = task.get(kind)
            found.left_out[kind[:-1]] += len(left_out) if isinstance(left_out, list) else 0
        for annotation in annotations:
            if why := _why_no_answer(annotation):
                found.left_out[why] += 1
                continue
            row = {name: annotation.get(name) for name in ("created_at", "updated_at", "lead_time")}
            row |= {"annotation_id": annotation.get("id"), "annotator": annotation.get("completed_by")}
            _add(found, source, place, data | dict(_answers(annotation)) | row)
        if not annotations:
            _item_id(data, source, place)
    return found


def _why_no_answer(annotation: Mapping[str, Any]) -> str | None:
    """What an annotation of a task is if it is no answer; None if it is one."""
    if annotation.get("was_cancelled") or annotation.get("skipped"):
        return "skipped annotation"
    results = annotation.get("result")
    if results is None or results == []:
        return "empty annotation"
    return None if _are_objects(results) else "unreadable annotation"


def _add(found: Annotations, source: str, place: str, row: Mapping[str, Any]) -> None:
    _item_id(row, source, place)
    texts = {name: _text(value) for name, value in row.items() if name != PICTURE}
    # A row of a table without an id is a task that nobody annotated, unless there are answers in it.
    if not any(texts.get(name, "").strip() for name in ("annotation_id", "comment", *_QUESTIONS)):
        found.left_out["empty annotation"] += 1
        return
    texts["rater"] = _rater(row.get("annotator"))
    texts["answered_at"] = texts.get("updated_at") or texts.get("created_at", "")
    texts["begun_at"] = texts.get("created_at", "")
    texts["seconds"] = texts.get("lead_time", "")
    found.rows.append((f"{place} by {texts['rater']}", texts))


def _item_id(data: Mapping[str, Any], source: str, place: str) -> str:
    if not (item_id := _text(data.get("item_id"))):
        raise _another_project(source, place.rpartition(", ")[2])
    return item_id


def _another_project(source: str, what: str) -> SourceError:
    return SourceError(
        f"{source} is an export of Label Studio, but of another project: {what} has no item_id, which all "
        "tasks of `eval sample --format label-studio` have"
    )


def _answers(annotation: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """(question, answer) of an annotation. Several results of one question stay several."""
    by_name: dict[str, list[Any]] = {}
    for result in annotation["result"]:
        name, value = result.get("from_name"), result.get("value")
        if isinstance(name, str) and isinstance(value, dict):
            by_name.setdefault(name, []).extend(_list(value.get("choices", value.get("text"))))
    for name, values in by_name.items():
        yield name, values[0] if len(values) == 1 else values


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [] if value is None else [value]


def _are_objects(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(one, dict) for one in value)


def _rater(annotator: Any) -> str:
    """Exports name the annotator by number; some by e-mail address, or as an object with both."""
    if isinstance(annotator, dict):
        annotator = annotator.get("id") or annotator.get("email")
    name = _text(annotator).strip()
    if name in ("", "None"):
        name = _UNKNOWN
    return name if "@" in name else f"annotator-{name}"


def _text(value: Any) -> str:
    """A value as the cell of a sheet."""
    if isinstance(value, str):
        # JSON can hold half of a surrogate pair, which cannot be stored: it becomes U+FFFD.
        return value.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    if isinstance(value, dict) and "text" in value:  # a comment of several paragraphs
        value = value["text"]
    if isinstance(value, list) and value and all(isinstance(one, str) for one in value):
        return _text("\n".join(value))
    return "" if value is None else _text(json.dumps(value, ensure_ascii=False))
