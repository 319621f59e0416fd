"""The error of the trainer."""

from __future__ import annotations

from ..common.errors import PincaptionError


class EmbedError(PincaptionError):
    """An export that cannot be trained on; the message says why and what mends it."""
