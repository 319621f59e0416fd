"""The JSON of `captioner eval score STORE SHEET...`, computed slowly in plain Python: one loop per figure.

It reads the filled sheets from the disk. From the store it reads only what was drawn (samples, sample_items,
sheet_rows), never the ratings. It was written from the issue, not from our code.
"""

from __future__ import annotations

import csv
import io
import json
import re
import sqlite3
import statistics
from collections.abc import Hashable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from .reference import ac, alpha, sign_test, stratified_share, verdict, wilson

VALUES = {
    "relevance": {"relevant": 2, "partly": 1, "not": 0},
    "quality": {"good": 2, "acceptable": 1, "poor": 0},
    "better": {"first": 2, "no difference": 1, "second": 0},
}
ASKED = {"captions": ["relevance", "quality"], "comparison": ["better"]}
CANNOT = "cannot judge"
# what a rater said in one row of a sheet: a question's answer, "comment", "seconds"; None where nothing was
# said
Row = dict[str, Any]


class Drawn(NamedTuple):
    """An item of the sample."""

    item: int
    pin_id: str
    stratum: Hashable
    captions: int | None  # of the stratum in the store; None: gold
    gold: dict[str, str]


class Place(NamedTuple):
    """A row of a sheet: the place where a rater meets an item."""

    item_id: str
    rater: str
    item: int
    is_repeat: bool
    swapped: bool


def expected(conn: sqlite3.Connection, calls: Sequence[Sequence[Path]]) -> dict[str, Any]:
    """The JSON after several calls of `score`, each with some sheets of one sample: that of the last call."""
    places = {
        row[0]: Place(*row)
        for row in conn.execute(
            "SELECT item_id, rater, item, is_repeat, swapped FROM sheet_rows ORDER BY rowid"
        )
    }
    said = gathered(calls)
    named = {places[item_id].rater for path in calls[-1] for item_id in read(path)} or {
        places[item_id].rater for item_id in said
    }
    some_row = next(item_id for call in calls for path in call for item_id in read(path))
    (sample_id,) = conn.execute("SELECT sample_id FROM sheet_rows WHERE item_id = ?", [some_row]).fetchone()
    kind, strata = conn.execute(
        "SELECT kind, strata FROM samples WHERE sample_id = ?", [sample_id]
    ).fetchone()
    captions = {stratum["stratum"]: stratum["captions"] for stratum in json.loads(strata)}
    items = {}
    for item, pin_id, stratum, weight, relevance, quality in conn.execute(
        "SELECT item, pin_id, stratum, weight, gold_relevance, gold_quality FROM sample_items WHERE "
        "sample_id = ? ORDER BY item",
        [sample_id],
    ):
        items[item] = Drawn(
            item,
            pin_id,
            stratum,
            None if weight is None else captions[stratum],
            {name: right for name, right in (("relevance", relevance), ("quality", quality)) if right},
        )
    rows = [
        (
            place,
            {
                name: turned(said[place.item_id].get(name), place.swapped)
                for name in [*VALUES, "seconds", "comment"]
            },
        )
        for place in places.values()
        if place.item_id in said
    ]
    rows = [(place, row) for place, row in rows if place.rater in named]
    raters = [
        rater
        for (rater,) in conn.execute(
            "SELECT rater FROM sheet_rows WHERE sample_id = ? GROUP BY rater ORDER BY min(rowid)", [sample_id]
        )
        if rater in {place.rater for place, _ in rows}
    ]

    # The answers that count: to drawn items, the first time. By item, then by rater.
    first: dict[int, dict[str, Row]] = {item.item: {} for item in items.values() if item.captions is not None}
    for place, row in rows:
        if place.item in first and not place.is_repeat and any(row[question] for question in ASKED[kind]):
            first[place.item][place.rater] = row

    found: dict[str, Any] = {
        "sample_id": sample_id,
        "kind": kind,
        "items": len(first),
        "ratings": sum(map(len, first.values())),
    }
    if kind == "captions":
        found |= shares_of_captions(items, first, json.loads(strata))
    else:
        found |= shares_of_comparison(items, first)
    found["questions"] = {
        question: about_question(question, items, first, raters) for question in ASKED[kind]
    }
    found["by_rater"] = {
        rater: about_rater(
            rater, ASKED[kind], items, first, [(place, row) for place, row in rows if place.rater == rater]
        )
        for rater in raters
    }
    found["answers"] = {
        items[item].pin_id: {rater: {q: row[q] for q in ASKED[kind] if row[q]} for rater, row in of.items()}
        for item, of in first.items()
    }
    return found


