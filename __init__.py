"""Makes pins and products findable: image captions, board titles and queries for training a search embedding.

The command line is `captioner`. For programs, the names below do the same; docs/api.md shows each of them.
They are imported when they are first used, so that `import pincaption` is fast and loads no library.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .common.version import __version__

if TYPE_CHECKING:
    from .api import (
        aggregate_boards,
        aggregate_queries,
        caption,
        coverage,
        export_features,
        ingest_embeddings,
        ingest_images,
        ingest_pins,
        load_model,
        run,
        sample,
        score,
        train,
    )
    from .common.errors import PincaptionError
    from .store.connection import open_store
    from .store.features import EnrichedFeatures

__all__ = [
    "EnrichedFeatures",
    "PincaptionError",
    "__version__",
    "aggregate_boards",
    "aggregate_queries",
    "caption",
    "coverage",
    "export_features",
    "ingest_embeddings",
    "ingest_images",
    "ingest_pins",
    "load_model",
    "open_store",
    "run",
    "sample",
    "score",
    "train",
]
# Where the names are that do not come from api.py.
_MODULES = {
    "EnrichedFeatures": ".store.features",
    "PincaptionError": ".common.errors",
    "open_store": ".store.connection",
}


if not TYPE_CHECKING:  # type checkers see the imports above; with this function, they would accept any name

    def __getattr__(name: str) -> Any:
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = getattr(import_module(_MODULES.get(name, ".api"), __name__), name)
        globals()[name] = value  # the next access does not come here
        return value


def __dir__() -> list[str]:
    return __all__
