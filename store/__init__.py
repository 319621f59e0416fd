"""The one store: a SQLite file with pins, captions, board titles, engaged queries and everything about how
they came to be.
"""

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
