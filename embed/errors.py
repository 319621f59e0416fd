"""The error that this package raises."""

from __future__ import annotations

from ..common.errors import PincaptionError


class EmbedError(PincaptionError):
    """An export, a model or an option that cannot be used. The message says why, and what to do."""
