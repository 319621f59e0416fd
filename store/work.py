"""What the captioner needs to know of a store: pins to caption, their captions, and the interface `Work`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

# Which pins a run selects: those without a description of their own, those without any text, or every pin.
Select = Literal["missing-description", "missing-text", "all"]


@dataclass(frozen=True, slots=True)
class Pin:
    """A pin to caption: where its image is, and the prompt and recipe that apply to it."""

    pin_id: str
    image: str | None
    prompt: str = ""
    recipe_id: str = ""
    image_sha256: str | None = None  # null until the image has been read once


@dataclass(frozen=True, slots=True)
class Caption:
    """A row of the table `captions`.

    `shared` says that the caption was copied from a pin with the same image: the model did not run for it.
    `truncated` says that the image ends early, and that the caption was made from what is there.
    """

    pin_id: str
    recipe_id: str
    status: Literal["ok", "rejected", "failed"]
    text: str | None = None
    reason: str | None = None
    image_sha256: str | None = None
    score: float | None = None
    shared: bool = False
    truncated: bool = False


class Work(Protocol):
    """The pins that one run has to caption, wherever they are stored.

    `count` says how many pins are left, those included that other processes work on. `claim` reserves up to
    `n` of them for this process; an empty list means that no free pin is left. `known` returns the captions
    that images already have with recipes, by (image_sha256, recipe_id), whichever pin they were made for.
    `commit` writes captions and ends the claims on their pins, all or nothing. `release` gives back every
    claim of this process.
    """

    def count(self) -> int: ...

    def claim(self, n: int) -> list[Pin]: ...

    def known(self, keys: Sequence[tuple[str, str]]) -> dict[tuple[str, str], Caption]: ...

    def commit(self, captions: Sequence[Caption], run_id: int | None = None) -> None: ...

    def release(self) -> None: ...


def count_by_status(captions: Iterable[Caption]) -> dict[str, int]:
    """Counts captions as {"captioned", "rejected", "failed", "shared"}.

    A shared caption counts as shared, whatever its status.
    """
    counts = {"captioned": 0, "rejected": 0, "failed": 0, "shared": 0}
    for caption in captions:
        status = "captioned" if caption.status == "ok" else caption.status
        counts["shared" if caption.shared else status] += 1
    return counts
