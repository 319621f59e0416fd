"""Downloads a checkpoint of the Hugging Face hub: small files first, the weights when those are checked.

Files are kept in the hub's cache on this disk, where every program of Hugging Face finds them. Needs no
torch.
"""

from __future__ import annotations

import contextlib
import shutil
import time
from collections.abc import Callable
from fnmatch import fnmatch
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from ..common.terminal import data_size, duration, plural
from .blip2_layout import check_before_weights
from .checkpoint import FILES, MAX_TEXT, Checkpoint, CheckpointError

if TYPE_CHECKING:
    from huggingface_hub.hf_api import ModelInfo

# Reports a download: (bytes so far, bytes in all).
OnBytes = Callable[[int, int], None]

TRIES = 5  # for each file of weights, if the connection is reset
_WEIGHTS = ".safetensors"


def download(
    model: str, revision: str | None, info: ModelInfo, say: Callable[[str], None], on_bytes: OnBytes
) -> Checkpoint:
    """Downloads what is not on this disk yet of `model` at the commit of `info`, and no file without use.

    `revision` is what the commit was asked for by; the cache remembers that for times without a network.
    `say` gets a line before the weights are downloaded: how many files and GB, and where they go. `on_bytes`
    is called while they come. If the connection breaks off, the download goes on. Files that were complete
    are kept whatever happens, so that the next try only downloads the others.

    Raises CheckpointError before the weights are downloaded, if the checkpoint cannot work or if the disk has
    no room for it, and also if the hub stops giving them.
    """
    from huggingface_hub import hf_hub_download

    commit = str(info.sha)
    sizes = {
        file.rfilename: file.size
        for file in info.siblings or ()
        if "/" not in file.rfilename and any(fnmatch(file.rfilename, pattern) for pattern in FILES)
    }
    large = sorted(n for n, size in sizes.items() if n.endswith(_WEIGHTS) or (size or 0) > MAX_TEXT)
    if "config.json" not in sizes or "config.json" in large:
        raise CheckpointError(
            f"{model} at {commit[:12]} is not a checkpoint: it has no config.json on the hub, or none of a "
            "usual size; look at its files there"
        )
    silent = cast(Any, _bar(lambda n: None))
    for name in sorted(sizes.keys() - set(large)):
        path = hf_hub_download(model, name, revision=commit, tqdm_class=silent)
    checkpoint = Checkpoint(model, Path(path).parent, commit)
    check_before_weights(checkpoint, sizes)
    _download_weights(checkpoint, large, say, on_bytes)
    if revision != commit:
        with contextlib.suppress(Exception):
            hf_hub_download(model, "config.json", revision=revision, tqdm_class=silent)
    return checkpoint


def _download_weights(
    checkpoint: Checkpoint, names: list[str], say: Callable[[str], None], on_bytes: OnBytes
) -> None:
    from huggingface_hub import hf_hub_download

    # A dry run asks the hub for the size of each file that is not on the disk.
    files = [
        hf_hub_download(checkpoint.name, name, revision=checkpoint.revision, dry_run=True) for name in names
    ]
    missing = {file.filename: file.file_size or 0 for file in files if file.will_download}
    total, free = sum(missing.values()), shutil.disk_usage(checkpoint.path).free
    if total > free:
        raise CheckpointError(
            f"{checkpoint.title} needs {data_size(total)} more on the disk of {_cache()}, where "
            f"{data_size(free)} are free: make room there, or name a folder on another disk in the variable "
            "HF_HOME"
        )
    if missing:
        say(
            f"downloading {checkpoint.title}: {plural(len(missing), 'file')} of weights, {data_size(total)}, "
            f"to {_cache()} ({data_size(free)} free)"
        )
        on_bytes(0, total)
    began, done = time.monotonic(), 0

    def count(n: int) -> None:
        nonlocal done
        done += n
        on_bytes(done, total)

    for name in names:
        before = done
        for attempt in range(1, TRIES + 1):
            try:
                hf_hub_download(
                    checkpoint.name, name, revision=checkpoint.revision, tqdm_class=cast(Any, _bar(count))
                )
                break
            except Exception as error:
                # The library itself goes on near the byte where a connection ended. If one is reset, it
                # gives up with an error of httpx, and the file begins anew.
                done = before
                if attempt < TRIES and type(error).__module__.startswith("httpx"):
                    say(f"the connection broke off at {name} ({reason(error)}): once more")
                    continue
                raise CheckpointError(
                    f"the download of {checkpoint.title} broke off at {name} ({reason(error)}): files that "
                    "are complete are kept, and the same command downloads the others"
                ) from None
        done = before + missing.get(name, 0)
    if missing:
        on_bytes(total, total)
        say(f"downloaded {data_size(total)} in {duration(time.monotonic() - began)}")


def _bar(count: Callable[[int], None]) -> type:
    """What the library calls as it calls tqdm's bar of a file. It shows nothing, and counts bytes."""

    class Bar:
        def __init__(self, *args: Any, total: float | None = None, initial: int = 0, **options: Any) -> None:
            self.total, self.n = total, initial

        def update(self, n: float | None = 1) -> None:
            self.n += int(n or 0)
            count(int(n or 0))

        # The library counts what comes over the network apart from what is written, if there is this method.
        def update_transfer(self, n: float | None = 1) -> None: ...

        def set_postfix_str(self, *args: Any, **options: Any) -> None: ...

        def set_transfer_postfix_str(self, *args: Any, **options: Any) -> None: ...

        def refresh(self, *args: Any, **options: Any) -> None: ...

        def close(self) -> None: ...

        def __enter__(self) -> Bar:
            return self

        def __exit__(self, *error: object) -> None: ...

    return Bar


def _cache() -> Path:
    from huggingface_hub.constants import HF_HUB_CACHE

    return Path(HF_HUB_CACHE)


def reason(error: Exception) -> str:
    """What an error of the hub's library says, in a few words."""
    text = (str(error).strip() or type(error).__name__).splitlines()[0]
    if "offline" in text.lower() or "outgoing traffic" in text:
        return "HF_HUB_OFFLINE is set"
    return text if len(text) <= 200 else f"{text[:200]}..."
