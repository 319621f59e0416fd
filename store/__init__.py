"""The store: a SQLite file with pins, their captions, board titles and engaged queries, and every run."""

from .connection import Connection, StoreError, is_writable, one_moment, open_store, transaction
from .features import EnrichedFeatures

__all__ = [
    "Connection",
    "EnrichedFeatures",
    "StoreError",
    "is_writable",
    "one_moment",
    "open_store",
    "transaction",
]
