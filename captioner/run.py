"""`captioner run`: captions the pins of a store that need it, until none is left or a person stops it."""

from __future__ import annotations

import math
import signal
import threading
import time
import warnings as python_warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from types import FrameType
from typing import TYPE_CHECKING, TypedDict

from ..common.terminal import data_size
from ..images.decode import TRUNCATED
from ..store import Connection
from ..store.claims import Claims
from ..store.recipes import texts_of_run
from ..store.runs import finish_run, start_run
from ..store.work import Caption, Pin, Work, count_by_status
from .download import OnBytes
from .limit import Limit
from .plan import Options, Plan, make_plan, with_last_model

if TYPE_CHECKING:
    from .worker import Worker

__all__ = ["Options", "Result", "RunCounts", "run", "warnings"]

# A caption on more than this share of the pins is a sign of a model that does not see the pictures, or of a
# placeholder picture. Among few pins it happens by chance: two photos of one dog are 8% of 24. So it is only
# reported if chance hardly explains it, and if there are enough pins (see `is_too_common`).
COMMON_SHARE = 0.05
COMMON_FROM = 20  # pins
COMMON_BY_CHANCE = 0.01  # how probable it may be at most that chance alone explains it
EXAMPLES = 3  # captions that a result shows


class RunCounts(TypedDict):
    """What a run did, in numbers of pins.

    `selected` is how many pins the run set out to caption, `shared` how many took over the caption of the
    same picture, `remaining` how many pins are still to be captioned. `seconds` is the time from the first
    claim to the last commit, without loading the model.
    """

    recipe_id: str
    selected: int
    captioned: int
    rejected: int
    failed: int
    shared: int
    remaining: int
    seconds: float
    images_per_second: float


