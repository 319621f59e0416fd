"""A pin to caption, and the caption that came out."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Pin:
    """A pin to caption: where its image is, what is known of it, and the prompt and recipe that apply to it."""

    pin_id: str
    image: str | None
    prompt: str = ""
    recipe_id: str = ""
    image_sha256: str | None = None  # if known before the image is read


@dataclass(frozen=True, slots=True)
class Caption:
    """A row of `captions`.

    `shared` says that it was taken over from a pin with the same image, not made anew.
    """

    pin_id: str
    recipe_id: str
    status: Literal["ok", "rejected", "failed"]
    text: str | None = None
    reason: str | None = None
    image_sha256: str | None = None
    score: float | None = None
    shared: bool = False


def count_by_status(captions: Iterable[Caption]) -> dict[str, int]:
    """{"captioned", "rejected", "failed", "shared"}; a shared caption counts as shared alone."""
    counts = {"captioned": 0, "rejected": 0, "failed": 0, "shared": 0}
    for caption in captions:
        counts["shared" if caption.shared else {"ok": "captioned"}.get(caption.status, caption.status)] += 1
    return counts
