"""The one store: a SQLite file with pins, captions, board titles, engaged queries and everything about how they came to be."""

from .schema import StoreError, open_store, transaction

__all__ = ["StoreError", "open_store", "transaction"]
