"""Coverage, compared with a slow count in Python over random stores."""

import sqlite3
from collections import Counter
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pincaption.store import transaction
from pincaption.store.stats import coverage

TEXTS = st.sampled_from([None, ("N/A", 0), ("Oak table", 1)])
IMAGES = st.sampled_from([None, "a.jpg", "b.jpg"])
DIGESTS = st.sampled_from([None, "x", "y"])
# the outcome, and when it was written
CAPTION = st.tuples(
    st.sampled_from(
        ["ok x", "ok y", "rejected empty", "rejected too short", "failed no image", "failed timed out"]
    ),
    st.integers(1, 3),
)
PIN = st.fixed_dictionaries(
    {
        "kind": st.sampled_from(["pin", "product"]),
        "title": TEXTS,
        "description": TEXTS,
        "image": IMAGES,
        "image_sha256": DIGESTS,
        "deleted": st.booleans(),
    }
    | {
        "captions": st.dictionaries(st.sampled_from(["r1", "r2", "r3"]), CAPTION),
        "boards": st.sampled_from([None, "[]", '["tea"]']),
        "queries": st.sampled_from([None, "[]", '["mug"]']),
    }
)


def write(conn: sqlite3.Connection, pins: list[dict[str, Any]]) -> None:
    with transaction(conn):
        for recipe_id in ("r1", "r2", "r3"):
            conn.execute(
                "INSERT INTO recipes VALUES (?, 'm', NULL, 'w', '', '{}', '{}', 'float32')", [recipe_id]
            )
        for i, pin in enumerate(pins):
            title, description = pin["title"] or (None, 0), pin["description"] or (None, 0)
            conn.execute(
                """
                INSERT INTO pins (pin_id, kind, title, has_title, description, has_description,
                    image, image_sha256, deleted_at)
                VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)""",
                [
                    str(i),
                    pin["kind"],
                    *title,
                    *description,
                    pin["image"],
                    pin["image_sha256"],
                    "2026" if pin["deleted"] else None,
                ],
            )
            for recipe_id, (outcome, when) in pin["captions"].items():
                status, _, rest = outcome.partition(" ")
                values = ("a dog", None, rest) if status == "ok" else (None, rest, None)
                conn.execute(
                    """
                    INSERT INTO captions (pin_id, recipe_id, status, text, reason, image_sha256, updated_at)
                    VALUES (?, ?, ?, ?, ?, ?, ?)""",
                    [str(i), recipe_id, status, *values, str(when)],
                )
            if pin["boards"]:
                conn.execute("INSERT INTO board_titles VALUES (?, ?, '[]', '[]')", [str(i), pin["boards"]])
            if pin["queries"]:
                conn.execute(
                    "INSERT INTO engaged_queries VALUES (?, ?, '[]', '[]', '[]', '[]')",
                    [str(i), pin["queries"]],
                )


def counted_slowly(pins: list[dict[str, Any]]) -> dict[str, Any]:
    counts: Counter[str] = Counter()
    reasons: dict[str, Counter[str]] = {"rejected": Counter(), "failed": Counter()}
    images: Counter[str] = Counter()
    for pin in pins:
        if pin["deleted"]:
            continue
        title, description = pin["title"] == ("Oak table", 1), pin["description"] == ("Oak table", 1)
        caption = any(outcome == f"ok {pin['image_sha256']}" for outcome, _ in pin["captions"].values())
        boards, queries = pin["boards"] == '["tea"]', pin["queries"] == '["mug"]'
        counts["pins"] += 1
        counts["products"] += pin["kind"] == "product"
        counts["title"] += title
        counts["description"] += description
        counts["native_text"] += title or description
        counts["caption"] += caption
        counts["only_caption"] += caption and not title and not description
        counts["board_titles"] += boards
        counts["engaged_queries"] += queries
        counts["any_text"] += title or description or caption or boards or queries
        counts["waiting"] += not description and not pin["captions"]
        if pin["captions"] and not caption:
            _, newest = min(pin["captions"].items(), key=lambda item: (-item[1][1], item[0]))
            status, _, reason = newest[0].partition(" ")
            counts["stale" if status == "ok" else status] += 1
            if status != "ok":
                reasons[status][reason] += 1
        if pin["image"]:
            images[pin["image_sha256"] or pin["image"]] += 1
    shared = [n for n in images.values() if n > 1]
    return {
        **counts,
        "reasons": {status: dict(of_status) for status, of_status in reasons.items()},
        "shared_images": len(shared),
        "pins_sharing_images": sum(shared),
    }


@settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
@given(pins=st.lists(PIN, max_size=6))
def test_the_counts_equal_a_slow_count_over_every_pin(
    store: sqlite3.Connection, pins: list[dict[str, Any]]
) -> None:
    store.execute("PRAGMA synchronous = OFF")
    for table in ("captions", "recipes", "pins", "board_titles", "engaged_queries"):
        store.execute(f"DELETE FROM {table}")
    write(store, pins)
    counts = coverage(store)
    expected = counted_slowly(pins)
    assert {
        name: value for name, value in counts.items() if value and name not in ("rejected_rows", "models")
    } == {name: value for name, value in expected.items() if value}


def test_an_empty_store_counts_nothing(store: sqlite3.Connection) -> None:
    counts = coverage(store)
    assert counts.pop("reasons") == {"rejected": {}, "failed": {}}
    assert counts.pop("models") == {}
    assert set(counts.values()) == {0}


def test_models_and_rejected_rows_are_counted_and_the_most_common_reason_comes_first(
    store: sqlite3.Connection,
) -> None:
    rejected = {
        "title": None,
        "description": None,
        "image": "a",
        "image_sha256": "x",
        "kind": "pin",
        "deleted": False,
        "boards": None,
        "queries": None,
    }
    outcomes = ["rejected too short", "rejected empty", "rejected empty", "ok x"]
    write(store, [rejected | {"captions": {"r1": (outcome, 1)}} for outcome in outcomes])
    store.execute("INSERT INTO rejected_rows (source, line, reason) VALUES ('a.csv', 1, 'no pin_id')")
    counts = coverage(store)
    assert list(counts["reasons"]["rejected"].items()) == [("empty", 2), ("too short", 1)]
    assert counts["models"] == {"r1": {"model": "m", "dtype": "float32", "prompt": "", "captions": 1}}
    assert counts["rejected_rows"] == 1
