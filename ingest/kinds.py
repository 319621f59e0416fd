"""The kind of a pin: "pin" or "product"."""

from __future__ import annotations

from typing import Any

from ..sources.cells import RowError, is_placeholder
from ..sources.rows import is_missing

KINDS = ("pin", "product")


def kind_of(value: Any) -> str | None:
    """The kind that a cell names, in any case and also in the plural; None if it is missing.

    Raises RowError.
    """
    if value in KINDS:
        return str(value)
    text = value.strip().lower() if isinstance(value, str) else value
    if is_missing(text) or (isinstance(text, str) and is_placeholder(text)):
        return None
    if isinstance(text, str) and text.removesuffix("s") in KINDS:
        return text.removesuffix("s")
    raise RowError("kind is neither pin nor product")
