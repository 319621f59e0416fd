"""The query log of the drawn world: what people search for, and what they do with the pins that they see."""

from __future__ import annotations

import random
from datetime import timedelta
from typing import Any

from .chance import uneven_choice
from .draw import Scene
from .pins import LAST_DAY, DrawnPin, name_of

LOG_DAYS = 30
SEARCHES_PER_PIN = 18

# Queries that have nothing to do with the pin that was found.
_OFF_TOPIC = (
    "dinner ideas",
    "tattoo",
    "nail art",
    "living room paint",
    "birthday cake",
    "free printables",
    "how to draw",
)
_ACTIONS = {"impression": 0.25, "click": 0.4, "long_click": 0.15, "save": 0.2}


def make_log(pins: list[DrawnPin], rng: random.Random) -> list[dict[str, Any]]:
    """Rows of the query log: who searched for what, did what with which pin, and how often on that day."""
    users = [f"user-{i:03d}" for i in range(max(30, len(pins)))]
    queries = {pin.pin_id: _queries(pin.scene) for pin in pins}
    rows = list[dict[str, Any]]()
    for pin in rng.choices(pins, [pin.popularity for pin in pins], k=len(pins) * SEARCHES_PER_PIN):
        weights = queries[pin.pin_id]
        if rng.random() > 0.03:
            query = rng.choices(list(weights), list(weights.values()))[0]
        else:
            query = rng.choice(_OFF_TOPIC)
        if rng.random() < 0.08:
            query = _as_people_type(query, rng)
        if not rows or rng.random() < 0.002:
            query = f"mia@example.org {query}"
        action = rng.choices(list(_ACTIONS), list(_ACTIONS.values()))[0]
        count = 1 + min(int(rng.expovariate(1.5 if action != "impression" else 0.4)), 20)
        day = LAST_DAY - timedelta(days=int(LOG_DAYS * rng.random() ** 1.2))
        rows.append(
            {
                "pin_id": pin.pin_id,
                "query": query,
                "action": action,
                "date": day,
                "count": count,
                "user_id": uneven_choice(users, rng) if rng.random() > 0.02 else None,
            }
        )
    return rows


def _as_people_type(query: str, rng: random.Random) -> str:
    """The query in another case, or with blanks or a mark too many."""
    changes = (
        str.upper,
        str.title,
        lambda q: f" {q} ",
        lambda q: f"{q}!",
        lambda q: q.replace(" ", "  "),
    )
    return rng.choice(changes)(query)


def _queries(scene: Scene) -> dict[str, float]:
    """Queries that lead to such a picture, with their weights."""
    first, last = scene.things[0], scene.things[-1]
    name = name_of(scene)
    weights = {
        str(first): 4.0,
        first.noun: 2.0,
        f"{first.noun} drawing": 1.0,
        f"{first} print": 1.0,
        f"{scene.background} background wallpaper": 0.7,
        f"{first.noun} wall art": 0.5,
        f"{name} {scene.background} background": 0.5,
        f"cute {first.noun}": 0.5,
    }
    if scene.relation:
        weights |= {
            name: 4.0,
            f"{first.noun} {scene.relation} {last.noun}": 3.0,
            f"{first.noun} and {last.noun}": 2.0,
            str(last): 2.0,
            last.noun: 1.0,
        }
    elif scene.count > 1:
        weights |= {name: 5.0, name.replace(f" {first.colour}", ""): 3.0}
    return weights
