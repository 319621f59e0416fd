"""`captioner run`: takes up the pins of a store that need a caption, until none is left or somebody says
stop.
"""

from __future__ import annotations

import math
import signal
import threading
import time
import warnings as python_warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from types import FrameType
from typing import Any

from ..store import Connection
from ..store.claims import Claims
from ..store.recipes import (
    BUILTIN,
    Recipe,
    file_digests,
    keep_file_digests,
    last_dtype,
    last_revision,
    texts_of_run,
)
from ..store.runs import finish_run, last_arguments, start_run
from ..store.work import Caption, Pin, Select, Work, count_by_status
from .checkpoint import Checkpoint, CheckpointError, find_checkpoint, weights_digest, which

# a caption on more than this share of pins is a sign of a model that does not look, or of a placeholder
# picture
COMMON_SHARE = 0.05
COMMON_FROM = 20  # ... once there are this many pins to speak of


@dataclass(frozen=True)
class Options:
    """What a person may choose for a run; the defaults are those of the command line."""

    model: str | None = None
    revision: str | None = None
    select: Select = "missing-description"
    prompt: str = ""
    batch_size: int | None = None
    min_new_tokens: int = 5
    max_new_tokens: int = 30
    num_beams: int = 1
    no_repeat_ngram: int = 0
    device: str = "auto"
    dtype: str = "auto"
    workers: int | None = None
    limit: int | None = None
    retry_failed: bool = False

    def decoding(self) -> dict[str, Any]:
        return {
            name: getattr(self, name)
            for name in ("min_new_tokens", "max_new_tokens", "num_beams", "no_repeat_ngram")
        }


@dataclass
class Result:
    """What a run did.

    `selected`: pins it set out for; `shared`: taken over from the same picture; `remaining`: still to do.
    """

    recipe_id: str
    selected: int = 0
    captioned: int = 0
    rejected: int = 0
    failed: int = 0
    shared: int = 0
    remaining: int = 0
    seconds: float = 0.0
    images_per_second: float = 0.0
    reasons: dict[str, int] = field(default_factory=dict)
    distinct: int = 0
    most_common: tuple[str, float] | None = None  # a caption and its share of the pins
    stopped: bool = False
    examples: list[tuple[str, str]] = field(default_factory=list)  # (pin_id, caption)

    CONTRACT = (
        "recipe_id",
        "selected",
        "captioned",
        "rejected",
        "failed",
        "shared",
        "remaining",
        "seconds",
        "images_per_second",
    )

    def counts(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.CONTRACT}


def run(
    conn: Connection,
    options: Options,
    *,
    say: Callable[[str], None] = lambda text: None,
    on_batch: Callable[[int, int, int], None] = lambda done, total, batch: None,
) -> Result:
    """Captions what `options` select. `say` gets lines for people, `on_batch` (done, total, batch size) after
    each commit.

    Raises CheckpointError if the model cannot be used, MemoryError if not even one picture fits.
    """
    options = _with_last_model(conn, options)
    assert options.model
    checkpoint = find_checkpoint(options.model, options.revision)
    recipe = _recipe(conn, checkpoint, options)
    if recipe is None:
        return Result("")
    work: Work = Claims(conn, recipe, options.select, retry_failed=options.retry_failed)
    result = Result(recipe.recipe_id, selected=_at_most(work.count(), options.limit))
    if not result.selected:
        return result

    # damaged EXIF and TIFF tags: nothing that a person could act on
    python_warnings.filterwarnings("ignore", module="PIL")
    # Only now is torch imported and the model loaded.
    say(f"loading {recipe.model} ({_size(checkpoint)})")
    from .blip2 import Blip2
    from .model import Decoding, choose_device
    from .worker import Worker

    device = choose_device(options.device)
    model = Blip2(checkpoint, device, recipe.dtype)
    worker = Worker(
        model,
        Decoding(**options.decoding()),
        batch_size=options.batch_size,
        threads=options.workers,
        known=lambda image_sha256, pin: work.known(image_sha256, pin.recipe_id),
    )
    arguments = asdict(options) | {"model": _name(checkpoint), "dtype": recipe.dtype}
    run_id = start_run(conn, "run", arguments, device=device, batch_size=options.batch_size)
    say(
        f"{recipe.model} in {recipe.dtype} on {device}, batch size {options.batch_size or 'auto'}, {worker.threads} threads; recipe {recipe.recipe_id}"
    )
    began = time.monotonic()
    done = 0
    on_batch(0, result.selected, worker.size.current)
    try:
        with _stop_on_signals(worker.stop, say):
            # A claim is as large as a batch, so that processes share a small store too.
            for captions in worker.batches(_claims(work, worker, options.limit)):
                work.commit(captions, run_id)
                done += len(captions)
                _add(result, captions)
                on_batch(done, result.selected, worker.size.current)
    finally:
        result.seconds = round(time.monotonic() - began, 3)
        work.release()
        result.images_per_second = round(done / max(result.seconds, 1e-3), 3)
        result.stopped = worker.stop.is_set()
        result.remaining = work.count()
        finish_run(conn, run_id, result.counts(), batch_size=worker.size.current)
    _diversity(conn, run_id, result)
    return result


