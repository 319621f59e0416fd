"""Whose answers they are. Several people may answer copies of one sheet, and one person may answer it twice.

A sheet does not ask for a name. So it is told by the times of the answers: a sheet keeps the time of each
answer that stays as it was, and two people do not answer a row in the same millisecond.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import replace

from ..common.terminal import plural
from .answers import Answer, SheetError
from .draw import letters
from .stored import SheetPlace, StoredRating

MAX_NAME = 64  # characters of a rater's name
IN_STORE = "the store"


class People:
    """The answers of every rater of a sample that are known so far, and the rows of sheets they belong to."""

    def __init__(self, places: Mapping[str, SheetPlace], ratings: Mapping[str, StoredRating]):
        self.places = dict(places)  # by item_id
        self.answers = {item_id: _answer(rating) for item_id, rating in ratings.items()}  # by item_id
        self.added: dict[str, Answer] = {}  # by item_id
        self.moved: dict[str, str] = {}  # item_ids before and now of answers that are now another rater's
        self.notes: list[str] = []
        self._row_of = {_turn(place, place.rater): place.item_id for place in places.values()}

    def add_file(self, answers: Sequence[Answer], rater: str | None) -> list[str]:
        """Adds the answers of one file and returns their raters.

        `rater` says who gave them. Raises SheetError if they cannot be that rater's, or if two people seem to
        have answered one rater's sheet.
        """
        by_own_name: dict[str, list[Answer]] = {}
        for answer in answers:
            own = self.places[answer.item_id].rater
            if answer.rater:
                own = checked_name(answer.rater, f"{answer.source}: an annotator's name has")
            by_own_name.setdefault(own, []).append(answer)
        if rater and rater not in by_own_name and len(by_own_name) > 1:
            raise SheetError(
                f"{answers[0].source} has the answers of {', '.join(by_own_name)}: --rater {rater} takes the "
                "file of one person"
            )
        others = set(by_own_name)
        return [
            self._add(
                own_answers, own, rater if rater == own or len(by_own_name) == 1 else None, others - {own}
            )
            for own, own_answers in by_own_name.items()
        ]

    def _add(self, answers: Sequence[Answer], own: str, rater: str | None, others: Set[str]) -> str:
        """Adds the answers of one person and returns the name. `others` are the others of the same file."""
        name = rater or own
        before = self._read_before_as(answers, name, others)
        alike = [] if before else self._answered_alike(answers, name)
        if alike and rater:
            self.notes.append(
                f"{answers[0].source}: all answers of {rater} are those of {' and of '.join(alike)}, too, "
                "and no times tell whether that is one person: both count"
            )
        elif len(alike) > 1:
            raise SheetError(
                f"all answers in {answers[0].source} are those of {' and of '.join(alike)}: score the file "
                "with --rater NAME"
            )
        elif alike:
            before = alike[0]
            self.notes.append(
                f"{answers[0].source}: all answers are those of {before}, so they count as that person's; if "
                "another person gave them, score the file with --rater NAME"
            )
        elif before and not rater and before != own:
            self.notes.append(
                f"{answers[0].source} has answers of {before}, given at the same times: it counts as that "
                "person's"
            )
        if before and rater and before != rater:
            self._move(self.places[answers[0].item_id].rater, before, rater)
        elif before:
            name = before
        if not rater:
            self._check_one_person(answers, name)
        for answer in answers:
            place = self._row(self.places[answer.item_id], name, answer.place)
            answer = replace(answer, item_id=place.item_id)
            earlier = self.added.get(place.item_id)
            self.added[place.item_id] = answer = _merge(earlier, answer) if earlier else answer
            known = self.answers.get(place.item_id)
            if answer.is_empty:
                continue
            if known is None or (answer.answered_at or "") >= (known.answered_at or ""):
                self.answers[place.item_id] = answer
        return name

    def _move(self, sheet: str, before: str, rater: str) -> None:
        """Gives to `rater` all that is known as the answers of `before` to the sheet of the rater `sheet`.

        That includes the rows that the file at hand leaves empty or does not have.
        """
        moved = 0
        for place in [place for place in self.places.values() if place.rater == sheet]:
            old = self._item_id(place, before)
            if (known := self.answers.pop(old, None)) is None:
                continue
            new = self._row(place, rater, known.place).item_id
            self.moved[old] = new
            moved += 1
            there = self.answers.get(new)
            if there is None or (known.answered_at or "") >= (there.answered_at or ""):
                self.answers[new] = replace(known, item_id=new)
            if added := self.added.pop(old, None):
                self.added[new] = replace(added, item_id=new)
        self.notes.append(
            f"what was read before as the answers of {before} ({plural(moved, 'row')}) now belongs to {rater}"
        )

    def _row(self, place: SheetPlace, rater: str, said_in: str) -> SheetPlace:
        """The row of this rater's own copy of the sheet. Raises SheetError if it is another sheet's."""
        if place.rater == rater:
            return place
        copy = replace(place, item_id=self._item_id(place, rater), rater=rater)
        if self._row_of.setdefault(_turn(place, rater), copy.item_id) != copy.item_id:
            raise SheetError(
                f"{said_in} is of the sheet of {place.rater}, but {rater} has another sheet of this "
                "sample: choose another name for --rater"
            )
        self.places[copy.item_id] = copy
        return copy

    def _read_before_as(self, answers: Sequence[Answer], own: str, others: Set[str]) -> str | None:
        """The rater who is known to have given one of these answers at the same time; `own` first.

        None if there is none. Empty answers do not count. Times that stand beside different answers prove
        nothing: somebody may have typed one time into all rows.
        """
        given = [answer for answer in answers if not answer.is_empty]
        for rater in dict.fromkeys([own, *self._raters()]):
            if rater in others:
                continue
            at_one_time = [
                known.values == answer.values
                for answer in given
                if (known := self._known(answer, rater))
                and _is_exact(known.answered_at)
                and known.answered_at == answer.answered_at
            ]
            if at_one_time and all(at_one_time):
                return rater
        return None

    def _answered_alike(self, answers: Sequence[Answer], own: str) -> list[str]:
        """The raters who are known to have given all these answers of a sheet, if the times do not deny it.

        None of them if the answers are a version of what `own` is known to have answered.
        """
        given = [answer for answer in answers if not answer.is_empty]
        if not given or given[0].rater:  # an export names its annotators
            return []
        known_of_own = [(known, answer) for answer in given if (known := self._known(answer, own))]
        if known_of_own and not any(_contradict(known, answer) for known, answer in known_of_own):
            return []
        return [
            rater
            for rater in self._raters()
            if rater != own
            and all((known := self._known(answer, rater)) and _alike(known, answer) for answer in given)
        ]

    def _raters(self) -> list[str]:
        """Everybody of whom an answer is known."""
        return list(dict.fromkeys(self.places[item_id].rater for item_id in self.answers))

    def _known(self, answer: Answer, rater: str) -> Answer | None:
        """What this rater is known to have answered to the same row."""
        return self.answers.get(self._item_id(self.places[answer.item_id], rater))

    def _item_id(self, place: SheetPlace, rater: str) -> str:
        """The id of the row in this rater's copy of the sheet."""
        return place.item_id if place.rater == rater else letters(f"{place.item_id} {rater}", 12)

    def _check_one_person(self, answers: Sequence[Answer], rater: str) -> None:
        """Raises SheetError if another person seems to have given these answers than those that are known.

        That is so if they contradict each other, unless the times show that one person gave both and which
        one is the later.
        """
        both = [(known, a) for a in answers if not a.is_empty and (known := self._known(a, rater))]
        apart = [(known, a) for known, a in both if _contradict(known, a)]
        if any(_one_time(known, a) for known, a in both):
            apart = [(known, a) for known, a in apart if _undecided(known, a)]
        elif not apart and both and all(known.answered_at and a.answered_at for known, a in both):
            self.notes.append(
                f"{both[0][1].source} repeats {len(both):,} answers of {rater} with other times: they count "
                "once; if another person gave them, score the file with --rater NAME"
            )
        if apart:
            known, answer = apart[0]
            raise SheetError(
                f"{answer.place} says {_said(answer, known)} and {known.place} says {_said(known, answer)} "
                f"for the same row of {rater}'s sheet ({plural(len(apart), 'such row')}), and nothing shows "
                "that one person gave both: score each person's file by itself with --rater NAME, or with "
                f"--rater {rater} if it was one person"
            )


