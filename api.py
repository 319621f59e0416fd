"""What the command line does, as functions. `pincaption` exports them: `from pincaption import run`.

The keyword arguments have the names and the defaults of the options of the command. Where a function takes a
store, it takes the path of one, or a connection from `open_store`; a path is opened and closed again. Every
error that a caller can do something about is a PincaptionError. Rooms are imported inside the functions: this
module loads fast, and a program loads only what it calls.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from datetime import date
from typing import TYPE_CHECKING, Any, Literal

from .common.terminal import OnStep, no_step

if TYPE_CHECKING:
    from .captioner.caption import Picture, PictureCaption
    from .captioner.run import Result as RunResult
    from .embed.checkpoint import TrainResult
    from .embed.history import CurvePoint
    from .embed.model import EmbeddingModel
    from .eval.results import SampleResult, Score
    from .export.write import ExportResult
    from .filters.boards import BoardsResult
    from .filters.queries import QueriesResult
    from .ingest.batches import PinCounts
    from .ingest.embeddings import VectorCounts
    from .ingest.images import ImageCounts
    from .store import Connection
    from .store.stats import Coverage

    Path = str | os.PathLike[str]
    Store = Path | Connection
    Sources = Path | Iterable[Path]


def ingest_pins(
    store: Store,
    sources: Sources,
    *,
    kind: Literal["pin", "product"] | None = None,
    image_root: Path | None = None,
    columns: Mapping[str, str] | None = None,
    format: str | None = None,
    encoding: str | None = None,
    names: Sequence[str] = (),
    sync: bool = False,
    on_step: OnStep = no_step,
) -> PinCounts:
    """Reads tables of pins into the store, like `captioner ingest pins`. Makes a store that is missing.

    `sources` is one or several files, folders, globs, or "-" for JSON Lines on standard input. `columns` maps
    fields of a pin to columns of other names. `format`, `encoding` and `names` (the columns of files without
    a header) say how files are written. With `sync`, pins that are in none of the sources are marked as
    deleted. Bad rows are counted and kept in the table rejected_rows. Raises SourceError, also if all rows of
    a source are bad, StoreError, or OptionError.
    """
    from .ingest import pins
    from .sources.read_as import ReadAs

    read_as = ReadAs(format, encoding, tuple(names))

    paths = _paths(sources)
    # Before the store is made: a mistyped name must not leave an empty store behind.
    pins.check_sources(paths, image_root=_text(image_root), columns=columns, read_as=read_as)
    with _opened(store, create=True) as conn:
        return pins.ingest_pins(
            conn,
            paths,
            kind=kind,
            image_root=_text(image_root),
            columns=columns,
            read_as=read_as,
            sync=sync,
            on_step=on_step,
        )


def ingest_images(
    store: Store,
    folders: Sources,
    *,
    prefix: str | None = None,
    sync: bool = False,
    on_step: OnStep = no_step,
) -> ImageCounts:
    """Makes a pin of every picture in folders and tar archives, like `captioner ingest images`.

    The pin_id is the path below the folder, after `prefix` and a slash. Makes a store that is missing. With
    `sync`, pins of these folders whose file is gone are marked as deleted. Raises SourceError or StoreError.
    """
    from .ingest import images, photo_places

    paths = _paths(folders)
    photo_places.find_places(paths, prefix)  # before the store is made, as above
    with _opened(store, create=True) as conn:
        return images.ingest_images(conn, paths, prefix=prefix, sync=sync, on_step=on_step)


def ingest_embeddings(
    store: Store,
    sources: Sources,
    *,
    name: str,
    columns: Mapping[str, str] | None = None,
    format: str | None = None,
    encoding: str | None = None,
    names: Sequence[str] = (),
    on_step: OnStep = no_step,
) -> VectorCounts:
    """Reads tables of vectors (pin_id, vector) into the store, like `captioner ingest embeddings`.

    `name` is what the vectors are called in the store and in exports. All vectors of one name have the same
    size. `format`, `encoding` and `names` are those of `ingest_pins`. Bad rows are counted and kept in the
    table rejected_rows. Raises SourceError, also if all rows of a source are bad, StoreError, or OptionError.
    """
    from .ingest import embeddings
    from .sources.read_as import ReadAs

    read_as = ReadAs(format, encoding, tuple(names))
    with _opened(store) as conn:
        return embeddings.ingest_embeddings(
            conn, _paths(sources), name, columns=columns, read_as=read_as, on_step=on_step
        )


def caption(
    pictures: Iterable[Picture],
    *,
    model: str,
    revision: str | None = None,
    prompt: str = "",
    batch_size: int | None = None,
    min_new_tokens: int = 5,
    max_new_tokens: int = 30,
    num_beams: int = 1,
    no_repeat_ngram: int = 0,
    device: str = "auto",
    dtype: str = "auto",
    workers: int | None = None,
) -> Iterator[PictureCaption]:
    """Captions pictures without a store. Yields one `PictureCaption` per picture, in the order given.

    A picture is a path, an address, the bytes of an image file, an image of Pillow, or a numpy array (uint8,
    [height, width] or [height, width, 3 or 4]). Pictures are read lazily, a few batches ahead. One that
    cannot be captioned does not stop the others: its `text` is None and its `reason` says why. `model` is
    "builtin", a folder, or a name on the Hugging Face hub (at `revision`). `batch_size` None finds a good
    size, `workers` threads read the pictures. Raises CheckpointError, or MemoryError if the model does not
    fit into memory.
    """
    from .captioner.caption import caption
    from .captioner.model import Decoding

    return caption(
        pictures,
        model=model,
        revision=revision,
        prompt=prompt,
        decoding=Decoding(min_new_tokens, max_new_tokens, num_beams, no_repeat_ngram),
        device=device,
        dtype=dtype,
        batch_size=batch_size,
        threads=workers,
    )


def run(
    store: Store,
    *,
    model: str | None = None,
    revision: str | None = None,
    select: Literal["missing-description", "missing-text", "all"] = "missing-description",
    prompt: str = "",
    batch_size: int | None = None,
    min_new_tokens: int = 5,
    max_new_tokens: int = 30,
    num_beams: int = 1,
    no_repeat_ngram: int = 0,
    device: str = "auto",
    dtype: str = "auto",
    workers: int | None = None,
    limit: int | None = None,
    retry_failed: bool = False,
    truncated: Literal["refuse", "accept"] = "refuse",
    say: Callable[[str], None] = lambda text: None,
    on_batch: Callable[[int, int, int], None] = lambda done, total, batch: None,
) -> RunResult:
    """Captions the pins of a store that need it, like `captioner run`, on one device.

    Captions that an earlier run made are not made again. `model` None is the model that the store used last.
    `say` gets lines for people; `on_batch` is called with (done, total, batch size) after each commit. Ctrl-C
    finishes the current batch, and the result is then `stopped`. Raises StoreError, CheckpointError, or
    MemoryError if not even one picture fits.
    """
    from .captioner.plan import Options
    from .captioner.run import run

    options = Options(
        model=model,
        revision=revision,
        select=select,
        prompt=prompt,
        batch_size=batch_size,
        min_new_tokens=min_new_tokens,
        max_new_tokens=max_new_tokens,
        num_beams=num_beams,
        no_repeat_ngram=no_repeat_ngram,
        device=device,
        dtype=dtype,
        workers=workers,
        limit=limit,
        retry_failed=retry_failed,
        truncated=truncated,
    )
    with _opened(store) as conn:
        return run(conn, options, say=say, on_batch=on_batch)


def aggregate_boards(
    store: Store,
    *,
    boards: Sources = (),
    saves: Sources = (),
    top: int = 10,
    min_boards: int = 1,
    max_board_share: float = 0.02,
    min_chars: int = 2,
    max_chars: int = 60,
    max_words: int = 10,
    generic_titles: Path | None = None,
    columns: Mapping[str, str] | None = None,
    format: str | None = None,
    encoding: str | None = None,
    names: Sequence[str] | Mapping[str, Sequence[str]] = (),
    memory_limit: str | None = None,
    rebuild: bool = False,
    on_step: OnStep = no_step,
) -> BoardsResult:
    """Finds the titles of the boards to which people saved each pin, like `captioner aggregate boards`.

    `boards` and `saves` are tables; what was read before is kept, and not read again. Without sources,
    everything is ranked again with the options given. `columns` maps fields ("saves.pin_id") to columns.
    `format`, `encoding` and `names` are those of `ingest_pins`; `names` can also be a list for each kind,
    {"saves": ["pin_id", "board_id"]}. Raises SourceError, also if all rows of a source are bad, StoreError,
    or OptionError.
    """
    from .filters import boards as room
    from .filters.files import Files

    options = room.BoardOptions(
        top=top,
        min_boards=min_boards,
        max_board_share=max_board_share,
        min_chars=min_chars,
        max_chars=max_chars,
        max_words=max_words,
        generic_titles=_text(generic_titles),
    )
    with _opened(store) as conn:
        return room.aggregate_boards(
            conn,
            boards=_paths(boards),
            saves=_paths(saves),
            options=options,
            columns=columns,
            files=Files(format, encoding, names),
            memory_limit=memory_limit,
            rebuild=rebuild,
            on_step=on_step,
        )


def aggregate_queries(
    store: Store,
    *,
    log: Sources = (),
    as_of: date | None = None,
    window_days: int | None = None,
    top: int = 20,
    weights: Mapping[str, float] | None = None,
    min_engagements: int = 1,
    min_users: int = 1,
    max_per_user: int | None = None,
    max_share_per_user: float | None = None,
    defaults: bool = False,
    columns: Mapping[str, str] | None = None,
    format: str | None = None,
    encoding: str | None = None,
    names: Sequence[str] | Mapping[str, Sequence[str]] = (),
    memory_limit: str | None = None,
    rebuild: bool = False,
    on_step: OnStep = no_step,
) -> QueriesResult:
    """Finds the queries that led people to each pin, like `captioner aggregate queries`.

    `log` is tables of engagements; what was read before is kept, and not read again. Without sources,
    everything is ranked again. `as_of` None is the newest day in the log. `weights` changes or adds weights
    of actions. Weights, `window_days`, `max_per_user` and `max_share_per_user` that are not named are those
    of the last call for this store; with `defaults`, and at first, they are save=1, long_click=1, click=0.25,
    730 days and no bounds. `format`, `encoding` and `names` are those of `ingest_pins`. Raises SourceError,
    also if all rows of a source are bad, StoreError, or OptionError for a weight or another option that is
    not allowed.
    """
    from .filters import queries as room
    from .filters.files import Files

    counting: dict[str, Any] = {
        "window_days": window_days,
        "max_per_user": max_per_user,
        "max_share_per_user": max_share_per_user,
    }
    with _opened(store) as conn:
        options = room.QueryOptions() if defaults else room.remembered_options(conn)
        options = replace(
            options,
            as_of=as_of,
            top=top,
            min_engagements=min_engagements,
            min_users=min_users,
            **{name: value for name, value in counting.items() if value is not None},
        ).with_weights(weights or {})
        return room.aggregate_queries(
            conn,
            log=_paths(log),
            options=options,
            columns=columns,
            files=Files(format, encoding, names),
            memory_limit=memory_limit,
            rebuild=rebuild,
            on_step=on_step,
        )


def coverage(store: Store) -> Coverage:
    """Counts the pins that have text, captions, titles and queries, like `captioner stats`.

    Does not write to the store. Raises StoreError.
    """
    from .store import stats

    with _opened(store, read_only=True) as conn:
        return stats.coverage(conn)


def sample(
    store: Store,
    folder: Path,
    *,
    n: int = 200,
    margin: float | None = None,
    raters: int = 3,
    stratify: str | None = None,
    allocation: Literal["equal", "proportional"] = "equal",
    duplicates: float = 0.05,
    seed: int = 0,
    gold: Path | None = None,
    format: Literal["sheets", "label-studio"] = "sheets",
    dry_run: bool = False,
    on_step: OnStep = no_step,
) -> SampleResult:
    """Draws captions for people to judge and writes a sheet per rater, like `captioner eval sample`.

    `margin` replaces `n`: as many items as a 95% interval of ± `margin` needs (0.02 is two points). `gold` is
    a table of items whose answers are known. The format "label-studio" writes tasks for that program. The
    same seed on the same store gives the same sheets. With `dry_run`, nothing is written: the result says
    what would be drawn, also of a store that is read-only.
    Raises StoreError, SampleError, SheetError (the folder holds something that would be lost) or SourceError.
    """
    from .eval.sample import sample

    with _opened(store, read_only=dry_run) as conn:
        return sample(
            conn,
            os.fspath(folder),
            n=n,
            margin=margin,
            raters=raters,
            stratify=stratify,
            allocation=allocation,
            duplicates=duplicates,
            seed=seed,
            gold=_text(gold),
            format=format,
            dry_run=dry_run,
            on_step=on_step,
        )


def score(
    store: Store,
    sheets: Sources = (),
    *,
    rater: str | None = None,
    sample_id: str | None = None,
    report: Path | None = None,
) -> Score:
    """Reads filled sheets and says how good the captions are, like `captioner eval score`.

    Exports of Label Studio are read, too. `rater` says who filled the sheets in, if several people did so.
    Without sheets, everything that the store has for `sample_id`, or for the newest sample, counts. `report`
    is an HTML page to write as well. Raises StoreError, SheetError, SampleError or ReportError.
    """
    from .eval.score import score

    with _opened(store) as conn:
        return score(conn, _paths(sheets), rater=rater, sample_id=sample_id, report=_text(report))


def export_features(
    store: Store,
    folder: Path,
    *,
    format: Literal["parquet", "jsonl", "sidecar", "imagefolder", "webdataset"] = "parquet",
    shards: int | None = None,
    seed: int = 0,
    recipe: str | None = None,
    schema: Literal["store", "omnisearchsage"] = "store",
    as_of: date | None = None,
    pairs: bool = False,
    test_from: date | None = None,
    undated: Literal["refuse", "include", "drop"] = "refuse",
    memory_limit: str | None = None,
    on_step: OnStep = no_step,
) -> ExportResult:
    """Writes what a trainer reads to a folder, like `captioner export`. Replaces an earlier export there.

    Each pin is one row of features, with the titles and queries known on the day `as_of`. With `pairs`, what
    people did after that day is written too, from the day `test_from` on as the test split. The same store,
    seed and options give the same bytes. The formats "sidecar", "imagefolder" and "webdataset" write texts
    and pictures as other tools read them. Raises StoreError, or OptionError for options that contradict.
    """
    from .export.write import ExportOptions, export
    from .store import is_writable

    options = ExportOptions(
        format=format,
        shards=shards,
        seed=seed,
        schema=schema,
        recipe=recipe,
        as_of=as_of,
        pairs=pairs,
        test_from=test_from,
        undated=undated,
        memory_limit=memory_limit,
    )
    # A store that cannot be written can still be exported. Then the table `runs` does not record the export.
    writable = not isinstance(store, (str, os.PathLike)) or is_writable(os.fspath(store))
    with _opened(store, read_only=not writable) as conn:
        return export(conn, os.fspath(folder), options, record=writable, on_step=on_step)


def train(
    export: Path,
    model: Path,
    *,
    encoder: str = "none",
    revision: str | None = None,
    fields: Sequence[str] | None = None,
    epochs: float = 3,
    batch: int = 256,
    learning_rate: float = 2e-4,
    table_learning_rate: float = 1e-3,
    encoder_learning_rate: float = 3e-5,
    hard_negatives: int = 0,
    mix: Mapping[str, float] | None = None,
    correction: Literal["popularity", "conditional", "none"] = "popularity",
    mask_known: bool = False,
    compatible: Sequence[str] = (),
    hashed: bool = False,
    width: int = 512,
    dims: Sequence[int] = (64, 128, 256),
    workers: int = 1,
    device: Literal["auto", "cpu"] = "auto",
    every: int | None = None,
    seed: int = 0,
    on_step: OnStep = no_step,
    on_point: Callable[[CurvePoint], None] = lambda point: None,
) -> TrainResult:
    """Trains a search embedding on an export with pairs, like `captioner embed train`.

    Writes it to the folder `model`, from which `load_model` loads it. A training that was stopped continues
    from its last checkpoint; one that is done is left alone. `mix` changes weights of tasks in a batch.
    `on_point` gets each point of the learning curve. `workers` processes make the batches. Raises EmbedError.
    """
    from .embed.options import TrainOptions
    from .embed.reader import FIELDS
    from .embed.sizes import Sizes
    from .embed.training import train

    options = TrainOptions(
        encoder=encoder,
        revision=revision,
        sizes=Sizes(width=width, prefixes=tuple(sorted(set(dims)))),
        fields=FIELDS if fields is None else tuple(fields),
        hashed=hashed,
        epochs=epochs,
        batch=batch,
        learning_rate=learning_rate,
        table_learning_rate=table_learning_rate,
        encoder_learning_rate=encoder_learning_rate,
        hard_negatives=hard_negatives,
        mix=tuple((mix or {}).items()),
        correction=correction,
        mask_known=mask_known,
        compatible=tuple(compatible),
        every=every,
        seed=seed,
    )
    return train(
        os.fspath(export),
        os.fspath(model),
        options,
        workers=workers,
        device=None if device == "auto" else device,
        on_step=on_step,
        on_point=on_point,
    )


def load_model(folder: Path, *, device: str = "cpu") -> EmbeddingModel:
    """Loads a model that `train` wrote, onto a device by torch's name.

    `embed_queries(texts)` gives a tensor [texts, numbers], and `embed_items(export)` one for the items of an
    export; the dot product of the two says how well they fit. Raises EmbedError.
    """
    from .embed.model import EmbeddingModel

    return EmbeddingModel.load(os.fspath(folder)).to(device)


@contextmanager
def _opened(store: Store, *, create: bool = False, read_only: bool = False) -> Iterator[Connection]:
    """The connection of a caller as it is, or one to the path of a caller, closed at the end of the block."""
    from .store import open_store

    if not isinstance(store, (str, os.PathLike)):
        yield store
        return
    with closing(open_store(os.fspath(store), create=create, read_only=read_only)) as conn:
        yield conn


def _paths(sources: Sources) -> list[str]:
    if isinstance(sources, (str, os.PathLike)):
        return [os.fspath(sources)]
    return [os.fspath(source) for source in sources]


def _text(path: Path | None) -> str | None:
    return None if path is None else os.fspath(path)
