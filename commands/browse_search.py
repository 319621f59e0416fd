"""What `captioner browse --model` searches: the store's features and the vectors of its pins.

STORE.search/ beside the store holds export/ (unless an export is named), items.parquet, native.parquet, and
made.json, which says what the vectors were made from. The next start takes from there what did not change.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

import click

from ..common.files import write_whole
from ..common.terminal import duration, plural, say, steps, wrapped

if TYPE_CHECKING:
    from ..embed.comparison import Comparison
    from ..embed.model import EmbeddingModel
    from ..embed.reader import Export

MADE, LOCK = "made.json", "lock"


class SearchMade(TypedDict):
    """What was made for the search; `--json` prints it."""

    model: str
    export: str
    items: int
    embedded: int  # vectors that were made now, of both sides together; the others were there
    seconds: float


def open_comparison(
    store: Path, model: str | Path, export: str | Path | None, folder: Path
) -> tuple[Comparison, SearchMade]:
    """Loads both searches over a store's pins, and makes what they need in `folder` unless it is there.

    `export`: take the features from there, not from the store. Prints what it does, and how long it takes.
    Raises EmbedError for a model or an export that cannot be used, and StoreError.
    """
    from ..embed.comparison import Comparison
    from ..embed.model import EmbeddingModel

    began = time.perf_counter()
    loaded = EmbeddingModel.load(model)  # first: what is wrong with it should be said at once
    with _alone_in(folder, store):
        features = Path(export) if export else _exported(store, folder / "export")
        rows, embedded = _vectors(loaded, features, folder)
        native, items = folder / "native.parquet", folder / "items.parquet"
        with steps({"encoding queries": "queries"}) as on_step:
            comparison = Comparison.open(loaded, features, native, items, on_step)
    _say_what_is_missing(comparison.enriched.export, store)
    made = SearchMade(
        model=str(model),
        export=str(features),
        items=rows,
        embedded=embedded,
        seconds=round(time.perf_counter() - began, 1),
    )
    return comparison, made


@contextmanager
def _alone_in(folder: Path, store: Path) -> Iterator[None]:
    """Makes the folder, as private as the store. Only one process at a time writes in it."""
    readable = store.stat().st_mode & 0o044
    try:
        folder.mkdir(mode=0o700 | readable | readable >> 2, exist_ok=True)
        lock = (folder / LOCK).open("w")
    except OSError as error:
        if folder.exists() and not folder.is_dir():
            mend = "move it away"
        else:
            mend = "make room" if error.errno == errno.ENOSPC else "make it writable"
        raise click.ClickException(
            f"{folder} cannot hold what the search needs ({error.strerror}): {mend}"
        ) from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"waiting for another captioner, which writes in {folder}")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _exported(store: Path, folder: Path) -> Path:
    """Exports the features of the store, as they are now."""
    from ..export.write import ExportOptions, export
    from ..store import open_store

    began = time.perf_counter()
    # It is not recorded among the store's runs: it is made at each start, and nobody trains on it.
    with closing(open_store(store, read_only=True)) as conn, steps({"reading": "pins"}) as on_step:
        result = export(conn, folder, ExportOptions(), record=False, on_step=on_step)
    say(
        f"read the texts of {plural(result['rows'], 'pin')} in {duration(time.perf_counter() - began)}: "
        f"{folder}"
    )
    return folder


def _vectors(model: EmbeddingModel, export: Path, folder: Path) -> tuple[int, int]:
    """Writes the vectors of both sides, unless those that are there are of this model and export.

    Returns how many items there are, and how many vectors were made now. Raises EmbedError.
    """
    from ..embed.comparison import own_fields
    from ..embed.errors import EmbedError
    from ..embed.item_vectors import ItemVectors, export_for
    from ..embed.item_writer import write_item_vectors
    from ..export.manifest import read_manifest

    began, sides = time.perf_counter(), {"items.parquet": None, "native.parquet": own_fields(model)}
    manifest = read_manifest(export)
    if manifest is not None and not manifest["rows"]:
        raise EmbedError(f"{export} has no pins, so there is nothing to search: ingest pins first")
    whole = export_for(model, export)
    state = _state(model, export)
    try:
        known = (folder / MADE).read_text() == state
        if known and all(len(ItemVectors.open(folder / name, model)) == len(whole) for name in sides):
            say(f"the vectors of {plural(len(whole), 'pin')} are there from before: {folder}")
            return len(whole), 0
    except (OSError, ValueError, EmbedError):
        pass  # they are made again
    (folder / MADE).unlink(missing_ok=True)
    embedded = 0
    for name, fields in sides.items():
        _expect_ours(folder / name)
        with steps({"encoding items": "items"}) as on_step:
            result = write_item_vectors(
                model, export_for(model, export, fields), folder / name, on_step=on_step
            )
        embedded += result["embedded"]
    write_whole(folder / MADE, state)
    say(
        wrapped(
            f"embedded {plural(len(whole), 'pin')} with and without what captioner added, in "
            f"{duration(time.perf_counter() - began)}; new: {plural(embedded, 'vector')}. All are kept in "
            f"{folder}"
        )
    )
    return len(whole), embedded


def _expect_ours(path: Path) -> None:
    """Raises EmbedError if a file is there that does not hold item vectors."""
    from ..embed.errors import EmbedError
    from ..embed.item_vectors import ItemVectors

    if path.exists():
        try:
            ItemVectors.open(path)
        except EmbedError:
            raise EmbedError(
                f"{path} does not hold item vectors: delete it, and the next start makes it again"
            ) from None


def _say_what_is_missing(export: Export, store: Path) -> None:
    """Says why the two sides are the same, and why pins have no picture and no page."""
    from ..store import open_store
    from ..store.pins import known_pins

    if "caption" in export.fields and not len(export.rows_with("caption")):
        say(wrapped("no pin has a caption yet, so captions add nothing: `captioner run` makes them"))
    with closing(open_store(store, read_only=True)) as conn:
        known = known_pins(conn)
    unknown = sum(pin_id not in known for pin_id in export.pin_ids.to_pylist())
    if unknown:
        of_all = f"{unknown:,} of the {plural(len(export), 'pin')} of {export.folder}"
        say(
            wrapped(
                f"{of_all} {'is' if unknown == 1 else 'are'} not in {store}, and shown without a picture: is "
                "it the export of another store?"
            )
        )


def _state(model: EmbeddingModel, export: Path) -> str:
    """What vectors depend on: the export's manifest, which has a digest of each file, and the model."""
    manifest = hashlib.sha256((export / "manifest.json").read_bytes()).hexdigest()
    return json.dumps({"model": model.digest, "manifest": manifest}) + "\n"