@dataclass
class Result:
    """What a run did. The counts are those of `RunCounts`.

    `reasons` counts the pins that were rejected or failed by reason. `distinct` is the number of different
    captions, `most_common` one of them with its share of the pins. `examples` are pairs of pin_id and
    caption.
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
    truncated: int = 0  # captions, shared ones included, of images that end early
    reasons: dict[str, int] = field(default_factory=dict)
    distinct: int = 0
    most_common: tuple[str, float] | None = None
    stopped: bool = False
    examples: list[tuple[str, str]] = field(default_factory=list)

    @property
    def attempted(self) -> int:
        """The number of pins that got a row."""
        return self.captioned + self.rejected + self.failed + self.shared

    def counts(self) -> RunCounts:
        return RunCounts(
            recipe_id=self.recipe_id,
            selected=self.selected,
            captioned=self.captioned,
            rejected=self.rejected,
            failed=self.failed,
            shared=self.shared,
            remaining=self.remaining,
            seconds=self.seconds,
            images_per_second=self.images_per_second,
        )

    def add(self, captions: list[Caption]) -> None:
        """Adds rows that were committed."""
        counts = count_by_status(captions)
        self.captioned += counts["captioned"]
        self.rejected += counts["rejected"]
        self.failed += counts["failed"]
        self.shared += counts["shared"]
        for caption in captions:
            self.truncated += caption.truncated and caption.status == "ok"
            if caption.reason:
                self.reasons[caption.reason] = self.reasons.get(caption.reason, 0) + 1
            elif len(self.examples) < EXAMPLES and not caption.shared:
                self.examples.append((caption.pin_id, caption.text or ""))

    def add_texts(self, texts: list[tuple[str, int]]) -> None:
        """Adds how many captions differ; `texts` are (caption, pins), the most frequent first."""
        self.distinct = len(texts)
        if texts:
            caption, pins = texts[0]
            self.most_common = caption, pins / sum(n for _, n in texts)


def run(
    conn: Connection,
    options: Options,
    *,
    say: Callable[[str], None] = lambda text: None,
    on_batch: Callable[[int, int, int], None] = lambda done, total, batch: None,
    on_bytes: OnBytes = lambda done, total: None,
    shared_limit: Limit | None = None,
) -> Result:
    """Captions the pins that `options` select and writes the captions into the store.

    `say` gets lines for people. `on_batch` gets (pins done, pins selected, batch size) after each commit,
    `on_bytes` how much of a model has been downloaded, if it is not on the disk.
    `shared_limit` is a limit that this run shares with other processes; without it, `options.limit` holds for
    this run alone. Ctrl-C and SIGTERM end the run after the current batch.

    Raises CheckpointError if the model cannot be used, and MemoryError if not even one picture fits.
    """
    options = with_last_model(conn, options)
    plan = make_plan(conn, options, say=say, on_bytes=on_bytes)
    if plan.dtype == "auto":
        # The recipe depends on the hardware, which only torch knows. It takes seconds to import torch, so it
        # is not done if no pin needs a caption whatever the recipe.
        if not Claims(conn, plan.recipe, options.select).count():
            return Result("")
        plan = plan.with_dtype_of_this_machine()
    work: Work = Claims(
        conn,
        plan.recipe,
        options.select,
        retry_failed=options.retry_failed,
        retry_reason=TRUNCATED if options.truncated == "accept" else None,
    )
    open_pins = work.count()
    selected = open_pins if options.limit is None else min(open_pins, options.limit)
    result = Result(plan.recipe.recipe_id, selected=selected)
    if not selected:
        return result

    # Pillow warns of damaged EXIF and TIFF tags. Nobody could do anything about them.
    python_warnings.filterwarnings("ignore", module="PIL")
    say(f"loading {plan.checkpoint.name} ({data_size(plan.checkpoint.weight_bytes)})")
    worker = plan.worker(work.known)
    run_id = _start(conn, options, plan, worker, say)
    limit = shared_limit or Limit(options.limit)
    limit.join(run_id)
    began = time.monotonic()
    on_batch(0, selected, worker.batch_size.current)
    try:
        with _stop_on_signals(worker.stop, say):
            for captions in worker.batches(_claimed_pins(work, worker, limit)):
                work.commit(captions, run_id)
                result.add(captions)
                on_batch(result.attempted, selected, worker.batch_size.current)
    finally:
        result.seconds = round(time.monotonic() - began, 3)
        work.release()
        result.images_per_second = round(result.attempted / max(result.seconds, 1e-3), 3)
        result.stopped = worker.stop.is_set()
        result.remaining = work.count()
        finish_run(conn, run_id, {**result.counts()}, batch_size=worker.batch_size.current)
    result.add_texts(texts_of_run(conn, run_id))
    return result


def _start(conn: Connection, options: Options, plan: Plan, worker: Worker, say: Callable[[str], None]) -> int:
    """Writes the row of this run and returns its run_id."""
    device, dtype = worker.model.device, plan.dtype
    arguments = asdict(options) | {"model": plan.checkpoint.reference, "dtype": dtype}
    run_id = start_run(conn, "run", arguments, device=device, batch_size=options.batch_size)
    say(
        f"{plan.checkpoint.name} in {dtype} on {device}, batch size {options.batch_size or 'auto'}, "
        f"{worker.threads} threads; recipe {plan.recipe.recipe_id}"
    )
    return run_id


def _claimed_pins(work: Work, worker: Worker, limit: Limit) -> Iterator[Pin]:
    """Claims pins as they are needed, until none is free or the limit is reached.

    A claim is no larger than a batch, so that several processes can share a small store too.
    """
    while wanted := limit.take(worker.batch_size.current):
        pins = work.claim(wanted)
        limit.give_back(wanted - len(pins))
        if not pins:
            break
        yield from pins


def warnings(result: Result) -> list[str]:
    """Sentences that a person should read before using the captions of this run."""
    sentences = []
    if result.attempted and result.rejected == result.attempted:
        sentences.append(
            "every caption was rejected: look at the reasons, and check the model with `captioner doctor`"
        )
    if result.most_common and is_too_common(result.most_common[1], result.captioned + result.shared):
        caption, share = result.most_common
        sentences.append(
            f"one caption covers {share:.0%} of the pins: {caption!r}; do many pins share a placeholder "
            "picture, or does the model not fit these pictures?"
        )
    return sentences


def is_too_common(share: float, pins: int) -> bool:
    """Whether so large a share of so many pins has the same caption that a person should know.

    If a caption fits COMMON_SHARE of all pictures that there are, the share that it has among `pins` of them
    is binomial. By Chernoff's bound (Hoeffding 1963, theorem 1), it is as large as `share` with a probability
    of at most exp(-pins * d), where d is the Kullback-Leibler divergence of `share` from COMMON_SHARE. It is
    too common if that is below COMMON_BY_CHANCE: from 6 of 24 pins, 13 of 100, 73 of 1,000 on.
    """
    if pins < COMMON_FROM or share <= COMMON_SHARE:
        return False
    divergence = share * math.log(share / COMMON_SHARE)
    if share < 1:
        divergence += (1 - share) * math.log((1 - share) / (1 - COMMON_SHARE))
    return math.exp(-pins * divergence) < COMMON_BY_CHANCE


@contextmanager
def _stop_on_signals(stop: threading.Event, say: Callable[[str], None]) -> Iterator[None]:
    """Ctrl-C and SIGTERM set `stop`. A second one raises KeyboardInterrupt; what was committed is kept."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def handle(number: int, frame: FrameType | None) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()
        say("stopping after the current batch (once more to stop at once)")

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