def _merge(a: Answer, b: Answer) -> Answer:
    """One answer out of two to the same row.

    Raises SheetError if they contradict each other and nothing says which one is later.
    """
    early, late = (a, b) if (a.answered_at or "") <= (b.answered_at or "") else (b, a)
    if early.answered_at is None or early.answered_at == late.answered_at:
        for name in early.values.keys() & late.values.keys():
            if early.values[name] != late.values[name]:
                raise SheetError(
                    f"{a.place} says {a.values[name]!r} and {b.place} says {b.values[name]!r} for the same "
                    "item, and neither says that it is later: leave out one of the two"
                )
    return replace(
        late,
        values=early.values | late.values,
        comment=late.comment or early.comment,
        seconds=early.seconds if late.seconds is None else late.seconds,
        answered_at=late.answered_at or early.answered_at,
    )


def checked_name(rater: str, what: str = "--rater takes a name of") -> str:
    """A name for a rater without blanks around it. Raises SheetError."""
    name = rater.strip()
    if not name or len(name) > MAX_NAME or not name.isprintable():
        raise SheetError(f"{what} 1 to {MAX_NAME} printable characters")
    return name


def _turn(place: SheetPlace, rater: str) -> tuple[str, int, int]:
    return rater, place.item, place.is_repeat