# The sheets


def gathered(calls: Sequence[Sequence[Path]]) -> dict[str, Row]:
    """The answers by item_id after several calls. An empty row leaves earlier answers as they are."""
    said: dict[str, Row] = {}
    for call in calls:
        for item_id, row in taken_together(call).items():
            if any(row.get(name) is not None for name in (*VALUES, "comment")):
                said[item_id] = said.get(item_id, {}) | {
                    name: value for name, value in row.items() if value is not None
                }
    return said


def read(path: Path) -> dict[str, Row]:
    """The rows of a sheet by item_id."""
    data = path.read_bytes()
    text = data.decode("utf-16") if data[:2] in (b"\xff\xfe", b"\xfe\xff") else data.decode("utf-8-sig")
    header = text.splitlines()[0]
    delimiter = "\t" if "\t" in header else ";" if ";" in header else ","
    found = {}
    for cells in csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter):
        row = {name.strip().lower(): (cell or "").strip() for name, cell in cells.items() if name}
        said: Row = {question: row[question].lower() or None for question in VALUES if question in row}
        said |= {
            "comment": row.get("comment") or None,
            "answered_at": row.get("answered_at") or None,
            "seconds": None,
        }
        if re.fullmatch(r"\d+([.,]\d+)?", row.get("seconds", "")):
            said["seconds"] = float(row["seconds"].replace(",", "."))
        found[row["item_id"]] = said
    return found


def taken_together(paths: Sequence[Path]) -> dict[str, Row]:
    """The rows of several sheets. Of two answers to the same question in one row, the later one counts."""
    found: dict[str, Row] = {}
    for path in paths:
        for item_id, row in read(path).items():
            before = found.get(item_id)
            early, late = sorted([before, row], key=lambda r: r["answered_at"] or "") if before else ({}, row)
            found[item_id] = early | {name: value for name, value in late.items() if value is not None}
    return found


def turned(said: Any, swapped: bool) -> Any:
    """'first' is the first caption of the item, wherever the sheet showed it."""
    return {"first": "second", "second": "first"}.get(said, said) if swapped else said


# Shares


def weights_of(answered: Sequence[Drawn]) -> list[float]:
    """How many captions each of these items stands for: the captions of its stratum by the answered items of
    it.

    If five items were drawn and two of them answered, these two stand for the whole stratum.
    """
    return [item.captions / sum(other.stratum == item.stratum for other in answered) for item in answered]


def share_and_interval(hits: list[bool], weights: list[float], strata: list[Any]) -> dict[str, Any]:
    """{share, low, high, items, effective_items} of some judged items."""
    if not hits:
        return {"share": None, "low": None, "high": None, "items": 0, "effective_items": 0}
    share, effective = stratified_share(hits, weights, strata)
    share = min(1.0, max(0.0, share))
    low, high = share, share
    if effective < 0.999 * len(hits) and effective * min(share, 1 - share) < 10:
        low, high = max(0.0, share - 0.5 / effective), min(1.0, share + 0.5 / effective)
    low, high = wilson(low, effective)[0], wilson(high, effective)[1]
    return {
        "share": share,
        "low": max(0.0, low),
        "high": min(1.0, high),
        "items": len(hits),
        "effective_items": effective,
    }


def shares_of_captions(
    items: dict[int, Drawn], first: dict[int, dict[str, Row]], drawn: list[dict[str, Any]]
) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, wanted in (
        ("relevant_and_good", ("relevant", "good")),
        ("irrelevant_and_poor", ("not", "poor")),
    ):
        judged, hits = [], []
        for item, of in first.items():
            answers = [
                tuple(None if row[q] == CANNOT else row[q] for q in ("relevance", "quality"))
                for row in of.values()
            ]
            if (hit := verdict(answers, wanted)) is not None:
                judged.append(items[item])
                hits.append(hit)
        found[name] = share_and_interval(hits, weights_of(judged), [item.stratum for item in judged])
        found["judged"] = len(judged)
        if name == "relevant_and_good":
            found["strata"] = []
            for stratum in drawn:
                within = [
                    hit for item, hit in zip(judged, hits, strict=True) if item.stratum == stratum["stratum"]
                ]
                of = share_and_interval(within, [1.0] * len(within), [""] * len(within))
                size = sum(
                    item.stratum == stratum["stratum"] and item.captions is not None
                    for item in items.values()
                )
                found["strata"].append(
                    {
                        "stratum": stratum["stratum"],
                        "captions": stratum["captions"],
                        "items": size,
                        "judged": len(within),
                    }
                    | {k: of[k] for k in ("share", "low", "high")}
                )
    return found


