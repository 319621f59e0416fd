"""Ratings: the answers of filled sheets, written into the store and read from it again.

Anything that would give an answer to the wrong caption is refused, with the row named. Then nothing is
written.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from ..store import Connection, transaction
from ..store.connection import now
from . import stored
from .answers import Answer, AnswerFile, SheetError, excerpt, read_answer_file
from .items import Item, Sample
from .people import People, checked_name
from .questions import QUESTIONS, Question
from .stored import SheetPlace, StoredRating

_OTHER_SIDE = {"first": "second", "second": "first"}


@dataclass(frozen=True)
class Rating:
    """What one rater answered for one item, the first time or in a repeat."""

    rater: str
    item: Item
    is_repeat: bool
    values: dict[str, str]  # the answer to each question that was answered, "cannot judge" too
    comment: str | None
    seconds: float | None

    def value(self, question: Question) -> int | None:
        """The answer as a number on the question's scale. None: not answered, or "cannot judge"."""
        return question.values.get(self.values.get(question.name, ""))


@dataclass(frozen=True)
class ReadAnswers:
    """What `read_answers` did: the sample, its raters, and how many rows were new, changed or as before.

    `earlier` counts the answers that were left out because a later one is stored.
    `notes` are sentences about what was not taken as it stands.
    """

    sample_id: str
    raters: list[str]
    new: int
    changed: int
    unchanged: int
    earlier: int
    notes: list[str]


def ratings_of(conn: Connection, sample: Sample, raters: Sequence[str] | None = None) -> list[Rating]:
    """The ratings of a sample by these raters, or by all, in the order of the sheets.

    In a comparison, "first" means the first caption of the item, wherever the sheet showed it.
    """
    names = [question.name for question in QUESTIONS[sample.kind]]
    ratings = []
    for row in stored.ratings_in_sheet_order(conn, sample.sample_id):
        if raters is not None and row["rater"] not in raters:
            continue
        columns = dict(row)
        values = {name: str(value) for name in names if (value := columns[name]) is not None}
        if row["swapped"] and "better" in values:
            values["better"] = _OTHER_SIDE.get(values["better"], values["better"])
        item = sample.items[row["item"] - 1]
        ratings.append(
            Rating(row["rater"], item, bool(row["is_repeat"]), values, row["comment"], row["seconds"])
        )
    return ratings


def read_answers(conn: Connection, paths: Sequence[str | Path], *, rater: str | None = None) -> ReadAnswers:
    """Reads filled sheets of one sample into the table `ratings`. Reading a sheet again changes nothing.

    If one person answers the same row twice, now or in an earlier call, the later answer counts, provided
    that both say when they were given. An empty row leaves an earlier answer as it is. `rater` says whose
    answers these are, for a sheet that several people answered. Raises SheetError for rows that do not belong
    to the sample, for answers that contradict each other, and if two people seem to have answered one
    rater's sheet; then nothing is written.
    """
    rater = None if rater is None else checked_name(rater)
    different_files = {Path(path).absolute(): path for path in paths}
    contents = [read_answer_file(path) for path in different_files.values()]
    answers = [answer for content in contents for answer in content.answers]
    if not answers:
        raise SheetError(f"no rows in {', '.join(map(str, paths))}: an empty sheet?")
    sample_id, places = _places_of(conn, answers)
    _check_questions(conn, sample_id, contents)
    with transaction(conn):
        before = stored.ratings_by_item_id(conn, sample_id)
        people = People(places, before)
        raters = [name for content in contents for name in people.add_file(content.answers, rater)]
        given = {item_id: answer for item_id, answer in people.added.items() if not answer.is_empty}
        old = _moved(before, people)
        updated = {
            item_id: rating
            for item_id, answer in given.items()
            if (rating := _updated(old.get(item_id), answer, people.places[item_id]))
        }
        moved = {item_id: old[item_id] for item_id in people.moved.values() if item_id in old}
        to_write = list((moved | updated).values())
        earlier = sum(
            _is_left_out(old[item_id], answer)
            for item_id, answer in given.items()
            if item_id in old and item_id not in updated
        )
        stored.delete_ratings(conn, people.moved)
        rows = [people.places[rating["item_id"]] for rating in to_write]
        stored.add_sheet_rows(conn, sorted(rows, key=lambda row: (row.rater, row.position)))
        stored.write_ratings(conn, to_write)
    changed = sum(item_id in old for item_id in updated)
    return ReadAnswers(
        sample_id=sample_id,
        raters=list(dict.fromkeys(raters)),
        new=len(updated) - changed,
        changed=changed,
        unchanged=len(given) - len(updated) - earlier,
        earlier=earlier,
        notes=[*(note for content in contents for note in content.notes), *people.notes],
    )