def _answer(rating: StoredRating) -> Answer:
    given = {"relevance": rating["relevance"], "quality": rating["quality"], "better": rating["better"]}
    return Answer(
        source=IN_STORE,
        place=IN_STORE,
        sample_id=rating["sample_id"],
        item_id=rating["item_id"],
        values={name: value for name, value in given.items() if value},
        comment=rating["comment"],
        seconds=rating["seconds"],
        answered_at=rating["answered_at"],
        begun_at=rating["answered_at"],
    )


def _contradict(a: Answer, b: Answer) -> bool:
    if any(a.values[name] != b.values[name] for name in a.values.keys() & b.values.keys()):
        return True
    if a.answered_at and a.answered_at == b.answered_at:
        return False  # a comment was changed afterwards: that does not change the time
    comments = sorted((a.comment or "", b.comment or ""), key=len)
    return comments[0] not in comments[1]


def _alike(known: Answer, answer: Answer) -> bool:
    """Whether both may be one answer: nothing in them differs. A sheet may lack a time, or a comment."""
    times = {known.answered_at, answer.answered_at}
    denied = len(times) == 2 and all(map(_is_exact, times))
    return known.values == answer.values and not denied and not _contradict(known, answer)


def _undecided(a: Answer, b: Answer) -> bool:
    """Whether nothing says which of two answers that contradict each other is the later one."""
    return a.answered_at is None or b.answered_at is None or a.answered_at == b.answered_at


def _one_time(known: Answer, answer: Answer) -> bool:
    """Whether both are one act of answering.

    Label Studio says when an annotation was begun and when it was changed last: what was read before lies
    between the two.
    """
    if not (_is_exact(known.answered_at) and answer.answered_at and known.answered_at):
        return False
    return (answer.begun_at or answer.answered_at) <= known.answered_at <= answer.answered_at


def _is_exact(moment: str | None) -> bool:
    """Whether it is a time of day. Two people may well answer a row on the same day."""
    return bool(moment and "T" in moment)


def _said(answer: Answer, other: Answer) -> str:
    for name in answer.values:
        if answer.values[name] != other.values.get(name, answer.values[name]):
            return repr(answer.values[name])
    return repr((answer.comment or "")[:40])