def _with_last_model(conn: Connection, options: Options) -> Options:
    """The model that this store used last, where none is named; the same revision of it, where none is named."""
    last = last_arguments(conn, "run") or {}
    changes: dict[str, Any] = {}
    if not options.model:
        if not last.get("model"):
            raise CheckpointError(f"name a model, this store has not used one yet: {which()}")
        changes["model"] = last["model"]
    if not options.revision and last.get("model") == (options.model or last.get("model")):
        changes["revision"] = last_revision(conn, options.model or last["model"])
    return replace(options, **changes)


def _recipe(conn: Connection, checkpoint: Checkpoint, options: Options) -> Recipe | None:
    """The recipe of this run, or None if no pin of the store wants a caption whatever the recipe (saves
    importing torch).
    """
    remembered = file_digests(conn)
    digest = weights_digest(checkpoint, remembered)
    keep_file_digests(conn, remembered)
    dtype: str = options.dtype
    if dtype == "auto":
        dtype = last_dtype(conn, _name(checkpoint)) or "auto"
    recipe = Recipe(
        checkpoint.model,
        checkpoint.revision,
        digest,
        options.prompt,
        options.decoding(),
        checkpoint.preprocessing | {"decoder": 1},
        dtype,
    )
    if dtype == "auto":
        if not Claims(conn, recipe, options.select).count():
            return None
        from .model import choose_device, choose_dtype

        recipe = replace(recipe, dtype=choose_dtype("auto", choose_device(options.device)))
    return recipe


def _name(checkpoint: Checkpoint) -> str:
    """What finds the checkpoint again: a folder by its full path, not by its name alone."""
    return checkpoint.model if checkpoint.model == BUILTIN or checkpoint.revision else str(checkpoint.path)


def _claims(work: Work, worker: Any, limit: int | None) -> Iterator[Pin]:
    left = math.inf if limit is None else limit
    while left > 0 and (pins := work.claim(int(min(worker.size.current, left)))):
        left -= len(pins)
        yield from pins


def _add(result: Result, captions: list[Caption]) -> None:
    for name, n in count_by_status(captions).items():
        setattr(result, name, getattr(result, name) + n)
    for caption in captions:
        if caption.reason:
            result.reasons[caption.reason] = result.reasons.get(caption.reason, 0) + 1
        elif len(result.examples) < 3 and not caption.shared:
            result.examples.append((caption.pin_id, caption.text or ""))


def _diversity(conn: Connection, run_id: int, result: Result) -> None:
    """How many captions differ and on which share of this run's pins the most common one is."""
    texts = texts_of_run(conn, run_id)
    result.distinct = len(texts)
    if texts:
        text, n = texts[0]
        result.most_common = text, n / sum(n for _, n in texts)


def warnings(result: Result) -> list[str]:
    """What a person should know before trusting this run's captions."""
    found = []
    attempted = result.captioned + result.rejected + result.failed + result.shared
    if attempted and result.rejected == attempted:
        found.append(
            "every caption was rejected: look at the reasons, and at the model with `captioner doctor`"
        )
    if (
        result.most_common
        and result.captioned + result.shared >= COMMON_FROM
        and result.most_common[1] > COMMON_SHARE
    ):
        found.append(
            f"one caption covers {result.most_common[1]:.0%} of the pins: {result.most_common[0]!r}; do many pins share a placeholder picture, or does the model not fit these pictures?"
        )
    return found


def _at_most(n: int, limit: int | None) -> int:
    return n if limit is None else min(n, limit)


def _size(checkpoint: Checkpoint) -> str:
    size = sum(p.stat().st_size for p in checkpoint.weight_files) / 1e6
    return f"{size / 1000:.1f} GB" if size > 1000 else f"{size:.0f} MB"


@contextmanager
def _stop_on_signals(stop: threading.Event, say: Callable[[str], None]) -> Iterator[None]:
    """Ctrl-C and SIGTERM set `stop`; a second one ends at once (what was committed stays)."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def handle(number: int, frame: FrameType | None) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()
        say("stopping after the batch in hand (once more to stop at once)")

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