def shares_of_comparison(items: dict[int, Drawn], first: dict[int, dict[str, Row]]) -> dict[str, Any]:
    verdicts = {}
    for item, of in first.items():
        votes = [row["better"] for row in of.values() if row["better"] != CANNOT]
        if votes:
            lead = votes.count("first") - votes.count("second")
            verdicts[item] = "first" if lead > 0 else "second" if lead < 0 else "no_difference"
    judged = [items[item] for item in verdicts]
    weight = dict(zip(verdicts, weights_of(judged), strict=True))
    names = ("first", "no_difference", "second")
    shares = {
        name: share_and_interval(
            [verdict == name for verdict in verdicts.values()],
            list(weight.values()),
            [item.stratum for item in judged],
        )
        for name in names
    }
    wins = {name: list(verdicts.values()).count(name) for name in names}
    # Who sees no difference has answered: a decided item stands for no more captions than before.
    decided = [items[item] for item, verdict in verdicts.items() if verdict != "no_difference"]
    preference = share_and_interval(
        [verdicts[i.item] == "first" for i in decided],
        [weight[i.item] for i in decided],
        [i.stratum for i in decided],
    )
    return {
        "judged": len(judged),
        "wins": wins,
        "shares": shares,
        "preference": preference,
        "decided": len(decided),
        "sign_test": float(sign_test(wins["first"], wins["second"])),
    }


# Questions


def about_question(
    question: str, items: dict[int, Drawn], first: dict[int, dict[str, Row]], raters: list[str]
) -> dict[str, Any]:
    values = VALUES[question]
    table = {
        item: {rater: values[row[question]] for rater, row in of.items() if row[question] in values}
        for item, of in first.items()
    }
    table = {item: of for item, of in table.items() if of}
    everything = [value for of in table.values() for value in of.values()]
    plain = [list(of.values()) for of in table.values()]
    found: dict[str, Any] = {"items": len(table), "ratings": len(everything), "mean": mean(everything)}
    for metric in ("nominal", "ordinal", "interval"):
        found[f"alpha_{metric}"] = alpha(plain, metric)
    found["ac1"], found["ac2"] = ac(plain, [0, 1, 2], False), ac(plain, [0, 1, 2], True)
    weight = dict(zip(table, weights_of([items[item] for item in table]), strict=True))
    found["distribution"] = {
        answer: sum(weight[item] * list(of.values()).count(value) / len(of) for item, of in table.items())
        / sum(weight.values())
        if table
        else None
        for answer, value in values.items()
    }
    found["answers"] = {answer: everything.count(value) for answer, value in values.items()}
    found["cannot_judge"] = sum(row[question] == CANNOT for of in first.values() for row in of.values())
    found["by_rater"] = {}
    for rater in raters:
        own = [of[rater] for of in table.values() if rater in of]
        found["by_rater"][rater] = {"ratings": len(own), "mean": mean(own)}
    return found


def mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None


# Raters


def about_rater(
    rater: str,
    questions: list[str],
    items: dict[int, Drawn],
    first: dict[int, dict[str, Row]],
    rows: list[tuple[Place, Row]],
) -> dict[str, Any]:
    own = {item: of[rater] for item, of in first.items() if rater in of}
    found: dict[str, Any] = {
        "judged": sum(any(row[q] in VALUES[q] for q in questions) for row in own.values()),
        "cannot_judge": sum(any(row[q] == CANNOT for q in questions) for row in own.values()),
        "repeats": 0,
        "repeats_same": 0,
        "gold": 0,
        "gold_right": 0,
    }
    for place, row in rows:
        if place.is_repeat and place.item in own:
            both = [q for q in questions if row[q] in VALUES[q] and own[place.item][q] in VALUES[q]]
            found["repeats"] += bool(both)
            found["repeats_same"] += bool(both) and all(row[q] == own[place.item][q] for q in both)
        for question, right in items[place.item].gold.items():
            if row[question] in VALUES[question]:
                found["gold"] += 1
                found["gold_right"] += row[question] == right
    seconds = [row["seconds"] for _, row in rows if row["seconds"]]
    found["seconds"] = statistics.median(seconds) if seconds else None
    found["deviation"] = {}
    for question in questions:
        values, apart = VALUES[question], []
        for item, row in own.items():
            others = [
                values[other[question]]
                for name, other in first[item].items()
                if name != rater and other[question] in values
            ]
            if row[question] in values and others:
                apart.append(values[row[question]] - sum(others) / len(others))
        found["deviation"][question] = mean(apart)
    return found
