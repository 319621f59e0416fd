"""The one store: a SQLite file with pins, captions, board titles, engaged queries and everything about how they came to be."""

from .features import EnrichedFeatures
from .schema import StoreError, one_moment, open_store, transaction

__all__ = ["EnrichedFeatures", "StoreError", "one_moment", "open_store", "transaction"]
