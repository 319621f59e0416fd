"""From the options of a run to a `Plan`: everything that a worker needs, as a record that can be pickled."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

from ..store import Connection
from ..store.recipes import Recipe, file_digests, keep_file_digests, last_dtype, last_revision
from ..store.runs import last_arguments
from ..store.work import Select
from .checkpoint import Checkpoint, CheckpointError, weights_digest
from .download import OnBytes
from .find import find_checkpoint, known_models
from .model import CaptionModel, Decoding, choose_device, choose_dtype
from .preprocessing import read_preprocessing

if TYPE_CHECKING:
    from ..images.fetch import Fetcher
    from .worker import FindCaptions, Worker


@dataclass(frozen=True)
class Options:
    """What a person may choose for a run. The defaults are those of the command line.

    A `model` of None is the model that the store used last, a `dtype` of "auto" the one that it used last
    with this model. `batch_size` None finds a good size, `workers` None is one thread per core. `limit` is
    the largest number of pins to caption.
    """

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
    truncated: Literal["refuse", "accept"] = "refuse"  # a JPEG or PNG that ends early

    @property
    def decoding(self) -> Decoding:
        return Decoding(self.min_new_tokens, self.max_new_tokens, self.num_beams, self.no_repeat_ngram)


@dataclass(frozen=True)
class Plan:
    """Everything that is needed to make a worker, in this process or in another one: a plan can be pickled.

    `weights_digest` is the digest of the checkpoint's files; it may be empty where no recipe is kept. A
    `dtype` or `device` of "auto" is chosen where the model is loaded. The other fields are as in `Worker`;
    None takes the worker's default.
    """

    checkpoint: Checkpoint
    weights_digest: str = ""
    prompt: str = ""
    decoding: Decoding = field(default_factory=Decoding)
    dtype: str = "auto"
    device: str = "auto"
    batch_size: int | None = None
    threads: int | None = None
    max_pixels: int | None = None
    seconds_per_image: float | None = None
    accept_truncated: bool = False

    @functools.cached_property
    def recipe(self) -> Recipe:
        """The recipe of the captions that this plan makes."""
        from ..images.decode import DECODER_VERSION

        return Recipe(
            model=self.checkpoint.name,
            revision=self.checkpoint.revision,
            weights_digest=self.weights_digest,
            prompt=self.prompt,
            decoding=asdict(self.decoding),
            preprocessing={**read_preprocessing(self.checkpoint), "decoder": DECODER_VERSION},
            dtype=self.dtype,
        )

    def with_dtype_of_this_machine(self) -> Plan:
        """The same plan with a `dtype` that is not "auto". Imports torch."""
        return replace(self, dtype=choose_dtype(self.dtype, choose_device(self.device)))

    def load_model(self) -> CaptionModel:
        """Loads the model on this machine. Raises CheckpointError or MemoryError."""
        from .blip2 import Blip2

        device = choose_device(self.device)
        checkpoint = self.checkpoint
        if not checkpoint.path.is_dir():  # the plan was made on another machine
            checkpoint = find_checkpoint(checkpoint.reference, checkpoint.revision)
        return Blip2(checkpoint, device, choose_dtype(self.dtype, device))

    def worker(self, find_captions: FindCaptions | None = None, fetcher: Fetcher | None = None) -> Worker:
        """Loads the model and makes a worker. Raises CheckpointError or MemoryError."""
        from .worker import Worker

        chosen: dict[str, Any] = {
            "max_pixels": self.max_pixels,
            "seconds_per_image": self.seconds_per_image,
            "find_captions": find_captions,
        }
        return Worker(
            self.load_model(),
            self.decoding,
            batch_size=self.batch_size,
            threads=self.threads,
            fetcher=fetcher,
            accept_truncated=self.accept_truncated,
            **{name: value for name, value in chosen.items() if value is not None},
        )


def with_last_model(conn: Connection, options: Options) -> Options:
    """Fills in the model that the store used last, and the revision that it used last with this model.

    Raises CheckpointError if no model is named and the store has not used one.
    """
    if options.model is not None and not options.model.strip():
        raise CheckpointError(f"the name of the model is empty: name one, {known_models()}")
    last_model = (last_arguments(conn, "run") or {}).get("model")
    model = options.model or last_model
    if not model:
        raise CheckpointError(f"name a model, this store has not used one yet: {known_models()}")
    revision = options.revision
    if not revision and model == last_model:
        revision = last_revision(conn, model)
    return replace(options, model=model, revision=revision)


def make_plan(
    conn: Connection,
    options: Options,
    *,
    say: Callable[[str], None] = lambda text: None,
    on_bytes: OnBytes = lambda done, total: None,
) -> Plan:
    """The plan for a run with these options, which name a model. Needs no torch.

    A model of the hub is downloaded if it is not on the disk; `say` gets lines for people about that,
    `on_bytes` how much has come. A dtype of "auto" becomes the one that the store used last with this model;
    if there is none, it stays "auto". Digests of files are remembered in the store. Raises CheckpointError.
    """
    if not options.model:
        raise CheckpointError(f"name a model: {known_models()}")
    checkpoint = find_checkpoint(options.model, options.revision, say=say, on_bytes=on_bytes)
    digests = file_digests(conn)
    digest = weights_digest(checkpoint, digests)
    keep_file_digests(conn, digests)
    dtype = options.dtype
    if dtype == "auto":
        dtype = last_dtype(conn, checkpoint.reference) or "auto"
    return Plan(
        checkpoint,
        weights_digest=digest,
        prompt=options.prompt,
        decoding=options.decoding,
        dtype=dtype,
        device=options.device,
        batch_size=options.batch_size,
        threads=options.workers,
        accept_truncated=options.truncated == "accept",
    )