def _check_questions(conn: Connection, sample_id: str, contents: Sequence[AnswerFile]) -> None:
    asked = [question.name for question in QUESTIONS[stored.kind_of(conn, sample_id)]]
    for content in contents:
        content.check_columns(asked)
    for answer in (answer for content in contents for answer in content.answers):
        if wrong := set(answer.values) - set(asked):
            raise SheetError(
                f"{answer.place} answers {', '.join(sorted(wrong))}, "
                f"which this sample does not ask ({', '.join(sorted(asked))})"
            )


def _moved(before: Mapping[str, StoredRating], people: People) -> dict[str, StoredRating]:
    """The stored ratings by the item_ids that they have once some of them belong to another rater."""
    ratings = dict(before)
    for old, new in people.moved.items():
        if (rating := ratings.pop(old, None)) is None:
            continue
        named: dict[str, Any] = {**rating, "item_id": new, "rater": people.places[new].rater}
        there: dict[str, Any] = dict(ratings.get(new, {}))
        if (there.get("answered_at") or "") > (named["answered_at"] or ""):
            named, there = there, named
        filled = {name: value for name, value in named.items() if value is not None}
        ratings[new] = cast(StoredRating, named | there | filled)
    return ratings


def _is_left_out(old: StoredRating, answer: Answer) -> bool:
    """Whether an answer that changes nothing says something else than the later one that is stored."""
    before = dict(old)
    said = {**answer.values, **({"comment": answer.comment} if answer.comment else {})}
    return any(before[name] != value for name, value in said.items())


def _updated(old: StoredRating | None, answer: Answer, place: SheetPlace) -> StoredRating | None:
    """The rating to write for an answer; None if the answer changes nothing."""
    if old and (old["answered_at"] or "") > (answer.answered_at or old["answered_at"] or ""):
        return None  # an earlier state of a sheet that was read before
    rating = StoredRating(
        item_id=place.item_id,
        sample_id=place.sample_id,
        rater=place.rater,
        pin_id=place.pin_id,
        relevance=answer.values.get("relevance"),
        quality=answer.values.get("quality"),
        better=answer.values.get("better"),
        comment=answer.comment,
        seconds=answer.seconds,
        answered_at=answer.answered_at,
        read_at=now(),
    )
    if old is None:
        return rating
    # What the sheet leaves empty stays as it was.
    before, filled = dict(old), {name: value for name, value in rating.items() if value is not None}
    changed = any(before[name] != value for name, value in filled.items() if name != "read_at")
    return cast(StoredRating, before | filled) if changed else None


def _places_of(conn: Connection, answers: Sequence[Answer]) -> tuple[str, dict[str, SheetPlace]]:
    """The sample that all these answers belong to, and the places of its sheets. Raises SheetError."""
    known = (stored.sheet_place(conn, answer.item_id) for answer in answers)
    sample_id = next((place.sample_id for place in known if place), None)
    if sample_id is None:
        raise SheetError(_why_unknown(answers[0], stored.sample_ids(conn)))
    places = stored.sheet_places(conn, sample_id)
    for answer in answers:
        another = answer.sample_id if answer.sample_id not in ("", sample_id) else None
        if not another and answer.item_id not in places:
            place = stored.sheet_place(conn, answer.item_id)
            if place is None:
                raise SheetError(
                    f"{answer.place}: {excerpt(answer.item_id)} is no item_id of sample {sample_id}: "
                    "was it edited? The sheet as it was written has the right one"
                )
            another = place.sample_id
        if another:
            raise SheetError(
                f"{answer.place} is of another sample ({excerpt(another)}) than the rest ({sample_id}): "
                "score each sample by itself"
            )
    _check_captions(answers, places)
    return sample_id, places


def _why_unknown(answer: Answer, samples: Sequence[str]) -> str:
    theirs = (
        f"its sample {excerpt(answer.sample_id)}"
        if answer.sample_id
        else f"its item {excerpt(answer.item_id)}"
    )
    ours = f"samples here: {', '.join(samples)}" if samples else "no sample was drawn here"
    return f"{answer.place}: {theirs} is not in this store ({ours}): is it the right store?"


def _check_captions(answers: Iterable[Answer], places: Mapping[str, SheetPlace]) -> None:
    """Raises SheetError if ids and captions were moved apart, for instance because one column was sorted.

    People may have corrected a caption, but a number must be the right one.
    """
    all_keys = {_caption_key(c) for p in places.values() for c in (p.caption, p.other_caption)} - {""}
    for answer in answers:
        place = places[answer.item_id]
        own_keys = {_caption_key(place.caption), _caption_key(place.other_caption)}
        moved = bool(({_caption_key(caption) for caption in answer.captions} & all_keys) - own_keys)
        if moved or (answer.number.isdecimal() and int(answer.number) != place.position):
            raise SheetError(
                f"{answer.place}: item_id {answer.item_id} does not belong to the "
                f"{'caption' if moved else 'number'} beside it: were cells moved or sorted apart?"
            )


def _caption_key(caption: str | None) -> str:
    """The part of a caption that every spreadsheet program keeps: ASCII letters and digits."""
    return re.sub(r"[^a-z0-9]+", "", (caption or "").lower())
